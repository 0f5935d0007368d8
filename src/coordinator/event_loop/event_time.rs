//! Event time in the coordinator: what workers tell of watermarks and late rows, and who asks.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

use super::{Command, Reply, State};
use crate::types::id::ObjectId;
use crate::types::time::Watermark;

/// Someone who asks for the watermarks of all objects.
pub(super) struct PendingWatermarks {
    /// Workers that have not answered.
    missing: usize,
    /// Per object: the least of the workers' watermarks, and how many workers have one.
    found: BTreeMap<ObjectId, (Watermark, usize)>,
    reply: Reply<BTreeMap<ObjectId, Watermark>>,
}

impl State {
    /// Asks the workers what the watermarks of sources, tables and views are.
    pub(super) fn ask_watermarks(&mut self, reply: Reply<BTreeMap<ObjectId, Watermark>>) {
        let request = self.next_read;
        self.next_read += 1;
        let missing = self.workers.count();
        let pending = PendingWatermarks { missing, found: BTreeMap::new(), reply };
        self.watermark_reads.insert(request, pending);
        self.workers.send(Command::Watermarks { request });
    }

    /// A worker's answer. An object's watermark is the least of its workers', once all have one.
    pub(super) fn watermarks_arrived(&mut self, request: u64, marks: &[(ObjectId, Watermark)]) {
        let Some(pending) = self.watermark_reads.get_mut(&request) else { return };
        for (object, watermark) in marks {
            let found = pending.found.entry(*object).or_insert((*watermark, 0));
            found.0 = found.0.min(*watermark);
            found.1 += 1;
        }
        pending.missing -= 1;
        if pending.missing == 0 {
            let pending = self.watermark_reads.remove(&request).expect("just found");
            let workers = self.workers.count();
            let told = |(object, (watermark, count)): (ObjectId, (Watermark, usize))| {
                (count == workers).then_some((object, watermark))
            };
            // The client may have gone.
            let _ = pending.reply.send(Ok(pending.found.into_iter().filter_map(told).collect()));
        }
    }

    /// Rows that came behind a source's watermark.
    pub(super) fn late_rows(&mut self, object: ObjectId, rows: RecordBatch) {
        tracing::debug!(%object, rows = rows.num_rows(), "late rows");
    }
}
