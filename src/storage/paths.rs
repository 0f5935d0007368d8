//! All object names. Numbers have twenty digits, so that names sort as numbers do.

use object_store::path::Path;

use crate::types::id::ObjectId;

/// Claims of servers, one object each.
pub const GENERATIONS: &str = "generation";
/// Says that a manifest has been written.
pub const BEGUN: &str = "generation/begun";
/// Manifests.
pub const MANIFESTS: &str = "manifest";
/// Objects of the write-ahead log.
pub const LOG: &str = "log";
/// Catalogs as manifests name them.
pub const CATALOGS: &str = "catalog";
/// State of views, a folder each.
pub const STATES: &str = "state";
/// Row errors as manifests name them.
pub const ERRORS: &str = "errors";
/// Savepoints, one object each.
pub const SAVEPOINTS: &str = "savepoint";
/// What sinks have not written out yet, a folder each.
pub const SINKS: &str = "sink";
/// Files of imported savepoints, a folder each.
pub const IMPORTED: &str = "imported";
/// Contents of tables, a folder each.
pub const TABLES: &str = "tables";

/// `folder/00000000000000000042`.
pub fn numbered(folder: &str, number: u64) -> Path {
    Path::from(format!("{folder}/{number:020}"))
}

/// The number of a [`numbered`] object; `None` for other names.
pub fn number_of(path: &Path) -> Option<u64> {
    let name = path.filename()?;
    if name.len() != 20 || !name.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    name.parse().ok()
}

/// A catalog of the manifest `number`. The generation keeps servers apart that write at once.
pub fn catalog(generation: u64, number: u64) -> String {
    format!("{CATALOGS}/{generation:020}-{number:020}.json")
}

/// The row errors of the manifest `number`.
pub fn errors(generation: u64, number: u64) -> String {
    format!("{ERRORS}/{generation:020}-{number:020}.json")
}

/// A file of a view's state, written for the manifest `number`.
pub fn state_file(view: ObjectId, generation: u64, number: u64) -> String {
    format!("{STATES}/{}/{generation:020}-{number:020}.state", view.0)
}

/// Changes for a sink, staged with the manifest `number`.
pub fn sink_file(sink: ObjectId, generation: u64, number: u64, extension: &str) -> String {
    format!("{SINKS}/{}/{generation:020}-{number:020}.{extension}", sink.0)
}

/// A savepoint. Names of other characters than `a-z0-9_-` are written as the hexadecimal digits of
/// their UTF-8, behind `x-`.
pub fn savepoint(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if name.bytes().all(plain) && !name.starts_with("x-") && !name.is_empty() {
        return format!("{SAVEPOINTS}/{name}.json");
    }
    let digits: String = name.bytes().map(|b| format!("{b:02x}")).collect();
    format!("{SAVEPOINTS}/x-{digits}.json")
}

/// A file of a table, written for the manifest `number`.
pub fn table_file(table: ObjectId, generation: u64, number: u64, extension: &str) -> String {
    format!("{TABLES}/{}/{generation:020}-{number:020}.{extension}", table.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_sort() {
        let (small, large) = (numbered(LOG, 9), numbered(LOG, 10));
        assert!(small.as_ref() < large.as_ref());
        assert_eq!(large.as_ref(), "log/00000000000000000010");
        assert_eq!(number_of(&large), Some(10));
        assert_eq!(number_of(&numbered(LOG, u64::MAX)), Some(u64::MAX));
        assert_eq!(number_of(&Path::from("log/10")), None);
        assert_eq!(number_of(&Path::from("log/0000000000000000001x")), None);
        assert_eq!(
            table_file(ObjectId(7), 1, 2, "parquet"),
            "tables/7/00000000000000000001-00000000000000000002.parquet"
        );
        assert_eq!(savepoint("before_upgrade-2"), "savepoint/before_upgrade-2.json");
        assert_eq!(savepoint("a/Ä"), "savepoint/x-612fc384.json");
        assert_eq!(savepoint("x-61"), "savepoint/x-782d3631.json");
    }
}
