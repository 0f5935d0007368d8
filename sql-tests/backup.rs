//! `millstream backup`, `restore` and `savepoint` as a person runs them, and a savepoint read by
//! Arrow's own readers.

use std::path::Path;
use std::process::Command;

use crate::clients::{needed, python};
use crate::durability::{Place, rows, serve_in};

fn millstream(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLSTREAM_") {
            command.env_remove(name);
        }
    }
    let output = command.args(arguments).output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

fn url(directory: &Path) -> String {
    format!("file://{}", directory.display())
}

const SETUP: &str = "
    CREATE TABLE items (id int PRIMARY KEY, label text, price numeric(10,2));
    INSERT INTO items SELECT g, 'label ' || g % 7, g FROM generate_series(1, 2000) g(g);
    CREATE TABLE bag (a int);
    INSERT INTO bag VALUES (1), (1), (2);
    CREATE MATERIALIZED VIEW totals AS SELECT label, count(*) AS n FROM items GROUP BY label;
    CREATE MATERIALIZED VIEW doubled AS SELECT b.a, b.a * 2 AS d FROM bag b;";

/// Some of it in a base, some in deltas.
const CHANGES: &str = "
    UPDATE items SET label = 'other' WHERE id % 100 = 3; CHECKPOINT;
    DELETE FROM bag WHERE a = 2; INSERT INTO bag VALUES (1), (3); CHECKPOINT;
    DELETE FROM items WHERE id = 5; INSERT INTO items VALUES (5000, NULL, 0.5); CHECKPOINT;";

const RELATIONS: [&str; 4] = ["items", "bag", "totals", "doubled"];

async fn run(client: &tokio_postgres::Client, script: &str) {
    for statement in script.split_inclusive(';') {
        let done = client.batch_execute(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

async fn contents(client: &tokio_postgres::Client) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for relation in RELATIONS {
        all.push(rows(client, &format!("SELECT * FROM {relation}")).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_backed_up_and_restored_by_command() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (backup, exported) = (folder.path().join("backup"), folder.path().join("exported"));
    let place = Place::disk(&folder.path().join("data"));
    let server = serve_in(&place, "2", &[]);
    let client = server.connect().await;
    run(&client, SETUP).await;
    let (passed, out) = millstream(&["backup", &url(&backup), "--connect", &server.url]);
    assert!(passed && out.contains("BACKUP"), "{out}");
    run(&client, CHANGES).await;
    run(&client, "CREATE SAVEPOINT \"Mine\";").await;
    let was = contents(&client).await;
    let (passed, out) = millstream(&["backup", &url(&backup), "--connect", &server.url]);
    assert!(passed && !out.contains(" 0 there"), "only what is missing is copied: {out}");
    let export = ["savepoint", "export", "Mine", &url(&exported), "--connect", &server.url];
    let (passed, out) = millstream(&export);
    assert!(passed && out.contains("EXPORT SAVEPOINT"), "{out}");
    run(&client, "DELETE FROM items; DELETE FROM bag;").await;
    let import = ["savepoint", "import", "again", &url(&exported), "--connect", &server.url];
    let (passed, out) = millstream(&import);
    assert!(passed && out.contains("IMPORT SAVEPOINT"), "{out}");
    let imported = rows(&client, "SELECT * FROM savepoint('again', 'items')").await;
    assert_eq!(imported, was[0]);
    let (passed, out) = millstream(&import);
    assert!(!passed && out.contains("already exists"), "{out}");
    drop(client);
    server.kill();
    // To another place, which must be empty.
    let restored = Place::disk(&folder.path().join("restored"));
    let directory = restored.directory.to_str().expect("UTF-8");
    let restore = ["restore", &url(&backup), "--data-dir", directory];
    let (passed, out) = millstream(&restore);
    assert!(passed && out.contains("restored to"), "{out}");
    let (passed, out) = millstream(&restore);
    assert!(!passed && out.contains("a database is there"), "{out}");
    let server = serve_in(&restored, "1", &[]);
    let client = server.connect().await;
    assert_eq!(contents(&client).await, was);
    run(&client, "INSERT INTO bag VALUES (9);").await;
    server.kill();
    // An export is a storage, too.
    let exported_place = Place::disk(&folder.path().join("unused"));
    let storage = url(&exported);
    let server = serve_in(&exported_place, "3", &["--storage", &storage]);
    assert_eq!(contents(&server.connect().await).await, was);
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_reads_an_exported_savepoint() {
    let found = tokio::task::spawn_blocking(|| python(&["pyarrow"])).await.expect("no panic");
    let Some(python) = needed("pyarrow", found) else { return };
    let folder = tempfile::tempdir().expect("a folder can be made");
    let exported = folder.path().join("exported");
    let server = serve_in(&Place::disk(&folder.path().join("data")), "2", &[]);
    let client = server.connect().await;
    run(&client, SETUP).await;
    run(&client, CHANGES).await;
    run(&client, "CREATE SAVEPOINT mine; DELETE FROM items;").await;
    let export = format!("EXPORT SAVEPOINT mine TO '{}'", url(&exported));
    run(&client, &export).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql-tests/clients/read_savepoint.py");
    let output = Command::new(python).arg(script).arg(&exported).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let count = |name: &str| {
        let lines = text.lines().filter(|line| line.split(' ').next() == Some(name));
        lines.count()
    };
    assert_eq!((count("items"), count("bag")), (2000, 4), "{errors}");
    assert_eq!((count("totals"), count("doubled")), (9, 4), "{errors}");
    // By hand: 1, 1, 2 without 2, and then 1 and 3.
    let doubled: Vec<&str> = text.lines().filter(|line| line.starts_with("doubled")).collect();
    let one = r#"doubled {"a": 1, "d": 2}"#;
    assert_eq!(doubled, [one, one, one, r#"doubled {"a": 3, "d": 6}"#]);
    // 2000 rows in 7 labels; of the 20 rows that changed their label 3 had 'label 3' (3, 703, 1403),
    // one row of 'label 5' went, and one without a label came.
    for row in [
        r#"totals {"label": "label 3", "n": 283}"#,
        r#"totals {"label": "label 5", "n": 282}"#,
        r#"totals {"label": "other", "n": 20}"#,
        r#"totals {"label": null, "n": 1}"#,
        r#"items {"id": 5000, "label": null, "price": "0.50"}"#,
        r#"items {"id": 103, "label": "other", "price": "103.00"}"#,
    ] {
        assert!(text.lines().any(|line| line == row), "{row} in {text}");
    }
    assert!(!text.contains(r#""id": 5,"#), "it was deleted");
    server.kill();
}
