//! An answer is neither lost nor doubled, whoever reads it, whenever.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use xverse_chat::{
    chat::{
        command::{SendCommand, Started},
        error::ErrorCode,
        event::{EndReason, Event},
        ids::RequestId,
        message::{AnswerState, Role},
    },
    render,
    server::{
        config::Limits,
        shutdown::{Signals, drain, until_told},
    },
};

use crate::{
    client::{SOMEBODY, Screen, assert_refused, generation, say, until, until_text},
    house::{ANSWER, House, Plan},
    stage::scripted::{At, Fault},
};

#[tokio::test]
async fn a_sent_message_is_answered_to_its_end() {
    let house = House::build(Plan::default());
    let command = say("hello");
    let started = house.started(&command).await;
    assert_eq!(started.message.as_ref().unwrap().text, "hello");
    let screen = house.whole(generation(&started)).await;
    assert_eq!(screen.text(), ANSWER);
    assert_eq!(screen.blocks, render::markdown(ANSWER));
    assert_eq!(screen.reason(), EndReason::EndOfText);
    let (_, stats, _) = screen.end.unwrap();
    assert_eq!(stats.generated_tokens as usize, ANSWER.chars().count());
    assert!(stats.prompt_tokens > 0 && stats.first_token_ms > 0.0);

    let page = house.page(command.conversation).await;
    let messages = page.conversation.unwrap().messages;
    assert_eq!(messages.iter().map(|message| message.role).collect::<Vec<_>>(), [Role::User, Role::Assistant]);
    assert_eq!(messages[1].text, ANSWER);
    assert_eq!(messages[1].blocks, screen.blocks);
    let answer = messages[1].answer.as_ref().unwrap();
    assert_eq!(answer.state, AnswerState::Ended { reason: EndReason::EndOfText });
    assert_eq!(answer.stats, stats);
}

#[tokio::test]
async fn a_second_turn_follows_the_first_answer() {
    let house = House::build(Plan::default());
    let first = say("hello");
    let started = house.started(&first).await;
    house.whole(generation(&started)).await;
    let mut second = say("and then");
    second.conversation = first.conversation;
    second.parent = Some(started.answer.id);
    let again = house.started(&second).await;
    let screen = house.whole(generation(&again)).await;
    let stats = screen.end.unwrap().1;
    assert!(stats.prompt_tokens > 20, "the prompt holds the first round: {stats:?}");
    assert!(stats.reused_tokens >= 16, "what the first round computed is used again: {stats:?}");
    let page = house.page(first.conversation).await.conversation.unwrap();
    assert_eq!(page.messages.len(), 4);
    assert_eq!(page.leaf, Some(again.answer.id));
}

#[tokio::test]
async fn a_reader_that_comes_back_at_any_event_sees_the_same_answer() {
    let house = House::build(Plan { is_held: true, ..Plan::default() });
    let id = generation(&house.started(&say("hello")).await);
    let mut live = house.events(id, 0).await;
    let (mut screen, mut seen): (Screen, Vec<(Event, Screen)>) = Default::default();
    loop {
        house.gate.pass(1);
        let Ok(event) = tokio::time::timeout(Duration::from_millis(40), live.next()).await else {
            continue;
        };
        let Some(event) = event else { break };
        screen.apply(&event);
        seen.push((event, screen.clone()));
    }
    assert!(seen.len() > 10, "the answer came in parts: {}", seen.len());
    let whole = house.whole(id).await;
    assert_eq!((&whole.blocks, &whole.end), (&screen.blocks, &screen.end));
    let (_, before_end) = seen.split_last().unwrap();
    for (event, then) in before_end {
        let mut replayed = then.clone();
        let mut events = house.events(id, event.seq).await;
        while let Some(event) = events.next().await {
            replayed.apply(&event);
        }
        assert_eq!(replayed, screen, "from event {}", event.seq);
    }
}

#[tokio::test]
async fn after_the_end_a_browser_is_told_not_to_come_back() {
    let house = House::build(Plan::default());
    let id = generation(&house.started(&say("hello")).await);
    let last = house.whole(id).await.seq;
    let reply = house.get(&format!("/generations/{id}/events?after={last}")).await;
    assert_eq!(reply.status, 204);
}

#[tokio::test]
async fn stop_ends_the_answer_and_keeps_its_text() {
    let house = House::build(Plan { is_held: true, ..Plan::default() });
    let command = say("hello");
    let id = generation(&house.started(&command).await);
    let mut events = house.events(id, 0).await;
    let mut screen = Screen::default();
    house.gate.pass(4);
    until_text(&mut events, &mut screen).await;
    assert_eq!(house.stop(id).await.status, 200);
    house.gate.pass(1);
    while let Some(event) = events.next().await {
        screen.apply(&event);
    }
    assert_eq!(screen.reason(), EndReason::Stopped);
    assert!(!screen.text().is_empty() && ANSWER.starts_with(screen.text()));
    let page = house.page(command.conversation).await.conversation.unwrap();
    assert_eq!(page.messages[1].text, screen.text());
    assert_eq!(house.stop(id).await.status, 200, "stopping what is over does nothing");
    let stats = house.server.loaded().unwrap();
    until(|| stats.engine.stats().running.get() == 0).await;
}

