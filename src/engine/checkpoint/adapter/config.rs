//! `adapter_config.json`, as PEFT writes it for `LoRA`.
//!
//! **Architecture Invariant:** a setting that would change what is added to the weights is either understood or an error.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::AdapterError;
use crate::engine::{
    checkpoint::CheckpointFile,
    small_file::{self, SmallFileError},
};

const FILE: &str = "adapter_config.json";
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_RANK: u64 = 1 << 16;

/// Settings of PEFT that change the sum and that must be off: false, null, empty or not there.
const OFF: &[(&str, &str)] = &[
    ("use_dora", "no magnitudes"),
    ("use_qalora", "no pooling"),
    ("use_bdlora", "no block-diagonal matrices"),
    ("lora_bias", "no biases"),
    ("fan_in_fan_out", "weights as (out, in)"),
    ("modules_to_save", "no whole modules"),
    ("trainable_token_indices", "no changed embeddings"),
    ("target_parameters", "no single parameters"),
    ("layer_replication", "no repeated layers"),
    ("alora_invocation_tokens", "an adapter for all tokens"),
    ("arrow_config", "one adapter"),
    ("kasa_config", "plain LoRA"),
    ("monteclora_config", "plain LoRA"),
    ("megatron_config", "plain LoRA"),
];

/// Initialisations that leave the model's own weights alone; others, as `PiSSA`, take their part out of them.
const PLAIN_INITS: &[&str] = &["gaussian", "eva", "orthogonal"];

/// A `LoRA` configuration.
#[derive(Debug)]
pub struct AdapterConfig {
    rank: u64,
    alpha: f64,
    ranks: Patterns,
    alphas: Patterns,
    is_rank_stabilised: bool,
    targets: Targets,
    file: CheckpointFile,
}

/// Which projections have an adapter.
#[derive(Debug)]
enum Targets {
    /// By the ends of their names.
    Ends(Vec<String>),
    /// All but the head.
    AllLinear,
    /// By a rule that is not followed here: the tensors say it as well.
    Unknown,
}

impl AdapterConfig {
    /// Reads and checks `adapter_config.json` in `dir`.
    ///
    /// # Errors
    /// [`AdapterError`], with what was found, what was expected and a hint.
    pub fn read(dir: &Path) -> Result<Self, AdapterError> {
        let path = dir.join(FILE);
        let json = small_file::read_json(&path, MAX_FILE_BYTES).map_err(|error| match error {
            SmallFileError::Missing => AdapterError::NoConfig { dir: dir.to_owned() },
            SmallFileError::TooLarge { found } => AdapterError::TooLarge { found, limit: MAX_FILE_BYTES },
            SmallFileError::Unreadable(source) => AdapterError::Unreadable { path, source },
        })?;
        Self::from_json(&json)
    }

    /// Checks the content of an `adapter_config.json`.
    ///
    /// # Errors
    /// [`AdapterError`], with what was found, what was expected and a hint.
    pub fn from_json(json: &[u8]) -> Result<Self, AdapterError> {
        let broken = |source| AdapterError::Broken { source };
        let all: Map<String, Value> = serde_json::from_slice(json).map_err(broken)?;
        let fields = Fields::deserialize(&Value::Object(all.clone())).map_err(broken)?;
        refuse_other_kinds(&all, &fields)?;
        if !(1..=MAX_RANK).contains(&fields.r) {
            return Err(unsupported("r", &fields.r, "1 to 65536"));
        }
        let alpha = fields.lora_alpha;
        if !alpha.is_finite() {
            return Err(unsupported("lora_alpha", &alpha, "a finite number"));
        }
        let is_limited = ["exclude_modules", "layers_to_transform"].iter().any(|field| is_on(all.get(*field)));
        let targets = match fields.target_modules {
            Some(Value::String(name)) if name == "all-linear" && !is_limited => Targets::AllLinear,
            Some(Value::Array(ends)) if !is_limited => {
                let ends = ends.into_iter().map(serde_json::from_value).collect::<Result<_, _>>().map_err(broken)?;
                Targets::Ends(ends)
            }
            Some(Value::String(_) | Value::Array(_)) => Targets::Unknown,
            other => {
                let found = other.unwrap_or_default();
                return Err(unsupported("target_modules", &found, "a list of names or a pattern"));
            }
        };
        Ok(Self {
            rank: fields.r,
            alpha,
            ranks: Patterns::new("rank_pattern", fields.rank_pattern)?,
            alphas: Patterns::new("alpha_pattern", fields.alpha_pattern)?,
            is_rank_stabilised: fields.use_rslora,
            targets,
            file: CheckpointFile::whole(FILE, json),
        })
    }

