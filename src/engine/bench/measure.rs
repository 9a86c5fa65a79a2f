//! Runs sequences through scheduler and backend and keeps the time of each token.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::{BenchError, Cell};
use crate::{
    chat::settings::Sampling,
    engine::{
        backend::{Backend, SequenceId},
        checkpoint::writer::hex,
        mean::percentile,
        request::{CacheScope, GenerationRequest, LogprobsRequest},
        scheduler::{Outcome, Scheduler, SchedulerLimits},
    },
};

/// When each sequence's tokens came, from the submission on, and which they were.
pub(super) struct Times {
    tokens: HashMap<SequenceId, Vec<Duration>>,
    drawn: BTreeMap<SequenceId, Vec<u32>>,
}

/// Bytes of the digest of what was drawn that are kept.
const DRAWN_BYTES: usize = 8;

const WARM_UP: (usize, usize) = (16, 4);
/// Tokens that the warm-up needs room for.
pub(super) const WARM_UP_TOKENS: usize = WARM_UP.0 + WARM_UP.1;

/// A short run, so that pages are there and clocks are up.
pub(super) fn warm_up(backend: &mut dyn Backend) -> Result<(), BenchError> {
    let (prompt, generate) = WARM_UP;
    times(backend, prompt, generate, 1).map(|_| ())
}

/// Tokens that scenes need room for beside what is asked for.
pub(super) const SCENE_TOKENS: usize = 512;
/// Tokens that a second turn adds.
const NEW_TOKENS: usize = 32;
/// Tokens of the answer beside which a prompt is read, and of its own prompt.
const ANSWER_TOKENS: usize = 300;
const QUESTION_TOKENS: usize = 64;

/// Milliseconds to the first token of a second turn, whose `history` the first one left behind.
pub(super) fn second_turn(backend: &mut dyn Backend, history: usize) -> Result<f64, BenchError> {
    let spec = backend.spec();
    let (vocab_size, n_blocks, prefill_chunk) = (spec.vocab_size, spec.n_blocks, spec.prefill_chunk);
    let mut scheduler =
        Scheduler::new(SchedulerLimits { max_running: 1, prefill_chunk, end_tokens: u32::MAX.into() }, n_blocks);
    let mut turn = |index: u64, n_prompt: usize| {
        let mut request = request(0, n_prompt, 1, vocab_size);
        request.scope = CacheScope::Shared(1);
        let began = Instant::now();
        scheduler.submit(SequenceId(index), request);
        let mut first = None;
        run_until(backend, &mut scheduler, |_| {
            first = Some(began.elapsed());
            true
        })?;
        Ok::<_, BenchError>(first.unwrap_or_default())
    };
    turn(0, history)?;
    Ok(turn(1, history + NEW_TOKENS)?.as_secs_f64() * 1e3)
}

/// Milliseconds between two tokens of an answer at most, while a prompt is read beside it.
pub(super) fn beside(backend: &mut dyn Backend, prompt: usize) -> Result<f64, BenchError> {
    let spec = backend.spec();
    let (vocab_size, n_blocks, prefill_chunk) = (spec.vocab_size, spec.n_blocks, spec.prefill_chunk);
    let mut scheduler =
        Scheduler::new(SchedulerLimits { max_running: 2, prefill_chunk, end_tokens: u32::MAX.into() }, n_blocks);
    let (answer, other) = (SequenceId(0), SequenceId(1));
    scheduler.submit(answer, request(0, QUESTION_TOKENS, ANSWER_TOKENS, vocab_size));
    let mut n_drawn = 0;
    run_until(backend, &mut scheduler, |_| {
        n_drawn += 1;
        n_drawn == 8
    })?;
    scheduler.submit(other, request(1, prompt, 1, vocab_size));
    let (mut last, mut worst, mut is_read) = (Instant::now(), Duration::ZERO, false);
    run_until(backend, &mut scheduler, |sequence| {
        if sequence == answer {
            worst = worst.max(last.elapsed());
            last = Instant::now();
            // The gap in which the prompt was finished counts, too.
            return is_read;
        }
        is_read = true;
        false
    })?;
    for outcome in scheduler.end_all(crate::engine::request::EngineEnd::Cancelled) {
        if let Outcome::Ended(sequence, _) = outcome {
            backend.release(sequence);
        }
    }
    Ok(worst.as_secs_f64() * 1e3)
}

/// Runs steps until `stop` says so of a sequence that has drawn, or nothing is left.
fn run_until(
    backend: &mut dyn Backend,
    scheduler: &mut Scheduler,
    mut stop: impl FnMut(SequenceId) -> bool,
) -> Result<(), BenchError> {
    loop {
        let batch = scheduler.plan();
        if batch.rows.is_empty() {
            return Ok(());
        }
        let outputs = backend.step(&batch)?;
        if let Some(Err(error)) = outputs.iter().find(|output| output.is_err()) {
            return Err((*error).into());
        }
        let mut is_over = false;
        for outcome in scheduler.step_done(&batch, outputs) {
            match outcome {
                Outcome::Drawn(sequence, ..) => is_over |= stop(sequence),
                Outcome::Ended(sequence, _) => backend.release(sequence),
                Outcome::Queued(..)
                | Outcome::Prefilled { .. }
                | Outcome::PromptLogprobs(..)
                | Outcome::EndToken(..) => {}
            }
        }
        if is_over {
            return Ok(());
        }
    }
}

