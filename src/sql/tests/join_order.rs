//! The order of joins, over the tables and queries of TPC-H.

use expect_test::expect;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::plan::node::Node;

const Q5: &str = include_str!("../../bench/tpch/q5.sql");
const Q7: &str = include_str!("../../bench/tpch/q7.sql");
const Q8: &str = include_str!("../../bench/tpch/q8.sql");
const Q9: &str = include_str!("../../bench/tpch/q9.sql");

/// Rows at scale 1.
const ROWS: [(&str, u64); 8] = [
    ("region", 5),
    ("nation", 25),
    ("supplier", 10_000),
    ("customer", 150_000),
    ("part", 200_000),
    ("partsupp", 800_000),
    ("orders", 1_500_000),
    ("lineitem", 6_000_000),
];

fn fixture() -> Fixture {
    let mut f = Fixture::new();
    f.table("region", "r_regionkey int not null, r_name text", 1, "");
    f.table("nation", "n_nationkey int not null, n_name text, n_regionkey int", 1, "");
    f.table("supplier", "s_suppkey bigint not null, s_name text, s_nationkey int", 1, "");
    f.table("customer", "c_custkey bigint not null, c_name text, c_nationkey int", 1, "");
    f.table("part", "p_partkey bigint not null, p_name text, p_type text", 1, "");
    let columns = "ps_partkey bigint, ps_suppkey bigint, ps_supplycost numeric(15,2)";
    f.table("partsupp", columns, 0, "");
    f.table("orders", "o_orderkey bigint not null, o_custkey bigint, o_orderdate date", 1, "");
    let columns = "l_orderkey bigint not null, l_linenumber int not null, l_partkey bigint, \
                   l_suppkey bigint, l_quantity numeric(15,2), l_extendedprice numeric(15,2), \
                   l_discount numeric(15,2), l_shipdate date";
    f.table("lineitem", columns, 2, "");
    f.source("clicks", "click_id bigint, page bigint, visitor bigint");
    f
}

fn root(f: &Fixture, sql: &str, counted: bool) -> Node {
    let query = parse_query(sql).expect("parses");
    let mut context = f.context(sql);
    if counted {
        let count = |object: &Arc<Object>| {
            let (_, rows) = ROWS.iter().find(|(name, _)| *name == object.name.name)?;
            Some((object.id, *rows))
        };
        context.row_counts = Arc::new(f.catalog.objects().filter_map(count).collect());
    }
    context.plan_query(&query, &[]).and_then(|planned| planned.lower()).expect("plans").root
}

/// What is joined, in order: `a, b, c` stands for (a join b) join c. A semi join, which the joins
/// become of whose one side nothing is wanted, has the other side first.
fn joined(node: &Node) -> String {
    let below: Vec<String> = node.inputs().iter().map(|edge| joined(&edge.input)).collect();
    match node {
        Node::Scan(scan) => scan.name.clone(),
        Node::Join(join) => {
            let product = if join.keys.is_empty() { "PRODUCT WITH " } else { "" };
            format!("{}, {product}{}", below[0], below[1])
        }
        _ => below.join(", "),
    }
}

/// The query with the longest list of its FROMs in another order.
fn shuffled(sql: &str, random: &mut StdRng) -> String {
    let lists: Vec<&str> = sql
        .split("from\n")
        .skip(1)
        .map(|rest| rest.split("where").next().expect("a split has one part").trim())
        .collect();
    let list = lists.iter().max_by_key(|list| list.matches(',').count()).expect("there is FROM");
    let mut tables: Vec<&str> = list.split(',').map(str::trim).collect();
    assert!(tables.len() > 5, "{list}");
    tables.shuffle(random);
    sql.replace(list, &tables.join(", "))
}

