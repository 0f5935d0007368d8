//! Connections over a real coordinator and workers: SQL in, text out.

use std::fmt::Write;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;

use crate::coordinator::command::{ConnectOptions, Connection, Database, Response};
use crate::coordinator::event_loop::{Coordinator, CoordinatorConfig};
use crate::observe::clock::Clock;
use crate::types::error::{Error, Result};

/// A server with two workers.
fn database() -> Database {
    let config = CoordinatorConfig {
        workers: 2,
        epoch_interval_max: Duration::from_millis(10),
        lock_timeout: Duration::from_millis(300),
    };
    let clock = Clock::system();
    let coordinator = Coordinator::start(config, clock.clone()).expect("the workers start");
    Database::new(coordinator, clock)
}

async fn connect(database: &Database) -> Connection {
    let options = ConnectOptions {
        database: "millstream".into(),
        user: "ann".into(),
        settings: vec![("application_name".into(), "test".into())],
    };
    database.connect(options).await.expect("the default database exists")
}

/// Runs a script as one simple query message a line and gives back what a client would see.
async fn run(connection: &mut Connection, script: &str) -> String {
    let mut out = String::new();
    for message in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        run_message(connection, message, &mut out).await;
    }
    out
}

async fn run_message(connection: &mut Connection, message: &str, out: &mut String) {
    let result = run_statements(connection, message, out).await;
    let synced = connection.sync().await;
    for notice in connection.take_notices() {
        writeln!(out, "{}: {}", notice.severity, notice.message).expect("a string");
        if let Some(detail) = notice.detail {
            writeln!(out, "  detail: {}", detail.replace('\n', "; ")).expect("a string");
        }
    }
    for error in [result.err(), synced.err()].into_iter().flatten() {
        write_error(out, &error);
    }
}

fn write_error(out: &mut String, error: &Error) {
    writeln!(out, "{}: {}", error.sqlstate().0, error.message()).expect("a string");
    if let Some(detail) = &error.body().detail {
        writeln!(out, "  detail: {}", detail.replace('\n', "; ")).expect("a string");
    }
}

async fn run_statements(
    connection: &mut Connection,
    message: &str,
    out: &mut String,
) -> Result<()> {
    let statements = connection.parse(message)?;
    if statements.len() > 1 {
        connection.begin_implicit_block();
    }
    for statement in &statements {
        let prepared = connection.prepare(statement, &[]).await?;
        match connection.execute(&prepared, &[]).await? {
            Response::Rows { schema, mut rows, tag } => {
                if prepared.columns.as_ref() != Some(&schema) {
                    writeln!(out, "prepared as {:?}, runs as {schema:?}", prepared.columns)
                        .expect("a string");
                }
                let mut count = 0;
                while let Some(batch) = rows.next().await {
                    let batch = batch.inspect_err(|_| connection.fail_transaction())?;
                    count += batch.num_rows();
                    write_rows(out, &batch);
                }
                writeln!(out, "{}", tag.replace("{}", &count.to_string())).expect("a string");
            }
            Response::Done { tag } => writeln!(out, "{tag}").expect("a string"),
            Response::Empty => out.push_str("(empty)\n"),
            Response::CopyIn(copy) => {
                drop(copy);
                out.push_str("COPY IN\n");
            }
            Response::CopyOut { mut rows, .. } => {
                while let Some(batch) = rows.next().await {
                    write_rows(out, &batch?);
                }
                out.push_str("COPY OUT\n");
            }
        }
    }
    Ok(())
}

fn write_rows(out: &mut String, batch: &RecordBatch) {
    let options = FormatOptions::default().with_null("NULL");
    let formatters: Vec<ArrayFormatter> = batch
        .columns()
        .iter()
        .map(|c| ArrayFormatter::try_new(c, &options).expect("printable"))
        .collect();
    for row in 0..batch.num_rows() {
        let cells: Vec<String> = formatters.iter().map(|f| f.value(row).to_string()).collect();
        writeln!(out, "{}", cells.join(" | ")).expect("a string");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scratch() {
    let db = database();
    let mut connection = connect(&db).await;
    let script = std::fs::read_to_string("/tmp/scratch.sql").unwrap_or_default();
    for line in script.lines() {
        println!("> {line}");
        print!("{}", run(&mut connection, line).await);
    }
}
