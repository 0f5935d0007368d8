//! Filters, then projects; stateless.
//!
//! 1. The condition is evaluated over the batch as it came; rows where it is not true are dropped.
//! 2. The output columns are evaluated over the rows that are left. Columns that none of them uses
//!    are not filtered; columns that are given on as they are cost nothing.
//! 3. A row for which an expression fails (division by zero) is left out and reported with its
//!    weight, so that the report goes when the row goes; the others go on.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, NullArray, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::dataflow::operator::{Output, Stateless};
use crate::dataflow::operators::evaluate::{Evaluated, evaluate, evaluate_condition, report};
use crate::plan::expr::Expr;
use crate::plan::node;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;

/// What to keep and what to compute.
#[derive(Clone, Debug)]
pub struct MapSpec {
    /// Rows are kept where this is true.
    pub filter: Option<Expr>,
    /// The output columns over the input's; `None` keeps them all.
    pub projection: Option<Vec<Expr>>,
    pub schema: SchemaRef,
}

impl From<&node::Map> for MapSpec {
    fn from(node: &node::Map) -> MapSpec {
        MapSpec {
            filter: node.filter.clone(),
            projection: node.projection.clone(),
            schema: node.schema.clone(),
        }
    }
}

/// The `map` operator.
pub struct Map {
    spec: MapSpec,
    /// Whether the projection uses each input column.
    used: Vec<bool>,
    /// The input's columns with those that are not used replaced by columns of NULLs.
    narrow_schema: SchemaRef,
}

impl Map {
    pub fn new(spec: MapSpec, input: &SchemaRef) -> Map {
        let mut used = vec![spec.projection.is_none(); input.fields().len()];
        for expr in spec.projection.iter().flatten() {
            for column in expr.input_columns() {
                used[column] = true;
            }
        }
        let fields = input.fields().iter().zip(&used).map(|(field, used)| match used {
            true => field.clone(),
            false => Arc::new(Field::new(field.name(), DataType::Null, true)),
        });
        let narrow_schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Map { spec, used, narrow_schema }
    }

    /// The rows with only the columns that the projection uses; filtering the others is waste.
    fn narrow(&self, batch: &ChangeBatch) -> Result<ChangeBatch> {
        if self.used.iter().all(|used| *used) {
            return Ok(batch.clone());
        }
        let rows = batch.num_rows();
        let nulls: ArrayRef = Arc::new(NullArray::new(rows));
        let columns = batch.rows().columns().iter().zip(&self.used);
        let columns = columns.map(|(column, used)| if *used { column } else { &nulls }.clone());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let narrow = RecordBatch::try_new_with_options(
            self.narrow_schema.clone(),
            columns.collect(),
            &options,
        )?;
        Ok(batch.with_rows(narrow))
    }

    /// Which rows to keep; `None`: all.
    fn filter(&self, batch: &ChangeBatch, out: &mut Output) -> Result<Option<BooleanArray>> {
        let Some(filter) = &self.spec.filter else { return Ok(None) };
        let (keep, failed) = evaluate_condition(filter, batch.rows())?;
        report(filter, batch.rows(), failed, |row| batch.weight(row), out)?;
        Ok((keep.true_count() < batch.num_rows()).then_some(keep))
    }

    /// The output of the rows to keep.
    fn project(
        &self,
        batch: &ChangeBatch,
        keep: Option<&BooleanArray>,
        out: &mut Output,
    ) -> Result<ChangeBatch> {
        let kept = match keep {
            Some(keep) => self.narrow(batch)?.filter(keep)?,
            None => batch.clone(),
        };
        let Some(projection) = &self.spec.projection else { return self.as_output(kept) };
        let mut columns = Vec::with_capacity(projection.len());
        // Rows that failed in some expression; reported for the first only.
        let mut left_out: Vec<bool> = Vec::new();
        for expr in projection {
            let Evaluated { values, mut failed } = evaluate(expr, kept.rows())?;
            columns.push(values);
            if !failed.is_empty() {
                left_out.resize(kept.num_rows(), false);
                failed.retain(|(row, _)| !std::mem::replace(&mut left_out[*row], true));
                // The report shows the row with all its columns.
                let whole = keep.map_or_else(|| Ok(batch.clone()), |keep| batch.filter(keep))?;
                report(expr, whole.rows(), failed, |row| kept.weight(row), out)?;
            }
        }
        if left_out.is_empty() {
            return Ok(kept.with_rows(self.rows(columns, kept.num_rows())?));
        }
        // The NULLs of failed rows go before the columns meet the schema, which may forbid them.
        let good = BooleanArray::from_iter(left_out.iter().map(|left_out| Some(!left_out)));
        let columns = columns.iter().map(|column| compute::filter(column, &good));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        let kept = kept.project(&[])?.filter(&good)?;
        Ok(kept.with_rows(self.rows(columns, kept.num_rows())?))
    }

    fn rows(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.spec.schema.clone(), columns, &options)?)
    }

    /// The input's columns under the output's names.
    fn as_output(&self, batch: ChangeBatch) -> Result<ChangeBatch> {
        if Arc::ptr_eq(&batch.schema(), &self.spec.schema) {
            return Ok(batch);
        }
        let columns = batch.rows().columns().to_vec();
        Ok(batch.with_rows(self.rows(columns, batch.num_rows())?))
    }
}

