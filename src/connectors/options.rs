//! Typed `WITH (...)` options. A connector lists what it takes; everything else is an error that
//! names the nearest option.
//!
//! [`Connector::check`] turns what the user wrote into [`Options`]: names in lower case, aliases
//! replaced by the option's own name, defaults filled in, nothing unknown, nothing twice, nothing
//! missing. A connector's factory reads checked options only.

use crate::connectors::SourceFactory;
use crate::types::error::{Error, Result, SqlState};

/// One option a connector takes. The docs page and `SHOW CONNECTORS` are made from these.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    pub name: &'static str,
    /// Other spellings, as other systems have them.
    pub aliases: &'static [&'static str],
    /// What a value looks like: `text`, `integer`, `boolean`, `interval`, `a | b`.
    pub kind: &'static str,
    /// `None`: must be given. Empty: may be left out, and then has no value.
    pub default: Option<&'static str>,
    pub doc: &'static str,
}

impl OptionSpec {
    /// An option that must be given.
    pub const fn required(
        name: &'static str,
        aliases: &'static [&'static str],
        kind: &'static str,
        doc: &'static str,
    ) -> OptionSpec {
        OptionSpec { name, aliases, kind, default: None, doc }
    }

    /// An option with a default, which is empty when leaving it out means that it has no value.
    pub const fn optional(
        name: &'static str,
        aliases: &'static [&'static str],
        kind: &'static str,
        default: &'static str,
        doc: &'static str,
    ) -> OptionSpec {
        OptionSpec { name, aliases, kind, default: Some(default), doc }
    }
}

/// One entry of the connector list.
#[derive(Clone, Copy)]
pub struct Connector {
    pub name: &'static str,
    pub doc: &'static str,
    pub options: &'static [OptionSpec],
    /// Options whose names begin so are the connector's own to check (`fields.`).
    pub open_prefixes: &'static [&'static str],
    pub source: Option<SourceFactory>,
}

impl Connector {
    /// The options of this connector as its factory wants them.
    ///
    /// # Errors
    /// SQLSTATE 22023 for an option that the connector does not take, that is given twice, or
    /// that is missing.
    pub fn check(&self, pairs: &[(String, String)]) -> Result<Options> {
        let mut checked: Vec<(String, String)> = Vec::with_capacity(self.options.len());
        for (written, value) in pairs {
            let written = written.to_lowercase();
            if written == "connector" {
                continue;
            }
            let name = match self.find_option(&written) {
                Some(spec) => spec.name.to_owned(),
                None if self.open_prefixes.iter().any(|p| written.starts_with(p)) => written,
                None => return Err(self.unknown_option(&written)),
            };
            if checked.iter().any(|(n, _)| *n == name) {
                return Err(Error::user(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("option \"{name}\" is given twice"),
                ));
            }
            checked.push((name, value.clone()));
        }
        for spec in self.options {
            if checked.iter().any(|(n, _)| n == spec.name) {
                continue;
            }
            match spec.default {
                Some("") => {}
                Some(default) => checked.push((spec.name.to_owned(), default.to_owned())),
                None => return Err(missing(spec.name)),
            }
        }
        Ok(Options { pairs: checked })
    }

    fn find_option(&self, written: &str) -> Option<&OptionSpec> {
        self.options.iter().find(|o| o.name == written || o.aliases.contains(&written))
    }

    fn unknown_option(&self, written: &str) -> Error {
        let names = self.options.iter().map(|o| o.name);
        let error = Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("connector \"{}\" has no option \"{written}\"", self.name),
        );
        let list = names.clone().collect::<Vec<_>>().join(", ");
        match nearest(written, names.chain(self.open_prefixes.iter().copied())) {
            Some(name) => error
                .detail(format!("It takes: {list}."))
                .hint(format!("Perhaps you meant the option \"{name}\".")),
            None => error.hint(format!("It takes: {list}.")),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::user(SqlState::INVALID_PARAMETER_VALUE, format!("option \"{name}\" is missing"))
        .hint(format!("Add {name} = '...' to the WITH clause."))
}

/// The candidate that looks most like `written`, if any looks like it at all.
pub fn nearest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong; a name that contains the other is near in any case.
    let distance_max = written.chars().count().div_ceil(3);
    candidates
        .map(|name| {
            let contained =
                !written.is_empty() && (name.contains(written) || written.contains(name));
            (if contained { 1 } else { edit_distance(written, name) }, name)
        })
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Letters to insert, delete or replace to get from `a` to `b` (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The options of one source or sink; names are lower case.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pairs: Vec<(String, String)>,
}

impl Options {
    pub fn new(pairs: Vec<(String, String)>) -> Options {
        Options { pairs }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A value that must be there.
    pub fn required(&self, name: &str) -> Result<&str> {
        self.get(name).ok_or_else(|| missing(name))
    }

    /// A value parsed with `FromStr`; `None` when it is not given.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str, kind: &str) -> Result<Option<T>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.replace('_', "").trim().parse().map(Some).map_err(|_| not_a(name, text, kind))
    }

