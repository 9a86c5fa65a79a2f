//! From folders and flags to a model that is ready to run.
//!
//! Reads small files first and weights last, so that what is wrong is said at once. Knows every part of the engine, and no
//! part knows it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{
    backend::{
        Backend, BackendError,
        cpu::{CpuBackend, CpuOptions},
        reference::ReferenceBackend,
    },
    checkpoint::{self, Checkpoint, CheckpointError},
    config::{ConfigError, ModelConfig},
    copies,
    fingerprint::Fingerprint,
    format::Format,
    generation_config::{self, GenerationConfigError},
    kv::BLOCK_SIZE,
    kv_type::KvType,
    memory,
    precision::Precision,
    prompt::PromptBuilder,
    room::{self, KvSize, Need, RoomError},
    tokenizer::{ChatTokenizer, TokenizerError},
    weights::{NumberType, Weights},
};
use crate::chat::info::{ModelInfo, PromptFormat};

/// What to load and how.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Folder with `config.json` and weights, or a GGUF file.
    pub model_path: PathBuf,
    /// Folder with `tokenizer.json`.
    pub tokenizer_path: PathBuf,
    /// Folder with a PEFT adapter that is merged into the weights.
    pub adapter_path: Option<PathBuf>,
    /// Which backend and device.
    pub device: DeviceChoice,
    /// `None` for what the vocabulary says.
    pub prompt_format: Option<PromptFormat>,
    /// In which formats weights are held.
    pub precision: Precision,
    /// In which format keys and values are held; `None` for what suits the backend.
    pub kv_type: Option<KvType>,
    /// Room for keys and values.
    pub kv_size: KvSize,
    /// Folder where quantised weights are kept for the next start; `None` for not at all.
    pub copies: Option<PathBuf>,
    /// Threads that compute; `None` for one less than there are cores.
    pub threads: Option<usize>,
    /// Whether this is the mini model that ships with the project.
    pub is_mini: bool,
}

/// Which backend runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best there is.
    Auto,
    /// This machine's cores.
    Cpu,
    /// candle-transformers' Llama on this machine's cores: slow and plain, the oracle.
    Reference,
    /// A CUDA card.
    Cuda(usize),
}

/// A model that is ready to run.
pub struct Loaded {
    /// The device with the weights on it.
    pub backend: Box<dyn Backend>,
    /// Text to ids and back.
    pub tokenizer: Arc<ChatTokenizer>,
    /// Conversations to prompts.
    pub prompts: PromptBuilder,
    /// What is said of it.
    pub info: ModelInfo,
    /// Which checkpoint it is.
    pub fingerprint: Fingerprint,
    /// The id that ends an answer.
    pub eos_token_id: u32,
}

/// Why a model was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// `config.json`.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `generation_config.json`.
    #[error(transparent)]
    GenerationConfig(#[from] GenerationConfigError),
    /// The weights.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Config and tokenizer do not belong together.
    #[error(
        "the tokenizer has {tokenizer} tokens, config.json says vocab_size {config}\nhint: --tokenizer_path must lead to the tokenizer of this checkpoint"
    )]
    VocabularyMismatch {
        /// Of the tokenizer.
        tokenizer: usize,
        /// Of the config.
        config: usize,
    },
    /// This build has no such device.
    #[error(
        "this build has no cuda backend, asked for cuda:{index}\nhint: run with --device cpu, or leave --device out"
    )]
    NoCuda {
        /// Which card was asked for.
        index: usize,
    },
    /// It does not fit into memory.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// Nobody asked for the cpu, and it would take its time.
    #[error(
        "there is no gpu backend in this build, and on the cpu this model is expected to take {seconds:.1} s a token: {gib:.1} GiB of weights at {gb_s:.1} GB/s\nhint: --device cpu runs it all the same"
    )]
    Slow {
        /// Seconds a token.
        seconds: f64,
        /// GiB of weights.
        gib: f64,
        /// How fast memory is copied.
        gb_s: f64,
    },
    /// The backend failed while it took the weights.
    #[error("the weights could not be loaded: {0}")]
    Backend(#[from] BackendError),
}

