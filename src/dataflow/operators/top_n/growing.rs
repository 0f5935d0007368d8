//! Top-N by number of row over input that never deletes: each partition keeps its first rows only.
//!
//! 1. The partition of each row of a batch gets a dense number (`GroupIndex`), and its order a
//!    fixed prefix of 16 bytes (Arrow's row format), which decides nearly every comparison.
//! 2. Rows behind the last of a full partition are passed over before anything of them is copied.
//!    The ends of all partitions stand in a list of their own: to pass a row over reads nothing
//!    else. What is left is appended to the row store as one batch.
//! 3. Each of these is put into its place among the rows of its partition. Who falls out at the
//!    end dies at once; its data stay until the epoch's end, when its deletion is emitted.
//! 4. Rows with equal prefixes are compared whole: order first, then the other columns, as in the
//!    sorted table, so the answer does not depend on how rows came.
//! 5. Where all kept rows show, without their numbers, what an epoch changes is the rows of before
//!    that have fallen out and the rows that came and stayed. Else the partitions that changed are
//!    noted as they were, and compared.
//!
//! Partitions lie far apart in memory, and each row wants another one. So the loops over rows are
//! short and without branches where they can be: the loads of many rows are then under way at once.
//!
//! A row costs O(1) to be passed over and O(limit) to be taken in.
//!
//! Keeps: the rows that show, and the `offset` before them. Partitions with a time that the
//! watermark has passed (windows) are forgotten, in a walk over them now and then
//! (`forgetting.rs`).

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::RowConverter;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::{ROWS, STEP_ROWS, TopNSpec};
use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::aggregate::TimeKey;
use crate::dataflow::operators::forgetting::Walks;
use crate::dataflow::operators::top_n::closing::passed;
use crate::dataflow::operators::top_n::order::{Order, Prefix};
use crate::plan::node::RankFunction;
use crate::state::blocks::FlatStore;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::group_index::GroupIndex;
use crate::state::row_ids::ShortId;
use crate::state::row_store::RowStore;
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::{Epoch, Watermark};

/// Longer windows are kept in a sorted table: here a row moves those behind it.
const ROWS_MAX: u64 = 1024;

/// Rows whose partitions are read ahead: so many stay in the cache until it is their turn.
const AHEAD_ROWS: usize = 512;

/// A row of a partition.
#[derive(Clone, Copy, Debug)]
struct Place {
    prefix: Prefix,
    id: ShortId,
}

/// One partition.
#[derive(Debug, Default)]
struct Partition {
    /// In order; at most offset and limit together.
    rows: SmallVec<[Place; 1]>,
    /// It is among those that have been noted in this epoch.
    touched: bool,
}

/// A partition that changes, and where among the rows noted in this epoch those stand that showed
/// before. Those that have died are readable until the epoch's end.
#[derive(Debug)]
struct Touched {
    group: u32,
    before: Range<usize>,
}

/// A row of the output: its id, number and weight.
type Change = (ShortId, u64, i64);

/// The `top_n` operator, where rows never go.
pub struct GrowingTopN {
    spec: TopNSpec,
    /// Offset and limit.
    kept: usize,
    groups: GroupIndex,
    /// By the partition's number.
    partitions: FlatStore<Partition>,
    /// The order of the last row of each partition that is full; of others the greatest.
    ends: FlatStore<Prefix>,
    rows: RowStore,
    order: Order,
    /// The order may be longer than its prefix, or there are columns beside partition and order.
    whole: Option<RowConverter>,
    whole_columns: Vec<usize>,
    /// Whole rows that were compared in this epoch.
    compared: HashMap<ShortId, Box<[u8]>>,
    /// All kept rows show, without their numbers.
    all_show: bool,
    /// Where not all kept rows show, or with their numbers: partitions that change.
    touched: Vec<Touched>,
    noted: Vec<Place>,
    /// Where all kept rows show: the ids of the rows that came in this epoch, some of which may have
    /// died, and of those of before that have died.
    came: Vec<Range<u64>>,
    left: Vec<ShortId>,
    /// Rows in `partitions`, beyond one each.
    spilled: usize,
    /// What closes partitions, any of them; without, only the end of the stream does.
    closing: Vec<TimeKey>,
    watermark: Option<Watermark>,
    walks: Walks,
}

impl GrowingTopN {
    /// Whether this is the operator for it.
    pub fn serves(spec: &TopNSpec) -> bool {
        let kept = spec.limit.and_then(|limit| limit.checked_add(spec.offset));
        spec.append_only
            && spec.rank == RankFunction::RowNumber
            && kept.is_some_and(|kept| kept > 0 && kept <= ROWS_MAX)
    }

