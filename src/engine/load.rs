//! From folders and flags to a model that is ready to run.
//!
//! Reads small files first and weights last, so that what is wrong is said at once. Knows every part of the engine, and no
//! part knows it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use serde_json::{Map, Value};

use super::{
    backend::{
        Backend, BackendError,
        cuda::{CudaSettings, card_error::CardError},
    },
    checkpoint::{
        self, Checkpoint,
        error::{CheckpointError, abridged},
    },
    config::{ConfigError, ModelConfig},
    copies,
    end_tokens::EndTokens,
    fingerprint::Fingerprint,
    generation_config::{self, GenerationConfigError},
    kv::BLOCK_SIZE,
    kv_type::KvType,
    memory,
    model_name::{self, not_a_chat_model},
    precision::Precision,
    prompt::PromptBuilder,
    room::{KvSize, RoomError},
    target::Target,
    tokenizer::{ChatTokenizer, TokenizerError},
};
use crate::chat::info::{ModelInfo, PromptFormat};

/// The name of the mini model's folder.
const MINI_MODEL: &str = "xverse-mini";

/// What to load and how.
///
/// A path is turned into options that leave everything else as it suits model and machine; change what you need:
/// `LoadOptions { threads: Some(4), ..LoadOptions::new("XVERSE-13B-Chat") }`.
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
    /// What a card may use.
    pub cuda: CudaSettings,
    /// Threads that compute; `None` for one less than there are cores.
    pub threads: Option<usize>,
    /// Whether this is the mini model that ships with the project.
    pub is_mini: bool,
}

impl LoadOptions {
    /// The model in this folder or GGUF file, with the tokenizer beside it, as it suits model and machine. No copies of
    /// quantised weights are kept.
    #[must_use]
    pub fn new(model_path: impl AsRef<Path>) -> Self {
        let model_path = model_path.as_ref();
        Self {
            model_path: model_path.to_owned(),
            tokenizer_path: checkpoint::folder(model_path).to_owned(),
            adapter_path: None,
            device: DeviceChoice::Auto,
            prompt_format: None,
            precision: Precision::default(),
            kv_type: None,
            kv_size: KvSize::Auto,
            copies: None,
            cuda: CudaSettings::default(),
            threads: None,
            is_mini: is_mini(model_path),
        }
    }
}

impl<P: AsRef<Path>> From<P> for LoadOptions {
    fn from(model_path: P) -> Self {
        Self::new(model_path)
    }
}

/// Whether a folder is called as the mini model's is.
#[must_use]
pub fn is_mini(model_path: &Path) -> bool {
    model_path.file_name().is_some_and(|name| name == MINI_MODEL)
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
    /// The ids that end an answer.
    pub eos_token_id: EndTokens,
}

