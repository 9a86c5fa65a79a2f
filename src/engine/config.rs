//! `config.json` of an XVERSE checkpoint, read into what the engine needs.
//!
//! It knows no weights and no device. **Architecture Invariant:** a [`ModelConfig`] that was read describes a dense model of
//! bounded size with plain rotary positions, so whoever sizes memory by it need not check again.

mod fields;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fields::Fields;

use super::{
    regular_file,
    small_file::{self, SmallFileError},
};

/// The model's shape, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; a divisor of the query heads.
    pub num_key_value_heads: usize,
    /// `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// How many token ids there are.
    pub vocab_size: usize,
    /// The context length.
    pub max_position_embeddings: usize,
    /// Most prompt tokens, where the checkpoint says so (v2).
    pub max_tokenizer_truncation: Option<usize>,
    /// Added to the mean square before its root.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Padding id.
    pub pad_token_id: u32,
    /// Begin id; XVERSE prompts do not use it.
    pub bos_token_id: u32,
    /// End id; of several, the first, which is the one that stands in prompts.
    pub eos_token_id: u32,
    /// The others of several: each ends an answer as well.
    pub other_end_ids: Vec<u32>,
    /// Whether `lm_head` is the embedding table.
    pub tie_word_embeddings: bool,
}

/// Why a `config.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is nothing at the path.
    #[error("there is no folder {}\nhint: --model_path must lead to the folder that holds config.json", .path.display())]
    MissingFolder {
        /// The path that was given.
        path: PathBuf,
    },
    /// The path is a file.
    #[error("{} is not a folder\nhint: --model_path takes the checkpoint's folder, not one of its files", .path.display())]
    NotAFolder {
        /// The path that was given.
        path: PathBuf,
    },
    /// The folder has no `config.json`.
    #[error("there is no config.json in {}\nhint: a checkpoint folder holds config.json beside the weights", .dir.display())]
    MissingFile {
        /// The folder.
        dir: PathBuf,
    },
    /// The file cannot be read.
    #[error("{} cannot be read: {source}\nhint: {}", .path.display(), regular_file::hint(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("config.json has {found} bytes, at most {limit} are expected\nhint: the file is damaged; fetch it again")]
    TooLarge {
        /// Its size.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// The file is not JSON.
    #[error("config.json is not valid JSON, line {}: {source}\nhint: the file is damaged; fetch it again", .source.line())]
    BrokenJson {
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A field without a default is absent.
    #[error("config.json has no {field}\nhint: the file is incomplete, or not of an XVERSE model")]
    MissingField {
        /// Its name.
        field: &'static str,
    },
    /// A field has a value of another kind.
    #[error(
        "config.json: {field} is {found}, expected {expected}\nhint: the file is damaged, or not of an XVERSE model"
    )]
    WrongType {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: String,
        /// The kind that was expected.
        expected: &'static str,
    },
    /// A number outside its bounds.
    #[error(
        "config.json: {field} is {found}, expected {min} to {max}\nhint: the file is damaged, or not of an XVERSE model"
    )]
    OutOfRange {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: String,
        /// Least.
        min: String,
        /// Most.
        max: String,
    },
    /// Two sizes do not fit each other.
    #[error(
        "config.json: {field} is {found}, expected a multiple of {divisor_field} ({divisor})\nhint: the file is damaged, or not of an XVERSE model"
    )]
    NotAMultiple {
        /// The one to be divided.
        field: &'static str,
        /// Its value.
        found: usize,
        /// The one that divides.
        divisor_field: &'static str,
        /// Its value.
        divisor: usize,
    },
    /// Rotary positions turn pairs.
    #[error(
        "config.json: hidden_size / num_attention_heads is {found}, expected an even number\nhint: the file is damaged, or not of an XVERSE model"
    )]
    OddHeadDim {
        /// The quotient.
        found: usize,
    },
    /// A head width of its own.
    #[error(
        "config.json: head_dim is {found}, expected hidden_size / num_attention_heads, which is {expected}\nhint: only models as XVERSE's are supported, which have the LLaMA architecture"
    )]
    HeadDim {
        /// What the file says.
        found: usize,
        /// The quotient.
        expected: usize,
    },
    /// A long context without its rotary settings.
    #[error(
        "config.json: max_position_embeddings is {found} and there is no rope_theta, expected one with so long a context\nhint: XVERSE-13B-256K was trained with a base of 500000 that its config.json does not state; write \"rope_theta\": 500000 into it, or take the 8K model"
    )]
    RopeUnstated {
        /// Positions.
        found: usize,
    },
    /// Positions that are scaled in some way.
    #[error(
        "config.json: {field} is {found}, expected none, or a dynamic one\nhint: only models with plain rotary positions are supported"
    )]
    RopeScaling {
        /// `rope_scaling` or `rope_parameters`.
        field: &'static str,
        /// Its value.
        found: String,
    },
    /// A mixture of experts.
    #[error(
        "config.json: {field} is {found}: a mixture of experts, expected a dense model\nhint: XVERSE-7B, 13B and 65B are dense, XVERSE-MoE is not supported"
    )]
    MixtureOfExperts {
        /// The field that tells.
        field: &'static str,
        /// Its value.
        found: String,
    },
    /// Weights in a quantised format.
    #[error(
        "config.json: {field} is {found}, expected none, or a quant_method of gptq\nhint: use the checkpoint in bf16, fp16 or fp32; it is quantised on load"
    )]
    Quantized {
        /// The field that tells.
        field: &'static str,
        /// Its value.
        found: String,
    },
    /// Another architecture.
    #[error(
        "config.json: {field} is {found}, expected {expected}\nhint: only XVERSE models, which have the LLaMA architecture, are supported"
    )]
    Architecture {
        /// `architectures` or `model_type`.
        field: &'static str,
        /// Its value.
        found: String,
        /// What is taken.
        expected: &'static str,
    },
    /// Another feed-forward activation.
    #[error(
        "config.json: hidden_act is {found}, expected \"silu\"\nhint: only models as XVERSE's are supported, which have the LLaMA architecture"
    )]
    Activation {
        /// Its value.
        found: String,
    },
    /// Projections with biases.
    #[error(
        "config.json: {field} is true, expected false: XVERSE has no biases\nhint: only models as XVERSE's are supported, which have the LLaMA architecture"
    )]
    Bias {
        /// `attention_bias` or `mlp_bias`.
        field: &'static str,
    },
}

