//! All 22 queries of TPC-H as materialized views, over tables that are loaded and then changed.
//!
//! 1. Half of the views are made before the tables have rows, half after.
//! 2. The answers must be those of `tpch/answers-SCALE.txt`, which DuckDB gave for the same data.
//! 3. After every step of changes (orders that go and come, as the benchmark's refresh functions
//!    make them; rows of the other tables too) each view must hold what its query gives.
//!
//! The scale is [`SCALE`], or what `MILLSTREAM_TPCH_SCALE` says; a larger one wants its answers
//! first. `MILLSTREAM_TPCH_DUMP=folder cargo test --test sql_tests tpch_data -- --ignored` writes
//! the tables, and `python3 sql-tests/tpch/answers.py folder SCALE` asks DuckDB.

use std::path::PathBuf;

use millstream::bench::tpch::{QUERIES, TABLES, change_set, create_tables, load, query_text, rows};
use millstream::slt::PrivateServer;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const SCALE: &str = "0.01";

type Rows = Vec<Vec<Option<String>>>;

fn scale() -> (String, f64) {
    let text = std::env::var("MILLSTREAM_TPCH_SCALE").unwrap_or_else(|_| SCALE.to_owned());
    let number = text.parse().expect("a scale is a number");
    (text, number)
}

/// Rows in order, numbers with so many digits as both sides surely have.
async fn query(client: &Client, sql: &str) -> Rows {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let value = |text: &str| match text.parse::<f64>() {
        Ok(0.0) => "0".to_owned(),
        Ok(number) => format!("{number:.9e}"),
        Err(_) => text.to_owned(),
    };
    let mut rows: Rows = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|c| row.get(c).map(value)).collect())
            }
            _ => None,
        })
        .collect();
    rows.sort_unstable();
    rows
}

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
}

/// The answers that another database gave, by query.
fn answers(scale: &str) -> Vec<Rows> {
    let path = format!("sql-tests/tpch/answers-{scale}.txt");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; see the head of tpch.rs", path.display()));
    text.split("# q")
        .skip(1)
        .map(|part| {
            let value = |text: &str| match text.parse::<f64>() {
                _ if text == "NULL" => None,
                Ok(0.0) => Some("0".to_owned()),
                Ok(number) => Some(format!("{number:.9e}")),
                Err(_) => Some(text.to_owned()),
            };
            let row = |line: &str| line.split('|').map(value).collect();
            let mut rows: Rows = part.lines().skip(1).filter(|l| !l.is_empty()).map(row).collect();
            rows.sort_unstable();
            rows
        })
        .collect()
}

/// Changes, each of which is one commit.
fn steps() -> Vec<Vec<String>> {
    let one = |sql: &str| vec![sql.to_owned()];
    vec![
        change_set(50, 1).to_vec(),
        change_set(20, 3).to_vec(),
        one("UPDATE lineitem SET l_discount = 0.06, l_shipdate = l_shipdate + 30 \
             WHERE l_orderkey % 97 = 5"),
        one("DELETE FROM partsupp WHERE ps_partkey % 10 = 0"),
        one("UPDATE supplier SET s_nationkey = (s_nationkey + 7) % 25, s_acctbal = -s_acctbal"),
        one(
            "UPDATE customer SET c_mktsegment = 'BUILDING', c_nationkey = 6 WHERE c_custkey % 3 = 0",
        ),
        one("DELETE FROM orders WHERE o_orderpriority = '1-URGENT'"),
        one("UPDATE nation SET n_regionkey = 1 WHERE n_regionkey = 3"),
        one("DELETE FROM lineitem"),
    ]
}

#[test]
fn tpch_views_equal_their_queries() {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let server = PrivateServer::start(2).await.expect("the server starts");
        let (client, connection) =
            server.client_config().connect(NoTls).await.expect("the server listens");
        tokio::spawn(connection);
        let (scale_text, scale) = scale();
        let queries: Vec<(&str, String)> =
            QUERIES.iter().map(|(name, sql)| (*name, query_text(sql, scale))).collect();

        create_tables(&client).await.expect("the tables can be made");
        let view =
            |(name, sql): &(&str, String)| format!("CREATE MATERIALIZED VIEW {name} AS {sql}");
        for query in queries.iter().step_by(2) {
            run(&client, &view(query)).await;
        }
        load(&client, scale).await.expect("the tables can be loaded");
        for query in queries.iter().skip(1).step_by(2) {
            run(&client, &view(query)).await;
        }

        let answers = answers(&scale_text);
        assert_eq!(answers.len(), queries.len());
        for ((name, sql), expected) in queries.iter().zip(&answers) {
            let found = query(&client, &format!("SELECT * FROM {name}")).await;
            assert_eq!(&found, expected, "{name}: {sql}");
        }
        for step in steps() {
            run(&client, "BEGIN").await;
            for statement in &step {
                run(&client, statement).await;
            }
            run(&client, "COMMIT").await;
            for (name, sql) in &queries {
                let found = query(&client, &format!("SELECT * FROM {name}")).await;
                let expected = query(&client, sql).await;
                assert_eq!(found, expected, "{name} after {step:?}: {sql}");
            }
        }
        server.stop().await;
    });
}

#[test]
#[ignore = "writes the tables into MILLSTREAM_TPCH_DUMP, for other databases to read"]
fn tpch_data() {
    let folder = PathBuf::from(std::env::var("MILLSTREAM_TPCH_DUMP").expect("a folder"));
    let (_, scale) = scale();
    for (table, _) in TABLES {
        let text: String = rows(table, scale).map(|row| row + "\n").collect();
        std::fs::write(folder.join(format!("{table}.tbl")), text).expect("can be written");
    }
}
