//! The `logits` subcommand: logits of token ids in a file, for comparing with other programs.

use std::{
    fs::File,
    io::{BufWriter, Read},
};

use super::{cli::LogitsArgs, config::model, failure::Failure};
use crate::engine::{
    backend::cuda::CudaSettings,
    load::default_threads,
    logits::{self, LogitsError, LogitsOptions},
};

/// More than any ids that make sense.
const MOST_BYTES: u64 = 64 << 20;

/// Computes what `args` ask for and writes it to the file they name.
///
/// # Errors
/// [`Failure::Refused`] for a model or ids that are refused and a file that cannot be written, [`Failure::Device`] for a device
/// that failed.
pub fn logits(args: &LogitsArgs) -> Result<(), Failure> {
    let refused = |what: String| Failure::Refused(what);
    let mut json = Vec::new();
    File::open(&args.ids).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut json)).map_err(|error| {
        refused(format!("{} cannot be read: {error}\nhint: --ids names a file", args.ids.display()))
    })?;
    let ids: Vec<Vec<u32>> = serde_json::from_slice(&json).map_err(|error| {
        refused(format!("{} has no lists of token ids: {error}\nhint: such as [[5, 6], [7]]", args.ids.display()))
    })?;
    let options = LogitsOptions {
        model_path: args.model_path.clone(),
        device: model::device(args.compute),
        precision: model::precision(args.compute),
        chunk: args.chunk as usize,
        together: args.together,
        cuda: CudaSettings { graphs: !args.no_graphs, ..CudaSettings::default() },
        threads: args.threads.map_or_else(default_threads, |threads| threads as usize),
    };
    let file = File::create(&args.output).map_err(|error| {
        refused(format!("{} cannot be written: {error}\nhint: --output names a file", args.output.display()))
    })?;
    logits::write(&options, &ids, &mut BufWriter::new(file)).map_err(|error| match error {
        LogitsError::Load(_) | LogitsError::Ids { .. } | LogitsError::Write(_) => refused(error.to_string()),
        LogitsError::Backend(_) | LogitsError::Sampling(_) => Failure::Device(error.to_string()),
    })
}
