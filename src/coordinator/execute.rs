//! Runs one statement of a connection.
//!
//! 1. `prepare` plans what has parameters or result columns; the plan is kept with the statement.
//! 2. `execute` starts the clock of `statement_timeout`, checks what the transaction block allows,
//!    plans again if the catalog or a setting has changed since, and hands over to the room of
//!    the statement's kind: one match, one arm a kind.
//!
//! What may run where:
//!
//! | statement | in BEGIN ... COMMIT | between statements of one message |
//! |---|---|---|
//! | reads, writes, SET, cursors | yes | yes |
//! | SUBSCRIBE | while nothing is written | commits what came before, then runs |
//! | CREATE, DROP, ALTER, FLUSH, ... | no: 25001 | commits what came before, then runs |

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::coordinator::command::{
    Connection, CopyFormat, CopyKind, Notice, Prepared, Response, Statement, Value,
};
use crate::coordinator::event_loop::Coordinator;
use crate::coordinator::running::{Limits, Running, guard_rows};
use crate::coordinator::system_relations::SessionDoor;
use crate::coordinator::transaction::Block;
use crate::coordinator::{savepoints, show};
use crate::sql::bind::PlanContext;
use crate::sql::dml::{PlannedDelete, PlannedInsert, PlannedUpdate};
use crate::sql::parse::Parsed;
use crate::sql::query::PlannedQuery;
use crate::sql::returning::PlannedReturning;
use crate::sql::statement::{self, CopyData, Discard, ExplainTarget, TransactionModes};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

/// What preparing a statement found out, to be used again when nothing has changed since.
pub(super) struct PreparedPlan {
    basis: PlanBasis,
    /// As the client declared them, to plan again.
    declared: Vec<Option<SqlType>>,
    plan: StatementPlan,
}

/// What a plan depends on beside the statement.
#[derive(Clone, PartialEq, Eq)]
struct PlanBasis {
    catalog_version: u64,
    search_path: Vec<String>,
    time_zone: String,
}

/// The plan of a statement that has one.
pub(super) enum StatementPlan {
    /// A query, and what SUBSCRIBE, COPY TO and EXPLAIN have of one.
    Query(PlannedQuery),
    Insert(PlannedInsert),
    Update(PlannedUpdate),
    Delete(PlannedDelete),
    /// Planned when it runs, or never.
    None,
}

impl StatementPlan {
    fn parameters(&self) -> Vec<SqlType> {
        match self {
            StatementPlan::Query(query) => query.parameters.clone(),
            StatementPlan::Insert(insert) => insert.rows.parameters.clone(),
            StatementPlan::Update(update) => update.rows.parameters.clone(),
            StatementPlan::Delete(delete) => delete.rows.parameters.clone(),
            StatementPlan::None => Vec::new(),
        }
    }
}

