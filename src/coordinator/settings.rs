//! The settings of one connection: what `SET`, `SHOW` and `RESET` work on.
//!
//! 1. `SETTINGS` lists every name with its default, kind and doc; `pg_settings`,
//!    `millstream.settings` and `SHOW ALL` are made from it.
//! 2. A value is checked and brought into the form that Postgres prints when it is set, so that
//!    whoever reads it later finds one spelling.
//! 3. Names with a dot that are not in the list are the client's own and hold any text.
//!
//! Three levels, the later one wins: the list's default, the session's value, the transaction's
//! value (`SET LOCAL`). A rollback restores the session's values of the block's beginning.

use std::collections::BTreeMap;

use crate::types::error::{Error, Result, SqlState};

/// What `server_version` says. Clients choose their catalog queries by it.
pub use crate::sql::system_functions::SERVER_VERSION;

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    Boolean,
    Integer {
        min: i64,
        max: i64,
    },
    /// Milliseconds; `0` is off.
    Duration,
    /// One of these words.
    Choice(&'static [&'static str]),
    Text,
    TimeZone,
    DateStyle,
    ClientEncoding,
    /// Identifiers with commas between.
    NameList,
    /// Only [`Boolean`](SettingKind::Boolean) `on` can be set: the other is not supported.
    AlwaysOn,
    /// Cannot be set.
    ReadOnly,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct SettingSpec {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: SettingKind,
    /// Clients are told of every change (ParameterStatus).
    pub reported: bool,
    pub doc: &'static str,
}

const fn setting(
    name: &'static str,
    default: &'static str,
    kind: SettingKind,
    doc: &'static str,
) -> SettingSpec {
    SettingSpec { name, default, kind, reported: false, doc }
}

const fn reported(
    name: &'static str,
    default: &'static str,
    kind: SettingKind,
    doc: &'static str,
) -> SettingSpec {
    SettingSpec { name, default, kind, reported: true, doc }
}

const ISOLATION: &[&str] =
    &["serializable", "repeatable read", "read committed", "read uncommitted"];
const MESSAGE_LEVELS: &[&str] =
    &["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"];

use SettingKind as K;

