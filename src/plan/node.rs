//! A dataflow as a tree of nodes. Immutable; one per materialized view, source or subscription.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::plan::event_time::{Step, TimeBound};
use crate::plan::expr::Expr;
use crate::plan::match_recognize::MatchSpec;
use crate::plan::overlap::ManyWindows;
use crate::plan::view_options::ViewOptions;
use crate::plan::window::WindowCall;
use crate::types::id::ObjectId;
use crate::types::time::EventDuration;

/// What a dataflow computes and how its result is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub root: Node,
    /// Columns of the result that identify a row, when the query guarantees them (group keys).
    /// The materialized rows are then kept and exchanged by them; otherwise by the whole row.
    pub unique_key: Option<Vec<usize>>,
    /// How it is kept.
    pub options: ViewOptions,
}

/// How an input's rows are spread over the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Rows stay where they are.
    Local,
    /// Rows with equal values in these input columns meet on one worker.
    Hash(Vec<usize>),
    /// All rows meet on worker 0 (global aggregates, joins without keys).
    Single,
}

/// One input of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    pub input: Box<Node>,
    pub exchange: Exchange,
}

impl Edge {
    pub fn local(input: Node) -> Edge {
        Edge { input: Box::new(input), exchange: Exchange::Local }
    }

    pub fn hash(input: Node, columns: Vec<usize>) -> Edge {
        let exchange = if columns.is_empty() { Exchange::Single } else { Exchange::Hash(columns) };
        Edge { input: Box::new(input), exchange }
    }
}

/// One operator with its inputs. The variants are the operators' names.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Scan(Scan),
    Constant(Constant),
    Map(Map),
    Expand(Expand),
    Copies(Copies),
    Union(Union),
    Aggregate(Aggregate),
    Join(Join),
    TopN(TopN),
    Over(Over),
    Session(Session),
    AsofJoin(AsofJoin),
    LookupJoin(LookupJoin),
    MatchRecognize(MatchRecognize),
    Recursive(Recursive),
    Unnest(Unnest),
    Input(Input),
    Clock(Clock),
    WindowClose(WindowClose),
    Throttle(Throttle),
    TemporalFilter(TemporalFilter),
    Retain(Retain),
}

/// Reads the changes of a source, table or materialized view; first its content, then what
/// follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    pub object: ObjectId,
    /// For EXPLAIN.
    pub name: String,
    /// Which columns of the object, in output order.
    pub columns: Vec<usize>,
    pub schema: SchemaRef,
    pub append_only: bool,
    /// What the object's watermark promises of the scan's columns.
    pub time_bounds: Vec<TimeBound>,
    /// The query does not name the object: it keeps what the query would (`plan::share`).
    pub shared: bool,
    /// The object is an index, whose rows the join above looks up in it (`plan::index_join`).
    pub index: Option<IndexScan>,
}

/// What an index that is scanned is of.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexScan {
    /// The table or view; the scan's columns are its columns.
    pub relation: ObjectId,
    /// For EXPLAIN.
    pub relation_name: String,
    /// The relation's columns by which the index spreads and finds rows.
    pub key: Vec<usize>,
}

/// Rows that are there from the first epoch on (VALUES, SELECT without FROM). Worker 0 emits them.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    pub rows: RecordBatch,
}

/// Filters, then projects; stateless. The `map` operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    pub input: Edge,
    /// Rows are kept where this is true (not false, not NULL).
    pub filter: Option<Expr>,
    /// The output columns over the input's; `None` keeps them all.
    pub projection: Option<Vec<Expr>>,
    pub schema: SchemaRef,
}

/// Each row once for each list of columns (GROUPING SETS); stateless.
#[derive(Clone, Debug, PartialEq)]
pub struct Expand {
    pub input: Edge,
    /// The output columns over the input's, once for each copy.
    pub projections: Vec<Vec<Expr>>,
    pub schema: SchemaRef,
}

/// Each row as often as it says itself (EXCEPT ALL, INTERSECT ALL); stateless. The output has the
/// input's columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Copies {
    pub input: Edge,
    /// The column that counts, a bigint.
    pub count: usize,
}

