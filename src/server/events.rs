//! `GET /generations/{id}/events`: one answer's events, from a cursor on and then as they come.
//!
//! A reader is a cursor and nothing else: it may come late, twice, or again after a break, and finds all it has not seen.
//! What comes after the end is 204, which keeps a browser from asking again.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
    response::{
        IntoResponse, Sse,
        sse::{self, KeepAlive},
    },
};
use futures::Stream;
use tokio::sync::watch;

use super::{generations::Generation, refusal::refusal, session::Visitor, state::Server};
use crate::chat::{
    error::{ChatError, ErrorCode},
    event::Event,
    ids::GenerationId,
};

/// A comment goes out where no event did for this long, so that a dead peer is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The number after which a reader wants to go on, as a browser that lost its connection says it.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Answers `GET /generations/{id}/events?after={seq}`.
pub async fn events(
    State(server): State<Arc<Server>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    match open(&server, visitor, &id, query.as_deref(), &headers) {
        Ok(response) => response,
        Err(error) => refusal(&error),
    }
}

fn open(
    server: &Arc<Server>,
    visitor: Visitor,
    id: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response<Body>, ChatError> {
    let id: GenerationId = id.parse().map_err(|_| ChatError::not_found("generation"))?;
    let generation = server.generations.get(visitor.owner, id).ok_or_else(|| ChatError::not_found("generation"))?;
    let cursor = cursor(query, headers)?;
    let seen = generation.after(cursor).map_err(|error| ChatError::new(ErrorCode::Malformed, error.to_string()))?;
    if seen.is_over && seen.events.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let stream = Sse::new(stream(server.clone(), generation, cursor)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = stream.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that gather an answer before they pass it on would undo the streaming.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// The header wins over the query: a browser that reconnects repeats the query of its first connection.
fn cursor(query: Option<&str>, headers: &HeaderMap) -> Result<u64, ChatError> {
    let text = match headers.get(LAST_EVENT_ID) {
        Some(header) => Some(header.to_str().unwrap_or("a header that is no text")),
        None => query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("after=")),
    };
    let Some(text) = text else {
        return Ok(0);
    };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or_else(|| {
        let found: String = text.chars().take(40).collect();
        ChatError::new(ErrorCode::Malformed, format!("the event cursor is {found:?}, expected the number of an event"))
    })
}

struct Reader {
    server: Arc<Server>,
    generation: Arc<Generation>,
    newest: watch::Receiver<u64>,
    cursor: u64,
    unsent: VecDeque<Event>,
    is_over: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.server.metrics.event_streams.dec();
    }
}

fn stream(
    server: Arc<Server>,
    generation: Arc<Generation>,
    cursor: u64,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    server.metrics.event_streams.inc();
    let newest = generation.newest();
    let reader = Reader { server, generation, newest, cursor, unsent: VecDeque::new(), is_over: false };
    futures::stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((Ok(encode(&event)), reader))
    })
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        while self.unsent.is_empty() {
            if self.is_over {
                return None;
            }
            // Marked before the log is read, so that what is written in between wakes the reader again.
            self.newest.borrow_and_update();
            let after = self.generation.after(self.cursor).ok()?;
            self.is_over = after.is_over;
            self.unsent = after.events.into();
            if self.unsent.is_empty() && !self.is_over {
                self.newest.changed().await.ok()?;
            }
        }
        let event = self.unsent.pop_front()?;
        self.cursor = event.seq;
        Some(event)
    }
}

fn encode(event: &Event) -> sse::Event {
    let data = serde_json::to_string(event).expect("invariant: an event has string keys and finite numbers");
    sse::Event::default().id(event.seq.to_string()).data(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(value: &'static str) -> HeaderMap {
        [(LAST_EVENT_ID, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn a_cursor_is_a_number_and_the_header_wins() {
        assert_eq!(cursor(None, &HeaderMap::new()), Ok(0));
        assert_eq!(cursor(Some("after=7"), &HeaderMap::new()), Ok(7));
        assert_eq!(cursor(Some("x=1&after=7"), &HeaderMap::new()), Ok(7));
        assert_eq!(cursor(Some("after=7"), &with_header("9")), Ok(9));
    }

    #[test]
    fn a_malformed_cursor_is_refused() {
        for text in ["", "-1", "+1", "1.5", "abc", "18446744073709551616", "1%20", "\u{0661}"] {
            let error = cursor(Some(&format!("after={text}")), &HeaderMap::new()).unwrap_err();
            assert_eq!(error.code, ErrorCode::Malformed, "{text}");
        }
        assert!(cursor(None, &with_header("one")).is_err());
    }
}
