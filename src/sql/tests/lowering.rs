//! SQL text to the dataflow's plan, as EXPLAIN prints it (`plans.golden`).

use expect_test::expect_file;

use super::*;

fn fixture() -> Fixture {
    let mut f = Fixture::new();
    f.table("t", "id int not null, name text, qty bigint, ok boolean", 1, "");
    f.table("u", "id int not null, t_id int, f double precision", 1, "");
    f.table("w", "a int not null, b int not null, c text", 2, "");
    f.source("s", "k int, v bigint not null, ts timestamp");
    f.view("big", "SELECT id, name FROM t WHERE qty > 10");
    f
}

fn report(sql: &str) -> String {
    match fixture().plan(sql).and_then(|planned| planned.lower()) {
        Ok(plan) => plan.to_string().trim_end().to_owned(),
        Err(error) => show_error(sql, &error),
    }
}

#[test]
fn queries_become_dataflows() {
    let text = run_golden(include_str!("plans.golden"), report);
    expect_file!["./plans.golden"].assert_eq(&text);
}

#[test]
fn the_result_has_the_planned_schema() {
    for sql in ["SELECT id, id FROM t", "SELECT name AS x, count(*) FROM t GROUP BY name"] {
        let planned = fixture().plan(sql).expect("plans");
        let plan = planned.lower().expect("lowers");
        assert_eq!(plan.root.schema(), planned.schema, "{sql}");
    }
}
