//! A planned query: bind parameters, run it as a batch, or lower it to a dataflow.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::LogicalPlan;
use futures::stream::BoxStream;

use crate::plan::node::Plan;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::sql_type::SqlType;

/// A query whose names and types are known. Cheap to clone; may be bound and run many times.
#[derive(Clone)]
pub struct PlannedQuery {
    pub logical: LogicalPlan,
    /// The result's columns, marked with their extension types; names may repeat.
    pub schema: SchemaRef,
    /// Types of `$1`, `$2`, ...
    pub parameters: Vec<SqlType>,
    /// Sources, tables and materialized views that are read, each once; system relations apart.
    pub objects: Vec<ObjectId>,
}

/// The rows of one relation during one batch execution.
pub enum Content {
    Batches(Vec<RecordBatch>),
    Provider(Arc<dyn TableProvider>),
}

/// Where a batch execution finds the rows.
pub trait Contents: Send + Sync {
    /// The rows of a source, table or materialized view, with all its columns.
    fn object(&self, id: ObjectId) -> Result<Content>;

    /// The rows of a relation of the schema `millstream`.
    fn system(&self, name: &str) -> Result<Content>;
}

impl PlannedQuery {
    /// The same query with values (arrays of one element) in place of its parameters.
    pub fn bind_parameters(&self, _values: &[ArrayRef]) -> Result<PlannedQuery> {
        Err(Error::unsupported("this"))
    }

    /// The dataflow that maintains the query's result.
    ///
    /// # Errors
    /// SQLSTATE 0A000 for what cannot be maintained yet.
    pub fn lower(&self) -> Result<Plan> {
        Err(Error::unsupported("this query in a materialized view"))
    }

    /// Runs the query over `contents`. Batches have exactly the planned schema.
    pub async fn execute(
        &self,
        _contents: &dyn Contents,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        Err(Error::unsupported("this query"))
    }
}