impl Connection {
    pub(super) fn prepare_statement(
        &mut self,
        statement: &Statement,
        declared: &[Option<SqlType>],
    ) -> Result<Prepared> {
        let parsed = &statement.parsed;
        self.check_block_alive(&parsed.statement)?;
        let context = self.plan_context(parsed);
        let plan = self.plan_statement(&context, parsed, declared)?;
        let mut parameters = plan.parameters();
        use statement::Statement as S;
        if let S::Execute(_) | S::Prepare(_) = parsed.statement {
            // Arguments are expressions of their own, and PREPARE's parameters are EXECUTE's.
        } else if matches!(plan, StatementPlan::None) && parsed.parameter_count > 0 {
            return Err(Error::user(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1")
                .hint("Parameters can stand in queries and in INSERT, UPDATE and DELETE."));
        }
        // What the client declared beyond the statement's own is taken and not used.
        for declared in declared.iter().skip(parameters.len()) {
            parameters.push(declared.clone().unwrap_or(SqlType::Text));
        }
        let columns = self.result_columns(&parsed.statement, &plan)?;
        let basis = PlanBasis::of(&context);
        let plan = Arc::new(PreparedPlan { basis, declared: declared.to_vec(), plan });
        Ok(Prepared { statement: statement.clone(), parameters, columns, plan })
    }

    /// What planning looks at.
    pub(super) fn plan_context(&mut self, parsed: &Parsed) -> PlanContext {
        let coordinator = &self.database.coordinator;
        let (catalog, now) = match &mut self.transaction {
            Some(block) => {
                let catalog = block.catalog(coordinator);
                let stale = block.stale_views(&catalog);
                let catalog = if stale.is_empty() {
                    catalog
                } else {
                    Arc::new(catalog.with_views_inlined(&stale))
                };
                (catalog, block.started_at)
            }
            None => (coordinator.catalog(), self.database.now()),
        };
        let settings = self.session.settings();
        let values = settings.all().into_iter().map(|(n, v)| (n.to_lowercase(), v)).collect();
        PlanContext {
            catalog,
            database: self.session.database.clone(),
            search_path: settings.search_path(&self.session.user),
            user: self.session.user.clone(),
            time_zone: settings.get("TimeZone").unwrap_or("UTC").to_owned(),
            now,
            sql: parsed.sql.as_str().into(),
            settings: Arc::new(values),
            row_counts: Arc::default(),
            session: Some(Arc::new(SessionDoor {
                database: Arc::downgrade(&self.database),
                session: self.session.clone(),
            })),
            savepoints: Arc::new(self.savepoints.0.clone()),
        }
    }

    fn plan_statement(
        &self,
        context: &PlanContext,
        parsed: &Parsed,
        declared: &[Option<SqlType>],
    ) -> Result<StatementPlan> {
        use statement::Statement as S;
        Ok(match &parsed.statement {
            S::Query(query) => StatementPlan::Query(context.plan_query(query, declared)?),
            S::Insert(insert) => StatementPlan::Insert(context.plan_insert(insert, declared)?),
            S::Update(update) => StatementPlan::Update(context.plan_update(update, declared)?),
            S::Delete(delete) => StatementPlan::Delete(context.plan_delete(delete, declared)?),
            S::ReplayLate(replay) => {
                StatementPlan::Query(self.plan_replay(context, replay, declared)?)
            }
            S::Subscribe(subscribe) => {
                StatementPlan::Query(self.plan_subscribe(context, subscribe)?)
            }
            S::Copy(copy) => match self.plan_copy_out(context, copy)? {
                Some(query) => StatementPlan::Query(query),
                None => StatementPlan::None,
            },
            S::DeclareCursor(declare) => {
                let inner =
                    PlanContext { sql: declare.statement.sql.as_str().into(), ..context.clone() };
                self.plan_statement(&inner, &declare.statement, declared)?
            }
            S::Explain(explain) => match &explain.target {
                ExplainTarget::Statement(inner) => {
                    let context = PlanContext { sql: inner.sql.as_str().into(), ..context.clone() };
                    self.plan_statement(&context, inner, declared)?
                }
                ExplainTarget::MaterializedView(_) => StatementPlan::None,
            },
            _ => StatementPlan::None,
        })
    }

    /// The columns of the rows that the statement answers with.
    fn result_columns(
        &self,
        statement: &statement::Statement,
        plan: &StatementPlan,
    ) -> Result<Option<SchemaRef>> {
        use statement::Statement as S;
        let returning = |r: &Option<PlannedReturning>| r.as_ref().map(|r| r.query.schema.clone());
        Ok(match (statement, plan) {
            (S::Query(_), StatementPlan::Query(query)) => Some(query.schema.clone()),
            (S::Subscribe(_), StatementPlan::Query(query)) => {
                Some(super::query::subscribe_schema(&query.schema))
            }
            (S::Insert(_), StatementPlan::Insert(insert)) => returning(&insert.returning),
            (S::Update(_), StatementPlan::Update(update)) => returning(&update.returning),
            (S::Delete(_), StatementPlan::Delete(delete)) => returning(&delete.returning),
            (S::ReplayLate(_), StatementPlan::Query(query)) => {
                Some(super::replay::replay_schema(&query.schema))
            }
            (S::Explain(_), _) => Some(show::explain_schema()),
            (S::Show(show), _) => Some(show::show_schema(show)),
            (S::Describe(_), _) => Some(show::columns_schema()),
            (S::VerifyMaterializedView(_), _) => Some(super::verify::verify_schema()),
            (S::Execute(execute), _) => self.find_prepared(&execute.name)?.columns.clone(),
            (S::Fetch(fetch), _) if !fetch.moves => {
                Some(self.find_cursor(&fetch.cursor)?.schema.clone())
            }
            _ => None,
        })
    }

    /// The answer, its rows ending with the statement's clock.
    pub(super) async fn execute_prepared(
        &mut self,
        prepared: &Prepared,
        values: &[Value],
    ) -> Result<Response> {
        self.settle_copy();
        let parsed = prepared.statement.parsed.clone();
        self.check_block_alive(&parsed.statement)?;
        if values.len() != prepared.parameters.len() {
            return Err(Error::user(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement requires {}",
                    values.len(),
                    prepared.parameters.len()
                ),
            ));
        }
        if self.transaction.is_none() {
            self.number_transaction();
        }
        let running = self.session.cancel.start(self.limits());
        {
            let mut activity = self.session.activity();
            activity.started_at = Some(self.database.now());
            activity.state = "active";
            activity.query.clone_from(&parsed.sql);
        }
        let response = self.run_prepared(&running, prepared, values).await?;
        Ok(match response {
            Response::Rows { schema, rows, tag } => {
                Response::Rows { schema, rows: guard_rows(rows, running), tag }
            }
            Response::CopyOut { schema, rows, format } => {
                Response::CopyOut { schema, rows: guard_rows(rows, running), format }
            }
            other => other,
        })
    }

