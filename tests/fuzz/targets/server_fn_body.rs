//! Any body sent to any server function, through the router.
//!
//! Input: up to four requests, parted by empty lines. The first line of each has the function's name and the content type,
//! the rest is the body. In it `@answer`, `@message` and `@generation` stand for what the last answer begun is called, `@code` for
//! the last link's, and `@0` to `@9` for names that nothing before this input has.

use std::{cell::RefCell, sync::LazyLock};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Request, StatusCode},
};
use leptos::server_fn::axum::server_fn_paths;
use tower::ServiceExt;
use xverse_chat::chat::{command::Started, error::ChatError, list::OwnerLink, message::AnswerState};

use crate::{
    choices::mixed,
    house::{House, Plan},
    outcome::Outcome,
};

/// After so many inputs everything is built anew, so that what they leave behind has an end.
const INPUTS_A_HOUSE: u32 = 20_000;

const MOST_REQUESTS: usize = 4;

thread_local! {
    static HOME: RefCell<Option<Home>> = const { RefCell::new(None) };
}

static FUNCTIONS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut paths: Vec<_> = server_fn_paths().map(|(path, _)| path).collect();
    paths.sort_unstable();
    paths
});

/// # Panics
/// Where the server makes a mistake, or doesn't say in its own words what was wrong.
pub fn target(data: &[u8]) -> Outcome {
    let home = HOME.take().filter(|home| home.n_inputs < INPUTS_A_HOUSE);
    let mut home = home.unwrap_or_else(Home::build);
    home.n_inputs += 1;
    let outcome = home.run(data);
    HOME.set(Some(home));
    outcome
}

struct Home {
    runtime: tokio::runtime::Runtime,
    house: House,
    n_inputs: u32,
}

/// What can be named in an input that nobody knows before it runs.
struct Names {
    n_inputs: u32,
    message: String,
    answer: String,
    generation: String,
    code: String,
}

impl Names {
    fn new(n_inputs: u32) -> Self {
        let [message, answer, generation, code] = Default::default();
        Self { n_inputs, message, answer, generation, code }
    }

    /// The body with names in place of what stands for them.
    fn filled_in(&self, body: &[u8]) -> Body {
        let Some(text) = std::str::from_utf8(body).ok().filter(|text| text.contains('@')) else {
            return Body::from(body.to_vec());
        };
        let mut text = text.to_owned();
        for (mark, name) in [
            ("@message", &self.message),
            ("@answer", &self.answer),
            ("@generation", &self.generation),
            ("@code", &self.code),
        ] {
            text = text.replace(mark, name);
        }
        for digit in 0..10 {
            text = text.replace(&format!("@{digit}"), &format!("{:024x}{digit:08x}", self.n_inputs));
        }
        Body::from(text)
    }
}

impl Home {
    fn build() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be built");
        let house = runtime.block_on(async { House::build(Plan::default()) });
        Self { runtime, house, n_inputs: 0 }
    }

    fn run(&self, data: &[u8]) -> Outcome {
        self.runtime.block_on(async {
            // Everybody asks once, so that no input depends on what another left behind.
            let cookie = format!("owner={:064x}", self.n_inputs);
            let mut names = Names::new(self.n_inputs);
            let mut outcome = Outcome::Taken;
            for request in requests(data).into_iter().take(MOST_REQUESTS) {
                let (status, body) = self.ask(to_request(request, &names), &cookie).await;
                assert!(status.as_u16() < 500, "{status}: {}", String::from_utf8_lossy(&body));
                if status.is_success() {
                    if let Ok(started) = serde_json::from_slice(&body) {
                        self.until_over(&started, &mut names, &cookie).await;
                    }
                    if let Ok(OwnerLink { code, .. }) = serde_json::from_slice(&body) {
                        names.code = code;
                    }
                } else {
                    outcome = Outcome::Refused;
                    let said = serde_json::from_slice::<ChatError>(&body);
                    said.unwrap_or_else(|error| panic!("{status} without an error of ours: {error}"));
                }
            }
            outcome
        })
    }

    async fn ask(&self, mut request: Request<Body>, cookie: &str) -> (StatusCode, Bytes) {
        request.headers_mut().insert("cookie", cookie.parse().expect("a cookie is a header"));
        let response = self.house.router.clone().oneshot(request).await.expect("the router answers everything");
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a whole answer");
        (status, body)
    }

    /// Reads an answer's events to the end, so that nothing is still running when the next request comes.
    async fn until_over(&self, started: &Started, names: &mut Names, cookie: &str) {
        names.answer = started.answer.id.to_string();
        if let Some(message) = &started.message {
            names.message = message.id.to_string();
        }
        let view = started.answer.answer.as_ref().expect("an answer that was begun is an answer");
        if let AnswerState::Running { generation, .. } = &view.state {
            names.generation = generation.to_string();
            let events = Request::get(format!("/generations/{generation}/events")).header("host", "localhost");
            let (status, body) = self.ask(events.body(Body::empty()).expect("a request"), cookie).await;
            assert_eq!(status, 200);
            assert!(String::from_utf8_lossy(&body).contains(r#"{"end":"#), "a stream without its end");
        }
    }
}

/// The parts of the input between empty lines.
fn requests(data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, pair) in data.windows(2).enumerate() {
        if pair == b"\n\n" && at >= start {
            parts.push(&data[start..at]);
            start = at + 2;
        }
    }
    parts.push(&data[start..]);
    parts
}

fn to_request(request: &[u8], names: &Names) -> Request<Body> {
    let head = request.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let body = request.get(head.len() + 1..).unwrap_or_default();
    let (name, kind) = match head.iter().position(|&byte| byte == b' ') {
        Some(at) => (&head[..at], &head[at + 1..]),
        None => (head, &b"application/json"[..]),
    };
    let known = FUNCTIONS.iter().find(|path| path.as_bytes().ends_with(name) && !name.is_empty());
    let path = known.unwrap_or_else(|| &FUNCTIONS[mixed(name) as usize % FUNCTIONS.len()]);
    let mut asked = Request::post(*path).header("host", "localhost:36000");
    if let Ok(kind) = HeaderValue::from_bytes(kind) {
        asked = asked.header("content-type", kind);
    }
    asked.body(names.filled_in(body)).expect("a request")
}
