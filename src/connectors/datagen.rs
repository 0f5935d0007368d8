//! Rows made by a rule per declared column.
//!
//! A value is a pure function of the seed, its column's name and its row's number, so a reading
//! can start anywhere, and columns that are not asked for cost nothing. Row r belongs to split
//! r mod splits. An offset is the number of the next row to look at.
//!
//! `rules.rs` has the rules: what options they take and how they fill a column.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use crate::connectors::options::{Connector, OptionSpec, Options, nearest};
use crate::connectors::pace::Pacer;
use crate::connectors::{
    DeclaredSchema, Offset, Read, ReadRange, Source, SourceRows, SplitId, SplitReader,
};
use crate::types::error::{Error, Result, SqlState};

mod rules;

use rules::{FieldOptions, Rule};

/// Rows of one batch at most, however many are asked for.
const BATCH_ROWS_MAX: u64 = 65_536;
/// Numbers in one batch at most (see [`Rule::row_weight`]): 128 MiB.
const BATCH_WEIGHT_MAX: u64 = 16 << 20;
/// Where an unbounded generator would end.
const ROWS_MAX: u64 = i64::MAX as u64;

/// The entry in the connector list.
pub const CONNECTOR: Connector = Connector {
    name: "datagen",
    doc: "Rows made by a rule for each declared column: a sequence, random values, or a choice.",
    options: &[
        OptionSpec::optional(
            "rows",
            &["number-of-rows"],
            "integer",
            "",
            "rows in all; without it, and without a sequence with an `end`, it never ends",
        ),
        OptionSpec::optional(
            "rate",
            &["rows-per-second", "rows.per.second"],
            "number",
            "",
            "rows per second of wall clock; without it, as fast as they are read",
        ),
        OptionSpec::optional("seed", &[], "integer", "1", "another seed gives other values"),
        OptionSpec::optional("splits", &[], "integer", "1", "parts that are read side by side"),
    ],
    open_prefixes: &["fields."],
    source: Some(open),
};

fn open(options: &Options, declared: DeclaredSchema) -> Result<Arc<dyn Source>> {
    let Some(schema) = declared.filter(|schema| !schema.fields().is_empty()) else {
        return Err(Error::user(
            SqlState::INVALID_TABLE_DEFINITION,
            "connector \"datagen\" needs declared columns",
        )
        .hint("Write CREATE SOURCE name (column type, ...) WITH (connector = 'datagen')."));
    };
    let rate = options.positive("rate")?;
    let seed = options.whole("seed", 0, u64::MAX)?.unwrap_or(1);
    let mut fields = FieldOptions::new(options, seed, rate);
    let rules = schema
        .fields()
        .iter()
        .map(|field| Rule::of_column(field, &mut fields))
        .collect::<Result<Vec<Rule>>>()?;
    check_field_options(options, &fields)?;
    let rows = options.whole("rows", 0, ROWS_MAX)?;
    let row_weight = rules.iter().map(Rule::row_weight).fold(1, u64::saturating_add);
    if row_weight > BATCH_WEIGHT_MAX {
        return Err(Error::user(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            "a row of connector \"datagen\" would be larger than 128 MiB",
        )
        .hint("Make the arrays and texts shorter."));
    }
    let sequence_rows = rules.iter().filter_map(Rule::rows_max).min();
    let bounded = rows.is_some() || rules.iter().any(Rule::ends);
    Ok(Arc::new(DatagenSource {
        schema,
        rules: rules.into(),
        rows: rows.unwrap_or(ROWS_MAX).min(sequence_rows.unwrap_or(ROWS_MAX)),
        bounded,
        rate,
        batch_rows_max: (BATCH_WEIGHT_MAX / row_weight).clamp(1, BATCH_ROWS_MAX) as usize,
        splits: options.whole("splits", 1, 1024)?.unwrap_or(1),
    }))
}

