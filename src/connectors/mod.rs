//! The outside world: where rows come from and go to.
//!
//! | file | owns |
//! |---|---|
//! | `options.rs` | typed `WITH (...)` options: name, kind, default, doc |
//! | `reader.rs` | reads a share of a source on a thread beside the workers |
//! | `nexmark.rs` | the Nexmark auction generator |
//! | `datagen.rs` | rows by a rule per column |
//! | `file.rs` | csv, ndjson and parquet files, bounded or growing |
//!
//! A source has splits (a file, a generator's share). A split is a sequence of rows that is the
//! same at every reading; an [`Offset`] is a place in it. Reading again from an offset gives the
//! same rows, which is what exactly-once and the backfill of a new view stand on.
//! Readers block, and run on threads of their own, beside the workers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::types::error::Result;

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

/// scaffold
pub fn open_source(
    _c: &str,
    _o: Vec<(String, String)>,
    _d: DeclaredSchema,
) -> Result<Arc<dyn Source>> {
    Err(crate::types::error::Error::internal("scaffold"))
}
pub mod datagen;
pub mod file;
pub mod nexmark;
pub mod options;
pub mod reader;
