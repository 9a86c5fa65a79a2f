//! Whoever goes away: a page's reader ends its subscription and nothing else, a client of the engine its request.

use std::sync::Arc;

use xverse_chat::{
    chat::{event::EndReason, settings::Sampling},
    engine::{
        request::{CacheScope, EngineEnd, EngineEvent, GenerationRequest, LogprobsRequest},
        worker::Generation,
    },
};

use crate::{
    client::{SOMEBODY, generation, say, until},
    house::{ANSWER, House, Plan},
};

/// How far an answer is when somebody goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Queued,
    InPrefill,
    BeforeFirstToken,
    MidStream,
    AfterLastToken,
}

const MOMENTS: [Moment; 5] =
    [Moment::Queued, Moment::InPrefill, Moment::BeforeFirstToken, Moment::MidStream, Moment::AfterLastToken];

/// Longer than two chunks of a prompt.
const LONG: &str = "a question of so many characters that it takes three steps to read them, no more";

impl Moment {
    fn house(self) -> House {
        let max_running = if self == Self::Queued { 1 } else { 4 };
        House::build(Plan { is_held: true, max_running, prefill_chunk: Some(12), ..Plan::default() })
    }

    /// Whether the engine's event says that a request of three chunks is so far.
    fn is_told_by(self, event: &EngineEvent) -> bool {
        match (self, event) {
            (Self::InPrefill, EngineEvent::Prefilled { done, .. }) => *done == 48,
            (Self::BeforeFirstToken, EngineEvent::Prefilled { done, .. }) => *done == 96,
            (Self::Queued, EngineEvent::Queued { place: 1 })
            | (Self::MidStream, EngineEvent::Token { .. })
            | (Self::AfterLastToken, EngineEvent::End { .. }) => true,
            _ => false,
        }
    }

    /// Steps until then. The next one waits for the gate.
    fn steps(self) -> u64 {
        match self {
            Self::Queued | Self::InPrefill => 1,
            Self::BeforeFirstToken => 2,
            Self::MidStream => 6,
            // The last step draws the end.
            Self::AfterLastToken => 3 + ANSWER.chars().count() as u64,
        }
    }
}

/// Lets steps through until the moment has come.
async fn bring_to(moment: Moment, house: &House) {
    let engine = house.server.loaded().unwrap().engine.clone();
    house.gate.pass(moment.steps());
    until(|| engine.stats().steps.get() == moment.steps()).await;
}

async fn reader_goes_at(moment: Moment) {
    let house = moment.house();
    let before = match moment {
        Moment::Queued => Some(generation(&house.started(&say("before")).await)),
        _ => None,
    };
    let started = house.started(&say(LONG)).await;
    let id = generation(&started);
    let events = house.events(id, 0).await;
    bring_to(moment, &house).await;
    let answer = house.server.generations.get(house.owner(SOMEBODY).await, id).unwrap();
    if moment == Moment::AfterLastToken {
        until(|| answer.is_over()).await;
    }
    assert_eq!(answer.is_over(), moment == Moment::AfterLastToken, "{moment:?}");
    drop(events);
    until(|| house.server.metrics.event_streams.get() == 0).await;
    house.gate.open();
    for id in before.into_iter().chain([id]) {
        let screen = house.whole(id).await;
        assert_eq!((screen.reason(), screen.text()), (EndReason::EndOfText, ANSWER), "{moment:?}");
    }
    assert_eq!(house.server.loaded().unwrap().engine.stats().cancelled.get(), 0);
}

#[tokio::test]
async fn a_reader_that_goes_away_at_any_moment_ends_its_subscription_and_nothing_else() {
    for moment in MOMENTS {
        reader_goes_at(moment).await;
    }
}

fn request(house: &House, n_prompt: usize) -> GenerationRequest {
    let ready = house.server.loaded().unwrap();
    GenerationRequest {
        prompt_ids: vec![10; n_prompt].into(),
        continued_ids: Arc::default(),
        sampling: Sampling { max_new_tokens: 128, ..ready.model.defaults },
        seed: 1,
        ignore_eos: false,
        stop: Vec::new(),
        logprobs: LogprobsRequest::default(),
        scope: CacheScope::Alone,
    }
}

async fn read(mut generation: Generation) -> (String, EngineEnd) {
    let mut all = String::new();
    while let Some(event) = generation.next().await {
        match event {
            EngineEvent::Token { text, .. } => all.push_str(&text),
            EngineEvent::End { reason, text } => return (all + &text, reason),
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

async fn client_goes_at(moment: Moment) {
    let house = moment.house();
    let engine = house.server.loaded().unwrap().engine.local().unwrap().engine.clone();
    let (neighbour, mut leaver) = match moment {
        // It is taken in when the neighbour's first step is over, and waits for all the others.
        Moment::Queued => {
            let neighbour = engine.submit(request(&house, 3)).unwrap();
            (Some(neighbour), engine.submit(request(&house, 100)).unwrap())
        }
        _ => (None, engine.submit(request(&house, 100)).unwrap()),
    };
    bring_to(moment, &house).await;
    let stats = engine.stats();
    while !moment.is_told_by(&leaver.next().await.expect("an event of the moment")) {}
    drop(leaver);
    // The step that is under way goes on; the next one knows.
    house.gate.pass(1);
    until(|| stats.running.get() == u64::from(neighbour.is_some()) && stats.waiting.get() == 0).await;
    assert!(stats.steps.get() <= moment.steps() + 1, "{moment:?}: nothing is computed for who is gone");
    house.gate.open();
    match neighbour {
        Some(neighbour) => assert_eq!(read(neighbour).await, (ANSWER.to_owned(), EngineEnd::EndOfText)),
        None => until(|| stats.kv_blocks_used.get() == 0).await,
    }
    // All places are free again, too.
    let refilled: Vec<Generation> =
        (0..=Plan::default().max_waiting).map(|_| engine.submit(request(&house, 3)).expect("a place")).collect();
    for generation in refilled {
        assert_eq!(read(generation).await, (ANSWER.to_owned(), EngineEnd::EndOfText), "{moment:?}");
    }
}

#[tokio::test]
async fn an_engine_client_that_goes_away_at_any_moment_frees_its_slot_within_one_step() {
    for moment in MOMENTS {
        client_goes_at(moment).await;
    }
}
