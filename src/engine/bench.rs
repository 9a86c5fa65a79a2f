//! How fast a backend is: load time, time to first token, tokens a second, and how near that is to what memory allows.
//!
//! Drives scheduler and backend without the thread and without text, so that it measures the engine and works for random
//! weights, which have no tokenizer. Every figure is of one run on one machine; compare within a run.

mod measure;
pub mod shape;

use std::{path::PathBuf, time::Instant};

use serde::Serialize;

use self::shape::Shape;
use super::{
    backend::{
        Backend,
        cpu::{CpuBackend, CpuOptions},
    },
    checkpoint::{self, Checkpoint},
    config::ModelConfig,
    format::Format,
    kv::BLOCK_SIZE,
    kv_type::KvType,
    load::{self, DeviceChoice, LoadError},
    memory,
    precision::Precision,
    room::{self, KvSize, Need},
    weights::NumberType,
};

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Which weights.
    pub weights: BenchWeights,
    /// Which backend.
    pub device: DeviceChoice,
    /// In which formats weights are held.
    pub precision: Precision,
    /// In which format keys and values are held; `None` for what suits the backend.
    pub kv_type: Option<KvType>,
    /// Threads that compute.
    pub threads: usize,
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Tokens to generate for each.
    pub generate: usize,
    /// How many sequences at once, one cell each.
    pub concurrency: Vec<usize>,
}

/// Which weights a benchmark runs on.
#[derive(Debug, Clone)]
pub enum BenchWeights {
    /// A checkpoint.
    Checkpoint(PathBuf),
    /// normal(0, 0.02), one random layer repeated.
    Random(Shape),
}

/// What random weights are as if stored in: what XVERSE's checkpoints are.
const STORED: NumberType = NumberType::Bf16;

/// One run's figures.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The device, `(reference)` where that backend ran.
    pub device: String,
    /// Threads that computed.
    pub threads: usize,
    /// The shape's name or the checkpoint folder's.
    pub shape: String,
    /// Of the weights in memory.
    pub dtype: String,
    /// `none`, `8` or `4`.
    pub quantize: String,
    /// Of keys and values.
    pub kv_dtype: String,
    /// Which commit was built, where git says.
    pub commit: String,
    /// The command line.
    pub command: String,
    /// Seconds from the first byte read to ready; for random weights, to make them.
    pub load_s: f64,
    /// Most resident memory, 10⁹ bytes.
    pub peak_memory_gb: f64,
    /// Memory bandwidth measured in this run: 10⁹ bytes read and written a second by copying with all threads.
    pub copy_gb_s: f64,
    /// One for each concurrency.
    pub cells: Vec<Cell>,
}

