//! EXPLAIN of dataflows: what operators do and keep, what grows without bound; with ANALYZE of a
//! running view, what they have done and hold.
//!
//! `busy` is the operator's share of the time since the view was built, of all workers together;
//! `lag` is how many closed epochs it has not finished, `watermark` what it has announced to who
//! reads it. With WORKERS there is one line more for
//! each worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::catalog::object::{Object, ObjectKind};
use crate::catalog::snapshot::Catalog;
use crate::coordinator::command::Connection;
use crate::coordinator::ddl::{self, noun_of, wrong_kind};
use crate::coordinator::event_loop::RunningFigures;
use crate::coordinator::event_loop::indexes::join_indexes;
use crate::coordinator::event_loop::sharing::share_all;
use crate::coordinator::running::Running;
use crate::dataflow::metered::{DataflowFigures, OperatorFigures};
use crate::plan::dot::dot;
use crate::plan::explain::{Explained, Note};
use crate::plan::growth::{Endless, growing};
use crate::plan::node::Plan;
use crate::plan::operators::operators;
use crate::plan::share::Shareable;
use crate::sql::bind::PlanContext;
use crate::sql::statement::{CreateMaterializedView, Explain, ExplainFormat, Name, Noun};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::text::datetime::write_timestamp;
use crate::types::time::{EventTime, Watermark};

impl Connection {
    /// EXPLAIN [ANALYZE] MATERIALIZED VIEW.
    pub(super) async fn explain_view(
        &self,
        running: &Running,
        context: &PlanContext,
        explain: &Explain,
        name: &Name,
    ) -> Result<String> {
        let object = self.resolve(context, name)?;
        let ObjectKind::MaterializedView(view) = &object.kind else {
            return Err(wrong_kind(&object, Noun::MaterializedView).position(name.position));
        };
        let figures = running.wait(self.database.coordinator.figures(vec![object.id])).await?;
        let found = figures.dataflows.into_iter().find(|f| f.object == object.id);
        match (found, explain.analyze) {
            (Some(found), true) if explain.format == ExplainFormat::Text => {
                Ok(analyzed(&context.catalog, &found, explain))
            }
            (Some(found), _) => Ok(explained(&context.catalog, &found.plan, explain)),
            (None, true) => Err(Error::user(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("materialized view \"{}\" is not running", object.name.name),
            )
            .hint("SELECT from it to see why.")),
            (None, false) => {
                let context = PlanContext {
                    search_path: view.search_path.clone(),
                    sql: view.query_sql.as_str().into(),
                    ..context.clone()
                };
                let query = crate::sql::parse::parse_query(&view.query_sql)?;
                let plan = ddl::view_plan(&context.plan_query(&query, &[])?, &object)?;
                Ok(explained(&context.catalog, &plan, explain))
            }
        }
    }

    /// The context with the rows that tables and materialized views have now.
    ///
    /// # Errors
    /// When the server stops.
    pub(super) async fn with_row_counts(
        &self,
        running: &Running,
        context: &PlanContext,
    ) -> Result<PlanContext> {
        let figures = running.wait(self.database.coordinator.figures(vec![])).await?;
        let mut counts: BTreeMap<ObjectId, u64> =
            figures.tables.iter().map(|table| (table.object, table.rows as u64)).collect();
        for dataflow in &figures.dataflows {
            let result = operators(&dataflow.plan).len();
            let rows = dataflow.workers.iter().filter_map(|worker| worker.operators.get(result));
            counts.insert(dataflow.object, rows.map(|figures| figures.state_rows).sum());
        }
        // Of others nothing is read.
        counts.retain(|id, rows| *rows > 0 && context.catalog.get(*id).is_some());
        Ok(PlanContext { row_counts: Arc::new(counts), ..context.clone() })
    }

    /// EXPLAIN CREATE MATERIALIZED VIEW.
    pub(super) async fn explain_create_view(
        &self,
        running: &Running,
        context: &PlanContext,
        create: &CreateMaterializedView,
        explain: &Explain,
    ) -> Result<String> {
        let context = self.with_row_counts(running, context).await?;
        let (object, planned) = ddl::explained_view(&context, create)?;
        let mut plan = ddl::view_plan(&planned, &object)?;
        let figures = running.wait(self.database.coordinator.figures(vec![])).await?;
        let views = figures.dataflows.iter().filter_map(|dataflow| {
            let view = context.catalog.get(dataflow.object)?;
            let near = view.name.database == context.database;
            let (name, plan) = (view.name.name.as_str(), dataflow.plan.as_ref());
            near.then_some(Shareable { object: view.id, name, plan })
        });
        let indexes = join_indexes(&context.catalog, &context.database, |_| true);
        share_all(&mut plan, &views.collect::<Vec<_>>(), &indexes);
        Ok(explained(&context.catalog, &plan, explain))
    }
}

/// SQLSTATE 0A000: nothing runs yet.
pub(super) fn analyze_of_definition() -> Error {
    Error::unsupported("EXPLAIN ANALYZE of a view that does not run")
        .hint("Create it, then use EXPLAIN ANALYZE MATERIALIZED VIEW.")
}

