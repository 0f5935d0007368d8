//! Functions that give rows, in FROM and in a select list: where DataFusion has none of the kind
//! they are arrays that are unnested.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, Select, SelectItem,
    TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Visit, VisitMut, Visitor,
    VisitorMut,
};

use crate::sql::dml::build::query_of;
use crate::sql::functions::FUNCTIONS;
use crate::sql::parse::name::normalize as fold;
use crate::sql::rewrite::functions::unnamed;
use crate::sql::rewrite::numbers::as_integer;
use crate::sql::rewrite::{call, cast, integer, null};

/// Functions that give rows, and those that give the same as an array.
const SETS: [(&str, &str); 11] = [
    ("regexp_matches", "regexp_matches"),
    ("jsonb_path_query", "jsonb_path_query"),
    ("jsonb_path_query_tz", "jsonb_path_query_tz"),
    ("json_array_elements", "json_array_elements"),
    ("jsonb_array_elements", "jsonb_array_elements"),
    ("json_array_elements_text", "json_array_elements_text"),
    ("jsonb_array_elements_text", "jsonb_array_elements_text"),
    ("json_object_keys", "json_object_keys"),
    ("jsonb_object_keys", "jsonb_object_keys"),
    ("regexp_split_to_table", "regexp_split_to_array"),
    ("string_to_table", "string_to_array"),
];

/// Functions that give rows of a key and a value, and what gives the keys and the values.
const EACH: [(&str, &str, &str); 4] = [
    ("json_each", "json_object_keys", "json_each_values"),
    ("jsonb_each", "jsonb_object_keys", "jsonb_each_values"),
    ("json_each_text", "json_object_keys", "json_each_texts"),
    ("jsonb_each_text", "jsonb_object_keys", "jsonb_each_texts"),
];

/// Whether a function gives rows.
pub(super) fn gives_rows(name: &str) -> bool {
    matches!(name, "unnest" | "generate_series") || SETS.iter().any(|(set, _)| *set == name)
}

/// A function in FROM that gives rows is an UNNEST of arrays.
pub(super) fn unnest_function(factor: &mut TableFactor) {
    let (name, args, alias) = match factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
        TableFactor::Function { name, args, alias, .. } => (name, &*args, alias),
        _ => return,
    };
    let Some(name) = name.0.last().and_then(|part| part.as_ident()).map(fold) else { return };
    let args: Vec<Expr> = args.iter().cloned().filter_map(unnamed).collect();
    let (arrays, columns) = if let Some((_, list)) = SETS.iter().find(|(set, _)| *set == name) {
        // `jsonb_array_elements(...)` calls its column `value`; others have the alias as a name.
        let column = match alias {
            _ if name.contains("elements") => "value".to_owned(),
            Some(alias) => fold(&alias.name),
            None => name.clone(),
        };
        (vec![call(list, args)], vec![column])
    } else if let Some((_, keys, values)) = EACH.iter().find(|(set, _, _)| *set == name) {
        let arrays = vec![call(keys, args.clone()), call(values, args)];
        (arrays, vec!["key".to_owned(), "value".to_owned()])
    } else {
        return;
    };
    let mut alias = alias.take().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: Ident::with_quote('"', name),
        columns: vec![],
        at: None,
    });
    for column in columns.into_iter().skip(alias.columns.len()) {
        let name = Ident::with_quote('"', column);
        alias.columns.push(TableAliasColumnDef { name, data_type: None });
    }
    *factor = TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs: arrays,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    };
}

/// The query with `e.value` in the place of `e` where that is what `jsonb_array_elements(...) AS e`
/// is called: of a function that gives plain values the row is the value. `None` without such a
/// name. A column of that name would have been found before.
pub fn with_function_rows(query: &Query) -> Option<Query> {
    #[derive(Default)]
    struct Replacer {
        names: Vec<String>,
        replaced: bool,
    }
    impl VisitorMut for Replacer {
        type Break = ();

        fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr @ Expr::Identifier(_)) = item {
                    let expr = std::mem::replace(expr, null());
                    let Expr::Identifier(name) = &expr else { continue };
                    let alias = name.clone();
                    *item = match self.names.contains(&fold(name)) {
                        true => SelectItem::ExprWithAlias { expr, alias },
                        false => SelectItem::UnnamedExpr(expr),
                    };
                }
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Identifier(name) = expr
                && self.names.contains(&fold(name))
            {
                let column = Ident::with_quote('"', "value");
                *expr = Expr::CompoundIdentifier(vec![name.clone(), column]);
                self.replaced = true;
            }
            ControlFlow::Continue(())
        }
    }
    let mut replacer = Replacer { names: element_aliases(query), replaced: false };
    if replacer.names.is_empty() {
        return None;
    }
    let mut query = query.clone();
    let _ = VisitMut::visit(&mut query, &mut replacer);
    replacer.replaced.then_some(query)
}