#[tokio::test]
async fn stopping_nobodys_generation_is_not_found() {
    let house = House::build(Plan::default());
    let reply = house.stop(xverse_chat::chat::ids::GenerationId::random()).await;
    assert_refused(&reply, 404, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_page_that_is_loaded_in_mid_answer_finds_the_whole_of_it() {
    let house = House::build(Plan { is_held: true, ..Plan::default() });
    let command = say("hello");
    let id = generation(&house.started(&command).await);
    let mut first = house.events(id, 0).await;
    house.gate.pass(5);
    until_text(&mut first, &mut Screen::default()).await;
    drop(first);
    let page = house.page(command.conversation).await.conversation.unwrap();
    let message = &page.messages[1];
    let AnswerState::Running { generation, seq, tail } = message.answer.as_ref().unwrap().state.clone() else {
        panic!("it is over");
    };
    assert!(generation == id && message.text.is_empty());
    let mut screen = Screen { seq, blocks: message.blocks.clone(), tail, ..Screen::default() };
    assert!(!screen.tail.is_empty(), "what is there so far comes with the page");
    house.gate.open();
    let mut rest = house.events(id, seq).await;
    while let Some(event) = rest.next().await {
        screen.apply(&event);
    }
    assert_eq!((screen.text(), &screen.blocks), (ANSWER, &render::markdown(ANSWER)), "and the rest after it");
}

#[tokio::test]
async fn a_long_answer_whose_stream_is_cut_at_every_event_is_the_same_to_the_byte() {
    let answer: &'static str = "A sentence of **some** words, and `code`.\n\n- one\n- two\n\n".repeat(12).leak();
    let house = House::build(Plan { answer: Some(answer), is_held: true, context: 4096, ..Plan::default() });
    let mut command = say("hello");
    command.settings.max_new_tokens = Some(2000);
    let id = generation(&house.started(&command).await);
    let (mut screen, mut cuts) = (Screen::default(), 0);
    while screen.end.is_none() {
        house.gate.pass(2);
        let mut events = house.events(id, screen.seq).await;
        // Steps whose text is told together make no event of their own.
        if let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(60), events.next()).await {
            screen.apply(&event);
            cuts += 1;
        }
    }
    assert!(cuts > 100, "{cuts}");
    assert_eq!(screen.text(), answer);
    assert_eq!(screen.blocks, render::markdown(answer));
}

#[tokio::test]
async fn closing_every_reader_stops_nothing() {
    let house = House::build(Plan { is_held: true, ..Plan::default() });
    let id = generation(&house.started(&say("hello")).await);
    drop(house.events(id, 0).await);
    house.gate.open();
    let owner = house.owner(SOMEBODY).await;
    until(|| house.server.generations.get(owner, id).unwrap().is_over()).await;
    assert_eq!(house.whole(id).await.reason(), EndReason::EndOfText);
}

#[tokio::test]
async fn two_readers_see_the_same_answer() {
    let house = Arc::new(House::build(Plan { is_held: true, ..Plan::default() }));
    let id = generation(&house.started(&say("hello")).await);
    let readers = [house.clone(), house.clone()].map(|house| tokio::spawn(async move { house.whole(id).await }));
    house.gate.open();
    let [one, other] = readers;
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    assert_eq!((one.blocks, one.end), (other.blocks, other.end));
}

#[tokio::test]
async fn a_command_that_is_sent_twice_begins_one_answer() {
    let house = House::build(Plan::default());
    let command = say("hello");
    let first = house.started(&command).await;
    let second = house.started(&command).await;
    assert_eq!(first.answer.id, second.answer.id);
    assert_eq!(first.message.unwrap().id, second.message.unwrap().id);
    assert_eq!(house.page(command.conversation).await.conversation.unwrap().messages.len(), 2);
}

#[tokio::test]
async fn a_command_that_is_sent_twice_at_once_begins_one_answer() {
    let house = House::build(Plan::default());
    let command = say("hello");
    let (first, second) = tokio::join!(house.started(&command), house.started(&command));
    assert_eq!(first.answer.id, second.answer.id);
    assert_eq!(house.page(command.conversation).await.conversation.unwrap().messages.len(), 2);
}

#[tokio::test]
async fn regenerating_makes_another_answer_beside_the_first() {
    let house = House::build(Plan { is_held: true, ..Plan::default() });
    let command = say("hello");
    let first = house.started(&command).await;
    let second: Started = house.regenerate(command.conversation, first.answer.id).await.read();
    assert!(second.message.is_none());
    assert_eq!(second.answer.parent, first.answer.parent);
    house.gate.open();
    for started in [&first, &second] {
        assert_eq!(house.whole(generation(started)).await.text(), ANSWER);
    }
    let seeds = [&first, &second].map(|started| started.answer.answer.as_ref().unwrap().seed);
    assert_ne!(seeds[0], seeds[1], "each answer has a seed of its own");
}

#[tokio::test]
async fn a_message_cannot_follow_an_answer_that_runs() {
    let house = House::build(Plan { is_held: true, ..Plan::default() });
    let command = say("hello");
    let started = house.started(&command).await;
    let mut next = say("quick");
    next.conversation = command.conversation;
    next.parent = Some(started.answer.id);
    assert_refused(&house.send(&next).await, 409, ErrorCode::Conflict);
    next.request = RequestId::random();
    next.parent = started.message.map(|message| message.id);
    assert_refused(&house.send(&next).await, 409, ErrorCode::Conflict);
}

#[tokio::test]
async fn a_step_that_panics_fails_the_answer_and_the_next_one_is_right() {
    let house = House::build(Plan { faults: vec![(At::Token(4), Fault::Panic)], ..Plan::default() });
    let command = say("hello");
    let screen = house.whole(generation(&house.started(&command).await)).await;
    assert_eq!(screen.reason(), EndReason::Failed { code: ErrorCode::EngineRestarted });
    assert!(ANSWER.starts_with(screen.text()));
    let mut short = say("hello");
    short.settings.max_new_tokens = Some(2);
    let screen = house.whole(generation(&house.started(&short).await)).await;
    assert_eq!((screen.reason(), screen.text()), (EndReason::Length, "On"));
}

#[tokio::test]
async fn a_lost_device_ends_every_answer_as_interrupted_and_the_program_with_status_70() {
    let house = House::build(Plan { is_held: true, faults: vec![(At::Token(4), Fault::Lost)], ..Plan::default() });
    let engine = house.server.loaded().unwrap().engine.clone();
    let (mut signals, closed) = (Signals::listen().unwrap(), CancellationToken::new());
    let id = generation(&house.started(&say("hello")).await);
    house.gate.open();
    let began = Instant::now();
    let failure = until_told(&house.server, &engine, &mut signals, &closed).await.unwrap_err();
    assert_eq!(failure.status(), 70);
    assert!(failure.to_string().contains("the script says so"), "{failure}");
    assert!(closed.is_cancelled());
    let screen = house.whole(id).await;
    assert_eq!(screen.reason(), EndReason::Interrupted);
    assert!(ANSWER.starts_with(screen.text()));
    assert_eq!(house.send(&say("late")).await.status, 503);
    assert_eq!(house.get("/readyz").await.status, 503);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn going_down_ends_every_answer_as_interrupted_and_closes_its_streams() {
    let limits = Limits { drain: Duration::ZERO, ..Plan::default().limits };
    let house = House::build(Plan { is_held: true, limits, ..Plan::default() });
    let command = say("hello");
    let id = generation(&house.started(&command).await);
    let mut events = house.events(id, 0).await;
    let mut screen = Screen::default();
    house.gate.pass(3);
    until_text(&mut events, &mut screen).await;
    let engine = house.server.loaded().unwrap();
    let draining = tokio::spawn({
        let server = house.server.clone();
        async move { drain(&server).await }
    });
    until(|| !engine.engine.is_alive()).await;
    house.gate.pass(1);
    draining.await.unwrap();
    while let Some(event) = events.next().await {
        screen.apply(&event);
    }
    assert_eq!(screen.reason(), EndReason::Interrupted);
    assert!(ANSWER.starts_with(screen.text()));
    let page = house.page(command.conversation).await.conversation.unwrap();
    assert_eq!(page.messages[1].text, screen.text(), "what there was is kept");
    assert_refused(&house.send(&say("late")).await, 503, ErrorCode::ShuttingDown);
    assert_eq!(house.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn whatever_is_said_passes_through_and_comes_back() {
    let house = House::build(Plan { answer: None, ..Plan::default() });
    let mut parent = None;
    let conversation = say("").conversation;
    for text in [
        "hello",
        "你好，世界",
        "\u{1F469}\u{200D}\u{1F52C} \u{202E}rtl\u{202C} \u{0000}\u{FFFD}\u{FEFF}é",
        "<script>alert(1)</script> <|endoftext|> <0x0A> \u{2581}",
        "Human: not a mark\n\nAssistant: nor this",
        " \r\n\ttabs and ends \r\n",
    ] {
        let command = SendCommand { conversation, parent, ..say(text) };
        let started = house.started(&command).await;
        let screen = house.whole(generation(&started)).await;
        assert_eq!((screen.text(), screen.reason()), (text, EndReason::EndOfText));
        parent = Some(started.answer.id);
    }
    let command = SendCommand { system: "be kind".to_owned(), ..say("hello") };
    assert_eq!(house.whole(generation(&house.started(&command).await)).await.text(), "hello");
}
