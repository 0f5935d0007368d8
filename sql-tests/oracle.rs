//! The central oracle: incremental = batch, at every epoch.
//!
//! A case makes tables and a few materialized views of the list below, then changes the tables at
//! random: inserts, updates, deletes, blocks of several statements. After every commit each view
//! must hold exactly the rows that its query gives when it is run as a batch. The number of
//! workers is 1, 2 and 3 in turn.
//!
//! A failure prints its seed; `MILLSTREAM_SEED=n cargo test --test sql_tests oracle` replays that
//! case alone. `MILLSTREAM_EPOCHS=n` sets how many epochs are tried (default [`EPOCHS`]).

mod expressions;
mod random;
mod time;

use std::sync::Arc;
use std::time::Duration;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use millstream::coordinator::command::{ConnectOptions, Connection, Database, Prepared, Response};
use millstream::coordinator::event_loop::{Coordinator, CoordinatorConfig, HistoryConfig};
use millstream::coordinator::memory::state_memory;
use millstream::observe::clock::Clock;
use millstream::state::spill::StateMemory;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};

/// Epochs tried by a plain `cargo test`.
const EPOCHS: u64 = 10_000;
/// Commits of one case.
const EPOCHS_PER_CASE: u64 = 100;
/// Views of one case; one over tables and one over it come on top.
const VIEWS_PER_CASE: usize = 2;

const TABLES: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, k int, v int, s text, d numeric(10,2))",
    "CREATE TABLE u (k int, w bigint, s text)",
    expressions::TABLE,
];

