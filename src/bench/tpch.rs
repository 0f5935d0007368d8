//! `millstream bench tpch`: the 22 queries of TPC-H as live views, beside computing them anew.
//!
//! 1. In a server of its own in this process the eight tables are made and loaded with COPY.
//! 2. For each query: the view is created over the loaded tables; the query is run as a batch;
//!    then change sets are committed, several of each kind. One of 0.1 % (1 %) deletes so many of
//!    the orders with their lineitems and inserts as many under new keys, in one transaction, as
//!    the benchmark's refresh functions do. One of the other tables updates 0.1 % of the rows of
//!    `customer`, `part`, `partsupp` and `supplier`: without it some queries would see no change.
//!    The least one updates a single row of `lineitem`.
//! 3. Two times are taken of each: COMMIT, in which the tables change and the log has it, and from
//!    there to the moment when the view shows it, which is what the view costs. The median of the
//!    sets is told, and the longest: the first change of a view may have to make an index.
//! 4. The view is dropped again. Then the same with all 22 views at once. Without views it is what
//!    the tables alone take.
//!
//! Where a query of the benchmark leaves open which of equal rows come first, its key is added to
//! ORDER BY, so that a view and a batch have the same rows. Parameters are those of the
//! specification's validation run.

use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures::SinkExt;
use serde::Serialize;
use tokio_postgres::Client;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};

use crate::bench::{connect, failed, print, run};
use crate::config::ServerConfig;
use crate::observe::clock::Clock;
use crate::slt::PrivateServer;
use crate::types::error::{Error, Result, SqlState};

/// What to measure.
#[derive(Clone, Debug)]
pub struct TpchOptions {
    /// 1 is a gigabyte.
    pub scale: f64,
    /// Names of [`QUERIES`]; all of them for none.
    pub queries: Vec<String>,
    pub json: bool,
    pub config: ServerConfig,
}

/// Each table with its columns, in the order of the data.
pub const TABLES: [(&str, &str); 8] = [
    ("region", "r_regionkey int PRIMARY KEY, r_name text, r_comment text"),
    ("nation", "n_nationkey int PRIMARY KEY, n_name text, n_regionkey int, n_comment text"),
    (
        "supplier",
        "s_suppkey bigint PRIMARY KEY, s_name text, s_address text, s_nationkey int, \
         s_phone text, s_acctbal numeric(15,2), s_comment text",
    ),
    (
        "customer",
        "c_custkey bigint PRIMARY KEY, c_name text, c_address text, c_nationkey int, \
         c_phone text, c_acctbal numeric(15,2), c_mktsegment text, c_comment text",
    ),
    (
        "part",
        "p_partkey bigint PRIMARY KEY, p_name text, p_mfgr text, p_brand text, p_type text, \
         p_size int, p_container text, p_retailprice numeric(15,2), p_comment text",
    ),
    (
        "partsupp",
        // Without its key: at scales below 0.008 the generator repeats some.
        "ps_partkey bigint, ps_suppkey bigint, ps_availqty int, ps_supplycost numeric(15,2), \
         ps_comment text",
    ),
    (
        "orders",
        "o_orderkey bigint PRIMARY KEY, o_custkey bigint, o_orderstatus text, \
         o_totalprice numeric(15,2), o_orderdate date, o_orderpriority text, o_clerk text, \
         o_shippriority int, o_comment text",
    ),
    (
        "lineitem",
        "l_orderkey bigint, l_partkey bigint, l_suppkey bigint, l_linenumber int, \
         l_quantity numeric(15,2), l_extendedprice numeric(15,2), l_discount numeric(15,2), \
         l_tax numeric(15,2), l_returnflag text, l_linestatus text, l_shipdate date, \
         l_commitdate date, l_receiptdate date, l_shipinstruct text, l_shipmode text, \
         l_comment text, PRIMARY KEY (l_orderkey, l_linenumber)",
    ),
];

/// The queries by name.
pub const QUERIES: [(&str, &str); 22] = [
    ("q1", include_str!("tpch/q1.sql")),
    ("q2", include_str!("tpch/q2.sql")),
    ("q3", include_str!("tpch/q3.sql")),
    ("q4", include_str!("tpch/q4.sql")),
    ("q5", include_str!("tpch/q5.sql")),
    ("q6", include_str!("tpch/q6.sql")),
    ("q7", include_str!("tpch/q7.sql")),
    ("q8", include_str!("tpch/q8.sql")),
    ("q9", include_str!("tpch/q9.sql")),
    ("q10", include_str!("tpch/q10.sql")),
    ("q11", include_str!("tpch/q11.sql")),
    ("q12", include_str!("tpch/q12.sql")),
    ("q13", include_str!("tpch/q13.sql")),
    ("q14", include_str!("tpch/q14.sql")),
    ("q15", include_str!("tpch/q15.sql")),
    ("q16", include_str!("tpch/q16.sql")),
    ("q17", include_str!("tpch/q17.sql")),
    ("q18", include_str!("tpch/q18.sql")),
    ("q19", include_str!("tpch/q19.sql")),
    ("q20", include_str!("tpch/q20.sql")),
    ("q21", include_str!("tpch/q21.sql")),
    ("q22", include_str!("tpch/q22.sql")),
];

