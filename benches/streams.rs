//! How many readers the server holds: event streams at the pace of a fast model, then page loads while the engine is busy.
//!
//! `cargo bench --features ssr --bench streams [-- FILE.json]` prints the figures and keeps them in the file. Server and
//! clients are one process on loopback, each on threads of its own, so memory and descriptors are those of both.
//! `STREAMS_SECONDS=10` makes it short.

#[path = "streams/client.rs"]
mod client;
#[path = "streams/figures.rs"]
mod figures;
#[path = "streams/pages.rs"]
mod pages;
#[path = "../tests/support/stage.rs"]
mod stage;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use client::Client;
use figures::{Times, n_descriptors, processor_time, resident_mib};
use leptos::config::LeptosOptions;
use serde_json::{Value, json};
use stage::{
    Stage, letters,
    scripted::{Gate, Script, Scripted},
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    time::{Instant, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use xverse_chat::{
    chat::{
        event::{EndReason, EventKind},
        info::PromptFormat,
    },
    engine::worker::EngineOptions,
    server::{
        access::Access,
        config::Limits,
        listener,
        router::router,
        state::{Ready, Server},
        watchdog,
    },
    storage::database::Storage,
};

const STREAMS: u64 = 200;
const EVENTS_A_SECOND: u64 = 50;
const SECONDS: u64 = 60;
/// What the scripted model says, again and again.
const PARAGRAPH: &str = "A paragraph of some length, with **strong words** and `code`, such as models like to write; \
                         then a second sentence, so that there is something to draw again and again.\n\n";
/// After the last stream its connection has so long to be gone.
const CLOSING_TIME: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let json_file = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let seconds = match std::env::var("STREAMS_SECONDS") {
        Ok(text) => text.parse().context("STREAMS_SECONDS is no number")?,
        Err(_) => SECONDS,
    };
    let servers = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clients = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let streams = clients.block_on(streams(&servers, seconds))?;
    println!("streams: {streams:#}");
    let pages = clients.block_on(pages::measure(&servers, Duration::from_secs(seconds.div_ceil(2))))?;
    println!("pages: {pages:#}");
    if let Some(path) = json_file {
        let result = json!({
            "benchmark": "streams",
            "command": "cargo bench --features ssr --bench streams",
            "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            "streams": streams,
            "pages": pages,
        });
        std::fs::write(&path, format!("{result:#}\n")).with_context(|| format!("writing {path}"))?;
    }
    servers.shutdown_background();
    Ok(())
}

/// A server, and where its conversations are kept.
struct House {
    address: SocketAddr,
    server: Arc<Server>,
    _folder: tempfile::TempDir,
}

/// Serves `ready` on a port of its own, for as long as the runtime lives.
async fn serve(servers: &Runtime, limits: Limits, ready: Ready) -> Result<House> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
    let address = listener.local_addr()?;
    let listener = listener.into_std()?;
    let folder = tempfile::tempdir()?;
    let (storage, _) = Storage::open(folder.path())?;
    let server = Server::new("XVERSE-13B-Chat".to_owned(), limits, storage);
    let engine = ready.engine.clone();
    server.set_ready(ready);
    servers.spawn(watchdog::watch(server.clone(), engine));
    let leptos = LeptosOptions::builder().output_name("xverse-chat").site_root("target/site").build();
    let app = router(server.clone(), leptos, &[], Access::new(None));
    let limits = server.limits.clone();
    servers.spawn(async move {
        let listener = TcpListener::from_std(listener).expect("the listener is on loopback");
        listener::serve(listener, app, &limits, &CancellationToken::new()).await;
    });
    Ok(House { address, server, _folder: folder })
}

/// What one reader saw.
#[derive(Debug, Default)]
struct Seen {
    events: u64,
    /// Numbers that were left out.
    superseded: u64,
    /// What was not as it must be.
    wrong: Option<String>,
}

