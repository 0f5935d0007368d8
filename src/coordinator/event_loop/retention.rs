//! WITH (retention = ...) of tables: a row goes when its own time is so long ago.
//!
//! The time is a column of the row, so it needs no memory of its own and is the same after a
//! restart. From time to time the column of a table is looked at, if something was written since or
//! the time of a row has come; rows whose time has come are deleted as a statement would delete
//! them: in the log, and with retractions for whoever reads the table. A table that a transaction
//! holds is looked at when it is free again. A row without a time stays.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::DataType;

use super::writes::Claim;
use super::{State, TableWrite, WaitingWrite, WriteChange};
use crate::catalog::object::{ObjectKind, TableRetention};
use crate::catalog::snapshot::Catalog;
use crate::coordinator::epoch::Moment;
use crate::coordinator::table::Table;
use crate::plan::event_time::time_values;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::text::datetime::US_PER_DAY;

/// A table is looked at so many times in its retention, but not more often than this.
const LOOKS: u32 = 50;
const LOOK_MIN: Duration = Duration::from_millis(100);
/// ... nor less often than every second, or every ten if it is large: a look takes some nanoseconds
/// for each row.
const LARGE_ROWS: usize = 1_000_000;
const LOOK_MAX: Duration = Duration::from_secs(1);
const LOOK_LARGE_MAX: Duration = Duration::from_secs(10);

/// Tables whose rows go by themselves.
#[derive(Default)]
pub(super) struct Retentions {
    tables: BTreeMap<ObjectId, Retained>,
}

struct Retained {
    rule: TableRetention,
    next_look: Moment,
    /// What the table was when it was looked at last.
    version: Option<u64>,
    /// When the first of its rows goes, in microseconds since 1970; `None`: none does.
    first_goes_us: Option<i64>,
}

impl Retentions {
    pub fn remove(&mut self, table: ObjectId) {
        self.tables.remove(&table);
    }

    /// When the next table is to be looked at.
    pub fn wake(&self) -> Option<Moment> {
        self.tables.values().map(|retained| retained.next_look).min()
    }
}

impl State {
    /// Remembers what the catalog says of a table.
    pub(super) fn note_retention(&mut self, catalog: &Catalog, table: ObjectId) {
        if let Some(object) = catalog.get(table)
            && let ObjectKind::Table(definition) = &object.kind
            && let Some(rule) = definition.retention
        {
            let next_look = self.now();
            let retained = Retained { rule, next_look, version: None, first_goes_us: None };
            self.retentions.tables.insert(table, retained);
        }
    }

    /// Lets rows go whose time has come.
    pub(super) fn let_rows_go(&mut self, now: Moment) {
        if self.retentions.wake().is_none_or(|wake| wake > now) {
            return;
        }
        let now_us = self.logical_time().0;
        let due = self.retentions.tables.iter().filter(|(_, retained)| retained.next_look <= now);
        let due: Vec<ObjectId> = due.map(|(table, _)| *table).collect();
        let may_write = !self.wants_quiet() && self.writes_refused().is_none();
        for table in due {
            let rows = self.tables.get(&table).map_or(0, |table| table.snapshot().num_rows());
            let max = if rows < LARGE_ROWS { LOOK_MAX } else { LOOK_LARGE_MAX };
            let may_look = may_write && self.locks.free(&[table]);
            if may_look && let Err(error) = self.look_at(table, now_us) {
                tracing::error!(%table, %error, "old rows of a table stay");
            }
            if let Some(retained) = self.retentions.tables.get_mut(&table) {
                let keep_us = u64::try_from(retained.rule.keep_us).unwrap_or(u64::MAX);
                let pause = Duration::from_micros(keep_us) / LOOKS;
                // What somebody else held back is soon tried again.
                let pause = if may_look { pause.clamp(LOOK_MIN, max) } else { LOOK_MIN };
                retained.next_look = now + pause;
            }
        }
    }

    fn look_at(&mut self, id: ObjectId, now_us: i64) -> Result<()> {
        let (Some(table), Some(retained)) =
            (self.tables.get(&id), self.retentions.tables.get_mut(&id))
        else {
            return Ok(());
        };
        let changed = retained.version != Some(table.version());
        if !changed && retained.first_goes_us.is_none_or(|first| first > now_us) {
            return Ok(());
        }
        let Old { rows, first_goes_us } = old_rows(table, retained.rule, now_us)?;
        retained.first_goes_us = first_goes_us;
        retained.version = Some(table.version());
        if rows.is_empty() {
            return Ok(());
        }
        let schema = table.schema().clone();
        let change = ChangeBatch::deletes(compute::concat_batches(&schema, &rows)?);
        let writes = vec![TableWrite { table: id, change: WriteChange::Changes(change) }];
        let (reply, _) = tokio::sync::oneshot::channel();
        self.write_unasked(WaitingWrite { writes, claim: Claim::default(), early: true, reply });
        if let (Some(table), Some(retained)) =
            (self.tables.get(&id), self.retentions.tables.get_mut(&id))
        {
            retained.version = Some(table.version());
        }
        Ok(())
    }
}

/// What a look finds.
struct Old {
    /// Rows whose time has come.
    rows: Vec<RecordBatch>,
    /// When the first of the others goes.
    first_goes_us: Option<i64>,
}

fn old_rows(table: &Table, rule: TableRetention, now_us: i64) -> Result<Old> {
    let mut old = Old { rows: Vec::new(), first_goes_us: None };
    let limit_us = now_us.saturating_sub(rule.keep_us);
    for rows in table.snapshot().batches() {
        let rows = rows?;
        let column = rows.column(rule.column);
        let unit_us = if *column.data_type() == DataType::Date32 { US_PER_DAY } else { 1 };
        let times =
            time_values(column).ok_or_else(|| Error::internal("a retention counts from a time"))?;
        let us = |row: usize| times.value(row).saturating_mul(unit_us);
        let mut found = false;
        let goes: BooleanArray = (0..times.len())
            .map(|row| {
                let goes = times.is_valid(row) && us(row) <= limit_us;
                if times.is_valid(row) && !goes {
                    let at_us = us(row).saturating_add(rule.keep_us);
                    old.first_goes_us = Some(old.first_goes_us.map_or(at_us, |us| us.min(at_us)));
                }
                found |= goes;
                Some(goes)
            })
            .collect();
        if found {
            old.rows.push(compute::filter_record_batch(&rows, &goes)?);
        }
    }
    Ok(old)
}