/// Every setting, in the order of `SHOW ALL`.
pub const SETTINGS: &[SettingSpec] = &[
    reported("application_name", "", K::Text, "The client's name, as it wishes to be called."),
    setting(
        "autocommit_before_ddl",
        "off",
        K::Boolean,
        "CREATE, DROP and the like in a transaction block commit it, and begin another behind.",
    ),
    setting(
        "bytea_output",
        "hex",
        K::Choice(&["escape", "hex"]),
        "The output format for bytea values.",
    ),
    setting("check_function_bodies", "on", K::Boolean, "Accepted for pg_dump; no effect."),
    reported("client_encoding", "UTF8", K::ClientEncoding, "The client's encoding: UTF8 only."),
    setting(
        "client_min_messages",
        "notice",
        K::Choice(MESSAGE_LEVELS),
        "Messages below this level are not sent to the client.",
    ),
    reported(
        "DateStyle",
        "ISO, MDY",
        K::DateStyle,
        "The output format of dates and the order of fields in ambiguous input.",
    ),
    setting(
        "default_table_access_method",
        "millstream",
        K::Choice(&["millstream", "heap"]),
        "Accepted for pg_dump; no effect.",
    ),
    setting("default_tablespace", "", K::Text, "Accepted for pg_dump; no effect."),
    setting(
        "default_transaction_deferrable",
        "off",
        K::Boolean,
        "Accepted; a read never waits for a writer here.",
    ),
    setting(
        "default_transaction_isolation",
        "serializable",
        K::Choice(ISOLATION),
        "The isolation level of new transactions; all levels behave as serializable.",
    ),
    reported(
        "default_transaction_read_only",
        "off",
        K::Boolean,
        "New transactions refuse to write.",
    ),
    setting("escape_string_warning", "on", K::Boolean, "Accepted; no effect."),
    setting(
        "extra_float_digits",
        "1",
        K::Integer { min: -15, max: 3 },
        "Above 0, floating-point values print with the digits that make them exact.",
    ),
    setting(
        "idle_in_transaction_session_timeout",
        "0",
        K::Duration,
        "Accepted; an idle transaction holds locks only after a write.",
    ),
    setting("idle_session_timeout", "0", K::Duration, "Accepted; no effect."),
    reported("in_hot_standby", "off", K::ReadOnly, "Whether this server is a replica."),
    reported("integer_datetimes", "on", K::ReadOnly, "Times are 64-bit integers on the wire."),
    reported(
        "IntervalStyle",
        "postgres",
        K::Choice(&["postgres", "postgres_verbose", "sql_standard", "iso_8601"]),
        "The output format for interval values.",
    ),
    reported("is_superuser", "on", K::ReadOnly, "Whether the user may do everything."),
    setting("jit", "off", K::Boolean, "Accepted for drivers that turn it off; no effect."),
    setting("lc_collate", "C", K::ReadOnly, "Text is compared by its bytes."),
    setting("lc_ctype", "C.UTF-8", K::ReadOnly, "Which characters are letters, digits, ..."),
    setting("lc_messages", "C", K::Text, "Accepted; messages are in English."),
    setting("lc_monetary", "C", K::Text, "Accepted; no effect."),
    setting("lc_numeric", "C", K::Text, "Accepted; no effect."),
    setting("lc_time", "C", K::Text, "Accepted; no effect."),
    setting(
        "lock_timeout",
        "0",
        K::Duration,
        "A statement gives up after waiting this long for a table that another client writes.",
    ),
    setting("max_identifier_length", "63", K::ReadOnly, "Bytes in a name as clients expect."),
    setting("max_index_keys", "32", K::ReadOnly, "Columns in a key as clients expect."),
    setting("quote_all_identifiers", "off", K::Boolean, "Accepted for pg_dump; no effect."),
    setting("row_security", "on", K::Boolean, "Accepted for pg_dump; there are no policies."),
    setting(
        "search_path",
        "\"$user\", public",
        K::NameList,
        "Where names without a schema are looked up, in order.",
    ),
    reported("server_encoding", "UTF8", K::ReadOnly, "The encoding of stored text."),
    reported(
        "server_version",
        SERVER_VERSION,
        K::ReadOnly,
        "The Postgres version whose behaviour clients may expect.",
    ),
    setting("server_version_num", "150000", K::ReadOnly, "The same as one integer."),
    reported("session_authorization", "millstream", K::ReadOnly, "The user who connected."),
    setting(
        "session_replication_role",
        "origin",
        K::Choice(&["origin", "replica", "local"]),
        "Accepted; there are no triggers.",
    ),
    reported(
        "standard_conforming_strings",
        "on",
        K::AlwaysOn,
        "A backslash in '...' is a backslash.",
    ),
    setting(
        "statement_timeout",
        "0",
        K::Duration,
        "A statement that runs longer is cancelled; 0 is off.",
    ),
    setting(
        "synchronous_commit",
        "on",
        K::Choice(&["local", "remote_write", "remote_apply", "on", "off"]),
        "A commit is acknowledged when it is durable; off: before that.",
    ),
    setting("synchronize_seqscans", "on", K::Boolean, "Accepted for pg_dump; no effect."),
    reported("TimeZone", "UTC", K::TimeZone, "Where timestamptz values are shown and read."),
    setting(
        "transaction_deferrable",
        "off",
        K::Boolean,
        "Accepted; a read never waits for a writer here.",
    ),
    setting(
        "transaction_isolation",
        "serializable",
        K::Choice(ISOLATION),
        "The isolation level of this transaction; all levels behave as serializable.",
    ),
    setting("transaction_read_only", "off", K::Boolean, "This transaction refuses to write."),
    setting("vacuum_defer_cleanup_age", "0", K::ReadOnly, "There is nothing to vacuum."),
    setting("work_mem", "4MB", K::Text, "Accepted; memory is bounded for the server as a whole."),
    setting("xmloption", "content", K::Choice(&["content", "document"]), "Accepted; no effect."),
];