/// All rows of all inputs (UNION ALL); stateless. Inputs have the output's column types.
#[derive(Clone, Debug, PartialEq)]
pub struct Union {
    pub inputs: Vec<Edge>,
    pub schema: SchemaRef,
}

/// One output row per group: the key columns, then one column per call.
///
/// Without calls it is DISTINCT. Without keys there is exactly one row, also for no input.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    pub input: Edge,
    /// Input columns that make a group.
    pub keys: Vec<usize>,
    pub calls: Vec<AggregateCall>,
    /// The input never deletes: accumulators need not be able to take back.
    pub append_only: bool,
    pub phase: Phase,
    /// EMIT ON WINDOW CLOSE: a group's row is emitted once, when its time has passed.
    pub on_close: bool,
    pub schema: SchemaRef,
}

/// Which part of an aggregation a node does.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Phase {
    /// All of it.
    #[default]
    Whole,
    /// Before an exchange: sums up the rows of an epoch on one worker. The output is the keys and
    /// the column [`PARTIAL_STATE`]; it only ever inserts, and means nothing but to `Final`.
    Partial,
    /// After the exchange: merges what partial nodes made. The node's keys are the first columns
    /// of its input; the calls name columns of `input_schema`, the input of the partial node.
    Final { input_schema: SchemaRef },
    /// As `Final`, of windows that overlap: the last key is a pane, and each of its sums counts for
    /// all of its windows. In the output the window stands in the pane's place: where it begins
    /// (HOP), or where it ends (CUMULATE).
    Windows { input_schema: SchemaRef, windows: ManyWindows },
    /// All of it, over the sessions of rows: a group is the rows of the keys that follow each other
    /// at most `gap` apart. The input only inserts. Behind the keys the output has where the
    /// session begins and ends.
    Sessions {
        /// The input's column of the rows' times, a timestamp.
        time: usize,
        gap: EventDuration,
    },
}

/// The column in which accumulators travel from a partial to a final aggregation.
pub const PARTIAL_STATE: &str = "partial_state";

impl Aggregate {
    /// The same in two phases, when its functions can be merged; otherwise as it is. It pays when
    /// groups are few for each batch of rows, and always without keys, where every row would go
    /// to one worker.
    #[must_use]
    pub fn in_two_phases(self) -> Aggregate {
        let input_schema = self.input.input.schema();
        let one_phase = !matches!(self.phase, Phase::Whole) || self.calls.is_empty();
        if one_phase || !self.calls.iter().all(|call| self.merges(call, &input_schema)) {
            return self;
        }
        let mut fields: Vec<FieldRef> =
            self.keys.iter().map(|key| input_schema.fields()[*key].clone()).collect();
        fields.push(Arc::new(Field::new(PARTIAL_STATE, DataType::Binary, false)));
        let partial = Aggregate {
            input: Edge { input: self.input.input, exchange: Exchange::Local },
            keys: self.keys.clone(),
            calls: self.calls.clone(),
            append_only: self.append_only,
            phase: Phase::Partial,
            on_close: false,
            schema: Arc::new(Schema::new(fields)),
        };
        let keys: Vec<usize> = (0..self.keys.len()).collect();
        Aggregate {
            input: Edge::hash(Node::Aggregate(partial), keys.clone()),
            keys,
            calls: self.calls,
            append_only: self.append_only,
            phase: Phase::Final { input_schema },
            on_close: self.on_close,
            schema: self.schema,
        }
    }

    /// Whether the accumulators of all calls are small and can be merged.
    pub fn can_merge(&self) -> bool {
        let input = self.input.input.schema();
        self.calls.iter().all(|call| self.merges(call, &input))
    }

    /// Whether a call's accumulators are small and can be merged.
    fn merges(&self, call: &AggregateCall, input: &Schema) -> bool {
        let plain = !call.distinct && call.order_by.is_empty();
        let fixed = |column: &usize| {
            let data_type = input.field(*column).data_type();
            data_type.is_primitive() || *data_type == DataType::Boolean
        };
        plain
            && match call.function {
                AggregateFunction::Count | AggregateFunction::Sum | AggregateFunction::Avg => true,
                AggregateFunction::Min | AggregateFunction::Max => {
                    self.append_only && call.arguments.iter().all(fixed)
                }
                _ => false,
            }
    }
}

