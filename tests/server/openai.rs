//! The API that other programs speak: what it answers, what it refuses and in which words, and that whoever goes away cancels
//! what they asked for.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request},
};
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use xverse_chat::{
    chat::{event::EndReason, info::PromptFormat},
    server::config::Limits,
};

use crate::{
    client::{Reply, generation, request, say, until},
    house::{ANSWER, House, Plan},
    stage::scripted::{At, Fault},
};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// A conversation of one message, with these fields.
fn chat(more: Value) -> Value {
    with(json!({ "messages": [{ "role": "user", "content": "say it" }] }), more)
}

fn text(more: Value) -> Value {
    with(json!({ "prompt": "abc" }), more)
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn read(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.body);
    serde_json::from_str(&reply.body).unwrap()
}

/// The pieces of a stream, which must end as streams do.
fn pieces(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.header("content-type"), "text/event-stream");
    let data: Vec<&str> =
        reply.body.split_terminator("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    let (last, pieces) = data.split_last().unwrap();
    assert_eq!(*last, "[DONE]");
    pieces.iter().map(|piece| serde_json::from_str(piece).unwrap()).collect()
}

fn refused(reply: &Reply, status: u16, param: Option<&str>) -> String {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.body);
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    let error = body["error"].as_object().unwrap();
    assert_eq!(error.len(), 4, "{error:?}");
    assert_eq!(error["param"].as_str(), param, "{error:?}");
    assert!(error["type"].is_string() && error["code"].is_string(), "{error:?}");
    assert_eq!(reply.header("content-type"), "application/json");
    error["message"].as_str().unwrap().to_owned()
}

async fn sent(house: &House, path: &str, body: impl Into<Body>) -> Reply {
    house.ask(request(Method::POST, path).header("content-type", "application/json").body(body.into()).unwrap()).await
}

fn asking_for(body: &Value) -> Request<Body> {
    request(Method::POST, CHAT).body(Body::from(body.to_string())).unwrap()
}

fn running(house: &House) -> u64 {
    house.server.loaded().unwrap().engine.stats().running.get()
}

