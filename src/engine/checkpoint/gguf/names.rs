//! llama.cpp's names of tensors, and what Hugging Face calls them.
//!
//! Names only. **Architecture Invariant:** a name that is not known here is an error, so nothing that would change what a
//! model computes is left out in silence.

/// What a tensor is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One that the model needs, by Hugging Face's name; the layer that it is of, where it is of one.
    Weight(String, Option<u64>),
    /// Rotary frequencies, which the engine computes.
    Redundant,
    /// Nothing that an XVERSE model has.
    Unknown,
}

/// What the tensor `name` is.
pub(super) fn meaning(name: &str) -> Meaning {
    match name {
        "token_embd.weight" => return Meaning::Weight("model.embed_tokens.weight".to_owned(), None),
        "output_norm.weight" => return Meaning::Weight("model.norm.weight".to_owned(), None),
        "output.weight" => return Meaning::Weight("lm_head.weight".to_owned(), None),
        _ => {}
    }
    in_layer(name).unwrap_or(Meaning::Unknown)
}

fn in_layer(name: &str) -> Option<Meaning> {
    let (number, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer_idx: u64 = number.parse().ok()?;
    // `+1` and `01` are numbers too, and would be a second name of the same layer.
    if number != layer_idx.to_string() {
        return None;
    }
    let part = match part.strip_suffix(".weight")? {
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_norm" => "input_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "ffn_norm" => "post_attention_layernorm",
        "attn_rot_embd" => return Some(Meaning::Redundant),
        _ => return None,
    };
    Some(Meaning::Weight(format!("model.layers.{layer_idx}.{part}.weight"), Some(layer_idx)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_those_of_hugging_face_or_are_unknown() {
        let weight = |name: &str, layer| Meaning::Weight(name.to_owned(), layer);
        assert_eq!(meaning("blk.12.attn_q.weight"), weight("model.layers.12.self_attn.q_proj.weight", Some(12)));
        assert_eq!(meaning("blk.0.ffn_norm.weight"), weight("model.layers.0.post_attention_layernorm.weight", Some(0)));
        assert_eq!(meaning("output.weight"), weight("lm_head.weight", None));
        // Factors of the frequencies, which would change what is computed.
        assert_eq!(meaning("rope_freqs.weight"), Meaning::Unknown);
        for name in ["blk.0.attn_q.bias", "blk.+1.attn_q.weight", "blk.01.attn_q.weight", "blk.0.ffn_gate_exps.weight"]
        {
            assert_eq!(meaning(name), Meaning::Unknown, "{name}");
        }
    }
}
