//! `t MATCH_RECOGNIZE (...)` as a query that sqlparser's grammar has; see
//! `sql::match_recognize::clauses`. Expressions keep their tokens, and so their places.

use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::Rewriter;
use super::window_pattern::TABLE;
use crate::plan::match_recognize::text::{Named, NamedPattern, PatternReader};
use crate::sql::match_recognize::clauses::{
    Clauses, ContiguityClause, FINAL, FrameClause, MARKER, RUNNING, RowsClause, SkipClause, Sort,
    WithinClause,
};
use crate::sql::parse::cursor::{is_word, syntax_error, word_token};
use crate::sql::parse::name::{fold, is_reserved};
use crate::types::error::{Error, Result, SqlState};

/// Tokens from one index up to another.
type Part = (usize, usize);

impl Rewriter<'_> {
    /// A table with MATCH_RECOGNIZE behind it; gives the index behind it.
    pub(super) fn match_recognize(&mut self, at: usize, to: usize) -> Result<Option<usize>> {
        if !self.has_patterns || !self.expects_table(at) {
            return Ok(None);
        }
        if let Some(rows) = self.close_of(at + 1).filter(|_| self.words_at(at, &[TABLE])) {
            let Some(close) = self.close_of(rows + 1).filter(|close| *close < to) else {
                return Ok(None);
            };
            let mut reader = ClauseReader { rewriter: self, at: rows + 2, end: close };
            let read = reader.read(rows + 1, true)?;
            return self.as_query(read, rows + 1, (at + 2, rows), close).map(Some);
        }
        let Some(word) = self.end_of_table(at) else { return Ok(None) };
        if word >= to || *self.token(word + 1) != Token::LParen {
            return Ok(None);
        }
        let Some(close) = self.close_of(word + 1) else {
            let end = TokenWithSpan::new_eof();
            return Err(syntax_error(self.text, &end).hint("A parenthesis is open."));
        };
        if close >= to {
            return Ok(None);
        }
        let mut reader = ClauseReader { rewriter: self, at: word + 2, end: close };
        let read = reader.read(word, false)?;
        self.as_query(read, word, (at, word), close).map(Some)
    }

    /// The query that stands for a table with clauses; gives the index behind them.
    fn as_query(
        &mut self,
        (clauses, expressions): (Clauses, Vec<Part>),
        word: usize,
        table: Part,
        close: usize,
    ) -> Result<usize> {
        let text = serde_json::to_string(&clauses)
            .map_err(|error| Error::internal(format!("clauses as text: {error}")))?;
        let span = self.tokens[word].span;
        self.push(Token::LParen, span);
        self.push(word_token("SELECT"), span);
        self.push(Token::make_word(MARKER, None), span);
        self.push(Token::LParen, span);
        self.push(Token::SingleQuotedString(text), span);
        self.push(Token::RParen, span);
        for (from, to) in expressions {
            self.push(Token::Comma, self.tokens[from].span);
            self.pattern_expression(from, to)?;
        }
        self.push(word_token("FROM"), span);
        self.range(table.0, table.1)?;
        self.output.push(self.tokens[close].clone());
        Ok(close + 1)
    }

    fn push(&mut self, token: Token, span: Span) {
        self.output.push(TokenWithSpan { token, span });
    }

    /// The index of MATCH_RECOGNIZE behind a table that begins here.
    fn end_of_table(&self, at: usize) -> Option<usize> {
        let mut next = match self.token(at) {
            Token::LParen => self.close_of(at)? + 1,
            Token::Word(_) => {
                let mut next = at + 1;
                while *self.token(next) == Token::Period {
                    next += 2;
                }
                self.close_of(next).map_or(next, |close| close + 1)
            }
            _ => return None,
        };
        if self.words_at(next, &["MATCH_RECOGNIZE"]) {
            return Some(next);
        }
        next += usize::from(self.words_at(next, &["AS"]));
        match self.token(next) {
            Token::Word(word) if word.quote_style.is_some() || !is_reserved(&word.value) => {}
            _ => return None,
        }
        // Names of columns may follow the alias.
        next = self.close_of(next + 1).map_or(next + 1, |close| close + 1);
        self.words_at(next, &["MATCH_RECOGNIZE"]).then_some(next)
    }

    /// An expression, with `RUNNING f(x)` as `__running(f(x))`, and FINAL alike.
    fn pattern_expression(&mut self, from: usize, to: usize) -> Result<()> {
        let mut at = from;
        while at < to {
            let mark = [("RUNNING", RUNNING), ("FINAL", FINAL)]
                .into_iter()
                .find(|(word, _)| self.words_at(at, &[word]));
            let call = matches!(self.token(at + 1), Token::Word(_))
                && *self.token(at + 2) == Token::LParen;
            let close = self.close_of(at + 2).filter(|close| *close < to);
            let nested =
                self.words_at(at, &["MATCH_RECOGNIZE"]) && *self.token(at + 1) == Token::LParen;
            if nested {
                return Err(Error::unsupported("MATCH_RECOGNIZE within another")
                    .hint("Write it as WITH name AS (SELECT ...) before, and read that.")
                    .position(self.position(at)));
            }
            let (Some((_, name)), true, Some(close)) = (mark, call, close) else {
                self.refuse(at)?;
                at = self.one(at);
                continue;
            };
            let mut close = close;
            if self.words_at(close + 1, &["WITHIN", "GROUP"]) {
                close = self.close_of(close + 3).unwrap_or(close);
            }
            if self.words_at(close + 1, &["FILTER"]) {
                close = self.close_of(close + 2).unwrap_or(close);
            }
            let span = self.tokens[at].span;
            self.push(Token::make_word(name, None), span);
            self.push(Token::LParen, span);
            self.pattern_expression(at + 1, close + 1)?;
            self.push(Token::RParen, self.tokens[close].span);
            at = close + 1;
        }
        Ok(())
    }
}

