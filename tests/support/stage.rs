//! What a real server is played on without a model: devices that follow a script, and an engine over one of them.
//!
//! Taken in with `#[path = "support/stage.rs"] mod stage;` by tests, and by programs that need a server to talk to.

#![allow(dead_code, reason = "no program uses all of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

pub mod echo;
pub mod letters;
pub mod scripted;

use serde_json::json;
use xverse_chat::{
    chat::{
        info::{ModelInfo, PromptFormat},
        settings::Sampling,
    },
    engine::{
        backend::{Backend, BackendSpec},
        config::ModelConfig,
        fingerprint::Fingerprint,
        kv::BLOCK_SIZE,
        prompt::PromptBuilder,
        worker::{EngineHandle, EngineOptions},
    },
    server::{
        generator::{Generator, Local},
        state::Ready,
    },
};

/// The shape of a model that is not there.
pub struct Stage {
    pub format: PromptFormat,
    /// Most tokens of prompt and answer together.
    pub context: usize,
    /// How many contexts the KV pool holds.
    pub n_contexts: usize,
    /// Where a person set nothing.
    pub max_new_tokens: u32,
    pub engine: EngineOptions,
}

impl Stage {
    /// What a device says of itself on this stage.
    pub fn spec(&self) -> BackendSpec {
        BackendSpec {
            name: "scripted",
            device: "cpu".to_owned(),
            vocab_size: letters::tokenizer().vocab_size(),
            max_positions: self.context,
            n_blocks: self.n_contexts * self.context.div_ceil(BLOCK_SIZE),
            prefill_chunk: 256,
            weight_bytes: 0,
            dtype: "f32",
        }
    }

    /// An engine over this device, as a server takes it in.
    pub fn ready(&self, backend: Box<dyn Backend>) -> Ready {
        let tokenizer = letters::tokenizer();
        let config = json!({
            "architectures": ["XverseForCausalLM"], "model_type": "xverse", "hidden_act": "silu", "hidden_size": 8,
            "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "rms_norm_eps": 1e-6,
            "vocab_size": tokenizer.vocab_size(), "max_position_embeddings": self.context, "pad_token_id": 1,
            "bos_token_id": 2, "eos_token_id": letters::END
        });
        let config = ModelConfig::from_json(config.to_string().as_bytes()).unwrap();
        let model = ModelInfo {
            name: "scripted".to_owned(),
            is_mini: false,
            n_parameters: Some(0),
            dtype: Some("f32".to_owned()),
            quantize: Some("none".to_owned()),
            device: "cpu".to_owned(),
            weight_bytes: Some(0),
            kv_capacity_tokens: Some((backend.spec().n_blocks * BLOCK_SIZE) as u64),
            context_length: self.context as u32,
            longest_answer: (self.context as u32).saturating_sub(1).max(1),
            prompt_format: self.format,
            defaults: Sampling { max_new_tokens: self.max_new_tokens, ..Sampling::default() },
            load_seconds: Some(0.0),
        };
        let engine = EngineHandle::spawn(backend, tokenizer.clone(), letters::END, self.engine.clone());
        let prompts = PromptBuilder::new(tokenizer, &config, self.format);
        Ready {
            engine: Generator::Local(Local { engine, prompts }),
            model,
            fingerprint: Fingerprint::from_bytes([7; 32]),
        }
    }
}