    /// # Errors
    /// For a column whose type has no order, or cannot be a key (SQLSTATE 0A000).
    pub fn new(spec: TopNSpec, input: &SchemaRef, closing: Vec<TimeKey>) -> Result<GrowingTopN> {
        assert!(GrowingTopN::serves(&spec), "the plan chooses another operator");
        let kept = (spec.offset + spec.limit.expect("it has a limit")) as usize;
        let order = Order::new(&spec, input)?;
        let key_types: Vec<DataType> =
            spec.partition.iter().map(|c| input.field(*c).data_type().clone()).collect();
        Ok(GrowingTopN {
            kept,
            groups: GroupIndex::new(&key_types)?,
            partitions: FlatStore::default(),
            ends: FlatStore::default(),
            rows: RowStore::new(input.clone()),
            whole: order.whole()?,
            whole_columns: order.compared().iter().map(|(column, _)| *column).collect(),
            order,
            compared: HashMap::new(),
            all_show: spec.offset == 0 && !spec.numbered,
            touched: Vec::new(),
            noted: Vec::new(),
            came: Vec::new(),
            left: Vec::new(),
            spilled: 0,
            closing,
            watermark: None,
            walks: Walks::default(),
            spec,
        })
    }

    /// Forgets the partitions that no change still to come concerns, when that is worth a walk.
    fn forget_closed(&mut self) -> Result<()> {
        let Some(watermark) = self.watermark else { return Ok(()) };
        // Without times in its plan it relies on no watermark, and not on the last one either: a view
        // below that is replaced changes after its end.
        if self.closing.is_empty() {
            return Ok(());
        }
        let end = watermark == Watermark::END;
        let worth = self.walks.due(self.partitions.len());
        if !end && !worth {
            return Ok(());
        }
        let live: Vec<u32> = (0..self.partitions.len() as u32)
            .filter(|group| !self.partitions[*group as usize].rows.is_empty())
            .collect();
        let closed = passed(&self.groups, live, &self.closing, watermark)?;
        let mut dead: Vec<ShortId> = Vec::new();
        for group in &closed {
            let rows = std::mem::take(&mut self.partitions[*group as usize].rows);
            self.ends[*group as usize] = Prefix::GREATEST;
            self.spilled -= rows.len() - 1;
            dead.extend(rows.iter().map(|row| row.id));
        }
        dead.sort_unstable();
        self.rows.kill_all(&dead);
        if !self.spec.partition.is_empty() {
            self.groups.remove(&closed)?;
        }
        Ok(())
    }

    /// Takes rows in; those that are behind the end of their partition leave no trace.
    fn take_in(&mut self, batch: &ChangeBatch, note: bool) -> Result<()> {
        let columns = batch.columns_at(&self.spec.partition);
        let mut groups = Vec::new();
        self.groups.intern(&columns, batch.num_rows(), &mut groups)?;
        self.partitions.resize_with(self.groups.id_limit(), Partition::default);
        self.ends.resize(self.groups.id_limit(), Prefix::GREATEST);
        let prefixes = self.order.prefixes(batch.rows())?;
        let candidates = self.candidates(&groups, &prefixes);
        if candidates.is_empty() {
            return Ok(());
        }
        let all = candidates.len() == batch.num_rows();
        let taken = match all {
            true => batch.rows().clone(),
            false => {
                let indices = UInt32Array::from(candidates.clone());
                compute::take_record_batch(batch.rows(), &indices)?
            }
        };
        let first = self.rows.append(&ChangeBatch::inserts(taken))?;
        let old_ids = self.came.first().map_or(first, |range| range.start);
        let mut dead: Vec<ShortId> = Vec::new();
        for (start, chunk) in (0..).step_by(AHEAD_ROWS).zip(candidates.chunks(AHEAD_ROWS)) {
            self.read_ahead(chunk, &groups);
            for (position, row) in chunk.iter().enumerate() {
                let id = (first + (start + position) as u64) as ShortId;
                let (group, prefix) = (groups[*row as usize], prefixes[*row as usize]);
                dead.extend(self.put(group, Place { prefix, id }, note)?);
            }
        }
        if note && self.all_show {
            self.came.push(first..first + candidates.len() as u64);
            let of_before = dead.iter().filter(|id| self.rows.full_id(**id) < old_ids);
            self.left.extend(of_before);
        }
        if !dead.is_empty() {
            // Ids of one row die once; in the order of ids they are found faster.
            dead.sort_unstable();
            self.rows.kill_all(&dead);
        }
        Ok(())
    }