/// One aggregate function call.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateCall {
    pub function: AggregateFunction,
    /// Input columns of the arguments; none for `count(*)`. Expressions are computed by a `Map`
    /// below.
    pub arguments: Vec<usize>,
    pub distinct: bool,
    /// Boolean input column of `FILTER (WHERE ...)`.
    pub filter: Option<usize>,
    /// `ORDER BY` inside the call: input columns and directions.
    pub order_by: Vec<SortColumn>,
    pub return_type: DataType,
    /// As the user wrote it, for EXPLAIN and errors.
    pub display: String,
}

/// The aggregate functions that the dataflow knows; one file each or family in
/// `functions/aggregate/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    BitAnd,
    BitOr,
    BitXor,
    VarSamp,
    VarPop,
    StddevSamp,
    StddevPop,
    CovarSamp,
    CovarPop,
    Corr,
    RegrSlope,
    RegrIntercept,
    RegrCount,
    RegrR2,
    RegrAvgx,
    RegrAvgy,
    RegrSxx,
    RegrSyy,
    RegrSxy,
    Median,
    PercentileCont,
    PercentileDisc,
    Mode,
    FirstValue,
    LastValue,
    AnyValue,
    ArrayAgg,
    StringAgg,
}

impl AggregateFunction {
    /// Every function.
    pub const ALL: [AggregateFunction; 35] = [
        AggregateFunction::Count,
        AggregateFunction::Sum,
        AggregateFunction::Avg,
        AggregateFunction::Min,
        AggregateFunction::Max,
        AggregateFunction::BoolAnd,
        AggregateFunction::BoolOr,
        AggregateFunction::BitAnd,
        AggregateFunction::BitOr,
        AggregateFunction::BitXor,
        AggregateFunction::VarSamp,
        AggregateFunction::VarPop,
        AggregateFunction::StddevSamp,
        AggregateFunction::StddevPop,
        AggregateFunction::CovarSamp,
        AggregateFunction::CovarPop,
        AggregateFunction::Corr,
        AggregateFunction::RegrSlope,
        AggregateFunction::RegrIntercept,
        AggregateFunction::RegrCount,
        AggregateFunction::RegrR2,
        AggregateFunction::RegrAvgx,
        AggregateFunction::RegrAvgy,
        AggregateFunction::RegrSxx,
        AggregateFunction::RegrSyy,
        AggregateFunction::RegrSxy,
        AggregateFunction::Median,
        AggregateFunction::PercentileCont,
        AggregateFunction::PercentileDisc,
        AggregateFunction::Mode,
        AggregateFunction::FirstValue,
        AggregateFunction::LastValue,
        AggregateFunction::AnyValue,
        AggregateFunction::ArrayAgg,
        AggregateFunction::StringAgg,
    ];

    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            AggregateFunction::Count => "count",
            AggregateFunction::Sum => "sum",
            AggregateFunction::Avg => "avg",
            AggregateFunction::Min => "min",
            AggregateFunction::Max => "max",
            AggregateFunction::BoolAnd => "bool_and",
            AggregateFunction::BoolOr => "bool_or",
            AggregateFunction::BitAnd => "bit_and",
            AggregateFunction::BitOr => "bit_or",
            AggregateFunction::BitXor => "bit_xor",
            AggregateFunction::VarSamp => "var_samp",
            AggregateFunction::VarPop => "var_pop",
            AggregateFunction::StddevSamp => "stddev_samp",
            AggregateFunction::StddevPop => "stddev_pop",
            AggregateFunction::CovarSamp => "covar_samp",
            AggregateFunction::CovarPop => "covar_pop",
            AggregateFunction::Corr => "corr",
            AggregateFunction::RegrSlope => "regr_slope",
            AggregateFunction::RegrIntercept => "regr_intercept",
            AggregateFunction::RegrCount => "regr_count",
            AggregateFunction::RegrR2 => "regr_r2",
            AggregateFunction::RegrAvgx => "regr_avgx",
            AggregateFunction::RegrAvgy => "regr_avgy",
            AggregateFunction::RegrSxx => "regr_sxx",
            AggregateFunction::RegrSyy => "regr_syy",
            AggregateFunction::RegrSxy => "regr_sxy",
            AggregateFunction::Median => "median",
            AggregateFunction::PercentileCont => "percentile_cont",
            AggregateFunction::PercentileDisc => "percentile_disc",
            AggregateFunction::Mode => "mode",
            AggregateFunction::FirstValue => "first_value",
            AggregateFunction::LastValue => "last_value",
            AggregateFunction::AnyValue => "any_value",
            AggregateFunction::ArrayAgg => "array_agg",
            AggregateFunction::StringAgg => "string_agg",
        }
    }

    /// The function of this name, folded to lower case.
    pub fn from_name(name: &str) -> Option<AggregateFunction> {
        let name = match name {
            "every" => "bool_and",
            "var" | "var_sample" | "variance" => "var_samp",
            "var_population" => "var_pop",
            "stddev" => "stddev_samp",
            "covar" => "covar_samp",
            name => name,
        };
        AggregateFunction::ALL.into_iter().find(|function| function.name() == name)
    }
}

