//! Rows and records that were left out: what `millstream.errors` shows.
//!
//! Equal errors are one record with a weight; when the row goes (weight back to 0), so does the
//! record. The number of records is bounded; the oldest leave first. When the row of one that had to
//! leave goes, that gives a record of negative weight, which is not shown.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::catalog::object::ObjectName;
use crate::dataflow::operator::RowError;
use crate::types::error::{Error, Result};
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

/// Errors of epochs after a checkpoint's.
pub struct LateErrors {
    pub object: ObjectId,
    pub name: ObjectName,
    pub errors: Vec<RowError>,
}

/// A record in the storage.
#[derive(Serialize, Deserialize)]
struct StoredError {
    object: u64,
    database: String,
    schema: String,
    name: String,
    time_us: i64,
    place: String,
    sqlstate: String,
    message: String,
    row: String,
    weight: i64,
}

/// The same text for as long as the process lives. There are some hundred of them.
fn sqlstate_of(text: &str) -> &'static str {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock().expect("nobody panics while holding it");
    if let Some(known) = known.get(text) {
        return known;
    }
    let new: &'static str = text.to_owned().leak();
    known.insert(new);
    new
}

/// What a record has beside its identity.
#[derive(Clone)]
struct Seen {
    /// The object's name, which may not be in the catalog yet.
    name: ObjectName,
    /// When it was first seen.
    time: EventTime,
    weight: i64,
    /// Its place in the order.
    number: u64,
}

/// All records.
#[derive(Clone, Default)]
pub struct ErrorLog {
    records: HashMap<Identity, Seen>,
    /// The records by their numbers: oldest first.
    order: BTreeMap<u64, Identity>,
    next_number: u64,
    /// Records had to leave because there were too many.
    evicted: bool,
}

impl ErrorLog {
    fn insert(&mut self, identity: Identity, name: ObjectName, time: EventTime, weight: i64) {
        let number = self.next_number;
        self.next_number += 1;
        self.order.insert(number, identity.clone());
        self.records.insert(identity, Seen { name, time, weight, number });
    }

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
            match self.records.get_mut(&identity) {
                None => self.insert(identity, name.clone(), now, error.weight),
                Some(seen) if seen.weight + error.weight == 0 => {
                    self.order.remove(&seen.number);
                    self.records.remove(&identity);
                }
                Some(seen) => seen.weight += error.weight,
            }
            while self.order.len() > RECORDS_MAX {
                let (_, oldest) = self.order.pop_first().expect("longer than the maximum");
                self.records.remove(&oldest);
                self.evicted = true;
            }
        }
    }

    /// Forgets the errors of an object that has gone.
    pub fn forget(&mut self, object: ObjectId) {
        self.records.retain(|identity, _| identity.object != object);
        self.order.retain(|_, identity| identity.object != object);
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
        for identity in self.order.values_mut() {
            identity.object = other(identity.object);
        }
    }

    /// The records that `kept` objects had before `late` errors, as text. `now` is the time of
    /// those that have gone since.
    pub fn to_text(
        &self,
        late: &[LateErrors],
        now: EventTime,
        kept: impl Fn(ObjectId) -> bool,
    ) -> String {
        let mut all = self.clone();
        for LateErrors { object, name, errors } in late {
            let undone = errors.iter().map(|e| RowError { weight: -e.weight, ..e.clone() });
            all.record(*object, name, undone.collect(), now);
        }
        let records = all.order.values().filter(|identity| kept(identity.object));
        let records = records.filter_map(|identity| {
            let Seen { name, time, weight, .. } = all.records.get(identity)?;
            Some(StoredError {
                object: identity.object.0,
                database: name.database.clone(),
                schema: name.schema.clone(),
                name: name.name.clone(),
                time_us: time.0,
                place: identity.place.clone(),
                sqlstate: identity.sqlstate.to_owned(),
                message: identity.message.clone(),
                row: identity.row.clone(),
                weight: *weight,
            })
        });
        let records: Vec<StoredError> = records.collect();
        serde_json::to_string(&records).expect("plain data has a JSON form")
    }

    /// Takes up the stored records of `kept` objects; whether that were all.
    ///
    /// # Errors
    /// When the text is something else.
    pub fn load(&mut self, text: &str, kept: impl Fn(ObjectId) -> bool) -> Result<bool> {
        let stored: Vec<StoredError> = serde_json::from_str(text)
            .map_err(|error| Error::internal(format!("stored row errors: {error}")))?;
        let mut all = true;
        for stored in stored {
            if !kept(ObjectId(stored.object)) {
                all = false;
                continue;
            }
            let identity = Identity {
                object: ObjectId(stored.object),
                place: stored.place,
                sqlstate: sqlstate_of(&stored.sqlstate),
                message: stored.message,
                row: stored.row,
            };
            let name =
                ObjectName { database: stored.database, schema: stored.schema, name: stored.name };
            self.insert(identity, name, EventTime(stored.time_us), stored.weight);
        }
        Ok(all)
    }

    /// The records, oldest first.
    pub fn records(&self) -> Vec<ErrorRecord> {
        let mut records: Vec<ErrorRecord> = self
            .records
            .iter()
            .filter(|(_, seen)| seen.weight > 0 || !self.evicted)
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
    fn what_is_stored_is_as_of_an_epoch_and_comes_back() {
        let mut log = ErrorLog::default();
        log.record(V, &name("v"), vec![division("1, 0", 2)], EventTime(4));
        log.record(V, &name("v"), vec![division("2, 0", 1)], EventTime(5));
        log.record(ObjectId(8), &name("w"), vec![division("1, 0", 1)], EventTime(6));
        let before = log.records();
        let late = vec![division("1, 0", -1), division("2, 0", -1), division("3, 0", 1)];
        log.record(V, &name("v"), late.clone(), EventTime(7));
        let late = [LateErrors { object: V, name: name("v"), errors: late }];
        let text = log.to_text(&late, EventTime(5), |_| true);
        let mut restored = ErrorLog::default();
        restored.load(&text, |_| true).expect("is ours");
        assert_eq!(restored.records(), before);
        restored.record(V, &name("v"), vec![division("1, 0", -2)], EventTime(8));
        assert_eq!(restored.records().len(), 2);
        let mut part = ErrorLog::default();
        part.load(&text, |object| object == V).expect("is ours");
        assert_eq!(part.records().len(), 2);
        assert!(part.load("{", |_| true).is_err());
    }

    #[test]
    fn a_record_that_comes_and_goes_takes_no_room_and_no_others_place() {
        let mut log = ErrorLog::default();
        log.record(V, &name("v"), vec![division("stays", 1)], EventTime(1));
        for _ in 0..RECORDS_MAX + 10 {
            log.record(V, &name("v"), vec![division("flips", 1)], EventTime(2));
            log.record(V, &name("v"), vec![division("flips", -1)], EventTime(2));
        }
        assert_eq!(log.records().len(), 1);
        log.record(V, &name("v"), vec![division("stays", -1)], EventTime(3));
        assert!(log.records().is_empty());
    }

    #[test]
    fn what_had_to_leave_leaves_no_trace_when_its_row_goes() {
        let mut log = ErrorLog::default();
        for row in 0..=RECORDS_MAX {
            log.record(V, &name("v"), vec![division(&row.to_string(), 1)], EventTime(1));
        }
        log.record(V, &name("v"), vec![division("0", -1)], EventTime(2));
        assert!(log.records().iter().all(|record| record.weight > 0));
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
