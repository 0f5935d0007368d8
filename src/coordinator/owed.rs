//! What a sink has given before it is computed again.
//!
//! A sink whose state cannot be taken up, or that reads a view which is computed again, gives all
//! rows once more. What its target has, or gets with what is staged, is what it had given up to the
//! checkpoint: of a sink `FROM` a materialized view the rows that the view had then, and these are
//! in the checkpoint whatever has become of the view's plan. So they are owed: joined with what is
//! computed they leave the difference (`storage::sinks`).
//!
//! Of a sink over a query of its own nothing says what it had given: it stops.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};

use crate::catalog::object::{Object, ObjectKind};
use crate::catalog::snapshot::Catalog;
use crate::coordinator::sinks::all_columns;
use crate::storage::manifest::Manifest;
use crate::storage::rows::split_weights;
use crate::storage::sinks::{SinkState, read_changes};
use crate::storage::state_files;
use crate::storage::store::Store;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};

/// Deletions of all rows that a sink had given; `None` when nothing says which these are.
///
/// # Errors
/// When the storage fails.
pub(super) async fn owed(
    store: &Store,
    catalog: &Catalog,
    manifest: &Manifest,
    object: &Object,
    state: &SinkState,
) -> Result<Option<Vec<ChangeBatch>>> {
    if let Some(files) = &state.owed {
        let mut deletions = Vec::new();
        for file in files {
            deletions.extend(read_changes(store, &object.schema, file).await?);
        }
        return Ok(Some(deletions));
    }
    let Some(view) = whole_view(catalog, object) else { return Ok(None) };
    let Some(known) = manifest.views.get(&view.id.0) else { return Ok(None) };
    let shown = state_files::read(store, &known.files).await?.into_iter();
    let shown = shown.filter(|c| c.operator_name == "materialize" && c.table == "rows").collect();
    let object = object.schema.clone();
    let deletions = tokio::task::spawn_blocking(move || -> Result<Option<Vec<ChangeBatch>>> {
        let shown = state_files::fold(shown, true)?;
        let mut deletions = Vec::new();
        for (_, rows) in shown.into_iter().flat_map(|change| change.appended) {
            let rows = split_weights(&rows)?;
            let types = |schema: &arrow::datatypes::Schema| {
                schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>()
            };
            if types(&rows.schema()) != types(&object) {
                // The view had other columns then.
                return Ok(None);
            }
            let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
            let weights = rows.weights_vec().into_iter().map(|weight| -weight).collect();
            let columns = rows.rows().columns().to_vec();
            let rows = RecordBatch::try_new_with_options(Arc::clone(&object), columns, &options)?;
            deletions.push(ChangeBatch::new(rows, weights)?);
        }
        Ok(Some(deletions))
    });
    deletions.await.map_err(|error| Error::internal(format!("rows were not read: {error}")))?
}

/// The materialized view of which a sink gives every row as it is.
fn whole_view(catalog: &Catalog, sink: &Object) -> Option<Arc<Object>> {
    let ObjectKind::Sink(definition) = &sink.kind else { return None };
    let [view] = sink.depends_on.as_slice() else { return None };
    let view = catalog.get(*view)?;
    let is_view = matches!(view.kind, ObjectKind::MaterializedView(_));
    (is_view && definition.query.query_sql == all_columns(view)).then(|| view.clone())
}
