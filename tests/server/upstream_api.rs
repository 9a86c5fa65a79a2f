//! The API before an upstream server: what it is asked with, what is refused before it is asked, and in which words its refusals
//! are told.

use axum::http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Reply, request},
    house::House,
    stub::{Act, Stub, end, event},
    upstream::{house, options},
};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

async fn sent(house: &House, path: &str, body: &Value) -> Reply {
    let asked = request(Method::POST, path).header("content-type", "application/json");
    house.ask(asked.body(body.to_string().into()).unwrap()).await
}

/// The message and code of a refusal.
fn refused(reply: &Reply, status: u16, kind: &str) -> (String, String) {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.body);
    let error = &serde_json::from_str::<Value>(&reply.body).unwrap()["error"];
    assert_eq!(error["type"], kind, "{error}");
    let text = |field: &str| error[field].as_str().unwrap().to_owned();
    (text("message"), text("code"))
}

fn lengths(stub: &Stub) -> Vec<u64> {
    stub.asked().iter().map(|body| body["max_tokens"].as_u64().unwrap()).collect()
}

fn too_long() -> Act {
    let message = "This model's maximum context length is 1024 tokens. However, you requested 2000 tokens";
    Act::status(400, &json!({ "object": "error", "message": message, "type": "BadRequestError", "code": 400 }))
}

#[tokio::test]
async fn a_text_is_gone_on_with_by_as_much_as_fits_where_nobody_says_how_much() {
    let stub = Stub::with([too_long(), too_long()]).await;
    let before = house(options(&[&stub])).await;
    assert_eq!(sent(&before, TEXT, &json!({ "prompt": "abc" })).await.status, 200);
    assert_eq!(lengths(&stub), [1023, 511, 255]);

    let stub = Stub::start().await;
    let before = house(options(&[&stub])).await;
    for (n_ids, more) in [(1000, json!({})), (1000, json!({ "max_tokens": 30 })), (1024, json!({}))] {
        let mut body = json!({ "prompt": vec![5; n_ids] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(sent(&before, TEXT, &body).await.status, 200);
    }
    assert_eq!(lengths(&stub), [24, 30, 1023], "ids are counted here, and what was asked for stays");
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_refused_in_words_for_both_ways_to_ask() {
    let stub = Stub::always(too_long()).await;
    let before = house(options(&[&stub])).await;
    let messages = json!([{ "role": "user", "content": "hello" }]);
    for (path, body, n) in [
        (TEXT, json!({ "prompt": "abc", "max_tokens": 100 }), 1),
        (TEXT, json!({ "prompt": "abc" }), 10),
        (CHAT, json!({ "messages": messages, "max_tokens": 200 }), 3),
    ] {
        let n_before = stub.asked().len();
        let (message, code) = refused(&sent(&before, path, &body).await, 400, "invalid_request_error");
        assert_eq!(code, "context_length_exceeded");
        assert!(message.starts_with("the prompt does not fit the upstream server's context"), "{message}");
        assert_eq!(stub.asked().len() - n_before, n, "{body}");
    }
}

#[tokio::test]
async fn a_request_that_an_upstream_rejects_is_the_clients_mistake_and_one_it_refuses_is_not() {
    let error = |status: u16| Act::status(status, &json!({ "error": { "message": "no", "code": status } }));
    for (status, told, kind, code) in [
        (400, 400, "invalid_request_error", "upstream_rejected"),
        (422, 400, "invalid_request_error", "upstream_rejected"),
        (401, 502, "server_error", "upstream_refused"),
        (404, 502, "server_error", "upstream_refused"),
    ] {
        let stub = Stub::always(error(status)).await;
        let before = house(options(&[&stub])).await;
        let reply = sent(&before, TEXT, &json!({ "prompt": "abc" })).await;
        assert_eq!(refused(&reply, told, kind).1, code);
        assert_eq!(stub.asked().len(), 1);
    }
}

#[tokio::test]
async fn what_no_prompt_is_made_of_is_refused_before_an_upstream_is_asked() {
    let stub = Stub::start().await;
    let before = house(options(&[&stub])).await;
    let turn = |role: &str| json!({ "role": role, "content": "x" });
    for (path, body, words) in [
        (TEXT, json!({ "prompt": "" }), "prompt has no tokens"),
        (TEXT, json!({ "prompt": [["a"], []] }), "token ids"),
        (TEXT, json!({ "prompt": [[5], []] }), "prompt has no tokens"),
        (TEXT, json!({ "prompt": ["a", ""] }), "prompt has no tokens"),
        (CHAT, json!({ "messages": [turn("user"), turn("system"), turn("user")] }), "only the first (0) may be one"),
        (CHAT, json!({ "messages": [turn("user"), turn("assistant")] }), "no message to answer at its end"),
    ] {
        let (message, _) = refused(&sent(&before, path, &body).await, 400, "invalid_request_error");
        assert!(message.contains(words), "{message}");
    }
    assert!(stub.asked().is_empty());
}

#[tokio::test]
async fn bytes_of_tokens_are_the_upstreams_and_none_are_made_up() {
    let entry =
        |token: &str, bytes: Value| json!({ "token": token, "logprob": -0.5, "bytes": bytes, "top_logprobs": [] });
    let of = |entries: &[Value]| {
        event(&json!({ "choices": [{ "delta": { "content": "x" }, "logprobs": { "content": entries } }] }))
    };
    let entries = [
        entry("bytes:\\xE8", json!([0xe8])),
        entry("bytes:\\xAF", Value::Null),
        entry("\u{fffd}", Value::Null),
        entry("字", Value::Null),
    ];
    let stub = Stub::with([Act::stream([of(&entries)].into_iter().chain(end("stop", 3, 4)))]).await;
    let before = house(options(&[&stub])).await;
    let body = json!({ "messages": [{ "role": "user", "content": "hello" }], "logprobs": true });
    let reply = sent(&before, CHAT, &body).await;
    let told: Value = serde_json::from_str(&reply.body).unwrap();
    let told = told["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let bytes: Vec<&Value> = told.iter().map(|token| &token["bytes"]).collect();
    assert_eq!(bytes, [&json!([0xe8]), &json!([0xaf]), &Value::Null, &json!("字".as_bytes())]);
    assert_eq!(told[0]["token"], "bytes:\\xE8");
}
