//! `check`: says what a checkpoint is and what it takes, or everything that is wrong with it, without reading its weights.

use std::{collections::BTreeMap, path::Path};

use super::{
    cli::CheckArgs,
    config::model,
    failure::Failure,
    report::{bytes, count, lines, prompt_format},
};
use crate::{
    chat::settings::Sampling,
    engine::{
        backend::cuda::CudaSettings,
        checkpoint::{
            self, Checkpoint,
            error::abridged,
            verify::{self, Verified},
        },
        config::ModelConfig,
        format::Format,
        generation_config,
        kv_type::KvType,
        load::{self, DeviceChoice},
        model_name::not_a_chat_model,
        precision::{Precision, Quantize},
        prompt::PromptBuilder,
        room::Need,
        target::Target,
        tokenizer::ChatTokenizer,
    },
};

/// Checks the checkpoint and gives the report.
///
/// # Errors
/// [`Failure::Refused`] with everything that is wrong.
pub fn check(args: &CheckArgs) -> Result<String, Failure> {
    let choice = model::resolve(&args.model, Path::new("."))?;
    let mut problems = Vec::new();
    let parts = Parts::read(&choice, &mut problems);
    match parts {
        Some(parts) if problems.is_empty() => {
            let verified = if args.verify { verify(&choice, &parts)? } else { Vec::new() };
            Ok(report(&choice, &parts, &verified) + &card(&choice, &parts)?)
        }
        _ => Err(Failure::Refused(problems.join("\n\n"))),
    }
}

/// What a card that was asked for computes.
fn card(choice: &model::ModelChoice, parts: &Parts) -> Result<String, Failure> {
    let DeviceChoice::Cuda(_) = choice.device else { return Ok(String::new()) };
    let failed = |error: String| Failure::Refused(error);
    let mut target =
        Target::choose(choice.device, CudaSettings::default()).map_err(|error| failed(error.to_string()))?;
    let findings = target.findings(&parts.config).map_err(|error| failed(error.to_string()))?;
    Ok(lines(&findings.into_iter().map(|finding| ("card", finding)).collect::<Vec<_>>()))
}

/// What was found in the folders.
struct Parts {
    config: ModelConfig,
    defaults: Sampling,
    checkpoint: Checkpoint,
    /// Of the checkpoint, without an adapter's.
    n_files: usize,
    /// A warning where the vocabulary has rows without a token.
    padding: Option<String>,
}

impl Parts {
    /// Reads what can be read and puts what is wrong with the rest into `problems`.
    fn read(choice: &model::ModelChoice, problems: &mut Vec<String>) -> Option<Self> {
        let mut good = |problem: String| problems.push(problem);
        let config = load::read_config(&choice.model_path).map_err(|error| good(error.to_string())).ok();
        let tokenizer = ChatTokenizer::open(&choice.tokenizer_path).map_err(|error| good(error.to_string())).ok();
        let (_, config) = config?;
        let padding = tokenizer.and_then(|tokenizer| {
            let used = load::for_tokenizer(&config, &tokenizer).map_err(|error| good(error.to_string())).ok()?;
            load::padding(&config, &used)
        });
        let folder = checkpoint::folder(&choice.model_path);
        let defaults = generation_config::read(folder, &config)
            .and_then(|defaults| generation_config::end_tokens(folder, &config).map(|_| defaults))
            .map_err(|error| good(error.to_string()))
            .ok();
        let checkpoint = Checkpoint::inspect(&choice.model_path, &config)
            .map_err(|errors| errors.iter().for_each(|error| good(error.to_string())))
            .ok();
        let n_files = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.files().len());
        let checkpoint = match (checkpoint, &choice.adapter_path) {
            (Some(checkpoint), Some(dir)) => {
                checkpoint.with_adapter(dir, &config).map_err(|error| good(error.to_string())).ok()
            }
            (checkpoint, _) => checkpoint,
        };
        Some(Self { defaults: defaults?, checkpoint: checkpoint?, n_files, padding, config })
    }
}

