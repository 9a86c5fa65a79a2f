//! Weights: safetensors, pickled or GGUF files, one or in shards, checked by name, shape and size before anything is allocated.
//!
//! It knows the names and shapes of a LLaMA-shaped model, not what is computed with them. **Architecture Invariant:** of an
//! opened [`Checkpoint`] every tensor that the model needs exists once, has its shape and lies inside its file.

pub mod adapter;
pub mod error;
pub mod file_header;
pub mod gguf;
pub mod gptq;
mod layout;
mod limited;
mod made_up;
mod merged;
pub mod pickle;
mod place;
mod problems;
mod safetensors_file;
mod sample;
mod shards;
mod stored;
pub mod stored_type;
mod trimmed;
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

use sha2::{Digest, Sha256};

use self::{
    adapter::{Adapter, AdapterFile, config::AdapterConfig},
    error::CheckpointError,
    file_header::Header,
    gguf::permutation::HeadPermutation,
    gptq::config::GptqConfig,
    merged::Merged,
    place::{Found, Place},
    problems::Problems,
    sample::Sample,
    shards::{FileFormat, Shards},
    stored::StoredTensors,
    trimmed::Trimmed,
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
    samples: Vec<Sample>,
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
    /// SHA-256 of its header: names, types, shapes and places of its tensors; of an adapter's or a packing's configuration, of
    /// all of it.
    pub header_digest: [u8; 32],
    /// When it was written last, where the system says.
    pub modified: Option<SystemTime>,
}

impl CheckpointFile {
    /// One of which everything counts, not a header alone.
    fn whole(name: &str, content: &[u8]) -> Self {
        let header_digest = Sha256::digest(content).into();
        Self { name: name.to_owned(), n_bytes: content.len() as u64, header_digest, modified: None }
    }
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
        let mut problems = Problems::default();
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
        Self::of_shards(&Shards::one(FileFormat::Safetensors, path.to_owned()), None, config, Problems::default())
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
        mut problems: Problems,
    ) -> Result<Self, Vec<CheckpointError>> {
        let read = |path: &PathBuf| shards.format.read_header(path);
        let headers: Vec<Header> =
            shards.paths.iter().map(read).filter_map(|read| read.map_err(|error| problems.push(error)).ok()).collect();
        // What a file holds that cannot be read is not missing.
        let is_whole = problems.is_empty();
        let is_permuted = shards.format == FileFormat::Gguf;
        let packing = gptq.as_ref().map(GptqConfig::as_file);
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
            return Err(problems.into_vec());
        }
        let n_bytes = places.values().map(Place::n_bytes).sum();
        let mut natural: HashMap<String, Format> =
            places.iter().map(|(name, place)| (name.clone(), place.natural())).collect();
        if let (true, Some(embeddings)) = (config.tie_word_embeddings, natural.get(layout::EMBEDDINGS)) {
            natural.insert(layout::LM_HEAD.to_owned(), *embeddings);
        }
        let is_packed = places.values().any(|place| matches!(place, Place::Packed { .. }));
        let tensors = StoredTensors::open(&headers, places, config.tie_word_embeddings).map_err(|error| vec![error])?;
        let samples = headers.iter().map(|header| Sample::of(header, headers.len())).collect();
        let files = headers.into_iter().map(into_file).chain(packing).collect();
        Ok(Self {
            weights: Arc::new(tensors),
            natural,
            is_packed,
            adapted: Vec::new(),
            files,
            samples,
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
        let projections: Vec<_> = layout::matrices(config)
            .into_iter()
            // A head that is the embedding table has no weights of its own to change.
            .filter(|(name, ..)| !(config.tie_word_embeddings && name == layout::LM_HEAD))
            .map(|(name, _, n_out, n_in)| (name, (n_out, n_in)))
            .collect();
        let adapter = Adapter::check(&adapter_config, header, &projections)?;
        adapter.compare_bases(self.weights())?;
        self.samples.push(Sample::of(adapter.header(), 1));
        let Header { path, file, n_bytes, digest, .. } = adapter.header();
        let modified = modified(path);
        self.files.push(CheckpointFile { name: file.clone(), n_bytes: *n_bytes, header_digest: *digest, modified });
        self.files.push(adapter_config.into_file());
        self.adapted = adapter.weights().map(str::to_owned).collect();
        self.weights = Arc::new(Merged::new(self.weights, adapter));
        Ok(self)
    }

    /// The same without the rows of embeddings and head beyond `n_tokens`, where there are some.
    #[must_use]
    pub fn with_vocabulary(mut self, n_tokens: usize) -> Self {
        if self.weights.info(layout::EMBEDDINGS).is_some_and(|info| info.n_rows > n_tokens) {
            self.weights = Arc::new(Trimmed { inner: self.weights, n_tokens });
        }
        self
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

    /// SHA-256 of a few numbers of all files: of two checkpoints of one shape it differs unless they were trained alike. Takes
    /// milliseconds, however large they are.
    ///
    /// # Errors
    /// The system's, where a file cannot be read.
    pub fn sample(&self) -> io::Result<[u8; 32]> {
        let mut hash = Sha256::new();
        self.samples.iter().try_for_each(|sample| sample.add_to(&mut hash))?;
        Ok(hash.finalize().into())
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
    let shards = match shards::find(path) {
        Ok(shards) => shards,
        // Which file is meant has to be said before anything else.
        Err(errors) => {
            let ambiguous = |error: &CheckpointError| matches!(error, CheckpointError::Ambiguous { .. });
            return errors.into_iter().find(ambiguous).map_or(Ok(None), Err);
        }
    };
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

#[cfg(test)]
mod tests;
