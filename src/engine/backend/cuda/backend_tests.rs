//! The whole backend on the emulated device, against the CPU backend.

use std::{path::Path, sync::Arc};

use super::{CudaBackend, CudaSettings, emulator::Emulator, kernels::Cells, plan::KvRoom};
use crate::{
    chat::settings::Sampling,
    engine::{
        backend::{
            Backend, BackendError, Batch, Row, RowOutput, SequenceId,
            cpu::{CpuBackend, CpuOptions},
        },
        checkpoint::{self, Checkpoint},
        config::ModelConfig,
        format::Format,
        kv::{BLOCK_SIZE, BlockId},
        kv_type::KvType,
        load,
        precision::{Precision, Quantize},
        request::TokenLogprobs,
        sampling::Draw,
        tokenizer::ChatTokenizer,
        weights::{NumberType, Weights},
    },
};

const N_BLOCKS: usize = 64;

pub(super) fn config() -> ModelConfig {
    ModelConfig {
        hidden_size: 256,
        intermediate_size: 512,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 64,
        vocab_size: 500,
        max_position_embeddings: 1024,
        max_tokenizer_truncation: None,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        pad_token_id: 1,
        bos_token_id: 2,
        eos_token_id: 3,
        other_end_ids: Vec::new(),
        tie_word_embeddings: false,
    }
}

pub(super) fn weights() -> Arc<dyn Weights> {
    checkpoint::random(&config(), 7, NumberType::Bf16)
}

fn cuda(precision: Precision, settings: CudaSettings) -> CudaBackend {
    cuda_with(precision, Cells::Bf16, settings)
}

fn cuda_with(precision: Precision, cells: Cells, settings: CudaSettings) -> CudaBackend {
    let device = Box::new(Emulator::new());
    CudaBackend::new(device, (&config(), &*weights()), (precision, cells, N_BLOCKS), settings).unwrap()
}

fn cpu(precision: Precision) -> CpuBackend {
    let options = CpuOptions { precision, kv_type: KvType::Bf16, n_blocks: N_BLOCKS, threads: 2 };
    CpuBackend::new(&config(), weights(), options).unwrap()
}

/// A sequence whose blocks are every third one of the pool.
fn row(sequence: u64, ids: &[u32], start: usize) -> Row {
    Row {
        sequence: SequenceId(sequence),
        ids: ids.to_vec(),
        start,
        blocks: (0..ids.len().div_ceil(BLOCK_SIZE))
            .map(|block| BlockId((block * 3 + sequence as usize) as u32))
            .collect(),
        draw: None,
        logprobs: None,
        prompt_logprobs: None,
        following: None,
        logits: false,
    }
}

pub(super) fn ids(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|index| (4 + (index * 37 + seed * 101) % 490) as u32).collect()
}

fn draw(temperature: f32, seed: u64) -> Draw {
    let sampling = Sampling { temperature, top_k: 30, top_p: 0.9, repetition_penalty: 1.1, ..Sampling::default() };
    Draw { sampling, seed, index: 0 }
}

fn step(backend: &mut dyn Backend, rows: Vec<Row>) -> Vec<RowOutput> {
    backend.step(&Batch { rows }).unwrap().into_iter().map(Result::unwrap).collect()
}

/// Mean KL divergence of the distributions that logits stand for, shape (row, vocabulary).
fn divergence(expected: &[f32], found: &[f32]) -> f64 {
    let vocab_size = config().vocab_size;
    let logs = |row: &[f32]| -> Vec<f64> {
        let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let mass = row.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum::<f64>().ln();
        row.iter().map(|logit| f64::from(*logit) - largest - mass).collect()
    };
    let rows = expected.chunks_exact(vocab_size).zip(found.chunks_exact(vocab_size));
    let all: Vec<f64> = rows
        .map(|(expected, found)| logs(expected).iter().zip(logs(found)).map(|(p, q)| p.exp() * (p - q)).sum::<f64>())
        .collect();
    all.iter().sum::<f64>() / all.len() as f64
}

fn with_logits(mut row: Row) -> Row {
    row.logits = true;
    row
}

#[test]
fn logits_are_those_of_the_cpu_in_every_precision() {
    for quantize in [Quantize::None, Quantize::Eight, Quantize::Four] {
        let precision = Precision { number_type: None, quantize };
        let ids = ids(70, 1);
        // In one piece, which is more than 32 rows, then by pieces of at most 32, then one by one.
        let mut found = Vec::new();
        for pieces in [vec![70], vec![20, 32, 18], vec![60, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]] {
            let mut backend = cuda(precision, CudaSettings::default());
            let (mut logits, mut start) = (Vec::new(), 0);
            for n in pieces {
                let outputs = step(&mut backend, vec![with_logits(row(1, &ids[..start + n], start))]);
                logits.extend(outputs.into_iter().flat_map(|output| output.logits));
                start += n;
            }
            found.push(logits);
        }
        let expected = step(&mut cpu(precision), vec![with_logits(row(1, &ids, 0))]).remove(0).logits;
        for logits in &found {
            assert_eq!(logits.len(), expected.len());
            let kl = divergence(&expected, logits);
            assert!(kl < 1e-3, "{quantize:?}: {kl}");
        }
    }
}

