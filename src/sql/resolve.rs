//! Names to catalog objects, and what DataFusion's SQL planner asks for while it plans.
//!
//! A relation's name is looked for as in Postgres: with a schema there, without one in
//! `pg_catalog` and then along the search path. A view is planned where it is named, with the
//! database and search path of its creation; it stands in the plan as its query.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::common::{
    Constraint, Constraints, DFSchema, DataFusionError, ScalarValue, TableReference,
};
use datafusion::config::ConfigOptions;
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, RelationPlanner, TypePlanner,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use crate::catalog::object::{Object, ObjectKind, ObjectName};
use crate::catalog::pg_catalog::primary_key_name;
use crate::catalog::snapshot::Catalog;
use crate::catalog::system_views::{self, SystemRelation};
use crate::functions::scalar::session::constant_function;
use crate::functions::scalar::unknown::unknown_function;
use crate::sql::bind::PlanContext;
use crate::sql::functions::{FUNCTIONS, OPTIONS, PostgresTypes, SESSION};
use crate::sql::match_recognize::plan::MatchRecognizePlanner;
use crate::sql::series::SeriesSource;
use crate::sql::system_functions;
use crate::sql::system_time::split_version;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

/// A view that names a view, and so on; more is a mistake, and would exhaust the stack.
const VIEW_DEPTH_MAX: usize = 64;
/// Planning a view takes a new stack of so many bytes when less than the other are left.
const VIEW_STACK_BYTES: usize = 8 << 20;
const VIEW_STACK_BYTES_MIN: usize = 1 << 20;

/// Finds the object that a name's parts (folded) mean.
///
/// # Errors
/// SQLSTATE 42P01, with a hint when a similar name exists.
pub fn resolve(context: &PlanContext, parts: &[String]) -> Result<Arc<Object>> {
    let found = match parts {
        [name] => search_schemas(context)
            .iter()
            .find_map(|schema| lookup(context, &context.database, schema, name)),
        [schema, name] => lookup(context, &context.database, schema, name),
        [database, schema, name] => {
            if *database != context.database {
                return Err(cross_database(&parts.join(".")));
            }
            lookup(context, database, schema, name)
        }
        _ => {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                format!("improper qualified name (too many dotted names): {}", parts.join(".")),
            ));
        }
    };
    found.ok_or_else(|| {
        let error = Error::user(
            SqlState::UNDEFINED_TABLE,
            format!("relation \"{}\" does not exist", parts.join(".")),
        );
        match parts.last().and_then(|name| similar_relation(context, name)) {
            Some(name) => error.hint(format!("Perhaps you meant \"{name}\".")),
            None => error,
        }
    })
}

/// The error of a name in another database than the session's.
pub fn cross_database(name: &str) -> Error {
    Error::user(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("cross-database references are not implemented: \"{name}\""),
    )
    .hint("Connect to that database.")
}

/// The system relation that a name means: `pg_catalog` is searched first, the others when the
/// name or the search path says so.
fn resolve_system(context: &PlanContext, parts: &[String]) -> Option<&'static SystemRelation> {
    match parts {
        [name] => system_views::find("pg_catalog", name).or_else(|| {
            search_schemas(context)
                .iter()
                .take_while(|schema| lookup(context, &context.database, schema, name).is_none())
                .find_map(|schema| system_views::find(schema, name))
        }),
        [schema, name] => system_views::find(schema, name),
        [database, schema, name] if *database == context.database => {
            system_views::find(schema, name)
        }
        _ => None,
    }
}

/// The schemas of the search path, `$user` replaced.
pub fn search_schemas(context: &PlanContext) -> Vec<String> {
    context
        .search_path
        .iter()
        .map(|schema| if schema == "$user" { context.user.clone() } else { schema.clone() })
        .collect()
}

fn lookup(context: &PlanContext, database: &str, schema: &str, name: &str) -> Option<Arc<Object>> {
    let name = ObjectName {
        database: database.to_owned(),
        schema: schema.to_owned(),
        name: name.to_owned(),
    };
    context.catalog.lookup(&name).cloned()
}

