//! The outside world: where rows come from and go to.
//!
//! | file | owns |
//! |---|---|
//! | `options.rs` | typed `WITH (...)` options: name, kind, default, doc |
//! | `reader.rs` | reads a share of a source on a thread beside the workers |
//! | `draw.rs` | random numbers as a pure function of seed and position |
//! | `pace.rs` | so many events per second |
//! | `nexmark.rs` | the Nexmark auction generator |
//! | `datagen.rs` | rows by a rule per column |
//! | `file.rs` | csv, ndjson and parquet files, bounded or growing |
//! | `sink.rs` | where rows go: the contract, and the connectors for it |
//!
//! A source has splits (a file, a generator's share). A split is a sequence of rows that is the
//! same at every reading; an [`Offset`] is a place in it. Reading again from an offset gives the
//! same rows, which is what exactly-once and the backfill of a new view stand on.
//! Readers block, and run on threads of their own, beside the workers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::types::error::{Error, Result, SqlState};

/// A name for a split, unique within its source and stable for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SplitId(pub String);

/// A place in a split, before which everything has been read. Its text is the connector's own,
/// and is kept in checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offset(pub String);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One external stream of rows, as its options describe it. Cheap to make; opens nothing.
pub trait Source: Send + Sync {
    /// The columns that the connector delivers.
    fn schema(&self) -> SchemaRef;

    /// Whether every split ends: what a plain SELECT may read.
    fn bounded(&self) -> bool;

    /// The splits there are now; asked again from time to time when not [`Source::bounded`].
    /// A split once listed stays listed.
    fn splits(&self) -> Result<Vec<SplitId>>;

    /// A reader of `split`, from `range.from` on.
    fn open(&self, split: &SplitId, range: ReadRange) -> Result<Box<dyn SplitReader>>;
}

/// What to read of a split.
#[derive(Clone, Debug, Default)]
pub struct ReadRange {
    /// `None`: from the beginning.
    pub from: Option<Offset>,
    /// Stop exactly here (a place that an earlier reading reported); `None`: read on.
    pub until: Option<Offset>,
    /// Which columns of [`Source::schema`], in output order; others cost nothing.
    pub columns: Vec<usize>,
    /// When a source gives so many rows per second: since when. `None`: since this opening.
    /// Rows before `until` have been given before, and come at once.
    pub paced_since: Option<PacedSince>,
}

/// The beginning of a paced reading that may have been opened several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacedSince {
    pub started: Instant,
    /// The place that was due then; `None`: the split's beginning.
    pub from: Option<Offset>,
}

/// Reads one split in order.
pub trait SplitReader: Send {
    /// The next rows, at most `rows_max`. May block for I/O, never for rows that do not exist
    /// yet: then it answers [`Read::Idle`].
    fn read(&mut self, rows_max: usize) -> Result<Read>;
}

/// What one call of [`SplitReader::read`] found.
#[derive(Debug)]
pub enum Read {
    Rows(SourceRows),
    /// Nothing now; ask again after this time.
    Idle(Duration),
    /// The split's end, or `until`.
    End,
}

/// Rows of one split.
#[derive(Debug)]
pub struct SourceRows {
    /// The columns asked for.
    pub rows: RecordBatch,
    /// The place right after these rows.
    pub offset: Offset,
    /// Records between the last offset and this one that could not be read.
    pub malformed: Vec<MalformedRecord>,
}

/// A record that does not fit the declared columns. Left out and recorded, never fatal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedRecord {
    /// Where it stands, for a person: `flights.csv line 17`.
    pub place: String,
    /// The record, cut to 1,000 bytes.
    pub record: String,
    pub message: String,
}

/// Columns that the user declared for a source; empty when none.
pub type DeclaredSchema = Option<SchemaRef>;

/// Makes a [`Source`] from checked options.
pub type SourceFactory = fn(&options::Options, DeclaredSchema) -> Result<Arc<dyn Source>>;

mod draw;
mod pace;

pub mod datagen;
pub mod file;
pub mod nexmark;
pub mod options;
pub mod reader;
pub mod sink;

/// Every connector there is. The docs page, completion and `SHOW CONNECTORS` follow this list.
pub const CONNECTORS: &[options::Connector] =
    &[datagen::CONNECTOR, file::CONNECTOR, nexmark::CONNECTOR];

/// The connector of this name, in any case.
///
/// # Errors
/// SQLSTATE 22023 when there is none.
pub fn find(name: &str) -> Result<&'static options::Connector> {
    let wanted = name.trim().to_lowercase();
    CONNECTORS.iter().find(|connector| connector.name == wanted).ok_or_else(|| {
        let names = || CONNECTORS.iter().map(|connector| connector.name);
        let error = Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("connector \"{name}\" does not exist"),
        );
        let list = names().collect::<Vec<_>>().join(", ");
        match options::nearest(&wanted, names()) {
            Some(near) => error.hint(format!("Perhaps you meant \"{near}\"; there are: {list}.")),
            None => error.hint(format!("There are: {list}.")),
        }
    })
}

/// The source that `WITH (connector = '...', ...)` stands for. Options are checked against the
/// connector's list; a pair named `connector` is passed over. Opens nothing, unless the columns
/// of files must be found out because none are declared.
///
/// # Errors
/// SQLSTATE 22023 for options that are unknown, missing or wrong; what the connector says to the
/// declared columns.
pub fn open_source(
    connector: &str,
    pairs: &[(String, String)],
    declared: DeclaredSchema,
) -> Result<Arc<dyn Source>> {
    let connector = find(connector)?;
    let Some(source) = connector.source else {
        return Err(Error::unsupported(format!("reading from connector \"{}\"", connector.name)));
    };
    source(&connector.check(pairs)?, declared)
}

#[cfg(test)]
mod tests;
