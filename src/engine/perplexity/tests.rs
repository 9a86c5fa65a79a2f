//! The figures against ones that come about in another way, on the mini model, and everything that is refused.

use std::{fs, sync::Arc};

use super::*;
use crate::{
    chat::settings::Sampling,
    engine::{
        backend::{Backend, BackendSpec, Batch, RowOutput, SequenceId},
        kv::BlockId,
        load::DeviceChoice,
        precision::{Precision, Quantize},
        request::{CacheScope, EngineEvent, GenerationRequest, LogprobsRequest},
        worker::{EngineHandle, EngineOptions},
    },
};

fn load_options(quantize: Quantize) -> LoadOptions {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini");
    LoadOptions {
        model_path: folder.clone(),
        tokenizer_path: folder,
        adapter_path: None,
        device: DeviceChoice::Cpu,
        prompt_format: None,
        precision: Precision { quantize, ..Precision::default() },
        kv_type: None,
        kv_size: KvSize::Auto,
        copies: None,
        cuda: crate::engine::backend::cuda::CudaSettings::default(),
        threads: Some(2),
        is_mini: true,
    }
}

/// A text of some of the model's own dialogues.
fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mini/dialogues/03-knowledge.txt");
    fs::read_to_string(path).unwrap().chars().take(900).collect()
}

/// Options to read a file in `dir` that holds `text`, in windows of 100.
fn options(dir: &Path, text: impl AsRef<[u8]>) -> PerplexityOptions {
    let path = dir.join("text.txt");
    fs::write(&path, text).unwrap();
    PerplexityOptions {
        load: load_options(Quantize::None),
        text: path,
        context: Some(100),
        chunk: 64,
        save: None,
        compare: None,
    }
}

fn run_quietly(options: &PerplexityOptions) -> Result<Report, PerplexityError> {
    run(options, &mut |_| {})
}

/// What the engine says of the tokens of a prompt.
fn prompt_logprobs(engine: &EngineHandle, ids: &[u32]) -> Vec<f64> {
    let mut generation = engine
        .submit(GenerationRequest {
            prompt_ids: ids.into(),
            continued_ids: Arc::from([]),
            sampling: Sampling { max_new_tokens: 1, ..Sampling::default() },
            seed: 0,
            ignore_eos: true,
            stop: Vec::new(),
            logprobs: LogprobsRequest { generated: None, prompt: Some(0) },
            scope: CacheScope::Alone,
        })
        .unwrap();
    let mut logprobs = Vec::new();
    while let Some(event) = generation.blocking_next() {
        if let EngineEvent::PromptLogprobs(prompt) = event {
            logprobs.extend(prompt.iter().map(|token| f64::from(token.logprob)));
        }
    }
    logprobs
}

#[test]
fn the_likelihood_is_that_of_the_engines_prompts() {
    let dir = tempfile::tempdir().unwrap();
    let text = text();
    let options = options(dir.path(), &text);
    let mut seen = Vec::new();
    let report = run(&options, &mut |progress| seen.push((progress.n_done, progress.n_scored))).unwrap();

    let loaded = load::load(&LoadOptions { kv_size: KvSize::Tokens(1024), ..options.load.clone() }).unwrap();
    let ids = loaded.tokenizer.encode(&text).unwrap();
    let engine = EngineHandle::spawn(loaded.backend, loaded.tokenizer, loaded.eos_token_id, EngineOptions::default());
    let windows: Vec<&[u32]> = ids.chunks(100).filter(|window| window.len() > 1).collect();
    let logprobs: Vec<f64> = windows.iter().flat_map(|window| prompt_logprobs(&engine, window)).collect();
    let n = logprobs.len() as f64;
    let mean = logprobs.iter().sum::<f64>() / n;
    let variance = logprobs.iter().map(|logprob| (logprob - mean).powi(2)).sum::<f64>() / (n - 1.0);

    assert!(windows.len() > 3, "{}", windows.len());
    assert_eq!((report.n_tokens, report.n_windows, report.n_scored), (ids.len(), windows.len(), logprobs.len()));
    assert!((report.log_likelihood.mean - mean).abs() < 1e-5, "{:?} {mean}", report.log_likelihood);
    assert!((report.log_likelihood.standard_error.unwrap() - (variance / n).sqrt()).abs() < 1e-5);
    assert!((report.perplexity - (-mean).exp()).abs() < 1e-3);
    assert!(report.tokens_per_second > 0.0 && report.comparison.is_none());
    // Some of the text's bytes are those of first tokens.
    assert!((text.len() * 9 / 10..text.len()).contains(&report.n_bytes), "{} of {}", report.n_bytes, text.len());
    let bits = -mean * n / std::f64::consts::LN_2 / report.n_bytes as f64;
    assert!((report.bits_per_byte.unwrap() - bits).abs() < 1e-4);
    assert!(seen.is_sorted() && seen.last() == Some(&(logprobs.len(), logprobs.len())), "{seen:?}");
}

