//! Drawing a token from logits, in the order of Hugging Face transformers: repetition penalty over prompt and output,
//! temperature, top-k, softmax, top-p, draw.
//!
//! It knows no model and keeps no state: what is drawn depends on logits, seen ids, settings, seed and index alone.
//! **Architecture Invariant:** no logits make it panic, and an id outside them is never drawn.

pub mod philox;

mod ranking;

use self::ranking::{Candidate, Ranking};
use super::request::TokenLogprobs;
use crate::chat::settings::Sampling;

/// How to draw one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// The settings.
    pub sampling: Sampling,
    /// The answer's seed.
    pub seed: u64,
    /// Which draw of the answer this is, from 0.
    pub index: u64,
}

/// Why no token can be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// NaN, or nothing finite to choose from.
    #[error("the model's logits are not numbers")]
    NotANumber,
}

/// Draws one token; `seen` are all ids of prompt and output so far.
///
/// # Errors
/// [`SamplingError`].
pub fn draw(logits: &[f32], seen: &[u32], draw: &Draw) -> Result<u32, SamplingError> {
    let mut survivors = survivors(logits, seen, &draw.sampling)?;
    let aim = f64::from(philox::uniform(draw.seed, draw.index)) * survivors.mass;
    let mut passed = 0.0;
    let mut last = None;
    for rank in 0..survivors.n_kept {
        let Some(candidate) = survivors.ranking.get(rank) else { break };
        passed += candidate.weight;
        last = Some(candidate.id);
        if passed > aim {
            break;
        }
    }
    last.ok_or(SamplingError::NotANumber)
}

/// The tokens that can be drawn with their probabilities, likeliest first; of equal ones the lower id first.
///
/// # Errors
/// [`SamplingError`].
pub fn distribution(logits: &[f32], seen: &[u32], sampling: &Sampling) -> Result<Vec<(u32, f32)>, SamplingError> {
    let mut survivors = survivors(logits, seen, sampling)?;
    let mass = survivors.mass;
    let kept = survivors.ranking.first(survivors.n_kept);
    Ok(kept.iter().map(|candidate| (candidate.id, (candidate.weight / mass) as f32)).collect())
}

/// Log-probability of `token` under the unmodified distribution, with the `n` likeliest tokens.
///
/// Of a token outside the vocabulary it is minus infinity; where the logits are not numbers, neither are these.
#[must_use]
pub fn logprobs(logits: &[f32], token: u32, n: u32) -> TokenLogprobs {
    let log_mass = log_mass(logits.iter().copied());
    let of = |logit: f32| (f64::from(logit) - log_mass) as f32;
    let top = likeliest(logits, n).into_iter().map(|(id, logit)| (id, of(logit))).collect();
    TokenLogprobs { token, logprob: logits.get(token as usize).map_or(f32::NEG_INFINITY, |&logit| of(logit)), top }
}

/// Logarithm of what the exponentials of these logits sum to, by which probabilities are divided; minus infinity of none.
#[must_use]
pub fn log_mass(logits: impl Iterator<Item = f32> + Clone) -> f64 {
    let max = f64::from(logits.clone().fold(f32::NEG_INFINITY, f32::max));
    max + logits.map(|logit| (f64::from(logit) - max).exp()).sum::<f64>().ln()
}

/// The `n` tokens with the largest logits, or all where there are fewer, largest first, of equal ones the lower id first.
#[must_use]
pub fn likeliest(logits: &[f32], n: u32) -> Vec<(u32, f32)> {
    if n == 0 {
        return Vec::new();
    }
    let candidates = logits.iter().zip(0..).map(|(&logit, id)| Candidate { id, weight: f64::from(logit) });
    let mut ranking = Ranking::new(candidates.collect());
    ranking.first(n as usize).iter().map(|candidate| (candidate.id, candidate.weight as f32)).collect()
}

/// What is left after penalty, temperature, top-k and top-p.
struct Survivors {
    ranking: Ranking,
    /// How many of the ranking's first may be drawn.
    n_kept: usize,
    /// Their weights' sum.
    mass: f64,
}

fn survivors(logits: &[f32], seen: &[u32], sampling: &Sampling) -> Result<Survivors, SamplingError> {
    let scores = penalized(logits, seen, sampling.repetition_penalty);
    let max = maximum(&scores)?;
    // A temperature that is no number would be refused where settings enter; here it draws the likeliest.
    if sampling.temperature.is_nan() || sampling.temperature <= 0.0 {
        let likeliest = scores.iter().zip(0..).find(|&(&score, _)| score == max);
        let id = likeliest.map(|(_, id)| id).ok_or(SamplingError::NotANumber)?;
        return Ok(Survivors { ranking: Ranking::new(vec![Candidate { id, weight: 1.0 }]), n_kept: 1, mass: 1.0 });
    }
    let least = kth_largest(&scores, sampling.top_k as usize);
    let temperature = f64::from(sampling.temperature);
    // Divided after the maximum is taken off, which changes nothing but cannot overflow.
    let weight = |score: f32| ((f64::from(score) - f64::from(max)) / temperature).exp();
    let candidates: Vec<Candidate> = scores
        .iter()
        .zip(0..)
        .filter(|&(&score, _)| score >= least)
        .map(|(&score, id)| Candidate { id, weight: weight(score) })
        .collect();
    let n_candidates = candidates.len();
    let mass: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let ranking = Ranking::new(candidates);
    if sampling.top_p >= 1.0 {
        return Ok(Survivors { ranking, n_kept: n_candidates, mass });
    }
    Ok(nucleus(ranking, mass, sampling.top_p))
}

/// The fewest of the likeliest whose share of `mass` reaches `top_p`; at least one.
fn nucleus(mut ranking: Ranking, mass: f64, top_p: f32) -> Survivors {
    let wanted = f64::from(top_p) * mass;
    let mut n_kept = 0;
    let mut reached = 0.0;
    while let Some(candidate) = ranking.get(n_kept) {
        reached += candidate.weight;
        n_kept += 1;
        if reached >= wanted {
            break;
        }
    }
    Survivors { ranking, n_kept, mass: reached }
}

/// The scores with each seen id's made less likely once, however often it was seen.
fn penalized(logits: &[f32], seen: &[u32], penalty: f32) -> Vec<f32> {
    let mut scores = logits.to_vec();
    for &id in seen {
        let id = id as usize;
        // Computed from the logit, so that a second time changes nothing.
        if let (Some(&logit), Some(score)) = (logits.get(id), scores.get_mut(id)) {
            *score = if logit < 0.0 { logit * penalty } else { logit / penalty };
        }
    }
    scores
}

/// The largest score, where all are numbers below infinity and one is finite.
fn maximum(scores: &[f32]) -> Result<f32, SamplingError> {
    let mut max = f32::NEG_INFINITY;
    for &score in scores {
        if score.is_nan() {
            return Err(SamplingError::NotANumber);
        }
        max = max.max(score);
    }
    if max.is_finite() { Ok(max) } else { Err(SamplingError::NotANumber) }
}

/// The score that top-k's last token has; tokens that tie with it stay. 0 keeps all.
fn kth_largest(scores: &[f32], k: usize) -> f32 {
    if k == 0 || k >= scores.len() {
        return f32::NEG_INFINITY;
    }
    let mut scores = scores.to_vec();
    let (_, kth, _) = scores.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    *kth
}

#[cfg(test)]
mod tests;
