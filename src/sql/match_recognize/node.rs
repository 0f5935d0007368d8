//! MATCH_RECOGNIZE as a node of DataFusion's logical plans.
//!
//! Conditions are expressions over reads, which no input of the node has as columns. For the
//! rewrites that look at expressions and types, the node has a second input: an empty relation
//! with the reads as its columns.

use std::any::Any;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::logical_plan::InvariantLevel;
use datafusion::logical_expr::{
    EmptyRelation, Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNode,
};

use crate::plan::match_recognize::{
    CLASSIFIER_COLUMN, Contiguity, Frame, MATCH_NUMBER_COLUMN, MatchColumn, Pattern, PatternFrom,
    PatternText, Read, RowValue, RowsPerMatch, Skip, Within,
};
use crate::plan::node::SortColumn;
use crate::sql::match_recognize::explain::HEAD;
use crate::sql::resolve::external;
use crate::types::error::Error;

/// What does not change when a plan is rewritten.
#[derive(Debug, PartialEq, Eq)]
pub struct MatchFacts {
    pub partition: Vec<usize>,
    pub order_by: Vec<SortColumn>,
    pub variables: Vec<String>,
    pub pattern: Pattern,
    pub pattern_from: Option<PatternFrom>,
    pub contiguity: Contiguity,
    pub skip: Skip,
    /// Where the variable of AFTER MATCH SKIP stands in the statement, for what goes wrong there.
    pub skip_position: Option<usize>,
    pub rows: RowsPerMatch,
    pub frame: Option<Frame>,
    pub within: Option<Within>,
    pub timeout_rows: bool,
    pub partial_rows: bool,
    /// Which of the variables have conditions, in the order of the node's.
    pub defined: Vec<usize>,
    pub reads: Vec<Read>,
    pub read_names: Vec<String>,
    /// As EXPLAIN shows them in conditions.
    pub read_texts: Vec<String>,
    /// As the user wrote them.
    pub aggregate_texts: Vec<String>,
    pub columns: Vec<MatchColumn>,
}

/// The node.
#[derive(Clone, Debug)]
pub struct MatchNode {
    pub facts: Arc<MatchFacts>,
    pub input: Arc<LogicalPlan>,
    /// An empty relation; see the head of the file.
    pub reads: Arc<LogicalPlan>,
    /// Over reads.
    pub conditions: Vec<Expr>,
    /// Over the input's columns, and those of what a row is in its match.
    pub aggregates: Vec<Expr>,
    pub schema: DFSchemaRef,
}

impl MatchNode {
    /// # Errors
    /// When an aggregate has no type.
    pub fn new(
        facts: Arc<MatchFacts>,
        input: LogicalPlan,
        conditions: Vec<Expr>,
        aggregates: Vec<Expr>,
    ) -> Result<MatchNode> {
        let around = aggregate_schema(input.schema())?;
        let fields = read_fields(&facts, input.schema(), &aggregates, &around)?;
        let columns = facts.columns.iter().map(|column| match column {
            MatchColumn::Input(column) => input.schema().field(*column).clone(),
            MatchColumn::Read(read) => fields[*read].clone(),
        });
        let schema = unqualified(columns.collect())?;
        let beside = around.fields().iter().skip(input.schema().fields().len()).cloned();
        let reads = EmptyRelation {
            produce_one_row: false,
            schema: unqualified(fields.iter().cloned().chain(beside).collect())?,
        };
        let reads = Arc::new(LogicalPlan::EmptyRelation(reads));
        Ok(MatchNode { facts, input: Arc::new(input), reads, conditions, aggregates, schema })
    }
}

fn unqualified(fields: Vec<FieldRef>) -> Result<DFSchemaRef> {
    let fields = fields.into_iter().map(|field| (None, field)).collect();
    Ok(Arc::new(DFSchema::new_with_metadata(fields, Default::default())?))
}

/// The columns that arguments of aggregates are over.
pub fn aggregate_schema(input: &DFSchema) -> Result<DFSchema> {
    let mut fields: Vec<_> =
        input.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
    let beside = [(CLASSIFIER_COLUMN, DataType::Utf8), (MATCH_NUMBER_COLUMN, DataType::Int64)];
    fields.extend(
        beside.map(|(name, data_type)| (None, Arc::new(Field::new(name, data_type, true)))),
    );
    DFSchema::new_with_metadata(fields, Default::default())
}