/// What a change set is a part of: one in so many orders.
const PARTS: [u64; 2] = [1000, 100];
/// Change sets of each kind, and batch runs of a query.
const REPEATS: u64 = 5;
/// Change sets of 1 % for each query. Orders that moved stand in the part [`NEW_KEY_OFFSET`] further
/// on, so parts are taken from the last to the first, and there are enough for all measurements.
const PERCENT_REPEATS: u64 = 4;
/// Keys of orders leave gaps; this far behind every key there is one.
const NEW_KEY_OFFSET: u64 = 8;
/// Bytes sent to COPY at once.
const COPY_BYTES: usize = 256 << 10;

/// Every row of a table at a scale, its values between bars.
pub fn rows(table: &str, scale: f64) -> Box<dyn Iterator<Item = String>> {
    // The generators' own text has a bar behind the last value too.
    fn lines<R: ToString>(
        rows: impl Iterator<Item = R> + 'static,
    ) -> Box<dyn Iterator<Item = String>> {
        Box::new(rows.map(|row| row.to_string().trim_end_matches('|').to_owned()))
    }
    match table {
        "region" => lines(RegionGenerator::new(scale, 1, 1).iter()),
        "nation" => lines(NationGenerator::new(scale, 1, 1).iter()),
        "supplier" => lines(SupplierGenerator::new(scale, 1, 1).iter()),
        "customer" => lines(CustomerGenerator::new(scale, 1, 1).iter()),
        "part" => lines(PartGenerator::new(scale, 1, 1).iter()),
        "partsupp" => lines(PartSuppGenerator::new(scale, 1, 1).iter()),
        "orders" => lines(OrderGenerator::new(scale, 1, 1).iter()),
        "lineitem" => lines(LineItemGenerator::new(scale, 1, 1).iter()),
        _ => Box::new(std::iter::empty()),
    }
}

/// A query's text at a scale: q11's share of the whole depends on it.
pub fn query_text(sql: &str, scale: f64) -> String {
    sql.replace("0.0001", &format!("{:.10}", 0.0001 / scale))
}

/// Makes the tables, empty.
///
/// # Errors
/// When the server refuses one.
pub async fn create_tables(client: &Client) -> Result<()> {
    for (name, columns) in TABLES {
        run(client, &format!("CREATE TABLE {name} ({columns})")).await?;
    }
    Ok(())
}

/// Loads all tables with COPY.
///
/// # Errors
/// When the server refuses some row.
pub async fn load(client: &Client, scale: f64) -> Result<()> {
    for (name, _) in TABLES {
        let copy = format!("COPY {name} FROM STDIN (DELIMITER '|')");
        let mut sink = pin!(client.copy_in::<_, Bytes>(&copy).await.map_err(failed)?);
        let mut bytes = BytesMut::with_capacity(COPY_BYTES + 1024);
        for row in rows(name, scale) {
            bytes.put_slice(row.as_bytes());
            bytes.put_u8(b'\n');
            if bytes.len() >= COPY_BYTES {
                sink.send(bytes.split().freeze()).await.map_err(failed)?;
            }
        }
        sink.send(bytes.freeze()).await.map_err(failed)?;
        sink.finish().await.map_err(failed)?;
    }
    Ok(())
}

/// The statements of one change set, without BEGIN and COMMIT: orders whose key leaves this
/// remainder go, with their lineitems, and come back under new keys.
pub fn change_set(parts: u64, remainder: u64) -> [String; 4] {
    let chosen = |column: &str| format!("{column} % {parts} = {remainder}");
    let (orders, items) = (chosen("o_orderkey"), chosen("l_orderkey"));
    [
        format!(
            "INSERT INTO orders SELECT o_orderkey + {NEW_KEY_OFFSET}, o_custkey, o_orderstatus, \
             o_totalprice, o_orderdate, o_orderpriority, o_clerk, o_shippriority, o_comment \
             FROM orders WHERE {orders} ON CONFLICT DO NOTHING"
        ),
        format!(
            "INSERT INTO lineitem SELECT l_orderkey + {NEW_KEY_OFFSET}, l_partkey, l_suppkey, \
             l_linenumber, l_quantity, l_extendedprice, l_discount, l_tax, l_returnflag, \
             l_linestatus, l_shipdate, l_commitdate, l_receiptdate, l_shipinstruct, l_shipmode, \
             l_comment FROM lineitem WHERE {items} ON CONFLICT DO NOTHING"
        ),
        format!("DELETE FROM lineitem WHERE {items}"),
        format!("DELETE FROM orders WHERE {orders}"),
    ]
}