/// What is kept as a view. Every operator stands in several, alone and over others.
const QUERIES: &[&str] = &[
    "SELECT * FROM t WHERE v > 2",
    "SELECT id, v * 2 + k AS x, upper(s) AS s FROM t WHERE k IS NOT NULL AND s <> 'b'",
    "SELECT id, CASE WHEN v > 3 THEN 'high' WHEN v IS NULL THEN 'none' ELSE s END AS c FROM t",
    "SELECT k, count(*) AS n, count(v) AS nv, sum(v) AS sv, min(v) AS lo, max(v) AS hi FROM t \
     GROUP BY k",
    "SELECT s, sum(d) AS sd, avg(v) AS av, min(s) AS ls, max(d) AS hd FROM t GROUP BY s",
    "SELECT count(*) AS n, sum(w) AS sw, min(s) AS ls, avg(w) AS aw FROM u",
    "SELECT k, count(DISTINCT v) AS dv, sum(DISTINCT v) AS sdv, count(DISTINCT s) AS ds FROM t \
     GROUP BY k",
    "SELECT k, count(*) FILTER (WHERE v > 2) AS n, sum(v) FILTER (WHERE s = 'a') AS sa FROM t \
     GROUP BY k",
    "SELECT k, sum(v) AS sv FROM t GROUP BY k HAVING count(*) > 1",
    "SELECT s, k % 2 AS odd, count(*) AS n FROM t GROUP BY s, k % 2",
    "SELECT DISTINCT k, s FROM u",
    "SELECT t.id, t.v, u.w FROM t JOIN u ON t.k = u.k",
    "SELECT t.id, u.w, u.s AS us FROM t JOIN u ON t.k = u.k AND t.s = u.s",
    "SELECT t.id, u.w FROM t JOIN u ON t.k = u.k AND t.v < u.w",
    "SELECT t.id, t.s, u.w FROM t LEFT JOIN u ON t.k = u.k",
    "SELECT t.id, u.w, u.s AS us FROM t RIGHT JOIN u ON t.k = u.k AND t.v > 1",
    "SELECT t.id, u.w FROM t FULL JOIN u ON t.k = u.k",
    "SELECT a.id AS a, b.id AS b FROM t a JOIN t b ON a.k = b.k AND a.id < b.id",
    "SELECT t.id, u.w FROM t CROSS JOIN u WHERE t.v + u.w = 7",
    "SELECT id, v FROM t WHERE k IN (SELECT k FROM u WHERE w > 2)",
    "SELECT id, v FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.w > t.v)",
    "SELECT id, v FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.k)",
    "SELECT k, s FROM t UNION ALL SELECT k, s FROM u",
    "SELECT k, s FROM t UNION SELECT k, s FROM u",
    "SELECT u.s, count(*) AS n, sum(t.v) AS sv, max(u.w) AS hw FROM t JOIN u USING (k) GROUP BY u.s",
    "SELECT x.k, x.n, u.w FROM (SELECT k, count(*) AS n FROM t GROUP BY k) x \
     LEFT JOIN u ON x.k = u.k AND u.w > x.n",
    "WITH c AS (SELECT k, sum(v) AS sv FROM t GROUP BY k) \
     SELECT a.k, a.sv, b.sv AS other FROM c a JOIN c b ON a.sv = b.sv",
    "SELECT n, count(*) AS groups FROM (SELECT k, count(*) AS n FROM t GROUP BY k) x GROUP BY n",
    "SELECT t.id, (SELECT max(w) FROM u WHERE u.k = t.k) AS hw FROM t",
    "SELECT id, v FROM t ORDER BY v DESC NULLS LAST, id LIMIT 5",
    "SELECT k, w, s FROM u ORDER BY w, k, s LIMIT 4 OFFSET 2",
    "SELECT k, n FROM (SELECT k, count(*) AS n FROM t GROUP BY k) x ORDER BY n, k OFFSET 1",
    "SELECT id, k FROM (SELECT id, k, row_number() OVER (PARTITION BY k ORDER BY v, id) AS n \
     FROM t) x WHERE n <= 2",
    "SELECT id, s, n FROM (SELECT id, s, row_number() OVER (PARTITION BY s ORDER BY d DESC, id) \
     AS n FROM t) x WHERE n < 4 AND id > 3",
    "SELECT id, n FROM (SELECT id, rank() OVER (PARTITION BY s ORDER BY v) AS n FROM t) x \
     WHERE n <= 2",
    "SELECT k, w, n FROM (SELECT k, w, dense_rank() OVER (ORDER BY w DESC) AS n FROM u) x \
     WHERE n BETWEEN 2 AND 3",
    "SELECT DISTINCT ON (k) k, id, v FROM t ORDER BY k, v DESC, id",
    "SELECT s, w FROM u QUALIFY row_number() OVER (PARTITION BY s ORDER BY w, k) = 1",
    "SELECT id, row_number() OVER w AS n, rank() OVER v AS r, dense_rank() OVER v AS d, \
     ntile(3) OVER w AS q FROM t WINDOW w AS (PARTITION BY s ORDER BY v, id), \
     v AS (PARTITION BY s ORDER BY v)",
    "SELECT id, percent_rank() OVER (ORDER BY v) AS p, cume_dist() OVER (ORDER BY v) AS c FROM t",
    "SELECT id, lag(v) OVER w AS before, lead(v, 2, -1) OVER w AS after, \
     first_value(id) OVER w AS first FROM t WINDOW w AS (PARTITION BY k ORDER BY id)",
    "SELECT id, sum(v) OVER w AS sv, count(*) OVER w AS n, min(d) OVER w AS ld, \
     max(s) OVER w AS hs FROM t WINDOW w AS (PARTITION BY k ORDER BY v)",
    "SELECT id, sum(v) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) AS sv, \
     nth_value(v, 2) OVER (ORDER BY id ROWS BETWEEN CURRENT ROW AND 3 FOLLOWING) AS second, \
     avg(v) OVER (PARTITION BY s ORDER BY id ROWS 3 PRECEDING) AS av FROM t",
    "SELECT id, sum(v) OVER (ORDER BY v RANGE BETWEEN 1 PRECEDING AND 2 FOLLOWING) AS near, \
     count(*) OVER (PARTITION BY s ORDER BY v DESC RANGE 2 PRECEDING) AS above FROM t",
    "SELECT id, sum(id) OVER (ORDER BY v GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) AS two, \
     sum(v) OVER (PARTITION BY k) AS whole, count(*) OVER () AS n FROM t",
    "SELECT k, sum(w) OVER (PARTITION BY k) AS sw, w FROM u WHERE s IS NOT NULL",
    "WITH RECURSIVE r(a, b) AS (SELECT k, v FROM t UNION SELECT r.a, t.v FROM r JOIN t \
     ON r.b = t.k) SELECT a, b FROM r",
    "WITH RECURSIVE r(a, b, n) AS (SELECT k, w::int, 0 FROM u UNION ALL SELECT r.a, t.v, r.n + 1 \
     FROM r JOIN t ON r.b = t.k AND t.id > 20 WHERE r.n < 3) SELECT a, b, n FROM r",
    "SELECT t.id, u.w FROM t JOIN u ON t.v < u.w",
    "SELECT t.id, u.w FROM t LEFT JOIN u ON t.v > u.w AND t.s = u.s",
    "SELECT id FROM t WHERE k NOT IN (SELECT k FROM u)",
    "SELECT id FROM t WHERE v > 2 OR EXISTS (SELECT 1 FROM u WHERE u.k = t.k)",
    "SELECT id FROM t WHERE v > (SELECT avg(w) FROM u)",
    "SELECT id, k IN (SELECT k FROM u WHERE w > 1) AS a, EXISTS (SELECT 1 FROM u WHERE u.k = t.k) \
     AS b, v NOT IN (SELECT w FROM u) AS c FROM t",
    "SELECT id FROM t WHERE k = 1 OR EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.w > t.v)",
    "SELECT id, g FROM t, generate_series(1, t.v) AS g",
    "SELECT id, unnest(ARRAY[k, v]) AS e FROM t",
    "WITH c AS (SELECT s, count(*) AS n, sum(v) AS sv FROM t GROUP BY s) \
     SELECT a.s, a.n, b.sv FROM c a JOIN c b ON a.n = b.n AND a.sv <= b.sv",
    "SELECT s, n, lag(n) OVER (ORDER BY s) AS before FROM \
     (SELECT s, count(*) AS n FROM t GROUP BY s) x",
];

