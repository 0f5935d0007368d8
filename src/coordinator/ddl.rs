//! CREATE, COMMENT and what is refused: from a parsed definition to a catalog object.
//!
//! A definition is checked completely before anything happens; then one step makes it real:
//! `create_object`, in which the coordinator sets up the data plane and publishes the catalog
//! version, or `apply` for what has no data (databases, schemas, comments, replaced views).

pub(super) use self::sources::{open_connector, source_columns, take_connector, watermark_spec};
use self::views::check_replaced;
pub(super) use self::views::{
    definer, emission, explained_view, keep_promises, materialized_view_object, plan_definition,
    reads, reads_itself, renamed, view_definer, view_plan,
};
use crate::catalog::object::{Object, ObjectKind, ObjectName};
use crate::catalog::snapshot::{Change, no_schema};
use crate::catalog::system_views::SYSTEM_SCHEMAS;
use crate::coordinator::clone::clone_database;
use crate::coordinator::command::{Connection, Notice, Response};
use crate::coordinator::execute::done;
use crate::coordinator::running::Running;
use crate::sql::bind::PlanContext;
use crate::sql::parse::Parsed;
use crate::sql::resolve::cross_database;
use crate::sql::statement::{CommentOn, CreateDatabase, CreateSchema, Name, Noun, Statement};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

mod sources;
mod tables;
mod views;

impl Connection {
    pub(super) async fn run_ddl(
        &mut self,
        running: &Running,
        context: &PlanContext,
        parsed: &Parsed,
    ) -> Result<Response> {
        let tag = parsed.statement.tag();
        match &parsed.statement {
            Statement::CreateTable(create) if create.query.is_some() => {
                return self.create_table_as(running, context, parsed, create).await;
            }
            Statement::CreateTable(create) => self.create_table(context, parsed, create).await?,
            Statement::CreateSource(create) => self.create_source(context, parsed, create).await?,
            Statement::CreateView(create) => self.create_view(context, parsed, create).await?,
            Statement::CreateMaterializedView(create) => {
                self.create_materialized_view(running, context, parsed, create).await?;
            }
            Statement::CreateSchema(create) => self.create_schema(context, create).await?,
            Statement::CreateDatabase(create) => self.create_database(running, create).await?,
            Statement::Drop(drop) => self.run_drop(context, drop).await?,
            Statement::CommentOn(comment) => self.comment_on(context, comment).await?,
            Statement::CreateSink(create) => {
                self.create_sink(running, context, parsed, create).await?;
            }
            Statement::CreateIndex(create) => self.create_index(running, context, create).await?,
            Statement::Alter(_) => {
                return Err(Error::unsupported(tag)
                    .hint("Drop the object and create it again with the new definition."));
            }
            _ => return Err(Error::internal(format!("{tag} has no place to run"))),
        }
        Ok(done(tag))
    }

    /// Where an object of that name is to be made; `None` when it exists and may.
    pub(super) fn place(
        &self,
        context: &PlanContext,
        name: &Name,
        if_not_exists: bool,
        or_replace: bool,
        kind: Noun,
    ) -> Result<Option<Place>> {
        let name_of = target_name(context, name)?;
        let Some(existing) = context.catalog.lookup(&name_of) else {
            return Ok(Some(Place { name: name_of, replaces: None }));
        };
        if if_not_exists {
            self.session.notify(Notice::note(
                SqlState::DUPLICATE_TABLE.0,
                format!("relation \"{}\" already exists, skipping", name_of.name),
            ));
            return Ok(None);
        }
        if !or_replace {
            return Err(Error::user(
                SqlState::DUPLICATE_TABLE,
                format!("relation \"{}\" already exists", name_of.name),
            ));
        }
        if noun_of(existing) != kind {
            return Err(wrong_kind(existing, kind).position(name.position));
        }
        check_replaced(context, existing)?;
        Ok(Some(Place { name: name_of, replaces: Some(existing.id) }))
    }

    async fn create_schema(&self, context: &PlanContext, create: &CreateSchema) -> Result<()> {
        let database = schema_database(context, &create.name)?;
        let schema = create.name.schema.clone();
        if schema.starts_with("pg_") {
            return Err(Error::user(
                SqlState("42939"),
                format!("unacceptable schema name \"{schema}\""),
            )
            .detail("The prefix \"pg_\" is reserved for system schemas."));
        }
        let exists = context.catalog.schemas(&database).is_some_and(|s| s.contains(&schema))
            || SYSTEM_SCHEMAS.contains(&schema.as_str());
        if exists {
            return self.exists_already(
                create.if_not_exists,
                SqlState::DUPLICATE_SCHEMA,
                &format!("schema \"{schema}\" already exists"),
            );
        }
        self.database.coordinator.apply(vec![Change::CreateSchema { database, schema }]).await
    }