#[test]
fn neither_the_chunk_nor_the_number_of_threads_changes_a_bit() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), text());
    let expected = run_quietly(&options).unwrap().log_likelihood;
    for (chunk, threads) in [(1, 1), (99, 2), (512, 1)] {
        options.chunk = chunk;
        options.load.threads = Some(threads);
        assert_eq!(run_quietly(&options).unwrap().log_likelihood, expected, "{chunk} {threads}");
    }
}

#[test]
fn a_run_is_no_distance_from_itself_and_coarser_weights_are_further_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), text());
    options.save = Some(dir.path().join("run"));
    let kept = run_quietly(&options).unwrap();
    options.compare = options.save.take();
    let mut beside = |quantize| {
        options.load = load_options(quantize);
        let report = run_quietly(&options).unwrap();
        let comparison = report.comparison.clone().unwrap();
        assert!(comparison.with.contains("xverse-mini") && comparison.with.contains("quantize none"));
        let moved = report.log_likelihood.mean - kept.log_likelihood.mean;
        assert!((comparison.difference.mean - moved).abs() < 1e-9, "{comparison:?} {moved}");
        comparison
    };
    let itself = beside(Quantize::None);
    assert!(itself.divergence.mean.abs() < 1e-9 && itself.divergence_max < 1e-9, "{itself:?}");
    assert_eq!(itself.agreement, 1.0);
    assert_eq!(itself.difference, Estimate { mean: 0.0, standard_error: Some(0.0) });
    let (eight, four) = (beside(Quantize::Eight), beside(Quantize::Four));
    assert!(eight.divergence.mean > 1e-6 && eight.divergence.mean < 0.005, "{eight:?}");
    assert!(four.divergence.mean > 2.0 * eight.divergence.mean, "{four:?} beside {eight:?}");
    for Comparison { divergence, divergence_median, divergence_p99, divergence_max, agreement, .. } in [&eight, &four] {
        assert!(divergence_median <= divergence_p99 && divergence_p99 <= divergence_max);
        assert!(divergence.mean < *divergence_max && divergence.standard_error.is_some_and(|error| error > 0.0));
        assert!((0.5..=1.0).contains(agreement), "{agreement}");
    }
}

#[test]
fn a_run_of_another_text_or_other_windows_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), "one two three four five six seven");
    options.context = Some(4);
    options.save = Some(dir.path().join("run"));
    run_quietly(&options).unwrap();
    options.compare = options.save.take();
    let refused = |options: &PerplexityOptions| match run_quietly(options) {
        Err(PerplexityError::StoredRun(error)) => error,
        other => panic!("{other:?}"),
    };
    options.context = Some(5);
    assert!(matches!(refused(&options), StoredRunError::Context { stored: 4, present: 5, .. }));
    options.context = Some(4);
    fs::write(&options.text, "one two three four five six eight").unwrap();
    assert!(matches!(refused(&options), StoredRunError::Tokens { .. }));
    options.compare = Some(options.text.clone());
    assert!(matches!(refused(&options), StoredRunError::Foreign { .. }));
}