/// A column to sort by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortColumn {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

/// What a join emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    /// Left rows with at least one match.
    LeftSemi,
    /// Left rows without a match.
    LeftAnti,
}

/// Hash join of two inputs, both changing. Output columns: left, then right (semi and anti: left).
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    pub left: Edge,
    pub right: Edge,
    pub kind: JoinKind,
    /// Pairs of equal columns: (left column, right column). Empty: every pair of rows is tried.
    pub keys: Vec<(usize, usize)>,
    /// NULL keys match each other (`IS NOT DISTINCT FROM`), as set operations need.
    pub null_equals_null: bool,
    /// Further condition over left columns then right columns; a pair matches where it is true.
    pub residual: Option<Expr>,
    pub schema: SchemaRef,
}

/// How rows of a partition are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankFunction {
    /// One by one.
    RowNumber,
    /// Rows that sort alike share a number, and leave a gap behind them.
    Rank,
    /// Rows that sort alike share a number.
    DenseRank,
}

/// The first rows of each partition in some order. Output columns: the input's, then the row's
/// number if it is wanted.
///
/// Rows that sort alike stand in the order of their other columns.
#[derive(Clone, Debug, PartialEq)]
pub struct TopN {
    pub input: Edge,
    pub partition: Vec<usize>,
    pub order_by: Vec<SortColumn>,
    pub rank: RankFunction,
    /// Rows of each partition that are passed over; 0 unless rows are numbered one by one.
    pub offset: u64,
    /// How many numbers show after those; `None`: all.
    pub limit: Option<u64>,
    /// A last column has the number.
    pub numbered: bool,
    pub schema: SchemaRef,
}

/// Window functions over partitions in order. Output columns: the input's, then one per call.
///
/// Rows that sort alike stand in the order of their other columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    pub input: Edge,
    pub partition: Vec<usize>,
    pub order_by: Vec<SortColumn>,
    pub calls: Vec<WindowCall>,
    pub schema: SchemaRef,
}

/// The session of each row (`sql::windows`): the rows of a partition that follow each other at
/// most a gap apart. Output columns: the input's, then where the session begins and ends.
///
/// Rows without a time are in no session and fall out.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    pub input: Edge,
    pub partition: Vec<usize>,
    /// The column of the rows' times, a timestamp.
    pub time: usize,
    pub gap: EventDuration,
    pub schema: SchemaRef,
}

/// How the times of a left row and of its match compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AsofOrder {
    /// left >= right: the latest right row that is not after it.
    AtOrBefore,
    /// left > right: the latest right row before it.
    Before,
    /// left <= right: the earliest right row that is not before it.
    AtOrAfter,
    /// left < right: the earliest right row after it.
    After,
}