async fn streams(servers: &Runtime, seconds: u64) -> Result<Value> {
    let n_tokens = seconds * EVENTS_A_SECOND;
    let text: Arc<str> = PARAGRAPH.chars().cycle().take(n_tokens as usize).collect::<String>().into();
    let House { address, server, _folder } = scripted(servers, &text).await?;
    let warm_up = Client { address, owner: 0 };
    read(warm_up, 10, &text, &Times::default()).await?;
    closed(&server).await?;

    let before = n_descriptors()?;
    let times = Arc::new(Times::default());
    let (began, used) = (Instant::now(), processor_time()?);
    let readers: Vec<_> = (1..=STREAMS)
        .map(|owner| {
            let (text, times) = (text.clone(), times.clone());
            tokio::spawn(async move { read(Client { address, owner }, n_tokens, &text, &times).await })
        })
        .collect();
    let (mut warm, mut grown) = (0.0, 0.0_f64);
    let mut ticks = interval(Duration::from_millis(500));
    while began.elapsed() < Duration::from_secs(seconds) {
        ticks.tick().await;
        grown = grown.max(resident_mib()?);
        if began.elapsed() < Duration::from_secs(seconds.div_ceil(6)) {
            warm = grown;
        }
    }
    let mut all = Seen::default();
    let mut errors = Vec::new();
    for reader in readers {
        match reader.await? {
            Ok(seen) => {
                all.events += seen.events;
                all.superseded += seen.superseded;
                errors.extend(seen.wrong);
            }
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    let (took, used) = (began.elapsed(), processor_time()?.saturating_sub(used));
    closed(&server).await?;
    Ok(json!({
        "streams": STREAMS,
        "tokens_a_stream": n_tokens,
        "seconds": took.as_secs_f64(),
        "events": all.events,
        "events_a_second": all.events as f64 / took.as_secs_f64(),
        "cores_used": used.as_secs_f64() / took.as_secs_f64(),
        "errors": errors.len(),
        "first_errors": errors.iter().take(3).collect::<Vec<_>>(),
        "superseded_events": all.superseded,
        "gap_ms": times.report(),
        "resident_mib": { "warm": warm, "grown_by": grown - warm },
        "descriptors": { "before": before, "after": n_descriptors()? },
    }))
}

/// A server over a device that says `text`, a token each twenty milliseconds.
async fn scripted(servers: &Runtime, text: &str) -> Result<House> {
    let stage = Stage {
        format: PromptFormat::V2,
        context: text.len() + 100,
        n_contexts: STREAMS as usize,
        max_new_tokens: text.len() as u32,
        engine: EngineOptions {
            max_running: STREAMS as usize,
            min_step_ms: 1000 / EVENTS_A_SECOND,
            ..EngineOptions::default()
        },
    };
    let gate = Gate::default();
    gate.open();
    let tokens = letters::tokenizer().encode(text)?;
    let script = Script { tokens, eos: letters::END, faults: Vec::new() };
    let limits = Limits { max_new_tokens: text.len() as u32, ..Limits::default() };
    serve(servers, limits, stage.ready(Box::new(Scripted::new(stage.spec(), script, gate)))).await
}

/// Asks, and reads the answer to its end.
async fn read(client: Client, n_tokens: u64, text: &str, times: &Times) -> Result<Seen> {
    let mut events = client.events(client.send("hello", n_tokens as u32).await?).await?;
    let mut seen = Seen::default();
    let (mut last, mut n_blocks) = (0, 0);
    let mut before: Option<Instant> = None;
    while let Some(event) = events.next().await? {
        let now = Instant::now();
        if let Some(before) = before.replace(now) {
            times.note(now - before);
        }
        seen.events += 1;
        seen.superseded += event.seq.saturating_sub(last + 1);
        if event.seq <= last {
            seen.wrong = Some(format!("event {} came after {last}", event.seq));
        }
        last = event.seq;
        match event.kind {
            EventKind::Block { index, .. } if index != n_blocks => {
                seen.wrong = Some(format!("block {index} came where {n_blocks} was expected"));
            }
            EventKind::Block { .. } => n_blocks += 1,
            EventKind::Queued { .. } | EventKind::Reading { .. } | EventKind::Tail { .. } => {}
            EventKind::End { reason, text: whole, .. } => {
                if reason != EndReason::Length || !text.starts_with(&whole) || whole.len() as u64 != n_tokens {
                    seen.wrong = Some(format!("it ended by {reason:?} after {} bytes", whole.len()));
                }
                return Ok(seen);
            }
        }
    }
    bail!("the stream ended without an end")
}

/// Waits until the server has closed all streams.
async fn closed(server: &Server) -> Result<()> {
    let deadline = Instant::now() + CLOSING_TIME;
    while server.metrics.event_streams.get() > 0 {
        if Instant::now() > deadline {
            bail!("the streams are not closed");
        }
        sleep(Duration::from_millis(10)).await;
    }
    // The sockets go a moment later.
    sleep(Duration::from_millis(500)).await;
    Ok(())
}
