//! An upstream server generates, and the page is the same: answers, queue, stop, who is asked, and when it is ready.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use xverse_chat::{
    chat::{
        command::SendCommand,
        error::ErrorCode,
        event::{EndReason, Event, EventKind},
        info::{EngineStatus, PromptFormat},
        message::Role,
        settings::Sampling,
    },
    engine::remote::{Patience, RemoteEngine, RemoteOptions},
    render,
    server::upstream::take_in,
};

use crate::{
    client::{DEADLINE, Screen, assert_refused, generation, say, until, until_text},
    house::{House, Plan},
    process::Running,
    program::Program,
    stub::{Act, Gate, Piece, SAID, Stub, end, token},
};

/// Patience of a test: short pauses, and time for whatever does not hang.
pub const PATIENCE: Patience = Patience {
    connect: DEADLINE,
    first_token: DEADLINE,
    between: DEADLINE,
    after_finish: Duration::from_millis(200),
    tries: 3,
    first_pause: Duration::from_millis(5),
    longest_pause: Duration::from_millis(50),
    check_every: Duration::from_millis(50),
    check_time: DEADLINE,
};

pub fn options(stubs: &[&Stub]) -> RemoteOptions {
    let addresses = stubs.iter().map(|stub| stub.address.clone()).collect();
    RemoteOptions { addresses, key: None, max_running: 8, max_waiting: 8, patience: PATIENCE }
}

/// A server before these upstreams.
pub async fn house(options: RemoteOptions) -> House {
    let house = House::build(Plan { is_loaded: false, ..Plan::default() });
    let upstream = RemoteEngine::open(options).unwrap();
    let model = upstream.connect(PromptFormat::V2, Sampling::default(), |_| {}).await;
    take_in(&house.server, &upstream, model);
    house
}

/// Says something in a new conversation and reads the answer.
pub async fn answered(house: &House) -> Screen {
    house.whole(generation(&house.started(&say("hello")).await)).await
}

#[tokio::test]
async fn an_upstreams_answer_is_one_like_any_other() {
    let stub = Stub::start().await;
    let house = house(options(&[&stub])).await;
    let command = SendCommand { system: "be kind".to_owned(), ..say("hello") };
    let started = house.started(&command).await;
    let screen = house.whole(generation(&started)).await;
    let text = SAID.concat();
    assert_eq!((screen.reason(), screen.text()), (EndReason::EndOfText, text.as_str()));
    assert_eq!(screen.blocks, render::markdown(&text));
    let stats = screen.end.unwrap().1;
    assert_eq!((stats.prompt_tokens, stats.generated_tokens), (9, 5), "as the upstream counted");
    assert!(stats.first_token_ms > 0.0);

    let next = SendCommand { parent: Some(started.answer.id), conversation: command.conversation, ..say("result") };
    let next = SendCommand { role: Role::Exec, system: "be kind".to_owned(), ..next };
    house.whole(generation(&house.started(&next).await)).await;
    let asked = stub.asked();
    assert_eq!(asked[0]["messages"][0], json!({ "role": "system", "content": "be kind" }));
    let roles: Vec<&str> =
        asked[1]["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"]);
    assert_eq!(asked[1]["messages"][2]["content"], text);
    assert_eq!((&asked[1]["model"], &asked[1]["max_tokens"]), (&json!("stub-model"), &json!(1023)));

    let page = house.page(command.conversation).await;
    assert_eq!(page.conversation.unwrap().messages[1].text, text, "it is kept");
    let EngineStatus::Ready { model, .. } = page.engine else { panic!("it is ready") };
    assert_eq!((model.name.as_str(), model.context_length, model.is_computed_here()), ("stub-model", 1024, false));
    let metrics = house.get("/metrics").await.body;
    assert!(metrics.contains("xverse_generated_tokens_total 10"), "{metrics}");
}

#[tokio::test]
async fn an_upstreams_answer_cannot_be_gone_on_with() {
    let stub = Stub::with([Act::stream([token("One")].into_iter().chain(end("length", 3, 1)))]).await;
    let house = house(options(&[&stub])).await;
    let command = say("hello");
    let started = house.started(&command).await;
    assert_eq!(house.whole(generation(&started)).await.reason(), EndReason::Length);
    let refused = house.continue_answer(command.conversation, started.answer.id).await;
    assert_refused(&refused, 409, ErrorCode::Conflict);
    assert!(refused.error().message.contains("ask for another answer"), "{}", refused.body);
    assert_eq!(house.regenerate(command.conversation, started.answer.id).await.status, 200);
}

