//! Each kernel, in several orders of its threads, against plain code in doubles.

use half::{bf16, f16};

use super::{
    device::{Address, Device},
    emulator::Emulator,
    kernels::{self, Cells, DeviceMatrix, DrawSettings, Draws, Heads, Rows, Then},
    samples::{self, Context, Random, TABLE_WIDTH, products, silu_multiply, wide},
};
use crate::{
    chat::settings::Sampling,
    engine::{
        block_format::BlockFormat,
        kv::BLOCK_SIZE,
        sampling::{self, Draw},
    },
};

fn put<T: bytemuck::NoUninit>(device: &mut dyn Device, numbers: &[T]) -> Address {
    samples::put(device, numbers).unwrap()
}

fn get<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(device: &mut dyn Device, from: Address, n: usize) -> Vec<T> {
    samples::get(device, from, n).unwrap()
}

fn matrix(device: &mut dyn Device, format: Option<BlockFormat>, n_out: usize, n_in: usize) -> (DeviceMatrix, Vec<f64>) {
    samples::matrix(device, format, n_out, n_in).unwrap()
}

/// Half a unit in the last place of a bf16 is at most 2^-8 of it.
fn assert_near(found: impl IntoIterator<Item = f64>, expected: &[f64], relative: f64, absolute: f64) {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(error <= relative * expected.abs() + absolute, "at {index}: found {found}, expected {expected}");
    }
}

#[test]
fn embedding_takes_the_rows_that_the_ids_name_and_leaves_rows_that_fill_up() {
    let mut device = Emulator::thorough();
    let hidden = 300;
    let table = Random(1).halves(7 * hidden);
    let rows = Rows { n: 3, positions: put(&mut device, &[0_i32, -1, 900]), tables: Address::NONE, table_width: 0 };
    let (ids, on_device) = (put(&mut device, &[6_u32, 5, 2]), put(&mut device, &table));
    let x = put(&mut device, &vec![-1.0_f32; 3 * hidden]);
    kernels::embed(&mut device, rows, (ids, on_device, x), hidden).unwrap();
    let found: Vec<f32> = get(&mut device, x, 3 * hidden);
    let row = |id: usize| table[id * hidden..(id + 1) * hidden].iter().map(|half| half.to_f32());
    let expected: Vec<f32> = row(6).chain(std::iter::repeat_n(-1.0, hidden)).chain(row(2)).collect();
    assert_eq!(found, expected);
}

#[test]
fn norms_are_those_of_the_rows_picked() {
    for (hidden, picked) in [(96, None), (5120, Some([2_i32, 0, 1]))] {
        let mut device = Emulator::thorough();
        let mut random = Random(2);
        let (x, weight) = (random.floats(3 * hidden), random.floats(hidden));
        let addresses = (
            put(&mut device, &x),
            put(&mut device, &weight),
            picked.map_or(Address::NONE, |picked| put(&mut device, &picked)),
            device.allocate(2 * 3 * hidden).unwrap(),
        );
        kernels::norm(&mut device, 3, addresses, (hidden, 1e-6)).unwrap();
        let mut expected = Vec::new();
        for index in 0..3 {
            let row = picked.map_or(index, |picked| picked[index] as usize);
            let x = &x[row * hidden..(row + 1) * hidden];
            let mean = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>() / hidden as f64;
            let scale = (mean + 1e-6).sqrt().recip();
            expected.extend(x.iter().zip(&weight).map(|(x, weight)| f64::from(*weight) * f64::from(*x) * scale));
        }
        let found: Vec<bf16> = get(&mut device, addresses.3, 3 * hidden);
        assert_near(wide(&found), &expected, 1.0 / 250.0, 1e-6);
    }
}