#[tokio::test]
async fn a_conversation_is_answered_whole_or_in_pieces_with_the_same_words() {
    let house = House::build(Plan::default());
    let whole = read(&house.post(CHAT, &chat(json!({ "model": "scripted" }))).await);
    assert_eq!(whole["object"], "chat.completion");
    assert!(whole["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(whole["choices"][0]["message"], json!({ "role": "assistant", "content": ANSWER, "refusal": null }));
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let n = ANSWER.chars().count();
    assert_eq!(whole["usage"]["completion_tokens"], n);
    let prompt = whole["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(prompt, "Human: say it\n\nAssistant: ".len() as u64);
    assert_eq!(whole["usage"]["total_tokens"], prompt + n as u64);

    let counted = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let pieces = pieces(&house.post(CHAT, &chat(counted)).await);
    let (count, pieces) = pieces.split_last().unwrap();
    assert_eq!((&count["choices"], &count["usage"]), (&json!([]), &whole["usage"]));
    assert_eq!(pieces[0]["choices"][0]["delta"]["role"], "assistant");
    let said: String = pieces.iter().filter_map(|piece| piece["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, ANSWER);
    assert!(pieces.iter().all(|piece| piece["usage"].is_null()));
    let (last, before) = pieces.split_last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert!(before.iter().all(|piece| piece["choices"][0]["finish_reason"].is_null() && piece["id"] == last["id"]));
    assert!(pieces.iter().all(|piece| piece["object"] == "chat.completion.chunk"));
}

#[tokio::test]
async fn the_same_conversation_gets_the_same_answer_on_the_page_and_over_the_api() {
    let house = House::build(Plan { answer: None, ..Plan::default() });
    let started = house.started(&say("你好, and hello")).await;
    let page = house.whole(generation(&started)).await;
    let messages = json!({ "messages": [{ "role": "user", "content": "你好, and hello" }] });
    let api = read(&house.post(CHAT, &messages).await);
    let (reason, _, text) = page.end.unwrap();
    assert_eq!((reason, api["choices"][0]["message"]["content"].as_str()), (EndReason::EndOfText, Some(text.as_str())));
    // The result of a tool is the exec role, a part of a message is a text.
    let messages = json!({ "messages": [
        { "role": "developer", "content": "be brief" },
        { "role": "user", "content": [{ "type": "text", "text": "call " }, { "type": "text", "text": "it" }] },
        { "role": "assistant", "content": "calling" },
        { "role": "tool", "tool_call_id": "1", "content": "42" },
    ] });
    assert_eq!(read(&house.post(CHAT, &messages).await)["choices"][0]["message"]["content"], "42");
    // No system prompt was written, and a tool gave nothing.
    let messages = json!({ "messages": [
        { "role": "system", "content": "" },
        { "role": "user", "content": "call it" },
        { "role": "assistant", "content": "calling" },
        { "role": "tool", "content": "" },
        { "role": "assistant", "content": "it says nothing" },
        { "role": "user", "content": "and?" },
    ] });
    assert_eq!(read(&house.post(CHAT, &messages).await)["choices"][0]["message"]["content"], "and?");
}

#[tokio::test]
async fn rounds_that_do_not_fit_are_told_whole_and_in_a_stream() {
    let house = House::build(Plan::default());
    let round = |n: usize| {
        [
            json!({ "role": "user", "content": format!("{n}{}", "x".repeat(98)) }),
            json!({ "role": "assistant", "content": "y" }),
        ]
    };
    let messages: Vec<Value> = (0..9).flat_map(round).chain([json!({ "role": "user", "content": "say it" })]).collect();
    let asked = |more| with(json!({ "messages": messages, "max_tokens": 4, "n": 2 }), more);
    let whole = read(&house.post(CHAT, &asked(json!({}))).await);
    let dropped = whole["dropped_rounds"].as_u64().unwrap();
    assert!((1..9).contains(&dropped), "{dropped}");
    for (more, n_told) in
        [(json!({ "stream": true }), 2), (json!({ "stream": true, "stream_options": { "include_usage": true } }), 3)]
    {
        let told: Vec<Value> = pieces(&house.post(CHAT, &asked(more)).await)
            .into_iter()
            .filter(|piece| !piece["dropped_rounds"].is_null())
            .collect();
        assert_eq!(told.len(), n_told, "{told:?}");
        for piece in &told {
            assert_eq!(piece["dropped_rounds"], dropped);
            assert!(piece["choices"].as_array().unwrap().iter().all(|choice| choice["finish_reason"] == "length"));
        }
    }
    assert!(read(&house.post(CHAT, &chat(json!({}))).await)["dropped_rounds"].is_null());
}

#[tokio::test]
async fn a_seed_may_have_64_bits_with_a_sign_or_without() {
    let house = House::build(Plan { answer: None, ..Plan::default() });
    let drawn = async |seed: Value| {
        let more = json!({ "temperature": 2, "top_p": 1, "top_k": 0, "max_tokens": 12, "seed": seed });
        read(&house.post(TEXT, &text(more)).await)["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    for (large, small) in [
        (json!(-1), json!((1_u64 << 53) - 1)),
        (json!(i64::MAX), json!((1_u64 << 53) - 1)),
        (json!(1_u64 << 63), json!(0)),
        (json!(u64::MAX), json!((1_u64 << 53) - 1)),
        (json!(-9_223_372_036_854_776_000_f64), json!(0)),
    ] {
        assert_eq!(drawn(large.clone()).await, drawn(small).await, "{large}");
    }
}

#[tokio::test]
async fn several_answers_and_prompts_come_under_their_numbers() {
    let house = House::build(Plan { max_running: 2, max_waiting: 14, ..Plan::default() });
    let whole = read(&house.post(CHAT, &chat(json!({ "n": 3, "max_tokens": 4 }))).await);
    let choices = whole["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    assert!(choices.iter().all(|choice| choice["message"]["content"] == "One." && choice["finish_reason"] == "length"));
    assert_eq!(whole["usage"]["completion_tokens"], 12);
    let prompts: Vec<Value> = (0..20).map(|n| if n % 2 == 0 { "ab".into() } else { json!([40, 41, 42]) }).collect();
    let asked = json!({ "prompt": prompts, "max_tokens": 4, "echo": true, "stream": true,
                        "stream_options": { "include_usage": true } });
    let pieces = pieces(&house.post(TEXT, &asked).await);
    let mut texts = vec![String::new(); 20];
    for piece in &pieces {
        for choice in piece["choices"].as_array().unwrap() {
            texts[choice["index"].as_u64().unwrap() as usize].push_str(choice["text"].as_str().unwrap());
        }
    }
    assert!(texts.iter().step_by(2).all(|text| text == "abOne."), "{texts:?}");
    let ids = house.server.loaded().unwrap().engine.local().unwrap().prompts.tokenizer().decode(&[40, 41, 42]);
    assert!(texts.iter().skip(1).step_by(2).all(|text| *text == format!("{ids}One.")), "{texts:?}");
    assert_eq!(pieces.last().unwrap()["usage"]["prompt_tokens"], 10 * 2 + 10 * 3);
}

#[tokio::test]
async fn stop_strings_end_an_answer_and_are_not_part_of_it() {
    let house = House::build(Plan::default());
    for stop in [json!(" Two"), json!(["never", " Two", "Three"])] {
        let whole = read(&house.post(CHAT, &chat(json!({ "stop": stop }))).await);
        assert_eq!(whole["choices"][0]["message"]["content"], "One.");
        assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn texts_become_tokens_and_come_back() {
    let house = House::build(Plan::default());
    let tokens = read(&house.post("/tokenize", &json!({ "prompt": "你好<|endoftext|>" })).await);
    assert_eq!(tokens["count"], 2 + "<|endoftext|>".len(), "what people write is no special token");
    let back = read(&house.post("/detokenize", &json!({ "tokens": tokens["tokens"] })).await);
    assert_eq!(back["prompt"], "你好<|endoftext|>");
    assert_eq!(read(&house.post("/tokenize", &json!({ "prompt": "" })).await)["tokens"], json!([]));
    assert_eq!(read(&house.get("/tokenizer_info").await)["eos_token"], "<|endoftext|>");
    let models = read(&house.get("/v1/models").await);
    assert_eq!(models, read(&house.get("/v1/models").await));
    assert_eq!((&models["data"][0]["id"], &models["data"][0]["max_model_len"]), (&json!("scripted"), &json!(512)));
    assert_eq!(read(&house.get("/v1/models/scripted").await)["object"], "model");
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_its_name_with_its_bound_and_value() {
    let house = House::build(Plan::default());
    for (more, param, message) in [
        (json!({ "temperature": 2.5 }), "temperature", "temperature is 2.5, expected 0 to 2"),
        (json!({ "temperature": -1 }), "temperature", "temperature is -1, expected 0 to 2"),
        (json!({ "temperature": "hot" }), "temperature", "temperature is \"hot\", expected a number"),
        (json!({ "temperature": 1e300 }), "temperature", "expected 0 to 2"),
        (json!({ "top_p": 0 }), "top_p", "top_p is 0, expected more than 0 to 1"),
        (json!({ "top_k": 101 }), "top_k", "top_k is 101, expected 0 to 100"),
        (json!({ "top_k": -2 }), "top_k", "top_k is -2, expected 0 to 100"),
        (json!({ "top_k": 1.5 }), "top_k", "top_k is 1.5, expected a whole number from 0 to 100"),
        (json!({ "repetition_penalty": 3 }), "repetition_penalty", "repetition_penalty is 3, expected 0.5 to 2"),
        (json!({ "repeat_penalty": 3 }), "repetition_penalty", "repetition_penalty is 3, expected 0.5 to 2"),
        (json!({ "max_tokens": 0 }), "max_tokens", "max_tokens is 0, expected 1 to 511"),
        (json!({ "max_tokens": -5 }), "max_tokens", "max_tokens is -5, expected 1 to 511"),
        (json!({ "max_tokens": 1.5 }), "max_tokens", "max_tokens is 1.5, expected a whole number from 1 to 511"),
        (json!({ "max_tokens": 99_999_999_999_u64 }), "max_tokens", "expected 1 to 511"),
        (json!({ "max_completion_tokens": 100_000 }), "max_completion_tokens", "is 100000, expected 1 to 511"),
        (json!({ "seed": 1.5 }), "seed", "seed is 1.5, expected a whole number of 64 bits"),
        (json!({ "seed": 1e30 }), "seed", "expected a whole number of 64 bits"),
        (json!({ "n": 0 }), "n", "n is 0, expected 1 to 8"),
        (json!({ "n": 9 }), "n", "n is 9, expected 1 to 8"),
        (json!({ "stop": "" }), "stop", "stop is \"\", expected texts"),
        (json!({ "stop": vec!["x"; 17] }), "stop", "stop has 17 texts, expected at most 16"),
        (json!({ "stop": [1] }), "stop", "stop is 1, expected texts"),
        (json!({ "stream": "yes" }), "stream", "stream is \"yes\", expected true or false"),
        (json!({ "stream_options": { "include_usage": true } }), "stream_options", "only together with stream"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs", "top_logprobs is 21, expected 0 to 20"),
        (json!({ "top_logprobs": 2 }), "top_logprobs", "only together with logprobs"),
        (json!({ "logprobs": 3 }), "logprobs", "logprobs is 3, expected true or false"),
    ] {
        let told = refused(&house.post(CHAT, &chat(more.clone())).await, 400, Some(param));
        assert!(told.contains(message), "{more}: {told}");
    }
}

#[tokio::test]
async fn a_message_that_is_wrong_is_refused_by_its_number() {
    let house = House::build(Plan::default());
    for (more, param, message) in [
        (json!({ "messages": [] }), "messages", "messages is empty"),
        (json!({ "messages": "hi" }), "messages", "messages is \"hi\", expected a list"),
        (json!({ "messages": [4] }), "messages[0]", "messages[0] is 4, expected an object"),
        (json!({ "messages": [{ "content": "x" }] }), "messages[0].role", "is null, expected system, user"),
        (json!({ "messages": [{ "role": "wizard", "content": "x" }] }), "messages[0].role", "is \"wizard\", expected"),
        (json!({ "messages": [{ "role": "user", "content": " " }] }), "messages[0].content", "the message is empty"),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0].content", "is null, expected a text"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }),
            "messages[0].content",
            "expected parts of type text",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "x".repeat(65_537) }] }),
            "messages[0].content",
            "65537 bytes, at most 65536",
        ),
        (
            json!({ "messages": [{ "role": "assistant", "content": null, "tool_calls": [{ "type": "function" }] }] }),
            "messages[0].tool_calls",
            "not supported",
        ),
        (
            json!({ "messages": [{ "role": "assistant", "content": null, "function_call": { "name": "f" } }] }),
            "messages[0].function_call",
            "not supported",
        ),
        (json!({ "messages": [{ "role": "system", "content": "" }] }), "messages", "no message to answer"),
        (json!({ "messages": [{ "role": "assistant", "content": "x" }] }), "messages", "no message to answer"),
        (
            json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "system", "content": "x" },
                                 { "role": "user", "content": "x" }] }),
            "messages",
            "message 1 is a system message",
        ),
        (json!({ "messages": [{ "role": "user", "content": "x".repeat(600) }] }), "messages", "at most"),
    ] {
        let told = refused(&house.post(CHAT, &chat(more.clone())).await, 400, Some(param));
        assert!(told.contains(message), "{more}: {told}");
    }
}

#[tokio::test]
async fn a_prompt_that_is_wrong_is_refused_by_its_name() {
    let house = House::build(Plan::default());
    for (more, param, message) in [
        (json!({ "prompt": null }), "prompt", "prompt is missing"),
        (json!({ "prompt": [] }), "prompt", "prompt is empty"),
        (json!({ "prompt": "" }), "prompt", "prompt has no tokens"),
        (json!({ "prompt": [1, -2] }), "prompt", "prompt is -2, expected token ids"),
        (json!({ "prompt": [1, 400_000] }), "prompt", "prompt has token id 400000, expected 0 to"),
        (json!({ "prompt": [1, 1e30] }), "prompt", "expected token ids"),
        (json!({ "prompt": [[1], "x", 3] }), "prompt[2]", "prompt[2] is 3, expected a text or"),
        (json!({ "prompt": vec!["x"; 257] }), "prompt", "257 prompts, expected at most 256"),
        (json!({ "prompt": "x".repeat(300_000) }), "prompt", "300000 bytes, at most 262144"),
        (json!({ "prompt": "x".repeat(500), "max_tokens": 13 }), "prompt", "no more than 512 together"),
        (json!({ "prompt": "x".repeat(512) }), "prompt", "no more than 512 together"),
        (json!({ "max_tokens": 513 }), "max_tokens", "max_tokens is 513, expected 0 to 511"),
        (json!({ "logprobs": 21 }), "logprobs", "logprobs is 21, expected 0 to 20"),
        (
            json!({ "prompt": vec!["x"; 20], "logprobs": 20, "n": 8, "max_tokens": 500 }),
            "logprobs",
            "up to 1680000 numbers, of 80000 tokens in all, expected at most 1048576",
        ),
        (
            json!({ "prompt": vec!["x".repeat(500); 101], "logprobs": 20, "echo": true, "max_tokens": 0 }),
            "logprobs",
            "of 50500 tokens in all",
        ),
        (json!({ "echo": 1 }), "echo", "echo is 1, expected true or false"),
    ] {
        let told = refused(&house.post(TEXT, &text(more.clone())).await, 400, Some(param));
        assert!(told.contains(message), "{more}: {told}");
    }
    for (body, param) in [
        (json!({}), "tokens"),
        (json!({ "tokens": "x" }), "tokens"),
        (json!({ "tokens": [999_999] }), "tokens"),
        (json!({ "tokens": [1.5] }), "tokens"),
    ] {
        refused(&house.post("/detokenize", &body).await, 400, Some(param));
    }
    refused(&house.post("/tokenize", &json!({ "prompt": 4 })).await, 400, Some("prompt"));
    for (path, body) in [
        ("/tokenize", json!({ "model": "x", "prompt": "a" })),
        ("/detokenize", json!({ "model": "x", "tokens": [40] })),
    ] {
        refused(&house.post(path, &body).await, 404, Some("model"));
    }
}

#[tokio::test]
async fn what_would_change_the_answer_and_is_not_there_is_refused_and_all_else_passed_over() {
    let house = House::build(Plan::default());
    for (more, param) in [
        (json!({ "tools": [{ "type": "function" }] }), "tools"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (json!({ "functions": [{}] }), "functions"),
        (json!({ "response_format": { "type": "json_object" } }), "response_format"),
        (json!({ "logit_bias": { "5": 1 } }), "logit_bias"),
        (json!({ "presence_penalty": 0.1 }), "presence_penalty"),
        (json!({ "frequency_penalty": -0.1 }), "frequency_penalty"),
        (json!({ "best_of": 2 }), "best_of"),
        (json!({ "n": 2, "best_of": 1 }), "best_of"),
        (json!({ "grammar": "root ::= x" }), "grammar"),
        (json!({ "n_predict": 4 }), "n_predict"),
        (json!({ "include_stop_str_in_output": true }), "include_stop_str_in_output"),
        (json!({ "skip_special_tokens": false }), "skip_special_tokens"),
        (json!({ "continue_final_message": true }), "continue_final_message"),
        (json!({ "min_p": 0.1 }), "min_p"),
        (json!({ "suffix": "x" }), "suffix"),
        (json!({ "modalities": ["audio"] }), "modalities"),
        (json!({ "guided_json": {"a": 1} }), "guided_json"),
    ] {
        for (path, body) in [(CHAT, chat(more.clone())), (TEXT, text(more))] {
            let told = refused(&house.post(path, &body).await, 400, Some(param));
            assert!(told.contains("not supported") && told.contains("hint: "), "{told}");
        }
    }
    let harmless = json!({
        "user": "somebody", "store": false, "metadata": {}, "tools": [], "tool_choice": "none", "logit_bias": {},
        "presence_penalty": 0, "frequency_penalty": 0.0, "response_format": { "type": "text" }, "suffix": null,
        "modalities": ["text"], "best_of": 1, "unheard_of": [1, 2], "max_tokens": 4, "top_k": -1, "seed": 1.0,
        "n_predict": -1, "repeat_penalty": 1.0, "skip_special_tokens": true, "grammar": "", "mirostat": 0,
    });
    assert_eq!(read(&house.post(CHAT, &chat(harmless)).await)["choices"][0]["message"]["content"], "One.");
}

#[tokio::test]
async fn a_body_that_is_none_is_refused() {
    let house = House::build(Plan::default());
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    for body in [
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        br#"{"temperature": NaN}"#.to_vec(),
        br#"{"temperature": 1e999}"#.to_vec(),
        b"{\"prompt\": \"\xff\xfe\"}".to_vec(),
        br#"{"prompt": "\ud800"}"#.to_vec(),
        format!(r#"{{"prompt": {deep}}}"#).into_bytes(),
    ] {
        for path in [CHAT, TEXT, "/tokenize", "/detokenize"] {
            let told = refused(&sent(&house, path, body.clone()).await, 400, Some("body"));
            assert!(told.contains("expected"), "{told}");
        }
    }
    let big = json!({ "prompt": "x".repeat(5 << 20) }).to_string();
    for path in [CHAT, TEXT, "/tokenize", "/detokenize"] {
        assert!(refused(&sent(&house, path, big.clone()).await, 413, None).contains("2097152 bytes"));
    }
    assert_eq!(house.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn refusals_of_every_layer_have_the_shape_that_clients_read() {
    let house = House::build(Plan { access_token: Some("a token that nobody guesses"), ..Plan::default() });
    refused(&house.post(CHAT, &chat(json!({}))).await, 401, None);
    let browser = request(Method::GET, "/v1/models").header("accept", "text/html").body(Body::empty()).unwrap();
    let told = refused(&house.ask(browser).await, 401, None);
    assert!(told.contains("an access token is missing"), "{told}");
    let bearer = |builder: axum::http::request::Builder| {
        builder.header("authorization", "Bearer a token that nobody guesses").header("content-type", "application/json")
    };
    let ask = async |method, path: &str, body: Value| {
        house.ask(bearer(request(method, path)).body(body.to_string().into()).unwrap()).await
    };
    assert_eq!(ask(Method::POST, CHAT, chat(json!({}))).await.status, 200);
    refused(&ask(Method::GET, CHAT, json!({})).await, 405, None);
    refused(&ask(Method::POST, "/v1/embeddings", json!({})).await, 404, None);
    let compressed = bearer(request(Method::GET, "/v1/nothing")).header("accept-encoding", "gzip, br");
    let reply = house.ask(compressed.header("cookie", "").body(Body::empty()).unwrap()).await;
    refused(&reply, 404, None);
    assert_eq!((reply.header("content-encoding"), reply.header("set-cookie")), ("", ""));
    refused(&ask(Method::GET, "/v1/models/other", json!({})).await, 404, Some("model"));
    let told = refused(&ask(Method::GET, "/v1/models/%ff", json!({})).await, 400, None);
    assert!(told.contains("cannot be read"), "{told}");
    let told = refused(&ask(Method::POST, CHAT, chat(json!({ "model": "gpt-4" }))).await, 404, Some("model"));
    assert_eq!(told, "there is no model \"gpt-4\", expected \"scripted\"");
    let elsewhere = Request::post(CHAT).header("host", "evil.test").body(Body::from("{}")).unwrap();
    refused(&house.ask(elsewhere).await, 421, None);
    let foreign = request(Method::POST, CHAT).header("origin", "http://evil.test").body(Body::from("{}")).unwrap();
    refused(&house.ask(foreign).await, 403, None);
    let loading = House::build(Plan { is_loaded: false, ..Plan::default() });
    let reply = loading.post(CHAT, &chat(json!({}))).await;
    refused(&reply, 503, None);
    assert_eq!(reply.header("retry-after"), "2");
    let v1 = House::build(Plan { format: PromptFormat::V1, ..Plan::default() });
    let system = json!({ "messages": [{ "role": "system", "content": "x" }, { "role": "user", "content": "x" }] });
    refused(&v1.post(CHAT, &system).await, 400, Some("messages"));
}

#[tokio::test]
async fn a_full_queue_is_503_with_a_time_and_nothing_of_the_request_stays() {
    let house = House::build(Plan { is_held: true, max_running: 2, max_waiting: 2, ..Plan::default() });
    let router = house.router.clone();
    let asked = asking_for(&chat(json!({ "n": 4 })));
    let first = tokio::spawn(router.oneshot(asked));
    until(|| house.server.loaded().unwrap().engine.stats().submitted.get() == 4).await;
    let reply = house.post(CHAT, &chat(json!({ "n": 2 }))).await;
    assert!(refused(&reply, 503, None).contains("requests are waiting, at most 2 may"));
    assert_eq!(reply.header("retry-after"), "5");
    house.gate.open();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    until(|| running(&house) == 0).await;
    let whole = read(&house.post(CHAT, &chat(json!({ "n": 8 }))).await);
    let answers = whole["choices"].as_array().unwrap();
    assert_eq!(answers.len(), 8, "those that have no place yet wait for one");
    assert!(answers.iter().all(|answer| answer["message"]["content"] == ANSWER));
    let metrics = house.get("/metrics").await.body;
    assert!(metrics.contains("xverse_refusals_total{code=\"queue_full\"} 1"), "{metrics}");
    assert!(!metrics.contains("xverse_cancels_total{"), "{metrics}");
}

#[tokio::test]
async fn whoever_goes_away_cancels_what_they_asked_for_and_nobody_else_notices() {
    let house = House::build(Plan { is_held: true, ..Plan::default() });
    for body in [chat(json!({ "stream": true, "n": 2 })), chat(json!({ "n": 2 }))] {
        let asked = asking_for(&body);
        let is_streamed = body["stream"] == true;
        let mut asking = Box::pin(house.router.clone().oneshot(asked));
        if is_streamed {
            let response = asking.await.unwrap();
            let mut pieces = response.into_body().into_data_stream();
            house.gate.pass(8);
            assert!(pieces.next().await.is_some());
            assert!(running(&house) > 0);
            drop(pieces);
        } else {
            // Polled until the engine has it, then dropped, as a server does whose client hangs up.
            let submitted = || house.server.loaded().unwrap().engine.stats().submitted.get();
            while submitted() < 4 {
                let waited = tokio::time::timeout(Duration::from_millis(5), &mut asking).await;
                assert!(waited.is_err());
            }
            drop(asking);
        }
        let cancelled = || house.server.loaded().unwrap().engine.stats().cancelled.get();
        let before = if is_streamed { 2 } else { 4 };
        // The engine looks between steps.
        house.gate.pass(2);
        until(|| cancelled() == before).await;
        house.gate.pass(2);
        until(|| running(&house) == 0).await;
    }
    house.gate.open();
    assert_eq!(read(&house.post(CHAT, &chat(json!({}))).await)["choices"][0]["message"]["content"], ANSWER);
    let metrics = house.get("/metrics").await.body;
    assert!(metrics.contains("xverse_cancels_total{cause=\"client_gone\"} 4"), "{metrics}");
    assert!(metrics.contains("xverse_generations_total{reason=\"end_of_text\",source=\"api\"} 1"), "{metrics}");
    assert!(metrics.contains("xverse_queue_wait_seconds_count"), "{metrics}");
    assert!(metrics.contains("xverse_inter_token_seconds_count"), "{metrics}");
}

#[tokio::test]
async fn an_answer_that_fails_says_so_whole_and_in_a_stream() {
    let faults = || vec![(At::Token(5), Fault::Error)];
    let house = House::build(Plan { faults: faults(), ..Plan::default() });
    let reply = house.post(CHAT, &chat(json!({}))).await;
    assert!(refused(&reply, 500, None).contains("ask again"));
    let metrics = house.get("/metrics").await.body;
    assert!(!metrics.contains("xverse_cancels_total{"), "{metrics}");
    let pieces = pieces(&house.post(CHAT, &chat(json!({ "stream": true }))).await);
    let said: String = pieces.iter().filter_map(|piece| piece["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, "One. ", "what was said before is there");
    assert_eq!(pieces.last().unwrap()["error"]["code"], "engine_restarted");
    let nan = House::build(Plan {
        faults: vec![(At::Token(2), Fault::Logits { row: 0, value: f32::NAN })],
        ..Plan::default()
    });
    assert!(refused(&nan.post(CHAT, &chat(json!({}))).await, 500, None).contains("numbers that are none"));
}

#[tokio::test]
async fn a_server_that_goes_down_lets_answers_end_and_then_ends_them() {
    let limits = Limits { drain: Duration::from_millis(300), ..Plan::default().limits };
    let house = House::build(Plan { is_held: true, limits, ..Plan::default() });
    let asked = asking_for(&chat(json!({ "stream": true })));
    let response = house.router.clone().oneshot(asked).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    house.gate.pass(6);
    assert!(body.next().await.is_some());
    let draining = tokio::spawn({
        let server = house.server.clone();
        async move { xverse_chat::server::shutdown::drain(&server).await }
    });
    until(|| house.server.draining.is_cancelled()).await;
    refused(&house.post(CHAT, &chat(json!({}))).await, 503, None);
    // Its time is up while the engine is in a step: it ends without the engine.
    let mut rest = String::new();
    while let Some(Ok(part)) = body.next().await {
        rest.push_str(std::str::from_utf8(&part).unwrap());
    }
    assert!(
        rest.contains("\"error\"") && rest.contains("shutting_down") && rest.ends_with("data: [DONE]\n\n"),
        "{rest}"
    );
    drop(body);
    draining.await.unwrap();
}