impl AsofOrder {
    /// The operator between the left time and the right one.
    pub fn symbol(self) -> &'static str {
        match self {
            AsofOrder::AtOrBefore => ">=",
            AsofOrder::Before => ">",
            AsofOrder::AtOrAfter => "<=",
            AsofOrder::After => "<",
        }
    }

    /// Whether matches are earlier than the rows that they match.
    pub fn looks_back(self) -> bool {
        matches!(self, AsofOrder::AtOrBefore | AsofOrder::Before)
    }

    /// Whether a match may have the same time.
    pub fn takes_equal(self) -> bool {
        matches!(self, AsofOrder::AtOrBefore | AsofOrder::AtOrAfter)
    }
}

/// Each left row with the right row of equal keys whose time is nearest. Output columns: left,
/// then right.
///
/// Of right rows of one time the last one in the order of their columns is the match; the first
/// one where matches are later. NULL keys and times match nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct AsofJoin {
    pub left: Edge,
    pub right: Edge,
    /// Pairs of equal columns: (left column, right column).
    pub keys: Vec<(usize, usize)>,
    /// The time columns: (left column, right column).
    pub times: (usize, usize),
    pub order: AsofOrder,
    /// A left row without a match stays, with NULLs.
    pub keeps_left: bool,
    pub schema: SchemaRef,
}

/// Each left row with the right rows of equal keys that are there when it comes, never corrected
/// later (`FOR SYSTEM_TIME AS OF PROCTIME()`). The left input only grows. Output columns: left, then
/// right.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupJoin {
    pub left: Edge,
    pub right: Edge,
    /// Pairs of equal columns: (left column, right column).
    pub keys: Vec<(usize, usize)>,
    /// A left row without a match stays, with NULLs.
    pub keeps_left: bool,
    pub schema: SchemaRef,
}

/// Row pattern matches of partitions in order (MATCH_RECOGNIZE).
///
/// Rows that sort alike stand in the order of their other columns.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchRecognize {
    pub input: Edge,
    pub spec: Box<MatchSpec>,
    /// What a watermark promises of the time that rows are sorted by: rows are matched when it has
    /// passed them, and the output only grows. `None`: at once, and matches are corrected.
    pub closes: Option<TimeBound>,
    /// Where they are matched at once: what a watermark promises of that time. Rows behind it do
    /// not change, and those that nothing needs any more are forgotten.
    pub settles: Option<TimeBound>,
}

/// Lists to rows: each row becomes as many as its longest list has elements; stateless.
#[derive(Clone, Debug, PartialEq)]
pub struct Unnest {
    pub input: Edge,
    /// What each output column is.
    pub columns: Vec<UnnestColumn>,
    /// A row without elements stays, once, with NULLs.
    pub keeps_empty: bool,
    pub schema: SchemaRef,
}

/// A column of an `Unnest`, over an input column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnnestColumn {
    /// The value, for each of the rows.
    Whole(usize),
    /// The list's elements, one a row.
    Elements(usize),
}

/// The port of a `Recursive` that brings the static term, and in its step stands for the recursive
/// reference.
pub const RECURSIVE_REFERENCE: usize = 0;

/// WITH RECURSIVE: the static term, and what the step derives from rows that are there.
#[derive(Clone, Debug, PartialEq)]
pub struct Recursive {
    /// The static term, then what the step reads beside the recursive reference. All on one worker.
    pub inputs: Vec<Edge>,
    /// What the step computes, over `Input`s: a chain of operators from the recursive reference.
    /// Its rows have a last column, the iteration, that comes from the reference and stays.
    pub step: Box<Node>,
    /// UNION: a row that is there is not derived again. Otherwise UNION ALL.
    pub distinct: bool,
    /// The name of the recursive reference.
    pub name: String,
    /// More iterations are an error.
    pub iterations_max: u64,
    pub schema: SchemaRef,
}

/// An input of the operator that this node is inside of (the step of a `Recursive`).
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub port: usize,
    /// For EXPLAIN.
    pub name: String,
    pub schema: SchemaRef,
}

