//! What quantising costs: how far the model's distributions move, beside the scheme of the original demonstration.
//!
//! The original's `quantize(8 | 4)` has one scale for each output row and keeps the head. Weights of both are taken back to
//! singles and multiplied in f32, so that only the rounding of weights is compared; what the rounding of activations adds
//! is told apart.

#![cfg(feature = "ssr")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "quantized/distance.rs"]
mod distance;
#[path = "quantized/schemes.rs"]
mod schemes;

use std::{path::Path, sync::Arc};

use xverse_chat::engine::{
    bench::shape::Shape,
    checkpoint::{self, Checkpoint},
    config::ModelConfig,
    precision::Quantize,
    tokenizer::ChatTokenizer,
    weights::{NumberType, Weights},
};

use distance::{Distance, Model};
use schemes::{Dequantized, Scheme};

/// A model and ids to read.
struct Case {
    name: &'static str,
    config: ModelConfig,
    weights: Arc<dyn Weights>,
    ids: Vec<u32>,
}

/// The mini model on a text of its own.
fn mini() -> Case {
    let folder = Path::new("models/xverse-mini");
    let config = ModelConfig::read(folder).unwrap();
    let text = std::fs::read_to_string("examples/mini/dialogues/03-knowledge.txt").unwrap();
    let tokenizer = ChatTokenizer::open(folder).unwrap();
    let mut ids = tokenizer.encode(&text).unwrap();
    ids.truncate(512);
    let weights = Checkpoint::open(folder, &config).unwrap().into_weights();
    Case { name: "the mini model", config, weights, ids }
}

/// A layer of XVERSE-13B's width, with random weights and a small vocabulary.
fn wide() -> Case {
    let config = ModelConfig { num_hidden_layers: 1, vocab_size: 1024, ..Shape::B13.config() };
    let weights = checkpoint::random(&config, 11, NumberType::Bf16);
    Case { name: "a random layer of 5120", config, weights, ids: (0..48).map(|i| 4 + i * 37 % 1000).collect() }
}

fn check(case: &Case) {
    let stored = Model::load(&case.config, &case.weights, Quantize::None).logits(&case.ids);
    let of_scheme = |scheme| {
        let weights: Arc<dyn Weights> = Arc::new(Dequantized::new(Arc::clone(&case.weights), &case.config, scheme));
        Distance::between(&stored, &Model::load(&case.config, &weights, Quantize::None).logits(&case.ids))
    };
    for quantize in [Quantize::Eight, Quantize::Four] {
        let (ours, original) = (of_scheme(Scheme::Blocks(quantize)), of_scheme(Scheme::PerRow(quantize)));
        let rounded = Distance::between(&stored, &Model::load(&case.config, &case.weights, quantize).logits(&case.ids));
        println!(
            "{}, {} bits: weights alone {ours}, the original's {original}, with rounded activations {rounded}",
            case.name,
            quantize.name()
        );
        assert!(ours.mean_kl < original.mean_kl, "{}: {ours} beside {original}", case.name);
        assert!(rounded.mean_kl < 4.0 * ours.mean_kl + 1e-3, "{}: {rounded} beside {ours}", case.name);
    }
}

#[test]
fn blocks_move_the_mini_models_distributions_less_than_one_scale_a_row_does() {
    check(&mini());
}

#[test]
fn blocks_move_distributions_less_than_one_scale_a_row_does_at_the_width_of_13b() {
    check(&wide());
}
