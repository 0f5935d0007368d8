//! What one statement sees of tables and materialized views: rows, or snapshots from which rows are
//! made as far as they are looked at, with the changes of the statement's own block on top.

use std::collections::{HashMap, HashSet};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::coordinator::rows::{columns_at, overlay};
use crate::sql::lookup::Lookup;
use crate::state::snapshot::Snapshot;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::id::ObjectId;
use crate::types::key::{HashUse, hash_rows};

/// Content of objects as one statement sees it.
pub(super) type Contents = HashMap<ObjectId, Stored>;

/// Content of one object.
pub(super) enum Stored {
    Rows(Vec<RecordBatch>),
    Parts {
        /// One of a table, one from each worker of a view.
        parts: Vec<Snapshot>,
        /// What the block has changed in it, oldest first, and the table's columns.
        pending: Option<(SchemaRef, Vec<ChangeBatch>)>,
    },
}

impl Stored {
    pub fn of_parts(parts: Vec<Snapshot>) -> Stored {
        Stored::Parts { parts, pending: None }
    }

    /// The parts, when they have more than so many rows and are all that there is: then rows are
    /// better made as they are read.
    pub fn large_parts(&self, rows_max: usize) -> Option<Vec<Snapshot>> {
        match self {
            Stored::Parts { parts, pending: None } => {
                let rows: usize = parts.iter().map(Snapshot::num_rows).sum();
                (rows > rows_max).then(|| parts.clone())
            }
            _ => None,
        }
    }

    /// All rows.
    pub fn batches(&self) -> Result<Vec<RecordBatch>> {
        let (parts, pending) = match self {
            Stored::Rows(rows) => return Ok(rows.clone()),
            Stored::Parts { parts, pending } => (parts, pending),
        };
        let rows = parts.iter().flat_map(Snapshot::batches).collect::<Result<Vec<_>>>()?;
        match pending {
            Some((schema, changes)) => overlay(&rows, schema, changes),
            None => Ok(rows),
        }
    }

    /// The rows that a lookup wants, and perhaps others; `None`: all have to be looked at.
    pub fn lookup(&self, lookup: &Lookup) -> Result<Option<Vec<RecordBatch>>> {
        let Stored::Parts { parts, pending } = self else { return Ok(None) };
        let columns = &lookup.index.columns;
        let mut rows = Vec::new();
        let mut unindexed = Vec::new();
        for part in parts {
            let found = part.lookup(columns, &lookup.keys)?;
            rows.extend(found.batches);
            unindexed.extend(found.unindexed.into_iter().filter(|s| s.claim_index(columns)));
        }
        if !unindexed.is_empty() {
            let columns = columns.clone();
            tokio::task::spawn_blocking(move || {
                for segment in unindexed {
                    if let Err(error) = segment.index(&columns) {
                        tracing::error!(%error, "an index was not made");
                    }
                }
            });
        }
        let Some((schema, changes)) = pending else { return Ok(Some(rows)) };
        // All rows of these keys are there, so what the block did to them is all that counts.
        let count = lookup.keys.first().map_or(0, |keys| keys.len());
        let wanted: HashSet<u64> =
            hash_rows(&lookup.keys, count, HashUse::Table)?.into_iter().collect();
        let mut own = Vec::new();
        for change in changes {
            let keys = columns_at(change.rows(), columns);
            let hashes = hash_rows(&keys, change.num_rows(), HashUse::Table)?;
            let hits: Vec<bool> = hashes.iter().map(|hash| wanted.contains(hash)).collect();
            own.push(change.filter(&BooleanArray::from(hits))?);
        }
        own.retain(|change| !change.is_empty());
        overlay(&rows, schema, &own).map(Some)
    }
}

/// Rows as they are.
pub(super) fn of_rows(rows: HashMap<ObjectId, Vec<RecordBatch>>) -> Contents {
    rows.into_iter().map(|(id, rows)| (id, Stored::Rows(rows))).collect()
}

/// Snapshots without changes.
pub(super) fn of_parts(parts: HashMap<ObjectId, Vec<Snapshot>>) -> Contents {
    parts.into_iter().map(|(id, parts)| (id, Stored::of_parts(parts))).collect()
}
