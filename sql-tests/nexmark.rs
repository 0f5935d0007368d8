//! The Nexmark queries: at the end of a bounded stream, each view is what the query gives as a
//! batch over the same events, whatever the number of workers.

use millstream::bench::QUERIES;
use millstream::slt::PrivateServer;
use tokio_postgres::{Client, NoTls};

/// Events of all three kinds; a millisecond apart, so that no two have the same time and the
/// orders by time in the queries are without ties.
const EVENTS: usize = 8_000;
const EVENTS_PER_SECOND: usize = 1_000;

async fn connect(server: &PrivateServer) -> Client {
    let (client, connection) = server.client_config().connect(NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// How many rows only the view has, and only the batch, and how many the view has.
async fn differences(client: &Client, name: &str, sql: &str) -> (i64, i64, i64) {
    let count = async |query: String| -> i64 {
        let row = client.query_one(&query, &[]).await;
        row.unwrap_or_else(|error| panic!("{name}: {error:?}")).get(0)
    };
    let view = format!("SELECT * FROM {name}");
    let batch = format!("SELECT * FROM ({sql}) AS batch");
    (
        count(format!("SELECT count(*) FROM ({view} EXCEPT ALL {batch}) AS more")).await,
        count(format!("SELECT count(*) FROM ({batch} EXCEPT ALL {view}) AS missing")).await,
        count(format!("SELECT count(*) FROM {name}")).await,
    )
}

fn views_are_batches(workers: usize) {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let server = PrivateServer::start(workers).await.expect("the server starts");
        let client = connect(&server).await;
        for kind in ["person", "auction", "bid"] {
            let source = format!(
                "CREATE SOURCE {kind} (WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds') \
                 WITH (connector = 'nexmark', table.type = '{kind}', \
                 events.limit = '{EVENTS}', event.rate = '{EVENTS_PER_SECOND}')"
            );
            execute(&client, &source).await;
        }
        for query in QUERIES {
            for statement in query.setup {
                execute(&client, statement).await;
            }
            let create = format!("CREATE MATERIALIZED VIEW {} AS {}", query.name, query.sql);
            execute(&client, &create).await;
        }
        execute(&client, "FLUSH").await;
        for query in QUERIES {
            let (more, missing, rows) = differences(&client, query.name, query.sql).await;
            assert_eq!((more, missing), (0, 0), "{} of {rows} rows", query.name);
            assert!(rows > 0, "{} shows nothing", query.name);
        }
        drop(client);
        server.stop().await;
    });
}

#[test]
fn nexmark_views_are_batches_on_one_worker() {
    views_are_batches(1);
}

#[test]
fn nexmark_views_are_batches_on_two_workers() {
    views_are_batches(2);
}

#[test]
fn nexmark_views_are_batches_on_three_workers() {
    views_are_batches(3);
}
