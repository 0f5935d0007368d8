//! Which expressions never go back when their one time column goes on, and what they make of it.
//!
//! An expression is recognised by its shape; what its functions mean in the session's time zone is
//! then tried out over a century of times, and an expression that does otherwise is not recognised.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, CastExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::Expr;
use crate::plan::event_time::{Step, agrees, is_time};
use crate::plan::overlap::{ManyWindows, WindowKind, cumulate_steps, hop_steps};
use crate::types::text::datetime::US_PER_DAY;
use crate::types::time::WINDOW_TIME_US;

const US_PER_SECOND: i64 = 1_000_000;
const NS_PER_US: i64 = 1_000;
/// 1970 began on a Thursday, and weeks begin on Mondays.
const FIRST_MONDAY_US: i64 = 4 * US_PER_DAY;

/// The functions that list the windows of a row.
const HOP_STARTS: &str = "hop_starts";
const CUMULATE_ENDS: &str = "cumulate_ends";

type Physical = Arc<dyn PhysicalExpr>;

impl Expr {
    /// The one column of `input` that it is computed from, and how, when it never goes back as
    /// long as that does not.
    pub fn time_steps(&self, input: &Schema) -> Option<(usize, Vec<Step>)> {
        if !is_time(&self.data_type) {
            return None;
        }
        if let Some(column) = self.as_column() {
            return Some((column, vec![]));
        }
        let mut steps = Vec::new();
        let walked = walk(&self.physical, input, &mut steps)?;
        let place = self.over_columns(&[walked.column]).ok()?;
        let evaluate = |values: ArrayRef| {
            let field = Field::new("t", values.data_type().clone(), true);
            let rows = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![values]);
            place.evaluate(&rows.ok()?).ok()
        };
        let probed = input.field(walked.column).data_type();
        agrees(&steps, probed, &evaluate).then_some((walked.column, steps))
    }
}

impl Expr {
    /// The times of which it is one, or NULL: the branches of CASE, as which coalesce() is planned,
    /// too; what least() and greatest() choose from. None of them: it is something else.
    pub fn time_choices(&self) -> Vec<Expr> {
        if !is_time(&self.data_type) {
            return vec![];
        }
        let choices: Vec<Physical> = if let Some(case) = self.physical.downcast_ref::<CaseExpr>() {
            let results = case.when_then_expr().iter().map(|(_, result)| result);
            results.chain(case.else_expr()).cloned().collect()
        } else {
            match self.physical.downcast_ref::<ScalarFunctionExpr>() {
                Some(call) if matches!(call.name(), "coalesce" | "least" | "greatest") => {
                    call.args().to_vec()
                }
                _ => vec![],
            }
        };
        choices.into_iter().map(|physical| Expr { physical, ..self.clone() }).collect()
    }

    /// The windows, when the expression is the list of them for each row (HOP and CUMULATE), and the
    /// column of the rows' times.
    pub fn many_windows(&self) -> Option<(usize, ManyWindows)> {
        let call = self.physical.downcast_ref::<ScalarFunctionExpr>()?;
        let [time, step, size, offset @ ..] = call.args() else { return None };
        let kind = match call.name() {
            HOP_STARTS => WindowKind::Hop,
            CUMULATE_ENDS => WindowKind::Cumulate,
            _ => return None,
        };
        let column = time.downcast_ref::<Column>()?.index();
        let Step::Bin { origin_us, .. } = bin(length_us(step)?, offset)? else { return None };
        Some((column, ManyWindows::new(kind, length_us(step)?, length_us(size)?, origin_us)?))
    }

    /// As [`Expr::time_steps`], of the least element of a list: the windows of a row in HOP and
    /// CUMULATE.
    pub fn element_time_steps(&self, input: &Schema) -> Option<(usize, Vec<Step>)> {
        let call = self.physical.downcast_ref::<ScalarFunctionExpr>()?;
        let mut steps = Vec::new();
        let walked = match (call.name(), call.args()) {
            (HOP_STARTS, [inner, slide, size, offset @ ..]) => {
                let walked = walk(inner, input, &mut steps)?;
                let Step::Bin { origin_us, .. } = bin(length_us(slide)?, offset)? else {
                    return None;
                };
                steps.extend(hop_steps(length_us(slide)?, length_us(size)?, origin_us)?);
                walked
            }
            (CUMULATE_ENDS, [inner, step, _, offset @ ..]) => {
                let walked = walk(inner, input, &mut steps)?;
                let Step::Bin { origin_us, .. } = bin(length_us(step)?, offset)? else {
                    return None;
                };
                steps.extend(cumulate_steps(length_us(step)?, origin_us));
                walked
            }
            _ => return None,
        };
        (walked.data_type != DataType::Date32).then_some((walked.column, steps))
    }
}

/// A time column, and the type of what has been computed from it so far.
struct Walked {
    column: usize,
    data_type: DataType,
}

