//! A place in a statement's tokens: sqlparser's `Parser` for what it knows (expressions, queries,
//! types), plain steps over words and tokens for what is ours, and Postgres's wording for both.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use crate::sql::parse::hints;
use crate::sql::parse::name::{fold, is_reserved, normalize, split_parts};
use crate::sql::parse::query;
use crate::sql::parse::text::{SqlText, StatementTokens, cut, too_complex};
use crate::sql::statement::{Expression, Name, QueryText, SchemaName};
use crate::types::error::{Error, Result, SqlState};

/// Stands for a word at which queries must stop (EMIT); no tokenizer makes it of a text.
pub(in crate::sql) const BARRIER: Token = Token::Char('\u{0}');
/// Stands for the WITH of a sink's options, at which its query must stop.
pub(in crate::sql) const OPTIONS: Token = Token::Char('\u{1}');

pub(super) struct Cursor<'a> {
    pub(super) parser: Parser<'a>,
    pub(super) text: &'a SqlText,
    /// Characters before `text` in the whole text.
    pub(super) offset_chars: usize,
}

impl Cursor<'_> {
    // Looking.

    /// The next token.
    pub(super) fn peek(&self) -> &TokenWithSpan {
        self.parser.peek_token_ref()
    }

    pub(super) fn peek_nth(&self, n: usize) -> &TokenWithSpan {
        self.parser.peek_nth_token_ref(n)
    }

    pub(super) fn peek_is(&self, token: &Token) -> bool {
        self.peek().token == *token
    }

    /// Whether the next tokens are these words, unquoted, in any case.
    pub(super) fn peek_words(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(n, word)| is_word(&self.peek_nth(n).token, word))
    }

    /// The first of the words that comes next.
    pub(super) fn peek_one_of<'w>(&self, words: &[&'w str]) -> Option<&'w str> {
        words.iter().copied().find(|word| is_word(&self.peek().token, word))
    }

    /// Whether an identifier comes next: a word that is not reserved, or one in quotes.
    pub(super) fn peek_ident(&self) -> bool {
        match &self.peek().token {
            Token::Word(word) => word.quote_style.is_some() || !is_reserved(&word.value),
            _ => false,
        }
    }

    pub(super) fn at_end(&self) -> bool {
        self.peek_is(&Token::EOF)
    }

    /// Position of the next token.
    pub(super) fn position(&self) -> usize {
        self.text.position(self.peek().span.start)
    }

    // Stepping.

    pub(super) fn advance(&mut self) {
        self.parser.advance_token();
    }

    /// Passes over a word if it comes next.
    pub(super) fn eat(&mut self, word: &str) -> bool {
        self.eat_words(&[word])
    }

    /// Passes over all of the words if they come next, else over none.
    pub(super) fn eat_words(&mut self, words: &[&str]) -> bool {
        let found = self.peek_words(words);
        if found {
            words.iter().for_each(|_| self.advance());
        }
        found
    }

    pub(super) fn eat_one_of<'w>(&mut self, words: &[&'w str]) -> Option<&'w str> {
        let found = self.peek_one_of(words)?;
        self.advance();
        Some(found)
    }

    pub(super) fn eat_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub(super) fn expect(&mut self, word: &str) -> Result<()> {
        self.expect_words(&[word])
    }

    pub(super) fn expect_words(&mut self, words: &[&str]) -> Result<()> {
        for word in words {
            if !self.eat(word) {
                return Err(self.expected(word));
            }
        }
        Ok(())
    }

    pub(super) fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.eat_token(token) { Ok(()) } else { Err(self.expected(&token.to_string())) }
    }

    /// The statement ends here.
    pub(super) fn expect_end(&self) -> Result<()> {
        if self.at_end() { Ok(()) } else { Err(self.syntax_error()) }
    }

    // Reading.

    /// A name of one part, folded.
    pub(super) fn ident(&mut self) -> Result<String> {
        if !self.peek_ident() {
            return Err(self.expected_name());
        }
        let token = self.parser.next_token();
        match token.token {
            Token::Word(word) => Ok(normalize(&word.into_ident(token.span))),
            _ => Err(Error::internal("an identifier was peeked and is gone")),
        }
    }

    /// A name of one part behind a dot: reserved words are names there, as in Postgres.
    fn part(&mut self) -> Result<String> {
        match self.peek().token {
            Token::Word(_) => {
                let token = self.parser.next_token();
                match token.token {
                    Token::Word(word) => Ok(normalize(&word.into_ident(token.span))),
                    _ => Err(Error::internal("a word was peeked and is gone")),
                }
            }
            _ => Err(self.expected_name()),
        }
    }

    /// Parts of a name, as many as there are.
    pub(super) fn parts(&mut self) -> Result<Vec<String>> {
        let mut parts = vec![self.ident()?];
        while self.eat_token(&Token::Period) {
            parts.push(self.part()?);
        }
        Ok(parts)
    }

    /// `[[database.]schema.]name`.
    pub(super) fn name(&mut self) -> Result<Name> {
        let position = self.position();
        let parts = self.parts()?;
        let (database, schema, name) = split_parts(parts).map_err(|e| e.position(position))?;
        Ok(Name { database, schema, name, position })
    }

    pub(super) fn names(&mut self) -> Result<Vec<Name>> {
        self.list(Cursor::name)
    }

    /// `[database.]schema`.
    pub(super) fn schema_name(&mut self) -> Result<SchemaName> {
        let Name { database, schema, name, position } = self.name()?;
        match database {
            None => Ok(SchemaName { database: schema, schema: name, position }),
            Some(_) => Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "improper schema name (too many dotted names)",
            )
            .hint("A schema's name is at most database.schema.")
            .position(position)),
        }
    }

    /// `(name, ...)`.
    pub(super) fn ident_list(&mut self) -> Result<Vec<String>> {
        self.expect_token(&Token::LParen)?;
        let names = self.list(Cursor::ident)?;
        self.expect_token(&Token::RParen)?;
        Ok(names)
    }

    /// One or more, with commas between.
    pub(super) fn list<T>(&mut self, one: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = vec![one(self)?];
        while self.eat_token(&Token::Comma) {
            items.push(one(self)?);
        }
        Ok(items)
    }

    /// A string constant's content.
    pub(super) fn string(&mut self) -> Result<String> {
        match self.peek_string() {
            Some(_) => {
                let value = self.parser.parse_value().map_err(|e| self.raise(e))?.value;
                value
                    .into_string()
                    .ok_or_else(|| Error::internal("a string constant without content"))
            }
            None => Err(self.expected("a string constant")),
        }
    }

    /// The next token's content if it is a string constant.
    pub(super) fn peek_string(&self) -> Option<&str> {
        match &self.peek().token {
            Token::SingleQuotedString(s)
            | Token::EscapedStringLiteral(s)
            | Token::UnicodeStringLiteral(s)
            | Token::NationalStringLiteral(s) => Some(s),
            Token::DollarQuotedString(s) => Some(&s.value),
            _ => None,
        }
    }

    /// A number without sign that fits.
    pub(super) fn unsigned(&mut self) -> Result<u64> {
        let parsed = match &self.peek().token {
            Token::Number(digits, false) => digits.replace('_', "").parse().ok(),
            _ => None,
        };
        match parsed {
            Some(number) => {
                self.advance();
                Ok(number)
            }
            None => Err(self.expected("an integer")),
        }
    }

    /// An expression, with its text.
    pub(super) fn expression(&mut self) -> Result<Expression> {
        let start = self.peek().span.start;
        let mut expr = self.parser.parse_expr().map_err(|e| self.raise(e))?;
        query::check_expr(&mut expr).map_err(|e| e.at(self))?;
        Ok(Expression {
            ast: expr,
            sql: self.text.slice(Span::new(start, self.last_end())).to_owned(),
            position: self.text.position(start),
        })
    }

    /// A query, with its text.
    pub(super) fn query(&mut self) -> Result<QueryText> {
        let start = self.peek().span.start;
        let ast = self.plain_query()?;
        Ok(QueryText {
            ast,
            sql: self.text.slice(Span::new(start, self.last_end())).to_owned(),
            position: self.text.position(start),
        })
    }

    pub(super) fn plain_query(&mut self) -> Result<Box<ast::Query>> {
        if !self.peek_query() {
            return Err(self.expected("a query"));
        }
        let mut query = self.parser.parse_query().map_err(|e| self.raise(e))?;
        query::check_query(&mut query).map_err(|e| e.at(self))?;
        Ok(query)
    }

    /// Whether a query begins here.
    pub(super) fn peek_query(&self) -> bool {
        self.peek_is(&Token::LParen)
            || self.peek_one_of(&["SELECT", "WITH", "VALUES", "TABLE"]).is_some()
    }

    /// Whether a parenthesis comes next that holds a query.
    pub(super) fn peek_query_in_parens(&self) -> bool {
        let inside = (0..).find(|n| self.peek_nth(*n).token != Token::LParen).unwrap_or(0);
        inside > 0
            && ["SELECT", "WITH", "VALUES", "TABLE"]
                .iter()
                .any(|word| is_word(&self.peek_nth(inside).token, word))
    }

    /// A statement of sqlparser's that is not a query.
    pub(super) fn foreign_statement(&mut self) -> Result<ast::Statement> {
        let mut statement = self.parser.parse_statement().map_err(|e| self.raise(e))?;
        query::check_statement(&mut statement).map_err(|e| e.at(self))?;
        Ok(statement)
    }

    /// All that is left, as a statement with its own text.
    pub(super) fn rest(&mut self) -> Result<StatementTokens> {
        let mut tokens = Vec::new();
        while !self.at_end() {
            tokens.push(self.parser.next_token());
        }
        cut(self.text, tokens, None).ok_or_else(|| self.syntax_error())
    }

    /// Where the last token that was read ends.
    pub(super) fn last_end(&self) -> Location {
        let mut index = self.parser.index();
        while index > 0 {
            index -= 1;
            match self.parser.token_at(index) {
                TokenWithSpan { token: Token::Whitespace(_) | Token::EOF, .. } => {}
                token => return token.span.end,
            }
        }
        Location::new(1, 1)
    }

    // Complaining.

    /// `syntax error at or near` the next token.
    pub(super) fn syntax_error(&self) -> Error {
        let error = self.syntax_error_at(self.peek());
        match hints::for_token(self, self.next_index()) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// The index of the next token.
    fn next_index(&self) -> usize {
        let mut index = self.parser.index();
        while matches!(self.parser.token_at(index).token, Token::Whitespace(_)) {
            index += 1;
        }
        index
    }

    /// The same, saying what should stand there.
    pub(super) fn expected(&self, what: &str) -> Error {
        self.syntax_error().detail(format!("Expected {what} here."))
    }

    fn expected_name(&self) -> Error {
        let error = self.expected("a name");
        match &self.peek().token {
            Token::Word(word) => error.hint(reserved_hint(&word.value)),
            Token::SingleQuotedString(_) => {
                error.hint("Names stand in double quotes; single quotes are for strings.")
            }
            _ => error,
        }
    }

    /// SQLSTATE 0A000 at the next token.
    pub(super) fn unsupported(&self, what: &str, hint: &str) -> Error {
        let error = Error::unsupported(what).position(self.position());
        if hint.is_empty() { error } else { error.hint(hint) }
    }

    /// The first token of the first place where these words stand in a row.
    pub(super) fn find_words(&self, words: &[&str]) -> Option<&TokenWithSpan> {
        let stand_at = |at: usize| {
            words.iter().enumerate().all(|(n, w)| is_word(&self.parser.token_at(at + n).token, w))
        };
        (0..self.token_count()).find(|at| stand_at(*at)).map(|at| self.parser.token_at(at))
    }

    /// The first token of this kind.
    pub(super) fn find(&self, wanted: impl Fn(&TokenWithSpan) -> bool) -> Option<&TokenWithSpan> {
        (0..self.token_count()).map(|at| self.parser.token_at(at)).find(|token| wanted(token))
    }

    /// What stands behind the last token.
    pub(super) fn end_token(&self) -> &TokenWithSpan {
        self.parser.token_at(self.token_count())
    }

    /// How many tokens the statement has.
    pub(super) fn token_count(&self) -> usize {
        let mut count = self.parser.index();
        while self.parser.token_at(count).token != Token::EOF {
            count += 1;
        }
        // The parser may stand behind the end.
        while count > 0 && self.parser.token_at(count - 1).token == Token::EOF {
            count -= 1;
        }
        count
    }

    /// A syntax error at the first of several clauses that is there.
    pub(super) fn syntax_error_at_words(&self, clauses: &[&[&str]], hint: &str) -> Error {
        let token = clauses.iter().find_map(|words| self.find_words(words));
        self.syntax_error_at(token.unwrap_or_else(|| self.peek())).hint(hint)
    }

    /// SQLSTATE 0A000 where these words stand.
    pub(super) fn unsupported_at_words(&self, words: &[&str], what: &str, hint: &str) -> Error {
        let token = self.find_words(words).unwrap_or_else(|| self.peek());
        Error::unsupported(what).hint(hint).position(self.text.position(token.span.start))
    }

    pub(super) fn syntax_error_at(&self, token: &TokenWithSpan) -> Error {
        // sqlparser passes over GROUP BY as a whole or not at all.
        let halves = [("GROUP", "BY"), ("ORDER", "BY"), ("PARTITION", "BY")];
        let half = halves.iter().find(|(first, _)| is_word(&token.token, first));
        let token = match half {
            Some((_, second)) => {
                let next = self.find(|t| t.span.start > token.span.start);
                let next = next.unwrap_or_else(|| self.end_token());
                if is_word(&next.token, second) { token } else { next }
            }
            None => token,
        };
        syntax_error(self.text, token)
    }

    /// sqlparser's error as ours.
    pub(super) fn raise(&self, error: ParserError) -> Error {
        let message = match error {
            ParserError::RecursionLimitExceeded => {
                return too_complex().position(self.position());
            }
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        };
        let index = self.error_index(&message);
        let token = self.parser.token_at(index);
        let error = self.syntax_error_at(token);
        if let Token::Word(word) = &token.token
            && message.starts_with(RESERVED_WORD)
        {
            let hint = hints::for_token(self, index);
            return error.hint(hint.unwrap_or_else(|| reserved_hint(&word.value)));
        }
        let error = match expectation(&message) {
            Some(what) => error.detail(format!("Expected {what} here.")),
            None => error,
        };
        match hints::for_token(self, index) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// The token that an error of sqlparser is about: it ends in `at Line: l, Column: c`.
    fn error_index(&self, message: &str) -> usize {
        let count = self.token_count();
        if message.ends_with("found: EOF") {
            return count;
        }
        match location_of(message) {
            Some(at) => (0..count)
                .find(|i| self.parser.token_at(*i).span.start == at)
                .unwrap_or_else(|| self.parser.index().min(count)),
            None => self.parser.index().min(count),
        }
    }
}

/// `syntax error at or near "token"`, or at the end.
pub(in crate::sql) fn syntax_error(text: &SqlText, token: &TokenWithSpan) -> Error {
    let error = |near: String, position| {
        Error::user(SqlState::SYNTAX_ERROR, format!("syntax error at {near}")).position(position)
    };
    match token.token {
        Token::EOF => match text.semicolon {
            Some(position) => error("or near \";\"".to_owned(), position),
            None => error("end of input".to_owned(), text.end_position()),
        },
        _ => {
            let near = format!("or near \"{}\"", text.slice(token.span));
            error(near, text.position(token.span.start))
        }
    }
}

/// How the dialect's errors about reserved words begin.
pub(super) const RESERVED_WORD: &str = "reserved word";

pub(super) fn reserved_hint(word: &str) -> String {
    let word = fold(word);
    format!("\"{word}\" is a reserved word: put it in double quotes to use it as a name.")
}

fn location_of(message: &str) -> Option<Location> {
    let (_, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some(Location::new(line.parse().ok()?, column.parse().ok()?))
}

/// The X of `Expected: X, found: ...` where it tells something.
fn expectation(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("Expected: ")?;
    let (what, _) = rest.split_once(", found: ")?;
    let vague = ["end of statement", "joined table", "an SQL statement"];
    (what.len() <= 60 && !vague.contains(&what)).then_some(what)
}

/// Whether a token is this word, unquoted, in any case.
pub(in crate::sql) fn is_word(token: &Token, word: &str) -> bool {
    match token {
        Token::Word(w) => w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word),
        _ => false,
    }
}

/// A word as sqlparser's tokenizer would make it.
pub(in crate::sql) fn word_token(word: &str) -> Token {
    let token = Token::make_word(word, None);
    debug_assert!(matches!(&token, Token::Word(w) if w.keyword != Keyword::NoKeyword));
    token
}
