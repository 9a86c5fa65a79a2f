//! What the engine may do wrong: its answers end with a code and keep their text, and the next one is right.

use std::time::{Duration, Instant};

use xverse_chat::{
    chat::{command::SendCommand, error::ErrorCode, event::EndReason, ids::GenerationId, message::AnswerState},
    server::watchdog,
};

use crate::{
    client::{Screen, assert_refused, generation, say, until, until_text},
    house::{ANSWER, House, Plan},
    stage::scripted::{At, Fault},
};

/// After a fault the engine takes requests again within this time.
const READY_TIME: Duration = Duration::from_secs(2);

const RESTARTED: EndReason = EndReason::Failed { code: ErrorCode::EngineRestarted };
const STALLED: EndReason = EndReason::Failed { code: ErrorCode::EngineStalled };

/// Three answers that the engine works at from its second step on, when the gate is opened; each step draws one token
/// of each, the second one the first.
async fn three_answers(house: &House, command: impl Fn() -> SendCommand) -> [(SendCommand, GenerationId); 3] {
    let mut first = say("hello");
    first.settings.max_new_tokens = Some(1);
    house.started(&first).await;
    let engine = house.server.loaded().unwrap().engine.clone();
    until(|| engine.stats().step_due_ms.get() != 0).await;
    let begin = async || {
        let command = command();
        let id = generation(&house.started(&command).await);
        (command, id)
    };
    [begin().await, begin().await, begin().await]
}

async fn all(house: &House, answers: &[(SendCommand, GenerationId)]) -> Vec<Screen> {
    let mut screens = Vec::new();
    for (_, id) in answers {
        screens.push(house.whole(*id).await);
    }
    screens
}

/// Asserts that the engine takes requests again, soon, and that the next answer is right.
async fn is_well_again(house: &House) {
    let began = Instant::now();
    while house.get("/readyz").await.status != 200 {
        assert!(began.elapsed() < READY_TIME, "not ready {:?} after the fault", began.elapsed());
        tokio::task::yield_now().await;
    }
    let screen = house.whole(generation(&house.started(&say("again")).await)).await;
    assert_eq!((screen.reason(), screen.text()), (EndReason::EndOfText, ANSWER));
    let ready = house.server.loaded().unwrap();
    let stats = ready.engine.stats();
    until(|| stats.running.get() == 0 && stats.waiting.get() == 0 && stats.kv_blocks_used.get() == 0).await;
}

/// The whole engine fails at the step that would draw each answer's `n`-th token, counted from 1.
async fn all_fail_where_the_step_fails(n: u64, fault: Fault) {
    let house = House::build(Plan { is_held: true, faults: vec![(At::Step(n + 1), fault)], ..Plan::default() });
    let answers = three_answers(&house, || say("hello")).await;
    house.gate.open();
    for (screen, (command, _)) in all(&house, &answers).await.iter().zip(&answers) {
        assert_eq!(screen.reason(), RESTARTED, "{fault:?} at token {n}");
        let kept: String = ANSWER.chars().take(n as usize - 1).collect();
        assert_eq!(screen.text(), kept, "{fault:?} at token {n}");
        let page = house.page(command.conversation).await.conversation.unwrap();
        assert_eq!(page.messages[1].text, kept);
        assert_eq!(page.messages[1].answer.as_ref().unwrap().state, AnswerState::Ended { reason: RESTARTED });
    }
    is_well_again(&house).await;
    assert_eq!(house.server.loaded().unwrap().engine.stats().failures.get(), 1);
}

#[tokio::test]
async fn when_the_engine_panics_at_any_step_all_its_answers_end_with_a_code_and_the_next_is_right() {
    for n in 1..=40 {
        all_fail_where_the_step_fails(n, Fault::Panic).await;
    }
}

#[tokio::test]
async fn when_a_step_returns_an_error_all_its_answers_end_with_a_code_and_the_next_is_right() {
    for n in [1, 2, 17, 40] {
        all_fail_where_the_step_fails(n, Fault::Error).await;
    }
}

