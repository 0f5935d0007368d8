//! Prepared statements and portals: the extended protocol's part of a session.
//!
//! A portal runs when it is first executed; with a limit on rows it is left half-way and goes on
//! where it was. Portals end with their transaction, at Sync where there is no block.

use std::sync::Arc;

use arrow::datatypes::Schema;
use bytes::Bytes;
use pgwire::messages::PgWireBackendMessage as Answer;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{BindComplete, ParseComplete, PortalSuspended};

use super::{Cursor, Ending, Session, Stop, counted, shift_position, watched};
use crate::coordinator::command::{Prepared, Response, TransactionStatus, Value};
use crate::frontend::decode::decode_parameter;
use crate::frontend::encode::{BatchEncoder, Format, describe};
use crate::frontend::message::Bind;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

/// Prepared statements, and portals, that one client may keep.
const KEPT_MAX: usize = 10_000;

/// The oid of `unknown`: a parameter whose type the client leaves open.
const UNKNOWN_OID: u32 = 705;

/// A statement of the extended protocol.
pub(super) struct NamedStatement {
    /// `None` for the empty statement.
    prepared: Option<Prepared>,
    /// As the client knows them: the types it declared, else those that were found out.
    parameter_oids: Vec<u32>,
}

impl NamedStatement {
    fn schema(&self) -> Option<&Schema> {
        self.prepared.as_ref().and_then(|p| p.columns.as_deref())
    }

    fn parameters(&self) -> &[SqlType] {
        self.prepared.as_ref().map_or(&[], |p| &p.parameters)
    }
}

/// A statement with values, ready to run or half-way through its rows.
pub(super) struct Portal {
    statement: Arc<NamedStatement>,
    values: Vec<Value>,
    formats: Vec<Format>,
    state: PortalState,
}

