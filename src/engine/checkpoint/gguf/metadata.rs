//! The metadata of a GGUF file: those entries that say what the model is.
//!
//! Texts and lists that nobody asks for, the tokens above all, are passed over without being kept. **Architecture
//! Invariant:** [`Metadata`] that was read describes a dense `LLaMA` with plain rotary positions.

mod value;

use std::collections::HashMap;

use serde_json::json;

use self::value::Value;
use super::{error::GgufError, reader::Reader};
use crate::engine::checkpoint::file_header::StoredTensor;

const MAX_ENTRIES: u64 = 1 << 16;
const MAX_KEY_BYTES: u64 = 1 << 10;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;
const MAX_SIZE: u64 = 1 << 31;

const EMBEDDINGS: &str = "model.embed_tokens.weight";
const LM_HEAD: &str = "lm_head.weight";

/// An architecture whose tensors the engine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Dense XVERSE.
    Xverse,
    /// `LLaMA`.
    Llama,
}

/// What the file says of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// `general.architecture`.
    pub architecture: Architecture,
    /// `general.file_type`: llama.cpp's number for the mixture of formats.
    pub file_type: Option<u64>,
    /// Positions that the model was trained for.
    pub context_length: u64,
    /// Width of the residual stream.
    pub embedding_length: u64,
    /// Number of layers.
    pub block_count: u64,
    /// Width inside the feed-forward block.
    pub feed_forward_length: u64,
    /// Query heads.
    pub head_count: u64,
    /// Key and value heads.
    pub head_count_kv: u64,
    /// Added to the mean square before its root.
    pub layer_norm_rms_epsilon: f64,
    /// Base of the rotary frequencies, where the file says it.
    pub rope_freq_base: Option<f64>,
    /// How many token ids there are.
    pub vocab_size: u64,
    /// Begin id.
    pub bos_token_id: Option<u64>,
    /// End id.
    pub eos_token_id: Option<u64>,
    /// Padding id.
    pub padding_token_id: Option<u64>,
    /// Whether the head is the embedding table.
    pub tie_word_embeddings: bool,
}

impl Metadata {
    /// Numbers of one head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        (self.embedding_length / self.head_count) as usize
    }

    /// The fields that `config.json` would have.
    #[must_use]
    pub fn config(&self) -> serde_json::Value {
        let (architecture, model_type) = match self.architecture {
            Architecture::Xverse => ("XverseForCausalLM", "xverse"),
            Architecture::Llama => ("LlamaForCausalLM", "llama"),
        };
        let mut config = json!({
            "architectures": [architecture],
            "model_type": model_type,
            "hidden_act": "silu",
            "hidden_size": self.embedding_length,
            "intermediate_size": self.feed_forward_length,
            "num_hidden_layers": self.block_count,
            "num_attention_heads": self.head_count,
            "num_key_value_heads": self.head_count_kv,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.context_length,
            "rms_norm_eps": self.layer_norm_rms_epsilon,
            "tie_word_embeddings": self.tie_word_embeddings,
        });
        let optional = [
            ("rope_theta", self.rope_freq_base.map(|base| json!(base))),
            ("bos_token_id", self.bos_token_id.map(|id| json!(id))),
            ("eos_token_id", self.eos_token_id.map(|id| json!(id))),
            ("pad_token_id", self.padding_token_id.map(|id| json!(id))),
        ];
        if let Some(fields) = config.as_object_mut() {
            fields.extend(optional.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))));
        }
        config
    }
}

/// Metadata before the tensors have been seen.
pub(super) struct Draft {
    pub(super) alignment: u64,
    metadata: Metadata,
    /// What the file says; the embedding table has the last word.
    vocab_size: Option<u64>,
}

impl Draft {
    /// Whether a layer of this number is in the model.
    pub(super) fn has_layer(&self, layer_idx: u64) -> bool {
        layer_idx < self.metadata.block_count
    }