/// What functions that call their column `value` are called in a query.
fn element_aliases(query: &Query) -> Vec<String> {
    struct Finder(Vec<String>);
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            let (name, alias) = match factor {
                TableFactor::Table { name, args: Some(_), alias: Some(alias), .. }
                | TableFactor::Function { name, alias: Some(alias), .. } => (name, alias),
                _ => return ControlFlow::Continue(()),
            };
            let name = name.0.last().and_then(|part| part.as_ident()).map(fold);
            if alias.columns.is_empty()
                && name.is_some_and(|name| {
                    name.contains("elements") && SETS.iter().any(|(set, _)| *set == name)
                })
            {
                self.0.push(fold(&alias.name));
            }
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder(vec![]);
    let _ = query.visit(&mut finder);
    finder.0
}

/// `SELECT generate_series(1, 3)` gives three rows, where DataFusion gives one with an array.
pub(super) fn spread_series(expr: &mut Expr) {
    let Expr::Function(function) = expr else { return };
    let name = function.name.0.last().and_then(|part| part.as_ident()).map(fold);
    let Some(name) = name else { return };
    if let Some((_, list)) = SETS.iter().find(|(set, _)| *set == name) {
        function.name = ObjectName::from(vec![Ident::new(*list)]);
        let list = std::mem::replace(expr, null());
        *expr = call("unnest", vec![list]);
    } else if name == "generate_series" {
        let series = std::mem::replace(expr, null());
        *expr = call("unnest", vec![series]);
    }
}

/// A series of more numbers in FROM that are constant is a table function, which needs no memory
/// (and for a view what `sql::series` makes of it); others are arrays.
const SERIES_ELEMENTS_MAX: i64 = 65_536;

/// LATERAL functions and series are unnested arrays.
pub(super) fn unnest_series(factor: &mut TableFactor) {
    let (name, args, alias, with_ordinality) = match factor {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } => {
            (name, &args.args, alias, *with_ordinality)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => {
            (name, &*args, alias, *with_ordinality)
        }
        _ => return,
    };
    let name = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
    let plain: Option<Vec<Expr>> = args
        .iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect();
    let Some(plain) = plain else { return };
    let array_exprs = match name.as_str() {
        "unnest" => plain,
        "generate_series" => {
            let long = constant_series(&plain).is_some_and(|count| count > SERIES_ELEMENTS_MAX);
            if long && !with_ordinality {
                long_series(factor);
                return;
            }
            vec![call("generate_series", plain)]
        }
        _ => return,
    };
    let alias = alias.take().or_else(|| {
        let name = Ident::with_quote('"', name);
        Some(TableAlias { explicit: true, name, columns: vec![], at: None })
    });
    *factor = TableFactor::UNNEST {
        alias,
        array_exprs,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality,
    };
}

/// What the table function is called inside of what [`long_series`] makes of it.
const LONG_SERIES: &str = "long series";

/// The table function gives bigints; of integers it is a series of integers.
fn long_series(factor: &mut TableFactor) {
    let TableFactor::Table { args: Some(args), alias, .. } = &mut *factor else { return };
    let integers = args.args.iter().all(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
            as_integer(expr).is_some_and(|digits| digits.replace('_', "").parse::<i32>().is_ok())
        }
        _ => false,
    });
    if !integers || alias.as_ref().is_some_and(|alias| alias.name.value == LONG_SERIES) {
        return;
    }
    let mut outer = alias.take().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: Ident::new("generate_series"),
        columns: vec![],
        at: None,
    });
    if outer.columns.is_empty() {
        outer.columns.push(TableAliasColumnDef { name: outer.name.clone(), data_type: None });
    }
    let column = Ident::with_quote('"', "value");
    *alias = Some(TableAlias {
        explicit: true,
        name: Ident::with_quote('"', LONG_SERIES),
        columns: vec![TableAliasColumnDef { name: column.clone(), data_type: None }],
        at: None,
    });
    let bigints = TableWithJoins { relation: factor.clone(), joins: vec![] };
    let integer = cast(Expr::Identifier(column), DataType::Int(None));
    let subquery = Box::new(query_of(vec![integer], vec![bigints], None));
    *factor = TableFactor::Derived { lateral: false, subquery, alias: Some(outer), sample: None };
}

