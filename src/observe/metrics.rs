//! Every metric: its name, kind and meaning, and how its value is found.
//!
//! [`METRICS`] is the one list; `/metrics` prints it as Prometheus text. A counter that code
//! counts up is a static of this file beside its entry.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::observe::clock::Clock;
use crate::observe::process;

/// How a metric's value may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows while the process lives.
    Counter,
    Gauge,
}

/// One entry of the list.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Prometheus style: the unit last, `_total` for counters.
    pub name: &'static str,
    pub kind: MetricKind,
    pub doc: &'static str,
    pub value: fn(&Clock) -> f64,
}

/// Checkpoints that are durable.
pub static CHECKPOINTS: AtomicU64 = AtomicU64::new(0);
/// Attempts at a checkpoint that failed.
pub static CHECKPOINT_FAILURES: AtomicU64 = AtomicU64::new(0);
/// Bytes of files of checkpoints.
pub static CHECKPOINT_BYTES: AtomicU64 = AtomicU64::new(0);
/// How long the last checkpoint took.
pub static CHECKPOINT_DURATION_US: AtomicU64 = AtomicU64::new(0);
/// How long the stream stood still for the last checkpoint.
pub static CHECKPOINT_STALL_US: AtomicU64 = AtomicU64::new(0);

/// Bytes of state in files of the local disk.
pub static STATE_DISK_BYTES: AtomicU64 = AtomicU64::new(0);
/// Bytes of state that went to files of the local disk.
pub static STATE_SPILLED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Rows that came behind the watermark of their source or table.
static LATE_ROWS: AtomicU64 = AtomicU64::new(0);

/// What is known of the event time of one source or table.
#[derive(Clone, Copy, Debug, Default)]
struct EventTimeFigures {
    late_rows: u64,
    replayed_rows: u64,
    /// Microseconds since 1970; `None`: none yet, or the end of time.
    watermark_us: Option<i64>,
}

/// By database, schema and name. Dropped ones go, so it is no longer than the catalog.
static EVENT_TIME: Mutex<BTreeMap<[String; 3], EventTimeFigures>> = Mutex::new(BTreeMap::new());

fn event_time(name: [&str; 3], change: impl FnOnce(&mut EventTimeFigures)) {
    let mut figures = EVENT_TIME.lock().expect("nobody panics while holding it");
    change(figures.entry(name.map(str::to_owned)).or_default());
}

/// Counts late rows of a source or table (database, schema, name).
pub fn count_late_rows(name: [&str; 3], rows: u64) {
    LATE_ROWS.fetch_add(rows, Ordering::Relaxed);
    event_time(name, |figures| figures.late_rows += rows);
}

/// Counts late rows that were taken in again.
pub fn count_replayed_rows(name: [&str; 3], rows: u64) {
    event_time(name, |figures| figures.replayed_rows += rows);
}

/// The watermark has moved; `None`: to the end of time.
pub fn set_watermark(name: [&str; 3], watermark_us: Option<i64>) {
    event_time(name, |figures| figures.watermark_us = watermark_us);
}

/// The source or table is gone.
pub fn forget_event_time(name: [&str; 3]) {
    let mut figures = EVENT_TIME.lock().expect("nobody panics while holding it");
    figures.remove(&name.map(str::to_owned));
}

fn count(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

/// All metrics, in the order of the documentation.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "millstream_uptime_seconds",
        kind: MetricKind::Gauge,
        doc: "Time since the server was started.",
        value: |clock| clock.elapsed().as_secs_f64(),
    },
    Metric {
        name: "process_cpu_seconds_total",
        kind: MetricKind::Counter,
        doc: "User and system time of the process.",
        value: |_| process::cpu_time().as_secs_f64(),
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: MetricKind::Gauge,
        doc: "Memory of the process that is in RAM.",
        value: |_| process::resident_bytes() as f64,
    },
    Metric {
        name: "process_resident_memory_peak_bytes",
        kind: MetricKind::Gauge,
        doc: "The most memory of the process that was in RAM.",
        value: |_| process::resident_peak_bytes() as f64,
    },
    Metric {
        name: "millstream_state_disk_bytes",
        kind: MetricKind::Gauge,
        doc: "Bytes of state in files of the local disk because memory is short.",
        value: |_| count(&STATE_DISK_BYTES),
    },
    Metric {
        name: "millstream_state_spilled_bytes_total",
        kind: MetricKind::Counter,
        doc: "Bytes of state that went to the local disk.",
        value: |_| count(&STATE_SPILLED_BYTES),
    },
    Metric {
        name: "millstream_late_rows_total",
        kind: MetricKind::Counter,
        doc: "Rows that came behind the watermark of their source or table.",
        value: |_| count(&LATE_ROWS),
    },
    Metric {
        name: "millstream_checkpoints_total",
        kind: MetricKind::Counter,
        doc: "Checkpoints that are durable.",
        value: |_| count(&CHECKPOINTS),
    },
    Metric {
        name: "millstream_checkpoint_failures_total",
        kind: MetricKind::Counter,
        doc: "Attempts at a checkpoint that failed and were made again.",
        value: |_| count(&CHECKPOINT_FAILURES),
    },
    Metric {
        name: "millstream_checkpoint_bytes_total",
        kind: MetricKind::Counter,
        doc: "Bytes of the files that checkpoints have written.",
        value: |_| count(&CHECKPOINT_BYTES),
    },
    Metric {
        name: "millstream_checkpoint_duration_seconds",
        kind: MetricKind::Gauge,
        doc: "Time from the end of the last checkpoint's epoch until it was durable.",
        value: |_| count(&CHECKPOINT_DURATION_US) / 1e6,
    },
    Metric {
        name: "millstream_checkpoint_stall_seconds",
        kind: MetricKind::Gauge,
        doc: "The longest time for which a worker stood still for the last checkpoint.",
        value: |_| count(&CHECKPOINT_STALL_US) / 1e6,
    },
];

