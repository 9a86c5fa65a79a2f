//! Any text as `Leptos.toml`.
//!
//! Input: the file. It lies in a folder that has the built page in `site`.

use std::{
    fs,
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use xverse_chat::server::{
    cli::{ModelArgs, ServeArgs},
    config::{Config, ModelSource},
};

use crate::outcome::Outcome;

static FOLDER: LazyLock<Mutex<tempfile::TempDir>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder can be made");
    fs::create_dir(folder.path().join("site")).expect("a folder can be made");
    Mutex::new(folder)
});

/// # Panics
/// Where settings are taken that are outside their bounds.
pub fn target(data: &[u8]) -> Outcome {
    let folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    let path = folder.path().join("Leptos.toml");
    fs::write(&path, data).expect("a file can be written");
    let model = ModelArgs { model_path: Some("model".into()), ..ModelArgs::default() };
    let flags = ServeArgs { config: Some(path), model, ..ServeArgs::default() };
    match Config::resolve(flags, ServeArgs::default()) {
        Ok(config) => {
            is_within_bounds(&config, folder.path());
            Outcome::Taken
        }
        Err(failure) => {
            assert_eq!(failure.status(), 78);
            assert!(!failure.to_string().is_empty());
            Outcome::Refused
        }
    }
}

fn is_within_bounds(config: &Config, folder: &Path) {
    let is_safe = config.host.is_loopback() || config.access_token.is_some();
    assert!(is_safe, "{} would be open to everybody", config.host);
    assert!(config.allowed_hosts.iter().all(|host| *host == host.to_lowercase()), "{:?}", config.allowed_hosts);
    let (limits, engine) = (&config.limits, &config.engine);
    for (time, least) in [
        (limits.body_time, 0),
        (limits.header_time, 1),
        (limits.stalled_write, 1),
        (limits.drain, 0),
        (Duration::from_millis(engine.min_step_ms), 0),
    ] {
        assert!((least..=24 * 60 * 60).contains(&time.as_secs()), "{time:?}");
    }
    let threads = match &config.source {
        ModelSource::Local(load) => load.threads,
        ModelSource::Upstream(_) => None,
    };
    for count in [
        limits.max_new_tokens as usize,
        limits.conversations_per_owner,
        limits.answers_per_owner,
        limits.answers.per_minute as usize,
        limits.answers.burst as usize,
        limits.requests.per_minute as usize,
        limits.requests.burst as usize,
        limits.body_bytes,
        limits.header_count,
        limits.header_bytes,
        limits.connections,
        limits.connections_per_address,
        engine.max_running,
        engine.max_waiting + 1,
        engine.prefill_chunk.unwrap_or(1),
        threads.unwrap_or(1),
    ] {
        assert!((1..=1_000_001).contains(&count), "{count}");
    }
    // What is served lies beside the file or elsewhere, but neither holds it nor the program.
    let site = Path::new(&*config.leptos.site_root).canonicalize().expect("the page's folder is there");
    for inside in [folder, Path::new(".")] {
        let inside = inside.canonicalize().expect("a folder that is there");
        assert!(!inside.starts_with(&site), "everything below {} would be served", site.display());
    }
}
