//! Products of every instruction set against plain sums, and packing against ggml's own meaning of its blocks.

use std::borrow::Cow;

use candle_core::{
    CpuStorage, Device, Tensor,
    quantized::{GgmlDType, QTensor},
};

use super::{
    pack::{dequantize, pack, quantize},
    *,
};

/// Numbers in about the shape of a bell around zero.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next() + next() + next()).collect()
}

fn matrix(format: BlockFormat, n_out: usize, n_in: usize) -> QuantizedMatrix {
    let weights = numbers(n_out * n_in, 7);
    let n_bytes = packed_bytes(format, n_out, n_in).unwrap();
    let bytes = PackedBytes::filled(n_bytes, |bytes| quantize(format, n_in, &weights, bytes)).unwrap();
    QuantizedMatrix::new(format, n_out, n_in, bytes).unwrap()
}

fn multiplied(instructions: Instructions, matrix: &QuantizedMatrix, x: &Activations) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.n_rows() * matrix.n_out()];
    multiply(instructions, x, &mut [(matrix, &mut out)]);
    out
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

fn ggml_type(format: BlockFormat) -> GgmlDType {
    match format {
        BlockFormat::Q4_0 => GgmlDType::Q4_0,
        BlockFormat::Q4_1 => GgmlDType::Q4_1,
        BlockFormat::Q5_0 => GgmlDType::Q5_0,
        BlockFormat::Q5_1 => GgmlDType::Q5_1,
        BlockFormat::Q8_0 => GgmlDType::Q8_0,
        BlockFormat::Q2K => GgmlDType::Q2K,
        BlockFormat::Q3K => GgmlDType::Q3K,
        BlockFormat::Q4K => GgmlDType::Q4K,
        BlockFormat::Q5K => GgmlDType::Q5K,
        BlockFormat::Q6K => GgmlDType::Q6K,
    }
}

/// Where in a block the f16 are.
fn half_places(format: BlockFormat) -> &'static [usize] {
    match format {
        BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => &[0],
        BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
        BlockFormat::Q2K => &[80, 82],
        BlockFormat::Q3K => &[108],
        BlockFormat::Q6K => &[208],
    }
}

/// The blocks of ggml for `rows`, as candle makes them.
fn quantized_blocks(format: BlockFormat, rows: &[f32]) -> Vec<u8> {
    let tensor = Tensor::from_slice(rows, rows.len(), &Device::Cpu).unwrap();
    QTensor::quantize(&tensor, ggml_type(format)).unwrap().data().unwrap().into_owned()
}

/// Blocks of any bits, with any finite scales.
fn random_blocks(format: BlockFormat, n_numbers: usize, seed: u64) -> Vec<u8> {
    let n_bytes = n_numbers / format.columns() * format.block_bytes();
    // The bits between the first eight and the last ones have no pattern.
    let mut blocks: Vec<u8> = numbers(n_bytes, seed).iter().map(|number| (number.to_bits() >> 7) as u8).collect();
    for block in blocks.chunks_exact_mut(format.block_bytes()) {
        for place in half_places(format) {
            // Of any sign, and below two.
            block[place + 1] &= 0xbb;
        }
    }
    blocks
}

/// What candle takes the blocks for.
fn meant(format: BlockFormat, blocks: &[u8]) -> Vec<f32> {
    let n_numbers = blocks.len() / format.block_bytes() * format.columns();
    match ggml_type(format).from_data(Cow::Borrowed(blocks)).dequantize(n_numbers).unwrap() {
        CpuStorage::F32(numbers) => numbers,
        _ => unreachable!("dequantised numbers are singles"),
    }
}

fn packed(format: BlockFormat, n_in: usize, blocks: &[u8]) -> QuantizedMatrix {
    let n_out = blocks.len() / (n_in / format.columns() * format.block_bytes());
    let n_bytes = packed_bytes(format, n_out, n_in).unwrap();
    let bytes = PackedBytes::filled(n_bytes, |bytes| pack(format, n_in, blocks, bytes)).unwrap();
    QuantizedMatrix::new(format, n_out, n_in, bytes).unwrap()
}

