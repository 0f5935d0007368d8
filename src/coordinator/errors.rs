//! Rows and records that were left out: what `millstream.errors` shows.
//!
//! Equal errors are one record with a weight; when the row goes (weight back to 0), so does the
//! record. The number of records is bounded; the oldest leave first, and are counted.

use std::collections::{HashMap, VecDeque};

use crate::catalog::object::ObjectName;
use crate::dataflow::operator::RowError;
use crate::types::id::ObjectId;
use crate::types::time::EventTime;

/// Records kept. At a few hundred bytes each this is a few megabytes.
const RECORDS_MAX: usize = 10_000;

/// One row or record that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ErrorRecord {
    /// When it was first seen.
    pub time: EventTime,
    /// The view or source.
    pub object: ObjectName,
    /// The expression, or the place in the source.
    pub place: String,
    pub sqlstate: &'static str,
    pub message: String,
    /// The row or record as text.
    pub row: String,
    /// How many copies of the row were left out.
    pub weight: i64,
}

/// What makes two errors one record.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    object: ObjectId,
    place: String,
    sqlstate: &'static str,
    message: String,
    row: String,
}

/// What a record has beside its identity.
struct Seen {
    /// The object's name, which may not be in the catalog yet.
    name: ObjectName,
    /// When it was first seen.
    time: EventTime,
    weight: i64,
}

/// All records.
#[derive(Default)]
pub struct ErrorLog {
    records: HashMap<Identity, Seen>,
    /// Oldest first; may hold identities that have gone.
    order: VecDeque<Identity>,
}

impl ErrorLog {
    pub fn record(
        &mut self,
        object: ObjectId,
        name: &ObjectName,
        errors: Vec<RowError>,
        now: EventTime,
    ) {
        for error in errors {
            let identity = Identity {
                object,
                place: error.expression,
                sqlstate: error.error.sqlstate().0,
                message: error.error.to_string(),
                row: error.row,
            };
            let seen = self.records.entry(identity.clone()).or_insert_with(|| {
                self.order.push_back(identity.clone());
                Seen { name: name.clone(), time: now, weight: 0 }
            });
            seen.weight += error.weight;
            if seen.weight == 0 {
                self.records.remove(&identity);
            }
            while self.order.len() > RECORDS_MAX {
                let oldest = self.order.pop_front().expect("longer than the maximum");
                self.records.remove(&oldest);
            }
        }
    }

    /// Forgets the errors of an object that has gone.
    pub fn forget(&mut self, object: ObjectId) {
        self.records.retain(|identity, _| identity.object != object);
        self.order.retain(|identity| identity.object != object);
    }

    /// The errors of two objects change places, with the objects' names.
    pub fn exchange(&mut self, a: ObjectId, b: ObjectId) {
        let other = |object: ObjectId| match object {
            object if object == a => b,
            object if object == b => a,
            object => object,
        };
        let records = std::mem::take(&mut self.records);
        self.records = records
            .into_iter()
            .map(|(identity, seen)| (Identity { object: other(identity.object), ..identity }, seen))
            .collect();
        for identity in &mut self.order {
            identity.object = other(identity.object);
        }
    }

    /// The records, oldest first.
    pub fn records(&self) -> Vec<ErrorRecord> {
        let mut records: Vec<ErrorRecord> = self
            .records
            .iter()
            .map(|(identity, seen)| ErrorRecord {
                time: seen.time,
                object: seen.name.clone(),
                place: identity.place.clone(),
                sqlstate: identity.sqlstate,
                message: identity.message.clone(),
                row: identity.row.clone(),
                weight: seen.weight,
            })
            .collect();
        records.sort_by(|a, b| (a.time, &a.object, &a.place).cmp(&(b.time, &b.object, &b.place)));
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::error::{Error, SqlState};

    const V: ObjectId = ObjectId(7);

    fn name(name: &str) -> ObjectName {
        ObjectName { database: "d".into(), schema: "public".into(), name: name.into() }
    }

    fn division(row: &str, weight: i64) -> RowError {
        RowError {
            error: Error::user(SqlState::DIVISION_BY_ZERO, "division by zero"),
            expression: "a / b".into(),
            row: row.into(),
            weight,
        }
    }

    #[test]
    fn a_record_goes_with_its_row() {
        let mut log = ErrorLog::default();
        log.record(V, &name("v"), vec![division("1, 0", 1), division("2, 0", 2)], EventTime(5));
        log.record(V, &name("v"), vec![division("1, 0", -1)], EventTime(6));
        log.record(ObjectId(8), &name("w"), vec![division("1, 0", 1)], EventTime(7));
        let records = log.records();
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].row.as_str(), records[0].weight), ("2, 0", 2));
        assert_eq!(records[0].sqlstate, "22012");
        log.forget(V);
        assert_eq!(log.records().len(), 1);
        assert_eq!(log.records()[0].object.name, "w");
    }

    #[test]
    fn the_number_of_records_is_bounded() {
        let mut log = ErrorLog::default();
        for row in 0..RECORDS_MAX + 10 {
            let errors = vec![division(&row.to_string(), 1)];
            log.record(V, &name("v"), errors, EventTime(row as i64));
        }
        assert_eq!(log.records().len(), RECORDS_MAX);
        assert_eq!(log.records()[0].row, "10");
    }
}
