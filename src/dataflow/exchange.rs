//! How batches travel between workers: the element type of every edge, and its distribution.
//!
//! Progress tracking counts records, and a distributor must preserve the count. A chunk counts
//! its rows plus the copies of its watermarks: a watermark is sent as `peers` counted copies and
//! split to one per worker, rows are split by the hash of their key columns.
//! With one worker timely skips the distributor, and a watermark arrives with all its copies.

use std::io::Write;

use arrow::array::UInt32Array;
use timely::Accountable;
use timely::communication::Push;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::dataflow::channels::{ContainerBytes, Message};
use timely::progress::Stamp;

use crate::plan::node::Exchange;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::key::route_rows;
use crate::types::time::Watermark;

/// What an edge carries at one time: batches (none of them empty) and watermarks.
#[derive(Clone, Default)]
pub struct Chunk {
    pub batches: Vec<ChangeBatch>,
    pub watermarks: Vec<SentWatermark>,
}

/// A watermark on its way.
#[derive(Clone, Copy)]
pub struct SentWatermark {
    /// The worker whose share of the stream it speaks for.
    pub from: usize,
    /// How many workers it is still meant for.
    pub copies: u32,
    pub watermark: Watermark,
}

impl SentWatermark {
    /// From a worker to all of them.
    pub fn to_all(watermark: Watermark, from: usize, workers: usize) -> SentWatermark {
        SentWatermark { from, copies: workers as u32, watermark }
    }
}

impl Accountable for Chunk {
    fn record_count(&self) -> i64 {
        let rows: usize = self.batches.iter().map(ChangeBatch::num_rows).sum();
        let copies: u32 = self.watermarks.iter().map(|w| w.copies).sum();
        rows as i64 + i64::from(copies)
    }
}

/// Chunks cross threads as they are. Between processes they would need a byte format; the server
/// starts no such cluster, so these are never called.
impl ContainerBytes for Chunk {
    fn from_bytes(_bytes: timely::bytes::arc::Bytes) -> Chunk {
        unreachable!("workers of one process exchange chunks without serialising them")
    }

    fn length_in_bytes(&self) -> usize {
        unreachable!("workers of one process exchange chunks without serialising them")
    }

    fn into_bytes<W: Write>(&self, _writer: &mut W) {
        unreachable!("workers of one process exchange chunks without serialising them")
    }
}

/// Splits chunks over the workers as an [`Exchange`] says.
pub struct Split {
    exchange: Exchange,
    /// Told of a batch whose keys cannot be hashed; its rows go to worker 0.
    on_error: Box<dyn FnMut(crate::types::error::Error)>,
}

impl Split {
    pub fn new(
        exchange: Exchange,
        on_error: impl FnMut(crate::types::error::Error) + 'static,
    ) -> Split {
        assert!(exchange != Exchange::Local, "a local edge has no distributor");
        Split { exchange, on_error: Box::new(on_error) }
    }
}

/// The rows of `batch` for each worker: one `take` in destination order, then slices.
///
/// # Errors
/// When a key column cannot be hashed.
pub fn split_by_hash(
    batch: &ChangeBatch,
    columns: &[usize],
    workers: usize,
) -> Result<Vec<ChangeBatch>> {
    let keys = batch.columns_at(columns);
    let route = route_rows(&keys, batch.num_rows(), workers)?;
    let mut starts = vec![0usize; workers + 1];
    for worker in &route {
        starts[*worker as usize + 1] += 1;
    }
    for worker in 0..workers {
        starts[worker + 1] += starts[worker];
    }
    if let Some(only) = (0..workers).find(|w| starts[w + 1] - starts[*w] == batch.num_rows()) {
        let mut parts: Vec<_> = (0..workers).map(|_| batch.slice(0, 0)).collect();
        parts[only] = batch.clone();
        return Ok(parts);
    }
    let mut next = starts.clone();
    let mut order = vec![0u32; batch.num_rows()];
    for (row, worker) in route.iter().enumerate() {
        let slot = &mut next[*worker as usize];
        order[*slot] = row as u32;
        *slot += 1;
    }
    let sorted = batch.take(&UInt32Array::from(order))?;
    Ok((0..workers).map(|w| sorted.slice(starts[w], starts[w + 1] - starts[w])).collect())
}

impl Distributor<Chunk> for Split {
    fn partition<T: Clone, P: Push<Message<T, Chunk>>>(
        &mut self,
        chunk: &mut Chunk,
        stamp: &Stamp<T>,
        pushers: &mut [P],
    ) {
        let workers = pushers.len();
        for batch in chunk.batches.drain(..) {
            let parts = match &self.exchange {
                Exchange::Hash(columns) => split_by_hash(&batch, columns, workers),
                Exchange::Single | Exchange::Local => Ok(vec![batch.clone()]),
            };
            let parts = parts.unwrap_or_else(|error| {
                (self.on_error)(error);
                vec![batch]
            });
            for (part, pusher) in parts.into_iter().zip(pushers.iter_mut()) {
                if !part.is_empty() {
                    let mut message = Chunk { batches: vec![part], watermarks: vec![] };
                    Message::push_at(&mut message, stamp.clone(), pusher);
                }
            }
        }
        for watermark in chunk.watermarks.drain(..) {
            assert_eq!(watermark.copies as usize, workers, "one copy for each worker");
            for pusher in pushers.iter_mut() {
                let one = SentWatermark { copies: 1, ..watermark };
                let mut message = Chunk { batches: vec![], watermarks: vec![one] };
                Message::push_at(&mut message, stamp.clone(), pusher);
            }
        }
    }

    fn flush<T: Clone, P: Push<Message<T, Chunk>>>(&mut self, _: &Stamp<T>, _: &mut [P]) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn splitting_keeps_every_row_with_its_weight_and_each_key_together() {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)]));
        let keys = Int64Array::from_iter_values((0..1000).map(|i| i % 37));
        let rows = RecordBatch::try_new(schema, vec![Arc::new(keys)]).expect("one column");
        let weights: Vec<i64> = (0..1000).map(|i| if i % 3 == 0 { -1 } else { 2 }).collect();
        let batch = ChangeBatch::new(rows, weights).expect("weights");
        let parts = split_by_hash(&batch, &[0], 3).expect("splits");
        assert_eq!(parts.iter().map(ChangeBatch::num_rows).sum::<usize>(), 1000);
        assert_eq!(parts.iter().map(ChangeBatch::weight_sum).sum::<i64>(), batch.weight_sum());
        for key in 0..37 {
            let holders = parts
                .iter()
                .filter(|p| p.column(0).as_primitive::<Int64Type>().values().contains(&key))
                .count();
            assert_eq!(holders, 1, "key {key} is on one worker");
        }
    }
}
