//! The program killed with SIGKILL while clients write, define and read, sources are read and sinks
//! write, again and again.
//!
//! What runs while it is killed: transfers of money, each a transaction of three tables, by clients
//! that note what was acknowledged; a client that makes and drops views, indexes, sinks and
//! savepoints; sources of bids and of numbers with views of all kinds over them, windows and row
//! patterns among them; sinks of files and to a PostgreSQL, which is killed now and then, too; reads.
//!
//! What must hold in every read, before, while and after:
//! - the sum of all balances is the same, in the table, in the view, in each epoch of the past, in
//!   savepoints, in the files and in the other database;
//! - views that count the same thing agree;
//! - targets of sinks show what was there at some moment, whole files only, nothing twice, nothing
//!   that the server does not have, and nothing goes from them again.
//!
//! After a restart what was acknowledged is there, and what was refused or broken off is there as a
//! whole or not at all. Now and then, and at the end, everything comes to rest: views are their
//! queries, and targets have all there is.
//!
//! `MILLSTREAM_KILLS=1000 cargo test --test sql_tests killed` runs longer, `MILLSTREAM_PROGRAM`
//! names another build of the program, `MILLSTREAM_SEED` replays the moments of one run (the
//! machine's own timing is not replayed). When it fails, it says the seed, the number of the kill,
//! and where the state is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Mutex;
use tokio_postgres::Client;

use crate::durability::{PATIENCE, Place, Served, number, rows, serve_in, variable};
use crate::postgres::{Postgres, lines_of};

const ACCOUNTS: i64 = 20;
/// All the money there is.
const MONEY: i64 = ACCOUNTS * 1000;
const WRITERS: i64 = 3;
/// Events of the source of bids, its bids, and numbers of the other source. They come spread over
/// the whole run.
const EVENTS: u64 = 60_000;
const BIDS: u64 = 55_200;
const NUMBERS: u64 = 20_000;
/// About how long a server lives, for that.
const LIFE_SECONDS: f64 = 0.4;

/// Views over a source, each other and tables, with the queries that they must equal once the
/// source has ended.
const VIEWS: [(&str, &str); 7] = [
    ("bids", "SELECT count(*) AS n, sum(price) AS s, count(DISTINCT auction) AS a FROM bid"),
    ("per_auction", "SELECT auction, count(*) AS n, max(price) AS p FROM bid GROUP BY auction"),
    ("all_auctions", "SELECT count(*) AS auctions, sum(n)::bigint AS n FROM per_auction"),
    (
        "best",
        "SELECT auction, price, r FROM (SELECT auction, price, row_number() OVER \
         (PARTITION BY auction % 50 ORDER BY price DESC, auction, bidder, date_time) AS r FROM bid) x \
         WHERE r <= 3",
    ),
    (
        "named",
        "SELECT n.label, count(*) AS n, min(b.price) AS p FROM bid b JOIN names n \
         ON n.id = b.auction % 10 GROUP BY n.label",
    ),
    (
        "per_window",
        "SELECT window_start, count(*) AS n, max(price) AS p \
         FROM TUMBLE(bid, date_time, INTERVAL '0.05' SECOND) GROUP BY window_start, window_end",
    ),
    (
        "per_hop",
        "SELECT window_start, auction % 7 AS a, count(*) AS n \
         FROM HOP(bid, date_time, INTERVAL '0.02' SECOND, INTERVAL '0.1' SECOND) \
         GROUP BY window_start, window_end, auction % 7",
    ),
];

/// Views over tables, which equal their queries whenever nobody writes.
const TABLE_VIEWS: [(&str, &str); 3] = [
    ("total", "SELECT sum(balance)::bigint AS s FROM accounts"),
    ("transfers", "SELECT count(*) AS n FROM ledger"),
    (
        "rising",
        "SELECT * FROM ledger MATCH_RECOGNIZE (PARTITION BY writer, block ORDER BY n \
         MEASURES FIRST(a.n) AS f, LAST(b.n) AS l, sum(b.amount) AS s \
         PATTERN (a b+) DEFINE b AS b.amount > PREV(b.amount))",
    ),
];

/// The folder of a test, which stays when the test fails.
struct Folder(Option<tempfile::TempDir>);

impl Folder {
    fn new() -> Folder {
        Folder(Some(tempfile::tempdir().expect("a folder can be made")))
    }

    fn path(&self) -> &Path {
        self.0.as_ref().expect("until it is dropped").path()
    }
}

