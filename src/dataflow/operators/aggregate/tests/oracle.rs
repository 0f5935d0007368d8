//! Random changes, random checkpoints and restores, against a plain recomputation of every call
//! over the rows that are there. `MILLSTREAM_SEED` replays a run.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::dataflow::script::{Driven, batch};

/// Columns of the input, and how a row gives their text (`.` is NULL).
const COLUMNS: &str = "k bigint, g text, v bigint, i integer, d double, m money, n numeric, \
                       s text, b boolean, f boolean, t timestamp, p double, z text";

#[derive(Clone, Debug)]
struct Row(Vec<Option<String>>);

impl Row {
    fn random(rng: &mut SmallRng, groups: i64) -> Row {
        // A tenth of all values is NULL; half of all rows are in a few hot groups.
        let hot = rng.random_bool(0.5);
        let group = rng.random_range(0..if hot { 3 } else { groups });
        let range = [4, 40, 4000][group as usize % 3];
        let number = rng.random_range(-range..=range);
        let values = [
            group.to_string(),
            format!("g{}", group % 2),
            number.to_string(),
            (number / 3).to_string(),
            // Multiples of 1/1024 sum up exactly in any order.
            format!("{:?}", rng.random_range(-range * 1024..=range * 1024) as f64 / 1024.0),
            format!("{}.{:02}", rng.random_range(-range..=range), rng.random_range(0..100)),
            format!("{}.5", rng.random_range(0..=range)),
            format!("s{:x}", rng.random_range(0..=range)),
            rng.random_bool(0.7).to_string(),
            rng.random_bool(0.5).to_string(),
            rng.random_range(0..=range).to_string(),
        ];
        let values = values.into_iter().map(|v| rng.random_bool(0.9).then_some(v));
        // The fraction of percentiles and the delimiter of texts are constants.
        Row(values.chain([Some("0.25".to_owned()), Some("-".to_owned())]).collect())
    }

    fn line(&self, weight: i64) -> String {
        let values: Vec<&str> = self.0.iter().map(|v| v.as_deref().unwrap_or(".")).collect();
        format!("{weight:+} {}\n", values.join(" "))
    }

    fn get(&self, column: &str) -> Option<&str> {
        const NAMES: &str = "kgvidmnsbftpz";
        let index = NAMES.find(column).expect("a column; each has a letter");
        self.0[index].as_deref()
    }
}

/// A value of the output.
#[derive(Clone, Debug)]
enum Cell {
    Text(String),
    /// Compared within a tolerance.
    Float(f64),
}

fn null() -> Cell {
    Cell::Text(".".to_owned())
}

fn same(expected: &Cell, actual: &str) -> bool {
    match expected {
        Cell::Text(text) => text == actual,
        Cell::Float(number) => actual.parse::<f64>().is_ok_and(|actual| {
            (number - actual).abs() <= 1e-9 * number.abs().max(1.0)
                || number.is_nan() && actual.is_nan()
        }),
    }
}

/// A decimal of this text as an integer with `scale` digits after the point.
fn scaled(text: &str, scale: usize) -> i128 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: i128 = format!("{whole}{fraction:0<scale$}").parse().expect("a number");
    digits
}

fn decimal(value: i128, scale: usize) -> Cell {
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Cell::Text(format!("{sign}{whole}.{fraction}"))
}

fn float(text: &str) -> f64 {
    text.parse().expect("a number")
}

fn integers(values: &[String]) -> Vec<i128> {
    values.iter().map(|v| v.parse().expect("an integer")).collect()
}

/// Digits after the point of the decimal columns.
fn scale_of(column: &str) -> usize {
    match column {
        "m" => 2,
        "n" => 10,
        _ => 0,
    }
}

/// The place of a value in the order of its column.
fn order_key(column: &str, value: &str) -> (i128, String) {
    match column {
        "d" => ((float(value) * 1024.0) as i128, String::new()),
        "s" | "g" | "b" | "f" => (0, value.to_owned()),
        column => (scaled(value, scale_of(column)), String::new()),
    }
}

/// How a value prints in the output.
fn printed(column: &str, value: &str) -> Cell {
    match column {
        "d" => Cell::Float(float(value)),
        "m" | "n" => decimal(scaled(value, scale_of(column)), scale_of(column)),
        "t" => {
            let micros: i64 = value.parse().expect("microseconds");
            let fraction = match micros {
                0 => String::new(),
                _ if micros % 1000 == 0 => format!(".{:03}", micros / 1000),
                _ => format!(".{micros:06}"),
            };
            Cell::Text(format!("1970-01-01T00:00:00{fraction}"))
        }
        _ => Cell::Text(value.to_owned()),
    }
}

