//! A stand-in for an upstream server: it says what its script says, right or wrong, over real sockets.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, Response, StatusCode},
    middleware::map_response,
    response::IntoResponse,
    routing::{get, post},
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore, task::AbortHandle};
use xverse_chat::engine::remote::address::Address;

/// What an upstream says where its script says nothing else.
pub const SAID: [&str; 4] = ["One", " **two**", " three", ".\n"];

/// Between two pieces that are the same.
const PAUSE: Duration = Duration::from_millis(5);

/// One response.
#[derive(Clone)]
pub struct Act {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub pieces: Vec<Piece>,
}

/// A piece of a response's body.
#[derive(Clone)]
pub enum Piece {
    Bytes(String),
    /// Nothing more until the gate lets one through.
    Gate(Gate),
    /// This, again and again, and nothing more.
    Endless(String),
    /// Nothing more at all.
    Hang,
    /// The connection breaks.
    Die,
}

/// Lets pieces through.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

/// The server; it goes on until the test's runtime ends.
#[derive(Clone)]
pub struct Stub {
    pub address: Address,
    seen: Arc<Seen>,
    serving: AbortHandle,
}

#[derive(Default)]
struct Seen {
    is_ill: AtomicBool,
    /// What it says of its model instead of what it does otherwise.
    model: Mutex<Option<(&'static str, u32)>>,
    script: Mutex<VecDeque<Act>>,
    /// For every request that the script says nothing of.
    otherwise: Mutex<Option<Act>>,
    asked: Mutex<Vec<Value>>,
    keys: Mutex<Vec<String>>,
    open: Arc<AtomicUsize>,
}

/// A response that is being sent.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub fn pass(&self, n: usize) {
        self.0.add_permits(n);
    }
}

/// One event of a stream.
pub fn event(json: &Value) -> Piece {
    Piece::Bytes(format!("data: {json}\n\n"))
}

/// A part of an answer.
pub fn token(text: &str) -> Piece {
    event(&json!({ "object": "chat.completion.chunk", "choices": [{ "index": 0, "delta": { "content": text } }] }))
}

/// How an answer ends.
pub fn end(reason: &str, prompt: u32, generated: u32) -> Vec<Piece> {
    vec![
        event(&json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })),
        event(&json!({ "choices": [], "usage": { "prompt_tokens": prompt, "completion_tokens": generated } })),
        Piece::Bytes("data: [DONE]\n\n".to_owned()),
    ]
}

impl Act {
    /// A stream of these pieces.
    pub fn stream(pieces: impl IntoIterator<Item = Piece>) -> Self {
        let headers = vec![("content-type", "text/event-stream; charset=utf-8".to_owned())];
        Self { status: 200, headers, pieces: pieces.into_iter().collect() }
    }

    /// The whole of an answer.
    pub fn answer() -> Self {
        Self::stream(SAID.map(token).into_iter().chain(end("stop", 9, 5)))
    }

    /// The beginning of an answer, and then something else.
    pub fn begun(then: Piece) -> Self {
        Self::stream([token(SAID[0]), token(SAID[1]), then])
    }

    /// A status with a body.
    pub fn status(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, pieces: vec![Piece::Bytes(body.to_string())] }
    }

    /// A page where an answer was expected.
    pub fn html() -> Self {
        let headers = vec![("content-type", "text/html".to_owned())];
        Self { status: 200, headers, pieces: vec![Piece::Bytes("<html>Sign in</html>".to_owned())] }
    }
}