/// Submits `concurrency` sequences at once and runs them to their ends.
pub(super) fn times(
    backend: &mut dyn Backend,
    prompt: usize,
    generate: usize,
    concurrency: usize,
) -> Result<Times, BenchError> {
    let spec = backend.spec();
    let (vocab_size, n_blocks, prefill_chunk) = (spec.vocab_size, spec.n_blocks, spec.prefill_chunk);
    let limits = SchedulerLimits { max_running: concurrency, prefill_chunk, end_tokens: u32::MAX.into() };
    let mut scheduler = Scheduler::new(limits, n_blocks);
    let mut tokens: HashMap<SequenceId, Vec<Duration>> = HashMap::new();
    let mut drawn: BTreeMap<SequenceId, Vec<u32>> = BTreeMap::new();
    let began = Instant::now();
    for index in 0..concurrency as u64 {
        scheduler.submit(SequenceId(index), request(index, prompt, generate, vocab_size));
    }
    let mut live = concurrency;
    while live > 0 {
        let batch = scheduler.plan();
        if batch.rows.is_empty() {
            return Err(BenchError::NoRoom { waiting: live });
        }
        let outputs = backend.step(&batch)?;
        if let Some(Err(error)) = outputs.iter().find(|output| output.is_err()) {
            return Err((*error).into());
        }
        for outcome in scheduler.step_done(&batch, outputs) {
            match outcome {
                Outcome::Drawn(sequence, token, _) => {
                    tokens.entry(sequence).or_default().push(began.elapsed());
                    drawn.entry(sequence).or_default().push(token);
                }
                Outcome::Ended(sequence, _) => {
                    backend.release(sequence);
                    live -= 1;
                }
                Outcome::Queued(..)
                | Outcome::Prefilled { .. }
                | Outcome::PromptLogprobs(..)
                | Outcome::EndToken(..) => {}
            }
        }
    }
    Ok(Times { tokens, drawn })
}

fn request(index: u64, prompt: usize, generate: usize, vocab_size: usize) -> GenerationRequest {
    // Ids spread over the vocabulary, the special ones at its beginning left out.
    let ids = (0..prompt as u64).map(|at| 4 + (at * 7919 + index * 104_729) % (vocab_size as u64 - 4));
    GenerationRequest {
        prompt_ids: ids.map(|id| id as u32).collect(),
        continued_ids: Arc::from([]),
        sampling: Sampling { max_new_tokens: generate as u32, ..Sampling::default() },
        seed: index,
        ignore_eos: true,
        stop: Vec::new(),
        logprobs: LogprobsRequest::default(),
        scope: CacheScope::Alone,
    }
}

impl Times {
    fn drawn(&self) -> String {
        let mut digest = Sha256::new();
        for token in self.drawn.values().flatten() {
            digest.update(token.to_le_bytes());
        }
        hex(&digest.finalize()[..DRAWN_BYTES])
    }

    /// The figures, where a decode step must read `step_gb` and memory gives `copy_gb_s`.
    pub(super) fn cell(
        &self,
        prompt: usize,
        generate: usize,
        concurrency: usize,
        step_gb: f64,
        copy_gb_s: f64,
    ) -> Cell {
        let seconds = |time: &Duration| time.as_secs_f64();
        let mut firsts: Vec<f64> = self.tokens.values().filter_map(|times| times.first()).map(seconds).collect();
        firsts.sort_by(f64::total_cmp);
        let all_decode = firsts.last().copied().unwrap_or(0.0);
        let mut gaps: Vec<f64> = Vec::new();
        let mut after = 0usize;
        let mut end = all_decode;
        for times in self.tokens.values() {
            for pair in times.windows(2) {
                if let [before, now] = pair
                    && seconds(before) >= all_decode
                {
                    gaps.push(seconds(now) - seconds(before));
                }
            }
            after += times.iter().filter(|time| seconds(time) > all_decode).count();
            end = end.max(times.last().map_or(0.0, seconds));
        }
        gaps.sort_by(f64::total_cmp);
        let itl_p50 = percentile(&gaps, 0.5);
        Cell {
            prompt,
            generate,
            concurrency,
            ttft_ms: percentile(&firsts, 0.5) * 1e3,
            prefill_tok_s: (concurrency * prompt) as f64 / all_decode,
            decode_tok_s: if end > all_decode { after as f64 / (end - all_decode) } else { 0.0 },
            itl_p50_ms: itl_p50 * 1e3,
            itl_p99_ms: percentile(&gaps, 0.99) * 1e3,
            step_gb,
            drawn: self.drawn(),
            floor_share: if itl_p50 > 0.0 { step_gb / copy_gb_s / itl_p50 } else { 0.0 },
        }
    }
}