/// Variances and the like over the rows where neither column is NULL.
fn moment(name: &str, columns: &str, rows: &[&Row]) -> Cell {
    let (y, x) = columns.split_once(',').unwrap_or((columns, columns));
    let pairs: Vec<(f64, f64)> =
        rows.iter().filter_map(|row| Some((float(row.get(y)?), float(row.get(x)?)))).collect();
    let n = pairs.len() as f64;
    if name == "regr_count" {
        return Cell::Text(pairs.len().to_string());
    }
    if pairs.is_empty() {
        return null();
    }
    let mean_y = pairs.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_x = pairs.iter().map(|p| p.1).sum::<f64>() / n;
    let sum = |f: &dyn Fn(f64, f64) -> f64| {
        pairs.iter().map(|(y, x)| f(y - mean_y, x - mean_x)).sum::<f64>()
    };
    let (syy, sxx, sxy) = (sum(&|y, _| y * y), sum(&|_, x| x * x), sum(&|y, x| y * x));
    // Differences from a rounded mean of equal values are not quite 0.
    let flat = |s: f64| s < 1e-12;
    match name {
        "var_samp" | "stddev_samp" | "covar_samp" if pairs.len() < 2 => null(),
        "corr" | "regr_r2" if pairs.len() < 2 || flat(sxx) || flat(syy) => null(),
        "regr_slope" | "regr_intercept" if pairs.len() < 2 || flat(sxx) => null(),
        "var_samp" => Cell::Float(syy / (n - 1.0)),
        "var_pop" => Cell::Float(syy / n),
        "stddev_samp" => Cell::Float((syy / (n - 1.0)).sqrt()),
        "stddev_pop" => Cell::Float((syy / n).sqrt()),
        "covar_samp" => Cell::Float(sxy / (n - 1.0)),
        "covar_pop" => Cell::Float(sxy / n),
        "corr" => Cell::Float(sxy / (sxx * syy).sqrt()),
        "regr_r2" => Cell::Float(sxy * sxy / (sxx * syy)),
        "regr_slope" => Cell::Float(sxy / sxx),
        "regr_intercept" => Cell::Float(mean_y - sxy / sxx * mean_x),
        "regr_avgx" => Cell::Float(mean_x),
        "regr_avgy" => Cell::Float(mean_y),
        "regr_sxx" => Cell::Float(sxx),
        "regr_syy" => Cell::Float(syy),
        "regr_sxy" => Cell::Float(sxy),
        other => panic!("the oracle does not know {other}"),
    }
}

/// Values in order: by the ORDER BY column first if there is one, NULLs as in Postgres, then by
/// value, NULLs last.
fn in_order<'a>(column: &str, order_by: &str, rows: &[&'a Row]) -> Vec<Option<&'a str>> {
    let (by, descending) = match order_by.strip_suffix(" desc") {
        Some(by) => (by, true),
        None => (order_by, false),
    };
    let key = |column: &str, row: &Row| {
        let value = row.get(column);
        (value.is_none(), value.map(|v| order_key(column, v)))
    };
    let mut rows = rows.to_vec();
    rows.sort_by_cached_key(|row| key(column, row));
    if !by.is_empty() {
        // Stable: rows that the ORDER BY leaves equal stay in the order of their values.
        rows.sort_by(|a, b| {
            let order = key(by, a).cmp(&key(by, b));
            if descending { order.reverse() } else { order }
        });
    }
    rows.iter().map(|row| row.get(column)).collect()
}

/// `array_agg`, `string_agg`, `first_value`, `last_value`.
fn by_row(name: &str, inside: &str, distinct: bool, rows: &[&Row]) -> Cell {
    let (arguments, order_by) = inside.split_once(" order by ").unwrap_or((inside, ""));
    let column = &arguments[..1];
    let mut values = in_order(column, order_by, rows);
    if distinct {
        values.dedup();
    }
    let text = |value: &Option<&str>| match value.map(|v| printed(column, v)) {
        Some(Cell::Text(text)) => text,
        Some(Cell::Float(number)) => format!("{number:?}"),
        None => String::new(),
    };
    let end = |value: Option<&Option<&str>>| match value {
        Some(Some(value)) => printed(column, value),
        _ => null(),
    };
    let texts: Vec<String> = values.iter().map(text).collect();
    match name {
        "first_value" => end(values.first()),
        "last_value" => end(values.last()),
        _ if values.is_empty() => null(),
        "array_agg" => Cell::Text(format!("[{}]", texts.join(", "))),
        _ => match values.iter().flatten().copied().collect::<Vec<_>>() {
            none if none.is_empty() => null(),
            texts => Cell::Text(texts.join("-")),
        },
    }
}

