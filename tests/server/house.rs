//! A whole server in the test's process: scripted device, real engine, real router.

use std::{path::PathBuf, sync::Arc};

use axum::Router;
use leptos::config::LeptosOptions;
use serde_json::{Map, Value, json};
use xverse_chat::{
    chat::{
        info::{ModelInfo, PromptFormat},
        settings::Sampling,
    },
    engine::{
        config::ModelConfig,
        fingerprint::Fingerprint,
        prompt::PromptBuilder,
        tokenizer::ChatTokenizer,
        worker::{EngineHandle, EngineOptions},
    },
    server::{
        config::Limits,
        rates::Rate,
        router::router,
        state::{Ready, Server},
    },
    storage::database::{Found, Storage},
};

use crate::scripted::{Gate, Script, Scripted};

/// For tests of something else than how often one may ask.
pub const PLENTY: Rate = Rate { per_minute: 1_000_000, burst: 1_000_000 };

/// What the house is built with.
pub struct Plan {
    /// What every answer says.
    pub answer: &'static str,
    /// Whether steps wait for the gate.
    pub is_held: bool,
    /// Whether the model is there.
    pub is_loaded: bool,
    pub format: PromptFormat,
    pub context: usize,
    pub max_running: usize,
    pub max_waiting: usize,
    pub limits: Limits,
    pub panic_at: Option<u64>,
    pub lost_at: Option<u64>,
    /// Where conversations are kept; a folder of its own where nobody names one.
    pub data: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            answer: "One. Two.\n\nThree **four** five.\n\n- six\n- seven\n",
            is_held: false,
            is_loaded: true,
            format: PromptFormat::V2,
            context: 512,
            max_running: 4,
            max_waiting: 4,
            limits: Limits { answers_per_owner: 64, answers: PLENTY, requests: PLENTY, ..Limits::default() },
            panic_at: None,
            lost_at: None,
            data: None,
        }
    }
}

/// The server, its router and the gate before its device.
pub struct House {
    pub router: Router,
    pub server: Arc<Server>,
    pub gate: Gate,
    _site: tempfile::TempDir,
    _data: tempfile::TempDir,
}

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
        let site = tempfile::tempdir().unwrap();
        std::fs::create_dir(site.path().join("pkg")).unwrap();
        std::fs::write(site.path().join("pkg/xverse-chat.css"), "body { color: black }").unwrap();
        std::fs::write(site.path().join("pkg/xverse-chat.css.br"), "as brotli").unwrap();
        let data = tempfile::tempdir().unwrap();
        let (storage, found) = Storage::open(plan.data.as_deref().unwrap_or(data.path())).unwrap();
        assert!(matches!(found, Found::Kept(_)), "{found:?}");
        let server = Server::new("A title".to_owned(), plan.limits.clone(), storage);
        if plan.is_loaded {
            server.set_ready(ready(&plan, gate.clone()));
        }
        let options =
            LeptosOptions::builder().output_name("xverse-chat").site_root(site.path().to_str().unwrap()).build();
        let router = router(server.clone(), options, &["chat.example.org".to_owned()]);
        Self { router, server, gate, _site: site, _data: data }
    }
}

fn ready(plan: &Plan, gate: Gate) -> Ready {
    let json = tokenizer_json().to_string();
    let tokenizer = Arc::new(ChatTokenizer::from_json(json.as_bytes()).unwrap());
    let config = json!({
        "architectures": ["XverseForCausalLM"], "model_type": "xverse", "hidden_act": "silu", "hidden_size": 8,
        "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "rms_norm_eps": 1e-6,
        "vocab_size": tokenizer.vocab_size(), "max_position_embeddings": plan.context, "pad_token_id": 1,
        "bos_token_id": 2, "eos_token_id": 3
    });
    let config = ModelConfig::from_json(config.to_string().as_bytes()).unwrap();
    let Plan { panic_at, lost_at, .. } = *plan;
    let script = Script { tokens: tokenizer.encode(plan.answer).unwrap(), eos: config.eos_token_id, panic_at, lost_at };
    let backend = Scripted::new(config.vocab_size, plan.context, script, gate);
    let options =
        EngineOptions { max_running: plan.max_running, max_waiting: plan.max_waiting, ..EngineOptions::default() };
    let engine = EngineHandle::spawn(Box::new(backend), tokenizer.clone(), config.eos_token_id, options);
    let model = ModelInfo {
        name: "scripted".to_owned(),
        is_mini: false,
        n_parameters: 0,
        dtype: "f32".to_owned(),
        quantize: "none".to_owned(),
        device: "cpu".to_owned(),
        weight_bytes: 0,
        kv_capacity_tokens: 65_536,
        context_length: plan.context as u32,
        longest_answer: (plan.context as u32).saturating_sub(1).max(1),
        prompt_format: plan.format,
        defaults: Sampling { max_new_tokens: 128, ..Sampling::default() },
        load_seconds: 0.0,
    };
    let fingerprint = Fingerprint::from_bytes([7; 32]);
    Ready { engine, prompts: PromptBuilder::new(tokenizer, &config, plan.format), model, fingerprint }
}

/// A token for each character that tests use, after four special ones.
fn tokenizer_json() -> Value {
    let special = ["<unk>", "<pad>", "<|startoftext|>", "<|endoftext|>"];
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "add_prefix_space": false});
    let characters = (' '..='~').map(|c| if c == ' ' { '▁' } else { c }).chain("\n，。你好世界".chars());
    let mut vocab = Map::new();
    for token in special.map(str::to_owned).into_iter().chain(characters.map(String::from)) {
        let id = vocab.len();
        vocab.insert(token, json!(id));
    }
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": metaspace, "post_processor": null, "decoder": metaspace,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}
    })
}