    /// Completes the metadata by what only the tensors tell.
    pub(super) fn finish(self, file: &str, tensors: &[StoredTensor]) -> Result<Metadata, GgufError> {
        let Self { mut metadata, vocab_size, .. } = self;
        let embeddings = tensors.iter().find(|tensor| tensor.name == EMBEDDINGS);
        let rows = embeddings.and_then(|tensor| tensor.shape.first()).map(|&rows| rows as u64);
        let Some(size) = rows.or(vocab_size) else {
            return Err(GgufError::Entry { file: file.to_owned(), key: "vocab_size".to_owned(), found: 0 });
        };
        metadata.vocab_size = size;
        metadata.tie_word_embeddings = !tensors.iter().any(|tensor| tensor.name == LM_HEAD);
        Ok(metadata)
    }
}

/// Reads all entries.
pub(super) fn read(reader: &mut Reader<'_>, n_entries: u64) -> Result<Draft, GgufError> {
    if n_entries > MAX_ENTRIES {
        let what = "the number of metadata entries";
        return Err(GgufError::TooLarge { file: reader.file(), what, found: n_entries, limit: MAX_ENTRIES });
    }
    let mut values = HashMap::new();
    for _ in 0..n_entries {
        let key = reader.text("a metadata key", MAX_KEY_BYTES)?;
        let value = value::read(reader, &key)?;
        if values.insert(key.clone(), value).is_some() {
            return Err(GgufError::Entry { file: reader.file(), key, found: 2 });
        }
    }
    let entries = Entries { file: reader.file(), values };
    entries.refuse_parts()?;
    let architecture = entries.architecture()?;
    let scope = match architecture {
        Architecture::Xverse => "xverse",
        Architecture::Llama => "llama",
    };
    entries.refuse_other_models(scope)?;
    entries.draft(architecture, scope)
}

struct Entries {
    file: String,
    values: HashMap<String, Value>,
}

impl Entries {
    fn refuse_parts(&self) -> Result<(), GgufError> {
        match self.whole("split.count")? {
            Some(found) if found > 1 => Err(GgufError::Split { file: self.file.clone(), found }),
            _ => Ok(()),
        }
    }

    fn architecture(&self) -> Result<Architecture, GgufError> {
        let key = "general.architecture";
        match self.values.get(key) {
            Some(Value::Text(name)) if name == "xverse" => Ok(Architecture::Xverse),
            Some(Value::Text(name)) if name == "llama" => Ok(Architecture::Llama),
            Some(Value::Text(name)) => {
                Err(GgufError::Architecture { file: self.file.clone(), found: name.chars().take(100).collect() })
            }
            Some(other) => Err(self.wrong(key, other, "a text")),
            None => Err(GgufError::Entry { file: self.file.clone(), key: key.to_owned(), found: 0 }),
        }
    }

    /// Everything that would make the weights mean something else than the engine computes.
    fn refuse_other_models(&self, scope: &str) -> Result<(), GgufError> {
        let unsupported = |key: String, found: &Value, what| {
            Err(GgufError::Unsupported { file: self.file.clone(), key, found: found.to_string(), what })
        };
        for (entry, what) in [
            ("expert_count", "a mixture of experts"),
            ("rope.scaling.factor", "scaled positions"),
            ("rope.scale_linear", "scaled positions"),
        ] {
            let key = format!("{scope}.{entry}");
            let neutral = if entry == "expert_count" { 0.0 } else { 1.0 };
            if let Some(value) = self.values.get(&key)
                && !(value.real() == Some(neutral) || value.real() == Some(0.0))
            {
                return unsupported(key, value, what);
            }
        }
        let key = format!("{scope}.rope.scaling.type");
        match self.values.get(&key) {
            None => Ok(()),
            Some(Value::Text(kind)) if kind == "none" => Ok(()),
            Some(value) => unsupported(key, value, "scaled positions"),
        }
    }

