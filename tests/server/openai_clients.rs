//! The API on the mini model, over sockets: log-probabilities against the engine's own, and two hundred clients at once.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use xverse_chat::engine::{
    backend::cuda::CudaSettings,
    load::DeviceChoice,
    logits::{self, LogitsOptions},
    precision::Precision,
    sampling::logprobs,
};

use crate::{client::say, process::Running, program::Program};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn asked(running: &Running, path: &str, body: &Value) -> Value {
    let (status, reply) = running.client(0).told("POST", path, &body.to_string());
    assert_eq!(status, 200, "{reply}");
    serde_json::from_str(&reply).unwrap()
}

/// The mini model's logits at each place of these ids, by another way than the server's.
fn logits_of(ids: &[u32]) -> Vec<Vec<f32>> {
    let options = LogitsOptions {
        model_path: std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini"),
        device: DeviceChoice::Cpu,
        precision: Precision::default(),
        chunk: 7,
        together: false,
        cuda: CudaSettings::default(),
        threads: 1,
    };
    let mut bytes = Vec::new();
    logits::write(&options, &[ids.to_vec()], &mut bytes).unwrap();
    let numbers: Vec<f32> = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    numbers.chunks_exact(numbers.len() / ids.len()).map(<[f32]>::to_vec).collect()
}

#[test]
fn log_probabilities_are_the_unmodified_distributions_for_prompt_and_answer() {
    let running = Running::ready("");
    let prompt = "Human: 你好\n\nAssistant: ";
    let body = json!({ "prompt": prompt, "echo": true, "logprobs": 5, "max_tokens": 6, "temperature": 0.7, "seed": 11,
                       "ignore_eos": true });
    let whole = asked(&running, TEXT, &body);
    let told = &whole["choices"][0]["logprobs"];
    let tokens = asked(&running, "/tokenize", &json!({ "prompt": prompt }));
    let n_prompt = tokens["count"].as_u64().unwrap() as usize;
    let text = whole["choices"][0]["text"].as_str().unwrap();
    assert!(text.starts_with(prompt), "{text}");
    // The ids of the answer, by what was drawn.
    let all = asked(&running, "/tokenize", &json!({ "prompt": text }));
    let ids: Vec<u32> = serde_json::from_value(all["tokens"].clone()).unwrap();
    let shown = told["tokens"].as_array().unwrap();
    assert_eq!(shown.len(), n_prompt + 6);
    let logits = logits_of(&ids);
    let close = |told: &Value, expected: f32, what: &str| {
        let told = told.as_f64().unwrap() as f32;
        assert!((told - expected).abs() < 1e-4, "{what}: {told} told, {expected} expected");
    };
    assert!(told["token_logprobs"][0].is_null() && told["top_logprobs"][0].is_null());
    for place in 1..n_prompt {
        let expected = logprobs(&logits[place - 1], ids[place], 5);
        close(&told["token_logprobs"][place], expected.logprob, &format!("place {place}"));
        let top = told["top_logprobs"][place].as_object().unwrap();
        assert!(top.len() >= 5 && top.contains_key(shown[place].as_str().unwrap()), "{top:?}");
        let best = top.values().map(|value| value.as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max);
        close(&json!(best), expected.top[0].1, "the likeliest");
    }
    let offsets: Vec<u64> = serde_json::from_value(told["text_offset"].clone()).unwrap();
    assert!(offsets.is_sorted() && offsets[0] == 0 && offsets[n_prompt] == prompt.chars().count() as u64);
    // No answer at all: the prompt's alone, and the same ones.
    let body = json!({ "prompt": ids[..n_prompt], "echo": true, "logprobs": 1, "max_tokens": 0 });
    let alone = asked(&running, TEXT, &body);
    let alone = &alone["choices"][0];
    assert_eq!((&alone["text"], &alone["finish_reason"]), (&json!(prompt), &json!("length")));
    assert_eq!(
        alone["logprobs"]["token_logprobs"].as_array().unwrap()[..],
        told["token_logprobs"].as_array().unwrap()[..n_prompt]
    );
    // Where the end token is drawn its probability is told, too, so that every place asked for has one.
    let body = json!({ "messages": [{ "role": "user", "content": "你好" }], "temperature": 0, "logprobs": true, "top_logprobs": 2 });
    let chat = asked(&running, CHAT, &body);
    let content = chat["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len() as u64, chat["usage"]["completion_tokens"].as_u64().unwrap() + 1);
    assert_eq!(content.last().unwrap()["token"], "<|endoftext|>");
    assert!(content.iter().all(|entry| entry["top_logprobs"].as_array().unwrap().len() == 2));
    let bytes: Vec<u8> = content[..content.len() - 1]
        .iter()
        .flat_map(|entry| serde_json::from_value::<Vec<u8>>(entry["bytes"].clone()).unwrap())
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), chat["choices"][0]["message"]["content"].as_str().unwrap());
}

