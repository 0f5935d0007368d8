//! Random typed expressions.
//!
//! What there is stands in lists: [`TEMPLATES`] for operators and functions, [`AGGREGATES`] and
//! [`WINDOWS`]. They are total: on the values that tables hold they do not fail, or hardly ever
//! (numbers may grow out of their type when views stand on views), because a batch query raises
//! where a view leaves a row out. [`Generator::careless`] makes calls that may fail, of every
//! function in our own lists.

use std::sync::LazyLock;

use millstream::functions::scalar::call::{Overload, R, T};
use millstream::functions::scalar::{array, calendar, json, math, string, template as to_char};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::query::Relation;
use super::tree::{Sort, Tree, list, optional, seq, template, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    Int2,
    Int4,
    Int8,
    Float8,
    Numeric,
    Text,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Bytea,
    Jsonb,
    IntArray,
    TextArray,
}

use Type::{
    Bool, Bytea, Date, Float8, Int2, Int4, Int8, IntArray, Interval, Jsonb, Numeric, Text,
    TextArray, Time, Timestamp, Timestamptz, Uuid,
};

pub const TYPES: &[Type] = &[
    Bool,
    Int2,
    Int4,
    Int8,
    Float8,
    Numeric,
    Text,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Bytea,
    Jsonb,
    IntArray,
    TextArray,
];

impl Type {
    pub fn sql(self) -> &'static str {
        match self {
            Bool => "boolean",
            Int2 => "smallint",
            Int4 => "int",
            Int8 => "bigint",
            Float8 => "double precision",
            Numeric => "numeric(10,2)",
            Text => "text",
            Date => "date",
            Time => "time",
            Timestamp => "timestamp",
            Timestamptz => "timestamptz",
            Interval => "interval",
            Uuid => "uuid",
            Bytea => "bytea",
            Jsonb => "jsonb",
            IntArray => "int[]",
            TextArray => "text[]",
        }
    }

    /// Values of columns: few, so that keys meet and repeat; the first ones more often.
    pub fn values(self) -> &'static [&'static str] {
        match self {
            Bool => &["true", "false"],
            Int2 | Int4 => &["1", "2", "3", "0", "5", "-1", "7", "4"],
            Int8 => &["1", "2", "0", "3", "-2", "5000000000", "4"],
            Float8 => &["0.5", "1", "2.25", "-3.5", "0", "100", "0.125"],
            Numeric => &["1.00", "2.50", "0.00", "-1.25", "3.00", "99.99"],
            Text => &["'a'", "'b'", "'ab'", "''", "'B'", "'c d'", "'12'", "'é'"],
            Date => &["'2024-01-01'", "'2024-01-02'", "'2024-02-29'", "'2023-12-31'"],
            Time => &["'10:00:00'", "'00:00:00'", "'23:59:59'"],
            Timestamp => &[
                "'2024-01-01 10:00:00'",
                "'2024-01-01 11:30:00'",
                "'2024-01-02 00:00:00'",
                "'2023-12-31 23:59:59.5'",
            ],
            Timestamptz => &["'2024-01-01 10:00:00+00'", "'2024-03-31 01:30:00+00'"],
            Interval => &["'1 hour'", "'2 days'", "'1 mon'", "'-90 minutes'", "'0'"],
            Uuid => &[
                "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
                "'00000000-0000-0000-0000-000000000001'",
            ],
            Bytea => &["'\\x01ff'", "'\\x'", "'\\x00'"],
            Jsonb => &[
                "'{\"a\": 1, \"b\": \"x\"}'",
                "'{\"a\": [1, 2], \"c\": null}'",
                "'[1, \"a\"]'",
                "'{}'",
                "'3'",
            ],
            IntArray => &["'{1,2}'", "'{}'", "'{3,NULL}'", "'{2,2,5}'"],
            TextArray => &["'{a,b}'", "'{}'", "'{NULL}'", "'{b}'"],
        }
    }

    /// Whether its order, and its equality, mean the same everywhere.
    pub fn is_plain(self) -> bool {
        !matches!(self, Interval | Jsonb | IntArray | TextArray)
    }

    pub fn sort(self) -> Sort {
        let number = TYPES.iter().position(|t| *t == self).expect("every type is listed");
        Sort::Expression(number as u8)
    }

    /// In ORDER BY: what is ordered differently elsewhere goes as text.
    pub fn order_key(self, column: &str) -> String {
        match self.is_plain() {
            true => column.to_owned(),
            false => format!("{column}::text"),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub of: Type,
}

/// What an expression may use.
#[derive(Clone, Default)]
pub struct Scope {
    pub columns: Vec<Column>,
    /// Present where aggregates may stand: the columns that they see.
    pub aggregated: Option<Vec<Column>>,
    /// Columns of queries around this one.
    pub outer: Vec<Column>,
    /// How deep subqueries may go; 0: none.
    pub subqueries: u32,
}

impl Scope {
    pub fn of(columns: Vec<Column>) -> Scope {
        Scope { columns, ..Scope::default() }
    }

    /// The columns in an order that leaves only equal rows untold.
    pub fn total_order(&self) -> Vec<String> {
        self.columns.iter().map(|c| c.of.order_key(&c.name)).collect()
    }
}

/// What is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grammar {
    /// Everything we have.
    Ours,
    /// What Postgres 15 has too, with the same meaning.
    Postgres,
}

