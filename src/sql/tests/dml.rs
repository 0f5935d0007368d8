//! INSERT, UPDATE, DELETE and COPY: the rows that they give, worked out by hand.

use super::*;
use crate::sql::dml::{EXCLUDED, InsertConflict, check_rows};
use crate::sql::query::PlannedQuery;
use crate::sql::returning::{PlannedReturning, RETURNED};

fn fixture() -> Fixture {
    let mut f = Fixture::new();
    f.table_with(
        "t",
        "id int not null, name text, qty bigint, twice bigint, at timestamptz",
        1,
        &[("name", "'none'"), ("at", "now()")],
        &[("twice", "qty * 2")],
        "1 | a | 10 | 20 | 2024-01-01 00:00:00
         2 | b | 20 | 40 | 2024-01-01 00:00:00
         3 | c | 30 | 60 | 2024-01-01 00:00:00",
    );
    f.table("u", "id int not null, t_id int, f numeric(10,2)", 1, "1|1|1.5\n2|1|2.5\n3|3|9");
    f.table("log", "line text", 0, "x");
    f.view("v", "SELECT id FROM t");
    f
}

/// What a statement does, in text.
fn report(sql: &str, parameters: &[&str]) -> String {
    let f = fixture();
    try_report(&f, sql, parameters).unwrap_or_else(|error| show_error(sql, &error))
}

fn try_report(f: &Fixture, sql: &str, parameters: &[&str]) -> Result<String> {
    let context = f.context(sql);
    let mut parsed = parse(sql)?;
    let statement = parsed.pop().expect("one statement").statement;
    let rows_text = |planned: &PlannedQuery, batches: &[RecordBatch]| {
        let text = show(planned, batches, false);
        text.split_once('\n').map_or(String::new(), |(_, rows)| rows.to_owned())
    };
    let returned = |returning: &Option<PlannedReturning>, rows: &RecordBatch| -> Result<String> {
        let Some(returning) = returning else { return Ok(String::new()) };
        let rows = returning.rows(rows, &[], None)?;
        let batches = f.run_planned(&returning.query, &[(RETURNED, rows)])?;
        Ok(format!("\nRETURNING {}", show(&returning.query, &batches, false)))
    };
    match statement {
        Statement::Insert(insert) => {
            let planned = context.plan_insert(&insert, &[])?;
            let values = values_of(&planned.rows.parameters, parameters);
            let planned = planned.bind_parameters(&values)?;
            let batches = f.run_planned(&planned.rows, &[])?;
            let mut text = rows_text(&planned.rows, &batches);
            let all = arrow::compute::concat_batches(&planned.rows.schema, &batches)?;
            let all = check_rows(&planned.table, all)?;
            match &planned.conflict {
                InsertConflict::Default => {}
                InsertConflict::Nothing => text += "\nON CONFLICT DO NOTHING",
                InsertConflict::Replace => text += "\nON CONFLICT REPLACE",
                InsertConflict::Update(update) => {
                    let query = &update.query;
                    let batches = f.run_planned(query, &[(EXCLUDED, all.clone())])?;
                    text += &format!("\nON CONFLICT UPDATE\n{}", rows_text(query, &batches));
                }
            }
            Ok(text + &returned(&planned.returning, &all)?)
        }
        Statement::Update(update) => {
            let planned = context.plan_update(&update, &[])?;
            let values = values_of(&planned.rows.parameters, parameters);
            let planned = planned.bind_parameters(&values)?;
            let batches = f.run_planned(&planned.rows, &[])?;
            let width = planned.table.schema.fields().len();
            let all = arrow::compute::concat_batches(&planned.rows.schema, &batches)?;
            let new = all.project(&(width..2 * width).collect::<Vec<_>>())?;
            let new = check_rows(&planned.table, new)?;
            Ok(rows_text(&planned.rows, &batches) + &returned(&planned.returning, &new)?)
        }
        Statement::Delete(delete) => {
            let planned = context.plan_delete(&delete, &[])?;
            let values = values_of(&planned.rows.parameters, parameters);
            let planned = planned.bind_parameters(&values)?;
            let batches = f.run_planned(&planned.rows, &[])?;
            let all = arrow::compute::concat_batches(&planned.rows.schema, &batches)?;
            Ok(rows_text(&planned.rows, &batches) + &returned(&planned.returning, &all)?)
        }
        other => panic!("not DML: {other:?}"),
    }
}

