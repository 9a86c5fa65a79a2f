//! The `bench` subcommand: flags to an engine benchmark, its report to the terminal and, where asked for, to a file.

use std::{ffi::OsString, path::Path};

use super::{cli::BenchArgs, config::model, failure::Failure, report};
use crate::engine::{
    backend::cuda::CudaSettings,
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
        device: model::device(args.compute),
        precision: model::precision(args.compute),
        kv_type: model::kv_type(args.kv_dtype),
        threads: args.threads.map_or_else(default_threads, |threads| threads as usize),
        prompts: args.prompt.iter().map(|n| *n as usize).collect(),
        generate: args.generate as usize,
        history: args.history.map(|n| n as usize),
        beside: args.beside.map(|n| n as usize),
        concurrency: args.concurrency.iter().map(|n| *n as usize).collect(),
        cuda: CudaSettings { ahead: !args.no_ahead, ..CudaSettings::default() },
    };
    let report = bench::run(&options, command_line(std::env::args_os())).map_err(|error| match error {
        BenchError::Load(_) | BenchError::Context { .. } | BenchError::NoRoom { .. } => {
            Failure::Refused(error.to_string())
        }
        BenchError::Backend(_) | BenchError::Sampling(_) => Failure::Device(error.to_string()),
    })?;
    if let Some(path) = &args.json {
        report::write_json(path, &report)?;
    }
    Ok(report)
}

fn weights(args: &BenchArgs) -> Result<BenchWeights, Failure> {
    match (&args.model_path, &args.random_weights) {
        (Some(path), _) => Ok(BenchWeights::Checkpoint(path.clone())),
        (None, name) => name
            .as_deref()
            .and_then(Shape::named)
            .map(BenchWeights::Random)
            .ok_or_else(|| Failure::Refused(format!("{name:?} is no shape; expected 13b, 7b, 1b or mini"))),
    }
}

/// The command line as it can be typed elsewhere: paths by their last part alone.
fn command_line(args: impl Iterator<Item = OsString>) -> String {
    let words: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let shortened = |(at, word): (usize, &String)| if at == 0 { last_part(word) } else { shortened(word) };
    words.iter().enumerate().map(shortened).collect::<Vec<_>>().join(" ")
}

/// `--flag=/a/b` as `--flag=b`, `/a/b` as `b`.
fn shortened(word: &str) -> String {
    match word.split_once('=') {
        Some((flag, path)) if Path::new(path).is_absolute() => format!("{flag}={}", last_part(path)),
        _ if Path::new(word).is_absolute() => last_part(word),
        _ => word.to_owned(),
    }
}

fn last_part(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_command_says_nothing_of_where_things_lie() {
        let typed =
            ["/opt/x/xverse-chat", "bench", "--model_path", "/home/me/mini/", "--json=/tmp/a.json", "--prompt=5"];
        let kept = command_line(typed.into_iter().map(OsString::from));
        assert_eq!(kept, "xverse-chat bench --model_path mini --json=a.json --prompt=5");
        let relative = ["target/release/xverse-chat", "bench", "--model_path=models/xverse-mini"];
        assert_eq!(
            command_line(relative.into_iter().map(OsString::from)),
            "xverse-chat bench --model_path=models/xverse-mini"
        );
    }
}