#[test]
fn silu_is_multiplied_with_what_goes_up() {
    let mut device = Emulator::thorough();
    let ffn = 1500;
    let gate_up = Random(3).floats(2 * 2 * ffn);
    let (from, to) = (put(&mut device, &gate_up), device.allocate(2 * 2 * ffn).unwrap());
    kernels::silu_multiply(&mut device, (2, ffn), (from, to)).unwrap();
    let expected: Vec<f64> = gate_up
        .chunks_exact(2 * ffn)
        .flat_map(|row| row[..ffn].iter().zip(&row[ffn..]))
        .map(|(gate, up)| silu_multiply(f64::from(*gate), f64::from(*up)))
        .collect();
    let found: Vec<bf16> = get(&mut device, to, 2 * ffn);
    assert_near(wide(&found), &expected, 1.0 / 250.0, 1e-7);
}

const ATTENTIONS: [(Heads, Cells); 6] = [
    (Heads { n: 2, n_kv: 2, dim: 128 }, Cells::Bf16),
    (Heads { n: 4, n_kv: 2, dim: 64 }, Cells::Bf16),
    (Heads { n: 3, n_kv: 1, dim: 32 }, Cells::Bf16),
    (Heads { n: 2, n_kv: 2, dim: 128 }, Cells::Int8),
    (Heads { n: 4, n_kv: 2, dim: 64 }, Cells::Int8),
    (Heads { n: 3, n_kv: 1, dim: 32 }, Cells::Int8),
];

#[test]
fn attention_reads_the_positions_up_to_its_own() {
    let positions = [0, 15, -1, 16, 255, 256, 700];
    for (heads, cells) in ATTENTIONS {
        let mut device = Emulator::new();
        let context = Context::new(&mut device, (heads, cells), &positions).unwrap();
        let width = heads.n * heads.dim;
        let queries: Vec<bf16> =
            Random(5).floats(positions.len() * width).iter().map(|number| bf16::from_f32(8.0 * number)).collect();
        let on_device = put(&mut device, &queries);
        let out = put(&mut device, &vec![bf16::ZERO; queries.len()]);
        let expected = context.attended(&queries);
        let plain = put(&mut device, &vec![bf16::ZERO; queries.len()]);
        kernels::attend_plainly(&mut device, context.rows, heads, (on_device, plain), context.cache).unwrap();
        assert_near(wide(&get(&mut device, plain, queries.len())), &expected, 1.0 / 200.0, 2e-3);
        let mut bits = Vec::new();
        // However long the longest context may be, a row's bits stay.
        for most in [701, 768, 4096] {
            let parts = device.allocate(kernels::part_bytes(positions.len(), heads, most)).unwrap();
            kernels::attend(&mut device, context.rows, (heads, most), (on_device, parts, out), context.cache).unwrap();
            let found: Vec<bf16> = get(&mut device, out, queries.len());
            assert_near(wide(&found), &expected, 1.0 / 200.0, 2e-3);
            bits.push(found);
        }
        assert!(bits.windows(2).all(|two| two[0] == two[1]));
    }
}

#[test]
fn tokens_of_prompts_attend_as_single_ones_do() {
    // Of three sequences: from the first position on, from the middle of a block, and one token alone.
    let rows: Vec<(usize, i32)> =
        (0..70).map(|at| (0, at)).chain((37..137).map(|at| (1, at))).chain([(2, 300)]).collect();
    let tiles = [[0, 64], [64, 6], [70, 64], [134, 36], [170, 1]];
    for (heads, cells) in ATTENTIONS {
        let mut device = Emulator::new();
        let context = Context::of(&mut device, (heads, cells), &rows).unwrap();
        let queries: Vec<bf16> = Random(13)
            .floats(rows.len() * heads.n * heads.dim)
            .iter()
            .map(|number| bf16::from_f32(8.0 * number))
            .collect();
        let (on_device, out) = (put(&mut device, &queries), device.allocate(2 * queries.len()).unwrap());
        let on_device = (on_device, out);
        let tiles = (put(&mut device, tiles.as_flattened()), tiles.len());
        kernels::attend_tokens(&mut device, context.rows, heads, tiles, on_device, context.cache).unwrap();
        let found: Vec<bf16> = get(&mut device, out, queries.len());
        assert_near(wide(&found), &context.attended(&queries), 1.0 / 100.0, 5e-3);
    }
}

