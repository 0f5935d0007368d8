//! Names to catalog objects, queries and expressions to typed plans.

use std::sync::Arc;

use arrow::datatypes::Schema;
use chrono::{DateTime, Utc};
use datafusion::sql::sqlparser::ast;

use crate::catalog::object::Object;
use crate::catalog::snapshot::Catalog;
use crate::plan::expr::Expr;
use crate::sql::dml::{PlannedDelete, PlannedInsert, PlannedUpdate, RowCompletion};
use crate::sql::query::PlannedQuery;
use crate::types::error::{Error, Result};
use crate::types::sql_type::SqlType;

/// Everything planning may look at: one catalog version and the session's settings.
#[derive(Clone)]
pub struct PlanContext {
    pub catalog: Arc<Catalog>,
    pub database: String,
    /// Schemas in which an unqualified name is looked for, in order. `pg_catalog` comes first
    /// by itself.
    pub search_path: Vec<String>,
    pub user: String,
    /// The `TimeZone` setting: an IANA name or an offset.
    pub time_zone: String,
    /// The statement's time: what `now()` is.
    pub now: DateTime<Utc>,
    /// The text that the spans of the syntax tree count in, for error positions.
    pub sql: Arc<str>,
}

impl PlanContext {
    /// Plans a query: names resolved, views expanded, types checked, parameters inferred where
    /// `parameter_types` does not say.
    ///
    /// # Errors
    /// Whatever is wrong with the query, with its position where it is known.
    pub fn plan_query(
        &self,
        _query: &ast::Query,
        _parameter_types: &[Option<SqlType>],
    ) -> Result<PlannedQuery> {
        Err(Error::unsupported("this query"))
    }

    /// A scalar expression over the columns of `schema`, which may be qualified with `qualifier`:
    /// defaults, generated columns, watermarks.
    pub fn plan_expr(
        &self,
        _expr: &ast::Expr,
        _schema: &Schema,
        _qualifier: Option<&str>,
    ) -> Result<Expr> {
        Err(Error::unsupported("this expression"))
    }

    /// Whole rows of `table` from the columns that COPY names (all insertable ones, in order, when
    /// `columns` is empty): defaults filled in, generated columns computed.
    ///
    /// # Errors
    /// SQLSTATE 42703 for an unknown column, 42701 for one named twice.
    pub fn plan_row_completion(
        &self,
        _table: &Object,
        _columns: &[ast::Ident],
    ) -> Result<RowCompletion> {
        Err(Error::unsupported("this table"))
    }

    /// The catalog object of that name.
    ///
    /// # Errors
    /// SQLSTATE 42P01 with the position, and a hint when a similar name exists.
    pub fn resolve(&self, _name: &ast::ObjectName) -> Result<Arc<Object>> {
        Err(Error::unsupported("this name"))
    }

    pub fn plan_insert(
        &self,
        _insert: &ast::Insert,
        _parameter_types: &[Option<SqlType>],
    ) -> Result<PlannedInsert> {
        Err(Error::unsupported("INSERT"))
    }

    pub fn plan_update(
        &self,
        _update: &ast::Update,
        _parameter_types: &[Option<SqlType>],
    ) -> Result<PlannedUpdate> {
        Err(Error::unsupported("UPDATE"))
    }

    pub fn plan_delete(
        &self,
        _delete: &ast::Delete,
        _parameter_types: &[Option<SqlType>],
    ) -> Result<PlannedDelete> {
        Err(Error::unsupported("DELETE"))
    }
}
