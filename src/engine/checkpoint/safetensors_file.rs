//! The header of one safetensors file: what is in it and where, checked against the file's size.
//!
//! The layout of the format: eight bytes of header length (little endian), the header as JSON, the tensors' bytes without
//! gaps. Only the header is read here.

use std::{collections::BTreeMap, fmt, io::Read, path::Path};

use safetensors::{Dtype, tensor::TensorInfo};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use sha2::{Digest, Sha256};

use super::{
    error::CheckpointError,
    file_header::{Header, StoredTensor},
    limited::{self, Texts},
    stored_type::StoredType,
};
use crate::engine::regular_file;

/// The format's own bound.
pub(super) const MAX_HEADER_BYTES: u64 = 100_000_000;
const LENGTH_BYTES: u64 = 8;
/// As many as a GGUF file may have, and twice over.
const MAX_AXES: usize = 8;

/// Reads and checks what is in the file at `path` and where.
///
/// # Errors
/// [`CheckpointError`], with what was found, what was expected and a hint.
pub(super) fn read_header(path: &Path) -> Result<Header, CheckpointError> {
    let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let unreadable = |source| CheckpointError::Unreadable { path: path.to_owned(), source };
    let (mut reader, file_bytes) = regular_file::open_weights(path).map_err(unreadable)?;
    if file_bytes < LENGTH_BYTES {
        return Err(CheckpointError::FileSize { file, found: file_bytes, expected: LENGTH_BYTES });
    }
    let mut length = [0; LENGTH_BYTES as usize];
    reader.read_exact(&mut length).map_err(unreadable)?;
    let header_bytes = u64::from_le_bytes(length);
    if !(2..=MAX_HEADER_BYTES).contains(&header_bytes) {
        return Err(CheckpointError::HeaderLength { file, found: header_bytes, limit: MAX_HEADER_BYTES });
    }
    let data_begin = LENGTH_BYTES + header_bytes;
    if file_bytes < data_begin {
        return Err(CheckpointError::FileSize { file, found: file_bytes, expected: data_begin });
    }
    let mut json = vec![0; header_bytes as usize];
    reader.read_exact(&mut json).map_err(unreadable)?;
    let Entries { tensors, metadata } =
        serde_json::from_slice(&json).map_err(|source| CheckpointError::HeaderBroken { file: file.clone(), source })?;
    let tensors = place(&file, tensors, data_begin)?;
    let expected = tensors.last().map_or(data_begin, |tensor| tensor.end);
    if file_bytes != expected {
        return Err(CheckpointError::FileSize { file, found: file_bytes, expected });
    }
    let digest = Sha256::digest(&json).into();
    Ok(Header { path: path.to_owned(), file, n_bytes: file_bytes, digest, metadata, tensors })
}

/// Lays the tensors out one after the other and compares with what the header says.
fn place(
    file: &str,
    mut entries: Vec<(String, TensorInfo)>,
    data_begin: u64,
) -> Result<Vec<StoredTensor>, CheckpointError> {
    entries.sort_by_key(|(_, info)| info.data_offsets);
    let mut tensors = Vec::with_capacity(entries.len());
    let mut next = 0;
    for (name, info) in entries {
        let Some(n_bytes) = size(&info) else {
            return Err(CheckpointError::ShapeOverflow { file: file.to_owned(), tensor: name, shape: info.shape });
        };
        let found = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        // Of a size that is a sum of sizes in one file, so it cannot overflow before the comparison fails.
        let expected = (next, u64::saturating_add(next, n_bytes));
        if found != expected {
            return Err(CheckpointError::Offsets { file: file.to_owned(), tensor: name, found, expected });
        }
        next = expected.1;
        let Some(end) = data_begin.checked_add(expected.1) else {
            return Err(CheckpointError::ShapeOverflow { file: file.to_owned(), tensor: name, shape: info.shape });
        };
        let begin = data_begin + expected.0;
        tensors.push(StoredTensor { name, dtype: stored_type(info.dtype), shape: info.shape, begin, end });
    }
    Ok(tensors)
}

fn stored_type(dtype: Dtype) -> StoredType {
    match dtype {
        Dtype::F32 => StoredType::F32,
        Dtype::F16 => StoredType::F16,
        Dtype::BF16 => StoredType::BF16,
        Dtype::I32 => StoredType::I32,
        Dtype::U8 => StoredType::U8,
        other => StoredType::Other(other.to_string()),
    }
}

fn size(info: &TensorInfo) -> Option<u64> {
    let bits = info.shape.iter().try_fold(info.dtype.bitsize() as u64, |bits, &size| bits.checked_mul(size as u64))?;
    Some(bits.div_ceil(8))
}

/// The header's entries with doublets still in, which a map would swallow.
struct Entries {
    tensors: Vec<(String, TensorInfo)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tensor names to their type, shape and place")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Entries { tensors: Vec::new(), metadata: BTreeMap::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        entries.metadata = map.next_value::<Texts>()?.0;
                        continue;
                    }
                    limited::check_count(entries.tensors.len(), "tensors")?;
                    limited::check_name(&name)?;
                    let info: TensorInfo = map.next_value()?;
                    if info.shape.len() > MAX_AXES {
                        let found = info.shape.len();
                        let said = format_args!("{name} has {found} axes, at most {MAX_AXES} are expected");
                        return Err(A::Error::custom(said));
                    }
                    entries.tensors.push((name, info));
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}