/// Views over a view `{}` with columns `a` (int) and `b` (bigint).
const QUERIES_OVER_VIEW: &[&str] = &[
    "SELECT a, count(*) AS n, sum(b) AS sb FROM {} GROUP BY a",
    "SELECT x.a, x.b, t.id FROM {} x JOIN t ON x.a = t.k",
    "SELECT b, max(a) AS ha FROM {} WHERE a IS NOT NULL GROUP BY b",
];
const VIEW_BELOW: &[&str] = &[
    "SELECT k AS a, sum(v) AS b FROM t GROUP BY k",
    "SELECT t.k AS a, u.w AS b FROM t LEFT JOIN u ON t.k = u.k",
    "SELECT k AS a, w AS b FROM u WHERE w <> 3",
];

struct Case {
    random: StdRng,
    connection: Connection,
    /// Name, query, and both as prepared statements.
    views: Vec<(String, String, Prepared, Prepared)>,
    /// Everything that was run, for a failure.
    log: Vec<String>,
}

#[test]
fn views_equal_their_queries_at_every_epoch() {
    let replay = std::env::var("MILLSTREAM_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let epochs = std::env::var("MILLSTREAM_EPOCHS")
        .map_or(EPOCHS, |epochs| epochs.parse().expect("a number"));
    let seeds: Vec<u64> = match replay {
        Some(seed) => vec![seed],
        None => (0..epochs.div_ceil(EPOCHS_PER_CASE)).collect(),
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(seeds.len());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let mine: Vec<u64> = seeds.iter().skip(thread).step_by(threads).copied().collect();
            scope.spawn(move || {
                let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
                for seed in mine {
                    runtime.block_on(run_case(seed));
                }
            });
        }
    });
}

async fn run_case(seed: u64) {
    let config = CoordinatorConfig {
        workers: 1 + (seed % 3) as usize,
        epoch_interval_max: Duration::from_millis(2),
        lock_timeout: Duration::from_secs(5),
        history: HistoryConfig::default(),
        // Where rows are must make no difference.
        memory: match seed % 4 {
            3 => Arc::new(StateMemory::always_full(std::env::temp_dir())),
            _ => state_memory(&std::env::temp_dir()),
        },
    };
    let clock = Clock::system();
    let coordinator = Coordinator::start(config, clock.clone()).expect("the workers start");
    let database = Database::new(coordinator.clone(), clock).expect("threads can be started");
    let connection = database
        .connect(ConnectOptions {
            database: "millstream".into(),
            user: "oracle".into(),
            settings: vec![],
        })
        .await
        .expect("the default database exists");
    let random = StdRng::seed_from_u64(seed);
    let mut case = Case { random, connection, views: Vec::new(), log: Vec::new() };
    case.set_up(seed).await;
    for epoch in 0..EPOCHS_PER_CASE {
        case.change().await;
        case.compare(seed, epoch).await;
    }
    coordinator.stop();
}

