//! Random queries of the whole grammar, over tables, views and each other.
//!
//! Every query names its columns `c0`, `c1`, ..., so that one can stand where another stood. Each
//! has one answer: LIMIT, DISTINCT ON and frames of rows come with an order that leaves only equal
//! rows untold. The number of rows is estimated, and no join is made that would give too many.

use super::expression::{Column, Generator, Grammar, Scope, TYPES, Type};
use super::tree::{Sort, Tree, grouped, list, optional, seq, sorted, template, text};

/// A table, a view or a CTE; its columns are `c0`, `c1`, ...
#[derive(Clone, Debug)]
pub struct Relation {
    pub name: String,
    pub types: Vec<Type>,
    /// An estimate.
    pub rows: usize,
}

/// A query and what it gives.
pub struct Made {
    pub tree: Tree,
    pub types: Vec<Type>,
    pub rows: usize,
}

/// Something in FROM.
struct From {
    tree: Tree,
    columns: Vec<Column>,
    rows: usize,
    /// No two rows are equal.
    distinct: bool,
}

/// More rows than this are made by no join on the way.
const ROWS_MAX: usize = 600;
const COLUMNS_MAX: usize = 4;

fn columns_of(alias: &str, types: &[Type]) -> Vec<Column> {
    let column =
        |(index, of): (usize, &Type)| Column { name: format!("{alias}.c{index}"), of: *of };
    types.iter().enumerate().map(column).collect()
}

impl Generator {
    /// A query; `depth` bounds how many are nested in it.
    pub fn query(&mut self, depth: u32, wanted: Option<&[Type]>, outer: &[Column]) -> Made {
        let group = self.group();
        let made = self.query_of_group(depth, wanted, outer, group);
        Made { tree: sorted(Sort::Query, made.tree), ..made }
    }

    fn query_of_group(
        &mut self,
        depth: u32,
        wanted: Option<&[Type]>,
        outer: &[Column],
        group: u32,
    ) -> Made {
        let form = self.below(20);
        let alone = outer.is_empty();
        match form {
            0..=2 if depth > 0 => self.set_operation(depth, wanted, outer, group),
            3 if depth > 0 && alone => self.with(depth, wanted, group),
            4 if alone && wanted.is_none() => self.recursive(),
            5..=6 if alone => self.top_n(depth, wanted),
            7 if alone => self.values(wanted, group),
            _ => self.select(depth, wanted, outer, group),
        }
    }

    /// UNION, INTERSECT, EXCEPT.
    fn set_operation(
        &mut self,
        depth: u32,
        wanted: Option<&[Type]>,
        outer: &[Column],
        group: u32,
    ) -> Made {
        let left = self.query_of_group(depth - 1, wanted, outer, group);
        let right = self.query_of_group(depth - 1, Some(&left.types), outer, group);
        let operators =
            ["UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"];
        let operator = *self.pick(&operators);
        let sides = vec![sorted(Sort::Query, left.tree), sorted(Sort::Query, right.tree)];
        let rows = if operator.starts_with("UNION") { left.rows + right.rows } else { left.rows };
        Made {
            tree: template(&format!("({{}}) {operator} ({{}})"), sides),
            types: left.types,
            rows,
        }
    }

    /// WITH, used once or twice.
    fn with(&mut self, depth: u32, wanted: Option<&[Type]>, group: u32) -> Made {
        let before = self.relations.len();
        let mut ctes = Vec::new();
        for _ in 0..1 + self.below(2) {
            let made = self.query(depth - 1, None, &[]);
            let name = self.alias();
            ctes.push(template(&format!("{name} AS ({{}})"), vec![made.tree]));
            // Twice: the body should use it.
            for _ in 0..3 {
                let (types, rows) = (made.types.clone(), made.rows);
                self.relations.push(Relation { name: name.clone(), types, rows });
            }
        }
        let body = self.query_of_group(depth - 1, wanted, &[], group);
        self.relations.truncate(before);
        let ctes = Tree::List { separator: ", ", items: ctes, least: 1, group: None };
        let head = optional(template("WITH {} ", vec![ctes]));
        Made { tree: seq(vec![head, text("SELECT * FROM ("), body.tree, text(") AS w")]), ..body }
    }