/// The setting of that name, in any case.
pub fn find(name: &str) -> Option<&'static SettingSpec> {
    SETTINGS.iter().find(|s| s.name.eq_ignore_ascii_case(name))
}

/// What one connection has set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What RESET goes back to: the startup packet's values. Lower-case names, as in the others.
    startup: BTreeMap<String, String>,
    session: BTreeMap<String, String>,
    /// `SET LOCAL`; empty outside a transaction block.
    local: BTreeMap<String, String>,
}

impl Settings {
    /// The settings of a connection that begins: those of the startup packet, which RESET goes
    /// back to. `options` holds more of them, as a command line (`-c name=value`).
    ///
    /// # Errors
    /// As [`canonical`].
    pub fn at_startup(user: &str, pairs: &[(String, String)]) -> Result<Settings> {
        let mut settings = Settings::default();
        settings.startup.insert("session_authorization".to_owned(), user.to_owned());
        for (name, value) in pairs {
            if name == "options" {
                for (name, value) in parse_options(value)? {
                    settings.set_startup(&name, &value)?;
                }
            } else {
                settings.set_startup(name, value)?;
            }
        }
        Ok(settings)
    }

    fn set_startup(&mut self, name: &str, value: &str) -> Result<()> {
        let value = canonical(name, value)?;
        self.startup.insert(name.to_ascii_lowercase(), value);
        Ok(())
    }

    /// The value in force.
    ///
    /// # Errors
    /// SQLSTATE 42704 for a name that nobody knows.
    pub fn get(&self, name: &str) -> Result<&str> {
        let key = name.to_ascii_lowercase();
        [&self.local, &self.session, &self.startup]
            .into_iter()
            .find_map(|level| level.get(&key).map(String::as_str))
            .or_else(|| find(name).map(|s| s.default))
            .ok_or_else(|| unrecognized(name))
    }

    /// A boolean setting of the list.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_ok_and(|v| v == "on")
    }

    /// Milliseconds of a duration setting; `None` when it is off.
    pub fn duration_ms(&self, name: &str) -> Option<u64> {
        self.get(name).ok().and_then(duration_ms).filter(|ms| *ms > 0)
    }

    /// The schemas of `search_path`, in order; `$user` is replaced.
    pub fn search_path(&self, user: &str) -> Vec<String> {
        let names = self.get("search_path").ok().and_then(split_names).unwrap_or_default();
        names
            .into_iter()
            .map(|name| if name == "$user" { user.to_owned() } else { name })
            .filter(|name| !name.is_empty())
            .collect()
    }

    /// Sets a value after checking it; `local` until the end of the transaction.
    pub fn set(&mut self, name: &str, value: &str, local: bool) -> Result<()> {
        let value = canonical(name, value)?;
        self.put(name, value, local);
        Ok(())
    }

    /// Back to the value that the connection began with.
    pub fn reset(&mut self, name: &str) -> Result<()> {
        let key = name.to_ascii_lowercase();
        match find(name) {
            Some(spec) if spec.kind == K::ReadOnly => return Err(cannot_change(spec.name)),
            Some(_) => {}
            None if key.contains('.') => {}
            None => return Err(unrecognized(name)),
        }
        self.local.remove(&key);
        self.session.remove(&key);
        Ok(())
    }

    /// `RESET ALL`: everything but the transaction's own properties.
    pub fn reset_all(&mut self) {
        self.local.retain(|name, _| name.starts_with("transaction_"));
        self.session.clear();
    }

    /// The transaction has ended: `SET LOCAL` with it.
    pub fn end_transaction(&mut self) {
        self.local.clear();
    }

    /// Every setting with its value: the list, then the client's own.
    pub fn all(&self) -> Vec<(String, String)> {
        let listed = SETTINGS
            .iter()
            .map(|s| (s.name.to_owned(), self.get(s.name).unwrap_or(s.default).to_owned()));
        let mut own: Vec<&String> = [&self.local, &self.session, &self.startup]
            .into_iter()
            .flat_map(BTreeMap::keys)
            .filter(|name| find(name).is_none())
            .collect();
        own.sort();
        own.dedup();
        let own = own
            .into_iter()
            .map(|name| (name.clone(), self.get(name).unwrap_or_default().to_owned()));
        listed.chain(own).collect()
    }

    fn put(&mut self, name: &str, value: String, local: bool) {
        let key = name.to_ascii_lowercase();
        if local {
            self.local.insert(key, value);
        } else {
            self.local.remove(&key);
            self.session.insert(key, value);
        }
    }
}

