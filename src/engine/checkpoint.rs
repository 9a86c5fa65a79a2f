//! Weights: safetensors or pickled files, one or in shards, checked by name, shape and size before anything is allocated.
//!
//! It knows the names and shapes of a LLaMA-shaped model, not what is computed with them. **Architecture Invariant:** of an
//! opened [`Checkpoint`] every tensor that the model needs exists once, has its shape and lies inside its file.

pub mod adapter;
pub mod file_header;
mod layout;
mod made_up;
mod merged;
pub mod pickle;
mod safetensors_file;
mod shards;
mod stored;
pub mod stored_type;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{
    adapter::{Adapter, AdapterFile, config::AdapterConfig, error::AdapterError},
    file_header::{Header, StoredTensor},
    merged::Merged,
    pickle::error::PickleError,
    stored::StoredTensors,
    stored_type::StoredType,
};
use super::{
    config::ModelConfig,
    precision::Part,
    weights::{NumberType, Weights},
};

/// A checkpoint whose headers have been checked; tensors are read when asked for.
#[derive(Debug)]
pub struct Checkpoint {
    tensors: StoredTensors,
    adapter: Option<Adapter>,
    files: Vec<CheckpointFile>,
    unused: Vec<String>,
    n_parameters: u64,
    n_bytes: u64,
    number_type: NumberType,
}