/// Makes everything up from one seed.
pub struct Generator {
    pub random: StdRng,
    pub grammar: Grammar,
    /// Tables and views so far.
    pub relations: Vec<Relation>,
    pub next_alias: u32,
    pub next_group: u32,
}

/// A result type, the call, and its arguments. `!` at the beginning: ours only.
type Template = (Type, &'static str, &'static [Type]);

pub const TEMPLATES: &[Template] = &[
    (Int4, "({} + {})", &[Int4, Int4]),
    (Int4, "({} - {})", &[Int4, Int4]),
    (Int4, "({} * {})", &[Int4, Int2]),
    (Int4, "({} / nullif({}, 0))", &[Int4, Int4]),
    (Int4, "({} % nullif({}, 0))", &[Int4, Int4]),
    (Int4, "(- {})", &[Int4]),
    (Int4, "abs({})", &[Int4]),
    (Int4, "({} & {})", &[Int4, Int4]),
    (Int4, "({} | {})", &[Int4, Int4]),
    (Int4, "gcd({}, {})", &[Int4, Int4]),
    (Int4, "length({})", &[Text]),
    (Int4, "octet_length({})", &[Text]),
    (Int4, "strpos({}, {})", &[Text, Text]),
    (Int4, "ascii({})", &[Text]),
    (Int4, "cardinality({})", &[IntArray]),
    (Int4, "({})[1]", &[IntArray]),
    (Int4, "({} - {})", &[Date, Date]),
    (Int4, "({}::int)", &[Bool]),
    (Int4, "({}::int)", &[Int2]),
    (Int4, "(extract(day FROM {})::int)", &[Timestamp]),
    (Int4, "(extract(isodow FROM {})::int)", &[Date]),
    (Int4, "(date_part('hour', {})::int)", &[Timestamptz]),
    (Int4, "array_position({}, {})", &[IntArray, Int4]),
    (Int4, "!regexp_count({}, 'a')", &[Text]),
    (Int4, "length(regexp_replace({}, '[0-9]', '', 'g'))", &[Text]),
    (Int4, "array_length({}, 1)", &[TextArray]),
    (Int4, "(round({})::int)", &[Numeric]),
    (Int2, "({}::int::smallint)", &[Bool]),
    (Int2, "(length({}) % 5)::smallint", &[Text]),
    (Int8, "({} + {})", &[Int8, Int4]),
    (Int8, "({} - {})", &[Int8, Int8]),
    (Int8, "({} * {})", &[Int8, Int2]),
    (Int8, "({} % 7)", &[Int8]),
    (Int8, "({} / nullif({}, 0))", &[Int8, Int4]),
    (Int8, "({}::bigint)", &[Int4]),
    (Int8, "({} # {})", &[Int8, Int8]),
    (Float8, "({} + {})", &[Float8, Float8]),
    (Float8, "({} - {})", &[Float8, Int4]),
    (Float8, "({} * {})", &[Float8, Float8]),
    (Float8, "({} / nullif({}, 0))", &[Float8, Float8]),
    (Float8, "sqrt(abs({}))", &[Float8]),
    (Float8, "round({})", &[Float8]),
    (Float8, "floor({})", &[Float8]),
    (Float8, "({}::float8)", &[Numeric]),
    (Float8, "({}::float8)", &[Int4]),
    (Float8, "extract(epoch FROM {})::float8", &[Timestamp]),
    (Numeric, "({} + {})", &[Numeric, Numeric]),
    (Numeric, "({} - {})", &[Numeric, Int4]),
    (Numeric, "({} * {})", &[Numeric, Int2]),
    (Numeric, "round({}, 1)", &[Numeric]),
    (Numeric, "trunc({} / nullif({}, 0), 3)", &[Numeric, Numeric]),
    (Numeric, "({} % nullif({}, 0))", &[Numeric, Numeric]),
    (Numeric, "({}::numeric(10,2))", &[Int2]),
    (Numeric, "abs({})", &[Numeric]),
    (Text, "({} || {})", &[Text, Text]),
    (Text, "({} || {})", &[Text, Int4]),
    (Text, "upper({})", &[Text]),
    (Text, "lower({})", &[Text]),
    (Text, "substr({}, 1, 2)", &[Text]),
    (Text, "substring({} FROM {})", &[Text, Int4]),
    (Text, "replace({}, 'a', {})", &[Text, Text]),
    (Text, "concat({}, '-', {})", &[Text, Int4]),
    (Text, "concat_ws('-', {}, {}, {})", &[Text, Date, Text]),
    (Text, "left({}, {})", &[Text, Int2]),
    (Text, "right({}, 1)", &[Text]),
    (Text, "reverse({})", &[Text]),
    (Text, "btrim({}, 'a ')", &[Text]),
    (Text, "lpad({}, 3, '*')", &[Text]),
    (Text, "repeat({}, 2)", &[Text]),
    (Text, "md5({})", &[Text]),
    (Text, "split_part({}, 'b', 1)", &[Text]),
    (Text, "translate({}, 'ab', 'x')", &[Text]),
    (Text, "initcap({})", &[Text]),
    (Text, "regexp_replace({}, '[ab]', '_', 'g')", &[Text]),
    (Text, "format('%s/%s', {}, {})", &[Text, Int8]),
    (Text, "quote_literal({})", &[Text]),
    (Text, "to_char({}, 'YYYY-MM-DD HH24:MI')", &[Timestamp]),
    (Text, "to_char({}, 'FM990')", &[Int4]),
    (Text, "({}::text)", &[Int4]),
    (Text, "({}::text)", &[Bool]),
    (Text, "({}::text)", &[Date]),
    (Text, "({}::text)", &[Timestamp]),
    (Text, "({}::text)", &[Interval]),
    (Text, "({}::text)", &[Uuid]),
    (Text, "({}::text)", &[Jsonb]),
    (Text, "({}::text)", &[IntArray]),
    (Text, "({} ->> 'a')", &[Jsonb]),
    (Text, "({} #>> '{a,0}')", &[Jsonb]),
    (Text, "jsonb_typeof({})", &[Jsonb]),
    (Text, "array_to_string({}, ',', '*')", &[TextArray]),
    (Text, "({})[1]", &[TextArray]),
    (Text, "encode({}, 'hex')", &[Bytea]),
    (Bool, "({} LIKE 'a%')", &[Text]),
    (Bool, "({} LIKE {})", &[Text, Text]),
    (Bool, "({} ILIKE '%b')", &[Text]),
    (Bool, "({} ~ '^[a-c]')", &[Text]),
    (Bool, "starts_with({}, {})", &[Text, Text]),
    (Bool, "({} IS TRUE)", &[Bool]),
    (Bool, "({} IS NOT FALSE)", &[Bool]),
    (Bool, "({} IS UNKNOWN)", &[Bool]),
    (Bool, "({} = ANY ({}))", &[Int4, IntArray]),
    (Bool, "({} <> ALL ({}))", &[Text, TextArray]),
    (Bool, "({} @> {})", &[IntArray, IntArray]),
    (Bool, "({} && {})", &[IntArray, IntArray]),
    (Bool, "({} @> '{\"a\": 1}')", &[Jsonb]),
    (Bool, "({} ? 'a')", &[Jsonb]),
    (Bool, "({} IN (1, 2, NULL))", &[Int4]),
    (Bool, "({} NOT IN ('a', 'b'))", &[Text]),
    (Bool, "({} BETWEEN {} AND {})", &[Int4, Int4, Int4]),
    (Bool, "(({}, {}) = ({}, {}))", &[Int4, Text, Int4, Text]),
    (Date, "({}::date)", &[Timestamp]),
    (Date, "({} + {})", &[Date, Int2]),
    (Date, "({} - {})", &[Date, Int2]),
    (Date, "make_date(2024, 2, 1 + abs({}) % 28)", &[Int4]),
    (Time, "({}::time)", &[Timestamp]),
    (Time, "({} + {})", &[Time, Interval]),
    (Timestamp, "({} + {})", &[Timestamp, Interval]),
    (Timestamp, "({} + {})", &[Date, Time]),
    (Timestamp, "date_trunc('day', {})", &[Timestamp]),
    (Timestamp, "date_trunc('month', {})", &[Timestamp]),
    (Timestamp, "date_bin('15 minutes', {}, TIMESTAMP '2024-01-01')", &[Timestamp]),
    (Timestamp, "({}::timestamp)", &[Date]),
    (Timestamp, "({} AT TIME ZONE 'UTC')", &[Timestamptz]),
    (Timestamptz, "({} AT TIME ZONE 'America/Denver')", &[Timestamp]),
    (Timestamptz, "date_trunc('hour', {})", &[Timestamptz]),
    (Interval, "({} - {})", &[Timestamp, Timestamp]),
    (Interval, "({} + {})", &[Interval, Interval]),
    (Interval, "({} * 2)", &[Interval]),
    (Interval, "age({}, {})", &[Timestamp, Timestamp]),
    (Interval, "justify_hours({})", &[Interval]),
    (Uuid, "(md5({})::uuid)", &[Text]),
    (Bytea, "decode(md5({}), 'hex')", &[Text]),
    (Bytea, "({} || {})", &[Bytea, Bytea]),
    (Jsonb, "({} -> 'a')", &[Jsonb]),
    (Jsonb, "({} -> 0)", &[Jsonb]),
    (Jsonb, "to_jsonb({})", &[Text]),
    (Jsonb, "to_jsonb({})", &[IntArray]),
    (Jsonb, "jsonb_build_object('x', {}, 'y', {})", &[Int4, Text]),
    (Jsonb, "jsonb_build_array({}, {})", &[Bool, Jsonb]),
    (IntArray, "ARRAY[{}, {}]", &[Int4, Int4]),
    (IntArray, "array_append({}, {})", &[IntArray, Int4]),
    (IntArray, "array_remove({}, 2)", &[IntArray]),
    (IntArray, "({} || {})", &[IntArray, IntArray]),
    (TextArray, "ARRAY[{}, {}]", &[Text, Text]),
    (TextArray, "string_to_array({}, 'b')", &[Text]),
    (TextArray, "array_cat({}, {})", &[TextArray, TextArray]),
];