#[test]
fn attention_does_not_depend_on_the_order_of_its_threads() {
    let mut device = Emulator::thorough();
    let heads = Heads { n: 2, n_kv: 1, dim: 32 };
    let context = Context::new(&mut device, (heads, Cells::Int8), &[40, 300]).unwrap();
    let queries = put(&mut device, &Random(6).halves(2 * 64));
    let out = device.allocate(2 * 2 * 64).unwrap();
    let parts = device.allocate(kernels::part_bytes(2, heads, 301)).unwrap();
    kernels::attend(&mut device, context.rows, (heads, 301), (queries, parts, out), context.cache).unwrap();
    let tiles = (put(&mut device, &[0, 1, 1, 1]), 2);
    kernels::attend_tokens(&mut device, context.rows, heads, tiles, (queries, out), context.cache).unwrap();
}

/// A head's numbers in a cache that is read back whole.
fn cell(cells: Cells, numbers: &[u8], scales: &[f16], row: usize, head_dim: usize) -> Vec<f64> {
    let bytes = &numbers[row * cells.n_bytes(head_dim)..][..cells.n_bytes(head_dim)];
    match cells {
        Cells::Bf16 => wide(&bytemuck::pod_collect_to_vec::<u8, bf16>(bytes)),
        Cells::Int8 => bytes.iter().map(|byte| f64::from(byte.cast_signed()) * scales[row].to_f64()).collect(),
    }
}

#[test]
fn queries_and_keys_are_turned_and_kept_with_the_values() {
    for (cells, head_dim) in [(Cells::Bf16, 32), (Cells::Int8, 32), (Cells::Int8, 128)] {
        let mut device = Emulator::thorough();
        let heads = Heads { n: 4, n_kv: 2, dim: head_dim };
        let positions = [5_i32, -1, 17];
        let context = Context::new(&mut device, (heads, cells), &positions).unwrap();
        let (n_all, half) = (heads.n + 2 * heads.n_kv, heads.dim / 2);
        let mut random = Random(7);
        let qkv = random.floats(3 * n_all * heads.dim);
        let (cosines, sines) = (random.floats(20 * half), random.floats(20 * half));
        let addresses = (
            put(&mut device, &qkv),
            put(&mut device, &cosines),
            put(&mut device, &sines),
            device.allocate(2 * 3 * heads.n * heads.dim).unwrap(),
        );
        kernels::rotate_and_append(&mut device, context.rows, heads, addresses, context.cache).unwrap();
        let turned = |row: usize, head: usize| -> Vec<f64> {
            let from = &qkv[(row * n_all + head) * heads.dim..][..heads.dim];
            let x: Vec<f64> = from.iter().map(|x| f64::from(*x)).collect();
            if head >= heads.n + heads.n_kv {
                return x;
            }
            let at = |table: &[f32], i: usize| f64::from(table[positions[row] as usize * half + i]);
            let first = (0..half).map(|i| x[i] * at(&cosines, i) - x[i + half] * at(&sines, i));
            let second = (0..half).map(|i| x[i + half] * at(&cosines, i) + x[i] * at(&sines, i));
            first.chain(second).collect()
        };
        let queries: Vec<bf16> = get(&mut device, addresses.3, 3 * heads.n * heads.dim);
        let n_rows = 3 * TABLE_WIDTH * BLOCK_SIZE * heads.n_kv;
        let cache = context.cache;
        let pools = [(cache.keys, cache.key_scales), (cache.values, cache.value_scales)].map(|(numbers, scales)| {
            let scales = if cells == Cells::Int8 { get(&mut device, scales, n_rows) } else { Vec::<f16>::new() };
            (get::<u8>(&mut device, numbers, n_rows * cells.n_bytes(heads.dim)), scales)
        });
        let tables: Vec<u32> = get(&mut device, context.rows.tables, 3 * TABLE_WIDTH);
        // Half a step of the largest, which is at most about one and a half.
        let absolute = if cells == Cells::Int8 { 0.5 * 1.5 / 127.0 } else { 1e-6 };
        for row in [0, 2] {
            for head in 0..heads.n {
                let found = &queries[(row * heads.n + head) * heads.dim..][..heads.dim];
                assert_near(wide(found), &turned(row, head), 1.0 / 250.0, 1e-6);
            }
            let at = positions[row] as usize;
            for head in 0..heads.n_kv {
                let block = tables[row * TABLE_WIDTH + at / BLOCK_SIZE] as usize;
                let place = (block * heads.n_kv + head) * BLOCK_SIZE + at % BLOCK_SIZE;
                for ((numbers, scales), first) in pools.iter().zip([heads.n, heads.n + heads.n_kv]) {
                    let found = cell(cells, numbers, scales, place, heads.dim);
                    assert_near(found, &turned(row, first + head), 1.0 / 250.0, absolute);
                }
            }
        }
        let filling = &queries[heads.n * heads.dim..2 * heads.n * heads.dim];
        assert!(filling.iter().all(|number| number.is_nan()), "row 1 fills up");
    }
}