impl Stub {
    /// One that answers.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse(&format!("http://{}/v1/", listener.local_addr().unwrap())).unwrap();
        let seen = Arc::<Seen>::default();
        let router = Router::new()
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(answer))
            .route("/v1/completions", post(answer))
            .with_state(seen.clone());
        // So that nobody comes back over an old connection to one that has left.
        let router = router.layer(map_response(async |mut response: Response<Body>| {
            response.headers_mut().insert("connection", HeaderValue::from_static("close"));
            response
        }));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Self { address, seen, serving }
    }

    /// One with these acts, one a request, after which it answers.
    pub async fn with(script: impl IntoIterator<Item = Act>) -> Self {
        let stub = Self::start().await;
        stub.seen.script.lock().unwrap().extend(script);
        stub
    }

    /// One that does the same each time.
    pub async fn always(act: Act) -> Self {
        let stub = Self::start().await;
        *stub.seen.otherwise.lock().unwrap() = Some(act);
        stub
    }

    /// From here on everything is a 503, checks too; or nothing any more.
    pub fn set_ill(&self, is_ill: bool) {
        self.seen.is_ill.store(is_ill, Ordering::SeqCst);
    }

    /// From here on it has another model, with a context of so many tokens.
    pub fn set_model(&self, name: &'static str, context: u32) {
        *self.seen.model.lock().unwrap() = Some((name, context));
    }

    /// Listens no more.
    pub fn leave(&self) {
        self.serving.abort();
    }

    /// What it was asked.
    pub fn asked(&self) -> Vec<Value> {
        self.seen.asked.lock().unwrap().clone()
    }

    /// What it was sent as `Authorization`, checks included.
    pub fn keys(&self) -> Vec<String> {
        self.seen.keys.lock().unwrap().clone()
    }

    /// How many responses are being sent.
    pub fn n_open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }
}

async fn models(State(seen): State<Arc<Seen>>, headers: HeaderMap) -> Response<Body> {
    note_key(&seen, &headers);
    if seen.is_ill.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let (name, context) = seen.model.lock().unwrap().unwrap_or(("stub-model", 1024));
    Json(json!({ "object": "list", "data": [{ "id": name, "max_model_len": context }] })).into_response()
}

async fn answer(State(seen): State<Arc<Seen>>, headers: HeaderMap, Json(body): Json<Value>) -> Response<Body> {
    note_key(&seen, &headers);
    seen.asked.lock().unwrap().push(body);
    if seen.is_ill.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let next = seen.script.lock().unwrap().pop_front();
    let act = next.or_else(|| seen.otherwise.lock().unwrap().clone()).unwrap_or_else(Act::answer);
    seen.open.fetch_add(1, Ordering::SeqCst);
    let open = Open(seen.open.clone());
    let pieces = stream::iter(act.pieces).flat_map(|piece| match piece {
        Piece::Endless(text) => stream::iter(std::iter::repeat(Piece::Bytes(text))).then(after_a_while).boxed(),
        piece => stream::iter([piece]).boxed(),
    });
    let pieces = pieces.filter_map(move |piece| {
        let _open = &open;
        sent(piece)
    });
    let mut response = Response::builder().status(act.status);
    for (name, value) in act.headers {
        response = response.header(name, value);
    }
    response.body(Body::from_stream(pieces)).unwrap()
}

async fn after_a_while(piece: Piece) -> Piece {
    // The first tick of one comes at once.
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PAUSE, PAUSE);
    ticks.tick().await;
    piece
}

async fn sent(piece: Piece) -> Option<Result<Bytes, std::io::Error>> {
    match piece {
        Piece::Bytes(text) => Some(Ok(text.into())),
        Piece::Gate(gate) => {
            gate.0.acquire().await.unwrap().forget();
            None
        }
        Piece::Endless(_) | Piece::Hang => std::future::pending().await,
        Piece::Die => {
            // What came before is sent where the next piece is not there at once, and forgotten otherwise.
            tokio::task::yield_now().await;
            Some(Err(std::io::Error::other("the script says so")))
        }
    }
}

fn note_key(seen: &Seen, headers: &HeaderMap) {
    let key = headers.get("authorization").map_or("", |key| key.to_str().unwrap());
    seen.keys.lock().unwrap().push(key.to_owned());
}
