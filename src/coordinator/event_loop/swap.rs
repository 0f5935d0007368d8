//! A materialized view gets its new definition: the dataflow that was filled beside it takes its
//! place, at a moment when nothing is under way.
//!
//! 1. The new definition is in the log, and its dataflow has its content (`definitions.rs`).
//! 2. When every closed epoch is computed and the open one is empty, the catalog gets the new
//!    definition, and the two dataflows change places on every worker. Those who read the view's
//!    changes get what the new content has more and less than the old one, in the open epoch,
//!    which is closed at once.
//! 3. The old dataflow is dropped under the id of the new one; if others share what it keeps, it
//!    goes on for these.
//!
//! Nothing of the old dataflow's state is used again. Whoever wants to: at 1. both plans are at
//! hand, and their equal nodes (`plan::operators`) keep equal state.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;

use super::definitions::{Checked, StepReply};
use super::{Command, Creation, Running, RunningKind, State, dependency_gone};
use crate::dataflow::worker::SwapDataflows;
use crate::plan::node::{Node, Plan};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

/// A replacement that waits for a quiet moment.
pub(super) struct Swap {
    pub view: ObjectId,
    /// The dataflow of the new definition.
    pub by: ObjectId,
    pub checked: Checked,
    pub reply: Option<StepReply>,
}

impl State {
    /// Whether every dataflow that reads the view can go on with its new columns. What is being
    /// made over it was planned with the old ones, and has to go first.
    pub(super) fn check_swap(&self, creation: &Creation, view: ObjectId) -> Result<()> {
        let catalog = self.catalog();
        let old = catalog.get(view).ok_or_else(|| dependency_gone(&creation.object.name.name))?;
        let other = self.being_made().find(|other| other.object.depends_on.contains(&view));
        if let Some(other) = other {
            return Err(Error::user(
                SqlState::OBJECT_IN_USE,
                format!("\"{}\" is being created over it", other.object.name.name),
            )
            .retryable());
        }
        let moved = moved_columns(&old.schema, &creation.object.schema);
        for (id, running) in self.readers_of(view) {
            // Who only shares what it keeps stays with that.
            if running.shares.contains(&view) {
                continue;
            }
            let subscription = matches!(running.kind, RunningKind::Subscription { .. });
            if !subscription && !running.plan.as_ref().is_some_and(|p| fits(p, view, &moved)) {
                let index = || catalog.index(id).map_or("a view", |index| index.name.as_str());
                let user = catalog.get(id).map_or_else(index, |object| object.name.name.as_str());
                return Err(Error::user(
                    SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                    format!("\"{user}\" uses columns of \"{}\"", old.name.name),
                )
                .retryable());
            }
        }
        Ok(())
    }

    fn readers_of(&self, view: ObjectId) -> impl Iterator<Item = (ObjectId, &Running)> {
        let reads = move |running: &Running| running.reads.contains(&view);
        self.running.iter().filter(move |(_, r)| reads(r)).map(|(id, r)| (*id, r))
    }

    /// Lets the dataflows change places; nothing is under way, and the open epoch is empty.
    pub(super) fn swap_now(&mut self, swap: Swap) {
        let Swap { view, by, checked, reply } = swap;
        let before = self.catalog();
        self.set_catalog(checked.next);
        let after = self.catalog();
        let moved = match (before.get(view), after.get(view)) {
            (Some(before), Some(after)) => moved_columns(&before.schema, &after.schema),
            _ => unreachable!("the step that replaces a view was checked, and no other came since"),
        };
        // Subscriptions may use what has gone.
        let stay = self.sharers(view);
        let readers: BTreeMap<ObjectId, bool> = self
            .readers_of(view)
            .filter(|(id, _)| !stay.contains(id))
            .map(|(id, r)| (id, r.plan.as_ref().is_some_and(|plan| fits(plan, view, &moved))))
            .collect();
        for (id, fits) in readers {
            let Some(reader) = self.running.get_mut(&id) else { continue };
            match (&reader.kind, &mut reader.plan) {
                (_, Some(plan)) if fits => move_columns(Arc::make_mut(plan), view, &moved),
                (RunningKind::Subscription { sender, .. }, _) => {
                    sender.fail(dependency_gone("subscription"));
                    self.drop_running(id);
                }
                _ => {}
            }
        }
        for id in &stay {
            let Some(reader) = self.running.get_mut(id) else { continue };
            let there = reader.reads.iter_mut().chain(&mut reader.shares);
            there.filter(|object| **object == view).for_each(|object| *object = by);
            if let Some(plan) = &mut reader.plan {
                move_scans(&mut Arc::make_mut(plan).root, view, by);
            }
            self.reads_newer = true;
        }
        let new = self.running.remove(&by);
        let old = self.running.remove(&view);
        let (Some(new), Some(old)) = (new, old) else {
            unreachable!("no other step came since both were there")
        };
        self.reads_newer |= new.reads.iter().any(|read| *read > view);
        let failed = new.failed.clone();
        self.running.insert(view, new);
        self.running.insert(by, old);
        self.errors.exchange(view, by);
        self.checkpoints.errors_changed = true;
        // What the storage has of the view's state is of the old definition.
        self.checkpoint_without(view);
        if let Some(mark) = self.checkpoints.views.remove(&by) {
            self.checkpoints.views.insert(view, mark);
        }
        self.checkpoints.views_changed = true;
        let columns = moved;
        let epoch = self.epochs.open();
        let swap = SwapDataflows { view, by, columns, epoch, stay };
        self.workers.send(Command::Swap(Arc::new(swap)));
        self.drop_running(by);
        self.swapped = Some(view);
        self.close_epoch(!self.wants_quiet());
        if let Some(error) = failed {
            self.failed(view, error);
        }
        if let Some(reply) = reply {
            reply.send(Ok(()));
        }
        self.definition_is_real(None);
    }
}

/// Where each of the old columns is among the new ones, if it is there with the same type.
fn moved_columns(old: &Schema, new: &Schema) -> Vec<Option<usize>> {
    let place = |field: &arrow::datatypes::Field| {
        let (index, found) = new.column_with_name(field.name())?;
        (found.data_type() == field.data_type()).then_some(index)
    };
    old.fields().iter().map(|field| place(field)).collect()
}

/// Whether every column of `view` that the plan reads is still there.
fn fits(plan: &Plan, view: ObjectId, moved: &[Option<usize>]) -> bool {
    let mut fits = true;
    plan.root.visit(&mut |node| {
        if let Node::Scan(scan) = node
            && scan.object == view
        {
            fits &= scan.columns.iter().all(|column| moved[*column].is_some());
        }
    });
    fits
}

/// Lets scans of `view` read another object, with the same columns.
fn move_scans(node: &mut Node, view: ObjectId, to: ObjectId) {
    if let Node::Scan(scan) = node
        && scan.object == view
    {
        scan.object = to;
    }
    for edge in node.inputs_mut() {
        move_scans(&mut edge.input, view, to);
    }
}

/// Lets the plan's scans of `view` name the new columns.
fn move_columns(plan: &mut Plan, view: ObjectId, moved: &[Option<usize>]) {
    fn visit(node: &mut Node, view: ObjectId, moved: &[Option<usize>]) {
        if let Node::Scan(scan) = node
            && scan.object == view
        {
            for column in &mut scan.columns {
                *column = moved[*column].expect("the plan fits");
            }
        }
        for edge in node.inputs_mut() {
            visit(&mut edge.input, view, moved);
        }
    }
    visit(&mut plan.root, view, moved);
}
