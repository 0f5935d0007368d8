//! Streaming extensions of queries, turned into forms that sqlparser's grammar has.
//!
//! It works on a statement's tokens before they are parsed. Tokens are moved and dropped, never
//! re-spelled, and each keeps its span: errors point at the user's text, and what a user sees of a
//! query (SHOW CREATE, EXPLAIN) is cut from that text.
//!
//! | the user writes | the parser reads |
//! |---|---|
//! | `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), size))` | `TUMBLE(t, ts, size)` |
//! | `TUMBLE(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => s)` | `TUMBLE(t, ts, s)` |
//! | `SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), gap)` | `SESSION(t, ts, gap, k)` |
//! | `TABLE(f(x))` in FROM | `f(x)` |
//! | `TABLE t` as a query | `SELECT * FROM t` |
//! | `ROW<a int>` as a type | `STRUCT<a int>` |
//! | `TIMESTAMP WITH LOCAL TIME ZONE` | `TIMESTAMP WITH TIME ZONE` |
//! | `a ISNULL` | `a IS NULL` |
//! | `>>>` | `>`, `>`, `>`: the ends of types |
//! | `EXCLUDE NO OTHERS` of a frame | nothing: it is the default |
//! | `OVER (PARTITION BY k ... EXCLUDE TIES)` | `OVER (PARTITION BY "frame exclusion"('TIES'), k ...)` |
//! | `t MATCH_RECOGNIZE (...)` | a query of `t` with the clauses in a string (`match_recognize.rs`) |
//! | `m OVER (... PATTERN (...))` | a column of such a query (`window_pattern.rs`) |
//! | `a ASOF JOIN b ON c` | `a JOIN b ON asof_condition() AND c` |
//! | `a ASOF JOIN b MATCH_CONDITION (m) ON c` | `a JOIN b ON asof_condition() AND (m) AND c` |
//! | `EMIT ...` | a token at which a query ends |
//!
//! HOP and CUMULATE are as TUMBLE.
//! `FOR SYSTEM_TIME AS OF` is in sqlparser's grammar.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Word};

use crate::functions::scalar::windows::ASOF_CONDITION;
use crate::sql::exclude::MARKER;
use crate::sql::parse::cursor::{BARRIER, OPTIONS, is_word, syntax_error, word_token};
use crate::sql::parse::name::is_reserved;
use crate::sql::parse::text::SqlText;
use crate::types::error::{Error, Result, SqlState};

mod match_recognize;
mod window_pattern;

/// A window table function and its arguments, in the order of the short form.
struct WindowFunction {
    name: &'static str,
    arguments: &'static [&'static str],
    /// How many of them must be there.
    required: usize,
}

const WINDOW_FUNCTIONS: [WindowFunction; 4] = [
    WindowFunction {
        name: "TUMBLE",
        arguments: &["DATA", "TIMECOL", "SIZE", "OFFSET"],
        required: 3,
    },
    WindowFunction {
        name: "HOP",
        arguments: &["DATA", "TIMECOL", "SLIDE", "SIZE", "OFFSET"],
        required: 4,
    },
    WindowFunction {
        name: "CUMULATE",
        arguments: &["DATA", "TIMECOL", "STEP", "SIZE", "OFFSET"],
        required: 4,
    },
    WindowFunction { name: "SESSION", arguments: &["DATA", "TIMECOL", "GAP"], required: 3 },
];

/// Words without which a statement has nothing to rewrite.
const TRIGGERS: [&str; 16] = [
    "FILTER",
    "OVER",
    "ISNULL",
    "TUMBLE",
    "HOP",
    "CUMULATE",
    "SESSION",
    "TABLE",
    "SYSTEM_TIME",
    "ASOF",
    "MATCH_RECOGNIZE",
    "EXCLUDE",
    "EMIT",
    "ROW",
    "LOCAL",
    "SINK",
];

