//! The documents are true: every SQL block of `docs/sql/*.md` and of the README runs on a server,
//! in the order of its file and in a database of its own, through psql.
//!
//! 1. A block marked `sql` is run; any other is grammar or a command line.
//! 2. A block without a mark that follows one, and looks like psql's output, is what the block
//!    before it prints. Epochs differ from run to run and are not compared.
//! 3. `-- meanwhile, in another session: ...` is run there at that place.
//! 4. The folder `/srv/out` stands for one that is new.
//! 5. In the tables of `types.md`, `SELECT ...` in backticks is run, too; ``gives `...` `` behind
//!    it is its value.
//!
//! Without psql the test is skipped with the reason; where the variable CI is set it must be there.

use std::path::{Path, PathBuf};
use std::process::Command;

use millstream::slt::PrivateServer;

/// Printed by psql between the blocks; no document has it.
const MARK: &str = "@@ end of block ";

/// A piece of SQL and what it prints, if the document says so.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    line: usize,
    sql: String,
    output: Option<String>,
    /// In a text and not a block: the value alone is compared.
    inline: bool,
}

/// The examples of a document; `inline`: also those in its text.
fn examples(text: &str, inline: bool) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut lines = text.lines().enumerate();
    // Whether a block without a mark would belong to the SQL before it.
    let mut after_sql = false;
    while let Some((number, line)) = lines.next() {
        let Some(mark) = line.trim_start().strip_prefix("```") else {
            found.extend(inline_examples(number + 1, line).into_iter().filter(|_| inline));
            after_sql &= line.trim().is_empty();
            continue;
        };
        let block: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| !line.trim_start().starts_with("```"))
            .collect();
        if mark == "sql" {
            let sql = block.join("\n");
            found.push(Example { line: number + 1, sql, output: None, inline: false });
            after_sql = true;
        } else {
            if mark.is_empty() && after_sql {
                let example = found.last_mut().expect("a block was before it");
                example.output = Some(block.join("\n"));
            }
            after_sql = false;
        }
    }
    found
}

/// `SELECT ...` in backticks, and the value that is said of it.
fn inline_examples(number: usize, line: &str) -> Vec<Example> {
    let parts: Vec<&str> = line.split('`').collect();
    let code = |index: usize| parts.get(index).copied().filter(|_| index % 2 == 1);
    let mut found = Vec::new();
    for index in (1..parts.len()).step_by(2) {
        let is_query = code(index).is_some_and(|c| c.starts_with("SELECT ") && !c.contains("..."));
        if !is_query || parts.len().is_multiple_of(2) {
            continue;
        }
        let gives = parts.get(index + 1).is_some_and(|text| *text == " gives ");
        found.push(Example {
            line: number,
            sql: format!("{};", parts[index]),
            output: if gives { code(index + 2).map(str::to_owned) } else { None },
            inline: true,
        });
    }
    found
}

/// The script for psql: what each example prints ends with a mark.
fn script(examples: &[Example], connection: &str, folder: &str) -> String {
    let mut script = "\\set ON_ERROR_STOP on\n\\pset footer off\n".to_owned();
    for (index, example) in examples.iter().enumerate() {
        script += if example.inline { "\\pset format unaligned\n\\t on\n" } else { "" };
        for line in example.sql.replace("/srv/out", folder).lines() {
            match line.split_once("-- meanwhile, in another session: ") {
                Some((_, sql)) => script += &format!("\\! psql -XqAt {connection} -c \"{sql}\"\n"),
                None => script += &format!("{line}\n"),
            }
        }
        script += if example.inline { "\\t off\n\\pset format aligned\n" } else { "" };
        script += &format!("\\echo '{MARK}{index}'\n");
    }
    script
}

/// Without what differs from run to run, and without the ends of lines.
fn comparable(output: &str) -> Vec<String> {
    let has_epochs = output.contains("millstream_epoch");
    let lines = output.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines
        .map(|line| match line.split_once('|') {
            Some((first, rest)) if has_epochs && first.trim().parse::<u64>().is_ok() => {
                format!("|{rest}")
            }
            _ => line.to_owned(),
        })
        .collect()
}

/// Runs a document's examples; what is wrong with it.
fn run(server: &PrivateServer, path: &Path, database: &str) -> Vec<String> {
    let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below the root").display();
    let text = std::fs::read_to_string(path).expect("readable");
    let examples = examples(&text, path.ends_with("types.md"));
    let address = server.server().postgres_address();
    let connection = format!("-h {} -p {} -U ann -d {database}", address.ip(), address.port());
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("examples.sql");
    let out = folder.path().join("out").display().to_string();
    std::fs::write(&file, script(&examples, &connection, &out)).expect("writable");
    let output = Command::new("psql")
        .args(["-Xq"])
        .args(connection.split(' '))
        .arg("-f")
        .arg(&file)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("psql runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut rest = printed.as_str();
    let mut complaints = Vec::new();
    for (index, example) in examples.iter().enumerate() {
        let place = format!("{name}:{}", example.line);
        let Some((own, after)) = rest.split_once(&format!("{MARK}{index}\n")) else {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            complaints.push(format!("{place} fails:\n{}\n{rest}\n{error}", example.sql));
            break;
        };
        rest = after;
        if let Some(expected) = &example.output
            && comparable(own) != comparable(expected)
        {
            complaints.push(format!("{place}:\n{}\nprints\n{own}and not\n{expected}", example.sql));
        }
    }
    complaints
}

#[test]
fn every_example_of_the_documents_runs() {
    if let Err(error) = Command::new("psql").arg("--version").output() {
        assert!(std::env::var_os("CI").is_none(), "psql: {error}");
        println!("skipped: psql: {error}");
        return;
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<PathBuf> = std::fs::read_dir(root.join("docs/sql"))
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    documents.sort();
    documents.push(root.join("README.md"));

    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let server = runtime.block_on(PrivateServer::start(2)).expect("the server starts");
    let mut complaints = Vec::new();
    for (number, path) in documents.iter().enumerate() {
        let database = format!("document_{number}");
        runtime.block_on(async {
            let connected = server.client_config().connect(tokio_postgres::NoTls).await;
            let (client, connection) = connected.expect("connects");
            let task = tokio::spawn(connection);
            let create = format!("CREATE DATABASE {database}");
            client.batch_execute(&create).await.expect("creates");
            drop(client);
            task.await.expect("no panic").expect("ends well");
        });
        complaints.extend(run(&server, path, &database));
    }
    runtime.block_on(server.stop());
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}

#[test]
fn blocks_and_their_output_are_found() {
    let text = "a `SELECT 1` gives `1`, `b`\n```sql\nSELECT 2;\n```\n\n```\n 2\n```\nx\n```\ny\n```\n\
                ```sql\nSELECT 3;\n```\nThen:\n```\nno output\n```\n`SELECT ...` is grammar";
    let example = |line, sql: &str, output: Option<&str>, inline| Example {
        line,
        sql: sql.to_owned(),
        output: output.map(str::to_owned),
        inline,
    };
    assert_eq!(
        examples(text, true),
        [
            example(1, "SELECT 1;", Some("1"), true),
            example(2, "SELECT 2;", Some(" 2"), false),
            example(13, "SELECT 3;", None, false),
        ]
    );
    assert_eq!(comparable(" millstream_epoch | x \n 17 | 5\n\n"), [" millstream_epoch | x", "| 5"]);
}
