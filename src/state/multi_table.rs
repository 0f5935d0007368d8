//! Rows that may be equal, many to a key: contents of materialized views, sides of a join.
//!
//! | constructor | keeps | for |
//! |---|---|---|
//! | [`MultiTable::append_only`] | no index at all | views whose query never deletes |
//! | [`MultiTable::bag`] | an index by whole row | views: `apply` and `snapshot` |
//! | [`MultiTable::keyed`] | an index by key columns | joins: `heads`, `walk`, `gather` |
//!
//! [`MultiTable::apply`] takes changes as they come, with any weights in any order;
//! [`MultiTable::snapshot`] shows a row of weight n n times.
//!
//! 1. An inserted row is appended without a look at the others: one physical row for each row of
//!    the change, with its weight beside it where that is not 1. So n inserts of one row are n rows,
//!    but one change of weight 10^9 (out of a join) is one.
//! 2. A deletion looks for equal rows and kills as many as its weight asks for. If the last of them
//!    has copies left, these are appended as a new row: the weight of a physical row never changes.
//! 3. A deletion that finds too little is kept as a row of negative weight, and the next insert of
//!    an equal row settles with it. While there are such rows every insert has to look; once the
//!    changes of an epoch are complete there should be none. Snapshots do not show them.
//!
//! The rows of a key form a chain, newest first: the index gives its head, `next` leads on. A head
//! is always alive; dead rows further down are unlinked by whoever walks past. Chains are walked
//! in step, all keys of a batch one row each per round, so that their loads overlap.
//!
//! In a table by key columns a deletion walks the chain of its key and compares, all deletions of a
//! change in step (`find_equal.rs`). When some chain turns out to be long, a second index by whole
//! row is built, and deletions use that from then on. A table of which it is known that it will
//! delete ([`MultiTable::deleting`]) gets it as soon as its chains are long on average; when they are
//! of some rows its rows have tags, so that a step along a chain reads nothing of the row
//! (`tags.rs`).

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;

use crate::memory::spill::{Pass, Spill, StateMemory};
use crate::state::delta::TableDelta;
use crate::state::row_equal::{EqualFn, identical};
use crate::state::row_ids::{IdVec, NIL, ShortId};
use crate::state::row_index::{Keys, Match, RowIndex};
use crate::state::row_store::{RowStore, SEGMENT_ROWS_MAX};
use crate::state::snapshot::Snapshot;
use crate::types::change::{ChangeBatch, sum_equal_rows};
use crate::types::error::{Error, Result};

mod find_equal;
mod tags;
pub mod versions;

use tags::Tags;

/// Links that a deletion follows in a chain before the table gets an index by whole row.
const CHAIN_STEPS_MAX: usize = 64;
/// Rows of a key, on average, from which on a table that will delete gets that index as it grows:
/// with the first deletion it would have to be made over all rows at once.
const CHAIN_ROWS_MAX: usize = 32;
/// Rows of a key, on average, from which on the rows of such a table have tags.
const TAGGED_CHAIN_ROWS_MIN: usize = 3;
/// Below this, chains are short enough, and the index is quickly made.
const INDEXED_ROWS_MIN: usize = 8192;

/// Rows by key columns; equal rows may be there many times.
#[derive(Debug)]
pub struct MultiTable {
    store: RowStore,
    /// By key columns; `None` in an append-only table.
    by_key: Option<Chains>,
    /// By whole row, for deletions; `None` until a chain of `by_key` is long.
    by_row: Option<Chains>,
    /// Compares each column of two rows.
    same_row: Vec<EqualFn>,
    /// Living rows of negative weight.
    negative_rows: usize,
    /// A number per row that the owner keeps (a join: matches of the row); moves with the row.
    counts: Option<IdVec<i64>>,
    /// Deletions are to be expected.
    deleting: bool,
    /// No row gets another id for now.
    keeps_ids: bool,
}