/// Why a model was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// `config.json`.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The metadata of a GGUF file.
    #[error("the GGUF file's metadata as {0}")]
    GgufConfig(ConfigError),
    /// `config.json` and a GGUF file.
    #[error(
        "config.json says that {field} is {config}, the GGUF file beside it {gguf}\nhint: they are not of the same model; give the GGUF file a folder of its own, with the tokenizer"
    )]
    ConfigsDiffer {
        /// Which field.
        field: &'static str,
        /// Its value in `config.json`.
        config: String,
        /// In the GGUF file.
        gguf: String,
    },
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
        "the tokenizer has {tokenizer} tokens, the model's vocabulary {config}, expected as many, or so many rounded up to a multiple of {} to {}\nhint: --tokenizer_path must lead to the tokenizer of this checkpoint",
        LEAST_ROUNDING,
        MOST_ROUNDING
    )]
    VocabularyMismatch {
        /// Of the tokenizer.
        tokenizer: usize,
        /// Of the config.
        config: usize,
    },
    /// There is no card to compute on.
    #[error(transparent)]
    Card(#[from] CardError),
    /// A card computes with something else.
    #[error(
        "{flag} {found} was asked for, on a card it is {expected}\nhint: leave {flag} out, or run with --device cpu"
    )]
    CudaFormat {
        /// What was given.
        flag: &'static str,
        /// What it asks for.
        found: &'static str,
        /// What there is.
        expected: &'static str,
    },
    /// It does not fit into memory.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// Nobody asked for the cpu, and it would take its time.
    #[error(
        "no card is used, and on the cpu this model is expected to take {seconds:.1} s a token: {gib:.1} GiB of weights at {gb_s:.1} GB/s\nhint: --device cpu runs it all the same"
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
    let target = Target::choose(options.device, options.cuda)?;
    let (config_json, stored) = read_config(&options.model_path)?;
    let folder = checkpoint::folder(&options.model_path);
    let defaults = generation_config::read(folder, &stored)?;
    let eos_token_id = generation_config::end_tokens(folder, &stored)?;
    let tokenizer_json = ChatTokenizer::read_json(&options.tokenizer_path)?;
    let tokenizer = Arc::new(ChatTokenizer::from_json(&tokenizer_json)?);
    let config = for_tokenizer(&stored, &tokenizer)?;
    let mut checkpoint = Checkpoint::open(&options.model_path, &stored)?;
    if let Some(dir) = &options.adapter_path {
        checkpoint = checkpoint.with_adapter(dir, &stored)?;
    }
    let checkpoint = checkpoint.with_vocabulary(config.vocab_size);
    let sample = checkpoint.sample().map_err(|source| {
        let path = options.model_path.clone();
        CheckpointError::Unreadable { path, source }
    })?;
    let fingerprint = Fingerprint::of(&config_json, &tokenizer_json, checkpoint.files(), sample);
    drop(tokenizer_json);
    warn(options, &checkpoint, (&stored, &config));
    let n_parameters = checkpoint.n_parameters();
    let holding = target.holding(options.precision, options.kv_type)?;
    let precision = holding.precision;
    let natural = |name: &str| target.natural(checkpoint.natural(name));
    let n_blocks = target.n_blocks(&config, holding, natural, (options.kv_size, None))?;
    let threads = options.threads.unwrap_or_else(default_threads);
    if options.device == DeviceChoice::Auto && target.is_cpu() {
        check_speed(precision.weight_bytes(&config, natural) as f64, || memory::copy_gb_s(threads, 64))?;
    }
    let checkpoint = match &options.copies {
        Some(folder) if !matches!(target, Target::Reference) => {
            let paths: Vec<&Path> = [Some(&options.model_path), options.adapter_path.as_ref()]
                .into_iter()
                .flatten()
                .map(PathBuf::as_path)
                .collect();
            copies::open_or_make(folder, checkpoint, &config, (precision, &paths))
        }
        Some(_) | None => checkpoint,
    };
    let backend = target.make(&config, checkpoint.into_weights(), holding, (n_blocks, threads))?;
    let prompt_format = options.prompt_format.unwrap_or_else(|| PromptBuilder::auto_format(&config));
    let spec = backend.spec();
    let kv_capacity_tokens = spec.n_blocks * BLOCK_SIZE;
    let prompts = PromptBuilder::new(Arc::clone(&tokenizer), &config, prompt_format).within(kv_capacity_tokens);
    let info = ModelInfo {
        name: match &options.adapter_path {
            None => model_name::of(&options.model_path),
            Some(adapter) => format!("{} + {}", model_name::of(&options.model_path), model_name::of(adapter)),
        },
        is_mini: options.is_mini,
        n_parameters: Some(n_parameters),
        dtype: Some(spec.dtype.into()),
        quantize: Some(precision.quantize.name().into()),
        device: spec.device.clone(),
        weight_bytes: Some(spec.weight_bytes),
        kv_capacity_tokens: Some(kv_capacity_tokens as u64),
        context_length: prompts.max_positions() as u32,
        longest_answer: (prompts.max_positions() as u32).saturating_sub(1).max(1),
        prompt_format,
        defaults,
        load_seconds: Some(began.elapsed().as_secs_f32()),
    };
    Ok(Loaded { backend, tokenizer, prompts, info, fingerprint, eos_token_id })
}

