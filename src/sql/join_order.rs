//! In which order the inner joins of a dataflow are made.
//!
//! A join keeps both of its inputs, so an order costs what its intermediate results hold. Inner
//! joins that follow each other are taken apart into inputs and conditions; from each input on,
//! the next one is, of those that an equality connects to what is joined already, the one that
//! gives the fewest rows; the start whose intermediate results add up to the least wins. What no
//! equality connects comes last: no product of inputs is made that a connected order avoids. Only
//! chains are made: a result is joined to an input, never to another result.
//!
//! Sizes are estimates. A table or view has as many rows as it had when the view was planned first
//! (which is stored with its definition, so that planning it again gives the same order), a source
//! many. A join with a whole key on one side gives no more rows than the other side has. Orders
//! that cost the same are told apart by the names of the inputs: how FROM lists them says nothing.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection, TableScan,
};

use crate::catalog::object::ObjectKind;
use crate::sql::resolve::CatalogSource;

/// Of more inputs the order stays as it is written.
const INPUTS_MAX: usize = 32;
/// Rows of a table that has none yet, or of which nothing is known.
const TABLE_ROWS: f64 = 1000.0;
/// Rows of a source.
const SOURCE_ROWS: f64 = 1e6;

/// The share of rows that conditions keep, where nothing better is known.
const EQUAL_KEPT: f64 = 0.05;
const RANGE_KEPT: f64 = 0.3;
const OTHER_KEPT: f64 = 0.5;
/// The same of one equality more between two inputs.
const MORE_EQUAL_KEPT: f64 = 0.1;

/// The plan with its inner joins in the order that keeps the least.
///
/// # Errors
/// When a plan cannot be put together again (ours).
pub fn order_joins(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.map_subqueries(|query| order_joins(query).map(Transformed::yes))?.data;
    let joins = match &plan {
        LogicalPlan::Filter(filter) => is_inner(&filter.input),
        other => is_inner(other),
    };
    if joins && let Some(ordered) = ordered(&plan)? {
        return Ok(ordered);
    }
    Ok(plan.map_children(|input| order_joins(input).map(Transformed::yes))?.data)
}

/// Whether it is an inner join that may change places with others.
fn is_inner(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(join) if join.join_type == JoinType::Inner
        && join.null_equality == NullEquality::NullEqualsNothing)
}

/// Inner joins in another order; `None`: they stay as they are.
fn ordered(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let mut parts = Parts::default();
    match plan {
        LogicalPlan::Filter(filter) => {
            parts.add(&filter.input);
            parts.conditions.extend(split_conjunction_owned(filter.predicate.clone()));
        }
        joins => parts.add(joins),
    }
    let Parts { inputs, conditions } = parts;
    let outer = conditions.iter().any(Expr::contains_outer);
    if inputs.len() < 3 || inputs.len() > INPUTS_MAX || outer || inputs.iter().any(is_lateral) {
        return Ok(None);
    }
    let graph = Graph::new(&inputs, &conditions);
    let order = graph.order();
    if order.iter().copied().eq(0..inputs.len()) {
        return Ok(None);
    }
    let mut joined: Option<LogicalPlanBuilder> = None;
    for place in order {
        let input = order_joins(inputs[place].clone())?;
        joined = Some(match joined {
            None => LogicalPlanBuilder::from(input),
            Some(joined) => joined.cross_join(input)?,
        });
    }
    let Some(joined) = joined else { return Ok(None) };
    let mut joined = joined.build()?;
    if let Some(predicate) = conjunction(conditions) {
        joined = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(joined))?);
    }
    // Columns stand where they stood.
    let schema = plan.schema().clone();
    Ok(Some(LogicalPlan::Projection(Projection::new_from_schema(Arc::new(joined), schema))))
}

/// Whether a plan looks at columns of what stands before it.
fn is_lateral(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let visited = plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|expr| {
            found |= expr.contains_outer();
            Ok(TreeNodeRecursion::Continue)
        })
    });
    found || visited.is_err()
}

/// Joins taken apart.
#[derive(Default)]
struct Parts {
    inputs: Vec<LogicalPlan>,
    conditions: Vec<Expr>,
}