const FORMATS: [Option<BlockFormat>; 5] =
    [None, Some(BlockFormat::Q8_0), Some(BlockFormat::Q5_0), Some(BlockFormat::Q6K), Some(BlockFormat::Q4K)];

#[test]
fn products_are_those_of_the_numbers_meant() {
    for format in FORMATS {
        for (n_rows, n_out, n_in) in [(1, 40, 512), (8, 16, 256), (11, 33, 768), (32, 16, 512)] {
            let mut device = Emulator::new();
            let (weights, meant) = matrix(&mut device, format, n_out, n_in);
            let x = Random(9).halves(n_rows * n_in);
            let on_device = put(&mut device, &x);
            let expected = products(&x, &meant, n_in);
            // A row of products is a part of a longer one.
            let width = n_out + 7;
            let picked = |all: Vec<f32>| -> Vec<f64> {
                all.chunks_exact(width).flat_map(|row| &row[..n_out]).map(|number| f64::from(*number)).collect()
            };
            let out = put(&mut device, &vec![2.0_f32; n_rows * width]);
            kernels::multiply(&mut device, weights, (on_device, n_rows), (Then::Store, out, width)).unwrap();
            let stored: Vec<f32> = get(&mut device, out, n_rows * width);
            assert!(stored.chunks_exact(width).all(|row| row[n_out..] == [2.0; 7]));
            assert_near(picked(stored.clone()), &expected, 1e-4, 2e-4);
            kernels::multiply(&mut device, weights, (on_device, n_rows), (Then::Add, out, width)).unwrap();
            let added: Vec<f32> = get(&mut device, out, n_rows * width);
            let doubled: Vec<f64> = expected.iter().map(|number| 2.0 * number).collect();
            assert_near(picked(added), &doubled, 1e-4, 4e-4);
            // A row by itself has the bits that it has among others.
            let alone = device.allocate(4 * n_out).unwrap();
            let last = on_device.plus((n_rows - 1) * n_in * 2);
            kernels::multiply(&mut device, weights, (last, 1), (Then::Store, alone, n_out)).unwrap();
            let alone: Vec<f32> = get(&mut device, alone, n_out);
            assert_eq!(alone, stored[(n_rows - 1) * width..][..n_out], "{format:?}");
        }
    }
}