/// The configuration of the model at `path`, and the JSON that it stands in: `config.json`, the metadata of a GGUF file, or
/// the one with what only the other says.
///
/// # Errors
/// [`LoadError`], with what was found, what was expected and a hint.
pub fn read_config(path: &Path) -> Result<(Vec<u8>, ModelConfig), LoadError> {
    let json = match ModelConfig::read_json(checkpoint::folder(path)) {
        Ok(json) => checkpoint::gguf_config(path)?.map_or_else(|| Ok(json.clone()), |gguf| joined(&json, &gguf))?,
        Err(ConfigError::MissingFile { dir }) => {
            let json = checkpoint::gguf_config(path)?.ok_or(ConfigError::MissingFile { dir })?;
            let config = ModelConfig::from_json(&json).map_err(LoadError::GgufConfig)?;
            return Ok((json, config));
        }
        Err(error) => return Err(error.into()),
    };
    let config = ModelConfig::from_json(&json)?;
    Ok((json, config))
}

/// `config.json` with what only the GGUF file beside it says of the arithmetic; where both say it, they have to agree.
fn joined(config: &[u8], gguf: &[u8]) -> Result<Vec<u8>, LoadError> {
    const DECISIVE: [&str; 4] = ["num_attention_heads", "num_key_value_heads", "rms_norm_eps", "rope_theta"];
    let parse = |json| serde_json::from_slice::<Map<String, Value>>(json);
    // What is no JSON is refused by whoever reads it.
    let (Ok(mut fields), Ok(gguf)) = (parse(config), parse(gguf)) else { return Ok(config.to_owned()) };
    let mut is_changed = false;
    for field in DECISIVE {
        let Some(of_gguf) = gguf.get(field) else { continue };
        match fields.get(field).filter(|value| !value.is_null()) {
            // GGUF has them in singles.
            Some(value) if value.as_f64().map(|value| value as f32) == of_gguf.as_f64().map(|value| value as f32) => {}
            Some(value) => {
                let (config, gguf) = (value.to_string(), of_gguf.to_string());
                return Err(LoadError::ConfigsDiffer { field, config, gguf });
            }
            None => {
                fields.insert(field.to_owned(), of_gguf.clone());
                is_changed = true;
            }
        }
    }
    Ok(if is_changed { Value::Object(fields).to_string().into_bytes() } else { config.to_owned() })
}

/// Says what is odd about a checkpoint, and no reason to refuse it.
fn warn(options: &LoadOptions, checkpoint: &Checkpoint, (stored, config): (&ModelConfig, &ModelConfig)) {
    let unused = checkpoint.unused();
    if !unused.is_empty() {
        let (n, tensors) = (unused.len(), abridged(unused));
        tracing::warn!(n, tensors, "the checkpoint has tensors that this architecture does not use");
    }
    let not_chat = not_a_chat_model(&options.model_path, options.adapter_path.as_deref());
    for warning in [not_chat, padding(stored, config)].into_iter().flatten() {
        tracing::warn!("{warning}");
    }
}

/// A warning where the model's vocabulary has rows without a token.
#[must_use]
pub fn padding(stored: &ModelConfig, config: &ModelConfig) -> Option<String> {
    let (rows, n_tokens) = (stored.vocab_size, config.vocab_size);
    (rows > n_tokens).then(|| {
        let n = rows - n_tokens;
        format!("{n} of the vocabulary's {rows} rows have no token, since it was rounded up; they are left out, and never drawn")
    })
}

/// One less than there are cores, so that the server has one; at least one.
#[must_use]
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).max(1))
}

/// What vocabularies are rounded up to multiples of.
const LEAST_ROUNDING: usize = 8;
const MOST_ROUNDING: usize = 1024;

