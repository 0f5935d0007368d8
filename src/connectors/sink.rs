//! Where rows go: targets that take each batch once.
//!
//! | file | owns |
//! |---|---|
//! | `file.rs` | files in a directory or in object storage |
//! | `encode.rs` | rows as ndjson, csv and Parquet |
//! | `postgres.rs` | a table of a Postgres database |
//! | `postgres_types.rs` | columns as that database declares and reads them |
//! | `blackhole.rs` | nothing but counting |
//! | `trial.rs` | a target that fails at every step, for tests |
//!
//! Phase one of a commit is the server's, the same for all targets: a batch is durable in the
//! server's own storage with the checkpoint whose state has seen it (`storage::sinks`). Phase two
//! is [`Target::commit`]: it makes the batch visible, and is called again with the same batch when
//! the answer was lost or the server was killed, until it says that the target has it. A target
//! knows a batch by its [`BatchId`]; so a batch is there once, whenever something fails.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::connectors::options::{self, OptionSpec, Options};
use crate::storage::sinks::BatchId;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

pub mod blackhole;
mod encode;
pub mod file;
pub mod postgres;
mod postgres_types;
#[cfg(test)]
pub mod trial;

/// What a sink writes out, as its target needs to know it.
#[derive(Clone, Debug)]
pub struct SinkInput {
    /// Of the sink.
    pub name: String,
    /// Tells it from every other sink there ever was.
    pub identity: String,
    pub schema: SchemaRef,
    /// Rows never go.
    pub append_only: bool,
    /// Columns of which no two rows have the same values, where the query has such.
    pub unique_key: Option<Vec<usize>>,
}

/// Changes that become visible together, with equal rows added up.
pub struct Batch<'a> {
    pub id: BatchId,
    /// When it was sealed, in microseconds since 1970.
    pub time_us: i64,
    pub changes: &'a [ChangeBatch],
}

/// What a commit has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Rows and bytes that the target got.
    pub rows: u64,
    pub bytes: u64,
}

/// One place that rows go to.
#[async_trait]
pub trait Target: Send {
    /// Looks whether the target can take the sink's columns, and makes what is missing.
    async fn prepare(&mut self) -> Result<()>;

    /// Makes a batch visible, whole and once. A batch that is there already is left as it is:
    /// batches come in the order of their ids, and one may come again.
    ///
    /// # Errors
    /// Then it is called again, later, with the same batch; nothing of it may be visible twice.
    async fn commit(&mut self, batch: &Batch<'_>) -> Result<Committed>;

    /// Takes away what commits that did not end have left. Called when the sink starts and goes.
    async fn abort(&mut self) -> Result<()>;
}

/// Makes a target from checked options; opens nothing.
type TargetFactory = fn(&Options, &SinkInput) -> Result<Box<dyn Target>>;

/// A connector that sinks can use.
pub struct SinkConnector {
    pub connector: options::Connector,
    open: TargetFactory,
    /// It remembers nothing, so nothing has to be durable for it.
    pub forgets: bool,
}

/// Every connector for sinks. The docs page and `SHOW CONNECTORS` follow this list.
pub const SINK_CONNECTORS: &[SinkConnector] = &[
    blackhole::CONNECTOR,
    file::CONNECTOR,
    postgres::CONNECTOR,
    #[cfg(test)]
    trial::CONNECTOR,
];

/// Options that every sink takes, whatever its connector.
pub const COMMON_OPTIONS: &[OptionSpec] = &[
    OptionSpec::optional(
        "snapshot",
        &[],
        "boolean",
        "true",
        "Begin with the rows that are there; false: with the first change after them.",
    ),
    OptionSpec::optional(
        "commit_interval",
        &["roll_interval"],
        "interval",
        "",
        "Write out at most so often, all changes since then together; without it, with every \
         checkpoint.",
    ),
    OptionSpec::optional(
        "commit_rows",
        &["roll_rows"],
        "integer",
        "",
        "With commit_interval: write out earlier when so many changes have come.",
    ),
    OptionSpec::optional(
        "commit_bytes",
        &["roll_bytes"],
        "integer",
        "",
        "With commit_interval: write out earlier when changes of so many bytes have come.",
    ),
];

/// What [`COMMON_OPTIONS`] say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitRule {
    pub snapshot: bool,
    /// `None`: with every checkpoint.
    pub interval_us: Option<i64>,
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
}

