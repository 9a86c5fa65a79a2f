//! The thread over a backend that follows a script.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    chat::settings::Sampling,
    engine::{
        backend::{BackendError, BackendSpec, Batch, Drawn, Row, RowOutput},
        kv::BlockId,
        request::{CacheScope, EngineEnd, LogprobsRequest},
        sampling::SamplingError,
    },
};

const EOS: u32 = 3;
const LETTER_A: u32 = 4;

/// Draws a, b, c, … by how many tokens are there already, and at given steps does what goes wrong.
struct Scripted {
    spec: BackendSpec,
    n_steps: usize,
    fault: fn(usize) -> Fault,
}

enum Fault {
    None,
    Panic,
    Error,
    Lost,
    NotANumber,
}

impl Backend for Scripted {
    fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    fn step(&mut self, batch: &Batch) -> Result<Vec<Result<RowOutput, SamplingError>>, BackendError> {
        self.n_steps += 1;
        let output = |row: &Row| RowOutput {
            drawn: row.draw.map(|draw| Drawn { token: LETTER_A + draw.index as u32 % 26, logprobs: None }),
            ..RowOutput::default()
        };
        match (self.fault)(self.n_steps) {
            Fault::None => Ok(batch.rows.iter().map(|row| Ok(output(row))).collect()),
            Fault::Panic => panic!("as the script says"),
            Fault::Error => Err(candle_core::Error::Msg("as the script says".into()).into()),
            Fault::Lost => Err(BackendError::DeviceLost("as the script says".into())),
            Fault::NotANumber => Ok(batch.rows.iter().map(|_| Err(SamplingError::NotANumber)).collect()),
        }
    }

    fn release(&mut self, _sequence: SequenceId) {}

    fn poison(&mut self, _blocks: &[BlockId]) {}