/// The visible relation whose name is nearest, when it is near enough to be meant.
fn similar_relation(context: &PlanContext, name: &str) -> Option<String> {
    let schemas = search_schemas(context);
    let names = context
        .catalog
        .objects()
        .filter(|o| o.name.database == context.database && schemas.contains(&o.name.schema))
        .map(|o| o.name.name.as_str());
    nearest(name, names)
}

/// The candidate with the fewest edits, if those are few for the name's length.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let edits_max = 1 + name.chars().count() / 5;
    candidates
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Insertions, deletions and replacements that turn one text into the other.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // Distances from the part of `a` read so far to every prefix of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Columns that rows of a relation are looked up by.
#[derive(Debug)]
pub struct NamedIndex {
    pub name: String,
    pub columns: Vec<usize>,
    pub column_names: Vec<String>,
}

impl NamedIndex {
    fn new(name: String, object: &Object, columns: &[usize]) -> Arc<NamedIndex> {
        let column_names =
            columns.iter().map(|column| object.schema.field(*column).name().clone()).collect();
        Arc::new(NamedIndex { name, columns: columns.to_vec(), column_names })
    }

    /// That of the primary key first.
    fn all(catalog: Option<&Catalog>, object: &Object) -> Vec<Arc<NamedIndex>> {
        let mut all = Vec::new();
        if let ObjectKind::Table(table) = &object.kind
            && !table.primary_key.is_empty()
        {
            all.push(NamedIndex::new(primary_key_name(object), object, &table.primary_key));
        }
        for index in catalog.iter().flat_map(|catalog| catalog.indexes_of(object.id)) {
            all.push(NamedIndex::new(index.name.clone(), object, &index.columns));
        }
        all
    }
}

/// A relation of the catalog in a logical plan. Views are gone from a plan once it is built.
pub struct CatalogSource {
    pub object: Arc<Object>,
    pub indexes: Vec<Arc<NamedIndex>>,
    /// Rows that it had, if that is known.
    pub rows: Option<u64>,
    /// The time as of which it is read, as SQL text; `None`: now.
    pub version: Option<Arc<str>>,
    constraints: Constraints,
    /// A view's query.
    plan: Option<LogicalPlan>,
    /// Objects that the statement names itself, for its dependencies.
    named: Arc<Mutex<BTreeSet<ObjectId>>>,
}

impl CatalogSource {
    fn with_rows(self, rows: Option<u64>) -> CatalogSource {
        CatalogSource { rows, ..self }
    }

    /// A source for a plan that is made by hand, of a table's rows.
    pub fn of_rows(object: Arc<Object>) -> CatalogSource {
        CatalogSource::new(object, None, Arc::default(), None)
    }

    fn new(
        object: Arc<Object>,
        plan: Option<LogicalPlan>,
        named: Arc<Mutex<BTreeSet<ObjectId>>>,
        catalog: Option<&Catalog>,
    ) -> CatalogSource {
        let constraints = match &object.kind {
            ObjectKind::Table(table) if !table.primary_key.is_empty() => {
                vec![Constraint::PrimaryKey(table.primary_key.clone())]
            }
            _ => vec![],
        };
        let constraints = Constraints::new_unverified(constraints);
        let indexes = NamedIndex::all(catalog, &object);
        CatalogSource { object, indexes, rows: None, version: None, constraints, plan, named }
    }
}

impl TableSource for CatalogSource {
    fn schema(&self) -> SchemaRef {
        self.object.schema.clone()
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        // The planner looks every name up, also one that a WITH query hides, but asks for the
        // plan of those only that it uses.
        self.named.lock().expect("no panic under this lock").insert(self.object.id);
        self.plan.as_ref().map(Cow::Borrowed)
    }
}

/// A relation that the server provides (`pg_catalog` and the like) in a logical plan.
pub struct SystemSource {
    pub relation: &'static SystemRelation,
}

impl TableSource for SystemSource {
    fn schema(&self) -> SchemaRef {
        self.relation.schema.clone()
    }
}