#[test]
fn each_token_of_a_text_is_told_with_the_place_where_it_stands() {
    let running = Running::ready("");
    let places = |body: Value| {
        let told = asked(&running, TEXT, &body);
        let text: Vec<char> = told["choices"][0]["text"].as_str().unwrap().chars().collect();
        let told = &told["choices"][0]["logprobs"];
        let tokens: Vec<String> = serde_json::from_value(told["tokens"].clone()).unwrap();
        let offsets: Vec<usize> = serde_json::from_value(told["text_offset"].clone()).unwrap();
        assert_eq!(tokens.len(), offsets.len());
        (text, tokens, offsets)
    };
    let emoji = json!({ "prompt": "😀a😀😀b", "echo": true, "logprobs": 0, "max_tokens": 0 });
    let (_, tokens, offsets) = places(emoji);
    let place = |token: &str| offsets[tokens.iter().position(|other| other == token).unwrap()];
    assert_eq!((place("a"), place("b")), (1, 4));
    assert_eq!(offsets, [0, 0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4], "{tokens:?}");
    // Drawn at random there are bytes that are no text; a stop string that never comes holds text back.
    let mut n_bytes = 0;
    for seed in 0..20 {
        let body = json!({ "prompt": "Human: 你好\n\nAssistant: ", "logprobs": 0, "max_tokens": 40, "temperature": 2,
            "top_k": 0, "top_p": 1, "seed": seed, "ignore_eos": true, "stop": ["\u{1}".repeat(30), "一".repeat(30)] });
        let (text, tokens, offsets) = places(body);
        assert!(offsets.is_sorted(), "{offsets:?}");
        for (token, offset) in tokens.iter().zip(offsets) {
            if token.starts_with("bytes:") {
                n_bytes += 1;
            } else if !token.starts_with("<|") {
                let there: String = text[offset..].iter().take(token.chars().count()).collect();
                assert_eq!(there, *token, "seed {seed}, place {offset}");
            }
        }
    }
    assert!(n_bytes > 0, "no byte was drawn, and nothing is proven of them");
}

