//! GGUF files, as llama.cpp's converter writes them for XVERSE: one file with metadata, a list of tensors and their bytes.
//!
//! It knows names, not a tokenizer: the one in the file is approximate and is skipped. **Architecture Invariant:** of a
//! [`Gguf`] that was read every tensor has Hugging Face's name and shape and lies inside the file, apart from all others;
//! only the order of rows of queries and keys is still the file's, see [`permutation::HeadPermutation`].

pub mod error;
pub mod metadata;
mod names;
pub mod permutation;
mod reader;
mod tensors;

use std::{collections::BTreeMap, path::Path};

use self::{error::GgufError, metadata::Metadata, reader::Reader};
use super::file_header::Header;
use crate::engine::regular_file;

/// What a file says of itself.
#[derive(Debug)]
pub struct Gguf {
    /// The tensors that the model needs.
    pub header: Header,
    /// The model's shape and what else is needed of the metadata.
    pub metadata: Metadata,
}

const MAGIC: [u8; 4] = *b"GGUF";
const VERSIONS: [u32; 2] = [2, 3];

/// Reads and checks what is in the file at `path` and where.
///
/// # Errors
/// [`GgufError`], with what was found, what was expected and a hint.
pub fn read_header(path: &Path) -> Result<Gguf, GgufError> {
    let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let unreadable = |source| GgufError::Unreadable { path: path.to_owned(), source };
    let (opened, n_bytes) = regular_file::open_weights(path).map_err(unreadable)?;
    let mut reader = Reader::new(path, &file, opened, n_bytes);
    let magic: [u8; 4] = reader.array()?;
    if magic != MAGIC {
        return Err(GgufError::Magic { file, found: magic });
    }
    let version = reader.u32()?;
    if !VERSIONS.contains(&version) {
        return Err(GgufError::Version { file, found: version });
    }
    let n_tensors = reader.u64()?;
    let n_entries = reader.u64()?;
    tensors::check_count(&file, n_tensors)?;
    let metadata = metadata::read(&mut reader, n_entries)?;
    let claims = tensors::read(&mut reader, n_tensors)?;
    let data_begin = reader.position().next_multiple_of(metadata.alignment);
    let digest = reader.digest();
    let tensors = tensors::place(&file, claims, &metadata, data_begin..n_bytes)?;
    let metadata = metadata.finish(&file, &tensors)?;
    Ok(Gguf {
        header: Header { path: path.to_owned(), file, n_bytes, digest, metadata: BTreeMap::new(), tensors },
        metadata,
    })
}

#[cfg(test)]
mod tests;
