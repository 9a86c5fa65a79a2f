//! The `perplexity` subcommand: how well a model foretells a text, for the terminal and, where asked for, in a file.

use std::{
    fmt::Write,
    io,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use tokio::runtime;

use super::{
    cli::PerplexityArgs,
    config::model,
    failure::Failure,
    report::{self, printable},
    shutdown::Signals,
};
use crate::engine::{
    backend::cuda::CudaSettings,
    load::LoadOptions,
    mean::Estimate,
    perplexity::{self, Comparison, PerplexityError, PerplexityOptions, Progress, Report},
    room::KvSize,
    same_file::is_same,
};

/// Time between two lines that say how far it is.
const INTERVAL: Duration = Duration::from_secs(10);

/// Measures what `args` ask for, gives the report, and writes it to the file they name.
///
/// # Errors
/// [`Failure::Refused`] for a model, a text or a file that is refused, [`Failure::Device`] for a step that failed.
pub fn perplexity(args: &PerplexityArgs) -> Result<String, Failure> {
    let choice = model::resolve(&args.model, Path::new("."))?;
    if let Some(json) = &args.json {
        check_json(json, args)?;
    }
    if let Some(save) = &args.save {
        discard_when_told_to_end(save.clone())?;
    }
    let options = PerplexityOptions {
        load: LoadOptions {
            model_path: choice.model_path,
            tokenizer_path: choice.tokenizer_path,
            adapter_path: choice.adapter_path,
            device: choice.device,
            prompt_format: choice.prompt_format,
            precision: choice.precision,
            kv_type: choice.kv_type,
            kv_size: KvSize::Auto,
            copies: None,
            cuda: CudaSettings::default(),
            threads: args.threads.map(|threads| threads as usize),
            is_mini: choice.is_mini,
        },
        text: args.file.clone(),
        context: args.context.map(|context| context as usize),
        chunk: args.chunk as usize,
        save: args.save.clone(),
        compare: args.compare.clone(),
    };
    let mut said = Instant::now();
    let mut progress = |progress: Progress| {
        if said.elapsed() >= INTERVAL {
            said = Instant::now();
            eprintln!("{}", line(progress));
        }
    };
    let report = perplexity::run(&options, &mut progress).map_err(|error| match error {
        PerplexityError::Backend(_) | PerplexityError::Sampling(_) => Failure::Device(error.to_string()),
        PerplexityError::Missing { .. }
        | PerplexityError::Unreadable { .. }
        | PerplexityError::TooLarge { .. }
        | PerplexityError::NotText { .. }
        | PerplexityError::TooShort { .. }
        | PerplexityError::Context { .. }
        | PerplexityError::Load(_)
        | PerplexityError::StoredRun(_) => Failure::Refused(error.to_string()),
    })?;
    if let Some(path) = &args.json {
        report::write_json(path, &report)?;
    }
    Ok(table(&report))
}

/// Refuses a report that would take the place of what is read or kept, before hours have gone into it.
fn check_json(json: &Path, args: &PerplexityArgs) -> Result<(), Failure> {
    let others =
        [("the text", Some(&args.file)), ("--save's", args.save.as_ref()), ("--compare's", args.compare.as_ref())];
    let what = others.into_iter().find(|(_, path)| path.is_some_and(|path| is_same(path, json)));
    let what = what.map(|(what, _)| what).or(json.is_dir().then_some("a folder"));
    what.map_or(Ok(()), |what| {
        let message =
            format!("{} is {what}, expected a file for the report\nhint: --json names a file", json.display());
        Err(Failure::Refused(message))
    })
}

/// Where the program is told to end, removes what is half written and ends it, with the status that shells give for that.
fn discard_when_told_to_end(save: PathBuf) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Device(format!("signals cannot be listened to: {error}"));
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut signals = runtime.block_on(async { Signals::listen() }).map_err(failed)?;
    thread::spawn(move || {
        let signal = runtime.block_on(signals.next_kind());
        perplexity::discard(&save);
        process::exit(128 + signal.as_raw_value());
    });
    Ok(())
}

