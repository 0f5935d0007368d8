//! Rows as psql prints them: aligned columns, or one line a value (`\x`).
//!
//! Widths are what a terminal shows, not bytes. A value of several lines goes on in the lines
//! below, marked `+`; control characters are printed as escapes, so that data cannot move the
//! cursor.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar;

use crate::frontend::repl::client::Column;

/// A row: a value per column.
pub type Row = Vec<Option<String>>;

/// How wide each column is; grows as wider rows come.
#[derive(Clone, Debug)]
pub struct Widths {
    columns: Vec<usize>,
    /// The widest value of any column, without the names.
    widest_value: usize,
    right_aligned: Vec<bool>,
}

/// What NULL looks like.
const NULL_TEXT: &str = "NULL";
const TAB_STOP: usize = 8;

impl Widths {
    /// As wide as the columns' names.
    pub fn new(columns: &[Column]) -> Widths {
        Widths {
            columns: columns.iter().map(|c| text_width(&printable(&c.name))).collect(),
            widest_value: 0,
            right_aligned: columns.iter().map(|c| is_number(c.type_oid)).collect(),
        }
    }

    /// Makes room for `rows`.
    pub fn include(&mut self, rows: &[Row]) {
        for row in rows {
            for (width, value) in self.columns.iter_mut().zip(row) {
                let value_width = text_width(&value_text(value));
                *width = (*width).max(value_width);
                self.widest_value = self.widest_value.max(value_width);
            }
        }
    }

    /// Characters of a whole line.
    pub fn line_width(&self) -> usize {
        self.columns.iter().map(|w| w + 3).sum::<usize>().saturating_sub(1)
    }
}

/// The names and the line below them.
pub fn header(columns: &[Column], widths: &Widths) -> String {
    if columns.is_empty() {
        return "--\n".to_owned();
    }
    let mut text = String::new();
    for (index, (column, &width)) in columns.iter().zip(&widths.columns).enumerate() {
        let name = printable(&column.name);
        let space = width.saturating_sub(text_width(&name));
        let left = space / 2;
        let bar = if index == 0 { "" } else { "|" };
        let (before, after) = (" ".repeat(left + 1), " ".repeat(space - left + 1));
        write_text(&mut text, format_args!("{bar}{before}{}{after}", name.replace('\n', " ")));
    }
    text.push('\n');
    for (index, width) in widths.columns.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { "+" });
        text.push_str(&"-".repeat(width + 2));
    }
    text.push('\n');
    text
}

/// Rows below a header of the same widths.
pub fn aligned(rows: &[Row], widths: &Widths) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| !row.is_empty()) {
        let values: Vec<Cow<'_, str>> = row.iter().map(value_text).collect();
        let line_count = values.iter().map(|v| v.split('\n').count()).max().unwrap_or(1);
        for line in 0..line_count {
            aligned_line(&mut text, &values, line, widths);
        }
    }
    text
}

/// One line of a row's values, which may have several.
fn aligned_line(text: &mut String, values: &[Cow<'_, str>], line: usize, widths: &Widths) {
    let last = values.len().saturating_sub(1);
    for (index, value) in values.iter().enumerate() {
        let mut lines = value.split('\n').skip(line);
        let cell = lines.next();
        let goes_on = lines.next().is_some();
        let right_aligned = widths.right_aligned[index] && cell.is_some();
        let cell = cell.unwrap_or("");
        let space = widths.columns[index].saturating_sub(text_width(cell));
        text.push_str(if index == 0 { " " } else { "| " });
        if right_aligned {
            text.push_str(&" ".repeat(space));
            text.push_str(cell);
        } else {
            text.push_str(cell);
            // As psql: no blanks at the end of a line.
            if index < last || goes_on {
                text.push_str(&" ".repeat(space));
            }
        }
        if goes_on {
            text.push('+');
        } else if index < last {
            text.push(' ');
        }
    }
    text.push('\n');
}

/// Rows with a line for each value. `first` is the number of the first row, from 1.
pub fn expanded(columns: &[Column], rows: &[Row], widths: &Widths, first: u64) -> String {
    let names: Vec<Cow<'_, str>> = columns.iter().map(|c| printable(&c.name)).collect();
    let name_width = names.iter().map(|n| text_width(n)).max().unwrap_or(0);
    let value_width = widths.widest_value;
    let mut text = String::new();
    for (row, number) in rows.iter().zip(first..) {
        let title = format!("-[ RECORD {number} ]");
        let mut rule = "-".repeat((name_width + value_width + 3).max(title.len()));
        if name_width + 1 >= title.len() {
            rule.replace_range(name_width + 1..=name_width + 1, "+");
        }
        rule.replace_range(..title.len(), &title);
        write_text(&mut text, format_args!("{rule}\n"));
        for (name, value) in names.iter().zip(row) {
            let value = value_text(value);
            let mut lines = value.split('\n').peekable();
            let mut name = name.as_ref();
            while let Some(cell) = lines.next() {
                let space = " ".repeat(name_width - text_width(name));
                write_text(&mut text, format_args!("{name}{space} | {cell}"));
                if lines.peek().is_some() {
                    let space = " ".repeat(value_width.saturating_sub(text_width(cell)));
                    write_text(&mut text, format_args!("{space}+"));
                }
                text.push('\n');
                name = "";
            }
        }
    }
    text
}

/// A whole result.
pub fn whole(columns: &[Column], rows: &[Row], expand: bool) -> String {
    let mut widths = Widths::new(columns);
    widths.include(rows);
    if expand {
        return expanded(columns, rows, &widths, 1) + "\n";
    }
    header(columns, &widths) + &aligned(rows, &widths) + &footer(rows.len() as u64) + "\n\n"
}

/// `(3 rows)`.
pub fn footer(row_count: u64) -> String {
    let plural = if row_count == 1 { "" } else { "s" };
    format!("({row_count} row{plural})")
}

/// Columns a terminal needs for `text`; for several lines, the widest.
pub fn text_width(text: &str) -> usize {
    let line_width = |line: &str| line.chars().map(|c| c.width().unwrap_or(0)).sum();
    text.split('\n').map(line_width).max().unwrap_or(0)
}

fn value_text(value: &Option<String>) -> Cow<'_, str> {
    match value {
        Some(text) => printable(text),
        None => Cow::Borrowed(NULL_TEXT),
    }
}

