//! How well a model foretells a text, and how far its distributions are from those of a run that was kept.
//!
//! The text is cut into windows that do not overlap, and each is read alone; all tokens but each window's first are scored.
//! Knows rows of tensors through [`Reader`] only. **Architecture Invariant:** no more logits are held than a step gives.

mod distribution;
mod stored_run;

use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use rayon::{
    ThreadPool, ThreadPoolBuilder,
    iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator},
    slice::ParallelSlice,
};
use serde::Serialize;

use self::{
    distribution::{Distribution, Record},
    stored_run::{RunHeader, RunReader, RunWriter, StoredRunError, n_scored},
};
use super::{
    backend::BackendError,
    load::{self, LoadError, LoadOptions, default_threads},
    mean::{Estimate, Mean, percentile},
    reading::Reader,
    room::KvSize,
    same_file::is_same,
    sampling::SamplingError,
    small_file::{self, SmallFileError},
    tokenizer::ChatTokenizer,
};
use crate::chat::info::ModelInfo;

/// Tokens of a window where nobody says, and the model has as many.
const DEFAULT_CONTEXT: usize = 2048;
/// More text than any model is judged by.
const MOST_BYTES: u64 = 64 << 20;

/// What to measure and how.
#[derive(Debug, Clone)]
pub struct PerplexityOptions {
    /// The model; room for keys and values is made for one window, and copies are neither made nor used.
    pub load: LoadOptions,
    /// A file with UTF-8 text.
    pub text: PathBuf,
    /// Tokens of a window; `None` for 2,048, or the model's context where that is shorter.
    pub context: Option<usize>,
    /// Tokens that are computed in a step.
    pub chunk: usize,
    /// Where to keep what later runs are compared with.
    pub save: Option<PathBuf>,
    /// A run that was kept, to compare with.
    pub compare: Option<PathBuf>,
}

/// What was found; logarithms are natural.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The model and how it was held.
    pub model: String,
    /// Tokens of the text.
    pub n_tokens: usize,
    /// Tokens of a window; the last one may have fewer.
    pub context: usize,
    /// Windows with a token that is scored.
    pub n_windows: usize,
    /// Tokens that were scored: all but each window's first.
    pub n_scored: usize,
    /// Log-probability of a token.
    pub log_likelihood: Estimate,
    /// e to the mean's negative: among how many equally likely tokens each would be as hard to foretell.
    pub perplexity: f64,
    /// Bytes of the text from the end of each window's first token to the end of its last.
    pub n_bytes: usize,
    /// Bits of all tokens that were scored over those bytes; `None` where there are none.
    pub bits_per_byte: Option<f64>,
    /// Tokens scored a second, without the time it took to load the model.
    pub tokens_per_second: f64,
    /// Where asked for.
    pub comparison: Option<Comparison>,
}

