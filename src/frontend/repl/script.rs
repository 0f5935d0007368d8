//! Cuts a text into statements and backslash commands, as psql does.
//!
//! A statement ends at a semicolon outside of quotes and comments, a command (`\d flights`) at
//! the end of its line; a backslash outside of quotes ends the statement before it, so that
//! `SELECT 1 \watch 2` is a statement and a command. Quotes are `'...'`, `E'...'` with escapes,
//! `"..."` and `$tag$...$tag$`; comments are `-- ...` and `/* ... */`, which nest.

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Statement {
        /// Without the semicolon, and without blanks around it.
        sql: &'a str,
        /// Bytes of the text before `sql`.
        start: usize,
    },
    Command {
        /// Without the backslash: `d flights`.
        line: &'a str,
        /// A statement ended at the backslash.
        after_statement: bool,
    },
}

/// Reads a text piece by piece.
#[derive(Debug)]
pub struct Script<'a> {
    text: &'a str,
    /// Bytes that have been handed out.
    position: usize,
    after_statement: bool,
}

/// What stands at a place of a text.
enum Lexeme {
    Semicolon,
    Backslash,
    /// Blanks and comments.
    Blank,
    Other,
    /// A quote or comment that the text does not close.
    Unclosed,
}

impl<'a> Script<'a> {
    pub fn new(text: &'a str) -> Script<'a> {
        Script { text, position: 0, after_statement: false }
    }

    /// The next whole piece; `None` when what is left is blank or not finished.
    pub fn next_piece(&mut self) -> Option<Piece<'a>> {
        let mut start = None;
        let mut end = self.position;
        let mut at = self.position;
        while at < self.text.len() {
            let (lexeme, length) = lexeme(self.text, at);
            match (lexeme, start) {
                (Lexeme::Unclosed, _) => return None,
                (Lexeme::Blank, _) => {}
                (Lexeme::Semicolon, None) => {}
                (Lexeme::Semicolon, Some(start)) => {
                    self.position = at + length;
                    self.after_statement = false;
                    return Some(Piece::Statement { sql: &self.text[start..end], start });
                }
                (Lexeme::Backslash, Some(start)) => {
                    self.position = at;
                    self.after_statement = true;
                    return Some(Piece::Statement { sql: &self.text[start..end], start });
                }
                (Lexeme::Backslash, None) => {
                    let rest = &self.text[at..];
                    let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
                    self.position = at + line.len();
                    let after_statement = std::mem::take(&mut self.after_statement);
                    return Some(Piece::Command { line: line[1..].trim(), after_statement });
                }
                (Lexeme::Other, _) => {
                    start.get_or_insert(at);
                    end = at + length;
                }
            }
            at += length;
        }
        None
    }

    /// What [`Script::next_piece`] left: a statement without an end, with its place. `None` when
    /// only blanks and comments are left.
    pub fn unfinished(&self) -> Option<Piece<'a>> {
        let rest = &self.text[self.position..];
        let mut at = 0;
        while at < rest.len() {
            match lexeme(rest, at) {
                (Lexeme::Blank | Lexeme::Semicolon, length) => at += length,
                (Lexeme::Unclosed, _) if rest[at..].starts_with("--") => return None,
                _ => {
                    let start = self.position + at;
                    return Some(Piece::Statement { sql: self.text[start..].trim_end(), start });
                }
            }
        }
        None
    }

    /// The lines after the statement just read up to a line `\.`, which is the data of its
    /// `COPY ... FROM STDIN`; reading goes on behind them.
    pub fn copy_data(&mut self) -> &'a str {
        let rest = &self.text[self.position..];
        let line_end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let data = &rest[line_end..];
        let mut length = 0;
        for line in data.split_inclusive('\n') {
            if line.trim_end() == "\\." {
                self.position += line_end + length + line.len();
                return &data[..length];
            }
            length += line.len();
        }
        self.position = self.text.len();
        data
    }
}

/// Line and column of a byte of the text, both from 1; columns count characters.
pub fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = 1 + before.bytes().filter(|&b| b == b'\n').count();
    (line, 1 + before[line_start..].chars().count())
}

/// The lexeme at `at`, and its length in bytes.
fn lexeme(text: &str, at: usize) -> (Lexeme, usize) {
    let rest = &text[at..];
    let first = rest.chars().next().expect("asked within the text only");
    let closed = |length: Option<usize>, kind: Lexeme| match length {
        Some(length) => (kind, length),
        None => (Lexeme::Unclosed, rest.len()),
    };
    match first {
        ';' => (Lexeme::Semicolon, 1),
        '\\' => (Lexeme::Backslash, 1),
        '-' if rest.starts_with("--") => {
            (Lexeme::Blank, rest.find('\n').map_or(rest.len(), |end| end + 1))
        }
        '/' if rest.starts_with("/*") => closed(comment_length(rest), Lexeme::Blank),
        '\'' => {
            let escapes = follows_escape_prefix(&text[..at]);
            closed(quoted_length(rest, '\'', escapes), Lexeme::Other)
        }
        '"' => closed(quoted_length(rest, '"', false), Lexeme::Other),
        '$' if !text[..at].ends_with(is_name_character) => match dollar_tag(rest) {
            Some(tag) => {
                let body = rest[tag.len()..].find(tag);
                closed(body.map(|length| length + 2 * tag.len()), Lexeme::Other)
            }
            None => (Lexeme::Other, 1),
        },
        c if c.is_whitespace() => (Lexeme::Blank, c.len_utf8()),
        c => (Lexeme::Other, c.len_utf8()),
    }
}