/// Arrays of constants need no row beside them: a query of their own, which can be joined in any
/// way and stand in any subquery, where DataFusion takes an UNNEST for LATERAL.
pub(super) fn unnest_constants(factor: &mut TableFactor) {
    let TableFactor::UNNEST { alias, array_exprs, .. } = factor else { return };
    let [array] = array_exprs.as_slice() else { return };
    if !is_constant(array) {
        return;
    }
    let mut alias = alias.take().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: Ident::with_quote('"', "unnest"),
        columns: vec![],
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
    let items = call("unnest", vec![array.clone()]);
    let subquery = Box::new(query_of(vec![items], vec![], None));
    *factor = TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None };
}

/// Whether an expression reads no column.
pub(super) fn is_constant(expr: &Expr) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_)
                | Expr::CompoundIdentifier(_)
                | Expr::CompoundFieldAccess { .. } => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Finder).is_continue()
}

/// How many elements a series of integer literals has; `None`: its arguments are something else
/// than literals, or columns.
fn constant_series(args: &[Expr]) -> Option<i64> {
    let literals: Option<Vec<i64>> =
        args.iter().map(|arg| as_integer(arg)?.to_string().parse().ok()).collect();
    match literals?.as_slice() {
        [first, last] => Some(last.saturating_sub(*first).saturating_add(1)),
        [first, last, step] if *step != 0 => Some(last.saturating_sub(*first) / step + 1),
        _ => None,
    }
}

/// WITH ORDINALITY is a further array, of the numbers of the longest one's elements.
pub(super) fn number_elements(factor: &mut TableFactor) {
    let TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } = factor else { return };
    if !std::mem::take(with_ordinality) || array_exprs.is_empty() {
        return;
    }
    let columns = array_exprs.len();
    let lengths: Vec<Expr> =
        array_exprs.iter().map(|array| call("cardinality", vec![array.clone()])).collect();
    let longest = match <[Expr; 1]>::try_from(lengths) {
        Ok([length]) => length,
        Err(lengths) => call("greatest", lengths),
    };
    let longest = cast(longest, DataType::BigInt(None));
    let first = cast(integer(1), DataType::BigInt(None));
    array_exprs.push(call("generate_series", vec![first, longest]));
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::with_quote('"', "unnest"),
        columns: vec![],
        at: None,
    });
    let column = |name: Ident| TableAliasColumnDef { name, data_type: None };
    if alias.columns.is_empty() && columns == 1 {
        alias.columns.push(column(alias.name.clone()));
    }
    if alias.columns.len() == columns {
        alias.columns.push(column(Ident::with_quote('"', "ordinality")));
    }
}

/// A function in FROM that gives one value is a table of one row.
pub(super) fn select_function(factor: &mut TableFactor) {
    let TableFactor::Table { name, alias, args: Some(args), with_ordinality: false, .. } = factor
    else {
        return;
    };
    if let [first, _] = name.0.as_slice()
        && first.as_ident().is_some_and(|ident| fold(ident) == "pg_catalog")
    {
        name.0.remove(0);
    }
    let [part] = name.0.as_slice() else { return };
    let Some(function) = part.as_ident().map(fold) else { return };
    let scalar =
        FUNCTIONS.scalar.contains_key(&function) && !FUNCTIONS.table.contains_key(&function);
    if !scalar {
        return;
    }
    let arguments: Option<Vec<Expr>> = args
        .args
        .iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect();
    let Some(arguments) = arguments else { return };
    let mut alias = alias.take().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: Ident::with_quote('"', function.clone()),
        columns: vec![],
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
    let subquery = Box::new(query_of(vec![call(&function, arguments)], vec![], None));
    *factor = TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None };
}

/// In Postgres the one column of a function in FROM is called as the function, or as its alias.
pub(super) fn name_function_column(factor: &mut TableFactor) {
    let (alias, name) = match factor {
        TableFactor::Table { name, alias, args: Some(_), .. } => {
            let name = name.0.last().and_then(|part| part.as_ident()).map(fold);
            (alias, name.filter(|name| name == "generate_series"))
        }
        TableFactor::UNNEST { alias, array_exprs, .. } if array_exprs.len() == 1 => {
            (alias, Some("unnest".to_owned()))
        }
        _ => return,
    };
    let Some(name) = name else { return };
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::with_quote('"', name),
        columns: vec![],
        at: None,
    });
    if alias.columns.is_empty() {
        let name = alias.name.clone();
        alias.columns.push(TableAliasColumnDef { name, data_type: None });
    }
}
