//! Weights: safetensors in one file or in shards, checked by name, shape and size before anything is allocated.
//!
//! It knows the names and shapes of a LLaMA-shaped model, not what is computed with them. **Architecture Invariant:** of an
//! opened [`Checkpoint`] every tensor that the model needs exists once, has its shape and lies inside its file.

mod header;
mod layout;
mod made_up;
mod shards;
mod stored;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use safetensors::Dtype;

use self::{
    header::{Header, StoredTensor},
    stored::StoredTensors,
};
use super::config::ModelConfig;

/// A checkpoint whose headers have been checked; tensors are read when asked for.
#[derive(Debug)]
pub struct Checkpoint {
    tensors: StoredTensors,
    files: Vec<CheckpointFile>,
    unused: Vec<String>,
    n_parameters: u64,
    n_bytes: u64,
}

/// A file with weights, as far as its header tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFile {
    /// Its name, without the folder.
    pub name: String,
    /// Its size.
    pub n_bytes: u64,
    /// SHA-256 of its header: names, types, shapes and places of its tensors.
    pub header_digest: [u8; 32],
}

/// Why a checkpoint was refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file cannot be opened or read.
    #[error("{} cannot be read: {source}\nhint: it must be a file that this program may read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder has no weights.
    #[error(
        "there are no weights in {}, expected model.safetensors or model.safetensors.index.json\nhint: the weights lie beside config.json; fetch all files of the checkpoint",
        .dir.display()
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder has weights in another format.
    #[error(
        "the weights are in {found}, expected safetensors\nhint: this version does not read {format}; load the model with Python's transformers and save it again with save_pretrained(folder, safe_serialization=True)"
    )]
    OtherFormat {
        /// The file.
        found: String,
        /// Of the file.
        format: &'static str,
    },
    /// The index is too large.
    #[error(
        "model.safetensors.index.json has {found} bytes, at most {limit} are expected\nhint: the file is damaged; fetch it again"
    )]
    IndexTooLarge {
        /// Its size.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// The index is not what an index is.
    #[error("model.safetensors.index.json is not a valid index, line {}: {source}\nhint: the file is damaged; fetch it again", .source.line())]
    IndexBroken {
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The index names no file.
    #[error("model.safetensors.index.json names no tensor in weight_map\nhint: the file is damaged; fetch it again")]
    IndexEmpty,
    /// The index names a file outside the folder.
    #[error(
        "model.safetensors.index.json names the file {name:?}, expected the plain name of a .safetensors file beside it\nhint: a checkpoint whose index leads elsewhere is damaged, or not meant well"
    )]
    ShardName {
        /// What it names.
        name: String,
    },
    /// A file that the index names is not there.
    #[error(
        "the weights are incomplete: there is no {name}\nhint: fetch all files that model.safetensors.index.json names"
    )]
    ShardMissing {
        /// Its name.
        name: String,
    },
    /// A link that leads out of the folder.
    #[error("{name} leads to {}, expected a file inside the checkpoint's folder\nhint: copy the file into the folder", .target.display())]
    ShardOutside {
        /// Its name.
        name: String,
        /// Where it leads.
        target: PathBuf,
    },
    /// The index says that a tensor is where it is not.
    #[error(
        "model.safetensors.index.json says that {tensor} is in {file}, but it is not\nhint: index and files are not of the same checkpoint"
    )]
    IndexMismatch {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// A file is cut short, or too long.
    #[error("{file} has {found} bytes, expected {expected}\nhint: the file is incomplete or damaged; fetch it again")]
    FileSize {
        /// Its name.
        file: String,
        /// Its size.
        found: u64,
        /// The size that follows from its header.
        expected: u64,
    },
    /// The file's header has an absurd length.
    #[error(
        "{file}: the header has {found} bytes, expected 2 to {limit}\nhint: this is not a safetensors file, or it is damaged"
    )]
    HeaderLength {
        /// The file.
        file: String,
        /// What its first eight bytes say.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// The file's header is not what a header is.
    #[error("{file}: the header cannot be read: {source}\nhint: this is not a safetensors file, or it is damaged")]
    HeaderBroken {
        /// The file.
        file: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A tensor's place in its file is not where it must be.
    #[error("{file}: {tensor} lies at bytes {} to {}, expected {} to {}\nhint: the file is damaged; fetch it again", .found.0, .found.1, .expected.0, .expected.1)]
    Offsets {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Begin and end as the header has them.
        found: (u64, u64),
        /// Begin and end that follow from the tensors before and the shape.
        expected: (u64, u64),
    },
    /// A shape whose size no number holds.
    #[error(
        "{file}: {tensor} has shape {shape:?}, which is larger than any memory\nhint: the file is damaged; fetch it again"
    )]
    ShapeOverflow {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor that comes twice.
    #[error(
        "{tensor} is in {first} and again in {second}, expected once\nhint: the files are not of the same checkpoint"
    )]
    Duplicate {
        /// The tensor.
        tensor: String,
        /// The file it was found in.
        first: String,
        /// The file it was found in again; may be the same.
        second: String,
    },
    /// A tensor of another number type.
    #[error(
        "{file}: {tensor} has numbers of type {found}, expected F32, F16 or BF16\nhint: quantised checkpoints are not read; fetch the original one"
    )]
    NumberType {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: Dtype,
    },
    /// A tensor of another shape.
    #[error(
        "{file}: {tensor} has shape {found:?}, expected {expected:?}\nhint: config.json and the weights are not of the same model"
    )]
    Shape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that follows from `config.json`.
        expected: Vec<usize>,
    },
    /// Tensors that are not there.
    #[error("{} of {expected} tensors are missing: {}\nhint: config.json and the weights are not of the same model, or files are missing", .names.len(), abridged(.names))]
    Missing {
        /// Which.
        names: Vec<String>,
        /// How many there should be in all.
        expected: usize,
    },
}

