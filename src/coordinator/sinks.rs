//! CREATE SINK: from a parsed definition to a catalog object whose changes go to a target.
//!
//! 1. The query is planned as a materialized view's is, and lowered.
//! 2. The options are checked, and the target is asked whether it can take such rows: a sink that
//!    could never write anything is not made.
//! 3. The dataflow is made and filled (`event_loop/installation.rs`); what it hands over with each checkpoint
//!    goes to the target (`event_loop/sinks.rs`).

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast;

use crate::catalog::object::{Object, ObjectKind, SinkObject, ViewObject};
use crate::catalog::system_views::SinkFact;
use crate::connectors::sink::{self, SinkInput, SinkOptions, Target};
use crate::coordinator::command::Connection;
use crate::coordinator::ddl::{
    definer, emission, plan_definition, renamed, take_connector, target_name, view_plan,
};
use crate::coordinator::event_loop::Install;
use crate::coordinator::explain::explained;
use crate::coordinator::running::Running;
use crate::plan::node::Plan;
use crate::plan::view_options::{VIEW_OPTIONS, ViewOptions};
use crate::sql::bind::PlanContext;
use crate::sql::parse::{Parsed, parse_query};
use crate::sql::statement::{
    CreateSink, Explain, ExplainFormat, Noun, SinkInput as Input, option_pairs,
};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::text::quote::quote_ident;

/// The option of connectors that need to tell rows apart.
const PRIMARY_KEY: &str = "primary_key";

/// A definition that has been checked.
struct Defined {
    object: Object,
    plan: Plan,
    options: SinkOptions,
    target: Box<dyn Target>,
}

impl Connection {
    pub(super) async fn create_sink(
        &self,
        running: &Running,
        context: &PlanContext,
        parsed: &Parsed,
        create: &CreateSink,
    ) -> Result<()> {
        if create.or_replace {
            return Err(Error::unsupported("CREATE OR REPLACE SINK")
                .hint("Drop the sink, and create it again with snapshot = false."));
        }
        let place = self.place(context, &create.name, create.if_not_exists, false, Noun::Sink)?;
        let Some(place) = place else { return Ok(()) };
        let context = &self.with_row_counts(running, context).await?;
        let Defined { object, plan, options, mut target } = self.define_sink(context, create)?;
        running.wait(target.prepare()).await?;
        drop(target);
        let object = Object { name: place.name, create_sql: parsed.sql.clone(), ..object };
        let (definer, install) =
            (Some(definer(context, parsed)), Install::Dataflow(Box::new(plan)));
        let coordinator = &self.database.coordinator;
        // Dropping the wait when the statement is cancelled takes the half-made sink away.
        let create = coordinator.replace_object(object, definer, install, None);
        running.wait(create).await?;
        if !options.rule.snapshot {
            // From here on it has every change, also after a crash.
            running.wait(coordinator.checkpoint()).await?;
        }
        Ok(())
    }

    /// Checks everything that can be checked without the target.
    fn define_sink(&self, context: &PlanContext, create: &CreateSink) -> Result<Defined> {
        if create.format.is_some() {
            return Err(Error::unsupported("FORMAT ... ENCODE ... of a sink")
                .hint("Say format = '...' in WITH; docs/sql/sinks.md lists what there is."));
        }
        let query_sql = match &create.input {
            Input::Query(query) => query.sql.clone(),
            Input::Relation(name) => {
                let object = self.resolve(context, name)?;
                if !object.is_relation() {
                    return Err(Error::user(
                        SqlState::WRONG_OBJECT_TYPE,
                        format!("cannot read sink \"{}\"", object.name.name),
                    )
                    .hint("Read what it reads.")
                    .position(name.position));
                }
                all_columns(&object)
            }
        };
        let query = match &create.input {
            Input::Query(query) => query.ast.as_ref().clone(),
            Input::Relation(_) => *parse_query(&query_sql)?,
        };
        let context = &match &create.input {
            Input::Query(_) => context.clone(),
            Input::Relation(_) => PlanContext { sql: query_sql.as_str().into(), ..context.clone() },
        };
        let planned = plan_definition(context, &query)?;
        let schema = renamed(&planned.schema, &[], "CREATE SINK")?;
        let (mut query_options, mut options): (Vec<_>, Vec<_>) = option_pairs(&create.options)
            .into_iter()
            .partition(|(name, _)| VIEW_OPTIONS.iter().any(|option| option.name == name));
        let connector = take_connector(&mut options)?;
        query_options.extend(emission(&create.emit));
        ViewOptions::parse(&query_options).map_err(|(_, error)| error)?;
        let plan_of = |object: &Object| view_plan(&planned, object);
        let definition = SinkObject {
            query: ViewObject {
                query_sql,
                search_path: context.search_path.clone(),
                options: query_options,
                ..ViewObject::default()
            },
            connector: connector.trim().to_lowercase(),
            options,
            identity: uuid::Uuid::new_v4().simple().to_string(),
        };
        let name = target_name(context, &create.name)?;
        let object = Object::new(name, ObjectKind::Sink(definition), schema);
        let mut object = Object { depends_on: planned.depends_on.clone(), ..object };
        let plan = plan_of(&object)?;
        let key = plan.unique_key.clone().or_else(|| key_behind_views(context, &query));
        if let ObjectKind::Sink(definition) = &mut object.kind {
            definition.options.extend(key_option(definition, &object.schema, key));
        }
        let ObjectKind::Sink(definition) = &object.kind else {
            return Err(Error::internal("a sink was made above"));
        };
        let checked = sink::check(&definition.connector, &definition.options)?;
        let target = checked.open(&input_of(&object, &plan)?)?;
        Ok(Defined { object, plan, options: checked, target })
    }