fn check(sql: &str, expected: &str) {
    check_with(sql, &[], expected);
}

fn check_with(sql: &str, parameters: &[&str], expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    assert_eq!(report(sql, parameters), expected.join("\n"), "{sql}");
}

const NOW: &str = "2023-11-14T22:13:20Z";
const OLD: &str = "2024-01-01T00:00:00Z";

#[test]
fn insert_fills_in_defaults_and_generated_columns() {
    check(
        "INSERT INTO t (id, qty) VALUES (7, 5), (8, NULL)",
        &format!("7|none|5|10|{NOW}\n8|none|NULL|NULL|{NOW}"),
    );
    check("INSERT INTO t VALUES (7, DEFAULT, DEFAULT)", &format!("7|none|NULL|NULL|{NOW}"));
    check(
        "INSERT INTO t (qty, id) SELECT qty + 1, id + 10 FROM t WHERE id < 3",
        &format!("11|none|11|22|{NOW}\n12|none|21|42|{NOW}"),
    );
    check("INSERT INTO log DEFAULT VALUES", "NULL");
}

#[test]
fn insert_assigns_types() {
    check("INSERT INTO u VALUES ('4', '5', '6.789'), (5, 6, 7)", "4|5|6.79\n5|6|7.00");
    check("INSERT INTO u VALUES (1, 2, 3.5 + 1)", "1|2|4.50");
    check("INSERT INTO log SELECT id FROM t", "1\n2\n3");
    check_with("INSERT INTO u VALUES ($1, $2, $3)", &["9", "NULL", "1.25"], "9|NULL|1.25");
    check(
        "INSERT INTO u SELECT name, 1, 1 FROM t",
        "42804: column \"id\" is of type integer but expression is of type text
         HINT: You will need to rewrite or cast the expression.",
    );
    check("INSERT INTO u VALUES (10000000000, 1, 1)", "22003: integer out of range");
    check(
        "INSERT INTO u (t_id) VALUES (1)",
        "23502: null value in column \"id\" of relation \"u\" violates not-null constraint",
    );
}

#[test]
fn insert_refuses_wrong_columns() {
    check(
        "INSERT INTO u (id, nosuch) VALUES (1, 2)",
        "42703: column \"nosuch\" of relation \"u\" does not exist
         AT: nosuch) VALU",
    );
    check("INSERT INTO u (id, id) VALUES (1, 2)", "42701: column \"id\" specified more than once");
    check(
        "INSERT INTO u (id) VALUES (1, 2)",
        "42601: INSERT has more expressions than target columns",
    );
    check(
        "INSERT INTO u (id, t_id) VALUES (1)",
        "42601: INSERT has more target columns than expressions",
    );
    check(
        "INSERT INTO t (id, twice) VALUES (1, 2)",
        "428C9: cannot insert a non-DEFAULT value into column \"twice\"
         DETAIL: Column \"twice\" is a generated column.",
    );
    check("INSERT INTO v VALUES (1)", "42809: cannot insert into view \"v\"");
    check(
        "INSERT INTO nosuch VALUES (1)",
        "42P01: relation \"nosuch\" does not exist\nAT: nosuch VALUE",
    );
}