impl Case {
    async fn run(&mut self, sql: &str) {
        self.log.push(sql.to_owned());
        let statements = self.connection.parse(sql).expect(sql);
        for statement in &statements {
            let prepared = self.connection.prepare(statement, &[]).await.expect(sql);
            let response = self.connection.execute(&prepared, &[]).await.expect(sql);
            if let Response::Rows { mut rows, .. } = response {
                while let Some(batch) = rows.next().await {
                    batch.expect(sql);
                }
            }
            self.connection.sync().await.expect(sql);
        }
    }

    async fn prepare(&mut self, sql: &str) -> Prepared {
        let statement = self.connection.parse(sql).expect(sql).remove(0);
        self.connection.prepare(&statement, &[]).await.expect(sql)
    }

    async fn set_up(&mut self, seed: u64) {
        for table in TABLES {
            self.run(table).await;
        }
        // Half of the views are made over rows that are there already.
        for _ in 0..self.random.random_range(0..6) {
            self.change().await;
        }
        let mut queries: Vec<String> = (0..VIEWS_PER_CASE)
            .map(|turn| {
                // One of each list.
                let list = if turn == 0 { QUERIES } else { expressions::QUERIES };
                list[(seed as usize * (VIEWS_PER_CASE - 1) + turn) % list.len()].to_owned()
            })
            .collect();
        let below = VIEW_BELOW.choose(&mut self.random).expect("not empty");
        queries.push((*below).to_owned());
        let over = QUERIES_OVER_VIEW.choose(&mut self.random).expect("not empty");
        queries.push(over.replace("{}", &format!("v{VIEWS_PER_CASE}")));
        for (number, query) in queries.into_iter().enumerate() {
            if self.random.random_bool(0.5) {
                self.change().await;
            }
            let name = format!("v{number}");
            self.run(&format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await;
            let view = self.prepare(&format!("SELECT * FROM {name}")).await;
            let batch = self.prepare(&query).await;
            self.views.push((name, query, view, batch));
        }
    }

    fn small(&mut self) -> String {
        match self.random.random_range(0..8) {
            0 => "NULL".to_owned(),
            n => (n - 1).to_string(),
        }
    }

    fn text(&mut self) -> &'static str {
        ["'a'", "'b'", "'c'", "''", "NULL"].iter().choose(&mut self.random).expect("not empty")
    }

    /// One commit: a statement, or a block of some.
    async fn change(&mut self) {
        if self.random.random_bool(0.25) {
            let mut block = vec!["BEGIN".to_owned()];
            for _ in 0..self.random.random_range(1..4) {
                block.push(self.statement());
            }
            block.push("COMMIT".to_owned());
            for statement in block {
                self.log.push(statement.clone());
                let parsed = self.connection.parse(&statement).expect("parses").remove(0);
                let prepared = self.connection.prepare(&parsed, &[]).await.expect(&statement);
                self.connection.execute(&prepared, &[]).await.map(drop).expect(&statement);
            }
            self.connection.sync().await.expect("commits");
        } else {
            let statement = self.statement();
            self.run(&statement).await;
        }
    }

    /// Numbers of all sizes, also those whose sums leave the range of their type.
    fn large(&mut self) -> String {
        match self.random.random_range(0..8) {
            0 => "NULL".to_owned(),
            1 => "9223372036854775807".to_owned(),
            2 => "-9223372036854775807".to_owned(),
            3 => self.random.random_range(i64::MIN / 2..i64::MAX / 2).to_string(),
            _ => self.random.random_range(-9..9).to_string(),
        }
    }

