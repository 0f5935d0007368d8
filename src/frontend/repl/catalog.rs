//! What the shell asks the catalog. Only `information_schema`, which is the same everywhere.

use crate::frontend::repl::command::ListKind;

/// What Tab completes: the names of objects and of their columns.
pub const NAMES_SQL: &str = "\
    SELECT table_name FROM information_schema.tables \
    WHERE table_schema NOT IN ('information_schema', 'pg_catalog') \
    UNION SELECT column_name FROM information_schema.columns \
    WHERE table_schema NOT IN ('information_schema', 'pg_catalog', 'millstream')";

/// `table_type` and the word for it.
const KINDS: &[(&str, &str)] = &[
    ("BASE TABLE", "table"),
    ("FOREIGN", "source"),
    ("MATERIALIZED VIEW", "materialized view"),
    ("VIEW", "view"),
];

/// The user's objects of one kind, or of all.
pub fn list_sql(kind: Option<ListKind>) -> String {
    let wanted = match kind {
        None => None,
        Some(ListKind::Tables) => Some("BASE TABLE"),
        Some(ListKind::Sources) => Some("FOREIGN"),
        Some(ListKind::MaterializedViews) => Some("MATERIALIZED VIEW"),
        Some(ListKind::Views) => Some("VIEW"),
    };
    let filter = wanted.map(|kind| format!(" AND table_type = '{kind}'")).unwrap_or_default();
    format!(
        "SELECT table_schema AS schema, table_name AS name, {} AS kind \
         FROM information_schema.tables \
         WHERE table_schema NOT IN ('information_schema', 'millstream', 'pg_catalog'){filter} \
         ORDER BY table_schema, table_name",
        kind_expression()
    )
}

/// The kind of an object that is named as in SQL (`flights`, `public."Odd"`).
pub fn kind_sql(name: &str) -> String {
    let parts = name_parts(name);
    let mut filter = String::new();
    for (part, column) in parts.iter().rev().zip(["table_name", "table_schema"]) {
        filter += &format!(" AND {column} = '{}'", part.replace('\'', "''"));
    }
    format!(
        "SELECT {} FROM information_schema.tables WHERE true{filter} \
         ORDER BY (table_schema = 'public') DESC LIMIT 1",
        kind_expression()
    )
}

fn kind_expression() -> String {
    let arms: String =
        KINDS.iter().map(|(from, to)| format!(" WHEN '{from}' THEN '{to}'")).collect();
    format!("CASE table_type{arms} ELSE lower(table_type) END")
}

/// The parts of a dotted name, folded to lower case unless quoted.
fn name_parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut characters = name.chars().peekable();
    while let Some(c) = characters.next() {
        let part = parts.last_mut().expect("starts with one part");
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c if quoted => part.push(c),
            c => part.extend(c.to_lowercase()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_in_sql() {
        assert_eq!(name_parts("Flights"), ["flights"]);
        assert_eq!(name_parts("Public.\"Odd.\"\"Name\""), ["public", "Odd.\"Name"]);
        let sql = kind_sql("a.\"it's\"");
        assert!(sql.contains("table_name = 'it''s' AND table_schema = 'a'"), "{sql}");
    }

    #[test]
    fn lists_are_of_one_kind_or_all() {
        assert!(list_sql(Some(ListKind::Sources)).contains("AND table_type = 'FOREIGN' ORDER"));
        assert!(!list_sql(None).contains("table_type ="));
    }
}
