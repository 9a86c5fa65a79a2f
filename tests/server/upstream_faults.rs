//! What upstream servers may do wrong: the answer keeps its text and ends with a code, or another one gives it.

use std::time::{Duration, Instant};

use serde_json::json;
use xverse_chat::{
    chat::{command::SendCommand, error::ErrorCode, event::EndReason},
    engine::remote::{Patience, RemoteOptions},
};

use crate::{
    client::{generation, say, until},
    house::House,
    stub::{Act, Piece, SAID, Stub, end, event, token},
    upstream::{PATIENCE, answered, house, options},
};

/// As long as nothing takes here that does not hang, and short enough to wait for.
const SHORT: Duration = Duration::from_millis(700);

fn failed(code: ErrorCode) -> EndReason {
    EndReason::Failed { code }
}

/// What stands in an answer that broke off after its beginning.
fn beginning() -> String {
    SAID[..2].concat()
}

#[tokio::test]
async fn one_that_dies_in_mid_answer_leaves_the_text_and_is_not_asked_again() {
    let stubs = [Stub::with([Act::begun(Piece::Die)]).await, Stub::start().await];
    let house = house(options(&[&stubs[0], &stubs[1]])).await;
    let command = say("hello");
    let screen = house.whole(generation(&house.started(&command).await)).await;
    assert_eq!((screen.reason(), screen.text()), (failed(ErrorCode::UpstreamBroke), beginning().as_str()));
    assert_eq!(house.page(command.conversation).await.conversation.unwrap().messages[1].text, beginning());
    assert_eq!(stubs.each_ref().map(|stub| stub.asked().len()), [1, 0]);
    assert_eq!(house.server.loaded().unwrap().engine.stats().failures.get(), 1);
}

#[tokio::test]
async fn one_that_dies_before_the_first_token_is_replaced_by_another() {
    let role = json!({ "choices": [{ "delta": { "role": "assistant", "content": "" } }] });
    for begins in [vec![Piece::Die], vec![event(&role), Piece::Die], vec![event(&role)]] {
        let stubs = [Stub::with([Act::stream(begins)]).await, Stub::start().await];
        let house = house(options(&[&stubs[0], &stubs[1]])).await;
        assert_eq!(answered(&house).await.text(), SAID.concat());
        assert_eq!(stubs.each_ref().map(|stub| stub.asked().len()), [1, 1]);
    }
}

#[tokio::test]
async fn one_that_hangs_in_mid_answer_ends_it_with_its_text() {
    ends_with_its_text_in_time(Piece::Hang).await;
}

/// What an upstream does after the beginning of its answer, which gains it no time.
async fn ends_with_its_text_in_time(then: Piece) {
    let stub = Stub::with([Act::begun(then)]).await;
    let patience = Patience { between: SHORT, ..PATIENCE };
    let house = house(RemoteOptions { patience, ..options(&[&stub]) }).await;
    let began = Instant::now();
    let screen = answered(&house).await;
    assert_eq!((screen.reason(), screen.text()), (failed(ErrorCode::UpstreamBroke), beginning().as_str()));
    assert!(began.elapsed() >= SHORT && began.elapsed() < 10 * SHORT, "{:?}", began.elapsed());
    until(|| stub.n_open() == 0).await;
}

#[tokio::test]
async fn one_that_hangs_before_the_first_token_is_replaced_by_another_and_not_waited_for_twice() {
    let patience = Patience { first_token: SHORT, ..PATIENCE };
    let hanging = Act::stream([Piece::Bytes(": still there\n\n".to_owned()), Piece::Hang]);
    let stubs = [Stub::with([hanging.clone()]).await, Stub::start().await];
    let two = house(RemoteOptions { patience, ..options(&[&stubs[0], &stubs[1]]) }).await;
    assert_eq!(answered(&two).await.text(), SAID.concat());

    let alone = Stub::always(hanging).await;
    let one = house(RemoteOptions { patience, ..options(&[&alone]) }).await;
    let began = Instant::now();
    let screen = answered(&one).await;
    assert_eq!((screen.reason(), screen.text()), (failed(ErrorCode::UpstreamUnreachable), ""));
    assert!(began.elapsed() < 2 * SHORT && alone.asked().len() == 1, "{:?}", began.elapsed());
}

