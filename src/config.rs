//! Every setting: its name, default, unit and one line of documentation, as plain data.
//!
//! [`SETTINGS`] is the one list. A flag `--data-dir`, a variable `MILLSTREAM_DATA_DIR` and the
//! field `data_dir` of [`ServerConfig`] are the same setting; [`ServerConfig::set`] is the one
//! place that reads a value. Bounds of queues and waits stand here too, each with its reason.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::types::error::{Error, Result, SqlState};

/// One entry of the list of settings.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Snake case; the flag has dashes, the variable is upper case behind `MILLSTREAM_`.
    pub name: &'static str,
    /// As a user would write it; empty when there is none, with the reason in `doc`.
    pub default: &'static str,
    /// What a value looks like: `path`, `URL`, `address:port`, `count`, `size`, `duration`.
    pub unit: &'static str,
    pub doc: &'static str,
}

/// All settings of a server, in the order of the documentation.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "data_dir",
        default: "./millstream-data",
        unit: "path",
        doc: "Directory of the files that the server makes; made when it is missing.",
    },
    Setting {
        name: "storage",
        default: "",
        unit: "URL",
        doc: "Where durable state goes: file:///path, s3://bucket/prefix, gs://bucket/prefix, \
              az://container/prefix, or memory:// for none. \
              Default: the folder storage of the data directory.",
    },
    Setting {
        name: "checkpoint_interval",
        default: "1s",
        unit: "duration",
        doc: "How often what has changed of tables and views is written to files: how much is \
              done again after a crash.",
    },
    Setting {
        name: "from_savepoint",
        default: "",
        unit: "name",
        doc: "Start with the state of this savepoint; what happened since is gone. \
              Default: the newest state.",
    },
    Setting {
        name: "listen",
        default: "127.0.0.1:7432",
        unit: "address:port",
        doc: "Where SQL clients connect (Postgres protocol). Port 0 takes a free one.",
    },
    Setting {
        name: "http",
        default: "127.0.0.1:7433",
        unit: "address:port",
        doc: "Where /health, /ready, /version and /metrics are served. Port 0 takes a free one.",
    },
    Setting {
        name: "workers",
        default: "",
        unit: "count",
        doc: "Threads that maintain views. Default: the processor cores there are.",
    },
    Setting {
        name: "memory_limit",
        default: "",
        unit: "size",
        doc: "Memory of the process, beyond which state goes to the local disk. Default: three \
              quarters of the machine's.",
    },
    Setting {
        name: "history_retention",
        default: "10min",
        unit: "duration",
        doc: "For how long tables and views can be read as they were, where they do not say; 0s \
              keeps nothing.",
    },
    Setting {
        name: "history_memory_limit",
        default: "256MiB",
        unit: "size",
        doc: "Memory for all of that together, at most an eighth of --memory-limit; beyond it the \
              oldest changes are forgotten.",
    },
    Setting {
        name: "epoch_interval_max",
        default: "10ms",
        unit: "duration",
        doc: "How long an epoch may last under load, before its changes become visible.",
    },
    Setting {
        name: "lock_timeout",
        default: "10s",
        unit: "duration",
        doc: "How long a write waits for a table that another transaction is writing.",
    },
    Setting {
        name: "shutdown_timeout",
        default: "10s",
        unit: "duration",
        doc: "How long a stopping server waits for running statements.",
    },
];

/// A server's settings, read and checked.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub data_dir: PathBuf,
    pub storage: Storage,
    pub checkpoint_interval: Duration,
    pub from_savepoint: Option<String>,
    pub listen: SocketAddr,
    pub http: SocketAddr,
    pub workers: NonZeroUsize,
    pub memory_limit_bytes: u64,
    pub history_retention: Duration,
    pub history_memory_limit_bytes: u64,
    pub epoch_interval_max: Duration,
    pub lock_timeout: Duration,
    pub shutdown_timeout: Duration,
}

/// Where durable state goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Below the data directory.
    DataDir,
    /// Below a directory of its own (`file://`).
    Directory(PathBuf),
    /// In a bucket: `s3://`, `gs://` or `az://`, with credentials from the environment.
    Remote(String),
    /// Nowhere: gone when the server stops (`memory://`).
    Memory,
}