    /// A closure over two columns, or steps that are counted.
    fn recursive(&mut self) -> Made {
        let pairs: Vec<(Relation, usize, usize)> = self
            .relations
            .iter()
            .filter(|r| r.rows <= 60)
            .flat_map(|r| {
                let pairs =
                    (0..r.types.len()).flat_map(|a| (0..r.types.len()).map(move |b| (a, b)));
                let fits = |(a, b): &(usize, usize)| {
                    a != b && r.types[*a] == r.types[*b] && r.types[*a].is_plain()
                };
                pairs.filter(fits).map(|(a, b)| (r.clone(), a, b)).collect::<Vec<_>>()
            })
            .collect();
        if pairs.is_empty() {
            return self.select(0, None, &[], 0);
        }
        let (start, a, b) = self.pick(&pairs).clone();
        let of = start.types[a];
        let steps: Vec<_> = pairs.iter().filter(|(r, a, _)| r.types[*a] == of).collect();
        let (step, c, d) = (*self.pick(&steps)).clone();
        let filter = |generator: &mut Generator, alias: &str, types: &[Type], word: &str| {
            if !generator.chance(0.4) {
                return text("");
            }
            let scope = Scope::of(columns_of(alias, types));
            let condition = generator.expression(Type::Bool, &scope, 1);
            optional(template(&format!(" {word} {{}}"), vec![condition]))
        };
        let first = filter(self, "s", &start.types, "WHERE");
        let (from, to) = (&start.name, &step.name);
        let counted = self.chance(0.4);
        let union = if counted { "UNION ALL" } else { "UNION" };
        let (zero, next, bound) = match counted {
            true => (", 0", ", r.c2 + 1", " WHERE r.c2 < 3"),
            false => ("", "", ""),
        };
        let second = filter(self, "x", &step.types, "AND");
        let names = if counted { "c0, c1, c2" } else { "c0, c1" };
        let head = format!(
            "WITH RECURSIVE r({names}) AS (SELECT s.c{a}, s.c{b}{zero} FROM {from} AS s{{}} \
             {union} SELECT r.c0, x.c{d}{next} FROM r JOIN {to} AS x ON r.c1 = x.c{c}{{}}{bound}) "
        );
        // The body is small: a recursive CTE is a relation as any other.
        let mut types = vec![of, of];
        if counted {
            types.push(Type::Int4);
        }
        let columns = columns_of("r", &types);
        let (tail, types) = match self.below(3) {
            0 => {
                let scope = Scope::of(columns);
                let key = scope.columns[0].name.clone();
                let sum = self.aggregate(Type::Int8, &scope).expect("there is count");
                let tail = template(
                    &format!("SELECT {key} AS c0, {{}} AS c1 FROM r GROUP BY 1"),
                    vec![sum],
                );
                (tail, vec![of, Type::Int8])
            }
            1 => (text("SELECT DISTINCT r.c0 AS c0, r.c1 AS c1 FROM r"), vec![of, of]),
            _ => (text("SELECT * FROM r"), types),
        };
        Made { tree: seq(vec![template(&head, vec![first, second]), tail]), types, rows: 80 }
    }

