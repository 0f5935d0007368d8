//! From a storage to a coordinator that answers as before.
//!
//! 1. The storage is claimed and read (`storage::recovery`); catalog and tables are built from it
//!    (`ground.rs`).
//! 2. Materialized views are planned again, each over the objects that its definition names and
//!    with the session settings of its creation. One whose plan has the fingerprint of the state
//!    that is stored for it takes that up, if all views below it do.
//! 3. The coordinator starts over them: sources go on where they were read to, and what the log
//!    has brought since the checkpoint comes to all restored views as one epoch.
//! 4. If something was torn off the log's end, a checkpoint is made before anything is written: it
//!    can then never come between older and newer records.
//! 5. The other views are computed from tables, sources and restored views. The server does not
//!    wait long for that: who reads one of them waits until it has its content. A view that cannot
//!    be built stays in the catalog and says why.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::DateTime;

use crate::catalog::object::{Object, ObjectKind, SourceObject, ViewObject, WatermarkObject};
use crate::catalog::snapshot::{Catalog, Change};
use crate::catalog::stored::change_from_text;
use crate::coordinator::ddl::{self, open_connector, source_columns, watermark_spec};
use crate::coordinator::event_loop::indexes::noted_indexes;
use crate::coordinator::event_loop::sharing::share_all;
use crate::coordinator::event_loop::{
    Coordinator, CoordinatorConfig, DurableStart, OpenedSource, RestoredAnswer, RestoredView,
    StartState, StoredSink,
};
use crate::coordinator::ground::GroundState;
use crate::coordinator::memory::keep_rows;
use crate::coordinator::owed::owed;
use crate::dataflow::operators;
use crate::dataflow::operators::source::LATE_UNTIL;
use crate::observe::clock::Clock;
use crate::plan::fingerprint::fingerprint;
use crate::plan::node::{Plan, SourceSpec, WatermarkSpec};
use crate::plan::share::Shareable;
use crate::sql::bind::PlanContext;
use crate::sql::parse::{parse_expression, parse_query};
use crate::sql::query::PlannedQuery;
use crate::state::delta::RestoredState;
use crate::storage::log::{Entry, Log, Record};
use crate::storage::manifest::Manifest;
use crate::storage::recovery::recover_from;
use crate::storage::state_files::StateRows;
use crate::storage::store::Store;
use crate::storage::table_files::read_table;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

/// How long a start waits for views that are computed again, before it lets clients in.
const COMPUTE_WAIT_MAX: Duration = Duration::from_secs(2);

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
    open_from(config, clock, store, checkpoint_interval, None, &OnceLock::new()).await
}

