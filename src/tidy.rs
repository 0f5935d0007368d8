//! House rules, run by `cargo test`: who may import whom, where outside crates live, words that
//! may not stay, and tables and documents that name what exists.
//!
//! The layers are read from the table in `lib.rs`. A line that breaks a rule is reported as
//! `file:line: what`. Tests within a file, and files of tests, may import anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file of the tree.
struct Source {
    /// From the root of the tree, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// The folder or file right below `src/`.
    fn room(&self) -> &str {
        let below = self.path.strip_prefix("src/").expect("only asked of files in src");
        below.split(['/', '.']).next().expect("split gives at least one part")
    }

    /// Whether the file is part of the tests only.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        matches!(name, "tests.rs" | "script.rs" | "tidy.rs") || self.path.contains("/tests/")
    }

    /// Lines of code outside of tests and comments, with their numbers.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines
            .windows(2)
            .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod "))
            .unwrap_or(lines.len());
        let test_file = self.is_test();
        lines
            .into_iter()
            .enumerate()
            .take_while(move |(index, _)| !test_file && *index < tests)
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(index, line)| (index + 1, line))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` with that extension, sorted by path.
fn files(folder: &str, extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(folder), extension, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder of the tree can be listed").path();
        if path.is_dir() {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            let text = std::fs::read_to_string(&path).expect("a file of the tree is text");
            let path = path.strip_prefix(root()).expect("below the root").display().to_string();
            found.push(Source { path, text });
        }
    }
}

/// Fails with all complaints at once.
fn check(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Room to layer, from the table in `lib.rs`.
fn layers() -> BTreeMap<String, u32> {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).expect("there is a lib.rs");
    let mut layers = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some((layer, rooms)) = line.split_once(" | ") else { continue };
        let Ok(layer) = layer.parse() else { continue };
        // Behind a colon stands an explanation.
        let rooms = rooms.split(':').next().unwrap_or(rooms);
        layers.extend(rooms.split('`').skip(1).step_by(2).map(|room| (room.to_owned(), layer)));
    }
    layers
}

