//! The interactive shell, and running files: an ordinary client of the Postgres protocol.
//!
//! | file | owns |
//! |---|---|
//! | `client.rs` | the protocol, as a person's client needs it |
//! | `script.rs` | a text cut into statements and commands |
//! | `session.rs` | runs a statement: results, errors, progress, Ctrl-C |
//! | `output.rs` | results on their way to the terminal or a pager |
//! | `table.rs` | rows as psql prints them |
//! | `report.rs` | errors with a caret below the place |
//! | `command.rs` | the list of backslash commands |
//! | `catalog.rs` | what the shell asks the catalog |
//! | `complete.rs` | the line editor's completion and multi-line input |
//! | `live.rs` | results that update in place |
//! | `demo.rs` | flights data and views over it, for a first look |

mod catalog;
pub mod client;
mod command;
mod complete;
mod demo;
mod live;
mod output;
mod report;
mod script;
mod session;
mod table;

use std::future::Future;
use std::io::{IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Cmd, CompletionType, Config, Editor, KeyEvent};

use crate::frontend::repl::client::ClientError;
pub use crate::frontend::repl::client::Target;
use crate::frontend::repl::command::Command;
use crate::frontend::repl::complete::{EditorHelper, Names};
use crate::frontend::repl::output::Output;
use crate::frontend::repl::script::{Piece, Script};
use crate::frontend::repl::session::{Outcome, Place, Session};
use crate::types::error::{Error, Result};

/// How a shell is started.
#[derive(Clone, Debug)]
pub struct ShellOptions {
    pub target: Target,
    /// Printed before the first prompt, on a terminal.
    pub banner: String,
    /// Where the demo's files may be written: a place that the server can read.
    pub demo_dir: PathBuf,
    /// Where lines are remembered across runs.
    pub history_file: PathBuf,
}

/// `\i` within `\i` within ..., at most.
const INCLUDE_DEPTH_MAX: usize = 16;
/// Lines that are remembered.
const HISTORY_LINES_MAX: usize = 10_000;

/// Runs the shell until `\q` or Ctrl-D; without a terminal, runs what the standard input holds
/// and stops at the first failure, which has been printed when this returns false.
///
/// # Errors
/// When the server cannot be reached or goes away.
pub async fn interact(options: ShellOptions) -> Result<bool> {
    let session = Session::connect(options.target.clone(), Output::stdout()).await?;
    let mut shell = Shell { session, options, names: Rc::default(), demo: None };
    let outcome = if std::io::stdin().is_terminal() {
        shell.interact().await.map(|()| true)
    } else {
        shell.run_standard_input().await
    };
    quiet_if_unread(outcome)
}

/// What is printed before the first prompt. `http` is there when the server is this process's own.
pub fn banner(target: &Target, http: Option<SocketAddr>) -> String {
    let Target { host, port, database, .. } = target;
    let mut text = format!("Millstream {}\n\n", env!("CARGO_PKG_VERSION"));
    text += &format!("  psql    psql -h {host} -p {port} {database}\n");
    if let Some(http) = http {
        text += &format!("  health  http://{http}/health\n");
    }
    text += "\n\\demo sets up flights data and shows a live view, \\? lists the commands.\n\n";
    text
}

/// Runs a file of statements and commands and prints their results. Stops at the first failure, which has
/// been printed with its place when this returns false.
///
/// # Errors
/// When the file cannot be read, or the server goes away.
pub async fn run_file(target: Target, path: &Path) -> Result<bool> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::from(error).context(path.display()))?;
    let mut session = Session::connect(target.clone(), Output::stdout()).await?;
    session.output.paging = false;
    let nowhere = std::env::temp_dir();
    let options = ShellOptions {
        target,
        banner: String::new(),
        demo_dir: nowhere.join("millstream-demo"),
        history_file: nowhere.join("millstream-history"),
    };
    let mut shell = Shell { session, options, names: Rc::default(), demo: None };
    let outcome = shell.run_text(&text, Some(&path.display().to_string()), 0).await;
    quiet_if_unread(outcome.map(|next| next != Next::Failed))
}

/// Gives the terminal back as a line was being typed, when the process ends in the middle of it.
pub fn restore_terminal() {
    if std::io::stdin().is_terminal() {
        // What the editor saved is on its thread, which waits for a key.
        let _ = std::process::Command::new("stty").arg("sane").status();
        // Pasted text is no longer marked.
        let _ = std::io::stdout().write_all(b"\x1b[?2004l\n");
    }
}

/// A reader who has seen enough (`| head`) is no failure.
fn quiet_if_unread(outcome: Result<bool, ClientError>) -> Result<bool> {
    match outcome {
        Err(ClientError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Ok(true)
        }
        other => Ok(other?),
    }
}

/// A person's shell.
struct Shell {
    session: Session,
    options: ShellOptions,
    /// What Tab completes; shared with the editor.
    names: Names,
    /// The demo that was started last.
    demo: Option<demo::RunningDemo>,
}

