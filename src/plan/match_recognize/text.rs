//! Reads a row pattern out of its text. SQL's tokens do not fit: `+?` and `{-` are others there.
//!
//! A statement's pattern is read when the statement is, with names for variables; what they mean is
//! found out later (`bind`). The pattern of a rule is the value of a column and is read when its
//! partition comes (`of_value`): its variables are those of DEFINE.

use serde::{Deserialize, Serialize};

use crate::plan::match_recognize::{Pattern, VARIABLES_MAX};
use crate::types::error::{Error, Result, SqlState};

/// A name in the user's text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Named {
    /// Folded.
    pub name: String,
    /// As it was written, without quotes.
    pub shown: String,
    /// 1-based character in the statement.
    pub position: usize,
}

/// A pattern whose variables are names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum NamedPattern {
    Empty,
    Variable(Named),
    Concat(Vec<NamedPattern>),
    Alternation(Vec<NamedPattern>),
    Permute(Vec<NamedPattern>),
    Repeat { inner: Box<NamedPattern>, min: u32, max: Option<u32>, greedy: bool },
    Exclude(Box<NamedPattern>),
    Start,
    End,
    Not(Named),
}

/// The pattern of a rule, from the text that a table has of it. `variables` are the names, folded,
/// that it may use.
///
/// # Errors
/// SQLSTATE 42601 for what is no pattern, 42704 for another name.
pub fn of_value(text: &str, variables: &[String]) -> Result<Pattern> {
    let named = PatternReader::read(&format!("({text})"), 0)?;
    bind(&named, &mut |named| {
        let known = variables.iter().position(|name| *name == named.name);
        known.ok_or_else(|| {
            Error::user(
                SqlState::UNDEFINED_OBJECT,
                format!("pattern variable \"{}\" does not exist", named.name),
            )
            .hint("The variables of a pattern from a table are those of DEFINE.")
        })
    })
}

/// The pattern with numbers for names; `names` gathers them, each once.
///
/// # Errors
/// SQLSTATE 54000 for too many.
pub fn bind_all(pattern: &NamedPattern, names: &mut Vec<Named>) -> Result<Pattern> {
    bind(pattern, &mut |named| add_name(named, names))
}

/// The number of a variable, a new one if there is none.
///
/// # Errors
/// SQLSTATE 54000 when there are too many.
pub fn add_name(named: &Named, names: &mut Vec<Named>) -> Result<usize> {
    if let Some(place) = names.iter().position(|other| other.name == named.name) {
        return Ok(place);
    }
    if names.len() == VARIABLES_MAX {
        return Err(Error::user(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("a row pattern has more than {VARIABLES_MAX} variables"),
        ));
    }
    names.push(named.clone());
    Ok(names.len() - 1)
}

fn bind(
    pattern: &NamedPattern,
    number: &mut dyn FnMut(&Named) -> Result<usize>,
) -> Result<Pattern> {
    let mut list = |items: &[NamedPattern]| {
        items.iter().map(|item| bind(item, number)).collect::<Result<Vec<_>>>()
    };
    Ok(match pattern {
        NamedPattern::Empty => Pattern::Empty,
        NamedPattern::Concat(items) => Pattern::Concat(list(items)?),
        NamedPattern::Alternation(items) => Pattern::Alternation(list(items)?),
        NamedPattern::Permute(items) => Pattern::Permute(list(items)?),
        NamedPattern::Variable(named) => Pattern::Variable(number(named)?),
        NamedPattern::Not(named) => Pattern::Not(number(named)?),
        NamedPattern::Repeat { inner, min, max, greedy } => Pattern::Repeat {
            inner: Box::new(bind(inner, number)?),
            min: *min,
            max: *max,
            greedy: *greedy,
        },
        NamedPattern::Exclude(inner) => Pattern::Exclude(Box::new(bind(inner, number)?)),
        NamedPattern::Start => Pattern::Start,
        NamedPattern::End => Pattern::End,
    })
}

/// Lower case as names are folded: ASCII letters only.
fn fold(word: &str) -> String {
    word.to_ascii_lowercase()
}

/// Groups within groups; more would exhaust the stack.
const DEPTH_MAX: usize = 200;

pub struct PatternReader {
    chars: Vec<char>,
    at: usize,
    /// Position in the statement of the text's first character.
    position: usize,
    depth: usize,
}

impl PatternReader {
    /// `text` is the pattern with its parentheses, which begins at this position.
    ///
    /// # Errors
    /// SQLSTATE 42601 with the position.
    pub fn read(text: &str, position: usize) -> Result<NamedPattern> {
        let mut reader = PatternReader { chars: text.chars().collect(), at: 0, position, depth: 0 };
        reader.expect("(")?;
        let pattern = reader.alternation()?;
        reader.expect(")")?;
        reader.blank();
        match reader.at == reader.chars.len() {
            true => Ok(pattern),
            false => Err(reader.wrong("the end of the pattern")),
        }
    }

