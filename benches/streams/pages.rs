//! How long a page takes to load, with the engine idle and with as many answers as may run at once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::{
    runtime::Runtime,
    task::JoinSet,
    time::{Instant, interval, sleep},
};
use xverse_chat::{
    chat::event::EventKind,
    engine::{
        backend::cuda::CudaSettings,
        load::{DeviceChoice, LoadOptions, load},
        precision::Precision,
        room::KvSize,
        worker::{EngineHandle, EngineOptions},
    },
    server::{
        config::Limits,
        generator::{Generator, Local},
        state::Ready,
    },
};

use crate::{House, client::Client, figures::Times, serve};

const MODEL: &str = "models/xverse-mini";
const PAGES_A_SECOND: u32 = 50;
const LONG: &str = "Write a Python program that counts the words in a text file, and explain each part.";
/// The engine is at full work within this time.
const STARTING_TIME: Duration = Duration::from_secs(30);

/// Loads pages for `time` beside an idle engine and again beside a busy one.
pub async fn measure(servers: &Runtime, time: Duration) -> Result<Value> {
    let options = EngineOptions::default();
    let n_busy = options.max_running;
    let (house, engine) = mini(servers, options).await?;
    let address = house.address;
    let (idle, idle_errors) = load_pages(address, time).await;

    let mut answers = JoinSet::new();
    for owner in 0..n_busy as u64 {
        answers.spawn(answer_on_and_on(Client { address, owner }));
    }
    let deadline = Instant::now() + STARTING_TIME;
    while engine.stats().running.get() < n_busy as u64 {
        if Instant::now() > deadline {
            bail!("{} of {n_busy} answers run", engine.stats().running.get());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let (tokens, began) = (engine.stats().generated_tokens.get(), Instant::now());
    let (busy, busy_errors) = load_pages(address, time).await;
    let tokens = (engine.stats().generated_tokens.get() - tokens) as f64 / began.elapsed().as_secs_f64();
    if let Some(ended) = answers.try_join_next() {
        bail!("an answer ended the wrong way: {ended:?}");
    }
    Ok(json!({
        "model": "xverse-mini",
        "pages_a_second": PAGES_A_SECOND,
        "seconds": time.as_secs(),
        "idle": { "load_ms": idle.report(), "errors": idle_errors },
        "busy": { "answers": n_busy, "tokens_a_second": tokens, "load_ms": busy.report(), "errors": busy_errors },
    }))
}

async fn mini(servers: &Runtime, options: EngineOptions) -> Result<(House, EngineHandle)> {
    let loaded = load(&LoadOptions {
        model_path: MODEL.into(),
        tokenizer_path: MODEL.into(),
        adapter_path: None,
        device: DeviceChoice::Cpu,
        prompt_format: None,
        precision: Precision::default(),
        kv_type: None,
        kv_size: KvSize::Auto,
        cuda: CudaSettings::default(),
        threads: threads()?,
        copies: None,
        is_mini: true,
    })?;
    let engine = EngineHandle::spawn(loaded.backend, loaded.tokenizer, loaded.eos_token_id, options);
    let local = Local { engine: engine.clone(), prompts: loaded.prompts };
    let ready = Ready { engine: Generator::Local(local), model: loaded.info, fingerprint: loaded.fingerprint };
    Ok((serve(servers, Limits::default(), ready).await?, engine))
}

/// `STREAMS_THREADS`, to compare; else what the program takes.
fn threads() -> Result<Option<usize>> {
    let text = std::env::var("STREAMS_THREADS").ok();
    text.map(|text| text.parse().context("STREAMS_THREADS is no number")).transpose()
}

/// Reads long answers, one after another.
async fn answer_on_and_on(client: Client) -> Result<()> {
    loop {
        let mut events = client.events(client.send(LONG, 1024).await?).await?;
        loop {
            let event = events.next().await?.context("a stream ended without an end")?;
            if matches!(event.kind, EventKind::End { .. }) {
                break;
            }
        }
    }
}

/// Asks for a page at a fixed pace, however long the ones before take; a late answer counts from when it was due.
async fn load_pages(address: SocketAddr, time: Duration) -> (Arc<Times>, u64) {
    let (times, errors) = (Arc::new(Times::default()), Arc::new(AtomicU64::new(0)));
    let mut ticks = interval(Duration::from_secs(1) / PAGES_A_SECOND);
    let mut loads = JoinSet::new();
    let end = Instant::now() + time;
    for owner in 1_000.. {
        let due = ticks.tick().await;
        if due > end {
            break;
        }
        let (times, errors) = (times.clone(), errors.clone());
        loads.spawn(async move {
            match (Client { address, owner }).page("/").await {
                Ok((200, page)) if page.contains("</html>") => times.note(due.elapsed()),
                _ => {
                    errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    loads.join_all().await;
    let errors = errors.load(Ordering::Relaxed);
    (times, errors)
}