const GIB: f64 = (1u64 << 30) as f64;

/// Loads a model; takes seconds to minutes, so call it from a thread that may block.
///
/// # Errors
/// [`LoadError`], with what was found, what was expected and a hint.
pub fn load(options: &LoadOptions) -> Result<Loaded, LoadError> {
    let began = Instant::now();
    let config_json = config_json(&options.model_path)?;
    let config = ModelConfig::from_json(&config_json)?;
    let defaults = generation_config::read(checkpoint::folder(&options.model_path), &config)?;
    let tokenizer_json = ChatTokenizer::read_json(&options.tokenizer_path)?;
    let tokenizer = Arc::new(ChatTokenizer::from_json(&tokenizer_json)?);
    check_vocabulary(&tokenizer, &config)?;
    let mut checkpoint = Checkpoint::open(&options.model_path, &config)?;
    if let Some(dir) = &options.adapter_path {
        checkpoint = checkpoint.with_adapter(dir, &config)?;
    }
    let fingerprint = Fingerprint::of(&config_json, &tokenizer_json, checkpoint.files());
    drop(tokenizer_json);
    if !checkpoint.unused().is_empty() {
        tracing::warn!(tensors = ?checkpoint.unused(), "the checkpoint has tensors that this architecture does not use");
    }
    if let Some(warning) = not_a_chat_model(&options.model_path) {
        tracing::warn!("{warning}");
    }
    let n_parameters = checkpoint.n_parameters();
    let kind = cpu_kind(options.device)?;
    let (precision, kv_type) = kind.formats(options.precision, options.kv_type);
    let natural = |name: &str| kind.natural(checkpoint.natural(name));
    let need = Need::of(&config, precision, natural, kv_type);
    let n_blocks = room::n_blocks(&config, options.kv_size, need, memory::available())?;
    let threads = options.threads.unwrap_or_else(default_threads);
    if options.device == DeviceChoice::Auto {
        check_speed(need.weight_bytes, || memory::copy_gb_s(threads, 64))?;
    }
    if let (CpuKind::Paged, Some(folder)) = (kind, &options.copies) {
        let paths: Vec<&Path> = [Some(&options.model_path), options.adapter_path.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .collect();
        checkpoint = copies::open_or_make(folder, checkpoint, &config, (precision, &paths));
    }
    let cpu = CpuOptions { precision, kv_type, n_blocks, threads };
    let backend = cpu_backend(kind, &config, checkpoint.into_weights(), cpu)?;
    let prompt_format = options.prompt_format.unwrap_or_else(|| PromptBuilder::auto_format(&config));
    let spec = backend.spec();
    let kv_capacity_tokens = spec.n_blocks * BLOCK_SIZE;
    let prompts = PromptBuilder::new(Arc::clone(&tokenizer), &config, prompt_format).within(kv_capacity_tokens);
    let info = ModelInfo {
        name: match &options.adapter_path {
            None => folder_name(&options.model_path),
            Some(adapter) => format!("{} + {}", folder_name(&options.model_path), folder_name(adapter)),
        },
        is_mini: options.is_mini,
        n_parameters,
        dtype: spec.dtype.into(),
        quantize: precision.quantize.name().into(),
        device: spec.device.clone(),
        weight_bytes: spec.weight_bytes,
        kv_capacity_tokens: kv_capacity_tokens as u64,
        context_length: prompts.max_positions() as u32,
        longest_answer: (prompts.max_positions() as u32).saturating_sub(1).max(1),
        prompt_format,
        defaults,
        load_seconds: began.elapsed().as_secs_f32(),
    };
    Ok(Loaded { backend, tokenizer, prompts, info, fingerprint, eos_token_id: config.eos_token_id })
}

/// The content of `config.json` of the model at `path`, or what a GGUF file says instead.
///
/// # Errors
/// [`LoadError`], with what was found, what was expected and a hint.
pub fn config_json(path: &Path) -> Result<Vec<u8>, LoadError> {
    match ModelConfig::read_json(checkpoint::folder(path)) {
        Err(ConfigError::MissingFile { dir }) => {
            checkpoint::gguf_config(path)?.ok_or_else(|| ConfigError::MissingFile { dir }.into())
        }
        other => Ok(other?),
    }
}

/// A warning where the folder's name says that a checkpoint was not trained for conversations; XVERSE's configuration is the
/// same for both kinds.
#[must_use]
pub fn not_a_chat_model(path: &Path) -> Option<String> {
    let name = folder_name(checkpoint::folder(path));
    let lower = name.to_lowercase();
    (lower.contains("xverse-") && !["chat", "mini", "instruct", "sft"].iter().any(|kind| lower.contains(kind))).then(|| {
        format!("{name} seems to be a base model, which continues texts and was not trained to answer; conversations need one of the Chat models")
    })
}

/// The two backends that run on this machine's cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuKind {
    /// [`CpuBackend`].
    Paged,
    /// [`ReferenceBackend`].
    Reference,
}

