//! The Nexmark auction generator: persons, auctions and bids in the proportions 1 : 3 : 46.
//!
//! An event is a pure function of the seed and its number, so a reading can start anywhere:
//! 1. `events.rs` says which numbers are the rows of a split, and which are due;
//! 2. `columns.rs` makes the columns that were asked for from those numbers.
//!
//! An offset is the number of the next event to look at.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Fields, Schema, SchemaRef};

use crate::connectors::options::{Connector, OptionSpec, Options};
use crate::connectors::pace::Pacer;
use crate::connectors::{
    DeclaredSchema, Offset, Read, ReadRange, Source, SourceRows, SplitId, SplitReader,
};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

mod columns;
mod events;

use columns::{Generator, Table};
use events::{Config, Events, Kind, Walk};

/// Rows of one batch at most, however many are asked for: keeps texts within 32-bit offsets.
const BATCH_ROWS_MAX: usize = 65_536;

/// The entry in the connector list.
pub const CONNECTOR: Connector = Connector {
    name: "nexmark",
    doc: "The Nexmark benchmark's stream of persons, auctions and bids, made on the fly.",
    options: &[
        OptionSpec::optional(
            "table.type",
            &["nexmark.table.type"],
            "person | auction | bid | event",
            "event",
            "which events are rows; `event` has all of them, in one struct column per kind",
        ),
        OptionSpec::optional(
            "events.limit",
            &["events.num", "nexmark.event.num"],
            "integer",
            "",
            "events of all three kinds, after which the source ends; without it, it never does",
        ),
        OptionSpec::optional(
            "rate",
            &["rows-per-second"],
            "number",
            "",
            "events of all three kinds per second of wall clock; without it, as fast as they are \
             read",
        ),
        OptionSpec::optional(
            "seed",
            &["nexmark.seed"],
            "integer",
            "1",
            "another seed gives other events",
        ),
        OptionSpec::optional(
            "splits",
            &["nexmark.split.num"],
            "integer",
            "4",
            "parts that are read side by side",
        ),
        OptionSpec::optional(
            "event.rate",
            &["first-event.rate"],
            "integer",
            "",
            "events per second of event time; by default 1000000",
        ),
        OptionSpec::optional(
            "inter.event.us",
            &[],
            "integer",
            "",
            "microseconds of event time between events, instead of `event.rate`",
        ),
        OptionSpec::optional(
            "base.time",
            &[],
            "timestamp",
            "2015-07-15 00:00:00",
            "event time of event 0",
        ),
        OptionSpec::optional(
            "person.proportion",
            &["nexmark.person.proportion"],
            "integer",
            "1",
            PROPORTION,
        ),
        OptionSpec::optional(
            "auction.proportion",
            &["nexmark.auction.proportion"],
            "integer",
            "3",
            PROPORTION,
        ),
        OptionSpec::optional(
            "bid.proportion",
            &["nexmark.bid.proportion"],
            "integer",
            "46",
            PROPORTION,
        ),
        OptionSpec::optional(
            "active.people",
            &["nexmark.active.people"],
            "integer",
            "1000",
            "the newest so many persons sell and bid",
        ),
        OptionSpec::optional(
            "in.flight.auctions",
            &["nexmark.in.flight.auctions"],
            "integer",
            "100",
            "the newest so many auctions get bids",
        ),
        OptionSpec::optional(
            "hot.auction.ratio",
            &["bid.hot-ratio.auctions", "nexmark.hot.auction.ratio"],
            "integer",
            "2",
            "all but one in so many bids are for the hot auction",
        ),
        OptionSpec::optional(
            "hot.bidder.ratio",
            &["bid.hot-ratio.bidders", "nexmark.hot.bidder.ratio"],
            "integer",
            "4",
            "all but one in so many bids are by the hot bidder",
        ),
        OptionSpec::optional(
            "hot.seller.ratio",
            &["auction.hot-ratio.sellers", "nexmark.hot.seller.ratio"],
            "integer",
            "4",
            "all but one in so many auctions are by the hot seller",
        ),
        OptionSpec::optional(
            "hot.channel.ratio",
            &["nexmark.hot.channel.ratio"],
            "integer",
            "2",
            "all but one in so many bids come through the four hot channels",
        ),
        OptionSpec::optional(
            "person.avg.size",
            &["person.avg-size", "nexmark.avg.person.byte.size"],
            "integer",
            "200",
            AVERAGE,
        ),
        OptionSpec::optional(
            "auction.avg.size",
            &["auction.avg-size", "nexmark.avg.auction.byte.size"],
            "integer",
            "500",
            AVERAGE,
        ),
        OptionSpec::optional(
            "bid.avg.size",
            &["bid.avg-size", "nexmark.avg.bid.byte.size"],
            "integer",
            "100",
            AVERAGE,
        ),
        OptionSpec::optional(
            "out.of.order.group.size",
            &["nexmark.out.of.order.group.size"],
            "integer",
            "1",
            "events are shuffled within groups of so many",
        ),
    ],
    open_prefixes: &[],
    source: Some(open),
};

const PROPORTION: &str = "events of this kind in each cycle, which has the three proportions' sum";
const AVERAGE: &str = "bytes of a row on average; the column `extra` fills it up";