impl Spill for MultiTable {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        self.store.spill(memory, pass);
        for chains in self.by_key.iter_mut().chain(&mut self.by_row) {
            chains.spill(memory, pass);
        }
        if let Some(counts) = &mut self.counts {
            counts.spill(memory, pass);
        }
    }

    fn disk_bytes(&self) -> usize {
        let chains = self.by_key.iter().chain(&self.by_row);
        self.store.disk_bytes()
            + chains.map(Chains::disk_bytes).sum::<usize>()
            + self.counts.as_ref().map_or(0, IdVec::disk_bytes)
    }
}

impl MultiTable {
    /// A table that never deletes and is never looked up.
    pub fn append_only(schema: SchemaRef) -> MultiTable {
        MultiTable {
            store: RowStore::new(schema),
            by_key: None,
            by_row: None,
            same_row: Vec::new(),
            negative_rows: 0,
            counts: None,
            deleting: false,
            keeps_ids: false,
        }
    }

    /// A table that deletes but is never looked up.
    ///
    /// # Errors
    /// For a column whose type cannot be compared (SQLSTATE 0A000).
    pub fn bag(schema: SchemaRef) -> Result<MultiTable> {
        // Chained by hash: rows of one hash are equal but for accidents, and inserts read nothing.
        let all = (0..schema.fields().len()).collect();
        MultiTable::chained(schema, all, Match::Hashes)
    }

    /// A table that is looked up by these columns.
    ///
    /// # Errors
    /// For a column whose type cannot be compared (SQLSTATE 0A000).
    pub fn keyed(schema: SchemaRef, key: Vec<usize>) -> Result<MultiTable> {
        MultiTable::chained(schema, key, Match::Keys)
    }

    fn chained(schema: SchemaRef, key: Vec<usize>, matching: Match) -> Result<MultiTable> {
        let types = schema.fields().iter().map(|field| field.data_type());
        let same_row = types.map(identical).collect::<Result<_>>()?;
        let by_key = Some(Chains::new(&schema, key, matching)?);
        Ok(MultiTable { by_key, same_row, ..MultiTable::append_only(schema) })
    }

    /// The same empty table that also keeps a number for each row.
    #[must_use]
    pub fn with_counts(mut self) -> MultiTable {
        assert_eq!(self.live_rows(), 0, "rows have counts from the start");
        self.counts = Some(IdVec::new(0));
        self
    }

    /// The same empty table, of which it is known that it will delete.
    #[must_use]
    pub fn deleting(mut self) -> MultiTable {
        let keys = self.by_key.as_ref().map_or(&[][..], |chains| chains.heads.columns());
        // Where the key is all that there is, the first row of a chain is as good as any.
        self.deleting = (0..self.schema().fields().len()).any(|column| !keys.contains(&column));
        self
    }

    pub fn schema(&self) -> &SchemaRef {
        self.store.schema()
    }

    /// Rows of a key, on average.
    pub fn chain_rows(&self) -> usize {
        let keys = self.by_key.as_ref().map_or(0, |chains| chains.heads.len());
        self.live_rows() / keys.max(1)
    }

    /// Physical rows.
    pub fn live_rows(&self) -> usize {
        self.store.live_rows()
    }

    /// Whether some deletion still waits for its insert.
    pub fn has_negative_rows(&self) -> bool {
        self.negative_rows > 0
    }

    /// Applies changes; weights add up, whatever the order.
    ///
    /// # Errors
    /// When an append-only table is asked to delete (ours), or the table is full (SQLSTATE 54000).
    pub fn apply(&mut self, change: &ChangeBatch) -> Result<()> {
        self.apply_with_counts(change, None)
    }

    /// Applies changes; each row that is appended gets the count of its row in the change.
    pub fn apply_with_counts(
        &mut self,
        change: &ChangeBatch,
        counts: Option<&[i64]>,
    ) -> Result<()> {
        assert_eq!(counts.is_some(), self.counts.is_some(), "a table has counts or has none");
        if self.by_key.is_none() {
            let deletes = |row| change.weight(row) < 0;
            if !change.all_inserts() && (0..change.num_rows()).any(deletes) {
                return Err(Error::internal("an append-only table is asked to delete"));
            }
            self.store.append(change)?;
        } else if change.all_inserts() && self.negative_rows == 0 {
            self.append(change, counts)?;
        } else {
            self.apply_mixed(change, counts)?;
        }
        self.maintain()
    }

