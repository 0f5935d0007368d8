//! Where results go: to the standard output, or through a pager when the table is larger than
//! the terminal.
//!
//! The first rows of a result (`ROWS_MEASURED`) set the widths of its columns; later ones are
//! printed in chunks, which may only widen them. So memory is bounded, and so is the wait for
//! the first line. A feed that never ends is printed as it comes.

use std::io::{self, IsTerminal, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::frontend::repl::client::Column;
use crate::frontend::repl::table::{self, Row, Widths};

/// Rows that are held back to measure widths, and printed at once.
const ROWS_MEASURED: usize = 1_000;

/// The standard output, and the pager in front of it while there is one.
pub struct Output {
    plain: Box<dyn Write + Send>,
    terminal: bool,
    /// A person may be asked to page: never for commands that repeat.
    pub paging: bool,
    pager: Option<Pager>,
}

struct Pager {
    process: Child,
    /// `None` once the person has left the pager.
    input: Option<ChildStdin>,
}

/// The standard output or error cannot be written to: whoever read it has gone.
#[derive(Debug)]
pub struct OutputError(pub io::Error);

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> OutputError {
        OutputError(error)
    }
}

/// Whether whoever reads still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Present,
    Gone,
}

impl Output {
    /// The process's standard output.
    pub fn stdout() -> Output {
        let terminal = io::stdout().is_terminal();
        Output { plain: Box::new(io::stdout()), terminal, paging: terminal, pager: None }
    }

    /// Output into something else.
    #[cfg(test)]
    pub fn to_writer(writer: impl Write + Send + 'static) -> Output {
        Output { plain: Box::new(writer), terminal: false, paging: false, pager: None }
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes to whoever reads now.
    ///
    /// # Errors
    /// When the standard output fails; a pager that was left is no error.
    pub fn write(&mut self, text: &str) -> Result<Reader, OutputError> {
        let Some(pager) = &mut self.pager else {
            self.plain.write_all(text.as_bytes())?;
            self.plain.flush()?;
            return Ok(Reader::Present);
        };
        if let Some(input) = &mut pager.input
            && input.write_all(text.as_bytes()).is_err()
        {
            pager.input = None;
        }
        Ok(if pager.input.is_some() { Reader::Present } else { Reader::Gone })
    }

    /// Starts the pager; without one that starts, output stays plain.
    fn start_pager(&mut self) {
        if !self.paging || self.pager.is_some() {
            return;
        }
        let set = std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty());
        // -S: wide lines are not folded; -F: leave at once when it fits; -X: keep it on screen.
        let command = set.unwrap_or_else(|| "less -SFX".to_owned());
        let process = Command::new("sh").arg("-c").arg(command).stdin(Stdio::piped()).spawn();
        if let Ok(mut process) = process {
            let input = process.stdin.take();
            self.pager = Some(Pager { process, input });
        }
    }

    /// Waits until the person leaves the pager.
    pub fn finish_paging(&mut self) {
        if let Some(mut pager) = self.pager.take() {
            drop(pager.input.take());
            // Nothing depends on how the pager ended.
            let _ = pager.process.wait();
        }
    }
}

/// One result on its way out.
pub struct ResultPrinter {
    columns: Vec<Column>,
    widths: Widths,
    /// Rows not printed yet, at most `ROWS_MEASURED`.
    held: Vec<Row>,
    row_count: u64,
    printed_count: u64,
    header_printed: bool,
    expanded: bool,
    /// Rows are printed as they come, and never paged.
    following: bool,
}

impl ResultPrinter {
    pub fn new(columns: Vec<Column>, expanded: bool, following: bool) -> ResultPrinter {
        ResultPrinter {
            widths: Widths::new(&columns),
            columns,
            held: Vec::new(),
            row_count: 0,
            printed_count: 0,
            header_printed: false,
            expanded,
            following,
        }
    }

    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Whether anything of it is to be seen yet.
    pub fn has_printed(&self) -> bool {
        self.header_printed
    }

    /// Takes a row.
    pub fn push(&mut self, row: Row, output: &mut Output) -> Result<Reader, OutputError> {
        self.held.push(row);
        self.row_count += 1;
        if self.held.len() < ROWS_MEASURED {
            return Ok(Reader::Present);
        }
        if !self.following {
            output.start_pager();
        }
        self.print_held(output)
    }

