//! The scheduler driven without a device: a step "computes" whatever was planned.

use std::{collections::HashMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    chat::settings::Sampling,
    engine::{
        backend::{Drawn, Row},
        request::{CacheScope, LogprobsRequest},
    },
};

const EOS: u32 = 3;

fn scheduler(max_running: usize, prefill_chunk: usize, n_blocks: usize) -> Scheduler {
    Scheduler::new(SchedulerLimits { max_running, prefill_chunk, end_tokens: EOS.into() }, n_blocks)
}

fn request(n_prompt: usize, max_new_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        prompt_ids: (10..10 + n_prompt as u32).collect(),
        continued_ids: Arc::from([]),
        sampling: Sampling { max_new_tokens, ..Sampling::default() },
        seed: 0,
        ignore_eos: false,
        stop: Vec::new(),
        logprobs: LogprobsRequest::default(),
        scope: CacheScope::Alone,
    }
}

/// Each row that asks for a token gets `token`.
fn outputs(batch: &Batch, token: u32) -> Vec<Result<RowOutput, SamplingError>> {
    let output =
        |row: &Row| Ok(RowOutput { drawn: row.draw.map(|_| Drawn { token, logprobs: None }), ..RowOutput::default() });
    batch.rows.iter().map(output).collect()
}

fn step(scheduler: &mut Scheduler, token: u32) -> (Vec<usize>, Vec<Outcome>) {
    let batch = scheduler.plan();
    let chunks = batch.rows.iter().map(|row| row.ids.len() - row.start).collect();
    let outcomes = scheduler.step_done(&batch, outputs(&batch, token));
    (chunks, outcomes)
}

#[test]
fn a_prompt_is_read_in_chunks_and_the_last_chunk_draws() {
    let mut scheduler = scheduler(4, 4, 64);
    scheduler.submit(SequenceId(1), request(18, 3));
    assert_eq!(step(&mut scheduler, 50).0, [16]);
    let (chunks, outcomes) = step(&mut scheduler, 50);
    assert_eq!(chunks, [2]);
    assert!(outcomes.contains(&Outcome::Drawn(SequenceId(1), 50, None)), "{outcomes:?}");
}

#[test]
fn a_long_prompt_does_not_hold_up_those_that_decode() {
    let mut scheduler = scheduler(4, 8, 64);
    scheduler.submit(SequenceId(1), request(3, 100));
    step(&mut scheduler, 50);
    scheduler.submit(SequenceId(2), request(60, 5));
    for _ in 0..7 {
        let (chunks, outcomes) = step(&mut scheduler, 50);
        assert_eq!(chunks.first(), Some(&1));
        assert!(chunks.iter().skip(1).sum::<usize>() <= 8);
        assert!(outcomes.contains(&Outcome::Drawn(SequenceId(1), 50, None)));
    }
}

#[test]
fn nothing_is_kept_of_what_ended_without_numbers() {
    let mut scheduler = scheduler(1, 64, 64);
    let shared = GenerationRequest { scope: CacheScope::Shared(1), ..request(40, 10) };
    scheduler.submit(SequenceId(1), shared);
    step(&mut scheduler, 50);
    let batch = scheduler.plan();
    let outcomes = scheduler.step_done(&batch, vec![Err(SamplingError::NotANumber)]);
    assert_eq!(outcomes, [Outcome::Ended(SequenceId(1), EngineEnd::NotANumber)]);
    assert_eq!(scheduler.occupancy(), Occupancy { running: 0, waiting: 0, blocks_used: 0, blocks_cached: 0 });
}

#[test]
fn any_end_token_ends_and_is_not_told() {
    for end in [EOS, 9] {
        let end_tokens = EndTokens::from(EOS).and(&[9]);
        let mut scheduler = Scheduler::new(SchedulerLimits { max_running: 1, prefill_chunk: 8, end_tokens }, 8);
        scheduler.submit(SequenceId(1), request(3, 10));
        let (_, outcomes) = step(&mut scheduler, end);
        assert!(outcomes.contains(&Outcome::Ended(SequenceId(1), EngineEnd::EndOfText)));
        assert!(!outcomes.iter().any(|outcome| matches!(outcome, Outcome::Drawn(..))));
        assert_eq!(scheduler.occupancy(), Occupancy { running: 0, waiting: 0, blocks_used: 0, blocks_cached: 0 });
    }
}

#[test]
fn as_many_tokens_are_drawn_as_were_asked_for() {
    for max_new in 0..4 {
        let mut scheduler = scheduler(1, 8, 8);
        scheduler.submit(SequenceId(1), request(3, max_new));
        let mut drawn = 0;
        loop {
            let (_, outcomes) = step(&mut scheduler, 50);
            drawn += outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Drawn(..))).count();
            if outcomes.contains(&Outcome::Ended(SequenceId(1), EngineEnd::Length)) {
                break;
            }
        }
        assert_eq!(drawn, max_new as usize);
    }
}

#[test]
fn who_waits_hears_its_place_and_moves_up() {
    let mut scheduler = scheduler(1, 8, 64);
    scheduler.submit(SequenceId(1), request(3, 10));
    assert_eq!(scheduler.submit(SequenceId(2), request(3, 10)), [Outcome::Queued(SequenceId(2), 1)]);
    assert_eq!(scheduler.submit(SequenceId(3), request(3, 10)), [Outcome::Queued(SequenceId(3), 2)]);
    let outcomes = scheduler.end(SequenceId(1), EngineEnd::Cancelled);
    assert!(outcomes.contains(&Outcome::Queued(SequenceId(3), 1)), "{outcomes:?}");
    let outcomes = scheduler.end(SequenceId(3), EngineEnd::Cancelled);
    assert_eq!(outcomes, [Outcome::Ended(SequenceId(3), EngineEnd::Cancelled)]);
}

