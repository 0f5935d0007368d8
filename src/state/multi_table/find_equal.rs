//! Finds, for many rows at once, a row of the table that equals each.
//!
//! A deletion has to find its row among those of its key. Row by row, every step would wait for
//! memory: the link, the row's place, its values. So the chains are walked in step, one row each
//! per round, and the rows of a round are compared column by column; the loads overlap. Key columns
//! come last: within a chain they are equal as a rule. Where rows have tags, only rows with the right
//! one are compared.
//!
//! What is found is a hint. Rows that equal each other find the same one; whoever takes it first
//! kills it, and the others look again.

use arrow::array::RecordBatch;

use super::{CHAIN_STEPS_MAX, MultiTable, Tags};
use crate::state::row_ids::{NIL, ShortId};

/// A row of the batch on its way along its chain.
#[derive(Clone, Copy)]
struct Look {
    /// Where its answer goes.
    index: u32,
    /// The row of the batch.
    row: u32,
    /// The last living row before, or NIL.
    before: ShortId,
    id: ShortId,
}

/// A living row of the table that one of the batch is compared with.
struct Candidate<'a> {
    look: Look,
    next: ShortId,
    stored: &'a RecordBatch,
    position: usize,
    equal: bool,
}

impl MultiTable {
    /// For each of `rows` of a batch, whose chains begin at `heads`, the first living row that
    /// equals it. The head as it was where there is none, and where the chain is so long that the
    /// table should be indexed by row first.
    pub(super) fn find_equal(
        &mut self,
        batch: &RecordBatch,
        rows: &[u32],
        heads: Vec<ShortId>,
    ) -> Vec<ShortId> {
        let steps_max = if self.wants_by_row() { CHAIN_STEPS_MAX } else { usize::MAX };
        let mut found = heads;
        let looks = rows.iter().zip(&found).enumerate();
        let looks = looks.filter(|(_, (_, head))| !self.store.outside(**head));
        let mut looks: Vec<Look> = looks
            .map(|(index, (row, head))| Look {
                index: index as u32,
                row: *row,
                before: NIL,
                id: *head,
            })
            .collect();
        let Some(chains) = self.by_row.as_mut().or(self.by_key.as_mut()) else { return found };
        let tags = chains.tags.as_ref().map(|stored| (stored, stored.of(batch)));
        let columns = compared_columns(self.same_row.len(), chains.heads.columns());
        let mut candidates = Vec::with_capacity(looks.len());
        let mut steps = 0;
        while !looks.is_empty() && steps < steps_max {
            steps += 1;
            let mut going_on = 0;
            for at in 0..looks.len() {
                let mut look = looks[at];
                let next = chains.next.get(look.id);
                let dead = self.store.is_dead(look.id);
                let other = |(stored, of_rows): &(&Tags, Vec<u32>)| {
                    stored.get(look.id) != of_rows[look.row as usize]
                };
                if !dead && !tags.as_ref().is_some_and(other) {
                    let (stored, position) = self.store.row(look.id);
                    candidates.push(Candidate { look, next, stored, position, equal: true });
                    continue;
                }
                if !dead {
                    look.before = look.id;
                } else if look.before != NIL {
                    chains.next.set(look.before, next);
                }
                look.id = next;
                looks[going_on] = look;
                going_on += usize::from(!self.store.outside(next));
            }
            looks.truncate(going_on);
            for column in &columns {
                let (same, values) = (self.same_row[*column], batch.column(*column));
                for one in candidates.iter_mut().filter(|one| one.equal) {
                    let stored = one.stored.column(*column);
                    one.equal = same(stored, one.position, values, one.look.row as usize);
                }
            }
            for Candidate { look, next, equal, .. } in candidates.drain(..) {
                if equal {
                    found[look.index as usize] = look.id;
                } else if !self.store.outside(next) {
                    looks.push(Look { before: look.id, id: next, ..look });
                }
            }
        }
        found
    }
}

/// The columns in the order in which they are compared: keys last.
fn compared_columns(count: usize, keys: &[usize]) -> Vec<usize> {
    // A table that is looked up by whole rows has no order to prefer.
    let (mut last, mut first): (Vec<usize>, Vec<usize>) =
        (0..count).partition(|column| keys.contains(column));
    first.append(&mut last);
    first
}