    /// The first rows of a query.
    fn top_n(&mut self, depth: u32, wanted: Option<&[Type]>) -> Made {
        let made = self.query(depth.saturating_sub(1), wanted, &[]);
        let alias = self.alias();
        let columns = columns_of(&alias, &made.types);
        let mut keys: Vec<String> = columns.iter().map(|c| c.of.order_key(&c.name)).collect();
        let shift = self.below(keys.len());
        keys.rotate_left(shift);
        for key in &mut keys {
            let directions = ["", "", " DESC", " NULLS FIRST", " DESC NULLS LAST"];
            let direction: &str = self.pick::<&str>(&directions);
            key.push_str(direction);
        }
        let limit = self.below(6);
        let bound = match self.below(6) {
            0 => format!("OFFSET {}", 1 + self.below(3)),
            1 => format!("LIMIT {limit} OFFSET {}", self.below(4)),
            // Ties beyond the last row come too: fewer keys have one answer.
            2 => {
                keys.truncate(1);
                format!("FETCH FIRST {} ROWS WITH TIES", 1 + self.below(3))
            }
            _ => format!("LIMIT {limit}"),
        };
        let keys = keys.join(", ");
        let tail = format!(") AS {alias} ORDER BY {keys} {bound}");
        let rows = made.rows.min(12);
        let tree = seq(vec![text("SELECT * FROM ("), made.tree, text(tail)]);
        Made { tree, types: made.types, rows }
    }

    fn values(&mut self, wanted: Option<&[Type]>, group: u32) -> Made {
        let types = match wanted {
            Some(types) => types.to_vec(),
            None => (0..1 + self.below(3)).map(|_| *self.pick(TYPES)).collect(),
        };
        let rows = 1 + self.below(3);
        let row = |generator: &mut Generator| {
            // The type must be clear in the first row.
            let cells =
                types.iter().map(|of| text(format!("{}::{}", generator.value(*of), of.sql())));
            let cells = cells.collect::<Vec<_>>();
            template("({})", vec![grouped(cells, group)])
        };
        let rows_of = (0..rows).map(|_| row(self)).collect();
        let alias = self.alias();
        let name = |index: usize| text(format!("c{index}"));
        let names = grouped((0..types.len()).map(name).collect(), group);
        let tree = template(
            &format!("SELECT * FROM (VALUES {{}}) AS {alias}({{}})"),
            vec![list(rows_of), names],
        );
        Made { tree, types, rows }
    }

    /// SELECT in one of its shapes.
    fn select(
        &mut self,
        depth: u32,
        wanted: Option<&[Type]>,
        outer: &[Column],
        group: u32,
    ) -> Made {
        let from = self.from(depth, outer);
        let mut filter = Vec::new();
        if !outer.is_empty() && self.chance(0.8) {
            filter.extend(self.correlation(&from.columns, outer));
        }
        if self.chance(0.45) {
            let mut scope = Scope::of(from.columns.clone());
            scope.outer = outer.to_vec();
            scope.subqueries = depth.min(1);
            let level = 1 + u32::from(self.chance(0.4));
            filter.push(self.expression(Type::Bool, &scope, level));
        }
        let filter = match filter.is_empty() {
            true => text(""),
            false => optional(seq(vec![
                text(" WHERE "),
                Tree::List { separator: " AND ", items: filter, least: 1, group: None },
            ])),
        };
        match self.below(10) {
            0..=2 => self.grouped_select(from, filter, wanted, group),
            3..=4 => self.windowed_select(from, filter, wanted, group),
            5 if outer.is_empty() => self.distinct_on(from, filter, wanted, group),
            _ => self.plain_select(from, filter, wanted, outer, depth, group),
        }
    }

    /// Which types a SELECT gives.
    fn item_types(&mut self, wanted: Option<&[Type]>, scope: &Scope) -> Vec<Type> {
        match wanted {
            Some(types) => types.to_vec(),
            None => (0..1 + self.below(COLUMNS_MAX)).map(|_| self.type_in(scope)).collect(),
        }
    }

    fn plain_select(
        &mut self,
        from: From,
        filter: Tree,
        wanted: Option<&[Type]>,
        outer: &[Column],
        depth: u32,
        group: u32,
    ) -> Made {
        let mut scope = Scope::of(from.columns.clone());
        scope.outer = outer.to_vec();
        scope.subqueries = depth.min(1);
        let types = self.item_types(wanted, &scope);
        let level = if self.chance(0.4) { 2 } else { 0 };
        let mut items: Vec<Tree> =
            types.iter().map(|of| self.expression(*of, &scope, level)).collect();
        let array = scope.columns.iter().find(|c| c.of == Type::IntArray);
        let place = types.iter().position(|of| *of == Type::Int4);
        if let (Some(array), Some(place)) = (array, place)
            && self.chance(0.1)
        {
            items[place] = text(format!("unnest({})", array.name));
        }
        let distinct = match self.chance(0.15) {
            true => optional(text("DISTINCT ")),
            false => text(""),
        };
        let tree = seq(vec![
            text("SELECT "),
            distinct,
            named(items, group),
            text(" FROM "),
            from.tree,
            filter,
        ]);
        Made { tree, types, rows: from.rows }
    }