/// How far it is, and how long the rest may take.
fn line(progress: Progress) -> String {
    let Progress { n_done, n_scored, seconds, perplexity } = progress;
    let left = seconds / n_done.max(1) as f64 * n_scored.saturating_sub(n_done) as f64;
    format!("{n_done} of {n_scored} tokens, about {left:.0} s left, perplexity so far {perplexity:.4}")
}

/// The report for people: one line a figure.
fn table(report: &Report) -> String {
    let Report { n_tokens, context, n_windows, n_scored, n_bytes, .. } = report;
    let mut facts = vec![
        ("model", report.model.clone()),
        ("text", format!("{n_tokens} tokens in {n_windows} windows of up to {context}, {n_scored} tokens scored")),
        ("log-likelihood a token", estimate(report.log_likelihood)),
        ("perplexity", format!("{:.4}", report.perplexity)),
    ];
    if let Some(bits) = report.bits_per_byte {
        facts.push(("bits per byte", format!("{bits:.4} of {n_bytes} bytes")));
    }
    facts.push(("tokens a second", format!("{:.1}", report.tokens_per_second)));
    if let Some(comparison) = &report.comparison {
        facts.extend(compared(comparison));
    }
    facts.into_iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<23} {}", printable(&value));
        text
    })
}

fn compared(comparison: &Comparison) -> Vec<(&'static str, String)> {
    let Comparison { divergence_median, divergence_p99, divergence_max, .. } = comparison;
    let spread = format!("median {divergence_median:.6}, 99 % {divergence_p99:.6}, largest {divergence_max:.6}");
    vec![
        ("compared with", comparison.with.clone()),
        ("KL divergence", format!("{}; {spread}", estimate(comparison.divergence))),
        ("same likeliest token", format!("{:.3} %", comparison.agreement * 100.0)),
        ("log-likelihood moved by", estimate(comparison.difference)),
    ]
}

fn estimate(Estimate { mean, standard_error }: Estimate) -> String {
    standard_error.map_or_else(|| format!("{mean:.6}"), |error| format!("{mean:.6} ± {error:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_a_line_for_each_figure() {
        let estimate = |mean, standard_error| Estimate { mean, standard_error };
        let report = Report {
            model: "XVERSE-13B-Chat, bf16, quantize 8, on cpu".to_owned(),
            n_tokens: 5000,
            context: 2048,
            n_windows: 3,
            n_scored: 4997,
            log_likelihood: estimate(-1.5, Some(0.0123)),
            perplexity: 1.5_f64.exp(),
            n_bytes: 20_000,
            bits_per_byte: Some(0.5407),
            tokens_per_second: 123.45,
            comparison: Some(Comparison {
                with: "XVERSE-13B-Chat, bf16, quantize none, on cpu\u{1b}[2J".to_owned(),
                divergence: estimate(0.0012, Some(0.0001)),
                divergence_median: 0.0005,
                divergence_p99: 0.02,
                divergence_max: 0.3,
                agreement: 0.98765,
                difference: estimate(-0.002, None),
            }),
        };
        insta::assert_snapshot!(table(&report), @r"
        model                   XVERSE-13B-Chat, bf16, quantize 8, on cpu
        text                    5000 tokens in 3 windows of up to 2048, 4997 tokens scored
        log-likelihood a token  -1.500000 ± 0.012300
        perplexity              4.4817
        bits per byte           0.5407 of 20000 bytes
        tokens a second         123.5
        compared with           XVERSE-13B-Chat, bf16, quantize none, on cpu\u{1b}[2J
        KL divergence           0.001200 ± 0.000100; median 0.000500, 99 % 0.020000, largest 0.300000
        same likeliest token    98.765 %
        log-likelihood moved by -0.002000
        ");
    }

    #[test]
    fn progress_says_how_long_the_rest_may_take() {
        let progress = Progress { n_done: 512, n_scored: 2048, seconds: 10.0, perplexity: 3.5 };
        assert_eq!(line(progress), "512 of 2048 tokens, about 30 s left, perplexity so far 3.5000");
    }
}