fn is_name_character(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Whether `before` ends in the `E` of `E'...'`, standing alone.
fn follows_escape_prefix(before: &str) -> bool {
    before.strip_suffix(['e', 'E']).is_some_and(|earlier| !earlier.ends_with(is_name_character))
}

/// The length of a quoted text including its quotes. A doubled quote reads as two neighbours.
fn quoted_length(rest: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == quote {
            return Some(at + 1);
        }
        if escapes && c == '\\' {
            characters.next();
        }
    }
    None
}

fn comment_length(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// `$tag$` at the beginning of `rest`.
fn dollar_tag(rest: &str) -> Option<&str> {
    let length = rest[1..].find('$')?;
    let name = &rest[1..=length];
    let named = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    (named && !name.starts_with(|c: char| c.is_ascii_digit())).then(|| &rest[..length + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces, one a line, and the unfinished rest behind `...`.
    fn pieces(text: &str) -> String {
        let mut script = Script::new(text);
        let mut lines = Vec::new();
        while let Some(piece) = script.next_piece() {
            lines.push(match piece {
                Piece::Statement { sql, start } => {
                    assert_eq!(&text[start..start + sql.len()], sql);
                    format!("sql {sql}")
                }
                Piece::Command { line, after_statement: false } => format!("command {line}"),
                Piece::Command { line, after_statement: true } => format!("then {line}"),
            });
        }
        if let Some(Piece::Statement { sql, .. }) = script.unfinished() {
            lines.push(format!("... {sql}"));
        }
        lines.join("\n")
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes_and_comments() {
        assert_eq!(pieces("SELECT 1; ;; SELECT\n2 ;"), "sql SELECT 1\nsql SELECT\n2");
        assert_eq!(pieces("SELECT ';''a;' ; x"), "sql SELECT ';''a;'\n... x");
        assert_eq!(pieces("SELECT \"a;b\"; -- c; d"), "sql SELECT \"a;b\"");
        assert_eq!(pieces("/* a; /* b; */ c */ SELECT 1;"), "sql SELECT 1");
        assert_eq!(pieces("SELECT 1 -- one;\n + 2;"), "sql SELECT 1 -- one;\n + 2");
        assert_eq!(pieces("SELECT $$;$$, $a$ $b$; $a$;"), "sql SELECT $$;$$, $a$ $b$; $a$");
        assert_eq!(pieces("SELECT $1; SELECT a$b$; "), "sql SELECT $1\nsql SELECT a$b$");
        assert_eq!(
            pieces(r"SELECT E'\';', '\'; SELECT é;"),
            "sql SELECT E'\\';', '\\'\nsql SELECT é"
        );
    }

    #[test]
    fn what_is_not_finished_waits() {
        assert_eq!(pieces(""), "");
        assert_eq!(pieces("  -- only a comment"), "");
        assert_eq!(pieces("SELECT '"), "... SELECT '");
        assert_eq!(pieces("SELECT 1; SELECT $q$ ;"), "sql SELECT 1\n... SELECT $q$ ;");
        assert_eq!(pieces("/* SELECT 1;"), "... /* SELECT 1;");
        assert_eq!(pieces("'"), "... '");
    }

    #[test]
    fn commands_end_at_the_line() {
        assert_eq!(pieces("\\d flights\nSELECT 1;"), "command d flights\nsql SELECT 1");
        assert_eq!(pieces("SELECT 1 \\watch 2"), "sql SELECT 1\nthen watch 2");
        assert_eq!(pieces("SELECT 1; \\x"), "sql SELECT 1\ncommand x");
        assert_eq!(pieces("\\"), "command ");
    }

    #[test]
    fn copy_data_follows_its_statement() {
        let mut script = Script::new("COPY t FROM STDIN;\n1\ta;\n2\t\\N\n\\.\nSELECT 1;");
        assert!(matches!(script.next_piece(), Some(Piece::Statement { .. })));
        assert_eq!(script.copy_data(), "1\ta;\n2\t\\N\n");
        let Some(Piece::Statement { sql, .. }) = script.next_piece() else { panic!() };
        assert_eq!(sql, "SELECT 1");
        let mut script = Script::new("COPY t FROM STDIN;\n1");
        script.next_piece();
        assert_eq!(script.copy_data(), "1");
        assert_eq!(script.next_piece(), None);
    }

    #[test]
    fn places_are_lines_and_columns() {
        let text = "SELECT 1;\nSELECT é, x;";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, text.find('x').unwrap()), (2, 11));
        assert_eq!(line_and_column(text, 10_000), (2, 13));
    }
}