    fn grouped_select(
        &mut self,
        from: From,
        filter: Tree,
        wanted: Option<&[Type]>,
        group: u32,
    ) -> Made {
        let inner = Scope::of(from.columns.clone());
        let mut keys: Vec<(String, Type)> = Vec::new();
        for _ in 0..self.below(4) {
            let of = self.type_in(&inner);
            let fitting: Vec<&Column> = inner.columns.iter().filter(|c| c.of == of).collect();
            if fitting.is_empty() {
                continue;
            }
            let column = self.pick(&fitting).name.clone();
            let key = match (of, self.below(4)) {
                (Type::Int4 | Type::Int8, 0) => format!("({column} % 2)"),
                (Type::Text, 0) => format!("substr({column}, 1, 1)"),
                (Type::Timestamp, 0) => format!("date_trunc('day', {column})"),
                _ => column,
            };
            if !keys.iter().any(|(known, _)| *known == key) {
                keys.push((key, of));
            }
        }
        let plain = keys.iter().all(|(key, _)| !key.contains('('));
        let mut scope =
            Scope::of(keys.iter().map(|(key, of)| Column { name: key.clone(), of: *of }).collect());
        scope.aggregated = Some(inner.columns.clone());
        let names: Vec<&str> = keys.iter().map(|(key, _)| key.as_str()).collect();
        let mut with_sets = false;
        let by = match names.as_slice() {
            [] => text(""),
            [first, rest @ ..] if plain && self.chance(0.35) => {
                with_sets = true;
                let all = names.join(", ");
                text(match self.below(3) {
                    0 => format!(" GROUP BY ROLLUP ({all})"),
                    1 => format!(" GROUP BY CUBE ({all})"),
                    _ if rest.is_empty() => format!(" GROUP BY GROUPING SETS (({first}), ())"),
                    _ => {
                        let rest = rest.join(", ");
                        format!(" GROUP BY GROUPING SETS (({first}), ({rest}), ({all}), ())")
                    }
                })
            }
            _ => {
                let names = names.iter().map(|name| text(*name)).collect();
                optional(template(" GROUP BY {}", vec![list(names)]))
            }
        };
        let types = match wanted {
            Some(types) => types.to_vec(),
            None => {
                let mut types: Vec<Type> = keys.iter().map(|(_, of)| *of).collect();
                for _ in 0..1 + self.below(3) {
                    let aggregate = self.below(super::expression::AGGREGATES.len());
                    types.push(super::expression::AGGREGATES[aggregate].0);
                }
                types
            }
        };
        let mut items: Vec<Tree> = Vec::new();
        for (index, of) in types.iter().enumerate() {
            let is_key = wanted.is_none() && index < keys.len();
            items.push(if is_key {
                text(keys[index].0.clone())
            } else if with_sets && *of == Type::Int4 && self.chance(0.5) {
                text(format!("GROUPING({})", names.join(", ")))
            } else {
                let level = u32::from(self.chance(0.3));
                self.expression(*of, &scope, level)
            });
        }
        let having = match self.chance(0.2) {
            true => {
                let condition = self.expression(Type::Bool, &scope, 1);
                optional(template(" HAVING {}", vec![condition]))
            }
            false => text(""),
        };
        // A SELECT without keys, whose items happened to use no aggregate, would not be global.
        let count = if names.is_empty() { " HAVING count(*) >= 0" } else { "" };
        let having = if names.is_empty() { text(count) } else { having };
        let tree = seq(vec![
            text("SELECT "),
            named(items, group),
            text(" FROM "),
            from.tree,
            filter,
            by,
            having,
        ]);
        Made { tree, types, rows: from.rows }
    }

