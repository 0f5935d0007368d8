//! A rule of DataFusion that would change an answer, kept from doing so: `PushDownFilter` takes a
//! condition without columns below an aggregate that has a row for no input, too. The row stays
//! then, and counts nothing.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// `PushDownFilter`, but not below an aggregate with an empty grouping set.
#[derive(Debug)]
pub struct PushDownFilterToGroups(PushDownFilter);

impl PushDownFilterToGroups {
    pub fn new() -> PushDownFilterToGroups {
        PushDownFilterToGroups(PushDownFilter::new())
    }
}

impl OptimizerRule for PushDownFilterToGroups {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let mut predicates = Vec::new();
        let mut below = &plan;
        while let LogicalPlan::Filter(filter) = below {
            predicates.push(&filter.predicate);
            below = filter.input.as_ref();
        }
        let stays = matches!(below, LogicalPlan::Aggregate(aggregate)
            if aggregate.group_expr.iter().all(|key| matches!(key, Expr::GroupingSet(_))));
        match (stays, predicates.len()) {
            (false, _) => self.0.rewrite(plan, config),
            (true, 0 | 1) => Ok(Transformed::no(plan)),
            // The rule makes one of filters that follow each other, and goes on with that itself.
            (true, _) => match conjunction(predicates.into_iter().rev().cloned()) {
                Some(all) => {
                    let filter = Filter::try_new(all, Arc::new(below.clone()))?;
                    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
                }
                None => Ok(Transformed::no(plan)),
            },
        }
    }
}