#[tokio::test]
async fn logits_that_are_no_numbers_end_their_answer_alone() {
    // Minus infinity everywhere leaves every probability zero.
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for temperature in [0.0, 1.0] {
            let faults = vec![(At::Step(8), Fault::Logits { row: 1, value })];
            let house = House::build(Plan { is_held: true, faults, ..Plan::default() });
            let answers = three_answers(&house, || {
                let mut command = say("hello");
                command.settings.temperature = Some(temperature);
                command
            })
            .await;
            house.gate.open();
            let ends: Vec<(EndReason, String)> =
                all(&house, &answers).await.iter().map(|screen| (screen.reason(), screen.text().to_owned())).collect();
            let whole = (EndReason::EndOfText, ANSWER.to_owned());
            let failed = (EndReason::Failed { code: ErrorCode::NotANumber }, ANSWER[..6].to_owned());
            assert_eq!(ends, [whole.clone(), failed, whole], "{value} at temperature {temperature}");
            is_well_again(&house).await;
            let failures = house.server.loaded().unwrap().engine.stats().failures.get();
            assert_eq!(failures, 0, "the sampler did not panic");
        }
    }
}

#[tokio::test]
async fn a_step_that_stalls_ends_all_answers_and_the_engine_is_ready_again_when_it_comes_back() {
    let stall_floor = Duration::from_millis(500);
    let house = House::build(Plan { is_held: true, max_running: 1, stall_floor, ..Plan::default() });
    let engine = house.server.loaded().unwrap().engine.clone();
    tokio::spawn(watchdog::watch(house.server.clone(), engine.clone()));
    house.gate.pass(8);
    let [running, waiting] = [house.started(&say("one")).await, house.started(&say("two")).await];
    let mut events = house.events(generation(&running), 0).await;
    let mut screen = Screen::default();
    until_text(&mut events, &mut screen).await;
    until(|| engine.stats().steps.get() == 8).await;
    assert!(engine.is_alive(), "a step that only began is none that stalled");

    // The ninth step does not come back.
    while let Some(event) = events.next().await {
        screen.apply(&event);
    }
    assert_eq!((screen.reason(), screen.text()), (STALLED, &ANSWER[..8]));
    let other = house.whole(generation(&waiting)).await;
    assert_eq!((other.reason(), other.text()), (STALLED, ""));
    assert!(engine.is_stalled() && !engine.is_alive());
    for refused in [house.get("/readyz").await, house.send(&say("late")).await] {
        assert_refused(&refused, 503, ErrorCode::EngineStalled);
        assert!(!refused.header("retry-after").is_empty());
    }
    assert_eq!(house.get("/healthz").await.status, 200);

    house.gate.open();
    is_well_again(&house).await;
}

#[tokio::test]
async fn a_step_of_which_nothing_is_known_may_take_its_time() {
    let stall_floor = Duration::from_millis(500);
    let house = House::build(Plan { is_held: true, stall_floor, ..Plan::default() });
    let engine = house.server.loaded().unwrap().engine.clone();
    tokio::spawn(watchdog::watch(house.server.clone(), engine.clone()));
    let started = house.started(&say("hello")).await;
    // Of the very first step nothing is known, so it may take twenty times the floor.
    let deadline = Instant::now() + 3 * stall_floor;
    while Instant::now() < deadline {
        assert!(engine.is_alive() && !engine.is_stalled());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    house.gate.open();
    let screen = house.whole(generation(&started)).await;
    assert_eq!((screen.reason(), screen.text()), (EndReason::EndOfText, ANSWER));
}

#[tokio::test]
async fn told_to_end_in_the_middle_of_a_step_that_never_ends_all_answers_have_their_ends() {
    let limits = xverse_chat::server::config::Limits { drain: Duration::ZERO, ..Plan::default().limits };
    let house = House::build(Plan { is_held: true, limits, ..Plan::default() });
    let id = generation(&house.started(&say("hello")).await);
    let engine = house.server.loaded().unwrap().engine.clone();
    house.gate.pass(3);
    until(|| engine.stats().steps.get() == 3).await;
    let began = Instant::now();
    xverse_chat::server::shutdown::drain(&house.server).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let screen = house.whole(id).await;
    assert_eq!((screen.reason(), screen.text()), (EndReason::Interrupted, &ANSWER[..3]));
}
