//! `\demo`: a first look at a view that keeps itself up to date.
//!
//! 1. Sources and views are created in a schema of their own, each statement shown as a person
//!    would type it.
//! 2. A month of flights out of New York is played into a file that the source follows, so that
//!    rows arrive while one looks. Where the server cannot read this machine's files, generated
//!    auctions take their place.
//! 3. The view is shown, redrawn twice a second, until a key is pressed. The replay goes on in
//!    the background, until the month or the shell ends.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::GzDecoder;
use tokio::task::JoinHandle;

use crate::frontend::repl::client::ClientError;
use crate::frontend::repl::{Next, Shell};

/// Airline codes and names.
const AIRLINES_CSV: &str = include_str!("../../../sql-tests/data/airlines.csv");
/// The flights of January 2013.
const FLIGHTS_CSV_GZ: &[u8] = include_bytes!("../../../sql-tests/data/flights.csv.gz");

const REDRAW: Duration = Duration::from_millis(500);
/// How often rows are appended, and how many: a day of flights takes about two seconds.
const REPLAY_TICK: Duration = Duration::from_millis(100);
const REPLAY_ROWS_PER_TICK: usize = 45;

/// What the demo runs and shows.
struct Scenario {
    statements: Vec<String>,
    title: &'static str,
    live_sql: &'static str,
    /// What to try afterwards.
    farewell: &'static str,
}

const FLIGHTS_FAREWELL: &str = "\
Flights keep arriving until the month is over. Try:
  SUBSCRIBE (SELECT airline, flights FROM demo.delays WHERE flights > 1000);
  UPDATE demo.airlines SET name = 'American' WHERE carrier = 'AA';
  SELECT * FROM demo.delays WHERE airline LIKE 'Am%';
  DROP SCHEMA demo CASCADE;
";

const AUCTIONS_FAREWELL: &str = "\
The view is still kept up to date. Try:
  SUBSCRIBE demo.board;
  DROP SCHEMA demo CASCADE;
";

/// Runs the demo.
pub(super) async fn run(shell: &mut Shell) -> Result<Next, ClientError> {
    if let Some(earlier) = shell.demo.take() {
        earlier.end();
    }
    let shares_files = shell.session.target.is_local();
    let (scenario, replay) = if shares_files {
        let replay = match Replay::prepare(&shell.options.demo_dir) {
            Ok(replay) => replay,
            Err(error) => {
                let folder = shell.options.demo_dir.display();
                return shell.fail(&format!("\\demo: {folder}: {error}"));
            }
        };
        (flights(&replay.path), Some(replay))
    } else {
        (auctions(), None)
    };
    for sql in &scenario.statements {
        let shown = shell.session.color.dim(&format!("{};\n", abridged(sql)));
        shell.session.output.write(&shown)?;
        let next = shell.run_internal(sql).await?;
        if next != Next::GoOn {
            return Ok(next);
        }
    }
    shell.session.names_changed = true;

    shell.demo = replay.map(RunningDemo::start);
    let next = shell.live(scenario.title, scenario.live_sql, REDRAW).await?;
    if next == Next::GoOn {
        shell.session.output.write(scenario.farewell)?;
    }
    Ok(next)
}

/// The replay of a demo that was started in this shell.
pub(super) struct RunningDemo {
    replaying: JoinHandle<()>,
    path: PathBuf,
}

impl RunningDemo {
    fn start(replay: Replay) -> RunningDemo {
        let path = replay.path.clone();
        RunningDemo { replaying: tokio::spawn(replay.run()), path }
    }

    /// Makes way for the next demo, which drops the source that reads the file.
    fn end(self) {
        self.replaying.abort();
        // It may have been removed by someone else.
        let _ = std::fs::remove_file(self.path);
    }
}

fn flights(path: &Path) -> Scenario {
    let path = path.display().to_string().replace('\'', "''");
    Scenario {
        statements: vec![
            "DROP SCHEMA IF EXISTS demo CASCADE".to_owned(),
            "CREATE SCHEMA demo".to_owned(),
            "CREATE TABLE demo.airlines (carrier text PRIMARY KEY, name text)".to_owned(),
            airlines_sql(),
            format!(
                "CREATE SOURCE demo.flights (\n  year int, month int, day int, dep_time int, \
                 sched_dep_time int, dep_delay int,\n  arr_time int, sched_arr_time int, \
                 arr_delay int, carrier text, flight int,\n  tailnum text, origin text, \
                 dest text, air_time int, distance int, hour int,\n  minute int, \
                 time_hour timestamptz\n) WITH (\n  connector = 'file', path = '{path}',\n  \
                 format = 'csv', csv.null = 'NA', follow = 'true'\n)"
            ),
            "CREATE MATERIALIZED VIEW demo.delays AS\n\
             SELECT a.name AS airline, count(*) AS flights,\n       \
             avg(f.dep_delay)::numeric(6, 1) AS average_delay, max(f.dep_delay) AS longest_delay\n\
             FROM demo.flights AS f JOIN demo.airlines AS a USING (carrier)\nGROUP BY a.name"
                .to_owned(),
        ],
        title: "Departure delays out of New York, January 2013, a day every two seconds",
        live_sql: "SELECT * FROM demo.delays ORDER BY average_delay DESC NULLS LAST, airline",
        farewell: FLIGHTS_FAREWELL,
    }
}