#[tokio::test]
async fn one_that_only_says_that_it_is_still_there_ends_the_answer_with_its_text() {
    let empty = json!({ "choices": [{ "index": 0, "delta": { "content": "" }, "finish_reason": null }] });
    for again in [": still there\n\n".to_owned(), format!("data: {empty}\n\n")] {
        ends_with_its_text_in_time(Piece::Endless(again)).await;
    }
}

#[tokio::test]
async fn what_is_said_where_others_say_nothing_ends_no_answer() {
    for nothing in ["", "null"] {
        let part =
            |text: &str| event(&json!({ "choices": [{ "delta": { "content": text }, "finish_reason": nothing }] }));
        let stub = Stub::with([Act::stream(SAID.map(part).into_iter().chain(end("length", 9, 4)))]).await;
        let screen = answered(&house(options(&[&stub])).await).await;
        assert_eq!((screen.reason(), screen.text()), (EndReason::Length, SAID.concat().as_str()), "{nothing:?}");
    }
}

#[tokio::test]
async fn a_stream_that_is_over_is_an_answer_only_where_there_was_one() {
    let done = || Piece::Bytes("data: [DONE]\n\n".to_owned());
    let bare = Stub::with([Act::stream(SAID.map(token).into_iter().chain([done()]))]).await;
    let screen = answered(&house(options(&[&bare])).await).await;
    assert_eq!((screen.reason(), screen.text()), (EndReason::EndOfText, SAID.concat().as_str()));
    let error = Piece::Bytes("error: {\"code\":500,\"message\":\"m\",\"type\":\"server_error\"}\n\n".to_owned());
    for pieces in [vec![done()], vec![error, done()]] {
        let stubs = [Stub::with([Act::stream(pieces.clone())]).await, Stub::start().await];
        let two = house(options(&[&stubs[0], &stubs[1]])).await;
        assert_eq!(answered(&two).await.text(), SAID.concat());
        assert_eq!(stubs.each_ref().map(|stub| stub.asked().len()), [1, 1]);
        let alone = Stub::always(Act::stream(pieces)).await;
        let screen = answered(&house(options(&[&alone])).await).await;
        assert_eq!((screen.reason(), screen.text()), (failed(ErrorCode::UpstreamBroke), ""));
    }
}

#[tokio::test]
async fn an_answer_that_is_whole_is_whole_whatever_comes_after_it() {
    let patience = Patience { between: SHORT, ..PATIENCE };
    let parts = || SAID.map(token).into_iter().chain(end("stop", 9, 5).into_iter().take(1));
    for after in [
        Piece::Hang,
        Piece::Die,
        Piece::Bytes("data: <html>\n\n".to_owned()),
        Piece::Bytes("data: {\"error\": {\"code\": 500}}\n\n".to_owned()),
        Piece::Bytes(String::new()),
    ] {
        let stub = Stub::with([Act::stream(parts().chain([after]))]).await;
        let house = house(RemoteOptions { patience, ..options(&[&stub]) }).await;
        let screen = answered(&house).await;
        assert_eq!((screen.reason(), screen.text()), (EndReason::EndOfText, SAID.concat().as_str()));
        assert_eq!(screen.end.unwrap().1.generated_tokens, 4, "as its parts count");
    }
}