/// The paths that a line imports from our crate: `plan::node` of `use crate::plan::node::Node`.
fn own_paths(line: &str) -> impl Iterator<Item = String> {
    line.match_indices("crate::").filter_map(|(at, prefix)| {
        // `$crate` and names that end in "crate" are something else.
        let before = line[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            return None;
        }
        let rest = &line[at + prefix.len()..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        Some(rest[..end.unwrap_or(rest.len())].to_owned())
    })
}

#[test]
fn rooms_import_lower_rooms_only() {
    let layers = layers();
    assert!(layers.len() > 15, "the table in lib.rs is read: {layers:?}");
    // What the rooms that talk to clients see of the server.
    let door = ["coordinator::command", "observe", "config", "types"];
    let mut complaints = Vec::new();
    for file in files("src", "rs").iter().filter(|file| !matches!(file.room(), "lib" | "tidy")) {
        let room = file.room();
        let Some(&layer) = layers.get(room) else {
            complaints.push(format!("{}: the table in lib.rs has no room {room}", file.path));
            continue;
        };
        for (number, line) in file.code_lines() {
            for path in own_paths(line) {
                let other = path.split(':').next().unwrap_or(&path);
                let place = format!("{}:{number}", file.path);
                if path.is_empty() {
                    complaints.push(format!("{place}: name one room in an import"));
                } else if other != room && layers.get(other).is_none_or(|&l| l >= layer) {
                    complaints.push(format!("{place}: {room} may not import {other}"));
                } else if layer == 7
                    && other != room
                    && !door.iter().any(|allowed| path.starts_with(allowed))
                {
                    complaints.push(format!("{place}: {room} sees {} only", door.join(", ")));
                }
            }
        }
    }
    check(&complaints);
}

/// Outside crates and the only places that may name them.
const HOMES: &[(&str, &[&str])] = &[
    (
        "timely",
        &[
            "src/dataflow/worker.rs",
            "src/dataflow/assemble.rs",
            "src/dataflow/driver.rs",
            "src/dataflow/exchange.rs",
        ],
    ),
    ("pgwire", &["src/frontend/"]),
    ("sqlparser", &["src/sql/"]),
    (
        "datafusion",
        &[
            "src/sql/",
            "src/plan/expr.rs",
            "src/plan/expr/",
            "src/plan/window.rs",
            "src/plan/match_recognize.rs",
            "src/pattern/",
            "src/plan/errors.rs",
            "src/functions/",
            // Batch execution, and the syntax trees that statements carry.
            "src/coordinator/query.rs",
            "src/coordinator/source_scan.rs",
            "src/coordinator/system_relations.rs",
            "src/coordinator/copy.rs",
            "src/coordinator/ddl.rs",
            "src/coordinator/ddl/",
            "src/coordinator/sinks.rs",
        ],
    ),
    ("object_store", &["src/storage/"]),
    ("axum", &["src/web/"]),
    ("rustyline", &["src/frontend/repl"]),
    ("crossterm", &["src/frontend/repl/"]),
    ("postgres_protocol", &["src/frontend/repl/"]),
    ("clap", &["src/cli.rs"]),
    ("indicatif", &["src/bench.rs"]),
    ("sqllogictest", &["src/slt.rs"]),
    (
        "tokio",
        &[
            "src/frontend/",
            "src/web/",
            "src/coordinator/",
            "src/connectors/",
            "src/storage/",
            "src/server.rs",
            "src/slt.rs",
            "src/bench.rs",
            "src/bench/",
            "src/cli.rs",
        ],
    ),
    (
        "libc",
        &[
            "src/observe/process.rs",
            "src/memory/mapped.rs",
            "src/memory/blocks.rs",
            "src/storage/direct.rs",
        ],
    ),
];

#[test]
fn outside_crates_stay_at_home() {
    let mut complaints = Vec::new();
    for file in files("src", "rs") {
        for (number, line) in file.code_lines() {
            for (name, homes) in HOMES {
                let named = line.match_indices(&format!("{name}::")).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                });
                if named && !homes.iter().any(|home| file.path.starts_with(home)) {
                    let homes = homes.join(", ");
                    complaints.push(format!("{}:{number}: {name} lives in {homes}", file.path));
                }
            }
        }
    }
    check(&complaints);
}

#[test]
fn unfinished_words_do_not_stay() {
    // In two pieces, so that this file keeps the rule.
    let words = [
        ["FIX", "ME"],
        ["XX", "X"],
        ["HA", "CK"],
        ["dbg", "!("],
        ["todo", "!("],
        ["unimplemented", "!("],
    ]
    .map(|word| word.concat());
    let mut complaints = Vec::new();
    for folder in ["src", "sql-tests", "benches"] {
        for file in files(folder, "rs").into_iter().chain(files(folder, "slt")) {
            for (number, line) in file.text.lines().enumerate() {
                for word in &words {
                    let mut places = line.match_indices(word.as_str());
                    // SQLSTATE XX000 and hexadecimal digits are no such words.
                    let stands_alone = places.any(|(at, _)| {
                        let before = line[..at].chars().next_back();
                        let after = line[at + word.len()..].chars().next();
                        let in_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
                        !in_word(before) && (word.ends_with('(') || !in_word(after))
                    });
                    if stands_alone {
                        complaints.push(format!("{}:{}: {word}", file.path, number + 1));
                    }
                }
            }
        }
    }
    check(&complaints);
}

/// The names in backticks in the first column of a module's table.
fn table_names(line: &str) -> Vec<&str> {
    let Some(row) = line.strip_prefix("//! | `") else { return Vec::new() };
    let first = row.split(" | ").next().unwrap_or(row);
    first.split('`').step_by(2).filter(|name| name.ends_with(".rs")).collect()
}

