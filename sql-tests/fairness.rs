//! A statement that computes for long disturbs nobody, and ends when it is cancelled.

use std::time::{Duration, Instant};

use millstream::slt::PrivateServer;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

/// Ten thousand million pairs: minutes of work.
const LONG_SQL: &str = "SELECT count(*) FROM generate_series(1, 100000) AS a, \
                        generate_series(1, 100000) AS b WHERE a + b < 0";
/// Far above what a quiet machine needs, far below how long the statement takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_long_statement_lets_others_run_and_can_be_cancelled() {
    // As few threads as there may be.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be started");
    runtime.block_on(async {
        let server = PrivateServer::start(1).await.expect("the server starts");
        let connect = async || {
            let config = server.client_config();
            let (client, connection) = config.connect(NoTls).await.expect("connects");
            tokio::spawn(connection);
            client
        };
        let (busy, other) = (connect().await, connect().await);
        let cancel = busy.cancel_token();
        let long = tokio::spawn(async move { busy.simple_query(LONG_SQL).await });

        let started = Instant::now();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            other.simple_query("SELECT 1").await.expect("others are served");
        }
        assert!(started.elapsed() < PATIENCE, "others waited for {:?}", started.elapsed());
        assert!(!long.is_finished(), "the statement is long enough for this test");

        let started = Instant::now();
        cancel.cancel_query(NoTls).await.expect("the request is taken");
        let error = long.await.expect("no panic").expect_err("it was cancelled");
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
        assert!(started.elapsed() < PATIENCE, "cancelling took {:?}", started.elapsed());
        server.stop().await;
    });
}