/// The value as Postgres prints it, when the setting takes it.
///
/// # Errors
/// SQLSTATE 42704 for an unknown name, 55P02 for a read-only one, 22023 for a bad value.
pub fn canonical(name: &str, value: &str) -> Result<String> {
    let Some(spec) = find(name) else {
        return if is_own_name(name) { Ok(value.to_owned()) } else { Err(unrecognized(name)) };
    };
    match spec.kind {
        K::Boolean => parse_boolean(value)
            .map(|on| (if on { "on" } else { "off" }).to_owned())
            .ok_or_else(|| needs_boolean(spec.name)),
        K::AlwaysOn => match parse_boolean(value) {
            Some(true) => Ok("on".to_owned()),
            Some(false) => Err(Error::unsupported(format!("{} = off", spec.name))
                .hint("Write E'...' for a string with backslash escapes.")),
            None => Err(needs_boolean(spec.name)),
        },
        K::Integer { min, max } => canonical_integer(spec.name, value, min, max),
        K::Duration => canonical_duration(spec.name, value),
        K::Choice(words) => words
            .iter()
            .find(|w| w.eq_ignore_ascii_case(value))
            .map(|w| (*w).to_owned())
            .ok_or_else(|| {
                invalid_value(spec.name, value)
                    .hint(format!("Available values: {}.", words.join(", ")))
            }),
        K::Text => Ok(value.to_owned()),
        K::TimeZone => canonical_time_zone(spec.name, value),
        K::DateStyle => canonical_date_style(spec.name, value),
        K::ClientEncoding => canonical_encoding(spec.name, value),
        K::NameList => split_names(value)
            .map(|_| value.to_owned())
            .ok_or_else(|| invalid_value(spec.name, value).detail("List syntax is invalid.")),
        K::ReadOnly => Err(cannot_change(spec.name)),
    }
}

/// Names of the clients' own settings: words with a dot between.
fn is_own_name(name: &str) -> bool {
    name.contains('.')
        && name.split('.').all(|part| {
            part.starts_with(|c: char| c.is_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$')
        })
}

fn parse_boolean(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    match value.as_str() {
        "1" | "on" => Some(true),
        "0" | "off" | "of" => Some(false),
        "" | "o" => None,
        v if "true".starts_with(v) || "yes".starts_with(v) => Some(true),
        v if "false".starts_with(v) || "no".starts_with(v) => Some(false),
        _ => None,
    }
}

fn canonical_integer(name: &str, value: &str, min: i64, max: i64) -> Result<String> {
    let number: f64 = value.trim().parse().map_err(|_| invalid_value(name, value))?;
    if !number.is_finite() {
        return Err(invalid_value(name, value));
    }
    // Rounds as rint() does: Postgres takes 1.6 as 2.
    let number = number.round_ties_even();
    if number < min as f64 || number > max as f64 {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!(
                "{number} is outside the valid range for parameter \"{name}\" ({min} .. {max})"
            ),
        ));
    }
    Ok(format!("{number}"))
}