impl CpuKind {
    /// What a tensor is held in where nothing else was asked for.
    #[must_use]
    pub fn natural(self, natural: Format) -> Format {
        match self {
            Self::Paged => natural,
            Self::Reference => Format::Dense(NumberType::F32),
        }
    }

    /// What weights, keys and values are held in where this was asked for.
    #[must_use]
    pub fn formats(self, precision: Precision, kv_type: Option<KvType>) -> (Precision, KvType) {
        match self {
            Self::Paged => (precision, kv_type.unwrap_or(KvType::Bf16)),
            // It is what others are measured by.
            Self::Reference => (Precision { number_type: Some(NumberType::F32), ..Precision::default() }, KvType::F32),
        }
    }
}

/// Puts weights behind a backend; the reference backend has but one choice of formats, see [`CpuKind::formats`].
///
/// # Errors
/// [`BackendError`], where a tensor cannot be read.
pub fn cpu_backend(
    kind: CpuKind,
    config: &ModelConfig,
    weights: Arc<dyn Weights>,
    options: CpuOptions,
) -> Result<Box<dyn Backend>, BackendError> {
    Ok(match kind {
        CpuKind::Paged => Box::new(CpuBackend::new(config, weights, options)?),
        CpuKind::Reference => Box::new(ReferenceBackend::new(config, weights, options.n_blocks)?),
    })
}

/// One less than there are cores, so that the server has one; at least one.
#[must_use]
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).max(1))
}

/// Which of them a choice of device means.
///
/// # Errors
/// [`LoadError::NoCuda`].
pub fn cpu_kind(device: DeviceChoice) -> Result<CpuKind, LoadError> {
    match device {
        DeviceChoice::Auto | DeviceChoice::Cpu => Ok(CpuKind::Paged),
        DeviceChoice::Reference => Ok(CpuKind::Reference),
        DeviceChoice::Cuda(index) => Err(LoadError::NoCuda { index }),
    }
}

/// Refuses a tokenizer that is not this config's.
///
/// # Errors
/// [`LoadError::VocabularyMismatch`].
pub fn check_vocabulary(tokenizer: &ChatTokenizer, config: &ModelConfig) -> Result<(), LoadError> {
    if tokenizer.vocab_size() == config.vocab_size {
        Ok(())
    } else {
        Err(LoadError::VocabularyMismatch { tokenizer: tokenizer.vocab_size(), config: config.vocab_size })
    }
}

