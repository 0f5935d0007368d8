//! From text to tokens: splits statements, keeps positions, refuses what would overflow the stack.
//!
//! 1. sqlparser's tokenizer reads the whole text; what it cannot read becomes Postgres's message.
//! 2. The tokens are cut at semicolons; strings, comments and dollar quotes are tokens already.
//!    Each statement's spans are moved so that line 1, column 1 is its first character.
//! 3. [`check_depth`] bounds the nesting and the length of operator chains of the tree to come:
//!    parsing, planning and dropping a tree recurse.

use datafusion::sql::sqlparser::tokenizer::{
    Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace,
};

use crate::sql::extensions::closes_types;
use crate::sql::parse::dialect::MillstreamDialect;
use crate::types::error::{Error, Result, SqlState};

/// Open brackets at any place of a statement.
const NESTING_MAX: usize = 128;
/// Of those, brackets of types: `ARRAY<ARRAY<...`. sqlparser takes much stack for each.
const TYPE_NESTING_MAX: usize = 24;
/// Operators of which each may have all those before it as its left operand.
const CHAIN_MAX: usize = 1_000;
/// UNION, INTERSECT and EXCEPT in a row.
const SET_CHAIN_MAX: usize = 250;
/// The same for AND and OR, of which balanced trees are made after parsing.
const LOGICAL_CHAIN_MAX: usize = 10_000;
/// Dots in one name; sqlparser's work grows with their square.
const DOTS_MAX: usize = 32;
/// Up to here the caller's stack will do.
const NESTING_SHALLOW: usize = 8;
const CHAIN_SHALLOW: usize = 50;
/// Characters of the rest of a text that an "unterminated" message quotes.
const QUOTED_CHARS_MAX: usize = 64;

/// A statement's text, with the start of each line.
#[derive(Debug)]
pub(in crate::sql) struct SqlText {
    sql: String,
    lines: Vec<LineStart>,
    /// Position of the semicolon that ended the statement.
    pub(super) semicolon: Option<usize>,
    /// One behind the last character, or behind the blanks that follow it.
    end: usize,
}

/// Bytes and characters before a line.
#[derive(Clone, Copy, Debug)]
struct LineStart {
    bytes: usize,
    chars: usize,
}

impl SqlText {
    pub(in crate::sql) fn new(sql: &str) -> SqlText {
        let mut lines = vec![LineStart { bytes: 0, chars: 0 }];
        if sql.is_ascii() {
            let newlines = sql.bytes().enumerate().filter(|(_, b)| *b == b'\n');
            lines.extend(newlines.map(|(i, _)| LineStart { bytes: i + 1, chars: i + 1 }));
        } else {
            let newlines = sql.char_indices().enumerate().filter(|(_, (_, c))| *c == '\n');
            lines.extend(
                newlines.map(|(chars, (i, _))| LineStart { bytes: i + 1, chars: chars + 1 }),
            );
        }
        let last = lines.last().expect("a text has a line");
        let end = last.chars + sql[last.bytes..].chars().count() + 1;
        SqlText { sql: sql.to_owned(), lines, semicolon: None, end }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.sql
    }

    /// 1-based character position; the end of the text for the location of no token (line 0).
    pub(in crate::sql) fn position(&self, at: Location) -> usize {
        match self.line(at) {
            Some(line) => line.chars + at.column as usize,
            None => self.end_position(),
        }
    }

    pub(super) fn end_position(&self) -> usize {
        self.end
    }

    fn line(&self, at: Location) -> Option<LineStart> {
        self.lines.get((at.line as usize).checked_sub(1)?).copied()
    }

    fn byte(&self, at: Location) -> usize {
        let Some(line) = self.line(at) else { return self.sql.len() };
        let columns = (at.column as usize).saturating_sub(1);
        let rest = &self.sql[line.bytes..];
        let within = rest.char_indices().nth(columns).map_or(rest.len(), |(i, _)| i);
        line.bytes + within
    }

    /// The text of a token, or from one token to another; empty for the end of the text.
    pub(in crate::sql) fn slice(&self, span: Span) -> &str {
        if span.start.line == 0 {
            return "";
        }
        self.sql.get(self.byte(span.start)..self.byte(span.end)).unwrap_or("")
    }

    /// What stands before a location.
    pub(super) fn chars_before(&self, at: Location) -> usize {
        self.position(at) - 1
    }
}

/// One statement's tokens, without blanks, with spans in `text`.
#[derive(Debug)]
pub(super) struct StatementTokens {
    pub(super) text: SqlText,
    pub(super) tokens: Vec<TokenWithSpan>,
    /// Characters before the statement in the whole text.
    pub(super) offset_chars: usize,
}

