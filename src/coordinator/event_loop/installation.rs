//! New dataflows: each waits for a quiet moment, gets the content of what it reads, and is there
//! when all workers have taken that in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Field;

use super::checkpoints::ViewMark;
use super::creation::{Creation, Made, dependency_gone};
use super::definitions::Step;
use super::history::PastStart;
use super::reads::Span;
use super::requests::{Reply, Request};
use super::{Running, RunningKind, State, share_rows};
use crate::catalog::object::ObjectKind;
use crate::coordinator::subscription;
use crate::coordinator::subscription::Subscription;
use crate::dataflow::worker::{Command, DataflowResult, DataflowSpec, Past};
use crate::plan::fingerprint::fingerprint;
use crate::plan::node::{Node, Plan};
use crate::state::delta::RestoredState;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::time::{At, Epoch, EventTime};

/// A dataflow that waits for a quiet moment, then for its content.
pub(super) struct NewDataflow {
    pub(super) id: ObjectId,
    pub(super) plan: Plan,
    pub(super) purpose: Purpose,
    /// The state that it begins with.
    pub(super) restore: Option<Arc<RestoredState>>,
}

pub(super) enum Purpose {
    View { creation: Box<Creation>, made: Made, reply: Reply<ObjectId> },
    Subscription { span: Span, reply: Reply<Subscription> },
}

/// A view whose initial content is being computed.
pub(super) struct Hydrating {
    pub(super) creation: Box<Creation>,
    pub(super) made: Made,
    /// It takes up its stored state.
    pub(super) restored: bool,
    pub(super) reply: Reply<ObjectId>,
    pub(super) workers_left: HashSet<usize>,
}

/// Rows of tables, one share per worker.
pub(super) type TableShares = HashMap<ObjectId, Vec<Vec<RecordBatch>>>;

/// What is below a new dataflow.
struct Below {
    reads: Vec<ObjectId>,
    /// Of these: what it reads without naming it.
    shares: Vec<ObjectId>,
    /// Why it cannot be read.
    ready: Result<()>,
}

/// Where a new dataflow begins, as in [`DataflowSpec`].
struct Beginning {
    as_of: Epoch,
    time: EventTime,
    table_contents: TableShares,
    past: Option<Past>,
}

impl State {
    /// Whether something waits until nothing is under way.
    pub(super) fn wants_quiet(&self) -> bool {
        !self.new_dataflows.is_empty() || self.swap.is_some()
    }

    /// Installs what waits, once nothing is under way and the open epoch is empty and stays so.
    pub(super) fn install_new_dataflows(&mut self) {
        if !self.wants_quiet() {
            return;
        }
        if !self.epochs.all_computed() {
            return;
        }
        if self.epochs.touched() || !self.admitted.is_empty() {
            // Close without letting sources into the next epoch, and come back when it is computed.
            self.close_epoch(false);
            return;
        }
        if let Some(swap) = self.swap.take() {
            self.swap_now(swap);
            if self.wants_quiet() {
                return;
            }
        }
        while let Some(new) = self.new_dataflows.pop_front() {
            self.install(new);
        }
        while let Some((lock, write)) = self.waiting_writes.pop_front() {
            self.write(lock, write);
        }
        for (object, rows) in std::mem::take(&mut self.late_waiting) {
            self.late_rows(object, rows);
        }
        self.write_when_gathered();
        // Those that found others in line.
        self.grant_locks();
        self.let_rows_go(self.now());
    }