    fn apply_mixed(&mut self, change: &ChangeBatch, counts: Option<&[i64]>) -> Result<()> {
        let mut weights = change.weights_vec();
        // Rows of a change settle one by one and do not see what others of them have left over of
        // a weight. Where weights are about, only different rows may settle together.
        let mut summed = self.store.has_weights();
        if summed {
            sum_equal_rows(change.rows(), &mut weights)?;
        }
        self.settle(change, &weights, |weight| weight < 0, counts)?;
        if self.negative_rows > 0 && !summed {
            weights.iter_mut().for_each(|weight| *weight = (*weight).max(0));
            sum_equal_rows(change.rows(), &mut weights)?;
            summed = true;
        }
        if self.negative_rows > 0 {
            assert!(summed);
            return self.settle(change, &weights, |weight| weight > 0, counts);
        }
        let inserts = (0..change.num_rows() as u32).filter(|row| weights[*row as usize] > 0);
        let inserts: Vec<u32> = inserts.collect();
        let weights = inserts.iter().map(|row| weights[*row as usize]).collect();
        self.append_rows(change, inserts, weights, counts)
    }

    /// Lets the rows of a change with such weights, all of one sign, settle with rows of the other
    /// sign, and appends what is left.
    fn settle(
        &mut self,
        change: &ChangeBatch,
        weights: &[i64],
        such: impl Fn(i64) -> bool,
        counts: Option<&[i64]>,
    ) -> Result<()> {
        let rows = (0..change.num_rows() as u32).filter(|row| such(weights[*row as usize]));
        let rows: Vec<u32> = rows.collect();
        if rows.is_empty() {
            return Ok(());
        }
        let by_key = self.by_key.as_ref().expect("append-only tables do not settle");
        let keys = by_key.keys(change.rows())?;
        let mut row_keys =
            self.by_row.as_ref().map(|chains| chains.keys(change.rows())).transpose()?;
        // All heads before the first walk, so that their loads overlap.
        let heads: Vec<ShortId> =
            rows.iter().map(|row| self.settling_head(&keys, row_keys.as_ref(), *row)).collect();
        let heads = self.find_equal(change.rows(), &rows, heads);
        let mut left = Left::default();
        let mut same_index = true;
        for (row, head) in rows.into_iter().zip(heads) {
            let head = if same_index { head } else { NIL };
            let mut settling = Settling { row, weight: weights[row as usize], head };
            while !self.settle_row(change, &mut settling, &keys, row_keys.as_ref(), &mut left) {
                self.index_by_row()?;
                let by_row = self.by_row.as_ref().expect("it has just been built");
                row_keys = Some(by_row.keys(change.rows())?);
                // Heads of one index mean nothing to the other's chains.
                same_index = false;
                settling.head = NIL;
            }
        }
        self.append_rows(change, left.rows, left.weights, counts)
    }

    /// The head of the chain in which deletions look for a row.
    fn settling_head(&self, keys: &Keys, row_keys: Option<&Keys>, row: u32) -> ShortId {
        let row = row as usize;
        match (&self.by_row, row_keys, &self.by_key) {
            (Some(by_row), Some(row_keys), _) => by_row.heads.find(row_keys, row, &self.store),
            (_, _, Some(by_key)) => by_key.heads.find(keys, row, &self.store),
            _ => NIL,
        }
    }