/// Units of durations, largest first, in milliseconds.
const DURATION_UNITS: [(&str, i64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];

fn canonical_duration(name: &str, value: &str) -> Result<String> {
    let ms = parse_duration_ms(value).map_err(|unit_known| {
        let error = invalid_value(name, value);
        if unit_known {
            error
        } else {
            error.hint(
                "Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \
                 \"d\".",
            )
        }
    })?;
    let max = i64::from(i32::MAX);
    if !(0..=max).contains(&ms) {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("{ms} ms is outside the valid range for parameter \"{name}\" (0 .. {max})"),
        ));
    }
    if ms == 0 {
        return Ok("0".to_owned());
    }
    let (unit, factor) = DURATION_UNITS
        .into_iter()
        .find(|(_, factor)| ms % factor == 0)
        .expect("every number of milliseconds is a multiple of one");
    Ok(format!("{}{unit}", ms / factor))
}

/// Milliseconds of a duration such as `1500ms`, `2s` or `10 min`; a bare number is milliseconds.
pub fn duration_ms(text: &str) -> Option<u64> {
    parse_duration_ms(text).ok().and_then(|ms| u64::try_from(ms).ok())
}

/// A number with an optional unit, in milliseconds. `Err(false)` when only the unit is unknown.
fn parse_duration_ms(value: &str) -> Result<i64, bool> {
    let value = value.trim();
    let digits = value
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
        .unwrap_or(value.len());
    let number: f64 = value[..digits].parse().map_err(|_| true)?;
    let factor = match value[digits..].trim() {
        "" => 1.0,
        "us" => 0.001,
        unit => DURATION_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor as f64)
            .ok_or(false)?,
    };
    let ms = (number * factor).round_ties_even();
    // Far outside every setting's range, and exact in an f64.
    Ok(ms.clamp(-1e15, 1e15) as i64)
}

fn canonical_time_zone(name: &str, value: &str) -> Result<String> {
    if value.eq_ignore_ascii_case("utc") || value.eq_ignore_ascii_case("z") {
        return Ok("UTC".to_owned());
    }
    if let Some(zone) =
        chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(value))
    {
        return Ok(zone.name().to_owned());
    }
    if let Some(offset) = fixed_offset(value) {
        return Ok(offset);
    }
    Err(invalid_value(name, value)
        .hint("Use a name of the IANA time zone database, such as 'Europe/Zurich'."))
}

/// `+HH:MM`, east of Greenwich, from hours (`2`, `-7`, `5.5`) or `+HH:MM`, which is what
/// `SET TIME ZONE` gives for a number or an interval.
fn fixed_offset(value: &str) -> Option<String> {
    let minutes = if let Some((hours, minutes)) = value.split_once(':') {
        let negative = hours.starts_with('-');
        let hours: i32 = hours.trim_start_matches(['+', '-']).parse().ok()?;
        let minutes: i32 = minutes.parse().ok().filter(|m| (0..60).contains(m))?;
        (hours * 60 + minutes) * if negative { -1 } else { 1 }
    } else {
        let hours: f64 = value.parse().ok().filter(|h: &f64| h.abs() < 24.0)?;
        (hours * 60.0).round() as i32
    };
    // Farther than any place on earth, and the most that Postgres takes.
    if minutes.abs() >= 16 * 60 {
        return None;
    }
    let sign = if minutes < 0 { '-' } else { '+' };
    Some(format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60))
}

