//! Names of types, relations and options as SQL writes them, and back.

use crate::catalog::pg_catalog::{type_fact, type_facts};
pub use crate::sql::parse::name::quote_ident;
use crate::types::sql_type::{NUMERIC_DEFAULT, SqlType};

/// `name=value` as `name 'value'`.
pub fn option_text(option: &str) -> String {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    format!("{} '{}'", quote_ident(name), value.replace('\'', "''"))
}

/// The type with this id as SQL writes it.
pub fn format_type(oid: i64, modifier: i64) -> String {
    if oid == 0 {
        return "-".to_owned();
    }
    // A numeric's modifier holds precision and scale, as Postgres packs them.
    if oid == 1700 && modifier >= 4 {
        let packed = modifier - 4;
        return format!("numeric({},{})", packed >> 16, packed & 0x7ff);
    }
    match oid {
        1042 | 1043 if modifier >= 4 => {
            let name = if oid == 1042 { "character" } else { "character varying" };
            return format!("{name}({})", modifier - 4);
        }
        _ => {}
    }
    if let Some(name) = u32::try_from(oid).ok().and_then(own_type) {
        return match oid {
            1083 | 1114 | 1184 if modifier >= 0 => name.replacen(' ', &format!("({modifier}) "), 1),
            _ => name,
        };
    }
    match type_fact(oid) {
        Some(fact) => match fact.name.strip_prefix('_') {
            Some(element) => format!("{}[]", sql_name(element)),
            None => sql_name(fact.name).to_owned(),
        },
        None => "???".to_owned(),
    }
}

/// Types that columns can have; those that are read as text keep their own names.
fn own_type(oid: u32) -> Option<String> {
    let sql_type = SqlType::from_oid(oid)?;
    (sql_type.oid() == oid).then(|| match sql_type {
        SqlType::Numeric(p, s) if (p, s) == NUMERIC_DEFAULT => "numeric".to_owned(),
        other => other.to_string(),
    })
}

/// Internal type names that SQL writes otherwise.
fn sql_name(internal: &str) -> &str {
    match internal {
        "bpchar" => "character",
        "varchar" => "character varying",
        "char" => "\"char\"",
        "timetz" => "time with time zone",
        "varbit" => "bit varying",
        "any" => "\"any\"",
        other => other,
    }
}

/// The id of the type that a text names, as SQL or `pg_type` writes it.
pub fn type_oid(text: &str) -> Option<i64> {
    let text = text.trim().to_lowercase();
    let text = text.strip_prefix("pg_catalog.").unwrap_or(&text);
    let (element, is_array) = match text.strip_suffix("[]") {
        Some(element) => (element.trim(), true),
        None => (text, false),
    };
    let element = element.split('(').next().unwrap_or(element).trim();
    let fact = type_facts().iter().find(|t| t.name == element.trim_matches('"')).or_else(|| {
        type_facts().iter().find(|t| !t.name.starts_with('_') && format_type(t.oid, -1) == element)
    })?;
    if is_array { (fact.array() != 0).then_some(fact.array()) } else { Some(fact.oid) }
}

/// Bytes as Postgres prints sizes.
pub fn size_pretty(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let mut size = bytes;
    for (index, unit) in UNITS.iter().enumerate() {
        // From the second unit on, sizes are kept in halves, for rounding.
        let limit = if index == 0 { 10 * 1024 } else { 20 * 1024 - 1 };
        if size.abs() < limit || index == UNITS.len() - 1 {
            let shown = if index == 0 { size } else { (size + size.signum()) / 2 };
            return format!("{shown} {unit}");
        }
        size /= if index == 0 { 512 } else { 1024 };
    }
    format!("{bytes} bytes")
}

/// The parts of a name as SQL writes it, folded.
pub fn name_parts(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"')?;
                (quoted[..end].to_owned(), &quoted[end + 1..])
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest[..end].trim().to_lowercase(), &rest[end..])
            }
        };
        parts.push(part);
        if after.is_empty() {
            return Some(parts);
        }
        rest = after.strip_prefix('.')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts are those of PostgreSQL 15.
    #[test]
    fn types_and_sizes_print_as_in_postgres() {
        for (oid, modifier, expected) in [
            (23, -1, "integer"),
            (1700, -1, "numeric"),
            (1700, 655_366, "numeric(10,2)"),
            (1043, -1, "character varying"),
            (1015, -1, "character varying[]"),
            (1007, -1, "integer[]"),
            (18, -1, "\"char\""),
            (19, -1, "name"),
            (1184, -1, "timestamp with time zone"),
            (2205, -1, "regclass"),
            (0, -1, "-"),
            (999_999, -1, "???"),
        ] {
            assert_eq!(format_type(oid, modifier), expected);
        }
        for (name, oid) in [
            ("integer", 23),
            ("int4", 23),
            ("pg_catalog.int4", 23),
            ("int4[]", 1007),
            ("double precision", 701),
            ("timestamp with time zone", 1184),
            ("hstore", 0),
        ] {
            assert_eq!(type_oid(name).unwrap_or(0), oid, "{name}");
        }
        for (bytes, expected) in [
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (10_485_247, "10239 kB"),
            (10_485_248, "10 MB"),
            (1_048_576, "1024 kB"),
            (-20_000, "-20 kB"),
        ] {
            assert_eq!(size_pretty(bytes), expected);
        }
    }

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(name_parts("Public.\"My T\""), Some(vec!["public".into(), "My T".into()]));
        assert_eq!(name_parts("\"a"), None);
    }
}
