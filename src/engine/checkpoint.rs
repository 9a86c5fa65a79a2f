//! Weights: safetensors, pickled or GGUF files, one or in shards, checked by name, shape and size before anything is allocated.
//!
//! It knows the names and shapes of a LLaMA-shaped model, not what is computed with them. **Architecture Invariant:** of an
//! opened [`Checkpoint`] every tensor that the model needs exists once, has its shape and lies inside its file.

pub mod adapter;
pub mod file_header;
pub mod gguf;
pub mod gptq;
mod layout;
mod made_up;
mod merged;
pub mod pickle;
mod place;
mod safetensors_file;
mod shards;
mod stored;
pub mod stored_type;
pub mod verify;
pub mod writer;

use std::{
    collections::HashMap,
    ffi::OsStr,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use self::{
    adapter::{Adapter, AdapterFile, config::AdapterConfig, error::AdapterError},
    file_header::Header,
    gguf::{error::GgufError, permutation::HeadPermutation},
    gptq::{config::GptqConfig, error::GptqError},
    merged::Merged,
    pickle::error::PickleError,
    place::{Found, Place},
    shards::{FileFormat, Shards},
    stored::StoredTensors,
    stored_type::StoredType,
};
use super::{
    config::ModelConfig,
    format::Format,
    precision::Part,
    weights::{NumberType, Weights},
};

/// A checkpoint whose headers have been checked; tensors are read when asked for.
pub struct Checkpoint {
    weights: Arc<dyn Weights>,
    natural: HashMap<String, Format>,
    is_packed: bool,
    adapted: Vec<String>,
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
    /// SHA-256 of its header: names, types, shapes and places of its tensors; of an adapter's configuration, of all of it.
    pub header_digest: [u8; 32],
    /// When it was written last, where the system says.
    pub modified: Option<SystemTime>,
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
        "there are no weights in {}, expected model.safetensors, pytorch_model.bin, the index of shards of either, or a .gguf file\nhint: the weights lie beside config.json; fetch all files of the checkpoint",
        .dir.display()
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder has weights in another format.
    #[error(
        "the weights are in {found}, expected safetensors, .bin or .gguf files\nhint: this version does not read {format}; fetch the checkpoint as its makers publish it"
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
        "{file}: {tensor} has numbers of type {found}, expected F32, F16 or BF16\nhint: quantised checkpoints are read as GPTQ or GGUF; fetch one of these, or the original one"
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
    /// Several files that could be meant.
    #[error(
        "there are {} files with weights in {}: {}\nhint: name the one that is meant: --model_path {}",
        .names.len(), .dir.display(), abridged(.names), .dir.join(&.names[0]).display()
    )]
    Ambiguous {
        /// The folder.
        dir: PathBuf,
        /// Which, at least one.
        names: Vec<String>,
    },
    /// Packed by another version of the program.
    #[error(
        "{file} is packed in layout {found}, expected {expected}\nhint: it was made by another version; make it again from the original checkpoint, with convert"
    )]
    Layout {
        /// The file.
        file: String,
        /// What it says.
        found: String,
        /// What this version reads.
        expected: u32,
    },
    /// A GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A GPTQ checkpoint.
    #[error(transparent)]
    Gptq(#[from] GptqError),
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
    /// Opens the weights at `path`, a folder or one GGUF file, and checks all headers against `config`.
    ///
    /// The files must not be changed while the checkpoint is in use: they are read when somebody needs what is in them.
    ///
    /// # Errors
    /// [`CheckpointError`], the first of those that [`Self::inspect`] finds.
    pub fn open(path: &Path, config: &ModelConfig) -> Result<Self, CheckpointError> {
        Self::inspect(path, config).map_err(first_of)
    }

    /// As [`Self::open`], but does not stop at the first thing that is wrong.
    ///
    /// # Errors
    /// Everything that could be found wrong, at least one.
    pub fn inspect(path: &Path, config: &ModelConfig) -> Result<Self, Vec<CheckpointError>> {
        let mut problems = Vec::new();
        let shards = shards::find(path)?;
        let gptq = GptqConfig::read(folder(path)).unwrap_or_else(|error| {
            problems.push(error.into());
            None
        });
        Self::of_shards(&shards, gptq, config, problems)
    }

    /// Opens one safetensors file with all weights of a model, wherever it lies.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open_file(path: &Path, config: &ModelConfig) -> Result<Self, CheckpointError> {
        Self::of_shards(&Shards::one(FileFormat::Safetensors, path.to_owned()), None, config, Vec::new())
            .map_err(first_of)
    }

    /// What the weights in a safetensors file were made from, where the file says so.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn source_of(path: &Path) -> Result<Option<String>, CheckpointError> {
        Ok(safetensors_file::read_header(path)?.metadata.remove(writer::SOURCE_KEY))
    }

    fn of_shards(
        shards: &Shards,
        gptq: Option<GptqConfig>,
        config: &ModelConfig,
        mut problems: Vec<CheckpointError>,
    ) -> Result<Self, Vec<CheckpointError>> {
        let read = |path: &PathBuf| shards.format.read_header(path);
        let headers: Vec<Header> =
            shards.paths.iter().map(read).filter_map(|read| read.map_err(|error| problems.push(error)).ok()).collect();
        // What a file holds that cannot be read is not missing.
        let is_whole = problems.is_empty();
        let is_permuted = shards.format == FileFormat::Gguf;
        let mut found = Found { tensors: HashMap::new(), gptq, is_permuted };
        for (file_idx, header) in headers.iter().enumerate() {
            for tensor in &header.tensors {
                if let Some((_, first, _)) = found.tensors.insert(&tensor.name, (file_idx, header, tensor)) {
                    problems.push(CheckpointError::Duplicate {
                        tensor: tensor.name.clone(),
                        first: first.file.clone(),
                        second: header.file.clone(),
                    });
                }
            }
        }
        if is_whole {
            let holds =
                |tensor: &str, file: &str| found.tensors.get(tensor).is_some_and(|(_, header, _)| header.file == file);
            problems.extend(shards.broken_claims(holds));
        }

        let expected = layout::tensors(config);
        let mut missing = Vec::new();
        let mut places = HashMap::with_capacity(expected.len());
        for (name, shape) in &expected {
            match found.take(name, shape, HeadPermutation::of(name, config)) {
                None => missing.push(name.clone()),
                Some(Ok(place)) => _ = places.insert(name.clone(), place),
                Some(Err(problem)) => problems.push(problem),
            }
        }
        if is_whole && !missing.is_empty() {
            problems.push(CheckpointError::Missing { names: missing, expected: expected.len() });
        }
        let is_redundant = |name: &str| layout::is_redundant(name, config);
        let mut unused: Vec<String> =
            found.tensors.into_keys().filter(|name| !is_redundant(name)).map(str::to_owned).collect();
        unused.sort_unstable();
        if !problems.is_empty() {
            return Err(problems);
        }
        let n_bytes = places.values().map(Place::n_bytes).sum();
        let mut natural: HashMap<String, Format> =
            places.iter().map(|(name, place)| (name.clone(), place.natural())).collect();
        if let (true, Some(embeddings)) = (config.tie_word_embeddings, natural.get(layout::EMBEDDINGS)) {
            natural.insert(layout::LM_HEAD.to_owned(), *embeddings);
        }
        let is_packed = places.values().any(|place| matches!(place, Place::Packed { .. }));
        let tensors = StoredTensors::open(&headers, places, config.tie_word_embeddings).map_err(|error| vec![error])?;
        let files = headers.into_iter().map(into_file).collect();
        Ok(Self {
            weights: Arc::new(tensors),
            natural,
            is_packed,
            adapted: Vec::new(),
            files,
            unused,
            n_parameters: n_parameters(config),
            n_bytes,
        })
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
        let Header { path, file, n_bytes, digest, .. } = adapter.header();
        let modified = modified(path);
        self.files.push(CheckpointFile { name: file.clone(), n_bytes: *n_bytes, header_digest: *digest, modified });
        self.files.push(adapter_config.into_file());
        self.adapted = adapter.weights().map(str::to_owned).collect();
        self.weights = Arc::new(Merged::new(self.weights, adapter));
        Ok(self)
    }

    /// Names of the tensors that an adapter changes.
    #[must_use]
    pub fn adapted(&self) -> &[String] {
        &self.adapted
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

    /// What a tensor is to be held in where nothing else was asked for, as far as headers tell.
    #[must_use]
    pub fn natural(&self, name: &str) -> Format {
        self.natural.get(name).copied().unwrap_or(Format::Dense(NumberType::F32))
    }

    /// Whether there is something in it that lies ready for the CPU backend.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.is_packed
    }

    /// The tensors.
    #[must_use]
    pub fn weights(&self) -> &dyn Weights {
        self.weights.as_ref()
    }

    /// The tensors, for as long as somebody needs them.
    #[must_use]
    pub fn into_weights(self) -> Arc<dyn Weights> {
        self.weights
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The folder of the model at `path`, which is a folder or a file in one.
#[must_use]
pub fn folder(path: &Path) -> &Path {
    let is_file = path.extension() == Some(OsStr::new("gguf")) && path.is_file();
    let parent = path.parent().filter(|_| is_file);
    parent.map_or(path, |parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// The fields of `config.json` as the GGUF file at `path`, or the only one in that folder, has them; `None` where there is
/// none.
///
/// # Errors
/// [`CheckpointError`].
pub fn gguf_config(path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    let Ok(shards) = shards::find(path) else { return Ok(None) };
    let ([path], FileFormat::Gguf) = (shards.paths.as_slice(), shards.format) else { return Ok(None) };
    Ok(Some(gguf::read_header(path)?.metadata.config().to_string().into_bytes()))
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

/// What stays known of a file.
fn into_file(header: Header) -> CheckpointFile {
    let modified = modified(&header.path);
    CheckpointFile { name: header.file, n_bytes: header.n_bytes, header_digest: header.digest, modified }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn first_of(problems: Vec<CheckpointError>) -> CheckpointError {
    problems.into_iter().next().expect("invariant: a checkpoint is refused for at least one reason")
}

fn abridged(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, …") } else { shown }
}

#[cfg(test)]
mod tests;