/// A file with weights, as far as its header tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFile {
    /// Its name, without the folder.
    pub name: String,
    /// Its size.
    pub n_bytes: u64,
    /// SHA-256 of its header: names, types, shapes and places of its tensors; of an adapter's configuration, of all of it.
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
        "there are no weights in {}, expected model.safetensors, pytorch_model.bin, or the index of shards of either\nhint: the weights lie beside config.json; fetch all files of the checkpoint",
        .dir.display()
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder has weights in another format.
    #[error(
        "the weights are in {found}, expected safetensors or .bin files\nhint: this version does not read {format}; fetch the checkpoint as its makers publish it"
    )]
    OtherFormat {
        /// The file.
        found: String,
        /// Of the file.
        format: &'static str,
    },
    /// The index is too large.
    #[error("{index} has {found} bytes, at most {limit} are expected\nhint: the file is damaged; fetch it again")]
    IndexTooLarge {
        /// Its name.
        index: &'static str,
        /// Its size.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// The index is not what an index is.
    #[error("{index} is not a valid index, line {}: {source}\nhint: the file is damaged; fetch it again", .source.line())]
    IndexBroken {
        /// Its name.
        index: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The index names no file.
    #[error("{index} names no tensor in weight_map\nhint: the file is damaged; fetch it again")]
    IndexEmpty {
        /// Its name.
        index: &'static str,
    },
    /// The index names a file outside the folder.
    #[error(
        "{index} names the file {name:?}, expected the plain name of a .{extension} file beside it\nhint: a checkpoint whose index leads elsewhere is damaged, or not meant well"
    )]
    ShardName {
        /// Of the index.
        index: &'static str,
        /// That its files have.
        extension: &'static str,
        /// What it names.
        name: String,
    },
    /// A file that the index names is not there.
    #[error("the weights are incomplete: there is no {name}\nhint: fetch all files of the checkpoint")]
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
        "{index} says that {tensor} is in {file}, but it is not\nhint: index and files are not of the same checkpoint"
    )]
    IndexMismatch {
        /// Of the index.
        index: &'static str,
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
        found: StoredType,
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
    /// A pickled file.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// An adapter, or that it does not fit.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
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
    /// The files must not be changed while the checkpoint is in use: they are read when somebody needs what is in them.
    ///
    /// # Errors
    /// [`CheckpointError`], the first of those that [`Self::inspect`] finds.
    pub fn open(dir: &Path, config: &ModelConfig) -> Result<Self, CheckpointError> {
        Self::inspect(dir, config).map_err(|problems| {
            problems.into_iter().next().expect("invariant: a checkpoint is refused for at least one reason")
        })
    }

    /// As [`Self::open`], but does not stop at the first thing that is wrong.
    ///
    /// # Errors
    /// Everything that could be found wrong, at least one.
    pub fn inspect(dir: &Path, config: &ModelConfig) -> Result<Self, Vec<CheckpointError>> {
        let shards = shards::find(dir)?;
        let mut problems = Vec::new();
        let read = |path: &PathBuf| shards.format.read_header(path);
        let headers: Vec<Header> =
            shards.paths.iter().map(read).filter_map(|read| read.map_err(|error| problems.push(error)).ok()).collect();
        // What a file holds that cannot be read is not missing.
        let is_whole = problems.is_empty();
        let mut found: HashMap<&str, Found> = HashMap::new();
        for (file_idx, header) in headers.iter().enumerate() {
            for tensor in &header.tensors {
                if let Some(first) = found.insert(&tensor.name, Found { file_idx, header, tensor }) {
                    problems.push(CheckpointError::Duplicate {
                        tensor: tensor.name.clone(),
                        first: first.header.file.clone(),
                        second: header.file.clone(),
                    });
                }
            }
        }
        if is_whole {
            let holds = |tensor: &str, file: &str| found.get(tensor).is_some_and(|found| found.header.file == file);
            problems.extend(shards.broken_claims(holds));
        }

        let expected = layout::tensors(config);
        let mut missing = Vec::new();
        let mut needed = Vec::with_capacity(expected.len());
        for (name, shape) in &expected {
            match found.remove(name.as_str()) {
                None => missing.push(name.clone()),
                Some(Found { file_idx, header, tensor }) => match check(tensor, &header.file, shape) {
                    Ok(number_type) => needed.push((file_idx, tensor, number_type)),
                    Err(problem) => problems.push(problem),
                },
            }
        }
        if is_whole && !missing.is_empty() {
            problems.push(CheckpointError::Missing { names: missing, expected: expected.len() });
        }
        let mut unused: Vec<String> =
            found.into_keys().filter(|name| !layout::is_redundant(name, config)).map(str::to_owned).collect();
        unused.sort_unstable();
        if !problems.is_empty() {
            return Err(problems);
        }
        let n_bytes = needed.iter().map(|(_, tensor, _)| tensor.end - tensor.begin).sum();
        let number_type = most_of(&needed);
        let tensors =
            StoredTensors::open(&headers, &needed, config.tie_word_embeddings).map_err(|error| vec![error])?;
        let files = headers.into_iter().map(into_file).collect();
        Ok(Self { tensors, adapter: None, files, unused, n_parameters: n_parameters(config), n_bytes, number_type })
    }

    /// The same with a PEFT adapter in `dir`, whose share is added when a tensor is read.
    ///
    /// # Errors
    /// [`CheckpointError`], where it is no adapter, or not one for this model.
    pub fn with_adapter(mut self, dir: &Path, config: &ModelConfig) -> Result<Self, CheckpointError> {
        let adapter_config = AdapterConfig::read(dir)?;
        let header = match adapter::find(dir)? {
            AdapterFile::Safetensors(path) => safetensors_file::read_header(&path)?,
            AdapterFile::Pickle(path) => pickle::read_header(&path)?,
        };
        let projections: Vec<_> =
            layout::matrices(config).into_iter().map(|(name, _, n_out, n_in)| (name, (n_out, n_in))).collect();
        let adapter = Adapter::check(&adapter_config, header, &projections)?;
        let Header { file, n_bytes, digest, .. } = adapter.header();
        self.files.push(CheckpointFile { name: file.clone(), n_bytes: *n_bytes, header_digest: *digest });
        self.files.push(adapter_config.into_file());
        self.adapter = Some(adapter);
        Ok(self)
    }

    /// Names of the tensors that an adapter changes.
    pub fn adapted(&self) -> impl Iterator<Item = &str> {
        self.adapter.iter().flat_map(Adapter::weights)
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

    /// The number type that most of its numbers have.
    #[must_use]
    pub fn number_type(&self) -> NumberType {
        self.number_type
    }

    /// The tensors.
    #[must_use]
    pub fn into_weights(self) -> Arc<dyn Weights> {
        match self.adapter {
            None => Arc::new(self.tensors),
            Some(adapter) => Arc::new(Merged::new(self.tensors, adapter)),
        }
    }
}

fn most_of(tensors: &[(usize, &StoredTensor, NumberType)]) -> NumberType {
    let bytes_of = |number_type: NumberType| -> u64 {
        tensors
            .iter()
            .filter(|(_, _, found)| *found == number_type)
            .map(|(_, tensor, _)| tensor.end - tensor.begin)
            .sum()
    };
    let types = [NumberType::F32, NumberType::F16, NumberType::Bf16];
    types.into_iter().max_by_key(|one| bytes_of(*one) / one.n_bytes() as u64).unwrap_or(NumberType::F32)
}

/// Number of parameters of a model of `config`'s shape, `lm_head` included where it is not the embedding table.
#[must_use]
pub fn n_parameters(config: &ModelConfig) -> u64 {
    layout::tensors(config).iter().map(|(_, shape)| shape.iter().map(|&size| size as u64).product::<u64>()).sum()
}

/// Number of parameters that are norms' weights.
#[must_use]
pub fn n_norm_parameters(config: &ModelConfig) -> u64 {
    layout::tensors(config).iter().filter(|(_, shape)| shape.len() == 1).map(|(_, shape)| shape[0] as u64).sum()
}

/// What is multiplied with: name, part, outputs, inputs; the head has a name of its own even where it is the embedding
/// table.
#[must_use]
pub fn matrices(config: &ModelConfig) -> Vec<(String, Part, usize, usize)> {
    layout::matrices(config)
}

/// Weights of `config`'s shape from normal(0, 0.02), one random layer repeated, for measuring without a checkpoint: the
/// same for the same seed.
#[must_use]
pub fn random(config: &ModelConfig, seed: u64, number_type: NumberType) -> Arc<dyn Weights> {
    Arc::new(made_up::MadeUpTensors::new(config, seed, number_type))
}

/// Checks that this is a tensor of weights of the given shape, and gives its number type.
fn check(tensor: &StoredTensor, file: &str, shape: &[usize]) -> Result<NumberType, CheckpointError> {
    if tensor.shape != shape {
        return Err(CheckpointError::Shape {
            file: file.to_owned(),
            tensor: tensor.name.clone(),
            found: tensor.shape.clone(),
            expected: shape.to_vec(),
        });
    }
    match &tensor.dtype {
        StoredType::F32 => Ok(NumberType::F32),
        StoredType::F16 => Ok(NumberType::F16),
        StoredType::BF16 => Ok(NumberType::Bf16),
        found @ (StoredType::I32 | StoredType::Other(_) | StoredType::Block(_)) => Err(CheckpointError::NumberType {
            file: file.to_owned(),
            tensor: tensor.name.clone(),
            found: found.clone(),
        }),
    }
}

/// What stays known of a file.
fn into_file(header: Header) -> CheckpointFile {
    CheckpointFile { name: header.file, n_bytes: header.n_bytes, header_digest: header.digest }
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