/// What DataFusion's SQL planner may ask while it plans one statement.
pub struct Resolver<'a> {
    context: &'a PlanContext,
    /// How many views we are inside of.
    depth: usize,
    /// The time as of which the views that we are inside of are read.
    version: Option<Arc<str>>,
    /// Relations beside the catalog's; they hide those of the same name.
    extra: &'a [Arc<Object>],
    named: Arc<Mutex<BTreeSet<ObjectId>>>,
    /// Tables in FROM that are ours.
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
}

impl<'a> Resolver<'a> {
    pub fn new(context: &'a PlanContext, depth: usize, extra: &'a [Arc<Object>]) -> Resolver<'a> {
        let relation_planners: Vec<Arc<dyn RelationPlanner>> =
            vec![Arc::new(MatchRecognizePlanner {
                sql: context.sql.clone(),
                of_statement: depth == 0,
            })];
        let named = Arc::default();
        Resolver { context, depth, version: None, extra, named, relation_planners }
    }

    /// The same within a view that is read as of a time.
    #[must_use]
    pub fn as_of(self, version: Option<Arc<str>>) -> Resolver<'a> {
        Resolver { version, ..self }
    }

    /// The objects that the statement named, not those that its views name.
    pub fn named_objects(&self) -> Vec<ObjectId> {
        self.named.lock().expect("no panic under this lock").iter().copied().collect()
    }

    fn source_of(&self, parts: &[String]) -> Result<Arc<dyn TableSource>> {
        let (parts, own) = without_version(parts);
        let version = own.or_else(|| self.version.clone());
        let source = self.newest_source(&parts, version.as_ref())?;
        let Some(version) = version else { return Ok(source) };
        match source.downcast_ref::<CatalogSource>() {
            Some(source) if !matches!(source.object.kind, ObjectKind::Source(_)) => {
                let (object, plan) = (source.object.clone(), source.plan.clone());
                let source = CatalogSource::new(object, plan, self.named.clone(), None);
                // Its indexes are of what is there now.
                let (version, indexes) = (Some(version), Vec::new());
                Ok(Arc::new(CatalogSource { version, indexes, ..source }))
            }
            _ => Err(Error::unsupported(format!("\"{}\" as of a time", parts.join(".")))
                .hint("Tables and materialized views have a history, and views over them.")),
        }
    }

    /// `savepoint('name', 'relation')`, whose rows have been read before.
    fn savepoint(&self, args: &[Expr]) -> datafusion::common::Result<Arc<dyn TableSource>> {
        let text = |arg: &Expr| match arg {
            Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
            _ => None,
        };
        let names = match args {
            [name, relation] => text(name).zip(text(relation)),
            _ => None,
        };
        let table = names.and_then(|names| self.context.savepoints.get(&names).cloned());
        table.map(provider_as_source).ok_or_else(|| {
            let error = Error::unsupported("savepoint() of anything but two literals");
            external(error.hint("Write savepoint('name', 'schema.relation')."))
        })
    }

    fn newest_source(
        &self,
        parts: &[String],
        version: Option<&Arc<str>>,
    ) -> Result<Arc<dyn TableSource>> {
        let extra = self.extra.iter().find(|o| [o.name.name.clone()] == *parts);
        if let Some(object) = extra {
            let source = CatalogSource::new(object.clone(), None, Arc::default(), None);
            return Ok(Arc::new(source));
        }
        if let Some(relation) = resolve_system(self.context, parts) {
            return Ok(Arc::new(SystemSource { relation }));
        }
        let object = resolve(self.context, parts)?;
        let plan = match &object.kind {
            ObjectKind::Sink(_) => {
                return Err(Error::user(
                    SqlState::WRONG_OBJECT_TYPE,
                    format!("cannot read sink \"{}\"", object.name.name),
                )
                .hint("Read what it reads, or its target."));
            }
            ObjectKind::View(view) => {
                if self.depth >= VIEW_DEPTH_MAX {
                    return Err(Error::user(
                        SqlState::PROGRAM_LIMIT_EXCEEDED,
                        format!("views are nested more than {VIEW_DEPTH_MAX} deep"),
                    ));
                }
                // The planner is within the planning of what names the view.
                let plan = stacker::maybe_grow(VIEW_STACK_BYTES_MIN, VIEW_STACK_BYTES, || {
                    self.context.plan_view(&object, view, self.depth + 1, version.cloned())
                });
                Some(plan.map_err(|error| {
                    Error::from(error).context(format!("view \"{}\"", object.name.name))
                })?)
            }
            _ => None,
        };
        let catalog = Some(self.context.catalog.as_ref());
        let rows = self.context.row_counts.get(&object.id).copied();
        let source = CatalogSource::new(object, plan, self.named.clone(), catalog);
        Ok(Arc::new(source.with_rows(rows)))
    }
}

