//! The listener: who may come in, who is let go.
//!
//! 1. A client that asks for encryption is told that there is none and goes on in the clear.
//! 2. A cancel request is a connection of its own: it names another one and its secret, and is
//!    answered with nothing.
//! 3. Anyone else says a user and a database, is let in without a password, told the settings and
//!    its cancel key, and served by a [`Session`] in a task of its own until it leaves.
//!
//! When the server stops, no one is let in any more; idle clients are told at once, statements
//! that run may end for a while, then everything is cut.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgwire::messages::PgWireBackendMessage as Answer;
use pgwire::messages::response::SslResponse;
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, SecretKey,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::message::Startup;
use super::session::{End, Session, Stopping, refuse};
use super::socket::{NoMessage, Socket};
use crate::coordinator::command::{CancelHandle, ConnectOptions, Database};
use crate::observe::clock::Clock;
use crate::types::error::{Error, Result, SqlState};

/// Clients that are served at a time. A client costs a task and two buffers.
const CLIENTS_MAX: usize = 1000;
/// More connections than that, which are let in only to be told so, or to cancel.
const REFUSED_MAX: usize = 100;
/// How long a client may take to say who it is.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may be silent before the kernel asks whether the other end lives.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// How often it asks.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long to wait after a connection could not be accepted, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long clients have to take their farewell once everything is cut.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// The newest protocol there is here, as version numbers are packed.
const PROTOCOL_3_0: i32 = 3 << 16;

/// The database of a client that names none.
const DEFAULT_DATABASE: &str = "millstream";

/// Who can be cancelled: process id to secret and handle. An entry leaves with its session.
type Cancels = Arc<Mutex<HashMap<i32, (u32, CancelHandle)>>>;

/// Serves SQL clients until `shutdown`. What they run then has until shortly before
/// `shutdown_timeout` to end; after that everything is cut.
///
/// # Errors
/// When the listener is broken.
pub async fn serve(
    listener: TcpListener,
    database: Database,
    clock: Clock,
    shutdown: CancellationToken,
    shutdown_timeout: Duration,
) -> Result<()> {
    let stopping = Stopping { soon: shutdown.clone(), now: CancellationToken::new() };
    let cancels = Cancels::default();
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = clients.join_next() => log_panic(ended),
            accepted = listener.accept(), if clients.len() < CLIENTS_MAX + REFUSED_MAX => {
                match accepted {
                    Ok((stream, _)) => {
                        let full = clients.len() >= CLIENTS_MAX;
                        let guest = Guest {
                            database: database.clone(),
                            clock: clock.clone(),
                            stopping: stopping.clone(),
                            cancels: cancels.clone(),
                            full,
                        };
                        clients.spawn(guest.welcome(stream));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
    drop(listener);
    let wait_for_all = async |clients: &mut JoinSet<()>| {
        while let Some(ended) = clients.join_next().await {
            log_panic(ended);
        }
    };
    let patience = shutdown_timeout.saturating_sub(FAREWELL_TIMEOUT);
    if tokio::time::timeout(patience, wait_for_all(&mut clients)).await.is_err() {
        tracing::info!(clients = clients.len(), "statements that still run are cut off");
        stopping.now.cancel();
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, wait_for_all(&mut clients)).await;
        clients.shutdown().await;
    }
    Ok(())
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a session panicked; its client was cut off");
    }
}

/// A connection before it is known who it is.
struct Guest {
    database: Database,
    clock: Clock,
    stopping: Stopping,
    cancels: Cancels,
    /// There are too many clients already.
    full: bool,
}

/// Takes a session's entry out of the cancel map.
struct CancelEntry {
    cancels: Cancels,
    process_id: i32,
}

impl Drop for CancelEntry {
    fn drop(&mut self) {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.process_id);
    }
}