/// `median`, `percentile_cont`, `percentile_disc` (at 0.25), `mode`, of sorted values.
fn by_rank(name: &str, column: &str, values: &[String]) -> Cell {
    let last = values.len() - 1;
    let number = |rank: usize| float(&values[rank]);
    match name {
        "mode" => {
            let count = |value: &String| values.iter().filter(|v| *v == value).count();
            let most = values.iter().map(count).max().expect("a value");
            let first = values.iter().find(|v| count(v) == most).expect("the most frequent");
            printed(column, first)
        }
        "percentile_disc" => {
            let rank = (values.len() as f64 * 0.25).ceil() as usize;
            printed(column, &values[rank.max(1) - 1])
        }
        "median" if column == "v" => {
            let values = integers(values);
            let sum = values[last / 2] + values[values.len() / 2];
            Cell::Text((sum / 2).to_string())
        }
        "median" => Cell::Float((number(last / 2) + number(values.len() / 2)) / 2.0),
        _ => {
            let place = last as f64 * 0.25;
            let (low, share) = (place.floor() as usize, place.fract());
            let high = place.ceil() as usize;
            Cell::Float(number(low) + (number(high) - number(low)) * share)
        }
    }
}

/// What `call` gives over these rows, computed the plain way.
fn expected(call: &str, rows: &[&Row]) -> Cell {
    let (name, rest) = call.split_once('(').expect("a call");
    let (inside, filter) = rest.split_once(')').expect("a call");
    let passes = |row: &&&Row| filter.is_empty() || row.get("f") == Some("true");
    let rows: Vec<&Row> = rows.iter().filter(passes).copied().collect();
    if inside == "*" {
        return Cell::Text(rows.len().to_string());
    }
    let (distinct, inside) = match inside.strip_prefix("distinct ") {
        Some(inside) => (true, inside),
        None => (false, inside),
    };
    if ["array_agg", "string_agg", "first_value", "last_value"].contains(&name) {
        return by_row(name, inside, distinct, &rows);
    }
    let ranked = ["median", "percentile_cont", "percentile_disc", "mode"].contains(&name);
    let column = if ranked { &inside[..1] } else { inside };
    if ["var", "std", "cov", "cor", "reg"].iter().any(|start| name.starts_with(start)) {
        return moment(name, column, &rows);
    }
    let mut values: Vec<String> =
        rows.iter().filter_map(|row| row.get(column)).map(str::to_owned).collect();
    values.sort_by_cached_key(|value| order_key(column, value));
    if distinct {
        let different: BTreeSet<_> = values.iter().map(|v| order_key(column, v)).collect();
        values.dedup_by_key(|value| order_key(column, value));
        assert_eq!(values.len(), different.len());
    }
    if name == "count" {
        return Cell::Text(values.len().to_string());
    }
    if values.is_empty() {
        return null();
    }
    let count = values.len() as i128;
    let scale = scale_of(column);
    if ranked {
        return by_rank(name, column, &values);
    }
    match (name, column) {
        ("min" | "any_value", _) => printed(column, &values[0]),
        ("max", _) => printed(column, &values[values.len() - 1]),
        ("bool_and" | "every", _) => Cell::Text(values.iter().all(|v| v == "true").to_string()),
        ("bool_or", _) => Cell::Text(values.iter().any(|v| v == "true").to_string()),
        ("bit_and" | "bit_or" | "bit_xor", _) => {
            let combine = |a: i128, b: i128| match name {
                "bit_and" => a & b,
                "bit_or" => a | b,
                _ => a ^ b,
            };
            let bits = integers(&values).into_iter().reduce(combine);
            Cell::Text(bits.expect("a value").to_string())
        }
        ("sum", "v" | "i") => Cell::Text(integers(&values).iter().sum::<i128>().to_string()),
        ("avg", "v" | "i") => {
            Cell::Float(integers(&values).iter().sum::<i128>() as f64 / count as f64)
        }
        ("sum", "m" | "n") => {
            let sum = values.iter().map(|v| scaled(v, scale)).sum();
            decimal(sum, scale)
        }
        ("avg", "m" | "n") => {
            let sum: i128 = values.iter().map(|v| scaled(v, scale)).sum();
            // Rounded half away from 0.
            let doubled = 2 * sum * 10_000;
            decimal((doubled + doubled.signum() * count) / (2 * count), scale + 4)
        }
        ("sum", "d") => Cell::Float(values.iter().map(|v| float(v)).sum()),
        ("avg", "d") => Cell::Float(values.iter().map(|v| float(v)).sum::<f64>() / count as f64),
        _ => panic!("the oracle does not know {call}"),
    }
}

