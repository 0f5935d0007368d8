//! Two streams of events that come out of order, and which of them are late.
//!
//! A split's watermark before a row is the greatest time of the rows before it, less the delay and
//! what lateness is allowed; a table's is that of the statements before. A row behind it is late, and
//! moves nothing. The stream's watermark is the least of its splits'.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;

use rand::Rng;
use rand::rngs::StdRng;
use tempfile::TempDir;

/// The streams' names; rows that are not late stand in `{name}_seen`.
pub const STREAMS: [&str; 2] = ["a", "b"];

const SECOND_US: i64 = 1_000_000;
/// Later than anything else.
const FAR_FUTURE_US: i64 = 4 * 365 * 86_400 * SECOND_US;

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Append-only tables: all rows of a statement are measured against those before it.
    Table,
    /// Growing files, each a split that is waited for.
    Files,
    /// Growing files that are not waited for when they are silent: what is late depends on the
    /// clock.
    IdleFiles,
}

#[derive(Clone, Debug)]
struct Split {
    path: String,
    /// About where in time its events are.
    clock_us: i64,
    watermark_us: Option<i64>,
    /// Seldom gives rows.
    silent: bool,
}

struct Event {
    id: i64,
    k: i64,
    v: Option<i64>,
    s: Option<&'static str>,
    at_us: Option<i64>,
    late: bool,
    mirrored: bool,
}

struct Stream {
    name: &'static str,
    delay_us: i64,
    lateness_us: i64,
    splits: Vec<Split>,
    events: Vec<Event>,
    /// How far behind the newest event others come.
    disorder_us: i64,
    /// What was late when it was last asked.
    late_before: BTreeSet<i64>,
}

pub struct Feed {
    pub kind: Kind,
    streams: Vec<Stream>,
    folder: Option<TempDir>,
}