/// Cuts a text at its semicolons; empty statements are left out.
pub(super) fn split(sql: &str) -> Result<Vec<StatementTokens>> {
    let whole = SqlText::new(sql);
    let mut statements = Vec::new();
    let mut current = Vec::new();
    for token in tokenize(&whole)? {
        if token.token == Token::SemiColon {
            let semicolon = Some(token.span.start);
            statements.extend(cut(&whole, std::mem::take(&mut current), semicolon));
        } else {
            current.push(token);
        }
    }
    statements.extend(cut(&whole, current, None));
    Ok(statements)
}

/// Makes a text of its own of some tokens of another.
pub(super) fn cut(
    whole: &SqlText,
    tokens: Vec<TokenWithSpan>,
    semicolon: Option<Location>,
) -> Option<StatementTokens> {
    let mut tokens = without_blanks(tokens);
    let start = tokens.first()?.span.start;
    let end = tokens.iter().map(|t| t.span.end).max()?;
    let offset_chars = whole.chars_before(start);
    let mut text = SqlText::new(whole.slice(Span::new(start, end)));
    text.semicolon = match semicolon {
        Some(at) => Some(whole.position(at) - offset_chars),
        None => whole.semicolon.map(|position| position - offset_chars),
    };
    // Only the last statement ends without a semicolon: nothing but blanks follows it.
    text.end = whole.end - offset_chars;
    for token in &mut tokens {
        token.span.start = moved(token.span.start, start);
        token.span.end = moved(token.span.end, start);
    }
    Some(StatementTokens { text, tokens, offset_chars })
}

fn moved(at: Location, start: Location) -> Location {
    if at.line == 0 {
        return at;
    }
    let column = if at.line == start.line { at.column - start.column + 1 } else { at.column };
    Location::new(at.line - start.line + 1, column)
}

/// Drops whitespace and comments, except between two strings, where a newline means that they are
/// one.
fn without_blanks(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() / 2 + 1);
    let mut newline = None;
    for token in tokens {
        match token.token {
            Token::Whitespace(Whitespace::Newline | Whitespace::SingleLineComment { .. }) => {
                newline = Some(token.span);
            }
            Token::Whitespace(_) => {}
            _ => {
                if let Some(span) = newline.take()
                    && is_string(&token)
                    && kept.last().is_some_and(is_string)
                {
                    let token = Token::Whitespace(Whitespace::Newline);
                    kept.push(TokenWithSpan { token, span });
                }
                kept.push(token);
            }
        }
    }
    kept
}

fn is_string(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::SingleQuotedString(_))
}

fn tokenize(text: &SqlText) -> Result<Vec<TokenWithSpan>> {
    let dialect = MillstreamDialect::new(&[]);
    let mut tokens = Vec::new();
    match Tokenizer::new(&dialect, &text.sql).tokenize_with_location_into_buf(&mut tokens) {
        Ok(()) => spelled(text, tokens),
        Err(error) => {
            let start = tokens.last().map_or(Location::new(1, 1), |t| t.span.end);
            Err(tokenizer_error(text, start, &error.message))
        }
    }
}

/// Reads `0x1F`, `0o17`, `0b11` and `1_000` as Postgres does, and refuses `""` and `12ab`, which
/// sqlparser takes for a name, and a number with an alias.
fn spelled(text: &SqlText, tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let before = kept.last_mut().filter(|before| before.span.end == token.span.start);
        match (&token.token, before) {
            (Token::HexStringLiteral(digits), _) if text.slice(token.span).starts_with('0') => {
                let number = integer(digits, 16).ok_or_else(|| junk(text, token.span))?;
                kept.push(TokenWithSpan { token: number, span: token.span });
            }
            (Token::Word(word), Some(before))
                if word.quote_style.is_none() && matches!(before.token, Token::Number(_, _)) =>
            {
                let whole = Span::new(before.span.start, token.span.end);
                let mut digits = word.value.chars();
                let number = match digits.next() {
                    Some('o' | 'O') => integer(digits.as_str(), 8),
                    Some('b' | 'B') => integer(digits.as_str(), 2),
                    _ => None,
                };
                let zero = matches!(&before.token, Token::Number(n, false) if n == "0");
                before.token = number.filter(|_| zero).ok_or_else(|| junk(text, whole))?;
                before.span = whole;
            }
            (Token::Word(word), _) if word.value.is_empty() => {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    "zero-length delimited identifier at or near \"\"\"\"",
                )
                .position(text.position(token.span.start)));
            }
            (Token::Number(_, true), _) => return Err(junk(text, token.span)),
            (Token::Number(digits, false), _) if digits.contains('_') => {
                let number = Token::Number(digits.replace('_', ""), false);
                kept.push(TokenWithSpan { token: number, span: token.span });
            }
            _ => kept.push(token),
        }
    }
    Ok(kept)
}