#[tokio::test]
async fn rubbish_ends_the_answer_with_its_text() {
    let bytes = |text: &str| Piece::Bytes(text.to_owned());
    let error = |error: serde_json::Value| event(&json!({ "error": error }));
    let broke = ErrorCode::UpstreamBroke;
    for (rubbish, code) in [
        (bytes("data: {\"choices\": [\n\n"), broke),
        (bytes("data: <html>\n\n"), broke),
        (bytes("data: {\"choices\": [{\"delta\": {\"content\": 7}}]}\n\n"), broke),
        (bytes("data: {\"what\": \"is this\"}\n\n"), broke),
        (bytes("no events at all"), broke),
        (Piece::Bytes("x".repeat(3 << 20)), broke),
        (Piece::Bytes(format!("data: {}\n\n", "y".repeat(2 << 20))), broke),
        (bytes(&"data: z\n".repeat(1 << 18)), broke),
        (event(&json!({ "choices": [{ "delta": { "content": "a".repeat(500_000) } }] })), broke),
        (error(json!({ "message": "CUDA error", "type": "InternalServerError", "code": 500 })), broke),
        (error(json!("something")), broke),
        (error(json!({ "message": "no", "code": 403 })), ErrorCode::UpstreamRefused),
        (error(json!({ "message": "no", "code": 400 })), ErrorCode::UpstreamRejected),
        // llama.cpp's way to say it.
        (bytes("error: {\"code\":500,\"message\":\"m\",\"type\":\"server_error\"}\n\ndata: [DONE]\n\n"), broke),
        (event(&json!({ "choices": [{ "delta": {}, "finish_reason": "abort" }] })), broke),
        // Nothing says that it is over.
        (bytes(""), broke),
    ] {
        let stub = Stub::with([Act::begun(rubbish)]).await;
        let house = house(options(&[&stub])).await;
        let screen = answered(&house).await;
        assert_eq!((screen.reason(), screen.text()), (failed(code), beginning().as_str()));
        assert_eq!(stub.asked().len(), 1);
        until(|| stub.n_open() == 0).await;
        assert_eq!(answered(&house).await.text(), SAID.concat(), "and the next one is right");
    }
}

