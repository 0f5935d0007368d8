//! SQL text to the dataflow's plan, as EXPLAIN prints it.
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
    let f = fixture();
    match f.plan(sql).and_then(|planned| planned.lower()) {
        Ok(plan) => plan.to_string(),
        Err(error) => show_error(sql, &error),
    }
}

#[test]
fn explore() {
    let text = std::fs::read_to_string("/tmp/l.sql").unwrap();
    for sql in text.split(";\n") {
        let sql = sql.trim();
        if sql.is_empty() {
            continue;
        }
        println!("=== {sql}\n{}", report(sql));
    }
}