#[test]
fn packed_tiles_mean_what_the_blocks_meant() {
    for format in BlockFormat::ALL {
        for (n_rows, n_in) in [(1, 256), (16, 512), (37, 768), (33, 13_824)] {
            let made = quantized_blocks(format, &numbers(n_rows * n_in, 3));
            for blocks in [made, random_blocks(format, n_rows * n_in, 3)] {
                let mut packed = vec![0xff; packed_bytes(format, n_rows, n_in).unwrap()];
                pack(format, n_in, &blocks, &mut packed).unwrap();
                let mut unpacked = vec![f32::NAN; n_rows * n_in];
                dequantize(format, n_in, &packed, &mut unpacked).unwrap();
                assert!(bits(&unpacked) == bits(&meant(format, &blocks)), "{format:?} {n_rows} {n_in}");
            }
        }
    }
}

#[test]
fn tiles_packed_one_by_one_are_those_packed_together() {
    for format in BlockFormat::ALL {
        let (n_rows, n_in) = (53, 512);
        let rows = numbers(n_rows * n_in, 4);
        let mut together = vec![0; packed_bytes(format, n_rows, n_in).unwrap()];
        quantize(format, n_in, &rows, &mut together).unwrap();
        let mut apart = vec![0; together.len()];
        let tiles = apart.chunks_mut(2 * format.tile_bytes(n_in));
        for (rows, tiles) in rows.chunks(2 * TILE_ROWS * n_in).zip(tiles) {
            quantize(format, n_in, rows, tiles).unwrap();
        }
        assert!(together == apart, "{format:?}");
    }
}

#[test]
fn packed_matrices_are_hardly_larger_than_their_blocks() {
    for format in BlockFormat::ALL {
        let (n_out, n_in) = (13_824, 5120);
        let blocks = n_out * n_in / format.columns() * format.block_bytes();
        assert_eq!(packed_bytes(format, n_out, n_in).unwrap(), blocks, "{format:?}");
    }
}

#[test]
fn products_are_those_of_plain_sums() {
    let shapes = [(1, 256), (40, 512), (23, 5120), (17, 5632), (16, 13_824)];
    for format in BlockFormat::ALL {
        for (n_out, n_in) in shapes {
            let made = quantized_blocks(format, &numbers(n_out * n_in, 7));
            for blocks in [made, random_blocks(format, n_out * n_in, 7)] {
                let (matrix, weights) = (packed(format, n_in, &blocks), meant(format, &blocks));
                for n_rows in [1, 2, 3, 4, 5, 6, 7, 8, 33] {
                    let x = Activations::new(&numbers(n_rows * n_in, 9), n_in);
                    for instructions in Instructions::all() {
                        let out = multiplied(instructions, &matrix, &x);
                        check(&out, &x.rounded(), &weights, n_in, &format!("{} {format:?}", instructions.name()));
                    }
                }
            }
        }
    }
}

/// Every product within what rounding of as many sums as there are units can do.
fn check(out: &[f32], x: &[f32], weights: &[f32], n_in: usize, what: &str) {
    let n_out = weights.len() / n_in;
    for (index, product) in out.iter().enumerate() {
        let (row, column) = (index / n_out, index % n_out);
        let pairs = x[row * n_in..(row + 1) * n_in].iter().zip(&weights[column * n_in..(column + 1) * n_in]);
        let terms = pairs.map(|(x, weight)| f64::from(*x) * f64::from(*weight));
        let (sum, magnitude) = terms.fold((0.0, 0.0), |(sum, all), term| (sum + term, all + term.abs()));
        let allowed = magnitude * 2e-6;
        assert!(
            (sum - f64::from(*product)).abs() <= allowed,
            "{what} {n_in} row {row} column {column}: {product} {sum}"
        );
    }
}

#[test]
fn the_largest_numbers_overflow_nothing() {
    let n_in = 512;
    for format in BlockFormat::ALL {
        // Blocks of all quants, scales and minima at their extremes, beside rows of x at theirs.
        for fill in [0x00, 0x7f, 0x80, 0xff] {
            let mut blocks = vec![fill; 16 * n_in / format.columns() * format.block_bytes()];
            for block in blocks.chunks_exact_mut(format.block_bytes()) {
                for place in half_places(format) {
                    block[*place..place + 2].copy_from_slice(&half::f16::from_f32(0.01).to_le_bytes());
                }
            }
            for signs in [[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]] {
                check_extremes(format, n_in, &blocks, signs);
            }
        }
    }
}

