//! The functions and operators that a query may name: DataFusion's lists with ours over them.
//!
//! Built once; what depends on the session (`current_user`, `now()`) is made per statement in
//! `sql::resolve`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunction};
use datafusion::common::{DataFusionError, Result};
use datafusion::config::ConfigOptions;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SessionStateBuilder, SessionStateDefaults};
use datafusion::logical_expr::planner::{ExprPlanner, TypePlanner};
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, WindowUDF};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::sql::sqlparser::ast;

use crate::functions::scalar::passing::{PASSING, passing};
use crate::functions::{scalar, window};
use crate::sql::aggregates;
use crate::sql::exclude;
use crate::sql::match_recognize::exec::MatchExecPlanner;
use crate::sql::nullable_side::HideEqualities;
use crate::sql::operators::PostgresOperators;
use crate::sql::types::sql_type_of;

/// Every function by name and by alias, lower case.
pub struct Functions {
    pub scalar: HashMap<String, Arc<ScalarUDF>>,
    pub higher_order: HashMap<String, Arc<HigherOrderUDF>>,
    pub aggregate: HashMap<String, Arc<AggregateUDF>>,
    pub window: HashMap<String, Arc<WindowUDF>>,
    pub table: HashMap<String, Arc<TableFunction>>,
    /// Operators and special syntax, ours first.
    pub expr_planners: Vec<Arc<dyn ExprPlanner>>,
}

impl Functions {
    /// Whether any kind of function has that name, or DataFusion's planner knows it as syntax.
    pub fn is_known(&self, name: &str) -> bool {
        self.scalar.contains_key(name)
            || self.higher_order.contains_key(name)
            || self.aggregate.contains_key(name)
            || self.window.contains_key(name)
            || matches!(name, "unnest" | "unnest_outer" | "make_map" | "map" | "grouping")
    }
}

/// The lists, the same for every session.
pub static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let mut expr_planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(PostgresOperators)];
    expr_planners.extend(SessionStateDefaults::default_expr_planners());
    let mut functions = Functions {
        scalar: HashMap::new(),
        higher_order: HashMap::new(),
        aggregate: HashMap::new(),
        window: HashMap::new(),
        table: HashMap::new(),
        expr_planners,
    };
    for function in SessionStateDefaults::default_scalar_functions() {
        insert(&mut functions.scalar, function.name(), function.aliases(), &function);
    }
    for name in PASSING {
        if let Some(function) = functions.scalar.get_mut(name) {
            *function = passing(function.clone());
        }
    }
    for function in scalar::all().into_iter().chain([exclude::marker()]) {
        insert(&mut functions.scalar, function.name(), function.aliases(), &function);
    }
    for function in SessionStateDefaults::default_higher_order_functions() {
        insert(&mut functions.higher_order, function.name(), function.aliases(), &function);
    }
    for function in SessionStateDefaults::default_aggregate_functions() {
        insert(&mut functions.aggregate, function.name(), function.aliases(), &function);
    }
    for function in aggregates::all() {
        insert(&mut functions.aggregate, function.name(), function.aliases(), &function);
    }
    for function in SessionStateDefaults::default_window_functions() {
        insert(&mut functions.window, function.name(), function.aliases(), &function);
    }
    for function in window::all() {
        insert(&mut functions.window, function.name(), function.aliases(), &function);
    }
    for function in SessionStateDefaults::default_table_functions() {
        insert(&mut functions.table, function.name(), &[], &function);
    }
    functions
});

fn insert<T>(list: &mut HashMap<String, Arc<T>>, name: &str, aliases: &[String], value: &Arc<T>) {
    for name in std::iter::once(name).chain(aliases.iter().map(String::as_str)) {
        list.insert(name.to_lowercase(), value.clone());
    }
}

/// How DataFusion reads and plans for us; the same for every session.
pub static OPTIONS: LazyLock<ConfigOptions> = LazyLock::new(|| {
    let mut options = ConfigOptions::new();
    let parser = &mut options.sql_parser;
    // 1.5 is numeric, as in Postgres, and exact.
    parser.parse_float_as_decimal = true;
    // Text is Utf8: what tables, state and the wire hold.
    parser.map_string_types_to_utf8view = false;
    // For error positions.
    parser.collect_spans = true;
    parser.default_null_ordering = "nulls_max".to_owned();
    // Timestamps with time zone are instants; the session's zone is a matter of casts.
    options.execution.time_zone = Some("UTC".to_owned());
    // Of count() in a correlated subquery the logical plan says that it is never NULL, the physical
    // one, which has an outer join there, that it may be: both are right.
    options.execution.skip_physical_aggregate_schema_check = true;
    options
});

/// What DataFusion's planners and executors want to know of a session. Catalogs stay empty: names
/// are resolved before.
pub static SESSION: LazyLock<SessionState> = LazyLock::new(|| {
    let config = SessionConfig::from(OPTIONS.clone());
    let mut rules = PhysicalOptimizer::new().rules;
    rules.insert(0, Arc::new(aggregates::OnePhase));
    rules.insert(0, Arc::new(HideEqualities));
    SessionStateBuilder::new()
        .with_config(config)
        .with_physical_optimizer_rules(rules)
        .with_query_planner(Arc::new(BatchPlanner))
        // Some rewrites need a function by name (DISTINCT ON is first_value).
        .with_aggregate_functions(FUNCTIONS.aggregate.values().cloned().collect())
        .with_scalar_functions(SessionStateDefaults::default_scalar_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .build()
});

/// Physical plans of DataFusion's nodes and of ours.
#[derive(Debug)]
struct BatchPlanner;

#[async_trait]
impl QueryPlanner for BatchPlanner {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(MatchExecPlanner)])
            .create_physical_plan(logical_plan, session)
            .await
    }
}

/// Type names in casts, as Postgres reads them.
#[derive(Debug)]
pub struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, data_type: &ast::DataType) -> Result<Option<FieldRef>> {
        let sql_type =
            sql_type_of(data_type).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(Some(Arc::new(sql_type.to_field("", true))))
    }
}
