//! Who may write which table: one holder per table, the others in line. Pure decisions.
//!
//! A transaction that reads before it writes (UPDATE, DELETE, a block) holds its tables from
//! before its first read until its end. A plain INSERT takes its turn in the same line and holds
//! nothing afterwards. Nobody overtakes somebody who waits for the same table.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;

use crate::types::id::ObjectId;

/// A holder, or one who waits to become it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockId(u64);

impl LockId {
    /// An id that nobody else has.
    #[expect(clippy::new_without_default, reason = "every call gives another id")]
    pub fn new() -> LockId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        LockId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Holders and the line. `W` is a write that runs when its turn comes.
pub struct Locks<W> {
    held: HashMap<ObjectId, LockId>,
    line: VecDeque<Waiter<W>>,
}

struct Waiter<W> {
    tables: Vec<ObjectId>,
    wish: Wish<W>,
}

enum Wish<W> {
    Hold(LockId, oneshot::Sender<()>),
    Write(W),
}

impl<W> Default for Locks<W> {
    fn default() -> Locks<W> {
        Locks { held: HashMap::new(), line: VecDeque::new() }
    }
}

impl<W> Locks<W> {
    /// Whether a write of `tables` may run now without overtaking anybody.
    pub fn free(&self, tables: &[ObjectId]) -> bool {
        self.unheld(tables) && !self.line.iter().any(|w| overlap(&w.tables, tables))
    }

    /// Whether `lock` holds all of `tables`.
    pub fn covers(&self, lock: LockId, tables: &[ObjectId]) -> bool {
        tables.iter().all(|table| self.held.get(table) == Some(&lock))
    }

    fn unheld(&self, tables: &[ObjectId]) -> bool {
        tables.iter().all(|table| !self.held.contains_key(table))
    }

    /// Puts a wish to hold `tables` in line; `granted` is told when [`Locks::grant`] reaches it.
    /// Tables that `id` holds already stay its own.
    pub fn lock(&mut self, id: LockId, mut tables: Vec<ObjectId>, granted: oneshot::Sender<()>) {
        tables.retain(|table| self.held.get(table) != Some(&id));
        self.line.push_back(Waiter { tables, wish: Wish::Hold(id, granted) });
    }

    /// Puts a write in line.
    pub fn wait(&mut self, tables: Vec<ObjectId>, write: W) {
        self.line.push_back(Waiter { tables, wish: Wish::Write(write) });
    }

    /// Gives up what `id` holds and its place in line.
    pub fn unlock(&mut self, id: LockId) {
        self.held.retain(|_, holder| *holder != id);
        self.line.retain(|w| !matches!(w.wish, Wish::Hold(waiting, _) if waiting == id));
    }

    /// Grants whose turn it is: holders are told, the next write that may run is returned. Call
    /// again after it has run, until there is none.
    pub fn grant(&mut self) -> Option<W> {
        let mut wanted: Vec<ObjectId> = Vec::new();
        let mut index = 0;
        while index < self.line.len() {
            let tables = &self.line[index].tables;
            if !self.unheld(tables) || overlap(&wanted, tables) {
                wanted.extend(tables.iter().copied());
                index += 1;
                continue;
            }
            let waiter = self.line.remove(index).expect("index is within the line");
            match waiter.wish {
                Wish::Write(write) => return Some(write),
                Wish::Hold(id, granted) => {
                    // Who has gone meanwhile gets nothing.
                    if granted.send(()).is_ok() {
                        self.held.extend(waiter.tables.into_iter().map(|table| (table, id)));
                    }
                }
            }
        }
        None
    }
}

fn overlap(a: &[ObjectId], b: &[ObjectId]) -> bool {
    a.iter().any(|table| b.contains(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(locks: &mut Locks<u8>, tables: &[u64]) -> (LockId, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let id = LockId::new();
        locks.lock(id, tables.iter().map(|t| ObjectId(*t)).collect(), sender);
        (id, receiver)
    }

    #[test]
    fn holders_wait_in_line_and_others_pass_by() {
        let mut locks = Locks::default();
        let (first, mut first_granted) = hold(&mut locks, &[1]);
        assert_eq!(locks.grant(), None);
        assert!(first_granted.try_recv().is_ok());
        let (_second, mut second_granted) = hold(&mut locks, &[1, 2]);
        locks.wait(vec![ObjectId(2)], 7);
        locks.wait(vec![ObjectId(3)], 8);
        // 7 wants a table that the second waits for: it does not overtake.
        assert_eq!(locks.grant(), Some(8));
        assert_eq!(locks.grant(), None);
        assert!(!locks.free(&[ObjectId(2)]) && locks.free(&[ObjectId(4)]));
        locks.unlock(first);
        assert_eq!(locks.grant(), None);
        assert!(second_granted.try_recv().is_ok());
    }

    #[test]
    fn who_gives_up_leaves_the_line() {
        let mut locks: Locks<u8> = Locks::default();
        let (first, _granted) = hold(&mut locks, &[1]);
        locks.grant();
        let (second, _) = hold(&mut locks, &[1]);
        locks.unlock(second);
        locks.unlock(first);
        assert_eq!(locks.grant(), None);
        assert!(locks.free(&[ObjectId(1)]));
    }
}
