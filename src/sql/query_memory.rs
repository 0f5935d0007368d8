//! The memory of queries, and the disk that sorts and aggregations go to when it is short.
//!
//! All queries together have what state leaves free, and always a share ([`StateMemory`]). Who asks
//! for more than there is goes to the disk where the batch engine knows how, and else fails, alone,
//! with SQLSTATE 53200.

use std::fmt;
use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionState;

use crate::observe::process;
use crate::sql::functions::SESSION;
use crate::sql::interrupt::StopFlag;
use crate::state::spill::StateMemory;
use crate::types::error::Result;

/// What all queries of a server run in. Cheap to clone.
#[derive(Clone)]
pub struct QueryEnvironment {
    pub(super) session: Arc<SessionState>,
    memory: Arc<StateMemory>,
}

impl QueryEnvironment {
    /// For queries beside this state.
    ///
    /// # Errors
    /// When the batch engine refuses it.
    pub fn new(memory: Arc<StateMemory>) -> Result<QueryEnvironment> {
        let directory = memory.directory().to_owned();
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(QueryMemory { memory: memory.clone() }))
            .with_temp_file_path(directory)
            .build_arc()?;
        let session = SessionStateBuilder::new_from_existing(SESSION.clone());
        let session = Arc::new(session.with_runtime_env(runtime).build());
        Ok(QueryEnvironment { session, memory })
    }

    /// A query begins that does not end at once.
    pub fn note_running(&self, stop: &StopFlag) {
        // Without a limit nobody asks.
        if self.memory.limit_bytes() < u64::MAX {
            self.memory.running().add(stop.handle(), process::anonymous_bytes());
        }
    }

    /// Whether what a query has freed should be given back to the system at once.
    pub fn is_memory_short(&self) -> bool {
        self.memory.is_short()
    }
}

/// The batch engine's door to [`StateMemory`].
#[derive(Debug)]
struct QueryMemory {
    memory: Arc<StateMemory>,
}

impl MemoryPool for QueryMemory {
    fn name(&self) -> &str {
        "queries"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.memory.take_for_query(additional);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.memory.give_back_of_query(shrink);
    }

    fn try_grow(
        &self,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<(), DataFusionError> {
        self.memory.try_take_for_query(additional).map_err(|free| {
            DataFusionError::ResourcesExhausted(format!(
                "{} asked for {additional} bytes more than its {}, and {free} are free",
                reservation.consumer().name(),
                reservation.size()
            ))
        })
    }

    fn reserved(&self) -> usize {
        usize::try_from(self.memory.query_bytes()).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for QueryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} bytes", self.name(), self.memory.query_bytes())
    }
}