#[test]
fn two_matrices_become_silu_and_product() {
    for format in FORMATS {
        for n_rows in [1, 9, 25] {
            let mut device = Emulator::new();
            let (ffn, n_in) = (32, 256);
            let (mut both, meant) = matrix(&mut device, format, 2 * ffn, n_in);
            both.n_out = ffn;
            let x = Random(10).halves(n_rows * n_in);
            let on_device = put(&mut device, &x);
            let out = device.allocate(2 * n_rows * ffn).unwrap();
            kernels::multiply(&mut device, both, (on_device, n_rows), (Then::Silu, out, ffn)).unwrap();
            let sums = products(&x, &meant, n_in);
            let expected: Vec<f64> = sums
                .chunks_exact(2 * ffn)
                .flat_map(|row| row[..ffn].iter().zip(&row[ffn..]).map(|(gate, up)| silu_multiply(*gate, *up)))
                .collect();
            let found: Vec<bf16> = get(&mut device, out, n_rows * ffn);
            assert_near(wide(&found), &expected, 1.0 / 200.0, 1e-3);
        }
    }
}

#[test]
fn products_do_not_depend_on_the_order_of_their_threads() {
    for format in FORMATS {
        let mut device = Emulator::thorough();
        let (weights, _) = matrix(&mut device, format, 32, 256);
        let x = put(&mut device, &Random(11).halves(9 * 256));
        for then in [Then::Store, Then::Silu] {
            let weights = DeviceMatrix { n_out: if then == Then::Silu { 16 } else { 32 }, ..weights };
            let out = device.allocate(4 * 9 * 32).unwrap();
            kernels::multiply(&mut device, weights, (x, 9), (then, out, weights.n_out)).unwrap();
        }
    }
}

#[test]
fn widened_weights_are_what_they_stand_for() {
    for format in FORMATS.into_iter().flatten() {
        let mut device = Emulator::thorough();
        let (n_out, n_in) = (20, 768);
        let (weights, meant) = matrix(&mut device, Some(format), n_out, n_in);
        let out = device.allocate(2 * 32 * n_in).unwrap();
        kernels::widen(&mut device, weights, out).unwrap();
        let found: Vec<bf16> = get(&mut device, out, n_out * n_in);
        assert_near(wide(&found), &meant, 1.0 / 256.0, 1e-6);
    }
}

fn device_draw(device: &mut dyn Device, rows: &[(&[f32], &[u32], Draw)]) -> (Vec<i32>, Vec<Vec<u32>>) {
    let vocab_size = rows[0].0.len();
    let n_words = kernels::seen_words(vocab_size);
    let (mut logits, mut settings, mut seen) = (Vec::new(), Vec::new(), vec![0_u32; rows.len() * n_words]);
    let slots: Vec<u32> = (0..rows.len() as u32).rev().collect();
    for ((row, ids, draw), slot) in rows.iter().zip(&slots) {
        logits.extend_from_slice(row);
        settings.push(DrawSettings::of(draw).unwrap());
        for id in *ids {
            seen[*slot as usize * n_words + *id as usize / 32] |= 1 << (id % 32);
        }
    }
    let seen_at = put(device, &seen);
    let draws = Draws {
        logits: put(device, &logits),
        settings: put(device, &settings),
        slots: put(device, &slots),
        seen: seen_at,
        drawn: device.allocate(4 * rows.len()).unwrap(),
    };
    kernels::sample(device, rows.len(), draws, vocab_size).unwrap();
    let tokens = get(device, draws.drawn, rows.len());
    let after: Vec<u32> = get(device, seen_at, seen.len());
    (tokens, slots.iter().map(|slot| after[*slot as usize * n_words..][..n_words].to_vec()).collect())
}

fn draw(temperature: f32, top_k: u32, top_p: f32, penalty: f32, seed: u64) -> Draw {
    let sampling = Sampling { temperature, top_k, top_p, repetition_penalty: penalty, ..Sampling::default() };
    Draw { sampling, seed, index: seed % 97 + (seed << 33) }
}