/// The output's rows by their key, as words.
type View = BTreeMap<Vec<String>, Vec<String>>;

/// Splits at blanks outside of double quotes, which are dropped.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    for (index, part) in line.split('"').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// Applies what an epoch emitted; each key has one row.
fn apply(view: &mut View, sent: BTreeMap<String, i64>, keys: usize) {
    let mut inserts = Vec::new();
    for (row, weight) in sent {
        let row = words(&row);
        let (key, values) = row.split_at(keys);
        match weight {
            -1 => assert_eq!(view.remove(key), Some(values.to_vec()), "-old is what was emitted"),
            1 => inserts.push((key.to_vec(), values.to_vec())),
            other => panic!("row {row:?} with weight {other}"),
        }
    }
    for (key, values) in inserts {
        assert!(view.insert(key, values).is_none(), "one row for each key");
    }
}

/// Compares the view with the recomputation.
fn compare(view: &View, rows: &[Row], keys: &[&str], calls: &[&str]) {
    let mut groups: BTreeMap<Vec<String>, Vec<&Row>> = BTreeMap::new();
    if keys.is_empty() {
        groups.insert(vec![], vec![]);
    }
    for row in rows {
        let key = keys.iter().map(|key| row.get(key).unwrap_or(".").to_owned()).collect();
        groups.entry(key).or_default().push(row);
    }
    assert_eq!(view.keys().collect::<Vec<_>>(), groups.keys().collect::<Vec<_>>());
    for (key, rows) in groups {
        for (call, actual) in calls.iter().zip(&view[&key]) {
            let expected = expected(call, &rows);
            assert!(same(&expected, actual), "{call} of {key:?}: {expected:?}, not {actual}");
        }
    }
}

struct Case {
    keys: &'static str,
    calls: &'static [&'static str],
    append_only: bool,
    groups: i64,
    epochs: u64,
}

/// A batch's lines; changes `rows` accordingly.
fn random_lines(
    rng: &mut SmallRng,
    rows: &mut Vec<Row>,
    case: &Case,
    shrinking: bool,
) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..rng.random_range(1..60) {
        let choice = if case.append_only { 0 } else { rng.random_range(0..10) };
        let insert = if shrinking { choice < 2 } else { choice < 6 };
        if insert || rows.is_empty() {
            let row = Row::random(rng, case.groups);
            let copies = if !case.append_only && rng.random_bool(0.1) { 3 } else { 1 };
            rows.extend(std::iter::repeat_n(row.clone(), copies));
            lines.push(row.line(copies as i64));
        } else {
            let at = rng.random_range(0..rows.len());
            let gone = rows.swap_remove(at);
            lines.push(gone.line(-1));
            if choice == 9 {
                // An update of one column, maybe one that is a key.
                let mut row = gone;
                let other = Row::random(rng, case.groups);
                let column = rng.random_range(0..row.0.len());
                row.0[column].clone_from(&other.0[column]);
                lines.push(row.line(1));
                rows.push(row);
            }
        }
    }
    lines
}

