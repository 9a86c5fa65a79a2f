//! Names and shapes of the tensors of a LLaMA-shaped model, as Hugging Face stores them.

use crate::engine::{config::ModelConfig, precision::Part};

/// The embedding table, which is `lm_head` too where the two are tied.
pub(super) const EMBEDDINGS: &str = "model.embed_tokens.weight";

/// The output projection.
pub(super) const LM_HEAD: &str = "lm_head.weight";

/// All tensors that the model needs, each once; projections are (out, in).
pub(super) fn tensors(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
    let q_width = config.num_attention_heads * config.head_dim;
    let kv_width = config.num_key_value_heads * config.head_dim;
    let mut tensors = vec![(EMBEDDINGS.to_owned(), vec![config.vocab_size, hidden])];
    for layer_idx in 0..config.num_hidden_layers {
        for (part, shape) in [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![q_width, hidden]),
            ("self_attn.k_proj", vec![kv_width, hidden]),
            ("self_attn.v_proj", vec![kv_width, hidden]),
            ("self_attn.o_proj", vec![hidden, q_width]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![ffn, hidden]),
            ("mlp.up_proj", vec![ffn, hidden]),
            ("mlp.down_proj", vec![hidden, ffn]),
        ] {
            tensors.push((format!("model.layers.{layer_idx}.{part}.weight"), shape));
        }
    }
    tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
    if !config.tie_word_embeddings {
        tensors.push((LM_HEAD.to_owned(), vec![config.vocab_size, hidden]));
    }
    tensors
}

/// Those of them that are multiplied with, and the head, which may be the embedding table: name, part, outputs, inputs.
pub(super) fn matrices(config: &ModelConfig) -> Vec<(String, Part, usize, usize)> {
    let projections = tensors(config).into_iter().filter_map(|(name, shape)| match *shape {
        [n_out, n_in] if name != EMBEDDINGS && name != LM_HEAD => Some((name, Part::Projection, n_out, n_in)),
        _ => None,
    });
    projections.chain([(LM_HEAD.to_owned(), Part::Head, config.vocab_size, config.hidden_size)]).collect()
}

/// Whether a stored tensor that is not needed says nothing that the engine does not know: the rotary frequencies, which
/// XVERSE's model code saves with the weights, and a copy of tied embeddings.
pub(super) fn is_redundant(name: &str, config: &ModelConfig) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || (config.tie_word_embeddings && name == LM_HEAD)
}