/// `text` with escapes for control characters and blanks for tabs; line ends stay.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c.is_control() && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut column = 0;
    for c in text.chars() {
        let before = out.len();
        match c {
            '\n' => {
                out.push('\n');
                column = 0;
                continue;
            }
            '\t' => out.push_str(&" ".repeat(TAB_STOP - column % TAB_STOP)),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => write_text(&mut out, format_args!("\\x{:02X}", u32::from(c))),
            c => out.push(c),
        }
        column += text_width(&out[before..]);
    }
    Cow::Owned(out)
}

fn write_text(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}

/// Whether psql aligns values of the type to the right: int8, int2, int4, oid, float4, float8,
/// numeric.
fn is_number(type_oid: u32) -> bool {
    matches!(type_oid, 20 | 21 | 23 | 26 | 700 | 701 | 1700)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(specs: &[(&str, u32)]) -> Vec<Column> {
        let column = |&(name, type_oid): &(&str, u32)| Column { name: name.into(), type_oid };
        specs.iter().map(column).collect()
    }

    fn rows(values: &[&[Option<&str>]]) -> Vec<Row> {
        values.iter().map(|row| row.iter().map(|v| v.map(str::to_owned)).collect()).collect()
    }

    // The expected texts are what psql 15 prints for the same values after `\pset null NULL`.

    #[test]
    fn numbers_stand_right_and_names_in_the_middle() {
        let columns = columns(&[("name", 25), ("n", 20)]);
        let rows = rows(&[
            &[Some("United Air Lines"), Some("5")],
            &[Some("Ünïté"), Some("12345")],
            &[None, None],
        ]);
        let expected = [
            "       name       |   n   ",
            "------------------+-------",
            " United Air Lines |     5",
            " Ünïté            | 12345",
            " NULL             |  NULL",
            "(3 rows)",
            "",
        ];
        assert_eq!(whole(&columns, &rows, false), expected.join("\n") + "\n");
    }

    #[test]
    fn no_blanks_at_the_end_of_the_last_column() {
        let expected = [" ?column? ", "----------", " a", "(1 row)", "", ""].join("\n");
        let rows = rows(&[&[Some("a")]]);
        assert_eq!(whole(&columns(&[("?column?", 25)]), &rows, false), expected);
        assert_eq!(whole(&[], &[vec![]], false), "--\n(1 row)\n\n");
    }

    #[test]
    fn lines_within_values_go_on_below() {
        let columns = columns(&[("a", 25), ("b", 23)]);
        let rows = rows(&[&[Some("one\ntwo"), Some("1")]]);
        let expected = ["  a  | b ", "-----+---", " one+| 1", " two | ", "(1 row)", "", ""];
        assert_eq!(whole(&columns, &rows, false), expected.join("\n"));
    }

    #[test]
    fn data_cannot_move_the_cursor() {
        assert_eq!(printable("a\x1b[2Jb\r"), "a\\x1B[2Jb\\r");
        assert_eq!(printable("a\tb"), "a       b");
        assert_eq!(text_width("日本"), 4);
    }

    #[test]
    fn expanded_records() {
        let columns = columns(&[("carrier", 25), ("n", 20)]);
        let rows = rows(&[&[Some("AA"), Some("1")], &[Some("two\nlines"), None]]);
        let expected = [
            "-[ RECORD 1 ]--",
            "carrier | AA",
            "n       | 1",
            "-[ RECORD 2 ]--",
            "carrier | two  +",
            "        | lines",
            "n       | NULL",
            "",
            "",
        ];
        assert_eq!(whole(&columns, &rows, true), expected.join("\n"));

        let name = "this_is_a_long_column_name_indeed_a";
        let columns = [Column { name: name.into(), type_oid: 23 }];
        let rule = "-[ RECORD 1 ]-----------------------+-----";
        let value = vec![vec![Some("1234".to_owned())]];
        let expected = format!("{rule}\n{name} | 1234\n\n");
        assert_eq!(whole(&columns, &value, true), expected);
    }
}