/// The options of one sink, checked.
pub struct SinkOptions {
    pub connector: &'static SinkConnector,
    pub rule: CommitRule,
    target: Options,
}

/// Checks `WITH (connector = '...', ...)`, a pair named `connector` passed over.
///
/// # Errors
/// SQLSTATE 22023 for options that are unknown, missing or wrong.
pub fn check(connector: &str, pairs: &[(String, String)]) -> Result<SinkOptions> {
    let connector = find(connector)?;
    let is_common = |name: &str| {
        let name = name.to_lowercase();
        COMMON_OPTIONS.iter().any(|o| o.name == name || o.aliases.contains(&name.as_str()))
    };
    let (common, own): (Vec<_>, Vec<_>) =
        pairs.iter().cloned().partition(|(name, _)| is_common(name));
    let common_options = options::Connector {
        name: connector.connector.name,
        doc: "",
        options: COMMON_OPTIONS,
        open_prefixes: &[],
        source: None,
    };
    let common = common_options.check(&common)?;
    let interval_us = common.get("commit_interval").map(interval_us).transpose()?;
    let rule = CommitRule {
        snapshot: common.boolean("snapshot")?.unwrap_or(true),
        interval_us,
        rows: common.whole("commit_rows", 1, u64::MAX)?,
        bytes: common.whole("commit_bytes", 1, u64::MAX)?,
    };
    if interval_us.is_none() && (rule.rows.is_some() || rule.bytes.is_some()) {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            "options \"commit_rows\" and \"commit_bytes\" need \"commit_interval\"",
        )
        .hint("Without it, what has come is written out with every checkpoint."));
    }
    let target = connector.connector.check(&own)?;
    Ok(SinkOptions { connector, rule, target })
}

fn interval_us(text: &str) -> Result<i64> {
    crate::plan::view_options::fixed_interval_us(text).ok_or_else(|| {
        Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for option \"commit_interval\": \"{text}\""),
        )
        .hint("Give an interval of days and time, such as '1 minute'.")
    })
}

fn find(name: &str) -> Result<&'static SinkConnector> {
    let wanted = name.trim().to_lowercase();
    let names = || SINK_CONNECTORS.iter().map(|sink| sink.connector.name);
    SINK_CONNECTORS.iter().find(|sink| sink.connector.name == wanted).ok_or_else(|| {
        let list = names().collect::<Vec<_>>().join(", ");
        if crate::connectors::find(name).is_ok() {
            return Error::unsupported(format!("writing to connector \"{wanted}\""))
                .hint(format!("Sinks write to: {list}."));
        }
        let error = Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("connector \"{name}\" does not exist"),
        );
        match options::nearest(&wanted, names()) {
            Some(near) => {
                error.hint(format!("Perhaps you meant \"{near}\"; sinks write to: {list}."))
            }
            None => error.hint(format!("Sinks write to: {list}.")),
        }
    })
}

impl SinkOptions {
    /// The target; nothing is opened.
    ///
    /// # Errors
    /// SQLSTATE 22023 or 0A000 when the target cannot take such columns or changes.
    pub fn open(&self, input: &SinkInput) -> Result<Box<dyn Target>> {
        (self.connector.open)(&self.target, input)
    }
}

/// Columns that are to tell rows apart: those of an option, or the query's own key.
fn key_columns(options: &Options, name: &str, input: &SinkInput) -> Result<Option<Vec<usize>>> {
    let Some(text) = options.get(name) else { return Ok(input.unique_key.clone()) };
    columns_named(text, name, input).map(Some)
}

/// The columns of a list of names.
fn columns_named(text: &str, option: &str, input: &SinkInput) -> Result<Vec<usize>> {
    let mut columns = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let found = input.schema.fields().iter().position(|field| field.name() == name);
        let column = found.ok_or_else(|| {
            let names = input.schema.fields().iter().map(|f| f.name().as_str());
            Error::user(
                SqlState::UNDEFINED_COLUMN,
                format!("option \"{option}\": column \"{name}\" does not exist"),
            )
            .hint(format!("There are: {}.", names.collect::<Vec<_>>().join(", ")))
        })?;
        if columns.contains(&column) {
            return Err(Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!("option \"{option}\": column \"{name}\" is named twice"),
            ));
        }
        columns.push(column);
    }
    if columns.is_empty() {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("option \"{option}\" names no column"),
        ));
    }
    Ok(columns)
}

