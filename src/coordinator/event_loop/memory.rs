//! Room in memory: the coordinator's part of a round.
//!
//! Its tables give what they have, cached snapshots of views go, for they hold what views let go,
//! and each worker is told to do the same with its operators.

use super::{Command, RunningKind, State};
use crate::observe::process;
use crate::state::spill::PASSES;
use crate::types::error::{Error, SqlState};

impl State {
    /// Makes room, here and in the workers, as far as it is wanted. Without a want the workers wake
    /// up: sources may go on.
    pub(super) fn relieve(&mut self) {
        for running in self.running.values_mut() {
            if let RunningKind::View { snapshot, .. } = &mut running.kind {
                *snapshot = None;
            }
        }
        self.workers.send(Command::Relieve);
        for pass in PASSES {
            self.tables.values_mut().for_each(|table| table.spill(&self.memory, pass));
        }
        process::give_back_memory();
        self.memory.done();
    }

    /// Why nothing may be added; `None` as long as there is memory.
    pub(super) fn growth_refused(&self) -> Option<Error> {
        if !self.memory.is_held() {
            return None;
        }
        let detail = match self.memory.failure() {
            Some(failure) => format!("State cannot go to the disk: {failure}."),
            None => "All rows that can go to the disk are there.".to_owned(),
        };
        Some(Error::external(SqlState::OUT_OF_MEMORY, "memory is used up").detail(detail).hint(
            "Reading and deleting go on. Drop views that are not needed, or start the \
                     server with a higher --memory-limit.",
        ))
    }
}