enum PortalState {
    Ready,
    Open(Box<Cursor>),
    /// All rows were sent; the tag is for whoever asks for more.
    Exhausted(String),
    /// It had no rows, and cannot be run again.
    Done,
}
impl Session {
    pub(super) async fn parse(
        &mut self,
        name: String,
        sql: &str,
        oids: &[u32],
    ) -> Result<(), Stop> {
        if name.is_empty() {
            // It goes even if the new one has a mistake.
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            return Err(Error::user(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            )
            .into());
        }
        check_kept(self.statements.len(), "prepared statements")?;
        let mut statements = self.connection.parse(sql)?;
        if statements.len() > 1 {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            )
            .into());
        }
        let named = match statements.pop() {
            None => NamedStatement { prepared: None, parameter_oids: Vec::new() },
            Some(statement) => {
                let types =
                    oids.iter().map(|oid| parameter_type(*oid)).collect::<Result<Vec<_>>>()?;
                let prepare = self.connection.prepare(&statement, &types);
                let prepared = watched(&mut self.socket, &self.stopping.now, prepare).await?;
                let prepared =
                    prepared.map_err(|e| shift_position(e.into(), statement.offset_chars()))?;
                let parameter_oids = prepared.parameters.iter().enumerate().map(|(place, t)| {
                    let declared = oids.get(place).copied().unwrap_or(0);
                    if matches!(declared, 0 | UNKNOWN_OID) { t.oid() } else { declared }
                });
                let parameter_oids = parameter_oids.collect();
                NamedStatement { prepared: Some(prepared), parameter_oids }
            }
        };
        self.statements.insert(name, Arc::new(named));
        self.put_notices()?;
        self.socket.put(&Answer::ParseComplete(ParseComplete::new()))?;
        Ok(())
    }

    pub(super) fn bind(&mut self, bind: Bind) -> Result<()> {
        let statement = self.statement(&bind.statement)?;
        if bind.portal.is_empty() {
            self.portals.remove("");
        } else if self.portals.contains_key(&bind.portal) {
            return Err(Error::user(
                SqlState::DUPLICATE_CURSOR,
                format!("cursor \"{}\" already exists", bind.portal),
            ));
        }
        check_kept(self.portals.len(), "portals")?;
        let types = statement.parameters();
        if bind.parameters.len() != types.len() {
            return Err(Error::user(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
                    bind.parameters.len(),
                    bind.statement,
                    types.len()
                ),
            ));
        }
        let formats = spread(&bind.parameter_formats, types.len()).ok_or_else(|| {
            Error::user(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message has {} parameter formats but {} parameters",
                    bind.parameter_formats.len(),
                    types.len()
                ),
            )
        })?;
        let values = self.decode(&bind.parameters, &formats, types)?;
        let columns = statement.schema().map_or(0, |schema| schema.fields().len());
        let formats = spread(&bind.result_formats, columns).ok_or_else(|| {
            Error::user(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message has {} result formats but query has {columns} columns",
                    bind.result_formats.len()
                ),
            )
        })?;
        let portal = Portal { statement, values, formats, state: PortalState::Ready };
        self.portals.insert(bind.portal, portal);
        self.socket.put(&Answer::BindComplete(BindComplete::new()))
    }

    fn decode(
        &self,
        parameters: &[Option<Bytes>],
        formats: &[Format],
        types: &[SqlType],
    ) -> Result<Vec<Value>> {
        let context = self.context();
        let mut values = Vec::with_capacity(types.len());
        for (place, sql_type) in types.iter().enumerate() {
            let value =
                decode_parameter(parameters[place].as_deref(), formats[place], sql_type, &context);
            let number = place + 1;
            values.push(value.map_err(|error| error.at(format!("portal parameter ${number}")))?);
        }
        Ok(values)
    }

    pub(super) fn describe_statement(&mut self, name: &str) -> Result<()> {
        let statement = self.statement(name)?;
        let types = ParameterDescription::new(statement.parameter_oids.clone());
        self.socket.put(&Answer::ParameterDescription(types))?;
        let columns = statement.schema().map_or(0, |schema| schema.fields().len());
        self.put_description(&statement, &vec![Format::Text; columns])
    }

    pub(super) fn describe_portal(&mut self, name: &str) -> Result<()> {
        // A cursor that was declared in SQL is a portal too.
        if !self.portals.contains_key(name)
            && let Some(schema) = self.connection.cursor_columns(name)
        {
            let formats = vec![Format::Text; schema.fields().len()];
            let description = describe(&schema, &formats)?;
            return self.socket.put(&Answer::RowDescription(description));
        }
        let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
        let (statement, formats) = (portal.statement.clone(), portal.formats.clone());
        self.put_description(&statement, &formats)
    }

    fn put_description(&mut self, statement: &NamedStatement, formats: &[Format]) -> Result<()> {
        let answer = match statement.schema() {
            Some(schema) => Answer::RowDescription(describe(schema, formats)?),
            None => Answer::NoData(NoData::new()),
        };
        self.socket.put(&answer)
    }

    fn statement(&self, name: &str) -> Result<Arc<NamedStatement>> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!("prepared statement \"{name}\" does not exist")
            };
            Error::user(SqlState::INVALID_SQL_STATEMENT_NAME, message)
        })
    }

    pub(super) async fn execute(&mut self, name: String, rows_max: usize) -> Result<(), Stop> {
        // Out of the map while it runs: after an error it is gone.
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        let offset = portal.statement.prepared.as_ref().map_or(0, |p| p.statement.offset_chars());
        let status = self.connection.transaction_status();
        let ran = self.run_portal(&name, &mut portal, rows_max).await;
        ran.map_err(|stop| shift_position(stop, offset))?;
        let ended = status != TransactionStatus::Idle
            && self.connection.transaction_status() == TransactionStatus::Idle;
        if ended {
            self.portals.clear();
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    async fn run_portal(
        &mut self,
        name: &str,
        portal: &mut Portal,
        rows_max: usize,
    ) -> Result<(), Stop> {
        if let PortalState::Ready = portal.state {
            self.start_portal(portal).await?;
            if let PortalState::Done = portal.state {
                return Ok(());
            }
        }
        match &mut portal.state {
            PortalState::Ready => {}
            PortalState::Open(cursor) => {
                let (finished, sent) = self.send_rows(cursor, rows_max).await?;
                self.put_notices()?;
                if finished {
                    let tag = std::mem::take(&mut cursor.tag);
                    self.put_ending(Ending::Tag(counted(&tag, sent)))?;
                    portal.state = PortalState::Exhausted(tag);
                } else {
                    self.socket.put(&Answer::PortalSuspended(PortalSuspended::new()))?;
                }
            }
            PortalState::Exhausted(tag) => {
                let tag = counted(tag, 0);
                self.put_ending(Ending::Tag(tag))?;
            }
            PortalState::Done => {
                return Err(Error::user(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("portal \"{name}\" cannot be run"),
                )
                .into());
            }
        }
        Ok(())
    }

    /// Runs a portal's statement. Rows are left for the caller, with the portal `Open`; anything
    /// else is answered, and the portal is `Done`.
    async fn start_portal(&mut self, portal: &mut Portal) -> Result<(), Stop> {
        let statement = portal.statement.clone();
        let ending = match &statement.prepared {
            None => Ending::Empty,
            Some(prepared) => match self.deallocate(prepared.statement.sql())? {
                Some(ending) => ending,
                None => {
                    let execute = self.connection.execute(prepared, &portal.values);
                    let response = watched(&mut self.socket, &self.stopping.now, execute).await??;
                    if let Response::Rows { schema, rows, tag } = response {
                        check_described(statement.schema(), &schema)?;
                        let cursor = self.open(rows, tag, portal.formats.clone());
                        portal.state = PortalState::Open(Box::new(cursor));
                        return Ok(());
                    }
                    self.run_rowless(response).await?
                }
            },
        };
        self.put_notices()?;
        self.put_ending(ending)?;
        portal.state = PortalState::Done;
        Ok(())
    }

    /// DEALLOCATE of a statement that was prepared with a Parse message, which the connection does
    /// not know; any other is left to it.
    pub(super) fn deallocate(&mut self, sql: &str) -> Result<Option<Ending>> {
        let Some(target) = deallocated(sql) else { return Ok(None) };
        if self.connection.transaction_status() == TransactionStatus::Failed {
            return Ok(None);
        }
        match target {
            None => {
                self.statements.clear();
                Ok(None)
            }
            Some(name) => {
                Ok(self.statements.remove(&name).map(|_| Ending::Tag("DEALLOCATE".to_owned())))
            }
        }
    }

    /// MOVE in a portal that was opened with a Bind message, which the connection does not know; any
    /// other is left to it.
    pub(super) async fn move_portal(&mut self, sql: &str) -> Result<Option<Ending>, Stop> {
        let Some((rows_max, name)) = moved(sql) else { return Ok(None) };
        let Some(mut portal) = self.portals.remove(&name) else { return Ok(None) };
        if let PortalState::Ready = portal.state {
            self.start_portal(&mut portal).await?;
        }
        let mut skipped = 0;
        while let PortalState::Open(cursor) = &mut portal.state
            && skipped < rows_max
        {
            if let Some(batch) = &mut cursor.current {
                skipped += batch.skip(rows_max - skipped);
                if batch.is_done() {
                    cursor.current = None;
                }
                continue;
            }
            let stopping = self.stopping.now.clone();
            match self.next_batch(&mut cursor.rows, false, &stopping).await? {
                Some(batch) => {
                    let batch = BatchEncoder::new(&batch, &cursor.formats, cursor.style)?;
                    cursor.current = Some(batch);
                }
                None => portal.state = PortalState::Exhausted(std::mem::take(&mut cursor.tag)),
            }
        }
        self.portals.insert(name, portal);
        Ok(Some(Ending::Tag(format!("MOVE {skipped}"))))
    }
}

/// Formats as Bind sends them, one for each of `count`; `None` when they do not fit.
fn spread(formats: &[Format], count: usize) -> Option<Vec<Format>> {
    match formats {
        [] => Some(vec![Format::Text; count]),
        [one] => Some(vec![*one; count]),
        many => (many.len() == count).then(|| many.to_vec()),
    }
}

/// The type that a client declares for a parameter; `None` when it leaves it open.
fn parameter_type(oid: u32) -> Result<Option<SqlType>> {
    match oid {
        0 | UNKNOWN_OID => Ok(None),
        _ => SqlType::from_oid(oid).map(Some).ok_or_else(|| {
            Error::unsupported(format!("a parameter of the type with OID {oid}"))
                .hint("Leave the parameter's type open, or cast it to a type that SQL has here.")
        }),
    }
}

/// The client decodes rows by what it was told about them when the statement was described.
fn check_described(described: Option<&Schema>, schema: &Schema) -> Result<()> {
    let types = |schema: &Schema| -> Vec<_> {
        schema.fields().iter().map(|field| SqlType::of_field(field).map(|t| t.oid())).collect()
    };
    if described.map(types) == Some(types(schema)) {
        return Ok(());
    }
    Err(Error::user(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type"))
}

fn check_kept(count: usize, what: &str) -> Result<()> {
    if count < KEPT_MAX {
        return Ok(());
    }
    Err(Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("too many {what}"))
        .detail(format!("A client may keep {KEPT_MAX}."))
        .hint("Close those that are not needed any more."))
}

fn no_portal(name: &str) -> Error {
    Error::user(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}
/// What a DEALLOCATE names; `Some(None)` for ALL, `None` for any other statement.
fn deallocated(sql: &str) -> Option<Option<String>> {
    let mut words = sql.trim().trim_end_matches(';').split_whitespace();
    if !words.next()?.eq_ignore_ascii_case("deallocate") {
        return None;
    }
    let mut name = words.next()?;
    if name.eq_ignore_ascii_case("prepare") {
        name = words.next()?;
    }
    if words.next().is_some() {
        return None;
    }
    Some(match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(quoted) => Some(quoted.replace("\"\"", "\"")),
        None if name.eq_ignore_ascii_case("all") => None,
        None => Some(name.to_ascii_lowercase()),
    })
}

/// How far forward a MOVE goes, and in which portal; `None` for any other statement.
fn moved(sql: &str) -> Option<(usize, String)> {
    let mut words: Vec<&str> = sql.trim().trim_end_matches(';').split_whitespace().collect();
    let name = words.pop()?.trim_matches('"').to_owned();
    let words: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let (verb, rest) = words.split_first()?;
    if verb != "move" {
        return None;
    }
    let meaning: Vec<&str> = rest
        .iter()
        .map(String::as_str)
        .filter(|word| !["forward", "from", "in"].contains(word))
        .collect();
    match meaning.as_slice() {
        [] | ["next"] => Some((1, name)),
        ["all"] => Some((usize::MAX, name)),
        [count] => Some((count.parse().ok()?, name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deallocate_is_recognised() {
        for (sql, expected) in [
            ("DEALLOCATE s1", Some(Some("s1"))),
            ("deallocate prepare S1 ;", Some(Some("s1"))),
            ("DEALLOCATE \"a\"\"B\"", Some(Some("a\"B"))),
            ("DEALLOCATE ALL", Some(None)),
            ("DEALLOCATE", None),
            ("DEALLOCATE a b", None),
            ("SELECT 1", None),
        ] {
            let found = deallocated(sql);
            assert_eq!(found.as_ref().map(Option::as_deref), expected, "{sql}");
        }
    }

    #[test]
    fn move_is_recognised() {
        for (sql, expected) in [
            ("MOVE FORWARD 10 __asyncpg_1__", Some((10, "__asyncpg_1__"))),
            ("move all in c", Some((usize::MAX, "c"))),
            ("MOVE \"C\";", Some((1, "C"))),
            ("MOVE BACKWARD 1 c", None),
            ("FETCH 1 c", None),
            ("", None),
        ] {
            let found = moved(sql);
            assert_eq!(found.as_ref().map(|(n, name)| (*n, name.as_str())), expected, "{sql}");
        }
    }

    #[test]
    fn formats_are_spread() {
        use Format::{Binary, Text};
        assert_eq!(spread(&[], 2), Some(vec![Text, Text]));
        assert_eq!(spread(&[Binary], 2), Some(vec![Binary, Binary]));
        assert_eq!(spread(&[Binary, Text], 2), Some(vec![Binary, Text]));
        assert_eq!(spread(&[Binary, Text], 3), None);
        assert_eq!(spread(&[Binary], 0), Some(vec![]));
    }
}