/// What a checkpoint may be quantised by: GPTQ, or this program's `convert`.
pub(super) const QUANT_METHODS: [&str; 2] = ["gptq", "xverse-chat"];
const MAX_POSITIONS: usize = 1 << 20;
/// Beyond so many positions a model was trained with other rotary frequencies than the default ones.
const MOST_WITHOUT_THETA: usize = 131_072;
/// Larger than any configuration, small enough to be read without a thought.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl ModelConfig {
    /// Reads and checks `config.json` in `dir`.
    ///
    /// # Errors
    /// [`ConfigError`], with what was found, what was expected and a hint.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        Self::from_json(&Self::read_json(dir)?)
    }

    /// The content of `config.json` in `dir`, not looked at.
    ///
    /// # Errors
    /// [`ConfigError`], with what was found, what was expected and a hint.
    pub fn read_json(dir: &Path) -> Result<Vec<u8>, ConfigError> {
        match fs::metadata(dir) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(ConfigError::NotAFolder { path: dir.to_owned() }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(ConfigError::MissingFolder { path: dir.to_owned() });
            }
            Err(source) => return Err(ConfigError::Unreadable { path: dir.to_owned(), source }),
        }
        let path = dir.join("config.json");
        small_file::read_json(&path, MAX_FILE_BYTES).map_err(|error| match error {
            SmallFileError::Missing => ConfigError::MissingFile { dir: dir.to_owned() },
            SmallFileError::TooLarge { found } => ConfigError::TooLarge { found, limit: MAX_FILE_BYTES },
            SmallFileError::Unreadable(source) => ConfigError::Unreadable { path, source },
        })
    }

    /// Checks the content of a `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`], with what was found, what was expected and a hint.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        let fields = Fields::parse(json)?;
        refuse_other_models(&fields)?;
        let hidden_size = fields.required("hidden_size", 1, 65_536)?;
        let num_attention_heads = fields.required("num_attention_heads", 1, 1024)?;
        let num_key_value_heads = fields.optional("num_key_value_heads", 1, 1024)?.unwrap_or(num_attention_heads);
        must_divide("hidden_size", hidden_size, "num_attention_heads", num_attention_heads)?;
        must_divide("num_attention_heads", num_attention_heads, "num_key_value_heads", num_key_value_heads)?;
        let head_dim = hidden_size / num_attention_heads;
        if !head_dim.is_multiple_of(2) {
            return Err(ConfigError::OddHeadDim { found: head_dim });
        }
        if let Some(found) = fields.optional("head_dim", 1, 65_536)?
            && found != head_dim
        {
            return Err(ConfigError::HeadDim { found, expected: head_dim });
        }
        let vocab_size = fields.required("vocab_size", 1, 2_000_000)?;
        // A default outside a small vocabulary is no contradiction in the file: nothing ever draws it.
        let token_id = |field, default| -> Result<u32, ConfigError> {
            Ok(fields.token_ids(field, vocab_size)?.first().copied().unwrap_or(default))
        };
        let ends = fields.token_ids("eos_token_id", vocab_size)?;
        Ok(Self {
            hidden_size,
            intermediate_size: fields.required("intermediate_size", 1, 262_144)?,
            num_hidden_layers: fields.required("num_hidden_layers", 1, 512)?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            vocab_size,
            max_position_embeddings: fields.required("max_position_embeddings", 2, MAX_POSITIONS)?,
            max_tokenizer_truncation: fields.optional("max_tokenizer_truncation", 1, 1_048_576)?,
            rms_norm_eps: fields.real("rms_norm_eps", 1e-12, 0.1)?.unwrap_or(1e-6),
            rope_theta: rope_theta(&fields)?,
            pad_token_id: token_id("pad_token_id", 1)?,
            bos_token_id: token_id("bos_token_id", 2)?,
            eos_token_id: ends.first().copied().unwrap_or(3),
            other_end_ids: ends.into_iter().skip(1).collect(),
            tie_word_embeddings: fields.flag("tie_word_embeddings")?,
        })
    }
}