    /// The rows that are not behind the ends of their partitions, as these are now.
    fn candidates(&self, groups: &[u32], prefixes: &[Prefix]) -> Vec<u32> {
        let mut candidates = vec![0; groups.len()];
        let mut count = 0;
        for (row, (group, prefix)) in groups.iter().zip(prefixes).enumerate() {
            candidates[count] = row as u32;
            count += usize::from(*prefix <= self.ends[*group as usize]);
        }
        candidates.truncate(count);
        candidates
    }

    /// Reads the partitions that some rows are about to be put into.
    fn read_ahead(&self, rows: &[u32], groups: &[u32]) {
        let read = |row: &u32| {
            let rows = &self.partitions[groups[*row as usize] as usize].rows;
            rows.last().map_or(0, |last| last.prefix.0[0])
        };
        // What is read does not matter, only that it then is in the cache.
        std::hint::black_box(rows.iter().map(read).fold(0, |all, one| all ^ one));
    }

    fn is_behind(&self, group: u32, prefix: Prefix) -> bool {
        prefix > self.ends[group as usize]
    }

    /// Puts a row into its place. The row that has none any more, which may be this one.
    fn put(&mut self, group: u32, new: Place, note: bool) -> Result<Option<ShortId>> {
        if self.is_behind(group, new.prefix) {
            return Ok(Some(new.id));
        }
        // From the end: a later row is more often a worse one.
        let mut at = self.partitions[group as usize].rows.len();
        while at > 0 {
            let other = self.partitions[group as usize].rows[at - 1];
            let order = match new.prefix.cmp(&other.prefix) {
                Ordering::Equal => self.compare(new.id, other.id)?,
                order => order,
            };
            if order.is_ge() {
                break;
            }
            at -= 1;
        }
        let (kept, offset) = (self.kept, self.spec.offset as usize);
        let partition = &mut self.partitions[group as usize];
        if at == kept {
            return Ok(Some(new.id));
        }
        if note && !self.all_show && !std::mem::replace(&mut partition.touched, true) {
            let start = self.noted.len();
            self.noted.extend(partition.rows.iter().skip(offset));
            self.touched.push(Touched { group, before: start..self.noted.len() });
        }
        let out = if partition.rows.len() == kept { partition.rows.pop() } else { None };
        partition.rows.insert(at, new);
        if partition.rows.len() == kept {
            let last = partition.rows.last().expect("a full partition has rows");
            self.ends[group as usize] = last.prefix;
        }
        if out.is_none() && partition.rows.len() > 1 {
            self.spilled += 1;
        }
        Ok(out.map(|out| out.id))
    }

    /// Compares two rows of one partition by all their columns.
    fn compare(&mut self, left: ShortId, right: ShortId) -> Result<Ordering> {
        self.remember(left)?;
        self.remember(right)?;
        Ok(self.compared.get(&left).cmp(&self.compared.get(&right)))
    }

    fn remember(&mut self, id: ShortId) -> Result<()> {
        let Some(whole) = &self.whole else { return Ok(()) };
        if !self.compared.contains_key(&id) {
            let (rows, position) = self.rows.row(id);
            let columns: Vec<ArrayRef> =
                self.whole_columns.iter().map(|c| rows.column(*c).slice(position, 1)).collect();
            let encoded = whole.convert_columns(&columns)?;
            self.compared.insert(id, encoded.row(0).data().into());
        }
        Ok(())
    }

