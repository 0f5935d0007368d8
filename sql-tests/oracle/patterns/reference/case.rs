//! A case: rows, and the statement that looks for matches in them.

use std::fmt::Write as _;

use super::expression::{Condition, Measure};
use super::pattern::{LETTERS, Of, Pattern};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Contiguity {
    Strict,
    Relaxed,
    RelaxedAny,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RowsPerMatch {
    One,
    ShowEmpty,
    OmitEmpty,
    WithUnmatched,
}

#[derive(Clone, Copy)]
pub(super) enum Skip {
    PastLastRow,
    ToNextRow,
    ToFirst(Of),
    ToLast(Of),
}

#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) at_s: i64,
    pub(super) v: Option<i64>,
}

pub struct Case {
    pub(super) pattern: Pattern,
    pub(super) contiguity: Contiguity,
    pub(super) conditions: [Option<Condition>; 3],
    pub(super) measures: Vec<Measure>,
    pub(super) rows_per_match: RowsPerMatch,
    pub(super) skip: Skip,
    pub(super) within_s: Option<i64>,
    pub(super) timeout_rows: bool,
    pub(super) partial_rows: bool,
    pub(super) partitions: Vec<Vec<Row>>,
}

impl Case {
    pub fn sql(&self) -> String {
        let mut values = Vec::new();
        for (p, rows) in self.partitions.iter().enumerate() {
            for Row { id, at_s, v } in rows {
                let v = v.map_or("NULL::int".to_owned(), |v| v.to_string());
                values.push(format!("({p}, {id}, '2026-01-01 10:00:{at_s:02}'::timestamp, {v})"));
            }
        }
        // In no order.
        values.reverse();
        let measures = self.measures.iter().enumerate();
        let measures = measures.map(|(i, m)| format!("({})::text AS m{i}", m.sql()));
        let names: Vec<String> = (0..self.measures.len()).map(|i| format!("m{i}")).collect();
        let rows = match self.rows_per_match {
            RowsPerMatch::One => "ONE ROW PER MATCH",
            RowsPerMatch::ShowEmpty => "ALL ROWS PER MATCH SHOW EMPTY MATCHES",
            RowsPerMatch::OmitEmpty => "ALL ROWS PER MATCH OMIT EMPTY MATCHES",
            RowsPerMatch::WithUnmatched => "ALL ROWS PER MATCH WITH UNMATCHED ROWS",
        };
        let id = if self.rows_per_match == RowsPerMatch::One { "" } else { ", id" };
        let skip = match self.skip {
            Skip::PastLastRow => "PAST LAST ROW".to_owned(),
            Skip::ToNextRow => "TO NEXT ROW".to_owned(),
            Skip::ToFirst(of) => format!("TO FIRST {}", of.name()),
            Skip::ToLast(of) => format!("TO LAST {}", of.name()),
        };
        let contiguity = match self.contiguity {
            Contiguity::Strict => "",
            Contiguity::Relaxed => "RELAXED ",
            Contiguity::RelaxedAny => "RELAXED ANY ",
        };
        let mut behind = String::new();
        if let Some(within_s) = self.within_s {
            let _ = write!(behind, " WITHIN INTERVAL '{within_s}' SECOND");
        }
        behind.push_str(if self.timeout_rows { " EMIT TIMEOUT ROWS" } else { "" });
        behind.push_str(if self.partial_rows { " EMIT PARTIAL MATCHES" } else { "" });
        let defined = self.conditions.iter().zip(LETTERS);
        let defined =
            defined.filter_map(|(c, name)| Some(format!("{name} AS {}", c.as_ref()?.sql())));
        let defined: Vec<String> = defined.collect();
        let define = match defined.is_empty() {
            true => String::new(),
            false => format!(" DEFINE {}", defined.join(", ")),
        };
        format!(
            "SELECT p{id}, {} FROM (SELECT * FROM (VALUES {}) AS d(p, id, at, v)) AS d \
             MATCH_RECOGNIZE (PARTITION BY p ORDER BY at, id MEASURES {} {rows} \
             AFTER MATCH SKIP {skip} PATTERN {contiguity}({}){behind} SUBSET u = (a, b){define})",
            names.join(", "),
            values.join(", "),
            measures.collect::<Vec<_>>().join(", "),
            self.pattern.sql()
        )
    }
}
