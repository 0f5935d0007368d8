//! What a table with versions (`state/arrangement.rs`) asks of its rows: which ones deletions mean,
//! and the chains of keys while rows that only some readers see hang in them.
//!
//! Such a table decides itself when a row dies, and its rows keep their ids as long as a reader is
//! behind ([`MultiTable::keep_ids`]). A walk may stand still while the table changes: rows that it
//! has yet to look at are visible to its reader and stay, those that are not may have gone, and with
//! them everything further down that has left the window.

use std::ops::ControlFlow;

use arrow::array::ArrayRef;

use super::{CHAIN_STEPS_MAX, ChainWalk, Left, MultiTable, Walk};
use crate::state::row_ids::{NIL, ShortId};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};

impl MultiTable {
    /// Whether the oldest rows may get new ids when the table is kept in shape.
    pub fn keep_ids(&mut self, keep: bool) {
        self.keeps_ids = keep;
    }

    /// The id behind the newest row.
    pub fn end(&self) -> u64 {
        self.store.end()
    }

    /// Whether a row of the window was appended before this id was given.
    pub fn is_before(&self, id: ShortId, end: u64) -> bool {
        self.store.full_id(id) < end
    }

    /// Finds the rows that the deletions among `change` mean, without killing them. `take` is asked
    /// for each that equals one; it says false for those that have gone already. Gives the rows of
    /// which the last one found has copies left, and how many.
    ///
    /// # Errors
    /// When there are fewer rows than are to be deleted (ours).
    pub fn find_deleted(
        &mut self,
        change: &ChangeBatch,
        mut take: impl FnMut(ShortId) -> bool,
    ) -> Result<Left> {
        let deletes = (0..change.num_rows() as u32).filter(|row| change.weight(*row as usize) < 0);
        let rows: Vec<u32> = deletes.collect();
        let mut left = Left::default();
        if rows.is_empty() {
            return Ok(left);
        }
        let by_key = self.by_key.as_ref().expect("an append-only table is asked to delete");
        let keys = by_key.keys(change.rows())?;
        let mut row_keys =
            self.by_row.as_ref().map(|chains| chains.keys(change.rows())).transpose()?;
        let heads: Vec<ShortId> =
            rows.iter().map(|row| self.settling_head(&keys, row_keys.as_ref(), *row)).collect();
        let heads = self.find_equal(change.rows(), &rows, heads);
        let mut same_index = true;
        for (row, mut head) in rows.into_iter().zip(heads) {
            if !same_index {
                head = self.settling_head(&keys, row_keys.as_ref(), row);
            }
            let mut weight = change.weight(row as usize);
            loop {
                match self.take_equal(change, row, &mut weight, head, &mut take) {
                    ControlFlow::Break(()) => break,
                    ControlFlow::Continue(()) => {
                        self.index_by_row()?;
                        let by_row = self.by_row.as_ref().expect("it has just been built");
                        row_keys = Some(by_row.keys(change.rows())?);
                        same_index = false;
                        head = self.settling_head(&keys, row_keys.as_ref(), row);
                    }
                }
            }
            if weight < 0 {
                return Err(Error::internal("a row is to be deleted that is not there"));
            }
            if weight > 0 {
                left.rows.push(row);
                left.weights.push(weight);
            }
        }
        Ok(left)
    }

    /// Takes rows of a chain that equal one of the change until its deletions are served: `weight`
    /// is what is left then, of deletions if negative and of the last row if positive. Goes on with
    /// an index by whole row where it says so.
    fn take_equal(
        &mut self,
        change: &ChangeBatch,
        row: u32,
        weight: &mut i64,
        head: ShortId,
        take: &mut impl FnMut(ShortId) -> bool,
    ) -> ControlFlow<()> {
        let mut walk = ChainWalk { id: head, before: NIL };
        let mut steps = 0;
        while *weight < 0
            && let Some(id) = self.walk_on(&mut walk)
        {
            if self.is_row(id, change.rows(), row as usize) {
                if take(id) {
                    *weight += self.store.weight(id);
                }
                continue;
            }
            steps += 1;
            if steps > CHAIN_STEPS_MAX && self.wants_by_row() {
                return ControlFlow::Continue(());
            }
        }
        ControlFlow::Break(())
    }

    /// The newest row of each key that is visible, or NIL.
    pub fn visible_heads(
        &self,
        key_columns: Vec<ArrayRef>,
        rows: usize,
        visible: impl Fn(ShortId) -> bool,
    ) -> Result<Vec<ShortId>> {
        let mut heads = self.heads(key_columns, rows)?;
        let chains = self.by_key.as_ref().expect("an append-only table is not looked up");
        for head in heads.iter_mut().filter(|head| **head != NIL) {
            while !self.store.outside(*head) && (self.store.is_dead(*head) || !visible(*head)) {
                *head = chains.next.get(*head);
            }
            if self.store.outside(*head) {
                *head = NIL;
            }
        }
        Ok(heads)
    }

    /// As [`MultiTable::walk`]; the table may have changed since the last call.
    pub fn walk_on_changed(
        &mut self,
        walk: &mut Walk,
        pairs_max: usize,
        batch_rows: &mut Vec<u32>,
        ids: &mut Vec<ShortId>,
    ) -> bool {
        self.walk_chains::<true>(walk, pairs_max, batch_rows, ids)
    }
}