/// Whether the shell goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    /// Something failed: a file stops here, a person goes on.
    Failed,
    Quit,
}

type LineEditor = Editor<EditorHelper, FileHistory>;

impl Shell {
    async fn interact(&mut self) -> Result<(), ClientError> {
        let mut editor = self.editor().map_err(editor_failed)?;
        self.session.output.write(&self.options.banner)?;
        loop {
            if std::mem::take(&mut self.session.names_changed) {
                self.refresh_names().await;
            }
            let prompt =
                format!("{}={}> ", self.session.target.database, self.session.transaction_mark());
            // The editor blocks this thread, which has nothing else to do.
            match tokio::task::block_in_place(|| editor.readline(&prompt)) {
                Ok(line) => {
                    self.remember(&mut editor, &line);
                    let next = match self.run_text(&line, None, 0).await {
                        Ok(next) => next,
                        Err(error @ ClientError::Output(_)) => return Err(error),
                        Err(error) => {
                            self.session.complain(&error.to_string())?;
                            Next::Failed
                        }
                    };
                    if next == Next::Quit {
                        return Ok(());
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(editor_failed(error)),
            }
        }
    }

    fn editor(&self) -> rustyline::Result<LineEditor> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .max_history_size(HISTORY_LINES_MAX)?
            .history_ignore_space(true)
            .tab_stop(4)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(EditorHelper::new(self.names.clone(), self.session.color)));
        editor.bind_sequence(KeyEvent::alt('p'), Cmd::HistorySearchBackward);
        editor.bind_sequence(KeyEvent::alt('n'), Cmd::HistorySearchForward);
        // There is none at the first start.
        let _ = editor.load_history(&self.options.history_file);
        Ok(editor)
    }

    /// A history that cannot be written is not worth a failure.
    fn remember(&self, editor: &mut LineEditor, line: &str) {
        if !line.trim().is_empty() && editor.add_history_entry(line).unwrap_or(false) {
            let file = &self.options.history_file;
            let _ = editor.append_history(file).or_else(|_| editor.save_history(file));
        }
    }

    async fn run_standard_input(&mut self) -> Result<bool, ClientError> {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        Ok(self.run_text(&text, Some("<stdin>"), 0).await? != Next::Failed)
    }

    /// Runs statements and commands. With a file's name, errors name their place, and the first
    /// one ends it.
    fn run_text<'a>(
        &'a mut self,
        text: &'a str,
        file: Option<&'a str>,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = Result<Next, ClientError>> + 'a>> {
        // Boxed, because a file may include files.
        Box::pin(async move {
            let mut script = Script::new(text);
            let mut ended = false;
            while !ended {
                let piece = match script.next_piece() {
                    Some(piece) => piece,
                    None => match script.unfinished() {
                        Some(piece) => {
                            ended = true;
                            piece
                        }
                        None => break,
                    },
                };
                let next = match piece {
                    Piece::Statement { sql, start } => {
                        let place = file.map(|file| Place { file, text, start });
                        self.run_statement(sql, place, &mut script).await?
                    }
                    // The statement before it has just been run.
                    Piece::Command { line: "g", after_statement: true } => Next::GoOn,
                    Piece::Command { line, .. } => self.run_command(line, depth).await?,
                };
                match next {
                    Next::GoOn => {}
                    Next::Failed if file.is_none() => {}
                    stop => return Ok(stop),
                }
            }
            Ok(Next::GoOn)
        })
    }

    async fn run_statement(
        &mut self,
        sql: &str,
        place: Option<Place<'_>>,
        script: &mut Script<'_>,
    ) -> Result<Next, ClientError> {
        let in_file = place.is_some();
        let mut copy_data = || match in_file {
            true => Some(script.copy_data().to_owned()),
            false => tokio::task::block_in_place(read_copy_data),
        };
        Ok(match self.session.run(sql, place, &mut copy_data).await? {
            Outcome::Done => Next::GoOn,
            Outcome::Failed | Outcome::Cancelled => Next::Failed,
        })
    }