    /// Installs a dataflow, or tells why it cannot.
    pub(super) fn install(&mut self, new: NewDataflow) {
        let NewDataflow { id, mut plan, mut purpose, restore } = new;
        let Below { reads, shares, ready } = self.prepare(id, &mut plan, &mut purpose);
        let sink = self.start_sink_of(id, &plan, &purpose);
        let beginning =
            ready.and(sink).and_then(|()| self.beginning(&reads, &purpose, restore.is_some()));
        let Beginning { as_of, time, table_contents, past } = match beginning {
            Ok(beginning) => beginning,
            Err(error) => {
                self.release(&shares);
                self.refuse_dataflow(id, purpose, error);
                return;
            }
        };
        let (name, (kind, result)) = match purpose {
            Purpose::View { creation, made, reply } => {
                let name = creation.object.name.name.clone();
                let workers_left = (0..self.workers.count()).collect();
                let restored = restore.is_some();
                let hydrating = Hydrating { creation, made, restored, reply, workers_left };
                (name, self.begin_view(id, &plan, as_of, hydrating))
            }
            Purpose::Subscription { span, reply } => {
                let begun = self.begin_subscription(id, &plan, as_of, span, reply);
                ("subscription".to_owned(), begun)
            }
        };
        let plan = Arc::new(plan);
        let running = Running {
            reads,
            kind,
            failed: None,
            plan: Some(plan.clone()),
            shares,
            nameless: false,
        };
        self.running.insert(id, running);
        let keeps_history = self.keeps_history(plan.options.history_retention.0);
        let spec = DataflowSpec {
            object: id,
            name,
            plan,
            result,
            as_of,
            time,
            table_contents,
            restore,
            past,
            keeps_history,
            not_yet: HashMap::new(),
        };
        self.workers.send(Command::CreateDataflow(Arc::new(spec)));
    }

    /// Lets a plan share what others compute, and sees to what it reads.
    fn prepare(&mut self, id: ObjectId, plan: &mut Plan, purpose: &mut Purpose) -> Below {
        let named = self.has_columns(&plan.root);
        let mut shares = match purpose {
            Purpose::View { creation, made: Made::Now, .. } => self.share(plan, creation),
            _ => Vec::new(),
        };
        let started = self.start_indexes(plan);
        let reads = plan.root.scanned_objects();
        self.begin_sources(&reads);
        if let Purpose::View { made: Made::Before, .. } = purpose {
            shares = self.shared_before(id, &reads);
        }
        self.reads_newer |= reads.iter().any(|read| *read > id);
        let gone = reads.iter().any(|read| !self.running.contains_key(read)) || !named;
        let failed = reads.iter().find_map(|read| self.running.get(read)?.failed.clone());
        let ready = match (gone, failed) {
            (true, _) => Err(dependency_gone("view")),
            (false, Some(error)) => Err(error),
            (false, None) => started,
        };
        Below { reads, shares, ready }
    }

    /// Starts the writer of a sink that has none yet.
    fn start_sink_of(&mut self, id: ObjectId, plan: &Plan, purpose: &Purpose) -> Result<()> {
        match purpose {
            Purpose::View { creation, .. }
                if matches!(creation.object.kind, ObjectKind::Sink(_)) && !self.sinks.has(id) =>
            {
                self.start_sink(&creation.object, plan, None, None)
            }
            _ => Ok(()),
        }
    }

    /// What a dataflow begins with: the newest closed epoch, or one in the past. One that is
    /// restored has seen the tables.
    fn beginning(
        &mut self,
        reads: &[ObjectId],
        purpose: &Purpose,
        restored: bool,
    ) -> Result<Beginning> {
        let span = match purpose {
            Purpose::Subscription { span, .. } => *span,
            Purpose::View { .. } => Span::default(),
        };
        if let (false, Some(at)) = (restored, span.as_of) {
            let PastStart { as_of, time, past, contents } = self.past_of(at, reads)?;
            let table_contents = self.share_contents(contents);
            return Ok(Beginning { as_of, time, table_contents, past: Some(past) });
        }
        let table_contents = match restored {
            true => TableShares::new(),
            false => self.table_shares(reads)?,
        };
        let (as_of, time) = (self.epochs.closed(), self.logical_time());
        Ok(Beginning { as_of, time, table_contents, past: None })
    }