impl Checkpoint {
    /// Opens the weights in `dir` and checks all headers against `config`.
    ///
    /// The files must not be changed while the checkpoint is in use: they are mapped, not copied.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was found, what was expected and a hint.
    pub fn open(dir: &Path, config: &ModelConfig) -> Result<Self, CheckpointError> {
        let shards = shards::find(dir)?;
        let headers = shards.paths.iter().map(|path| Header::read(path)).collect::<Result<Vec<_>, _>>()?;
        let mut found: HashMap<&str, Found> = HashMap::new();
        for (file_idx, header) in headers.iter().enumerate() {
            for tensor in &header.tensors {
                if let Some(first) = found.insert(&tensor.name, Found { file_idx, header, tensor }) {
                    return Err(CheckpointError::Duplicate {
                        tensor: tensor.name.clone(),
                        first: first.header.file.clone(),
                        second: header.file.clone(),
                    });
                }
            }
        }
        shards.check_claims(|tensor, file| found.get(tensor).is_some_and(|found| found.header.file == file))?;

        let expected = layout::tensors(config);
        let mut missing = Vec::new();
        let mut needed = Vec::with_capacity(expected.len());
        for (name, shape) in &expected {
            match found.remove(name.as_str()) {
                None => missing.push(name.clone()),
                Some(Found { file_idx, header, tensor }) => {
                    tensor.check(&header.file, shape)?;
                    needed.push((file_idx, tensor));
                }
            }
        }
        if !missing.is_empty() {
            return Err(CheckpointError::Missing { names: missing, expected: expected.len() });
        }
        let mut unused: Vec<String> =
            found.into_keys().filter(|name| !layout::is_redundant(name, config)).map(str::to_owned).collect();
        unused.sort_unstable();
        let n_bytes = needed.iter().map(|(_, tensor)| tensor.end - tensor.begin).sum();
        let tensors = StoredTensors::map(&headers, &needed, config.tie_word_embeddings)?;
        let files = headers.into_iter().map(Header::into_file).collect();
        Ok(Self { tensors, files, unused, n_parameters: n_parameters(config), n_bytes })
    }

    /// Number of parameters, `lm_head` included where it is not the embedding table.
    #[must_use]
    pub fn n_parameters(&self) -> u64 {
        self.n_parameters
    }

    /// Bytes of the tensors that the model needs, as they are stored.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The files with weights, by name.
    #[must_use]
    pub fn files(&self) -> &[CheckpointFile] {
        &self.files
    }

    /// Names of tensors that are there and mean nothing to the model, sorted: worth a warning.
    #[must_use]
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// The tensors, converted to `dtype` on `device` one at a time as they are asked for.
    #[must_use]
    pub fn var_builder(self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.tensors), dtype, device.clone())
    }
}

/// Number of parameters of a model of `config`'s shape, `lm_head` included where it is not the embedding table.
#[must_use]
pub fn n_parameters(config: &ModelConfig) -> u64 {
    layout::tensors(config).iter().map(|(_, shape)| shape.iter().map(|&size| size as u64).product::<u64>()).sum()
}

/// Weights of `config`'s shape from normal(0, 0.02), one random layer repeated, for measuring without a checkpoint.
///
/// Layers share their storage, so memory holds one layer, the embeddings and `lm_head`; the same seed gives the same
/// weights on any number of threads.
#[must_use]
pub fn random(config: &ModelConfig, seed: u64, dtype: DType, device: &Device) -> VarBuilder<'static> {
    let tensors = made_up::MadeUpTensors::new(config, seed);
    VarBuilder::from_backend(Box::new(tensors), dtype, device.clone())
}

/// Where a tensor was found.
struct Found<'h> {
    file_idx: usize,
    header: &'h Header,
    tensor: &'h StoredTensor,
}

fn abridged(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, …") } else { shown }
}

#[cfg(test)]
mod tests;