/// The same from a savepoint: what happened since is gone. `started` has the coordinator as soon as
/// it works, before views have their state.
///
/// # Errors
/// Also when there is no such savepoint.
pub async fn open_from(
    config: CoordinatorConfig,
    clock: Clock,
    store: Store,
    checkpoint_interval: Duration,
    from_savepoint: Option<&str>,
    started: &OnceLock<Coordinator>,
) -> Result<Coordinator> {
    let began = clock.elapsed();
    let identity = uuid::Uuid::new_v4().to_string();
    let keep = keep_rows(config.memory.clone());
    let sinks_store = store.clone();
    let mut recovered = recover_from(store.clone(), &identity, from_savepoint, keep).await?;
    let (records, torn) = (recovered.records.len(), recovered.torn);
    recovered.fills = read_fills(&store, &recovered.records).await?;
    let stored = std::mem::take(&mut recovered.views);
    let errors = recovered.errors.take();
    let built = tokio::task::spawn_blocking(move || {
        GroundState::build(&mut recovered).map(|ground| (ground, recovered))
    });
    let (mut ground, recovered) =
        built.await.map_err(|error| Error::internal(format!("recovery failed: {error}")))??;
    let catalog = Arc::new(ground.catalog.clone());
    ground.table_rules = table_rules(&catalog);
    let tables = ground.tables.len();

    let Sources { opened: sources, mut failed } =
        open_sources(&catalog, &recovered.manifest, &ground.late_until);
    let broken: BTreeSet<ObjectId> = failed.iter().map(|(object, _)| object.id).collect();
    let mut views = plan_views(&catalog, &recovered.manifest, stored, &broken);
    let begun: BTreeSet<ObjectId> = views.sinks.iter().map(|sink| sink.object.id).collect();
    resume_sinks(&sinks_store, &catalog, &recovered.manifest, &mut views).await;
    failed.extend(views.failed);
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
    let (restored, mut computed) = (views.restored, views.computed);
    let plans: BTreeMap<ObjectId, (Arc<Object>, Plan)> =
        restored.iter().map(|v| (v.object.id, (v.object.clone(), v.plan.clone()))).collect();
    let start = StartState { ground, sources, views: restored, errors, sinks: views.sinks };
    let (coordinator, answers) =
        Coordinator::start_from(config, clock.clone(), start, Some(durable))?;
    let coordinator = started.get_or_init(|| coordinator).clone();
    let going = async {
        for (object, error) in failed {
            tell_failed(&coordinator, object, error);
        }
        for (id, answer) in answers {
            if let Err(error) = restored_or(answer).await {
                let (object, plan) = plans[&id].clone();
                if begun.contains(&id) {
                    tell_failed(&coordinator, object, cannot_go_on().detail(error.to_string()));
                    continue;
                }
                let view = &object.name.name;
                tracing::warn!(%view, %error, "its state does not fit; it is computed again");
                computed.push((object, plan));
            }
        }
        let order: Vec<ObjectId> = in_order(&catalog).iter().map(|object| object.id).collect();
        computed.sort_by_key(|(object, _)| order.iter().position(|id| *id == object.id));
        // What the log brought is in the views when this answers.
        coordinator.errors().await?;
        if torn {
            coordinator.checkpoint().await?;
        }
        Ok::<_, Error>(computed)
    };
    let computed = match going.await {
        Ok(computed) => computed,
        Err(error) => {
            let stopping = coordinator.clone();
            // It ends its threads; that it fails is the lesser evil.
            let _ = tokio::task::spawn_blocking(move || stopping.stop()).await;
            return Err(error);
        }
    };
    if catalog.objects().next().is_some() {
        let again = computed.len();
        let restored = plans.len();
        let elapsed_ms = (clock.elapsed() - began).as_millis();
        tracing::info!(
            tables,
            views = restored,
            views_to_compute = again,
            records,
            elapsed_ms,
            "recovered, first fresh answer"
        );
    }
    compute(&coordinator, computed, &clock).await;
    Ok(coordinator)
}

/// What the tables begin with that the log says were filled from files.
async fn read_fills(
    store: &Store,
    records: &[Record],
) -> Result<BTreeMap<ObjectId, Vec<ChangeBatch>>> {
    let mut fills = BTreeMap::new();
    for entry in records.iter().flat_map(|record| &record.entries) {
        let Entry::Catalog(text) = entry else { continue };
        if let Change::FillTable { object, files } = change_from_text(text)? {
            fills.insert(object, read_table(store, &files).await?);
        }
    }
    Ok(fills)
}

async fn restored_or(answer: tokio::sync::oneshot::Receiver<Result<ObjectId>>) -> Result<ObjectId> {
    let gone = || Error::external(SqlState::ADMIN_SHUTDOWN, "the server is shutting down");
    answer.await.unwrap_or_else(|_| Err(gone()))
}

/// Computes views again, and waits a while for them.
async fn compute(coordinator: &Coordinator, views: Vec<(Arc<Object>, Plan)>, clock: &Clock) {
    if views.is_empty() {
        return;
    }
    let names: BTreeMap<ObjectId, String> =
        views.iter().map(|(object, _)| (object.id, object.name.name.clone())).collect();
    let answers: Vec<RestoredAnswer> = coordinator.restore_views(views);
    let (clock, began) = (clock.clone(), clock.elapsed());
    let waiting = tokio::spawn(async move {
        for (id, answer) in answers {
            if let Err(error) = restored_or(answer).await {
                let view = names.get(&id).map_or("", String::as_str);
                tracing::error!(%view, %error, "cannot be restored, and cannot be read");
            }
        }
        let elapsed_ms = (clock.elapsed() - began).as_millis();
        tracing::info!(views = names.len(), elapsed_ms, "views have been computed again");
    });
    if tokio::time::timeout(COMPUTE_WAIT_MAX, waiting).await.is_err() {
        tracing::warn!("views are still being computed; who reads them waits");
    }
}

/// The sources of a catalog.
struct Sources {
    opened: Vec<OpenedSource>,
    failed: Vec<(Arc<Object>, Error)>,
}