fn canonical_date_style(name: &str, value: &str) -> Result<String> {
    let (mut style, mut order) = ("ISO", "MDY");
    for word in value.split(',').map(str::trim) {
        match word.to_ascii_lowercase().as_str() {
            "iso" => style = "ISO",
            "sql" | "postgres" | "german" => {
                return Err(Error::unsupported(format!("DateStyle {word}"))
                    .hint("Dates are printed in ISO style; format them with to_char()."));
            }
            "mdy" | "us" | "noneuro" | "noneuropean" => order = "MDY",
            "dmy" | "euro" | "european" => order = "DMY",
            "ymd" => order = "YMD",
            "default" => (style, order) = ("ISO", "MDY"),
            _ => {
                return Err(invalid_value(name, value)
                    .detail(format!("Unrecognized key word: \"{word}\".")));
            }
        }
    }
    Ok(format!("{style}, {order}"))
}

fn canonical_encoding(name: &str, value: &str) -> Result<String> {
    let plain: String =
        value.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_lowercase();
    match plain.as_str() {
        "utf8" | "unicode" => Ok("UTF8".to_owned()),
        "sqlascii" | "latin1" | "latin9" | "win1252" | "iso88591" => {
            Err(Error::unsupported(format!("client_encoding {value}"))
                .hint("Use client_encoding = 'UTF8'."))
        }
        _ => Err(invalid_value(name, value)),
    }
}

/// `-c name=value`, `--name=value`, separated by spaces; a backslash takes the next character as
/// it is.
fn parse_options(options: &str) -> Result<Vec<(String, String)>> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let mut pairs = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let pair = match word.strip_prefix("--") {
            Some(pair) => pair.to_owned(),
            None => match word.strip_prefix("-c") {
                Some("") => words.next().unwrap_or_default(),
                Some(pair) => pair.to_owned(),
                None => String::new(),
            },
        };
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                format!("invalid command-line argument for server process: {word}"),
            )
            .hint("Write options as -c name=value."));
        };
        pairs.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(pairs)
}

/// Splits a list of identifiers: commas between, double quotes around what is not folded.
pub fn split_names(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = list.trim();
    if rest.is_empty() {
        return Some(names);
    }
    loop {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => split_quoted(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let name = rest[..end].trim();
                if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '"') {
                    return None;
                }
                (name.to_lowercase(), &rest[end..])
            }
        };
        names.push(name);
        let after = after.trim_start();
        if after.is_empty() {
            return Some(names);
        }
        rest = after.strip_prefix(',')?.trim_start();
    }
}

/// The name up to the closing quote, `""` standing for one quote, and what follows it.
fn split_quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

fn unrecognized(name: &str) -> Error {
    Error::user(
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    )
}

fn cannot_change(name: &str) -> Error {
    Error::user(
        SqlState::CANT_CHANGE_RUNTIME_PARAM,
        format!("parameter \"{name}\" cannot be changed"),
    )
}

fn invalid_value(name: &str, value: &str) -> Error {
    Error::user(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for parameter \"{name}\": \"{value}\""),
    )
}

