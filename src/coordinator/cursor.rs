//! Cursors (DECLARE, FETCH, MOVE, CLOSE) and the statements of PREPARE.
//!
//! A cursor holds its query's rows half read: the snapshots that it reads stay alive with it and
//! stop nobody. It goes forward only. A cursor over SUBSCRIBE answers FETCH as soon as there is a
//! row, with all that have come by then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::time::Instant;

use crate::coordinator::command::{Connection, Prepared, Response, RowStream, Statement, Value};
use crate::coordinator::execute::{StatementPlan, done};
use crate::coordinator::running::Running;
use crate::sql::bind::PlanContext;
use crate::sql::statement::{self, DeclareCursor, Execute, Fetch, FetchCount, Prepare};
use crate::types::error::{Error, Result, SqlState};

/// An open cursor.
pub(super) struct Cursor {
    pub schema: SchemaRef,
    /// Rows that were read and not yet fetched.
    ready: Option<RecordBatch>,
    /// `None` at the end. Never locked: the mutex makes a connection `Sync`, so that a shared
    /// reference to it may be held while waiting.
    rows: Option<Mutex<RowStream>>,
    /// Lives on after its transaction.
    hold: bool,
    /// Its transaction has not ended yet.
    fresh: bool,
    /// Rows come for ever: FETCH does not wait for all that it asked for.
    endless: bool,
}

impl Cursor {
    /// The next rows, at most `rows_max`; `None` at the end.
    async fn next(&mut self, rows_max: usize) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.take() {
                let taken = batch.num_rows().min(rows_max);
                if taken < batch.num_rows() {
                    self.ready = Some(batch.slice(taken, batch.num_rows() - taken));
                }
                if taken > 0 {
                    return Ok(Some(batch.slice(0, taken)));
                }
                if rows_max == 0 {
                    return Ok(None);
                }
            }
            let Some(rows) = &mut self.rows else { return Ok(None) };
            let rows = rows.get_mut().unwrap_or_else(PoisonError::into_inner);
            match rows.next().await {
                Some(Ok(batch)) => self.ready = Some(batch),
                Some(Err(error)) => {
                    self.rows = None;
                    return Err(error);
                }
                None => {
                    self.rows = None;
                    return Ok(None);
                }
            }
        }
    }

    /// Up to `rows_max` rows.
    async fn fetch(
        &mut self,
        rows_max: u64,
        timeout: Option<Duration>,
    ) -> Result<Vec<RecordBatch>> {
        let deadline = timeout.map(|t| Instant::now() + t);
        let mut fetched = Vec::new();
        let mut left = usize::try_from(rows_max).unwrap_or(usize::MAX);
        let endless = self.endless;
        while left > 0 {
            let next = self.next(left);
            let batch = match deadline {
                Some(deadline) => match tokio::time::timeout_at(deadline, next).await {
                    Ok(batch) => batch?,
                    Err(_) => break,
                },
                // Enough has come: only what is there already is added.
                None if endless && !fetched.is_empty() => match next.now_or_never() {
                    Some(batch) => batch?,
                    None => break,
                },
                None => next.await?,
            };
            let Some(batch) = batch else { break };
            left -= batch.num_rows();
            fetched.push(batch);
        }
        Ok(fetched)
    }
}