    /// A whole number between `min` and `max`; `None` when it is not given.
    pub fn whole(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>> {
        let value = self.parsed::<u64>(name, "a whole number")?;
        match value {
            Some(v) if v < min || v > max => Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\": {v} is outside {min} to {max}"),
            )),
            value => Ok(value),
        }
    }

    /// A positive number, fractions allowed; `None` when it is not given.
    pub fn positive(&self, name: &str) -> Result<Option<f64>> {
        match self.parsed::<f64>(name, "a number")? {
            Some(number) if !number.is_finite() || number <= 0.0 => Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\": {number} is not a positive number"),
            )),
            number => Ok(number),
        }
    }

    /// A boolean as Postgres writes them; `None` when it is not given.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.trim().to_lowercase().as_str() {
            "true" | "t" | "yes" | "on" | "1" => Ok(Some(true)),
            "false" | "f" | "no" | "off" | "0" => Ok(Some(false)),
            _ => Err(not_a(name, text, "a boolean").hint("Write true or false.")),
        }
    }

    /// One of `choices`, whatever its case; `None` when it is not given.
    pub fn one_of(&self, name: &str, choices: &[&'static str]) -> Result<Option<&'static str>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wanted = text.trim().to_lowercase();
        match choices.iter().find(|c| **c == wanted) {
            Some(choice) => Ok(Some(choice)),
            None => Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\": unknown value {text:?}"),
            )
            .hint(format!("Choose one of: {}.", choices.join(", ")))),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }
}

fn not_a(name: &str, text: &str, kind: &str) -> Error {
    Error::user(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("option \"{name}\": {text:?} is not {kind}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIGHTHOUSE: Connector = Connector {
        name: "lighthouse",
        doc: "a test connector",
        options: &[
            OptionSpec { name: "path", aliases: &[], kind: "text", default: None, doc: "where" },
            OptionSpec {
                name: "rate",
                aliases: &["rows-per-second"],
                kind: "integer",
                default: Some("10"),
                doc: "how fast",
            },
            OptionSpec { name: "seed", aliases: &[], kind: "integer", default: Some(""), doc: "s" },
        ],
        open_prefixes: &["fields."],
        source: None,
    };

    fn check(text: &str) -> String {
        let pairs: Vec<(String, String)> = text
            .split_whitespace()
            .map(|pair| pair.split_once('=').expect("a=b"))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect();
        match LIGHTHOUSE.check(&pairs) {
            Ok(options) => {
                let mut all: Vec<String> =
                    options.iter().map(|(name, value)| format!("{name}={value}")).collect();
                all.sort();
                all.join(" ")
            }
            Err(error) => format!(
                "{} {} / {}",
                error.sqlstate().0,
                error.message(),
                error.body().hint.as_deref().unwrap_or("")
            ),
        }
    }

    #[test]
    fn options_are_checked_against_the_list() {
        assert_eq!(check("path=/x"), "path=/x rate=10");
        assert_eq!(check("PATH=/x connector=lighthouse seed=5"), "path=/x rate=10 seed=5");
        assert_eq!(check("path=/x rows-per-second=3"), "path=/x rate=3");
        assert_eq!(check("path=/x fields.a.kind=b"), "fields.a.kind=b path=/x rate=10");
        assert_eq!(
            check("rate=1"),
            "22023 option \"path\" is missing / Add path = '...' to the WITH clause."
        );
        assert_eq!(
            check("path=/x rat=1"),
            "22023 connector \"lighthouse\" has no option \"rat\" / Perhaps you meant the option \
             \"rate\"."
        );
        assert_eq!(
            check("path=/x zzz=1"),
            "22023 connector \"lighthouse\" has no option \"zzz\" / It takes: path, rate, seed."
        );
        assert_eq!(
            check("path=/x rate=1 rows-per-second=1"),
            "22023 option \"rate\" is given twice / "
        );
    }

    #[test]
    fn values_are_parsed_by_kind() {
        let options = Options::new(vec![
            ("n".to_owned(), "10_000".to_owned()),
            ("b".to_owned(), "Yes".to_owned()),
            ("c".to_owned(), "CSV".to_owned()),
        ]);
        assert_eq!(options.whole("n", 0, 20_000).expect("in range"), Some(10_000));
        assert!(options.whole("n", 0, 9_999).is_err());
        assert!(options.whole("b", 0, 1).is_err());
        assert_eq!(options.boolean("b").expect("a boolean"), Some(true));
        assert!(options.boolean("c").is_err());
        assert_eq!(options.one_of("c", &["csv", "json"]).expect("known"), Some("csv"));
        assert!(options.one_of("n", &["csv", "json"]).is_err());
        assert_eq!(options.whole("absent", 0, 1).expect("absent is fine"), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }
}