impl Drop for Folder {
    #[expect(clippy::print_stderr, reason = "cargo shows it of failed tests")]
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.0.take()
        {
            eprintln!("Kept: {}", folder.keep().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_loses_nothing_it_acknowledged() {
    let directory = Folder::new();
    let kills = variable("MILLSTREAM_KILLS").unwrap_or(6);
    let out = Folder::new();
    let outside = Outside { folder: out.path().to_owned(), postgres: Postgres::start().await };
    kill_again_and_again(&Place::disk(directory.path()), kills, Some(outside)).await;
}

/// Moves money until the server is gone; each transfer is a transaction of three tables.
async fn write(client: Client, writer: i64, acknowledged: Arc<AtomicI64>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let n = acknowledged.load(Ordering::SeqCst) + 1;
        let (from, to) = (random.random_range(0..ACCOUNTS), random.random_range(0..ACCOUNTS));
        let amount = random.random_range(1..50);
        let transfer = format!(
            "BEGIN; UPDATE accounts SET balance = balance - {amount} WHERE id = {from}; \
             UPDATE accounts SET balance = balance + {amount} WHERE id = {to}; \
             INSERT INTO ledger VALUES ({writer}, {n}, {}, {amount}); COMMIT",
            n / 50
        );
        match client.batch_execute(&transfer).await {
            Ok(()) => acknowledged.store(n, Ordering::SeqCst),
            Err(error) if error.as_db_error().is_some_and(|e| e.code().code() == "40001") => {
                let _ = client.batch_execute("ROLLBACK").await;
            }
            Err(_) => return,
        }
    }
}

/// What was defined beside what is always there: kind and name.
type Things = BTreeSet<(&'static str, String)>;

/// What the client that defines things knows.
#[derive(Default)]
struct Defined {
    there: Things,
    /// The statement that has not been answered: what there is if it has worked.
    in_doubt: Option<(String, Things)>,
    names: u64,
}

const DEFINED_VIEWS: [&str; 3] = [
    "SELECT writer, count(*) AS n, sum(amount)::bigint AS s FROM ledger GROUP BY writer",
    "SELECT a.id, a.balance, t.s FROM accounts a CROSS JOIN total t WHERE a.balance > 900",
    "SELECT l.writer, max(a.balance) AS b FROM ledger l JOIN accounts a ON a.id = l.n % 20 \
     GROUP BY l.writer",
];

/// The query of a view that was made so.
fn defined_view(name: &str) -> &'static str {
    let number: usize = name.trim_start_matches("extra_v").parse().expect("a number");
    DEFINED_VIEWS[number % DEFINED_VIEWS.len()]
}

impl Defined {
    /// The next statement, and what there is after it.
    fn next(&mut self, random: &mut StdRng, folder: Option<&Path>) -> (String, Things) {
        let mut after = self.there.clone();
        if after.len() > 5 || (!after.is_empty() && random.random_bool(0.3)) {
            let at = random.random_range(0..after.len());
            let thing = after.iter().nth(at).expect("counted").clone();
            after.remove(&thing);
            return (format!("DROP {} {}", thing.0, thing.1), after);
        }
        self.names += 1;
        let n = self.names;
        let (kind, name, sql) = match (random.random_range(0..4), folder) {
            (0, _) => {
                let name = format!("extra_i{n}");
                ("INDEX", name.clone(), format!("CREATE INDEX {name} ON accounts (balance)"))
            }
            (1, Some(folder)) => {
                let name = format!("extra_s{n}");
                let path = folder.join(&name);
                let sql = format!(
                    "CREATE SINK {name} FROM accounts WITH (connector = 'file', path = '{}', \
                     envelope = 'changelog')",
                    path.display()
                );
                ("SINK", name, sql)
            }
            (2, _) => {
                let name = format!("extra_p{n}");
                ("SAVEPOINT", name.clone(), format!("CREATE SAVEPOINT {name}"))
            }
            _ => {
                let name = format!("extra_v{n}");
                let query = defined_view(&name);
                let sql = format!("CREATE MATERIALIZED VIEW {name} AS {query}");
                ("MATERIALIZED VIEW", name, sql)
            }
        };
        after.insert((kind, name));
        (sql, after)
    }
}

/// Makes and drops things until the server is gone.
async fn define(client: Client, defined: Arc<Mutex<Defined>>, seed: u64, folder: Option<PathBuf>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut defined = defined.lock().await;
    loop {
        let (sql, after) = defined.next(&mut random, folder.as_deref());
        defined.in_doubt = Some((sql.clone(), after.clone()));
        match client.batch_execute(&sql).await {
            Ok(()) => {
                defined.there = after;
                defined.in_doubt = None;
            }
            Err(error) => {
                assert!(error.as_db_error().is_none(), "seed {seed}: {sql}: {error:?}");
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..30))).await;
    }
}

/// What is defined is what was acknowledged, with or without what was in doubt; it works.
async fn check_defined(client: &Client, defined: &Mutex<Defined>, context: &str) {
    let mut defined = defined.lock().await;
    let mut found = Things::new();
    for (kind, show) in [
        ("MATERIALIZED VIEW", "SHOW MATERIALIZED VIEWS"),
        ("INDEX", "SHOW INDEXES"),
        ("SINK", "SELECT name FROM millstream.sinks"),
        ("SAVEPOINT", "SHOW SAVEPOINTS"),
    ] {
        for row in rows(client, show).await {
            let name = row.split('|').find(|cell| cell.starts_with("extra_"));
            found.extend(name.map(|name| (kind, name.to_owned())));
        }
    }
    let with_doubt = defined.in_doubt.as_ref().map(|(_, after)| after);
    assert!(
        found == defined.there || with_doubt == Some(&found),
        "{context}: there is {found:?}\ninstead of {:?}\nin doubt: {:?}",
        defined.there,
        defined.in_doubt
    );
    for (kind, name) in &found {
        match *kind {
            "MATERIALIZED VIEW" => {
                let shown = rows(client, &format!("SELECT * FROM {name}")).await;
                let batch = rows(client, defined_view(name)).await;
                assert_eq!(shown, batch, "{context}: {name}");
            }
            "SAVEPOINT" => {
                let sql =
                    format!("SELECT sum(balance)::bigint FROM savepoint('{name}', 'accounts')");
                assert_eq!(number(client, &sql).await, MONEY, "{context}: savepoint {name}");
            }
            _ => {}
        }
    }
    defined.there = found;
    defined.in_doubt = None;
}

/// Everything that must hold of the tables after a restart.
async fn check(client: &Client, acknowledged: &[Arc<AtomicI64>], context: &str) {
    let row = client
        .query_one(
            "SELECT (SELECT sum(balance)::bigint FROM accounts), (SELECT s FROM total), \
             (SELECT n FROM transfers), (SELECT count(*) FROM ledger)",
            &[],
        )
        .await
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let values: [i64; 4] = std::array::from_fn(|index| row.get(index));
    assert_eq!(values[0], MONEY, "{context}: money in the table");
    assert_eq!(values[1], MONEY, "{context}: money in the view");
    assert_eq!(values[2], values[3], "{context}: view and table of transfers");
    for (writer, acknowledged) in acknowledged.iter().enumerate() {
        let promised = acknowledged.load(Ordering::SeqCst);
        let sql =
            format!("SELECT coalesce(max(n), 0), count(*) FROM ledger WHERE writer = {writer}");
        let row = client.query_one(&sql, &[]).await.expect("answers");
        let (found, count): (i64, i64) = (row.get(0), row.get(1));
        assert!(
            found >= promised,
            "{context}: writer {writer} was told of {promised} transfers, {found} are there"
        );
        assert_eq!(count, found, "{context}: writer {writer} has gaps, or transfers twice");
        // Where a write was in doubt, it is settled now.
        acknowledged.store(found, Ordering::SeqCst);
    }
}

/// What must hold of the views over the sources at every moment; how many bids they have seen.
async fn check_source(client: &Client, at_least: i64, context: &str) -> i64 {
    let row = client
        .query_one(
            "SELECT b.n, a.n, b.a, a.auctions, w.n, s.n, s.hi, s.s \
             FROM bids b CROSS JOIN all_auctions a CROSS JOIN numbers_seen s \
             CROSS JOIN (SELECT sum(n)::bigint AS n FROM per_window) w",
            &[],
        )
        .await
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let [bids, per_auction, distinct, auctions, windows, count, most, sum]: [i64; 8] =
        std::array::from_fn(|index| row.get::<_, Option<i64>>(index).unwrap_or(0));
    assert_eq!(bids, per_auction, "{context}: bids and bids per auction");
    assert_eq!(bids, windows, "{context}: bids and bids per window");
    assert_eq!(distinct, auctions, "{context}: auctions");
    assert!(
        count == most && sum == count * (count + 1) / 2,
        "{context}: {count} numbers up to {most} with the sum {sum}"
    );
    assert!(bids >= at_least, "{context}: {bids} bids were read, {at_least} were durable");
    bids
}

/// One read of the present and one of the past, of table and view together.
async fn check_money(client: &Client, random: &mut StdRng, context: &str) {
    let sums = async |sql: &str| -> (i64, i64) {
        let row = client.query_one(sql, &[]).await;
        let row = row.unwrap_or_else(|error| panic!("{context}: {sql}: {error:?}"));
        (row.get(0), row.get(1))
    };
    let now = "SELECT s, (SELECT sum(balance)::bigint FROM accounts) FROM total";
    assert_eq!(sums(now).await, (MONEY, MONEY), "{context}: view and table while it runs");
    let (from, to) =
        sums("SELECT min(epoch)::bigint, max(epoch)::bigint FROM millstream.epochs").await;
    let epoch = random.random_range(from..=to);
    let then = format!(
        "SELECT s, (SELECT sum(balance)::bigint FROM accounts FOR SYSTEM_TIME AS OF {epoch}) \
         FROM total FOR SYSTEM_TIME AS OF {epoch}"
    );
    let context = format!("{context}: epoch {epoch} of {from} to {to}");
    assert_eq!(sums(&then).await, (MONEY, MONEY), "{context}: view and table in the past");
}

/// Where sinks write.
pub struct Outside {
    folder: PathBuf,
    /// None where there is none.
    postgres: Option<Postgres>,
}

/// What a reader has found in a folder. Files are written once: each is read once.
#[derive(Default)]
struct Reader {
    files: BTreeMap<PathBuf, u64>,
}

impl Reader {
    /// The lines of the files that are new, each file by itself, oldest first.
    fn new_files(&mut self, folder: &Path, context: &str) -> Vec<Vec<serde_json::Value>> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("readable").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"))
            .collect();
        paths.sort();
        for (path, bytes) in &self.files {
            let there = path.metadata().map(|meta| meta.len()).ok();
            assert_eq!(there, Some(*bytes), "{context}: {} has changed", path.display());
        }
        paths.retain(|path| !self.files.contains_key(path));
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).expect("readable");
            let whole = text.is_empty() || text.ends_with('\n');
            assert!(whole, "{context}: {} is a part of a file", path.display());
            self.files.insert(path, text.len() as u64);
            let line = |line| serde_json::from_str(line).expect("JSON");
            text.lines().map(line).collect()
        };
        paths.into_iter().map(read).collect()
    }
}