/// The configuration as it is computed with this tokenizer: where the model's vocabulary was rounded up, the rows without a token
/// are not in it. A vocabulary that is larger in another way is another model's: XVERSE's versions differ by 256 tokens.
///
/// # Errors
/// [`LoadError::VocabularyMismatch`].
pub fn for_tokenizer(stored: &ModelConfig, tokenizer: &ChatTokenizer) -> Result<ModelConfig, LoadError> {
    let (n_tokens, rows) = (tokenizer.vocab_size(), stored.vocab_size);
    let mut roundings =
        std::iter::successors(Some(LEAST_ROUNDING), |size| Some(2 * size)).take_while(|size| *size <= MOST_ROUNDING);
    let is_rounded = roundings.any(|size| n_tokens.next_multiple_of(size) == rows);
    let ends_have_tokens = n_tokens == rows || (stored.eos_token_id as usize) < n_tokens;
    if (n_tokens == rows || is_rounded) && ends_have_tokens {
        return Ok(ModelConfig { vocab_size: n_tokens, ..stored.clone() });
    }
    Err(LoadError::VocabularyMismatch { tokenizer: n_tokens, config: rows })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chat::message::Role,
        engine::{
            precision::Quantize,
            prompt::{PromptError, Turn},
            reading::{Piece, Reader},
        },
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
            cuda: CudaSettings::default(),
            threads: Some(1),
            is_mini: true,
        })
        .unwrap();
        let ModelInfo { kv_capacity_tokens, context_length, longest_answer, .. } = loaded.info;
        assert_eq!((kv_capacity_tokens, context_length, longest_answer), (Some(64), 64, 63));
        let said = |role, words: usize| Turn { role, text: "你好 ".repeat(words) };
        let refused = loaded.prompts.build(&[said(Role::User, 60)], 32).unwrap_err();
        assert!(matches!(refused, PromptError::NewestTooLong { limit: 32, .. }), "{refused}");
        let talk = [said(Role::User, 8), said(Role::Assistant, 8), said(Role::User, 4)];
        let prompt = loaded.prompts.build(&talk, 32).unwrap();
        assert_eq!(prompt.dropped_rounds, 1);
        assert!(prompt.ids.len() <= 32, "{}", prompt.ids.len());
    }

    const N_TOKENS: usize = 2040;

    /// Logits after these ids, and how many there are at a position.
    fn logits(options: &LoadOptions) -> (usize, Vec<f32>) {
        let loaded = load(options).unwrap();
        let n = loaded.backend.spec().vocab_size;
        let mut all = Vec::new();
        let take = |piece: Piece| {
            all.extend(piece.logits);
            Ok::<(), Box<dyn std::error::Error>>(())
        };
        Reader::new(loaded.backend, 8).read(&[&[5, 60, 700, 8]], take).unwrap();
        (n, all)
    }

    #[test]
    fn rows_of_a_vocabulary_that_was_rounded_up_are_not_computed_and_the_others_are_as_ever() {
        let (padded, copies) = (padded(), tempfile::tempdir().unwrap());
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini");
        let kept = Some(copies.path().to_owned());
        for (device, quantize, copies) in [
            (DeviceChoice::Cpu, Quantize::None, None),
            (DeviceChoice::Cpu, Quantize::Four, None),
            (DeviceChoice::Cpu, Quantize::Four, kept.clone()),
            (DeviceChoice::Cpu, Quantize::Four, kept),
            (DeviceChoice::Reference, Quantize::None, None),
        ] {
            let precision = Precision { number_type: None, quantize };
            let small = |path: &Path| LoadOptions {
                device,
                precision,
                kv_size: KvSize::Tokens(64),
                threads: Some(1),
                ..LoadOptions::new(path)
            };
            let (n, found) = logits(&LoadOptions { copies, ..small(padded.path()) });
            let (n_all, expected) = logits(&small(&shipped));
            assert_eq!((n, n_all, found.len()), (N_TOKENS, 2048, 4 * N_TOKENS), "{device:?} {quantize:?}");
            for (found, expected) in found.chunks_exact(n).zip(expected.chunks_exact(n_all)) {
                let apart = found.iter().zip(expected).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
                assert!(apart < if device == DeviceChoice::Cpu { f32::MIN_POSITIVE } else { 1e-3 }, "{apart}");
            }
        }
    }

    #[test]
    fn a_vocabulary_that_is_larger_in_another_way_is_another_models() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini");
        let tokenizer = ChatTokenizer::open(padded().path()).unwrap();
        assert_eq!(tokenizer.vocab_size(), N_TOKENS);
        let config = ModelConfig::read(&shipped).unwrap();
        let of = |vocab_size, eos_token_id| {
            let stored = ModelConfig { vocab_size, eos_token_id, ..config.clone() };
            for_tokenizer(&stored, &tokenizer).map(|used| (used.vocab_size, padding(&stored, &used)))
        };
        assert_eq!(of(2040, 3).unwrap(), (2040, None));
        let (n_tokens, warning) = of(2048, 3).unwrap();
        assert_eq!(n_tokens, 2040);
        assert!(warning.unwrap().contains("8 of the vocabulary's 2048 rows"));
        for (rows, end) in [(2039, 3), (2041, 3), (2056, 3), (2040 + 256, 3), (4096, 3), (2048, 2041)] {
            let error = of(rows, end).unwrap_err().to_string();
            assert!(error.contains("2040") && error.contains(&rows.to_string()), "{error}");
        }
    }

    /// The mini model with a tokenizer that lacks its last eight tokens, and rows in their places of which one would win every
    /// draw.
    fn padded() -> tempfile::TempDir {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini");
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "generation_config.json"] {
            std::fs::copy(shipped.join(name), dir.path().join(name)).unwrap();
        }
        let mut tokenizer: Value = serde_json::from_slice(&ChatTokenizer::read_json(&shipped).unwrap()).unwrap();
        let model = &mut tokenizer["model"];
        model["vocab"].as_object_mut().unwrap().retain(|_, id| id.as_u64() < Some(N_TOKENS as u64));
        let vocab = model["vocab"].as_object().unwrap().clone();
        let is_left = |merge: &Value| vocab.contains_key(&merge.as_str().unwrap().replace(' ', ""));
        model["merges"].as_array_mut().unwrap().retain(is_left);
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let mut weights = std::fs::read(shipped.join("model.safetensors")).unwrap();
        let (n_header, header) = safetensors::SafeTensors::read_metadata(&weights).unwrap();
        let head = header.info("lm_head.weight").unwrap().clone();
        let data = &mut weights[8 + n_header + head.data_offsets.0..8 + n_header + head.data_offsets.1];
        let row_bytes = 2 * head.shape[1];
        for (at, row) in data.chunks_exact_mut(row_bytes).skip(N_TOKENS).enumerate() {
            // One row and its opposite: one of the two is large and positive.
            let large = if at.is_multiple_of(2) { 100.0 } else { -100.0 };
            row.as_chunks_mut().0.fill(half::bf16::from_f32(large).to_le_bytes());
        }
        std::fs::write(dir.path().join("model.safetensors"), weights).unwrap();
        dir
    }

    #[test]
    fn config_json_and_gguf_beside_each_other_say_the_same_or_are_refused() {
        let gguf = br#"{"num_attention_heads": 4, "rms_norm_eps": 9.999999974752427e-7, "rope_theta": 500000.0}"#;
        let of = |config: &str| joined(config.as_bytes(), gguf).map(|json| String::from_utf8(json).unwrap());
        let same = r#"{"num_attention_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 500000}"#;
        assert_eq!(of(same).unwrap(), same);
        let filled: Value = serde_json::from_str(&of(r#"{"num_attention_heads": 4}"#).unwrap()).unwrap();
        assert_eq!(filled["rope_theta"], 500_000.0);
        let refused = of(r#"{"rope_theta": 10000.0}"#).unwrap_err().to_string();
        assert!(refused.contains("rope_theta is 10000.0, the GGUF file beside it 500000.0"), "{refused}");
        assert_eq!(of("no json").unwrap(), "no json");
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
            let tokenizer_json = ChatTokenizer::read_json(folder).unwrap();
            Fingerprint::of(&config_json, &tokenizer_json, checkpoint.files(), checkpoint.sample().unwrap())
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
        let path = copy.path().join("model.safetensors");
        let weights = std::fs::read(&path).unwrap();
        let mut trained = weights.clone();
        *trained.last_mut().unwrap() ^= 1;
        std::fs::write(&path, trained).unwrap();
        assert_ne!(fingerprint(copy.path()), original, "another training");
        std::fs::write(&path, weights).unwrap();
        std::fs::rename(path, copy.path().join("one.safetensors")).unwrap();
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