impl Default for ServerConfig {
    /// The defaults of [`SETTINGS`]; those that depend on the machine are asked of it.
    fn default() -> ServerConfig {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = ServerConfig {
            data_dir: PathBuf::new(),
            storage: Storage::DataDir,
            checkpoint_interval: Duration::ZERO,
            from_savepoint: None,
            listen: address,
            http: address,
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            memory_limit_bytes: memory_of_machine_bytes() / 4 * 3,
            history_retention: Duration::ZERO,
            history_memory_limit_bytes: 0,
            epoch_interval_max: Duration::ZERO,
            lock_timeout: Duration::ZERO,
            shutdown_timeout: Duration::ZERO,
        };
        for setting in SETTINGS.iter().filter(|s| !s.default.is_empty()) {
            config.set(setting.name, setting.default).expect("defaults are checked by a test");
        }
        config
    }
}

impl ServerConfig {
    /// Sets one setting from its text.
    ///
    /// # Errors
    /// SQLSTATE 22023 when the value is not of the setting's kind; 42704 for an unknown name.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let outcome = match name {
            "data_dir" => parse_path(value).map(|v| self.data_dir = v),
            "storage" => parse_storage(value).map(|v| self.storage = v),
            "checkpoint_interval" => parse_duration(value).map(|v| self.checkpoint_interval = v),
            "from_savepoint" => parse_name(value).map(|v| self.from_savepoint = Some(v)),
            "listen" => parse_address(value).map(|v| self.listen = v),
            "http" => parse_address(value).map(|v| self.http = v),
            "workers" => parse_count(value).map(|v| self.workers = v),
            "memory_limit" => parse_size(value).map(|v| self.memory_limit_bytes = v),
            "history_retention" => parse_duration(value).map(|v| self.history_retention = v),
            "history_memory_limit" => {
                parse_size(value).map(|v| self.history_memory_limit_bytes = v)
            }
            "epoch_interval_max" => parse_duration(value).map(|v| self.epoch_interval_max = v),
            "lock_timeout" => parse_duration(value).map(|v| self.lock_timeout = v),
            "shutdown_timeout" => parse_duration(value).map(|v| self.shutdown_timeout = v),
            _ => {
                return Err(Error::user(
                    SqlState::UNDEFINED_OBJECT,
                    format!("there is no setting \"{name}\""),
                ));
            }
        };
        outcome.map_err(|error| error.context(format!("setting \"{name}\"")))
    }
}

fn invalid(message: String) -> Error {
    Error::user(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn parse_path(text: &str) -> Result<PathBuf> {
    if text.is_empty() {
        return Err(invalid("a path is missing".to_owned()));
    }
    Ok(PathBuf::from(text))
}

fn parse_name(text: &str) -> Result<String> {
    if text.is_empty() {
        return Err(invalid("a name is missing".to_owned()));
    }
    Ok(text.to_owned())
}

/// A storage URL: `file:///path`, `s3://bucket/prefix`, `memory://`.
///
/// # Errors
/// SQLSTATE 22023 when it is something else.
pub fn parse_storage(text: &str) -> Result<Storage> {
    match text.split_once("://") {
        Some(("memory", "" | "/")) => Ok(Storage::Memory),
        Some(("file", path)) if path.starts_with('/') => Ok(Storage::Directory(path.into())),
        Some(("s3" | "gs" | "az", bucket)) if !bucket.is_empty() => {
            Ok(Storage::Remote(text.to_owned()))
        }
        _ => Err(invalid(format!("{text:?} is not a storage URL"))
            .hint("Use file:///path, s3://bucket/prefix or memory://.")),
    }
}

fn parse_address(text: &str) -> Result<SocketAddr> {
    let loopback = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    loopback.as_deref().unwrap_or(text).parse().map_err(|_| {
        invalid(format!("{text:?} is not an address"))
            .hint("Write an IP address and a port: 127.0.0.1:7432.")
    })
}

fn parse_count(text: &str) -> Result<NonZeroUsize> {
    text.replace('_', "").parse().map_err(|_| invalid(format!("{text:?} is not a count above 0")))
}

/// A number of bytes: `4GiB`, `512 MB`, `65536`. `KB` is a thousand bytes, `KiB` 1,024.
///
/// # Errors
/// SQLSTATE 22023 when it is something else, or more than 64 bits hold.
pub fn parse_size(text: &str) -> Result<u64> {
    let (number, unit) = split_unit(text);
    let bytes_per_unit: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(not_a_size(text)),
    };
    let number: f64 = number.parse().map_err(|_| not_a_size(text))?;
    let bytes = number * bytes_per_unit as f64;
    if !(0.0..=9e18).contains(&bytes) {
        return Err(not_a_size(text));
    }
    Ok(bytes as u64)
}

fn not_a_size(text: &str) -> Error {
    invalid(format!("{text:?} is not a size")).hint("Write a number and a unit: 512MiB, 4GiB.")
}

/// A length of time: `1s`, `500ms`, `250us`, `5min`, `2h`, `1d`.
///
/// # Errors
/// SQLSTATE 22023 when it is something else. A number without a unit is an error, because
/// programs differ in what it means.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let (number, unit) = split_unit(text);
    let seconds_per_unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(not_a_duration(text)),
    };
    let number: f64 = number.parse().map_err(|_| not_a_duration(text))?;
    let seconds = number * seconds_per_unit;
    // A hundred years: longer waits are mistakes, and would overflow where they are added.
    if !(0.0..=3.2e9).contains(&seconds) {
        return Err(not_a_duration(text));
    }
    // Rounded to the nanosecond, so that 0.1 ms is 100 us.
    Ok(Duration::from_nanos((seconds * 1e9).round() as u64))
}

