//! Every metric: its name, kind and meaning, and how its value is found.
//!
//! [`METRICS`] is the one list; `/metrics` prints it as Prometheus text. A counter that code
//! counts up is a static of this file beside its entry.

use std::fmt::Write as _;
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
pub static LATE_ROWS: AtomicU64 = AtomicU64::new(0);

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

/// All metrics as Prometheus text. `clock` was made when the server started.
pub fn prometheus_text(clock: &Clock) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let Metric { name, doc, .. } = metric;
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        let value = (metric.value)(clock);
        write!(text, "# HELP {name} {doc}\n# TYPE {name} {kind}\n{name} {value}\n")
            .expect("writing to a string cannot fail");
    }
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
        assert_eq!(text.lines().count(), METRICS.len() * 3);
    }
}
