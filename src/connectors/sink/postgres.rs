//! A table of a Postgres database.
//!
//! A batch is one transaction of the target:
//!
//! 1. The sink's row in the progress table is locked. If the batch that it names is this one or a
//!    later one, the target has this batch: nothing is done. So a repeated commit is recognised, and
//!    a server that has been replaced cannot write an old batch over a newer one.
//! 2. Rows go by COPY: into the table itself (`append`), or into a temporary table, from which keys
//!    that have gone are deleted and rows that have come are merged by `INSERT ... ON CONFLICT`
//!    (`upsert`).
//! 3. The batch's name is written into the progress table, and all of it is committed.
//!
//! A connection that fails is thrown away, which takes its transaction back.

use std::collections::HashSet;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute;
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{SinkExt, pin_mut};
use tokio_postgres::{Client, Config, NoTls, Transaction};

use crate::connectors::options::{Connector, OptionSpec, Options};
use crate::connectors::sink::postgres_types::{copy_text, declared_type};
use crate::connectors::sink::{
    Batch, Committed, SinkConnector, SinkInput, Target, key_columns, rows_of, types_of,
};
use crate::storage::sinks::BatchId;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;
use crate::types::text::quote::quote_ident;

/// The connector's entry in the list.
pub const CONNECTOR: SinkConnector = SinkConnector {
    connector: Connector {
        name: "postgres",
        doc: "A table of a Postgres database.",
        options: &[
            OptionSpec::required("url", &[], "text", "postgres://user:password@host:port/database"),
            OptionSpec::required("table", &[], "name", "the table, with its schema or without"),
            OptionSpec::optional(
                "mode",
                &["type"],
                "upsert | append",
                "",
                "`upsert`: the table follows the query, by its key; `append`: rows are only added. \
                 By default `upsert` where there is a key",
            ),
            OptionSpec::optional(
                "primary_key",
                &["key"],
                "columns",
                "",
                "columns that tell rows apart; by default those that the query is known to have",
            ),
            OptionSpec::optional(
                "force_append_only",
                &[],
                "boolean",
                "false",
                "`append` of changing rows: forget that rows go",
            ),
            OptionSpec::optional(
                "create_table",
                &[],
                "boolean",
                "false",
                "make the table when it is missing",
            ),
            OptionSpec::optional(
                "progress_table",
                &[],
                "name",
                "millstream_progress",
                "where the target notes what it has; made when it is missing",
            ),
            OptionSpec::optional(
                "password_env",
                &[],
                "name",
                "",
                "the variable of the server's environment that has the password",
            ),
        ],
        open_prefixes: &[],
        source: None,
    },
    open,
    forgets: false,
};

/// How long to wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a target may be silent, in the middle of a batch.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Rows that are encoded at a time.
const COPY_ROWS: usize = 8192;
/// The temporary table of a batch, and its column for keys that have gone.
const STAGE: &str = "pg_temp.millstream_batch";
const GONE: &str = "millstream_gone";

struct Postgres {
    config: Config,
    input: SinkInput,
    types: Vec<SqlType>,
    /// As SQL.
    table: String,
    progress: String,
    /// `None`: rows are only added.
    key: Option<Vec<usize>>,
    create_table: bool,
    client: Option<Client>,
}

fn open(options: &Options, input: &SinkInput) -> Result<Box<dyn Target>> {
    let types = types_of(&input.schema)?;
    if types.is_empty() {
        return Err(Error::user(
            SqlState::INVALID_TABLE_DEFINITION,
            "a table in Postgres needs a column",
        ));
    }
    let key = key_columns(options, "primary_key", input)?;
    let key = key.filter(|key| !key.is_empty());
    let forced = options.boolean("force_append_only")?.unwrap_or(false);
    let may_append = input.append_only || forced;
    let mode = options.one_of("mode", &["upsert", "append"])?;
    let key = match (mode, key) {
        (Some("append"), _) | (None, None) if may_append => None,
        (Some("append"), _) => {
            return Err(Error::unsupported("appending rows that may change or go").hint(
                "Use mode = 'upsert' with a primary_key, or force_append_only = true to forget \
                 rows that go.",
            ));
        }
        (_, Some(key)) => Some(key),
        (_, None) => {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                "option \"primary_key\" is missing",
            )
            .detail("The query is not known to have columns that tell its rows apart.")
            .hint("Name them: primary_key = 'a, b'."));
        }
    };
    let table = quoted(options.required("table")?)?;
    let progress = quoted(options.get("progress_table").unwrap_or("millstream_progress"))?;
    Ok(Box::new(Postgres {
        config: config(options)?,
        input: input.clone(),
        types,
        table,
        progress,
        key,
        create_table: options.boolean("create_table")?.unwrap_or(false),
        client: None,
    }))
}