    fn pick(&mut self, list: &[&'static str]) -> &'static str {
        list.iter().choose(&mut self.random).expect("not empty")
    }

    fn float(&mut self) -> &'static str {
        self.pick(&["NULL", "0", "-0.5", "0.1", "0.2", "3.25", "1e16", "-1e16", "1e-9", "7"])
    }

    fn row_of_x(&mut self) -> String {
        let (k, b, f) = (self.small(), self.large(), self.float());
        let ok = self.pick(&["true", "false", "NULL"]);
        let (day, hour) = (self.random.random_range(28..32), self.random.random_range(0..24));
        let at = match day {
            28 => "NULL".to_owned(),
            day => format!("'2024-01-{day} {hour:02}:30:00'"),
        };
        let documents = ["NULL", r#"'{"a": "p", "b": 1}'"#, r#"'{"c": true, "b": 2}'"#];
        let j = self.pick(&documents);
        format!("({k}, {b}, {f}, {ok}, {at}, {j})")
    }

    fn statement_of_x(&mut self) -> String {
        match self.random.random_range(0..6) {
            0..=3 => {
                let count = self.random.random_range(1..5);
                let rows: Vec<String> = (0..count).map(|_| self.row_of_x()).collect();
                format!("INSERT INTO x VALUES {}", rows.join(", "))
            }
            4 => format!("UPDATE x SET f = {}, b = {} WHERE ok", self.float(), self.large()),
            _ => format!("DELETE FROM x WHERE k = {} OR b IS NULL", self.small()),
        }
    }

    fn statement(&mut self) -> String {
        if self.random.random_bool(0.2) {
            return self.statement_of_x();
        }
        match self.random.random_range(0..10) {
            0..=3 => {
                let rows: Vec<String> = (0..self.random.random_range(1..6))
                    .map(|_| {
                        let id = self.random.random_range(0..40);
                        let (k, v, d) = (self.small(), self.small(), self.small());
                        format!("({id}, {k}, {v}, {}, {d})", self.text())
                    })
                    .collect();
                let conflict = match self.random.random_bool(0.5) {
                    true => "DO NOTHING",
                    false => "(id) DO UPDATE SET k = EXCLUDED.k, v = EXCLUDED.v, s = EXCLUDED.s",
                };
                match conflict {
                    // Postgres refuses to update a row twice in one statement.
                    "DO NOTHING" => {
                        format!("INSERT INTO t VALUES {} ON CONFLICT DO NOTHING", rows.join(", "))
                    }
                    update => format!("INSERT INTO t VALUES {} ON CONFLICT {update}", rows[0]),
                }
            }
            4..=5 => {
                let rows: Vec<String> = (0..self.random.random_range(1..5))
                    .map(|_| format!("({}, {}, {})", self.small(), self.small(), self.text()))
                    .collect();
                format!("INSERT INTO u VALUES {}", rows.join(", "))
            }
            6 => {
                let (v, k) = (self.small(), self.small());
                format!("UPDATE t SET v = {v}, s = {} WHERE k = {k}", self.text())
            }
            7 => {
                let from = self.random.random_range(0..40);
                format!(
                    "UPDATE t SET k = k + 1, d = d + 1.5 WHERE id BETWEEN {from} AND {}",
                    from + 5
                )
            }
            8 => {
                let from = self.random.random_range(0..40);
                format!("DELETE FROM t WHERE id BETWEEN {from} AND {}", from + 3)
            }
            _ => match self.random.random_range(0..4) {
                0 => format!("UPDATE u SET w = {} WHERE s = {}", self.small(), self.text()),
                1 => format!("DELETE FROM u WHERE w = {} AND k IS NOT NULL", self.small()),
                2 => "DELETE FROM u WHERE k IS NULL".to_owned(),
                _ => format!("DELETE FROM u WHERE s = {}", self.text()),
            },
        }
    }

    async fn rows(&mut self, prepared: &Prepared) -> Vec<String> {
        let sql = prepared.statement.sql().to_owned();
        let response = self.connection.execute(prepared, &[]).await.expect(&sql);
        let Response::Rows { mut rows, .. } = response else { panic!("{sql} has rows") };
        let mut texts = Vec::new();
        while let Some(batch) = rows.next().await {
            let batch = batch.expect(&sql);
            let options = FormatOptions::new().with_null("NULL");
            let columns: Vec<ArrayFormatter<'_>> = batch
                .columns()
                .iter()
                .map(|c| ArrayFormatter::try_new(c, &options).expect("printable"))
                .collect();
            for row in 0..batch.num_rows() {
                let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
                texts.push(cells.join(" | "));
            }
        }
        drop(rows);
        self.connection.sync().await.expect(&sql);
        texts.sort_unstable();
        texts
    }

    async fn compare(&mut self, seed: u64, epoch: u64) {
        let views = std::mem::take(&mut self.views);
        for (name, query, view, batch) in &views {
            let incremental = self.rows(view).await;
            let expected = self.rows(batch).await;
            assert!(
                incremental == expected,
                "seed {seed}, commit {epoch}, {name}: {query}\nview:\n  {}\nbatch:\n  {}\nlog:\n{};",
                incremental.join("\n  "),
                expected.join("\n  "),
                self.log.join(";\n"),
            );
        }
        self.views = views;
    }
}
