//! VERIFY MATERIALIZED VIEW: the view's query is computed as a batch over the rows that the view
//! was kept from, and compared with what the view has.
//!
//! 1. Everything that the query reads and the view itself are read at one epoch. A bounded source
//!    is waited for until it has been read to its end, and is then read once more from its
//!    beginning; one without end cannot be read again up to a place, and is refused.
//! 2. The query runs on the batch engine, with the settings of the view's creation.
//! 3. Both results are bags: rows that are on one side only, with their copies, are differences.
//!
//! The answer's first row is `ok` with the number of rows, or `differs` with the number of rows
//! that are on one side only, counted with their copies. Then come the first of those: `missing`
//! ones, which the view ought to have, and `extra` ones, which it has and ought not to have.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;

use crate::catalog::object::ObjectKind;
use crate::coordinator::command::{Connection, Response};
use crate::coordinator::ddl::wrong_kind;
use crate::coordinator::query::split_objects;
use crate::coordinator::recovery::planned_view;
use crate::coordinator::running::Running;
use crate::coordinator::stored::of_rows;
use crate::functions::scalar::cast::shown_value;
use crate::plan::null_on_error::nullable;
use crate::sql::bind::PlanContext;
use crate::sql::statement::{Name, Noun};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, ErrorKind, Result};
use crate::types::time::Epoch;

/// Differing rows that are shown.
const SHOWN_MAX: usize = 20;

/// The columns of the answer.
pub(super) fn verify_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("result", DataType::Utf8, false),
        Field::new("rows", DataType::Int64, false),
        Field::new("key", DataType::Utf8, true),
        Field::new("row", DataType::Utf8, true),
        Field::new("epoch", DataType::Int64, false),
    ]))
}

impl Connection {
    pub(super) async fn run_verify(
        &mut self,
        running: &Running,
        context: &PlanContext,
        name: &Name,
    ) -> Result<Response> {
        let object = self.resolve(context, name)?;
        let ObjectKind::MaterializedView(view) = &object.kind else {
            return Err(wrong_kind(&object, Noun::MaterializedView).position(name.position));
        };
        let planned = planned_view(&context.catalog, &object, view)?;
        let key = planned.lower()?.unique_key;
        let (mut stored, sources) = split_objects(&context.catalog, &planned.objects);
        for source in &sources {
            if matches!(&source.kind, ObjectKind::Source(definition) if !definition.bounded) {
                return Err(Error::unsupported(format!(
                    "verifying a view over source \"{}\", which has no end",
                    source.name.name
                ))
                .hint(
                    "What the view has read of it cannot be read again. Verify the views above it \
                     by making this one a view over a table.",
                ));
            }
        }
        let coordinator = &self.database.coordinator;
        if !sources.is_empty() {
            running.wait(coordinator.flush()).await?;
        }
        stored.push(object.id);
        let mut read = running.wait(coordinator.read(stored)).await?;
        let kept = read.contents.remove(&object.id).unwrap_or_default();
        let contents =
            self.contents_over(running, context, &planned, of_rows(read.contents), sources).await?;
        let computed = self.collect(running, context, &planned, &contents).await.map_err(|e| {
            match e.kind() {
                ErrorKind::User => {
                    e.context("the view's query cannot be computed as a batch").hint(
                        "A view leaves such rows out and lists them in millstream.errors; VERIFY \
                         compares views without them.",
                    )
                }
                _ => e,
            }
        })?;
        let comparison = compare(&object.schema, &kept, &computed)?;
        let batch = comparison.report(key.as_deref(), read.epoch)?;
        let rows = futures::stream::iter([Ok(batch)]).boxed();
        Ok(Response::Rows { schema: verify_schema(), rows, tag: "VERIFY".to_owned() })
    }
}

/// What two results have in common and what not.
struct Comparison {
    /// Rows that the view has.
    rows: usize,
    /// Rows of one side only: weight -1 and less are missing, 1 and more are extra.
    differences: ChangeBatch,
}

/// Compares what a view has with what it ought to have, as bags.
fn compare(
    schema: &SchemaRef,
    kept: &[RecordBatch],
    computed: &[RecordBatch],
) -> Result<Comparison> {
    // What may be NULL is no difference by itself.
    let schema = nullable(schema);
    let side = |batches: &[RecordBatch]| -> Result<Vec<ChangeBatch>> {
        let of_view = |batch: &RecordBatch| {
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let columns = batch.columns().to_vec();
            let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
            Ok(ChangeBatch::inserts(rows))
        };
        batches.iter().map(of_view).collect()
    };
    let mut all = side(kept)?;
    all.extend(side(computed)?.into_iter().map(|batch| batch.negate()));
    let differences = match all.iter().all(ChangeBatch::is_empty) {
        true => ChangeBatch::inserts(RecordBatch::new_empty(schema.clone())),
        false => ChangeBatch::concat(&schema, &all)?.consolidate()?,
    };
    // Without a computed row nothing has been added up: each is an insert of its own.
    Ok(Comparison { rows: kept.iter().map(RecordBatch::num_rows).sum(), differences })
}

