//! A whole server in the test's process: scripted device, real engine, real router.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use leptos::config::LeptosOptions;
use xverse_chat::{
    chat::info::PromptFormat,
    engine::{fingerprint::Fingerprint, worker::EngineOptions},
    server::{
        access::{Access, AccessToken},
        config::Limits,
        rates::Rate,
        router::router,
        state::{Ready, Server},
    },
    storage::database::{Found, Storage},
};

use crate::stage::{
    Stage,
    echo::Echo,
    letters,
    scripted::{At, Fault, Gate, Script, Scripted},
};

/// What answers say where the plan says nothing else.
pub const ANSWER: &str = "One. Two.\n\nThree **four** five.\n\n- six\n- seven\n";

/// For tests of something else than how often one may ask.
pub const PLENTY: Rate = Rate { per_minute: 1_000_000, burst: 1_000_000 };

/// What the house is built with.
pub struct Plan {
    /// What every answer says; `None` for what was asked.
    pub answer: Option<&'static str>,
    /// Whether steps wait for the gate.
    pub is_held: bool,
    /// Whether the model is there.
    pub is_loaded: bool,
    pub format: PromptFormat,
    pub context: usize,
    pub max_running: usize,
    pub max_waiting: usize,
    pub prefill_chunk: Option<usize>,
    pub limits: Limits,
    /// Which checkpoint it is.
    pub weights: [u8; 32],
    /// Where conversations are kept; a folder of its own where nobody names one.
    pub data: Option<PathBuf>,
    pub stall_floor: Duration,
    /// What goes wrong, and where.
    pub faults: Vec<(At, Fault)>,
    pub access_token: Option<&'static str>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            answer: Some(ANSWER),
            is_held: false,
            is_loaded: true,
            format: PromptFormat::V2,
            context: 512,
            max_running: 4,
            max_waiting: 4,
            limits: Limits { answers_per_owner: 64, answers: PLENTY, requests: PLENTY, ..Limits::default() },
            weights: [7; 32],
            data: None,
            prefill_chunk: EngineOptions::default().prefill_chunk,
            stall_floor: EngineOptions::default().stall_floor,
            faults: Vec::new(),
            access_token: None,
        }
    }
}

/// The server, its router and the gate before its device.
pub struct House {
    pub router: Router,
    pub server: Arc<Server>,
    pub gate: Gate,
    pub leptos: LeptosOptions,
    _folder: tempfile::TempDir,
}

/// What stands in a file beside the folder that is served.
pub const SECRET: &str = "what nobody may read";

impl Drop for House {
    fn drop(&mut self) {
        // A device that still waits would keep its thread for ever.
        self.gate.open();
    }
}

impl House {
    pub fn build(plan: Plan) -> Self {
        let gate = Gate::default();
        if !plan.is_held {
            gate.open();
        }
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        std::fs::create_dir_all(site.join("pkg")).unwrap();
        for (path, text) in [
            ("pkg/xverse-chat.css", "body { color: black }"),
            ("pkg/xverse-chat.css.br", "as brotli"),
            ("icon.svg", "<svg/>"),
            ("../Leptos.toml", SECRET),
            ("../xverse.db", SECRET),
        ] {
            std::fs::write(site.join(path), text).unwrap();
        }
        let data = plan.data.clone().unwrap_or_else(|| folder.path().join("data"));
        let (storage, found) = opened(&data);
        assert!(matches!(found, Found::Kept(_)), "{found:?}");
        let server = Server::new("A title".to_owned(), plan.limits.clone(), storage);
        if plan.is_loaded {
            let fingerprint = Fingerprint::from_bytes(plan.weights);
            server.set_ready(Ready { fingerprint, ..ready(&plan, gate.clone()) });
        }
        let leptos = LeptosOptions::builder().output_name("xverse-chat").site_root(site.to_str().unwrap()).build();
        let token = plan.access_token.map(|text| AccessToken::given(text).unwrap());
        let access = Access::new(token.as_ref());
        let router = router(server.clone(), leptos.clone(), &["chat.example.org".to_owned()], access);
        Self { router, server, gate, leptos, _folder: folder }
    }
}

/// Opens a folder that somebody may be about to let go of.
pub fn opened(data: &Path) -> (Storage, Found) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Storage::open(data) {
            Ok(opened) => return opened,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    }
}

fn ready(plan: &Plan, gate: Gate) -> Ready {
    let options = EngineOptions {
        max_running: plan.max_running,
        max_waiting: plan.max_waiting,
        prefill_chunk: plan.prefill_chunk,
        stall_floor: plan.stall_floor,
        ..EngineOptions::default()
    };
    let stage = Stage {
        format: plan.format,
        context: plan.context,
        n_contexts: 4 * plan.max_running,
        max_new_tokens: 128,
        engine: options,
    };
    let Some(answer) = plan.answer else { return stage.ready(Box::new(Echo::new(stage.spec()))) };
    let script =
        Script { tokens: letters::tokenizer().encode(answer).unwrap(), eos: letters::END, faults: plan.faults.clone() };
    stage.ready(Box::new(Scripted::new(stage.spec(), script, gate)))
}
