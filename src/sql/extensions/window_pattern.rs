//! Row patterns in windows (`m OVER (... PATTERN (...) ...)`, SQL:2016 R020) as a table in FROM.
//!
//! A window whose frame has a pattern becomes a table that has each row of FROM and WHERE, with the
//! window's measures and functions of the row as further columns; see
//! `sql::match_recognize::clauses::FrameClause`. What stood in the select list becomes a column:
//!
//! `SELECT id, m OVER w FROM t WHERE c WINDOW w AS (ORDER BY id MEASURES x AS m ROWS ... PATTERN ...)`
//!
//! is read as
//!
//! `SELECT id, "__over 1.1" AS m FROM __window_pattern (t WHERE c) (ORDER BY id MEASURES x AS
//! "__over 1.1" ROWS ... PATTERN ...)`
//!
//! One window is taken at a time. Tokens keep their places.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use super::Rewriter;
use crate::sql::parse::cursor::{is_word, syntax_error, word_token};
use crate::sql::parse::name::fold;
use crate::types::error::{Error, Result, SqlState};

/// The table's name in the rewritten text.
pub(super) const TABLE: &str = "__window_pattern";
/// Words that begin what stands behind a select list, in their order.
const CLAUSES: [&[&str]; 16] = [
    &["FROM"],
    &["WHERE"],
    &["GROUP", "BY"],
    &["HAVING"],
    &["WINDOW"],
    &["ORDER", "BY"],
    &["LIMIT"],
    &["OFFSET"],
    &["FETCH"],
    &["FOR"],
    &["UNION"],
    &["INTERSECT"],
    &["EXCEPT"],
    &["EMIT"],
    &["WITH"],
    &["RETURNING"],
];

/// A window with a pattern, and the query that it belongs to.
struct Found {
    /// The window's parentheses.
    open: usize,
    close: usize,
    /// The name that WINDOW gives it.
    name: Option<String>,
    /// The query's SELECT, and behind its last token.
    select: usize,
    end: usize,
}

/// A function over the window.
struct Call {
    /// Its tokens, with OVER and what follows.
    from: usize,
    to: usize,
    /// Where OVER stands.
    over: usize,
}