    async fn run_command(&mut self, line: &str, depth: usize) -> Result<Next, ClientError> {
        let command = match command::parse(line) {
            Ok(command) => command,
            Err(problem) => {
                self.session.complain(&problem)?;
                return Ok(Next::Failed);
            }
        };
        match command {
            Command::Quit => return Ok(Next::Quit),
            Command::Help => {
                self.session.output.write(&command::help())?;
            }
            Command::Expanded(on) => {
                self.session.expanded = on.unwrap_or(!self.session.expanded);
                self.say_switch("Expanded display", self.session.expanded)?;
            }
            Command::Timing(on) => {
                self.session.timing = on.unwrap_or(!self.session.timing);
                self.say_switch("Timing", self.session.timing)?;
            }
            Command::ConnectionInfo => {
                let target = &self.session.target;
                let text = format!(
                    "Connected to database \"{}\" as user \"{}\" at {}:{}, server {}.\n",
                    target.database,
                    target.user,
                    target.host,
                    target.port,
                    self.session.server_version()
                );
                self.session.output.write(&text)?;
            }
            Command::Connect(database) => {
                let mut target = self.session.target.clone();
                target.database = database.unwrap_or(target.database);
                self.session.reconnect(target).await?;
                return Box::pin(self.run_command("conninfo", depth)).await;
            }
            Command::Describe(None) => return self.run_internal(&catalog::list_sql(None)).await,
            Command::Describe(Some(name)) => return self.describe(&name).await,
            Command::List(kind) => return self.run_internal(&catalog::list_sql(Some(kind))).await,
            Command::Again => return self.run_again().await,
            Command::Watch(interval) => {
                let Some(sql) = self.session.last_statement.clone() else {
                    return self.fail("\\watch: there is no statement to repeat yet");
                };
                let title = format!("Every {} s: {}", interval.as_secs_f64(), first_line(&sql));
                return self.live(&title, &sql, interval).await;
            }
            Command::Include(path) => {
                if depth >= INCLUDE_DEPTH_MAX {
                    return self.fail(&format!("\\i {path}: files include each other"));
                }
                let text = match std::fs::read_to_string(&path) {
                    Ok(text) => text,
                    Err(error) => return self.fail(&format!("\\i {path}: {error}")),
                };
                return self.run_text(&text, Some(&path), depth + 1).await;
            }
            Command::Demo => return demo::run(self).await,
        }
        Ok(Next::GoOn)
    }

    fn say_switch(&mut self, what: &str, on: bool) -> Result<(), ClientError> {
        self.session.output.write(&format!("{what} is {}.\n", if on { "on" } else { "off" }))?;
        Ok(())
    }

    fn fail(&self, problem: &str) -> Result<Next, ClientError> {
        self.session.complain(problem)?;
        Ok(Next::Failed)
    }

    async fn run_again(&mut self) -> Result<Next, ClientError> {
        let Some(sql) = self.session.last_statement.clone() else {
            return self.fail("\\g: there is no statement to run again yet");
        };
        self.run_statement(&sql, None, &mut Script::new("")).await
    }

    /// A statement of the shell's own, which `\g` and `\watch` do not repeat.
    async fn run_internal(&mut self, sql: &str) -> Result<Next, ClientError> {
        let last = self.session.last_statement.take();
        self.session.own_statement = true;
        let outcome = self.run_statement(sql, None, &mut Script::new("")).await;
        self.session.own_statement = false;
        self.session.last_statement = last;
        outcome
    }

    /// Shows a result again and again.
    async fn live(
        &mut self,
        title: &str,
        sql: &str,
        interval: std::time::Duration,
    ) -> Result<Next, ClientError> {
        match live::show(&mut self.session, title, sql, interval).await {
            Ok(()) => Ok(Next::GoOn),
            Err(ClientError::Server(message)) => {
                let text = report::message(&message, sql, self.session.color);
                output::write_stderr(&text)?;
                Ok(Next::Failed)
            }
            Err(error) => Err(error),
        }
    }

    /// An object's columns, then the statement that made it.
    async fn describe(&mut self, name: &str) -> Result<Next, ClientError> {
        let next = self.run_internal(&format!("DESCRIBE {name}")).await?;
        if next != Next::GoOn {
            return Ok(next);
        }
        let kind = match self.session.query(&catalog::kind_sql(name)).await {
            Ok(result) => result.rows.into_iter().flatten().flatten().next(),
            Err(error @ ClientError::Server(_)) => {
                return self.fail(&error.to_string());
            }
            Err(error) => return Err(error),
        };
        let Some(kind) = kind else { return Ok(Next::GoOn) };
        // A relation of the system was made by no statement.
        if let Ok(result) = self.session.query(&format!("SHOW CREATE {kind} {name}")).await
            && let Some(Some(sql)) = result.rows.into_iter().flatten().next_back()
        {
            self.session.output.write(&format!("{sql}\n\n"))?;
        }
        Ok(Next::GoOn)
    }

    /// Asks the catalog what Tab may complete. Completion without names is no failure.
    async fn refresh_names(&mut self) {
        let mut names = Vec::new();
        if let Ok(result) = self.session.query(catalog::NAMES_SQL).await {
            names.extend(result.rows.into_iter().flatten().flatten());
        }
        names.sort_unstable();
        names.dedup();
        *self.names.borrow_mut() = names;
    }
}

fn editor_failed(error: ReadlineError) -> ClientError {
    ClientError::Output(std::io::Error::other(error))
}

/// Data of a COPY that a person types: lines up to `\.`, or the end of the input.
fn read_copy_data() -> Option<String> {
    output::write_stderr("Data, a line per row; \\. or Ctrl-D ends it.\n").ok()?;
    let mut data = String::new();
    for line in std::io::stdin().lines() {
        let line = line.ok()?;
        if line == "\\." {
            break;
        }
        data.push_str(&line);
        data.push('\n');
    }
    Some(data)
}

fn first_line(sql: &str) -> &str {
    sql.lines().next().unwrap_or("")
}