/// Follows the targets of all sinks: nothing comes twice, nothing goes.
#[derive(Default)]
struct Followed {
    accounts: Reader,
    balances: BTreeMap<i64, i64>,
    numbers: Reader,
    /// By writer: what files have of the ledger, and up to which transfer.
    ledgers: [(Reader, i64); WRITERS as usize],
    /// Numbers up to here are in files, and in the table of the other database.
    in_files: i64,
    in_table: i64,
    transfers: Vec<i64>,
}

impl Followed {
    fn follow_files(&mut self, folder: &Path, context: &str) {
        for file in self.accounts.new_files(&folder.join("accounts"), context) {
            apply(&mut self.balances, &file, context);
            let sum = (self.balances.len() as i64, self.balances.values().sum());
            assert_eq!(sum, (ACCOUNTS, MONEY), "{context}: money in files");
        }
        follow_numbers(&mut self.numbers, &mut self.in_files, &folder.join("numbers"), context);
        for (writer, (reader, last)) in self.ledgers.iter_mut().enumerate() {
            let folder = folder.join(format!("ledger/writer={writer}"));
            follow_numbers(reader, last, &folder, context);
        }
    }

    async fn follow_tables(&mut self, theirs: &Client, context: &str) {
        let sql = "SELECT (SELECT count(*) FROM accounts), \
            (SELECT coalesce(sum(balance), 0)::bigint FROM accounts), \
            (SELECT count(*) FROM numbers), (SELECT coalesce(max(n), 0) FROM numbers), \
            (SELECT coalesce(sum(n), 0)::bigint FROM numbers)";
        let row = theirs.query_one(sql, &[]).await;
        let missing = |e: &tokio_postgres::Error| e.code().is_some_and(|c| c.code() == "42P01");
        if self.in_table == 0 && row.as_ref().is_err_and(missing) {
            // A table is made with its first rows.
            return;
        }
        let row = row.unwrap_or_else(|error| panic!("{context}: {sql}: {error:?}"));
        let [accounts, money, count, most, sum]: [i64; 5] = std::array::from_fn(|n| row.get(n));
        assert_eq!((accounts, money), (ACCOUNTS, MONEY), "{context}: money in the other database");
        assert!(
            count == most && sum == count * (count + 1) / 2 && count >= self.in_table,
            "{context}: the other database has {count} numbers up to {most} with the sum {sum}, \
             and had {}",
            self.in_table
        );
        self.in_table = count;
        let sql = "SELECT writer, count(*), max(n) FROM ledger GROUP BY writer ORDER BY writer";
        let found = theirs.query(sql, &[]).await.expect("answers");
        let mut transfers = vec![0; WRITERS as usize];
        for row in found {
            let (writer, count, most): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
            assert_eq!(count, most, "{context}: transfers of {writer} in the other database");
            transfers[writer as usize] = most;
        }
        let goes = transfers.iter().zip(&self.transfers).any(|(now, before)| now < before);
        assert!(!goes, "{context}: transfers {:?} became {transfers:?}", self.transfers);
        self.transfers = transfers;
    }