impl Rewriter<'_> {
    /// The tokens with one window pattern lifted to FROM; `None`: there is none.
    pub(super) fn lift_window_pattern(&self) -> Result<Option<Vec<TokenWithSpan>>> {
        let count = self.tokens.len();
        let Some(open) = (0..count).find(|at| self.opens_pattern_window(*at)) else {
            return Ok(None);
        };
        let found = self.query_of(open)?;
        let clause = |words: &[&str]| self.clause(&found, words);
        let place = |words: &[&str]| clause(words).unwrap_or(found.end);
        let behind = |at: usize| {
            let next = CLAUSES.iter().filter_map(|words| clause(words)).filter(|next| *next > at);
            next.min().unwrap_or(found.end)
        };
        for words in [&["GROUP", "BY"][..], &["HAVING"]] {
            if let Some(at) = clause(words) {
                return Err(Error::unsupported("a row pattern in a window of grouped rows")
                    .hint("Group in a subquery.")
                    .position(self.position(at)));
            }
        }
        let from = place(&["FROM"]);
        if from == found.end {
            return Err(syntax_error(self.text, &self.tokens[found.open])
                .hint("A row pattern needs rows: write FROM."));
        }
        let calls = self.calls(&found);
        let mut lifted = Lifted {
            reader: self,
            output: Vec::new(),
            measures: Vec::new(),
            window: self.position(found.open),
        };
        lifted.copy(0, found.select + 1);
        lifted.select_list(&found, &calls, found.select + 1, from)?;
        let span = self.tokens[from].span;
        lifted.copy(from, from + 1);
        lifted.word(TABLE, span);
        lifted.push(Token::LParen, span);
        let filter = clause(&["WHERE"]);
        lifted.copy(from + 1, behind(from));
        if let Some(filter) = filter {
            lifted.copy(filter, behind(filter));
        }
        lifted.push(Token::RParen, span);
        // The window stands behind FROM, but what it computes is asked for there, too.
        let rest = filter.map_or(behind(from), behind);
        let mut tail = Lifted { output: Vec::new(), ..lifted.clone() };
        tail.rest(&found, &calls, rest, count)?;
        lifted.measures = tail.measures;
        lifted.window(&found)?;
        lifted.output.append(&mut tail.output);
        Ok(Some(lifted.output))
    }

    /// Whether a window with a pattern in its frame opens here.
    fn opens_pattern_window(&self, at: usize) -> bool {
        let before = self.word_before(at, "OVER") || self.word_before(at, "AS");
        let Some(close) = self.close_of(at).filter(|_| before) else { return false };
        self.top_level(at + 1, close)
            .any(|at| self.words_at(at, &["PATTERN"]) && *self.token(at + 1) == Token::LParen)
    }

    /// The tokens between two indices that stand in no parentheses of their own.
    fn top_level(&self, from: usize, to: usize) -> impl Iterator<Item = usize> + '_ {
        let mut at = from;
        std::iter::from_fn(move || {
            let here = (at < to).then_some(at)?;
            at = self.close_of(here).unwrap_or(here) + 1;
            Some(here)
        })
    }

    /// The query that a window belongs to.
    fn query_of(&self, open: usize) -> Result<Found> {
        let close = self.close_of(open).unwrap_or(open);
        let wrong = || syntax_error(self.text, &self.tokens[open]);
        // From the innermost parentheses around it outwards.
        let mut inside = open;
        loop {
            let around =
                (0..inside).rev().find(|at| self.close_of(*at).is_some_and(|close| close > inside));
            let begin = around.map_or(0, |at| at + 1);
            let level_end = around.and_then(|at| self.close_of(at)).unwrap_or(self.tokens.len());
            let select = self
                .top_level(begin, open)
                .filter(|at| *at < open && self.words_at(*at, &["SELECT"]))
                .last();
            if let Some(select) = select {
                let ends = |at: &usize| {
                    let sets = ["UNION", "INTERSECT", "EXCEPT"];
                    sets.iter().any(|word| self.words_at(*at, &[word]))
                        || *self.token(*at) == Token::SemiColon
                };
                let end = self.top_level(select, level_end).find(ends).unwrap_or(level_end);
                let named = self.word_before(open, "AS")
                    && matches!(open.checked_sub(2).map(|at| self.token(at)), Some(Token::Word(_)));
                let name = match (self.word_before(open, "OVER"), named) {
                    (true, _) => None,
                    (false, true) => self.folded(open - 2),
                    (false, false) => return Err(wrong()),
                };
                return Ok(Found { open, close, name, select, end });
            }
            inside = around.ok_or_else(wrong)?;
        }
    }

    fn folded(&self, at: usize) -> Option<String> {
        match self.token(at) {
            Token::Word(word) => Some(match word.quote_style {
                Some(_) => word.value.clone(),
                None => fold(&word.value),
            }),
            _ => None,
        }
    }

    /// Where a clause of the query begins.
    fn clause(&self, found: &Found, words: &[&str]) -> Option<usize> {
        let mut tokens = self.top_level(found.select, found.end);
        tokens.find(|at| self.words_at(*at, words))
    }

    /// The functions over the window, in order.
    fn calls(&self, found: &Found) -> Vec<Call> {
        let of_window = |over: usize| match &found.name {
            None => over + 1 == found.open,
            Some(name) => self.folded(over + 1).as_ref() == Some(name),
        };
        let overs =
            (found.select..found.end).filter(|at| self.words_at(*at, &["OVER"]) && of_window(*at));
        let calls = overs.filter_map(|over| {
            let mut from = over.checked_sub(1)?;
            let open_of = |close: usize| {
                (found.select..close).rev().find(|at| self.close_of(*at) == Some(close))
            };
            if *self.token(from) == Token::RParen {
                from = open_of(from)?.checked_sub(1)?;
                if self.words_at(from, &["FILTER"]) {
                    from = open_of(from.checked_sub(1)?)?.checked_sub(1)?;
                }
            }
            let to = if found.name.is_some() { over + 2 } else { found.close + 1 };
            matches!(self.token(from), Token::Word(_)).then_some(Call { from, to, over })
        });
        calls.collect()
    }
}

/// The rewritten tokens as they come.
#[derive(Clone)]
struct Lifted<'a, 't> {
    reader: &'a Rewriter<'t>,
    output: Vec<TokenWithSpan>,
    /// The tokens of each function over the window.
    measures: Vec<Vec<TokenWithSpan>>,
    /// Where the window stands in the statement, which tells its columns from others'.
    window: usize,
}

impl Lifted<'_, '_> {
    fn copy(&mut self, from: usize, to: usize) {
        self.output.extend_from_slice(&self.reader.tokens[from..to]);
    }

    fn push(&mut self, token: Token, span: Span) {
        self.output.push(TokenWithSpan { token, span });
    }

    fn word(&mut self, word: &str, span: Span) {
        self.push(Token::make_word(word, None), span);
    }

    /// A part of the query with its functions over the window as columns.
    fn with_columns(
        &mut self,
        found: &Found,
        calls: &[Call],
        from: usize,
        to: usize,
    ) -> Result<()> {
        let mut next = from;
        for call in calls {
            if next <= call.from && call.to <= to {
                self.copy(next, call.from);
                self.call(found, call)?;
                next = call.to;
            }
        }
        self.copy(next, to);
        Ok(())
    }