fn config(options: &Options) -> Result<Config> {
    let url = options.required("url")?;
    let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        // The text of the URL may have a password.
        Error::user(SqlState::INVALID_PARAMETER_VALUE, "option \"url\" cannot be read")
            .detail(error.to_string())
            .hint("Write postgres://user:password@host:port/database.")
    })?;
    if config.get_ssl_mode() == tokio_postgres::config::SslMode::Require {
        return Err(Error::unsupported("sslmode=require").hint("Connections are not encrypted."));
    }
    if let Some(name) = options.get("password_env") {
        let password = std::env::var(name).map_err(|_| {
            Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"password_env\": the server has no variable \"{name}\""),
            )
        })?;
        config.password(password);
    }
    if config.get_application_name().is_none() {
        config.application_name("millstream sink");
    }
    config.connect_timeout(CONNECT_MAX);
    config.keepalives_idle(Duration::from_secs(15));
    config.tcp_user_timeout(SILENCE_MAX);
    Ok(config)
}

/// A name of one or two parts as SQL. Parts are taken as they are written.
fn quoted(name: &str) -> Result<String> {
    let parts: Vec<&str> = name.split('.').collect();
    if parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("\"{name}\" is not the name of a table"),
        )
        .hint("Write table or schema.table."));
    }
    Ok(parts.into_iter().map(quote_ident).collect::<Vec<_>>().join("."))
}

/// What the target says, and whether it is there at all.
fn failed(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(db) => {
            let message = format!("the target says: {} ({})", db.message(), db.code().code());
            let failed = Error::external(SqlState("HV000"), message);
            let detail = db.detail().or(db.hint());
            match detail {
                Some(detail) => failed.detail(detail.to_owned()),
                None => failed,
            }
        }
        None => {
            let mut text = error.to_string();
            if let Some(cause) = std::error::Error::source(&error) {
                text = format!("{text}: {cause}");
            }
            Error::external(SqlState("08006"), format!("the target cannot be reached: {text}"))
        }
    }
}

impl Postgres {
    /// A connection that works as far as is known.
    async fn client(&mut self) -> Result<Client> {
        if let Some(client) = self.client.take().filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        let (client, connection) = self.config.connect(NoTls).await.map_err(failed)?;
        // Ends when the client is dropped; what it says is said by the client's calls, too.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    fn column_names(&self) -> Vec<String> {
        self.input.schema.fields().iter().map(|field| quote_ident(field.name())).collect()
    }

    /// `INSERT ... ON CONFLICT` from a query, as SQL.
    fn merge(&self, key: &[usize], from: &str) -> String {
        let names = self.column_names();
        let list = names.join(", ");
        let keys: Vec<&str> = key.iter().map(|column| names[*column].as_str()).collect();
        let others = names.iter().enumerate().filter(|(index, _)| !key.contains(index));
        let set: Vec<String> =
            others.map(|(_, name)| format!("{name} = excluded.{name}")).collect();
        let action = match set.is_empty() {
            true => "NOTHING".to_owned(),
            false => format!("UPDATE SET {}", set.join(", ")),
        };
        format!(
            "INSERT INTO {} ({list}) SELECT {list} FROM {from} ON CONFLICT ({}) DO {action}",
            self.table,
            keys.join(", ")
        )
    }

    fn create_table_sql(&self) -> String {
        let fields = self.input.schema.fields();
        let mut columns: Vec<String> = fields
            .iter()
            .zip(&self.types)
            .map(|(field, t)| format!("{} {}", quote_ident(field.name()), declared_type(field, t)))
            .collect();
        if let Some(key) = &self.key {
            let names: Vec<String> =
                key.iter().map(|column| quote_ident(fields[*column].name())).collect();
            // NULL is a value of a key here.
            let nullable = key.iter().any(|column| fields[*column].is_nullable());
            let kind = if nullable { "UNIQUE NULLS NOT DISTINCT" } else { "PRIMARY KEY" };
            columns.push(format!("{kind} ({})", names.join(", ")));
        }
        format!("CREATE TABLE IF NOT EXISTS {} ({})", self.table, columns.join(", "))
    }