/// How this run is beside the one that was kept.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The model of the run that was kept, and how it was held.
    pub with: String,
    /// KL(kept ‖ present) of a position in nats, of the likeliest thousand tokens one by one and all others as one: where
    /// the vocabulary is larger than that, it is at least this.
    pub divergence: Estimate,
    /// Its median.
    pub divergence_median: f64,
    /// Its 99th percentile.
    pub divergence_p99: f64,
    /// The largest.
    pub divergence_max: f64,
    /// At how large a share of the positions the likeliest token is the same.
    pub agreement: f64,
    /// Log-probability here less that of the run that was kept, token by token.
    pub difference: Estimate,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Tokens that have been scored.
    pub n_done: usize,
    /// Tokens that are to be.
    pub n_scored: usize,
    /// Seconds since the model was loaded.
    pub seconds: f64,
    /// Of those that have been scored.
    pub perplexity: f64,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum PerplexityError {
    /// There is no text.
    #[error("there is no file {}\nhint: FILE names a text in UTF-8", .path.display())]
    Missing {
        /// Where it was expected.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("{} cannot be read: {source}\nhint: FILE names a text that this program may read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is too long.
    #[error("{} has {found} bytes, at most {MOST_BYTES} are read\nhint: a part of it says as much", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// It is no text.
    #[error("{} is not UTF-8 from byte {at} on\nhint: write it anew in UTF-8, or name another text", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first byte that is wrong.
        at: usize,
    },
    /// There is nothing to foretell.
    #[error("{} has {found} tokens, at least 2 are expected\nhint: thousands make a figure that says something", .path.display())]
    TooShort {
        /// The file.
        path: PathBuf,
        /// How many it has.
        found: usize,
    },
    /// Windows that cannot be.
    #[error(
        "windows of {found} tokens were asked for, this model reads 2 to {limit}\nhint: choose --context between those"
    )]
    Context {
        /// What was asked for.
        found: usize,
        /// The model's context.
        limit: usize,
    },
    /// The model was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A run cannot be kept or compared with.
    #[error(transparent)]
    StoredRun(#[from] StoredRunError),
    /// The device failed in a step.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The model gave no numbers.
    #[error("{0}\nhint: `xverse-chat check --verify` looks for what is wrong with the weights")]
    Sampling(#[from] SamplingError),
}

/// Measures, and says after each step how far it is.
///
/// # Errors
/// [`PerplexityError`]; what is wrong with text, windows and files is said before the weights are read.
pub fn run(options: &PerplexityOptions, progress: &mut dyn FnMut(Progress)) -> Result<Report, PerplexityError> {
    let text = read_text(&options.text)?;
    let (_, config) = load::read_config(&options.load.model_path)?;
    let tokenizer = ChatTokenizer::open(&options.load.tokenizer_path).map_err(LoadError::from)?;
    let config = load::for_tokenizer(&config, &tokenizer)?;
    let (ids, ends) = tokenizer.encode_with_ends(&text).map_err(LoadError::from)?;
    if ids.len() < 2 {
        return Err(PerplexityError::TooShort { path: options.text.clone(), found: ids.len() });
    }
    let limit = config.max_position_embeddings;
    let context = options.context.unwrap_or(DEFAULT_CONTEXT.min(limit));
    if !(2..=limit).contains(&context) {
        return Err(PerplexityError::Context { found: context, limit });
    }
    let mut header = RunHeader {
        vocab_size: config.vocab_size as u32,
        context: context as u32,
        n_tokens: ids.len() as u64,
        ids_sha256: stored_run::digest(&ids),
        model: String::new(),
    };
    let n_scored = n_scored(header.n_tokens, header.context);
    let compared = options.compare.as_deref().map(RunReader::open).transpose()?;
    compared.as_ref().map_or(Ok(()), |compared| compared.check(&header))?;
    let create = |path: &Path| {
        if is_same(path, &options.text) {
            return Err(StoredRunError::Occupied { path: path.to_owned(), what: "the text itself" });
        }
        RunWriter::create(path, header.vocab_size, n_scored)
    };
    let mut kept = options.save.as_deref().map(create).transpose()?;
    let loaded = load::load(&LoadOptions { kv_size: KvSize::Tokens(context), copies: None, ..options.load.clone() })?;
    header.model = description(&loaded.info, &options.load);
    kept.as_mut().map_or(Ok(()), |kept| kept.begin(&header))?;
    let text = Text { windows: ids.chunks(context).filter(|ids| ids.len() > 1).collect(), n_scored: n_scored as usize };
    let mut measurement = Measurement {
        vocab_size: config.vocab_size,
        pool: pool(options.load.threads.unwrap_or_else(default_threads))?,
        log_likelihood: Mean::default(),
        distances: compared.map(Distances::to),
        kept,
    };
    let seconds = measurement.read(&mut Reader::new(loaded.backend, options.chunk), &text, progress)?;
    measurement.kept.take().map_or(Ok(()), RunWriter::finish)?;
    let log_likelihood = measurement.log_likelihood.estimate();
    let n_bytes = n_bytes(&ends, context);
    let bits = -log_likelihood.mean * n_scored as f64 / std::f64::consts::LN_2;
    Ok(Report {
        model: header.model,
        n_tokens: ids.len(),
        context,
        n_windows: text.windows.len(),
        n_scored: text.n_scored,
        log_likelihood,
        perplexity: (-log_likelihood.mean).exp(),
        n_bytes,
        bits_per_byte: (n_bytes > 0).then(|| bits / n_bytes as f64),
        tokens_per_second: n_scored as f64 / seconds,
        comparison: measurement.distances.map(Distances::comparison),
    })
}

/// Removes what a run that was broken off has written of the file that it was to keep.
pub fn discard(save: &Path) {
    stored_run::discard(save);
}

fn read_text(path: &Path) -> Result<String, PerplexityError> {
    let path = path.to_owned();
    let bytes = match small_file::read(&path, MOST_BYTES) {
        Ok(bytes) => bytes,
        Err(SmallFileError::Missing) => return Err(PerplexityError::Missing { path }),
        Err(SmallFileError::TooLarge { found }) => return Err(PerplexityError::TooLarge { path, found }),
        Err(SmallFileError::Unreadable(source)) => return Err(PerplexityError::Unreadable { path, source }),
    };
    String::from_utf8(bytes).map_err(|error| PerplexityError::NotText { path, at: error.utf8_error().valid_up_to() })
}

/// The model and how it is held, such as `XVERSE-13B-Chat, bf16, quantize 8, on cpu`.
fn description(info: &ModelInfo, options: &LoadOptions) -> String {
    let ModelInfo { name, dtype, quantize, device, .. } = info;
    let kv = options.kv_type.map_or_else(String::new, |kv_type| format!(", keys and values in {}", kv_type.name()));
    let known = |value: &Option<String>| value.clone().unwrap_or_default();
    format!("{name}, {}, quantize {}{kv}, on {device}", known(dtype), known(quantize))
}

fn pool(threads: usize) -> Result<ThreadPool, BackendError> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|index| format!("score-{index}")).build();
    pool.map_err(|error| BackendError::Threads(error.to_string()))
}

