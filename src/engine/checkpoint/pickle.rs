//! PyTorch's `.bin` files: a zip archive with a pickle that says which tensors there are, and a record for each storage.
//!
//! The pickle is a program; `machine` understands the few steps that build a dictionary of tensors and refuses every other,
//! so nothing of a file is ever carried out. **Architecture Invariant:** a [`Header`] that was read has contiguous tensors,
//! each inside a record that is exactly as large as the pickle says.

mod archive;
pub mod error;
mod global;
mod machine;
mod opcode;

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufReader},
    path::Path,
};

use sha2::{Digest, Sha256};

use self::{
    archive::{Archive, Record},
    error::PickleError,
    machine::TensorClaim,
};
use super::file_header::{Header, StoredTensor, overlapping};
use crate::engine::regular_file;

/// Reads and checks what is in the file at `path` and where.
///
/// # Errors
/// [`PickleError`], with what was found, what was expected and a hint.
pub fn read_header(path: &Path) -> Result<Header, PickleError> {
    let Archive { file, n_bytes, records, pickle } = archive::open(path)?;
    let claims = machine::run(&pickle).map_err(|problem| PickleError::Content { file: file.clone(), problem })?;
    let mut tensors = claims.into_iter().map(|claim| place(&file, &records, claim)).collect::<Result<Vec<_>, _>>()?;
    tensors.sort_by(|a, b| (a.begin, a.end, &a.name).cmp(&(b.begin, b.end, &b.name)));
    if let Some((first, second)) = overlapping(&tensors) {
        return Err(PickleError::TensorsOverlap { file, first: first.name.clone(), second: second.name.clone() });
    }
    let digest = digest(&pickle, &records);
    Ok(Header { path: path.to_owned(), file, n_bytes, digest, metadata: BTreeMap::new(), tensors })
}

/// Finds a tensor's bytes in the record of its storage.
fn place(file: &str, records: &HashMap<String, Record>, claim: TensorClaim) -> Result<StoredTensor, PickleError> {
    let TensorClaim { name, storage, offset, shape, stride } = claim;
    let file = || file.to_owned();
    let Some(record) = records.get(&format!("data/{}", storage.key)) else {
        return Err(PickleError::RecordMissing { file: file(), tensor: name, record: storage.key });
    };
    let item_bytes = storage.number.item_bytes();
    let too_large = || PickleError::ShapeOverflow { file: file(), tensor: name.clone(), shape: shape.clone() };
    let expected = storage.n_values.checked_mul(item_bytes).ok_or_else(too_large)?;
    let found = record.end - record.begin;
    if found != expected {
        return Err(PickleError::RecordSize { file: file(), tensor: name, record: storage.key, found, expected });
    }
    if !is_contiguous(&shape, &stride) {
        return Err(PickleError::Strides { file: file(), tensor: name, shape, stride });
    }
    let sizes = || shape.iter().try_fold(1_u64, |n, &size| n.checked_mul(size as u64));
    let n_values = sizes().ok_or_else(too_large)?;
    match offset.checked_add(n_values) {
        Some(last) if last <= storage.n_values => {
            let begin = record.begin + offset * item_bytes;
            let end = record.begin + last * item_bytes;
            Ok(StoredTensor { name, dtype: storage.number.stored_type(), shape, begin, end })
        }
        _ => {
            let storage = storage.n_values;
            Err(PickleError::OutsideStorage { file: file(), tensor: name, offset, shape, storage })
        }
    }
}

/// Whether the numbers lie row after row; along an axis of one element any step will do.
fn is_contiguous(shape: &[usize], stride: &[u64]) -> bool {
    if shape.len() != stride.len() {
        return false;
    }
    if shape.contains(&0) {
        return true;
    }
    let mut expected = 1_u64;
    for (&size, &step) in shape.iter().zip(stride).rev() {
        if size != 1 && step != expected {
            return false;
        }
        // A saturated step equals no real one, and the shape is refused for its size afterwards.
        expected = expected.saturating_mul(size as u64);
    }
    true
}

/// Of the pickle, and of names and places of all records in the order of their places.
fn digest(pickle: &[u8], records: &HashMap<String, Record>) -> [u8; 32] {
    let mut places: Vec<_> = records.iter().map(|(name, record)| (record.begin, record.end, name)).collect();
    places.sort_unstable();
    let mut digest = Sha256::new();
    digest.update((pickle.len() as u64).to_le_bytes());
    digest.update(pickle);
    for (begin, end, name) in places {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update(begin.to_le_bytes());
        digest.update((end - begin).to_le_bytes());
    }
    digest.finalize().into()
}

/// Reads all records to their ends, which compares each with the checksum beside it.
///
/// # Errors
/// What the reader of archives says of the first that is damaged.
pub fn read_records(path: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(BufReader::with_capacity(1 << 20, regular_file::open(path)?.0))?;
    for record_idx in 0..archive.len() {
        io::copy(&mut archive.by_index(record_idx)?, &mut io::sink())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
