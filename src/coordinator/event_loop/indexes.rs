//! Indexes that joins read (`plan::index_join`): each runs as a dataflow of its own under the
//! index's id, from the first view that reads it to the last.
//!
//! It is in no checkpoint. After a start it is filled from its table or view as of the epoch that
//! the restored views begin with, before what the log has brought since.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Command, Running, RunningKind, State, dependency_gone, share_changes};
use crate::catalog::object::{IndexObject, ObjectKind};
use crate::catalog::snapshot::Catalog;
use crate::dataflow::worker::{DataflowResult, DataflowSpec};
use crate::plan::index_join::JoinIndex;
use crate::plan::node::{IndexScan, Node, Plan};
use crate::plan::view_options::ViewOptions;
use crate::sql::lower::scan_of;
use crate::types::error::Result;
use crate::types::id::ObjectId;

/// The indexes of a database that a join may read, oldest first.
pub(in crate::coordinator) fn join_indexes<'a>(
    catalog: &'a Catalog,
    database: &str,
    may: impl Fn(&IndexObject) -> bool,
) -> Vec<JoinIndex<'a>> {
    let near = catalog.objects().filter(|object| object.name.database == database);
    let mut found: Vec<JoinIndex<'a>> = near
        .flat_map(|object| catalog.indexes_of(object.id))
        .filter(|index| may(index))
        .map(|index| join_index(index))
        .collect();
    found.sort_by_key(|index| index.id);
    found
}

/// The indexes among these objects, oldest first.
pub(in crate::coordinator) fn noted_indexes<'a>(
    catalog: &'a Catalog,
    noted: &[u64],
) -> Vec<JoinIndex<'a>> {
    let mut found: Vec<JoinIndex<'a>> = noted
        .iter()
        .filter_map(|id| catalog.index(ObjectId(*id)))
        .map(|index| join_index(index))
        .collect();
    found.sort_by_key(|index| index.id);
    found
}

fn join_index(index: &IndexObject) -> JoinIndex<'_> {
    JoinIndex { id: index.id, name: &index.name, relation: index.relation, columns: &index.columns }
}

impl State {
    /// Whether a new view may read an index; one that takes another's place may not read views,
    /// for these may read it.
    pub(super) fn may_read(&self, catalog: &Catalog, index: &IndexObject, replaces: bool) -> bool {
        let runs = self.running.get(&index.id).is_none_or(|running| running.failed.is_none());
        let table = catalog
            .get(index.relation)
            .is_some_and(|relation| matches!(relation.kind, ObjectKind::Table(_)));
        runs && (table || !replaces)
    }

    /// Starts the indexes that a plan reads and that do not run yet.
    pub(super) fn start_indexes(&mut self, plan: &Plan) -> Result<()> {
        let mut read: Vec<(ObjectId, String, IndexScan)> = Vec::new();
        plan.root.visit(&mut |node| {
            if let Node::Scan(scan) = node
                && let Some(index) = &scan.index
            {
                read.push((scan.object, scan.name.clone(), index.clone()));
            }
        });
        for (id, name, index) in read {
            if !self.running.contains_key(&id) {
                self.start_index(id, name, &index)?;
            }
        }
        Ok(())
    }

    fn start_index(&mut self, id: ObjectId, name: String, index: &IndexScan) -> Result<()> {
        let catalog = self.catalog();
        let relation = index.relation;
        let object = catalog.get(relation).ok_or_else(|| dependency_gone("a join"))?;
        let running = self.running.get(&relation).ok_or_else(|| dependency_gone("a join"))?;
        if let Some(error) = &running.failed {
            return Err(error.clone());
        }
        let root = Node::Scan(scan_of(object, (0..object.schema.fields().len()).collect())?);
        let plan = Plan { root, unique_key: None, options: ViewOptions::default() };
        let plan = Arc::new(plan);
        let as_of = self.epochs.closed();
        let table_contents = self.table_shares(&[relation])?;
        // What the log has brought is in the table, and comes with the open epoch.
        let open = self.changes.get(&relation).filter(|changes| !changes.is_empty());
        let not_yet: HashMap<ObjectId, _> = open
            .map(|changes| (relation, share_changes(changes, self.workers.count(), as_of)))
            .into_iter()
            .collect();
        self.reads_newer |= relation > id;
        let running = Running {
            reads: vec![relation],
            kind: RunningKind::View { last_affected: as_of, snapshot: None },
            failed: None,
            plan: Some(plan.clone()),
            shares: vec![],
            // It goes when nobody reads it any more.
            nameless: true,
        };
        self.running.insert(id, running);
        let spec = DataflowSpec {
            object: id,
            name,
            plan,
            result: DataflowResult::Arrange { key: index.key.clone() },
            as_of,
            time: self.logical_time(),
            table_contents,
            restore: None,
            past: None,
            keeps_history: false,
            not_yet,
        };
        self.workers.send(Command::CreateDataflow(Arc::new(spec)));
        Ok(())
    }
}
