//! `/metrics`: the engine's counters and the server's own, as Prometheus text.
//!
//! Names begin with `xverse_`. Counts only: no label ever holds a person's words or identifiers. Upstream servers are told apart by
//! the addresses that were given for them.

use std::{fmt, sync::Arc, time::Instant};

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

use super::{generator::Generator, refusal::code_name, state::Server};
use crate::{
    chat::{
        error::{ChatError, ErrorCode},
        event::EndReason,
    },
    engine::{remote::pool::Standing, request::EngineEvent, stats::EngineStats},
};

/// Upper bounds in seconds of the buckets for the time to the first token.
const FIRST_TOKEN_BUCKETS: [f64; 12] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];

/// The same for the time that a request waits before its prompt is read.
const WAIT_BUCKETS: [f64; 10] = [0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

/// The same for the time between two tokens of an answer.
const BETWEEN_BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// What `/metrics` answers with.
const CONTENT_TYPE: [(HeaderName, &str); 1] =
    [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];

/// One label and what it is.
type Label = [(&'static str, &'static str); 1];

/// A number of each upstream server.
type UpstreamFamily = Family<[(&'static str, String); 1], Gauge>;

/// What the server counts.
#[derive(Debug)]
pub struct ServerMetrics {
    /// Event streams that are open.
    pub event_streams: Gauge,
    first_token: Histogram,
    queue_wait: Histogram,
    between_tokens: Histogram,
    generations: Family<[(&'static str, &'static str); 2], Counter>,
    cancels: Family<Label, Counter>,
    refusals: Family<[(&'static str, String); 1], Counter>,
}

/// Who an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The page: it is kept.
    Page,
    /// A program that asked over the API.
    Api,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        Self {
            event_streams: Gauge::default(),
            first_token: Histogram::new(FIRST_TOKEN_BUCKETS),
            queue_wait: Histogram::new(WAIT_BUCKETS),
            between_tokens: Histogram::new(BETWEEN_BUCKETS),
            generations: Family::default(),
            cancels: Family::default(),
            refusals: Family::default(),
        }
    }
}

impl ServerMetrics {
    /// Counts a generation that is over.
    pub fn ended(&self, source: Source, reason: EndReason) {
        let (reason, cancelled_by) = match reason {
            EndReason::EndOfText => ("end_of_text", None),
            EndReason::Length => ("length", None),
            EndReason::StopString => ("stop_string", None),
            EndReason::Stopped => ("stopped", Some("stopped")),
            EndReason::Interrupted => ("interrupted", Some("shutdown")),
            EndReason::Failed { code: ErrorCode::EngineStalled } => ("failed", Some("stalled")),
            EndReason::Failed { .. } => ("failed", None),
        };
        self.over(source, reason, cancelled_by);
    }

    /// Counts a generation that nobody wants any more: whoever asked for it over the API is gone, or another answer of the same
    /// request failed.
    pub fn given_up(&self, has_failed: bool) {
        self.over(Source::Api, "stopped", Some(if has_failed { "request_failed" } else { "client_gone" }));
    }

    fn over(&self, source: Source, reason: &'static str, cancelled_by: Option<&'static str>) {
        let source = match source {
            Source::Page => "page",
            Source::Api => "api",
        };
        self.generations.get_or_create(&[("reason", reason), ("source", source)]).inc();
        if let Some(cause) = cancelled_by {
            self.cancels.get_or_create(&[("cause", cause)]).inc();
        }
    }

    /// Counts a request that was refused.
    pub fn refused(&self, error: &ChatError) {
        self.refusals.get_or_create(&[("code", code_name(error.code))]).inc();
    }
}

/// Times one generation.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    arrived: Instant,
    is_admitted: bool,
    /// When its last token came.
    last_token: Option<Instant>,
}

impl Stopwatch {
    /// For a request that came at this moment.
    #[must_use]
    pub fn new(arrived: Instant) -> Self {
        Self { arrived, is_admitted: false, last_token: None }
    }

    /// Notes what the engine says now.
    pub fn note(&mut self, event: &EngineEvent, metrics: &ServerMetrics) {
        let is_token = matches!(event, EngineEvent::Token { .. } | EngineEvent::Text { .. });
        let now = Instant::now();
        if !self.is_admitted && (is_token || matches!(event, EngineEvent::Prefilled { .. })) {
            self.is_admitted = true;
            metrics.queue_wait.observe(now.duration_since(self.arrived).as_secs_f64());
        }
        if !is_token {
            return;
        }
        match self.last_token.replace(now) {
            None => metrics.first_token.observe(now.duration_since(self.arrived).as_secs_f64()),
            Some(last) => metrics.between_tokens.observe(now.duration_since(last).as_secs_f64()),
        }
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
    registry.register("cancels", "Answers that were ended early, by cause", own.cancels.clone());
    registry.register("refusals", "Requests that were refused, by code", own.refusals.clone());
    registry.register("first_token_seconds", "From a request to its first token", own.first_token.clone());
    registry.register("queue_wait_seconds", "From a request to the reading of its prompt", own.queue_wait.clone());
    registry.register("inter_token_seconds", "Between two tokens of an answer", own.between_tokens.clone());
    registry.register("event_streams", "Event streams that are open", own.event_streams.clone());
    registry.register("conversations", "Conversations in memory", gauge(server.library.in_memory() as u64));
    let started = ConstGauge::new(server.started_ms as f64 / 1e3);
    registry.register("start_time_seconds", "When the server began, in seconds since 1970", started);
    let loaded = server.loaded();
    let is_ready = loaded.as_ref().is_some_and(|ready| ready.engine.is_alive());
    registry.register("ready", "1 where the engine takes requests", gauge(u64::from(is_ready)));
    if let Some(ready) = loaded {
        register_engine(&mut registry, ready.engine.stats());
        if let Generator::Upstream(upstream) = &ready.engine {
            register_upstreams(&mut registry, &upstream.standings());
        }
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
        ("requests_rejected", "Requests that found the queue full", &stats.rejected),
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

fn register_upstreams(registry: &mut Registry, standings: &[Standing]) {
    let (well, running, failures) = (UpstreamFamily::default(), UpstreamFamily::default(), Family::default());
    for standing in standings {
        let label = [("upstream", standing.address.to_string())];
        well.get_or_create(&label).set(i64::from(standing.is_well));
        running.get_or_create(&label).set(signed(standing.n_running as u64));
        let counter: &Counter = &failures.get_or_create(&label);
        counter.inc_by(standing.n_failed);
    }
    registry.register("upstream_well", "1 where the upstream server answered when it was asked last", well);
    registry.register("upstream_running", "Requests that the upstream server has", running);
    registry.register("upstream_failures", "Requests that the upstream server failed, each try counted", failures);
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(signed(value))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