/// Logical time: no rows, and a watermark that is the time of the epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Clock {
    /// No columns.
    pub schema: SchemaRef,
}

impl Clock {
    /// The port of an operator that needs logical time.
    pub fn edge() -> Edge {
        Edge::local(Node::Clock(Clock { schema: Arc::new(Schema::empty()) }))
    }
}

/// EMIT ON WINDOW CLOSE: each row once, when the watermark has passed its time.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowClose {
    pub input: Edge,
    /// Of the column that is a row's time.
    pub bound: TimeBound,
}

/// EMIT ON UPDATE EVERY: changes leave together, once in each interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Throttle {
    pub input: Edge,
    pub clock: Edge,
    pub every_us: i64,
}

/// Conditions that compare with now(): a row is there while the formula over them holds.
#[derive(Clone, Debug, PartialEq)]
pub struct TemporalFilter {
    pub input: Edge,
    pub clock: Edge,
    pub conditions: Vec<NowCondition>,
    /// Conditions of the row alone that stand among them.
    pub of_rows: Vec<Expr>,
    pub formula: Formula,
    /// As the user wrote it, for EXPLAIN.
    pub display: String,
}

/// How conditions are combined. Each is true or not; what NULL makes of it is settled before.
#[derive(Clone, Debug, PartialEq)]
pub enum Formula {
    /// One of the comparisons with now().
    Now(usize),
    /// One of the conditions of the row alone.
    Row(usize),
    All(Vec<Formula>),
    Any(Vec<Formula>),
    /// What it is of is not true.
    Not(Box<Formula>),
}

impl Formula {
    /// Whether it holds when these comparisons and conditions do.
    pub fn holds(&self, now: &impl Fn(usize) -> bool, row: &impl Fn(usize) -> bool) -> bool {
        match self {
            Formula::Now(condition) => now(*condition),
            Formula::Row(condition) => row(*condition),
            Formula::All(parts) => parts.iter().all(|part| part.holds(now, row)),
            Formula::Any(parts) => parts.iter().any(|part| part.holds(now, row)),
            Formula::Not(part) => !part.holds(now, row),
        }
    }

    /// Whether what it holds for may be over one day (`ends`), or begin one day.
    fn turns(&self, conditions: &[NowCondition], ends: bool) -> bool {
        match self {
            Formula::Now(condition) if ends => conditions[*condition].op.ends(),
            Formula::Now(condition) => conditions[*condition].op.begins(),
            Formula::Row(_) => false,
            Formula::All(parts) | Formula::Any(parts) => {
                parts.iter().any(|part| part.turns(conditions, ends))
            }
            Formula::Not(part) => part.turns(conditions, !ends),
        }
    }
}

impl TemporalFilter {
    /// Whether rows go by themselves.
    pub fn ends(&self) -> bool {
        self.formula.turns(&self.conditions, true)
    }
}

/// `value op f(now())`, where f never goes back.
#[derive(Clone, Debug, PartialEq)]
pub struct NowCondition {
    /// A time, over the input's columns.
    pub value: Expr,
    pub op: NowOp,
    pub steps: Vec<Step>,
    /// As the user wrote it, for messages.
    pub display: String,
}

/// How a row's time compares with a function of now().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NowOp {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

impl NowOp {
    /// Whether what it holds for is over one day.
    pub fn ends(self) -> bool {
        matches!(self, NowOp::Greater | NowOp::GreaterOrEqual | NowOp::Equal)
    }

    /// Whether what it holds for begins one day.
    pub fn begins(self) -> bool {
        matches!(self, NowOp::Less | NowOp::LessOrEqual | NowOp::Equal)
    }
}

/// WITH (retention = ...): a row goes when it has been there for so long.
#[derive(Clone, Debug, PartialEq)]
pub struct Retain {
    pub input: Edge,
    pub clock: Edge,
    pub keep_us: i64,
}

