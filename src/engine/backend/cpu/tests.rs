//! The cpu backend under the scheduler: what is computed together is what is computed alone.

use std::{collections::HashMap, sync::Arc};

use super::*;
use crate::{
    chat::settings::Sampling,
    engine::{
        checkpoint,
        precision::Quantize,
        request::{CacheScope, GenerationRequest, LogprobsRequest, TokenLogprobs},
        scheduler::{Outcome, Scheduler, SchedulerLimits},
    },
};

const N_BLOCKS: usize = 256;

fn config() -> ModelConfig {
    ModelConfig {
        hidden_size: 48,
        intermediate_size: 80,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 12,
        vocab_size: 211,
        max_position_embeddings: 256,
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

fn backend(threads: usize) -> CpuBackend {
    backend_of(&config(), Precision::default(), KvType::Bf16, threads)
}

fn backend_of(config: &ModelConfig, precision: Precision, kv_type: KvType, threads: usize) -> CpuBackend {
    let weights = checkpoint::random(config, 7, NumberType::F32);
    CpuBackend::new(config, weights, CpuOptions { precision, kv_type, n_blocks: N_BLOCKS, threads }).unwrap()
}

fn scheduler(max_running: usize, prefill_chunk: usize) -> Scheduler {
    Scheduler::new(SchedulerLimits { max_running, prefill_chunk, end_tokens: 3.into() }, N_BLOCKS)
}

/// A small generator, so that a failing seed says all that is needed to see it again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn request(numbers: &mut Numbers, scope: CacheScope) -> GenerationRequest {
    let n_prompt = 1 + numbers.below(60);
    GenerationRequest {
        prompt_ids: (0..n_prompt).map(|_| 4 + numbers.below(207) as u32).collect(),
        continued_ids: Arc::from([]),
        sampling: Sampling {
            temperature: if numbers.below(3) == 0 { 0.0 } else { 0.8 },
            max_new_tokens: 1 + numbers.below(16) as u32,
            ..Sampling::default()
        },
        seed: numbers.below(1 << 40),
        ignore_eos: numbers.below(2) == 0,
        stop: Vec::new(),
        logprobs: LogprobsRequest::default(),
        scope,
    }
}

/// What a run gave.
#[derive(Default)]
struct Run {
    /// Each sequence's.
    tokens: HashMap<SequenceId, Vec<u32>>,
    /// Log-probabilities of those, where asked for.
    logprobs: Vec<TokenLogprobs>,
    /// Log-probabilities of prompt tokens, where asked for.
    prompt_logprobs: Vec<TokenLogprobs>,
    /// Prompt tokens whose keys and values were there already, of all sequences.
    reused: usize,
    /// Most sequences that one step computed.
    widest: usize,
}

/// How requests come.
#[derive(Clone, Copy, PartialEq)]
enum Coming {
    /// All before the first step.
    AtOnce,
    /// One a step, so that prompts and decoding mix.
    OneByOne,
}

/// Runs until everything has ended.
fn run(
    backend: &mut CpuBackend,
    scheduler: &mut Scheduler,
    coming: Coming,
    requests: &[(SequenceId, GenerationRequest)],
) -> Run {
    let mut waiting = requests.iter();
    let mut run = Run::default();
    let mut reuses: HashMap<SequenceId, usize> = HashMap::new();
    loop {
        let n_coming = if coming == Coming::AtOnce { requests.len() } else { 1 };
        let mut outcomes = Vec::new();
        for (sequence, request) in waiting.by_ref().take(n_coming) {
            run.tokens.insert(*sequence, Vec::new());
            outcomes.extend(scheduler.submit(*sequence, request.clone()));
        }
        let batch = scheduler.plan();
        if batch.rows.is_empty() {
            run.reused = reuses.values().sum();
            return run;
        }
        run.widest = run.widest.max(batch.rows.len());
        backend.poison(&scheduler.take_freed());
        let outputs = backend.step(&batch).unwrap();
        outcomes.extend(scheduler.step_done(&batch, outputs));
        for outcome in outcomes {
            match outcome {
                Outcome::Drawn(sequence, token, logprobs) => {
                    run.tokens.get_mut(&sequence).unwrap().push(token);
                    run.logprobs.extend(logprobs);
                }
                Outcome::Ended(_, reason) => assert_ne!(reason, crate::engine::request::EngineEnd::NotANumber),
                Outcome::Prefilled { sequence, reused, .. } => {
                    reuses.insert(sequence, reused);
                }
                Outcome::PromptLogprobs(_, all) => run.prompt_logprobs.extend(all),
                Outcome::Queued(..) | Outcome::EndToken(..) => {}
            }
        }
    }
}

#[test]
fn thirty_two_conversations_at_once_each_equal_their_solo_run() {
    each_equals_its_solo_run(backend(2), backend(1), 50);
}

#[test]
fn so_do_they_in_every_format_of_weights_keys_and_values() {
    let config = ModelConfig { hidden_size: 256, intermediate_size: 512, head_dim: 64, ..config() };
    for (number_type, quantize, kv_type) in [
        (NumberType::Bf16, Quantize::None, KvType::F32),
        (NumberType::F16, Quantize::Eight, KvType::Int8),
        (NumberType::F32, Quantize::Four, KvType::F16),
    ] {
        let backend = |threads| {
            let precision = Precision { number_type: Some(number_type), quantize };
            backend_of(&config, precision, kv_type, threads)
        };
        each_equals_its_solo_run(backend(2), backend(1), 3);
    }
}

fn each_equals_its_solo_run(mut together: CpuBackend, mut alone: CpuBackend, n_seeds: u64) {
    for seed in 0..n_seeds {
        let mut numbers = Numbers(seed);
        let requests: Vec<(SequenceId, GenerationRequest)> = (0..32)
            .map(|index| (SequenceId(index), request(&mut numbers, CacheScope::Shared(u128::from(index)))))
            .collect();
        // Every other time all are computed together; else they come and go, and some wait.
        let coming = if seed % 2 == 0 { Coming::AtOnce } else { Coming::OneByOne };
        let mut shared = match coming {
            Coming::AtOnce => scheduler(32, 512),
            Coming::OneByOne => scheduler(1 + numbers.below(32) as usize, 1 + numbers.below(24) as usize),
        };
        let Run { tokens: first, reused, widest, .. } = run(&mut together, &mut shared, coming, &requests);
        assert!(coming == Coming::OneByOne || widest == 32, "seed {seed}: at most {widest} at once");
        assert_eq!(reused, 0, "seed {seed}: there is nothing to use again yet");
        // A second turn finds the first one's keys and values.
        let second_requests: Vec<(SequenceId, GenerationRequest)> = requests
            .iter()
            .map(|(id, request)| {
                let mut ids = request.prompt_ids.to_vec();
                ids.extend(&first[id]);
                ids.extend([5, 6, 7]);
                (SequenceId(id.0 + 100), GenerationRequest { prompt_ids: ids.into(), ..request.clone() })
            })
            .collect();
        let Run { tokens: second, reused, .. } = run(&mut together, &mut shared, coming, &second_requests);
        assert!(reused > 0, "seed {seed}: the second turns found nothing of the first");
        for (id, request) in requests.iter().chain(&second_requests) {
            let solo = solo(&mut alone, *id, request.clone()).tokens;
            let batched = first.get(id).or_else(|| second.get(id));
            assert_eq!(Some(&solo[id]), batched, "seed {seed}, {id:?}");
        }
    }
}

fn solo(backend: &mut CpuBackend, sequence: SequenceId, request: GenerationRequest) -> Run {
    run(backend, &mut scheduler(1, 64), Coming::AtOnce, &[(sequence, request)])
}

fn logprobs_in_chunks(chunk: usize) -> Vec<TokenLogprobs> {
    let request = GenerationRequest {
        logprobs: LogprobsRequest { generated: None, prompt: Some(3) },
        sampling: Sampling { max_new_tokens: 0, ..Sampling::default() },
        ..request(&mut Numbers(3), CacheScope::Alone)
    };
    let n_prompt = request.prompt_ids.len();
    let run = run(&mut backend(1), &mut scheduler(2, chunk), Coming::AtOnce, &[(SequenceId(0), request)]);
    assert_eq!(run.prompt_logprobs.len(), n_prompt - 1);
    run.prompt_logprobs
}

#[test]
fn prompt_logprobs_do_not_depend_on_the_chunks() {
    let whole = logprobs_in_chunks(64);
    assert!(whole.iter().all(|token| token.top.len() == 3 && token.logprob < 0.0));
    assert_eq!(logprobs_in_chunks(1), whole);
    assert_eq!(logprobs_in_chunks(3), whole);
}

#[test]
fn logprobs_of_drawn_tokens_are_those_that_the_same_tokens_have_in_a_prompt() {
    let mut backend = backend(1);
    let drawn = GenerationRequest {
        logprobs: LogprobsRequest { generated: Some(3), prompt: None },
        // What changes the distribution that is drawn from changes nothing in what is told.
        sampling: Sampling { temperature: 0.3, repetition_penalty: 1.5, max_new_tokens: 12, ..Sampling::default() },
        ignore_eos: true,
        ..request(&mut Numbers(5), CacheScope::Alone)
    };
    let first = solo(&mut backend, SequenceId(0), drawn.clone());
    let tokens = &first.tokens[&SequenceId(0)];
    assert_eq!(first.logprobs.iter().map(|told| told.token).collect::<Vec<_>>(), *tokens);
    assert!(first.logprobs.iter().all(|told| told.top.len() == 3 && told.top[0].1 >= told.top[2].1));
    let read = GenerationRequest {
        prompt_ids: drawn.prompt_ids.iter().chain(tokens).copied().collect(),
        logprobs: LogprobsRequest { generated: None, prompt: Some(3) },
        sampling: Sampling { max_new_tokens: 0, ..Sampling::default() },
        ..drawn.clone()
    };
    let second = solo(&mut backend, SequenceId(1), read);
    assert_eq!(first.logprobs, second.prompt_logprobs[drawn.prompt_ids.len() - 1..]);
}

#[test]
fn a_freed_block_that_is_read_would_show() {
    let mut backend = backend(1);
    let mut batch = Batch::default();
    batch.rows.push(Row {
        sequence: SequenceId(0),
        ids: vec![5, 6],
        start: 1,
        blocks: vec![BlockId(0)],
        draw: None,
        logprobs: None,
        prompt_logprobs: None,
        following: None,
        logits: true,
    });
    assert!(backend.step(&batch).unwrap().remove(0).unwrap().logits.iter().all(|logit| logit.is_finite()));
    backend.poison(&[BlockId(0)]);
    assert!(backend.step(&batch).unwrap().remove(0).unwrap().logits.iter().all(|logit| logit.is_nan()));
}
