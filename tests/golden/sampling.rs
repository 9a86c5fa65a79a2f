//! The distribution that is drawn from, against transformers' logits processors; and that draws follow it.

use std::collections::HashMap;

use serde::Deserialize;
use xverse_chat::{
    chat::settings::Sampling,
    engine::sampling::{self, Draw},
};

use super::files;
use crate::support::generator;

#[derive(Debug, Deserialize)]
struct File {
    seed: u64,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    vocab_size: usize,
    spread: f32,
    /// Whether the logits are rounded, so that many are equal.
    ties: bool,
    temperature: f32,
    top_k: u32,
    top_p: f32,
    repetition_penalty: f32,
    n_seen: usize,
    /// Tokens that can be drawn, likeliest first, with their probabilities.
    support: Vec<u32>,
    probabilities: Vec<f32>,
    /// The token that temperature 0 takes.
    greedy: u32,
    /// The likeliest five of the unmodified distribution.
    top_logprobs: Vec<(u32, f32)>,
}

/// A case with its generated numbers.
struct Ready {
    case: Case,
    logits: Vec<f32>,
    seen: Vec<u32>,
}

impl Ready {
    fn sampling(&self) -> Sampling {
        let Case { temperature, top_k, top_p, repetition_penalty, .. } = self.case;
        Sampling { temperature, top_k, top_p, repetition_penalty, max_new_tokens: 1 }
    }
}

fn cases() -> Vec<Ready> {
    let File { seed, cases } = serde_json::from_slice(&files::data("sampling.json")).unwrap();
    let ready = |case: Case| {
        let mut logits = generator::logits(seed, &case.name, case.vocab_size, case.spread);
        if case.ties {
            logits = logits.into_iter().map(f32::round_ties_even).collect();
        }
        let seen = generator::ids(seed, &format!("{}.seen", case.name), case.n_seen, case.vocab_size);
        Ready { case, logits, seen }
    };
    cases.into_iter().map(ready).collect()
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-6 + 2e-5 * a.abs().max(b.abs())
}

#[test]
fn what_is_drawn_from_is_what_transformers_draws_from() {
    for ready in cases() {
        let Ready { case, logits, seen } = &ready;
        let found = sampling::distribution(logits, seen, &ready.sampling()).unwrap();
        let found: HashMap<u32, f32> = found.into_iter().collect();
        assert_eq!(found.len(), case.support.len(), "{}: how many tokens can be drawn", case.name);
        for (token, expected) in case.support.iter().zip(&case.probabilities) {
            let found = found.get(token).unwrap_or_else(|| panic!("{}: token {token} can't be drawn", case.name));
            assert!(close(*found, *expected), "{}: token {token} has {found}, expected {expected}", case.name);
        }
    }
}

#[test]
fn temperature_zero_takes_the_likeliest_after_the_penalty() {
    for ready in cases().into_iter().filter(|ready| !ready.case.ties) {
        let sampling = Sampling { temperature: 0.0, ..ready.sampling() };
        let drawn = sampling::draw(&ready.logits, &ready.seen, &Draw { sampling, seed: 1, index: 0 }).unwrap();
        assert_eq!(drawn, ready.case.greedy, "{}", ready.case.name);
    }
}

#[test]
fn draws_follow_the_distribution() {
    const N_DRAWS: u64 = 3000;
    for ready in cases().into_iter().filter(|ready| ready.case.vocab_size <= 1003) {
        let Ready { case, logits, seen } = &ready;
        let mut counts: HashMap<u32, f64> = HashMap::new();
        for index in 0..N_DRAWS {
            let draw = Draw { sampling: ready.sampling(), seed: 17, index };
            *counts.entry(sampling::draw(logits, seen, &draw).unwrap()).or_default() += 1.0;
        }
        let mut n_expected = 0.0;
        for (token, probability) in case.support.iter().zip(&case.probabilities) {
            let expected = f64::from(*probability) * N_DRAWS as f64;
            let found = counts.remove(token).unwrap_or(0.0);
            // Five standard deviations of a count, and a little for the smallest ones.
            let bound = 5.0 * (expected * (1.0 - f64::from(*probability)).max(0.0)).sqrt() + 3.0;
            assert!(
                (found - expected).abs() <= bound,
                "{}: {token} came {found} times, expected {expected}",
                case.name
            );
            n_expected += expected;
        }
        assert!(counts.is_empty(), "{}: tokens were drawn that can't be: {counts:?}", case.name);
        assert!((n_expected / N_DRAWS as f64 - 1.0).abs() < 1e-4, "{}", case.name);
    }
}

#[test]
fn log_probabilities_are_of_the_unmodified_distribution() {
    for ready in cases() {
        let Ready { case, logits, .. } = &ready;
        let n = case.top_logprobs.len() as u32;
        for (token, expected) in &case.top_logprobs {
            let found = sampling::logprobs(logits, *token, n);
            assert_eq!(found.token, *token);
            assert!(close(found.logprob, *expected), "{}: {} instead of {expected}", case.name, found.logprob);
            assert_eq!(found.top.len(), case.top_logprobs.len(), "{}", case.name);
            for ((_, found), (_, expected)) in found.top.iter().zip(&case.top_logprobs) {
                assert!(close(*found, *expected), "{}: {found} instead of {expected}", case.name);
            }
        }
    }
}