/// A metric with a line for each source and table that has a watermark; its labels are database,
/// schema and name.
struct EventTimeMetric {
    name: &'static str,
    kind: MetricKind,
    doc: &'static str,
    /// At a time in microseconds since 1970; `None`: there is nothing to tell.
    value: fn(&EventTimeFigures, i64) -> Option<f64>,
}

const EVENT_TIME_METRICS: [EventTimeMetric; 3] = [
    EventTimeMetric {
        name: "millstream_source_late_rows_total",
        kind: MetricKind::Counter,
        doc: "Rows of the source or table that came behind its watermark.",
        value: |figures, _| Some(figures.late_rows as f64),
    },
    EventTimeMetric {
        name: "millstream_source_replayed_rows_total",
        kind: MetricKind::Counter,
        doc: "Late rows of the source or table that REPLAY LATE has taken in again.",
        value: |figures, _| Some(figures.replayed_rows as f64),
    },
    EventTimeMetric {
        name: "millstream_source_watermark_lag_seconds",
        kind: MetricKind::Gauge,
        doc: "How long ago the watermark of the source or table is.",
        value: |figures, now_us| Some(now_us.saturating_sub(figures.watermark_us?) as f64 / 1e6),
    },
];

fn event_time_text(text: &mut String, now_us: i64) {
    let figures = EVENT_TIME.lock().expect("nobody panics while holding it").clone();
    for EventTimeMetric { name: metric, kind, doc, value } in EVENT_TIME_METRICS {
        let kind = kind_text(kind);
        write!(text, "# HELP {metric} {doc}\n# TYPE {metric} {kind}\n")
            .expect("writing to a string cannot fail");
        for ([database, schema, name], figures) in &figures {
            let Some(value) = value(figures, now_us) else { continue };
            let [database, schema, name] = [database, schema, name].map(|name| label(name));
            writeln!(
                text,
                "{metric}{{database=\"{database}\",schema=\"{schema}\",name=\"{name}\"}} {value}"
            )
            .expect("writing to a string cannot fail");
        }
    }
}

/// A label's value as Prometheus reads it.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn kind_text(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
    }
}

/// All metrics as Prometheus text. `clock` was made when the server started.
pub fn prometheus_text(clock: &Clock) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let Metric { name, doc, .. } = metric;
        let kind = kind_text(metric.kind);
        let value = (metric.value)(clock);
        write!(text, "# HELP {name} {doc}\n# TYPE {name} {kind}\n{name} {value}\n")
            .expect("writing to a string cannot fail");
    }
    event_time_text(&mut text, clock.now().0);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_follows_its_own_rules() {
        let mut names: Vec<_> = METRICS.iter().map(|m| m.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert!(metric.doc.ends_with('.'), "{}: a sentence", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == MetricKind::Counter, "{}", metric.name);
        }
    }

    #[test]
    fn the_reference_page_lists_the_metrics() {
        let mut page = "# Metrics\n\nMade from the list in `src/observe/metrics.rs`; served as \
                        Prometheus text at `/metrics`.\n\n| name | kind | meaning |\n|---|---|---|\n"
            .to_owned();
        for Metric { name, kind, doc, .. } in METRICS {
            let kind = format!("{kind:?}").to_lowercase();
            page += &format!("| `{name}` | {kind} | {doc} |\n");
        }
        for EventTimeMetric { name, kind, doc, .. } in EVENT_TIME_METRICS {
            let kind = kind_text(kind);
            page += &format!("| `{name}{{database,schema,name}}` | {kind} | {doc} |\n");
        }
        expect_test::expect_file!["../../docs/reference/metrics.md"].assert_eq(&page);
    }

    #[test]
    fn text_has_a_line_for_each_metric() {
        let text = prometheus_text(&Clock::for_test());
        assert!(text.starts_with(
            "# HELP millstream_uptime_seconds Time since the server was started.\n\
             # TYPE millstream_uptime_seconds gauge\n\
             millstream_uptime_seconds 0\n"
        ));
        let of_sources = |line: &&str| line.contains("millstream_source_");
        assert_eq!(text.lines().filter(|line| !of_sources(line)).count(), METRICS.len() * 3);
    }

    #[test]
    fn sources_have_lines_of_their_own() {
        let name = ["db", "public", "a \"b\""];
        count_late_rows(name, 2);
        count_late_rows(name, 1);
        count_replayed_rows(name, 1);
        set_watermark(name, Some(1_000_000));
        let shown = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| line.contains("database=\"db\""));
            lines.map(str::to_owned).collect()
        };
        let mut text = String::new();
        event_time_text(&mut text, 3_500_000);
        let labels = "{database=\"db\",schema=\"public\",name=\"a \\\"b\\\"\"}";
        let expected = [
            format!("millstream_source_late_rows_total{labels} 3"),
            format!("millstream_source_replayed_rows_total{labels} 1"),
            format!("millstream_source_watermark_lag_seconds{labels} 2.5"),
        ];
        assert_eq!(shown(&text), expected);
        set_watermark(name, None);
        let mut text = String::new();
        event_time_text(&mut text, 0);
        assert_eq!(shown(&text), expected[..2]);
        forget_event_time(name);
        let mut text = String::new();
        event_time_text(&mut text, 0);
        assert!(shown(&text).is_empty());
    }
}