#[test]
fn from_is_no_order_and_nothing_is_multiplied() {
    let f = fixture();
    let mut random = StdRng::seed_from_u64(8);
    let mut found = String::new();
    for (name, sql) in [("q5", Q5), ("q7", Q7), ("q8", Q8), ("q9", Q9)] {
        for counted in [false, true] {
            let order = joined(&root(&f, sql, counted));
            assert!(!order.contains("PRODUCT"), "{name}: {order}");
            for _ in 0..6 {
                let sql = shuffled(sql, &mut random);
                assert_eq!(joined(&root(&f, &sql, counted)), order, "{sql}");
            }
            let rows = if counted { "scale 1" } else { "unknown" };
            found += &format!("{name}, {rows}: {order}\n");
        }
    }
    expect![[r#"
        q5, unknown: nation, region, supplier, lineitem, orders, customer
        q5, scale 1: nation, region, supplier, lineitem, orders, customer
        q7, unknown: lineitem, orders, customer, nation, supplier, nation
        q7, scale 1: nation, supplier, lineitem, orders, customer, nation
        q8, unknown: lineitem, part, orders, customer, nation, region, supplier, nation
        q8, scale 1: customer, nation, region, orders, lineitem, part, supplier, nation
        q9, unknown: lineitem, part, orders, supplier, nation, partsupp
        q9, scale 1: lineitem, part, orders, supplier, nation, partsupp
    "#]]
    .assert_eq(&found);
}

#[test]
fn joins_of_all_ways_of_writing_change_places() {
    let f = fixture();
    for (sql, order) in [
        // The small side of both joins first, whatever the words.
        (
            "SELECT c_name, o_orderdate, l_quantity FROM lineitem \
             JOIN orders ON l_orderkey = o_orderkey JOIN customer ON o_custkey = c_custkey \
             WHERE c_name = 'x'",
            "customer, orders, lineitem",
        ),
        (
            "SELECT c_name, o_orderdate, l_quantity FROM lineitem, \
             (customer JOIN orders ON o_custkey = c_custkey) \
             WHERE l_orderkey = o_orderkey AND c_name = 'x'",
            "customer, orders, lineitem",
        ),
        // A source is larger than a table.
        (
            "SELECT v.c_name, p.p_name, c.visitor FROM clicks c JOIN part p ON c.page = p.p_partkey \
             JOIN customer v ON v.c_custkey = p.p_partkey WHERE p_type = 'x'",
            "part, customer, clicks",
        ),
        // An outer join stays as it is, as one input.
        (
            "SELECT l_quantity, p_name, o_orderdate, c_name FROM lineitem JOIN \
             (orders LEFT JOIN customer ON o_custkey = c_custkey) ON l_orderkey = o_orderkey \
             JOIN part ON l_partkey = p_partkey WHERE p_type = 'x'",
            "lineitem, part, orders, customer",
        ),
        // What nothing connects comes last.
        (
            "SELECT l_quantity, r_name, o_orderdate FROM lineitem, region, orders \
             WHERE l_orderkey = o_orderkey",
            "lineitem, orders, PRODUCT WITH region",
        ),
    ] {
        assert_eq!(joined(&root(&f, sql, true)), order, "{sql}");
    }
}

/// Columns keep their places, and rows their number, in any order of the tables.
#[test]
fn an_order_changes_no_result_column() {
    let f = fixture();
    let mut random = StdRng::seed_from_u64(1);
    let tables = ["orders", "customer", "nation", "region", "lineitem"];
    for _ in 0..10 {
        let mut list = tables;
        list.shuffle(&mut random);
        let some = if random.random_bool(0.5) { "AND r_name = 'x'" } else { "" };
        let sql = format!(
            "SELECT * FROM {} WHERE o_custkey = c_custkey AND c_nationkey = n_nationkey \
             AND n_regionkey = r_regionkey AND l_orderkey = o_orderkey {some}",
            list.join(", ")
        );
        let query = f.plan(&sql).expect("plans");
        let lowered = query.lower().expect("lowers").root.schema();
        assert_eq!(lowered, query.schema, "{sql}");
    }
}