/// An integer of another base as a decimal one.
fn integer(digits: &str, radix: u32) -> Option<Token> {
    let number = u128::from_str_radix(&digits.replace('_', ""), radix).ok()?;
    Some(Token::Number(number.to_string(), false))
}

fn junk(text: &SqlText, span: Span) -> Error {
    let near = text.slice(span);
    Error::user(
        SqlState::SYNTAX_ERROR,
        format!("trailing junk after numeric literal at or near \"{near}\""),
    )
    .position(text.position(span.start))
}

/// Postgres's message for a token that begins at `start` and does not end.
fn tokenizer_error(text: &SqlText, start: Location, message: &str) -> Error {
    let rest = &text.sql[text.byte(start)..];
    let quoted: String = rest.chars().take(QUOTED_CHARS_MAX).collect();
    let mut chars = rest.chars();
    let first = chars.next().unwrap_or(' ');
    let second = chars.next().unwrap_or(' ');
    let (primary, hint) = match first {
        '/' => ("unterminated /* comment", "Close the comment with */."),
        '"' | '`' => ("unterminated quoted identifier", "Close the identifier with a quote."),
        '$' => ("unterminated dollar-quoted string", "Close the string with its tag."),
        '\'' | 'E' | 'e' | 'N' | 'n' | 'U' | 'u' | 'B' | 'b' | 'X' | 'x'
            if message.starts_with("Unterminated") && (first == '\'' || "'&".contains(second)) =>
        {
            let what = match first {
                'B' | 'b' => "unterminated bit string literal",
                'X' | 'x' => "unterminated hexadecimal string literal",
                _ => "unterminated quoted string",
            };
            (what, "Close the string with a single quote.")
        }
        'E' | 'e' | 'U' | 'u' => ("invalid escape in string", "See the manual on E'...' strings."),
        _ => ("syntax error", ""),
    };
    let error = Error::user(SqlState::SYNTAX_ERROR, format!("{primary} at or near \"{quoted}\""))
        .position(text.position(start));
    if hint.is_empty() { error } else { error.hint(hint) }
}

/// Refuses a statement whose tree would be too deep for the stack.
///
/// The measure is of tokens, before there is a tree: open brackets, and operators since the last
/// comma or branch of a CASE inside the same brackets. Operators of enclosing brackets add up.
///
/// Tells whether the statement is deep enough to need a stack of its own.
///
/// # Errors
/// SQLSTATE 54001 with the position where a bound is passed.
pub(super) fn check_depth(text: &SqlText, tokens: &[TokenWithSpan]) -> Result<bool> {
    let total = Level::default();
    let mut depth = Depth { open: vec![Level::default()], total, angles: 0, dots: 0 };
    let mut deep = false;
    for (i, token) in tokens.iter().enumerate() {
        depth.step(token, i.checked_sub(1).map(|before| &tokens[before]));
        if depth.too_deep() {
            return Err(too_complex().position(text.position(token.span.start)));
        }
        deep |= depth.deep();
    }
    Ok(deep)
}

/// SQLSTATE 54001.
pub(super) fn too_complex() -> Error {
    Error::user(SqlState::STATEMENT_TOO_COMPLEX, "statement is too complex")
        .detail(format!(
            "Brackets may be nested {NESTING_MAX} deep ({TYPE_NESTING_MAX} in types), and \
             {CHAIN_MAX} operators may follow each other ({LOGICAL_CHAIN_MAX} if they are AND or \
             OR, {SET_CHAIN_MAX} if UNION and the like)."
        ))
        .hint("Use IN (...) for long lists of alternatives, or split the statement.")
}

/// Operators in sequence, inside one pair of brackets.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// Since the last comma or branch of a CASE.
    operators: usize,
    /// AND and OR since then. They bind weaker than all others and end those' chain.
    logical: usize,
    /// BETWEENs that wait for their AND.
    betweens: usize,
    /// UNION and the like; no comma ends their chain.
    sets: usize,
    /// The brackets are those of a type: `ARRAY<...>`.
    angle: bool,
}

struct Depth {
    /// Outermost first; never empty.
    open: Vec<Level>,
    /// Sums over `open`.
    total: Level,
    /// How many of `open` are of types.
    angles: usize,
    /// Dots of the name just before.
    dots: usize,
}