#[test]
fn on_conflict_becomes_what_it_says() {
    check(
        "INSERT INTO u VALUES (1, 1, 1) ON CONFLICT DO NOTHING",
        "1|1|1.00\nON CONFLICT DO NOTHING",
    );
    check(
        "INSERT INTO u VALUES (1, 1, 1) ON CONFLICT (id) DO UPDATE SET t_id = excluded.t_id, f = EXCLUDED.f",
        "1|1|1.00\nON CONFLICT REPLACE",
    );
    check(
        "INSERT INTO u VALUES (1, 1, 1), (5, 5, 5) ON CONFLICT (id) DO UPDATE SET f = u.f + excluded.f WHERE u.t_id = 1",
        "1|1|1.00\n5|5|5.00\nON CONFLICT UPDATE\n1|1|1.50|1|1|2.50",
    );
    check(
        "INSERT INTO u VALUES (1, 1, 1) ON CONFLICT (t_id) DO NOTHING",
        "42P10: there is no unique or exclusion constraint matching the ON CONFLICT specification",
    );
}

#[test]
fn update_gives_old_and_new_rows() {
    check(
        "UPDATE t SET qty = qty + 1, name = DEFAULT WHERE id >= 2",
        &format!("2|b|20|40|{OLD}|2|none|21|42|{OLD}\n3|c|30|60|{OLD}|3|none|31|62|{OLD}"),
    );
    check_with(
        "UPDATE u AS x SET (t_id, f) = ($1, '3') WHERE x.id = $2 RETURNING id, f * 2 AS double",
        &["8", "1"],
        "1|1|1.50|1|8|3.00\nRETURNING id integer, double numeric(21,2)\n1|6.00",
    );
    // Two rows of u meet row 1 of t; it changes once.
    check(
        "UPDATE t SET qty = 0 FROM u WHERE u.t_id = t.id",
        &format!("1|a|10|20|{OLD}|1|a|0|0|{OLD}\n3|c|30|60|{OLD}|3|c|0|0|{OLD}"),
    );
    check("UPDATE u SET f = (SELECT max(qty) FROM t) WHERE id = 3", "3|3|9.00|3|3|30.00");
    check("UPDATE u SET t_id = 1, t_id = 2", "42601: multiple assignments to same column \"t_id\"");
    check(
        "UPDATE t SET twice = 1",
        "428C9: column \"twice\" can only be updated to DEFAULT\nDETAIL: Column \"twice\" is a generated column.",
    );
    check(
        "UPDATE t SET id = NULL WHERE id = 1",
        "23502: null value in column \"id\" of relation \"t\" violates not-null constraint",
    );
}

#[test]
fn delete_gives_the_rows_that_go() {
    check(
        "DELETE FROM u WHERE t_id = 1 RETURNING id",
        "1|1|1.50\n2|1|2.50\nRETURNING id integer\n1\n2",
    );
    check(
        "DELETE FROM t USING u WHERE u.t_id = t.id AND u.f > 1",
        &format!("1|a|10|20|{OLD}\n3|c|30|60|{OLD}"),
    );
    check_with("DELETE FROM t WHERE id = $1", &["2"], &format!("2|b|20|40|{OLD}"));
    check("DELETE FROM v", "42809: cannot delete from view \"v\"");
}

#[test]
fn copy_completes_rows() {
    let f = fixture();
    let context = f.context("");
    let table = context.resolve(&name("t")).expect("a table");
    let columns = ["qty".to_owned(), "id".to_owned()];
    let completion = context.plan_row_completion(&table, &columns).expect("plans");
    let given = rows_of(&completion.input, "5 | 7");
    let rows = completion.complete(&table, &given).expect("completes");
    let shown: Vec<String> = rows
        .columns()
        .iter()
        .map(|c| arrow::util::display::array_value_to_string(c, 0).expect("prints"))
        .collect();
    assert_eq!(shown, ["7", "none", "5", "10", "1970-01-01T00:00:00Z"]);
    let error = context.plan_row_completion(&table, &["nosuch".to_owned()]).err().expect("unknown");
    assert_eq!(error.message(), "column \"nosuch\" of relation \"t\" does not exist");
}

fn name(name: &str) -> datafusion::sql::sqlparser::ast::ObjectName {
    datafusion::sql::sqlparser::ast::ObjectName::from(vec![
        datafusion::sql::sqlparser::ast::Ident::new(name),
    ])
}
