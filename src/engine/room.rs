//! How much memory a model may take, and how much of that is for keys and values.
//!
//! Pure: what is available is told to it. **Architecture Invariant:** what does not fit is refused before anything is
//! allocated.

use super::{
    backend::cpu::CpuBackend, config::ModelConfig, format::Format, kv::BLOCK_SIZE, kv_type::KvType,
    precision::Precision,
};

/// How much room keys and values get.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KvSize {
    /// Half of what the weights leave of the memory, but no more than 32 whole contexts need.
    Auto,
    /// So many GiB.
    Gib(f64),
    /// So many tokens, each sequence's rounded up to whole blocks.
    Tokens(usize),
}

/// What a model takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Need {
    /// Bytes of weights.
    pub weight_bytes: f64,
    /// Bytes of keys and values for each position.
    pub kv_bytes_per_position: f64,
    /// What the weights are called that take so much.
    pub weights: &'static str,
}

/// Why a model does not fit.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// Not even with few keys and values.
    #[error(
        "the model needs {weights_gib:.1} GiB for weights in {weights} on the cpu and {kv_gib:.1} GiB for keys and values, {available_gib:.1} GiB are available\nhint: --quantize 8 or --quantize 4 where that was not given, less --kv_memory where it was, or a machine with more memory"
    )]
    Memory {
        /// What the weights are held in.
        weights: &'static str,
        /// GiB of weights.
        weights_gib: f64,
        /// GiB of keys and values: as many as were asked for, else the least that makes sense.
        kv_gib: f64,
        /// GiB that the system says are available, less what everything else needs.
        available_gib: f64,
    },
    /// What was given holds not even a block.
    #[error(
        "{given_gib:.6} GiB for keys and values hold {positions} tokens, expected at least {BLOCK_SIZE}\nhint: give --kv_memory more"
    )]
    TooFewTokens {
        /// What was given.
        given_gib: f64,
        /// How many tokens that is.
        positions: usize,
    },
}

/// More whole contexts than these are not made room for unless asked for: as many as sequences run at once by default.
const USEFUL_CONTEXTS: usize = 32;
/// With room for fewer tokens than these, or than the context has, nobody could talk to the model.
const LEAST_TOKENS: usize = 1024;
/// Bytes for keys and values where the system does not say how much memory there is.
const UNKNOWN_BYTES: f64 = GIB;
/// Bytes for everything else: activations, logits, the program; an eighth of the memory where that is less.
const HEADROOM: f64 = GIB / 2.0;
const GIB: f64 = (1u64 << 30) as f64;

impl Need {
    /// Of a model of which each tensor would be held as `natural` says unless something else was asked for.
    #[must_use]
    pub fn of(config: &ModelConfig, precision: Precision, natural: impl Fn(&str) -> Format, kv_type: KvType) -> Self {
        Self {
            weight_bytes: precision.weight_bytes(config, &natural) as f64,
            kv_bytes_per_position: CpuBackend::kv_bytes_per_position(config, kv_type) as f64,
            weights: precision.main_format(config, natural).name(),
        }
    }
}

