//! Tensors in files, read where they lie when somebody asks for them.
//!
//! Read and not mapped: pages of a mapped file count as the program's own memory.

use std::{collections::HashMap, fs, io, ops::Range, os::unix::fs::FileExt};

use super::{
    CheckpointError,
    file_header::{Header, StoredTensor},
    layout::{EMBEDDINGS, LM_HEAD},
};
use crate::engine::weights::{NumberType, TensorInfo, Weights, WeightsError};

/// All files of a checkpoint, and where in them each tensor is.
#[derive(Debug)]
pub(super) struct StoredTensors {
    files: Vec<(String, fs::File)>,
    places: HashMap<String, Place>,
    is_tied: bool,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    file_idx: usize,
    begin: u64,
    info: TensorInfo,
}

impl StoredTensors {
    /// Opens the files; `needed` are checked tensors with the number of their file in `headers`, and their number type.
    pub(super) fn open(
        headers: &[Header],
        needed: &[(usize, &StoredTensor, NumberType)],
        is_tied: bool,
    ) -> Result<Self, CheckpointError> {
        let open = |header: &Header| {
            let file = fs::File::open(&header.path)
                .map_err(|source| CheckpointError::Unreadable { path: header.path.clone(), source })?;
            Ok((header.file.clone(), file))
        };
        let files = headers.iter().map(open).collect::<Result<_, CheckpointError>>()?;
        let places = needed
            .iter()
            .map(|&(file_idx, tensor, number_type)| {
                let info = TensorInfo::new(number_type, &tensor.shape);
                (tensor.name.clone(), Place { file_idx, begin: tensor.begin, info })
            })
            .collect();
        Ok(Self { files, places, is_tied })
    }

    fn place(&self, name: &str) -> Option<&Place> {
        let name = if self.is_tied && name == LM_HEAD { EMBEDDINGS } else { name };
        self.places.get(name)
    }
}

impl Weights for StoredTensors {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.place(name).map(|place| place.info)
    }

    fn read(&self, name: &str, rows: Range<usize>, bytes: &mut [u8]) -> Result<(), WeightsError> {
        let missing = || WeightsError::Missing { name: name.to_owned(), n_rows: rows.end, n_columns: 0 };
        let place = self.place(name).filter(|place| rows.end <= place.info.n_rows).ok_or_else(missing)?;
        let (file, opened) = self.files.get(place.file_idx).ok_or_else(missing)?;
        let at = place.begin + place.info.row_bytes(rows.start) as u64;
        debug_assert_eq!(bytes.len(), place.info.row_bytes(rows.len()));
        opened.read_exact_at(bytes, at).map_err(|source| WeightsError::Unreadable {
            file: file.clone(),
            source: match source.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::new(source.kind(), "it has become shorter"),
                _ => source,
            },
        })
    }

    fn content(&self, name: &str) -> String {
        if self.is_tied && name == LM_HEAD { EMBEDDINGS.to_owned() } else { name.to_owned() }
    }
}