fn open(options: &Options, declared: DeclaredSchema) -> Result<Arc<dyn Source>> {
    let table = match options.one_of("table.type", &["person", "auction", "bid", "event"])? {
        Some("person") => Table::Of(Kind::Person),
        Some("auction") => Table::Of(Kind::Auction),
        Some("bid") => Table::Of(Kind::Bid),
        _ => Table::Event,
    };
    let natural = table.fields();
    let (schema, columns) = match declared {
        None => {
            let columns = (0..natural.len()).collect();
            (Arc::new(Schema::new(natural)), columns)
        }
        Some(declared) => {
            let columns = declared_columns(&declared, &natural)?;
            (declared, columns)
        }
    };
    let generator = Arc::new(Generator::new(Config::from_options(options)?));
    Ok(Arc::new(NexmarkSource { generator, table, schema, columns }))
}

/// For each declared column, which of the generator's it is. Names match whatever their case and
/// underscores, as other systems write them (`dateTime`).
fn declared_columns(declared: &Schema, natural: &Fields) -> Result<Vec<usize>> {
    let plain = |name: &str| name.replace('_', "").to_lowercase();
    let list = || natural.iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    let mut columns = Vec::with_capacity(declared.fields().len());
    for field in declared.fields() {
        let name = field.name();
        let wanted = plain(name);
        let Some(index) = natural.iter().position(|f| plain(f.name()) == wanted) else {
            return Err(Error::user(
                SqlState::UNDEFINED_COLUMN,
                format!("connector \"nexmark\" has no column \"{name}\" for this table.type"),
            )
            .hint(format!("Its columns are: {}.", list())));
        };
        let found = &natural[index];
        if field.data_type() != found.data_type() {
            let type_name = |f: &arrow::datatypes::Field| {
                SqlType::of_field(f).map_or_else(|| f.data_type().to_string(), |t| t.to_string())
            };
            return Err(Error::user(
                SqlState::DATATYPE_MISMATCH,
                format!(
                    "column \"{name}\" is declared as {}, not {}",
                    type_name(field),
                    type_name(found)
                ),
            )
            .hint("Leave out the column list to get all columns with their types."));
        }
        if !field.is_nullable()
            && matches!(found.data_type(), arrow::datatypes::DataType::Struct(_))
        {
            return Err(Error::user(
                SqlState::INVALID_TABLE_DEFINITION,
                format!(
                    "column \"{name}\" is NULL for events of other kinds; it cannot be NOT NULL"
                ),
            ));
        }
        columns.push(index);
    }
    Ok(columns)
}

struct NexmarkSource {
    generator: Arc<Generator>,
    table: Table,
    schema: SchemaRef,
    /// For each column of `schema`, its number in the table.
    columns: Vec<usize>,
}

impl Source for NexmarkSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn bounded(&self) -> bool {
        self.generator.config.events_limit.is_some()
    }

    fn splits(&self) -> Result<Vec<SplitId>> {
        Ok((0..self.generator.config.splits).map(|n| SplitId(n.to_string())).collect())
    }

    fn open(&self, split: &SplitId, range: ReadRange) -> Result<Box<dyn SplitReader>> {
        let config = &self.generator.config;
        let number = split
            .0
            .parse::<u64>()
            .ok()
            .filter(|number| *number < config.splits)
            .ok_or_else(|| Error::internal(format!("nexmark has no split {:?}", split.0)))?;
        let from = range.from.as_ref().map(place).transpose()?.unwrap_or(0);
        let rate = if range.until.is_none() { config.rate } else { None };
        let paced_from = match &range.paced_since {
            Some(since) => since.from.as_ref().map(place).transpose()?.unwrap_or(0),
            None => from,
        };
        let until = range.until.as_ref().map(place).transpose()?.unwrap_or(u64::MAX);
        let schema = Arc::new(self.schema.project(&range.columns)?);
        Ok(Box::new(NexmarkReader {
            walk: Walk::new(config, number, self.table.kind(), from, until),
            pacer: Pacer::since(rate, range.paced_since.as_ref()),
            paced_from,
            columns: range.columns.iter().map(|c| self.columns[*c]).collect(),
            generator: self.generator.clone(),
            table: self.table,
            schema,
            events: Events::default(),
        }))
    }
}

/// The event number that an offset is.
fn place(offset: &Offset) -> Result<u64> {
    offset
        .0
        .parse()
        .map_err(|_| Error::internal(format!("{:?} is not an offset of a generator", offset.0)))
}

struct NexmarkReader {
    generator: Arc<Generator>,
    table: Table,
    walk: Walk,
    pacer: Pacer,
    /// The place that was due when the pacer started.
    paced_from: u64,
    /// Numbers of the table's columns, in output order.
    columns: Vec<usize>,
    schema: SchemaRef,
    /// Kept between batches for its memory.
    events: Events,
}

impl SplitReader for NexmarkReader {
    fn read(&mut self, rows_max: usize) -> Result<Read> {
        if self.walk.at_end() {
            return Ok(Read::End);
        }
        let due = self.pacer.due().map_or(u64::MAX, |n| self.paced_from.saturating_add(n));
        self.events.clear();
        let rows_max = rows_max.clamp(1, BATCH_ROWS_MAX);
        self.walk.take(&self.generator.config, rows_max, due, &mut self.events);
        if self.events.is_empty() {
            if self.walk.at_end() {
                return Ok(Read::End);
            }
            let ahead = self.walk.place() - self.paced_from;
            return Ok(Read::Idle(self.pacer.wait_for(ahead)));
        }
        let columns = self
            .columns
            .iter()
            .map(|column| self.generator.column(self.table, *column, &self.events))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.events.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Read::Rows(SourceRows {
            rows,
            offset: Offset(self.walk.place().to_string()),
            malformed: Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests;