/// Rewrites a statement's tokens. Brackets are nested at most as deep as `check_depth` allows.
///
/// # Errors
/// SQLSTATE 42601 for a window function with wrong arguments, 0A000 for what has no planner.
pub(super) fn rewrite(text: &SqlText, tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let triggered = tokens.iter().any(|t| {
        closes_types(&t.token).is_some() || TRIGGERS.iter().any(|word| is_word(&t.token, word))
    });
    if !triggered {
        return Ok(tokens);
    }
    let mut tokens = tokens;
    let has = |tokens: &[TokenWithSpan], word: &str| tokens.iter().any(|t| is_word(&t.token, word));
    let in_window = has(&tokens, "PATTERN") && has(&tokens, "OVER");
    if in_window {
        // One window at a time.
        loop {
            let reader = Rewriter { text, tokens: &tokens, output: vec![], has_patterns: false };
            match reader.lift_window_pattern()? {
                Some(lifted) => tokens = lifted,
                None => break,
            }
        }
    }
    let mut rewriter = Rewriter {
        text,
        tokens: &tokens,
        output: Vec::with_capacity(tokens.len()),
        has_patterns: in_window || has(&tokens, "MATCH_RECOGNIZE"),
    };
    rewriter.range(0, tokens.len())?;
    Ok(rewriter.output)
}

struct Rewriter<'a> {
    text: &'a SqlText,
    tokens: &'a [TokenWithSpan],
    output: Vec<TokenWithSpan>,
    /// MATCH_RECOGNIZE stands somewhere.
    has_patterns: bool,
}