/// Whether a model with so many bytes of weights can be expected to say a token a second where memory is copied at
/// `copy_gb_s`: what `auto` asks for, since each token reads all weights. A small model is not even measured for.
fn check_speed(weight_bytes: f64, copy_gb_s: impl FnOnce() -> f64) -> Result<(), LoadError> {
    let gib = weight_bytes / GIB;
    if gib < 1.0 {
        return Ok(());
    }
    let gb_s = copy_gb_s();
    let seconds = gib * GIB / 1e9 / gb_s;
    if seconds > 1.0 { Err(LoadError::Slow { seconds, gib, gb_s }) } else { Ok(()) }
}

/// What a model is called after its folder or file.
pub(super) fn folder_name(path: &Path) -> String {
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    absolute.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chat::message::Role,
        engine::prompt::{PromptError, Turn},
    };

    #[test]
    fn prompts_and_answers_stay_within_a_pool_that_is_smaller_than_the_context() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini");
        let loaded = load(&LoadOptions {
            model_path: folder.clone(),
            tokenizer_path: folder,
            adapter_path: None,
            device: DeviceChoice::Cpu,
            prompt_format: None,
            precision: Precision::default(),
            kv_type: None,
            kv_size: KvSize::Tokens(64),
            copies: None,
            threads: Some(1),
            is_mini: true,
        })
        .unwrap();
        let ModelInfo { kv_capacity_tokens, context_length, longest_answer, .. } = loaded.info;
        assert_eq!((kv_capacity_tokens, context_length, longest_answer), (64, 64, 63));
        let said = |role, words: usize| Turn { role, text: "你好 ".repeat(words) };
        let refused = loaded.prompts.build(&[said(Role::User, 60)], 32).unwrap_err();
        assert!(matches!(refused, PromptError::NewestTooLong { limit: 32, .. }), "{refused}");
        let talk = [said(Role::User, 8), said(Role::Assistant, 8), said(Role::User, 4)];
        let prompt = loaded.prompts.build(&talk, 32).unwrap();
        assert_eq!(prompt.dropped_rounds, 1);
        assert!(prompt.ids.len() <= 32, "{}", prompt.ids.len());
    }

    #[test]
    fn the_fingerprint_is_the_checkpoints_wherever_it_lies_and_changes_with_any_of_its_files() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini");
        let copy = tempfile::tempdir().unwrap();
        for name in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"] {
            std::fs::copy(shipped.join(name), copy.path().join(name)).unwrap();
        }
        let fingerprint = |folder: &Path| {
            let config_json = ModelConfig::read_json(folder).unwrap();
            let config = ModelConfig::from_json(&config_json).unwrap();
            let checkpoint = Checkpoint::open(folder, &config).unwrap();
            Fingerprint::of(&config_json, &ChatTokenizer::read_json(folder).unwrap(), checkpoint.files())
        };
        let original = fingerprint(&shipped);
        assert_eq!(fingerprint(copy.path()), original);
        for name in ["config.json", "tokenizer.json"] {
            let path = copy.path().join(name);
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, format!("{text}\n")).unwrap();
            assert_ne!(fingerprint(copy.path()), original, "{name}");
            std::fs::write(&path, text).unwrap();
        }
        std::fs::rename(copy.path().join("model.safetensors"), copy.path().join("one.safetensors")).unwrap();
        let index = copy.path().join("model.safetensors.index.json");
        std::fs::write(index, "{\"weight_map\": {\"lm_head.weight\": \"one.safetensors\"}}").unwrap();
        assert_ne!(fingerprint(copy.path()), original);
    }

    #[test]
    fn what_says_less_than_a_token_a_second_has_to_be_asked_for() {
        let thirteen_billion = 13_714_841_600.0 * 4.0;
        let error = check_speed(thirteen_billion, || 20.0).expect_err("55 GB at 20 GB/s");
        assert!(error.to_string().contains("2.7 s a token") && error.to_string().contains("--device cpu"), "{error}");
        assert!(check_speed(thirteen_billion, || 60.0).is_ok());
        assert!(check_speed(16e6, || unreachable!("a small model needs no measuring")).is_ok());
    }
}