    async fn create_database(&self, running: &Running, create: &CreateDatabase) -> Result<()> {
        let name = create.name.clone();
        if self.database.coordinator.catalog().schemas(&name).is_some() {
            return self.exists_already(
                create.if_not_exists,
                SqlState::DUPLICATE_DATABASE,
                &format!("database \"{name}\" already exists"),
            );
        }
        let coordinator = &self.database.coordinator;
        let Some(savepoint) = &create.from_savepoint else {
            return coordinator.apply(vec![Change::CreateDatabase(name)]).await;
        };
        let held = running.wait(coordinator.hold(Some(savepoint))).await?;
        let from = &self.session.database;
        running.wait(clone_database(coordinator, &held, from, &name)).await
    }

    fn exists_already(&self, may: bool, sqlstate: SqlState, message: &str) -> Result<()> {
        if !may {
            return Err(Error::user(sqlstate, message));
        }
        self.session.notify(Notice::note(sqlstate.0, format!("{message}, skipping")));
        Ok(())
    }

    async fn comment_on(&self, context: &PlanContext, comment: &CommentOn) -> Result<()> {
        if matches!(comment.kind, Noun::Schema | Noun::Database | Noun::Savepoint | Noun::Index) {
            return Err(Error::unsupported(format!("COMMENT ON {}", upper(comment.kind)))
                .hint("Relations and their columns can have comments."));
        }
        let object = self.resolve(context, &comment.name)?;
        let column = match &comment.column {
            None if noun_of(&object) != comment.kind => {
                return Err(wrong_kind(&object, comment.kind));
            }
            None => None,
            Some(column) => match object.column(column) {
                Some((index, _)) => Some(index),
                None => {
                    return Err(Error::user(
                        SqlState::UNDEFINED_COLUMN,
                        format!(
                            "column \"{column}\" of relation \"{}\" does not exist",
                            object.name.name
                        ),
                    ));
                }
            },
        };
        let change = Change::Comment { object: object.id, column, text: comment.text.clone() };
        self.database.coordinator.apply(vec![change]).await
    }
}

/// Where a new object goes.
pub(super) struct Place {
    pub name: ObjectName,
    /// What has the name now, and gives way.
    pub replaces: Option<ObjectId>,
}

/// Where an object of that name is or would be: its schema, or the first of the search path that
/// exists.
pub(super) fn target_name(context: &PlanContext, name: &Name) -> Result<ObjectName> {
    if let Some(database) = &name.database
        && *database != context.database
    {
        let schema = name.schema.as_deref().unwrap_or_default();
        let name_text = format!("{database}.{schema}.{}", name.name);
        return Err(cross_database(&name_text).position(name.position));
    }
    let schemas = context.catalog.schemas(&context.database).unwrap_or_default();
    let schema = match &name.schema {
        Some(schema) if SYSTEM_SCHEMAS.contains(&schema.as_str()) => {
            return Err(Error::user(
                SqlState("42501"),
                format!("permission denied to create \"{schema}.{}\"", name.name),
            )
            .detail("System catalog modifications are currently disallowed."));
        }
        Some(schema) if schemas.contains(schema) => schema.clone(),
        Some(schema) => return Err(no_schema(schema).position(name.position)),
        None => match context.search_path.iter().find(|schema| schemas.contains(schema)) {
            Some(schema) => schema.clone(),
            None => {
                return Err(Error::user(
                    SqlState::INVALID_SCHEMA_NAME,
                    "no schema has been selected to create in",
                )
                .position(name.position));
            }
        },
    };
    Ok(ObjectName { database: context.database.clone(), schema, name: name.name.clone() })
}

/// The database that a schema's name means.
pub(super) fn schema_database(
    context: &PlanContext,
    name: &crate::sql::statement::SchemaName,
) -> Result<String> {
    match &name.database {
        Some(database) if *database != context.database => Err(Error::user(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!(
                "cross-database references are not implemented: \"{database}.{}\"",
                name.schema
            ),
        )
        .hint("Connect to that database.")
        .position(name.position)),
        _ => Ok(context.database.clone()),
    }
}

/// The kind of a catalog object as statements name it.
pub(super) fn noun_of(object: &Object) -> Noun {
    match object.kind {
        ObjectKind::Source(_) => Noun::Source,
        ObjectKind::Table(_) => Noun::Table,
        ObjectKind::View(_) => Noun::View,
        ObjectKind::MaterializedView(_) => Noun::MaterializedView,
        ObjectKind::Sink(_) => Noun::Sink,
    }
}

/// SQLSTATE 42809: the object is of another kind than the statement says.
pub(super) fn wrong_kind(object: &Object, wanted: Noun) -> Error {
    let article = if wanted == Noun::Index { "an" } else { "a" };
    Error::user(
        SqlState::WRONG_OBJECT_TYPE,
        format!("\"{}\" is not {article} {wanted}", object.name.name),
    )
    .hint(format!("It is a {}.", object.kind_noun()))
}

/// `MATERIALIZED VIEW`.
pub(super) fn upper(kind: Noun) -> String {
    kind.as_str().to_uppercase()
}
