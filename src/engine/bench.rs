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
    backend::{Backend, cpu::CpuBackend, cuda::CudaSettings},
    checkpoint::{self, Checkpoint},
    config::ModelConfig,
    format::Format,
    kv::BLOCK_SIZE,
    kv_type::KvType,
    load::{self, DeviceChoice, LoadError},
    memory, model_name,
    precision::Precision,
    room::KvSize,
    target::{Holding, Target},
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
    /// Tokens of each prompt, one cell each.
    pub prompts: Vec<usize>,
    /// Tokens to generate for each.
    pub generate: usize,
    /// How many sequences at once, one cell each.
    pub concurrency: Vec<usize>,
    /// Tokens of a history that a second turn finds.
    pub history: Option<usize>,
    /// Tokens of a prompt that is read beside an answer.
    pub beside: Option<usize>,
    /// What is turned off on a card.
    pub cuda: CudaSettings,
}

impl BenchOptions {
    fn longest_prompt(&self) -> usize {
        self.prompts.iter().copied().max().unwrap_or(0)
    }
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
    /// Memory bandwidth measured in this run: 10⁹ bytes read and written a second by copying, on the device, or with all threads.
    pub copy_gb_s: f64,
    /// One for each prompt length and concurrency.
    pub cells: Vec<Cell>,
    /// Where asked for.
    pub second_turn: Option<SecondTurn>,
    /// Where asked for.
    pub beside: Option<Beside>,
}

/// How soon a second turn begins, whose history is known from the first one.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SecondTurn {
    /// Tokens of the history.
    pub history: usize,
    /// Time to first token, milliseconds.
    pub ttft_ms: f64,
}

/// How an answer goes on beside a prompt that is read.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Beside {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Longest time between two tokens of the answer meanwhile, milliseconds.
    pub worst_gap_ms: f64,
}

/// Figures at one prompt length and concurrency.
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
    /// What a decode step must read, 10⁹ bytes: all weights, and the keys and values in the middle of the answers.
    pub step_gb: f64,
    /// The least time a decode step can take (`step_gb` over `copy_gb_s`) as a share of the time it took.
    pub floor_share: f64,
    /// A short name for all tokens that were drawn: the same where the same ones were.
    pub drawn: String,
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
    let target = Target::choose(options.device, options.cuda)?;
    let holding = target.holding(options.precision, options.kv_type)?;
    let Holding { precision, kv_type } = holding;
    let (shape, config, mut backend) = prepare(options, target, holding)?;
    let load_s = began.elapsed().as_secs_f64();
    let weight_bytes = backend.spec().weight_bytes as f64;
    let copy_gb_s = backend.copy_gb_s()?.unwrap_or(copy_gb_s);
    measure::warm_up(backend.as_mut())?;
    let mut cells = Vec::new();
    for prompt in &options.prompts {
        for concurrency in &options.concurrency {
            let times = measure::times(backend.as_mut(), *prompt, options.generate, *concurrency)?;
            let context = prompt + options.generate / 2;
            let kv_bytes = concurrency * context * CpuBackend::kv_bytes_per_position(&config, kv_type);
            let step_gb = (weight_bytes + kv_bytes as f64) / 1e9;
            cells.push(times.cell(*prompt, options.generate, *concurrency, step_gb, copy_gb_s));
        }
    }
    let second_turn = options
        .history
        .map(|history| {
            let ttft_ms = measure::second_turn(backend.as_mut(), history)?;
            Ok::<_, BenchError>(SecondTurn { history, ttft_ms })
        })
        .transpose()?;
    let beside = options
        .beside
        .map(|prompt| {
            let worst_gap_ms = measure::beside(backend.as_mut(), prompt)?;
            Ok::<_, BenchError>(Beside { prompt, worst_gap_ms })
        })
        .transpose()?;
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
        second_turn,
        beside,
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
        if let Some(SecondTurn { history, ttft_ms }) = self.second_turn {
            let _ = writeln!(table, "second turn after {history} tokens: {ttft_ms:.1} ms to the first token");
        }
        if let Some(Beside { prompt, worst_gap_ms }) = self.beside {
            let _ = writeln!(
                table,
                "while a prompt of {prompt} tokens is read: {worst_gap_ms:.1} ms between two tokens at most"
            );
        }
        table
    }
}

fn prepare(
    options: &BenchOptions,
    target: Target,
    holding: Holding,
) -> Result<(String, ModelConfig, Box<dyn Backend>), BenchError> {
    // What is measured needs no text, so a tokenizer is not asked for.
    let (name, config, checkpoint) = match &options.weights {
        BenchWeights::Checkpoint(path) => {
            let config = load::read_config(path)?.1;
            let checkpoint = Checkpoint::open(path, &config).map_err(LoadError::from)?;
            (model_name::of(path), config, Some(checkpoint))
        }
        BenchWeights::Random(shape) => (shape.name().to_owned(), shape.config(), None),
    };
    check_context(options, &config)?;
    let stored = |name: &str| checkpoint.as_ref().map_or(Format::Dense(STORED), |checkpoint| checkpoint.natural(name));
    let natural = |name: &str| target.natural(stored(name));
    let stored_once = match &options.weights {
        BenchWeights::Checkpoint(_) => None,
        BenchWeights::Random(shape) => Some(holding.precision.weight_bytes(&shape.one_layer(), natural) as f64),
    };
    let n_blocks = target.n_blocks(&config, holding, natural, (kv_size(options), stored_once))?;
    let weights = checkpoint.map_or_else(|| checkpoint::random(&config, 0, STORED), Checkpoint::into_weights);
    let backend = target.make(&config, weights, holding, (n_blocks, options.threads)).map_err(LoadError::from)?;
    Ok((name, config, backend))
}

fn check_context(options: &BenchOptions, config: &ModelConfig) -> Result<(), BenchError> {
    let scenes = options.history.max(options.beside).unwrap_or(0);
    let (prompt, generate) = (options.longest_prompt().max(scenes), options.generate);
    let limit = config.max_position_embeddings;
    if prompt + generate > limit { Err(BenchError::Context { prompt, generate, limit }) } else { Ok(()) }
}

/// Room for the largest cell, with each sequence in whole blocks, or for the warm-up where that is larger.
fn kv_size(options: &BenchOptions) -> KvSize {
    let per_sequence =
        (options.longest_prompt() + options.generate).max(measure::WARM_UP_TOKENS).next_multiple_of(BLOCK_SIZE);
    let cells = per_sequence * options.concurrency.iter().copied().max().unwrap_or(1);
    let history = options.history.map_or(0, |history| 2 * history + measure::SCENE_TOKENS);
    let beside = options.beside.map_or(0, |prompt| prompt + measure::SCENE_TOKENS);
    KvSize::Tokens(cells.max(history).max(beside))
}

fn commit() -> String {
    std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(|| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
