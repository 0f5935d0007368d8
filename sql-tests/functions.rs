//! Every example of docs/sql/functions.md, run on a server.

use std::path::PathBuf;

use millstream::slt::PrivateServer;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// One row of a table: its line, what follows SELECT, and the result.
struct Example {
    line: usize,
    sql: String,
    result: String,
}

/// A cell without its backquotes, its bars as they are.
fn code(cell: &str) -> Option<String> {
    let cell = cell.strip_prefix(' ').unwrap_or(cell).trim_end();
    let inner = cell.strip_prefix('`')?.strip_suffix('`')?;
    Some(inner.replace("\\|", "|"))
}

/// The cells of a table's row.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut previous = ' ';
    for character in line.chars() {
        if character == '|' && previous != '\\' {
            cells.push(String::new());
        } else {
            cells.last_mut().expect("has one from the start").push(character);
        }
        previous = character;
    }
    cells
}

fn examples(text: &str) -> Vec<Example> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("| `"))
        .map(|(index, line)| {
            let cells = cells(line);
            assert_eq!(cells.len(), 6, "line {}: four cells between five bars", index + 1);
            let part = |cell: usize| {
                code(&cells[cell]).unwrap_or_else(|| panic!("line {}: no code", index + 1))
            };
            Example { line: index + 1, sql: part(3), result: part(4) }
        })
        .collect()
}

async fn run(client: &tokio_postgres::Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Err(error) => match error.as_db_error() {
            Some(error) => format!("error {}: {}", error.code().code(), error.message()),
            None => format!("error {error}"),
        },
        Ok(messages) => {
            let rows: Vec<String> = messages
                .iter()
                .filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => {
                        let cells = (0..row.len()).map(|column| row.get(column).unwrap_or("NULL"));
                        Some(cells.collect::<Vec<_>>().join(", "))
                    }
                    _ => None,
                })
                .collect();
            rows.join(" / ")
        }
    }
}

#[test]
fn examples_give_what_the_document_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/sql/functions.md");
    let text = std::fs::read_to_string(path).expect("the document is there");
    let examples = examples(&text);
    assert!(examples.len() > 200, "only {} examples were found", examples.len());
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let server = PrivateServer::start(1).await.expect("the server starts");
        let (client, connection) =
            server.client_config().connect(NoTls).await.expect("the server takes connections");
        let connection = tokio::spawn(connection);
        let mut wrong = Vec::new();
        for Example { line, sql, result } in &examples {
            let given = run(&client, &format!("SELECT {sql}")).await;
            if given != *result {
                wrong.push(format!("line {line}: SELECT {sql}\n  gives {given}\n  not   {result}"));
            }
        }
        drop(client);
        connection.await.expect("no panic").expect("the connection ends well");
        server.stop().await;
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    });
}
