//! A long series of constants in a maintained query.
//!
//! For a batch `generate_series(1, 1000000)` is a table function, which gives rows as they are
//! asked for. A dataflow has no such input: there it is an unnest of the beginnings of pieces, and
//! of each piece, so that no array is longer than one of the two.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{
    Column, DataFusionError, NullHandling, Result, ScalarValue, UnnestOptions,
};
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableSource, cast, lit,
};

use crate::functions::scalar::call::Family;
use crate::functions::scalar::cast::CastSettings;
use crate::sql::functions::FUNCTIONS;
use crate::types::sql_type::SqlType;
use crate::types::text::zone::Zone;

/// Elements of a piece.
const PIECE: i64 = 1024;
/// Elements of the longest series that is maintained.
const ELEMENTS_MAX: i128 = 1 << 26;

/// The table function, with its ends where they are constants.
pub struct SeriesSource {
    /// What a batch reads.
    pub table: Arc<dyn TableSource>,
    schema: SchemaRef,
    from: i64,
    to: i64,
    step: i64,
}

impl SeriesSource {
    /// The series of constant arguments; `None`: they are something else, or make no series.
    pub fn of(table: Arc<dyn TableSource>, args: &[Expr]) -> Option<SeriesSource> {
        let numbers: Option<Vec<i64>> = args
            .iter()
            .map(|arg| match arg {
                Expr::Literal(ScalarValue::Int64(value), _) => *value,
                _ => None,
            })
            .collect();
        let (from, to, step) = match numbers?.as_slice() {
            [from, to] => (*from, *to, 1),
            [from, to, step] if *step != 0 => (*from, *to, *step),
            _ => return None,
        };
        let schema = table.schema();
        if !matches!(schema.fields().as_ref(), [field] if *field.data_type() == DataType::Int64) {
            return None;
        }
        Some(SeriesSource { table, schema, from, to, step })
    }

    /// How many elements there are, at least.
    fn elements(&self) -> i128 {
        (i128::from(self.to) - i128::from(self.from)) / i128::from(self.step) + 1
    }

    /// A piece may reach beyond the end.
    fn has_room(&self) -> bool {
        let piece = self.step.checked_mul(PIECE);
        piece.is_some_and(|piece| {
            self.to.checked_add(piece).is_some() && self.from.checked_add(piece).is_some()
        })
    }
}

impl TableSource for SeriesSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// Long series as unnested arrays. Those that are too long stay, and are refused as table functions
/// are.
pub fn unnest_long_series(plan: LogicalPlan) -> Result<LogicalPlan> {
    let unnested = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
        let Some(series) = scan.source.downcast_ref::<SeriesSource>() else {
            return Ok(Transformed::no(node));
        };
        if series.elements() > ELEMENTS_MAX || !series.has_room() {
            return Ok(Transformed::no(node));
        }
        Ok(Transformed::yes(pieces(series, scan)?))
    })?;
    Ok(unnested.data)
}

fn pieces(series: &SeriesSource, scan: &TableScan) -> Result<LogicalPlan> {
    const FROM: &str = "from of the piece";
    const ITEM: &str = "item of the series";
    let ends = [series.from, series.to, series.step * PIECE];
    let from = Expr::Column(Column::from_name(FROM));
    let last = from.clone() + lit(series.step * (PIECE - 1));
    let beyond = if series.step > 0 {
        last.clone().gt(lit(series.to))
    } else {
        last.clone().lt(lit(series.to))
    };
    let last = datafusion::logical_expr::when(beyond, lit(series.to)).otherwise(last)?;
    let plan = LogicalPlanBuilder::empty(true)
        .project([array(ends.map(lit).to_vec())?.alias(FROM)])?
        .unnest_column_with_options(Column::from_name(FROM), options())?
        .project([array(vec![from, last, lit(series.step)])?.alias(ITEM)])?
        .unnest_column_with_options(Column::from_name(ITEM), options())?;
    let schema = scan.projected_schema.clone();
    let (qualifier, field) = schema.qualified_field(0);
    let item = cast(Expr::Column(Column::from_name(ITEM)), field.data_type().clone());
    plan.project([item.alias_qualified(qualifier.cloned(), field.name())])?.build()
}

/// As Postgres unnests: no list gives no row.
fn options() -> UnnestOptions {
    UnnestOptions::new().with_null_handling(NullHandling::Drop)
}

/// `generate_series()` of bigints.
fn array(args: Vec<Expr>) -> Result<Expr> {
    let missing = || DataFusionError::Internal("there is no generate_series()".to_owned());
    let function = FUNCTIONS.scalar.get("generate_series").ok_or_else(missing)?;
    let family = function.inner().downcast_ref::<Family>().ok_or_else(missing)?;
    let given = vec![Some(SqlType::Int8); args.len()];
    let literals = vec![None; args.len()];
    let settings = CastSettings { zone: Zone::UTC, now_us: 0 };
    let (call, _) =
        family.call(&given, &literals, settings).map_err(crate::sql::resolve::external)?;
    Ok(call.call(args))
}