    /// What has changed of a partition. Copies of a row are one as good as the other.
    fn changes(&mut self, before: &[Place], now: &[Place], out: &mut Vec<Change>) -> Result<()> {
        let offset = self.spec.offset;
        if self.spec.numbered {
            for place in 0..before.len().max(now.len()) {
                let number = offset + place as u64 + 1;
                let (old, new) = (before.get(place), now.get(place));
                if let (Some(old), Some(new)) = (old, new)
                    && self.alike(old, new)?
                {
                    continue;
                }
                out.extend(old.map(|row| (row.id, number, -1)));
                out.extend(new.map(|row| (row.id, number, 1)));
            }
            return Ok(());
        }
        // Both are in order.
        let (mut old, mut new) = (before.iter().peekable(), now.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(old), Some(new)) if self.alike(old, new)? => Ordering::Equal,
                (Some(old), Some(new)) => match old.prefix.cmp(&new.prefix) {
                    Ordering::Equal => self.compare(old.id, new.id)?,
                    order => order,
                },
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Ok(()),
            };
            let old = order.is_le().then(|| old.next()).flatten();
            let new = order.is_ge().then(|| new.next()).flatten();
            match (old, new) {
                (Some(_), Some(_)) => {}
                (old, new) => {
                    out.extend(old.map(|row| (row.id, 0, -1)));
                    out.extend(new.map(|row| (row.id, 0, 1)));
                }
            }
        }
    }

    /// Whether two rows of a partition are equal.
    fn alike(&mut self, left: &Place, right: &Place) -> Result<bool> {
        let same = left.id == right.id;
        Ok(same || left.prefix == right.prefix && self.compare(left.id, right.id)?.is_eq())
    }

    /// Where all kept rows show: what the epoch has changed.
    fn emit_comings(&mut self, out: &mut Output) -> Result<()> {
        let left = std::mem::take(&mut self.left);
        let mut changes: Vec<Change> = left.into_iter().map(|id| (id, 0, -1)).collect();
        for id in std::mem::take(&mut self.came).into_iter().flatten() {
            let id = id as ShortId;
            if !self.rows.is_dead(id) {
                changes.push((id, 0, 1));
            }
        }
        for step in changes.chunks(STEP_ROWS) {
            out.emit(self.output(step)?);
        }
        Ok(())
    }

    /// Rows of the output.
    fn output(&self, changes: &[Change]) -> Result<ChangeBatch> {
        let ids: Vec<ShortId> = changes.iter().map(|(id, _, _)| *id).collect();
        let numbers = changes.iter().map(|(_, number, _)| *number);
        let rows = self.spec.output(&self.rows.gather(&ids)?, numbers)?;
        ChangeBatch::new(rows, changes.iter().map(|(_, _, weight)| *weight).collect())
    }

    /// Moves the oldest rows of a window of ids that has become much longer than they are.
    fn move_front(&mut self) -> Result<()> {
        while self.rows.front_is_due() {
            let (ids, rows) = self.rows.front()?;
            let mut groups = Vec::new();
            let columns = rows.columns_at(&self.spec.partition);
            self.groups.intern(&columns, rows.num_rows(), &mut groups)?;
            let first = self.rows.append(&ChangeBatch::inserts(rows.into_rows()))?;
            for (position, (id, group)) in ids.iter().zip(&groups).enumerate() {
                let places = &mut self.partitions[*group as usize].rows;
                let place = places.iter_mut().find(|place| place.id == *id);
                let place = place.expect("a living row is in its partition");
                place.id = (first + position as u64) as ShortId;
            }
            self.rows.kill_all(&ids);
            self.rows.compact()?;
        }
        Ok(())
    }
}

impl Operator for GrowingTopN {
    fn name(&self) -> &'static str {
        "top_n"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        assert_eq!(port, 0, "top_n has one input");
        assert!(batch.all_inserts(), "this input never deletes");
        self.walks.changed(batch.num_rows());
        self.take_in(&batch, true)
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.watermark = Some(watermark);
        self.walks.moved();
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let mut changes = Vec::new();
        let offset = self.spec.offset as usize;
        let noted = std::mem::take(&mut self.noted);
        for Touched { group, before } in std::mem::take(&mut self.touched) {
            let partition = &mut self.partitions[group as usize];
            partition.touched = false;
            let rows = std::mem::take(&mut partition.rows);
            let now = &rows[offset.min(rows.len())..];
            self.changes(&noted[before], now, &mut changes)?;
            self.partitions[group as usize].rows = rows;
            if changes.len() >= STEP_ROWS {
                out.emit(self.output(&changes)?);
                changes.clear();
            }
        }
        out.emit(self.output(&changes)?);
        self.emit_comings(out)?;
        self.compared.clear();
        self.forget_closed()?;
        self.rows.compact()?;
        self.move_front()
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        let done = self.touched.is_empty() && self.came.is_empty();
        assert!(done, "an epoch's changes are taken in when it completes");
        writer.write(ROWS, self.rows.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        for batch in reader.read(ROWS, &self.spec.partition)? {
            let rows = self.rows.from_checkpoint(&batch)?;
            self.take_in(&ChangeBatch::inserts(rows.into_rows()), false)?;
        }
        self.compared.clear();
        self.rows.compact()
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(&mut self.rows);
        visit(&mut self.groups);
        visit(&mut self.partitions);
        visit(&mut self.ends);
    }

    fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
            + self.groups.memory_bytes()
            + self.partitions.memory_bytes()
            + self.ends.memory_bytes()
            + (self.spilled + self.noted.capacity()) * size_of::<Place>()
            + self.touched.capacity() * size_of::<Touched>()
            + self.left.capacity() * size_of::<ShortId>()
    }

    fn state_rows(&self) -> usize {
        self.rows.live_rows()
    }
}
