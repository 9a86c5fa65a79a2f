//! Products of every instruction set against plain sums, and packing against ggml's own meaning of its blocks.

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor},
};

use super::{
    pack::{dequantize, pack, quantize},
    *,
};

const FORMATS: [BlockFormat; 3] = [BlockFormat::Q8_0, BlockFormat::Q4K, BlockFormat::Q6K];

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

/// The blocks of ggml for `rows`, as candle makes them, and what they mean.
fn blocks(format: BlockFormat, rows: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let dtype = match format {
        BlockFormat::Q8_0 => GgmlDType::Q8_0,
        BlockFormat::Q4K => GgmlDType::Q4K,
        BlockFormat::Q6K => GgmlDType::Q6K,
    };
    let tensor = Tensor::from_slice(rows, rows.len(), &Device::Cpu).unwrap();
    let quantized = QTensor::quantize(&tensor, dtype).unwrap();
    let meant = quantized.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap();
    (quantized.data().unwrap().into_owned(), meant)
}

#[test]
fn packed_tiles_mean_what_the_blocks_meant() {
    for format in FORMATS {
        for (n_rows, n_in) in [(1, 256), (16, 512), (37, 768), (33, 13_824)] {
            let (blocks, meant) = blocks(format, &numbers(n_rows * n_in, 3));
            let mut packed = vec![0xff; packed_bytes(format, n_rows, n_in).unwrap()];
            pack(format, n_in, &blocks, &mut packed).unwrap();
            let mut unpacked = vec![f32::NAN; n_rows * n_in];
            dequantize(format, n_in, &packed, &mut unpacked).unwrap();
            assert_eq!(bits(&unpacked), bits(&meant), "{format:?} {n_rows} {n_in}");
        }
    }
}

#[test]
fn tiles_packed_one_by_one_are_those_packed_together() {
    for format in FORMATS {
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
    for format in FORMATS {
        let (n_out, n_in) = (13_824, 5120);
        let blocks = n_out * n_in / format.columns() * format.block_bytes();
        assert_eq!(packed_bytes(format, n_out, n_in).unwrap(), blocks, "{format:?}");
    }
}

#[test]
fn products_are_those_of_plain_sums() {
    let shapes = [(1, 256), (40, 512), (23, 5120), (17, 5632), (16, 13_824)];
    for format in FORMATS {
        for (n_out, n_in) in shapes {
            let matrix = matrix(format, n_out, n_in);
            let mut weights = vec![0.0; n_out * n_in];
            dequantize(format, n_in, matrix.bytes(), &mut weights).unwrap();
            for n_rows in [1, 2, 3, 4, 5, 8, 33] {
                let x = Activations::new(&numbers(n_rows * n_in, 9), n_in);
                for instructions in Instructions::all() {
                    let out = multiplied(instructions, &matrix, &x);
                    check(&out, &x.rounded(), &weights, n_in, &format!("{} {format:?}", instructions.name()));
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
    for format in FORMATS {
        // Blocks of all quants, scales and minima at their extremes, beside rows of x at theirs.
        for fill in [0x00, 0x7f, 0x80, 0xff] {
            let mut blocks = vec![fill; 16 * n_in / format.columns() * format.block_bytes()];
            for block in blocks.chunks_exact_mut(format.block_bytes()) {
                let d = half::f16::from_f32(0.01).to_le_bytes();
                match format {
                    BlockFormat::Q8_0 => block[..2].copy_from_slice(&d),
                    BlockFormat::Q4K => block[..4].copy_from_slice(&[d, d].concat()),
                    BlockFormat::Q6K => block[208..].copy_from_slice(&d),
                }
            }
            let mut packed = vec![0; packed_bytes(format, 16, n_in).unwrap()];
            pack(format, n_in, &blocks, &mut packed).unwrap();
            let mut weights = vec![0.0; 16 * n_in];
            dequantize(format, n_in, &packed, &mut weights).unwrap();
            let bytes = PackedBytes::shared(Arc::new(packed.clone()), 0..packed.len()).unwrap();
            let matrix = QuantizedMatrix::new(format, 16, n_in, bytes).unwrap();
            for number in [1.0, -1.0] {
                let x = Activations::new(&vec![number; 5 * n_in], n_in);
                for instructions in Instructions::all() {
                    let out = multiplied(instructions, &matrix, &x);
                    check(&out, &x.rounded(), &weights, n_in, &format!("{} {format:?} {fill}", instructions.name()));
                }
            }
        }
    }
}

#[test]
fn q8_0_takes_columns_in_multiples_of_32() {
    for n_in in [32, 96, 160] {
        let matrix = matrix(BlockFormat::Q8_0, 19, n_in);
        let mut weights = vec![0.0; 19 * n_in];
        dequantize(BlockFormat::Q8_0, n_in, matrix.bytes(), &mut weights).unwrap();
        let x = Activations::new(&numbers(3 * n_in, 9), n_in);
        for instructions in Instructions::all() {
            check(&multiplied(instructions, &matrix, &x), &x.rounded(), &weights, n_in, instructions.name());
        }
    }
}

#[test]
fn a_rows_bits_depend_on_no_other_row_range_or_thread() {
    let (n_out, n_in, n_rows) = (16 * 24 + 5, 1024, 21);
    let x = numbers(n_rows * n_in, 1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for format in FORMATS {
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
    let matrices = [(BlockFormat::Q8_0, 300), (BlockFormat::Q4K, 1), (BlockFormat::Q6K, 777)]
        .map(|(format, n_out)| matrix(format, n_out, 512));
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
        for format in FORMATS {
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
    for format in FORMATS {
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
    for (format, places) in [(BlockFormat::Q8_0, &[1][..]), (BlockFormat::Q4K, &[1, 3]), (BlockFormat::Q6K, &[209])] {
        for place in places {
            for bad in [0x7c, 0x7e, 0xfc, 0xff] {
                let row_bytes = 256 / format.columns() * format.block_bytes();
                let mut blocks = vec![0; 20 * row_bytes];
                blocks[18 * row_bytes + place] = bad;
                let mut packed = vec![0; packed_bytes(format, 20, 256).unwrap()];
                let error = pack(format, 256, &blocks, &mut packed).unwrap_err();
                assert_eq!(error, QuantizedError::Scale { row: 18 });
            }
        }
    }
    let mut rows = numbers(20 * 256, 8);
    rows[17 * 256 + 3] = f32::NAN;
    let mut packed = vec![0; packed_bytes(BlockFormat::Q4K, 20, 256).unwrap()];
    assert_eq!(quantize(BlockFormat::Q4K, 256, &rows, &mut packed), Err(QuantizedError::Scale { row: 17 }));
}
