//! Health, readiness, version and metrics over HTTP.
//!
//! The listener answers from the first moment of a start, so that `/health` can say "starting"
//! (503) while the rest comes up; `ok` (200) means that SQL clients are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::observe::clock::Clock;
use crate::observe::metrics;
use crate::types::error::Result;

/// Where the server is in its life. Shared by whoever moves it and the HTTP answers.
#[derive(Clone, Debug)]
pub struct Health {
    phase: Arc<AtomicU8>,
    /// Made when the server started.
    clock: Clock,
}

/// The phases of a server's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    Starting = 0,
    Ready = 1,
    Stopping = 2,
}

impl Health {
    /// A server that is starting.
    pub fn new(clock: Clock) -> Health {
        Health { phase: Arc::new(AtomicU8::new(Phase::Starting as u8)), clock }
    }

    /// Moves to a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Stopping,
        }
    }
}

/// Answers requests until `shutdown`; running ones are finished.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    shutdown: CancellationToken,
) -> Result<()> {
    let routes = Router::new()
        .route("/", get(version))
        .route("/health", get(state))
        .route("/ready", get(state))
        .route("/version", get(version))
        .route("/metrics", get(prometheus))
        .with_state(health);
    axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}

async fn state(State(health): State<Health>) -> Response {
    let (code, text) = match health.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Ready => (StatusCode::OK, "ok\n"),
        Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    };
    (code, text).into_response()
}

async fn version() -> Json<serde_json::Value> {
    Json(serde_json::json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

async fn prometheus(State(health): State<Health>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, metrics::prometheus_text(&health.clock)).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// The status line and the body of an answer.
    async fn fetch(address: std::net::SocketAddr, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn health_follows_the_phases_of_a_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Health::new(Clock::for_test());
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, health.clone(), shutdown.clone()));

        let unavailable = "HTTP/1.1 503 Service Unavailable".to_owned();
        assert_eq!(fetch(address, "/health").await, (unavailable.clone(), "starting\n".into()));
        health.enter(Phase::Ready);
        let ok = "HTTP/1.1 200 OK".to_owned();
        assert_eq!(fetch(address, "/health").await, (ok.clone(), "ok\n".into()));
        assert_eq!(fetch(address, "/ready").await, (ok.clone(), "ok\n".into()));
        let version = env!("CARGO_PKG_VERSION");
        let version = format!(r#"{{"name":"millstream","version":"{version}"}}"#);
        assert_eq!(fetch(address, "/version").await, (ok.clone(), version));
        let (status, text) = fetch(address, "/metrics").await;
        assert_eq!(status, ok);
        assert!(text.contains("\nmillstream_uptime_seconds 0\n"), "{text}");
        assert_eq!(fetch(address, "/nothing").await.0, "HTTP/1.1 404 Not Found");
        health.enter(Phase::Stopping);
        assert_eq!(fetch(address, "/ready").await, (unavailable, "stopping\n".into()));

        shutdown.cancel();
        server.await.unwrap().unwrap();
    }
}