#[tokio::test]
async fn stop_closes_the_connection_within_a_second_and_keeps_the_text() {
    let stub = Stub::always(Act::begun(Piece::Hang)).await;
    let house = house(options(&[&stub])).await;
    let command = say("hello");
    let id = generation(&house.started(&command).await);
    let (mut events, mut screen) = (house.events(id, 0).await, Screen::default());
    until_text(&mut events, &mut screen).await;
    assert_eq!(stub.n_open(), 1);
    let stopped = Instant::now();
    assert_eq!(house.stop(id).await.status, 200);
    until(|| stub.n_open() == 0).await;
    assert!(stopped.elapsed() < Duration::from_secs(1), "{:?}", stopped.elapsed());
    while let Some(event) = events.next().await {
        screen.apply(&event);
    }
    assert_eq!(screen.reason(), EndReason::Stopped);
    assert!(screen.text().starts_with(SAID[0]), "{}", screen.text());
    assert_eq!(house.page(command.conversation).await.conversation.unwrap().messages[1].text, screen.text());
    let ready = house.server.loaded().unwrap();
    until(|| ready.engine.stats().running.get() == 0).await;
    assert_eq!(ready.engine.stats().cancelled.get(), 1);
}

#[tokio::test]
async fn requests_wait_in_order_are_told_their_places_and_beyond_the_bound_are_refused() {
    let gate = Gate::closed();
    let held = Act::stream([Piece::Gate(gate.clone()), token("One")].into_iter().chain(end("stop", 1, 1)));
    let stub = Stub::always(held).await;
    let house = house(RemoteOptions { max_running: 1, max_waiting: 2, ..options(&[&stub]) }).await;
    let mut ids = Vec::new();
    for text in ["first", "second", "third"] {
        ids.push(generation(&house.started(&say(text)).await));
    }
    assert_refused(&house.send(&say("fourth")).await, 503, ErrorCode::QueueFull);
    let place = |event: Option<Event>| match event.unwrap().kind {
        EventKind::Queued { place } => place,
        other => panic!("{other:?}"),
    };
    let mut third = house.events(ids[2], 0).await;
    assert_eq!(place(third.next().await), 2);
    let stats = house.server.loaded().unwrap().engine.stats().clone();
    assert_eq!((stats.running.get(), stats.waiting.get(), stats.rejected.get()), (1, 2, 1));
    // One that waits gives up, and the one behind it moves up.
    house.stop(ids[1]).await;
    assert_eq!(house.whole(ids[1]).await.reason(), EndReason::Stopped);
    assert_eq!(place(third.next().await), 1);
    gate.pass(2);
    for id in [ids[0], ids[2]] {
        assert_eq!(house.whole(id).await.text(), "One");
    }
    let said: Vec<_> = stub.asked().iter().map(|body| body["messages"][0]["content"].clone()).collect();
    assert_eq!(said, ["first", "third"], "nothing was asked for the one that gave up");
    until(|| stats.running.get() == 0 && stats.waiting.get() == 0).await;
}

#[tokio::test]
async fn the_least_busy_upstream_is_asked() {
    let gate = Gate::closed();
    let held = Act::stream([token("One"), Piece::Gate(gate.clone())].into_iter().chain(end("stop", 1, 1)));
    let stubs = [Stub::always(held.clone()).await, Stub::always(held).await];
    let house = house(options(&[&stubs[0], &stubs[1]])).await;
    let mut ids = Vec::new();
    for expected in [[1, 0], [1, 1], [2, 1], [2, 2]] {
        ids.push(generation(&house.started(&say("hello")).await));
        until(|| stubs.each_ref().map(Stub::n_open) == expected).await;
    }
    let shown = house.get("/metrics").await.body;
    for (name, expected) in [("well", 1), ("running", 2), ("failures_total", 0)] {
        for stub in &stubs {
            let line = format!("xverse_upstream_{name}{{upstream=\"{}\"}} {expected}\n", stub.address);
            assert!(shown.contains(&line), "{line}{shown}");
        }
    }
    gate.pass(4);
    for id in ids {
        assert_eq!(house.whole(id).await.reason(), EndReason::EndOfText);
    }
}