impl Parts {
    fn add(&mut self, plan: &LogicalPlan) {
        let LogicalPlan::Join(join) = plan else { return self.inputs.push(plan.clone()) };
        if !is_inner(plan) {
            return self.inputs.push(plan.clone());
        }
        self.add(&join.left);
        self.add(&join.right);
        let equal = |(left, right): &(Expr, Expr)| left.clone().eq(right.clone());
        self.conditions.extend(join.on.iter().map(equal));
        self.conditions.extend(join.filter.iter().cloned().flat_map(split_conjunction_owned));
    }
}

/// A set of inputs, by bits.
type Set = u64;

struct Input {
    /// What tells orders apart that cost the same.
    name: String,
    estimate: Estimate,
    /// The share of its rows that conditions over it alone keep.
    kept: f64,
}

impl Input {
    fn rows(&self) -> f64 {
        (self.estimate.rows * self.kept).max(1.0)
    }

    /// Columns of a key that `columns` have all of.
    fn key_in(&self, columns: &[&Column]) -> Option<usize> {
        let keys = self.estimate.keys.iter().filter(|key| !key.is_empty());
        keys.filter(|key| key.iter().all(|c| columns.contains(&c))).map(Vec::len).max()
    }
}

/// An equality between inputs: on each side the inputs and, if it is one, the column.
struct Equality {
    inputs: [Set; 2],
    columns: [Option<Column>; 2],
}

struct Graph {
    inputs: Vec<Input>,
    equalities: Vec<Equality>,
}

impl Graph {
    fn new(plans: &[LogicalPlan], conditions: &[Expr]) -> Graph {
        let inputs_of = |expr: &Expr| -> Set {
            expr.column_refs().into_iter().fold(0, |set, column| {
                let place = plans.iter().position(|plan| plan.schema().has_column(column));
                place.map_or(set, |place| set | 1 << place)
            })
        };
        let mut inputs: Vec<Input> = plans
            .iter()
            .map(|plan| {
                let schema = plan.schema();
                let name = match schema.fields().is_empty() {
                    true => String::new(),
                    false => match schema.qualified_field(0) {
                        (Some(relation), _) => relation.to_string(),
                        (None, field) => field.name().clone(),
                    },
                };
                Input { name, estimate: estimate(plan), kept: 1.0 }
            })
            .collect();
        let mut equalities = Vec::new();
        for condition in conditions {
            let set = inputs_of(condition);
            if set.count_ones() == 1 {
                let input = &mut inputs[set.trailing_zeros() as usize];
                input.kept *= kept(condition, &input.estimate);
                continue;
            }
            for (left, right) in equal_pairs(condition) {
                let sides = [inputs_of(&left), inputs_of(&right)];
                if sides[0] != 0 && sides[1] != 0 && sides[0] & sides[1] == 0 {
                    let columns = [left, right].map(|side| side.try_as_col().cloned());
                    equalities.push(Equality { inputs: sides, columns });
                }
            }
        }
        Graph { inputs, equalities }
    }

    /// The order that keeps the least.
    fn order(&self) -> Vec<usize> {
        let names = |order: &[usize]| -> Vec<&str> {
            order.iter().map(|place| self.inputs[*place].name.as_str()).collect()
        };
        let orders = (0..self.inputs.len()).map(|start| self.order_from(start));
        let best = orders.min_by(|(cost, order), (other_cost, other)| {
            cost.total_cmp(other_cost).then_with(|| names(order).cmp(&names(other)))
        });
        best.map(|(_, order)| order).unwrap_or_default()
    }

    /// The best chain from an input on, and the rows of its intermediate results.
    fn order_from(&self, start: usize) -> (f64, Vec<usize>) {
        let mut order = vec![start];
        let (mut set, mut rows): (Set, f64) = (1 << start, self.inputs[start].rows());
        let mut cost = 0.0;
        while order.len() < self.inputs.len() {
            let open = (0..self.inputs.len()).filter(|place| set >> place & 1 == 0);
            let next = open
                .map(|place| {
                    let joined = self.joined_rows(set, rows, place);
                    let product = rows * self.inputs[place].rows();
                    (joined.is_none(), joined.unwrap_or(product), place)
                })
                .min_by(|(crossed, rows, place), (other_crossed, other_rows, other)| {
                    crossed
                        .cmp(other_crossed)
                        .then_with(|| rows.total_cmp(other_rows))
                        .then_with(|| self.inputs[*place].name.cmp(&self.inputs[*other].name))
                });
            let Some((_, joined, place)) = next else { break };
            order.push(place);
            set |= 1 << place;
            rows = joined.max(1.0);
            // The last result is not kept by a join.
            if order.len() < self.inputs.len() {
                cost += rows;
            }
        }
        (cost, order)
    }