/// `late_until`: by table of late rows, up to where those of each split are in it already.
fn open_sources(
    catalog: &Catalog,
    manifest: &Manifest,
    late_until: &BTreeMap<ObjectId, BTreeMap<String, String>>,
) -> Sources {
    let mut sources = Sources { opened: Vec::new(), failed: Vec::new() };
    for object in catalog.objects() {
        let ObjectKind::Source(source) = &object.kind else { continue };
        let opened = source_spec(catalog, object, source)
            .and_then(|spec| Ok((spec, open_connector(source)?)));
        match opened {
            Ok((spec, connector)) => {
                let mut place = manifest.places.get(&object.id.0).cloned();
                let late = catalog.late_of(object.id).and_then(|late| late_until.get(&late.id));
                if let Some(late) = late.filter(|late| !late.is_empty()) {
                    // Without a place it is read from its beginning: these are known all the same.
                    let place = place.get_or_insert_default();
                    let until = late.iter().map(|(s, time)| (format!("{LATE_UNTIL}{s}"), time));
                    place.values.extend(until.map(|(name, time)| (name, time.clone())));
                }
                sources.opened.push((spec, connector, place.map(Arc::new)));
            }
            Err(error) => sources.failed.push((object.clone(), error)),
        }
    }
    sources
}

/// The materialized views of a catalog, those that others read before these.
#[derive(Default)]
pub(super) struct Views {
    /// With the state that they take up.
    pub restored: Vec<RestoredView>,
    pub computed: Vec<(Arc<Object>, Plan)>,
    pub failed: Vec<(Arc<Object>, Error)>,
    /// Those that a checkpoint has begun with, whatever becomes of their dataflows.
    sinks: Vec<StoredSink>,
    /// Of these: those whose state cannot be taken up, and why.
    stateless: Vec<(ObjectId, &'static str)>,
}

/// Decides which sinks whose state cannot be taken up are computed again: those of which it is
/// known what they have given.
async fn resume_sinks(store: &Store, catalog: &Catalog, manifest: &Manifest, views: &mut Views) {
    for (id, reason) in std::mem::take(&mut views.stateless) {
        let Some(sink) = views.sinks.iter_mut().find(|sink| sink.object.id == id) else { continue };
        let object = sink.object.clone();
        match owed(store, catalog, manifest, &object, &sink.state).await {
            Ok(Some(deletions)) => {
                let name = &object.name.name;
                tracing::info!(sink = %name, reason, "its target gets the difference to before");
                sink.owed = Some(deletions);
                views.computed.push((object, sink.plan.clone()));
            }
            Ok(None) => views.failed.push((object, cannot_go_on().detail(reason))),
            Err(error) => {
                let detail = format!("{reason}, and what it was cannot be read: {error}");
                views.failed.push((object, cannot_go_on().detail(detail)));
            }
        }
    }
}

/// Why a sink stops when its state, or that of what it reads, cannot be taken up, and nothing says
/// what its target has.
fn cannot_go_on() -> Error {
    Error::external(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "what the sink reads was computed again, and it cannot tell what is new",
    )
    .hint("Drop the sink, empty its target, and create it again.")
}

/// All objects, each behind what it reads. Ids do not tell: a view that was replaced may read one
/// that was made after it.
pub(super) fn in_order(catalog: &Catalog) -> Vec<Arc<Object>> {
    fn add(catalog: &Catalog, object: &Arc<Object>, done: &mut Vec<Arc<Object>>) {
        if done.iter().any(|other| other.id == object.id) {
            return;
        }
        let shares = catalog.definer(object.id).into_iter().flat_map(|d| &d.shares);
        let shares = shares.map(|id| ObjectId(*id));
        let below = object.depends_on.iter().copied().chain(shares);
        for below in below.filter_map(|id| catalog.get(id)) {
            add(catalog, below, done);
        }
        done.push(object.clone());
    }
    let mut done = Vec::new();
    for object in catalog.objects() {
        add(catalog, object, &mut done);
    }
    done
}

/// Plans all views, and decides which of them take up their state.
pub(super) fn plan_views(
    catalog: &Catalog,
    manifest: &Manifest,
    mut stored: BTreeMap<ObjectId, StateRows>,
    broken: &BTreeSet<ObjectId>,
) -> Views {
    let mut views = Views::default();
    let mut restored = BTreeSet::new();
    let mut plans: BTreeMap<ObjectId, (String, Plan)> = BTreeMap::new();
    for object in &in_order(catalog) {
        let Some(view) = object.kind.maintained() else { continue };
        let mut plan = match view_plan(catalog, object, view) {
            Ok(plan) => plan,
            Err(error) => {
                views.failed.push((object.clone(), error));
                continue;
            }
        };
        let noted = catalog.definer(object.id).map(|d| d.shares.as_slice()).unwrap_or_default();
        let shares: Vec<Shareable<'_>> = noted
            .iter()
            .filter_map(|id| {
                let (name, plan) = plans.get(&ObjectId(*id))?;
                Some(Shareable { object: ObjectId(*id), name, plan })
            })
            .collect();
        share_all(&mut plan, &shares, &noted_indexes(catalog, noted));
        plans.insert(object.id, (object.name.name.clone(), plan.clone()));
        let mut below = plan.root.scanned_objects();
        for id in &mut below {
            *id = catalog.index(*id).map_or(*id, |index| index.relation);
        }
        let is_view = |id: &ObjectId| {
            catalog.get(*id).is_some_and(|o| matches!(o.kind, ObjectKind::MaterializedView(_)))
        };
        let state = stored.remove(&object.id);
        let known = manifest.views.get(&object.id.0);
        let reason = match known {
            _ if below.iter().any(|id| broken.contains(id)) => Some("a source cannot be opened"),
            None => Some("it is in no checkpoint"),
            Some(known) if known.fingerprint != fingerprint(&plan) => Some("its plan has changed"),
            Some(_) if below.iter().any(|id| is_view(id) && !restored.contains(id)) => {
                Some("a view that it reads is computed again")
            }
            Some(_) => None,
        };
        let begun = manifest.sinks.get(&object.id.0).cloned();
        let has_begun = begun.is_some();
        views.sinks.extend(begun.map(|state| StoredSink {
            object: object.clone(),
            plan: plan.clone(),
            state,
            owed: None,
        }));
        match (reason, state) {
            (Some(reason), _) if has_begun => views.stateless.push((object.id, reason)),
            (None, Some(operators)) => {
                restored.insert(object.id);
                let state = RestoredState { operators };
                views.restored.push(RestoredView { object: object.clone(), plan, state });
            }
            (reason, _) => {
                let (view, reason) = (&object.name.name, reason.unwrap_or("it has no state"));
                tracing::info!(%view, reason, "the view is computed again");
                views.computed.push((object.clone(), plan));
            }
        }
    }
    views
}

fn tell_failed(coordinator: &Coordinator, object: Arc<Object>, error: Error) {
    let name = &object.name.name;
    tracing::error!(object = %name, %error, "cannot be restored, and cannot be read");
    let error = error.context(format!("{} \"{name}\" was not restored", object.kind_noun()));
    coordinator.restore_failed(object, error);
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
        let counts = definer.row_counts.iter().map(|(id, rows)| (ObjectId(*id), *rows));
        context.row_counts = Arc::new(counts.collect());
    }
    context
}