#[tokio::test]
async fn one_that_fails_is_left_out_until_it_is_well_again() {
    let stubs = [Stub::start().await, Stub::start().await];
    let house = house(options(&[&stubs[0], &stubs[1]])).await;
    stubs[0].set_ill(true);
    for _ in 0..4 {
        assert_eq!(answered(&house).await.reason(), EndReason::EndOfText);
    }
    assert!(stubs[0].asked().len() <= 1, "asked {} times", stubs[0].asked().len());
    assert_eq!(stubs[1].asked().len(), 4);
    assert_eq!(house.get("/readyz").await.status, 200);
    let shown = house.get("/metrics").await.body;
    for (name, expected) in [("well", [0, 1]), ("failures_total", [stubs[0].asked().len(), 0])] {
        for (stub, expected) in stubs.iter().zip(expected) {
            let line = format!("xverse_upstream_{name}{{upstream=\"{}\"}} {expected}\n", stub.address);
            assert!(shown.contains(&line), "{line}{shown}");
        }
    }
    stubs[0].set_ill(false);
    let before = stubs[0].asked().len();
    let deadline = Instant::now() + DEADLINE;
    while stubs[0].asked().len() == before {
        assert!(Instant::now() < deadline, "it is never asked again");
        answered(&house).await;
    }
}

#[tokio::test]
async fn where_no_upstream_is_well_it_is_not_ready_and_comes_back() {
    let stubs = [Stub::start().await, Stub::start().await];
    let house = house(options(&[&stubs[0], &stubs[1]])).await;
    assert_eq!(house.get("/readyz").await.status, 200);
    for stub in &stubs {
        stub.set_ill(true);
    }
    is_ready(&house, false).await;
    // Once checks have failed for good, nobody is kept waiting.
    let deadline = Instant::now() + DEADLINE;
    loop {
        let refused = house.send(&say("hello")).await;
        if refused.status == 503 {
            assert_refused(&refused, 503, ErrorCode::UpstreamUnreachable);
            assert_eq!(refused.header("retry-after"), "5");
            break;
        }
        assert!(Instant::now() < deadline, "{}", refused.body);
    }
    stubs[1].set_ill(false);
    is_ready(&house, true).await;
    assert_eq!(answered(&house).await.text(), SAID.concat());
}

#[tokio::test]
async fn a_lone_upstream_that_failed_once_is_still_worth_asking() {
    let stub = Stub::with([Act::begun(Piece::Die)]).await;
    let patience = Patience { check_every: Duration::from_hours(1), ..PATIENCE };
    let house = house(RemoteOptions { patience, ..options(&[&stub]) }).await;
    assert!(matches!(answered(&house).await.reason(), EndReason::Failed { .. }));
    // No check comes that could have found it well again.
    assert_eq!(house.get("/readyz").await.status, 200);
    assert_eq!(answered(&house).await.reason(), EndReason::EndOfText);
}

#[tokio::test]
async fn one_that_comes_back_with_another_context_and_model_is_asked_for_what_it_has_now() {
    let stubs = [Stub::start().await, Stub::start().await];
    let house = house(options(&[&stubs[0], &stubs[1]])).await;
    let before = *house.server.loaded().unwrap().fingerprint.as_bytes();
    stubs[0].set_model("larger", 4096);
    stubs[1].set_model("larger", 256);
    until(|| house.server.loaded().unwrap().model.context_length == 256).await;
    until(|| house.server.loaded().unwrap().model.name == "larger").await;
    assert_ne!(*house.server.loaded().unwrap().fingerprint.as_bytes(), before);
    let command = say("hello");
    house.whole(generation(&house.started(&command).await)).await;
    let EngineStatus::Ready { model, .. } = house.page(command.conversation).await.engine else {
        panic!("it is ready")
    };
    assert_eq!((model.name.as_str(), model.context_length, model.longest_answer), ("larger", 256, 255));
    let models = house.get("/v1/models").await.body;
    assert!(models.contains("\"larger\"") && models.contains("256"), "{models}");
    let asked = stubs.each_ref().map(Stub::asked).concat();
    assert_eq!((&asked[0]["model"], &asked[0]["max_tokens"]), (&json!("larger"), &json!(255)));
}