    /// The server has all that its targets have shown.
    async fn check_server(&self, client: &Client, context: &str) {
        let seen = number(client, "SELECT n FROM numbers_seen").await;
        let most = self.in_files.max(self.in_table);
        assert!(seen >= most, "{context}: targets have {most} numbers, the server has {seen}");
        let in_files = self.ledgers.iter().map(|(_, last)| *last);
        let in_table = self.transfers.iter().copied().chain(std::iter::repeat(0));
        for (writer, (files, table)) in in_files.zip(in_table).enumerate() {
            let shown = files.max(table);
            let sql = format!("SELECT count(*) FROM ledger WHERE writer = {writer}");
            let there = number(client, &sql).await;
            assert!(
                there >= shown,
                "{context}: {shown} transfers of {writer} were shown, {there} are"
            );
        }
    }
}

/// New files go on with the numbers in column `n` where the last one has ended.
fn follow_numbers(reader: &mut Reader, last: &mut i64, folder: &Path, context: &str) {
    for file in reader.new_files(folder, context) {
        let mut numbers: Vec<i64> =
            file.iter().map(|row| row["n"].as_i64().expect("a number")).collect();
        numbers.sort_unstable();
        let next = (*last + 1..).zip(&numbers).all(|(n, found)| n == *found);
        assert!(next, "{context}: {} has {numbers:?} after {last}", folder.display());
        *last += numbers.len() as i64;
    }
}