impl Node {
    /// The output columns.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Node::Scan(n) => n.schema.clone(),
            Node::Constant(n) => n.rows.schema(),
            Node::Map(n) => n.schema.clone(),
            Node::Expand(n) => n.schema.clone(),
            Node::Copies(n) => n.input.input.schema(),
            Node::Union(n) => n.schema.clone(),
            Node::Aggregate(n) => n.schema.clone(),
            Node::Join(n) => n.schema.clone(),
            Node::TopN(n) => n.schema.clone(),
            Node::Over(n) => n.schema.clone(),
            Node::Session(n) => n.schema.clone(),
            Node::MatchRecognize(n) => n.spec.schema.clone(),
            Node::AsofJoin(n) => n.schema.clone(),
            Node::LookupJoin(n) => n.schema.clone(),
            Node::Recursive(n) => n.schema.clone(),
            Node::Unnest(n) => n.schema.clone(),
            Node::Input(n) => n.schema.clone(),
            Node::Clock(n) => n.schema.clone(),
            Node::WindowClose(n) => n.input.input.schema(),
            Node::Throttle(n) => n.input.input.schema(),
            Node::TemporalFilter(n) => n.input.input.schema(),
            Node::Retain(n) => n.input.input.schema(),
        }
    }

    /// The inputs, in port order.
    pub fn inputs(&self) -> Vec<&Edge> {
        match self {
            Node::Scan(_) | Node::Constant(_) | Node::Input(_) | Node::Clock(_) => vec![],
            Node::Map(n) => vec![&n.input],
            Node::Expand(n) => vec![&n.input],
            Node::Copies(n) => vec![&n.input],
            Node::Union(n) => n.inputs.iter().collect(),
            Node::Aggregate(n) => vec![&n.input],
            Node::Join(n) => vec![&n.left, &n.right],
            Node::TopN(n) => vec![&n.input],
            Node::Over(n) => vec![&n.input],
            Node::Session(n) => vec![&n.input],
            Node::MatchRecognize(n) => vec![&n.input],
            Node::AsofJoin(n) => vec![&n.left, &n.right],
            Node::LookupJoin(n) => vec![&n.left, &n.right],
            Node::Recursive(n) => n.inputs.iter().collect(),
            Node::Unnest(n) => vec![&n.input],
            Node::WindowClose(n) => vec![&n.input],
            Node::Throttle(n) => vec![&n.input, &n.clock],
            Node::TemporalFilter(n) => vec![&n.input, &n.clock],
            Node::Retain(n) => vec![&n.input, &n.clock],
        }
    }

    /// Whether the operator keeps something from one epoch to the next. Two such nodes that are
    /// equal are one operator, which both readers share.
    pub fn keeps_state(&self) -> bool {
        match self {
            Node::Aggregate(_)
            | Node::Join(_)
            | Node::TopN(_)
            | Node::Over(_)
            | Node::Session(_)
            | Node::MatchRecognize(_)
            | Node::AsofJoin(_)
            | Node::LookupJoin(_)
            | Node::Recursive(_)
            | Node::WindowClose(_)
            | Node::Throttle(_)
            | Node::TemporalFilter(_)
            | Node::Retain(_) => true,
            Node::Scan(_)
            | Node::Constant(_)
            | Node::Map(_)
            | Node::Expand(_)
            | Node::Copies(_)
            | Node::Union(_)
            | Node::Unnest(_)
            | Node::Clock(_)
            | Node::Input(_) => false,
        }
    }

    /// The inputs, in port order, to be changed.
    pub fn inputs_mut(&mut self) -> Vec<&mut Edge> {
        match self {
            Node::Scan(_) | Node::Constant(_) | Node::Input(_) | Node::Clock(_) => vec![],
            Node::Map(n) => vec![&mut n.input],
            Node::Expand(n) => vec![&mut n.input],
            Node::Copies(n) => vec![&mut n.input],
            Node::Union(n) => n.inputs.iter_mut().collect(),
            Node::Aggregate(n) => vec![&mut n.input],
            Node::Join(n) => vec![&mut n.left, &mut n.right],
            Node::TopN(n) => vec![&mut n.input],
            Node::Over(n) => vec![&mut n.input],
            Node::Session(n) => vec![&mut n.input],
            Node::MatchRecognize(n) => vec![&mut n.input],
            Node::AsofJoin(n) => vec![&mut n.left, &mut n.right],
            Node::LookupJoin(n) => vec![&mut n.left, &mut n.right],
            Node::Recursive(n) => n.inputs.iter_mut().collect(),
            Node::Unnest(n) => vec![&mut n.input],
            Node::WindowClose(n) => vec![&mut n.input],
            Node::Throttle(n) => vec![&mut n.input, &mut n.clock],
            Node::TemporalFilter(n) => vec![&mut n.input, &mut n.clock],
            Node::Retain(n) => vec![&mut n.input, &mut n.clock],
        }
    }

    /// Whether the output never deletes.
    pub fn append_only(&self) -> bool {
        match self {
            Node::Scan(n) => n.append_only,
            Node::Constant(_) => true,
            Node::Map(n) => n.input.input.append_only(),
            Node::Expand(n) => n.input.input.append_only(),
            // A row that comes several times is no plain insertion.
            Node::Copies(_) => false,
            Node::Union(n) => n.inputs.iter().all(|e| e.input.append_only()),
            // A group's row changes whenever its aggregates do; DISTINCT over appends only adds.
            // Emitted when it closes, it does not.
            Node::Aggregate(n) => {
                let grows = matches!(n.phase, Phase::Sessions { .. });
                n.on_close || (!grows && n.calls.is_empty() && n.input.input.append_only())
            }
            Node::Join(n) => {
                n.kind == JoinKind::Inner
                    && n.left.input.append_only()
                    && n.right.input.append_only()
            }
            Node::Unnest(n) => n.input.input.append_only(),
            // A new row pushes another one out, or changes what its neighbours see.
            Node::TopN(_) | Node::Over(_) => false,
            Node::MatchRecognize(n) => n.closes.is_some(),
            // A new row moves the end of its session, or is a nearer match.
            Node::Session(_) | Node::AsofJoin(_) => false,
            Node::LookupJoin(n) => n.left.input.append_only(),
            // A row may be derived in another iteration, which is a change inside of the step.
            Node::Recursive(_) | Node::Input(_) => false,
            Node::Clock(_) | Node::WindowClose(_) => true,
            Node::Throttle(n) => n.input.input.append_only(),
            // Time takes rows back.
            Node::TemporalFilter(_) | Node::Retain(_) => false,
        }
    }

    /// The objects that are read, each once.
    pub fn scanned_objects(&self) -> Vec<ObjectId> {
        let mut found = Vec::new();
        self.visit(&mut |node| {
            if let Node::Scan(scan) = node
                && !found.contains(&scan.object)
            {
                found.push(scan.object);
            }
        });
        found
    }

    /// Calls `visit` for this node and everything below it, inputs first.
    pub fn visit(&self, visit: &mut impl FnMut(&Node)) {
        for edge in self.inputs() {
            edge.input.visit(visit);
        }
        visit(self);
    }
}

/// What the data plane needs to know of a source.
#[derive(Clone)]
pub struct SourceSpec {
    pub object: ObjectId,
    pub name: String,
    /// A connector of the list and its `WITH` options, as plain data.
    pub connector: String,
    pub options: Vec<(String, String)>,
    /// What the connector delivers.
    pub physical_schema: SchemaRef,
    /// The source's columns, each over the physical ones; `None`: column for column.
    pub columns: Option<Arc<Vec<Expr>>>,
    pub schema: SchemaRef,
    pub watermark: Option<WatermarkSpec>,
}

/// How a source's rows move its watermark.
#[derive(Clone, Debug, PartialEq)]
pub struct WatermarkSpec {
    /// The time column.
    pub column: usize,
    /// The watermark that a row stands for, over the source's columns; of the column's type.
    pub expr: Expr,
    /// Rows that are late by no more than this stay in: every watermark is so much smaller.
    pub allowed_lateness: Duration,
    /// A split that has given no row for this long is not waited for; `None`: it is, for ever.
    pub idle_timeout: Option<Duration>,
    /// A split that is ahead of the source's watermark by more than this is not read further until
    /// the others have caught up; `None`: however far it is.
    pub drift_max: Option<Duration>,
}