/// The statements that change one in so many rows of the tables beside orders and lineitems.
pub fn change_of_others(parts: u64, remainder: u64) -> [String; 4] {
    let update = |table: &str, set: &str, key: &str| {
        format!("UPDATE {table} SET {set} WHERE {key} % {parts} = {remainder}")
    };
    [
        update("customer", "c_acctbal = c_acctbal + 1", "c_custkey"),
        update("part", "p_size = p_size % 50 + 1, p_type = p_type || ' '", "p_partkey"),
        update("partsupp", "ps_supplycost = ps_supplycost + 1", "ps_partkey"),
        update("supplier", "s_acctbal = s_acctbal + 1", "s_suppkey"),
    ]
}

/// What change sets of one kind took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ChangeTimes {
    /// COMMIT; the median.
    pub commit_s: f64,
    /// From the end of COMMIT to the moment when every view shows it; the median.
    pub visible_s: f64,
    /// The longest of those.
    pub visible_max_s: f64,
}

/// What one query took.
#[derive(Clone, Debug, Serialize)]
pub struct TpchMeasurement {
    /// A query's name, `all` or `tables alone`.
    pub query: String,
    pub scale: f64,
    /// From CREATE MATERIALIZED VIEW over loaded tables to its answer.
    pub create_s: f64,
    /// The query as a batch; the median.
    pub recompute_s: f64,
    /// 0.1 % of the orders and their lineitems.
    pub change_per_mille: ChangeTimes,
    /// 1 % of them.
    pub change_percent: ChangeTimes,
    /// 0.1 % of the other tables.
    pub change_others: ChangeTimes,
    /// A single lineitem.
    pub change_row: ChangeTimes,
}

/// Measures and prints a line for each query.
///
/// # Errors
/// For an unknown query, and when a statement fails.
pub async fn tpch(options: TpchOptions) -> Result<()> {
    if let Some(unknown) = options.queries.iter().find(|q| QUERIES.iter().all(|(n, _)| n != q)) {
        let message = format!("there is no query \"{unknown}\"");
        return Err(
            Error::user(SqlState::INVALID_PARAMETER_VALUE, message).hint("There are q1 to q22.")
        );
    }
    let chosen: Vec<(&str, String)> = QUERIES
        .iter()
        .filter(|(name, _)| options.queries.is_empty() || options.queries.iter().any(|q| q == name))
        .map(|(name, sql)| (*name, query_text(sql, options.scale)))
        .collect();
    let server = PrivateServer::start_with(options.config.clone()).await?;
    let client = connect(&server.client_config()).await?;
    let clock = Clock::system();
    create_tables(&client).await?;
    load(&client, options.scale).await?;
    if !options.json {
        print(&heading(&options, clock.elapsed().as_secs_f64()));
    }
    let mut bench = Bench { client, clock, scale: options.scale, measured: 0 };
    let show = |measured: TpchMeasurement| {
        print(&match options.json {
            true => serde_json::to_string(&measured).expect("plain numbers have a JSON form"),
            false => table_line(&measured),
        });
    };
    show(bench.measure("tables alone", &[]).await?);
    for query in &chosen {
        let measured = bench.measure(query.0, std::slice::from_ref(query)).await;
        show(measured.map_err(|error| error.context(query.0))?);
    }
    if chosen.len() > 1 {
        show(bench.measure("all", &chosen).await?);
    }
    drop(bench);
    server.stop().await;
    Ok(())
}

struct Bench {
    client: Client,
    clock: Clock,
    scale: f64,
    /// Queries that have been measured: each changes other orders.
    measured: u64,
}

impl Bench {
    /// Seconds that a statement takes.
    async fn time(&self, sql: &str) -> Result<f64> {
        let before = self.clock.elapsed();
        // A batch's rows are read to the end.
        self.client.simple_query(sql).await.map_err(failed)?;
        Ok((self.clock.elapsed() - before).as_secs_f64())
    }