#[test]
fn quants_of_minus_128_and_127_beside_each_other_overflow_nothing() {
    let n_in = 512;
    let pairs = [[0x80, 0x80], [0x7f, 0x7f], [0x80, 0x7f], [0x7f, 0x80]];
    for signs in [[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]] {
        let mut blocks = Vec::new();
        // One pair a row, as what two of them lose could cancel.
        for row in 0..16 {
            let block = [&half::f16::from_f32(0.01).to_le_bytes()[..], &pairs[row % 4].repeat(16)].concat();
            blocks.extend(block.repeat(n_in / 32));
        }
        check_extremes(BlockFormat::Q8_0, n_in, &blocks, signs);
    }
}

/// Whole sums, where nothing but the floats' own rounding may be lost: x is 127 in steps, of both signs in turn.
fn check_extremes(format: BlockFormat, n_in: usize, blocks: &[u8], signs: [f32; 2]) {
    let (matrix, weights) = (packed(format, n_in, blocks), meant(format, blocks));
    let x = Activations::new(&signs.repeat(5 * n_in / 2), n_in);
    for instructions in Instructions::all() {
        let out = multiplied(instructions, &matrix, &x);
        check(&out, &x.rounded(), &weights, n_in, &format!("{} {format:?} {signs:?}", instructions.name()));
    }
}

#[test]
fn blocks_of_32_take_columns_in_multiples_of_32() {
    for format in BlockFormat::ALL.into_iter().filter(|format| format.columns() == 32) {
        for n_in in [32, 96, 160] {
            let blocks = random_blocks(format, 19 * n_in, 7);
            let x = Activations::new(&numbers(3 * n_in, 9), n_in);
            for instructions in Instructions::all() {
                let out = multiplied(instructions, &packed(format, n_in, &blocks), &x);
                let what = format!("{} {format:?}", instructions.name());
                check(&out, &x.rounded(), &meant(format, &blocks), n_in, &what);
            }
        }
    }
}

#[test]
fn a_rows_bits_depend_on_no_other_row_range_or_thread() {
    let (n_out, n_in, n_rows) = (16 * 24 + 5, 1024, 21);
    let x = numbers(n_rows * n_in, 1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for format in BlockFormat::ALL {
        let matrix = matrix(format, n_out, n_in);
        for instructions in Instructions::all() {
            let together = pool.install(|| multiplied(instructions, &matrix, &Activations::new(&x, n_in)));
            for (row, together) in x.chunks_exact(n_in).zip(together.chunks_exact(n_out)) {
                let row = Activations::new(row, n_in);
                let mut alone = vec![f32::NAN; n_out];
                for (tile, out) in alone.chunks_mut(TILE_ROWS).enumerate() {
                    matrix.products(instructions, &row, tile..tile + 1, &mut [out]);
                }
                assert_eq!(bits(together), bits(&alone), "{} {format:?}", instructions.name());
            }
        }
    }
}

#[test]
fn several_matrices_at_once_give_the_products_of_each() {
    let x = Activations::new(&numbers(5 * 512, 2), 512);
    let n_outs = [300, 1, 777, 16, 17, 20, 33, 100, 15, 48];
    let matrices: [_; 10] = std::array::from_fn(|index| matrix(BlockFormat::ALL[index], n_outs[index], 512));
    let alone = matrices.each_ref().map(|matrix| multiplied(Instructions::detect(), matrix, &x));
    let mut together = alone.each_ref().map(|out| vec![f32::NAN; out.len()]);
    let mut targets: Vec<_> = matrices.iter().zip(&mut together).map(|(matrix, out)| (matrix, &mut out[..])).collect();
    multiply(Instructions::detect(), &x, &mut targets);
    assert_eq!(together, alone);
}

#[test]
fn rounding_moves_a_number_by_half_a_step_at_most() {
    let n_in = 320;
    let numbers = numbers(11 * n_in, 5);
    let rounded = Activations::new(&numbers, n_in).rounded();
    for (numbers, rounded) in numbers.chunks_exact(32).zip(rounded.chunks_exact(32)) {
        let largest = numbers.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
        for (number, rounded) in numbers.iter().zip(rounded) {
            assert!((number - rounded).abs() <= largest / 127.0 * 0.5001, "{number} {rounded}");
        }
    }
}

#[test]
fn a_number_that_is_not_finite_shows_in_all_products_of_its_row_alone() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = numbers(3 * 256, 6);
        x[256 + 40] = bad;
        for format in BlockFormat::ALL {
            let matrix = matrix(format, 20, 256);
            for instructions in Instructions::all() {
                let out = multiplied(instructions, &matrix, &Activations::new(&x, 256));
                for (row, out) in out.chunks_exact(20).enumerate() {
                    assert!(out.iter().all(|product| product.is_nan() == (row == 1)), "{format:?} {bad} {row}");
                }
            }
        }
    }
}