#[test]
fn tables_of_rooms_name_their_files() {
    let mut complaints = Vec::new();
    for file in files("src", "rs") {
        let names: Vec<&str> = file.text.lines().flat_map(table_names).collect();
        if names.is_empty() {
            continue;
        }
        // The front page of `repl/` is `repl.rs`, of `sql/` is `sql/mod.rs`.
        let folder = match file.path.strip_suffix("/mod.rs") {
            Some(folder) => root().join(folder),
            None => root().join(file.path.trim_end_matches(".rs")),
        };
        for name in &names {
            if !folder.join(name).is_file() {
                complaints.push(format!("{}: there is no {name}", file.path));
            }
        }
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let name = entry.expect("a folder of the tree can be listed").file_name();
            let name = name.to_string_lossy();
            let listed = names.iter().any(|listed| *listed == name);
            if name.ends_with(".rs") && !matches!(&*name, "mod.rs" | "tests.rs") && !listed {
                complaints.push(format!("{}: its table lacks {name}", file.path));
            }
        }
    }
    check(&complaints);
}

/// Texts in backticks that look like files of the tree.
fn named_files(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).map(|name| name.split("::").next().unwrap_or(name)).filter(
        |name| {
            let rooted = ["src/", "sql-tests/", "docs/", "benches/", "docker/"];
            let plain = !name.contains(['*', '<', ' ', '{']);
            plain && rooted.iter().any(|folder| name.starts_with(folder))
        },
    )
}

#[test]
fn documents_name_files_that_exist() {
    let mut complaints = Vec::new();
    for document in files("docs", "md") {
        // The changelog speaks of the past.
        if document.path.ends_with("CHANGELOG.md") {
            continue;
        }
        for name in named_files(&document.text) {
            if !root().join(name).exists() {
                complaints.push(format!("{}: there is no {name}", document.path));
            }
        }
    }
    check(&complaints);
}

#[test]
fn features_and_their_tests_name_each_other() {
    let Ok(text) = std::fs::read_to_string(root().join("docs/features.md")) else { return };
    // `| C14 | ... | sql-tests/window/tumble.slt |`
    let rows: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|row| row.split_once(" |"))
        .filter(|(id, _)| id.ends_with(|c: char| c.is_ascii_digit()))
        .collect();
    let tests = files("sql-tests", "slt");
    let mut complaints = Vec::new();
    for test in &tests {
        for id in crate::slt::features(&test.text) {
            if !rows.contains_key(id) {
                complaints.push(format!("{}: docs/features.md has no row {id}", test.path));
            }
        }
    }
    for (id, row) in rows {
        for path in named_files(row).filter(|path| path.ends_with(".slt")) {
            let shown = tests
                .iter()
                .any(|test| test.path == path && crate::slt::features(&test.text).contains(&id));
            if !shown {
                complaints.push(format!("docs/features.md: the head of {path} lacks {id}"));
            }
        }
    }
    check(&complaints);
}

#[test]
fn the_rules_see_what_they_should() {
    let paths = |line: &str| own_paths(line).collect::<Vec<_>>();
    assert_eq!(paths("use crate::plan::node::{Node, Edge};"), ["plan::node::"]);
    assert_eq!(paths("fn f(a: crate::sql::A, b: crate::types::B)"), ["sql::A", "types::B"]);
    assert_eq!(paths("use crate::{a, b};"), [""]);
    assert_eq!(paths("$crate::x; mycrate::y"), Vec::<String>::new());
    assert_eq!(table_names("//! | `a.rs`, `b.rs` | what |"), ["a.rs", "b.rs"]);
    assert_eq!(table_names("//! | `types` |"), Vec::<&str>::new());
    let text = "`src/a.rs::f` and `sql-tests/*.slt`, `docs/x.md`, `cargo test`";
    assert_eq!(named_files(text).collect::<Vec<_>>(), ["src/a.rs", "docs/x.md"]);
    let file = Source {
        path: "src/sql/bind.rs".into(),
        text: "a\n// b\n#[cfg(test)]\nmod tests {\nc".into(),
    };
    assert_eq!(file.room(), "sql");
    assert_eq!(file.code_lines().collect::<Vec<_>>(), [(1, "a")]);
}