#[tokio::test]
async fn a_page_instead_of_an_answer_is_none_and_is_asked_for_once() {
    let json = Act::status(200, &json!({ "choices": [{ "message": { "content": "hello" } }] }));
    for act in [Act::html(), json] {
        let stub = Stub::always(act).await;
        let house = house(options(&[&stub])).await;
        let screen = answered(&house).await;
        assert_eq!((screen.reason(), screen.text()), (failed(ErrorCode::UpstreamBroke), ""));
        assert_eq!(stub.asked().len(), 1);
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_gives_one_answer() {
    for status in [408, 429, 500, 502, 503] {
        let mut busy = Act::status(status, &json!({ "error": { "message": "later" } }));
        busy.headers.push(("retry-after", "3600".to_owned()));
        let stub = Stub::with([busy]).await;
        let house = house(options(&[&stub])).await;
        let began = Instant::now();
        let screen = answered(&house).await;
        assert_eq!((screen.reason(), screen.text()), (EndReason::EndOfText, SAID.concat().as_str()), "{status}");
        assert_eq!(stub.asked().len(), 2);
        assert!(began.elapsed() >= PATIENCE.longest_pause, "as it was asked for, within bounds");
    }
}

#[tokio::test]
async fn what_does_not_pass_is_given_up_after_so_many_tries() {
    for (status, code) in [(503, ErrorCode::UpstreamUnreachable), (500, ErrorCode::UpstreamBroke)] {
        let stub = Stub::always(Act::status(status, &json!({}))).await;
        let house = house(options(&[&stub])).await;
        let screen = answered(&house).await;
        assert_eq!((screen.reason(), screen.text()), (failed(code), ""));
        assert_eq!(stub.asked().len(), PATIENCE.tries as usize);
    }
}

#[tokio::test]
async fn where_nobody_listens_another_one_is_asked() {
    let stubs = [Stub::start().await, Stub::start().await];
    // No check comes in between that would tell.
    let patience = Patience { check_every: Duration::from_hours(1), ..PATIENCE };
    let house = house(RemoteOptions { patience, ..options(&[&stubs[0], &stubs[1]]) }).await;
    stubs[0].leave();
    for _ in 0..3 {
        assert_eq!(answered(&house).await.text(), SAID.concat());
    }
    assert!(stubs[0].asked().is_empty());
}

#[tokio::test]
async fn what_is_refused_is_told_as_refused_and_not_asked_again() {
    let elsewhere = Stub::start().await;
    let mut redirect = Act::status(307, &json!({}));
    redirect.headers.push(("location", format!("{}/v1/chat/completions", elsewhere.address)));
    let (refused, rejected) = (ErrorCode::UpstreamRefused, ErrorCode::UpstreamRejected);
    for (act, code) in [
        (
            Act::status(400, &json!({ "object": "error", "message": "no", "type": "BadRequestError", "code": 400 })),
            rejected,
        ),
        (Act::status(422, &json!({ "detail": [{ "msg": "Field required" }] })), rejected),
        (Act::status(401, &json!({ "error": { "message": "no key", "code": "invalid_api_key" } })), refused),
        (Act::status(404, &json!({ "detail": "Not Found" })), refused),
        (redirect, refused),
    ] {
        let stubs = [Stub::always(act).await, Stub::start().await];
        let house = house(options(&[&stubs[0], &stubs[1]])).await;
        assert_eq!(answered(&house).await.reason(), failed(code));
        assert_eq!(stubs.each_ref().map(|stub| stub.asked().len()), [1, 0]);
    }
    assert!(elsewhere.asked().is_empty(), "no redirect is followed");
}

fn too_long() -> Act {
    let message = "This model's maximum context length is 1024 tokens. However, you requested 2000 tokens";
    Act::status(400, &json!({ "object": "error", "message": message, "type": "BadRequestError", "code": 400 }))
}

/// A conversation of so many rounds, and one message more; its answer's stats.
async fn after_rounds(house: &House, stub: &Stub, n: usize) -> (EndReason, u32, bool, Vec<usize>) {
    let (mut command, mut screen) = (say("hello"), None);
    "be kind".clone_into(&mut command.system);
    for _ in 0..=n {
        let started = house.started(&command).await;
        screen = Some(house.whole(generation(&started)).await);
        let parent = Some(started.answer.id);
        command = SendCommand { conversation: command.conversation, parent, system: command.system, ..say("and") };
    }
    let (reason, stats, _) = screen.unwrap().end.unwrap();
    let lengths = stub.asked().iter().map(|body| body["messages"].as_array().unwrap().len()).skip(n).collect();
    (reason, stats.dropped_rounds, stats.dropped_system, lengths)
}

#[tokio::test]
async fn a_conversation_that_is_too_long_is_asked_for_without_its_oldest_rounds() {
    let acts = (0..4).map(|_| Act::answer()).chain([too_long(), too_long(), too_long()]);
    let stub = Stub::with(acts).await;
    let house = house(options(&[&stub])).await;
    let (reason, rounds, system, lengths) = after_rounds(&house, &stub, 4).await;
    assert_eq!((reason, rounds, system), (EndReason::EndOfText, 3, true));
    // All of it; all of it with a shorter answer; two rounds of four; one.
    assert_eq!(lengths, [10, 10, 5, 3]);
    let answers: Vec<u64> = stub.asked().iter().map(|body| body["max_tokens"].as_u64().unwrap()).collect();
    assert_eq!(answers[4..], [1023, 512, 512, 512]);
}

#[tokio::test]
async fn a_message_that_is_too_long_by_itself_is_told_as_that() {
    let stub = Stub::always(too_long()).await;
    let house = house(options(&[&stub])).await;
    assert_eq!(answered(&house).await.reason(), failed(ErrorCode::PromptTooLong));
    let answers: Vec<u64> = stub.asked().iter().map(|body| body["max_tokens"].as_u64().unwrap()).collect();
    assert_eq!(answers, [1023, 512, 256, 128, 64], "again and again for a shorter answer");
}

#[tokio::test]
async fn that_it_is_too_long_is_understood_however_it_is_said() {
    let worded = "Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens). Please reduce it.";
    let named = json!({ "code": 500, "message": "m", "type": "exceed_context_size_error" });
    for act in [
        Act::status(400, &json!({ "object": "error", "message": worded, "type": "BadRequestError", "code": 400 })),
        Act::status(500, &json!({ "error": named })),
        Act::stream([Piece::Bytes(format!("error: {named}\n\ndata: [DONE]\n\n"))]),
        Act::stream([event(&json!({ "error": named }))]),
    ] {
        let stub = Stub::with([act]).await;
        let house = house(options(&[&stub])).await;
        assert_eq!(answered(&house).await.text(), SAID.concat());
        let answers: Vec<u64> = stub.asked().iter().map(|body| body["max_tokens"].as_u64().unwrap()).collect();
        assert_eq!(answers, [1023, 512]);
        assert_eq!(house.server.loaded().unwrap().engine.stats().failures.get(), 0);
    }
}