/// Blocks of keys and values beside the weights, where `available` bytes of memory are there.
///
/// # Errors
/// [`RoomError`].
pub fn n_blocks(config: &ModelConfig, size: KvSize, need: Need, available: Option<f64>) -> Result<usize, RoomError> {
    let available = available.map(|available| available - HEADROOM.min(available / 8.0));
    let Need { weight_bytes, kv_bytes_per_position: bytes_per_position, weights } = need;
    let bytes_per_block = bytes_per_position * BLOCK_SIZE as f64;
    let blocks_of = |tokens: usize| tokens.div_ceil(BLOCK_SIZE);
    let least = match size {
        KvSize::Auto => blocks_of(config.max_position_embeddings.min(LEAST_TOKENS)),
        KvSize::Tokens(tokens) => blocks_of(tokens),
        KvSize::Gib(gib) => (gib * GIB / bytes_per_block) as usize,
    };
    if let (KvSize::Gib(given_gib), 0) = (size, least) {
        return Err(RoomError::TooFewTokens { given_gib, positions: (given_gib * GIB / bytes_per_position) as usize });
    }
    let least_bytes = least as f64 * bytes_per_block;
    if let Some(available) = available
        && weight_bytes + least_bytes > available
    {
        let gib = |bytes: f64| bytes / GIB;
        let (weights_gib, kv_gib) = (gib(weight_bytes), gib(least_bytes));
        return Err(RoomError::Memory { weights, weights_gib, kv_gib, available_gib: gib(available) });
    }
    if size != KvSize::Auto {
        return Ok(least);
    }
    let half = available.map_or(UNKNOWN_BYTES, |available| (available - weight_bytes) / 2.0);
    let useful = USEFUL_CONTEXTS * blocks_of(config.max_position_embeddings);
    Ok(((half / bytes_per_block) as usize).clamp(least, useful))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bench::shape::Shape;
    use crate::engine::{precision::Quantize, weights::NumberType};

    fn tokens(shape: Shape, size: KvSize, available_gib: f64) -> Result<usize, RoomError> {
        let config = shape.config();
        let single = Precision { number_type: Some(NumberType::F32), ..Precision::default() };
        let need = Need::of(&config, single, |_| Format::Dense(NumberType::Bf16), KvType::F32);
        n_blocks(&config, size, need, Some(available_gib * GIB)).map(|blocks| blocks * BLOCK_SIZE)
    }

    #[test]
    fn half_of_what_the_weights_leave_is_for_keys_and_values() {
        // 13B: 49.2 GiB of weights, 1.5625 MiB a token.
        let tokens = tokens(Shape::B13, KvSize::Auto, 96.0).unwrap();
        assert!((15_100..15_300).contains(&tokens), "{tokens}");
    }

    #[test]
    fn a_small_model_takes_no_more_than_it_can_use() {
        assert_eq!(tokens(Shape::Mini, KvSize::Auto, 96.0).unwrap(), 32 * 4096);
    }

    #[test]
    fn without_room_for_a_short_conversation_the_model_is_refused() {
        assert!(tokens(Shape::B13, KvSize::Auto, 51.4).unwrap() >= 1024);
        let error = tokens(Shape::B13, KvSize::Auto, 51.1).unwrap_err().to_string();
        assert!(
            error.contains("49.2 GiB for weights in f32")
                && error.contains("1.6 GiB for keys")
                && error.contains("hint: "),
            "{error}"
        );
    }

    #[test]
    fn what_was_asked_for_is_given_or_refused() {
        assert_eq!(tokens(Shape::Mini, KvSize::Tokens(100), 1.0).unwrap(), 112);
        assert_eq!(tokens(Shape::Mini, KvSize::Gib(1.0), 2.0).unwrap(), 1 << 17);
        assert!(matches!(tokens(Shape::Mini, KvSize::Gib(3.0), 2.0), Err(RoomError::Memory { .. })));
        assert!(matches!(
            tokens(Shape::Mini, KvSize::Gib(1e-6), 2.0),
            Err(RoomError::TooFewTokens { positions: 0, .. })
        ));
    }

    #[test]
    fn where_the_memory_is_not_known_a_gib_is_taken() {
        let config = Shape::Mini.config();
        let need = Need::of(&config, Precision::default(), |_| Format::Dense(NumberType::F32), KvType::F32);
        assert_eq!(n_blocks(&config, KvSize::Auto, need, None).unwrap() * BLOCK_SIZE, 1 << 17);
    }

    #[test]
    fn a_model_of_65_billion_is_answered_before_anything_is_read() {
        let config = ModelConfig {
            hidden_size: 8192,
            intermediate_size: 22_016,
            num_hidden_layers: 80,
            num_attention_heads: 64,
            num_key_value_heads: 64,
            head_dim: 128,
            vocab_size: 100_534,
            max_position_embeddings: 16_384,
            ..Shape::B13.config()
        };
        let stored = |_: &str| Format::Dense(NumberType::Bf16);
        let answer = |quantize| {
            let precision = Precision { quantize, ..Precision::default() };
            let need = Need::of(&config, precision, stored, KvType::Bf16);
            n_blocks(&config, KvSize::Auto, need, Some(64.0 * GIB)).map_err(|error| error.to_string())
        };
        // 65,583,628,288 numbers beside the embeddings.
        let refused = answer(Quantize::None).unwrap_err();
        assert!(refused.contains("122.2 GiB for weights in bf16") && refused.contains("--quantize 4"), "{refused}");
        assert!(answer(Quantize::Eight).unwrap_err().contains("in Q8_0"));
        assert!(answer(Quantize::Four).is_ok());
    }
}