impl Rewriter<'_> {
    /// Rewrites the tokens from one index up to another.
    fn range(&mut self, mut from: usize, to: usize) -> Result<()> {
        while from < to {
            if let Some(next) = self.match_recognize(from, to)? {
                from = next;
                continue;
            }
            self.refuse(from)?;
            let next = self.table_function(from, to)?;
            let next = match next {
                None => self.window_function(from, to)?,
                found => found,
            };
            let next = match next {
                None => self.asof_join(from, to)?,
                found => found,
            };
            let next = match next {
                None => self.excluding_window(from, to)?,
                found => found,
            };
            from = match next {
                Some(next) => next,
                None => self.one(from),
            };
        }
        Ok(())
    }

    /// Rewrites at one token without looking at brackets; gives the index behind.
    fn one(&mut self, at: usize) -> usize {
        if self.words_at(at, &["EXCLUDE", "NO", "OTHERS"]) && self.ends_frame(at) {
            return at + 3;
        }
        if self.words_at(at, &["LOCAL", "TIME", "ZONE"]) && self.word_before(at, "WITH") {
            return at + 1;
        }
        let TokenWithSpan { token, span } = &self.tokens[at];
        if let Some(count) = closes_types(token) {
            self.output.extend((0..count as u64).map(|i| {
                let start = Location::new(span.start.line, span.start.column + i);
                let end = Location::new(start.line, start.column + 1);
                TokenWithSpan { token: Token::Gt, span: Span::new(start, end) }
            }));
            return at + 1;
        }
        let replacement = if self.begins_table_query(at) {
            vec![word_token("SELECT"), Token::Mul, word_token("FROM")]
        } else if self.is_emit(at) {
            vec![BARRIER]
        } else if self.begins_sink_options(at) {
            vec![OPTIONS]
        } else if self.is_row_type(at) {
            vec![word_token("STRUCT")]
        } else if self.words_at(at, &["ISNULL"]) && *self.token(at + 1) != Token::LParen {
            vec![word_token("IS"), word_token("NULL")]
        } else {
            vec![token.clone()]
        };
        self.output
            .extend(replacement.into_iter().map(|token| TokenWithSpan { token, span: *span }));
        at + 1
    }

    /// `TABLE ( f ( ... ) )` where a table stands; gives the index behind it.
    fn table_function(&mut self, at: usize, to: usize) -> Result<Option<usize>> {
        if !self.words_at(at, &["TABLE"]) || !self.expects_table(at) {
            return Ok(None);
        }
        let is_call = matches!(self.token(at + 2), Token::Word(_));
        if !is_call || *self.token(at + 1) != Token::LParen || *self.token(at + 3) != Token::LParen
        {
            return Ok(None);
        }
        let (Some(outer), Some(inner)) = (self.close_of(at + 1), self.close_of(at + 3)) else {
            return Ok(None);
        };
        if outer != inner + 1 || outer >= to {
            return Ok(None);
        }
        if self.window_function(at + 2, to)?.is_none() {
            self.output.extend_from_slice(&self.tokens[at + 2..at + 4]);
            self.range(at + 4, inner)?;
            self.output.push(self.tokens[inner].clone());
        }
        // The text of a query that ends here includes the outer parenthesis.
        if let Some(last) = self.output.last_mut() {
            last.span.end = self.tokens[outer].span.end;
        }
        Ok(Some(outer + 1))
    }

    /// The brackets of a window whose frame ends with EXCLUDE; gives the index behind them.
    fn excluding_window(&mut self, at: usize, to: usize) -> Result<Option<usize>> {
        let opens = ["OVER", "AS"].iter().any(|word| self.word_before(at, word));
        let Some(close) = self.close_of(at).filter(|close| opens && *close < to) else {
            return Ok(None);
        };
        let found = [&["CURRENT", "ROW"][..], &["GROUP"], &["TIES"]].iter().find_map(|words| {
            let exclude = close.checked_sub(words.len() + 1)?;
            let there = exclude > at
                && self.words_at(exclude, &["EXCLUDE"])
                && self.words_at(exclude + 1, words)
                && self.ends_frame(exclude);
            there.then(|| (exclude, words.join(" ")))
        });
        let Some((exclude, name)) = found else { return Ok(None) };
        let partitions = self.words_at(at + 1, &["PARTITION", "BY"]);
        let begins = ["ORDER", "ROWS", "RANGE", "GROUPS"];
        if !partitions && !begins.iter().any(|word| self.words_at(at + 1, &[word])) {
            return Err(Error::unsupported("EXCLUDE in a window that builds on another")
                .hint("Write PARTITION BY and ORDER BY of the other window out.")
                .position(self.position(exclude)));
        }
        let span = self.tokens[exclude].span;
        let marker =
            Word { value: MARKER.to_owned(), quote_style: Some('"'), keyword: Keyword::NoKeyword };
        let mut tokens = vec![
            word_token("PARTITION"),
            word_token("BY"),
            Token::Word(marker),
            Token::LParen,
            Token::SingleQuotedString(name),
            Token::RParen,
        ];
        if partitions {
            tokens.push(Token::Comma);
        }
        self.output.push(self.tokens[at].clone());
        self.output.extend(tokens.into_iter().map(|token| TokenWithSpan { token, span }));
        self.range(if partitions { at + 3 } else { at + 1 }, exclude)?;
        self.output.push(self.tokens[close].clone());
        Ok(Some(close + 1))
    }

    /// A call of a window function that uses the long form; gives the index behind it.
    fn window_function(&mut self, at: usize, to: usize) -> Result<Option<usize>> {
        let function = WINDOW_FUNCTIONS.iter().find(|f| is_word(self.token(at), f.name));
        let Some(function) = function else { return Ok(None) };
        if *self.token(at + 1) != Token::LParen || self.token_before(at) == Some(&Token::Period) {
            return Ok(None);
        }
        let Some(close) = self.close_of(at + 1).filter(|close| *close < to) else {
            return Ok(None);
        };
        let given = self.arguments(at + 2, close);
        // Behind a session's gap only PARTITION BY has a place, which is the long form.
        let too_many = function.name == "SESSION" && given.len() > function.arguments.len();
        if !too_many && !given.iter().any(|argument| argument.is_long(self)) {
            return Ok(None);
        }
        let placed = self.place(function, at, &given)?;
        let comma = self.tokens[at + 1].span;
        self.output.extend_from_slice(&self.tokens[at..at + 2]);
        let mut keys = Vec::new();
        for (i, argument) in placed.iter().enumerate() {
            if i > 0 {
                self.output.push(TokenWithSpan { token: Token::Comma, span: comma });
            }
            match i {
                0 => keys = self.data_argument(function.name, argument)?,
                1 => self.descriptor_argument(argument)?,
                _ => self.range(argument.from, argument.to)?,
            }
        }
        for (from, to) in keys {
            self.output.push(TokenWithSpan { token: Token::Comma, span: comma });
            self.range(from, to)?;
        }
        self.output.push(self.tokens[close].clone());
        Ok(Some(close + 1))
    }

    /// `ASOF [LEFT [OUTER] | INNER] JOIN table [MATCH_CONDITION (...)] [ON ...]` up to where its
    /// condition begins; gives the index there.
    fn asof_join(&mut self, at: usize, to: usize) -> Result<Option<usize>> {
        if !self.begins_asof_join(at) {
            return Ok(None);
        }
        // The condition of this join, outside of parentheses.
        let mut clause = at + 1;
        while clause < to && !self.begins_join_condition(clause) {
            clause = self.close_of(clause).unwrap_or(clause) + 1;
        }
        if clause >= to {
            return Err(self.wrong_asof_join("ASOF JOIN needs a condition", at));
        }
        if self.words_at(clause, &["USING"]) {
            return Err(self.wrong_asof_join("ASOF JOIN takes no USING", clause));
        }
        self.range(at + 1, clause)?;
        let span = self.tokens[clause].span;
        let mut marked = vec![word_token("ON"), Token::make_word(ASOF_CONDITION, None)];
        marked.extend([Token::LParen, Token::RParen, word_token("AND")]);
        self.output.extend(marked.into_iter().map(|token| TokenWithSpan { token, span }));
        if self.words_at(clause, &["ON"]) {
            return Ok(Some(clause + 1));
        }
        let Some(close) = self.close_of(clause + 1).filter(|close| *close < to) else {
            return Err(self.wrong_asof_join("MATCH_CONDITION needs parentheses", clause));
        };
        self.output.push(self.tokens[clause + 1].clone());
        self.range(clause + 2, close)?;
        self.output.push(self.tokens[close].clone());
        if self.words_at(close + 1, &["USING"]) {
            return Err(Error::unsupported("USING behind MATCH_CONDITION")
                .hint("Write ON a.key = b.key.")
                .position(self.position(close + 1)));
        }
        if close + 1 < to && self.words_at(close + 1, &["ON"]) {
            let span = self.tokens[close + 1].span;
            self.output.push(TokenWithSpan { token: word_token("AND"), span });
            return Ok(Some(close + 2));
        }
        Ok(Some(close + 1))
    }

    fn wrong_asof_join(&self, what: &str, at: usize) -> Error {
        Error::user(SqlState::SYNTAX_ERROR, what)
            .hint("Write ASOF JOIN b ON a.key = b.key AND a.time >= b.time.")
            .position(self.position(at))
    }

    fn begins_asof_join(&self, at: usize) -> bool {
        [["ASOF", "JOIN"].as_slice(), &["ASOF", "LEFT"], &["ASOF", "INNER"]]
            .iter()
            .any(|words| self.words_at(at, words))
    }

    fn begins_join_condition(&self, at: usize) -> bool {
        ["ON", "USING", "MATCH_CONDITION"].iter().any(|word| self.words_at(at, &[word]))
    }

    /// Splits at the commas between two indices.
    fn arguments(&self, from: usize, to: usize) -> Vec<Argument> {
        let mut arguments = Vec::new();
        let mut begin = from;
        let mut index = from;
        while index <= to {
            if index == to || *self.token(index) == Token::Comma {
                arguments.push(self.argument(begin, index));
                begin = index + 1;
            }
            index = match self.close_of(index) {
                Some(close) if close < to => close + 1,
                _ => index + 1,
            };
        }
        arguments
    }

    fn argument(&self, from: usize, to: usize) -> Argument {
        match (self.token(from), self.token(from + 1)) {
            (Token::Word(word), Token::RArrow) if from + 1 < to => {
                Argument { name: Some(word.value.to_ascii_uppercase()), from: from + 2, to }
            }
            _ => Argument { name: None, from, to },
        }
    }

    /// Puts arguments by name or place into the order of the short form.
    fn place<'g>(
        &self,
        function: &WindowFunction,
        at: usize,
        given: &'g [Argument],
    ) -> Result<Vec<&'g Argument>> {
        let name = function.name;
        let wrong = |what: String, index: usize| {
            let usage = function.arguments.join(" => ..., ");
            Err(Error::user(SqlState::SYNTAX_ERROR, what)
                .hint(format!("Write {name}({usage} => ...), or the values in this order."))
                .position(self.position(index)))
        };
        let mut placed: Vec<Option<&Argument>> = vec![None; function.arguments.len()];
        for (i, argument) in given.iter().enumerate() {
            let begin = if argument.name.is_some() { argument.from - 2 } else { argument.from };
            if argument.from == argument.to {
                return Err(syntax_error(self.text, &self.tokens[argument.to]));
            }
            let slot = match &argument.name {
                Some(named) => function.arguments.iter().position(|a| a == named),
                None => Some(i),
            };
            let Some(entry) = slot.and_then(|slot| placed.get_mut(slot)) else {
                let what = match &argument.name {
                    Some(named) => format!("{name} has no argument {named}"),
                    None => format!("too many arguments for {name}"),
                };
                return wrong(what, begin);
            };
            if entry.replace(argument).is_some() {
                return wrong(format!("an argument of {name} is given twice"), begin);
            }
        }
        let count = placed.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        for (i, argument) in function.arguments.iter().enumerate() {
            let needed = i < function.required || i < count;
            if needed && placed.get(i).is_none_or(Option::is_none) {
                return wrong(format!("argument {argument} of {name} is missing"), at);
            }
        }
        Ok(placed.into_iter().flatten().collect())
    }

    /// `[TABLE] name | (query) [PARTITION BY key | (key, ...)]`; gives where the keys stand.
    fn data_argument(&mut self, name: &str, argument: &Argument) -> Result<Vec<(usize, usize)>> {
        let from = argument.from + usize::from(self.words_at(argument.from, &["TABLE"]));
        let partition = self.partition_by(from, argument.to);
        let Some(partition) = partition else {
            self.range(from, argument.to)?;
            return Ok(vec![]);
        };
        if name != "SESSION" {
            return Err(Error::unsupported(format!("PARTITION BY in {name}"))
                .hint("Its windows are the same for all rows: GROUP BY the column, too.")
                .position(self.position(partition)));
        }
        self.range(from, partition)?;
        let keys = partition + 2;
        let listed = *self.token(keys) == Token::LParen
            && self.close_of(keys).is_some_and(|close| close + 1 == argument.to);
        let keys = if listed {
            self.arguments(keys + 1, argument.to - 1)
        } else {
            vec![Argument { name: None, from: keys, to: argument.to }]
        };
        if let Some(empty) = keys.iter().find(|key| key.from >= key.to) {
            return Err(syntax_error(self.text, &self.tokens[empty.to]));
        }
        Ok(keys.iter().map(|key| (key.from, key.to)).collect())
    }

    /// `DESCRIPTOR(column)` or the column.
    fn descriptor_argument(&mut self, argument: &Argument) -> Result<()> {
        let wrapped = self.words_at(argument.from, &["DESCRIPTOR"])
            && self.close_of(argument.from + 1).is_some_and(|close| close + 1 == argument.to);
        match wrapped {
            true => self.range(argument.from + 2, argument.to - 1),
            false => self.range(argument.from, argument.to),
        }
    }

    /// What stands where it means nothing.
    fn refuse(&self, at: usize) -> Result<()> {
        self.function_clause(at)?;
        if self.words_at(at, &["MATCH_RECOGNIZE"]) && *self.token(at + 1) == Token::LParen {
            let error = syntax_error(self.text, &self.tokens[at]);
            return Err(error.hint("MATCH_RECOGNIZE stands behind a table in FROM."));
        }
        Ok(())
    }

    /// sqlparser passes over FILTER and OVER of a function call when what follows is wrong.
    fn function_clause(&self, at: usize) -> Result<()> {
        if self.token_before(at) != Some(&Token::RParen) {
            return Ok(());
        }
        let next = self.token(at + 1);
        let wrong = if self.words_at(at, &["FILTER"]) {
            match (next, self.words_at(at + 2, &["WHERE"])) {
                (Token::LParen, true) => None,
                (Token::LParen, false) => Some(at + 2),
                _ => Some(at + 1),
            }
        } else if self.words_at(at, &["OVER"]) {
            match next {
                Token::LParen => None,
                Token::Word(word) if word.quote_style.is_some() => None,
                Token::Word(word) if !is_reserved(&word.value) => None,
                _ => Some(at + 1),
            }
        } else {
            None
        };
        match wrong {
            None => Ok(()),
            Some(index) => {
                let eof = TokenWithSpan::new_eof();
                Err(syntax_error(self.text, self.tokens.get(index).unwrap_or(&eof)))
            }
        }
    }

    // Looking.

    /// The token at an index; EOF behind the last.
    fn token(&self, at: usize) -> &Token {
        self.tokens.get(at).map_or(&Token::EOF, |t| &t.token)
    }

    fn token_before(&self, at: usize) -> Option<&Token> {
        at.checked_sub(1).map(|before| self.token(before))
    }

    fn word_before(&self, at: usize, word: &str) -> bool {
        self.token_before(at).is_some_and(|token| is_word(token, word))
    }

    fn words_at(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(n, word)| is_word(self.token(at + n), word))
    }

    fn position(&self, at: usize) -> usize {
        self.text.position(self.tokens[at.min(self.tokens.len() - 1)].span.start)
    }

    /// The index of the parenthesis that closes the one at this index.
    fn close_of(&self, open: usize) -> Option<usize> {
        if *self.token(open) != Token::LParen {
            return None;
        }
        let mut depth = 0;
        for (i, token) in self.tokens.iter().enumerate().skip(open) {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(i);
            }
        }
        None
    }

    /// Where PARTITION BY stands between two indices, outside inner parentheses.
    fn partition_by(&self, from: usize, to: usize) -> Option<usize> {
        let mut index = from;
        while index < to {
            if self.words_at(index, &["PARTITION", "BY"]) {
                return Some(index);
            }
            index = self.close_of(index).unwrap_or(index) + 1;
        }
        None
    }

    /// Whether a table may stand here.
    fn expects_table(&self, at: usize) -> bool {
        match self.token_before(at) {
            Some(Token::LParen | Token::Comma) => true,
            Some(token) => ["FROM", "JOIN", "LATERAL"].iter().any(|word| is_word(token, word)),
            None => false,
        }
    }

    /// `TABLE name` where a query stands.
    fn begins_table_query(&self, at: usize) -> bool {
        let named = matches!(self.token(at + 1), Token::Word(_));
        if !self.words_at(at, &["TABLE"]) || !named {
            return false;
        }
        if self.words_at(0, &["INSERT"]) && !self.word_before(at, "INTO") {
            return true;
        }
        match self.token_before(at) {
            None | Some(Token::LParen) => true,
            Some(token) => ["UNION", "EXCEPT", "INTERSECT", "ALL", "DISTINCT", "AS", "FOR"]
                .iter()
                .any(|word| is_word(token, word)),
        }
    }

    fn is_emit(&self, at: usize) -> bool {
        [
            ["EMIT", "CHANGES"].as_slice(),
            &["EMIT", "FINAL"],
            &["EMIT", "ON", "WINDOW", "CLOSE"],
            &["EMIT", "ON", "UPDATE"],
        ]
        .iter()
        .any(|words| self.words_at(at, words))
    }

    /// The WITH of a sink's options, which would be taken for hints to the table before it.
    fn begins_sink_options(&self, at: usize) -> bool {
        if !self.words_at(at, &["WITH"]) || *self.token(at + 1) != Token::LParen {
            return false;
        }
        let before = &self.tokens[..at];
        let words = before.windows(2).any(|pair| {
            is_word(&pair[1].token, "SINK")
                && ["CREATE", "REPLACE"].iter().any(|word| is_word(&pair[0].token, word))
        });
        let count = |token: Token| before.iter().filter(|t| t.token == token).count();
        words && count(Token::LParen) == count(Token::RParen)
    }

    /// `ROW <` that begins a type: after AS or `::`, inside a type, or behind a column's name in
    /// CREATE.
    fn is_row_type(&self, at: usize) -> bool {
        if !self.words_at(at, &["ROW"]) || *self.token(at + 1) != Token::Lt {
            return false;
        }
        let Some(before) = self.token_before(at) else { return false };
        let two_before = self.token_before(at - 1);
        match before {
            Token::DoubleColon => true,
            Token::Lt => two_before.is_some_and(|token| is_word(token, "ARRAY")),
            Token::Word(_) if is_word(before, "AS") => true,
            Token::Word(_) => {
                let defines = self.words_at(0, &["CREATE"]);
                defines && matches!(two_before, Some(Token::LParen | Token::Comma | Token::Lt))
            }
            _ => false,
        }
    }

    /// Whether the token ends a window frame's bounds.
    fn ends_frame(&self, at: usize) -> bool {
        ["ROW", "PRECEDING", "FOLLOWING"].iter().any(|word| self.word_before(at, word))
    }
}

/// How many angle brackets of types a token like `>>>` closes; the tokenizer takes three or more
/// for an operator.
pub(super) fn closes_types(token: &Token) -> Option<usize> {
    match token {
        Token::CustomBinaryOperator(operator) if operator.bytes().all(|b| b == b'>') => {
            Some(operator.len())
        }
        _ => None,
    }
}

/// One argument of a window function: the tokens of its value, and its name if it has one.
struct Argument {
    name: Option<String>,
    from: usize,
    to: usize,
}

impl Argument {
    /// Whether it is written in the long form.
    fn is_long(&self, rewriter: &Rewriter<'_>) -> bool {
        self.name.is_some()
            || rewriter.words_at(self.from, &["TABLE"])
            || rewriter.words_at(self.from, &["DESCRIPTOR"])
            || rewriter.partition_by(self.from, self.to).is_some()
    }
}
