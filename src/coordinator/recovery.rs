//! From a storage to a coordinator that answers as before.
//!
//! 1. The storage is claimed and read (`storage::recovery`); catalog and tables are built from it
//!    (`ground.rs`).
//! 2. The coordinator starts over them, with the sources.
//! 3. If the log brought anything, a checkpoint is made before anything else is written: what was
//!    torn off the log's end can then never come between older and newer records.
//! 4. Materialized views are planned again, each over the objects that its definition names and
//!    with the session settings of its creation, and computed from tables and sources: those
//!    that read no other view first. A view that cannot be built stays in the catalog and says
//!    why.
//! 5. Sources are read from the beginning. The server waits until they are as far as the last
//!    checkpoint knew, so that a view does not show less than before; but not for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;

use crate::catalog::object::{Object, ObjectKind, SourceObject, ViewObject};
use crate::catalog::snapshot::Catalog;
use crate::coordinator::ddl::{self, open_connector, source_columns, watermark_spec};
use crate::coordinator::event_loop::{Coordinator, CoordinatorConfig, DurableStart};
use crate::coordinator::ground::GroundState;
use crate::dataflow::operators;
use crate::observe::clock::Clock;
use crate::plan::node::{Plan, SourceSpec};
use crate::sql::bind::PlanContext;
use crate::sql::parse::{parse_expression, parse_query};
use crate::storage::log::Log;
use crate::storage::recovery::recover;
use crate::storage::store::Store;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

/// How long a start waits for sources to be where they were.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);
/// How often it looks.
const CATCH_UP_LOOK: Duration = Duration::from_millis(5);

/// Opens a storage and starts a coordinator over it; when this returns, everything answers.
///
/// # Errors
/// When the storage cannot be claimed, read or written.
pub async fn open(
    config: CoordinatorConfig,
    clock: Clock,
    store: Store,
    checkpoint_interval: Duration,
) -> Result<Coordinator> {
    let began = clock.elapsed();
    let identity = uuid::Uuid::new_v4().to_string();
    let mut recovered = recover(store.clone(), &identity).await?;
    let (records, torn) = (recovered.records.len(), recovered.torn);
    let built = tokio::task::spawn_blocking(move || {
        GroundState::build(&mut recovered).map(|ground| (ground, recovered))
    });
    let (ground, recovered) =
        built.await.map_err(|error| Error::internal(format!("recovery failed: {error}")))??;
    let catalog = Arc::new(ground.catalog.clone());
    let tables = ground.tables.len();
    let progress = recovered.manifest.sources.clone();

    let mut sources = Vec::new();
    let mut failed = Vec::new();
    for object in catalog.objects() {
        let ObjectKind::Source(source) = &object.kind else { continue };
        match source_spec(&catalog, object, source) {
            Ok(spec) => match open_connector(source) {
                Ok(connector) => sources.push((spec, connector)),
                Err(error) => failed.push((object.clone(), error)),
            },
            Err(error) => failed.push((object.clone(), error)),
        }
    }
    let runtime = tokio::runtime::Handle::current();
    let (generation, number) = (recovered.generation, recovered.log_number);
    let (sequence, log_runtime) = (recovered.sequence, runtime.clone());
    let durable = DurableStart {
        log: Box::new(move |listener| {
            Log::start(store, log_runtime, generation, number, sequence, listener)
        }),
        checkpointer: recovered.checkpointer,
        checkpoint_interval,
        sequence,
        runtime,
    };
    let coordinator =
        Coordinator::start_from(config, clock.clone(), ground, sources, Some(durable))?;
    let restored = async {
        if records > 0 || torn {
            coordinator.checkpoint().await?;
        }
        for (object, error) in failed {
            tell_failed(&coordinator, object, error);
        }
        let read = restore_views(&coordinator, &catalog).await;
        catch_up(&coordinator, &clock, &catalog, &progress, &read).await
    };
    if let Err(error) = restored.await {
        let stopping = coordinator.clone();
        // It ends its threads; that it fails is the lesser evil.
        let _ = tokio::task::spawn_blocking(move || stopping.stop()).await;
        return Err(error);
    }
    if catalog.objects().next().is_some() {
        let views = catalog.objects().filter(|o| is_maintained(o)).count();
        let elapsed_ms = (clock.elapsed() - began).as_millis();
        tracing::info!(tables, views, records, elapsed_ms, "recovered, first fresh answer");
    }
    Ok(coordinator)
}

fn is_maintained(object: &Object) -> bool {
    matches!(object.kind, ObjectKind::MaterializedView(_))
}

fn tell_failed(coordinator: &Coordinator, object: Arc<Object>, error: Error) {
    let name = &object.name.name;
    tracing::error!(object = %name, %error, "cannot be restored, and cannot be read");
    let error = error.context(format!("{} \"{name}\" was not restored", object.kind_noun()));
    coordinator.restore_failed(object, error);
}