    fn windowed_select(
        &mut self,
        from: From,
        filter: Tree,
        wanted: Option<&[Type]>,
        group: u32,
    ) -> Made {
        // Different rows may be put in different orders by different windows.
        let (from, filter) = match self.chance(0.5) {
            true => (self.distinct_rows(from, filter), text("")),
            false => (from, filter),
        };
        let scope = Scope::of(from.columns.clone());
        let distinct = from.distinct;
        let shared = (!distinct).then(|| self.window_order(&scope, None));
        let shared = shared.as_ref();
        let mut types = Vec::new();
        let mut items = Vec::new();
        match wanted {
            Some(wanted) => {
                for of in wanted {
                    let mut item = None;
                    for _ in 0..4 {
                        let (call, given) = self.window_call(&scope, shared);
                        if given == *of {
                            item = Some(call);
                            break;
                        }
                    }
                    items.push(match item {
                        Some(item) => item,
                        None => self.expression(*of, &scope, 1),
                    });
                    types.push(*of);
                }
            }
            None => {
                for _ in 0..1 + self.below(2) {
                    let of = self.type_in(&scope);
                    items.push(self.expression(of, &scope, 0));
                    types.push(of);
                }
                for _ in 0..1 + self.below(3) {
                    let (call, of) = self.window_call(&scope, shared);
                    items.push(call);
                    types.push(of);
                }
            }
        }
        let qualify = match self.grammar == Grammar::Ours && self.chance(0.2) {
            true => {
                let window = self.window_order(&scope, shared);
                let limit = 1 + self.below(3);
                let qualify = format!(" QUALIFY row_number() OVER ({{}}) <= {limit}");
                optional(template(&qualify, vec![window]))
            }
            false => text(""),
        };
        let tree = seq(vec![
            text("SELECT "),
            named(items, group),
            text(" FROM "),
            from.tree,
            filter,
            qualify,
        ]);
        Made { tree, types, rows: from.rows }
    }

    /// The relation without repeated rows.
    fn distinct_rows(&mut self, from: From, filter: Tree) -> From {
        let alias = self.alias();
        let types: Vec<Type> = from.columns.iter().map(|c| c.of).collect();
        let item = |(index, column): (usize, &Column)| format!("{} AS c{index}", column.name);
        let items: Vec<String> = from.columns.iter().enumerate().map(item).collect();
        let head = format!("(SELECT DISTINCT {} FROM ", items.join(", "));
        let tree = seq(vec![text(head), from.tree, filter, text(format!(") AS {alias}"))]);
        From { tree, columns: columns_of(&alias, &types), rows: from.rows, distinct: true }
    }

    fn distinct_on(
        &mut self,
        from: From,
        filter: Tree,
        wanted: Option<&[Type]>,
        group: u32,
    ) -> Made {
        let scope = Scope::of(from.columns.clone());
        let types = self.item_types(wanted, &scope);
        let items = types.iter().map(|of| self.expression(*of, &scope, 1)).collect();
        let on = self.pick(&scope.columns).clone();
        let direction = *self.pick(&["", " DESC"]);
        let mut order = vec![format!("{}{direction}", on.name)];
        order.extend(scope.total_order());
        let tree = seq(vec![
            text(format!("SELECT DISTINCT ON ({}) ", on.name)),
            named(items, group),
            text(" FROM "),
            from.tree,
            filter,
            text(format!(" ORDER BY {}", order.join(", "))),
        ]);
        Made { tree, types, rows: from.rows }
    }

    /// What rows of an inner and an outer query have to do with each other.
    fn correlation(&mut self, inner: &[Column], outer: &[Column]) -> Option<Tree> {
        let mut pairs = Vec::new();
        for column in inner {
            for other in outer {
                if column.of == other.of && column.of.is_plain() {
                    pairs.push((column.name.clone(), other.name.clone()));
                }
            }
        }
        if pairs.is_empty() {
            return None;
        }
        let (inner, outer) = self.pick(&pairs).clone();
        let operator = if self.chance(0.85) { "=" } else { *self.pick(&["<", ">=", "<>"]) };
        Some(text(format!("{inner} {operator} {outer}")))
    }

