//! Batch execution against results worked out by hand.

use super::*;

fn fixture() -> Fixture {
    let mut f = Fixture::new();
    f.table(
        "t",
        "id int not null, name text, price numeric(10,2), qty bigint, at timestamp, ok boolean",
        1,
        "1 | a    | 1.50 | 10   | 2024-01-01 00:00:00 | true
         2 | b    | 2.25 | 20   | 2024-01-02 12:30:00 | false
         3 | NULL | NULL | NULL | NULL                | NULL
         4 | a    | 9.99 | 1    | 2024-02-29 23:59:59 | true",
    );
    f.table(
        "u",
        "id int not null, k smallint, f double precision",
        1,
        "1 | 5 | 0.5\n2 | 6 | 1.5\n7 | 7 | 2.5",
    );
    f.view("v", "SELECT name, sum(qty) AS total FROM t GROUP BY name");
    f
}

fn report(sql: &str, params: &[&str]) -> String {
    let f = fixture();
    match f.run(sql, params) {
        Ok((planned, batches)) => show(&planned, &batches, sql.contains("ORDER BY")),
        Err(error) => show_error(sql, &error),
    }
}

#[test]
fn explore() {
    let text = std::fs::read_to_string("/tmp/q.sql").unwrap();
    for sql in text.split(";\n") {
        let sql = sql.trim();
        if sql.is_empty() {
            continue;
        }
        let (sql, params) = match sql.split_once(" -- ") {
            Some((s, p)) => (s.trim(), p.split(if p.contains('|') { '|' } else { ',' }).collect()),
            None => (sql, vec![]),
        };
        println!("=== {sql}\n{}", report(sql, &params));
    }
}
