//! `check`: says what a checkpoint is, or why it cannot be served, without reading its weights.

use std::path::Path;

use super::{
    cli::CheckArgs,
    config::model,
    failure::Failure,
    report::{count, lines, prompt_format},
};
use crate::engine::{
    checkpoint::Checkpoint,
    config::ModelConfig,
    generation_config,
    load::{LoadError, check_vocabulary},
    prompt::PromptBuilder,
    tokenizer::ChatTokenizer,
};

/// Checks the checkpoint and gives the report.
///
/// # Errors
/// [`Failure::Refused`] with the first thing that is wrong.
pub fn check(args: &CheckArgs) -> Result<String, Failure> {
    let choice = model::resolve(&args.model, Path::new("."))?;
    report(&choice).map_err(|error| Failure::Refused(error.to_string()))
}

fn report(choice: &model::ModelChoice) -> Result<String, LoadError> {
    let config = ModelConfig::read(&choice.model_path)?;
    let defaults = generation_config::read(&choice.model_path, &config)?;
    let tokenizer = ChatTokenizer::open(&choice.tokenizer_path)?;
    check_vocabulary(&tokenizer, &config)?;
    let checkpoint = Checkpoint::open(&choice.model_path, &config)?;
    let format = choice.prompt_format.unwrap_or_else(|| PromptBuilder::auto_format(&config));
    Ok(lines(&[
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
        ("checked", "config, generation config, tokenizer, names and shapes of all tensors".to_owned()),
    ]))
}