/// How an aggregate's call is dressed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The order of rows means nothing to it; DISTINCT may stand inside.
    Free,
    /// It must be said, to the last column.
    Total,
    /// The call has its own.
    Own,
}

/// A result type, a name, arguments; of [`Order::Own`] the name is the whole call.
pub const AGGREGATES: &[(Type, &str, &[Type], Order)] = &[
    (Int8, "count", &[Int4], Order::Free),
    (Int8, "count", &[Text], Order::Free),
    (Int8, "count", &[Timestamp], Order::Free),
    (Int8, "sum", &[Int4], Order::Free),
    (Int8, "sum", &[Int2], Order::Free),
    (Int8, "regr_count", &[Float8, Float8], Order::Own),
    (Int8, "bit_xor", &[Int8], Order::Free),
    (Int8, "min", &[Int8], Order::Free),
    (Int8, "!approx_count_distinct", &[Text], Order::Own),
    (Int4, "min", &[Int4], Order::Free),
    (Int4, "max", &[Int4], Order::Free),
    (Int4, "bit_and", &[Int4], Order::Free),
    (Int4, "bit_or", &[Int4], Order::Free),
    (Int4, "percentile_disc(0.5) WITHIN GROUP (ORDER BY {})", &[Int4], Order::Own),
    (Int4, "!mode() WITHIN GROUP (ORDER BY {})", &[Int4], Order::Own),
    (Int4, "!any_value", &[Int4], Order::Own),
    (Int4, "!first_value", &[Int4], Order::Total),
    (Int2, "max", &[Int2], Order::Free),
    (Numeric, "sum", &[Numeric], Order::Free),
    (Numeric, "min", &[Numeric], Order::Free),
    (Numeric, "max", &[Numeric], Order::Free),
    (Numeric, "round(avg({}), 4)", &[Int4], Order::Own),
    (Numeric, "round(avg({}), 4)", &[Numeric], Order::Own),
    (Float8, "sum", &[Float8], Order::Free),
    (Float8, "avg", &[Float8], Order::Free),
    (Float8, "min", &[Float8], Order::Free),
    (Float8, "var_samp", &[Float8], Order::Free),
    (Float8, "stddev_pop", &[Float8], Order::Free),
    (Float8, "!variance", &[Int4], Order::Free),
    (Float8, "covar_pop", &[Float8, Float8], Order::Own),
    (Float8, "corr", &[Float8, Float8], Order::Own),
    (Float8, "regr_slope", &[Float8, Float8], Order::Own),
    (Float8, "regr_sxy", &[Float8, Float8], Order::Own),
    (Float8, "percentile_cont(0.25) WITHIN GROUP (ORDER BY {})", &[Float8], Order::Own),
    (Float8, "!median", &[Int4], Order::Free),
    (Text, "min", &[Text], Order::Free),
    (Text, "max", &[Text], Order::Free),
    (Text, "string_agg", &[Text], Order::Total),
    (Text, "percentile_disc(0.3) WITHIN GROUP (ORDER BY {} DESC)", &[Text], Order::Own),
    (Text, "!last_value", &[Text], Order::Total),
    (Bool, "bool_and", &[Bool], Order::Free),
    (Bool, "bool_or", &[Bool], Order::Free),
    (Bool, "every", &[Bool], Order::Free),
    (Date, "min", &[Date], Order::Free),
    (Date, "max", &[Date], Order::Free),
    (Time, "max", &[Time], Order::Free),
    (Timestamp, "min", &[Timestamp], Order::Free),
    (Timestamp, "max", &[Timestamp], Order::Free),
    (Timestamptz, "max", &[Timestamptz], Order::Free),
    (Interval, "sum", &[Interval], Order::Free),
    (Jsonb, "jsonb_agg", &[Int4], Order::Total),
    (Jsonb, "jsonb_agg", &[Jsonb], Order::Total),
    (IntArray, "array_agg", &[Int4], Order::Total),
    (TextArray, "array_agg", &[Text], Order::Total),
];

