//! Requests to upstreams over HTTP, and their answers as bytes and events.
//!
//! The one place that knows the HTTP client. No redirect is followed and no proxy of the environment is used: an upstream is
//! asked where it was said to be and nowhere else.

use std::{collections::VecDeque, error::Error, time::Duration};

use reqwest::{
    Client, RequestBuilder, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Patience, RemoteError, RemoteOptions, RemoteRequest,
    address::{Address, Key},
    chunk::{self, ErrorSaid, Said},
    failure::Failure,
    models::Found,
    sse::{Event, EventReader, MAX_EVENT_BYTES},
};

/// Most bytes that are read of a response that is an error.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Most bytes of a list of models.
const MAX_MODELS_BYTES: usize = 1 << 20;

/// A connection that lay idle for longer is not used again: servers in Python close theirs after five seconds, and a request
/// that meets that moment is lost.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);

/// The way to upstreams.
#[derive(Debug)]
pub(super) struct Transport {
    client: Client,
    key: Option<Key>,
    patience: Patience,
}

/// An answer while it comes in.
#[derive(Debug)]
pub(super) struct Events {
    response: Response,
    reader: EventReader,
    read: VecDeque<Event>,
}

impl Transport {
    /// A client; certificates are read only where an upstream is reached through TLS.
    pub(super) fn new(options: &RemoteOptions) -> Result<Self, RemoteError> {
        // Fails only where one is installed already, which then is the one to use.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("xverse-chat/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(options.patience.connect)
            .pool_idle_timeout(IDLE_CONNECTION);
        let is_encrypted = options.addresses.iter().any(Address::is_encrypted);
        let client = if is_encrypted { client } else { client.tls_certs_only([]) };
        let client = client.build().map_err(|error| RemoteError::Client(cause(&error)))?;
        Ok(Self { client, key: options.key.clone(), patience: options.patience })
    }

    /// Asks an upstream for its models, which is also how it is checked.
    pub(super) async fn found(&self, address: &Address) -> Result<Found, Failure> {
        let asked = async {
            let response = self.send(self.client.get(address.route("models"))).await?;
            if !response.status().is_success() {
                return Err(refused(response).await);
            }
            Found::read(&body(response, MAX_MODELS_BYTES).await).ok_or(Failure::Rubbish("no list of models"))
        };
        let silent = || Failure::Connect(format!("no answer within {:?}", self.patience.check_time));
        timeout(self.patience.check_time, asked).await.map_err(|_| silent())?
    }

    /// Asks an upstream for an answer; its events.
    pub(super) async fn ask(&self, address: &Address, request: &RemoteRequest, model: &str) -> Result<Events, Failure> {
        let post = self.client.post(address.route(request.route())).header(CONTENT_TYPE, "application/json");
        let response = self.send(post.body(request.body(model))).await?;
        if !response.status().is_success() {
            let refused = timeout(self.patience.check_time, refused(response)).await;
            return Err(refused.unwrap_or(Failure::Cut));
        }
        let kind = text_of(response.headers(), &CONTENT_TYPE);
        if !kind.to_ascii_lowercase().starts_with("text/event-stream") {
            return Err(Failure::Rubbish("an answer that is no stream of events"));
        }
        Ok(Events { response, reader: EventReader::new(MAX_EVENT_BYTES), read: VecDeque::new() })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let request = match &self.key {
            Some(key) => request.header(AUTHORIZATION, key.header()),
            None => request,
        };
        request.send().await.map_err(
            |error| {
                if error.is_connect() { Failure::Connect(cause(&error)) } else { Failure::Cut }
            },
        )
    }
}

impl Events {
    /// What the next event says; `None` after the last. Where none comes until the deadline, that is `missed`.
    pub(super) async fn next(&mut self, until: Instant, missed: &Failure) -> Result<Option<Said>, Failure> {
        loop {
            match self.read.pop_front() {
                Some(Event::Data(data)) => return Ok(Some(chunk::read(&data))),
                Some(Event::Error(error)) => return Ok(Some(Said::Error(ErrorSaid::read(&error)))),
                None => {}
            }
            // Bytes that come faster than they are read would be taken before the time is looked at.
            if Instant::now() >= until {
                return Err(missed.clone());
            }
            let bytes = timeout_at(until, self.response.chunk()).await.map_err(|_| missed.clone())?;
            let Some(bytes) = bytes.map_err(|_| Failure::Cut)? else { return Ok(None) };
            let events = self.reader.push(&bytes);
            self.read.extend(events.map_err(|_| Failure::Rubbish("an event that is too long"))?);
        }
    }
}

async fn refused(response: Response) -> Failure {
    let status = response.status().as_u16();
    let retry_after = text_of(response.headers(), &RETRY_AFTER).trim().parse().ok().map(Duration::from_secs);
    let said = ErrorSaid::read(&body(response, MAX_ERROR_BYTES).await);
    Failure::of_status(status, said, retry_after)
}

/// As much of a body as comes, and no more than the limit.
async fn body(mut response: Response, limit: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        let room = limit - body.len();
        body.extend(bytes.iter().take(room));
        if bytes.len() >= room {
            break;
        }
    }
    body
}

fn text_of<'h>(headers: &'h HeaderMap, name: &reqwest::header::HeaderName) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The innermost reason, which says what the outer ones only wrap.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