fn auctions() -> Scenario {
    Scenario {
        statements: vec![
            "DROP SCHEMA IF EXISTS demo CASCADE".to_owned(),
            "CREATE SCHEMA demo".to_owned(),
            "CREATE SOURCE demo.bid WITH (\n  connector = 'nexmark', table.type = 'bid', \
             rate = '1000'\n)"
                .to_owned(),
            "CREATE MATERIALIZED VIEW demo.board AS\n\
             SELECT channel, count(*) AS bids, max(price) AS highest, sum(price) AS volume\n\
             FROM demo.bid GROUP BY channel"
                .to_owned(),
        ],
        title: "Bids by channel, a thousand events a second",
        live_sql: "SELECT * FROM demo.board ORDER BY bids DESC, channel LIMIT 20",
        farewell: AUCTIONS_FAREWELL,
    }
}

/// One INSERT of all airlines.
fn airlines_sql() -> String {
    let rows: Vec<String> = AIRLINES_CSV
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(','))
        .map(|(carrier, name)| {
            let quoted = |text: &str| text.trim().trim_matches('"').replace('\'', "''");
            format!("('{}', '{}')", quoted(carrier), quoted(name))
        })
        .collect();
    format!("INSERT INTO demo.airlines VALUES\n  {}", rows.join(",\n  "))
}

/// A long statement's first lines.
fn abridged(sql: &str) -> String {
    const LINES_MAX: usize = 10;
    let lines: Vec<&str> = sql.lines().collect();
    if lines.len() <= LINES_MAX {
        return sql.to_owned();
    }
    let left = lines.len() - LINES_MAX + 1;
    format!("{}\n  ... {left} more lines", lines[..LINES_MAX - 1].join("\n"))
}

/// Plays flights into a file, line by line.
struct Replay {
    path: PathBuf,
    file: File,
    lines: io::Lines<BufReader<GzDecoder<&'static [u8]>>>,
}

impl Replay {
    /// Makes the file, with its header only.
    fn prepare(folder: &Path) -> io::Result<Replay> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        // A name of its own each time: an older demo's source may still follow its file.
        let file =
            tempfile::Builder::new().prefix("flights-").suffix(".csv").tempfile_in(folder)?;
        let (mut file, path) = file.keep().map_err(|error| error.error)?;
        let mut lines = BufReader::new(GzDecoder::new(FLIGHTS_CSV_GZ)).lines();
        if let Some(header) = lines.next() {
            writeln!(file, "{}", header?)?;
        }
        Ok(Replay { path, file, lines })
    }

    /// Appends the next lines in one write, so that a reader never sees half a line for long.
    /// Whether there were any.
    fn step(&mut self) -> io::Result<bool> {
        let mut text = String::new();
        for line in self.lines.by_ref().take(REPLAY_ROWS_PER_TICK) {
            text.push_str(&line?);
            text.push('\n');
        }
        self.file.write_all(text.as_bytes())?;
        Ok(!text.is_empty())
    }

    /// Goes on to the end. A disk that is full ends it too: the demo then stands still.
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(REPLAY_TICK);
        while self.step().unwrap_or(false) {
            ticks.tick().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn airlines_become_one_statement() {
        let sql = airlines_sql();
        assert!(
            sql.starts_with("INSERT INTO demo.airlines VALUES\n  ('9E', 'Endeavor Air Inc.'),")
        );
        assert_eq!(sql.matches("('").count(), AIRLINES_CSV.lines().count() - 1);
        assert!(abridged(&sql).ends_with("more lines"));
        assert_eq!(abridged("a\nb"), "a\nb");
    }

    #[test]
    fn the_replay_writes_whole_lines_to_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut replay = Replay::prepare(folder.path()).unwrap();
        let text = std::fs::read_to_string(&replay.path).unwrap();
        assert!(text.starts_with("year,month,day,") && text.lines().count() == 1, "{text}");
        let mut steps = 0;
        while replay.step().unwrap() {
            steps += 1;
        }
        let text = std::fs::read_to_string(&replay.path).unwrap();
        let rows = text.lines().count() - 1;
        assert!(rows > 20_000, "{rows}");
        assert_eq!(steps, rows.div_ceil(REPLAY_ROWS_PER_TICK));
        assert!(text.ends_with('\n'));
        assert_ne!(Replay::prepare(folder.path()).unwrap().path, replay.path);
    }
}