impl Depth {
    fn too_deep(&self) -> bool {
        self.open.len() > NESTING_MAX
            || self.angles > TYPE_NESTING_MAX
            || self.total.operators > CHAIN_MAX
            || self.total.sets > SET_CHAIN_MAX
            || self.total.logical > LOGICAL_CHAIN_MAX
            || self.dots > DOTS_MAX
    }

    fn deep(&self) -> bool {
        self.open.len() > NESTING_SHALLOW
            || self.angles > 0
            || self.total.operators + self.total.sets > CHAIN_SHALLOW
    }

    fn step(&mut self, token: &TokenWithSpan, before: Option<&TokenWithSpan>) {
        self.dots = match token.token {
            Token::Period => self.dots + 1,
            Token::Word(_) if before.is_some_and(|b| b.token == Token::Period) => self.dots,
            _ => 0,
        };
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => self.open.push(Level::default()),
            Token::Lt if before.is_some_and(|b| is_word(b, &TYPE_WORDS)) => {
                self.open.push(Level { angle: true, ..Level::default() });
                self.angles += 1;
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                while self.innermost().angle {
                    self.close();
                }
                self.close();
            }
            Token::Gt if self.innermost().angle => self.close(),
            Token::ShiftRight if self.innermost().angle => {
                self.close();
                if self.innermost().angle {
                    self.close();
                }
            }
            Token::CustomBinaryOperator(_) if closes_types(&token.token).is_some() => {
                for _ in 0..closes_types(&token.token).unwrap_or(0) {
                    if self.innermost().angle {
                        self.close();
                    }
                }
            }
            Token::Comma => self.restart(),
            Token::Word(_) => self.word(token),
            Token::Number(_, _)
            | Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::DollarQuotedString(_)
            | Token::Placeholder(_)
            | Token::Whitespace(_)
            | Token::Period
            | Token::EOF => {}
            _ => {
                self.innermost().operators += 1;
                self.total.operators += 1;
            }
        }
    }

    fn word(&mut self, token: &TokenWithSpan) {
        if is_word(token, &["AND"]) && self.innermost().betweens > 0 {
            self.innermost().betweens -= 1;
        } else if is_word(token, &LOGICAL_WORDS) {
            self.innermost().logical += 1;
            self.total.logical += 1;
            self.end_operators();
        } else if is_word(token, &OPERATOR_WORDS) {
            self.innermost().operators += 1;
            self.total.operators += 1;
            self.innermost().betweens += usize::from(is_word(token, &["BETWEEN"]));
        } else if is_word(token, &SET_WORDS) {
            self.innermost().sets += 1;
            self.total.sets += 1;
        } else if is_word(token, &RESTART_WORDS) {
            self.restart();
        }
    }

    fn innermost(&mut self) -> &mut Level {
        self.open.last_mut().expect("the outermost level is never closed")
    }

    /// What follows is no operand of what stands before.
    fn restart(&mut self) {
        self.end_operators();
        let level = self.open.last_mut().expect("the outermost level is never closed");
        self.total.logical -= level.logical;
        level.logical = 0;
    }

    fn end_operators(&mut self) {
        let level = self.open.last_mut().expect("the outermost level is never closed");
        self.total.operators -= level.operators;
        level.operators = 0;
        level.betweens = 0;
    }

    fn close(&mut self) {
        if self.open.len() > 1 {
            self.restart();
            let closed = self.open.pop().expect("two levels are open");
            self.total.sets -= closed.sets;
            self.angles -= usize::from(closed.angle);
        }
    }
}

const TYPE_WORDS: [&str; 5] = ["ARRAY", "STRUCT", "ROW", "MAP", "MULTISET"];
const LOGICAL_WORDS: [&str; 3] = ["AND", "OR", "XOR"];
const OPERATOR_WORDS: [&str; 18] = [
    "IS", "ISNULL", "NOTNULL", "NOT", "IN", "BETWEEN", "LIKE", "ILIKE", "RLIKE", "REGEXP",
    "SIMILAR", "MATCH", "MEMBER", "OVERLAPS", "OPERATOR", "COLLATE", "AT", "DIV",
];
const SET_WORDS: [&str; 4] = ["UNION", "EXCEPT", "INTERSECT", "MINUS"];
const RESTART_WORDS: [&str; 5] = ["WHEN", "THEN", "ELSE", "SELECT", "VALUES"];

fn is_word(token: &TokenWithSpan, words: &[&str]) -> bool {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => {
            words.iter().any(|w| w.eq_ignore_ascii_case(&word.value))
        }
        _ => false,
    }
}
