//! What is wrong with a MATCH_RECOGNIZE is said with SQLSTATE, place and hint. `@` marks the place.

use crate::sql::tests::Fixture;

const CASES: [(&str, &str, &str); 23] = [
    ("ORDER BY id PATTERN (a b) DEFINE @c AS v > 1", "42704", "meant \"a\""),
    ("ORDER BY id AFTER MATCH SKIP TO @dwn PATTERN (strt down+)", "42704", "meant \"down\""),
    ("ORDER BY id PATTERN (a b) SUBSET u = (a, @c)", "42704", "meant \"a\""),
    ("ORDER BY id PATTERN (a) DEFINE a AS v > 1, @a AS v < 1", "42710", ""),
    ("ORDER BY id PATTERN (a b) SUBSET @b = (a)", "42710", ""),
    ("ORDER BY id MEASURES @sum(a.v + b.v) AS s PATTERN (a b)", "42P10", "SUBSET U = (A, B)"),
    ("ORDER BY id MEASURES LAST(@a.v + v) AS s PATTERN (a b)", "42P10", "SUBSET U = (A, B)"),
    ("ORDER BY id MEASURES @sum(count(a.v)) AS s PATTERN (a b)", "42803", ""),
    ("ORDER BY id MEASURES a.v + @low.v AS s PATTERN (a b)", "42704", "names in PATTERN"),
    ("ORDER BY id MEASURES @sum(dwn.v) AS s PATTERN (a down)", "42704", "meant \"down\""),
    ("ORDER BY id PATTERN (a b) DEFINE b AS v > @bb.v", "42704", "meant \"b\""),
    ("ORDER BY id PATTERN (a b) SUBSET u = (a, b) DEFINE @u AS v > 1", "42P10", "conditions"),
    ("ORDER BY id MEASURES @a.v PATTERN (a b)", "42601", "MEASURES expression AS name"),
    ("ORDER BY id PATTERN (a @& b)", "42601", "Expected"),
    ("ORDER BY id PATTERN @(a NOT b c*)", "42601", "before a variable that must match"),
    ("ORDER BY id PATTERN (a b) WITHIN @INTERVAL '1' HOUR", "42P10", "a timestamp or date first"),
    ("ORDER BY id PATTERN FROM @(s) DEFINE a AS true", "42P10", "add it to PARTITION BY"),
    ("ORDER BY id MEASURES a.id AS k, a.v AS @k PATTERN (a)", "42701", "another name"),
    ("ORDER BY id PATTERN (a) DEFINE a AS @v + 1", "42804", ""),
    ("ORDER BY id MEASURES @row_number() OVER () AS n PATTERN (a)", "42P20", "in a subquery"),
    ("ORDER BY id MEASURES @MATCH_PROCTIME() AS n PATTERN (a)", "0A000", "MATCH_ROWTIME()"),
    ("ORDER BY id PATTERN (a) DEFINE a AS @sum(MATCH_NUMBER()) > 1", "0A000", "beside"),
    ("ORDER BY id PATTERN @(PERMUTE(a,b,c,d,e,f,g,h,i,j,k,l,m))", "54001", "alternation"),
];

#[test]
fn errors_have_a_place_and_a_hint() {
    let mut fixture = Fixture::new();
    fixture.table("t", "id bigint, v bigint, s text", 0, "");
    let mut wrong = Vec::new();
    for (clauses, sqlstate, hint) in CASES {
        let marked = format!("SELECT * FROM t MATCH_RECOGNIZE ({clauses})");
        let place = marked.find('@').expect("a mark");
        let sql = marked.replacen('@', "", 1);
        let Err(error) = fixture.plan(&sql) else {
            wrong.push(format!("{marked}: no error"));
            continue;
        };
        let body = error.body();
        let hinted = body.hint.as_deref().unwrap_or_default().contains(hint);
        if (error.sqlstate().0, body.position, hinted) != (sqlstate, Some(place + 1), true) {
            let found = (error.sqlstate().0, body.position, &body.hint);
            wrong.push(format!("{marked}: {found:?}, not at {}: {error}", place + 1));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
