//! `/metrics`: the engine's counters and the server's own, as Prometheus text.
//!
//! Names begin with `xverse_`. Counts only: no label ever holds a person's words or identifiers.

use std::{fmt, sync::Arc};

use axum::{
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::IntoResponse,
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};

use super::state::Server;
use crate::{chat::event::EndReason, engine::stats::EngineStats};

/// Upper bounds in seconds of the buckets for the time to the first token.
const FIRST_TOKEN_BUCKETS: [f64; 12] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];

/// What `/metrics` answers with.
const CONTENT_TYPE: [(HeaderName, &str); 1] =
    [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];

/// What the server counts.
#[derive(Debug)]
pub struct ServerMetrics {
    /// Seconds from a command's arrival to its first token.
    pub first_token: Histogram,
    /// Event streams that are open.
    pub event_streams: Gauge,
    generations: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        Self {
            first_token: Histogram::new(FIRST_TOKEN_BUCKETS),
            event_streams: Gauge::default(),
            generations: Family::default(),
        }
    }
}

impl ServerMetrics {
    /// Counts a generation that is over.
    pub fn ended(&self, reason: EndReason) {
        let reason = match reason {
            EndReason::EndOfText => "end_of_text",
            EndReason::Length => "length",
            EndReason::StopString => "stop_string",
            EndReason::Stopped => "stopped",
            EndReason::Interrupted => "interrupted",
            EndReason::Failed { .. } => "failed",
        };
        self.generations.get_or_create(&[("reason", reason)]).inc();
    }
}

/// Answers `GET /metrics`.
pub async fn metrics(State(server): State<Arc<Server>>) -> impl IntoResponse {
    match text(&server) {
        Ok(text) => (StatusCode::OK, CONTENT_TYPE, text),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            (StatusCode::INTERNAL_SERVER_ERROR, CONTENT_TYPE, String::new())
        }
    }
}

fn text(server: &Server) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("xverse");
    let own = &server.metrics;
    registry.register("generations", "Answers that are over, by reason", own.generations.clone());
    registry.register("first_token_seconds", "From a command to its first token", own.first_token.clone());
    registry.register("event_streams", "Event streams that are open", own.event_streams.clone());
    registry.register("conversations", "Conversations in memory", gauge(server.library.in_memory() as u64));
    let loaded = server.loaded();
    let is_ready = loaded.as_ref().is_some_and(|ready| ready.engine.is_alive());
    registry.register("ready", "1 where the engine takes requests", gauge(u64::from(is_ready)));
    if let Some(ready) = loaded {
        register_engine(&mut registry, ready.engine.stats());
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn register_engine(registry: &mut Registry, stats: &EngineStats) {
    for (name, help, count) in [
        ("engine_steps", "Steps computed", &stats.steps),
        ("generated_tokens", "Tokens drawn", &stats.generated_tokens),
        ("prefill_tokens", "Prompt tokens computed", &stats.prefill_tokens),
        ("reused_tokens", "Prompt tokens whose keys and values were reused", &stats.reused_tokens),
        ("requests_submitted", "Requests taken", &stats.submitted),
        ("requests_cancelled", "Requests cancelled", &stats.cancelled),
        ("requests_rejected", "Requests refused because the queue was full", &stats.rejected),
        ("engine_failures", "Failed steps", &stats.failures),
    ] {
        registry.register(name, help, ConstCounter::new(count.get()));
    }
    for (name, help, count) in [
        ("requests_running", "Sequences being computed", &stats.running),
        ("requests_waiting", "Requests that wait", &stats.waiting),
        ("kv_blocks_used", "KV blocks of live sequences", &stats.kv_blocks_used),
        ("kv_blocks_cached", "KV blocks kept for reuse", &stats.kv_blocks_cached),
        ("kv_blocks", "KV blocks in all", &stats.kv_blocks_total),
    ] {
        registry.register(name, help, gauge(count.get()));
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