/// Builds all materialized views; gives the sources that they read.
async fn restore_views(coordinator: &Coordinator, catalog: &Catalog) -> BTreeSet<ObjectId> {
    // By how many views stand on each other below.
    let mut levels: BTreeMap<ObjectId, usize> = BTreeMap::new();
    let mut by_level: Vec<Vec<(Arc<Object>, Plan)>> = Vec::new();
    let mut read = BTreeSet::new();
    // In order of ids, which is that of their creation.
    for object in catalog.objects() {
        let ObjectKind::MaterializedView(view) = &object.kind else { continue };
        match view_plan(catalog, object, view) {
            Err(error) => tell_failed(coordinator, object.clone(), error),
            Ok(plan) => {
                let scanned = plan.root.scanned_objects();
                let below = scanned.iter().filter_map(|id| levels.get(id));
                let level = below.map(|level| level + 1).max().unwrap_or(0);
                levels.insert(object.id, level);
                read.extend(scanned);
                if by_level.len() <= level {
                    by_level.resize_with(level + 1, Vec::new);
                }
                by_level[level].push((object.clone(), plan));
            }
        }
    }
    for views in by_level {
        let restored = views.into_iter().map(|(object, plan)| async move {
            if let Err(error) = coordinator.restore_view(object.clone(), plan).await {
                let name = &object.name.name;
                tracing::error!(view = %name, %error, "cannot be restored, and cannot be read");
            }
        });
        futures::future::join_all(restored).await;
    }
    read
}

/// What planning looked at when the object was made.
fn definition_context(catalog: &Catalog, object: &Object) -> PlanContext {
    let reduced = catalog.reduced_to(&object.depends_on);
    let mut context = PlanContext::new(Arc::new(reduced), &object.name.database);
    if let Some(definer) = catalog.definer(object.id) {
        context.now = DateTime::from_timestamp_micros(definer.at_us).unwrap_or_default();
        context.user.clone_from(&definer.user);
        context.time_zone.clone_from(&definer.time_zone);
        context.search_path.clone_from(&definer.search_path);
        context.settings = Arc::new(definer.settings.clone());
    }
    context
}

fn view_plan(catalog: &Catalog, object: &Object, view: &ViewObject) -> Result<Plan> {
    let mut context = definition_context(catalog, object);
    context.search_path.clone_from(&view.search_path);
    let query = parse_query(&view.query_sql)?;
    let planned = context.plan_query(&query, &[])?;
    let types = |schema: &arrow::datatypes::Schema| {
        schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>()
    };
    if types(&planned.schema) != types(&object.schema) {
        return Err(Error::user(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "its columns have other types in this version",
        )
        .hint("Drop it and create it again."));
    }
    let plan = ddl::view_plan(&planned, object)?;
    operators::check(&plan)?;
    Ok(plan)
}

fn source_spec(catalog: &Catalog, object: &Object, source: &SourceObject) -> Result<SourceSpec> {
    let context = definition_context(catalog, object);
    let watermark = match &source.watermark {
        None => None,
        Some(watermark) => {
            let (index, field) = object
                .column(&watermark.column)
                .ok_or_else(|| Error::internal("a stored watermark has no column"))?;
            let nullable = field.clone().with_nullable(true);
            let expression = parse_expression(&watermark.expression_sql)?;
            let name = Some(object.name.name.as_str());
            let expr = context.plan_assigned_expr(&expression, &object.schema, name, &nullable)?;
            Some(watermark_spec(index, expr))
        }
    };
    Ok(SourceSpec {
        object: object.id,
        name: object.name.name.clone(),
        connector: source.connector.clone(),
        options: source.options.clone(),
        physical_schema: source.physical_schema.clone(),
        columns: source_columns(&context, object, source)?,
        schema: object.schema.clone(),
        watermark,
    })
}

/// Waits until the sources that are read have given as many rows as before.
async fn catch_up(
    coordinator: &Coordinator,
    clock: &Clock,
    catalog: &Catalog,
    before: &BTreeMap<u64, u64>,
    read: &BTreeSet<ObjectId>,
) -> Result<()> {
    let until = clock.elapsed() + CATCH_UP_MAX;
    loop {
        let sources = coordinator.sources().await?;
        let behind = sources.iter().find(|source| {
            let rows_before = before.get(&source.object.0).copied().unwrap_or(0);
            let bounded = catalog
                .get(source.object)
                .is_some_and(|o| matches!(&o.kind, ObjectKind::Source(s) if s.bounded));
            let ended = bounded && source.finished;
            read.contains(&source.object) && !ended && source.rows < rows_before
        });
        let Some(behind) = behind else { break };
        if clock.elapsed() > until {
            tracing::warn!(
                source = %behind.object,
                rows = behind.rows,
                "sources are still being read; views over them show less than before"
            );
            return Ok(());
        }
        tokio::time::sleep(CATCH_UP_LOOK).await;
    }
    // The last rows may be in an epoch that is still open.
    if coordinator.sources().await?.iter().all(|source| source.finished) {
        coordinator.flush().await?;
    } else {
        tokio::time::sleep(coordinator.config().epoch_interval_max * 2).await;
    }
    Ok(())
}