    async fn prepare_with(&self, client: &Client) -> Result<()> {
        let missing = |table: String| async move {
            let row = client.query_one("SELECT to_regclass($1) IS NULL", &[&table]).await;
            row.map(|row| row.get::<_, bool>(0)).map_err(failed)
        };
        if missing(self.progress.clone()).await? {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {} (identity text PRIMARY KEY, sink text NOT NULL, \
                 generation bigint NOT NULL, epoch bigint NOT NULL, \
                 committed_at timestamptz NOT NULL DEFAULT now())",
                self.progress
            );
            client.batch_execute(&sql).await.map_err(failed)?;
        }
        if self.create_table && missing(self.table.clone()).await? {
            client.batch_execute(&self.create_table_sql()).await.map_err(failed)?;
        }
        // Whether it has the columns, and the key a constraint.
        let from = format!("{} WHERE false", self.table);
        let sql = match &self.key {
            Some(key) => format!("EXPLAIN {}", self.merge(key, &from)),
            None => format!("EXPLAIN SELECT {} FROM {from}", self.column_names().join(", ")),
        };
        client.batch_execute(&sql).await.map_err(failed)
    }

    async fn commit_with(&self, client: &mut Client, batch: &Batch<'_>) -> Result<Committed> {
        let transaction = client.transaction().await.map_err(failed)?;
        if self.lock_progress(&transaction).await? >= Some(batch.id) {
            transaction.rollback().await.map_err(failed)?;
            let rows = batch.changes.iter().map(|changes| changes.num_rows() as u64).sum();
            return Ok(Committed { rows, bytes: 0 });
        }
        let committed = match &self.key {
            Some(key) => self.upsert(&transaction, key, batch.changes).await?,
            None => {
                let rows = rows_of(batch.changes, true)?;
                let names = self.column_names().join(", ");
                let sql = format!("COPY {} ({names}) FROM STDIN", self.table);
                self.copy(&transaction, &sql, &rows, None).await?
            }
        };
        let sql = format!(
            "UPDATE {} SET sink = $2, generation = $3, epoch = $4, committed_at = now() \
             WHERE identity = $1",
            self.progress
        );
        let BatchId { generation, epoch } = batch.id;
        let (generation, epoch) = (to_bigint(generation), to_bigint(epoch));
        let (identity, name) = (&self.input.identity, &self.input.name);
        transaction.execute(&sql, &[identity, name, &generation, &epoch]).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(committed)
    }

    /// Locks the sink's row; the newest batch that the target has.
    async fn lock_progress(&self, transaction: &Transaction<'_>) -> Result<Option<BatchId>> {
        let sql = format!(
            "INSERT INTO {} (identity, sink, generation, epoch) VALUES ($1, $2, -1, -1) \
             ON CONFLICT (identity) DO NOTHING",
            self.progress
        );
        let (identity, name) = (&self.input.identity, &self.input.name);
        transaction.execute(&sql, &[identity, name]).await.map_err(failed)?;
        let sql = format!(
            "SELECT generation, epoch FROM {} WHERE identity = $1 FOR UPDATE",
            self.progress
        );
        let row = transaction.query_one(&sql, &[identity]).await.map_err(failed)?;
        let number = |column: usize| u64::try_from(row.get::<_, i64>(column)).ok();
        let noted = number(0).zip(number(1));
        Ok(noted.map(|(generation, epoch)| BatchId { generation, epoch }))
    }

    async fn upsert(
        &self,
        transaction: &Transaction<'_>,
        key: &[usize],
        changes: &[ChangeBatch],
    ) -> Result<Committed> {
        let (came, gone) = self.by_key(key, changes)?;
        let names = self.column_names();
        let list = names.join(", ");
        // The table's own types, and none of its constraints.
        let sql = format!(
            "CREATE TEMP TABLE millstream_batch ON COMMIT DROP AS \
             SELECT {list}, false AS {GONE} FROM {} WITH NO DATA",
            self.table
        );
        transaction.batch_execute(&sql).await.map_err(failed)?;
        let sql = format!("COPY {STAGE} ({list}, {GONE}) FROM STDIN");
        let mut done = self.copy(transaction, &sql, &came, Some("f")).await?;
        if !gone.is_empty() {
            let deleted = self.copy(transaction, &sql, &gone, Some("t")).await?;
            done.rows += deleted.rows;
            done.bytes += deleted.bytes;
            let fields = self.input.schema.fields();
            let equal = key.iter().map(|column| {
                let name = &names[*column];
                match fields[*column].is_nullable() {
                    false => format!("t.{name} = b.{name}"),
                    // So that an index can be used.
                    true => {
                        format!("(t.{name} = b.{name} OR (t.{name} IS NULL AND b.{name} IS NULL))")
                    }
                }
            });
            let sql = format!(
                "DELETE FROM {} t USING {STAGE} b WHERE b.{GONE} AND {}",
                self.table,
                equal.collect::<Vec<_>>().join(" AND ")
            );
            transaction.batch_execute(&sql).await.map_err(failed)?;
        }
        if !came.is_empty() {
            let merge = self.merge(key, &format!("{STAGE} WHERE NOT {GONE}"));
            transaction.batch_execute(&merge).await.map_err(failed)?;
        }
        Ok(done)
    }

    /// Rows that come, one for each key at most, and those whose keys go.
    fn by_key(
        &self,
        key: &[usize],
        changes: &[ChangeBatch],
    ) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>)> {
        let fields = self.input.schema.fields();
        let sort = key.iter().map(|c| SortField::new(fields[*c].data_type().clone())).collect();
        let converter = RowConverter::new(sort)?;
        let keys_of = |rows: &RecordBatch| -> Result<arrow::row::Rows> {
            let columns: Vec<_> = key.iter().map(|c| rows.column(*c).clone()).collect();
            Ok(converter.convert_columns(&columns)?)
        };
        let came = rows_of(changes, true)?;
        let keys = came.iter().map(keys_of).collect::<Result<Vec<_>>>()?;
        let mut coming = HashSet::new();
        for rows in &keys {
            for row in rows {
                if !coming.insert(row) {
                    let names: Vec<&str> = key.iter().map(|c| fields[*c].name().as_str()).collect();
                    return Err(Error::user(
                        SqlState("21000"),
                        format!("two rows have the same {}", names.join(", ")),
                    )
                    .hint("Drop the sink, and name a primary_key that tells rows apart."));
                }
            }
        }
        let mut gone = Vec::new();
        for rows in rows_of(changes, false)? {
            let keys = keys_of(&rows)?;
            let goes: BooleanArray = keys.iter().map(|key| Some(!coming.contains(&key))).collect();
            let rows = compute::filter_record_batch(&rows, &goes)?;
            if rows.num_rows() > 0 {
                gone.push(rows);
            }
        }
        drop(coming);
        Ok((came, gone))
    }

    async fn copy(
        &self,
        transaction: &Transaction<'_>,
        sql: &str,
        rows: &[RecordBatch],
        last: Option<&str>,
    ) -> Result<Committed> {
        let mut done = Committed::default();
        if rows.is_empty() {
            return Ok(done);
        }
        let to = transaction.copy_in::<_, Bytes>(sql).await.map_err(failed)?;
        pin_mut!(to);
        for batch in rows {
            let mut offset = 0;
            while offset < batch.num_rows() {
                let length = COPY_ROWS.min(batch.num_rows() - offset);
                let text = copy_text(&batch.slice(offset, length), &self.types, last)?;
                done.bytes += text.len() as u64;
                to.send(text.freeze()).await.map_err(failed)?;
                offset += length;
            }
            done.rows += batch.num_rows() as u64;
        }
        to.finish().await.map_err(failed)?;
        Ok(done)
    }
}

/// Generations and epochs are far below the end of bigint.
fn to_bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[async_trait]
impl Target for Postgres {
    async fn prepare(&mut self) -> Result<()> {
        let client = self.client().await?;
        self.prepare_with(&client).await?;
        self.client = Some(client);
        Ok(())
    }

    async fn commit(&mut self, batch: &Batch<'_>) -> Result<Committed> {
        // Given back only when all went well.
        let mut client = self.client().await?;
        let committed = self.commit_with(&mut client, batch).await?;
        self.client = Some(client);
        Ok(committed)
    }

    async fn abort(&mut self) -> Result<()> {
        // Its transaction goes with it.
        self.client = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_part_by_part() {
        assert_eq!(quoted("a.b").expect("two parts"), "a.b");
        assert_eq!(quoted("My Table").expect("one part"), "\"My Table\"");
        for name in ["", "a.", ".b", "a.b.c"] {
            assert_eq!(quoted(name).expect_err(name).sqlstate().0, "22023");
        }
    }
}