#[test]
fn the_device_draws_what_the_host_draws() {
    let vocab_size = 5003;
    let mut random = Random(12);
    let mut device = Emulator::new();
    for round in 0..40_u64 {
        // Among wide ones some that tie, near ones and such as the model gives for what cannot be.
        let logits: Vec<f32> = (0..vocab_size)
            .map(|id| match (round % 4, id % 5) {
                (1, _) => (random.next() * 8.0).round(),
                (2, 0) => f32::NEG_INFINITY,
                (3, _) => 20.0 + random.next() * 0.001,
                _ => random.next() * 12.0,
            })
            .collect();
        let seen: Vec<u32> = (0..300).map(|_| (random.next().abs() * 5002.0) as u32).collect();
        let temperature = [0.0, 0.5, 1.0, 1.7][round as usize / 4 % 4];
        let draws = [
            draw(temperature, 30, 0.85, 1.1, round),
            draw(temperature, 1, 1.0, 1.0, round + 1),
            draw(temperature, 200, 1.0, 1.3, round + 2),
            draw(temperature, 1000, 0.2, 0.9, round + 3),
        ];
        let rows: Vec<_> = draws.iter().map(|draw| (&logits[..], &seen[..], *draw)).collect();
        let (tokens, after) = device_draw(&mut device, &rows);
        for ((draw, token), after) in draws.iter().zip(tokens).zip(after) {
            let expected = sampling::draw(&logits, &seen, draw).unwrap();
            if token == kernels::HOST_DRAWS {
                assert!(round % 4 == 1, "only ties make more candidates than there is room for: {round} {draw:?}");
                continue;
            }
            assert_eq!(u32::try_from(token), Ok(expected), "round {round}: {draw:?}");
            assert!(after[expected as usize / 32] >> (expected % 32) & 1 == 1, "the drawn token is seen from now on");
            let n_seen: u32 = after.iter().map(|word| word.count_ones()).sum();
            let mut ids: Vec<u32> = seen.iter().copied().chain([expected]).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(n_seen as usize, ids.len());
        }
    }
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let mut device = Emulator::thorough();
    let with_nan: Vec<f32> = (0..2100).map(|id| if id == 2000 { f32::NAN } else { id as f32 }).collect();
    let nothing = vec![f32::NEG_INFINITY; 2100];
    let infinite: Vec<f32> = (0..2100).map(|id| if id == 7 { f32::INFINITY } else { id as f32 }).collect();
    let ties = vec![1.0; 2100];
    let rows = [&with_nan, &nothing, &infinite, &ties].map(|logits| (&logits[..], &[][..], draw(1.0, 5, 1.0, 1.0, 3)));
    let (tokens, after) = device_draw(&mut device, &rows);
    assert_eq!(tokens, [kernels::NOT_A_NUMBER, kernels::HOST_DRAWS, kernels::NOT_A_NUMBER, kernels::HOST_DRAWS]);
    assert!(after.iter().flatten().all(|word| *word == 0));
}

#[test]
fn settings_that_the_device_cannot_draw_with_are_the_hosts() {
    assert!(DrawSettings::of(&draw(1.0, 0, 1.0, 1.0, 1)).is_none(), "all tokens");
    assert!(DrawSettings::of(&draw(1.0, 1025, 1.0, 1.0, 1)).is_none());
    assert_eq!(DrawSettings::of(&draw(0.0, 0, 1.0, 1.0, 1)).unwrap().top_k, 1, "the likeliest is one");
}