fn not_a_duration(text: &str) -> Error {
    invalid(format!("{text:?} is not a duration")).hint("Write a number and a unit: 500ms, 1s.")
}

/// Number and unit of `4 GiB`.
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// What the kernel says, or 4 GiB where it says nothing.
fn memory_of_machine_bytes() -> u64 {
    const FALLBACK_BYTES: u64 = 4 << 30;
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return FALLBACK_BYTES };
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(FALLBACK_BYTES, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_named_once_and_documented() {
        let mut names: Vec<_> = SETTINGS.iter().map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SETTINGS.len());
        let mut config = ServerConfig::default();
        for setting in SETTINGS {
            assert!(setting.doc.ends_with('.'), "{}: a sentence", setting.name);
            let example = match (setting.default, setting.unit) {
                ("", "URL") => "memory://",
                ("", "name") => "before_upgrade",
                ("", "count") => "2",
                ("", "size") => "4GiB",
                (default, _) => default,
            };
            config.set(setting.name, example).expect(setting.name);
        }
        assert_eq!(config.storage, Storage::Memory);
        assert_eq!(config.workers.get(), 2);
        assert_eq!(config.memory_limit_bytes, 4 << 30);
        assert_eq!(config.set("colour", "red").unwrap_err().sqlstate().0, "42704");
    }

    #[test]
    fn the_reference_page_lists_the_settings() {
        let mut page = "# Settings\n\nMade from the list in `src/config.rs`. Each is a flag \
                        (`--data-dir`) and a variable (`MILLSTREAM_DATA_DIR`).\n\n\
                        | flag | value | default | what it does |\n|---|---|---|---|\n"
            .to_owned();
        for Setting { name, default, unit, doc } in SETTINGS {
            let flag = name.replace('_', "-");
            page += &format!("| `--{flag}` | {unit} | {default} | {doc} |\n");
        }
        expect_test::expect_file!["../docs/reference/settings.md"].assert_eq(&page);
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("4GiB", 4 << 30),
            ("512 MB", 512_000_000),
            ("1.5kib", 1_536),
            ("16m", 16 << 20),
        ] {
            assert_eq!(parse_size(text).expect(text), bytes, "{text}");
        }
        for text in ["", "GiB", "4 GiBs", "-1", "1e3", "99999999TiB", "1.2.3"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, duration) in [
            ("1s", Duration::from_secs(1)),
            ("500ms", Duration::from_millis(500)),
            ("0.1ms", Duration::from_micros(100)),
            ("5 min", Duration::from_secs(300)),
            ("2h", Duration::from_secs(7_200)),
        ] {
            assert_eq!(parse_duration(text).expect(text), duration, "{text}");
        }
        for text in ["", "5", "ms", "-1s", "1 fortnight", "1000000000d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn storage_and_addresses() {
        assert_eq!(parse_storage("file:///a/b").unwrap(), Storage::Directory("/a/b".into()));
        assert_eq!(parse_storage("s3://b/c").unwrap(), Storage::Remote("s3://b/c".into()));
        assert!(parse_storage("s3://").is_err());
        assert!(parse_storage("file://relative").is_err());
        assert_eq!(parse_address("localhost:0").unwrap(), "127.0.0.1:0".parse().unwrap());
        assert!(parse_address("7432").is_err());
    }
}