#[test]
fn greedy_answers_keep_the_repetition_penalty_unless_it_is_one() {
    let running = Running::ready("");
    let text = |more: Value| {
        let mut body =
            json!({ "prompt": "one two one two one two one", "max_tokens": 24, "temperature": 0, "ignore_eos": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        asked(&running, TEXT, &body)["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        text(json!({})),
        text(json!({ "repetition_penalty": 1.1, "seed": 5 })),
        "as generation_config.json says"
    );
    assert_ne!(text(json!({})), text(json!({ "repetition_penalty": 1 })));
}

#[test]
fn two_hundred_clients_at_once_get_what_each_would_alone_while_pages_load() {
    const CLIENTS: usize = 200;
    const QUESTIONS: [&str; 4] = ["你好", "Who are you?", "1 + 1 = ?", "Write a poem."];
    let running = Arc::new(Running::ready("[limits]\nmax_waiting = 256\n"));
    let body = |question: &str, seed: usize| {
        json!({ "messages": [{ "role": "user", "content": question }], "max_tokens": 40, "seed": seed, "stream": true })
            .to_string()
    };
    let streamed = |running: &Running, body: &str| {
        let mut reply = String::new();
        running.client(0).ask("POST", CHAT, body).read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        assert!(reply.contains("data: [DONE]") && !reply.contains("\"error\""), "{reply}");
        let pieces = reply.lines().filter_map(|line| line.strip_prefix("data: {"));
        let pieces = pieces.map(|piece| serde_json::from_str::<Value>(&format!("{{{piece}")).unwrap());
        pieces
            .filter_map(|piece| Some(piece["choices"][0]["delta"]["content"].as_str()?.to_owned()))
            .collect::<String>()
    };
    // Seeds come round, so that each answer's own run is known.
    let bodies: Vec<String> = (0..CLIENTS).map(|client| body(QUESTIONS[client % 4], client % 20)).collect();
    let alone: Vec<String> = bodies[..20].iter().map(|body| streamed(&running, body)).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let pages = thread::spawn({
        let (running, is_over) = (running.clone(), is_over.clone());
        move || {
            let mut times = Vec::new();
            while !is_over.load(Ordering::Acquire) {
                let began = Instant::now();
                assert_eq!(running.client(7).told("GET", "/", "").0, 200);
                times.push(began.elapsed());
            }
            times
        }
    });
    let clients: Vec<_> = bodies
        .into_iter()
        .map(|body| {
            let running = running.clone();
            thread::spawn(move || streamed(&running, &body))
        })
        .collect();
    for (index, client) in clients.into_iter().enumerate() {
        assert_eq!(client.join().unwrap(), alone[index % 20], "client {index}");
    }
    is_over.store(true, Ordering::Release);
    let mut times = pages.join().unwrap();
    times.sort();
    let of = |share: usize| times[(times.len() - 1) * share / 100];
    println!(
        "{} pages meanwhile: median {:?}, 99 % below {:?}, the slowest {:?}",
        times.len(),
        of(50),
        of(99),
        of(100)
    );
}

/// What `/metrics` says of this.
fn metric(running: &Running, name: &str) -> f64 {
    let (status, metrics) = running.client(0).told("GET", "/metrics", "");
    assert_eq!(status, 200);
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().parse().unwrap_or(0.0)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_hangs_up_or_takes_nothing_in_is_cancelled_and_nobody_else_notices() {
    let running = Running::ready("[limits]\nstalled_write_s = 1\n[engine]\nmin_step_ms = 2\n");
    let messages = json!([{ "role": "user", "content": "你好" }]);
    // Long, and so much of it that no buffer on the way holds it all.
    let endless = json!({ "messages": messages, "max_tokens": 2000, "ignore_eos": true, "stream": true, "n": 8,
                          "logprobs": true, "top_logprobs": 20 });
    let other = json!({ "messages": messages, "temperature": 0 });
    let expected = asked(&running, CHAT, &other);
    for (n_gone, is_hanging_up) in [(8.0, true), (16.0, false)] {
        let mut stream = running.client(0).ask("POST", CHAT, &endless.to_string());
        let mut first = [0; 64];
        stream.read_exact(&mut first).unwrap();
        let unread = if is_hanging_up {
            drop(stream);
            None
        } else {
            Some(stream)
        };
        assert_eq!(asked(&running, CHAT, &other)["choices"], expected["choices"]);
        until("all its answers are cancelled", || {
            metric(&running, "xverse_cancels_total{cause=\"client_gone\"}") == n_gone
        });
        until("nothing runs", || metric(&running, "xverse_requests_running") == 0.0);
        drop(unread);
    }
}

#[test]
fn what_people_write_and_get_is_never_logged() {
    let program = Program::new();
    program.model(json!({}));
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = program.command(&["--port=0", "--model_path=model"]);
    command.env("XVERSE_LOG", "trace").env("XVERSE_LOG_FORMAT", "json").stderr(log.reopen().unwrap());
    let mut running = Running::run(command, program);
    running.line("loaded");
    let said = "Canary-0123456789";
    let message = json!([{ "role": "user", "content": said }]);
    let answer = asked(&running, CHAT, &json!({ "messages": message, "temperature": 0 }));
    let answer = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    asked(&running, TEXT, &json!({ "prompt": said, "echo": true, "logprobs": 1, "max_tokens": 0 }));
    asked(&running, "/tokenize", &json!({ "prompt": said }));
    let wrong = json!({ "messages": [{ "role": said, "content": said }], "stop": [said] }).to_string();
    assert_eq!(running.client(0).told("POST", CHAT, &wrong).0, 400);
    assert_eq!(running.client(0).told("POST", CHAT, &format!("{{{said}")).0, 400);
    let id = running.client(0).started(&say(said));
    let mut events = String::new();
    running.client(0).events(id).read_to_string(&mut events).unwrap();
    assert!(events.contains("\"end\""), "{events}");
    running.tell_to_end();
    assert_eq!(running.status(), Some(0));
    let logged = std::fs::read_to_string(log.path()).unwrap();
    let lines: Vec<Value> = logged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_noted = |path: &str| lines.iter().any(|line| line["path"].as_str().is_some_and(|told| told.contains(path)));
    assert!(is_noted(CHAT) && is_noted("/api/send"), "requests are noted: {logged}");
    let first_words: String = answer.chars().take(12).collect();
    assert!(!logged.contains("Canary") && !logged.contains(&first_words), "{logged}");
}