#[test]
fn what_is_no_text_to_measure_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let of = |content: &[u8]| run_quietly(&options(dir.path(), content)).unwrap_err();
    let hinted = |error: PerplexityError, what: &str| {
        let text = error.to_string();
        assert!(text.contains(what) && text.contains("\nhint: "), "{text}");
    };
    hinted(of(b""), "has 0 tokens, at least 2 are expected");
    hinted(of("的".as_bytes()), "has 1 tokens");
    hinted(of(b"abc\xff\xfe"), "is not UTF-8 from byte 3 on");
    let mut options = options(dir.path(), "a text that is long enough");
    for context in [0, 1, 4097, usize::MAX] {
        options.context = Some(context);
        hinted(run_quietly(&options).unwrap_err(), &format!("windows of {context} tokens were asked for"));
    }
    options.text = dir.path().join("absent");
    hinted(run_quietly(&options).unwrap_err(), "there is no file");
    options.text = dir.path().to_owned();
    hinted(run_quietly(&options).unwrap_err(), "cannot be read");
    let huge = dir.path().join("huge");
    fs::File::create(&huge).unwrap().set_len(MOST_BYTES + 1).unwrap();
    options.text = huge;
    hinted(run_quietly(&options).unwrap_err(), "at most 67108864 are read");
}

#[test]
fn two_tokens_are_enough_and_windows_are_as_long_as_the_model_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), "的的");
    options.context = None;
    let report = run_quietly(&options).unwrap();
    assert_eq!((report.n_tokens, report.n_windows, report.n_scored, report.context), (2, 1, 1, 2048));
    assert_eq!((report.log_likelihood.standard_error, report.n_bytes), (None, 3));
    options.context = Some(4096);
    assert_eq!(run_quietly(&options).unwrap().log_likelihood, report.log_likelihood);
}

/// Gives logits of which one is none at a position of the first sequence.
struct Broken(BackendSpec);

impl Backend for Broken {
    fn spec(&self) -> &BackendSpec {
        &self.0
    }

    fn step(&mut self, batch: &Batch) -> Result<Vec<Result<RowOutput, SamplingError>>, BackendError> {
        let outputs = batch.rows.iter().map(|row| {
            let positions = row.start..row.ids.len();
            let logits = positions.flat_map(|position| [0.0, if position == 2 { f32::NAN } else { 1.0 }]);
            Ok(RowOutput { logits: logits.collect(), ..RowOutput::default() })
        });
        Ok(outputs.collect())
    }

    fn release(&mut self, _sequence: SequenceId) {}

    fn poison(&mut self, _blocks: &[BlockId]) {}

    fn reset(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    let spec = BackendSpec {
        name: "broken",
        device: "none".into(),
        vocab_size: 2,
        max_positions: 8,
        n_blocks: 1,
        prefill_chunk: 8,
        weight_bytes: 0,
        dtype: "f32",
    };
    let mut reader = Reader::new(Box::new(Broken(spec)), 2);
    let mut measure = |ids: &[u32]| {
        let log_likelihood = Mean::default();
        let mut measurement =
            Measurement { vocab_size: 2, pool: pool(1).unwrap(), log_likelihood, distances: None, kept: None };
        let text = Text { windows: vec![ids], n_scored: ids.len() - 1 };
        measurement.read(&mut reader, &text, &mut |_| {})?;
        Ok::<_, PerplexityError>(measurement.log_likelihood.estimate().mean)
    };
    let expected = -(1.0 + 1.0_f64.exp()).ln();
    assert!((measure(&[0, 0, 0]).unwrap() - expected).abs() < 1e-9);
    assert!((measure(&[1, 1, 1]).unwrap() - expected - 1.0).abs() < 1e-9);
    let error = measure(&[0, 0, 0, 0]).unwrap_err();
    assert!(matches!(error, PerplexityError::Sampling(SamplingError::NotANumber)));
    assert!(error.to_string().contains("\nhint: "), "{error}");
}
