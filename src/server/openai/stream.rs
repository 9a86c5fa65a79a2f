//! Answers on their way out: whole, or piece by piece as server-sent events in OpenAI's shape, `data: {…}` and `data: [DONE]`
//! at the end.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use super::{
    answer::{Answer, whole},
    body::{self, Head},
    choices::Choices,
    error::ApiError,
    sampling::Delivery,
};
use axum::{
    Json,
    body::Body,
    http::{HeaderName, HeaderValue, Response, header},
    response::{
        IntoResponse, Sse,
        sse::{Event, KeepAlive},
    },
};

/// A comment goes out where nothing else did for this long, so that a peer that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

struct Stream {
    head: Head,
    answers: Vec<Answer>,
    has_begun: Vec<bool>,
    choices: Choices,
    counts: bool,
    unsent: VecDeque<String>,
    is_over: bool,
}

/// What these answers say, in as many pieces as was asked for.
///
/// # Errors
/// Where one that is told whole failed; a stream has its errors in it.
pub(super) async fn deliver(
    head: Head,
    mut answers: Vec<Answer>,
    choices: Choices,
    delivery: Delivery,
) -> Result<Response<Body>, ApiError> {
    match delivery {
        Delivery::Whole => {
            let wholes = whole(&mut answers, choices).await?;
            Ok(Json(head.whole(&answers, &wholes)).into_response())
        }
        Delivery::Stream => Ok(stream(head, answers, choices, false)),
        Delivery::CountedStream => Ok(stream(head, answers, choices, true)),
    }
}

/// `counts` adds a piece that counts tokens.
fn stream(head: Head, answers: Vec<Answer>, choices: Choices, counts: bool) -> Response<Body> {
    let has_begun = vec![false; answers.len()];
    let stream = Stream { head, answers, has_begun, choices, counts, unsent: VecDeque::new(), is_over: false };
    let events = futures::stream::unfold(stream, async |mut stream| {
        let data = stream.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(data)), stream))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that gather an answer before they pass it on would undo the streaming.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

impl Stream {
    async fn next(&mut self) -> Option<String> {
        while self.unsent.is_empty() && !self.is_over {
            self.advance().await;
        }
        self.unsent.pop_front()
    }

    async fn advance(&mut self) {
        let event = match self.choices.next().await {
            None => return self.end(None),
            Some(Err(error)) => return self.end(Some(&error)),
            Some(Ok(event)) => event,
        };
        let (index, event) = event;
        let (Some(answer), Some(has_begun)) = (self.answers.get_mut(index), self.has_begun.get_mut(index)) else {
            return;
        };
        match answer.take(event) {
            Ok(None) => {}
            Ok(Some(piece)) => {
                let is_first = !std::mem::replace(has_begun, true);
                let piece = self.head.piece((index, answer), &piece, is_first, self.counts);
                self.unsent.push_back(json(&piece));
            }
            Err(error) => self.end(Some(&error)),
        }
    }

    fn end(&mut self, error: Option<&ApiError>) {
        match error {
            Some(error) => self.unsent.push_back(error.event().to_string()),
            None if self.counts => self.unsent.push_back(json(&self.head.count(&self.answers))),
            None => {}
        }
        self.unsent.push_back("[DONE]".to_owned());
        self.is_over = true;
    }
}

fn json(body: &body::Body<'_>) -> String {
    serde_json::to_string(body).expect("invariant: an answer has string keys and finite numbers")
}