/// Answers of some sequences: prompts one by one, since their bits depend on how many tokens are read together, then all together.
fn answers(backend: &mut dyn Backend, prompts: &[(u64, Vec<u32>)], n_tokens: usize, temperature: f32) -> Vec<Vec<u32>> {
    let mut all: Vec<Vec<u32>> = prompts.iter().map(|(_, ids)| ids.clone()).collect();
    let mut starts = vec![0; prompts.len()];
    for index in 0..n_tokens {
        let rows = all.iter().zip(&starts).zip(prompts).map(|((ids, start), (sequence, _))| {
            let mut row = row(*sequence, ids, *start);
            row.draw = Some(Draw { index: index as u64, ..draw(temperature, *sequence) });
            row
        });
        let outputs: Vec<RowOutput> = match index {
            0 => rows.flat_map(|row| step(backend, vec![row])).collect(),
            _ => step(backend, rows.collect()),
        };
        for ((ids, start), output) in all.iter_mut().zip(&mut starts).zip(outputs) {
            *start = ids.len();
            ids.push(output.drawn.unwrap().token);
        }
    }
    all.iter().zip(prompts).map(|(ids, (_, prompt))| ids[prompt.len()..].to_vec()).collect()
}

#[test]
fn what_is_drawn_together_is_what_is_drawn_alone() {
    let prompts: Vec<(u64, Vec<u32>)> = (0..3).map(|sequence| (sequence, ids(10 + 7 * sequence as usize, 5))).collect();
    for temperature in [0.0, 1.0] {
        let together = answers(&mut cuda(Precision::default(), CudaSettings::default()), &prompts, 12, temperature);
        for (prompt, answer) in prompts.iter().zip(&together) {
            let mut backend = cuda(Precision::default(), CudaSettings::default());
            let alone = answers(&mut backend, std::slice::from_ref(prompt), 12, temperature);
            assert_eq!(alone[0], *answer, "sequence {}", prompt.0);
        }
    }
}

#[test]
fn recorded_launches_and_the_devices_draws_change_nothing() {
    let prompts = [(0, ids(9, 2)), (1, ids(30, 3))];
    for temperature in [0.0, 1.0] {
        let of = |graphs, sampler| {
            let settings = CudaSettings { graphs, sampler, ..CudaSettings::default() };
            answers(&mut cuda(Precision::default(), settings), &prompts, 10, temperature)
        };
        let expected = of(false, false);
        assert_eq!(of(true, true), expected);
        assert_eq!(of(false, true), expected);
        assert_eq!(of(true, false), expected);
    }
}

#[test]
fn without_a_library_for_large_products_prompts_are_read_as_well() {
    let prompts = [(0, ids(70, 2))];
    let expected = answers(&mut cuda(Precision::default(), CudaSettings::default()), &prompts, 4, 0.0);
    let settings = CudaSettings { cublas: false, ..CudaSettings::default() };
    assert_eq!(answers(&mut cuda(Precision::default(), settings), &prompts, 4, 0.0), expected);
}

#[test]
fn more_sequences_than_one_launch_takes_are_computed_in_several() {
    let prompts: Vec<(u64, Vec<u32>)> = (0..40).map(|sequence| (sequence, ids(3, sequence as usize))).collect();
    let mut backend = cuda(Precision::default(), CudaSettings { most_tokens: 64, ..CudaSettings::default() });
    let found = answers(&mut backend, &prompts, 2, 0.0);
    let alone = answers(&mut cuda(Precision::default(), CudaSettings::default()), &prompts[39..], 2, 0.0);
    assert_eq!(found[39], alone[0]);
}

#[test]
fn the_mini_model_answers_as_it_does_on_the_cpu() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini");
    let config = load::read_config(&folder).unwrap().1;
    let weights = Checkpoint::open(&folder, &config).unwrap().into_weights();
    let tokenizer = ChatTokenizer::from_json(&ChatTokenizer::read_json(&folder).unwrap()).unwrap();
    let prompt = tokenizer.encode("Human: 你好\n\nAssistant: ").unwrap();
    let (precision, settings) = (Precision::default(), CudaSettings::default());
    let device = Box::new(Emulator::new());
    let mut cuda =
        CudaBackend::new(device, (&config, &*weights), (precision, Cells::Bf16, N_BLOCKS), settings).unwrap();
    let options = CpuOptions { precision, kv_type: KvType::Bf16, n_blocks: N_BLOCKS, threads: 2 };
    let mut cpu = CpuBackend::new(&config, weights, options).unwrap();
    let [found, expected] =
        [&mut cuda as &mut dyn Backend, &mut cpu].map(|backend| answers(backend, &[(1, prompt.clone())], 12, 0.0));
    assert_eq!(found, expected, "{:?}", tokenizer.decode(&expected[0]));
}