/// Collects the steps of an expression from the column outwards.
fn walk(expr: &Physical, input: &Schema, steps: &mut Vec<Step>) -> Option<Walked> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        let data_type = input.field(column.index()).data_type().clone();
        return is_time(&data_type).then_some(Walked { column: column.index(), data_type });
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        let (left, right) = (binary.left(), binary.right());
        return match (binary.op(), interval_of(left), interval_of(right)) {
            (Operator::Plus, _, Some(interval)) => shifted(left, interval, 1, input, steps),
            (Operator::Plus, Some(interval), _) => shifted(right, interval, 1, input, steps),
            (Operator::Minus, _, Some(interval)) => shifted(left, interval, -1, input, steps),
            _ => None,
        };
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return cast_to(cast.expr(), cast.cast_type(), input, steps);
    }
    let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
    match (call.name(), call.args()) {
        ("cast", [inner]) => cast_to(inner, call.return_type(), input, steps),
        ("+", [left, right]) => match interval_of(right) {
            Some(interval) => shifted(left, interval, 1, input, steps),
            None => shifted(right, interval_of(left)?, 1, input, steps),
        },
        ("-", [inner, interval]) => shifted(inner, interval_of(interval)?, -1, input, steps),
        ("date_trunc", [unit, inner, ..]) => {
            let walked = walk(inner, input, steps)?;
            steps.push(unit_step(&text_of(unit)?)?);
            Some(walked)
        }
        ("date_bin", [stride, inner, origin]) => {
            let walked = walk(inner, input, steps)?;
            match shift(interval_of(stride)?, 1)? {
                Step::Shift { months: 0, us: stride_us } if stride_us > 0 => {
                    steps.push(Step::Bin { stride_us, origin_us: timestamp_of(origin)? });
                    Some(walked)
                }
                _ => None,
            }
        }
        ("tumble_start" | "tumble_end", [inner, size, offset @ ..]) => {
            let walked = walk(inner, input, steps)?;
            if walked.data_type == DataType::Date32 {
                steps.push(Step::Midnight);
            }
            let size_us = length_us(size)?;
            steps.push(bin(size_us, offset)?);
            if call.name() == "tumble_end" {
                steps.push(Step::Shift { months: 0, us: size_us });
            }
            Some(Walked { data_type: call.return_type().clone(), ..walked })
        }
        ("window_end", [inner, size]) => shifted(inner, interval_of(size)?, 1, input, steps),
        ("window_start", [inner, size, offset @ ..]) => {
            let walked = walk(inner, input, steps)?;
            steps.extend([Step::Shift { months: 0, us: -1 }, bin(length_us(size)?, offset)?]);
            Some(walked)
        }
        ("window_time", [inner]) => {
            let walked = walk(inner, input, steps)?;
            steps.push(Step::Shift { months: 0, us: -WINDOW_TIME_US });
            Some(walked)
        }
        _ => None,
    }
}

/// The windows of a size, one of which begins at 1970 plus an offset.
fn bin(size_us: i64, offset: &[Physical]) -> Option<Step> {
    let origin_us = match offset {
        [] => 0,
        [offset] => fixed_us(interval_of(offset)?)?,
        _ => return None,
    };
    Some(Step::Bin { stride_us: size_us, origin_us })
}

/// A literal interval of more than nothing, without months.
fn length_us(interval: &Physical) -> Option<i64> {
    fixed_us(interval_of(interval)?).filter(|us| *us > 0)
}

/// An interval without months in microseconds.
fn fixed_us(interval: IntervalMonthDayNano) -> Option<i64> {
    match shift(interval, 1)? {
        Step::Shift { months: 0, us } => Some(us),
        _ => None,
    }
}

/// Time plus or minus an interval; a date becomes a timestamp by it.
fn shifted(
    inner: &Physical,
    interval: IntervalMonthDayNano,
    sign: i64,
    input: &Schema,
    steps: &mut Vec<Step>,
) -> Option<Walked> {
    let walked = walk(inner, input, steps)?;
    if walked.data_type == DataType::Date32 {
        return None;
    }
    steps.push(shift(interval, sign)?);
    Some(walked)
}

fn cast_to(
    inner: &Physical,
    target: &DataType,
    input: &Schema,
    steps: &mut Vec<Step>,
) -> Option<Walked> {
    let walked = walk(inner, input, steps)?;
    match (&walked.data_type, target) {
        (DataType::Timestamp(_, _), DataType::Date32) => steps.push(Step::Date),
        (DataType::Date32, DataType::Timestamp(_, _)) => steps.push(Step::Midnight),
        (from, to) if from == to => {}
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) if from == to => {}
        _ => return None,
    }
    Some(Walked { data_type: target.clone(), ..walked })
}

fn literal(expr: &Physical) -> Option<&ScalarValue> {
    expr.downcast_ref::<Literal>().map(Literal::value)
}

fn interval_of(expr: &Physical) -> Option<IntervalMonthDayNano> {
    match literal(expr)? {
        ScalarValue::IntervalMonthDayNano(interval) => *interval,
        _ => None,
    }
}

fn text_of(expr: &Physical) -> Option<String> {
    match literal(expr)? {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            Some(text.to_lowercase())
        }
        _ => None,
    }
}

fn timestamp_of(expr: &Physical) -> Option<i64> {
    match literal(expr)? {
        ScalarValue::TimestampMicrosecond(value, _) => *value,
        _ => None,
    }
}

fn shift(interval: IntervalMonthDayNano, sign: i64) -> Option<Step> {
    let days_us = i64::from(interval.days).checked_mul(US_PER_DAY)?;
    let us = days_us.checked_add(interval.nanoseconds / NS_PER_US)?.checked_mul(sign)?;
    Some(Step::Shift { months: interval.months.checked_mul(sign as i32)?, us })
}

fn unit_step(unit: &str) -> Option<Step> {
    let bin = |stride_us| Some(Step::Bin { stride_us, origin_us: 0 });
    match unit {
        "second" => bin(US_PER_SECOND),
        "minute" => bin(60 * US_PER_SECOND),
        "hour" => bin(3_600 * US_PER_SECOND),
        "day" => bin(US_PER_DAY),
        "week" => Some(Step::Bin { stride_us: 7 * US_PER_DAY, origin_us: FIRST_MONDAY_US }),
        "month" => Some(Step::Months { every: 1 }),
        "quarter" => Some(Step::Months { every: 3 }),
        "year" => Some(Step::Months { every: 12 }),
        _ => None,
    }
}
