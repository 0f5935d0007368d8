//! Which of DataFusion's rewrites run, in order, with reasons.
//!
//! Batch execution takes DataFusion's own list. A dataflow has its own needs: subqueries must
//! become joins, because there is no other way to maintain them; what saves work only once
//! (limits pushed into scans) is left out; what saves state (filters, projections and NULL keys
//! before joins) is worth more than in a batch.

use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::config::ConfigOptions;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, ExprFunctionExt, Filter, LogicalPlan, LogicalPlanBuilder, lit,
};
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_group_by_constant::EliminateGroupByConstant;
use datafusion::optimizer::eliminate_join::EliminateJoin;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::filter_null_join_keys::FilterNullJoinKeys;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerConfig, OptimizerRule};

use crate::functions::scalar::session::NOW;
use crate::sql::asof::plan_as_windows;
use crate::sql::expressions::ordered_condition;
use crate::sql::functions::{OPTIONS, SESSION};
use crate::sql::guarded_rules::{Rules, guarded};
use crate::sql::join_order::order_joins;
use crate::sql::lateral::unnest_lateral;
use crate::sql::offset::number_offsets;

/// Optimises a plan for one batch execution.
pub fn optimize_batch(plan: LogicalPlan) -> Result<LogicalPlan> {
    static RULES: LazyLock<Optimizer> = LazyLock::new(|| {
        let mut rules = Optimizer::new().rules;
        // It sums sums, whose type is not the sum's in Postgres; all our functions know DISTINCT.
        rules.retain(|rule| rule.name() != "single_distinct_aggregation_to_group_by");
        Optimizer::with_rules(guarded(rules))
    });
    static SETTINGS: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| Arc::new(OPTIONS.clone()));
    let plan = number_offsets(prepare(plan)?)?;
    order_conditions(run(&RULES, plan_as_windows(plan)?, &SETTINGS)?)
}

/// Conditions that may fail are looked at last (a dataflow's when they are compiled).
fn order_conditions(plan: LogicalPlan) -> Result<LogicalPlan> {
    let ordered = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Filter(filter) => {
            let predicate = ordered_condition(filter.predicate);
            let filter = Filter::try_new(predicate, filter.input)?;
            Ok(Transformed::yes(LogicalPlan::Filter(filter)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(ordered.data)
}

/// What DataFusion plans otherwise, or not at all.
fn prepare(plan: LogicalPlan) -> Result<LogicalPlan> {
    unnest_lateral(number_distinct_on(plan)?)
}

/// DISTINCT ON as what it means: of each group the row that comes first. DataFusion's own rewrite
/// makes an aggregate of each column; a dataflow has an operator for the first rows.
fn number_distinct_on(plan: LogicalPlan) -> Result<LogicalPlan> {
    const PLACE: &str = "place in distinct on";
    let numbered = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Distinct(Distinct::On(on)) = node else {
            return Ok(Transformed::no(node));
        };
        let DistinctOn { on_expr, select_expr, sort_expr, input, .. } = on;
        // DataFusion's planner takes any name here.
        for column in on_expr.iter().flat_map(Expr::column_refs) {
            input.schema().index_of_column(column)?;
        }
        let place = row_number()
            .partition_by(on_expr)
            .order_by(sort_expr.unwrap_or_default())
            .build()?
            .alias(PLACE);
        let plan = LogicalPlanBuilder::from(input)
            .window([place])?
            .filter(Expr::Column(Column::from_name(PLACE)).eq(lit(1_u64)))?
            .project(select_expr)?
            .build()?;
        Ok(Transformed::yes(plan))
    })?;
    Ok(numbered.data)
}

/// Optimises a plan for a dataflow that maintains its result.
pub fn optimize_dataflow(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = order_joins(prepare(plan)?)?;
    static RULES: LazyLock<Optimizer> =
        LazyLock::new(|| Optimizer::with_rules(guarded(dataflow_rules())));
    // What comparisons with now() have in common must not be computed below them: it is no row's.
    static RULES_IN_TIME: LazyLock<Optimizer> = LazyLock::new(|| {
        let mut rules = dataflow_rules();
        rules.retain(|rule| rule.name() != CommonSubexprEliminate::new().name());
        Optimizer::with_rules(guarded(rules))
    });
    static SETTINGS: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| {
        let mut options = OPTIONS.clone();
        // A dataflow has no subplan that runs once before the others.
        options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        // A row whose join key is NULL matches nothing: it need not be kept.
        options.optimizer.filter_null_join_keys = true;
        Arc::new(options)
    });
    let rules = if looks_at_now(&plan)? { &RULES_IN_TIME } else { &RULES };
    run(rules, plan, &SETTINGS)
}

/// Whether an expression of the plan looks at now().
fn looks_at_now(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            let is_now =
                |e: &Expr| matches!(e, Expr::Placeholder(Placeholder { id, .. }) if id == NOW);
            found |= expr.exists(|e| Ok(is_now(e)))?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

/// What rules may ask while they run over one plan.
struct Context {
    options: Arc<ConfigOptions>,
    aliases: Arc<AliasGenerator>,
}

impl OptimizerConfig for Context {
    fn query_execution_start_time(&self) -> Option<DateTime<Utc>> {
        // now() is a parameter until the statement runs; nothing else may look at a clock.
        None
    }

    fn alias_generator(&self) -> &Arc<AliasGenerator> {
        &self.aliases
    }

    fn options(&self) -> Arc<ConfigOptions> {
        self.options.clone()
    }

    fn function_registry(&self) -> Option<&dyn FunctionRegistry> {
        Some(&*SESSION)
    }
}

fn run(rules: &Optimizer, plan: LogicalPlan, options: &Arc<ConfigOptions>) -> Result<LogicalPlan> {
    let context = Context { options: options.clone(), aliases: Arc::default() };
    rules.optimize(plan, &context, |_, _| {})
}

fn dataflow_rules() -> Rules {
    vec![
        // x op ANY/ALL (SELECT ...) becomes EXISTS, which the rules below know.
        Arc::new(RewriteSetComparison::new()),
        // Nested unions become one operator with many inputs.
        Arc::new(OptimizeUnions::new()),
        // Constants fold here, so that nothing below computes them for every row.
        Arc::new(SimplifyExpressions::new()),
        // DISTINCT is an aggregate without calls: one operator less to write.
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(EliminateJoin::new()),
        // IN, EXISTS, scalar subqueries and LATERAL become joins: the only way to maintain them.
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        // Equalities in ON become keys: a hash join instead of trying every pair.
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        // FROM a, b WHERE a.x = b.x is a join by key. It keeps the order that was chosen.
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(PropagateEmptyRelation::new()),
        // Rows with NULL keys are not kept.
        Arc::new(FilterNullJoinKeys::default()),
        // An outer join whose NULLs a filter drops anyway needs no outer state.
        Arc::new(EliminateOuterJoin::new()),
        // Filters go below joins and aggregates: what they drop is never kept.
        Arc::new(PushDownFilter::new()),
        Arc::new(EliminateGroupByConstant::new()),
        Arc::new(CommonSubexprEliminate::new()),
        // Columns that nobody reads are neither scanned nor kept.
        Arc::new(OptimizeProjections::new()),
    ]
    // Left out: PushDownLimit and EliminateLimit (a limit is a stateful operator here),
    // SingleDistinctToGroupBy (the aggregate operator knows DISTINCT), and the pushing of field
    // accesses into scans (it serves column files).
}
