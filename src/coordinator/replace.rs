//! CREATE OR REPLACE MATERIALIZED VIEW in place: the name, the dependants and the readers stay.
//!
//! 1. Here, before anything happens: every dependant is planned once more over the new definition.
//!    One that uses a column which goes or gets another type, or whose own columns would be others
//!    (it says `SELECT *`), forbids the replacement. Columns may be added, and moved.
//! 2. The new definition is computed beside the old one, as any new view (`event_loop/installation.rs`).
//! 3. At a quiet moment the two change places (`event_loop/swap.rs`): those who read the view's
//!    changes get the difference, as one epoch.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::object::{Object, ObjectKind};
use crate::catalog::snapshot::Change;
use crate::coordinator::command::Connection;
use crate::coordinator::ddl::{
    keep_promises, materialized_view_object, noun_of, reads, reads_itself, view_definer, view_plan,
    wrong_kind,
};
use crate::coordinator::drop::shown;
use crate::coordinator::recovery::planned_view;
use crate::coordinator::running::Running;
use crate::plan::node::{Node, Scan};
use crate::sql::bind::PlanContext;
use crate::sql::parse::Parsed;
use crate::sql::query::PlannedQuery;
use crate::sql::statement::{CreateMaterializedView, Noun};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

impl Connection {
    pub(super) async fn replace_materialized_view(
        &self,
        running: &Running,
        context: &PlanContext,
        parsed: &Parsed,
        create: &CreateMaterializedView,
        old: &Object,
    ) -> Result<()> {
        if noun_of(old) != Noun::MaterializedView {
            return Err(wrong_kind(old, Noun::MaterializedView).position(create.name.position));
        }
        let (mut object, planned) =
            materialized_view_object(context, parsed, create, old.name.clone())?;
        if reads(context, &planned.depends_on, old.id) {
            return Err(reads_itself(&object.name.name));
        }
        let plan = view_plan(&planned, &object)?;
        keep_promises(&mut object, &plan);
        check_dependants(context, old, &object)?;
        let definer = Some(view_definer(context, parsed, &planned));
        let replace = self.database.coordinator.replace_view(object, definer, plan, old.id);
        // Dropping the wait when the statement is cancelled takes the half-made view away.
        running.wait(replace).await?;
        Ok(())
    }
}

/// Refuses a definition that dependants cannot live with.
fn check_dependants(context: &PlanContext, old: &Object, new: &Object) -> Result<()> {
    let replaced = Object { id: old.id, ..new.clone() };
    let change = Change::ReplaceView(Arc::new(replaced));
    let after = context.catalog.apply(&[change])?;
    let mut lines = Vec::new();
    for dependant in dependants(context, old.id) {
        let view = match &dependant.kind {
            ObjectKind::View(view) => view,
            kind => match kind.maintained() {
                Some(view) => view,
                None => continue,
            },
        };
        let noun = dependant.kind_noun();
        let name = shown(context, &dependant);
        // One that cannot be planned is broken already.
        let Ok(before) = planned_view(&context.catalog, &dependant, view) else { continue };
        let scans = scans_of(&before, old.id);
        if scans.iter().any(|scan| scan.append_only || !scan.time_bounds.is_empty()) {
            lines.push(format!("{noun} {name} relies on rows that never go, or on its watermark"));
            continue;
        }
        let lost = lost_columns(&scans, old, new);
        if !lost.is_empty() {
            lines.push(format!("{noun} {name} uses {}", lost.join(", ")));
            continue;
        }
        let now = planned_view(&after, &dependant, view);
        if now.is_err() || now.is_ok_and(|now| columns(&now) != columns(&before)) {
            lines.push(format!("{noun} {name} would have other columns"));
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    Err(Error::user(
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        format!(
            "cannot replace materialized view {} because other objects depend on its columns",
            shown(context, old)
        ),
    )
    .detail(lines.join("\n"))
    .hint("Keep these columns with their types, or drop what uses them first."))
}

/// What reads the view, directly or through plain views.
fn dependants(context: &PlanContext, view: ObjectId) -> Vec<Arc<Object>> {
    let mut found: Vec<Arc<Object>> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![view];
    while let Some(id) = open.pop() {
        for dependant in context.catalog.dependants(id) {
            if seen.insert(dependant.id) {
                if let ObjectKind::View(_) = dependant.kind {
                    open.push(dependant.id);
                }
                found.push(dependant.clone());
            }
        }
    }
    found
}

/// Names and types of a query's columns.
fn columns(query: &PlannedQuery) -> Vec<(String, arrow::datatypes::DataType)> {
    let fields = query.schema.fields().iter();
    fields.map(|field| (field.name().clone(), field.data_type().clone())).collect()
}

/// How a query reads the view; nothing when it cannot be maintained (a plain view may be so).
fn scans_of(query: &PlannedQuery, view: ObjectId) -> Vec<Scan> {
    let mut scans = Vec::new();
    if let Ok(plan) = query.lower() {
        plan.root.visit(&mut |node| {
            if let Node::Scan(scan) = node
                && scan.object == view
            {
                scans.push(scan.clone());
            }
        });
    }
    scans
}

/// The columns that are read and that the new definition does not have as they were.
fn lost_columns(scans: &[Scan], old: &Object, new: &Object) -> Vec<String> {
    let used: BTreeSet<usize> = scans.iter().flat_map(|scan| scan.columns.clone()).collect();
    let lost = used.into_iter().map(|column| old.schema.field(column)).filter(|field| {
        let kept = new.schema.field_with_name(field.name());
        kept.map_or(true, |kept| kept.data_type() != field.data_type())
    });
    lost.map(|field| format!("column \"{}\"", field.name())).collect()
}