    /// The select list: a function over the window alone keeps its name.
    fn select_list(&mut self, found: &Found, calls: &[Call], from: usize, to: usize) -> Result<()> {
        let reader = self.reader;
        let mut begin = from;
        let mut at = from;
        while at <= to {
            if at < to && *reader.token(at) != Token::Comma {
                at = reader.close_of(at).unwrap_or(at) + 1;
                continue;
            }
            let whole = calls.iter().find(|call| call.from == begin && call.to == at);
            if *reader.token(begin) == Token::Mul {
                return Err(Error::unsupported("* beside a row pattern in a window")
                    .hint("Write t.*, or the columns.")
                    .position(reader.position(begin)));
            }
            self.with_columns(found, calls, begin, at)?;
            if let Some(call) = whole {
                let span = reader.tokens[call.from].span;
                self.push(word_token("AS"), span);
                self.push(reader.token(call.from).clone(), span);
            }
            if at < to {
                self.copy(at, at + 1);
            }
            begin = at + 1;
            at = begin;
        }
        Ok(())
    }

    /// What stands behind FROM and WHERE, without the window.
    fn rest(&mut self, found: &Found, calls: &[Call], from: usize, to: usize) -> Result<()> {
        let reader = self.reader;
        let windows = reader.clause(found, &["WINDOW"]).filter(|_| found.name.is_some());
        let Some(windows) = windows.filter(|at| *at >= from) else {
            return self.with_columns(found, calls, from, to);
        };
        self.with_columns(found, calls, from, windows)?;
        // `name AS (...), ...`
        let mut kept: Vec<(usize, usize)> = Vec::new();
        let mut at = windows + 1;
        loop {
            let close = reader.close_of(at + 2).unwrap_or(at + 2);
            if at + 2 != found.open {
                kept.push((at, close + 1));
            }
            at = close + 1;
            if *reader.token(at) != Token::Comma {
                break;
            }
            at += 1;
        }
        for (nth, (from, to)) in kept.into_iter().enumerate() {
            let before = if nth == 0 { word_token("WINDOW") } else { Token::Comma };
            self.push(before, reader.tokens[from].span);
            self.copy(from, to);
        }
        self.with_columns(found, calls, at, to)
    }

    /// One function over the window, as a column.
    fn call(&mut self, found: &Found, call: &Call) -> Result<()> {
        let reader = self.reader;
        let span = reader.tokens[call.from].span;
        let is_call = *reader.token(call.from + 1) == Token::LParen;
        let name = reader.folded(call.from).unwrap_or_default();
        let first = |words: &[&str], behind: &[TokenWithSpan]| {
            let made = words
                .iter()
                .map(|word| TokenWithSpan { token: Token::make_word(word, None), span });
            made.chain(behind.iter().cloned()).collect::<Vec<_>>()
        };
        if !is_call {
            let expression = reader.measure_of(found, &name, call.from)?;
            // A row without a match has nothing, whatever the expression.
            let mut measure = Vec::new();
            let before = [
                word_token("CASE"),
                word_token("WHEN"),
                Token::make_word("match_timed_out", None),
                Token::LParen,
                Token::RParen,
                word_token("IS"),
                word_token("NOT"),
                word_token("NULL"),
                word_token("THEN"),
            ];
            measure.extend(before.into_iter().map(|token| TokenWithSpan { token, span }));
            measure.extend(expression);
            measure.push(TokenWithSpan { token: word_token("END"), span });
            self.column(measure, span);
            return Ok(());
        }
        let tokens = &reader.tokens[call.from..call.over];
        match name.as_str() {
            "first_value" => self.column(first(&["first"], &tokens[1..]), span),
            "last_value" => self.column(first(&["last"], &tokens[1..]), span),
            "nth_value" => {
                let nth = tokens.len().checked_sub(2).map(|at| &tokens[at].token);
                let Some(Token::Number(nth, _)) = nth else {
                    return Err(Error::unsupported("nth_value of a number that is no literal")
                        .position(reader.position(call.from)));
                };
                let Some(offset) = nth.parse::<u64>().ok().and_then(|nth| nth.checked_sub(1))
                else {
                    return Err(Error::user(
                        SqlState("22016"),
                        "argument of nth_value must be greater than zero",
                    )
                    .position(reader.position(call.from)));
                };
                let mut moved = first(&["first"], &tokens[1..]);
                let place = moved.len() - 2;
                moved[place].token = Token::Number(offset.to_string(), false);
                self.column(moved, span);
            }
            // They count rows of the partition, whatever the frame is.
            "row_number" | "rank" | "dense_rank" | "percent_rank" | "cume_dist" | "ntile"
            | "lag" | "lead" => {
                self.copy(call.from, call.over + 1);
                self.push(Token::LParen, span);
                let ends = |at: &usize| {
                    reader.words_at(*at, &["MEASURES"]) || reader.words_at(*at, &["ROWS"])
                };
                let end = reader.top_level(found.open + 1, found.close).find(ends);
                self.copy(found.open + 1, end.unwrap_or(found.close));
                self.push(Token::RParen, span);
            }
            // Of no rows it is 0, not NULL.
            "count" | "regr_count" => {
                let mut counted = first(&["coalesce"], &[]);
                counted.push(TokenWithSpan { token: Token::LParen, span });
                counted.extend_from_slice(tokens);
                for token in [Token::Comma, Token::Number("0".to_owned(), false), Token::RParen] {
                    counted.push(TokenWithSpan { token, span });
                }
                self.column(counted, span);
            }
            _ => self.column(tokens.to_vec(), span),
        }
        Ok(())
    }