/// Reads what stands in the parentheses of MATCH_RECOGNIZE.
struct ClauseReader<'a, 't> {
    rewriter: &'a Rewriter<'t>,
    at: usize,
    /// The closing parenthesis.
    end: usize,
}

impl ClauseReader<'_, '_> {
    /// `window`: they are of a window, with its frame in place of ONE ROW and ALL ROWS PER MATCH.
    fn read(&mut self, word: usize, window: bool) -> Result<(Clauses, Vec<Part>)> {
        let mut expressions = Vec::new();
        let mut partition = 0;
        if self.eat(&["PARTITION", "BY"]) {
            let keys = self.items()?;
            partition = keys.len();
            expressions.extend(keys);
        }
        let mut order_by = Vec::new();
        if self.eat(&["ORDER", "BY"]) {
            for item in self.items()? {
                let (sort, expression) = self.sort(item)?;
                order_by.push(sort);
                expressions.push(expression);
            }
        }
        let mut measures = Vec::new();
        if self.eat(&["MEASURES"]) {
            for item in self.items()? {
                let (name, expression) = self.measure(item)?;
                measures.push(name);
                expressions.push(expression);
            }
        }
        let rows_following = if window { Some(self.frame()?) } else { None };
        let rows = if window { RowsClause::One } else { self.rows()? };
        let skip = self.skip()?;
        let seek = window && !self.eat(&["INITIAL"]) && self.eat(&["SEEK"]);
        let frame = rows_following.map(|rows_following| FrameClause { rows_following, seek });
        if !self.eat(&["PATTERN"]) {
            return Err(self.expected("PATTERN"));
        }
        let contiguity = if self.eat(&["RELAXED", "ANY"]) {
            ContiguityClause::RelaxedAny
        } else if self.eat(&["RELAXED"]) {
            ContiguityClause::Relaxed
        } else {
            self.eat(&["STRICT"]);
            ContiguityClause::Strict
        };
        let pattern_from = !window && self.eat(&["FROM"]);
        let pattern_position = self.rewriter.position(self.at);
        let Some(close) = self.rewriter.close_of(self.at) else { return Err(self.expected("(")) };
        let value = pattern_from.then_some((self.at + 1, close));
        let pattern = match pattern_from {
            true if self.at + 1 == close => return Err(self.expected("an expression")),
            true => NamedPattern::Empty,
            false => {
                let span = Span::new(
                    self.rewriter.tokens[self.at].span.start,
                    self.rewriter.tokens[close].span.end,
                );
                PatternReader::read(self.rewriter.text.slice(span), pattern_position)?
            }
        };
        self.at = close + 1;
        let within = self.within()?;
        if window && let Some(within) = &within {
            return Err(Error::user(SqlState::SYNTAX_ERROR, "WITHIN in a window")
                .hint("The frame bounds the match: ROWS BETWEEN CURRENT ROW AND 9 FOLLOWING.")
                .position(within.position));
        }
        let (mut timeout_rows, mut partial_rows) = (false, false);
        loop {
            if !timeout_rows && self.eat(&["EMIT", "TIMEOUT", "ROWS"]) {
                timeout_rows = true;
            } else if !partial_rows && self.eat(&["EMIT", "PARTIAL", "MATCHES"]) {
                partial_rows = true;
            } else {
                break;
            }
        }
        if timeout_rows && within.is_none() {
            return Err(self.complaint("EMIT TIMEOUT ROWS needs WITHIN", self.at - 1).hint(
                "Without a time limit nothing times out: PATTERN (...) WITHIN INTERVAL '15' \
                 MINUTE EMIT TIMEOUT ROWS.",
            ));
        }
        if window && partial_rows {
            return Err(self.complaint("EMIT PARTIAL MATCHES in a window", self.at - 3).hint(
                "Each row has a row there: use MATCH_RECOGNIZE in FROM to see what did not match.",
            ));
        }
        let subsets = self.subsets()?;
        let mut defines = Vec::new();
        if self.eat(&["DEFINE"]) {
            for (from, to) in self.items()? {
                let name = self.name_at(from)?;
                if !self.rewriter.words_at(from + 1, &["AS"]) || from + 2 >= to {
                    self.at = from + 1;
                    return Err(self.expected("AS"));
                }
                defines.push(name);
                expressions.push((from + 2, to));
            }
        }
        if self.at < self.end {
            return Err(self.expected(")"));
        }
        if value.is_some() && defines.is_empty() {
            return Err(Error::user(SqlState::SYNTAX_ERROR, "PATTERN FROM needs DEFINE")
                .hint("DEFINE names the variables that the patterns may use.")
                .position(pattern_position));
        }
        expressions.extend(value);
        let position = self.rewriter.position(word);
        let clauses = Clauses {
            position,
            partition,
            order_by,
            measures,
            rows,
            skip,
            frame,
            pattern,
            pattern_from,
            pattern_position,
            contiguity,
            within,
            timeout_rows,
            partial_rows,
            subsets,
            defines,
        };
        Ok((clauses, expressions))
    }