    /// Prints what is held, if someone waits for it.
    pub fn flush_following(&mut self, output: &mut Output) -> Result<Reader, OutputError> {
        if self.following && !self.held.is_empty() {
            return self.print_held(output);
        }
        Ok(Reader::Present)
    }

    /// The result's end.
    pub fn finish(mut self, output: &mut Output) -> Result<(), OutputError> {
        if !self.following && self.is_larger_than_terminal() {
            output.start_pager();
        }
        self.print_held(output)?;
        if !self.expanded || self.row_count == 0 {
            output.write(&table::footer(self.row_count))?;
            output.write("\n")?;
        }
        output.write("\n")?;
        output.finish_paging();
        Ok(())
    }

    fn print_held(&mut self, output: &mut Output) -> Result<Reader, OutputError> {
        self.widths.include(&self.held);
        let mut text = String::new();
        if !self.header_printed && !(self.expanded) {
            text += &table::header(&self.columns, &self.widths);
        }
        self.header_printed = true;
        if self.expanded {
            let first = self.printed_count + 1;
            text += &table::expanded(&self.columns, &self.held, &self.widths, first);
        } else {
            text += &table::aligned(&self.held, &self.widths);
        }
        self.printed_count += self.held.len() as u64;
        self.held.clear();
        output.write(&text)
    }

    fn is_larger_than_terminal(&self) -> bool {
        let Ok((columns, lines)) = crossterm::terminal::size() else { return false };
        let lines_per_row = if self.expanded { self.columns.len() + 1 } else { 1 };
        // Header, rule, footer, the blank line and the next prompt.
        let lines_needed = self.held.len() * lines_per_row + 5;
        let mut widths = self.widths.clone();
        widths.include(&self.held);
        lines_needed > usize::from(lines)
            || (!self.expanded && widths.line_width() > usize::from(columns))
    }
}

/// Writes where errors, notices and progress go.
///
/// # Errors
/// When standard error is closed.
pub fn write_stderr(text: &str) -> Result<(), OutputError> {
    let mut stderr = io::stderr().lock();
    stderr.write_all(text.as_bytes())?;
    Ok(stderr.flush()?)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    fn number_column() -> Vec<Column> {
        vec![Column { name: "n".into(), type_oid: 20 }]
    }

    #[test]
    fn long_results_come_in_chunks_without_a_second_header() {
        let written = Shared::default();
        let mut output = Output::to_writer(written.clone());
        let mut printer = ResultPrinter::new(number_column(), false, false);
        for n in 0..2_500 {
            printer.push(vec![Some(n.to_string())], &mut output).unwrap();
        }
        printer.finish(&mut output).unwrap();
        let text = written.take();
        assert_eq!(text.lines().count(), 2 + 2_500 + 2);
        assert!(text.starts_with("  n  \n-----\n   0\n"), "{}", &text[..40]);
        assert!(text.ends_with("\n 2499\n(2500 rows)\n\n"));
    }

    #[test]
    fn a_feed_is_printed_as_it_comes() {
        let written = Shared::default();
        let mut output = Output::to_writer(written.clone());
        let mut printer = ResultPrinter::new(number_column(), false, true);
        printer.push(vec![Some("1".into())], &mut output).unwrap();
        assert_eq!(written.take(), "");
        printer.flush_following(&mut output).unwrap();
        assert_eq!(written.take(), " n \n---\n 1\n");
        printer.push(vec![Some("10".into())], &mut output).unwrap();
        printer.flush_following(&mut output).unwrap();
        assert_eq!(written.take(), " 10\n");
        printer.flush_following(&mut output).unwrap();
        assert_eq!(written.take(), "");
    }

    #[test]
    fn expanded_results_have_no_footer_unless_empty() {
        let written = Shared::default();
        let mut output = Output::to_writer(written.clone());
        let printer = ResultPrinter::new(number_column(), true, false);
        printer.finish(&mut output).unwrap();
        assert_eq!(written.take(), "(0 rows)\n\n");
        let mut printer = ResultPrinter::new(number_column(), true, false);
        printer.push(vec![Some("7".into())], &mut output).unwrap();
        printer.finish(&mut output).unwrap();
        assert_eq!(written.take(), "-[ RECORD 1 ]\nn | 7\n\n");
    }
}
