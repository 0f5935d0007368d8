//! Reading an object in pieces, each in memory of its own, and its checksum.
//!
//! Pieces are read and looked at beside each other; their checksums are combined in order.

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;

use crate::storage::checksum::{PartSum, crc32, damaged};
use crate::storage::manifest::FileRef;
use crate::storage::store::Store;
use crate::types::error::{Error, Result};

/// Pieces of one object that are read at the same time.
const READS_MAX: usize = 4;
/// Objects up to this are read as a whole.
pub const WHOLE_BYTES_MAX: u64 = 1 << 20;

/// The whole content of an object.
///
/// # Errors
/// SQLSTATE XX001 when it is not what was written; others when the storage fails.
pub async fn whole(store: &Store, file: &FileRef) -> Result<Bytes> {
    let content = store.get(&Path::from(file.name.as_str())).await?;
    let (bytes, sum) = (file.bytes, file.crc32);
    let checked = tokio::task::spawn_blocking(move || {
        (content.len() as u64 == bytes && crc32(&content) == sum).then_some(content)
    });
    let checked = checked.await.map_err(|error| stopped(&error))?;
    checked.ok_or_else(|| damaged(&file.name, "its checksum differs"))
}

/// The last bytes of an object, or all that there are; they are not looked at yet.
///
/// # Errors
/// When the storage fails.
pub async fn tail(store: &Store, file: &FileRef, bytes: u64) -> Result<Bytes> {
    let range = file.bytes.saturating_sub(bytes)..file.bytes;
    store.get_range(&Path::from(file.name.as_str()), range).await
}

/// All of an object, cut at these places, which ascend.
///
/// # Errors
/// As [`whole`].
pub async fn cut(store: &Store, file: &FileRef, places: &[u64]) -> Result<Vec<Bytes>> {
    let path = Path::from(file.name.as_str());
    let mut starts = vec![0];
    starts.extend(places.iter().filter(|place| (1..file.bytes).contains(place)));
    let ends = starts[1..].iter().copied().chain([file.bytes]);
    let reads: Vec<_> = starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let (path, range) = (&path, *start..end);
            async move {
                let piece = store.get_range(path, range).await?;
                let looked = tokio::task::spawn_blocking(move || (PartSum::of(&piece), piece));
                looked.await.map_err(|error| stopped(&error))
            }
            .boxed()
        })
        .collect();
    let read: Vec<(PartSum, Bytes)> =
        futures::stream::iter(reads).buffered(READS_MAX).try_collect().await?;
    let mut all = PartSum::default();
    read.iter().for_each(|(sum, _)| all.add(sum));
    match all.sum() == file.crc32 {
        true => Ok(read.into_iter().map(|(_, piece)| piece).collect()),
        false => Err(damaged(&file.name, "its checksum differs")),
    }
}

fn stopped(error: &tokio::task::JoinError) -> Error {
    Error::internal(format!("a file was not read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_in_pieces_is_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::directory(folder.path()).unwrap();
        let content = Bytes::from((0..10_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        let name = "a/1".to_owned();
        store.put_new(&Path::from(name.as_str()), content.clone()).await.unwrap();
        let bytes = content.len() as u64;
        let file = FileRef { name, bytes, crc32: crc32(&content), ..FileRef::default() };
        assert_eq!(whole(&store, &file).await.unwrap(), content);
        assert_eq!(tail(&store, &file, 16).await.unwrap(), content.slice(39_984..));
        assert_eq!(tail(&store, &file, 1 << 30).await.unwrap(), content);
        for places in [vec![], vec![0, 1, 17, 30_000, 40_000, 50_000], vec![20_000]] {
            let pieces = cut(&store, &file, &places).await.unwrap();
            assert_eq!(pieces.concat(), content);
            assert_eq!(pieces.len(), 1 + places.iter().filter(|p| (1..bytes).contains(p)).count());
        }
        let other = FileRef { crc32: 1, ..file.clone() };
        assert_eq!(cut(&store, &other, &[5]).await.unwrap_err().sqlstate().0, "XX001");
        assert_eq!(whole(&store, &other).await.unwrap_err().sqlstate().0, "XX001");
        let longer = FileRef { bytes: bytes + 1, ..file };
        assert!(cut(&store, &longer, &[5]).await.is_err());
    }
}
