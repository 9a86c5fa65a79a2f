//! Tensors of mapped files, converted one at a time when a model asks for them.

use std::{collections::HashMap, fs, ops::Range, path::Path};

use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::{Init, var_builder::SimpleBackend};
use memmap2::Mmap;

use super::{
    CheckpointError,
    header::{Header, StoredTensor},
    layout::{EMBEDDINGS, LM_HEAD},
};

/// All files of a checkpoint, and where in them each tensor is.
#[derive(Debug)]
pub(super) struct StoredTensors {
    files: Vec<Mmap>,
    places: HashMap<String, Place>,
    is_tied: bool,
}

#[derive(Debug)]
struct Place {
    file_idx: usize,
    bytes: Range<usize>,
    dtype: DType,
    shape: Vec<usize>,
}

impl StoredTensors {
    /// Maps the files; `needed` are checked tensors with the number of their file in `headers`.
    pub(super) fn map(
        headers: &[Header],
        needed: &[(usize, &StoredTensor)],
        is_tied: bool,
    ) -> std::result::Result<Self, CheckpointError> {
        let files = headers.iter().map(|header| map_file(&header.path)).collect::<std::result::Result<_, _>>()?;
        let places = needed
            .iter()
            .map(|&(file_idx, tensor)| {
                let dtype = tensor.dtype.try_into().expect("invariant: checked tensors have a float type");
                let bytes = tensor.begin as usize..tensor.end as usize;
                (tensor.name.clone(), Place { file_idx, bytes, dtype, shape: tensor.shape.clone() })
            })
            .collect();
        Ok(Self { files, places, is_tied })
    }

    fn place(&self, name: &str) -> Option<&Place> {
        let name = if self.is_tied && name == LM_HEAD { EMBEDDINGS } else { name };
        self.places.get(name)
    }
}

impl SimpleBackend for StoredTensors {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let place = self.place(name).ok_or_else(|| Error::CannotFindTensor { path: name.to_owned() })?;
        if shape.dims() != place.shape {
            let msg = format!("shape mismatch for {name}");
            return Err(Error::UnexpectedShape { msg, expected: shape, got: Shape::from(place.shape.as_slice()) });
        }
        self.get_unchecked(name, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let missing = || Error::CannotFindTensor { path: name.to_owned() };
        let place = self.place(name).ok_or_else(missing)?;
        // `None` only where the file was cut short between the reading of its header and the mapping.
        let bytes =
            self.files.get(place.file_idx).and_then(|file| file.get(place.bytes.clone())).ok_or_else(missing)?;
        Tensor::from_raw_buffer(bytes, place.dtype, &place.shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.place(name).is_some()
    }
}

#[expect(
    unsafe_code,
    reason = "a mapped file is only as constant as the file: whoever serves a checkpoint leaves it alone"
)]
fn map_file(path: &Path) -> std::result::Result<Mmap, CheckpointError> {
    let unreadable = |source| CheckpointError::Unreadable { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(unreadable)?;
    // SAFETY: the mapping is private and read-only, bytes are plain numbers of which every pattern is valid, and the
    // contract of `Checkpoint::open` forbids changing the file meanwhile.
    unsafe { Mmap::map(&file) }.map_err(unreadable)
}