    fn draft(&self, architecture: Architecture, scope: &str) -> Result<Draft, GgufError> {
        let size = |entry: &str| self.size(&format!("{scope}.{entry}"));
        let embedding_length = size("embedding_length")?;
        let head_count = size("attention.head_count")?;
        let head_count_kv = self.optional_size(&format!("{scope}.attention.head_count_kv"))?.unwrap_or(head_count);
        if !embedding_length.is_multiple_of(2 * head_count) {
            let (key, found) = (format!("{scope}.embedding_length"), embedding_length.to_string());
            let expected = "an even number for each of attention.head_count";
            return Err(GgufError::Value { file: self.file.clone(), key, found, expected });
        }
        self.check_heads(scope, embedding_length / head_count)?;
        let tokens = match self.values.get("tokenizer.ggml.tokens") {
            Some(Value::List(length)) => Some(*length),
            _ => None,
        };
        let metadata = Metadata {
            architecture,
            file_type: self.whole("general.file_type")?,
            context_length: size("context_length")?,
            embedding_length,
            block_count: size("block_count")?,
            feed_forward_length: size("feed_forward_length")?,
            head_count,
            head_count_kv,
            layer_norm_rms_epsilon: self.required_real(&format!("{scope}.attention.layer_norm_rms_epsilon"))?,
            rope_freq_base: self.real(&format!("{scope}.rope.freq_base"))?,
            vocab_size: 0,
            bos_token_id: self.whole("tokenizer.ggml.bos_token_id")?,
            eos_token_id: self.whole("tokenizer.ggml.eos_token_id")?,
            padding_token_id: self.whole("tokenizer.ggml.padding_token_id")?,
            tie_word_embeddings: false,
        };
        let vocab_size = self.optional_size(&format!("{scope}.vocab_size"))?.or(tokens);
        Ok(Draft { alignment: self.alignment()?, metadata, vocab_size })
    }

    /// Heads whose width is not the quotient, or of which only a part is turned, are not computed.
    fn check_heads(&self, scope: &str, head_dim: u64) -> Result<(), GgufError> {
        for entry in ["rope.dimension_count", "attention.key_length", "attention.value_length"] {
            let key = format!("{scope}.{entry}");
            if let Some(found) = self.optional_size(&key)?
                && found != head_dim
            {
                let expected = "embedding_length / attention.head_count";
                return Err(GgufError::Value { file: self.file.clone(), key, found: found.to_string(), expected });
            }
        }
        Ok(())
    }

    fn alignment(&self) -> Result<u64, GgufError> {
        let key = "general.alignment";
        match self.whole(key)? {
            None => Ok(DEFAULT_ALIGNMENT),
            Some(found) if found.is_power_of_two() && found <= MAX_ALIGNMENT => Ok(found),
            Some(found) => {
                let (key, found) = (key.to_owned(), found.to_string());
                Err(GgufError::Value { file: self.file.clone(), key, found, expected: "a power of two up to 2^20" })
            }
        }
    }

    fn size(&self, key: &str) -> Result<u64, GgufError> {
        let missing = || GgufError::Entry { file: self.file.clone(), key: key.to_owned(), found: 0 };
        self.optional_size(key)?.ok_or_else(missing)
    }

    fn optional_size(&self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.whole(key)? {
            Some(size) if !(1..=MAX_SIZE).contains(&size) => {
                let (key, found) = (key.to_owned(), size.to_string());
                Err(GgufError::Value { file: self.file.clone(), key, found, expected: "1 to 2^31" })
            }
            size => Ok(size),
        }
    }

    fn whole(&self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Whole(number)) => Ok(Some(*number)),
            Some(other) => Err(self.wrong(key, other, "a whole number, 0 or more")),
        }
    }

    fn real(&self, key: &str) -> Result<Option<f64>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(value) => match value.real() {
                Some(number) if number.is_finite() => Ok(Some(number)),
                _ => Err(self.wrong(key, value, "a finite number")),
            },
        }
    }

    fn required_real(&self, key: &str) -> Result<f64, GgufError> {
        let missing = || GgufError::Entry { file: self.file.clone(), key: key.to_owned(), found: 0 };
        self.real(key)?.ok_or_else(missing)
    }

    fn wrong(&self, key: &str, found: &Value, expected: &'static str) -> GgufError {
        GgufError::Value { file: self.file.clone(), key: key.to_owned(), found: found.to_string(), expected }
    }
}