/// Applies the changes of one file.
fn apply(balances: &mut BTreeMap<i64, i64>, file: &[serde_json::Value], context: &str) {
    for row in file {
        let number = |column: &str| row[column].as_i64().expect("a number");
        let (id, balance) = (number("id"), number("balance"));
        let fits = match row["op"].as_str() {
            Some("delete") => balances.remove(&id) == Some(balance),
            _ => balances.insert(id, balance).is_none(),
        };
        assert!(fits, "{context}: {row} does not fit what was there");
    }
}

impl Outside {
    /// Sinks over what the set-up has made.
    fn sinks(&self) -> String {
        let folder = self.folder.display();
        let mut sinks = format!(
            "CREATE SINK bid_lines AS SELECT auction, price FROM bid
                WITH (connector = 'file', path = '{folder}/bids', file_rows = 1000);
             CREATE SINK number_lines FROM numbers
                WITH (connector = 'file', path = '{folder}/numbers');
             CREATE SINK account_changes FROM accounts WITH (connector = 'file',
                path = '{folder}/accounts', envelope = 'changelog');
             CREATE SINK auction_changes FROM per_auction WITH (connector = 'file',
                path = '{folder}/auctions', envelope = 'changelog', commit_interval = '1 second');
             CREATE SINK ledger_changes FROM ledger WITH (connector = 'file',
                path = '{folder}/ledger', envelope = 'changelog', partition_by = 'writer');"
        );
        let Some(postgres) = &self.postgres else { return sinks };
        for (name, from) in [
            ("named_there", "FROM named"),
            ("ledger_there", "FROM ledger"),
            ("accounts_there", "FROM accounts"),
        ] {
            let (url, table) = (postgres.url(), name.trim_end_matches("_there"));
            sinks += &format!(
                "CREATE SINK {name} {from} WITH (connector = 'postgres', url = '{url}',
                    table = '{table}', create_table = true);"
            );
        }
        let url = postgres.url();
        for (name, from) in
            [("bids", "AS SELECT auction, price FROM bid"), ("numbers", "FROM numbers")]
        {
            sinks += &format!(
                "CREATE SINK {name}_there {from} WITH (connector = 'postgres', url = '{url}',
                    table = '{name}', create_table = true, mode = 'append');"
            );
        }
        sinks
    }

    /// What targets show, at any moment; afterwards the server is asked whether it has it.
    async fn check(&self, client: &Client, followed: &mut Followed, context: &str) {
        followed.follow_files(&self.folder, context);
        if let Some(postgres) = &self.postgres {
            followed.follow_tables(&postgres.connect().await, context).await;
        }
        followed.check_server(client, context).await;
    }

    /// Waits until targets have everything: no writer is at work.
    async fn settle(&self, client: &Client, context: &str) {
        let settled = tokio::time::timeout(PATIENCE, async {
            loop {
                client.batch_execute("CHECKPOINT").await.expect("is written");
                let pending = "SELECT coalesce(sum(pending_rows), 0)::bigint FROM millstream.sinks";
                let stopped = "SELECT count(*) FROM millstream.sinks WHERE state = 'stopped'";
                assert_eq!(number(client, stopped).await, 0, "{context}: a sink has stopped");
                if number(client, pending).await == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if settled.await.is_err() {
            let sinks = rows(client, "SELECT * FROM millstream.sinks").await;
            panic!("{context}: sinks do not come to an end: {sinks:#?}");
        }
    }

    /// What tables have is there once, now that sinks have come to rest.
    async fn check_settled(
        &self,
        client: &Client,
        followed: &Followed,
        things: &Things,
        context: &str,
    ) {
        let accounts = rows(client, "SELECT id, balance FROM accounts").await;
        let sorted = |balances: &BTreeMap<i64, i64>| {
            let mut rows: Vec<String> =
                balances.iter().map(|(id, balance)| format!("{id}|{balance}")).collect();
            rows.sort_unstable();
            rows
        };
        assert_eq!(sorted(&followed.balances), accounts, "{context}: files of accounts");
        for (_, sink) in things.iter().filter(|(kind, _)| *kind == "SINK") {
            let mut balances = BTreeMap::new();
            for file in Reader::default().new_files(&self.folder.join(sink), context) {
                apply(&mut balances, &file, &format!("{context}: {sink}"));
            }
            assert_eq!(sorted(&balances), accounts, "{context}: files of {sink}");
        }
        let transfers: i64 = followed.ledgers.iter().map(|(_, last)| last).sum();
        let ledger = number(client, "SELECT count(*) FROM ledger").await;
        assert_eq!(transfers, ledger, "{context}: files of the ledger");
        let Some(postgres) = &self.postgres else { return };
        let theirs = postgres.connect().await;
        for query in ["SELECT writer, n FROM ledger", "SELECT id, balance FROM accounts"] {
            let (own, there) = (rows(client, query).await, rows(&theirs, query).await);
            assert!(
                own == there,
                "{context}: {query}: {} rows there instead of {}",
                there.len(),
                own.len()
            );
        }
    }

    /// All that sources have given is there once, now that they have ended.
    async fn check_ended(&self, client: &Client, context: &str) {
        let mut bids = Vec::new();
        lines_of(&self.folder.join("bids"), &mut bids);
        bids.sort_unstable();
        let bid = |row: String| {
            let (auction, price) = row.split_once('|').expect("two columns");
            format!("{{\"auction\":{auction},\"price\":{price}}}")
        };
        let shown = rows(client, "SELECT auction, price FROM all_bid").await;
        let mut shown: Vec<String> = shown.into_iter().map(bid).collect();
        shown.sort_unstable();
        assert!(bids == shown, "{context}: {} bids instead of {}", bids.len(), shown.len());
        let mut lines = Vec::new();
        lines_of(&self.folder.join("auctions"), &mut lines);
        let count = |op: &str| lines.iter().filter(|line| line.contains(op)).count() as i64;
        let left = count("\"op\":\"insert\"") - count("\"op\":\"delete\"");
        let auctions = number(client, "SELECT count(*) FROM per_auction").await;
        assert_eq!(left, auctions, "{context}: auctions");
        let Some(postgres) = &self.postgres else { return };
        let theirs = postgres.connect().await;
        for (own, there) in [
            ("SELECT label, n, p FROM named", "SELECT label, n, p FROM named"),
            ("SELECT auction, price FROM all_bid", "SELECT auction, price FROM bids"),
        ] {
            let (own, there) = (rows(client, own).await, rows(&theirs, there).await);
            assert!(own == there, "{context}: {} rows instead of {}", there.len(), own.len());
        }
    }
}

/// Where the time of a run went.
#[derive(Default)]
struct Times {
    starts: Duration,
    checks: Duration,
    settling: Duration,
    load: Duration,
    end: Duration,
}

/// The same query over sources that give the same rows without a pause.
fn without_pauses(query: &str) -> String {
    query.replace("FROM bid", "FROM all_bid").replace("(bid,", "(all_bid,")
}

/// One run.
struct Run<'a> {
    place: &'a Place,
    outside: Option<Outside>,
    seed: u64,
    random: StdRng,
    acknowledged: Vec<Arc<AtomicI64>>,
    defined: Arc<Mutex<Defined>>,
    followed: Followed,
    /// Bids that a checkpoint has.
    durable_bids: i64,
    times: Times,
}

/// Kills servers over one place so many times.
#[expect(clippy::print_stdout, reason = "cargo shows it when it is asked to")]
pub async fn kill_again_and_again(place: &Place, kills: u64, outside: Option<Outside>) {
    let seed = variable("MILLSTREAM_SEED").unwrap_or_else(rand::random);
    let mut run = Run {
        place,
        outside,
        seed,
        random: StdRng::seed_from_u64(seed),
        acknowledged: (0..WRITERS).map(|_| Arc::default()).collect(),
        defined: Arc::default(),
        followed: Followed::default(),
        durable_bids: 0,
        times: Times::default(),
    };
    run.set_up(kills).await;
    for kill in 0..kills {
        run.live(kill).await;
    }
    run.end(kills).await;
    let Times { starts, checks, settling, load, end } = run.times;
    println!(
        "{kills} kills, seed {seed}: starts {starts:.1?}, checks {checks:.1?}, coming to rest \
         {settling:.1?}, load {load:.1?}, end {end:.1?}"
    );
}

impl Run<'_> {
    async fn start(&mut self, workers: &str) -> (Served, Client) {
        let began = Instant::now();
        let server = serve_in(self.place, workers, &[]);
        let client = server.connect().await;
        self.times.starts += began.elapsed();
        (server, client)
    }

    async fn set_up(&mut self, kills: u64) {
        let (server, client) = self.start("2").await;
        let seconds = kills as f64 * LIFE_SECONDS;
        let rate = |rows: u64| (rows as f64 / seconds).clamp(100.0, 12_000.0) as u64;
        let mut script = format!(
            "CREATE TABLE names (id bigint PRIMARY KEY, label text);
            INSERT INTO names SELECT g, 'name ' || g % 4 FROM generate_series(0, 9) g(g);
            CREATE SOURCE bid WITH (connector = 'nexmark', table.type = 'bid',
                events.limit = {EVENTS}, rate = {});
            CREATE SOURCE numbers (n bigint) WITH (connector = 'datagen', rate = {},
                \"fields.n.kind\" = 'sequence', \"fields.n.start\" = '1',
                \"fields.n.end\" = '{NUMBERS}');
            CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL);
            CREATE TABLE ledger (writer bigint, n bigint, block bigint, amount bigint,
                PRIMARY KEY (writer, n));
            INSERT INTO accounts SELECT g, 1000 FROM generate_series(0, 19) g(g);
            CREATE MATERIALIZED VIEW numbers_seen AS
                SELECT count(*) AS n, max(n) AS hi, sum(n)::bigint AS s FROM numbers;",
            rate(EVENTS),
            rate(NUMBERS)
        );
        for (name, query) in VIEWS.into_iter().chain(TABLE_VIEWS) {
            script += &format!("CREATE MATERIALIZED VIEW {name} AS {query};");
        }
        let sinks = self.outside.as_ref().map(Outside::sinks).unwrap_or_default();
        for statement in script.split_inclusive(';').chain(sinks.split_inclusive(';')) {
            let done = client.batch_execute(statement).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
        // From now on targets have something to show.
        client.batch_execute("CHECKPOINT").await.expect("is written");
        server.kill();
    }

    /// A server from its start to its end.
    async fn live(&mut self, kill: u64) {
        let context = format!("seed {}, kill {kill}", self.seed);
        let workers = ["1", "2", "3"][kill as usize % 3];
        let (server, client) = self.start(workers).await;
        let began = Instant::now();
        self.check_restarted(&client, &context).await;
        self.times.checks += began.elapsed();
        let began = Instant::now();
        if self.random.random_bool(0.2) {
            self.come_to_rest(&client, &format!("{context}, at rest")).await;
        } else if self.random.random_bool(0.4) {
            let shown = check_source(&client, self.durable_bids, &context).await;
            client.batch_execute("CHECKPOINT").await.expect("is written");
            self.durable_bids = shown;
        }
        self.times.settling += began.elapsed();
        let began = Instant::now();
        let mut tasks = Vec::new();
        for (writer, acknowledged) in self.acknowledged.iter().enumerate() {
            let (client, acknowledged) = (server.connect().await, acknowledged.clone());
            let seed = self.random.random();
            tasks.push(tokio::spawn(write(client, writer as i64, acknowledged, seed)));
        }
        let (defined, seed) = (self.defined.clone(), self.random.random());
        let folder = self.outside.as_ref().map(|outside| outside.folder.clone());
        tasks.push(tokio::spawn(define(server.connect().await, defined, seed, folder)));
        self.wait_for_a_write(&context).await;
        if self.random.random_bool(0.1)
            && let Some(Outside { postgres: Some(postgres), .. }) = &mut self.outside
        {
            postgres.stop();
            postgres.resume().await;
        }
        let pause = Duration::from_millis(self.random.random_range(0..400));
        let context = format!("{context}, while it runs");
        let _ = tokio::time::timeout(pause, self.read(&client, &context)).await;
        server.kill();
        for task in tasks {
            task.await.unwrap_or_else(|error| panic!("{context}: {error}"));
        }
        self.times.load += began.elapsed();
    }

    async fn check_restarted(&mut self, client: &Client, context: &str) {
        if let Some(outside) = &self.outside {
            outside.check(client, &mut self.followed, context).await;
        }
        check(client, &self.acknowledged, context).await;
        check_source(client, self.durable_bids, context).await;
        check_money(client, &mut self.random, context).await;
        check_defined(client, &self.defined, context).await;
        for (view, query) in TABLE_VIEWS {
            let shown = rows(client, &format!("SELECT * FROM {view}")).await;
            let batch = rows(client, query).await;
            assert!(
                shown == batch,
                "{context}: {view} has {} rows, its query {}",
                shown.len(),
                batch.len()
            );
        }
    }

    /// Killed in the midst of writing, however slow the machine is.
    async fn wait_for_a_write(&self, context: &str) {
        let acknowledged =
            || self.acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).sum::<i64>();
        let before = acknowledged();
        let started = tokio::time::timeout(PATIENCE, async {
            while acknowledged() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        started.await.unwrap_or_else(|_| panic!("{context}: nothing is written"));
    }

    /// Reads until it is broken off.
    async fn read(&mut self, client: &Client, context: &str) {
        loop {
            check_money(client, &mut self.random, context).await;
            check_source(client, self.durable_bids, context).await;
            if let Some(outside) = &self.outside {
                outside.check(client, &mut self.followed, context).await;
            }
        }
    }

    async fn come_to_rest(&mut self, client: &Client, context: &str) {
        self.durable_bids = check_source(client, self.durable_bids, context).await;
        let Some(outside) = &self.outside else {
            client.batch_execute("CHECKPOINT").await.expect("is written");
            return;
        };
        outside.settle(client, context).await;
        let things = self.defined.lock().await.there.clone();
        outside.check(client, &mut self.followed, context).await;
        outside.check_settled(client, &self.followed, &things, context).await;
    }

    async fn end(&mut self, kills: u64) {
        let context = format!("seed {}, at the end", self.seed);
        let (server, client) = self.start("2").await;
        let began = Instant::now();
        self.check_restarted(&client, &context).await;
        client.batch_execute("FLUSH").await.expect("the sources end");
        let again = format!(
            "CREATE SOURCE all_bid WITH (connector = 'nexmark', table.type = 'bid', \
             events.limit = {EVENTS})"
        );
        client.batch_execute(&again).await.expect("is made");
        for (view, query) in VIEWS.into_iter().chain(TABLE_VIEWS) {
            let shown = rows(&client, &format!("SELECT * FROM {view}")).await;
            let batch = rows(&client, &without_pauses(query)).await;
            assert!(shown == batch, "{context}: {view}: {} and {}", shown.len(), batch.len());
        }
        assert_eq!(number(&client, "SELECT n FROM bids").await, BIDS as i64, "{context}");
        assert_eq!(
            number(&client, "SELECT n FROM numbers_seen").await,
            NUMBERS as i64,
            "{context}"
        );
        let written: i64 = self.acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).sum();
        assert!(written >= kills as i64, "only {written} transfers were acknowledged");
        self.come_to_rest(&client, &context).await;
        if let Some(outside) = &self.outside {
            outside.check_ended(&client, &context).await;
        }
        self.times.end = began.elapsed();
        server.kill();
    }
}
