//! The sampler against a plain rewriting of the original's steps, and its corners.

use proptest::prelude::*;

use super::*;

/// Keeps every token as it is.
const OPEN: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, max_new_tokens: 1 };

fn draw_of(logits: &[f32], seen: &[u32], sampling: Sampling, index: u64) -> Result<u32, SamplingError> {
    draw(logits, seen, &Draw { sampling, seed: 42, index })
}

/// The original's processors one after the other, sorting everything.
fn plain(logits: &[f32], seen: &[u32], sampling: &Sampling) -> Vec<(u32, f64)> {
    let mut scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    let distinct: std::collections::BTreeSet<u32> = seen.iter().copied().collect();
    for id in distinct {
        let score = &mut scores[id as usize];
        let penalty = f64::from(sampling.repetition_penalty);
        *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
    }
    for score in &mut scores {
        *score /= f64::from(sampling.temperature);
    }
    let mut ranked: Vec<(u32, f64)> = scores.iter().zip(0..).map(|(&score, id)| (id, score)).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if sampling.top_k > 0 && (sampling.top_k as usize) < ranked.len() {
        let kth = ranked[sampling.top_k as usize - 1].1;
        ranked.retain(|&(_, score)| score >= kth);
    }
    let probabilities = |ranked: &[(u32, f64)]| {
        let total: f64 = ranked.iter().map(|(_, score)| score.exp()).sum();
        ranked.iter().map(|&(id, score)| (id, score.exp() / total)).collect::<Vec<_>>()
    };
    let before_p = probabilities(&ranked);
    let mut passed = 0.0;
    let n_kept = before_p
        .iter()
        .take_while(|(_, probability)| {
            let stays = passed < f64::from(sampling.top_p) || sampling.top_p >= 1.0;
            passed += probability;
            stays
        })
        .count();
    probabilities(&ranked[..n_kept.max(1)])
}

proptest! {
    #[test]
    fn the_distribution_is_the_originals(
        logits in prop::collection::vec(-8.0_f32..8.0, 1..200),
        seen in prop::collection::vec(0_usize..200, 0..50),
        temperature in 0.1_f32..2.0,
        top_k in 0_u32..100,
        top_p in 0.05_f32..=1.0,
        repetition_penalty in 0.5_f32..2.0,
    ) {
        let seen: Vec<u32> = seen.into_iter().map(|id| (id % logits.len()) as u32).collect();
        let sampling = Sampling { temperature, top_k, top_p, repetition_penalty, max_new_tokens: 1 };
        let ours = distribution(&logits, &seen, &sampling).unwrap();
        let theirs = plain(&logits, &seen, &sampling);
        prop_assert_eq!(ours.len(), theirs.len());
        for (our, their) in ours.iter().zip(&theirs) {
            prop_assert_eq!(our.0, their.0);
            prop_assert!((f64::from(our.1) - their.1).abs() < 1e-5, "{:?} {:?}", our, their);
        }
    }

    #[test]
    fn what_is_drawn_is_in_the_distribution(
        logits in prop::collection::vec(-30.0_f32..30.0, 1..300),
        index: u64,
        top_k in 0_u32..5,
        top_p in 0.01_f32..=1.0,
    ) {
        let sampling = Sampling { top_k, top_p, ..OPEN };
        let drawn = draw_of(&logits, &[], sampling, index).unwrap();
        prop_assert!(distribution(&logits, &[], &sampling).unwrap().iter().any(|&(id, _)| id == drawn));
    }

    #[test]
    fn no_logits_make_it_panic(
        bits in prop::collection::vec(any::<u32>(), 0..50),
        seen in prop::collection::vec(any::<u32>(), 0..5),
        temperature: f32, top_k: u32, top_p: f32, repetition_penalty: f32, index: u64, token: u32, n: u32,
    ) {
        let logits: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let sampling = Sampling { temperature, top_k, top_p, repetition_penalty, max_new_tokens: 1 };
        if let Ok(id) = draw_of(&logits, &seen, sampling, index) {
            prop_assert!((id as usize) < logits.len());
        }
        let _ = logprobs(&logits, token, n);
    }
}

#[test]
fn tokens_come_as_often_as_their_probabilities_say() {
    const N_DRAWS: u32 = 40_000;
    let logits = [0.0, 1.0, -1.0, 2.0];
    let mut counts = [0_u32; 4];
    for index in 0..u64::from(N_DRAWS) {
        counts[draw_of(&logits, &[], OPEN, index).unwrap() as usize] += 1;
    }
    for (id, probability) in distribution(&logits, &[], &OPEN).unwrap() {
        let share = counts[id as usize] as f32 / N_DRAWS as f32;
        assert!((share - probability).abs() < 0.01, "{id}: {share} {probability}");
    }
}

#[test]
fn the_same_seed_and_index_draw_the_same_token() {
    let logits: Vec<f32> = (0..1000_u32).map(|id| (id * 7919 % 251) as f32 / 50.0).collect();
    for index in 0..20 {
        assert_eq!(draw_of(&logits, &[1], OPEN, index), draw_of(&logits, &[1], OPEN, index));
    }
    let drawn: std::collections::BTreeSet<u32> =
        (0..20).map(|index| draw_of(&logits, &[], OPEN, index).unwrap()).collect();
    assert!(drawn.len() > 10);
}