    /// `ROWS BETWEEN CURRENT ROW AND ...`: how many rows follow; `None`: all.
    fn frame(&mut self) -> Result<Option<u64>> {
        if !self.eat(&["ROWS", "BETWEEN", "CURRENT", "ROW", "AND"]) {
            return Err(self
                .complaint("the frame of a row pattern begins at its row", self.at)
                .hint(
                    "Write ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING, or a number of rows.",
                ));
        }
        let rows = if self.eat(&["UNBOUNDED", "FOLLOWING"]) {
            None
        } else if self.eat(&["CURRENT", "ROW"]) {
            Some(0)
        } else {
            let Token::Number(number, _) = self.rewriter.token(self.at) else {
                return Err(self.expected("a number of rows"));
            };
            let rows = number.parse().map_err(|_| self.expected("a number of rows"))?;
            self.at += 1;
            if !self.eat(&["FOLLOWING"]) {
                return Err(self.expected("FOLLOWING"));
            }
            Some(rows)
        };
        if self.rewriter.words_at(self.at, &["EXCLUDE"]) && !self.eat(&["EXCLUDE", "NO", "OTHERS"])
        {
            return Err(self.complaint("EXCLUDE in a window with a row pattern", self.at));
        }
        Ok(rows)
    }

    fn eat(&mut self, words: &[&str]) -> bool {
        let found = self.rewriter.words_at(self.at, words) && self.at + words.len() <= self.end;
        if found {
            self.at += words.len();
        }
        found
    }