    fn limits(&self) -> Limits {
        let settings = self.session.settings();
        let limit = |name| settings.duration_ms(name).map(Duration::from_millis);
        Limits { statement: limit("statement_timeout"), lock: limit("lock_timeout") }
    }

    /// In a failed block nothing runs but what ends it.
    fn check_block_alive(&self, statement: &statement::Statement) -> Result<()> {
        use statement::Statement as S;
        let failed = self.transaction.as_ref().is_some_and(Block::failed);
        let ends = matches!(statement, S::Commit { .. } | S::Rollback { .. } | S::RollbackTo(_));
        if failed && !ends {
            return Err(Error::user(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    /// Runs a prepared statement on the clock of the one that is running. Boxed: EXECUTE runs
    /// another one.
    pub(super) fn run_prepared<'a>(
        &'a mut self,
        running: &'a Running,
        prepared: &'a Prepared,
        values: &'a [Value],
    ) -> BoxFuture<'a, Result<Response>> {
        async move {
            let parsed = prepared.statement.parsed.clone();
            self.load_savepoints(&parsed.sql).await?;
            let context = self.plan_context(&parsed);
            let planned = &prepared.plan;
            let again = if matches!(planned.plan, StatementPlan::None)
                || planned.basis == PlanBasis::of(&context)
                    && self.transaction.as_ref().is_none_or(|b| b.is_read_only())
            {
                None
            } else {
                Some(self.plan_statement(&context, &parsed, &planned.declared)?)
            };
            let plan = again.as_ref().unwrap_or(&planned.plan);
            if again.is_some() && self.result_columns(&parsed.statement, plan)? != prepared.columns
            {
                return Err(Error::user(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "cached plan must not change result type",
                )
                .hint("Prepare the statement again."));
            }
            self.run_statement(running, &context, &parsed, plan, values).await
        }
        .boxed()
    }

    /// One arm a statement.
    async fn run_statement(
        &mut self,
        running: &Running,
        context: &PlanContext,
        parsed: &Arc<Parsed>,
        plan: &StatementPlan,
        values: &[Value],
    ) -> Result<Response> {
        use statement::Statement as S;
        let statement = &parsed.statement;
        self.check_read_only(statement)?;
        if !runs_in_block(statement) {
            self.leave_block(running, statement).await?;
        }
        match (statement, plan) {
            (S::Query(_), StatementPlan::Query(query)) => {
                let query = query.bind_parameters(values)?;
                let rows = self.run_query(running, context, &query).await?;
                Ok(Response::Rows { schema: query.schema, rows, tag: "SELECT {}".to_owned() })
            }
            (S::Insert(_), StatementPlan::Insert(insert)) => {
                let insert = insert.clone().bind_parameters(values)?;
                self.run_insert(running, context, insert).await
            }
            (S::Update(_), StatementPlan::Update(update)) => {
                let update = update.clone().bind_parameters(values)?;
                self.run_update(running, context, update).await
            }
            (S::Delete(_), StatementPlan::Delete(delete)) => {
                let delete = delete.clone().bind_parameters(values)?;
                self.run_delete(running, context, delete).await
            }
            (S::Truncate(truncate), _) => self.run_truncate(running, context, truncate).await,
            (S::ReplayLate(replay), StatementPlan::Query(query)) => {
                let query = query.bind_parameters(values)?;
                self.run_replay(running, context, replay, &query).await
            }
            (S::Subscribe(subscribe), StatementPlan::Query(query)) => {
                self.run_subscribe(running, context, query, subscribe).await
            }
            (S::Copy(copy), StatementPlan::Query(query)) => {
                let rows = self.run_query(running, context, query).await?;
                let format = copy_format(copy);
                Ok(Response::CopyOut { schema: query.schema.clone(), rows, format })
            }
            (S::Copy(copy), _) => self.run_copy_in(running, context, copy).await,
            (S::Explain(explain), _) => {
                self.run_explain(running, context, explain, plan, values).await
            }
            (S::Show(statement::Show::List { what, like, .. }), _) if savepoints::lists(*what) => {
                self.list_checkpoints(running, *what, like.as_deref()).await
            }
            (S::Show(show), _) if show::lists_watermarks(show) => {
                self.list_watermarks(running, context, show).await
            }
            (S::Show(show), _) => self.run_show(context, show),
            (S::Describe(name), _) => self.run_describe(context, name),
            (S::Prepare(prepare), _) => self.run_prepare(prepare),
            (S::Execute(execute), _) => self.run_execute(running, context, execute).await,
            (S::Deallocate(name), _) => self.run_deallocate(name.as_deref()),
            (S::DeclareCursor(declare), _) => {
                self.run_declare(running, context, declare, plan, values).await
            }
            (S::Fetch(fetch), _) => self.run_fetch(running, fetch).await,
            (S::CloseCursor(name), _) => self.run_close(name.as_deref()),
            (S::Flush, _) => {
                running.wait(self.database.coordinator.flush()).await?;
                Ok(done(statement.tag()))
            }
            (S::VerifyMaterializedView(name), _) => self.run_verify(running, context, name).await,
            (S::Checkpoint, _) => {
                self.run_checkpoint(running).await?;
                Ok(done(statement.tag()))
            }
            (S::CreateSavepoint(create), _) => self.create_savepoint(running, create).await,
            (S::Transfer(transfer), _) => self.run_transfer(running, transfer).await,
            _ => match self.run_session(running, statement).await? {
                Some(response) => Ok(response),
                None => self.run_ddl(running, context, parsed).await,
            },
        }
    }

    /// Settings and transactions; `None` when the statement is neither.
    async fn run_session(
        &mut self,
        running: &Running,
        statement: &statement::Statement,
    ) -> Result<Option<Response>> {
        use statement::Statement as S;
        match statement {
            S::Set(set) => self.run_set(set)?,
            S::Reset(name) => self.session.settings().reset(name)?,
            S::ResetAll => self.session.settings().reset_all(),
            S::SetTransaction(modes) => self.set_transaction(modes)?,
            S::SetSessionCharacteristics(modes) => self.set_characteristics(modes)?,
            S::Discard(what) => self.run_discard(*what)?,
            S::Unlisten => {}
            S::Begin(modes) => self.begin(modes)?,
            S::Commit { chain } => return self.end_block(running, true, *chain).await.map(Some),
            S::Rollback { chain } => {
                return self.end_block(running, false, *chain).await.map(Some);
            }
            S::Savepoint(name) => {
                let settings = self.session.settings().clone();
                self.open_block("SAVEPOINT")?.savepoint(name, &settings);
            }
            S::ReleaseSavepoint(name) => self.open_block("RELEASE SAVEPOINT")?.release(name)?,
            S::RollbackTo(name) => {
                let settings = self.open_block("ROLLBACK TO SAVEPOINT")?.rollback_to(name)?;
                *self.session.settings() = settings;
            }
            _ => return Ok(None),
        }
        Ok(Some(done(statement.tag())))
    }

    /// The explicit block that a statement needs.
    fn open_block(&mut self, command: &str) -> Result<&mut Block> {
        match &mut self.transaction {
            Some(block) if !block.implicit => Ok(block),
            _ => Err(Error::user(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                format!("{command} can only be used in transaction blocks"),
            )),
        }
    }

    /// A read-only transaction refuses to write.
    fn check_read_only(&self, statement: &statement::Statement) -> Result<()> {
        // A statement that stands alone is a transaction with the session's defaults.
        let setting = if self.transaction.as_ref().is_none_or(|block| block.implicit) {
            "default_transaction_read_only"
        } else {
            "transaction_read_only"
        };
        if !writes(statement) || !self.session.settings().is_on(setting) {
            return Ok(());
        }
        Err(Error::user(
            SqlState::READ_ONLY_SQL_TRANSACTION,
            format!("cannot execute {} in a read-only transaction", statement.tag()),
        ))
    }

    /// Before a statement that must not stand in a block: an implicit one ends here, an explicit one
    /// if the setting says so.
    async fn leave_block(
        &mut self,
        running: &Running,
        statement: &statement::Statement,
    ) -> Result<()> {
        match &self.transaction {
            None => Ok(()),
            Some(block) if block.implicit => {
                self.commit().await?;
                self.begin_implicit_block();
                Ok(())
            }
            // It would not see what the block wrote; but drivers that read a few rows at a time
            // do so in a block.
            Some(block)
                if matches!(statement, statement::Statement::Subscribe(_))
                    && block.is_read_only() =>
            {
                Ok(())
            }
            Some(_) if self.session.settings().is_on("autocommit_before_ddl") => {
                let modes = self.current_modes();
                self.commit_on(running).await?;
                self.begin(&modes)
            }
            Some(_) => Err(Error::user(
                SqlState::ACTIVE_SQL_TRANSACTION,
                format!("{} cannot run inside a transaction block", statement.tag()),
            )
            .hint("COMMIT first, or SET autocommit_before_ddl = on.")),
        }
    }

    fn begin(&mut self, modes: &TransactionModes) -> Result<()> {
        match &mut self.transaction {
            Some(block) if !block.implicit => self
                .session
                .notify(Notice::warning("25001", "there is already a transaction in progress")),
            // What the message did before BEGIN belongs to the block, as in Postgres.
            Some(block) => block.implicit = false,
            None => {
                let block = Block::new(false, self.database.now(), &self.session.settings());
                self.transaction = Some(block);
            }
        }
        let mut settings = self.session.settings();
        for (own, default) in [
            ("transaction_isolation", "default_transaction_isolation"),
            ("transaction_read_only", "default_transaction_read_only"),
            ("transaction_deferrable", "default_transaction_deferrable"),
        ] {
            let value = settings.get(default)?.to_owned();
            settings.set(own, &value, true)?;
        }
        apply_modes(&mut settings, modes, "transaction_", true)
    }

    /// COMMIT and ROLLBACK.
    async fn end_block(
        &mut self,
        running: &Running,
        commit: bool,
        chain: bool,
    ) -> Result<Response> {
        let tag = if commit { "COMMIT" } else { "ROLLBACK" };
        if self.transaction.as_ref().is_none_or(|block| block.implicit) {
            if chain {
                return Err(Error::user(
                    SqlState::NO_ACTIVE_SQL_TRANSACTION,
                    format!("{tag} AND CHAIN can only be used in transaction blocks"),
                ));
            }
            self.session.notify(Notice::warning("25P01", "there is no transaction in progress"));
        }
        let modes = chain.then(|| self.current_modes());
        // The client may have been told of an error before COMMIT: then COMMIT rolls back.
        let failed = self.transaction.as_ref().is_some_and(Block::failed);
        let committed = if commit && !failed {
            self.commit_on(running).await?;
            true
        } else {
            self.rollback();
            false
        };
        if let Some(modes) = modes {
            self.begin(&modes)?;
        }
        Ok(done(if committed { "COMMIT" } else { "ROLLBACK" }))
    }

    fn current_modes(&self) -> TransactionModes {
        let settings = self.session.settings();
        TransactionModes {
            isolation: None,
            read_only: Some(settings.is_on("transaction_read_only")),
            deferrable: Some(settings.is_on("transaction_deferrable")),
        }
    }

    /// Ends the block with what it wrote.
    pub(super) async fn commit(&mut self) -> Result<()> {
        let limits = Limits { statement: None, ..self.limits() };
        let running = self.session.cancel.start(limits);
        self.commit_on(&running).await
    }

    async fn commit_on(&mut self, running: &Running) -> Result<()> {
        if self.transaction.as_ref().is_some_and(Block::failed) {
            self.rollback();
            return Ok(());
        }
        let Some(block) = self.transaction.take() else { return Ok(()) };
        let before = block.settings_before().clone();
        let strict = self.strict();
        let result = block.commit(&self.write_coordinator(), running, strict).await;
        if result.is_err() {
            *self.session.settings() = before;
        }
        self.after_block(result.is_ok());
        result.map(|late| self.tell_late(late))
    }

    /// Tells the client of rows of a transaction that are in a table of late rows.
    pub(super) fn tell_late(&self, late: u64) {
        if late > 0 {
            let rows = if late == 1 { "row" } else { "rows" };
            let message = format!(
                "{late} {rows} of the transaction came behind the watermark of their table and went \
                 into its table of late rows"
            );
            self.session.notify(Notice::note("00000", message));
        }
    }

    fn rollback(&mut self) {
        if let Some(block) = self.transaction.take() {
            *self.session.settings() = block.settings_before().clone();
        }
        self.after_block(false);
    }

    /// What ends with every block.
    fn after_block(&mut self, committed: bool) {
        self.session.settings().end_transaction();
        self.copy = None;
        self.end_transaction_cursors(committed);
    }

    /// The coordinator, acknowledging writes as `synchronous_commit` says.
    pub(super) fn write_coordinator(&self) -> Coordinator {
        let settings = self.session.settings();
        let early = settings.get("synchronous_commit").is_ok_and(|value| value == "off");
        self.database.coordinator.acknowledging_early(early)
    }

    /// Whether reads of this transaction must still be true when it commits.
    pub(super) fn strict(&self) -> bool {
        let settings = self.session.settings();
        let level = settings.get("transaction_isolation").unwrap_or("serializable");
        matches!(level, "serializable" | "repeatable read")
    }

    fn set_transaction(&mut self, modes: &TransactionModes) -> Result<()> {
        let begun = match &self.transaction {
            Some(block) if !block.implicit => block.begun,
            _ => {
                self.session.notify(Notice::warning(
                    "25P01",
                    "SET TRANSACTION can only be used in transaction blocks",
                ));
                return Ok(());
            }
        };
        if begun && modes.isolation.is_some() {
            return Err(Error::user(
                SqlState::ACTIVE_SQL_TRANSACTION,
                "SET TRANSACTION ISOLATION LEVEL must be called before any query",
            ));
        }
        if begun && modes.read_only == Some(false) {
            return Err(Error::user(
                SqlState::ACTIVE_SQL_TRANSACTION,
                "transaction read-write mode must be set before any query",
            ));
        }
        apply_modes(&mut self.session.settings(), modes, "transaction_", true)
    }

    fn set_characteristics(&mut self, modes: &TransactionModes) -> Result<()> {
        apply_modes(&mut self.session.settings(), modes, "default_transaction_", false)
    }

    fn run_set(&mut self, set: &statement::Set) -> Result<()> {
        let value = match &set.value {
            statement::SetValue::Default => {
                return self.session.settings().reset(&set.name);
            }
            statement::SetValue::Values(values) => show::set_value(&set.name, values)?,
        };
        if set.local && self.transaction.as_ref().is_none_or(|block| block.implicit) {
            self.session.notify(Notice::warning(
                "25P01",
                "SET LOCAL can only be used in transaction blocks",
            ));
            // Checked all the same.
            return crate::coordinator::settings::canonical(&set.name, &value).map(|_| ());
        }
        self.session.settings().set(&set.name, &value, set.local)
    }

    fn run_discard(&mut self, what: Discard) -> Result<()> {
        match what {
            Discard::All => {
                if self.transaction.as_ref().is_some_and(|block| !block.implicit) {
                    return Err(Error::user(
                        SqlState::ACTIVE_SQL_TRANSACTION,
                        "DISCARD ALL cannot run inside a transaction block",
                    ));
                }
                self.cursors.clear();
                self.prepared.clear();
                self.session.settings().reset_all();
            }
            // Plans are made again when they must be; there are no temporary objects.
            Discard::Plans | Discard::Sequences | Discard::Temp => {}
        }
        Ok(())
    }
}

impl PlanBasis {
    fn of(context: &PlanContext) -> PlanBasis {
        PlanBasis {
            catalog_version: context.catalog.version(),
            search_path: context.search_path.clone(),
            time_zone: context.time_zone.clone(),
        }
    }
}

/// Sets those modes that are given.
fn apply_modes(
    settings: &mut crate::coordinator::settings::Settings,
    modes: &TransactionModes,
    prefix: &str,
    local: bool,
) -> Result<()> {
    use statement::IsolationLevel as L;
    if let Some(isolation) = modes.isolation {
        let level = match isolation {
            L::ReadUncommitted => "read uncommitted",
            L::ReadCommitted => "read committed",
            L::RepeatableRead => "repeatable read",
            L::Serializable => "serializable",
        };
        settings.set(&format!("{prefix}isolation"), level, local)?;
    }
    let on_off = |on: bool| if on { "on" } else { "off" };
    if let Some(read_only) = modes.read_only {
        settings.set(&format!("{prefix}read_only"), on_off(read_only), local)?;
    }
    if let Some(deferrable) = modes.deferrable {
        settings.set(&format!("{prefix}deferrable"), on_off(deferrable), local)?;
    }
    Ok(())
}

/// Whether the statement may stand in BEGIN ... COMMIT.
fn runs_in_block(statement: &statement::Statement) -> bool {
    use statement::Statement as S;
    !matches!(
        statement,
        S::CreateSource(_)
            | S::CreateTable(_)
            | S::CreateView(_)
            | S::CreateMaterializedView(_)
            | S::CreateSink(_)
            | S::CreateSchema(_)
            | S::CreateDatabase(_)
            | S::CreateIndex(_)
            | S::CreateSavepoint(_)
            | S::Transfer(_)
            | S::Drop(_)
            | S::Alter(_)
            | S::CommentOn(_)
            | S::ReplayLate(_)
            | S::Subscribe(_)
            | S::VerifyMaterializedView(_)
            | S::Flush
            | S::Checkpoint
    )
}

/// Whether the statement changes what others see.
fn writes(statement: &statement::Statement) -> bool {
    use statement::Statement as S;
    match statement {
        S::Insert(_) | S::Update(_) | S::Delete(_) | S::Truncate(_) => true,
        S::Copy(copy) => matches!(**copy, CopyData::In { .. }),
        S::Subscribe(_) | S::VerifyMaterializedView(_) | S::Flush | S::Checkpoint => false,
        other => !runs_in_block(other),
    }
}

/// No rows, this tag.
pub(super) fn done(tag: &str) -> Response {
    Response::Done { tag: tag.to_owned() }
}

/// Columns of text.
pub(super) fn text_schema(names: &[&str]) -> SchemaRef {
    let fields: Vec<Field> =
        names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    Arc::new(Schema::new(fields))
}

/// The protocol's description of COPY data.
pub(super) fn copy_format(copy: &CopyData) -> CopyFormat {
    let format = match copy {
        CopyData::In { format, .. }
        | CopyData::OutRelation { format, .. }
        | CopyData::OutQuery { format, .. } => format,
    };
    CopyFormat {
        kind: match format.kind {
            statement::CopyKind::Text => CopyKind::Text,
            statement::CopyKind::Csv => CopyKind::Csv,
        },
        delimiter: format.delimiter,
        null: format.null.clone(),
        header: format.header,
        quote: format.quote,
        escape: format.escape,
    }
}

/// Microseconds since 1970.
pub(super) fn micros(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}
