//! tokio-postgres: the client that applications in Rust use.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use futures::{SinkExt, StreamExt, TryStreamExt, pin_mut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, Error, IsolationLevel, NoTls, Row, SimpleQueryMessage};

use super::TestServer;

async fn connect(address: SocketAddr) -> Client {
    let (client, connection) = Config::new()
        .host(address.ip().to_string())
        .port(address.port())
        .user("ann")
        .dbname("millstream")
        .connect(NoTls)
        .await
        .expect("the server lets everyone in");
    tokio::spawn(connection);
    client
}

fn sqlstate<T>(outcome: Result<T, Error>) -> String {
    match outcome {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.code().map_or(format!("{error:?}"), |code| code.code().to_owned()),
    }
}

/// Bytes of any type, as they go over the wire.
#[derive(Debug, PartialEq)]
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Raw {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn unhex(hex: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// Right: Postgres's binary format of the value on the left.
#[test]
fn binary_values_in_both_directions() {
    let table = [
        ("boolean", "true", Type::BOOL, "01"),
        ("smallint", "-32768", Type::INT2, "8000"),
        ("integer", "2147483647", Type::INT4, "7fffffff"),
        ("bigint", "-1", Type::INT8, "ffffffffffffffff"),
        ("date", "infinity", Type::DATE, "7fffffff"),
        ("date", "-infinity", Type::DATE, "80000000"),
        ("timestamp", "infinity", Type::TIMESTAMP, "7fffffffffffffff"),
        ("timestamptz", "-infinity", Type::TIMESTAMPTZ, "8000000000000000"),
        ("real", "1.5", Type::FLOAT4, "3fc00000"),
        ("double precision", "0.1", Type::FLOAT8, "3fb999999999999a"),
        ("numeric(10,3)", "12345.678", Type::NUMERIC, "0003000100000003000109291a7c"),
        ("text", "héllo", Type::TEXT, "68c3a96c6c6f"),
        ("bytea", "\\x00ff10", Type::BYTEA, "00ff10"),
        ("date", "2024-02-29", Type::DATE, "00002279"),
        ("time", "23:59:59.999999", Type::TIME, "000000141dd75fff"),
        ("timestamp", "2024-02-29 12:34:56.5", Type::TIMESTAMP, "0002b583416e1d20"),
        ("timestamptz", "2024-02-29 12:34:56.789+02", Type::TIMESTAMPTZ, "0002b581944b3e08"),
        (
            "interval",
            "1 year 2 mons 3 days 04:05:06.7",
            Type::INTERVAL,
            "000000036c966ee0000000030000000e",
        ),
        (
            "uuid",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            Type::UUID,
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ),
        ("json", "{\"a\" : 1}", Type::JSON, "7b226122203a20317d"),
        ("jsonb", "{\"a\":1}", Type::JSONB, "017b2261223a20317d"),
        (
            "integer[]",
            "{1,NULL}",
            Type::INT4_ARRAY,
            "00000001000000010000001700000002000000010000000400000001ffffffff",
        ),
    ];
    TestServer::start().run(async |address| {
        let client = connect(address).await;
        for (sql_type, text, wire_type, hex) in table {
            let bytes = unhex(hex);
            let select = format!("SELECT '{text}'::{sql_type}");
            let row = client.query_one(&select, &[]).await.expect(&select);
            assert_eq!(row.columns()[0].type_(), &wire_type, "{select}");
            assert_eq!(row.get::<_, Raw>(0), Raw(bytes.clone()), "{select}");
            let back = format!("SELECT $1::{sql_type}");
            let row = client.query_one(&back, &[&Raw(bytes.clone())]).await.expect(&back);
            assert_eq!(row.get::<_, Raw>(0), Raw(bytes), "{back}");
            let row = client.query_one(&back, &[&None::<Raw>]).await.expect(&back);
            assert_eq!(row.get::<_, Option<Raw>>(0), None, "{back}");
        }
        let row = client.query_one("SELECT ROW(1, 'a b')", &[]).await.expect("a row");
        let record = "000000020000001700000004000000010000001900000003612062";
        assert_eq!(row.get::<_, Raw>(0), Raw(unhex(record)));
        let row = client.query_one("SELECT $1::text || $2", &[&"a", &"b"]).await.expect("text");
        assert_eq!(row.get::<_, &str>(0), "ab");
        let broken = client.query_one("SELECT $1::integer", &[&Raw(vec![1, 2])]).await;
        assert_eq!(sqlstate(broken), "22P03");
    });
}

#[test]
fn statements_are_prepared_and_described() {
    TestServer::start().run(async |address| {
        let client = connect(address).await;
        client
            .batch_execute("CREATE TABLE t (a integer PRIMARY KEY, b numeric(10,3), c text)")
            .await
            .expect("a table");
        let insert = client
            .prepare("INSERT INTO t VALUES ($1, $2::text::numeric(10,3), $3)")
            .await
            .expect("a statement");
        assert_eq!(insert.params(), [Type::INT4, Type::TEXT, Type::TEXT]);
        assert!(insert.columns().is_empty());
        for n in 0..10 {
            let changed = client.execute(&insert, &[&n, &"1.5", &None::<&str>]).await;
            assert_eq!(changed.expect("an insert"), 1);
        }
        let select = client.prepare("SELECT a, b, c FROM t WHERE a < $1 ORDER BY a").await;
        let select = select.expect("a statement");
        assert_eq!(select.params(), [Type::INT4]);
        let columns: Vec<_> =
            select.columns().iter().map(|c| (c.name(), c.type_().clone())).collect();
        let expected = [("a", Type::INT4), ("b", Type::NUMERIC), ("c", Type::TEXT)];
        assert_eq!(columns, expected);
        let rows = client.query(&select, &[&3]).await.expect("rows");
        assert_eq!(rows.iter().map(|r| r.get(0)).collect::<Vec<i32>>(), [0, 1, 2]);
        assert_eq!(client.query(&select, &[&0]).await.expect("no rows").len(), 0);
        // A table that was made anew has other columns: the old plan says so, and a new one works.
        client
            .batch_execute("DROP TABLE t; CREATE TABLE t (a integer PRIMARY KEY, b text, c text)")
            .await
            .expect("a table");
        assert_eq!(sqlstate(client.query(&select, &[&3]).await), "0A000");
        let again = client.query("SELECT a, b, c FROM t WHERE a < $1 ORDER BY a", &[&3]).await;
        assert_eq!(again.expect("rows").len(), 0);
        let text = client.simple_query("SELECT 1 AS one; INSERT INTO t VALUES (1, 'x', 'y')").await;
        let counts =
            text.expect("two statements").into_iter().filter_map(|message| match message {
                SimpleQueryMessage::CommandComplete(rows) => Some(rows),
                _ => None,
            });
        assert_eq!(counts.collect::<Vec<_>>(), [1, 1]);
    });
}

#[test]
fn errors_say_what_and_where() {
    TestServer::start().run(async |address| {
        let client = connect(address).await;
        let error = client.query("SELECT 'é', nothing_like_it", &[]).await.expect_err("no column");
        let error = error.as_db_error().expect("from the server");
        assert_eq!((error.severity(), error.code().code()), ("ERROR", "42703"));
        assert_eq!(error.message(), "column \"nothing_like_it\" does not exist");
        let position = tokio_postgres::error::ErrorPosition::Original(13);
        assert_eq!(error.position(), Some(&position));
        for (sql, expected) in [
            ("SELECT 1 +", "42601"),
            ("SELECT * FROM nothing_like_it", "42P01"),
            ("SELECT 1/0", "22012"),
            ("SELECT 'x'::integer", "22P02"),
            ("SELECT 1; SELECT 2", "42601"),
            ("SELECT nothing_like_it(1)", "42883"),
        ] {
            assert_eq!(sqlstate(client.query(sql, &[]).await), expected, "{sql}");
        }
        let one: i32 = client.query_one("SELECT 1", &[]).await.expect("the session goes on").get(0);
        assert_eq!(one, 1);
    });
}

#[test]
fn transactions_and_portals() {
    TestServer::start().run(async |address| {
        let mut client = connect(address).await;
        client.batch_execute("CREATE TABLE t (a integer PRIMARY KEY)").await.expect("a table");
        let transaction = client.transaction().await.expect("BEGIN");
        transaction
            .execute("INSERT INTO t SELECT * FROM generate_series(1, 1000)", &[])
            .await
            .expect("rows");
        transaction.commit().await.expect("COMMIT");
        let transaction = client.transaction().await.expect("BEGIN");
        transaction.execute("INSERT INTO t VALUES (1001)", &[]).await.expect("a row");
        assert_eq!(sqlstate(transaction.query("SELECT 1/0", &[]).await), "22012");
        assert_eq!(sqlstate(transaction.query("SELECT 1", &[]).await), "25P02");
        transaction.rollback().await.expect("ROLLBACK");

        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::Serializable)
            .read_only(true)
            .start()
            .await
            .expect("BEGIN");
        let portal = transaction.bind("SELECT a FROM t WHERE a > $1 ORDER BY a", &[&0]).await;
        let portal = portal.expect("a portal");
        let other =
            transaction.bind("SELECT a FROM t ORDER BY a DESC", &[]).await.expect("another");
        let numbers = |rows: Vec<Row>| rows.iter().map(|r| r.get(0)).collect::<Vec<i32>>();
        let mut seen = numbers(transaction.query_portal(&portal, 3).await.expect("three"));
        assert_eq!(seen, [1, 2, 3]);
        let last = numbers(transaction.query_portal(&other, 1).await.expect("one"));
        assert_eq!(last, [1000]);
        loop {
            let more = numbers(transaction.query_portal(&portal, 100).await.expect("more"));
            if more.is_empty() {
                break;
            }
            seen.extend(more);
        }
        assert_eq!(seen, (1..=1000).collect::<Vec<_>>());
        transaction.commit().await.expect("COMMIT");
    });
}

#[test]
fn copy_streams_both_ways() {
    TestServer::start().run(async |address| {
        let client = connect(address).await;
        client
            .batch_execute("CREATE TABLE t (a integer PRIMARY KEY, b text)")
            .await
            .expect("a table");
        let sink = client.copy_in("COPY t FROM STDIN").await.expect("COPY");
        pin_mut!(sink);
        for n in 0..50_000 {
            sink.feed(bytes::Bytes::from(format!("{n}\tline {n}\n"))).await.expect("a line");
        }
        assert_eq!(sink.finish().await.expect("the end"), 50_000);
        let data = client.copy_out("COPY t TO STDOUT (FORMAT csv)").await.expect("COPY");
        let lines: Vec<_> = data.try_collect().await.expect("lines");
        assert_eq!(lines.len(), 50_000);
        let sink = client.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await.expect("COPY");
        pin_mut!(sink);
        sink.send(bytes::Bytes::from_static(b"x\ty\n")).await.expect("a line");
        assert_eq!(sqlstate(sink.finish().await), "22P02");
        // Dropped before its end, a COPY leaves nothing.
        {
            let sink = client.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await.expect("COPY");
            pin_mut!(sink);
            sink.send(bytes::Bytes::from_static(b"-1\ty\n")).await.expect("a line");
        }
        let count = client.query_one("SELECT count(*) FROM t", &[]).await.expect("a count");
        assert_eq!(count.get::<_, i64>(0), 50_000);
    });
}

#[test]
fn queries_are_pipelined_and_cancelled() {
    TestServer::start().run(async |address| {
        let client = connect(address).await;
        let one = client.prepare("SELECT $1::integer").await.expect("a statement");
        let numbers: Vec<i32> = (0..500).collect();
        let answers =
            futures::future::join_all(numbers.iter().map(async |n| {
                client.query_one(&one, &[n]).await.expect("a row").get::<_, i32>(0)
            }));
        assert_eq!(answers.await, numbers);
        let divide = client.prepare("SELECT 10 / $1::integer").await.expect("a statement");
        let (bad, good) =
            tokio::join!(client.query_one(&divide, &[&0]), client.query_one(&divide, &[&5]));
        assert_eq!(sqlstate(bad), "22012");
        assert_eq!(good.expect("errors do not spread").get::<_, i32>(0), 2);

        let token = client.cancel_token();
        let sleep = client.batch_execute("SUBSCRIBE (SELECT 1 AS one)");
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            token.cancel_query(NoTls).await.expect("a cancel request");
        };
        let (slept, ()) = tokio::join!(sleep, cancel);
        assert_eq!(sqlstate(slept), "57014");
        client.batch_execute("SELECT 1").await.expect("the session goes on");
    });
}

#[test]
fn a_subscription_is_seen_row_by_row() {
    TestServer::start().run(async |address| {
        let (reader, writer) = (connect(address).await, connect(address).await);
        writer.batch_execute("CREATE TABLE t (a integer PRIMARY KEY)").await.expect("a table");
        let none: [&(dyn ToSql + Sync); 0] = [];
        let rows = reader.query_raw("SUBSCRIBE (SELECT a FROM t)", none).await.expect("SUBSCRIBE");
        pin_mut!(rows);
        for n in 0..20 {
            writer.execute("INSERT INTO t VALUES ($1)", &[&n]).await.expect("an insert");
            let row = rows.next().await.expect("endless").expect("a row");
            assert_eq!(row.get::<_, i32>("a"), n);
        }
        reader.cancel_token().cancel_query(NoTls).await.expect("a cancel request");
        assert_eq!(sqlstate(rows.try_next().await), "57014");
        reader.batch_execute("SELECT 1").await.expect("the session goes on");
    });
}
