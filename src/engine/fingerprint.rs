//! A checkpoint's fingerprint, by which an answer says which weights made it.
//!
//! SHA-256 over the configuration, the tokenizer, of each file with weights its name, size and header, and a sample of the
//! numbers: all of them are tens of gigabytes, and without any two trainings of one model look alike. Knows no folders: the
//! same checkpoint elsewhere is the same.

use std::fmt;

use sha2::{Digest, Sha256};

use super::checkpoint::CheckpointFile;

/// What tells one checkpoint from another; shown in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of the contents of `config.json` and `tokenizer.json`, the files with weights in their order, and a sample of their numbers.
    #[must_use]
    pub fn of(config: &[u8], tokenizer: &[u8], files: &[CheckpointFile], sample: [u8; 32]) -> Self {
        let mut hash = Sha256::new();
        add(&mut hash, config);
        add(&mut hash, tokenizer);
        for file in files {
            add(&mut hash, file.name.as_bytes());
            hash.update(file.n_bytes.to_le_bytes());
            hash.update(file.header_digest);
        }
        hash.update(sample);
        Self(hash.finalize().into())
    }

    /// Of a model by its name, and the upstream servers that have it.
    #[must_use]
    pub fn of_upstreams(model: &str, addresses: &[String]) -> Self {
        let mut hash = Sha256::new();
        add(&mut hash, b"upstream");
        add(&mut hash, model.as_bytes());
        for address in addresses {
            add(&mut hash, address.as_bytes());
        }
        Self(hash.finalize().into())
    }

    /// One that was kept.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As it is kept.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Lengths go in too, so that no two lists of parts look alike.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, n_bytes: u64, header: &[u8]) -> CheckpointFile {
        CheckpointFile { name: name.to_owned(), n_bytes, header_digest: Sha256::digest(header).into(), modified: None }
    }

    #[test]
    fn every_part_counts_and_so_does_where_it_ends() {
        let of = |config: &str, tokenizer: &str, files: &[CheckpointFile]| {
            Fingerprint::of(config.as_bytes(), tokenizer.as_bytes(), files, [0; 32])
        };
        let all = [
            Fingerprint::of(b"c", b"t", &[file("a", 1, b"h")], [1; 32]),
            of("c", "t", &[file("a", 1, b"h")]),
            of("ct", "", &[file("a", 1, b"h")]),
            of("c", "u", &[file("a", 1, b"h")]),
            of("c", "t", &[file("b", 1, b"h")]),
            of("c", "t", &[file("a", 2, b"h")]),
            of("c", "t", &[file("a", 1, b"i")]),
            of("c", "t", &[file("a", 1, b"h"), file("b", 1, b"h")]),
            of("c", "t", &[]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one), "{at}");
        }
        assert_eq!(all[1], of("c", "t", &[file("a", 1, b"h")]));
    }

    #[test]
    fn it_is_shown_in_hexadecimal_and_kept_as_bytes() {
        let shown = Fingerprint::from_bytes([0x0a; 32]).to_string();
        assert_eq!(shown, "0a".repeat(32));
        let fingerprint = Fingerprint::of(b"", b"", &[], [0; 32]);
        assert_eq!(Fingerprint::from_bytes(*fingerprint.as_bytes()), fingerprint);
    }
}