async fn is_ready(house: &House, expected: bool) {
    let deadline = Instant::now() + DEADLINE;
    while (house.get("/readyz").await.status == 200) != expected {
        assert!(Instant::now() < deadline, "it is never {expected}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn going_down_ends_its_answers_as_interrupted() {
    let stub = Stub::always(Act::begun(Piece::Hang)).await;
    let house = house(options(&[&stub])).await;
    let id = generation(&house.started(&say("hello")).await);
    let (mut events, mut screen) = (house.events(id, 0).await, Screen::default());
    until_text(&mut events, &mut screen).await;
    house.server.loaded().unwrap().engine.shut_down();
    while let Some(event) = events.next().await {
        screen.apply(&event);
    }
    assert_eq!(screen.reason(), EndReason::Interrupted);
    assert!(screen.text().starts_with(SAID[0]));
    until(|| stub.n_open() == 0).await;
}

#[tokio::test]
async fn the_page_is_there_before_an_upstream_is_and_says_what_it_waits_for() {
    let stub = Stub::start().await;
    stub.set_ill(true);
    let upstream = RemoteEngine::open(options(&[&stub])).unwrap();
    let mut told = Vec::new();
    let connecting = upstream.connect(PromptFormat::V1, Sampling::default(), |waiting| {
        told.push(waiting.to_owned());
        stub.set_ill(false);
    });
    let model = tokio::time::timeout(DEADLINE, connecting).await.unwrap();
    assert_eq!((model.name.as_str(), model.prompt_format), ("stub-model", PromptFormat::V1));
    assert_eq!(told, [format!("waiting for an upstream server: {}, it answered with status 503", stub.address)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_runs_before_an_upstream_and_sends_it_the_key_of_the_environment() {
    let stub = Stub::start().await;
    let address = stub.address.to_string();
    let ended = tokio::task::spawn_blocking(move || {
        let program = Program::new();
        let mut command = program.command(&["--port=0", "--upstream", &address]);
        command.env("XVERSE_UPSTREAM_KEY", "sk-geheim");
        let mut running = Running::run(command, program);
        running.line("model     stub-model");
        running.line(&format!("upstream  {address}"));
        running.line("context   1024 tokens");
        assert_eq!(running.client(0).told("GET", "/readyz", "").0, 200);
        running.tell_to_end();
        running.status()
    });
    assert_eq!(ended.await.unwrap(), Some(0));
    let keys = stub.keys();
    assert!(!keys.is_empty() && keys.iter().all(|key| key == "Bearer sk-geheim"), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_lines_are_objects_each_one_on_standard_error_is_one() {
    let ended = tokio::task::spawn_blocking(|| {
        let program = Program::new();
        std::fs::write(program.path("data"), "no folder").unwrap();
        let mut command = program.command(&["--port=0", "--upstream=http://127.0.0.1:1"]);
        command.env("XVERSE_LOG_FORMAT", "json").env("XVERSE_ACCESS_TOKEN", "short").stderr(Stdio::piped());
        let mut running = Running::run(command, program);
        let mut lines = BufReader::new(running.child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut messages = Vec::new();
        // Said last.
        while !messages.iter().any(|message: &String| message.contains("waiting for an upstream server")) {
            let line = lines.next().unwrap();
            let json: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            messages.push(json["message"].as_str().unwrap().to_owned());
        }
        for expected in ["can be guessed", "are not saved"] {
            assert!(messages.iter().any(|message| message.contains(expected)), "{messages:?}");
        }
        running.tell_to_end();
        running.status()
    });
    assert_eq!(ended.await.unwrap(), Some(0));
    let refused = || {
        let program = Program::new();
        let mut command = program.command(&["--port=0", "--model_path=/no/such/model"]);
        command.env("XVERSE_LOG_FORMAT", "json");
        Program::ended(command, Instant::now() + DEADLINE)
    };
    let ended = tokio::task::spawn_blocking(refused).await.unwrap();
    assert_eq!(ended.status, 78);
    for line in ended.stderr.lines() {
        let json: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(json["message"].as_str().unwrap().contains("/no/such/model"), "{line}");
    }
}

#[test]
fn flags_of_a_model_of_its_own_are_refused_beside_an_upstream() {
    let program = Program::new();
    let ended = program.run(&["--port=0", "--upstream=http://127.0.0.1:1", "--quantize=8"]);
    ended.assert(2, &["--quantize", "--upstream", "hint: "]);
    let ended = program.run(&["--port=0", "--upstream=gpu:8000"]);
    assert!(ended.status == 2 && ended.stderr.contains("http://HOST:PORT"), "{}", ended.stderr);
}

#[test]
fn a_key_is_no_flag() {
    assert_eq!(Program::new().run(&["--upstream_key=sk"]).status, 2);
}
