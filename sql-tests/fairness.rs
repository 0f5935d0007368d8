//! A statement that computes for long disturbs nobody, and ends when it is cancelled, takes too
//! long or has nobody to answer to.

use std::time::{Duration, Instant};

use millstream::slt::PrivateServer;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

/// Ten thousand million pairs: minutes of work.
const LONG_SQL: &str = "SELECT count(*) FROM generate_series(1, 100000) AS a, \
                        generate_series(1, 100000) AS b WHERE a + b < 0";
/// The same, which a client notices by its rows; and work before the first row.
const LONG_WRITE_SQL: &str = "INSERT INTO t SELECT a + b FROM generate_series(1, 100000) AS a, \
                              generate_series(1, 100000) AS b WHERE a + b < 0";
/// Far above what a quiet machine needs, far below how long the statement takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test against a server on as few threads as there may be.
fn with_server(test: impl AsyncFnOnce(&PrivateServer)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be started");
    runtime.block_on(async {
        let server = PrivateServer::start(1).await.expect("the server starts");
        test(&server).await;
        server.stop().await;
    });
}

async fn connect(server: &PrivateServer) -> (Client, JoinHandle<()>) {
    let (client, connection) = server.client_config().connect(NoTls).await.expect("connects");
    let connection = tokio::spawn(async move {
        // Ends with the client, or by an abort.
        let _ = connection.await;
    });
    (client, connection)
}

/// How many statements run but the asking one.
async fn running(client: &Client) -> usize {
    let sql = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()";
    client.query(sql, &[]).await.expect("others are served").len()
}

#[test]
fn a_long_statement_lets_others_run_and_can_be_cancelled() {
    with_server(async |server| {
        let (busy, _) = connect(server).await;
        let (other, _) = connect(server).await;
        other.simple_query("CREATE TABLE t (a bigint)").await.expect("a table");
        let cancel = busy.cancel_token();
        for sql in [LONG_SQL, LONG_WRITE_SQL] {
            let started = Instant::now();
            let long = busy.simple_query(sql);
            let others = async {
                while running(&other).await == 0 {
                    assert!(started.elapsed() < PATIENCE, "it does not begin");
                }
                for _ in 0..5 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    other.simple_query("SELECT 1").await.expect("others are served");
                }
                assert!(started.elapsed() < PATIENCE, "others waited {:?}", started.elapsed());
                assert_eq!(running(&other).await, 1, "the statement is long enough for this test");
                cancel.cancel_query(NoTls).await.expect("the request is taken");
                Instant::now()
            };
            let (ended, cancelled_at) = tokio::join!(long, others);
            let error = ended.expect_err("it was cancelled");
            assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
            let waited = cancelled_at.elapsed();
            assert!(waited < PATIENCE, "cancelling took {waited:?}");
        }
    });
}

#[test]
fn a_long_statement_ends_at_its_timeout() {
    with_server(async |server| {
        let (client, _) = connect(server).await;
        client.simple_query("SET statement_timeout = '200ms'").await.expect("a setting");
        let started = Instant::now();
        let error = client.simple_query(LONG_SQL).await.expect_err("it takes too long");
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
        assert!(started.elapsed() < PATIENCE, "the timeout took {:?}", started.elapsed());
        client.simple_query("SELECT 1").await.expect("the session goes on");
    });
}

#[test]
fn a_long_statement_ends_with_its_client() {
    with_server(async |server| {
        let (other, _) = connect(server).await;
        let (busy, connection) = connect(server).await;
        let long = tokio::spawn(async move { busy.simple_query(LONG_SQL).await });
        let started = Instant::now();
        while running(&other).await == 0 {
            assert!(started.elapsed() < PATIENCE, "it does not begin");
        }
        connection.abort();
        long.abort();
        let started = Instant::now();
        while running(&other).await > 0 {
            assert!(started.elapsed() < PATIENCE, "it runs on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}