fn needs_boolean(name: &str) -> Error {
    Error::user(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("parameter \"{name}\" requires a Boolean value"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value after SET, or the SQLSTATE and message.
    fn set(name: &str, value: &str) -> String {
        match canonical(name, value) {
            Ok(value) => value,
            Err(error) => format!("{}: {}", error.sqlstate().0, error.message()),
        }
    }

    /// Expected values are what PostgreSQL 15 prints.
    #[test]
    fn values_read_back_as_postgres_prints_them() {
        for (name, value, expected) in [
            ("statement_timeout", "1500", "1500ms"),
            ("statement_timeout", "1 min", "1min"),
            ("statement_timeout", "1.5s", "1500ms"),
            ("statement_timeout", "0", "0"),
            ("statement_timeout", "7200000", "2h"),
            (
                "statement_timeout",
                "90 foo",
                "22023: invalid value for parameter \"statement_timeout\": \"90 foo\"",
            ),
            (
                "statement_timeout",
                "-1",
                "22023: -1 ms is outside the valid range for parameter \"statement_timeout\" \
                 (0 .. 2147483647)",
            ),
            (
                "extra_float_digits",
                "100",
                "22023: 100 is outside the valid range for parameter \"extra_float_digits\" \
                 (-15 .. 3)",
            ),
            ("extra_float_digits", "1.6", "2"),
            ("bytea_output", "x", "22023: invalid value for parameter \"bytea_output\": \"x\""),
            ("BYTEA_OUTPUT", "ESCAPE", "escape"),
            ("jit", "tru", "on"),
            ("jit", "NO", "off"),
            ("jit", "o", "22023: parameter \"jit\" requires a Boolean value"),
            ("server_version", "1", "55P02: parameter \"server_version\" cannot be changed"),
            ("foo", "1", "42704: unrecognized configuration parameter \"foo\""),
            ("app.user", "any Text", "any Text"),
            ("timezone", "europe/berlin", "Europe/Berlin"),
            ("timezone", "utc", "UTC"),
            ("timezone", "-7", "-07:00"),
            ("timezone", "+05:30", "+05:30"),
            ("timezone", "foo", "22023: invalid value for parameter \"TimeZone\": \"foo\""),
            ("datestyle", "iso, dmy", "ISO, DMY"),
            ("datestyle", "foo", "22023: invalid value for parameter \"DateStyle\": \"foo\""),
            ("client_encoding", "utf-8", "UTF8"),
            (
                "client_encoding",
                "foo",
                "22023: invalid value for parameter \"client_encoding\": \"foo\"",
            ),
            ("standard_conforming_strings", "on", "on"),
            ("search_path", "a, \"B c\"", "a, \"B c\""),
        ] {
            assert_eq!(set(name, value), expected, "{name} = {value}");
        }
    }

    #[test]
    fn local_values_end_with_the_transaction_and_reset_goes_to_the_startup_value() {
        let startup = [
            ("application_name".to_owned(), "psql".to_owned()),
            ("options".to_owned(), "-c app.a=b\\ c --extra-float-digits=3".to_owned()),
        ];
        let mut settings = Settings::at_startup("ann", &startup).expect("valid");
        assert_eq!(settings.get("app.a").expect("known"), "b c");
        assert_eq!(settings.get("extra_float_digits").expect("known"), "3");
        assert_eq!(settings.get("session_authorization").expect("known"), "ann");
        assert!(Settings::at_startup("a", &[("options".into(), "-x".into())]).is_err());
        settings.set("application_name", "mine", false).expect("text");
        settings.set("application_name", "block", true).expect("text");
        assert_eq!(settings.get("Application_Name").expect("known"), "block");
        settings.end_transaction();
        assert_eq!(settings.get("application_name").expect("known"), "mine");
        settings.reset("application_name").expect("known");
        assert_eq!(settings.get("application_name").expect("known"), "psql");
        // SET inside the block, after SET LOCAL, wins over it.
        settings.set("jit", "on", true).expect("boolean");
        settings.set("jit", "off", false).expect("boolean");
        assert!(!settings.is_on("jit"));
    }

    #[test]
    fn search_path_is_split_as_identifiers() {
        let mut settings = Settings::default();
        assert_eq!(settings.search_path("ann"), ["ann", "public"]);
        settings.set("search_path", "Sales, \"Old \"\"one\"", false).expect("a list");
        assert_eq!(settings.search_path("ann"), ["sales", "Old \"one"]);
        settings.set("search_path", "\"\"", false).expect("a list");
        assert!(settings.search_path("ann").is_empty());
        assert!(settings.set("search_path", "a b", false).is_err());
    }

    #[test]
    fn the_list_has_unique_names_docs_and_valid_defaults() {
        for (index, spec) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..index].iter().all(|s| !s.name.eq_ignore_ascii_case(spec.name)));
            assert!(spec.doc.ends_with('.') || spec.doc.ends_with("..."), "{}", spec.name);
            if spec.kind != K::ReadOnly {
                assert_eq!(set(spec.name, spec.default), spec.default, "{}", spec.name);
            }
        }
    }
}