    /// The file, by its whole content.
    #[must_use]
    pub fn into_file(self) -> CheckpointFile {
        self.file
    }

    /// Whether the projection `module` should have an adapter, `None` where only the tensors tell.
    pub(super) fn is_target(&self, module: &str) -> Option<bool> {
        match &self.targets {
            Targets::Ends(ends) => Some(ends.iter().any(|end| ends_with(module, end))),
            Targets::AllLinear => Some(module != "lm_head"),
            Targets::Unknown => None,
        }
    }

    /// Rank of the projection `module`, and what its product is multiplied by.
    pub(super) fn rank_and_scale(&self, module: &str) -> Result<(usize, f32), AdapterError> {
        let rank = self.ranks.find(module)?;
        let rank = match rank {
            None => self.rank,
            Some(value) => match value.as_u64().filter(|rank| (1..=MAX_RANK).contains(rank)) {
                Some(rank) => rank,
                None => return Err(unsupported("rank_pattern", value, "ranks of 1 to 65536")),
            },
        };
        let alpha = match self.alphas.find(module)? {
            None => self.alpha,
            Some(value) => match value.as_f64().filter(|alpha| alpha.is_finite()) {
                Some(alpha) => alpha,
                None => return Err(unsupported("alpha_pattern", value, "finite numbers")),
            },
        };
        let divisor = if self.is_rank_stabilised { (rank as f64).sqrt() } else { rank as f64 };
        Ok((rank as usize, (alpha / divisor) as f32))
    }
}

#[derive(Deserialize)]
struct Fields {
    peft_type: String,
    r: u64,
    lora_alpha: f64,
    target_modules: Option<Value>,
    #[serde(default)]
    use_rslora: bool,
    rank_pattern: Option<Map<String, Value>>,
    alpha_pattern: Option<Map<String, Value>>,
    bias: Option<String>,
    init_lora_weights: Option<Value>,
}

/// Ranks or alphas of single projections.
#[derive(Debug)]
struct Patterns {
    field: &'static str,
    values: Map<String, Value>,
}

impl Patterns {
    fn new(field: &'static str, values: Option<Map<String, Value>>) -> Result<Self, AdapterError> {
        let values = values.unwrap_or_default();
        let is_plain = |key: &str| {
            let key = key.strip_prefix('^').unwrap_or(key);
            !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-'))
        };
        match values.keys().find(|key| !is_plain(key)) {
            None => Ok(Self { field, values }),
            Some(key) => Err(unsupported(field, key, "names of projections, not patterns")),
        }
    }

    /// The value for a projection. PEFT takes the first that fits, and JSON has no order, so all that fit must agree.
    fn find(&self, module: &str) -> Result<Option<&Value>, AdapterError> {
        let fits = |key: &str| match key.strip_prefix('^') {
            Some(whole) => whole == module,
            None => ends_with(module, key),
        };
        let mut values = self.values.iter().filter(|(key, _)| fits(key)).map(|(_, value)| value);
        let first = values.next();
        if values.any(|value| Some(value) != first) {
            return Err(AdapterError::Ambiguous { field: self.field, module: module.to_owned() });
        }
        Ok(first)
    }
}

fn refuse_other_kinds(all: &Map<String, Value>, fields: &Fields) -> Result<(), AdapterError> {
    if fields.peft_type != "LORA" {
        return Err(unsupported("peft_type", &fields.peft_type, "LORA"));
    }
    if let Some(bias) = fields.bias.as_ref().filter(|bias| *bias != "none") {
        return Err(unsupported("bias", bias, "none"));
    }
    if let Some(Value::String(init)) = &fields.init_lora_weights
        && !PLAIN_INITS.contains(&init.as_str())
    {
        let expected = "an initialisation that leaves the model's weights alone";
        return Err(unsupported("init_lora_weights", init, expected));
    }
    for (field, expected) in OFF {
        if let Some(value) = all.get(*field).filter(|value| is_on(Some(value))) {
            return Err(unsupported(field, value, expected));
        }
    }
    Ok(())
}

fn is_on(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(Value::Bool(true) | Value::Number(_) | Value::String(_)) => true,
    }
}

/// Whether `end` is the whole name or its last parts.
fn ends_with(module: &str, end: &str) -> bool {
    module.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn unsupported(field: &str, found: &dyn ToString, expected: &'static str) -> AdapterError {
    let found = found.to_string().chars().take(100).collect();
    AdapterError::Unsupported { field: field.to_owned(), found, expected }
}