/// The type of each read; any may be NULL.
pub fn read_fields(
    facts: &MatchFacts,
    input: &DFSchema,
    aggregates: &[Expr],
    around: &DFSchema,
) -> Result<Vec<FieldRef>> {
    let named = facts.reads.iter().zip(&facts.read_names);
    named
        .map(|(read, name)| {
            let field = read_field(
                read,
                |column| input.field(column).clone(),
                |aggregate| {
                    let (_, field) = aggregates[aggregate].to_field(around)?;
                    Ok(field)
                },
            )?;
            Ok(Arc::new(field.as_ref().clone().with_name(name).with_nullable(true)))
        })
        .collect()
}

/// The type of one read.
pub fn read_field(
    read: &Read,
    column: impl Fn(usize) -> FieldRef,
    aggregate: impl Fn(usize) -> Result<FieldRef>,
) -> Result<FieldRef> {
    let plain = |data_type| Ok(Arc::new(Field::new("", data_type, true)));
    match read {
        Read::Row(row) => match row.value {
            RowValue::Column(index) => Ok(column(index)),
            RowValue::Classifier => plain(DataType::Utf8),
        },
        Read::Aggregate { aggregate: index, .. } => aggregate(*index),
        Read::MatchNumber => plain(DataType::Int64),
        Read::TimedOut => plain(DataType::Boolean),
        Read::State | Read::WaitedFor => plain(DataType::Utf8),
    }
}

impl PartialEq for MatchNode {
    fn eq(&self, other: &MatchNode) -> bool {
        self.facts == other.facts
            && self.input == other.input
            && self.conditions == other.conditions
            && self.aggregates == other.aggregates
    }
}

impl UserDefinedLogicalNode for MatchNode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "MatchRecognize"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input, &self.reads]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn check_invariants(&self, _: InvariantLevel) -> Result<()> {
        Ok(())
    }

    fn expressions(&self) -> Vec<Expr> {
        self.conditions.iter().chain(&self.aggregates).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern =
            PatternText { pattern: &self.facts.pattern, variables: &self.facts.variables };
        match &self.facts.pattern_from {
            Some(from) => {
                let column = self.input.schema().field(from.column).name();
                write!(f, "{HEAD}from {column}")
            }
            None => write!(f, "{HEAD}{pattern}"),
        }
    }

    fn with_exprs_and_inputs(
        &self,
        exprs: Vec<Expr>,
        inputs: Vec<LogicalPlan>,
    ) -> Result<Arc<dyn UserDefinedLogicalNode>> {
        let count = self.conditions.len();
        let input = inputs.into_iter().next();
        let (Some(input), true) = (input, exprs.len() == count + self.aggregates.len()) else {
            return Err(external(Error::internal("a rewrite lost a part of MATCH_RECOGNIZE")));
        };
        let mut exprs = exprs.into_iter().map(|expr| expr.unalias_nested().data);
        let conditions = exprs.by_ref().take(count).collect();
        let node = MatchNode::new(self.facts.clone(), input, conditions, exprs.collect())?;
        Ok(Arc::new(node))
    }

    // The projection below has what is needed and nothing else.
    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let all = |plan: &LogicalPlan| (0..plan.schema().fields().len()).collect();
        Some(vec![all(&self.input), all(&self.reads)])
    }

    fn dyn_hash(&self, mut state: &mut dyn Hasher) {
        self.input.hash(&mut state);
        self.conditions.hash(&mut state);
        self.aggregates.hash(&mut state);
        self.facts.pattern.hash(&mut state);
        self.facts.reads.hash(&mut state);
        self.facts.columns.hash(&mut state);
    }

    fn dyn_eq(&self, other: &dyn UserDefinedLogicalNode) -> bool {
        other.as_any().downcast_ref::<MatchNode>().is_some_and(|other| self == other)
    }

    fn dyn_ord(&self, other: &dyn UserDefinedLogicalNode) -> Option<Ordering> {
        let other = other.as_any().downcast_ref::<MatchNode>()?;
        match self == other {
            true => Some(Ordering::Equal),
            false => self.input.partial_cmp(&other.input).filter(|order| order.is_ne()),
        }
    }
}
