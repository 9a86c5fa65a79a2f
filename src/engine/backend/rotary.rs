//! Cosines and sines by which queries and keys are turned.

use crate::engine::config::ModelConfig;

/// For each position, cosine and sine of position × `rope_theta`^(-2i / `head_dim`), in f32 throughout as the original computes them.
#[must_use]
pub fn tables(config: &ModelConfig, n_positions: usize) -> (Vec<f32>, Vec<f32>) {
    let half = config.head_dim / 2;
    let frequencies: Vec<f32> =
        (0..half).map(|i| 1.0 / (config.rope_theta as f32).powf((2 * i) as f32 / config.head_dim as f32)).collect();
    (0..n_positions)
        .flat_map(|position| frequencies.iter().map(move |frequency| (position as f32 * frequency).sin_cos()))
        .map(|(sin, cos)| (cos, sin))
        .unzip()
}