    fn reset(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

fn tokenizer() -> Arc<ChatTokenizer> {
    let special = ["<unk>", "<pad>", "<|startoftext|>", "<|endoftext|>"];
    let letters = ('a'..='z').map(|letter| letter.to_string());
    let vocab: serde_json::Map<String, serde_json::Value> =
        special.into_iter().map(str::to_owned).chain(letters).zip(0u32..).map(|(t, id)| (t, id.into())).collect();
    let added: Vec<serde_json::Value> = special
        .into_iter()
        .enumerate()
        .skip(1)
        .map(|(id, content)| {
            serde_json::json!({"id": id, "content": content, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let metaspace = serde_json::json!({"type": "Metaspace", "replacement": "▁", "add_prefix_space": false});
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": metaspace, "post_processor": null, "decoder": metaspace,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    Arc::new(ChatTokenizer::open(dir.path()).unwrap())
}

fn engine(options: EngineOptions, fault: fn(usize) -> Fault) -> EngineHandle {
    let spec = BackendSpec {
        name: "scripted",
        device: "none".into(),
        vocab_size: 30,
        max_positions: 1024,
        n_blocks: 256,
        prefill_chunk: 16,
        weight_bytes: 0,
        dtype: "f32",
    };
    EngineHandle::spawn(Box::new(Scripted { spec, n_steps: 0, fault }), tokenizer(), EOS, options)
}

fn request(max_new_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        prompt_ids: Arc::from([5, 6, 7]),
        continued_ids: Arc::from([]),
        sampling: Sampling { max_new_tokens, ..Sampling::default() },
        seed: 0,
        ignore_eos: false,
        stop: Vec::new(),
        logprobs: LogprobsRequest::default(),
        scope: CacheScope::Alone,
    }
}

/// All text, and the end.
fn read(mut generation: Generation) -> (String, EngineEnd) {
    let mut all = String::new();
    while let Some(event) = generation.blocking_next() {
        match event {
            EngineEvent::Token { text, .. } => all.push_str(&text),
            EngineEvent::End { reason, text } => {
                assert!(generation.blocking_next().is_none(), "nothing comes after the end");
                return (all + &text, reason);
            }
            EngineEvent::Queued { .. }
            | EngineEvent::Prefilled { .. }
            | EngineEvent::PromptLogprobs(_)
            | EngineEvent::EndToken(_) => {}
            EngineEvent::Text { .. } | EngineEvent::LeftOut { .. } | EngineEvent::Counted { .. } => {
                panic!("only upstreams say so")
            }
        }
    }
    panic!("the events ended without an end");
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_idle(engine: &EngineHandle) -> bool {
    let stats = engine.stats();
    stats.running.get() == 0 && stats.waiting.get() == 0 && stats.kv_blocks_used.get() == 0
}

const SLOW: EngineOptions = EngineOptions {
    max_running: 2,
    max_waiting: 2,
    prefill_chunk: Some(16),
    min_step_ms: 5,
    poison_freed_blocks: false,
    stall_floor: Duration::from_secs(30),
};

#[test]
fn tokens_become_text_and_the_end_comes_last() {
    let engine = engine(EngineOptions::default(), |_| Fault::None);
    assert_eq!(read(engine.submit(request(5)).unwrap()), ("abcde".into(), EngineEnd::Length));
    eventually("all is given back", || is_idle(&engine));
    assert_eq!(engine.stats().generated_tokens.get(), 5);
    assert_eq!(engine.stats().prefill_tokens.get(), 3);
}

#[test]
fn dropping_the_events_frees_the_slot_within_a_step() {
    let engine = engine(SLOW, |_| Fault::None);
    let mut generation = engine.submit(request(900)).unwrap();
    generation.blocking_next().unwrap();
    drop(generation);
    eventually("the slot is free", || engine.stats().cancelled.get() == 1 && is_idle(&engine));
    let steps = engine.stats().steps.get();
    assert_eq!(read(engine.submit(request(1)).unwrap()).1, EngineEnd::Length);
    assert_eq!(engine.stats().steps.get(), steps + 1, "nothing is computed for who is gone");
}

#[test]
fn a_cancelled_answer_keeps_its_text_and_says_so() {
    let engine = engine(SLOW, |_| Fault::None);
    let mut generation = engine.submit(request(900)).unwrap();
    while !matches!(generation.blocking_next(), Some(EngineEvent::Token { .. })) {}
    generation.cancel();
    assert_eq!(read(generation).1, EngineEnd::Cancelled);
}

#[test]
fn a_queued_request_can_be_cancelled() {
    let engine = engine(EngineOptions { max_running: 1, ..SLOW }, |_| Fault::None);
    let running = engine.submit(request(900)).unwrap();
    let mut waiting = engine.submit(request(900)).unwrap();
    assert_eq!(waiting.blocking_next(), Some(EngineEvent::Queued { place: 1 }));
    waiting.cancel();
    assert_eq!(read(waiting), (String::new(), EngineEnd::Cancelled));
    drop(running);
}

#[test]
fn a_full_queue_answers_at_once_and_takes_again_when_there_is_room() {
    let engine = engine(SLOW, |_| Fault::None);
    let live: Vec<Generation> = (0..4).map(|_| engine.submit(request(900)).unwrap()).collect();
    let refused = engine.submit(request(1)).unwrap_err();
    assert_eq!(refused, SubmitError::QueueFull { waiting: 2, limit: 2 });
    assert_eq!(engine.stats().rejected.get(), 1);
    drop(live);
    eventually("there is room", || engine.submit(request(1)).is_ok());
}

#[test]
fn what_can_never_run_is_refused() {
    let engine = engine(EngineOptions::default(), |_| Fault::None);
    let too_long = SubmitError::TooLong { prompt: 3, max_new: 1022, limit: 1024 };
    assert_eq!(engine.submit(request(1022)).unwrap_err(), too_long);
    let empty = GenerationRequest { prompt_ids: Arc::from([]), ..request(1) };
    assert_eq!(engine.submit(empty).unwrap_err(), SubmitError::EmptyPrompt);
    let unknown = GenerationRequest { prompt_ids: Arc::from([30]), ..request(1) };
    assert_eq!(engine.submit(unknown).unwrap_err(), SubmitError::UnknownToken { id: 30, vocab_size: 30 });
}

#[test]
fn a_stop_string_ends_the_answer_and_is_not_in_it() {
    let engine = engine(EngineOptions::default(), |_| Fault::None);
    let stop = vec!["def".to_owned()];
    let generation = engine.submit(GenerationRequest { stop, ..request(900) }).unwrap();
    assert_eq!(read(generation), ("abc".into(), EngineEnd::StopString));
    eventually("the slot is free", || is_idle(&engine));
}

#[test]
fn a_stop_string_that_the_last_allowed_token_completes_is_the_reason() {
    let engine = engine(EngineOptions::default(), |_| Fault::None);
    let stop = vec!["def".to_owned()];
    let generation = engine.submit(GenerationRequest { stop, ..request(6) }).unwrap();
    assert_eq!(read(generation), ("abc".into(), EngineEnd::StopString));
}

#[test]
fn what_only_began_like_a_stop_string_is_told_at_the_end() {
    let engine = engine(EngineOptions::default(), |_| Fault::None);
    let stop = vec!["def".to_owned()];
    let generation = engine.submit(GenerationRequest { stop, ..request(5) }).unwrap();
    assert_eq!(read(generation), ("abcde".into(), EngineEnd::Length));
}

#[tokio::test]
async fn a_lost_device_ends_the_answers_and_the_thread_and_says_why() {
    let engine = engine(EngineOptions::default(), |n| if n == 3 { Fault::Lost } else { Fault::None });
    let mut generation = engine.submit(request(5)).unwrap();
    let waits = engine.over();
    let mut last = None;
    while let Some(event) = generation.next().await {
        last = Some(event);
    }
    assert_eq!(last, Some(EngineEvent::End { reason: EngineEnd::ShuttingDown, text: String::new() }));
    assert_eq!(waits.await, "the device is lost: as the script says");
    assert_eq!(engine.submit(request(5)).unwrap_err(), SubmitError::ShuttingDown);
}

#[test]
fn after_a_panic_or_an_error_in_a_step_the_next_request_is_answered() {
    for fault in [(|n| if n == 3 { Fault::Panic } else { Fault::None }) as fn(usize) -> Fault, |n| {
        if n == 3 { Fault::Error } else { Fault::None }
    }] {
        let engine = engine(EngineOptions::default(), fault);
        assert_eq!(read(engine.submit(request(5)).unwrap()), ("ab".into(), EngineEnd::StepFailed));
        assert_eq!(read(engine.submit(request(2)).unwrap()), ("ab".into(), EngineEnd::Length));
        assert_eq!(engine.stats().failures.get(), 1);
        assert!(engine.is_alive());
    }
}

#[test]
fn logits_that_are_no_numbers_end_the_answer_with_that_reason() {
    let engine = engine(EngineOptions::default(), |n| if n == 2 { Fault::NotANumber } else { Fault::None });
    assert_eq!(read(engine.submit(request(5)).unwrap()), ("a".into(), EngineEnd::NotANumber));
}

#[test]
fn shutting_down_ends_what_runs_and_what_waits() {
    let engine = engine(SLOW, |_| Fault::None);
    let live: Vec<Generation> = (0..4).map(|_| engine.submit(request(900)).unwrap()).collect();
    engine.shut_down();
    for generation in live {
        assert_eq!(read(generation).1, EngineEnd::ShuttingDown);
    }
    assert_eq!(engine.submit(request(1)).unwrap_err(), SubmitError::ShuttingDown);
    assert!(!engine.is_alive());
}

#[test]
fn a_reader_that_never_reads_does_not_hold_up_the_others() {
    let engine = engine(EngineOptions::default(), |_| Fault::None);
    let unread = engine.submit(request(900)).unwrap();
    assert_eq!(read(engine.submit(request(900)).unwrap()).1, EngineEnd::Length);
    assert_eq!(read(unread).1, EngineEnd::Length, "and finds everything when it does");
}

#[test]
fn a_continued_answer_goes_on_with_its_text() {
    let engine = engine(EngineOptions::default(), |_| Fault::None);
    let continued_ids = Arc::from([LETTER_A, LETTER_A + 1]);
    let generation = engine.submit(GenerationRequest { continued_ids, ..request(4) }).unwrap();
    assert_eq!(read(generation), ("cd".into(), EngineEnd::Length));
}
