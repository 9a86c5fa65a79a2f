//! A few of a checkpoint's numbers, which tell one training from another where names, sizes and times are the same.
//!
//! Of each kind of tensor in a file some are looked at: a training that changed only queries and values, or only the upper
//! layers, shows all the same. It knows kinds by their names. **Architecture Invariant:** however large the files are, no more
//! than some hundred pieces of a page each are read.

use std::{collections::BTreeMap, io, ops::Range, os::unix::fs::FileExt, path::PathBuf};

use sha2::{Digest, Sha256};

use super::file_header::{Header, StoredTensor};
use crate::engine::regular_file;

/// Of each piece: what a disk reads at once.
const PIECE_BYTES: u64 = 4096;
/// Pieces of all files of a checkpoint, about.
const PIECES: usize = 256;
/// Kinds of tensors are at least so many; of strange files, no more than the pieces are looked at.
const KINDS: usize = 13;
const MOST_OF_A_KIND: usize = 8;

/// Which bytes of a file stand for all.
#[derive(Debug)]
pub(super) struct Sample {
    path: PathBuf,
    pieces: Vec<Range<u64>>,
}

impl Sample {
    /// Of one of `n_files`.
    pub(super) fn of(header: &Header, n_files: usize) -> Self {
        let mut kinds: BTreeMap<String, Vec<&StoredTensor>> = BTreeMap::new();
        for tensor in header.tensors.iter().filter(|tensor| tensor.begin < tensor.end) {
            let kind = tensor.name.chars().filter(|c| !c.is_ascii_digit()).collect();
            kinds.entry(kind).or_default().push(tensor);
        }
        let n_wanted = (PIECES / (KINDS * n_files.max(1))).clamp(1, MOST_OF_A_KIND);
        let begins = kinds.values().flat_map(|tensors| spread(tensors, n_wanted)).map(|tensor| tensor.begin);
        let mut pieces: Vec<Range<u64>> = begins.take(PIECES).map(|begin| begin..begin + PIECE_BYTES).collect();
        let ends = header.tensors.iter().map(|tensor| tensor.end).max();
        pieces.extend(ends.map(|end| end.saturating_sub(PIECE_BYTES)..end));
        // A disk that turns reads them in the order in which they lie.
        pieces.sort_by_key(|piece| piece.start);
        let pieces = pieces.into_iter().map(|piece| piece.start..piece.end.min(header.n_bytes)).collect();
        Self { path: header.path.clone(), pieces }
    }

    /// Adds the pieces to `hash`.
    pub(super) fn add_to(&self, hash: &mut Sha256) -> io::Result<()> {
        let (file, _) = regular_file::open(&self.path)?;
        let mut bytes = Vec::new();
        for Range { start, end } in &self.pieces {
            bytes.resize((end - start) as usize, 0);
            file.read_exact_at(&mut bytes, *start)?;
            hash.update(&bytes);
        }
        Ok(())
    }
}

/// Up to `n` of them, evenly from the last one down: where only some layers were trained, it is mostly the last ones.
fn spread<'t>(tensors: &'t [&'t StoredTensor], n: usize) -> impl Iterator<Item = &'t StoredTensor> {
    tensors.iter().rev().step_by(tensors.len().div_ceil(n).max(1)).copied()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::engine::checkpoint::stored_type::StoredType;

    const TENSOR_BYTES: u64 = 3 * PIECE_BYTES;

    /// A file with two kinds of tensors in each of 40 layers.
    fn header(path: PathBuf) -> Header {
        let tensor = |at: u64| {
            let (begin, end) = (8 + at * TENSOR_BYTES, 8 + (at + 1) * TENSOR_BYTES);
            let name = format!("layers.{}.{}_proj", at / 2, if at.is_multiple_of(2) { "q" } else { "v" });
            StoredTensor { name, dtype: StoredType::U8, shape: vec![TENSOR_BYTES as usize], begin, end }
        };
        let tensors: Vec<StoredTensor> = (0..80).map(tensor).collect();
        let (file, n_bytes) = ("file".to_owned(), 8 + 80 * TENSOR_BYTES);
        Header { path, file, n_bytes, digest: [0; 32], metadata: BTreeMap::new(), tensors }
    }

    #[test]
    fn each_kind_of_tensor_counts_and_few_bytes_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let header = header(dir.path().join("file"));
        let mut content = vec![0; header.n_bytes as usize];
        let digest = |content: &[u8]| {
            fs::write(&header.path, content).unwrap();
            let mut hash = Sha256::new();
            Sample::of(&header, 1).add_to(&mut hash).unwrap();
            hash.finalize()
        };
        let before = digest(&content);
        assert_eq!(digest(&content), before);
        for kind in ["q_proj", "v_proj"] {
            for tensor in header.tensors.iter().filter(|tensor| tensor.name.ends_with(kind)) {
                content[tensor.begin as usize + 7] = 1;
            }
            assert_ne!(digest(&content), before, "{kind}");
            content.fill(0);
        }
        *content.last_mut().unwrap() = 1;
        assert_ne!(digest(&content), before, "the last byte");
        for n_files in [1, 10, 1000] {
            let read: u64 = Sample::of(&header, n_files).pieces.iter().map(|piece| piece.end - piece.start).sum();
            assert!(read <= 17 * PIECE_BYTES, "{n_files} files: {read} bytes");
        }
    }
}