    /// Tells whoever asked for a dataflow why there is none.
    fn refuse_dataflow(&mut self, id: ObjectId, purpose: Purpose, error: Error) {
        match purpose {
            Purpose::View { creation, made, reply } => {
                match made {
                    Made::Before => self.add_failed(&creation.object, error.clone()),
                    Made::Now => self.sinks.remove(id),
                }
                drop(reply.send(Err(error)));
            }
            Purpose::Subscription { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    /// Waits for the content of a view, an index or a sink, and notes that no checkpoint has it.
    fn begin_view(
        &mut self,
        id: ObjectId,
        plan: &Plan,
        as_of: Epoch,
        hydrating: Hydrating,
    ) -> (RunningKind, DataflowResult) {
        let restored = hydrating.restored;
        self.hydrating.insert(id, hydrating);
        let mark = ViewMark {
            fingerprint: fingerprint(plan),
            checkpointed: restored.then_some(as_of),
            based: false,
        };
        self.checkpoints.views.insert(id, mark);
        self.checkpoints.views_changed |= !restored;
        let result = match self.sinks.has(id) {
            true => self.sinks.dataflow_result(id),
            false => DataflowResult::Materialize,
        };
        (RunningKind::View { last_affected: as_of, snapshot: None }, result)
    }

    /// Opens the way to a subscriber, which ends where it wants.
    fn begin_subscription(
        &mut self,
        id: ObjectId,
        plan: &Plan,
        as_of: Epoch,
        span: Span,
        reply: Reply<Subscription>,
    ) -> (RunningKind, DataflowResult) {
        let requests = self.requests.clone();
        let unsubscribe = move || {
            // The coordinator has gone only when the server stops.
            let _ = requests.send(Request::Unsubscribe(id));
        };
        let (schema, workers) = (plan.root.schema(), self.workers.count());
        let (sender, subscription) =
            subscription::channel(schema, workers, as_of, self.gate(), unsubscribe);
        let result = DataflowResult::Subscribe(sender.for_workers());
        let mut up_to = span.up_to;
        if let Some(first) = up_to.and_then(|up_to| self.first_hidden(up_to)) {
            sender.end_before(first);
            // It has to come this far, also when nothing of it changes.
            up_to.take_if(|_| first <= self.epochs.closed());
        }
        if let Some(At::Time(time)) = up_to {
            self.wakes.insert((time, id));
        }
        let _ = reply.send(Ok(subscription));
        (RunningKind::Subscription { sender, up_to }, result)
    }

    /// Whether what the plan reads has the columns that it was planned with: a view may have got
    /// another definition meanwhile.
    pub(super) fn has_columns(&self, root: &Node) -> bool {
        let catalog = self.catalog();
        let mut has = true;
        root.visit(&mut |node| {
            if let Node::Scan(scan) = node
                // What is shared has columns of other names, and cannot change.
                && !scan.shared
                && let Some(object) = catalog.get(scan.object)
            {
                let same = |column: &usize, planned: &Field| {
                    object.schema.fields().get(*column).is_some_and(|field| {
                        field.name() == planned.name() && field.data_type() == planned.data_type()
                    })
                };
                let mut columns = scan.columns.iter().zip(scan.schema.fields());
                has &= columns.all(|(column, planned)| same(column, planned));
            }
        });
        has
    }

    /// The rows of the tables among `objects`, one share per worker.
    pub(super) fn table_shares(&self, objects: &[ObjectId]) -> Result<TableShares> {
        let mut contents = HashMap::new();
        for object in objects {
            // Of a source, what was late and has been taken in again.
            let rows = self.catalog().replayed_of(*object).map_or(*object, |replayed| replayed.id);
            let Some(table) = self.tables.get(&rows) else { continue };
            contents.insert(*object, table.snapshot().batches().collect::<Result<Vec<_>>>()?);
        }
        Ok(self.share_contents(contents))
    }

    /// The rows of tables, one share per worker.
    pub(super) fn share_contents(
        &self,
        contents: HashMap<ObjectId, Vec<RecordBatch>>,
    ) -> TableShares {
        let workers = self.workers.count();
        let mut shared = HashMap::new();
        for (object, batches) in contents {
            let mut shares = vec![Vec::new(); workers];
            for (turn, batch) in batches.into_iter().enumerate() {
                for (worker, (offset, length)) in
                    share_rows(batch.num_rows(), workers, turn).into_iter().enumerate()
                {
                    if length > 0 {
                        shares[worker].push(batch.slice(offset, length));
                    }
                }
            }
            shared.insert(object, shares);
        }
        shared
    }

    pub(super) fn hydrated(&mut self, worker: usize, object: ObjectId) {
        let Some(hydrating) = self.hydrating.get_mut(&object) else { return };
        hydrating.workers_left.remove(&worker);
        if !hydrating.workers_left.is_empty() {
            return;
        }
        let Hydrating { creation, made, reply, .. } =
            self.hydrating.remove(&object).expect("just found");
        match made {
            Made::Now => {
                self.steps.push_back(Step::Publish { creation, reply });
                self.run_steps();
            }
            Made::Before => {
                self.checkpoints.views_changed = true;
                drop(reply.send(Ok(object)));
            }
        }
    }
}
