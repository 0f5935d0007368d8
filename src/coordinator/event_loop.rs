//! The coordinator's thread: one closed `Event` enum, one match, nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::catalog::object::Object;
use crate::catalog::snapshot::Catalog;
use crate::plan::node::{Plan, SourceSpec};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::time::Epoch;

/// The way to the coordinator's thread. Cheap to clone; every method may be called from any task.
#[derive(Clone)]
pub struct Coordinator {}

/// What the data plane must set up for a new object.
pub enum Install {
    /// A view: nothing.
    Nothing,
    Table,
    Source(SourceSpec),
    /// A materialized view: the dataflow that maintains it.
    Dataflow(Plan),
}

/// The content of objects at one epoch. Holding it costs memory only, and stops nobody.
#[derive(Clone, Debug)]
pub struct ReadView {
    pub epoch: Epoch,
    /// Live rows of each object; a row of weight n stands n times.
    pub contents: HashMap<ObjectId, Vec<RecordBatch>>,
}

/// One table's part of a write.
#[derive(Debug)]
pub struct TableWrite {
    pub table: ObjectId,
    pub change: WriteChange,
}

/// What a write does to its table. Rows have all columns of the table, in order.
#[derive(Debug)]
pub enum WriteChange {
    /// New rows. A key that exists is handled as `on_conflict` says; a key twice in `rows` too.
    Insert {
        rows: RecordBatch,
        on_conflict: WriteConflict,
    },
    /// Exact rows out (weight -1) and in (+1), as UPDATE and DELETE compute them under the table's
    /// lock. A key that this leaves twice is a unique violation.
    Changes(ChangeBatch),
    Truncate,
}

/// What happens to a new row whose key exists.
#[derive(Debug)]
pub enum WriteConflict {
    Error,
    Ignore,
    /// The new row replaces the old.
    Replace,
}

/// What a write did.
#[derive(Debug)]
pub struct WriteOutcome {
    pub epoch: Epoch,
    /// Rows inserted (or changed, for `Changes`: the larger of rows in and rows out), per write.
    pub counts: Vec<u64>,
    /// Rows that went in, per write: what RETURNING of an INSERT shows.
    pub inserted: Vec<RecordBatch>,
}

/// The right to write some tables, held until dropped. Others who want them wait in line.
pub struct WriteLock {}

/// Changes of a query from one epoch on.
pub struct Subscription {
    /// In epoch order; each item is complete.
    pub changes: tokio::sync::mpsc::Receiver<Result<SubscriptionStep>>,
}

/// One step of a subscription.
#[derive(Debug)]
pub struct SubscriptionStep {
    /// Everything up to and including this epoch has been sent with this step.
    pub epoch: Epoch,
    pub changes: Vec<ChangeBatch>,
}

impl Coordinator {
    /// The newest catalog version.
    pub fn catalog(&self) -> Arc<Catalog> {
        todo!()
    }

    /// Adds an object and what it needs in the data plane; when this returns, the object can be
    /// read. `object.id` is chosen by the coordinator and returned.
    ///
    /// # Errors
    /// When the name is taken, or a dependency has gone meanwhile; then nothing is left behind.
    pub async fn create_object(&self, _object: Object, _install: Install) -> Result<ObjectId> {
        Err(Error::unsupported("this"))
    }

    /// Changes the catalog without the data plane (databases, schemas), or drops objects, which
    /// stand in `changes` dependants first.
    pub async fn apply(&self, _changes: Vec<crate::catalog::snapshot::Change>) -> Result<()> {
        Err(Error::unsupported("this"))
    }

    /// The content of `objects` (tables and materialized views) at one epoch: the newest, and not
    /// older than any commit that a client was told of.
    pub async fn read(&self, _objects: Vec<ObjectId>) -> Result<ReadView> {
        Err(Error::unsupported("this"))
    }

    /// Waits for the exclusive right to write `tables`, in line.
    ///
    /// # Errors
    /// After `lock_timeout` (SQLSTATE 55P03).
    pub async fn lock_tables(&self, _tables: Vec<ObjectId>) -> Result<WriteLock> {
        Err(Error::unsupported("this"))
    }

    /// Applies writes as one epoch, all or nothing. `lock` covers the tables, or is `None` for a
    /// plain INSERT, which waits in line by itself.
    pub async fn write(
        &self,
        _lock: Option<&WriteLock>,
        _writes: Vec<TableWrite>,
    ) -> Result<WriteOutcome> {
        Err(Error::unsupported("this"))
    }

    /// Runs `plan` as a dataflow of its own and hands out its changes: first its content as of
    /// now, then what follows. Dropping the subscription drops the dataflow.
    pub async fn subscribe(&self, _plan: Plan) -> Result<Subscription> {
        Err(Error::unsupported("this"))
    }

    /// Waits until everything acknowledged before is visible in every dependent view.
    pub async fn flush(&self) -> Result<Epoch> {
        Err(Error::unsupported("this"))
    }
}
