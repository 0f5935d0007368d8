//! Batch execution against results worked out by hand, and what wrong queries are told.
//!
//! `queries.golden` and `errors.golden` hold blocks of a query (with `-- values` for its
//! parameters), a line of dashes, and what comes out. `UPDATE_EXPECT=1` writes them anew; what
//! changes must be checked by hand.

use expect_test::expect_file;

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
        "1 | 5 | 0.5
         2 | 6 | 1.5
         7 | 7 | 2.5",
    );
    f.view("v", "SELECT name, sum(qty) AS total FROM t GROUP BY name");
    f
}

fn report(query: &str) -> String {
    let (sql, parameters) = match query.split_once("\n-- ") {
        Some((sql, parameters)) => (sql, parameters.split('|').map(str::trim).collect()),
        None => (query, vec![]),
    };
    match fixture().run(sql, &parameters) {
        Ok((planned, batches)) => show(&planned, &batches, sql.contains("ORDER BY")),
        Err(error) => show_error(sql, &error),
    }
}

#[test]
fn queries_give_what_postgres_gives() {
    let text = run_golden(include_str!("queries.golden"), report);
    expect_file!["./queries.golden"].assert_eq(&text);
}

#[test]
fn wrong_queries_are_told_what_postgres_tells() {
    let text = run_golden(include_str!("errors.golden"), report);
    expect_file!["./errors.golden"].assert_eq(&text);
}
