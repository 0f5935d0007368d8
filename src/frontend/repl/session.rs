//! The shell's side of one connection: runs statements and prints what comes of them.
//!
//! While a statement runs, three things may happen: the server says something, the person
//! presses Ctrl-C (the statement is cancelled; a second time, the connection is dropped), or
//! time passes (a progress line on the terminal, rows of a feed).

use std::io::{self, IsTerminal};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::frontend::repl::client::{
    Client, ClientError, Event, QueryResult, ServerMessage, Target,
};
use crate::frontend::repl::output::{Output, OutputError, Reader, ResultPrinter, write_stderr};
use crate::frontend::repl::report::{self, Color};
use crate::frontend::repl::script::line_and_column;
use crate::observe::clock::Clock;

/// How often the progress line and feeds are looked after.
const TICK: Duration = Duration::from_millis(100);
/// A statement shorter than this has no progress line.
const PROGRESS_AFTER: Duration = Duration::from_millis(500);
/// COPY data sent in one message.
const COPY_BYTES_MAX: usize = 64 << 10;

/// One connection with its settings.
pub struct Session {
    pub target: Target,
    /// `None` after the connection broke, until the next statement.
    client: Option<Client>,
    /// Ctrl-C. Once this exists, the signal no longer ends the process.
    interrupts: Signal,
    pub output: Output,
    pub color: Color,
    pub clock: Clock,
    /// Print how long each statement took.
    pub timing: bool,
    /// The statement is the shell's and not the user's: its text is not shown with an error.
    pub own_statement: bool,
    /// Print a line for each value.
    pub expanded: bool,
    /// The last statement, for `\watch` and `\g`.
    pub last_statement: Option<String>,
    /// A statement may have changed what names exist.
    pub names_changed: bool,
}

/// How a statement ended.
#[derive(Debug)]
pub enum Outcome {
    Done,
    /// The server refused; it has been printed.
    Failed,
    /// The person stopped it.
    Cancelled,
}

/// Where a statement stands, for error messages of files.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub file: &'a str,
    pub text: &'a str,
    /// Bytes of `text` before the statement.
    pub start: usize,
}

/// What the events of one statement have amounted to.
struct Running {
    printer: Option<ResultPrinter>,
    /// Data of a COPY went out; a tag behind it would look like data.
    copied_out: bool,
    following: bool,
    failure: Option<ServerMessage>,
    interrupt_count: u32,
    started: Duration,
    progress_shown: bool,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers, or the server refuses.
    pub async fn connect(target: Target, output: Output) -> Result<Session, ClientError> {
        let client = Client::connect(&target).await?;
        let wanted = std::env::var_os("NO_COLOR").is_none();
        let terminal = output.is_terminal() && io::stderr().is_terminal();
        Ok(Session {
            target,
            client: Some(client),
            interrupts: signal(SignalKind::interrupt())?,
            output,
            color: if wanted && terminal { Color::Always } else { Color::Never },
            clock: Clock::system(),
            timing: false,
            own_statement: false,
            expanded: false,
            last_statement: None,
            names_changed: true,
        })
    }

    /// Connects anew, to another database or after the connection broke.
    ///
    /// # Errors
    /// As [`Session::connect`]; the old connection stays.
    pub async fn reconnect(&mut self, target: Target) -> Result<(), ClientError> {
        self.client = Some(Client::connect(&target).await?);
        self.target = target;
        self.names_changed = true;
        Ok(())
    }

    /// What the server calls its version; empty while there is no connection.
    pub fn server_version(&self) -> &str {
        self.client.as_ref().map_or("", Client::server_version)
    }

    async fn take_client(&mut self) -> Result<Client, ClientError> {
        match self.client.take() {
            Some(client) => Ok(client),
            None => Client::connect(&self.target).await,
        }
    }