impl Connection {
    pub(super) async fn run_declare(
        &mut self,
        running: &Running,
        context: &PlanContext,
        declare: &DeclareCursor,
        plan: &StatementPlan,
        values: &[Value],
    ) -> Result<Response> {
        let in_block = self.transaction.as_ref().is_some_and(|block| !block.implicit);
        if !in_block && !declare.hold {
            return Err(Error::user(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                "DECLARE CURSOR can only be used in transaction blocks",
            )
            .hint("BEGIN first, or DECLARE ... CURSOR WITH HOLD."));
        }
        if self.cursors.contains_key(&declare.name) {
            return Err(Error::user(
                SqlState::DUPLICATE_CURSOR,
                format!("cursor \"{}\" already exists", declare.name),
            ));
        }
        let StatementPlan::Query(query) = plan else {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "a cursor is declared for a query or for SUBSCRIBE",
            ));
        };
        let context = PlanContext { sql: declare.statement.sql.as_str().into(), ..context.clone() };
        let query = query.bind_parameters(values)?;
        let (schema, rows, endless) = match &declare.statement.statement {
            statement::Statement::Subscribe(subscribe) => {
                let response = self.run_subscribe(running, &context, &query, subscribe).await?;
                let Response::Rows { schema, rows, .. } = response else {
                    return Err(Error::internal("SUBSCRIBE gives rows"));
                };
                (schema, rows, true)
            }
            _ => {
                let rows = self.run_query(running, &context, &query).await?;
                (query.schema, rows, false)
            }
        };
        self.cursors.insert(
            declare.name.clone(),
            Cursor {
                schema,
                ready: None,
                // Places of errors count in the text of DECLARE, not in that of FETCH.
                rows: Some(Mutex::new(without_positions(rows))),
                hold: declare.hold,
                fresh: in_block,
                endless,
            },
        );
        Ok(done("DECLARE CURSOR"))
    }

    pub(super) fn find_cursor(&self, name: &str) -> Result<&Cursor> {
        self.cursors.get(name).ok_or_else(|| no_cursor(name))
    }

    pub(super) async fn run_fetch(&mut self, running: &Running, fetch: &Fetch) -> Result<Response> {
        let timeout = fetch.timeout.as_deref().map(parse_timeout).transpose()?;
        let name = &fetch.cursor;
        let cursor = self.cursors.get_mut(name).ok_or_else(|| no_cursor(name))?;
        let schema = cursor.schema.clone();
        let rows_max = match fetch.count {
            FetchCount::Rows(rows) => rows,
            FetchCount::All if cursor.endless || fetch.moves => u64::MAX,
            FetchCount::All => {
                // All that is left goes straight to the client.
                let ready = cursor.ready.take().map(Ok);
                let rest = match cursor.rows.take() {
                    Some(rows) => rows.into_inner().unwrap_or_else(PoisonError::into_inner),
                    None => futures::stream::empty().boxed(),
                };
                let rows = futures::stream::iter(ready).chain(rest).boxed();
                return Ok(Response::Rows { schema, rows, tag: "FETCH {}".to_owned() });
            }
        };
        let batches = running.wait(cursor.fetch(rows_max, timeout)).await?;
        if fetch.moves {
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            return Ok(Response::Done { tag: format!("MOVE {rows}") });
        }
        let rows = futures::stream::iter(batches.into_iter().map(Ok)).boxed();
        Ok(Response::Rows { schema, rows, tag: "FETCH {}".to_owned() })
    }

    pub(super) fn run_close(&mut self, name: Option<&str>) -> Result<Response> {
        match name {
            None => {
                self.cursors.clear();
                Ok(done("CLOSE CURSOR ALL"))
            }
            Some(name) => match self.cursors.remove(name) {
                Some(_) => Ok(done("CLOSE CURSOR")),
                None => Err(no_cursor(name)),
            },
        }
    }

    /// The transaction has ended: its cursors with it, unless they were declared WITH HOLD and
    /// it was committed.
    pub(super) fn end_transaction_cursors(&mut self, committed: bool) {
        self.cursors.retain(|_, cursor| cursor.hold && (committed || !cursor.fresh));
        for cursor in self.cursors.values_mut() {
            cursor.fresh = false;
        }
    }

    pub(super) fn run_prepare(&mut self, prepare: &Prepare) -> Result<Response> {
        if self.prepared.contains_key(&prepare.name) {
            return Err(Error::user(
                SqlState("42P05"),
                format!("prepared statement \"{}\" already exists", prepare.name),
            ));
        }
        let statement = Statement { parsed: prepare.statement.clone() };
        let types: Vec<_> = prepare.parameter_types.iter().cloned().map(Some).collect();
        let prepared = self.prepare_statement(&statement, &types)?;
        self.prepared.insert(prepare.name.clone(), prepared);
        Ok(done("PREPARE"))
    }

    pub(super) fn find_prepared(&self, name: &str) -> Result<&Prepared> {
        self.prepared.get(name).ok_or_else(|| {
            Error::user(
                SqlState::INVALID_SQL_STATEMENT_NAME,
                format!("prepared statement \"{name}\" does not exist"),
            )
        })
    }

    pub(super) async fn run_execute(
        &mut self,
        running: &Running,
        context: &PlanContext,
        execute: &Execute,
    ) -> Result<Response> {
        let prepared = self.find_prepared(&execute.name)?.clone();
        if prepared.parameters.len() != execute.arguments.len() {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                format!("wrong number of parameters for prepared statement \"{}\"", execute.name),
            )
            .detail(format!(
                "Expected {} parameters but got {}.",
                prepared.parameters.len(),
                execute.arguments.len()
            )));
        }
        let mut values = Vec::with_capacity(execute.arguments.len());
        for (argument, sql_type) in execute.arguments.iter().zip(&prepared.parameters) {
            let query = format!("SELECT CAST(({}) AS {sql_type})", argument.sql);
            let query = crate::sql::parse::parse_query(&query)?;
            let located = |error: Error| error.without_position().position(argument.position);
            let planned = context.plan_query(&query, &[]).map_err(located)?;
            values.push(self.evaluate_one(running, context, &planned).await.map_err(located)?);
        }
        // Places of its errors count in the text of PREPARE.
        let response = self.run_prepared(running, &prepared, &values).await;
        Ok(match response.map_err(Error::without_position)? {
            Response::Rows { schema, rows, tag } => {
                Response::Rows { schema, rows: without_positions(rows), tag }
            }
            other => other,
        })
    }

    pub(super) fn run_deallocate(&mut self, name: Option<&str>) -> Result<Response> {
        match name {
            None => {
                self.prepared.clear();
                Ok(done("DEALLOCATE ALL"))
            }
            Some(name) => {
                self.find_prepared(name)?;
                self.prepared.remove(name);
                Ok(done("DEALLOCATE"))
            }
        }
    }
}

/// Rows of a statement that stands in another text than the one that is running.
fn without_positions(rows: RowStream) -> RowStream {
    rows.map_err(Error::without_position).boxed()
}

fn no_cursor(name: &str) -> Error {
    Error::user(SqlState::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}

/// The timeout of FETCH, written as a duration setting is.
fn parse_timeout(text: &str) -> Result<Duration> {
    let canonical = crate::coordinator::settings::canonical("statement_timeout", text);
    let ms = canonical.ok().and_then(|text| crate::coordinator::settings::duration_ms(&text));
    match ms {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid timeout for FETCH: \"{text}\""),
        )
        .hint("Write a number with a unit, such as '500ms' or '2s'.")),
    }
}