/// A relation's name, and the time as of which it is read.
fn without_version(parts: &[String]) -> (Cow<'_, [String]>, Option<Arc<str>>) {
    let Some((last, others)) = parts.split_last() else { return (parts.into(), None) };
    let (name, version) = split_version(last);
    let Some(version) = version else { return (parts.into(), None) };
    let plain = others.iter().cloned().chain([name.to_owned()]).collect::<Vec<_>>();
    (plain.into(), Some(version.into()))
}

/// Functions whose value the session knows while it plans.
fn session_function(context: &PlanContext, name: &str) -> Option<Arc<ScalarUDF>> {
    let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
    let value = match name {
        "current_user" | "session_user" | "current_role" | "user" => text(&context.user),
        "current_database" | "current_catalog" => text(&context.database),
        "current_schema" => {
            let schemas = context.catalog.schemas(&context.database).unwrap_or_default();
            let first = search_schemas(context).into_iter().find(|s| schemas.contains(s));
            ScalarValue::Utf8(first)
        }
        _ => return system_functions::find(context, name),
    };
    Some(constant_function(name, value))
}

/// Our error inside DataFusion's.
pub fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl ContextProvider for Resolver<'_> {
    fn get_table_source(
        &self,
        name: TableReference,
    ) -> datafusion::common::Result<Arc<dyn TableSource>> {
        let parts: Vec<String> = [name.catalog(), name.schema(), Some(name.table())]
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .collect();
        self.source_of(&parts).map_err(external)
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> datafusion::common::Result<Arc<dyn TableSource>> {
        if name == "pg_get_keywords" {
            return Ok(provider_as_source(Arc::new(system_functions::keywords()?)));
        }
        if name.eq_ignore_ascii_case("savepoint") {
            return self.savepoint(&args);
        }
        let function = FUNCTIONS.table.get(&name.to_lowercase()).ok_or_else(|| {
            external(Error::user(
                SqlState::UNDEFINED_FUNCTION,
                format!("table function {name} does not exist"),
            ))
        })?;
        let simplifier = ExprSimplifier::new(SimplifyContext::builder().build());
        let schema = DFSchema::empty();
        let args = args
            .into_iter()
            .map(|arg| simplifier.coerce(arg, &schema).and_then(|e| simplifier.simplify(e)))
            .collect::<datafusion::common::Result<Vec<_>>>()?;
        let constants = args.clone();
        let args = TableFunctionArgs::new(&args, &*SESSION);
        let provider = provider_as_source(function.create_table_provider_with_args(args)?);
        if name.eq_ignore_ascii_case("generate_series")
            && let Some(series) = SeriesSource::of(provider.clone(), &constants)
        {
            return Ok(Arc::new(series));
        }
        Ok(provider)
    }

    fn create_cte_work_table(
        &self,
        name: &str,
        schema: SchemaRef,
    ) -> datafusion::common::Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &FUNCTIONS.expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(PostgresTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        session_function(self.context, name)
            .or_else(|| FUNCTIONS.scalar.get(name).cloned())
            .or_else(|| (!FUNCTIONS.is_known(name)).then(|| unknown_function(name)))
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        FUNCTIONS.higher_order.get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        FUNCTIONS.aggregate.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        FUNCTIONS.window.get(name).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &OPTIONS
    }

    fn udf_names(&self) -> Vec<String> {
        FUNCTIONS.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        FUNCTIONS.higher_order.keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        FUNCTIONS.aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        FUNCTIONS.window.keys().cloned().collect()
    }
}
