//! The whole server over a device that answers with what it was asked, for tests that come from outside.
//!
//! `cargo run --release --features ssr --example scripted_server -- --port 0 --site target/site`

#![allow(missing_docs, reason = "nobody depends on a program")]

#[path = "../tests/support/stage.rs"]
mod stage;

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use leptos::config::LeptosOptions;
use stage::{Stage, echo::Echo};
use tokio::net::TcpListener;
use xverse_chat::{
    chat::info::PromptFormat,
    engine::worker::EngineOptions,
    server::{access::Access, config::Limits, rates::Rate, router::router, state::Server, watchdog},
    storage::database::Storage,
};

#[derive(Debug, Parser)]
struct Flags {
    /// Port to listen on; 0 picks a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Folder with the built page
    #[arg(long, default_value = "target/site")]
    site: PathBuf,
    /// Milliseconds that a step takes at least
    #[arg(long = "step_ms", default_value_t = 0)]
    step_ms: u64,
    /// Folder where conversations are kept; left out, nothing is
    #[arg(long = "data_dir")]
    data_dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, flags.port)).await.context("listening")?;
    println!("listening on http://{}", listener.local_addr()?);
    let stage = Stage {
        format: PromptFormat::V2,
        context: 8192,
        n_contexts: 32,
        max_new_tokens: 2048,
        engine: EngineOptions { min_step_ms: flags.step_ms, ..EngineOptions::default() },
    };
    let ready = stage.ready(Box::new(Echo::new(stage.spec())));
    let storage = match flags.data_dir {
        Some(folder) => Storage::open(&folder)?.0,
        None => Storage::absent(),
    };
    // A test asks faster than a person, and as one person.
    let rate = Rate { per_minute: 1_000_000, burst: 1_000_000 };
    let limits = Limits { answers_per_owner: 64, answers: rate, requests: rate, ..Limits::default() };
    let server = Server::new("XVERSE-13B-Chat".to_owned(), limits, storage);
    tokio::spawn(watchdog::watch(server.clone(), ready.engine.clone()));
    server.set_ready(ready);
    let site = flags.site.to_str().context("--site is not a name in UTF-8")?;
    let leptos = LeptosOptions::builder().output_name("xverse-chat").site_root(site).build();
    axum::serve(listener, router(server, leptos, &[], Access::new(None))).await.context("serving")
}