#[test]
fn rows_of_zeros_and_of_next_to_nothing_give_zeros() {
    for format in BlockFormat::ALL {
        let matrix = matrix(format, 20, 256);
        for number in [0.0, -0.0, 1e-38, -1e-44] {
            let x = Activations::new(&vec![number; 2 * 256], 256);
            for instructions in Instructions::all() {
                assert!(multiplied(instructions, &matrix, &x).iter().all(|product| *product == 0.0), "{format:?}");
            }
        }
    }
}

#[test]
fn what_fits_no_blocks_is_refused() {
    for (format, n_in) in
        [(BlockFormat::Q8_0, 48), (BlockFormat::Q4K, 128), (BlockFormat::Q6K, 0), (BlockFormat::Q8_0, usize::MAX - 31)]
    {
        assert!(matches!(packed_bytes(format, 16, n_in), Err(QuantizedError::Shape { .. })), "{format:?} {n_in}");
    }
    assert!(packed_bytes(BlockFormat::Q8_0, usize::MAX, 1 << 20).is_err());
}

#[test]
fn bytes_of_another_length_are_refused() {
    let bytes = PackedBytes::shared(Arc::new(vec![0; 100]), 0..100).unwrap();
    let error = QuantizedMatrix::new(BlockFormat::Q4K, 16, 256, bytes).unwrap_err();
    assert_eq!(error, QuantizedError::Length { found: 100, expected: 2304 });
    assert!(PackedBytes::shared(Arc::new(vec![0; 100]), 50..101).is_none());
    assert!(pack(BlockFormat::Q8_0, 32, &[0; 33], &mut []).is_err());
    assert!(pack(BlockFormat::Q8_0, 32, &[0; 34], &mut [0; 100]).is_err());
    assert!(dequantize(BlockFormat::Q8_0, 32, &[0; 100], &mut [0.0; 32]).is_err());
}

#[test]
fn scales_that_are_no_numbers_are_refused_with_their_row() {
    for format in BlockFormat::ALL {
        for place in half_places(format) {
            for bad in [0x7c, 0x7e, 0xfc, 0xff] {
                let row_bytes = 256 / format.columns() * format.block_bytes();
                let mut blocks = vec![0; 20 * row_bytes];
                // In the last block of the row.
                blocks[19 * row_bytes - format.block_bytes() + place + 1] = bad;
                let mut packed = vec![0; packed_bytes(format, 20, 256).unwrap()];
                let error = pack(format, 256, &blocks, &mut packed).unwrap_err();
                assert_eq!(error, QuantizedError::Scale { row: 18 }, "{format:?} {place}");
            }
        }
    }
    let mut rows = numbers(20 * 256, 8);
    rows[17 * 256 + 3] = f32::NAN;
    let mut packed = vec![0; packed_bytes(BlockFormat::Q4K, 20, 256).unwrap()];
    assert_eq!(quantize(BlockFormat::Q4K, 256, &rows, &mut packed), Err(QuantizedError::Scale { row: 17 }));
}