fn run_case(case: &Case, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let input = schema(COLUMNS);
    let spec = spec(&input, case.keys, case.calls, case.append_only);
    let keys: Vec<&str> = case.keys.split(',').filter(|key| !key.is_empty()).collect();
    let mut driven = Driven::new(|| aggregate(&spec, &input)).on_disk_if(seed % 2 == 1);
    let mut rows = Vec::new();
    let mut view = View::new();
    for epoch in 1..=case.epochs {
        let shrinking = epoch % 7 > 4;
        let mut lines = Vec::new();
        for _ in 0..rng.random_range(0..4) {
            lines.append(&mut random_lines(&mut rng, &mut rows, case, shrinking));
        }
        if !case.append_only {
            // Deletions come before their insertions, too.
            rand::seq::SliceRandom::shuffle(lines.as_mut_slice(), &mut rng);
        }
        for lines in lines.chunks(rng.random_range(1..100)) {
            driven.batch(0, batch(&input, &lines.concat())).expect("takes a batch");
        }
        driven.epoch(Epoch(epoch)).expect("completes");
        let sent = driven.sent();
        assert_eq!(sent.cancelled, 0, "-row and +row of equal rows are never emitted");
        assert!(sent.errors.is_empty(), "{:?}", sent.errors);
        apply(&mut view, sent.rows, keys.len());
        compare(&view, &rows, &keys, case.calls);
        if rng.random_bool(0.3) {
            driven.checkpoint().expect("checkpoints");
        }
        if rng.random_bool(0.15) {
            driven.checkpoint().expect("checkpoints");
            driven.restart().expect("restores");
        }
    }
}

/// The five functions, with DISTINCT and FILTER.
const BASIC: &[&str] = &[
    "count(*)",
    "count(v)",
    "count(distinct s)",
    "count(*) filter (f)",
    "sum(v)",
    "sum(i)",
    "sum(d)",
    "sum(m)",
    "sum(n)",
    "sum(distinct v)",
    "sum(v) filter (f)",
    "avg(v)",
    "avg(d)",
    "avg(m)",
    "avg(n)",
    "avg(distinct d)",
    "min(v)",
    "max(v)",
    "min(i)",
    "max(d)",
    "min(m)",
    "max(n)",
    "min(s)",
    "max(s)",
    "min(b)",
    "max(t)",
    "min(d) filter (f)",
    "max(distinct s)",
    "count(distinct v) filter (f)",
];

/// Functions of sums and counts.
const SUMMED: &[&str] = &[
    "bool_and(b)",
    "bool_or(b)",
    "every(b) filter (f)",
    "var_samp(d)",
    "var_pop(v)",
    "stddev_samp(d) filter (f)",
    "stddev_pop(d)",
    "covar_samp(d,v)",
    "covar_pop(d,v)",
    "corr(d,v)",
    "regr_slope(d,v)",
    "regr_intercept(d,v)",
    "regr_count(d,v)",
    "regr_r2(d,v)",
    "regr_avgx(d,v)",
    "regr_avgy(d,v)",
    "regr_sxx(d,v)",
    "regr_syy(d,v)",
    "regr_sxy(d,v)",
    "bit_and(v)",
    "bit_or(i)",
    "bit_xor(v)",
    "bit_xor(distinct i)",
    "bit_and(i) filter (f)",
];

/// Functions that keep all values.
const STORED: &[&str] = &[
    "median(v)",
    "median(d) filter (f)",
    "percentile_cont(d,p)",
    "percentile_disc(v,p)",
    "percentile_disc(s,p)",
    "percentile_disc(m,p)",
    "mode(v)",
    "mode(s)",
    "median(distinct d)",
    "any_value(s)",
    "first_value(v order by d)",
    "last_value(s order by v desc)",
    "first_value(s order by t desc)",
    "array_agg(v)",
    "array_agg(s order by v desc)",
    "array_agg(distinct v)",
    "array_agg(distinct s) filter (f)",
    "string_agg(s,z)",
    "string_agg(s,z order by v desc)",
    "string_agg(distinct s,z)",
];

#[test]
fn random_changes_equal_recomputation() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("MILLSTREAM_SEED={seed}");
    // Keys of every shape: none, packed in one word or two, hashed.
    let keys = [("", BASIC), ("g,k", BASIC), ("b,i", BASIC), ("k", SUMMED), ("k,v,d", SUMMED)];
    for (keys, calls) in keys.into_iter().chain([("", STORED), ("k", STORED), ("m,s", STORED)]) {
        for append_only in [false, true] {
            let case = Case { keys, calls, append_only, groups: 20, epochs: 12 };
            run_case(&case, seed);
        }
    }
    // Distinct, and few calls over many groups: other sizes of a group's row.
    for calls in [&[] as &[&str], &["count(*)"], &["min(v)"], &["count(distinct v)"], &["sum(d)"]] {
        for append_only in [false, true] {
            let case = Case { keys: "k,s", calls, append_only, groups: 300, epochs: 25 };
            run_case(&case, seed);
        }
    }
}
