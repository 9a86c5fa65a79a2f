//! Steps that are launched ahead, beside sequences that come, end and are cancelled in between.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::{
    CudaBackend, CudaSettings,
    backend_tests::{config, ids, weights},
    emulator::Emulator,
    kernels::Cells,
};
use crate::{
    chat::settings::Sampling,
    engine::{
        backend::{Backend, SequenceId},
        config::ModelConfig,
        precision::Precision,
        request::{CacheScope, EngineEnd, GenerationRequest, LogprobsRequest},
        scheduler::{Outcome, Scheduler, SchedulerLimits},
        weights::{TensorInfo, Weights, WeightsError},
    },
};

const N_BLOCKS: usize = 48;
const EOS: u32 = 77;

/// What happens before the step of that number.
#[derive(Clone, Copy)]
enum Event {
    /// A prompt of so many tokens, of which so many are generated at most.
    Submit { step: usize, n_prompt: usize, max_new_tokens: u32 },
    /// The sequence of that index in the order of their coming is ended.
    End { step: usize, index: usize },
}

struct Outcomes {
    answers: BTreeMap<SequenceId, Vec<u32>>,
    ended: usize,
    /// Steps behind which another one was under way.
    n_ahead: usize,
}

fn backend(config: &ModelConfig, weights: &dyn Weights, ahead: bool) -> CudaBackend {
    let settings = CudaSettings { ahead, ..CudaSettings::default() };
    let of = (Precision::default(), Cells::Bf16, N_BLOCKS);
    CudaBackend::new(Box::new(Emulator::new()), (config, weights), of, settings).unwrap()
}

fn request(index: usize, n_prompt: usize, max_new_tokens: u32, logprobs: bool) -> GenerationRequest {
    GenerationRequest {
        prompt_ids: ids(n_prompt, index % 3).into(),
        continued_ids: Arc::from([]),
        sampling: Sampling {
            temperature: if index.is_multiple_of(3) { 0.0 } else { 1.3 },
            top_k: 60,
            top_p: 0.95,
            repetition_penalty: 1.3,
            max_new_tokens,
        },
        seed: index as u64,
        ignore_eos: false,
        stop: Vec::new(),
        logprobs: LogprobsRequest { generated: logprobs.then_some(2), prompt: None },
        scope: CacheScope::Shared((index % 3) as u128),
    }
}

/// Runs the scheduler on the backend, whose blocks are poisoned when they are given back.
fn run(backend: &mut CudaBackend, events: &[Event], with_logprobs: Option<usize>) -> Outcomes {
    let limits = SchedulerLimits { max_running: 6, prefill_chunk: 8, end_tokens: EOS.into() };
    let mut scheduler = Scheduler::new(limits, N_BLOCKS);
    let mut found = Outcomes { answers: BTreeMap::new(), ended: 0, n_ahead: 0 };
    let (mut n_submitted, mut step) = (0, 0);
    let last = events.iter().map(Event::step).max().unwrap_or(0);
    loop {
        for event in events.iter().filter(|event| event.step() == step) {
            let outcomes = match *event {
                Event::Submit { n_prompt, max_new_tokens, .. } => {
                    let sequence = SequenceId(n_submitted as u64);
                    found.answers.insert(sequence, Vec::new());
                    let logprobs = with_logprobs == Some(n_submitted);
                    n_submitted += 1;
                    scheduler.submit(sequence, request(n_submitted - 1, n_prompt, max_new_tokens, logprobs))
                }
                Event::End { index, .. } => scheduler.end(SequenceId(index as u64), EngineEnd::Cancelled),
            };
            found.take(outcomes, backend);
        }
        backend.poison(&scheduler.take_freed());
        let batch = scheduler.plan();
        if batch.rows.is_empty() && step > last {
            return found;
        }
        if !batch.rows.is_empty() {
            let outputs = backend.step(&batch).unwrap();
            found.n_ahead += usize::from(backend.ahead.is_some());
            let outcomes = scheduler.step_done(&batch, outputs);
            found.take(outcomes, backend);
        }
        step += 1;
    }
}

impl Event {
    fn step(&self) -> usize {
        match self {
            Self::Submit { step, .. } | Self::End { step, .. } => *step,
        }
    }
}