    /// Lets one row settle; what is left goes to `left`. False when the chain is so long that the
    /// table should be indexed by row first; then it is to be called again.
    fn settle_row(
        &mut self,
        change: &ChangeBatch,
        settling: &mut Settling,
        keys: &Keys,
        row_keys: Option<&Keys>,
        left: &mut Left,
    ) -> bool {
        let row = settling.row as usize;
        if self.store.outside(settling.head) || self.store.is_dead(settling.head) {
            // Rows before this one have moved the head, or it is not known.
            settling.head = self.settling_head(keys, row_keys, settling.row);
        }
        let mut walk = ChainWalk { id: settling.head, before: NIL };
        let mut steps = 0;
        while settling.weight != 0
            && let Some(id) = self.walk_on(&mut walk)
        {
            let here = self.store.weight(id);
            let equal = self.is_row(id, change.rows(), row);
            if equal && (here > 0) == (settling.weight > 0) {
                // Equal rows are of one sign: those of two signs have settled.
                break;
            }
            if !equal {
                steps += 1;
                if steps > CHAIN_STEPS_MAX && self.wants_by_row() {
                    return false;
                }
                continue;
            }
            self.kill(id, here, keys, row_keys, row);
            // Of opposite signs: the sum cannot overflow, and has the sign of the larger.
            let sum = settling.weight + here;
            settling.weight = sum;
            if sum != 0 && (sum > 0) == (here > 0) {
                break;
            }
        }
        if settling.weight != 0 {
            left.rows.push(settling.row);
            left.weights.push(settling.weight);
        }
        true
    }

