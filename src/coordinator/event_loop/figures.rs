//! What operators have done and hold: asked of all workers, put together here.
//!
//! The workers answer with what they know at that moment: nobody waits for an epoch, because a
//! dataflow that is behind is what one looks for.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Command, State};
use crate::dataflow::metered::DataflowFigures;
use crate::plan::node::Plan;
use crate::types::id::ObjectId;

/// One running dataflow.
#[derive(Clone, Debug)]
pub struct RunningFigures {
    pub object: ObjectId,
    pub plan: Arc<Plan>,
    /// By worker.
    pub workers: Vec<DataflowFigures>,
}

/// What a table holds.
#[derive(Clone, Copy, Debug)]
pub struct TableFigures {
    pub object: ObjectId,
    pub rows: usize,
    pub memory_bytes: usize,
    pub disk_bytes: usize,
}

/// What one look gives.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// By object.
    pub dataflows: Vec<RunningFigures>,
    pub tables: Vec<TableFigures>,
}

/// Who waits for the workers' answers.
#[derive(Default)]
pub(super) struct PendingFigures {
    next: u64,
    waiting: HashMap<u64, Pending>,
}

struct Pending {
    objects: Vec<ObjectId>,
    /// By worker; `None` until it has answered.
    answers: Vec<Option<Vec<(ObjectId, DataflowFigures)>>>,
    reply: oneshot::Sender<Figures>,
}

impl State {
    pub(super) fn ask_figures(&mut self, objects: Vec<ObjectId>, reply: oneshot::Sender<Figures>) {
        let request = self.figures.next;
        self.figures.next += 1;
        let answers = vec![None; self.workers.count()];
        let pending = Pending { objects: objects.clone(), answers, reply };
        self.figures.waiting.insert(request, pending);
        self.workers.send(Command::Figures { request, objects: Arc::new(objects) });
    }

    pub(super) fn figures_arrived(
        &mut self,
        request: u64,
        worker: usize,
        figures: Vec<(ObjectId, DataflowFigures)>,
    ) {
        let Some(pending) = self.figures.waiting.get_mut(&request) else { return };
        pending.answers[worker] = Some(figures);
        if pending.answers.iter().any(Option::is_none) {
            return;
        }
        let Some(pending) = self.figures.waiting.remove(&request) else { return };
        let wanted = |id: &ObjectId| pending.objects.is_empty() || pending.objects.contains(id);
        let mut dataflows = Vec::new();
        for (id, running) in self.running.iter().filter(|(id, _)| wanted(id)) {
            let Some(plan) = &running.plan else { continue };
            let of_worker = |answer: &Option<Vec<(ObjectId, DataflowFigures)>>| {
                let found = answer.iter().flatten().find(|(object, _)| object == id);
                found.map(|(_, figures)| figures.clone()).unwrap_or_default()
            };
            let workers = pending.answers.iter().map(of_worker).collect();
            dataflows.push(RunningFigures { object: *id, plan: plan.clone(), workers });
        }
        let tables = self.tables.iter().filter(|(id, _)| wanted(id));
        let tables = tables
            .map(|(id, table)| {
                let history_bytes = self.histories.table_bytes(*id);
                TableFigures {
                    object: *id,
                    rows: table.snapshot().num_rows(),
                    memory_bytes: table.memory_bytes() + history_bytes,
                    disk_bytes: table.disk_bytes(),
                }
            })
            .collect();
        // The client may have gone.
        let _ = pending.reply.send(Figures { dataflows, tables });
    }
}
