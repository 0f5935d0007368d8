//! Which server may write a storage: the newest that claimed it.
//!
//! 1. A server that starts writes the object `generation/N`, N being one above the highest there
//!    is. Only one can.
//! 2. It then takes the next number of manifests and of the log for itself ([`super::recovery`]).
//!    Both are sequences that a server writes one by one, each number only if it is free: an older
//!    server finds its next number taken, and with a foreign content. It can write nothing more
//!    that anybody reads, and stops.
//! 3. A server that writes nothing looks once in a while whether there is a newer claim.
//! 4. The first server says that the storage has begun when its manifest is there, and before it
//!    deletes anything: who is shown no manifest after that has been shown an old list.

use bytes::Bytes;
use object_store::path::Path;

use crate::storage::checksum::seal;
use crate::storage::paths::{self, GENERATIONS};
use crate::storage::store::{Put, Store};
use crate::types::error::{Error, Result, SqlState};

/// Version of the claim's content, which nobody reads but people.
pub(super) const FORMAT: u32 = 1;

/// Servers that may start at the same moment before one gives up.
const ATTEMPTS_MAX: u32 = 100;

/// Claims the storage for a server that calls itself `identity`, a text that no other uses.
///
/// # Errors
/// When the storage fails.
pub async fn claim(store: &Store, identity: &str) -> Result<u64> {
    for _ in 0..ATTEMPTS_MAX {
        let newest = store.list_numbers(GENERATIONS).await?.last().copied().unwrap_or(0);
        let generation = newest + 1;
        let json = serde_json::json!({ "generation": generation, "server": identity }).to_string();
        let content = Bytes::from(seal("generation", FORMAT, &json));
        let path = paths::numbered(GENERATIONS, generation);
        if let Put::Written = store.put_new(&path, content).await? {
            return Ok(generation);
        }
    }
    Err(Error::external(SqlState::OBJECT_IN_USE, "too many servers claim the same storage")
        .hint("Give each server a storage of its own."))
}

/// Says that a manifest has been written. Nothing ever deletes this.
///
/// # Errors
/// When the storage fails.
pub async fn mark_begun(store: &Store) -> Result<()> {
    if has_begun(store).await? {
        return Ok(());
    }
    let content = Bytes::from(seal("generation", FORMAT, "{}"));
    store.put_new(&Path::from(paths::BEGUN), content).await.map(drop)
}

/// Whether a manifest has ever been written.
///
/// # Errors
/// When the storage fails.
pub async fn has_begun(store: &Store) -> Result<bool> {
    store.exists(&Path::from(paths::BEGUN)).await
}

/// Whether a newer server has claimed the storage.
///
/// # Errors
/// When the storage fails.
pub async fn superseded(store: &Store, generation: u64) -> Result<bool> {
    store.exists(&paths::numbered(GENERATIONS, generation + 1)).await
}

/// What a server says that may not write any more.
pub fn fenced(store: &Store, generation: u64) -> Error {
    Error::external(
        SqlState::ADMIN_SHUTDOWN,
        format!("another server has taken over storage {}", store.place()),
    )
    .detail(format!("This server has generation {generation}; there is a newer one."))
    .hint("Connect to the newer server, or give each server a storage of its own.")
}