/// Figures at one concurrency.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Tokens generated for each.
    pub generate: usize,
    /// Sequences at once.
    pub concurrency: usize,
    /// Median time to first token, all submitted at once, milliseconds.
    pub ttft_ms: f64,
    /// Prompt tokens a second, all sequences together.
    pub prefill_tok_s: f64,
    /// Generated tokens a second once all decode, all sequences together.
    pub decode_tok_s: f64,
    /// Median time between two tokens of a sequence, milliseconds.
    pub itl_p50_ms: f64,
    /// 99th percentile of it.
    pub itl_p99_ms: f64,
    /// The least time a decode step can take (bytes it must read over `copy_gb_s`) as a share of the time it took.
    pub floor_share: f64,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The model was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The device failed in a step.
    #[error(transparent)]
    Backend(#[from] super::backend::BackendError),
    /// The model gave no numbers.
    #[error(transparent)]
    Sampling(#[from] super::sampling::SamplingError),
    /// What was asked for does not fit the model's context.
    #[error("prompt of {prompt} and {generate} new tokens exceed the context of {limit}")]
    Context {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens to generate.
        generate: usize,
        /// What fits.
        limit: usize,
    },
    /// Sequences wait that nothing will ever let in.
    #[error("{waiting} sequences found no room for their keys and values")]
    NoRoom {
        /// How many.
        waiting: usize,
    },
}

/// Loads and measures; `command` is put into the report as it is.
///
/// # Errors
/// [`BenchError`].
pub fn run(options: &BenchOptions, command: String) -> Result<Report, BenchError> {
    let copy_gb_s = memory::copy_gb_s(options.threads, 256);
    memory::forget_peak();
    let began = Instant::now();
    let (precision, kv_type) = load::cpu_kind(options.device)?.formats(options.precision, options.kv_type);
    let (shape, config, mut backend) = prepare(options, precision, kv_type)?;
    let load_s = began.elapsed().as_secs_f64();
    let bytes_per_step = backend.spec().weight_bytes as f64;
    measure::warm_up(backend.as_mut())?;
    let mut cells = Vec::new();
    for concurrency in &options.concurrency {
        let times = measure::times(backend.as_mut(), options.prompt, options.generate, *concurrency)?;
        let context = options.prompt + options.generate / 2;
        let kv_bytes = concurrency * context * CpuBackend::kv_bytes_per_position(&config, kv_type);
        let floor_s = (bytes_per_step + kv_bytes as f64) / (copy_gb_s * 1e9);
        cells.push(times.cell(options.prompt, options.generate, *concurrency, floor_s));
    }
    let spec = backend.spec();
    Ok(Report {
        device: spec.device.clone(),
        threads: options.threads,
        shape,
        dtype: spec.dtype.into(),
        quantize: precision.quantize.name().into(),
        kv_dtype: kv_type.name().into(),
        commit: commit(),
        command,
        load_s,
        peak_memory_gb: memory::peak_gb(),
        copy_gb_s,
        cells,
    })
}

impl Report {
    /// The figures as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut table = format!(
            "{} on {} ({} threads, {}, quantize {}, keys and values {}), loaded in {:.2} s, copy {:.1} GB/s, peak memory {:.2} GB\n",
            self.shape,
            self.device,
            self.threads,
            self.dtype,
            self.quantize,
            self.kv_dtype,
            self.load_s,
            self.copy_gb_s,
            self.peak_memory_gb
        );
        table.push_str(
            "concurrency  prompt  generate   ttft ms  prefill tok/s  decode tok/s  itl p50 ms  itl p99 ms  floor\n",
        );
        for cell in &self.cells {
            // Writing to a string cannot fail.
            let _ = writeln!(
                table,
                "{:>11}  {:>6}  {:>8}  {:>8.1}  {:>13.1}  {:>12.1}  {:>10.2}  {:>10.2}  {:>4.0}%",
                cell.concurrency,
                cell.prompt,
                cell.generate,
                cell.ttft_ms,
                cell.prefill_tok_s,
                cell.decode_tok_s,
                cell.itl_p50_ms,
                cell.itl_p99_ms,
                cell.floor_share * 100.0
            );
        }
        table
    }
}

fn prepare(
    options: &BenchOptions,
    precision: Precision,
    kv_type: KvType,
) -> Result<(String, ModelConfig, Box<dyn Backend>), BenchError> {
    let kind = load::cpu_kind(options.device)?;
    let (name, config, need, weights) = match &options.weights {
        // What is measured needs no text, so a tokenizer is not asked for.
        BenchWeights::Checkpoint(path) => {
            let config = ModelConfig::from_json(&load::config_json(path)?).map_err(LoadError::from)?;
            let checkpoint = Checkpoint::open(path, &config).map_err(LoadError::from)?;
            let natural = |name: &str| kind.natural(checkpoint.natural(name));
            let need = Need::of(&config, precision, natural, kv_type);
            (load::folder_name(path), config, need, checkpoint.into_weights())
        }
        BenchWeights::Random(shape) => {
            let config = shape.config();
            let stored = |_: &str| Format::Dense(STORED);
            let weight_bytes = precision.weight_bytes(&shape.one_layer(), stored) as f64;
            let need = Need { weight_bytes, ..Need::of(&config, precision, stored, kv_type) };
            let weights = checkpoint::random(&config, 0, STORED);
            (shape.name().to_owned(), config, need, weights)
        }
    };
    check_context(options, &config)?;
    let n_blocks = room::n_blocks(&config, kv_size(options), need, memory::available()).map_err(LoadError::from)?;
    let cpu = CpuOptions { precision, kv_type, n_blocks, threads: options.threads };
    let backend = load::cpu_backend(kind, &config, weights, cpu).map_err(LoadError::from)?;
    Ok((name, config, backend))
}

fn check_context(options: &BenchOptions, config: &ModelConfig) -> Result<(), BenchError> {
    let BenchOptions { prompt, generate, .. } = *options;
    let limit = config.max_position_embeddings;
    if prompt + generate > limit { Err(BenchError::Context { prompt, generate, limit }) } else { Ok(()) }
}

/// Room for the largest cell, with each sequence in whole blocks, or for the warm-up where that is larger.
fn kv_size(options: &BenchOptions) -> KvSize {
    let per_sequence = (options.prompt + options.generate).max(measure::WARM_UP_TOKENS).next_multiple_of(BLOCK_SIZE);
    KvSize::Tokens(per_sequence * options.concurrency.iter().copied().max().unwrap_or(1))
}

fn commit() -> String {
    std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(|| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