    /// How often each of these rows is there: the sum of the weights of equal rows.
    ///
    /// # Errors
    /// When the rows do not have the table's columns (ours).
    pub fn weights_of(&mut self, rows: &RecordBatch) -> Result<Vec<i64>> {
        let by_key = self.by_key.as_ref().expect("an append-only table is not looked up");
        let keys = by_key.keys(rows)?;
        let mut row_keys = self.by_row.as_ref().map(|chains| chains.keys(rows)).transpose()?;
        let mut tags = match &self.by_row {
            None => by_key.tags.as_ref().map(|tags| tags.of(rows)),
            Some(_) => None,
        };
        let mut sums = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let sum = loop {
                let head = self.settling_head(&keys, row_keys.as_ref(), row as u32);
                let tag = tags.as_ref().map(|tags| tags[row]);
                if let Some(sum) = self.weight_in_chain(head, rows, row, tag) {
                    break sum;
                }
                self.index_by_row()?;
                tags = None;
                let by_row = self.by_row.as_ref().expect("it has just been built");
                row_keys = Some(by_row.keys(rows)?);
            };
            sums.push(sum);
        }
        Ok(sums)
    }

    /// The weights of the rows of a chain that equal a row, summed. `None` when the chain is so
    /// long that the table should be indexed by row first.
    fn weight_in_chain(
        &mut self,
        head: ShortId,
        rows: &RecordBatch,
        row: usize,
        tag: Option<u32>,
    ) -> Option<i64> {
        let mut walk = ChainWalk { id: head, before: NIL };
        let (mut sum, mut steps) = (0_i64, 0);
        while let Some(id) = self.walk_on(&mut walk) {
            let may_equal =
                match (tag, self.by_key.as_ref().and_then(|by_key| by_key.tags.as_ref())) {
                    (Some(tag), Some(tags)) => tags.get(id) == tag,
                    _ => true,
                };
            if may_equal && self.is_row(id, rows, row) {
                sum = sum.saturating_add(self.store.weight(id));
                continue;
            }
            steps += 1;
            if steps > CHAIN_STEPS_MAX && self.wants_by_row() {
                return None;
            }
        }
        Some(sum)
    }

    /// Whether an index by whole row would help: there is none, and chains are not by whole row.
    fn wants_by_row(&self) -> bool {
        self.by_row.is_none() && self.by_key.as_ref().is_some_and(|c| !c.heads.matches_hashes())
    }

    /// Builds the index by whole row over all rows.
    fn index_by_row(&mut self) -> Result<()> {
        let all = (0..self.schema().fields().len()).collect();
        let mut chains = Chains::new(self.schema(), all, Match::Hashes)?;
        for segment in self.store.live() {
            let (ids, rows) = segment?;
            let keys = chains.keys(&rows)?;
            chains.push_all(&keys, ids.into_iter(), &self.store);
        }
        self.by_row = Some(chains);
        if let Some(by_key) = &mut self.by_key {
            // Deletions walk other chains from now on.
            by_key.tags = None;
        }
        Ok(())
    }

    /// Gives all rows tags, if they have none and can have them.
    fn tag_rows(&mut self) -> Result<()> {
        let columns = 0..self.schema().fields().len();
        let Some(by_key) = self.by_key.as_mut().filter(|chains| chains.tags.is_none()) else {
            return Ok(());
        };
        let others = columns.filter(|column| !by_key.heads.columns().contains(column)).collect();
        let Some(mut tags) = Tags::new(self.store.schema(), others) else { return Ok(()) };
        for segment in self.store.live() {
            let (ids, rows) = segment?;
            tags.push(&rows, ids.into_iter(), &self.store);
        }
        by_key.tags = Some(tags);
        Ok(())
    }

    /// The next living row of the chain that deletions follow.
    fn walk_on(&mut self, walk: &mut ChainWalk) -> Option<ShortId> {
        let chains = self.by_row.as_mut().or(self.by_key.as_mut())?;
        while !self.store.outside(walk.id) {
            let id = walk.id;
            walk.id = chains.next.get(id);
            if !self.store.is_dead(id) {
                walk.before = id;
                return Some(id);
            }
            if walk.before != NIL {
                chains.next.set(walk.before, walk.id);
            }
        }
        None
    }

    fn is_row(&self, id: ShortId, rows: &RecordBatch, row: usize) -> bool {
        let (stored, position) = self.store.row(id);
        let columns = stored.columns().iter().zip(rows.columns());
        columns.zip(&self.same_row).all(|((l, r), same)| same(l, position, r, row))
    }

    /// Kills a living row, whose keys are those of `row`.
    fn kill(&mut self, id: ShortId, weight: i64, keys: &Keys, row_keys: Option<&Keys>, row: usize) {
        self.store.kill(id);
        self.negative_rows -= usize::from(weight < 0);
        if let Some(by_key) = &mut self.by_key {
            by_key.move_head(keys, row, id, &self.store);
        }
        if let (Some(by_row), Some(row_keys)) = (&mut self.by_row, row_keys) {
            by_row.move_head(row_keys, row, id, &self.store);
        }
    }

    /// Appends rows of a change with other weights.
    fn append_rows(
        &mut self,
        change: &ChangeBatch,
        rows: Vec<u32>,
        weights: Vec<i64>,
        counts: Option<&[i64]>,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let counts: Option<Vec<i64>> =
            counts.map(|counts| rows.iter().map(|row| counts[*row as usize]).collect());
        let rows = change.take(&UInt32Array::from(rows))?.into_rows();
        self.append(&ChangeBatch::new(rows, weights)?, counts.as_deref())
    }

    /// Appends rows and puts them at the heads of their chains.
    fn append(&mut self, change: &ChangeBatch, counts: Option<&[i64]>) -> Result<()> {
        let rows = change.num_rows();
        let start = self.store.append(change)?;
        if !change.all_inserts() {
            self.negative_rows += (0..rows).filter(|row| change.weight(*row) < 0).count();
        }
        for chains in self.by_key.iter_mut().chain(&mut self.by_row) {
            let keys = chains.keys(change.rows())?;
            let ids = (0..rows as u64).map(|row| (start + row) as ShortId);
            chains.push_all(&keys, ids.clone(), &self.store);
            if let Some(tags) = &mut chains.tags {
                tags.push(change.rows(), ids, &self.store);
            }
        }
        if let (Some(kept), Some(counts)) = (&mut self.counts, counts) {
            kept.extend_to(self.store.base(), self.store.end());
            for (row, count) in counts.iter().enumerate() {
                kept.set((start + row as u64) as ShortId, *count);
            }
        }
        Ok(())
    }

    /// Keeps segments few and the window of ids short.
    fn maintain(&mut self) -> Result<()> {
        self.store.compact()?;
        let mut moved = 0;
        while !self.keeps_ids && self.store.front_is_due() && moved < SEGMENT_ROWS_MAX {
            moved += self.move_front()?;
            self.store.compact()?;
        }
        if self.deleting && self.live_rows() >= INDEXED_ROWS_MIN && self.wants_by_row() {
            match self.chain_rows() {
                CHAIN_ROWS_MAX.. => self.index_by_row()?,
                TAGGED_CHAIN_ROWS_MIN.. => self.tag_rows()?,
                _ => {}
            }
        }
        let base = self.store.base();
        for chains in self.by_key.iter_mut().chain(&mut self.by_row) {
            chains.drop_before(base);
        }
        if let Some(counts) = &mut self.counts {
            counts.drop_before(base);
        }
        Ok(())
    }

    /// Appends the rows of the oldest segment anew and lets them die where they were.
    fn move_front(&mut self) -> Result<usize> {
        let (ids, rows) = self.store.front()?;
        let counts: Option<Vec<i64>> =
            self.counts.as_ref().map(|counts| ids.iter().map(|id| counts.get(*id)).collect());
        // The copies become the heads of their chains, so no dying row is one.
        self.append(&rows, counts.as_deref())?;
        self.negative_rows -= (0..rows.num_rows()).filter(|row| rows.weight(*row) < 0).count();
        self.store.kill_all(&ids);
        Ok(ids.len())
    }

    /// The newest row of each key, or NIL. The arrays are the key's columns, in key order.
    pub fn heads(&self, key_columns: Vec<ArrayRef>, rows: usize) -> Result<Vec<ShortId>> {
        let by_key = self.by_key.as_ref().expect("an append-only table is not looked up");
        let keys = by_key.heads.keys(key_columns, rows)?;
        Ok(by_key.heads.find_all(&keys, &self.store))
    }

    /// Goes on walking chains until `pairs_max` pairs (row of the batch, row of the table) have
    /// been pushed, or all chains have ended; then it gives false.
    pub fn walk(
        &mut self,
        walk: &mut Walk,
        pairs_max: usize,
        batch_rows: &mut Vec<u32>,
        ids: &mut Vec<ShortId>,
    ) -> bool {
        self.walk_chains::<false>(walk, pairs_max, batch_rows, ids)
    }

    /// `CHANGED`: rows that the walk stands on may have died and left the window since.
    fn walk_chains<const CHANGED: bool>(
        &mut self,
        walk: &mut Walk,
        pairs_max: usize,
        batch_rows: &mut Vec<u32>,
        ids: &mut Vec<ShortId>,
    ) -> bool {
        let gone = |store: &RowStore, id| CHANGED && store.outside(id);
        let chains = self.by_key.as_mut().expect("an append-only table is not looked up");
        let any_dead = self.store.any_dead();
        while ids.len() < pairs_max {
            if walk.at == walk.now.len() {
                walk.now.truncate(walk.going_on);
                (walk.at, walk.going_on) = (0, 0);
                if walk.now.is_empty() {
                    return false;
                }
            }
            let mut step = walk.now[walk.at];
            walk.at += 1;
            if gone(&self.store, step.id) {
                // All that hangs on it is older.
                continue;
            }
            let next = chains.next.get(step.id);
            if any_dead && self.store.is_dead(step.id) {
                // Without a change the first row of a chain is alive, and so is the one before.
                let before = step.before;
                if !CHANGED || !self.store.outside(before) && !self.store.is_dead(before) {
                    chains.next.set(before, next);
                }
            } else {
                batch_rows.push(step.row);
                ids.push(step.id);
                step.before = step.id;
            }
            step.id = next;
            walk.now[walk.going_on] = step;
            walk.going_on += usize::from(!self.store.outside(next));
        }
        true
    }

    /// The columns `columns` of these living rows, in this order.
    pub fn gather(&self, columns: &[usize], ids: &[ShortId]) -> Result<Vec<ArrayRef>> {
        self.store.gather_columns(columns, ids)
    }

    /// The weights of these living rows; `None` when all are 1.
    pub fn weights(&self, ids: &[ShortId]) -> Option<Vec<i64>> {
        self.store.has_weights().then(|| ids.iter().map(|id| self.store.weight(*id)).collect())
    }

    /// The count of a living row.
    pub fn count(&self, id: ShortId) -> i64 {
        self.counts.as_ref().expect("the table has counts").get(id)
    }

    pub fn set_count(&mut self, id: ShortId, count: i64) {
        self.counts.as_mut().expect("the table has counts").set(id, count);
    }

    /// Forgets the rows that are `dead`, segment by segment; tells how many.
    ///
    /// # Errors
    /// When `dead` cannot tell.
    pub fn forget(&mut self, dead: impl Fn(&RecordBatch) -> Result<BooleanArray>) -> Result<usize> {
        let mut found = Vec::new();
        for segment in self.store.live() {
            let (ids, rows) = segment?;
            let dead = dead(&rows)?;
            if dead.true_count() > 0 {
                let places = dead.values().set_indices();
                let ids: Vec<ShortId> = places.map(|row| ids[row]).collect();
                found.push((ids, arrow::compute::filter_record_batch(&rows, &dead)?));
            }
        }
        self.forget_rows(found)
    }

    /// Forgets living rows, given with their ids; tells how many.
    ///
    /// # Errors
    /// When their keys cannot be computed.
    pub fn forget_rows(&mut self, found: Vec<(Vec<ShortId>, RecordBatch)>) -> Result<usize> {
        if found.is_empty() {
            return Ok(0);
        }
        let mut forgotten = 0;
        for (ids, rows) in found {
            let by_key = self.by_key.as_ref().expect("an append-only table forgets nothing");
            let keys = by_key.keys(&rows)?;
            let row_keys = self.by_row.as_ref().map(|chains| chains.keys(&rows)).transpose()?;
            for (row, id) in ids.iter().enumerate() {
                let weight = self.store.weight(*id);
                self.kill(*id, weight, &keys, row_keys.as_ref(), row);
            }
            forgotten += ids.len();
        }
        self.maintain()?;
        Ok(forgotten)
    }

    /// All living rows with their ids, oldest first, segment by segment.
    pub fn live(&self) -> impl Iterator<Item = Result<(Vec<ShortId>, RecordBatch)>> {
        self.store.live()
    }

    /// The content now. Costs O(segments); the table goes on.
    pub fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// What changed since the last call; counts are the owner's to compute again.
    pub fn checkpoint_delta(&mut self) -> Result<TableDelta> {
        self.store.checkpoint_delta()
    }

    /// Fills a fresh table with the rows of its checkpoints. Counts are 0.
    ///
    /// # Errors
    /// When the batches do not have the table's columns: the checkpoint is of something else.
    pub fn restore(&mut self, batches: Vec<RecordBatch>) -> Result<()> {
        assert_eq!(self.live_rows(), 0, "a fresh table is restored");
        for batch in batches {
            let rows = self.store.from_checkpoint(&batch)?;
            let counts = self.counts.as_ref().map(|_| vec![0; rows.num_rows()]);
            self.apply_with_counts(&rows, counts.as_deref())?;
        }
        Ok(())
    }

    pub fn memory_bytes(&self) -> usize {
        let chains = self.by_key.iter().chain(&self.by_row).map(Chains::memory_bytes);
        self.store.memory_bytes()
            + chains.sum::<usize>()
            + self.counts.as_ref().map_or(0, IdVec::memory_bytes)
    }
}