/// The query of a materialized view, as it was meant when the view was made.
///
/// # Errors
/// When this version of the program has another meaning for it.
pub(super) fn planned_view(
    catalog: &Catalog,
    object: &Object,
    view: &ViewObject,
) -> Result<PlannedQuery> {
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
    Ok(planned)
}

fn view_plan(catalog: &Catalog, object: &Object, view: &ViewObject) -> Result<Plan> {
    let planned = planned_view(catalog, object, view)?;
    let plan = ddl::view_plan(&planned, object)?;
    operators::check(&plan)?;
    Ok(plan)
}

/// The rule of a stored watermark.
pub(super) fn stored_rule(
    context: &PlanContext,
    object: &Object,
    watermark: &WatermarkObject,
) -> Result<WatermarkSpec> {
    let (index, field) = object
        .column(&watermark.column)
        .ok_or_else(|| Error::internal("a stored watermark has no column"))?;
    let nullable = field.clone().with_nullable(true);
    let expression = parse_expression(&watermark.expression_sql)?;
    let name = Some(object.name.name.as_str());
    let expr = context.plan_assigned_expr(&expression, &object.schema, name, &nullable)?;
    Ok(watermark_spec(watermark, index, expr))
}

/// The rules of all tables with watermarks. One that cannot be planned any more is told, and its
/// table goes on without.
pub(super) fn table_rules(catalog: &Catalog) -> HashMap<ObjectId, WatermarkSpec> {
    let rule = |object: &Arc<Object>| {
        let ObjectKind::Table(table) = &object.kind else { return None };
        let watermark = table.watermark.as_ref()?;
        match stored_rule(&definition_context(catalog, object), object, watermark) {
            Ok(rule) => Some((object.id, rule)),
            Err(error) => {
                tracing::error!(table = %object.name.name, %error, "has no watermark any more");
                None
            }
        }
    };
    catalog.objects().filter_map(rule).collect()
}

pub(super) fn source_spec(
    catalog: &Catalog,
    object: &Object,
    source: &SourceObject,
) -> Result<SourceSpec> {
    let context = definition_context(catalog, object);
    let watermark = source.watermark.as_ref();
    let watermark = watermark.map(|w| stored_rule(&context, object, w)).transpose()?;
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
