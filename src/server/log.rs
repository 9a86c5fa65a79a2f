//! What is written to standard error: about requests number, method, path, status and time, never a body, never a message's
//! text, never what stands behind the path's question mark; and what whoever runs the program has to know.

use std::time::Instant;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, Response},
    middleware::Next,
};
use tracing::level_filters::LevelFilter;
use uuid::Uuid;

use super::report::printable;

/// Carries a request's number to whoever asked, so that what went wrong can be found in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Starts writing events to standard error, from `XVERSE_LOG` up (`error`, `warn`, `info`, `debug`, `trace`; `warn` where
/// it is not set), for people, or as a JSON object a line where `XVERSE_LOG_FORMAT` is `json`. A second call does nothing.
pub fn start() {
    let level = std::env::var("XVERSE_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::WARN);
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level);
    // Fails only where somebody else has set one, which is then the one to write to.
    drop(if is_json() {
        tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish())
    } else {
        tracing::subscriber::set_global_default(subscriber.finish())
    });
}

fn is_json() -> bool {
    std::env::var("XVERSE_LOG_FORMAT").is_ok_and(|format| format == "json")
}

/// Says what whoever runs the program has to know: as it is to people, as an event where each line is one.
pub fn warn(text: &str) {
    if is_json() {
        tracing::warn!("{text}");
    } else {
        eprintln!("{}", printable(text));
    }
}

/// Says in the same way why the program ends.
pub fn error(text: &str) {
    if is_json() {
        tracing::error!("{text}");
    } else {
        eprintln!("{}", printable(text));
    }
}

/// Notes each request under a random number when it has been answered; a stream when it begins.
pub async fn request(request: Request, next: Next) -> Response<Body> {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let id = Uuid::new_v4().simple().to_string();
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let ms = started.elapsed().as_secs_f64() * 1e3;
    if response.status().is_server_error() && status != 503 {
        tracing::error!(id, %method, ?path, status, ms, "request failed");
    } else {
        tracing::debug!(id, %method, ?path, status, ms, "request");
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