#[test]
fn log_probabilities_are_those_of_the_cpu() {
    let ids = ids(40, 4);
    let asked = |start| {
        let mut row = row(2, &ids, start);
        row.draw = Some(draw(0.0, 1));
        row.logprobs = Some(3);
        row.prompt_logprobs = Some(2);
        row
    };
    let (mut cuda, mut cpu) = (cuda(Precision::default(), CudaSettings::default()), cpu(Precision::default()));
    let [found, expected] =
        [&mut cuda as &mut dyn Backend, &mut cpu].map(|backend| step(backend, vec![asked(0)]).remove(0));
    assert_eq!(found.prompt_logprobs.len(), expected.prompt_logprobs.len());
    for (found, expected) in found.prompt_logprobs.iter().zip(&expected.prompt_logprobs) {
        assert_eq!(found.token, expected.token);
        assert!((found.logprob - expected.logprob).abs() < 0.05, "{} {}", found.logprob, expected.logprob);
    }
    assert_eq!(found.drawn.unwrap().logprobs.unwrap().top.len(), 3);
}

#[test]
fn what_is_told_on_the_device_is_what_the_host_tells() {
    let ids = ids(90, 4);
    let asked = |start: usize, n| {
        let mut row = row(2, &ids[..start + n], start);
        row.draw = (start + n == 90).then(|| draw(0.8, 1));
        (row.logprobs, row.prompt_logprobs, row.following) = (Some(3), Some(20), ids.get(start + n).copied());
        row
    };
    let of = |probabilities| {
        let mut backend = cuda(Precision::default(), CudaSettings { probabilities, ..CudaSettings::default() });
        // More places than are told of together, then one by one.
        let outputs = [(0, 80), (80, 1), (81, 9)].map(|(start, n)| step(&mut backend, vec![asked(start, n)]).remove(0));
        let drawn = outputs[2].drawn.clone().unwrap();
        let prompt: Vec<TokenLogprobs> = outputs.into_iter().flat_map(|output| output.prompt_logprobs).collect();
        (drawn.token, drawn.logprobs.unwrap(), prompt)
    };
    let (found, expected) = (of(true), of(false));
    assert_eq!((found.0, found.2.len()), (expected.0, 89));
    let pairs = found.2.iter().zip(&expected.2).chain([(&found.1, &expected.1)]);
    for (found, expected) in pairs {
        assert_eq!((found.token, found.top.len()), (expected.token, expected.top.len()));
        assert!((found.logprob - expected.logprob).abs() < 1e-5, "{} {}", found.logprob, expected.logprob);
        for (found, expected) in found.top.iter().zip(&expected.top) {
            assert!(found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-5, "{found:?} {expected:?}");
        }
    }
}

#[test]
fn keys_and_values_of_eight_bits_move_the_distributions_little() {
    let ids = ids(70, 8);
    let expected = step(&mut cpu(Precision::default()), vec![with_logits(row(1, &ids, 0))]).remove(0).logits;
    let mut backend = cuda_with(Precision::default(), Cells::Int8, CudaSettings::default());
    let mut logits = step(&mut backend, vec![with_logits(row(1, &ids[..60], 0))]).remove(0).logits;
    for n in 60..70 {
        logits.extend(step(&mut backend, vec![with_logits(row(1, &ids[..=n], n))]).remove(0).logits);
    }
    let kl = divergence(&expected, &logits);
    assert!(kl < 2e-3, "{kl}");
}

#[test]
fn poisoned_blocks_are_read_by_nobody_else() {
    for cells in [Cells::Bf16, Cells::Int8] {
        poisoned_blocks(cells);
    }
}

fn poisoned_blocks(cells: Cells) {
    let mut backend = cuda_with(Precision::default(), cells, CudaSettings::default());
    let prompt = [(1, ids(40, 6))];
    let expected = answers(&mut backend, &prompt, 4, 0.0);
    backend.poison(&[BlockId(0), BlockId(2), BlockId(30)]);
    assert_eq!(answers(&mut backend, &prompt, 4, 0.0), expected);
    backend.poison(&[BlockId(4)]);
    let mut row = row(1, &ids(41, 6), 40);
    row.draw = Some(draw(0.0, 1));
    assert!(backend.step(&Batch { rows: vec![row] }).unwrap()[0].is_err(), "block 4 holds positions 16 to 31");
}

#[test]
fn too_little_memory_is_said_before_anything_is_brought() {
    let n_blocks = |room| {
        let natural = |_: &str| Format::Dense(NumberType::Bf16);
        let of = (&config(), Precision::default(), Cells::Bf16);
        CudaBackend::n_blocks(&Emulator::with_room(room), of, natural, KvRoom::Tokens(1000), CudaSettings::default())
    };
    assert!(matches!(n_blocks(1 << 20), Err(BackendError::Plan(_))));
    // What is counted is what is taken.
    let mut room = 1 << 20;
    let n_blocks = loop {
        if let Ok(n_blocks) = n_blocks(room) {
            break n_blocks;
        }
        room += room / 8;
    };
    let of = (Precision::default(), Cells::Bf16, n_blocks);
    CudaBackend::new(Box::new(Emulator::with_room(room)), (&config(), &*weights()), of, CudaSettings::default())
        .map(|_| ())
        .unwrap();
}