    /// FROM: some relations, joined.
    fn from(&mut self, depth: u32, outer: &[Column]) -> From {
        let mut from = self.relation(depth, ROWS_MAX);
        let joins = *self.pick(&[0, 0, 0, 1, 1, 1, 2, 2, 3]);
        for _ in 0..joins {
            let budget = ROWS_MAX / from.rows.max(1);
            if budget < 2 {
                break;
            }
            from = self.join(from, depth, budget, outer.is_empty());
        }
        from.tree = sorted(Sort::Relation, from.tree);
        from
    }

    /// One relation of at most so many rows.
    fn relation(&mut self, depth: u32, rows_max: usize) -> From {
        if depth > 0 && self.chance(0.3) {
            let made = self.query(depth - 1, None, &[]);
            if made.rows <= rows_max {
                let alias = self.alias();
                let columns = columns_of(&alias, &made.types);
                let tree = template(&format!("({{}}) AS {alias}"), vec![made.tree]);
                return From {
                    tree: sorted(Sort::Relation, tree),
                    columns,
                    rows: made.rows,
                    distinct: false,
                };
            }
        }
        let alias = self.alias();
        if self.chance(0.04) {
            let columns = vec![Column { name: format!("{alias}.c0"), of: Type::Int4 }];
            let tree = text(format!("generate_series(1, 3) AS {alias}(c0)"));
            return From { tree, columns, rows: 3, distinct: false };
        }
        let fitting: Vec<Relation> =
            self.relations.iter().filter(|r| r.rows <= rows_max).cloned().collect();
        if fitting.is_empty() {
            let columns = vec![Column { name: format!("{alias}.c0"), of: Type::Int4 }];
            let tree = text(format!("(VALUES (1), (2)) AS {alias}(c0)"));
            return From { tree, columns, rows: 2, distinct: false };
        }
        let relation = self.pick(&fitting);
        let columns = columns_of(&alias, &relation.types);
        let tree = text(format!("{} AS {alias}", relation.name));
        From { tree: sorted(Sort::Relation, tree), columns, rows: relation.rows, distinct: false }
    }

