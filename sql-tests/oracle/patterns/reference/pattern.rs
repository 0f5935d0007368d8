//! Patterns, and sets of the rows that they take.

pub(super) const LETTERS: [&str; 3] = ["a", "b", "c"];

/// A set of rows of the match: a variable, the union u = (a, b), or all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Variable(usize),
    Union,
    All,
}

impl Of {
    pub(super) fn contains(self, variable: usize) -> bool {
        match self {
            Of::Variable(own) => own == variable,
            Of::Union => variable < 2,
            Of::All => true,
        }
    }

    pub(super) fn prefix(self) -> String {
        match self {
            Of::Variable(own) => format!("{}.", LETTERS[own]),
            Of::Union => "u.".to_owned(),
            Of::All => String::new(),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Of::Variable(own) => LETTERS[own],
            Of::Union => "u",
            Of::All => "",
        }
    }
}

#[derive(Clone)]
pub(super) enum Pattern {
    Empty,
    Variable(usize),
    Concat(Vec<Pattern>),
    Alternation(Vec<Pattern>),
    Permute(Vec<Pattern>),
    Repeat(Box<Pattern>, u32, Option<u32>, bool),
    Exclude(Box<Pattern>),
    Start,
    End,
    Not(usize),
}

impl Pattern {
    pub(super) fn sql(&self) -> String {
        let list = |items: &[Pattern], between: &str| {
            items.iter().map(Pattern::sql).collect::<Vec<_>>().join(between)
        };
        match self {
            Pattern::Empty => "()".to_owned(),
            Pattern::Variable(variable) => LETTERS[*variable].to_owned(),
            Pattern::Concat(items) => format!("({})", list(items, " ")),
            Pattern::Alternation(items) => format!("({})", list(items, " | ")),
            Pattern::Permute(items) => format!("PERMUTE({})", list(items, ", ")),
            Pattern::Repeat(inner, min, max, greedy) => {
                let bounds = match max {
                    Some(max) if max == min => format!("{{{min}}}"),
                    Some(max) => format!("{{{min},{max}}}"),
                    None => format!("{{{min},}}"),
                };
                format!("({}){bounds}{}", inner.sql(), if *greedy { "" } else { "?" })
            }
            Pattern::Exclude(inner) => format!("{{- {} -}}", inner.sql()),
            Pattern::Start => "^".to_owned(),
            Pattern::End => "$".to_owned(),
            Pattern::Not(variable) => format!("NOT {}", LETTERS[*variable]),
        }
    }

    /// The variables in it, in the order of their first places.
    pub(super) fn order(&self, into: &mut Vec<usize>) {
        match self {
            Pattern::Variable(variable) | Pattern::Not(variable) => {
                if !into.contains(variable) {
                    into.push(*variable);
                }
            }
            Pattern::Concat(items) | Pattern::Alternation(items) | Pattern::Permute(items) => {
                items.iter().for_each(|item| item.order(into));
            }
            Pattern::Repeat(inner, ..) | Pattern::Exclude(inner) => inner.order(into),
            Pattern::Empty | Pattern::Start | Pattern::End => {}
        }
    }

    pub(super) fn excludes(&self) -> bool {
        match self {
            Pattern::Exclude(_) => true,
            Pattern::Concat(items) | Pattern::Alternation(items) | Pattern::Permute(items) => {
                items.iter().any(Pattern::excludes)
            }
            Pattern::Repeat(inner, ..) => inner.excludes(),
            _ => false,
        }
    }
}