const ARCHITECTURES: [&str; 2] = ["XverseForCausalLM", "LlamaForCausalLM"];
const MODEL_TYPES: [&str; 2] = ["xverse", "llama"];
const EXPERT_FIELDS: [&str; 6] =
    ["num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok", "moe_top_k", "num_shared_experts"];

/// Everything that would make the weights mean something else than the engine computes. Experts come first: XVERSE-MoE
/// has the same `architectures` as the dense models.
fn refuse_other_models(fields: &Fields) -> Result<(), ConfigError> {
    for field in EXPERT_FIELDS {
        if let Some(found) = fields.set(field) {
            return Err(ConfigError::MixtureOfExperts { field, found });
        }
    }
    if let Some(found) = fields.set("quantization_bit") {
        return Err(ConfigError::Quantized { field: "quantization_bit", found });
    }
    if let Some(how) = fields.object("quantization_config")? {
        let method = how.string("quant_method")?;
        if !method.as_deref().is_some_and(|method| QUANT_METHODS.contains(&method)) {
            return Err(ConfigError::Quantized { field: "quantization_config", found: how.to_string() });
        }
    }
    let expected = "\"XverseForCausalLM\" or \"LlamaForCausalLM\"";
    let architectures = fields.strings("architectures")?;
    if !architectures.iter().flatten().any(|name| ARCHITECTURES.contains(&name.as_str())) {
        let field = "architectures";
        match (architectures, fields.string("model_type")?) {
            // Some conversions write the model type alone, which says as much.
            (None, Some(_)) => {}
            (None, None) => return Err(ConfigError::Architecture { field, found: "not there".to_owned(), expected }),
            (Some(found), _) => return Err(ConfigError::Architecture { field, found: format!("{found:?}"), expected }),
        }
    }
    if let Some(found) = fields.string("model_type")?
        && !MODEL_TYPES.contains(&found.as_str())
    {
        let expected = "\"xverse\" or \"llama\"";
        return Err(ConfigError::Architecture { field: "model_type", found: format!("{found:?}"), expected });
    }
    if let Some(found) = fields.string("hidden_act")?
        && found != "silu"
    {
        return Err(ConfigError::Activation { found: format!("{found:?}") });
    }
    for field in ["attention_bias", "mlp_bias"] {
        if fields.flag(field)? {
            return Err(ConfigError::Bias { field });
        }
    }
    Ok(())
}

/// The base of the rotary frequencies; 10000 where the file, as XVERSE's does, says nothing.
fn rope_theta(fields: &Fields) -> Result<f64, ConfigError> {
    let mut stated = fields.real("rope_theta", 1.0, 1e9)?;
    // Newer tools write the base into an object of its own, into which they move what was in the older one.
    for field in ["rope_parameters", "rope_scaling"] {
        let Some(object) = fields.object(field)? else { continue };
        refuse_scaling(field, &object, fields)?;
        stated = stated.or(object.real("rope_theta", 1.0, 1e9)?);
    }
    match fields.optional("max_position_embeddings", 2, MAX_POSITIONS)? {
        Some(found) if found > MOST_WITHOUT_THETA && stated.is_none() => Err(ConfigError::RopeUnstated { found }),
        _ => Ok(stated.unwrap_or(10_000.0)),
    }
}

const ROPE_FIELDS: [&str; 6] =
    ["rope_type", "type", "rope_theta", "factor", "partial_rotary_factor", "original_max_position_embeddings"];

/// Refuses positions that are not plain within the context.
fn refuse_scaling(field: &'static str, object: &Fields, config: &Fields) -> Result<(), ConfigError> {
    let kinds = [object.string("rope_type")?, object.string("type")?];
    // A dynamic scaling begins where the context ends, which is where a conversation ends here.
    let is_plain = kinds.iter().flatten().all(|kind| matches!(kind.as_str(), "dynamic" | "default"));
    let is_named = kinds.iter().any(Option::is_some);
    let has_factor = object.real("factor", 0.0, 1e9)?.is_some();
    let is_whole = object.real("partial_rotary_factor", 0.0, 1e9)?.is_none_or(|share| share == 1.0);
    let positions = object.optional("original_max_position_embeddings", 1, MAX_POSITIONS)?;
    let begins_late =
        positions.is_none() || positions == config.optional("max_position_embeddings", 2, MAX_POSITIONS)?;
    if is_plain && (is_named || !has_factor) && is_whole && begins_late && !object.has_other_than(&ROPE_FIELDS) {
        return Ok(());
    }
    Err(ConfigError::RopeScaling { field, found: object.to_string() })
}

fn must_divide(
    field: &'static str,
    found: usize,
    divisor_field: &'static str,
    divisor: usize,
) -> Result<(), ConfigError> {
    if found.is_multiple_of(divisor) {
        Ok(())
    } else {
        Err(ConfigError::NotAMultiple { field, found, divisor_field, divisor })
    }
}

#[cfg(test)]
mod tests;
