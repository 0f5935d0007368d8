//! The composition root: builds every part, in the order of a start, and takes them down again.
//!
//! 1. Both listeners are bound, so that a port in use is told at once.
//! 2. HTTP answers "starting".
//! 3. The storage is claimed; the data plane and the coordinator start over what is in it.
//! 4. SQL clients are served; HTTP answers "ok".
//!
//! Stopping goes the other way: no new clients, running statements get `shutdown_timeout`, then
//! the coordinator and the workers end.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{ServerConfig, Storage};
use crate::coordinator::command::Database;
use crate::coordinator::event_loop::{Coordinator, CoordinatorConfig, HistoryConfig};
use crate::coordinator::{memory, recovery};
use crate::frontend::pgwire as postgres_wire;
use crate::memory::spill::StateMemory;
use crate::observe::clock::Clock;
use crate::storage::remote;
use crate::storage::store::Store;
use crate::types::error::{Error, Result};
use crate::web::api::{self, Health, Phase};

/// Where state goes that does not fit into memory, below the data directory: on the local disk,
/// wherever the storage is. Files in it have no names.
const SPILL_DIRECTORY: &str = "spill";

/// The history may have so much of the memory limit, an eighth.
const HISTORY_SHARE_MAX: u64 = 8;

/// Beyond `shutdown_timeout`, for what ends by itself.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A running server.
pub struct Server {
    config: ServerConfig,
    coordinator: Coordinator,
    database: Database,
    health: Health,
    postgres_address: SocketAddr,
    http_address: SocketAddr,
    /// Cancelled when SQL clients are to leave.
    clients_shutdown: CancellationToken,
    clients: JoinHandle<Result<()>>,
    /// Cancelled when everything else has ended.
    web_shutdown: CancellationToken,
    web: JoinHandle<Result<()>>,
    memory: JoinHandle<()>,
}

impl Server {
    /// Starts a server in this process; a port of 0 takes a free one.
    ///
    /// # Errors
    /// When an address is in use, or the data directory cannot be made. Nothing is left behind.
    pub async fn start(config: ServerConfig) -> Result<Server> {
        let clock = Clock::system();
        std::fs::create_dir_all(&config.data_dir).map_err(|error| {
            Error::from(error).context(format!("data directory {}", config.data_dir.display()))
        })?;
        let state_memory = make_state_memory(&config)?;
        let postgres = bind(config.listen, "--listen").await?;
        let http = bind(config.http, "--http").await?;
        let (postgres_address, http_address) = (postgres.local_addr()?, http.local_addr()?);

        let health = Health::new(clock.clone());
        let web_shutdown = CancellationToken::new();
        let web = tokio::spawn(api::serve(http, health.clone(), web_shutdown.clone()));

        let working = Arc::new(OnceLock::new());
        let memory =
            tokio::spawn(memory::watch(state_memory.clone(), working.clone(), clock.clone()));
        let started = start_coordinator(&config, &clock, state_memory, &working).await;
        let started = started.and_then(|coordinator| {
            let database = Database::new(coordinator.clone(), clock.clone())?;
            Ok((coordinator, database))
        });
        let (coordinator, database) = match started {
            Ok(started) => started,
            Err(error) => {
                memory.abort();
                web_shutdown.cancel();
                return Err(error);
            }
        };

        let clients_shutdown = CancellationToken::new();
        let clients = tokio::spawn(postgres_wire::serve(
            postgres,
            database.clone(),
            clock.clone(),
            clients_shutdown.clone(),
            config.shutdown_timeout,
        ));
        health.enter(Phase::Ready);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            postgres = %postgres_address,
            http = %http_address,
            workers = config.workers,
            start_ms = clock.elapsed().as_millis(),
            "server is ready"
        );
        Ok(Server {
            config,
            coordinator,
            database,
            health,
            postgres_address,
            http_address,
            clients_shutdown,
            clients,
            web_shutdown,
            web,
            memory,
        })
    }

    /// Where SQL clients connect.
    pub fn postgres_address(&self) -> SocketAddr {
        self.postgres_address
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// The door for clients in this process.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Waits until a part ends by itself, which it should not, or another server takes over.
    pub async fn failed(&mut self) -> Error {
        let outcome = tokio::select! {
            outcome = &mut self.clients => outcome,
            outcome = &mut self.web => outcome,
            error = self.coordinator.failed() => return error,
        };
        match outcome {
            Ok(Ok(())) => Error::internal("a listener ended"),
            Ok(Err(error)) => error,
            Err(error) => Error::internal(format!("a listener failed: {error}")),
        }
    }

    /// Stops cleanly. Statements still running after `shutdown_timeout` are broken off.
    pub async fn stop(self) {
        self.health.enter(Phase::Stopping);
        let timeout = self.config.shutdown_timeout;
        self.clients_shutdown.cancel();
        let clients = self.clients.abort_handle();
        if tokio::time::timeout(timeout + STOP_GRACE, self.clients).await.is_err() {
            warn!(timeout_ms = timeout.as_millis(), "clients did not leave in time");
            clients.abort();
        }
        self.memory.abort();
        let coordinator = self.coordinator;
        if tokio::task::spawn_blocking(move || coordinator.stop()).await.is_err() {
            warn!("the coordinator did not stop cleanly");
        }
        self.web_shutdown.cancel();
        let web = self.web.abort_handle();
        if tokio::time::timeout(timeout, self.web).await.is_err() {
            web.abort();
        }
        info!("server has stopped");
    }
}

