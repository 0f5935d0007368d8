//! Errors and notices as a person wants them: what, where (the line with a caret below the
//! place), why and what would help.

use std::fmt::Write as _;

use crate::frontend::repl::client::ServerMessage;
use crate::frontend::repl::table::text_width;

/// Whether output may hold colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Never,
    Always,
}

const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const GREEN: &str = "1;32";
const DIM: &str = "2";

/// The longest excerpt of a statement's line, in characters.
const EXCERPT_CHARS_MAX: usize = 100;
/// How much of the line is kept before the place.
const EXCERPT_CHARS_BEFORE: usize = 60;

impl Color {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Color::Never => text.to_owned(),
            Color::Always => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    /// For what needs the least attention.
    pub fn dim(self, text: &str) -> String {
        self.paint(DIM, text)
    }

    /// For names and prompts.
    pub fn accent(self, text: &str) -> String {
        self.paint(GREEN, text)
    }
}

/// A message about `sql`, the text that was sent; ends with a line end.
pub fn message(message: &ServerMessage, sql: &str, color: Color) -> String {
    let code = match message.severity.as_str() {
        "ERROR" | "FATAL" | "PANIC" => RED,
        _ => YELLOW,
    };
    let severity = color.paint(code, &format!("{}:", message.severity));
    let mut text = match message.sqlstate.as_str() {
        "" | "00000" => format!("{severity}  {}\n", message.message),
        sqlstate => format!("{severity}  {sqlstate}: {}\n", message.message),
    };
    if let Some(place) = message.position.and_then(|position| excerpt(sql, position)) {
        let caret = color.paint(code, "^");
        let indent = " ".repeat(place.caret_column);
        writeln!(text, "{}\n{indent}{caret}", place.line).expect("writing to a string cannot fail");
    }
    for (label, extra) in [("DETAIL", &message.detail), ("HINT", &message.hint)] {
        if let Some(extra) = extra {
            let label = color.paint(DIM, &format!("{label}:"));
            writeln!(text, "{label}  {extra}").expect("writing to a string cannot fail");
        }
    }
    text
}

/// The part of a statement that holds a place.
#[derive(Debug, PartialEq, Eq)]
struct Excerpt {
    /// `LINE 2:   FROM flihgts`, cut to a reasonable length.
    line: String,
    /// Terminal columns before the place.
    caret_column: usize,
}

/// `position` counts characters from 1; `None` when it is outside of `sql`.
fn excerpt(sql: &str, position: usize) -> Option<Excerpt> {
    let index = position.checked_sub(1)?;
    let byte = sql.char_indices().map(|(at, _)| at).chain([sql.len()]).nth(index)?;
    let line_start = sql[..byte].rfind('\n').map_or(0, |end| end + 1);
    let line_number = 1 + sql[..line_start].matches('\n').count();
    let line = sql[line_start..].lines().next().unwrap_or("");
    let plain = |text: &str| -> Vec<char> {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    };
    let before = plain(&sql[line_start..byte]);
    let line = plain(line);

    let cut_before = if line.len() <= EXCERPT_CHARS_MAX {
        0
    } else {
        before.len().saturating_sub(EXCERPT_CHARS_BEFORE)
    };
    let end = line.len().min(cut_before + EXCERPT_CHARS_MAX);
    let dots = |cut: bool| if cut { "..." } else { "" };
    let start: String = format!("LINE {line_number}: {}", dots(cut_before > 0));
    let shown: String = line[cut_before.min(end)..end].iter().collect();
    let ahead: String = before[cut_before..].iter().collect();
    Some(Excerpt {
        caret_column: text_width(&start) + text_width(&ahead),
        line: format!("{start}{shown}{}", dots(end < line.len())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, position: Option<usize>, expected: &[&str]) {
        let error = ServerMessage {
            severity: "ERROR".into(),
            sqlstate: "42P01".into(),
            message: "relation \"x\" does not exist".into(),
            detail: None,
            hint: Some("Look at \\d.".into()),
            position,
        };
        assert_eq!(message(&error, sql, Color::Never), expected.join("\n") + "\n");
    }

    #[test]
    fn the_caret_stands_below_the_place() {
        check(
            "SELECT *\n  FROM x\nWHERE a",
            Some(17),
            &[
                "ERROR:  42P01: relation \"x\" does not exist",
                "LINE 2:   FROM x",
                "               ^",
                "HINT:  Look at \\d.",
            ],
        );
        // Wide characters take two columns, tabs are shown as one blank.
        check(
            "\t'日本', x",
            Some(8),
            &[
                "ERROR:  42P01: relation \"x\" does not exist",
                "LINE 1:  '日本', x",
                "                 ^",
                "HINT:  Look at \\d.",
            ],
        );
    }

    #[test]
    fn places_at_the_end_and_outside() {
        assert_eq!(excerpt("SELECT", 7).unwrap().caret_column, "LINE 1: SELECT".len());
        assert_eq!(excerpt("SELECT", 8), None);
        assert_eq!(excerpt("", 0), None);
        assert_eq!(excerpt("", 1).unwrap().line, "LINE 1: ");
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let sql = format!("SELECT {}, x, {}", "a".repeat(200), "b".repeat(200));
        let place = excerpt(&sql, 210).unwrap();
        assert!(place.line.starts_with("LINE 1: ...aaa"), "{}", place.line);
        assert!(place.line.ends_with("bbb..."), "{}", place.line);
        assert_eq!(&place.line[place.caret_column..=place.caret_column], "x");
        assert!(place.line.len() < 120);
    }

    #[test]
    fn colours_only_when_asked() {
        let notice = ServerMessage {
            severity: "NOTICE".into(),
            message: "done".into(),
            ..ServerMessage::default()
        };
        assert_eq!(message(&notice, "", Color::Never), "NOTICE:  done\n");
        assert_eq!(message(&notice, "", Color::Always), "\x1b[1;33mNOTICE:\x1b[0m  done\n");
    }
}