#[test]
fn temperature_zero_takes_the_first_of_the_likeliest() {
    let greedy = Sampling { temperature: 0.0, ..OPEN };
    assert_eq!(draw_of(&[1.0, 3.0, 3.0, 2.0], &[], greedy, 0), Ok(1));
    assert_eq!(distribution(&[1.0, 3.0, 3.0], &[], &greedy), Ok(vec![(1, 1.0)]));
    let penal = Sampling { repetition_penalty: 2.0, ..greedy };
    assert_eq!(draw_of(&[1.0, 3.0, 2.5], &[1], penal, 0), Ok(2));
}

#[test]
fn the_penalty_counts_an_id_once_and_pushes_both_signs_down() {
    let sampling = Sampling { repetition_penalty: 2.0, ..OPEN };
    assert_eq!(penalized(&[4.0, -4.0, 1.0], &[0, 1, 0, 0, 1], 2.0), vec![2.0, -8.0, 1.0]);
    assert_eq!(
        distribution(&[4.0, 1.0], &[0, 0, 0], &sampling).unwrap(),
        distribution(&[2.0, 1.0], &[], &OPEN).unwrap()
    );
    assert!(distribution(&[4.0, 1.0], &[99], &sampling).is_ok());
}

#[test]
fn top_k_keeps_ties_with_its_last_token() {
    let sampling = Sampling { top_k: 2, ..OPEN };
    let kept: Vec<u32> =
        distribution(&[1.0, 2.0, 3.0, 2.0, 0.0], &[], &sampling).unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(kept, [2, 1, 3]);
}

#[test]
fn top_p_counts_after_top_k_is_renormalised() {
    // Of four equal tokens top-k keeps ties; of 8, 4, 2, 1 fifteenths it keeps 8 and 4 as two thirds and one third.
    let logits = [8.0_f32, 4.0, 2.0, 1.0].map(f32::ln);
    let sampling = Sampling { top_k: 2, top_p: 0.6, ..OPEN };
    assert_eq!(distribution(&logits, &[], &sampling).unwrap(), [(0, 1.0)]);
    let without_k = Sampling { top_p: 0.6, ..OPEN };
    assert_eq!(distribution(&logits, &[], &without_k).unwrap().len(), 2);
}

#[test]
fn top_p_keeps_at_least_one_token() {
    let sampling = Sampling { top_p: f32::MIN_POSITIVE, ..OPEN };
    assert_eq!(distribution(&[1.0, 1.5], &[], &sampling).unwrap(), [(1, 1.0)]);
}

#[test]
fn a_tiny_temperature_does_not_overflow() {
    let sampling = Sampling { temperature: 1e-38, ..OPEN };
    assert_eq!(draw_of(&[100.0, 200.0, -200.0], &[], sampling, 3), Ok(1));
}

#[test]
fn minus_infinity_is_never_drawn() {
    let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
    for index in 0..100 {
        assert_eq!(draw_of(&logits, &[0, 1, 2], Sampling::default(), index), Ok(1));
        assert_eq!(draw_of(&logits, &[], OPEN, index), Ok(1));
    }
}

#[test]
fn logits_that_are_not_numbers_are_an_error() {
    for logits in
        [vec![], vec![f32::NAN, 1.0], vec![1.0, f32::NAN], vec![f32::NEG_INFINITY; 3], vec![1.0, f32::INFINITY]]
    {
        for sampling in [OPEN, Sampling::default(), Sampling { temperature: 0.0, ..OPEN }] {
            assert_eq!(draw_of(&logits, &[0], sampling, 0), Err(SamplingError::NotANumber), "{logits:?}");
            assert_eq!(distribution(&logits, &[0], &sampling), Err(SamplingError::NotANumber), "{logits:?}");
        }
    }
}

#[test]
fn logprobs_are_those_of_the_unmodified_distribution() {
    let logits = [0.0_f32, 1.0, 2.0, 2.0];
    let logprobs = logprobs(&logits, 1, 3);
    let mass: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    let expected = |logit: f64| (logit - mass.ln()) as f32;
    assert_eq!(logprobs.token, 1);
    assert!((logprobs.logprob - expected(1.0)).abs() < 1e-6);
    assert_eq!(logprobs.top.iter().map(|&(id, _)| id).collect::<Vec<_>>(), [2, 3, 1]);
    assert!((logprobs.top[0].1 - expected(2.0)).abs() < 1e-6);
    let total: f32 = super::logprobs(&logits, 0, 99).top.iter().map(|(_, logprob)| logprob.exp()).sum();
    assert!((total - 1.0).abs() < 1e-6);
}

#[test]
fn logprobs_of_large_logits_do_not_overflow() {
    let logprobs = logprobs(&[10_000.0, 9_999.0], 1, 0);
    assert!((logprobs.logprob - (-1.313_261_7)).abs() < 1e-5);
    assert!(logprobs.top.is_empty());
    assert_eq!(super::logprobs(&[1.0], 7, 0).logprob, f32::NEG_INFINITY);
}
