//! How a GPTQ checkpoint was quantised: `quantize_config.json`, or `quantization_config` of `config.json`.
//!
//! **Architecture Invariant:** a [`GptqConfig`] that was read has a packing that is known here.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::GptqError;
use crate::engine::{
    checkpoint::CheckpointFile,
    small_file::{self, SmallFileError},
};

const OWN_FILE: &str = "quantize_config.json";
const MODEL_FILE: &str = "config.json";
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_GROUP_SIZE: i64 = 1 << 20;

/// A packing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GptqConfig {
    bits: usize,
    group_size: Option<usize>,
    zero_point: ZeroPoint,
    desc_act: bool,
    sym: bool,
}

/// How zero points are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroPoint {
    /// One less than they are, as `AutoGPTQ` does.
    LessOne,
    /// As they are: `gptq_v2`.
    Plain,
}

impl GptqConfig {
    /// Reads the configuration in `dir`; `None` where the checkpoint there is not one of GPTQ.
    ///
    /// # Errors
    /// [`GptqError`], with what was found, what was expected and a hint.
    pub fn read(dir: &Path) -> Result<Option<Self>, GptqError> {
        if let Some(json) = read_file(&dir.join(OWN_FILE), OWN_FILE)? {
            let value = parse(&json, OWN_FILE)?;
            return Self::from_value(&value, OWN_FILE).map(Some);
        }
        let Some(json) = read_file(&dir.join(MODEL_FILE), MODEL_FILE)? else { return Ok(None) };
        match parse(&json, MODEL_FILE)?.get("quantization_config") {
            None | Some(Value::Null) => Ok(None),
            Some(value) if value.get("quant_method").is_some_and(|method| method == "xverse-chat") => Ok(None),
            Some(value) => Self::from_value(value, MODEL_FILE).map(Some),
        }
    }

    /// Checks a configuration that stands in `file`.
    ///
    /// # Errors
    /// [`GptqError`], with what was found, what was expected and a hint.
    pub fn from_value(value: &Value, file: &'static str) -> Result<Self, GptqError> {
        let fields = Fields::deserialize(value).map_err(|source| GptqError::Broken { file, source })?;
        fields.refuse_other_methods(file)?;
        let group_size = match fields.group_size {
            -1 => None,
            size @ 1..=MAX_GROUP_SIZE => Some(size as usize),
            size => return Err(unsupported(file, "group_size", &size.to_string(), "-1, or 1 to 2^20")),
        };
        let bits = match fields.bits {
            Some(4) => 4,
            Some(8) => 8,
            Some(bits) => return Err(unsupported(file, "bits", &bits.to_string(), "4 or 8")),
            None => return Err(unsupported(file, "bits", "not there", "4 or 8")),
        };
        let zero_point = match fields.checkpoint_format.as_deref() {
            None | Some("gptq") => ZeroPoint::LessOne,
            Some("gptq_v2") => ZeroPoint::Plain,
            Some(other) => return Err(unsupported(file, "checkpoint_format", other, "gptq or gptq_v2")),
        };
        Ok(Self { bits, group_size, zero_point, desc_act: fields.desc_act, sym: fields.sym })
    }

    /// Bits of an integer: 4 or 8.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Inputs that share a scale, `None` where all do.
    #[must_use]
    pub fn group_size(&self) -> Option<usize> {
        self.group_size
    }

    /// How zero points are stored.
    #[must_use]
    pub fn zero_point(&self) -> ZeroPoint {
        self.zero_point
    }

    /// As one of a checkpoint's files, by what it says of the packing.
    pub(in crate::engine::checkpoint) fn as_file(&self) -> CheckpointFile {
        let is_plain = self.zero_point == ZeroPoint::Plain;
        let content = json!([self.bits, self.group_size, is_plain, self.desc_act, self.sym]);
        CheckpointFile::whole(OWN_FILE, content.to_string().as_bytes())
    }

    /// Whether inputs were quantised in the order of their activations; the weights themselves have the last word.
    #[must_use]
    pub fn is_act_ordered(&self) -> bool {
        self.desc_act
    }

    /// Whether zero points are meant to be in the middle; the weights themselves have the last word.
    #[must_use]
    pub fn is_symmetric(&self) -> bool {
        self.sym
    }
}

#[derive(Deserialize)]
struct Fields {
    bits: Option<i64>,
    #[serde(default = "minus_one")]
    group_size: i64,
    #[serde(default)]
    desc_act: bool,
    #[serde(default = "yes")]
    sym: bool,
    quant_method: Option<String>,
    checkpoint_format: Option<String>,
    #[serde(default)]
    is_marlin_format: bool,
    pack_dtype: Option<String>,
    dynamic: Option<Value>,
}

impl Fields {
    fn refuse_other_methods(&self, file: &'static str) -> Result<(), GptqError> {
        if let Some(method) = self.quant_method.as_deref().filter(|method| *method != "gptq") {
            return Err(unsupported(file, "quant_method", method, "gptq"));
        }
        if self.is_marlin_format {
            return Err(unsupported(file, "is_marlin_format", "true", "false"));
        }
        if let Some(words) = self.pack_dtype.as_deref().filter(|words| *words != "int32") {
            return Err(unsupported(file, "pack_dtype", words, "int32"));
        }
        let is_set = |value: &&Value| !(value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty));
        if let Some(found) = self.dynamic.as_ref().filter(is_set) {
            return Err(unsupported(file, "dynamic", &found.to_string(), "one packing for all projections"));
        }
        Ok(())
    }
}

fn minus_one() -> i64 {
    -1
}

fn yes() -> bool {
    true
}

fn unsupported(file: &'static str, field: &'static str, found: &str, expected: &'static str) -> GptqError {
    GptqError::Unsupported { file, field, found: found.chars().take(100).collect(), expected }
}

/// The content of a file, `None` where there is none.
fn read_file(path: &Path, file: &'static str) -> Result<Option<Vec<u8>>, GptqError> {
    match small_file::read_json(path, MAX_FILE_BYTES) {
        Ok(json) => Ok(Some(json)),
        Err(SmallFileError::Missing) => Ok(None),
        Err(SmallFileError::TooLarge { found }) => Err(GptqError::TooLarge { file, found, limit: MAX_FILE_BYTES }),
        Err(SmallFileError::Unreadable(source)) => Err(GptqError::Unreadable { path: path.to_owned(), source }),
    }
}

fn parse(json: &[u8], file: &'static str) -> Result<Value, GptqError> {
    serde_json::from_slice(json).map_err(|source| GptqError::Broken { file, source })
}
