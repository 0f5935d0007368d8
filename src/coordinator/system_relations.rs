//! The system relations as one statement sees them: the facts behind them, taken at its start.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::catalog::object::ObjectKind;
use crate::catalog::snapshot::Catalog;
use crate::catalog::system_views::{
    self, ErrorFact, MemoryFact, OperatorFact, PartialMatchFact, SessionFact, SettingFact,
    SinkFact, SourceFact, SystemFacts, WatermarkFact,
};
use crate::coordinator::command::{Connection, DatabaseInner, SessionShared};
use crate::coordinator::event_loop::{Figures, RunningFigures};
use crate::coordinator::execute::micros;
use crate::coordinator::running::Running;
use crate::coordinator::settings::{SettingKind, find};
use crate::plan::explain::describe;
use crate::plan::operators::operators;
use crate::sql::query::PlannedQuery;
use crate::sql::resolve::SystemSource;
use crate::sql::system_functions::Session;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::time::Watermark;

/// What functions may ask of their connection. Plans are kept by the connection, so the way back
/// to the server is weak.
pub(super) struct SessionDoor {
    pub database: Weak<DatabaseInner>,
    pub session: Arc<SessionShared>,
}

impl Session for SessionDoor {
    fn process_id(&self) -> i32 {
        self.session.process_id
    }

    fn connected_at_us(&self) -> i64 {
        micros(self.session.connected_at)
    }

    fn setting(&self, name: &str) -> Result<String> {
        self.session.settings().get(name).map(str::to_owned)
    }

    fn set_setting(&self, name: &str, value: &str, local: bool) -> Result<String> {
        let mut settings = self.session.settings();
        settings.set(name, value, local)?;
        settings.get(name).map(str::to_owned)
    }

    fn cancel(&self, process_id: i32) -> bool {
        let Some(database) = self.database.upgrade() else { return false };
        let sessions = database.sessions();
        let other = sessions.iter().find(|s| s.process_id == process_id);
        other.inspect(|s| s.cancel.cancel()).is_some()
    }