/// Reads everything.
fn verify(choice: &model::ModelChoice, parts: &Parts) -> Result<Vec<Verified>, Failure> {
    let numbers = verify::numbers(parts.checkpoint.weights(), &parts.config).err().unwrap_or_default();
    let (verified, files) = match verify::files(&choice.model_path) {
        Ok(verified) => (verified, Vec::new()),
        Err(problems) => (Vec::new(), problems),
    };
    let problems: Vec<String> = files.iter().chain(&numbers).map(ToString::to_string).collect();
    if problems.is_empty() { Ok(verified) } else { Err(Failure::Refused(problems.join("\n\n"))) }
}

fn report(choice: &model::ModelChoice, parts: &Parts, verified: &[Verified]) -> String {
    let Parts { config, defaults, checkpoint, n_files, padding } = parts;
    let format = choice.prompt_format.unwrap_or_else(|| PromptBuilder::auto_format(config));
    let natural = |name: &str| checkpoint.natural(name);
    let stored = Precision::default().main_format(config, natural).name();
    let mut facts = vec![
        ("model", format!("{}, {} parameters", choice.model_path.display(), count(checkpoint.n_parameters()))),
        (
            "shape",
            format!(
                "{} layers, hidden {}, ffn {}, {} heads ({} for keys and values), vocabulary {}",
                config.num_hidden_layers,
                config.hidden_size,
                config.intermediate_size,
                config.num_attention_heads,
                config.num_key_value_heads,
                config.vocab_size
            ),
        ),
        ("files", format!("{n_files} with {} of weights, mostly {stored}", bytes(checkpoint.n_bytes()))),
        ("context", format!("{} tokens", config.max_position_embeddings)),
        ("prompt", prompt_format(format).to_owned()),
        (
            "sampling",
            format!(
                "temperature {}, top_k {}, top_p {}, repetition_penalty {}, max_new_tokens {}",
                defaults.temperature,
                defaults.top_k,
                defaults.top_p,
                defaults.repetition_penalty,
                defaults.max_new_tokens
            ),
        ),
    ];
    for (index, quantize) in [Quantize::None, Quantize::Eight, Quantize::Four].into_iter().enumerate() {
        let precision = Precision { quantize, ..choice.precision };
        facts.push((if index == 0 { "memory" } else { "" }, memory(parts, precision)));
    }
    let kv = |kv_type| bytes(Need::of(config, choice.precision, natural, kv_type).kv_bytes_per_position as u64);
    facts.push(("kv", format!("{} a token in bf16, {} in int8", kv(KvType::Bf16), kv(KvType::Int8))));
    if choice.adapter_path.is_some() {
        facts.push(("adapter", format!("changes {} matrices", checkpoint.adapted().len())));
    }
    if !checkpoint.unused().is_empty() {
        facts.push(("unused", abridged(checkpoint.unused())));
    }
    let not_chat = not_a_chat_model(&choice.model_path, choice.adapter_path.as_deref());
    facts.extend([padding.clone(), not_chat].into_iter().flatten().map(|warning| ("warning", warning)));
    let numbers = if verified.is_empty() { "" } else { ", all numbers" };
    let checked = format!("config, generation config, tokenizer, names, shapes and sizes of all tensors{numbers}");
    facts.push(("checked", checked));
    for Verified { name, sha256, matches } in verified {
        let matches = matches.map_or_else(String::new, |matches| format!(", matches {matches}"));
        facts.push(("sha256", format!("{sha256} {name}{matches}")));
    }
    lines(&facts)
}

/// What the weights take in memory on a CPU, and in which formats.
fn memory(parts: &Parts, precision: Precision) -> String {
    let Parts { config, checkpoint, .. } = parts;
    let natural = |name: &str| checkpoint.natural(name);
    let flag = match precision.quantize {
        Quantize::None => "as it is".to_owned(),
        quantize @ (Quantize::Eight | Quantize::Four) => format!("--quantize {}", quantize.name()),
    };
    let mut formats: BTreeMap<Format, usize> = BTreeMap::new();
    for (name, part, _, n_in) in checkpoint::matrices(config) {
        *formats.entry(precision.format(part, n_in, natural(&name))).or_default() += 1;
    }
    let formats: Vec<String> = formats.iter().map(|(format, n)| format!("{n} in {}", format.name())).collect();
    let total = bytes(precision.weight_bytes(config, natural));
    format!("{flag}: {total} for weights ({} matrices)", formats.join(", "))
}
