//! Any bytes as a checkpoint's `config.json` and `generation_config.json`.
//!
//! Input: the file.

use xverse_chat::{
    chat::settings::Sampling,
    engine::{checkpoint, config::ModelConfig, generation_config},
};

use crate::{memory, outcome::Outcome};

/// # Panics
/// Where what was taken is not within its bounds.
pub fn target(data: &[u8]) -> Outcome {
    let read = memory::within_reason(data.len(), || ModelConfig::from_json(data));
    if let Ok(config) = &read {
        is_within_bounds(config);
    }
    let config = ModelConfig::from_json(SMALL).expect("the target's own configuration is right");
    if let Ok(sampling) = memory::within_reason(data.len(), || generation_config::from_json(data, &config)) {
        can_be_drawn_by(&sampling, &config);
    }
    Outcome::of(read.is_ok())
}

const SMALL: &[u8] = br#"{"model_type": "xverse", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "vocab_size": 1000, "max_position_embeddings": 512}"#;

fn is_within_bounds(config: &ModelConfig) {
    assert_eq!(config.hidden_size, config.num_attention_heads * config.head_dim);
    assert!(config.head_dim.is_multiple_of(2) && config.head_dim > 0);
    assert!(config.num_attention_heads.is_multiple_of(config.num_key_value_heads));
    assert!((2..=131_072).contains(&config.max_position_embeddings));
    assert!((1..=512).contains(&config.num_hidden_layers));
    assert!(config.rms_norm_eps.is_finite() && config.rms_norm_eps >= 0.0);
    assert!(config.rope_theta.is_finite() && config.rope_theta >= 1.0);
    for id in [config.pad_token_id, config.bos_token_id, config.eos_token_id] {
        assert!((id as usize) < config.vocab_size || id <= 3, "{id} of {}", config.vocab_size);
    }
    // With the largest sizes there are, every count still fits into its number.
    let n_parameters = checkpoint::n_parameters(config);
    let at_least = config.vocab_size as u64 * config.hidden_size as u64;
    assert!(n_parameters >= at_least && n_parameters < 1 << 60, "{n_parameters} parameters");
}

fn can_be_drawn_by(sampling: &Sampling, config: &ModelConfig) {
    assert!((0.0..=2.0).contains(&sampling.temperature));
    assert!(sampling.top_k <= 100);
    assert!(sampling.top_p > 0.0 && sampling.top_p <= 1.0);
    assert!((0.5..=2.0).contains(&sampling.repetition_penalty));
    assert!(sampling.max_new_tokens > 0 && (sampling.max_new_tokens as usize) < config.max_position_embeddings);
}
