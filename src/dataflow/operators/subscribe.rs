//! Hands the changes of a query to one subscriber, epoch by epoch.
//!
//! 1. `on_batch`: collect the epoch's changes.
//! 2. `on_epoch`: consolidate them and hand them over; the worker tells the subscriber when the
//!    epoch has passed.
//!
//! Keeps nothing between epochs.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::materialize::consolidate;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::{Epoch, Watermark};

/// What one worker tells a subscriber.
pub enum SubscriptionEvent {
    Changes {
        epoch: Epoch,
        changes: Vec<ChangeBatch>,
    },
    /// This worker has finished all epochs before this one.
    Frontier {
        worker: usize,
        frontier: Epoch,
    },
}

/// The way to the subscriber. Never blocks: whoever receives bounds what it keeps.
#[derive(Clone)]
pub struct SubscriptionSender(Arc<dyn Fn(SubscriptionEvent) + Send + Sync>);

impl SubscriptionSender {
    pub fn new(receive: impl Fn(SubscriptionEvent) + Send + Sync + 'static) -> SubscriptionSender {
        SubscriptionSender(Arc::new(receive))
    }

    /// Tells that `worker` has finished all epochs before `frontier`; may be called again with
    /// the same.
    pub fn advance(&self, worker: usize, frontier: Epoch) {
        (self.0)(SubscriptionEvent::Frontier { worker, frontier });
    }
}

/// The operator at the end of a subscription's dataflow.
pub struct Subscribe {
    schema: SchemaRef,
    sender: SubscriptionSender,
    /// Changes of the current epoch.
    changes: Vec<ChangeBatch>,
}

impl Subscribe {
    pub fn new(schema: SchemaRef, sender: SubscriptionSender) -> Subscribe {
        Subscribe { schema, sender, changes: Vec::new() }
    }
}

impl Operator for Subscribe {
    fn name(&self) -> &'static str {
        "subscribe"
    }

    fn on_batch(&mut self, _port: usize, batch: ChangeBatch, _out: &mut Output) -> Result<()> {
        self.changes.push(batch);
        Ok(())
    }

    fn on_watermark(&mut self, _port: usize, _mark: Watermark, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    fn on_epoch(&mut self, epoch: Epoch, _out: &mut Output) -> Result<()> {
        let changes = consolidate(&self.schema, std::mem::take(&mut self.changes))?;
        if !changes.is_empty() {
            (self.sender.0)(SubscriptionEvent::Changes { epoch, changes });
        }
        Ok(())
    }

    fn checkpoint(&mut self, _epoch: Epoch, _writer: &mut CheckpointWriter) -> Result<()> {
        Ok(())
    }

    fn restore(&mut self, _reader: &mut CheckpointReader) -> Result<()> {
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.changes.iter().map(ChangeBatch::size_bytes).sum()
    }
}