/// Every `fields.` option must be one that a column's rule takes.
fn check_field_options(options: &Options, fields: &FieldOptions) -> Result<()> {
    let taken = fields.taken();
    for (name, _) in options.iter().filter(|(name, _)| name.starts_with("fields.")) {
        if taken.iter().any(|known| known == name) {
            continue;
        }
        let error = Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("connector \"datagen\" has no option \"{name}\" for these columns"),
        );
        // What the column takes, in one spelling each.
        let column = name.split('.').take(2).collect::<Vec<_>>().join(".");
        let of_column =
            |known: &&String| known.strip_prefix(&column).is_some_and(|rest| rest.starts_with('.'));
        let mut list: Vec<&str> = taken.iter().filter(of_column).map(String::as_str).collect();
        list.retain(|known| !known.ends_with("-rate") && !known.ends_with("-past"));
        list.dedup();
        return Err(match nearest(name, taken.iter().map(String::as_str)) {
            _ if !list.is_empty() => error.hint(format!("It takes: {}.", list.join(", "))),
            Some(known) => error.hint(format!("Perhaps you meant the option \"{known}\".")),
            None => error.hint("Options of a column are named fields.<column>.<option>."),
        });
    }
    Ok(())
}

struct DatagenSource {
    schema: SchemaRef,
    /// One per column.
    rules: Arc<[Rule]>,
    rows: u64,
    bounded: bool,
    rate: Option<f64>,
    splits: u64,
    batch_rows_max: usize,
}

impl Source for DatagenSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn bounded(&self) -> bool {
        self.bounded
    }

    fn splits(&self) -> Result<Vec<SplitId>> {
        Ok((0..self.splits).map(|n| SplitId(n.to_string())).collect())
    }

    fn open(&self, split: &SplitId, range: ReadRange) -> Result<Box<dyn SplitReader>> {
        let number = split.0.parse().ok().filter(|number| *number < self.splits);
        let split =
            number.ok_or_else(|| Error::internal(format!("datagen has no split {:?}", split.0)))?;
        let from = range.from.as_ref().map(row_number).transpose()?.unwrap_or(0);
        let rate = if range.until.is_none() { self.rate } else { None };
        let paced_from = match &range.paced_since {
            Some(since) => since.from.as_ref().map(row_number).transpose()?.unwrap_or(0),
            None => from,
        };
        let until = range.until.as_ref().map(row_number).transpose()?.unwrap_or(u64::MAX);
        Ok(Box::new(DatagenReader {
            schema: Arc::new(self.schema.project(&range.columns)?),
            columns: range.columns,
            rules: self.rules.clone(),
            split,
            splits: self.splits,
            batch_rows_max: self.batch_rows_max,
            next: from,
            end: self.rows.min(until),
            pacer: Pacer::since(rate, range.paced_since.as_ref()),
            paced_from,
            rows: Vec::new(),
        }))
    }
}

/// The row number that an offset is.
fn row_number(offset: &Offset) -> Result<u64> {
    offset
        .0
        .parse()
        .map_err(|_| Error::internal(format!("{:?} is not an offset of a generator", offset.0)))
}

struct DatagenReader {
    schema: SchemaRef,
    columns: Vec<usize>,
    rules: Arc<[Rule]>,
    split: u64,
    splits: u64,
    batch_rows_max: usize,
    /// Rows before it are done; not necessarily a row of this split.
    next: u64,
    end: u64,
    pacer: Pacer,
    /// The row that was due when the pacer started.
    paced_from: u64,
    /// Row numbers of a batch, kept for their memory.
    rows: Vec<u64>,
}

impl SplitReader for DatagenReader {
    fn read(&mut self, rows_max: usize) -> Result<Read> {
        let due = self.pacer.due().map_or(u64::MAX, |n| self.paced_from.saturating_add(n));
        let ahead = (self.split + self.splits - self.next % self.splits) % self.splits;
        let first = self.next.saturating_add(ahead);
        if first >= self.end {
            return Ok(Read::End);
        }
        let stop = self.end.min(due);
        let rows_max = rows_max.clamp(1, self.batch_rows_max);
        self.rows.clear();
        self.rows.extend((first..stop).step_by(self.splits as usize).take(rows_max));
        let Some(last) = self.rows.last() else {
            return Ok(Read::Idle(self.pacer.wait_for(first - self.paced_from)));
        };
        self.next = last + 1;
        let columns = self
            .columns
            .iter()
            .map(|column| self.rules[*column].fill(&self.rows))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Read::Rows(SourceRows {
            rows,
            offset: Offset(self.next.to_string()),
            malformed: Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests;
