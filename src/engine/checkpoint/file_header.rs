//! What the header of a file with weights says, whatever the file's format: which tensors there are and where.
//!
//! It does not know a model's names or shapes. **Architecture Invariant:** of a [`Header`] that was read, every tensor lies
//! inside the file and has as many bytes as its type and shape ask for.

use std::{collections::BTreeMap, path::PathBuf};

use super::stored_type::StoredType;

/// A checked header.
#[derive(Debug)]
pub struct Header {
    /// Where the file is.
    pub path: PathBuf,
    /// Its name, for messages.
    pub file: String,
    /// Its size.
    pub n_bytes: u64,
    /// SHA-256 of what the file says of its tensors.
    pub digest: [u8; 32],
    /// What else the file says of itself; where a format has no such place, nothing.
    pub metadata: BTreeMap<String, String>,
    /// In the order of their bytes.
    pub tensors: Vec<StoredTensor>,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// As Hugging Face's models call it.
    pub name: String,
    /// Of its numbers.
    pub dtype: StoredType,
    /// Row-major; a projection is (out, in).
    pub shape: Vec<usize>,
    /// First byte, counted from the beginning of the file.
    pub begin: u64,
    /// One after the last byte.
    pub end: u64,
}

/// Two tensors of which one begins before the other ends, where they are not at the very same place.
///
/// `tensors` are in the order of their bytes.
#[must_use]
pub fn overlapping(tensors: &[StoredTensor]) -> Option<(&StoredTensor, &StoredTensor)> {
    let mut reaching: Option<&StoredTensor> = None;
    for tensor in tensors.iter().filter(|tensor| tensor.begin < tensor.end) {
        if let Some(before) = reaching
            && tensor.begin < before.end
            && (tensor.begin, tensor.end) != (before.begin, before.end)
        {
            return Some((before, tensor));
        }
        reaching = Some(tensor);
    }
    None
}