/// A time of the test, in microseconds after its beginning, as a timestamp.
pub fn at_text(us: i64) -> String {
    const BEGINNING_S: i64 = 1_704_844_800; // 2024-01-10 00:00:00
    let time = chrono::DateTime::from_timestamp_micros(BEGINNING_S * SECOND_US + us);
    let time = time.expect("a time of this century").naive_utc();
    let text = time.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Feed {
    pub fn new(random: &mut StdRng, seed: u64) -> Feed {
        let kind = match seed % 8 {
            0..=4 => Kind::Table,
            5 | 6 => Kind::Files,
            _ => Kind::IdleFiles,
        };
        let folder = (kind != Kind::Table).then(|| TempDir::new().expect("a folder can be made"));
        let streams = STREAMS.map(|name| {
            let splits = match &folder {
                None => vec![Split::new(String::new(), false)],
                Some(folder) => (0..random.random_range(1..=3))
                    .map(|number| {
                        let path = folder.path().join(format!("{name}_{number}.csv"));
                        std::fs::write(&path, "id,k,v,s,ts\n").expect("a file can be written");
                        Split::new(path.to_string_lossy().into_owned(), random.random_bool(0.3))
                    })
                    .collect(),
            };
            let lateness_us = match kind {
                Kind::Table => 0,
                _ => [0, 0, 7][random.random_range(0..3)] * SECOND_US,
            };
            Stream {
                name,
                delay_us: [0, 5, 20, 60][random.random_range(0..4)] * SECOND_US,
                lateness_us,
                splits,
                events: Vec::new(),
                disorder_us: [1, 20, 90][random.random_range(0..3)] * SECOND_US,
                late_before: BTreeSet::new(),
            }
        });
        Feed { kind, streams: streams.into_iter().collect(), folder }
    }

    /// Statements that make the streams and the tables of what is not late.
    pub fn definitions(&self) -> Vec<String> {
        let columns = "id int, k int, v int, s text, ts timestamp";
        let mut statements = Vec::new();
        for stream in &self.streams {
            let (name, delay_s) = (stream.name, stream.delay_us / SECOND_US);
            let watermark = format!("WATERMARK FOR ts AS ts - INTERVAL '{delay_s} seconds'");
            statements.push(format!("CREATE TABLE {name}_seen ({columns})"));
            statements.push(match &self.folder {
                None => format!("CREATE TABLE {name} ({columns}, {watermark}) APPEND ONLY"),
                Some(folder) => {
                    let path = folder.path().join(format!("{name}_*.csv"));
                    let mut options = format!(
                        "connector = 'file', path = '{}', follow = true",
                        path.to_string_lossy()
                    );
                    if stream.lateness_us > 0 {
                        let seconds = stream.lateness_us / SECOND_US;
                        let _ =
                            write!(options, ", allowed_lateness = INTERVAL '{seconds} seconds'");
                    }
                    if self.kind == Kind::IdleFiles {
                        options.push_str(", idle_timeout = INTERVAL '20 milliseconds'");
                    }
                    format!("CREATE SOURCE {name} ({columns}, {watermark}) WITH ({options})")
                }
            });
        }
        statements
    }

    /// The query over the streams, and over the tables of what was not late.
    pub fn over_streams(&self, sql: &str) -> String {
        sql.replace("{a}", "a").replace("{b}", "b")
    }

    pub fn over_mirrors(&self, sql: &str) -> String {
        sql.replace("{a}", "a_seen").replace("{b}", "b_seen")
    }

    /// Some more events; the statements that bring them in, if files do not.
    pub fn step(&mut self, random: &mut StdRng) -> Vec<String> {
        let mut statements = Vec::new();
        for stream in &mut self.streams {
            for split in 0..stream.splits.len() {
                let active = if stream.splits[split].silent { 0.2 } else { 0.85 };
                if random.random_bool(active) {
                    let rows = random.random_range(1..14);
                    let rows = (0..rows).map(|_| stream.event(split, random)).collect();
                    statements.extend(stream.take(self.kind, split, rows));
                }
            }
        }
        statements
    }

    /// One event in each split that is later than all windows.
    pub fn far_future(&mut self) -> Vec<String> {
        let mut statements = Vec::new();
        for stream in &mut self.streams {
            for split in 0..stream.splits.len() {
                let id = -(split as i64) - 1;
                let at_us = Some(FAR_FUTURE_US);
                let event = Event::new(id, 99, Some(1), Some("far"), at_us);
                statements.extend(stream.take(self.kind, split, vec![event]));
            }
        }
        statements
    }

    /// Statements that put what was not late into the tables of that, once.
    pub fn take_mirrored(&mut self) -> Vec<String> {
        let mut statements = Vec::new();
        for stream in &mut self.streams {
            let fresh = stream.events.iter_mut().filter(|event| !event.late && !event.mirrored);
            let rows: Vec<String> = fresh
                .map(|event| {
                    event.mirrored = true;
                    event.values()
                })
                .collect();
            if !rows.is_empty() {
                let (name, rows) = (stream.name, rows.join(", "));
                statements.push(format!("INSERT INTO {name}_seen VALUES {rows}"));
            }
            let gone = stream.events.iter_mut().filter(|event| event.late && event.mirrored);
            let gone: Vec<String> = gone
                .map(|event| {
                    event.mirrored = false;
                    event.id.to_string()
                })
                .collect();
            if !gone.is_empty() {
                let (name, ids) = (stream.name, gone.join(", "));
                statements.push(format!("DELETE FROM {name}_seen WHERE id IN ({ids})"));
            }
        }
        statements
    }

    fn stream(&self, name: &str) -> &Stream {
        self.streams.iter().find(|stream| stream.name == name).expect("one of the two")
    }

    /// Events so far.
    pub fn rows_of(&self, name: &str) -> usize {
        self.stream(name).events.len()
    }

    pub fn late_of(&self, name: &str) -> Vec<i64> {
        let late = self.stream(name).events.iter().filter(|event| event.late);
        late.map(|event| event.id).collect()
    }

    /// What the server found late.
    pub fn set_late(&mut self, name: &str, late: Vec<i64>) {
        let late: BTreeSet<i64> = late.into_iter().collect();
        let stream = self.streams.iter_mut().find(|stream| stream.name == name);
        let stream = stream.expect("one of the two");
        for event in &mut stream.events {
            event.late = late.contains(&event.id);
        }
        // What was late once stays late.
        assert!(stream.late_before.is_subset(&late), "late rows of {name} have gone");
        stream.late_before = late;
    }

    /// Late rows have been taken in again, all (or those with even numbers) but these.
    pub fn replayed(&mut self, name: &str, beyond: &[i64], even: bool) {
        let stream = self.streams.iter_mut().find(|stream| stream.name == name);
        let stream = stream.expect("one of the two");
        let wanted = |event: &&mut Event| event.late && (!even || event.id % 2 == 0);
        for event in stream.events.iter_mut().filter(wanted) {
            event.late = beyond.contains(&event.id);
            if !event.late {
                stream.late_before.remove(&event.id);
            }
        }
    }

    /// Other rows may be late from now on.
    pub fn forget_late(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.late_before.clear());
    }

    fn watermark_us(&self, name: &str) -> Option<i64> {
        let stream = self.stream(name);
        let splits = stream.splits.iter().map(|split| split.watermark_us);
        // Without rows there is none, and one split without holds all back. Those that are not
        // waited for do not.
        match self.kind {
            Kind::IdleFiles => splits.max().flatten(),
            _ => splits.min().flatten(),
        }
    }

    /// The stream's watermark, as a timestamp.
    pub fn watermark(&self, name: &str) -> Option<String> {
        self.watermark_us(name).map(at_text)
    }

    /// The least watermark of the streams that a query reads.
    pub fn closing_time(&self, streams: &str) -> Option<String> {
        let names = STREAMS.into_iter().filter(|name| streams.contains(name));
        let least = names.map(|name| self.watermark_us(name)).min().flatten();
        least.map(at_text)
    }
}