impl Stateless for Map {
    fn name(&self) -> &'static str {
        "map"
    }

    fn on_batch(&mut self, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        let keep = self.filter(&batch, out)?;
        if keep.as_ref().is_none_or(|keep| keep.true_count() > 0) {
            let projected = self.project(&batch, keep.as_ref(), out)?;
            out.emit(projected);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::Operator as Op;
    use datafusion::physical_expr::PhysicalExpr;
    use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
    use datafusion::scalar::ScalarValue;
    use expect_test::expect;

    use super::*;
    use crate::dataflow::script::{batch, check, schema};
    use crate::types::change::Weights;

    type Physical = Arc<dyn PhysicalExpr>;

    fn column(index: usize) -> Physical {
        Arc::new(Column::new(["k", "v", "t"][index], index))
    }

    fn number(value: i64) -> Physical {
        Arc::new(Literal::new(ScalarValue::Int64(Some(value))))
    }

    fn binary(left: Physical, op: Op, right: Physical) -> Physical {
        Arc::new(BinaryExpr::new(left, op, right))
    }

    fn bigint(physical: Physical) -> Expr {
        Expr::new(physical, DataType::Int64, true)
    }

    fn condition(physical: Physical) -> Expr {
        Expr::new(physical, DataType::Boolean, true)
    }

    fn input() -> SchemaRef {
        schema("k bigint, v bigint, t text")
    }

    fn map(filter: Option<Expr>, projection: Option<Vec<Expr>>, output: &str) -> Map {
        Map::new(MapSpec { filter, projection, schema: schema(output) }, &input())
    }

    #[test]
    fn keeps_rows_where_the_condition_is_true() {
        check(
            || {
                let filter = condition(binary(column(1), Op::Gt, number(1)));
                Box::new(map(Some(filter), None, "k bigint, v bigint, t text"))
            },
            &[input()],
            "
            batch 0
              + 1 2 a
              + 2 1 b
              - 3 3 c
              + 4 . d
              +2 5 5 .
            watermark 0 9
            epoch 1
            recover
            batch 0
              - 2 1 b
            epoch 2
            ",
            expect![[r#"
                epoch 1
                + 1 2 a
                - 3 3 c
                +2 5 5 .
                watermark 9
                epoch 2
            "#]],
        );
    }

    #[test]
    fn rows_that_fail_are_left_out_and_reported_once() {
        check(
            || {
                let filter = condition(binary(
                    binary(number(6), Op::Divide, column(1)),
                    Op::LtEq,
                    number(6),
                ));
                let minus = binary(column(1), Op::Minus, number(1));
                let divided = binary(column(0), Op::Divide, minus.clone());
                let modulo = binary(column(0), Op::Modulo, minus);
                let projection = vec![bigint(column(0)), bigint(divided), bigint(modulo)];
                Box::new(map(
                    Some(filter),
                    Some(projection),
                    "k bigint, d bigint not null, m bigint",
                ))
            },
            &[input()],
            "
            batch 0
              + 7 2 a
              + 7 0 b
              + 8 3 c
              +2 9 1 d
              + 9 . e
              - 5 0 f
            epoch 1
            batch 0
              -2 9 1 d
            epoch 2
            ",
            expect![[r#"
                epoch 1
                + 7 7 0
                + 8 4 0
                error 22012 division by zero in 6 / v@1 <= 6 for +1 (7, 0, b)
                error 22012 division by zero in 6 / v@1 <= 6 for -1 (5, 0, f)
                error 22012 division by zero in k@0 / (v@1 - 1) for +2 (9, 1, d)
                epoch 2
                error 22012 division by zero in k@0 / (v@1 - 1) for -2 (9, 1, d)
            "#]],
        );
    }

    /// AND looks at its right side by batch; what a row alone gives must not depend on neighbours.
    #[test]
    fn conditions_that_guard_others_do_so_row_by_row() {
        let guard = binary(column(1), Op::NotEq, number(0));
        let divided = binary(binary(number(6), Op::Divide, column(1)), Op::Gt, number(1));
        let mut map = map(
            Some(condition(binary(guard, Op::And, divided))),
            Some(vec![bigint(column(0))]),
            "k bigint",
        );
        let rows: String = (0..100).map(|k| format!("+ {k} {} .\n", k % 5)).collect();
        let mut out = Output::default();
        map.on_batch(batch(&input(), &rows), &mut out).expect("maps");
        assert!(out.take_row_errors().is_empty());
        let kept: usize = out.take_batches().iter().map(ChangeBatch::num_rows).sum();
        // 6 / v > 1 in whole numbers: v = 1, 2, 3.
        assert_eq!(kept, 60);
    }

    #[test]
    fn columns_alone_are_shared_and_stay_append_only() {
        let projection = vec![bigint(column(1)), bigint(column(0))];
        let mut map = map(None, Some(projection), "v bigint, k bigint");
        let rows = batch(&input(), "+ 1 2 a\n+ 3 4 b");
        let mut out = Output::default();
        map.on_batch(rows.clone(), &mut out).expect("maps");
        let sent = out.take_batches();
        assert!(matches!(sent[0].weights(), Weights::AllInserts));
        assert!(Arc::ptr_eq(sent[0].column(0), rows.column(1)));
    }

    #[test]
    fn rows_may_lose_all_their_columns() {
        let mut map = map(Some(condition(binary(column(0), Op::Gt, number(1)))), Some(vec![]), "");
        let mut out = Output::default();
        map.on_batch(batch(&input(), "+ 1 2 a\n+ 3 4 b\n-2 5 6 c"), &mut out).expect("maps");
        let sent = out.take_batches();
        assert_eq!((sent[0].num_rows(), sent[0].weight_sum()), (2, -1));
    }
}