async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let in_use = error.kind() == std::io::ErrorKind::AddrInUse;
        let error = Error::from(error).context(format!("cannot listen on {address}"));
        match in_use {
            true => error.hint(format!(
                "Another server may be running there; {flag} chooses another address."
            )),
            false => error,
        }
    })
}

/// The memory of the server's state, and the directory that it overflows to.
fn make_state_memory(config: &ServerConfig) -> Result<Arc<StateMemory>> {
    let spill_dir = config.data_dir.join(SPILL_DIRECTORY);
    std::fs::create_dir_all(&spill_dir).map_err(|error| {
        Error::from(error).context(format!("directory {}", spill_dir.display()))
    })?;
    Ok(memory::limited_state_memory(&spill_dir, config.memory_limit_bytes))
}

/// The data plane and its coordinator, over the storage. `working` has the coordinator as soon as it
/// works.
async fn start_coordinator(
    config: &ServerConfig,
    clock: &Clock,
    memory: Arc<StateMemory>,
    working: &OnceLock<Coordinator>,
) -> Result<Coordinator> {
    // It does not go to the disk.
    let history_bytes =
        config.history_memory_limit_bytes.min(config.memory_limit_bytes / HISTORY_SHARE_MAX);
    let own = CoordinatorConfig {
        workers: config.workers.get(),
        epoch_interval_max: config.epoch_interval_max,
        lock_timeout: config.lock_timeout,
        history: HistoryConfig {
            retention: config.history_retention,
            bytes_max: usize::try_from(history_bytes).unwrap_or(usize::MAX),
        },
        memory,
    };
    let Some(store) = open_store(config).await? else {
        let coordinator = Coordinator::start(own, clock.clone())?;
        return Ok(working.get_or_init(|| coordinator).clone());
    };
    let (savepoint, interval) = (config.from_savepoint.as_deref(), config.checkpoint_interval);
    recovery::open_from(own, clock.clone(), store, interval, savepoint, working).await
}

/// The storage that a server's settings name; `None` when nothing is kept.
///
/// # Errors
/// When it cannot be opened, or is a bucket that does not honour conditional puts.
pub async fn open_store(config: &ServerConfig) -> Result<Option<Store>> {
    Ok(Some(match &config.storage {
        Storage::Memory => return Ok(None),
        Storage::DataDir => Store::directory(&config.data_dir.join("storage"))?,
        Storage::Directory(directory) => Store::directory(directory)?,
        Storage::Remote(url) => {
            let store = remote::open(url)?;
            remote::check_conditional_put(&store).await?;
            store
        }
    }))
}
