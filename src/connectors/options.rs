//! Typed `WITH (...)` options. A connector lists what it takes; everything else is an error that
//! names the nearest option.

use crate::connectors::SourceFactory;
use crate::types::error::{Error, Result, SqlState};

/// One option a connector takes. The docs page and `SHOW CONNECTORS` are made from these.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    pub name: &'static str,
    /// What a value looks like: `text`, `integer`, `boolean`, `interval`, `a | b`.
    pub kind: &'static str,
    /// `None`: must be given.
    pub default: Option<&'static str>,
    pub doc: &'static str,
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

/// The options of one source or sink, as the user gave them; names are lower case.
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
        self.get(name).ok_or_else(|| {
            Error::user(SqlState::INVALID_PARAMETER_VALUE, format!("option \"{name}\" is missing"))
                .hint(format!("Add {name} = '...' to the WITH clause."))
        })
    }

    /// A value parsed with `FromStr`; `None` when it is not given.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str, kind: &str) -> Result<Option<T>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.replace('_', "").parse().map(Some).map_err(|_| {
            Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\": {text:?} is not {kind}"),
            )
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }
}