    async fn measure(&mut self, name: &str, queries: &[(&str, String)]) -> Result<TpchMeasurement> {
        let (mut create_s, mut recompute_s) = (0.0, 0.0);
        for (view, sql) in queries {
            create_s += self.time(&format!("CREATE MATERIALIZED VIEW {view} AS {sql}")).await?;
        }
        for (_, sql) in queries {
            let mut runs = Vec::new();
            for _ in 0..REPEATS {
                runs.push(self.time(sql).await?);
            }
            recompute_s += median(&mut runs);
        }
        let [per_mille, percent] = PARTS;
        let sets = self.measured * REPEATS..(self.measured + 1) * REPEATS;
        let percents = self.measured * PERCENT_REPEATS..(self.measured + 1) * PERCENT_REPEATS;
        assert!(percents.end <= percent, "each part of the orders is changed once");
        self.measured += 1;
        let change_per_mille = self
            .changes(sets.clone().map(|set| change_set(per_mille, per_mille - 1 - set).to_vec()))
            .await?;
        let last = percent - 1;
        let change_percent =
            self.changes(percents.map(|set| change_set(percent, last - set).to_vec())).await?;
        let change_others =
            self.changes(sets.clone().map(|set| change_of_others(per_mille, set).to_vec())).await?;
        let row = "UPDATE lineitem SET l_quantity = l_quantity % 50 + 1 \
                   WHERE l_orderkey = 1 AND l_linenumber = 1";
        let change_row = self.changes(sets.map(|_| vec![row.to_owned()])).await?;
        for (view, _) in queries {
            run(&self.client, &format!("DROP MATERIALIZED VIEW {view}")).await?;
        }
        Ok(TpchMeasurement {
            query: name.to_owned(),
            scale: self.scale,
            create_s,
            recompute_s,
            change_per_mille,
            change_percent,
            change_others,
            change_row,
        })
    }

    /// Commits change sets of one kind, each of some statements.
    async fn changes(&mut self, sets: impl Iterator<Item = Vec<String>>) -> Result<ChangeTimes> {
        let (mut commits, mut visibles) = (Vec::new(), Vec::new());
        for statements in sets {
            run(&self.client, "BEGIN").await?;
            for statement in statements {
                run(&self.client, &statement).await?;
            }
            commits.push(self.time("COMMIT").await?);
            visibles.push(self.time("FLUSH").await?);
        }
        let visible_max_s = visibles.iter().copied().fold(0.0, f64::max);
        let (commit_s, visible_s) = (median(&mut commits), median(&mut visibles));
        Ok(ChangeTimes { commit_s, visible_s, visible_max_s })
    }
}

/// The middle one of some times; 0 of none.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

fn heading(options: &TpchOptions, load_s: f64) -> String {
    let (scale, workers) = (options.scale, options.config.workers);
    format!(
        "TPC-H at scale {scale}, {workers} workers; tables loaded in {load_s:.1} s. Milliseconds; \
         a change's are those from the end of its COMMIT until the view shows it.\n\n\
         {:<12} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8}",
        "query",
        "create",
        "anew",
        "COMMIT",
        "0.1 %",
        "longest",
        "of anew",
        "1 %",
        "others",
        "longest",
        "of anew",
        "one row"
    )
}

fn table_line(measured: &TpchMeasurement) -> String {
    let TpchMeasurement { query, change_per_mille, change_others, .. } = measured;
    let share = |seconds: f64| match measured.recompute_s > 0.0 {
        true => format!("{:.1} %", 100.0 * seconds / measured.recompute_s),
        false => String::new(),
    };
    format!(
        "{query:<12} {:>9.0} {:>9.1} {:>8.1} {:>8.1} {:>8.1} {:>8} {:>8.1} {:>8.1} {:>9.1} {:>8} {:>8.2}",
        measured.create_s * 1e3,
        measured.recompute_s * 1e3,
        change_per_mille.commit_s * 1e3,
        change_per_mille.visible_s * 1e3,
        change_per_mille.visible_max_s * 1e3,
        share(change_per_mille.visible_s),
        measured.change_percent.visible_s * 1e3,
        change_others.visible_s * 1e3,
        change_others.visible_max_s * 1e3,
        share(change_others.visible_s),
        measured.change_row.visible_s * 1e3,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_columns() {
        for (table, columns) in TABLES {
            let mut rows = rows(table, 0.001);
            let first = rows.next().expect("a row at least");
            let declared = columns.split(", ").filter(|c| !c.contains("KEY (")).count();
            // `PRIMARY KEY (a, b)` has a comma of its own.
            let own = usize::from(columns.contains("KEY ("));
            assert_eq!(first.split('|').count(), declared - own, "{table}: {first}");
            assert!(rows.next().is_some(), "{table}");
        }
    }

    #[test]
    fn the_share_of_q11_follows_the_scale() {
        assert!(query_text(QUERIES[10].1, 0.01).contains("* 0.0100000000"));
    }
}