#[test]
fn rows_that_have_drawn_become_those_of_the_next_step() {
    let mut device = Emulator::thorough();
    let of = |index: u64| DrawSettings::of(&Draw { index, ..draw(1.0, 5, 0.9, 1.1, 8) }).unwrap();
    let mut rows = vec![of(0), of(u64::from(u32::MAX)), of(3), of(4), DrawSettings::default()];
    let none = Address::NONE;
    let draws = Draws {
        logits: none,
        settings: put(&mut device, &rows),
        slots: none,
        seen: none,
        drawn: put(&mut device, &[41_i32, 42, kernels::HOST_DRAWS, kernels::NOT_A_NUMBER, 7]),
    };
    let places = (put(&mut device, &[1_u32, 2, 3, 4, 5]), put(&mut device, &[10_i32, 20, 30, 40, -1]));
    kernels::advance(&mut device, rows.len(), draws, places).unwrap();
    assert_eq!(get::<u32>(&mut device, places.0, 5), [41, 42, 3, 4, 5]);
    assert_eq!(get::<i32>(&mut device, places.1, 5), [11, 21, -1, -1, -1]);
    (rows[0], rows[1]) = (of(1), of(1 << 32));
    for row in &mut rows[2..] {
        row.top_k = 0;
    }
    assert_eq!(get::<DrawSettings>(&mut device, draws.settings, 5), rows);
}

#[test]
fn what_the_device_tells_of_probabilities_is_what_the_host_tells() {
    let vocab_size = 5003;
    let mut random = Random(14);
    let mut row = |round: usize| -> Vec<f32> {
        let one = |id: usize, random: &mut Random| match (round, id % 7) {
            (1, _) => (random.next() * 4.0).round(),
            (2, 0..=5) => f32::NEG_INFINITY,
            _ => random.next() * 15.0,
        };
        (0..vocab_size).map(|id| one(id, &mut random)).collect()
    };
    let mut rows: Vec<Vec<f32>> = (0..5).map(&mut row).collect();
    rows[3][4000] = f32::NAN;
    let tellings = [
        kernels::Telling { token: 17, n_top: 20 },
        kernels::Telling { token: -1, n_top: 5 },
        kernels::Telling { token: 0, n_top: 3 },
        kernels::Telling { token: 9, n_top: 0 },
        kernels::Telling::NOTHING,
    ];
    for thorough in [false, true] {
        let mut device = if thorough { Emulator::thorough() } else { Emulator::new() };
        let logits = put(&mut device, &rows.concat());
        let drawn = put(&mut device, &[-1_i32, 300, -1, -1, -1]);
        let places = (put(&mut device, &tellings), device.allocate(5 * size_of::<kernels::Told>()).unwrap());
        kernels::tell(&mut device, 5, (logits, drawn), places, vocab_size).unwrap();
        let told: Vec<kernels::Told> = get(&mut device, places.1, 5);
        for (index, (token, n)) in [(17, 20), (300, 5), (0, 3)].into_iter().enumerate() {
            let expected = sampling::logprobs(&rows[index], token, n);
            let near = |found: f32, expected: f32| found == expected || (found - expected).abs() < 1e-5;
            assert!(near(told[index].logprob, expected.logprob), "{} {}", told[index].logprob, expected.logprob);
            let found: Vec<(u32, f32)> = told[index].top(n as usize).collect();
            assert_eq!(found.len(), n as usize);
            for (found, expected) in found.iter().zip(&expected.top) {
                assert!(found.0 == expected.0 && near(found.1, expected.1), "{found:?} {expected:?}");
            }
        }
        assert!(told[3].logprob.is_nan());
        assert_eq!(told[4].logprob.to_bits(), u32::MAX, "of the last row nothing is written");
    }
}

#[test]
fn of_fewer_tokens_than_asked_for_all_are_told() {
    let mut device = Emulator::thorough();
    let (logits, drawn) = (put(&mut device, &[1.0_f32, 3.0, 2.0]), put(&mut device, &[-1_i32]));
    let telling = put(&mut device, &[kernels::Telling { token: 1, n_top: 20 }]);
    let told = device.allocate(size_of::<kernels::Told>()).unwrap();
    kernels::tell(&mut device, 1, (logits, drawn), (telling, told), 3).unwrap();
    let told: Vec<kernels::Told> = get(&mut device, told, 1);
    assert_eq!(told[0].top(20).map(|(id, _)| id).collect::<Vec<_>>(), [1, 2, 0]);
}