    fn expected(&self, what: &str) -> Error {
        let at = self.at.min(self.end);
        let token = &self.rewriter.tokens[at];
        syntax_error(self.rewriter.text, token).hint(format!(
            "Expected {what}. The clauses stand in this order: PARTITION BY, ORDER BY, MEASURES, \
             ONE ROW PER MATCH or ALL ROWS PER MATCH, AFTER MATCH SKIP, PATTERN, WITHIN, SUBSET, \
             DEFINE."
        ))
    }

    fn complaint(&self, message: &str, at: usize) -> Error {
        Error::user(SqlState::SYNTAX_ERROR, message).position(self.rewriter.position(at))
    }

    /// Whether a clause begins here, not an item of the one before.
    fn begins_clause(&self, at: usize) -> bool {
        // Not that of an aggregate: WITHIN GROUP (ORDER BY ...).
        let within = self.rewriter.words_at(at, &["WITHIN"])
            && !self.rewriter.words_at(at, &["WITHIN", "GROUP"]);
        let words: [&[&str]; 10] = [
            &["ROWS", "BETWEEN"],
            &["ORDER", "BY"],
            &["MEASURES"],
            &["ONE", "ROW", "PER", "MATCH"],
            &["ALL", "ROWS", "PER", "MATCH"],
            &["AFTER", "MATCH", "SKIP"],
            &["SUBSET"],
            &["DEFINE"],
            &["EMIT", "TIMEOUT"],
            &["EMIT", "PARTIAL"],
        ];
        let pattern = self.rewriter.words_at(at, &["PATTERN"])
            && (*self.rewriter.token(at + 1) == Token::LParen
                || ["RELAXED", "STRICT", "FROM"]
                    .iter()
                    .any(|w| is_word(self.rewriter.token(at + 1), w)));
        pattern || within || words.iter().any(|words| self.rewriter.words_at(at, words))
    }

    /// The items of a list up to the next clause.
    fn items(&mut self) -> Result<Vec<Part>> {
        let mut items = Vec::new();
        let mut begin = self.at;
        let mut at = self.at;
        loop {
            let ends = at >= self.end || (at > begin && self.begins_clause(at));
            if ends || *self.rewriter.token(at) == Token::Comma {
                if begin == at {
                    self.at = at;
                    let token = &self.rewriter.tokens[at.min(self.end)];
                    return Err(syntax_error(self.rewriter.text, token));
                }
                items.push((begin, at));
                begin = at + 1;
            }
            if ends {
                self.at = at;
                return Ok(items);
            }
            at = self.rewriter.close_of(at).unwrap_or(at) + 1;
        }
    }

    /// A name in place of an expression.
    fn name_at(&self, at: usize) -> Result<Named> {
        match self.rewriter.token(at) {
            Token::Word(word) if at < self.end => Ok(Named {
                name: match word.quote_style {
                    Some(_) => word.value.clone(),
                    None => fold(&word.value),
                },
                shown: word.value.clone(),
                position: self.rewriter.position(at),
            }),
            _ => {
                let token = &self.rewriter.tokens[at.min(self.end)];
                Err(syntax_error(self.rewriter.text, token).hint("Expected a name."))
            }
        }
    }

    fn sort(&self, (from, mut to): Part) -> Result<(Sort, Part)> {
        let mut sort = Sort { descending: false, nulls_first: None };
        if to >= from + 2 && self.rewriter.words_at(to - 2, &["NULLS"]) {
            sort.nulls_first = Some(self.rewriter.words_at(to - 1, &["FIRST"]));
            to -= 2;
        }
        if to > from && self.rewriter.words_at(to - 1, &["DESC"]) {
            sort.descending = true;
            to -= 1;
        } else if to > from && self.rewriter.words_at(to - 1, &["ASC"]) {
            to -= 1;
        }
        if from == to {
            return Err(syntax_error(self.rewriter.text, &self.rewriter.tokens[from]));
        }
        Ok((sort, (from, to)))
    }

    /// `expression AS name`.
    fn measure(&self, (from, to): Part) -> Result<(Named, Part)> {
        if to >= from + 3 && self.rewriter.words_at(to - 2, &["AS"]) {
            return Ok((self.name_at(to - 1)?, (from, to - 2)));
        }
        Err(self
            .complaint("a measure has no name", from)
            .hint("Write MEASURES expression AS name, ..."))
    }