#[test]
fn a_request_waits_until_the_pool_can_promise_all_it_needs() {
    let mut scheduler = scheduler(8, 8, 4);
    scheduler.submit(SequenceId(1), request(16, 32));
    let outcomes = scheduler.submit(SequenceId(2), request(16, 32));
    assert_eq!(outcomes, [Outcome::Queued(SequenceId(2), 1)]);
    scheduler.end(SequenceId(1), EngineEnd::Cancelled);
    assert_eq!(scheduler.occupancy().running, 1);
}

#[test]
fn a_row_that_failed_ends_alone() {
    let mut scheduler = scheduler(4, 8, 64);
    scheduler.submit(SequenceId(1), request(3, 10));
    scheduler.submit(SequenceId(2), request(3, 10));
    let batch = scheduler.plan();
    let mut outputs = outputs(&batch, 50);
    outputs[0] = Err(SamplingError::NotANumber);
    let outcomes = scheduler.step_done(&batch, outputs);
    assert!(outcomes.contains(&Outcome::Ended(SequenceId(1), EngineEnd::NotANumber)));
    assert!(outcomes.contains(&Outcome::Drawn(SequenceId(2), 50, None)));
}

#[test]
fn after_a_failed_step_those_that_waited_go_on() {
    let mut scheduler = scheduler(1, 8, 64);
    scheduler.submit(SequenceId(1), request(3, 10));
    scheduler.submit(SequenceId(2), request(3, 10));
    scheduler.plan();
    assert_eq!(scheduler.end_running(EngineEnd::StepFailed), [Outcome::Ended(SequenceId(1), EngineEnd::StepFailed)]);
    scheduler.admit();
    assert!(step(&mut scheduler, 50).1.contains(&Outcome::Drawn(SequenceId(2), 50, None)));
}

#[test]
fn prompt_logprobs_are_asked_of_every_chunk_with_the_token_after_it() {
    let mut scheduler = scheduler(1, 2, 64);
    let logprobs = LogprobsRequest { generated: None, prompt: Some(2) };
    scheduler.submit(SequenceId(1), GenerationRequest { logprobs, ..request(12, 0) });
    let first = scheduler.plan();
    assert_eq!((first.rows[0].prompt_logprobs, first.rows[0].following), (Some(2), Some(18)));
    scheduler.step_done(&first, outputs(&first, 50));
    let second = scheduler.plan();
    assert_eq!((second.rows[0].prompt_logprobs, second.rows[0].following), (Some(2), None));
    let outcomes = scheduler.step_done(&second, outputs(&second, 50));
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Outcome::PromptLogprobs(..))));
    assert!(outcomes.contains(&Outcome::Ended(SequenceId(1), EngineEnd::Length)));
}

#[test]
fn a_continued_answer_goes_on_drawing_where_it_was() {
    let mut scheduler = scheduler(1, 8, 64);
    let continued_ids = Arc::from([70, 71]);
    scheduler.submit(SequenceId(1), GenerationRequest { continued_ids, ..request(3, 4) });
    let batch = scheduler.plan();
    assert_eq!(batch.rows[0].ids, [10, 11, 12, 70, 71]);
    assert_eq!(batch.rows[0].draw.map(|draw| draw.index), Some(2));
}

proptest! {
    #[test]
    fn every_sequence_ends_exactly_once_and_everything_comes_back(
        actions in proptest::collection::vec((0u8..6, 1usize..70, 0u32..12, 0u64..3), 1..200),
    ) {
        let mut scheduler = scheduler(3, 8, 24);
        let mut ended: HashMap<SequenceId, usize> = HashMap::new();
        let mut next = 0;
        for (action, n_prompt, max_new, pick) in actions {
            let outcomes = match action {
                0 | 1 => {
                    next += 1;
                    let scope = CacheScope::Shared(u128::from(pick));
                    scheduler.submit(SequenceId(next), GenerationRequest { scope, ..request(n_prompt, max_new) })
                }
                2 => scheduler.end(SequenceId(next.saturating_sub(pick)), EngineEnd::Cancelled),
                3 if pick == 0 => {
                    let mut outcomes = scheduler.end_running(EngineEnd::StepFailed);
                    outcomes.extend(scheduler.admit());
                    outcomes
                }
                _ => step(&mut scheduler, if max_new == 0 { EOS } else { 50 }).1,
            };
            for outcome in outcomes {
                let sequence = match &outcome {
                    Outcome::Ended(sequence, _) => {
                        *ended.entry(*sequence).or_default() += 1;
                        continue;
                    }
                    Outcome::Queued(sequence, _)
                    | Outcome::Prefilled { sequence, .. }
                    | Outcome::PromptLogprobs(sequence, _)
                    | Outcome::EndToken(sequence, _)
                    | Outcome::Drawn(sequence, ..) => sequence,
                };
                prop_assert!(!ended.contains_key(sequence), "an event after the end");
            }
            prop_assert!(scheduler.occupancy().running <= 3);
        }
        for _ in 0..2000 {
            for outcome in step(&mut scheduler, 50).1 {
                if let Outcome::Ended(sequence, _) = outcome {
                    *ended.entry(sequence).or_default() += 1;
                }
            }
        }
        prop_assert_eq!(ended.len() as u64, next);
        prop_assert!(ended.values().all(|times| *times == 1));
        let occupancy = scheduler.occupancy();
        prop_assert_eq!((occupancy.running, occupancy.waiting, occupancy.blocks_used), (0, 0, 0));
    }
}