/// Window functions: a result type, a call, its arguments. Any aggregate of free order too.
pub const WINDOWS: &[Template] = &[
    (Int8, "row_number()", &[]),
    (Int8, "rank()", &[]),
    (Int8, "dense_rank()", &[]),
    (Int4, "ntile(3)", &[]),
    (Float8, "percent_rank()", &[]),
    (Float8, "cume_dist()", &[]),
    (Int4, "lag({})", &[Int4]),
    (Int4, "lead({}, 2, -1)", &[Int4]),
    (Int4, "first_value({})", &[Int4]),
    (Int4, "nth_value({}, 2)", &[Int4]),
    (Text, "lag({}, 2)", &[Text]),
    (Text, "lead({})", &[Text]),
    (Text, "last_value({})", &[Text]),
    (Text, "nth_value({}, 3)", &[Text]),
    (Timestamp, "lag({})", &[Timestamp]),
    (Numeric, "first_value({})", &[Numeric]),
];

/// Ends of frames, most of them empty.
const EXCLUDE: [&str; 8] =
    ["", "", "", "", "", " EXCLUDE CURRENT ROW", " EXCLUDE GROUP", " EXCLUDE TIES"];

impl Generator {
    pub fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.random.random_range(0..limit)
    }

    pub fn pick<'a, V>(&mut self, list: &'a [V]) -> &'a V {
        list.choose(&mut self.random).expect("a list with something in it")
    }

    pub fn group(&mut self) -> u32 {
        self.next_group += 1;
        self.next_group
    }

    pub fn alias(&mut self) -> String {
        self.next_alias += 1;
        format!("a{}", self.next_alias)
    }

    /// Whether a line of the lists is in the grammar; and the line without its mark.
    fn allowed<'a>(&self, call: &'a str) -> Option<&'a str> {
        match call.strip_prefix('!') {
            Some(_) if self.grammar == Grammar::Postgres => None,
            Some(call) => Some(call),
            None => Some(call),
        }
    }

    /// A value as a column's constant, now and then NULL.
    pub fn value(&mut self, of: Type) -> String {
        if self.chance(0.15) {
            return "NULL".to_owned();
        }
        let values = of.values();
        // Skewed: the first few are the most frequent.
        let last = self.random.random_range(1..=values.len());
        values[self.below(last)].to_owned()
    }

    pub fn literal(&mut self, of: Type) -> String {
        match self.value(of) {
            value if value == "NULL" => format!("NULL::{}", of.sql()),
            value if matches!(of, Int4 | Bool) => value,
            value if of == Text => value,
            value => format!("({value}::{})", of.sql()),
        }
    }

    /// A column of the type, or one that becomes it, or a literal.
    fn leaf(&mut self, of: Type, scope: &Scope) -> Tree {
        let outer = !scope.outer.is_empty() && self.chance(0.04);
        let columns = if outer { &scope.outer } else { &scope.columns };
        let fitting: Vec<&Column> = columns.iter().filter(|c| c.of == of).collect();
        if !fitting.is_empty() && self.chance(0.88) {
            return text(self.pick(&fitting).name.clone());
        }
        text(self.literal(of))
    }

    /// An expression of a type; `depth` calls at most one in the other.
    pub fn expression(&mut self, of: Type, scope: &Scope, depth: u32) -> Tree {
        let tree = self.bare_expression(of, scope, depth);
        let literal = match of {
            Bool => "true".to_owned(),
            Int4 => "1".to_owned(),
            Text => "'a'".to_owned(),
            of => format!("NULL::{}", of.sql()),
        };
        let mut instead = vec![literal];
        instead.extend(scope.columns.iter().filter(|c| c.of == of).take(3).map(|c| c.name.clone()));
        Tree::Sorted { sort: of.sort(), tree: Box::new(tree), instead }
    }

    fn bare_expression(&mut self, of: Type, scope: &Scope, depth: u32) -> Tree {
        if let Some(seen) = &scope.aggregated
            && (depth == 0 || self.chance(0.6))
            && (self.chance(0.7) || !scope.columns.iter().any(|c| c.of == of))
            && let Some(call) = self.aggregate(of, &Scope::of(seen.clone()))
        {
            return call;
        }
        if depth == 0 || self.chance(0.25) {
            return self.leaf(of, scope);
        }
        if scope.subqueries > 0
            && self.chance(0.08)
            && let Some(query) = self.scalar_subquery(of, scope)
        {
            return query;
        }
        match self.below(10) {
            0 => self.conditional(of, scope, depth - 1),
            1 => {
                let values = vec![
                    self.expression(of, scope, depth - 1),
                    self.expression(of, scope, depth - 1),
                ];
                template("coalesce({}, {})", values)
            }
            2 if of.is_plain() => {
                let name = *self.pick(&["nullif", "greatest", "least"]);
                let values = vec![
                    self.expression(of, scope, depth - 1),
                    self.expression(of, scope, depth - 1),
                ];
                template(&format!("{name}({{}}, {{}})"), values)
            }
            _ if of == Bool => self.condition(scope, depth),
            _ => self.call(of, scope, depth),
        }
    }

    fn conditional(&mut self, of: Type, scope: &Scope, depth: u32) -> Tree {
        let when = self.expression(Bool, scope, depth);
        let then = self.expression(of, scope, depth);
        let other = self.expression(of, scope, depth);
        let other = optional(template(" ELSE {}", vec![other]));
        template("(CASE WHEN {} THEN {}{} END)", vec![when, then, other])
    }

    fn call(&mut self, of: Type, scope: &Scope, depth: u32) -> Tree {
        let fitting: Vec<&Template> =
            TEMPLATES.iter().filter(|t| t.0 == of && self.allowed(t.1).is_some()).collect();
        let (_, call, arguments) = **self.pick(&fitting);
        let call = call.trim_start_matches('!');
        let arguments = arguments.iter().map(|of| self.expression(*of, scope, depth - 1)).collect();
        template(call, arguments)
    }

    /// A type that the scope has a column of, mostly.
    pub fn type_in(&mut self, scope: &Scope) -> Type {
        if !scope.columns.is_empty() && self.chance(0.8) {
            return self.pick(&scope.columns).of;
        }
        *self.pick(TYPES)
    }

    pub fn plain_type_in(&mut self, scope: &Scope) -> Type {
        for _ in 0..5 {
            let of = self.type_in(scope);
            if of.is_plain() {
                return of;
            }
        }
        Int4
    }

    pub fn condition(&mut self, scope: &Scope, depth: u32) -> Tree {
        let inner = depth.saturating_sub(1);
        if scope.subqueries > 0 && self.chance(0.15) {
            return self.subquery_condition(scope);
        }
        match self.below(8) {
            0 if depth > 0 => {
                let sides =
                    vec![self.expression(Bool, scope, inner), self.expression(Bool, scope, inner)];
                let operator = *self.pick(&["AND", "OR"]);
                template(&format!("({{}} {operator} {{}})"), sides)
            }
            1 if depth > 0 => template("(NOT {})", vec![self.expression(Bool, scope, inner)]),
            2 => {
                let of = self.type_in(scope);
                let operand = self.expression(of, scope, inner);
                let operator = *self.pick(&["IS NULL", "IS NOT NULL"]);
                template(&format!("({{}} {operator})"), vec![operand])
            }
            3 => self.call(Bool, scope, depth.max(1)),
            _ => {
                let of = self.plain_type_in(scope);
                let sides =
                    vec![self.expression(of, scope, inner), self.expression(of, scope, inner)];
                let operators =
                    ["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"];
                let operator = *self.pick(&operators);
                template(&format!("({{}} {operator} {{}})"), sides)
            }
        }
    }

    /// An aggregate that gives this type, if there is one.
    pub fn aggregate(&mut self, of: Type, seen: &Scope) -> Option<Tree> {
        let fitting: Vec<_> =
            AGGREGATES.iter().filter(|a| a.0 == of && self.allowed(a.1).is_some()).collect();
        if fitting.is_empty() {
            return None;
        }
        if of == Int8 && self.chance(0.3) {
            let filter = self.filter(seen);
            return Some(seq(vec![text("count(*)"), filter]));
        }
        let (_, name, arguments, order) = **self.pick(&fitting);
        let name = name.trim_start_matches('!');
        let depth = u32::from(self.chance(0.3));
        let mut values: Vec<Tree> =
            arguments.iter().map(|of| self.expression(*of, seen, depth)).collect();
        let filter = self.filter(seen);
        let call = match order {
            Order::Own if name.contains('{') => template(name, values),
            Order::Own => template(&format!("{name}({{}})"), vec![list(values)]),
            Order::Free => {
                let distinct = if self.chance(0.2) { text("DISTINCT ") } else { text("") };
                template(&format!("{name}({{}}{{}})"), vec![optional(distinct), list(values)])
            }
            Order::Total => {
                let value = values.remove(0);
                let key = match arguments[0].is_plain() {
                    true => value.clone(),
                    false => template("{}::text", vec![value.clone()]),
                };
                let direction = *self.pick(&["", " DESC", " NULLS FIRST"]);
                let distinct = arguments[0].is_plain() && self.chance(0.2);
                let separator = if name == "string_agg" { ", '-'" } else { "" };
                if distinct && name != "first_value" && name != "last_value" {
                    let call = format!("{name}(DISTINCT {{}}{separator} ORDER BY {{}}{direction})");
                    template(&call, vec![value, key])
                } else {
                    let call = format!("{name}({{}}{separator} ORDER BY {{}}{{}})");
                    let more = seen.total_order().join(", ");
                    let more = if more.is_empty() { more } else { format!("{direction}, {more}") };
                    template(&call, vec![value, key, text(more)])
                }
            }
        };
        // `round(avg(x), 4) FILTER` would be a filter of `round`.
        let filtered = !name.starts_with("round");
        Some(if filtered { seq(vec![call, filter]) } else { call })
    }

    fn filter(&mut self, seen: &Scope) -> Tree {
        if !self.chance(0.15) {
            return text("");
        }
        let condition = self.expression(Bool, seen, 1);
        optional(template(" FILTER (WHERE {})", vec![condition]))
    }

    /// A window function's call with its window, and its type. `shared` is PARTITION BY and ORDER
    /// BY of all calls of a query whose rows may be equal: two orders that put equal rows
    /// differently would pair their values differently.
    pub fn window_call(&mut self, scope: &Scope, shared: Option<&Tree>) -> (Tree, Type) {
        if self.chance(0.45) {
            let fitting: Vec<_> = AGGREGATES
                .iter()
                .filter(|a| a.3 == Order::Free && self.allowed(a.1).is_some())
                .collect();
            let (of, name, arguments, _) = **self.pick(&fitting);
            let name = name.trim_start_matches('!');
            let values = arguments.iter().map(|of| self.expression(*of, scope, 1)).collect();
            let filter = self.filter(scope);
            let call = template(&format!("{name}({{}}){{}}"), vec![list(values), filter]);
            let window = match self.chance(0.2) {
                true => self.range_window(scope),
                false => self.framed_window(scope, shared),
            };
            return (template("{} OVER ({})", vec![call, window]), of);
        }
        let (of, call, arguments) = *self.pick(WINDOWS);
        let values = arguments.iter().map(|of| self.expression(*of, scope, 1)).collect();
        let framed = ["first", "last", "nth"].iter().any(|name| call.starts_with(name));
        let window = match framed {
            true => self.framed_window(scope, shared),
            false => self.window_order(scope, shared),
        };
        (template("{} OVER ({})", vec![template(call, values), window]), of)
    }

    /// PARTITION BY, and ORDER BY to the last column.
    pub fn window_order(&mut self, scope: &Scope, shared: Option<&Tree>) -> Tree {
        if let Some(shared) = shared {
            return shared.clone();
        }
        let mut parts = Vec::new();
        if self.chance(0.6) {
            let of = self.plain_type_in(scope);
            let key = self.expression(of, scope, 0);
            parts.push(optional(template("PARTITION BY {} ", vec![key])));
        }
        let direction = *self.pick(&["", " DESC", " NULLS FIRST"]);
        let of = self.plain_type_in(scope);
        let first = self.expression(of, scope, 0);
        let mut total = scope.total_order();
        total.insert(0, direction.to_owned());
        parts.push(template("ORDER BY {}{}", vec![first, text(total.join(", "))]));
        seq(parts)
    }

    fn framed_window(&mut self, scope: &Scope, shared: Option<&Tree>) -> Tree {
        const BOUNDS: [&str; 6] = [
            "UNBOUNDED PRECEDING AND CURRENT ROW",
            "2 PRECEDING AND 1 FOLLOWING",
            "CURRENT ROW AND UNBOUNDED FOLLOWING",
            "1 FOLLOWING AND 3 FOLLOWING",
            "3 PRECEDING AND 1 PRECEDING",
            "UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
        ];
        let order = self.window_order(scope, shared);
        if self.chance(0.4) {
            return order;
        }
        let unit = *self.pick(&["ROWS", "GROUPS"]);
        let bound = *self.pick(&BOUNDS);
        let exclude = *self.pick(&EXCLUDE);
        seq(vec![order, optional(text(format!(" {unit} BETWEEN {bound}{exclude}")))])
    }

    /// RANGE with offsets, over one ordered column; only for what does not look at the order of
    /// equal rows.
    fn range_window(&mut self, scope: &Scope) -> Tree {
        let mut parts = Vec::new();
        if self.chance(0.6) {
            let of = self.plain_type_in(scope);
            let key = self.expression(of, scope, 0);
            parts.push(optional(template("PARTITION BY {} ", vec![key])));
        }
        let ranged: Vec<&Column> = scope
            .columns
            .iter()
            .filter(|c| matches!(c.of, Int4 | Int8 | Timestamp | Date | Float8 | Numeric))
            .collect();
        if ranged.is_empty() {
            return seq(parts);
        }
        let column = (*self.pick(&ranged)).clone();
        let direction = *self.pick(&["", " DESC"]);
        let (low, high) = match column.of {
            Timestamp | Date => ("INTERVAL '2 hours'", "INTERVAL '1 day'"),
            Float8 | Numeric => ("1.5", "2"),
            _ => ("1", "2"),
        };
        let frame = match self.below(4) {
            0 => format!("{low} PRECEDING AND {high} FOLLOWING"),
            1 => format!("UNBOUNDED PRECEDING AND {low} PRECEDING"),
            2 => format!("CURRENT ROW AND {high} FOLLOWING"),
            _ => format!("{high} PRECEDING AND {low} PRECEDING"),
        };
        let (name, exclude) = (&column.name, *self.pick(&EXCLUDE));
        parts.push(text(format!("ORDER BY {name}{direction} RANGE BETWEEN {frame}{exclude}")));
        seq(parts)
    }

    /// A call of one of our functions that may fail on some rows.
    pub fn careless(&mut self, scope: &Scope) -> Tree {
        static OVERLOADS: LazyLock<Vec<Overload>> = LazyLock::new(callable);
        let overload = self.pick(&OVERLOADS);
        let (name, wanted) = (overload.name, overload.arguments.clone());
        let variadic = overload.variadic;
        let mut count = wanted.len();
        if variadic {
            count += self.below(2);
        }
        let mut arguments = Vec::new();
        for index in 0..count {
            let wanted = wanted.get(index).or(wanted.last()).expect("only variadic ones repeat");
            let of = self.type_of_argument(*wanted);
            let hint = argument_hint(name, index);
            arguments.push(match hint {
                Some(values) if self.chance(0.9) => text((*self.pick(values)).to_owned()),
                _ => self.expression(of, scope, 1),
            });
        }
        template(
            &format!("{name}({{}})"),
            vec![Tree::List {
                separator: ", ",
                least: arguments.len(),
                items: arguments,
                group: None,
            }],
        )
    }

    fn type_of_argument(&mut self, wanted: T) -> Type {
        match wanted {
            T::Bool => Bool,
            T::Int2 => Int2,
            T::Int4 => Int4,
            T::Int8 => Int8,
            T::Float4 | T::Float8 => Float8,
            T::Numeric => Numeric,
            T::Text => Text,
            T::Bytea => Bytea,
            T::Date => Date,
            T::Time => Time,
            T::Timestamp => Timestamp,
            T::Timestamptz => Timestamptz,
            T::Interval => Interval,
            T::Uuid => Uuid,
            T::Json | T::Jsonb => Jsonb,
            T::TextArray => TextArray,
            T::Any | T::AnyElement => *self.pick(&[Int4, Text, Bool, Date, Numeric]),
            T::AnyArray => IntArray,
        }
    }
}

