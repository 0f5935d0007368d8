//! A result that is asked for again and again: `\watch` and the demo.
//!
//! On a terminal it is drawn in place, on the alternate screen, until a key is pressed; what was
//! seen last then stays behind as ordinary output. Elsewhere the results follow one another
//! until Ctrl-C.

use std::io::{self, Write};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event as TerminalEvent, KeyEventKind, poll, read};
use crossterm::queue;
use crossterm::style::Print;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode, size,
};

use crate::frontend::repl::client::ClientError;
use crate::frontend::repl::session::Session;
use crate::frontend::repl::table;

/// How often the keyboard is looked at.
const KEY_POLL: Duration = Duration::from_millis(50);

/// Runs `sql` every `interval` and shows the result below `title`.
///
/// # Errors
/// What the statement, the connection or the terminal failed with.
pub async fn show(
    session: &mut Session,
    title: &str,
    sql: &str,
    interval: Duration,
) -> Result<(), ClientError> {
    if !session.output.is_terminal() {
        return show_plainly(session, title, sql, interval).await;
    }
    let mut last = String::new();
    let outcome = {
        let screen = Screen::enter()?;
        show_on(&screen, session, title, sql, interval, &mut last).await
    };
    session.output.write(&last)?;
    outcome
}

async fn show_plainly(
    session: &mut Session,
    title: &str,
    sql: &str,
    interval: Duration,
) -> Result<(), ClientError> {
    loop {
        let text = result_text(session, sql).await?;
        session.output.write(&format!("{title}\n\n{text}"))?;
        if session.interrupted_within(interval).await {
            return Ok(());
        }
    }
}

async fn show_on(
    screen: &Screen,
    session: &mut Session,
    title: &str,
    sql: &str,
    interval: Duration,
    last: &mut String,
) -> Result<(), ClientError> {
    let title = session.color.accent(title);
    let hint = session.color.dim("press any key to leave");
    loop {
        tokio::select! {
            // A statement that hangs is left by closing its connection.
            outcome = key_pressed() => return outcome,
            text = result_text(session, sql) => *last = text?,
        }
        screen.draw(&title, last, &hint)?;
        if let Ok(outcome) = tokio::time::timeout(interval, key_pressed()).await {
            return outcome;
        }
    }
}

async fn result_text(session: &mut Session, sql: &str) -> Result<String, ClientError> {
    let result = session.query(sql).await?;
    Ok(table::whole(&result.columns, &result.rows, session.expanded))
}

/// Waits for a key. Dropping the wait loses no key.
async fn key_pressed() -> Result<(), ClientError> {
    loop {
        let waited = tokio::task::spawn_blocking(|| poll(KEY_POLL)).await;
        let ready = waited.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()));
        if ready.map_err(ClientError::Output)?
            && let TerminalEvent::Key(key) = read().map_err(ClientError::Output)?
            && key.kind == KeyEventKind::Press
        {
            return Ok(());
        }
    }
}

/// The alternate screen; the terminal is itself again when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> Result<Screen, ClientError> {
        enable_raw_mode().map_err(ClientError::Output)?;
        let screen = Screen;
        let mut out = io::stdout();
        queue!(out, EnterAlternateScreen, Hide).map_err(ClientError::Output)?;
        out.flush().map_err(ClientError::Output)?;
        Ok(screen)
    }

    /// Draws as much of `text` as fits.
    fn draw(&self, title: &str, text: &str, hint: &str) -> Result<(), ClientError> {
        let frame = || -> io::Result<()> {
            let (columns, lines) = size()?;
            let mut out = io::stdout().lock();
            queue!(out, MoveTo(0, 0), Print(title), Clear(ClearType::UntilNewLine))?;
            let room = usize::from(lines).saturating_sub(4);
            let mut row = 2;
            queue!(out, MoveTo(0, 1), Clear(ClearType::UntilNewLine))?;
            for line in text.trim_end().lines().take(room) {
                let line = cut(line, usize::from(columns));
                queue!(out, MoveTo(0, row), Print(line), Clear(ClearType::UntilNewLine))?;
                row += 1;
            }
            queue!(out, Clear(ClearType::FromCursorDown), MoveTo(0, row + 1), Print(hint))?;
            out.flush()
        };
        frame().map_err(ClientError::Output)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to put right.
        let mut out = io::stdout();
        let _ = queue!(out, Show, LeaveAlternateScreen).and_then(|()| out.flush());
        let _ = disable_raw_mode();
    }
}

/// The beginning of a line that fits a terminal of so many columns.
fn cut(line: &str, columns: usize) -> &str {
    let mut width = 0;
    for (at, c) in line.char_indices() {
        width += table::text_width(c.encode_utf8(&mut [0; 4]));
        if width > columns {
            return &line[..at];
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_the_edge_of_the_terminal() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc");
        // A character of two columns does not fit into one.
        assert_eq!(cut("ab日", 3), "ab");
    }
}