/// A dataflow as text.
pub(super) fn explained(catalog: &Catalog, plan: &Plan, explain: &Explain) -> String {
    if explain.format == ExplainFormat::Dot {
        return dot(plan);
    }
    let verbose = explain.verbose;
    let text = Explained { plan, verbose, notes: None }.to_string();
    with_growth(catalog, plan, text)
}

fn analyzed(catalog: &Catalog, running: &RunningFigures, explain: &Explain) -> String {
    let plan = running.plan.as_ref();
    let notes: Vec<Note> = (0..=operators(plan).len())
        .map(|number| {
            let age = |worker: &DataflowFigures| worker.age;
            let of = |worker: &DataflowFigures| {
                worker.operators.get(number).copied().unwrap_or_default()
            };
            let all = running.workers.iter().map(of).reduce(OperatorFigures::and);
            let all = all.unwrap_or_default();
            let below = running.workers.iter().enumerate().map(|(index, worker)| {
                format!("worker {index}: {}", figures_text(&of(worker), age(worker)))
            });
            let mut below: Vec<String> = if explain.workers { below.collect() } else { vec![] };
            below.extend(counted_text(&running.workers, number));
            Note {
                behind: format!(" | {}", figures_text(&all, running.workers.iter().map(age).sum())),
                below,
            }
        })
        .collect();
    let text = Explained { plan, verbose: explain.verbose, notes: Some(&notes) }.to_string();
    with_growth(catalog, plan, text)
}

fn with_growth(catalog: &Catalog, plan: &Plan, mut text: String) -> String {
    for line in growing(plan, &|object| endless(catalog, object)) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Whether rows of an object never stop coming, and never go. A table keeps its rows itself: what
/// is kept for it is in proportion to it.
fn endless(catalog: &Catalog, object: ObjectId) -> Option<Endless> {
    let object: &Object = catalog.get(object)?;
    let watermark = match &object.kind {
        ObjectKind::Source(source) if !source.bounded => &source.watermark,
        _ => return None,
    };
    debug_assert!(noun_of(object) == Noun::Source);
    let watermark = watermark.as_ref().map(|watermark| watermark.column.clone());
    Some(Endless { name: object.name.name.clone(), watermark })
}

/// What an operator counts beside rows, of all workers together.
fn counted_text(workers: &[DataflowFigures], number: usize) -> Option<String> {
    let mut sums: Vec<(String, u64)> = Vec::new();
    for (name, count) in workers.iter().filter_map(|w| w.counted.get(number)).flatten() {
        match sums.iter_mut().find(|(other, _)| other == name) {
            Some((_, sum)) => *sum += count,
            None => sums.push((name.clone(), *count)),
        }
    }
    let texts: Vec<String> = sums.iter().map(|(name, sum)| format!("{name} {sum}")).collect();
    (!texts.is_empty()).then(|| texts.join(" | "))
}

fn figures_text(figures: &OperatorFigures, age: Duration) -> String {
    let share =
        if age.is_zero() { 0.0 } else { figures.busy.as_secs_f64() / age.as_secs_f64() * 100.0 };
    let watermark = match figures.watermark {
        None => String::new(),
        Some(Watermark::END) => " | watermark infinity".to_owned(),
        Some(Watermark(EventTime(us))) => {
            let mut text = BytesMut::new();
            write_timestamp(us, &mut text);
            format!(" | watermark {}", String::from_utf8_lossy(&text))
        }
    };
    let on_disk = match figures.disk_bytes {
        0 => String::new(),
        bytes => format!(" and {} on disk", bytes_text(bytes)),
    };
    format!(
        "rows {} in, {} out | state {} rows, {}{on_disk} | busy {share:.1} % | lag {}{watermark}",
        figures.rows_in,
        figures.rows_out,
        figures.state_rows,
        bytes_text(figures.state_bytes),
        figures.lag_epochs
    )
}

/// `512 B`, `1.5 KiB`, `20.0 MiB`.
fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units() {
        assert_eq!(bytes_text(0), "0 B");
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(1536), "1.5 KiB");
        assert_eq!(bytes_text(20 << 20), "20.0 MiB");
        assert_eq!(bytes_text(5000 << 40), "5000.0 TiB");
        let figures = OperatorFigures {
            rows_in: 7,
            rows_out: 3,
            state_rows: 2,
            state_bytes: 96,
            disk_bytes: 0,
            busy: Duration::from_millis(25),
            lag_epochs: 0,
            watermark: None,
        };
        assert_eq!(
            figures_text(&figures, Duration::from_secs(1)),
            "rows 7 in, 3 out | state 2 rows, 96 B | busy 2.5 % | lag 0"
        );
        let figures = OperatorFigures { watermark: Some(Watermark(EventTime(0))), ..figures };
        let text = figures_text(&figures, Duration::from_secs(1));
        assert!(text.ends_with("| lag 0 | watermark 1970-01-01 00:00:00"), "{text}");
    }
}
