//! Ground state: the catalog and the rows of tables, as a storage has them.
//!
//! Built from files and log records in order, without a coordinator: pure, so that every crash
//! point can be tried. What is derived (views, sources' progress) is made again afterwards.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use crate::catalog::object::{Object, ObjectKind};
use crate::catalog::snapshot::{Catalog, Change};
use crate::catalog::stored::{catalog_from_text, change_from_text};
use crate::coordinator::table::Table;
use crate::dataflow::operators::source::{ANNOUNCED, LATE_SPLIT_MARK, LATE_TIME_MARK};
use crate::plan::node::WatermarkSpec;
use crate::storage::log::{Entry, Record};
use crate::storage::recovery::Recovered;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::{Epoch, EventTime, Watermark};

/// What cannot be computed again.
#[derive(Default)]
pub struct GroundState {
    pub catalog: Catalog,
    pub tables: HashMap<ObjectId, Table>,
    /// Per table: what the log brought after the files; `None` for a table that has no files.
    pub changed: BTreeMap<ObjectId, Option<Vec<ChangeBatch>>>,
    /// What the log brought to tables of replayed rows that have no files. Other tables without files
    /// are newer than all who read them; these are not: their rows are rows of a source, and whoever
    /// read it when the files were written has yet to see them.
    pub replayed: BTreeMap<ObjectId, Vec<ChangeBatch>>,
    /// The rules of tables with watermarks.
    pub table_rules: HashMap<ObjectId, WatermarkSpec>,
    /// The watermarks of tables as the files have them.
    pub table_times: HashMap<ObjectId, Watermark>,
    /// By table of late rows: how far each split of its source was when the log's late rows of it
    /// came. They are not to be told again.
    pub late_until: BTreeMap<ObjectId, BTreeMap<String, String>>,
    /// The log changed the catalog after the files.
    pub catalog_changed: bool,
    pub epoch: Epoch,
    /// No object ever had this id.
    pub next_id: u64,
    /// The first rows of tables that records fill from files.
    pub fills: BTreeMap<ObjectId, Vec<ChangeBatch>>,
}

impl GroundState {
    /// What a recovered storage says; takes its rows and records.
    ///
    /// # Errors
    /// When files and log contradict each other.
    pub fn build(recovered: &mut Recovered) -> Result<GroundState> {
        let mut ground = GroundState {
            epoch: Epoch(recovered.manifest.epoch),
            next_id: recovered.manifest.next_id,
            fills: std::mem::take(&mut recovered.fills),
            ..GroundState::default()
        };
        if let Some(text) = &recovered.catalog {
            ground.catalog = catalog_from_text(text)?;
        }
        let objects: Vec<_> = ground.catalog.objects().cloned().collect();
        for object in objects {
            let ObjectKind::Table(_) = &object.kind else { continue };
            let mut rows = Table::of(&object)?;
            for changes in recovered.tables.remove(&object.id).unwrap_or_default() {
                let changes = with_schema(&object.schema, &changes)?;
                rows.replay(&changes).map_err(|e| contradiction(e, &object.name.name))?;
            }
            ground.tables.insert(object.id, rows);
            let place = recovered.manifest.places.get(&object.id.0);
            let announced = place.and_then(|place| place.values.get(ANNOUNCED)?.parse().ok());
            if let Some(us) = announced {
                ground.table_times.insert(object.id, Watermark(EventTime(us)));
            }
        }
        for record in std::mem::take(&mut recovered.records) {
            ground.replay(record)?;
        }
        ground.next_id = ground.next_id.max(ground.catalog.next_id().0);
        Ok(ground)
    }

    /// Does what a record says.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn replay(&mut self, record: Record) -> Result<()> {
        self.epoch = self.epoch.max(record.epoch);
        for entry in record.entries {
            match entry {
                Entry::Catalog(text) => self.change_catalog(&text)?,
                Entry::Rows { table, changes } => self.change_table(table, &changes)?,
            }
        }
        Ok(())
    }

    fn change_catalog(&mut self, text: &str) -> Result<()> {
        let change = change_from_text(text)?;
        self.catalog = self
            .catalog
            .apply(std::slice::from_ref(&change))
            .map_err(|error| contradiction(error, "the catalog"))?;
        self.catalog_changed = true;
        match change {
            Change::CreateObject(object) => {
                if let ObjectKind::Table(_) = &object.kind {
                    self.tables.insert(object.id, Table::of(&object)?);
                    self.changed.insert(object.id, None);
                }
            }
            Change::FillTable { object: id, .. } => {
                let rows = self.fills.remove(&id).unwrap_or_default();
                let (Some(table), Some(object)) = (self.tables.get_mut(&id), self.catalog.get(id))
                else {
                    return Ok(());
                };
                for changes in rows {
                    let changes = with_schema(&object.schema, &changes)?;
                    table.replay(&changes).map_err(|e| contradiction(e, &object.name.name))?;
                }
            }
            Change::DropObject(id) => {
                self.tables.remove(&id);
                self.changed.remove(&id);
                self.replayed.remove(&id);
            }
            _ => {}
        }
        Ok(())
    }

    fn change_table(&mut self, id: ObjectId, changes: &ChangeBatch) -> Result<()> {
        // A write may follow the record that drops its table: the table went when that was
        // durable, and writes before that were acknowledged.
        let (Some(table), Some(object)) = (self.tables.get_mut(&id), self.catalog.get(id)) else {
            return Ok(());
        };
        let marks = changes.rows().schema();
        if let Some(split) = marks.metadata().get(LATE_SPLIT_MARK) {
            let splits = self.late_until.entry(id).or_default();
            match marks.metadata().get(LATE_TIME_MARK) {
                Some(time) => drop(splits.insert(split.clone(), time.clone())),
                // The source was read from its beginning again.
                None => splits.clear(),
            }
        }
        let changes = with_schema(&object.schema, changes)?;
        table.replay(&changes).map_err(|error| contradiction(error, &object.name.name))?;
        let of_source = |object: &Object| match &object.kind {
            ObjectKind::Table(table) => table.replayed_of.is_some(),
            _ => false,
        };
        match self.changed.entry(id).or_insert_with(|| Some(Vec::new())) {
            Some(changed) => changed.push(changes),
            None if of_source(object) => self.replayed.entry(id).or_default().push(changes),
            None => {}
        }
        Ok(())
    }
}

/// The same rows under the table's own schema.
fn with_schema(schema: &SchemaRef, changes: &ChangeBatch) -> Result<ChangeBatch> {
    let rows = changes.rows();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let rows =
        RecordBatch::try_new_with_options(schema.clone(), rows.columns().to_vec(), &options)?;
    Ok(changes.with_rows(rows))
}

fn contradiction(error: Error, what: &str) -> Error {
    Error::external(
        SqlState::DATA_CORRUPTED,
        format!("the log does not fit {what}: {}", error.message()),
    )
    .hint("Restore the storage from a backup; nothing has been changed.")
}