/// A row of a change while it settles.
struct Settling {
    row: u32,
    /// What is left of its weight.
    weight: i64,
    /// The first row of its chain that equals it, or its head, found in advance; it may have died
    /// since.
    head: ShortId,
}

/// Rows of a change that found too little, and what rows that they found had left over.
#[derive(Debug, Default)]
pub struct Left {
    pub rows: Vec<u32>,
    pub weights: Vec<i64>,
}

/// One chain being followed: the row to look at next, and the last living one before it.
struct ChainWalk {
    id: ShortId,
    before: ShortId,
}

/// Chains of rows with the same key.
#[derive(Debug)]
struct Chains {
    heads: RowIndex,
    /// The next older row of the chain, or NIL; that row may have left the window.
    next: IdVec<ShortId>,
    /// `None`: nothing is known of a row before it is read.
    tags: Option<Tags>,
}

impl Chains {
    fn new(schema: &SchemaRef, key: Vec<usize>, matching: Match) -> Result<Chains> {
        let heads = RowIndex::new(schema, key, matching)?;
        Ok(Chains { heads, next: IdVec::new(NIL), tags: None })
    }

    fn keys(&self, rows: &RecordBatch) -> Result<Keys> {
        let columns = self.heads.columns().iter().map(|c| rows.column(*c).clone()).collect();
        self.heads.keys(columns, rows.num_rows())
    }