    /// Rows after `rows` rows of the inputs of `set` have been joined with one more; `None` when
    /// no equality connects them.
    fn joined_rows(&self, set: Set, rows: f64, place: usize) -> Option<f64> {
        let input = &self.inputs[place];
        let mut own = Vec::new();
        let mut others = Vec::new();
        let mut count = 0;
        for Equality { inputs, columns } in &self.equalities {
            for (mine, theirs) in [(0, 1), (1, 0)] {
                if inputs[mine] == 1 << place && inputs[theirs] & !set == 0 {
                    count += 1;
                    own.extend(&columns[mine]);
                    others.extend(&columns[theirs]);
                }
            }
        }
        if count == 0 {
            return None;
        }
        let more = |used: usize| MORE_EQUAL_KEPT.powi((count - used.min(count)) as i32);
        let by_own_key = input.key_in(&own).map(|used| rows * input.kept * more(used));
        // Each row of the input meets one row of the other's at most.
        let by_other_key = (0..self.inputs.len()).filter(|other| set >> other & 1 == 1);
        let by_other_key = by_other_key.filter_map(|other| {
            let used = self.inputs[other].key_in(&others)?;
            Some(rows / self.inputs[other].estimate.rows * input.rows() * more(used))
        });
        let by_key = by_own_key.into_iter().chain(by_other_key).min_by(f64::total_cmp);
        // Without a key on either side: rather too many rows than too few.
        let values = own.iter().filter_map(|column| self.values_of(column)).reduce(f64::max);
        let few = input.estimate.rows.max(rows).sqrt();
        let values = values.map_or(few, |values| values.min(few)).max(1.0);
        Some(by_key.unwrap_or(rows * input.rows() / values * more(1)))
    }

    /// How many values a column has where all equalities hold: at most as many as one that is
    /// equal to it and a key of its input.
    fn values_of(&self, column: &Column) -> Option<f64> {
        let mut equal = vec![column];
        let mut looked_at = 0;
        while let Some(column) = equal.get(looked_at).copied() {
            looked_at += 1;
            for Equality { columns, .. } in &self.equalities {
                let [Some(left), Some(right)] = columns else { continue };
                for (one, other) in [(left, right), (right, left)] {
                    if one == column && !equal.contains(&other) {
                        equal.push(other);
                    }
                }
            }
        }
        let keyed = self.inputs.iter().filter(|input| {
            let is_key = |key: &Vec<Column>| key.len() == 1 && equal.contains(&&key[0]);
            input.estimate.keys.iter().any(is_key)
        });
        keyed.map(|input| input.estimate.rows).reduce(f64::min)
    }
}

/// The equalities that hold wherever a condition does.
fn equal_pairs(condition: &Expr) -> Vec<(Expr, Expr)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            vec![(left.as_ref().clone(), right.as_ref().clone())]
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let mut pairs = equal_pairs(left);
            pairs.extend(equal_pairs(right));
            pairs
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let others = equal_pairs(right);
            let mut pairs = equal_pairs(left);
            pairs.retain(|pair| others.contains(pair));
            pairs
        }
        _ => vec![],
    }
}

/// What is known of a plan's rows.
#[derive(Default)]
struct Estimate {
    rows: f64,
    /// Columns that tell its rows apart.
    keys: Vec<Vec<Column>>,
}