impl Split {
    fn new(path: String, silent: bool) -> Split {
        Split { path, clock_us: 0, watermark_us: None, silent }
    }
}

impl Event {
    fn new(id: i64, k: i64, v: Option<i64>, s: Option<&'static str>, at_us: Option<i64>) -> Event {
        Event { id, k, v, s, at_us, late: false, mirrored: false }
    }

    /// As SQL.
    fn values(&self) -> String {
        let v = self.v.map_or("NULL".to_owned(), |v| v.to_string());
        let s = self.s.map_or("NULL".to_owned(), |s| format!("'{s}'"));
        let at = self.at_us.map_or("NULL".to_owned(), |us| format!("'{}'", at_text(us)));
        format!("({}, {}, {v}, {s}, {at})", self.id, self.k)
    }

    /// As a line of csv.
    fn line(&self) -> String {
        let v = self.v.map_or(String::new(), |v| v.to_string());
        let at = self.at_us.map_or(String::new(), at_text);
        format!("{},{},{v},{},{at}\n", self.id, self.k, self.s.unwrap_or_default())
    }
}

impl Stream {
    fn event(&mut self, split: usize, random: &mut StdRng) -> Event {
        let split = &mut self.splits[split];
        split.clock_us += random.random_range(0..12) * SECOND_US;
        if random.random_bool(0.02) {
            split.clock_us += 300 * SECOND_US;
        }
        // Half seconds too: not everything falls on a boundary.
        let behind = random.random_range(0..=2 * self.disorder_us / SECOND_US) * SECOND_US / 2;
        let at_us = (!random.random_bool(0.03)).then_some(split.clock_us - behind);
        let v = (!random.random_bool(0.1)).then(|| random.random_range(0..8));
        let s = [None, Some("x"), Some("y"), Some("z")][random.random_range(0..4)];
        // Numbers go on over the splits.
        let id = self.events.len() as i64 * 100 + random.random_range(0..100);
        Event::new(id, random.random_range(0..4), v, s, at_us)
    }

    /// Events of a split come; the statement for a table.
    fn take(&mut self, kind: Kind, split: usize, mut events: Vec<Event>) -> Option<String> {
        // Numbers are given one after the other, so that they are different.
        let numbered = events.iter_mut().filter(|event| event.id >= 0);
        for (id, event) in (self.events.len() as i64..).zip(numbered) {
            event.id = id;
        }
        let split = &mut self.splits[split];
        let before_us = split.watermark_us;
        for event in &mut events {
            let Some(at_us) = event.at_us else { continue };
            let against = if kind == Kind::Table { before_us } else { split.watermark_us };
            event.late = against.is_some_and(|watermark| at_us < watermark);
            let reached = at_us - self.delay_us - self.lateness_us;
            split.watermark_us = split.watermark_us.max(Some(reached));
        }
        let statement = if kind == Kind::Table {
            let rows: Vec<String> = events.iter().map(Event::values).collect();
            Some(format!("INSERT INTO {} VALUES {}", self.name, rows.join(", ")))
        } else {
            let lines: String = events.iter().map(Event::line).collect();
            let file = std::fs::OpenOptions::new().append(true).open(&split.path);
            file.and_then(|mut file| file.write_all(lines.as_bytes())).expect("a file grows");
            None
        };
        self.events.extend(events);
        statement
    }
}