    fn rows(&mut self) -> Result<RowsClause> {
        if self.eat(&["ONE", "ROW", "PER", "MATCH"]) {
            return Ok(RowsClause::One);
        }
        if !self.eat(&["ALL", "ROWS", "PER", "MATCH"]) {
            return Ok(RowsClause::One);
        }
        Ok(if self.eat(&["OMIT", "EMPTY", "MATCHES"]) {
            RowsClause::AllOmitEmpty
        } else if self.eat(&["WITH", "UNMATCHED", "ROWS"]) {
            RowsClause::AllWithUnmatched
        } else {
            self.eat(&["SHOW", "EMPTY", "MATCHES"]);
            RowsClause::AllShowEmpty
        })
    }

    fn skip(&mut self) -> Result<SkipClause> {
        if !self.eat(&["AFTER", "MATCH", "SKIP"]) {
            return Ok(SkipClause::PastLastRow);
        }
        if self.eat(&["PAST", "LAST", "ROW"]) {
            return Ok(SkipClause::PastLastRow);
        }
        if !self.eat(&["TO"]) {
            return Err(self.expected("PAST LAST ROW, TO NEXT ROW, or TO [FIRST | LAST] variable"));
        }
        if self.eat(&["NEXT", "ROW"]) {
            return Ok(SkipClause::ToNextRow);
        }
        // A variable may be called first or last.
        let named = |reader: &Self| matches!(reader.rewriter.token(reader.at + 1), Token::Word(_));
        let first = named(self) && !self.begins_clause(self.at + 1) && self.eat(&["FIRST"]);
        if !first && named(self) && !self.begins_clause(self.at + 1) {
            self.eat(&["LAST"]);
        }
        let name = self.name_at(self.at)?;
        self.at += 1;
        Ok(if first { SkipClause::ToFirst(name) } else { SkipClause::ToLast(name) })
    }

    fn within(&mut self) -> Result<Option<WithinClause>> {
        if !self.eat(&["WITHIN"]) {
            return Ok(None);
        }
        let position = self.rewriter.position(self.at);
        if !self.eat(&["INTERVAL"]) {
            return Err(self.expected("INTERVAL"));
        }
        let Token::SingleQuotedString(text) = self.rewriter.token(self.at) else {
            return Err(self.expected("an interval's text in quotes"));
        };
        let mut interval = text.clone();
        self.at += 1;
        if let Token::Word(unit) = self.rewriter.token(self.at)
            && !self.begins_clause(self.at)
            && self.at < self.end
        {
            if text.trim().parse::<f64>().is_ok() {
                interval = format!("{text} {}", unit.value);
            }
            self.at += 1;
            if self.eat(&["TO"]) {
                self.at += 1;
            }
        }
        Ok(Some(WithinClause { interval, position }))
    }

    fn subsets(&mut self) -> Result<Vec<(Named, Vec<Named>)>> {
        let mut subsets = Vec::new();
        if !self.eat(&["SUBSET"]) {
            return Ok(subsets);
        }
        for (from, to) in self.items()? {
            let name = self.name_at(from)?;
            let open = from + 2;
            let close = self.rewriter.close_of(open).filter(|close| *close + 1 == to);
            let (Token::Eq, Some(close)) = (self.rewriter.token(from + 1), close) else {
                return Err(self
                    .complaint("a subset is not of the form U = (A, B)", from)
                    .hint("Write SUBSET U = (A, B), W = (B, C)."));
            };
            let mut members = Vec::new();
            let mut at = open + 1;
            while at < close {
                members.push(self.name_at(at)?);
                at += 1;
                if at < close && *self.rewriter.token(at) != Token::Comma {
                    return Err(syntax_error(self.rewriter.text, &self.rewriter.tokens[at]));
                }
                at += 1;
            }
            if members.is_empty() {
                return Err(syntax_error(self.rewriter.text, &self.rewriter.tokens[close]));
            }
            subsets.push((name, members));
        }
        Ok(subsets)
    }
}