    fn transaction_id(&self) -> i64 {
        self.session.transaction_id.load(Ordering::Relaxed)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

/// Facts for the system relations that one query names.
#[derive(Default)]
pub(super) struct SystemContents {
    catalog: Arc<Catalog>,
    database: String,
    user: String,
    settings: Vec<SettingFact>,
    sessions: Vec<SessionFact>,
    sources: Vec<SourceFact>,
    errors: Vec<ErrorFact>,
    operators: Vec<OperatorFact>,
    watermarks: Vec<WatermarkFact>,
    memory: Vec<MemoryFact>,
    partial_matches: Vec<PartialMatchFact>,
    sinks: Vec<SinkFact>,
    epochs: Vec<(u64, i64)>,
}

impl SystemContents {
    pub fn rows(&self, schema: &str, name: &str) -> Result<Vec<RecordBatch>> {
        let relation = system_views::find(schema, name)
            .ok_or_else(|| Error::internal(format!("{schema}.{name} is not a system relation")))?;
        relation.rows(&SystemFacts {
            catalog: &self.catalog,
            database: &self.database,
            user: &self.user,
            settings: &self.settings,
            sessions: &self.sessions,
            sources: &self.sources,
            errors: &self.errors,
            operators: &self.operators,
            watermarks: &self.watermarks,
            memory: &self.memory,
            partial_matches: &self.partial_matches,
            sinks: &self.sinks,
            epochs: &self.epochs,
        })
    }
}

impl Connection {
    /// What the system relations of a query need; nothing for a query without any.
    pub(super) async fn system_contents(
        &self,
        running: &Running,
        catalog: &Arc<Catalog>,
        planned: &PlannedQuery,
    ) -> Result<SystemContents> {
        let named = system_relations(&planned.logical)?;
        if named.is_empty() {
            return Ok(SystemContents::default());
        }
        let names = |name: &str| named.iter().any(|n| n == name);
        let coordinator = &self.database.coordinator;
        let mut contents = SystemContents {
            catalog: catalog.clone(),
            database: self.session.database.clone(),
            user: self.session.user.clone(),
            ..SystemContents::default()
        };
        if names("settings") || names("pg_settings") {
            contents.settings = setting_facts(&self.session);
        }
        if names("pg_stat_activity") {
            contents.sessions = self.database.sessions().iter().map(|s| session_fact(s)).collect();
        }
        if names("sources") {
            let sources = running.wait(coordinator.sources()).await?;
            contents.sources = sources
                .into_iter()
                .map(|s| SourceFact {
                    object: s.object,
                    rows: s.rows,
                    malformed: s.malformed,
                    late: s.late,
                    started_at_us: s.started_at.map(|time| time.0),
                    finished: s.finished,
                })
                .collect();
        }
        if names("sinks") {
            contents.sinks = self.sink_facts(running).await?;
        }
        if names("operators") || names("memory") {
            let figures = running.wait(coordinator.figures(Vec::new())).await?;
            contents.operators = figures.dataflows.iter().flat_map(operator_facts).collect();
            contents.memory = memory_facts(&figures);
        }
        if names("watermarks") {
            let marks = running.wait(coordinator.watermarks()).await?;
            let figures = running.wait(coordinator.figures(Vec::new())).await?;
            let now_us = self.database.now().timestamp_micros();
            contents.watermarks = watermark_facts(catalog, &marks, &figures, now_us);
        }
        if names("partial_matches") {
            let figures = running.wait(coordinator.figures_with_partial_matches()).await?;
            contents.partial_matches =
                figures.dataflows.into_iter().flat_map(partial_match_facts).collect();
        }
        if names("epochs") {
            let epochs = running.wait(coordinator.epochs()).await?;
            contents.epochs = epochs.iter().map(|(epoch, time)| (epoch.0, time.0)).collect();
        }
        if names("errors") {
            let errors = running.wait(coordinator.errors()).await?;
            let database = &self.session.database;
            contents.errors = errors
                .into_iter()
                // A subscription is of no database.
                .filter(|e| e.object.database == *database || e.object.database.is_empty())
                .map(|e| ErrorFact {
                    time_us: e.time.0,
                    object: e.object.name,
                    place: e.place,
                    sqlstate: e.sqlstate,
                    message: e.message,
                    row: e.row,
                    weight: e.weight,
                })
                .collect();
        }
        Ok(contents)
    }
}

/// Of sources and tables that declare a watermark, of views whose columns are bounded by one, and of
/// the operators of all views that have one: the least over the workers.
fn watermark_facts(
    catalog: &Catalog,
    marks: &BTreeMap<ObjectId, Watermark>,
    figures: &Figures,
    now_us: i64,
) -> Vec<WatermarkFact> {
    let fact = |object: ObjectId, operator: Option<(usize, String)>, mark: Option<Watermark>| {
        let lag =
            |mark: &Watermark| (*mark != Watermark::END).then(|| now_us.saturating_sub(mark.0.0));
        let watermark_us = mark.map(|mark| mark.0.0);
        WatermarkFact { object, operator, watermark_us, lag_us: mark.as_ref().and_then(lag) }
    };
    let in_time = catalog.objects().filter(|object| match &object.kind {
        ObjectKind::Source(source) => source.watermark.is_some(),
        ObjectKind::Table(table) => table.watermark.is_some(),
        ObjectKind::MaterializedView(view) => !view.time_bounds.is_empty(),
        ObjectKind::View(_) | ObjectKind::Sink(_) => false,
    });
    let mut facts: Vec<WatermarkFact> =
        in_time.map(|object| fact(object.id, None, marks.get(&object.id).copied())).collect();
    for running in &figures.dataflows {
        for (number, operator) in operators(&running.plan).into_iter().enumerate() {
            let of_worker = running
                .workers
                .iter()
                .map(|worker| worker.operators.get(number).and_then(|figures| figures.watermark));
            // A worker without one holds the others back.
            let least = of_worker.min().flatten();
            if least.is_some() {
                facts.push(fact(running.object, Some((number, describe(operator))), least));
            }
        }
    }
    facts
}

/// One for each operator and worker, the result behind the others.
fn operator_facts(running: &RunningFigures) -> Vec<OperatorFact> {
    let mut texts: Vec<String> = operators(&running.plan).into_iter().map(describe).collect();
    texts.push("Result".to_owned());
    let mut facts = Vec::new();
    for (worker, figures) in running.workers.iter().enumerate() {
        for (operator, (figure, text)) in figures.operators.iter().zip(&texts).enumerate() {
            facts.push(OperatorFact {
                object: running.object,
                operator,
                worker,
                description: text.clone(),
                rows_in: figure.rows_in,
                rows_out: figure.rows_out,
                state_rows: figure.state_rows,
                state_bytes: figure.state_bytes,
                disk_bytes: figure.disk_bytes,
                busy_us: figure.busy.as_micros() as u64,
                age_us: figures.age.as_micros() as u64,
                lag_epochs: figure.lag_epochs,
                watermark_us: figure.watermark.map(|watermark| watermark.0.0),
            });
        }
    }
    facts
}

/// Those of all workers.
fn partial_match_facts(running: RunningFigures) -> Vec<PartialMatchFact> {
    let mut facts = Vec::new();
    for (worker, figures) in running.workers.into_iter().enumerate() {
        facts.extend(figures.partial_matches.into_iter().map(|(operator, partial)| {
            PartialMatchFact { object: running.object, operator, worker, partial }
        }));
    }
    facts
}

fn memory_facts(figures: &Figures) -> Vec<MemoryFact> {
    let tables = figures.tables.iter().map(|table| MemoryFact {
        object: table.object,
        rows: table.rows as u64,
        operators: 0,
        state_rows: table.rows as u64,
        bytes: table.memory_bytes as u64,
        disk_bytes: table.disk_bytes as u64,
    });
    let views = figures.dataflows.iter().map(|running| {
        let all = || running.workers.iter().flat_map(|worker| &worker.operators);
        let results = running.workers.iter().filter_map(|worker| worker.operators.last());
        MemoryFact {
            object: running.object,
            rows: results.map(|figure| figure.state_rows).sum(),
            operators: operators(&running.plan).len() as u64 + 1,
            state_rows: all().map(|figure| figure.state_rows).sum(),
            bytes: all().map(|figure| figure.state_bytes).sum(),
            disk_bytes: all().map(|figure| figure.disk_bytes).sum(),
        }
    });
    tables.chain(views).collect()
}

/// Names of the system relations in a plan, without their schemas.
fn system_relations(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut names = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = scan.source.downcast_ref::<SystemSource>()
        {
            names.push(source.relation.name.to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

fn setting_facts(session: &SessionShared) -> Vec<SettingFact> {
    let settings = session.settings();
    settings
        .all()
        .into_iter()
        .map(|(name, value)| {
            let spec = find(&name);
            SettingFact {
                default: spec.map_or_else(String::new, |s| s.default.to_owned()),
                kind: match spec.map(|s| s.kind) {
                    Some(SettingKind::Boolean | SettingKind::AlwaysOn) => "bool",
                    Some(SettingKind::Integer { .. } | SettingKind::Duration) => "integer",
                    Some(SettingKind::Choice(_)) => "enum",
                    _ => "string",
                },
                doc: spec.map_or("A setting of the client's own.", |s| s.doc),
                settable: spec.is_none_or(|s| s.kind != SettingKind::ReadOnly),
                name,
                value,
            }
        })
        .collect()
}

fn session_fact(session: &SessionShared) -> SessionFact {
    let activity = session.activity().clone();
    let application_name =
        session.settings().get("application_name").unwrap_or_default().to_owned();
    SessionFact {
        process_id: session.process_id,
        database: session.database.clone(),
        user: session.user.clone(),
        application_name,
        connected_at_us: micros(session.connected_at),
        query_started_at_us: activity.started_at.map(micros),
        state: activity.state,
        query: activity.query,
    }
}
