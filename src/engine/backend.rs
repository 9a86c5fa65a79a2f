//! The device behind one trait: a batch of rows in, drawn tokens and asked-for numbers out.
//!
//! A step mixes prefill chunks and single decode tokens. Every row carries its sequence's name, all its token ids so far
//! and its block table, so that a backend with paged keys and values (`cpu`, `cuda`) and one that keeps a cache per
//! sequence (`reference`) both find what they need. The backend draws, so that a device can do it without bringing logits
//! to the host. It knows no queues, no requests, no text.

pub mod cpu;
pub mod cuda;
mod output;
pub mod reference;
mod rotary;

use self::{
    cpu::quantized::QuantizedError,
    cuda::{device::DeviceError, plan::PlanError},
};
use super::{
    kv::BlockId,
    request::TokenLogprobs,
    sampling::{Draw, SamplingError},
    weights::WeightsError,
};

/// Names a sequence while it lives; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// One step's work; each sequence at most once.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// In any order; a row's numbers do not depend on its neighbours.
    pub rows: Vec<Row>,
}

/// One sequence's part of a step: compute `ids[start..]`.
#[derive(Debug, Clone)]
pub struct Row {
    /// Whose.
    pub sequence: SequenceId,
    /// All token ids of the sequence up to the last one of this chunk; never empty.
    pub ids: Vec<u32>,
    /// How many of them already have keys and values; less than `ids.len()`.
    pub start: usize,
    /// The blocks that hold the sequence's keys and values, enough for `ids.len()` positions, and for one more where another token
    /// may follow the one that is drawn.
    pub blocks: Vec<BlockId>,
    /// How to draw the next token; `None` where the prompt goes on after this chunk.
    pub draw: Option<Draw>,
    /// Top-n of log-probabilities for the drawn token.
    pub logprobs: Option<u32>,
    /// Top-n of log-probabilities for `ids[start + 1..]` and, where [`Row::following`] is known, for it too.
    pub prompt_logprobs: Option<u32>,
    /// The prompt token after this chunk, where there is one.
    pub following: Option<u32>,
    /// Whether the chunk's logits are wanted themselves, for tests and evaluation.
    pub logits: bool,
}

/// What one row gave.
#[derive(Debug, Clone, Default)]
pub struct RowOutput {
    /// The drawn token, where one was asked for.
    pub drawn: Option<Drawn>,
    /// Where asked for: of `ids[start + 1..]` and `following`, in order.
    pub prompt_logprobs: Vec<TokenLogprobs>,
    /// Where asked for: shape (chunk, vocabulary), row-major, unmodified.
    pub logits: Vec<f32>,
}

/// A drawn token.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// Its id.
    pub token: u32,
    /// Where asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// Why a whole step failed. What it was to compute is lost; the caches must be thought spoiled.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// candle's word for it.
    #[error("device step failed: {0}")]
    Candle(#[from] candle_core::Error),
    /// The weights could not be had.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A matrix could not be quantised.
    #[error("{name}: {source}")]
    Quantized {
        /// Of the tensor.
        name: String,
        /// Why.
        source: QuantizedError,
    },
    /// The system gave no memory for keys and values.
    #[error("no room for keys and values: {0}\nhint: less --kv_memory, or a machine with more memory")]
    NoRoom(std::io::Error),
    /// The system gave no threads.
    #[error("no threads to compute with: {0}")]
    Threads(String),
    /// The model does not fit the device.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The device did not do what it was asked for.
    #[error("{0}")]
    Device(DeviceError),
    /// The device is gone for good; only a new process helps.
    #[error("device lost: {0}")]
    DeviceLost(String),
}

impl BackendError {
    /// Whether the device failed, and not what it was given to hold.
    #[must_use]
    pub fn is_of_the_device(&self) -> bool {
        match self {
            Self::Threads(_) | Self::Device(_) | Self::DeviceLost(_) => true,
            Self::Candle(_) | Self::Weights(_) | Self::Quantized { .. } | Self::NoRoom(_) | Self::Plan(_) => false,
        }
    }
}

impl From<DeviceError> for BackendError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Lost(why) => Self::DeviceLost(why),
            other => Self::Device(other),
        }
    }
}

/// What a backend is, fixed from its making on.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendSpec {
    /// Such as `cpu` or `reference`.
    pub name: &'static str,
    /// Of the device, such as `cpu` or `cuda:0`.
    pub device: String,
    /// How many token ids there are.
    pub vocab_size: usize,
    /// Most positions of one sequence.
    pub max_positions: usize,
    /// How many blocks of [`super::kv::BLOCK_SIZE`] positions there are.
    pub n_blocks: usize,
    /// Tokens of prompts that a step reads best at once: many enough to be fast, few enough not to hold up those who wait for their
    /// next token.
    pub prefill_chunk: usize,
    /// Bytes of weights in memory.
    pub weight_bytes: u64,
    /// Of the weights in memory.
    pub dtype: &'static str,
}

/// A device that computes the model.
pub trait Backend: Send {
    /// What it is.
    fn spec(&self) -> &BackendSpec;

    /// Computes one step; outputs in the order of the rows, each its own success or failure.
    ///
    /// # Errors
    /// [`BackendError`] where the step as a whole failed.
    fn step(&mut self, batch: &Batch) -> Result<Vec<Result<RowOutput, SamplingError>>, BackendError>;

    /// 10⁹ bytes that its memory reads and writes a second while it copies; `None` where it computes from this machine's.
    ///
    /// # Errors
    /// [`BackendError`] where the device no longer answers.
    fn copy_gb_s(&mut self) -> Result<Option<f64>, BackendError> {
        Ok(None)
    }

    /// A sequence is over: whatever is kept for it by name may go. Its blocks are the caller's.
    fn release(&mut self, sequence: SequenceId);

    /// Overwrites the keys and values of these blocks with NaN, so that reading what was given back shows; for tests. A
    /// backend without blocks does nothing.
    fn poison(&mut self, blocks: &[BlockId]);

    /// Forgets all keys and values, after a failed step.
    ///
    /// # Errors
    /// [`BackendError`] where the device no longer answers.
    fn reset(&mut self) -> Result<(), BackendError>;
}