    /// What the prompt shows of the transaction block.
    pub fn transaction_mark(&self) -> &'static str {
        self.client.as_ref().map_or("", Client::transaction_mark)
    }

    /// Runs one statement and prints its results. `copy_data` gives the data of a
    /// `COPY ... FROM STDIN`, or `None` to give up.
    ///
    /// # Errors
    /// When the connection breaks, or output fails. What the server refuses is an [`Outcome`].
    pub async fn run(
        &mut self,
        sql: &str,
        place: Option<Place<'_>>,
        copy_data: &mut (dyn FnMut() -> Option<String> + Send),
    ) -> Result<Outcome, ClientError> {
        self.last_statement = Some(sql.to_owned());
        let mut client = self.take_client().await?;
        let outcome = self.run_on(&mut client, sql, place, copy_data).await;
        self.output.finish_paging();
        match outcome {
            Ok(Some(outcome)) => {
                self.client = Some(client);
                Ok(outcome)
            }
            Ok(None) => Ok(Outcome::Cancelled),
            Err(error) => Err(error),
        }
    }

    /// `None` when the person gave the connection up.
    async fn run_on(
        &mut self,
        client: &mut Client,
        sql: &str,
        place: Option<Place<'_>>,
        copy_data: &mut (dyn FnMut() -> Option<String> + Send),
    ) -> Result<Option<Outcome>, ClientError> {
        let mut running = Running {
            printer: None,
            copied_out: false,
            following: is_feed(sql),
            failure: None,
            interrupt_count: 0,
            started: self.clock.elapsed(),
            progress_shown: false,
        };
        client.send(sql).await?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                event = client.next() => match event? {
                    Event::Ready => break,
                    Event::CopyIn => send_copy_data(client, copy_data()).await?,
                    event => {
                        let reader = self.handle(&mut running, event, sql)?;
                        if reader == Reader::Gone && running.interrupt_count == 0 {
                            running.interrupt_count = 1;
                            client.canceller().cancel().await?;
                        }
                    }
                },
                _ = self.interrupts.recv() => {
                    running.interrupt_count += 1;
                    if running.interrupt_count > 1 {
                        self.hide_progress(&mut running)?;
                        self.complain("the server did not stop the statement; disconnected")?;
                        return Ok(None);
                    }
                    client.canceller().cancel().await?;
                }
                _ = ticks.tick() => self.tick(&mut running)?,
            }
        }
        self.finish(running, sql, place).map(Some)
    }

    /// One thing that the server said.
    fn handle(
        &mut self,
        running: &mut Running,
        event: Event,
        sql: &str,
    ) -> Result<Reader, OutputError> {
        match event {
            Event::Columns(columns) => {
                let printer = ResultPrinter::new(columns, self.expanded, running.following);
                running.printer = Some(printer);
            }
            Event::Row(row) => {
                if let Some(printer) = &mut running.printer {
                    let reader = printer.push(row, &mut self.output)?;
                    if printer.has_printed() {
                        self.hide_progress(running)?;
                    }
                    return Ok(reader);
                }
            }
            Event::Complete(tag) => {
                self.hide_progress(running)?;
                let had_rows = running.printer.is_some() || running.copied_out;
                if let Some(printer) = running.printer.take() {
                    printer.finish(&mut self.output)?;
                }
                let verb = tag.split(' ').next().unwrap_or("");
                let writes = matches!(verb, "INSERT" | "UPDATE" | "DELETE");
                if !had_rows || writes {
                    self.output.write(&format!("{tag}\n"))?;
                }
                self.names_changed |= matches!(verb, "CREATE" | "DROP" | "ALTER");
            }
            Event::CopyOut(data) => {
                running.copied_out = true;
                self.hide_progress(running)?;
                return self.output.write(&String::from_utf8_lossy(&data));
            }
            Event::Notice(notice) => {
                self.hide_progress(running)?;
                write_stderr(&report::message(&notice, sql, self.color))?;
            }
            Event::Error(error) => running.failure = Some(error),
            Event::Empty | Event::CopyIn | Event::Ready => {}
        }
        Ok(Reader::Present)
    }

    fn tick(&mut self, running: &mut Running) -> Result<(), OutputError> {
        if let Some(printer) = &mut running.printer {
            printer.flush_following(&mut self.output)?;
        }
        let elapsed = self.clock.elapsed().saturating_sub(running.started);
        let printed = running.printer.as_ref().is_some_and(ResultPrinter::has_printed);
        if elapsed < PROGRESS_AFTER || printed || self.color == Color::Never {
            return Ok(());
        }
        const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
        let turn = (elapsed.as_millis() / TICK.as_millis()) as usize % SPINNER.len();
        let rows = match running.printer.as_ref().map_or(0, ResultPrinter::row_count) {
            0 => String::new(),
            count => format!(", {count} rows"),
        };
        let state = if running.interrupt_count > 0 { "stopping" } else { "Ctrl-C stops it" };
        let line = format!("{} {:.1} s{rows}, {state}", SPINNER[turn], elapsed.as_secs_f64());
        running.progress_shown = true;
        write_stderr(&format!("\r\x1b[2K{}", self.color.dim(&line)))
    }

    fn hide_progress(&mut self, running: &mut Running) -> Result<(), OutputError> {
        if std::mem::take(&mut running.progress_shown) {
            write_stderr("\r\x1b[2K")?;
        }
        Ok(())
    }

    /// The statement's end: what is left to print, and the failure.
    fn finish(
        &mut self,
        mut running: Running,
        sql: &str,
        place: Option<Place<'_>>,
    ) -> Result<Outcome, ClientError> {
        self.hide_progress(&mut running)?;
        if let Some(mut printer) = running.printer.take() {
            // Failed after some rows: a feed that was stopped, usually. Its rows count.
            printer.flush_following(&mut self.output)?;
        }
        self.output.finish_paging();
        let elapsed = self.clock.elapsed().saturating_sub(running.started);
        let outcome = self.report_failure(running, sql, place)?;
        if self.timing && !self.own_statement {
            self.output.write(&format!("Time: {}\n", elapsed_text(elapsed)))?;
        }
        Ok(outcome)
    }

    /// What became of a statement whose results are printed; a failure is told.
    fn report_failure(
        &self,
        running: Running,
        sql: &str,
        place: Option<Place<'_>>,
    ) -> Result<Outcome, ClientError> {
        let Some(mut failure) = running.failure else { return Ok(Outcome::Done) };
        if self.own_statement {
            failure.position = None;
        }
        if running.interrupt_count > 0 && failure.sqlstate == QUERY_CANCELED {
            if running.following {
                return Ok(Outcome::Cancelled);
            }
            write_stderr(&self.color.dim("cancelled\n"))?;
            return Ok(Outcome::Cancelled);
        }
        let place = place.map(|place| place_text(place, failure.position)).unwrap_or_default();
        write_stderr(&format!("{place}{}", report::message(&failure, sql, self.color)))?;
        Ok(Outcome::Failed)
    }

    /// Rows of a query for the shell's own use; Ctrl-C cancels.
    ///
    /// # Errors
    /// What the server or the connection failed with.
    pub async fn query(&mut self, sql: &str) -> Result<QueryResult, ClientError> {
        // Taken out, so that a caller who stops waiting leaves no half-read connection behind.
        let mut client = self.take_client().await?;
        let outcome = client.query(sql).await;
        if !matches!(outcome, Err(ClientError::Connection(_))) {
            self.client = Some(client);
        }
        outcome
    }

    /// A line about the shell's own trouble.
    ///
    /// # Errors
    /// When standard error is closed.
    pub fn complain(&self, text: &str) -> Result<(), OutputError> {
        write_stderr(&format!("{text}\n"))
    }

    /// Waits for Ctrl-C, at most `time`; whether it came.
    pub async fn interrupted_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.interrupts.recv()).await.is_ok()
    }
}

