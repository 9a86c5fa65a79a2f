//! Shapes of known models, for weights made at random.

use crate::engine::config::ModelConfig;

/// A shape that `--random_weights` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// XVERSE-13B-Chat.
    B13,
    /// XVERSE-7B-Chat.
    B7,
    /// A smaller one of the same kind, for machines without a GPU.
    B1,
    /// The mini model that ships with the project.
    Mini,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::B13, Self::B7, Self::B1, Self::Mini];

    /// As it is spelled on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::B13 => "13b",
            Self::B7 => "7b",
            Self::B1 => "1b",
            Self::Mini => "mini",
        }
    }

    /// The shape of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }

    /// Its configuration.
    #[must_use]
    pub fn config(self) -> ModelConfig {
        let (hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, vocab_size, context) = match self {
            Self::B13 => (5120, 13_824, 40, 40, 100_278, 8192),
            Self::B7 => (4096, 11_008, 32, 32, 100_534, 8192),
            Self::B1 => (2048, 5632, 20, 16, 100_278, 8192),
            Self::Mini => (256, 512, 4, 4, 2048, 4096),
        };
        ModelConfig {
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: num_attention_heads,
            head_dim: hidden_size / num_attention_heads,
            vocab_size,
            max_position_embeddings: context,
            max_tokenizer_truncation: None,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            pad_token_id: 1,
            bos_token_id: 2,
            eos_token_id: 3,
            other_end_ids: Vec::new(),
            tie_word_embeddings: false,
        }
    }

    /// What is in memory where one random layer stands for all.
    #[must_use]
    pub fn one_layer(self) -> ModelConfig {
        ModelConfig { num_hidden_layers: 1, ..self.config() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::checkpoint::n_parameters;

    #[test]
    fn the_13b_shape_has_the_published_number_of_parameters() {
        assert_eq!(n_parameters(&Shape::B13.config()), 13_715_031_040);
        assert_eq!(n_parameters(&Shape::B7.config()), 7_299_846_144);
    }
}