    /// Passes over blanks and comments.
    fn blank(&mut self) {
        loop {
            while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
                self.at += 1;
            }
            let ends: &[char] = match (self.chars.get(self.at), self.chars.get(self.at + 1)) {
                // `{- A --}` would be a comment; so `--` is one here too, as anywhere.
                (Some('-'), Some('-')) => &['\n'],
                (Some('/'), Some('*')) => &['*', '/'],
                _ => return,
            };
            self.at += 2;
            while self.at < self.chars.len() && !self.chars[self.at..].starts_with(ends) {
                self.at += 1;
            }
            self.at = (self.at + ends.len()).min(self.chars.len());
        }
    }

    fn peek(&mut self, text: &str) -> bool {
        self.blank();
        let mut rest = self.chars[self.at..].iter();
        text.chars().all(|c| rest.next() == Some(&c))
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.peek(text);
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        if self.eat(text) { Ok(()) } else { Err(self.wrong(&format!("\"{text}\""))) }
    }

    fn wrong(&mut self, expected: &str) -> Error {
        self.blank();
        let found: String = match self.chars.get(self.at) {
            None => "end of input".to_owned(),
            Some(c) => format!("\"{c}\""),
        };
        Error::user(SqlState::SYNTAX_ERROR, format!("syntax error in the row pattern at {found}"))
            .hint(format!("Expected {expected}."))
            .position(self.position + self.at)
    }

    /// A word that is next, without passing over it: its text and whether it is quoted.
    fn word(&mut self) -> Option<(String, bool, usize)> {
        self.blank();
        let rest = &self.chars[self.at..];
        if rest.first() == Some(&'"') {
            let mut text = String::new();
            let mut length = 1;
            loop {
                match (rest.get(length), rest.get(length + 1)) {
                    (Some('"'), Some('"')) => {
                        text.push('"');
                        length += 2;
                    }
                    (Some('"'), _) => return Some((text, true, length + 1)),
                    (Some(c), _) => {
                        text.push(*c);
                        length += 1;
                    }
                    (None, _) => return None,
                }
            }
        }
        let begins = rest.first().is_some_and(|c| c.is_alphabetic() || *c == '_');
        let word = |c: &&char| c.is_alphanumeric() || **c == '_';
        let text: String = rest.iter().take_while(word).collect();
        let length = text.chars().count();
        begins.then_some((text, false, length))
    }

    fn alternation(&mut self) -> Result<NamedPattern> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::user(
                SqlState::STATEMENT_TOO_COMPLEX,
                format!("a row pattern has more than {DEPTH_MAX} groups within each other"),
            )
            .position(self.position + self.at));
        }
        let mut items = vec![self.concat()?];
        while self.eat("|") {
            items.push(self.concat()?);
        }
        self.depth -= 1;
        Ok(match items.len() {
            1 => items.remove(0),
            _ => NamedPattern::Alternation(items),
        })
    }

    fn concat(&mut self) -> Result<NamedPattern> {
        let mut items = Vec::new();
        while let Some(item) = self.factor()? {
            items.push(item);
        }
        Ok(match items.len() {
            0 => NamedPattern::Empty,
            1 => items.remove(0),
            _ => NamedPattern::Concat(items),
        })
    }

    /// A primary with its quantifier; `None`: the sequence ends here.
    fn factor(&mut self) -> Result<Option<NamedPattern>> {
        let Some(mut pattern) = self.primary()? else { return Ok(None) };
        let Some((min, max)) = self.quantifier()? else { return Ok(Some(pattern)) };
        if matches!(pattern, NamedPattern::Start | NamedPattern::End | NamedPattern::Not(_)) {
            return Err(self.wrong("no quantifier behind an anchor or NOT"));
        }
        let greedy = !self.eat("?");
        pattern = NamedPattern::Repeat { inner: Box::new(pattern), min, max, greedy };
        Ok(Some(pattern))
    }

    fn primary(&mut self) -> Result<Option<NamedPattern>> {
        if self.peek(")") || self.peek("|") || self.peek("-}") || self.peek(",") {
            return Ok(None);
        }
        if self.eat("(") {
            let inner = self.alternation()?;
            self.expect(")")?;
            return Ok(Some(inner));
        }
        if self.eat("{-") {
            let inner = self.alternation()?;
            self.expect("-}")?;
            return Ok(Some(NamedPattern::Exclude(Box::new(inner))));
        }
        if self.eat("^") {
            return Ok(Some(NamedPattern::Start));
        }
        if self.eat("$") {
            return Ok(Some(NamedPattern::End));
        }
        let Some((text, quoted, _)) = self.word() else {
            self.blank();
            return match self.at == self.chars.len() {
                true => Ok(None),
                false => Err(self.wrong("a variable, a group, ^ or $")),
            };
        };
        let unquoted = |word: &str| !quoted && text.eq_ignore_ascii_case(word);
        if unquoted("PERMUTE") {
            let name = self.named()?;
            if !self.eat("(") {
                return Ok(Some(NamedPattern::Variable(name)));
            }
            let mut items = vec![self.alternation()?];
            while self.eat(",") {
                items.push(self.alternation()?);
            }
            self.expect(")")?;
            return Ok(Some(NamedPattern::Permute(items)));
        }
        if unquoted("NOT") {
            self.named()?;
            return Ok(Some(NamedPattern::Not(self.named()?)));
        }
        Ok(Some(NamedPattern::Variable(self.named()?)))
    }

    fn named(&mut self) -> Result<Named> {
        let Some((shown, quoted, length)) = self.word() else {
            return Err(self.wrong("a variable"));
        };
        let position = self.position + self.at;
        self.at += length;
        let name = if quoted { shown.clone() } else { fold(&shown) };
        Ok(Named { name, shown, position })
    }

    fn quantifier(&mut self) -> Result<Option<(u32, Option<u32>)>> {
        if self.eat("*") {
            return Ok(Some((0, None)));
        }
        if self.eat("+") {
            return Ok(Some((1, None)));
        }
        if self.eat("?") {
            return Ok(Some((0, Some(1))));
        }
        if self.peek("{-") || !self.eat("{") {
            return Ok(None);
        }
        let position = self.position + self.at;
        let min = self.number()?;
        let comma = self.eat(",");
        let max = if comma { self.number()? } else { min };
        self.expect("}")?;
        let wrong =
            |message: &str| Err(Error::user(SqlState::SYNTAX_ERROR, message).position(position));
        match (min, max) {
            (None, None) => wrong("a quantifier in braces has no number"),
            (_, Some(0)) => wrong("a quantifier allows no row"),
            (Some(min), Some(max)) if min > max => {
                wrong("a quantifier's lower bound is above its upper bound")
            }
            (min, max) => Ok(Some((min.unwrap_or(0), max))),
        }
    }

    fn number(&mut self) -> Result<Option<u32>> {
        self.blank();
        let digits: String =
            self.chars[self.at..].iter().take_while(|c| c.is_ascii_digit()).collect();
        if digits.is_empty() {
            return Ok(None);
        }
        match digits.parse() {
            Ok(number) => {
                self.at += digits.len();
                Ok(Some(number))
            }
            Err(_) => Err(self.wrong("a smaller number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pattern: &NamedPattern) -> String {
        let list = |items: &[NamedPattern], between: &str| {
            items.iter().map(shown).collect::<Vec<_>>().join(between)
        };
        match pattern {
            NamedPattern::Empty => "()".to_owned(),
            NamedPattern::Variable(named) => named.shown.clone(),
            NamedPattern::Not(named) => format!("!{}", named.shown),
            NamedPattern::Concat(items) => format!("[{}]", list(items, " ")),
            NamedPattern::Alternation(items) => format!("<{}>", list(items, "|")),
            NamedPattern::Permute(items) => format!("P({})", list(items, ",")),
            NamedPattern::Repeat { inner, min, max, greedy } => {
                let max = max.map_or("".to_owned(), |max| max.to_string());
                format!("{}{{{min},{max}}}{}", shown(inner), if *greedy { "" } else { "?" })
            }
            NamedPattern::Exclude(inner) => format!("-{}-", shown(inner)),
            NamedPattern::Start => "^".to_owned(),
            NamedPattern::End => "$".to_owned(),
        }
    }

    #[test]
    fn patterns_are_read_as_the_standard_has_them() {
        for (text, expected) in [
            ("(A B+? C{2,3})", "[A B{1,}? C{2,3}]"),
            ("(A|B C|())", "<A|[B C]|()>"),
            ("((A B)* {- c -} ^ $)", "[[A B]{0,} -c- ^ $]"),
            ("(PERMUTE(A, B?, (C D)) \"x\"\"y\"??)", "[P(A,B{0,1},[C D]) x\"y{0,1}?]"),
            ("()", "()"),
            ("(A /* note */ NOT B -- end\n C{,4})", "[A !B C{0,4}]"),
            ("(A{3}B{2,}?)", "[A{3,3} B{2,}?]"),
            ("({-A-}{2})", "-A-{2,2}"),
        ] {
            let pattern = PatternReader::read(text, 1).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(shown(&pattern), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_at_its_place() {
        for (text, position) in
            [("(A &B)", 4), ("(A{})", 4), ("(A{3,2})", 4), ("(A", 3), ("(^*)", 4), ("(A{0})", 4)]
        {
            let error = PatternReader::read(text, 1).expect_err(text);
            assert_eq!(error.body().position, Some(position), "{text}: {error}");
        }
    }
}
