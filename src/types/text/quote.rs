//! Names and texts as SQL that means them, and the words that are names only in quotes.

/// The name as SQL text that means it: quoted where it would otherwise fold or be a keyword.
pub fn quote_ident(name: &str) -> String {
    let mut sql = String::with_capacity(name.len());
    push_ident(name, &mut sql);
    sql
}

/// [`quote_ident`], appended.
pub fn push_ident(name: &str, sql: &mut String) {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !is_reserved(name)
        && COLUMN_NAME_WORDS.binary_search(&name).is_err();
    if plain {
        return sql.push_str(name);
    }
    sql.push('"');
    for character in name.chars() {
        if character == '"' {
            sql.push('"');
        }
        sql.push(character);
    }
    sql.push('"');
}

/// Text as an SQL string literal.
pub fn quote_literal(text: &str) -> String {
    let mut sql = String::with_capacity(text.len() + 2);
    push_literal(text, &mut sql);
    sql
}

/// [`quote_literal`], appended: `'text'`, with `E` in front when it has a backslash.
pub fn push_literal(text: &str, sql: &mut String) {
    if text.contains('\\') {
        sql.push('E');
    }
    sql.push('\'');
    for character in text.chars() {
        if matches!(character, '\'' | '\\') {
            sql.push(character);
        }
        sql.push(character);
    }
    sql.push('\'');
}

/// Whether Postgres takes the word as a name only in quotes (its reserved words, and those that
/// may name functions and types only).
pub fn is_reserved(word: &str) -> bool {
    let folded = || word.bytes().map(|byte| byte.to_ascii_lowercase());
    RESERVED_WORDS.binary_search_by(|reserved| reserved.bytes().cmp(folded())).is_ok()
}

/// The words that may name columns and tables, but no functions or types, sorted: names without
/// quotes too, but Postgres writes them in quotes. Postgres, appendix C of its manual.
const COLUMN_NAME_WORDS: [&str; 51] = [
    "between",
    "bigint",
    "bit",
    "boolean",
    "char",
    "character",
    "coalesce",
    "dec",
    "decimal",
    "exists",
    "extract",
    "float",
    "greatest",
    "grouping",
    "inout",
    "int",
    "integer",
    "interval",
    "least",
    "national",
    "nchar",
    "none",
    "normalize",
    "nullif",
    "numeric",
    "out",
    "overlay",
    "position",
    "precision",
    "real",
    "row",
    "setof",
    "smallint",
    "substring",
    "time",
    "timestamp",
    "treat",
    "trim",
    "values",
    "varchar",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

/// The words that are names only in quotes, sorted. Postgres, appendix C of its manual.
pub const RESERVED_WORDS: [&str; 101] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_sorted_and_found() {
        assert!(RESERVED_WORDS.is_sorted());
        assert!(is_reserved("SELECT") && is_reserved("all") && is_reserved("with"));
        assert!(!is_reserved("name") && !is_reserved("watermark") && !is_reserved("offsets"));
    }

    #[test]
    fn names_are_quoted_only_where_they_must_be() {
        let quoted = [
            ("a", "a"),
            ("_a1", "_a1"),
            ("A", "\"A\""),
            ("a b", "\"a b\""),
            ("1a", "\"1a\""),
            ("", "\"\""),
            ("a\"b", "\"a\"\"b\""),
            ("select", "\"select\""),
            ("values", "\"values\""),
            ("between", "\"between\""),
            ("straße", "\"straße\""),
        ];
        for (name, sql) in quoted {
            assert_eq!(quote_ident(name), sql);
        }
        assert!(COLUMN_NAME_WORDS.is_sorted());
        assert!(COLUMN_NAME_WORDS.iter().all(|word| !is_reserved(word)));
        assert_eq!(quote_ident("Old \"one"), "\"Old \"\"one\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\b"), "E'a\\\\b'");
    }
}