/// The SQL type of each column.
fn types_of(schema: &SchemaRef) -> Result<Vec<SqlType>> {
    let of = |field: &Arc<arrow::datatypes::Field>| {
        SqlType::of_field(field).ok_or_else(|| {
            Error::unsupported(format!("column \"{}\" in a sink", field.name()))
                .detail(format!("It has the type {}.", field.data_type()))
        })
    };
    schema.fields().iter().map(of).collect()
}

/// Rows that came (`came`) or went, each as often as its weight says.
fn rows_of(changes: &[ChangeBatch], came: bool) -> Result<Vec<RecordBatch>> {
    let mut found = Vec::with_capacity(changes.len());
    for batch in changes {
        if batch.all_inserts() {
            if came && !batch.is_empty() {
                found.push(batch.rows().clone());
            }
            continue;
        }
        let mut places: Vec<u32> = Vec::new();
        for (row, weight) in batch.weights_vec().into_iter().enumerate() {
            if (weight > 0) == came {
                let copies = usize::try_from(weight.unsigned_abs()).unwrap_or(usize::MAX);
                let row = u32::try_from(row).map_err(|_| Error::internal("a batch is too long"))?;
                places.extend(std::iter::repeat_n(row, copies));
            }
        }
        if !places.is_empty() {
            found.push(compute::take_record_batch(batch.rows(), &UInt32Array::from(places))?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_documented_and_without_doubles() {
        let page = include_str!("../../docs/sql/sinks.md");
        let check = |title: &str, options: &[OptionSpec]| {
            let heading = format!("\n## {title}\n");
            let section = page.split(&heading).nth(1).expect("each connector has a section");
            let section = section.split("\n## ").next().expect("a split has a first part");
            let mut names = std::collections::HashSet::new();
            for option in options {
                for name in option.aliases.iter().chain([&option.name]) {
                    assert!(names.insert(*name), "option {name} is there twice");
                    assert!(section.contains(&format!("`{name}`")), "{name} is not on the page");
                }
                let default = match option.default {
                    None => "required".to_owned(),
                    Some("") => String::new(),
                    Some(default) => format!("`{default}`"),
                };
                let kind = option.kind.replace('|', "\\|");
                let row = format!("| `{}` | {kind} | {default} | {} |", option.name, option.doc);
                let row = row.replace("|  |", "| |");
                assert!(section.contains(&row), "the docs page should have the row\n{row}");
            }
        };
        check("Options of every sink", COMMON_OPTIONS);
        let own = SINK_CONNECTORS.iter().filter(|sink| sink.connector.name != "trial");
        own.for_each(|sink| check(sink.connector.name, sink.connector.options));
    }

    #[test]
    fn options_of_all_sinks_are_told_from_the_connectors_own() {
        let pairs = |text: &str| -> Vec<(String, String)> {
            let pair = |p: &str| p.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
            text.split(';').filter_map(pair).collect()
        };
        let told = |connector: &str, text: &str| match check(connector, &pairs(text)) {
            Ok(options) => format!("{:?}", options.rule),
            Err(error) => format!("{} {}", error.sqlstate().0, error.message()),
        };
        assert_eq!(
            told("blackhole", "snapshot=no;roll_interval=1 minute;commit_rows=5"),
            "CommitRule { snapshot: false, interval_us: Some(60000000), rows: Some(5), bytes: None }"
        );
        assert_eq!(
            told("blackhole", "commit_rows=5"),
            "22023 options \"commit_rows\" and \"commit_bytes\" need \"commit_interval\""
        );
        assert_eq!(told("blackhole", "a=b"), "22023 connector \"blackhole\" has no option \"a\"");
        assert_eq!(told("nexmark", ""), "0A000 writing to connector \"nexmark\" is not supported");
        assert_eq!(told("fiel", "path=x"), "22023 connector \"fiel\" does not exist");
        assert_eq!(told("file", ""), "22023 option \"path\" is missing");
    }
}
