//! A file's header, taken in order.
//!
//! It does not know what it reads. **Architecture Invariant:** nothing is allocated for a length before that many bytes are
//! known to be in the file, and never more than a small bound.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use sha2::{Digest, Sha256};

use super::error::GgufError;

/// Vocabularies of two million tokens fit in a quarter of it.
const MAX_HEADER_BYTES: u64 = 256 << 20;
const SKIP_BYTES: usize = 1 << 13;

/// The part of a file that has not been read.
pub(super) struct Reader<'f> {
    path: &'f Path,
    file: &'f str,
    inner: BufReader<File>,
    n_bytes: u64,
    position: u64,
    digest: Sha256,
}

impl<'f> Reader<'f> {
    pub(super) fn new(path: &'f Path, file: &'f str, opened: File, n_bytes: u64) -> Self {
        Self { path, file, inner: BufReader::new(opened), n_bytes, position: 0, digest: Sha256::new() }
    }

    /// The file's name, for messages.
    pub(super) fn file(&self) -> String {
        self.file.to_owned()
    }

    /// Bytes that have been read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// SHA-256 of what has been read.
    pub(super) fn digest(self) -> [u8; 32] {
        self.digest.finalize().into()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.reserve(N as u64)?;
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text of at most `limit` bytes; `what` is its name in messages.
    pub(super) fn text(&mut self, what: &'static str, limit: u64) -> Result<String, GgufError> {
        let n_bytes = self.u64()?;
        if n_bytes > limit {
            return Err(GgufError::TooLarge { file: self.file(), what, found: n_bytes, limit });
        }
        self.text_of(what, n_bytes)
    }

    /// A text of `n_bytes`, which the caller has found to be few.
    pub(super) fn text_of(&mut self, what: &'static str, n_bytes: u64) -> Result<String, GgufError> {
        self.reserve(n_bytes)?;
        let at = self.position;
        let mut bytes = vec![0; n_bytes as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| GgufError::Text { file: self.file(), what, at })
    }

    pub(super) fn skip_text(&mut self) -> Result<(), GgufError> {
        let n_bytes = self.u64()?;
        self.skip(n_bytes)
    }

    pub(super) fn skip(&mut self, n_bytes: u64) -> Result<(), GgufError> {
        self.reserve(n_bytes)?;
        let mut buffer = [0; SKIP_BYTES];
        let mut left = n_bytes;
        while left > 0 {
            let n_now = left.min(SKIP_BYTES as u64);
            self.fill(buffer.get_mut(..n_now as usize).unwrap_or_default())?;
            left -= n_now;
        }
        Ok(())
    }

    /// Checks that `n_bytes` more are in the file and in a header of bearable length.
    pub(super) fn reserve(&self, n_bytes: u64) -> Result<(), GgufError> {
        let end = self.position.saturating_add(n_bytes);
        if end > self.n_bytes {
            return Err(GgufError::CutShort { file: self.file(), found: self.n_bytes, expected: end });
        }
        if end > MAX_HEADER_BYTES {
            let what = "the size of the header";
            return Err(GgufError::TooLarge { file: self.file(), what, found: end, limit: MAX_HEADER_BYTES });
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufError> {
        let unreadable = |source| GgufError::Unreadable { path: self.path.to_owned(), source };
        self.inner.read_exact(bytes).map_err(unreadable)?;
        self.digest.update(&*bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }
}