    /// EXPLAIN CREATE SINK.
    pub(super) fn explain_create_sink(
        &self,
        context: &PlanContext,
        create: &CreateSink,
        explain: &Explain,
    ) -> Result<String> {
        let Defined { object, plan, options, .. } = self.define_sink(context, create)?;
        let input = input_of(&object, &plan)?;
        let changes = if input.append_only { "rows that come" } else { "rows that come and go" };
        let rhythm = match options.rule.interval_us {
            None => "with every checkpoint".to_owned(),
            Some(us) => format!("at most every {} s", us as f64 / 1e6),
        };
        // Of a connector that asks for a key it is an option by now.
        let key = match &object.kind {
            ObjectKind::Sink(sink) => sink.options.iter().find(|(name, _)| name == PRIMARY_KEY),
            _ => None,
        };
        let key = key.map_or_else(String::new, |(_, names)| format!(", key ({names})"));
        let connector = options.connector.connector.name;
        let head = format!("Sink: {connector}, {changes}{key}, {rhythm}\n");
        let text = explained(&context.catalog, &plan, explain);
        Ok(if explain.format == ExplainFormat::Text { head + &text } else { text })
    }

    /// Where all sinks stand.
    pub(super) async fn sink_facts(&self, running: &Running) -> Result<Vec<SinkFact>> {
        let sinks = running.wait(self.database.coordinator.sinks()).await?;
        let fact = |sink: crate::coordinator::event_loop::SinkFact| {
            let status = sink.status;
            let (last_error_us, last_error) = match (sink.stopped.clone(), status.last_error) {
                (Some(error), _) => (None, Some(error.to_string())),
                (None, Some((time, error))) => (Some(time.0), Some(error.to_string())),
                (None, None) => (None, None),
            };
            SinkFact {
                object: sink.object,
                state: match (&sink.stopped, status.failing) {
                    (Some(_), _) => "stopped",
                    (None, true) => "retrying",
                    (None, false) => "running",
                },
                committed_epoch: status.committed.map(|id| id.epoch),
                rows: status.rows,
                bytes: status.bytes,
                pending_batches: status.pending_batches,
                pending_rows: status.pending_rows + sink.open_rows,
                pending_bytes: status.pending_bytes,
                last_commit_us: status.last_commit.map(|time| time.0),
                last_error,
                last_error_us,
            }
        };
        Ok(sinks.into_iter().map(fact).collect())
    }
}

/// What the target needs to know.
fn input_of(object: &Object, plan: &Plan) -> Result<SinkInput> {
    let ObjectKind::Sink(definition) = &object.kind else {
        return Err(Error::internal("only a sink has a target"));
    };
    Ok(SinkInput {
        name: object.name.name.clone(),
        identity: definition.identity.clone(),
        schema: object.schema.clone(),
        append_only: plan.root.append_only(),
        unique_key: plan.unique_key.clone(),
    })
}

/// Columns that tell rows apart, where the materialized views that the query reads have such.
fn key_behind_views(context: &PlanContext, query: &ast::Query) -> Option<Vec<usize>> {
    let is_view = |o: &&Arc<Object>| matches!(o.kind, ObjectKind::MaterializedView(_));
    let views: Vec<ObjectId> = context.catalog.objects().filter(is_view).map(|o| o.id).collect();
    let catalog = Arc::new(context.catalog.with_views_inlined(&views));
    let context = PlanContext { catalog, ..context.clone() };
    plan_definition(&context, query).ok()?.lower().ok()?.unique_key
}

/// The key as an option, for a connector that asks for one and has not been told: so it stays what
/// it is, whatever later versions find out about the query.
fn key_option(
    definition: &SinkObject,
    schema: &SchemaRef,
    key: Option<Vec<usize>>,
) -> Option<(String, String)> {
    let connector =
        sink::SINK_CONNECTORS.iter().find(|sink| sink.connector.name == definition.connector)?;
    let spec = connector.connector.options.iter().find(|option| option.name == PRIMARY_KEY)?;
    let given =
        |(name, _): &(String, String)| name == PRIMARY_KEY || spec.aliases.contains(&name.as_str());
    let names: Vec<&str> =
        key?.iter().map(|column| schema.field(*column).name().as_str()).collect();
    let plain = |name: &&str| !name.is_empty() && !name.contains(',') && name.trim() == *name;
    let told = definition.options.iter().any(given);
    (!told && !names.is_empty() && names.iter().all(plain))
        .then(|| (PRIMARY_KEY.to_owned(), names.join(", ")))
}

/// The query of all columns of a relation, by name: columns that it gets later do not count.
pub(super) fn all_columns(object: &Object) -> String {
    let columns = object.schema.fields().iter().map(|field| quote_ident(field.name()));
    format!(
        "SELECT {} FROM {}.{}",
        columns.collect::<Vec<_>>().join(", "),
        quote_ident(&object.name.schema),
        quote_ident(&object.name.name)
    )
}