    /// The column of an expression over the match.
    fn column(&mut self, expression: Vec<TokenWithSpan>, span: Span) {
        let same = |other: &Vec<TokenWithSpan>| {
            other.iter().map(|t| &t.token).eq(expression.iter().map(|t| &t.token))
        };
        let number = match self.measures.iter().position(same) {
            Some(place) => place + 1,
            None => {
                self.measures.push(expression);
                self.measures.len()
            }
        };
        self.push(self.column_name(number), span);
    }

    /// The column of a function, numbered from 1.
    fn column_name(&self, number: usize) -> Token {
        Token::Word(Word {
            value: format!("__over {}.{number}", self.window),
            quote_style: Some('"'),
            keyword: Keyword::NoKeyword,
        })
    }

    /// The window's clauses, with what is asked for as its measures.
    fn window(&mut self, found: &Found) -> Result<()> {
        let reader = self.reader;
        let span = reader.tokens[found.open].span;
        let begins = ["PARTITION", "ORDER", "MEASURES", "ROWS", "RANGE", "GROUPS"];
        if !begins.iter().any(|word| reader.words_at(found.open + 1, &[word])) {
            return Err(Error::unsupported("a row pattern in a window that builds on another")
                .hint("Write PARTITION BY and ORDER BY of the other window out.")
                .position(reader.position(found.open + 1)));
        }
        let top = |word: &str| {
            let mut tokens = reader.top_level(found.open + 1, found.close);
            tokens.find(|at| reader.words_at(*at, &[word]))
        };
        let frame = top("ROWS").filter(|at| reader.words_at(*at, &["ROWS", "BETWEEN"]));
        let Some(frame) = frame else {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "a window with a row pattern has a frame of ROWS BETWEEN CURRENT ROW AND ...",
            )
            .position(reader.position(found.open)));
        };
        let measures = top("MEASURES").filter(|at| *at < frame).unwrap_or(frame);
        self.push(Token::LParen, span);
        self.copy(found.open + 1, measures);
        for (nth, measure) in std::mem::take(&mut self.measures).into_iter().enumerate() {
            let before = if nth == 0 { word_token("MEASURES") } else { Token::Comma };
            self.push(before, span);
            self.output.extend(measure);
            self.push(word_token("AS"), span);
            self.push(self.column_name(nth + 1), span);
        }
        self.copy(frame, found.close + 1);
        Ok(())
    }
}

impl Rewriter<'_> {
    /// The expression of a measure that the window defines.
    fn measure_of(&self, found: &Found, name: &str, at: usize) -> Result<Vec<TokenWithSpan>> {
        let inside = || self.top_level(found.open + 1, found.close);
        let measures = inside().find(|at| self.words_at(*at, &["MEASURES"]));
        let end = inside().find(|at| self.words_at(*at, &["ROWS", "BETWEEN"]));
        if let (Some(measures), Some(end)) = (measures, end) {
            let mut begin = measures + 1;
            let commas = self.top_level(measures + 1, end);
            let commas = commas.filter(|at| *self.token(*at) == Token::Comma).chain([end]);
            for item_end in commas.collect::<Vec<_>>() {
                let named = item_end >= begin + 3 && is_word(self.token(item_end - 2), "AS");
                if named && self.folded(item_end - 1).as_deref() == Some(name) {
                    return Ok(self.tokens[begin..item_end - 2].to_vec());
                }
                begin = item_end + 1;
            }
        }
        Err(Error::user(
            SqlState::UNDEFINED_OBJECT,
            format!("the window has no measure \"{name}\""),
        )
        .hint("Functions take parentheses; measures are those of the window's MEASURES.")
        .position(self.position(at)))
    }
}
