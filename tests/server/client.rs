//! A client of the router: commands, pages, event streams.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, Method, Request, StatusCode},
};
use futures::StreamExt;
use serde::Serialize;
use serde_json::{Value, json};
use tower::ServiceExt;
use xverse_chat::chat::{
    command::{ContinueCommand, RegenerateCommand, SendCommand, Started},
    error::{ChatError, ErrorCode},
    event::{EndReason, Event, EventKind},
    ids::{ConversationId, GenerationId, MessageId, RequestId},
    info::PageData,
    list::{ChatList, ListQuery},
    markup::Block,
    message::{AnswerState, AnswerStats, Role},
    settings::Settings,
};
use xverse_chat::{server::session::Secret, storage::record::Owner};

use crate::house::House;

/// Longer than anything takes that is not stuck.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// An answer of the router, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn error(&self) -> ChatError {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{} is no error: {}", self.status, self.body))
    }

    pub fn read<T: serde::de::DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Who asks where a test does not say who.
pub const SOMEBODY: u8 = 0xa5;

/// A request with a Host, to be added to.
pub fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost:36000")
}

/// The cookie of one of 256 people.
pub fn cookie(who: u8) -> String {
    format!("owner={}", format!("{who:02x}").repeat(32))
}

impl House {
    /// Asks as whoever's cookie the request has, or else as [`SOMEBODY`].
    pub async fn ask(&self, mut request: Request<Body>) -> Reply {
        let somebody = || cookie(SOMEBODY).parse().unwrap();
        request.headers_mut().entry("cookie").or_insert_with(somebody);
        let response = tokio::time::timeout(DEADLINE, self.router.clone().oneshot(request)).await.unwrap().unwrap();
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(DEADLINE, axum::body::to_bytes(body, usize::MAX)).await.unwrap().unwrap();
        Reply { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.ask(request(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &impl Serialize) -> Reply {
        self.post_as(SOMEBODY, path, body).await
    }

    /// Sends a command as one of 256 people.
    pub async fn post_as(&self, who: u8, path: &str, body: &impl Serialize) -> Reply {
        let body = serde_json::to_string(body).unwrap();
        let request = request(Method::POST, path).header("content-type", "application/json");
        self.ask(request.header("cookie", cookie(who)).body(body.into()).unwrap()).await
    }

    pub async fn send(&self, command: &SendCommand) -> Reply {
        self.post("/api/send", &json!({ "command": command })).await
    }

    pub async fn started(&self, command: &SendCommand) -> Started {
        self.send(command).await.read()
    }

    pub async fn regenerate(&self, conversation: ConversationId, answer: MessageId) -> Reply {
        let command = RegenerateCommand {
            request: RequestId::random(),
            conversation,
            answer,
            system: String::new(),
            settings: Settings::default(),
        };
        self.post("/api/regenerate", &json!({ "command": command })).await
    }

    /// Goes on with an answer.
    pub async fn continue_answer(&self, conversation: ConversationId, answer: MessageId) -> Reply {
        let command = ContinueCommand { request: RequestId::random(), conversation, answer, max_new_tokens: None };
        self.post("/api/continue", &json!({ "command": command })).await
    }

    /// The owner that one of 256 people is.
    pub async fn owner(&self, who: u8) -> Owner {
        let secret = Secret::from_hex(&format!("{who:02x}").repeat(32)).unwrap();
        self.server.owners.of(self.server.library.storage(), secret.hash()).await.unwrap()
    }

    /// How many conversations [`SOMEBODY`] has.
    pub async fn n_chats(&self) -> usize {
        self.post("/api/chats", &json!({ "query": ListQuery::default() })).await.read::<ChatList>().chats.len()
    }

    pub async fn stop(&self, generation: GenerationId) -> Reply {
        self.post("/api/stop", &json!({ "generation": generation })).await
    }

    pub async fn page(&self, conversation: ConversationId) -> PageData {
        self.post("/api/page", &json!({ "conversation": conversation })).await.read()
    }

    /// Opens an answer's events after a cursor.
    pub async fn events(&self, generation: GenerationId, after: u64) -> EventStream {
        let request = request(Method::GET, &format!("/generations/{generation}/events?after={after}"));
        let request = request.header("cookie", cookie(SOMEBODY));
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        EventStream { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// Reads an answer to its end.
    pub async fn whole(&self, generation: GenerationId) -> Screen {
        let mut events = self.events(generation, 0).await;
        let mut screen = Screen::default();
        while let Some(event) = events.next().await {
            screen.apply(&event);
        }
        screen
    }
}

/// The first message of a new conversation.
pub fn say(text: &str) -> SendCommand {
    SendCommand {
        request: RequestId::random(),
        conversation: ConversationId::random(),
        parent: None,
        role: Role::User,
        text: text.to_owned(),
        system: String::new(),
        settings: Settings::default(),
    }
}

/// The generation that writes a started answer.
pub fn generation(started: &Started) -> GenerationId {
    match started.answer.answer.as_ref().unwrap().state {
        AnswerState::Running { generation, .. } => generation,
        AnswerState::Ended { .. } => panic!("the answer is over"),
    }
}

/// An open event stream.
pub struct EventStream {
    body: BodyDataStream,
    text: String,
}

impl EventStream {
    /// The next event, `None` where the server has closed the stream.
    pub async fn next(&mut self) -> Option<Event> {
        // Comments keep a stream alive, and are no event.
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = parse(&frame) {
                    return Some(event);
                }
                continue;
            }
            let chunk = tokio::time::timeout_at(deadline, self.body.next()).await.expect("an event in time")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }
}

/// Reads a frame; `None` for a comment.
fn parse(frame: &str) -> Option<Event> {
    let data = frame.lines().find_map(|line| line.strip_prefix("data: "))?;
    let id = frame.lines().find_map(|line| line.strip_prefix("id: ")).expect("an event has an id");
    let event: Event = serde_json::from_str(data).unwrap();
    assert_eq!(id.parse::<u64>().unwrap(), event.seq);
    Some(event)
}

/// What a page shows of an answer after some events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Screen {
    pub seq: u64,
    pub blocks: Vec<Block>,
    pub tail: Vec<Block>,
    pub end: Option<(EndReason, AnswerStats, String)>,
    pub is_saved: bool,
}

impl Screen {
    pub fn apply(&mut self, event: &Event) {
        assert!(event.seq > self.seq, "numbers grow");
        assert!(self.end.is_none(), "nothing comes after the end");
        self.seq = event.seq;
        match &event.kind {
            EventKind::Queued { .. } | EventKind::Reading { .. } => {
                assert!(self.blocks.is_empty() && self.tail.is_empty(), "progress comes before text");
            }
            EventKind::Block { index, block } => {
                assert_eq!(*index as usize, self.blocks.len(), "each block once, in order");
                self.blocks.push(block.clone());
            }
            EventKind::Tail { blocks } => self.tail.clone_from(blocks),
            EventKind::End { reason, stats, text, is_saved } => {
                assert!(self.tail.is_empty(), "all blocks are final at the end");
                self.end = Some((*reason, *stats, text.clone()));
                self.is_saved = *is_saved;
            }
        }
    }

    pub fn reason(&self) -> EndReason {
        self.end.as_ref().expect("the answer is over").0
    }

    pub fn text(&self) -> &str {
        &self.end.as_ref().expect("the answer is over").2
    }
}

/// Asserts a refusal's status and code.
pub fn assert_refused(reply: &Reply, status: u16, code: ErrorCode) {
    assert_eq!(reply.status, status, "{}", reply.body);
    assert_eq!(reply.error().code, code, "{}", reply.body);
}

/// A value that the page sends as JSON, to be made wrong.
pub fn as_json(command: &SendCommand) -> Value {
    json!({ "command": command })
}

/// Reads until there is text on the screen.
pub async fn until_text(events: &mut EventStream, screen: &mut Screen) {
    while screen.blocks.is_empty() && screen.tail.is_empty() {
        screen.apply(&events.next().await.expect("text before the end"));
    }
}

/// Waits for a condition, for as long as the deadline says.
pub async fn until(condition: impl Fn() -> bool) {
    tokio::time::timeout(DEADLINE, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the condition in time");
}