impl Guest {
    /// Finds out who it is and serves it.
    async fn welcome(self, stream: TcpStream) {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, "a connection broke before it began");
            return;
        }
        let mut socket = Socket::new(stream);
        let asked = tokio::select! {
            asked = tokio::time::timeout(STARTUP_TIMEOUT, ask(&mut socket)) => asked,
            () = self.stopping.soon.cancelled() => return,
        };
        match asked {
            Err(_) | Ok(Err(End::Gone | End::Stopping)) => {}
            Ok(Err(End::Broken(error))) => refuse(&mut socket, &error).await,
            Ok(Ok(Startup::Encryption)) => {}
            Ok(Ok(Startup::Cancel { process_id, secret })) => self.cancel(process_id, &secret),
            Ok(Ok(Startup::Start { minor_version, parameters })) => {
                self.start(socket, minor_version, parameters).await;
            }
        }
    }

    fn cancel(&self, process_id: i32, secret: &[u8]) {
        let cancels = self.cancels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((expected, handle)) = cancels.get(&process_id)
            && secret == expected.to_be_bytes()
        {
            handle.cancel();
        }
    }

    async fn start(
        self,
        mut socket: Socket,
        minor_version: u16,
        parameters: Vec<(String, String)>,
    ) {
        let connected = if self.full {
            Err(Error::user(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
                .hint("Close connections that are not needed, or use a connection pool."))
        } else {
            match options(&parameters) {
                Ok(options) => self.database.connect(options).await,
                Err(error) => Err(error),
            }
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => return refuse(&mut socket, &error).await,
        };
        let process_id = connection.process_id();
        let secret: u32 = rand::random();
        let _entry = CancelEntry { cancels: self.cancels.clone(), process_id };
        self.cancels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(process_id, (secret, connection.cancel_handle()));
        if let Err(error) = greet(&mut socket, minor_version, &parameters, process_id, secret) {
            return refuse(&mut socket, &error).await;
        }
        Session::new(socket, connection, self.stopping, self.clock).run().await;
    }
}

/// Small answers go at once, and the kernel notices clients that vanished without a word.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive =
        socket2::TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// The first packet that is not about encryption, which may be asked for twice.
async fn ask(socket: &mut Socket) -> Result<Startup, End> {
    for _ in 0..3 {
        let startup = socket.next_startup().await.map_err(End::from)?;
        if startup != Startup::Encryption {
            return Ok(startup);
        }
        if socket.has_input() {
            // Whoever sent it could not know the answer: someone in the middle put it there.
            let message = "received unencrypted data after an encryption request";
            return Err(End::Broken(Error::user(SqlState::PROTOCOL_VIOLATION, message)));
        }
        socket.put(&Answer::SslResponse(SslResponse::Refuse)).map_err(End::Broken)?;
        socket.flush().await.map_err(|error| End::from(NoMessage::from(error)))?;
    }
    Err(End::Gone)
}

/// Who connects, and to what, from the startup packet.
fn options(parameters: &[(String, String)]) -> Result<ConnectOptions> {
    let find = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let invalid =
        |message: &str| Err(Error::user(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message));
    let Some(user) = find("user").filter(|user| !user.is_empty()) else {
        return invalid("no PostgreSQL user name specified in startup packet");
    };
    if find("replication").is_some_and(|v| !["false", "off", "no", "0"].contains(&v.as_str())) {
        return Err(Error::unsupported("a replication connection")
            .hint("Read changes with SUBSCRIBE instead."));
    }
    let settings = parameters.iter().filter(|(name, _)| {
        !["user", "database", "replication"].contains(&name.as_str()) && !name.starts_with("_pq_.")
    });
    Ok(ConnectOptions {
        database: find("database").filter(|d| !d.is_empty()).unwrap_or(DEFAULT_DATABASE.into()),
        user,
        settings: settings.cloned().collect(),
    })
}

/// Lets a client in. The settings and ReadyForQuery follow from its session.
fn greet(
    socket: &mut Socket,
    minor_version: u16,
    parameters: &[(String, String)],
    process_id: i32,
    secret: u32,
) -> Result<()> {
    let unknown: Vec<String> = parameters
        .iter()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("_pq_."))
        .cloned()
        .collect();
    if minor_version > 0 || !unknown.is_empty() {
        let negotiate = NegotiateProtocolVersion::new(PROTOCOL_3_0, unknown);
        socket.put(&Answer::NegotiateProtocolVersion(negotiate))?;
    }
    socket.put(&Answer::Authentication(Authentication::Ok))?;
    let key = BackendKeyData::new(process_id, SecretKey::I32(secret as i32));
    socket.put(&Answer::BackendKeyData(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn startup_parameters() {
        let given = pairs(&[
            ("user", "ann"),
            ("application_name", "psql"),
            ("_pq_.x", "1"),
            ("replication", "off"),
        ]);
        let read = options(&given).expect("a user");
        assert_eq!((read.user.as_str(), read.database.as_str()), ("ann", "millstream"));
        assert_eq!(read.settings, pairs(&[("application_name", "psql")]));
        let read = options(&pairs(&[("user", "ann"), ("database", "sales")])).expect("a user");
        assert_eq!(read.database, "sales");
        let error = options(&pairs(&[("database", "sales")])).expect_err("no user");
        assert_eq!(error.sqlstate().0, "28000");
        let replication = pairs(&[("user", "ann"), ("replication", "database")]);
        assert_eq!(options(&replication).expect_err("replication").sqlstate().0, "0A000");
    }
}
