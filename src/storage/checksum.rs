//! CRC-32 (IEEE, as in zip and png), and the envelope of text objects.
//!
//! A text object is one line `millstream KIND VERSION LENGTH CRC`, then LENGTH bytes of JSON. The
//! line makes a torn or changed object visible, and the rest stays readable for people.

use crc32fast::Hasher;
use object_store::PutPayload;

use crate::types::error::{Error, Result, SqlState};

/// The checksum of some bytes.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The checksum of some parts, one after the other.
pub fn crc32_of(parts: &PutPayload) -> u32 {
    let mut crc = Hasher::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.finalize()
}

/// The checksum of parts one after the other, each of which has been looked at by itself.
#[derive(Default)]
pub struct PartSum(Hasher);

impl PartSum {
    pub fn of(bytes: &[u8]) -> PartSum {
        let mut crc = Hasher::new();
        crc.update(bytes);
        PartSum(crc)
    }

    /// Adds a part that stands behind.
    pub fn add(&mut self, behind: &PartSum) {
        self.0.combine(&behind.0);
    }

    pub fn sum(&self) -> u32 {
        self.0.clone().finalize()
    }
}

/// SQLSTATE XX001: what was read is not what was written.
pub fn damaged(object: &str, what: impl std::fmt::Display) -> Error {
    Error::external(SqlState::DATA_CORRUPTED, format!("object \"{object}\" is damaged: {what}"))
}

/// Puts the first line in front of `json`.
pub fn seal(kind: &str, version: u32, json: &str) -> Vec<u8> {
    let crc = crc32(json.as_bytes());
    format!("millstream {kind} {version} {} {crc:08x}\n{json}", json.len()).into_bytes()
}

/// The JSON of a sealed object.
///
/// # Errors
/// SQLSTATE XX001 when it is damaged; 0A000 when a newer version of the program wrote it.
pub fn unseal<'a>(object: &str, kind: &str, version_max: u32, bytes: &'a [u8]) -> Result<&'a str> {
    let end = bytes.iter().position(|b| *b == b'\n');
    let line = end.and_then(|end| std::str::from_utf8(&bytes[..end]).ok());
    let (Some(end), Some(line)) = (end, line) else {
        return Err(damaged(object, "it has no first line"));
    };
    let words: Vec<&str> = line.split(' ').collect();
    let ["millstream", found_kind, version, length, crc] = words[..] else {
        return Err(damaged(object, "its first line is not ours"));
    };
    if found_kind != kind {
        return Err(damaged(object, format!("it is a {found_kind}, not a {kind}")));
    }
    let version: u32 = version.parse().map_err(|_| damaged(object, "it has no version"))?;
    if version > version_max {
        return Err(Error::unsupported(format!("version {version} of the stored {kind}"))
            .detail(format!("Object \"{object}\" was written by a newer Millstream."))
            .hint("Start the version that wrote it, or a newer one."));
    }
    let body = &bytes[end + 1..];
    if length.parse() != Ok(body.len()) {
        return Err(damaged(object, format!("{} bytes instead of {length}", body.len())));
    }
    if u32::from_str_radix(crc, 16) != Ok(crc32(body)) {
        return Err(damaged(object, "its checksum differs"));
    }
    std::str::from_utf8(body).map_err(|_| damaged(object, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let parts = ["123", "", "456789"].map(bytes::Bytes::from);
        assert_eq!(crc32_of(&parts.clone().into_iter().collect()), 0xcbf4_3926);
        let mut all = PartSum::default();
        parts.iter().for_each(|part| all.add(&PartSum::of(part)));
        assert_eq!(all.sum(), 0xcbf4_3926);
    }

    #[test]
    fn every_changed_or_missing_byte_is_seen() {
        let sealed = seal("manifest", 1, "{\"a\":1}");
        assert_eq!(sealed, b"millstream manifest 1 7 561bacaf\n{\"a\":1}".to_vec());
        assert_eq!(unseal("m", "manifest", 1, &sealed).unwrap(), "{\"a\":1}");
        for length in 0..sealed.len() {
            assert!(unseal("m", "manifest", 1, &sealed[..length]).is_err(), "{length}");
        }
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 0x10;
            assert!(unseal("m", "manifest", 1, &changed).is_err(), "byte {index}");
        }
        assert!(unseal("m", "catalog", 1, &sealed).is_err());
        let newer = seal("manifest", 2, "{}");
        assert_eq!(unseal("m", "manifest", 1, &newer).unwrap_err().sqlstate().0, "0A000");
    }
}