const QUERY_CANCELED: &str = "57014";

/// Whether rows of the statement are to be seen as they come.
fn is_feed(sql: &str) -> bool {
    let word = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
    word.eq_ignore_ascii_case("SUBSCRIBE")
}

async fn send_copy_data(client: &mut Client, data: Option<String>) -> Result<(), ClientError> {
    let Some(data) = data else {
        return client.end_copy(Some("the input ended")).await;
    };
    for chunk in data.as_bytes().chunks(COPY_BYTES_MAX) {
        client.send_copy_data(chunk).await?;
    }
    client.end_copy(None).await
}

/// `file:line:column: ` of an error.
fn place_text(place: Place<'_>, position: Option<usize>) -> String {
    let statement = &place.text[place.start..];
    let ahead = position.map_or(0, |position| {
        statement.char_indices().nth(position.saturating_sub(1)).map_or(0, |(at, _)| at)
    });
    let (line, column) = line_and_column(place.text, place.start + ahead);
    format!("{}:{line}:{column}: ", place.file)
}

/// As psql prints times: `0.512 ms`, `61234.000 ms (01:01.234)`.
fn elapsed_text(elapsed: Duration) -> String {
    let millis = elapsed.as_secs_f64() * 1e3;
    if elapsed < Duration::from_secs(1) {
        return format!("{millis:.3} ms");
    }
    let seconds = elapsed.as_secs_f64() % 60.0;
    format!("{millis:.3} ms ({:02}:{seconds:06.3})", elapsed.as_secs() / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_are_known_by_their_first_word() {
        assert!(is_feed("subscribe t"));
        assert!(is_feed("SUBSCRIBE(SELECT 1)"));
        assert!(!is_feed("SELECT subscribe"));
        assert!(!is_feed("subscribers"));
        assert!(!is_feed(""));
    }

    #[test]
    fn times_read_as_in_psql() {
        assert_eq!(elapsed_text(Duration::from_micros(512)), "0.512 ms");
        assert_eq!(elapsed_text(Duration::from_millis(61_234)), "61234.000 ms (01:01.234)");
    }

    #[test]
    fn errors_in_files_name_line_and_column() {
        let text = "SELECT 1;\n  SELECT é, x;";
        let place = Place { file: "a.sql", text, start: text.rfind("SELECT").unwrap() };
        assert_eq!(place_text(place, None), "a.sql:2:3: ");
        assert_eq!(place_text(place, Some(11)), "a.sql:2:13: ");
        assert_eq!(place_text(place, Some(1_000)), "a.sql:2:3: ");
    }
}