/// Functions of our lists that may be called by name with a comma between arguments, give the
/// same for the same arguments, and are not spelled by syntax of their own.
fn callable() -> Vec<Overload> {
    let named =
        |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
    let lists =
        [math::all(), string::all(), calendar::all(), to_char::all(), json::all(), array::all()];
    lists
        .into_iter()
        .flatten()
        .filter(|o| !o.volatile && named(o.name) && !NOT_CALLED.contains(&o.name))
        // What rewriting calls, with the arguments that it makes.
        .filter(|o| !["_of_pairs", "_of_list"].iter().any(|end| o.name.ends_with(end)))
        .filter(|o| !matches!(o.result, R::Is(T::Json) | R::ArrayOf(_)))
        .filter(|o| !o.arguments.contains(&T::Json))
        .collect()
}

/// Names that syntax uses, or that give rows.
const NOT_CALLED: &[&str] = &["similar_to", "overlaps", "timezone", "extract", "factorial"];

/// Arguments that are words of their own little languages.
fn argument_hint(name: &str, index: usize) -> Option<&'static [&'static str]> {
    Some(match (name, index) {
        ("date_trunc" | "date_part", 0) => &["'day'", "'hour'", "'month'", "'nothing_like_it'"],
        ("date_trunc", 2) => &["'UTC'", "'Europe/Berlin'", "'Mars'"],
        ("make_timestamptz", 6) => &["'UTC'", "'Asia/Tokyo'"],
        ("encode" | "decode", 1) => &["'hex'", "'base64'", "'escape'"],
        ("regexp_match" | "regexp_replace" | "regexp_split_to_array" | "regexp_like", 1)
        | ("regexp_count" | "regexp_substr", 1) => &["'[ab]'", "'(a)(b)?'", "'('"],
        ("regexp_replace", 3) | ("regexp_match" | "regexp_like" | "regexp_split_to_array", 2) => {
            &["'g'", "'i'"]
        }
        ("to_char", 1) => &["'YYYY-MM-DD'", "'HH24:MI:SS'", "'999D9'", "'FM09'"],
        ("to_date" | "to_timestamp", 1) => &["'YYYY-MM-DD'", "'DD Mon YYYY'"],
        ("to_number", 1) => &["'999D9S'", "'99'"],
        ("array_length" | "array_upper" | "array_lower", 1) => &["1"],
        ("repeat" | "lpad" | "rpad", 1) => &["2", "5", "-1"],
        ("format", 0) => &["'%s and %s'", "'%I'", "'%L'"],
        ("array_fill", 1) => &["ARRAY[2]", "ARRAY[0]"],
        _ => return None,
    })
}