impl Comparison {
    /// The answer; `key` are the columns that tell rows apart.
    fn report(&self, key: Option<&[usize]>, epoch: Epoch) -> Result<RecordBatch> {
        let rows = self.differences.rows();
        let schema = rows.schema();
        let weights = self.differences.weights_vec();
        let differing: u64 = weights.iter().map(|weight| weight.unsigned_abs()).sum();
        let text = |columns: &mut dyn Iterator<Item = usize>, row: usize| {
            let values: Vec<String> = columns
                .map(|column| shown_value(rows.column(column), schema.field(column), row))
                .collect();
            format!("({})", values.join(", "))
        };
        let key_of = |row: usize| key.map(|key| text(&mut key.iter().copied(), row));
        let mut shown: Vec<(Option<String>, String, i64)> = (0..rows.num_rows())
            // Sorting wants all of them; what is wrong in many places is shown as it comes.
            .take(SHOWN_MAX * 100)
            .map(|row| (key_of(row), text(&mut (0..rows.num_columns()), row), weights[row]))
            .collect();
        shown.sort();
        shown.truncate(SHOWN_MAX);
        let (result, count) =
            if differing == 0 { ("ok", self.rows as i64) } else { ("differs", differing as i64) };
        let kinds =
            shown.iter().map(|(_, _, weight)| if *weight < 0 { "missing" } else { "extra" });
        let counts = shown.iter().map(|(_, _, weight)| weight.abs());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(std::iter::once(result).chain(kinds))),
            Arc::new(Int64Array::from_iter_values(std::iter::once(count).chain(counts))),
            Arc::new(StringArray::from_iter(
                std::iter::once(None).chain(shown.iter().map(|(key, _, _)| key.clone())),
            )),
            Arc::new(StringArray::from_iter(
                std::iter::once(None).chain(shown.iter().map(|(_, row, _)| Some(row.clone()))),
            )),
            Arc::new(Int64Array::from(vec![epoch.0 as i64; shown.len() + 1])),
        ];
        Ok(RecordBatch::try_new(verify_schema(), columns)?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::display::array_value_to_string;

    use super::*;

    fn rows(pairs: &[(i64, i64)]) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, false),
            Field::new("v", DataType::Int64, false),
        ]));
        let k = Int64Array::from_iter_values(pairs.iter().map(|p| p.0));
        let v = Int64Array::from_iter_values(pairs.iter().map(|p| p.1));
        RecordBatch::try_new(schema, vec![Arc::new(k), Arc::new(v)]).expect("two columns")
    }

    fn report(kept: &[(i64, i64)], computed: &[(i64, i64)]) -> String {
        let schema = rows(&[]).schema();
        // In two batches each, however few.
        let split = |pairs: &[(i64, i64)]| {
            let (left, right) = pairs.split_at(pairs.len() / 2);
            vec![rows(left), rows(right)]
        };
        let comparison = compare(&schema, &split(kept), &split(computed)).expect("compares");
        let batch = comparison.report(Some(&[0]), Epoch(9)).expect("is shown");
        let line = |row: usize| {
            let values = batch.columns().iter().map(|c| array_value_to_string(c, row));
            let values: std::result::Result<Vec<String>, _> = values.collect();
            values.expect("texts and numbers").join("|")
        };
        (0..batch.num_rows()).map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn equal_bags_are_ok_in_any_order() {
        assert_eq!(report(&[], &[]), "ok|0|||9");
        assert_eq!(report(&[(1, 2), (3, 4), (1, 2)], &[(1, 2), (1, 2), (3, 4)]), "ok|3|||9");
    }

    #[test]
    fn differences_are_counted_and_shown_by_key() {
        let shown = report(&[(1, 2), (2, 5), (3, 3), (3, 3)], &[(1, 2), (2, 6), (3, 3), (4, 0)]);
        let wanted = [
            "differs|4|||9",
            "extra|1|(2)|(2, 5)|9",
            "missing|1|(2)|(2, 6)|9",
            "extra|1|(3)|(3, 3)|9",
            "missing|1|(4)|(4, 0)|9",
        ];
        assert_eq!(shown, wanted.join("\n"));
        assert_eq!(report(&[], &[(1, 1)]), "differs|1|||9\nmissing|1|(1)|(1, 1)|9");
        assert_eq!(report(&[(1, 1)], &[]), "differs|1|||9\nextra|1|(1)|(1, 1)|9");
        let many: Vec<(i64, i64)> = (0..1000).map(|n| (n, n)).collect();
        let shown = report(&many, &[]);
        assert!(shown.starts_with("differs|1000|"), "{shown}");
        assert_eq!(shown.lines().count(), 1 + SHOWN_MAX);
    }
}