    fn join(&mut self, left: From, depth: u32, rows_max: usize, alone: bool) -> From {
        match self.below(14) {
            0 if depth > 0 && alone => return self.lateral(left, depth),
            1 => {
                if let Some((item, more)) = self.unnested(&left.columns) {
                    let mut columns = left.columns;
                    columns.extend(more);
                    let tree = seq(vec![left.tree, text(item)]);
                    return From { tree, columns, rows: left.rows * 2, distinct: false };
                }
            }
            _ => {}
        }
        let right = self.relation(depth.saturating_sub(1), rows_max);
        let mut pairs = Vec::new();
        for a in &left.columns {
            for b in &right.columns {
                if a.of == b.of && a.of.is_plain() {
                    pairs.push((a.name.clone(), b.name.clone()));
                }
            }
        }
        let mut columns = left.columns.clone();
        columns.extend(right.columns.clone());
        let product = left.rows * right.rows;
        let both = |left: From, middle: String, right: From, tail: Tree| {
            seq(vec![left.tree, text(middle), right.tree, tail])
        };
        if pairs.is_empty() && self.chance(0.7) || self.chance(0.08) {
            let comma = *self.pick(&[" CROSS JOIN ", ", "]);
            // A join after a comma would bind tighter.
            let comma = if comma == ", " { " CROSS JOIN " } else { comma };
            let tree = both(left, comma.to_owned(), right, text(""));
            return From { tree, columns, rows: product, distinct: false };
        }
        let kind = *self.pick(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let scope = Scope::of(columns.clone());
        if pairs.is_empty() || self.chance(0.12) {
            let condition = self.expression(Type::Bool, &scope, 1);
            let tail = template(" ON {}", vec![condition]);
            let tree = both(left, format!(" {kind} "), right, tail);
            return From { tree, columns, rows: product, distinct: false };
        }
        // Both sides' own columns keep their names beside the joined one.
        let shared = pairs.iter().find(|(a, b)| {
            let name = |qualified: &str| qualified.split('.').nth(1).map(str::to_owned);
            name(a) == name(b)
        });
        let single = left
            .columns
            .iter()
            .all(|c| c.name.split('.').next() == left.columns[0].name.split('.').next());
        if let Some((a, _)) = shared
            && single
            && self.chance(0.25)
        {
            let name = a.split('.').nth(1).expect("qualified").to_owned();
            let rows = product / 2 + left.rows + right.rows;
            let tree = both(left, format!(" {kind} "), right, text(format!(" USING ({name})")));
            return From { tree, columns, rows, distinct: false };
        }
        let mut conditions = Vec::new();
        for _ in 0..1 + usize::from(self.chance(0.25)) {
            let (a, b) = self.pick(&pairs).clone();
            let operator = if self.chance(0.05) { "IS NOT DISTINCT FROM" } else { "=" };
            conditions.push(text(format!("{a} {operator} {b}")));
        }
        if self.chance(0.3) {
            conditions.push(self.expression(Type::Bool, &scope, 1));
        }
        let on = Tree::List { separator: " AND ", items: conditions, least: 1, group: None };
        let rows = product / 2 + left.rows + right.rows;
        let tree = both(left, format!(" {kind} "), right, template(" ON {}", vec![on]));
        From { tree, columns, rows, distinct: false }
    }

    /// A join with the elements of an array of the rows beside it, and its columns.
    fn unnested(&mut self, columns: &[Column]) -> Option<(String, Vec<Column>)> {
        let array = columns.iter().find(|c| c.of == Type::IntArray);
        let numbers: Vec<&Column> = columns.iter().filter(|c| c.of == Type::Int4).collect();
        let alias = self.alias();
        let column = |name: &str, of| Column { name: format!("{alias}.{name}"), of };
        let element = vec![column("c0", Type::Int4)];
        Some(match (array, self.below(3)) {
            (Some(array), 0) => {
                (format!(" CROSS JOIN unnest({}) AS {alias}(c0)", array.name), element)
            }
            (Some(array), 1) => {
                let item = format!(
                    " CROSS JOIN unnest({}) WITH ORDINALITY AS {alias}(c0, c1)",
                    array.name
                );
                (item, vec![column("c0", Type::Int4), column("c1", Type::Int8)])
            }
            _ if !numbers.is_empty() => {
                let (a, b) = (&self.pick(&numbers).name, &self.pick(&numbers).name);
                (format!(" CROSS JOIN unnest(ARRAY[{a}, {b}]) AS {alias}(c0)"), element)
            }
            _ => return None,
        })
    }

    /// A condition on rows of `inner` that looks at `outer` from a query inside of theirs.
    fn further(&mut self, inner: &[Column], outer: &[Column]) -> Option<Tree> {
        let from = self.relation(0, ROWS_MAX);
        let mut conditions = vec![self.correlation(&from.columns, outer)?];
        if self.chance(0.5) {
            conditions.extend(self.correlation(&from.columns, inner));
        }
        let filter = Tree::List { separator: " AND ", items: conditions, least: 1, group: None };
        let form = *self.pick(&[
            "EXISTS (SELECT 1 FROM {} WHERE {})",
            "(NOT EXISTS (SELECT 1 FROM {} WHERE {}))",
            "(SELECT count(*) FROM {} WHERE {}) > 1",
        ]);
        Some(template(form, vec![from.tree, filter]))
    }

    fn lateral(&mut self, left: From, depth: u32) -> From {
        let group = self.group();
        let made = self.select(depth - 1, None, &left.columns, group);
        let alias = self.alias();
        let kinds = [(" CROSS JOIN LATERAL (", ")"), (" LEFT JOIN LATERAL (", ") ON true")];
        let (head, on) = *self.pick(&kinds);
        let tail = match on {
            ")" => format!(") AS {alias}"),
            _ => format!(") AS {alias} ON true"),
        };
        let mut columns = left.columns;
        columns.extend(columns_of(&alias, &made.types));
        let rows = left.rows * made.rows / 2;
        let tree = seq(vec![left.tree, text(head), made.tree, text(tail)]);
        From { tree, columns, rows, distinct: false }
    }

    /// A subquery that gives one value.
    pub fn scalar_subquery(&mut self, of: Type, scope: &Scope) -> Option<Tree> {
        let from = self.relation(0, ROWS_MAX);
        let inner = Scope::of(from.columns.clone());
        let correlated = self.chance(0.6);
        let filter = match correlated {
            true if self.chance(0.15) => self.further(&from.columns, &scope.columns),
            true => self.correlation(&from.columns, &scope.columns),
            false => None,
        };
        let items = match of {
            Type::IntArray => Some(Type::Int4),
            Type::TextArray => Some(Type::Text),
            _ => None,
        };
        if let Some(item) = items.filter(|_| self.chance(0.6)) {
            let value = self.expression(item, &inner, 0);
            let filter = filter.map(|condition| optional(template(" WHERE {}", vec![condition])));
            let order = inner.total_order().join(", ");
            let tail = text(format!(" ORDER BY {order}"));
            let parts = vec![value, from.tree, filter.unwrap_or_else(|| text("")), tail];
            return Some(template("ARRAY(SELECT {} FROM {}{}{})", parts));
        }
        let filter = match filter {
            Some(condition) => optional(template(" WHERE {}", vec![condition])),
            None => text(""),
        };
        match self.aggregate(of, &inner) {
            Some(value) if self.chance(0.85) => {
                Some(template("(SELECT {} FROM {}{})", vec![value, from.tree, filter]))
            }
            _ => {
                let value = self.expression(of, &inner, 0);
                let order = inner.total_order().join(", ");
                let tail = text(format!(" ORDER BY {order} LIMIT 1"));
                Some(template("(SELECT {} FROM {}{}{})", vec![value, from.tree, filter, tail]))
            }
        }
    }

    /// EXISTS, IN and their kin.
    pub fn subquery_condition(&mut self, scope: &Scope) -> Tree {
        let outer = &scope.columns;
        if self.chance(0.45) {
            let from = self.relation(0, ROWS_MAX);
            let inner = Scope::of(from.columns.clone());
            let mut conditions: Vec<Tree> =
                self.correlation(&from.columns, outer).into_iter().collect();
            if self.chance(0.4) {
                conditions.push(self.expression(Type::Bool, &inner, 1));
            }
            if self.chance(0.15) {
                conditions.extend(self.further(&from.columns, outer));
            }
            let filter = match conditions.is_empty() {
                true => text(""),
                false => optional(seq(vec![
                    text(" WHERE "),
                    Tree::List { separator: " AND ", items: conditions, least: 1, group: None },
                ])),
            };
            let not = if self.chance(0.4) { "NOT " } else { "" };
            return template(
                &format!("({not}EXISTS (SELECT 1 FROM {{}}{{}}))"),
                vec![from.tree, filter],
            );
        }
        let of = self.plain_type_in(scope);
        let operand = self.expression(of, scope, 0);
        let correlated = self.chance(0.2);
        let inner = match correlated {
            true => {
                let group = self.group();
                self.select(0, Some(&[of]), outer, group)
            }
            false => self.query(0, Some(&[of]), &[]),
        };
        let operators = ["IN", "IN", "NOT IN", "= ANY", "> ALL", "<= ANY"];
        let operator = *self.pick(&operators);
        template(&format!("({{}} {operator} ({{}}))"), vec![operand, inner.tree])
    }
}

/// `a AS c0, b AS c1`.
fn named(items: Vec<Tree>, group: u32) -> Tree {
    let name = |(index, item): (usize, Tree)| seq(vec![item, text(format!(" AS c{index}"))]);
    grouped(items.into_iter().enumerate().map(name).collect(), group)
}
