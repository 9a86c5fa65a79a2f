//! One conversation, the likeliest token each time: the page, the API, the terminal, the library, and a second server that has
//! the first one as its upstream say the same words.

use std::{fs::File, io::Read, path::Path, time::Instant};

use serde_json::{Value, json};
use xverse_chat::{
    chat::{
        command::{SendCommand, Started},
        event::{Event, EventKind},
        settings::Settings,
    },
    engine::{ChatOptions, Engine, prompt::Turn},
};

use crate::{
    client::{generation, say},
    process::{Running, TIME},
    program::Program,
};

const QUESTIONS: [&str; 2] = ["你好", "Who are you?"];

fn greedy() -> Settings {
    Settings { temperature: Some(0.0), max_new_tokens: Some(48), ..Settings::default() }
}

fn on_the_page(running: &Running) -> Vec<String> {
    let client = running.client(0);
    let mut command = SendCommand { settings: greedy(), ..say(QUESTIONS[0]) };
    let mut answers = Vec::new();
    for question in QUESTIONS {
        command = SendCommand { text: question.to_owned(), request: say("").request, ..command };
        let (status, body) = client.send(&command);
        assert_eq!(status, 200, "{body}");
        let started: Started = serde_json::from_str(&body).unwrap();
        let mut events = String::new();
        client.events(generation(&started)).read_to_string(&mut events).unwrap();
        let end =
            events.lines().filter_map(|line| line.strip_prefix("data:")).find_map(|data| match serde_json::from_str::<
                Event,
            >(data.trim())
            .unwrap()
            .kind
            {
                EventKind::End { text, .. } => Some(text),
                _ => None,
            });
        answers.push(end.unwrap());
        command.parent = Some(started.answer.id);
    }
    answers
}

fn over_the_api(running: &Running) -> Vec<String> {
    let mut messages = Vec::new();
    let answer = |question: &str| {
        messages.push(json!({ "role": "user", "content": question }));
        let body = json!({ "messages": messages, "temperature": 0, "max_tokens": 48 }).to_string();
        let (status, body) = running.client(0).told("POST", "/v1/chat/completions", &body);
        assert_eq!(status, 200, "{body}");
        let said = serde_json::from_str::<Value>(&body).unwrap()["choices"][0]["message"]["content"].clone();
        messages.push(json!({ "role": "assistant", "content": said }));
        said.as_str().unwrap().to_owned()
    };
    QUESTIONS.map(answer).into()
}

fn by_the_library() -> Vec<String> {
    let engine = Engine::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini")).unwrap();
    let options = ChatOptions { settings: greedy(), ..ChatOptions::conversation() };
    let mut turns = Vec::new();
    let answer = |question: &str| {
        turns.push(Turn::user(question));
        let said: String = engine.chat_with(&turns, &options).unwrap().map(|token| token.text).collect();
        turns.push(Turn::assistant(said.as_str()));
        said
    };
    QUESTIONS.map(answer).into()
}

/// What is written to a pipe: each answer with a line end behind it.
fn in_the_terminal() -> String {
    let program = Program::new();
    program.model(json!({}));
    let path = program.path("input");
    std::fs::write(&path, QUESTIONS.join("\n")).unwrap();
    let mut command = program.command(&["chat", "--model_path=model", "--temperature=0", "--max_new_tokens=48"]);
    command.stdin(File::open(path).unwrap());
    let ended = Program::ended(command, Instant::now() + TIME);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    ended.stdout
}

#[test]
fn every_way_to_the_model_says_the_same_words() {
    let first = Running::ready("");
    let program = Program::new();
    let upstream = format!("--upstream=http://{}", first.address);
    let mut second = Running::run(program.command(&["--port=0", &upstream]), program);
    second.line("model     model");
    let expected = by_the_library();
    assert!(expected.iter().all(|answer| answer.chars().count() > 10), "{expected:?}");
    for (way, said) in [
        ("page", on_the_page(&first)),
        ("API", over_the_api(&first)),
        ("page before an upstream", on_the_page(&second)),
        ("API before an upstream", over_the_api(&second)),
    ] {
        assert_eq!(said, expected, "{way}");
    }
    let lines = |answer: &String| answer.clone() + if answer.ends_with('\n') { "" } else { "\n" };
    assert_eq!(in_the_terminal(), expected.iter().map(lines).collect::<String>(), "terminal");
}

#[test]
fn before_an_upstream_the_api_streams_counts_and_says_what_it_has_not() {
    let first = Running::ready("");
    let program = Program::new();
    let upstream = format!("--upstream=http://{}", first.address);
    let mut second = Running::run(program.command(&["--port=0", &upstream]), program);
    second.line("model     model");
    let asked = |running: &Running, path: &str, body: &Value| running.client(0).told("POST", path, &body.to_string());
    let messages = json!([{ "role": "user", "content": QUESTIONS[0] }]);
    let body = json!({ "messages": messages, "temperature": 0, "max_tokens": 8, "logprobs": true, "top_logprobs": 2,
                       "stop": ["never"], "n": 2 });
    let reads = |running: &Running| {
        let (status, body) = asked(running, "/v1/chat/completions", &body);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let (here, there) = (reads(&first), reads(&second));
    assert_eq!(there["choices"], here["choices"], "log-probabilities, too");
    assert_eq!(there["usage"]["completion_tokens"], here["usage"]["completion_tokens"]);
    assert_eq!(there["usage"]["prompt_tokens"], here["usage"]["prompt_tokens"]);
    let text = json!({ "prompt": "Human: 你好\n\nAssistant: ", "max_tokens": 8, "temperature": 0 });
    let choices = |reply: (u16, String)| serde_json::from_str::<Value>(&reply.1).unwrap()["choices"].clone();
    let expected = choices(asked(&first, "/v1/completions", &text));
    assert_eq!(choices(asked(&second, "/v1/completions", &text)), expected);
    // Drawn at random, so that there are bytes whose places are known late.
    for seed in 0..4 {
        let text = json!({ "prompt": "Human: 你好\n\nAssistant: ", "max_tokens": 40, "temperature": 2, "top_k": 0, "top_p": 1,
            "seed": seed, "logprobs": 2, "ignore_eos": true, "stop": "never" });
        let expected = choices(asked(&first, "/v1/completions", &text));
        assert_eq!(expected[0]["logprobs"]["tokens"].as_array().unwrap().len(), 40);
        assert_eq!(choices(asked(&second, "/v1/completions", &text)), expected);
    }
    for (path, body) in [
        ("/tokenize", json!({ "prompt": "x" })),
        ("/detokenize", json!({ "tokens": [5] })),
        ("/v1/completions", json!({ "prompt": "x", "echo": true })),
    ] {
        let (status, reply) = asked(&second, path, &body);
        assert!(status == 400 && reply.contains("upstream server"), "{path}: {status} {reply}");
    }
}