/// Bytes of the text that are scored, where `ends` says at which of them tokens end.
fn n_bytes(ends: &[usize], context: usize) -> usize {
    let span = |window: &[usize]| Some(window.last()?.saturating_sub(*window.first()?));
    ends.chunks(context).filter_map(span).sum()
}

/// What is read.
struct Text<'i> {
    windows: Vec<&'i [u32]>,
    n_scored: usize,
}

/// What is made of logits as they come.
struct Measurement {
    vocab_size: usize,
    pool: ThreadPool,
    log_likelihood: Mean,
    distances: Option<Distances>,
    kept: Option<RunWriter>,
}

/// What one position gave.
struct Score {
    logprob: f64,
    /// Where the run is kept.
    record: Option<Record>,
    /// Where it is compared.
    distance: Option<Distance>,
}

/// How far one position is from what was kept of it.
struct Distance {
    divergence: f64,
    difference: f64,
    agrees: bool,
}

impl Measurement {
    /// Reads all windows, one after the other; how many seconds that took.
    fn read(
        &mut self,
        reader: &mut Reader,
        text: &Text<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<f64, PerplexityError> {
        let began = Instant::now();
        let mut n_done = 0;
        for window in &text.windows {
            // Each token's logits are those at the one before it.
            let Some((_, before)) = window.split_last() else { continue };
            reader.read(&[before], |piece| {
                let n = piece.logits.len() / self.vocab_size;
                let tokens = window.iter().copied().skip(piece.start + 1).take(n).collect();
                self.take(&piece.logits, tokens)?;
                n_done += n;
                let (seconds, mean) = (began.elapsed().as_secs_f64(), self.log_likelihood.estimate().mean);
                progress(Progress { n_done, n_scored: text.n_scored, seconds, perplexity: (-mean).exp() });
                Ok::<_, PerplexityError>(())
            })?;
        }
        Ok(began.elapsed().as_secs_f64())
    }

    /// Scores `tokens`, one for each row of logits.
    fn take(&mut self, logits: &[f32], tokens: Vec<u32>) -> Result<(), PerplexityError> {
        let keeps = self.kept.is_some();
        let mut stored = |_: &u32| self.distances.as_mut().map(|distances| distances.run.read()).transpose();
        let stored: Vec<Option<Record>> = tokens.iter().map(&mut stored).collect::<Result<_, _>>()?;
        let rows = logits.par_chunks_exact(self.vocab_size).zip(tokens).zip(stored.into_par_iter());
        let scores: Result<Vec<Score>, SamplingError> =
            self.pool.install(|| rows.map(|((logits, token), stored)| score(logits, token, stored, keeps)).collect());
        for Score { logprob, record, distance } in scores? {
            self.log_likelihood.add(logprob);
            if let (Some(distances), Some(distance)) = (&mut self.distances, distance) {
                distances.add(&distance);
            }
            if let (Some(kept), Some(record)) = (&mut self.kept, record) {
                kept.write(&record)?;
            }
        }
        Ok(())
    }
}

fn score(logits: &[f32], token: u32, stored: Option<Record>, keeps: bool) -> Result<Score, SamplingError> {
    let distribution = Distribution::new(logits)?;
    let logprob = distribution.logprob(token);
    let distance = stored.map(|stored| Distance {
        divergence: distribution.divergence_from(&stored),
        difference: logprob - stored.logprob,
        agrees: distribution.agrees_with(&stored),
    });
    Ok(Score { logprob, record: keeps.then(|| distribution.record(token)), distance })
}

/// The distances from a run that was kept.
struct Distances {
    run: RunReader,
    divergence: Mean,
    /// All of them, for what only their order says.
    divergences: Vec<f64>,
    difference: Mean,
    n_agree: usize,
}

impl Distances {
    fn to(run: RunReader) -> Self {
        Self { run, divergence: Mean::default(), divergences: Vec::new(), difference: Mean::default(), n_agree: 0 }
    }

    fn add(&mut self, distance: &Distance) {
        self.divergence.add(distance.divergence);
        self.divergences.push(distance.divergence);
        self.difference.add(distance.difference);
        self.n_agree += usize::from(distance.agrees);
    }

    fn comparison(mut self) -> Comparison {
        self.divergences.sort_unstable_by(f64::total_cmp);
        let at = |share| percentile(&self.divergences, share);
        Comparison {
            with: self.run.header().model.clone(),
            divergence: self.divergence.estimate(),
            divergence_median: at(0.5),
            divergence_p99: at(0.99),
            divergence_max: at(1.0),
            agreement: self.n_agree as f64 / self.divergences.len() as f64,
            difference: self.difference.estimate(),
        }
    }
}

#[cfg(test)]
mod tests;
