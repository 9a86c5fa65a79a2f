//! The `bench` subcommand: flags to an engine benchmark, its report to the terminal and, where asked for, to a file.

use std::{ffi::OsString, fs, path::PathBuf};

use super::{cli::BenchArgs, failure::Failure};
use crate::engine::{
    bench::{self, BenchError, BenchOptions, BenchWeights, Report, shape::Shape},
    load::default_threads,
};

/// Measures what `args` ask for and writes it to the file they name.
///
/// # Errors
/// [`Failure::Refused`] for a model that is refused or a file that cannot be written, [`Failure::Device`] for a step that
/// failed.
pub fn bench(args: &BenchArgs) -> Result<Report, Failure> {
    let options = BenchOptions {
        weights: weights(args)?,
        device: args.device,
        threads: args.threads.unwrap_or_else(default_threads),
        prompt: args.prompt as usize,
        generate: args.generate as usize,
        concurrency: args.concurrency.iter().map(|n| *n as usize).collect(),
    };
    let report = bench::run(&options, command_line(std::env::args_os())).map_err(|error| match error {
        BenchError::Load(_) | BenchError::Context { .. } => Failure::Refused(error.to_string()),
        BenchError::Backend(_) | BenchError::Sampling(_) => Failure::Device(error.to_string()),
    })?;
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report).expect("invariant: a report has only names and numbers");
        fs::write(path, json + "\n").map_err(|error| {
            Failure::Refused(format!("{} cannot be written: {error}\nhint: --json names a file", path.display()))
        })?;
    }
    Ok(report)
}

fn weights(args: &BenchArgs) -> Result<BenchWeights, Failure> {
    match (&args.model_path, &args.random_weights) {
        (Some(path), _) => Ok(BenchWeights::Checkpoint(path.clone())),
        (None, Some(name)) => Shape::named(name)
            .map(BenchWeights::Random)
            .ok_or_else(|| Failure::Refused(format!("no shape is called {name}, expected 13b, 7b, 1b or mini"))),
        (None, None) => Err(Failure::Refused(
            "neither weights nor a shape was given\nhint: --model_path DIR for a checkpoint, or --random_weights 1b"
                .into(),
        )),
    }
}

/// The command line as it can be typed elsewhere: the program by its name alone.
fn command_line(args: impl Iterator<Item = OsString>) -> String {
    let mut words: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    if let Some(program) = words.first_mut() {
        let name = PathBuf::from(&program).file_name().map(|name| name.to_string_lossy().into_owned());
        *program = name.unwrap_or_else(|| "xverse-chat".into());
    }
    words.join(" ")
}
