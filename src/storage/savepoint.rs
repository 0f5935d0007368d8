//! Savepoints: checkpoints that the user named.
//!
//! A savepoint is an object with a copy of a manifest. Its files are those of the checkpoint, and
//! are kept until it is dropped: nothing is copied when it is made. It needs no log.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::storage::checksum::{damaged, seal, unseal};
use crate::storage::manifest::Manifest;
use crate::storage::paths::{self, SAVEPOINTS};
use crate::storage::store::{Put, Store};
use crate::types::error::{Error, Result, SqlState};

/// Version of the format, see `docs/FORMAT.md`.
const FORMAT: u32 = 1;

/// A named checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Savepoint {
    pub name: String,
    /// Microseconds since 1970.
    pub created_at_us: i64,
    pub manifest: Manifest,
}

/// All savepoints, by name.
pub type Savepoints = BTreeMap<String, Savepoint>;

/// Finds the savepoints, and warns of those that cannot be read.
///
/// # Errors
/// When the storage fails; when one was written by a newer version.
pub async fn find(store: &Store) -> Result<Savepoints> {
    let mut found = Savepoints::new();
    for path in store.list(SAVEPOINTS).await? {
        let bytes = store.get(&path).await?;
        let read = unseal(path.as_ref(), "savepoint", FORMAT, &bytes).and_then(|json| {
            serde_json::from_str::<Savepoint>(json).map_err(|error| damaged(path.as_ref(), error))
        });
        match read {
            Ok(savepoint) => drop(found.insert(savepoint.name.clone(), savepoint)),
            Err(error) if error.sqlstate() == SqlState::FEATURE_NOT_SUPPORTED => return Err(error),
            Err(error) => tracing::error!(file = %path, %error, "a savepoint is lost"),
        }
    }
    Ok(found)
}

/// Writes a savepoint.
///
/// # Errors
/// SQLSTATE 42710 when there is one of that name; others when the storage fails.
pub async fn write(store: &Store, savepoint: &Savepoint) -> Result<()> {
    let json = serde_json::to_string_pretty(savepoint).expect("plain data has a JSON form");
    let content = Bytes::from(seal("savepoint", FORMAT, &json));
    match store.put_new(&Path::from(paths::savepoint(&savepoint.name)), content).await? {
        Put::Written => Ok(()),
        Put::Taken(_) => Err(exists(&savepoint.name)),
    }
}

/// What is said of a name that is taken.
pub fn exists(name: &str) -> Error {
    Error::user(SqlState::DUPLICATE_OBJECT, format!("savepoint \"{name}\" already exists"))
}

/// What is said of a name that there is not.
pub fn missing(name: &str, savepoints: &Savepoints) -> Error {
    let error =
        Error::user(SqlState::UNDEFINED_OBJECT, format!("savepoint \"{name}\" does not exist"));
    let names: Vec<&str> = savepoints.keys().map(String::as_str).collect();
    match names.is_empty() {
        true => error.hint("There are none."),
        false => error.hint(format!("There are: {}.", names.join(", "))),
    }
}

/// The files of all savepoints but one.
pub fn files<'a>(savepoints: &'a Savepoints, without: Option<&str>) -> BTreeSet<&'a str> {
    let counted = savepoints.values().filter(|savepoint| Some(savepoint.name.as_str()) != without);
    counted.flat_map(|savepoint| savepoint.manifest.files()).collect()
}