    /// Puts rows, ascending and newer than all others, at the heads of their chains.
    fn push_all(&mut self, keys: &Keys, ids: impl Iterator<Item = ShortId>, store: &RowStore) {
        self.next.extend_to(store.base(), store.end());
        for (row, id) in ids.enumerate() {
            let before = self.heads.put(keys, row, id, store);
            self.next.set(id, before);
        }
    }

    /// If `dead`, whose key is that of `row`, was the head of its chain, the next living row is
    /// now; without one the key goes.
    fn move_head(&mut self, keys: &Keys, row: usize, dead: ShortId, store: &RowStore) {
        if !self.heads.means(keys, row, dead) {
            return;
        }
        let mut heir = self.next.get(dead);
        while !store.outside(heir) && store.is_dead(heir) {
            heir = self.next.get(heir);
        }
        if store.outside(heir) {
            self.heads.remove(keys, row, dead);
        } else {
            self.heads.replace(keys, row, dead, heir);
        }
    }

    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        self.heads.spill(memory, pass);
        self.next.spill(memory, pass);
        if let Some(tags) = &mut self.tags {
            tags.spill(memory, pass);
        }
    }

    fn disk_bytes(&self) -> usize {
        let tags = self.tags.as_ref().map_or(0, Tags::disk_bytes);
        self.heads.disk_bytes() + self.next.disk_bytes() + tags
    }

    /// Forgets what is kept of rows before `base`.
    fn drop_before(&mut self, base: u64) {
        self.next.drop_before(base);
        if let Some(tags) = &mut self.tags {
            tags.drop_before(base);
        }
    }

    fn memory_bytes(&self) -> usize {
        let tags = self.tags.as_ref().map_or(0, Tags::memory_bytes);
        self.heads.memory_bytes() + self.next.memory_bytes() + tags
    }
}

/// Where one chain of a [`Walk`] stands.
#[derive(Clone, Copy, Debug)]
struct Step {
    row: u32,
    /// The last living row, or NIL.
    before: ShortId,
    id: ShortId,
}

/// The chains of a batch's keys, walked in step: one row of every chain per round.
#[derive(Debug, Default)]
pub struct Walk {
    now: Vec<Step>,
    /// How far this round has come in `now`.
    at: usize,
    /// Chains of this round that go on, moved to the front of `now`.
    going_on: usize,
}

impl Walk {
    /// Chains from their heads, which `MultiTable::heads` gave; the table has not changed since.
    pub fn new(heads: &[ShortId]) -> Walk {
        let now = heads.iter().enumerate().filter(|(_, id)| **id != NIL);
        let now: Vec<Step> =
            now.map(|(row, id)| Step { row: row as u32, before: NIL, id: *id }).collect();
        Walk { now, at: 0, going_on: 0 }
    }
}

#[cfg(test)]
mod tests;