impl Outcomes {
    fn take(&mut self, outcomes: Vec<Outcome>, backend: &mut CudaBackend) {
        for outcome in outcomes {
            match outcome {
                Outcome::Drawn(sequence, token, _) => self.answers.get_mut(&sequence).unwrap().push(token),
                Outcome::Ended(sequence, reason) => {
                    assert_ne!(reason, EngineEnd::NotANumber, "{sequence:?}");
                    self.ended += 1;
                    backend.release(sequence);
                }
                Outcome::Queued(..)
                | Outcome::Prefilled { .. }
                | Outcome::PromptLogprobs(..)
                | Outcome::EndToken(..) => {}
            }
        }
    }
}

fn submit(step: usize, n_prompt: usize, max_new_tokens: u32) -> Event {
    Event::Submit { step, n_prompt, max_new_tokens }
}

fn end(step: usize, index: usize) -> Event {
    Event::End { step, index }
}

/// The same answers with steps ahead as without; gives how many steps were.
fn assert_same(config: &ModelConfig, weights: &dyn Weights, events: &[Event], with_logprobs: Option<usize>) -> usize {
    let [without, with] = [false, true].map(|ahead| run(&mut backend(config, weights, ahead), events, with_logprobs));
    assert_eq!(without.answers, with.answers);
    assert_eq!((without.ended, with.ended), (with.answers.len(), with.answers.len()));
    assert_eq!(without.n_ahead, 0);
    with.n_ahead
}

#[test]
fn one_sequence_goes_on_ahead_across_blocks_up_to_its_last_token() {
    let n_ahead = assert_same(&config(), &*weights(), &[submit(0, 13, 40)], None);
    // The prompt's step and that of the last token have none behind them.
    assert_eq!(n_ahead, 38);
}

#[test]
fn sequences_that_come_end_and_are_cancelled_get_the_answers_that_they_get_step_by_step() {
    let events = [
        submit(0, 5, 30),
        submit(0, 20, 11),
        submit(3, 33, 60),
        submit(4, 4, 3),
        end(9, 0),
        submit(12, 18, 25),
        submit(20, 60, 20),
        // The next turn of an earlier one, in blocks that it left behind.
        submit(24, 50, 12),
        end(27, 2),
        submit(28, 40, 9),
        submit(29, 12, 30),
        end(40, 9),
    ];
    let n_ahead = assert_same(&config(), &*weights(), &events, None);
    assert!(n_ahead >= 20, "{n_ahead}");
}

#[test]
fn a_row_that_asks_for_probabilities_keeps_the_others_from_going_ahead_and_changes_nothing() {
    let events = [submit(0, 7, 20), submit(5, 9, 6), submit(8, 3, 10)];
    let n_ahead = assert_same(&config(), &*weights(), &events, Some(1));
    assert!((5..20).contains(&n_ahead), "{n_ahead}");
}

/// Weights whose head gives every token the same logit.
struct Level(Arc<dyn Weights>);

impl Weights for Level {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.0.info(name)
    }

    fn read(&self, name: &str, rows: Range<usize>, bytes: &mut [u8]) -> Result<(), WeightsError> {
        self.0.read(name, rows, bytes)?;
        if name == "lm_head.weight" {
            bytes.fill(0);
        }
        Ok(())
    }
}

#[test]
fn where_ties_leave_the_draw_to_the_host_the_step_ahead_is_computed_again() {
    let config = ModelConfig { vocab_size: 1200, ..config() };
    let weights = Level(crate::engine::checkpoint::random(&config, 7, crate::engine::weights::NumberType::Bf16));
    // The first one is greedy, which the device draws even so, the others are not.
    let n_ahead = assert_same(&config, &weights, &[submit(0, 5, 12), submit(2, 9, 14)], None);
    assert!(n_ahead > 5, "{n_ahead}");
}

#[test]
fn a_failed_step_forgets_what_was_ahead() {
    let mut backend = backend(&config(), &*weights(), true);
    let expected = run(&mut backend, &[submit(0, 9, 10)], None).answers;
    let limits = SchedulerLimits { max_running: 1, prefill_chunk: 8, end_tokens: EOS.into() };
    let mut scheduler = Scheduler::new(limits, N_BLOCKS);
    scheduler.submit(SequenceId(0), request(0, 9, 10, false));
    for _ in 0..3 {
        let batch = scheduler.plan();
        let outputs = backend.step(&batch).unwrap();
        scheduler.step_done(&batch, outputs);
    }
    assert!(backend.ahead.is_some());
    backend.reset().unwrap();
    assert!(backend.ahead.is_none());
    assert_eq!(run(&mut backend, &[submit(0, 9, 10)], None).answers, expected);
}