fn estimate(plan: &LogicalPlan) -> Estimate {
    match plan {
        LogicalPlan::TableScan(scan) => of_scan(scan),
        LogicalPlan::SubqueryAlias(alias) => {
            let below = estimate(&alias.input);
            // Columns stand where they stood below.
            let here = |column: &Column| {
                let place = alias.input.schema().maybe_index_of_column(column)?;
                Some(Column::from(alias.schema.qualified_field(place)))
            };
            let keys = below.keys.iter();
            let keys = keys.filter_map(|key| key.iter().map(here).collect()).collect();
            Estimate { keys, ..below }
        }
        LogicalPlan::Projection(projection) => {
            let below = estimate(&projection.input);
            let here = |column: &Column| {
                let same = |expr: &Expr| {
                    let expr = match expr {
                        Expr::Alias(alias) => alias.expr.as_ref(),
                        other => other,
                    };
                    expr.try_as_col() == Some(column)
                };
                let place = projection.expr.iter().position(same)?;
                Some(Column::from(projection.schema.qualified_field(place)))
            };
            let keys = below.keys.iter();
            let keys = keys.filter_map(|key| key.iter().map(here).collect()).collect();
            Estimate { keys, ..below }
        }
        LogicalPlan::Filter(filter) => {
            let below = estimate(&filter.input);
            let conditions = split_conjunction_owned(filter.predicate.clone());
            let share: f64 = conditions.iter().map(|condition| kept(condition, &below)).product();
            Estimate { rows: (below.rows * share).max(1.0), keys: below.keys }
        }
        LogicalPlan::Aggregate(aggregate) => {
            let below = estimate(&aggregate.input);
            let groups = aggregate.group_expr.len();
            let rows = if groups == 0 { 1.0 } else { (below.rows * MORE_EQUAL_KEPT).max(1.0) };
            let columns = aggregate.schema.columns();
            Estimate { rows, keys: vec![columns.into_iter().take(groups).collect()] }
        }
        LogicalPlan::Values(values) => Estimate { rows: values.values.len() as f64, keys: vec![] },
        other => {
            let below = other.inputs().into_iter().map(|input| estimate(input).rows);
            Estimate { rows: below.fold(1.0, f64::max), keys: vec![] }
        }
    }
}

fn of_scan(scan: &TableScan) -> Estimate {
    let Some(source) = scan.source.downcast_ref::<CatalogSource>() else {
        return Estimate { rows: TABLE_ROWS, keys: vec![] };
    };
    let known = source.rows.filter(|rows| *rows > 0).map(|rows| rows as f64);
    match &source.object.kind {
        ObjectKind::Source(_) => Estimate { rows: SOURCE_ROWS, keys: vec![] },
        ObjectKind::Table(table) => {
            let column = |column: &usize| {
                let name = source.object.schema.field(*column).name();
                let mut fields = scan.projected_schema.iter();
                fields.find(|(_, field)| field.name() == name).map(Column::from)
            };
            let key: Option<Vec<Column>> = table.primary_key.iter().map(column).collect();
            Estimate { rows: known.unwrap_or(TABLE_ROWS), keys: key.into_iter().collect() }
        }
        _ => Estimate { rows: known.unwrap_or(TABLE_ROWS), keys: vec![] },
    }
}

/// The share of rows for which a condition holds.
fn kept(condition: &Expr, of: &Estimate) -> f64 {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => kept(left, of) * kept(right, of),
            Operator::Or => (kept(left, of) + kept(right, of)).min(1.0),
            Operator::Eq => {
                let columns: Vec<&Column> =
                    [left, right].iter().filter_map(|side| side.try_as_col()).collect();
                let is_key = |key: &Vec<Column>| key.len() == 1 && columns.contains(&&key[0]);
                match of.keys.iter().any(is_key) {
                    true => 1.0 / of.rows.max(1.0),
                    false => EQUAL_KEPT,
                }
            }
            Operator::NotEq => 1.0 - EQUAL_KEPT,
            Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => RANGE_KEPT,
            _ => OTHER_KEPT,
        },
        Expr::Between(between) if !between.negated => RANGE_KEPT * RANGE_KEPT,
        Expr::InList(list) if !list.negated => (list.list.len() as f64 * EQUAL_KEPT).min(1.0),
        Expr::Like(like) if !like.negated => MORE_EQUAL_KEPT,
        Expr::IsNull(_) => MORE_EQUAL_KEPT,
        Expr::IsNotNull(_) => 1.0,
        _ => OTHER_KEPT,
    }
}
