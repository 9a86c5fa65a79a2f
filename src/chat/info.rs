//! What the page says about the server: the model, how it runs, and how busy it is.

use serde::{Deserialize, Serialize};

use super::{
    ids::ConversationId,
    list::ChatList,
    message::{MessageView, Role},
    settings::Sampling,
};

/// How a conversation becomes a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptFormat {
    /// XVERSE-13B-Chat of August 2023: each message tokenised as one string; user and assistant only.
    V1,
    /// XVERSE-13B-2-Chat and 7B-Chat: role prefixes tokenised apart; system and exec too.
    V2,
}

impl PromptFormat {
    /// Whether the format has a way to write this role.
    #[must_use]
    pub fn supports(self, role: Role) -> bool {
        match (self, role) {
            (Self::V1, Role::System | Role::Exec) => false,
            (Self::V1, Role::User | Role::Assistant) | (Self::V2, _) => true,
        }
    }
}

/// The model that is loaded and how it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The checkpoint folder's name.
    pub name: String,
    /// Whether this is the mini model that ships with the project, which knows its dialogues and nothing else.
    pub is_mini: bool,
    /// How many parameters, `lm_head` included; like all that may be absent, unknown of an upstream server's model.
    pub n_parameters: Option<u64>,
    /// Of the weights in memory: `f32`, `bf16`, `f16`.
    pub dtype: Option<String>,
    /// `none`, `8` or `4`.
    pub quantize: Option<String>,
    /// Such as `cpu` or `cuda:0`; `upstream` where an upstream server generates.
    pub device: String,
    /// Bytes of weights in memory.
    pub weight_bytes: Option<u64>,
    /// Tokens that the KV pool holds, all conversations together.
    pub kv_capacity_tokens: Option<u64>,
    /// Most tokens of prompt and answer together: the model's context, or the KV pool where that is smaller.
    pub context_length: u32,
    /// Most tokens that one answer may ask for.
    pub longest_answer: u32,
    /// How a conversation becomes a prompt.
    pub prompt_format: PromptFormat,
    /// Sampling where a person set nothing.
    pub defaults: Sampling,
    /// Seconds that loading took.
    pub load_seconds: Option<f32>,
}

impl ModelInfo {
    /// Whether this program computes it itself, so that the exact tokens of answers are known and can be gone on with.
    #[must_use]
    pub fn is_computed_here(&self) -> bool {
        self.weight_bytes.is_some()
    }
}

/// Whether the engine takes requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineStatus {
    /// The checkpoint is being read.
    Loading,
    /// It takes requests.
    Ready {
        /// What is loaded.
        model: ModelInfo,
        /// Sequences being computed.
        running: u32,
        /// Requests that wait.
        waiting: u32,
    },
    /// It takes no requests.
    Unavailable {
        /// Why, in one sentence.
        message: String,
    },
}

/// What the page needs to be drawn: the server's name and state, and the conversation that is looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageData {
    /// `--title`.
    pub title: String,
    /// The engine.
    pub engine: EngineStatus,
    /// The newest of the visitor's conversations.
    pub chats: ChatList,
    /// The conversation, `None` on the start page.
    pub conversation: Option<ConversationView>,
}

/// A conversation as the page gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConversationView {
    /// Its name.
    pub id: ConversationId,
    /// What it is called.
    pub title: String,
    /// The system prompt, empty where there is none.
    pub system: String,
    /// All messages of the tree, parents before children.
    pub messages: Vec<MessageView>,
    /// The newest message of the branch that is looked at.
    pub leaf: Option<super::ids::MessageId>,
    /// Whether all of it is kept beyond the server's end.
    pub is_saved: bool,
}
