//! Dot products whose order of summation depends on nothing but their length.
//!
//! Each product of a row of x and a row of w is summed in eight lanes, lane l taking elements l, l + 8, l + 16, …, the
//! lanes then in a fixed tree, the rest one by one. How many rows are computed beside each other only decides how often
//! memory is read, never the bits.

#![expect(unsafe_code, reason = "vector instructions that are there only on some machines")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps};

/// Lanes of one sum.
const LANES: usize = 8;

/// Which instructions this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Eight lanes with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2Fma,
    /// Whatever the compiler makes of plain code.
    Portable,
}

impl Kernel {
    /// The best that this machine has.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            return Self::Avx2Fma;
        }
        Self::Portable
    }

    /// `out[r][c] = x[r] · w[c]`, for x of shape (rows, k), w of shape (columns, k), out of shape (rows, columns), all
    /// row-major.
    pub(super) fn products(self, x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
        let n_columns = w.len() / k;
        debug_assert_eq!(out.len(), x.len() / k * n_columns);
        let mut quads = x.chunks_exact(4 * k);
        let mut out_quads = out.chunks_exact_mut(4 * n_columns);
        for (quad, out) in quads.by_ref().zip(out_quads.by_ref()) {
            let (first, rest) = quad.split_at(k);
            let (second, rest) = rest.split_at(k);
            let (third, fourth) = rest.split_at(k);
            self.columns::<4, 3>([first, second, third, fourth], w, k, out);
        }
        let rest = quads.remainder().chunks_exact(k);
        for (row, out) in rest.zip(out_quads.into_remainder().chunks_exact_mut(n_columns)) {
            self.columns::<1, 8>([row], w, k, out);
        }
    }

    /// `out[j] += sum over i of weights[i] * values[i][j]`, i ascending; values of shape (weights, out).
    pub(super) fn accumulate(self, weights: &[f32], values: &[f32], out: &mut [f32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` made this value only where the machine has the instructions.
            Self::Avx2Fma => unsafe { accumulate_avx2(weights, values, out) },
            Self::Portable => accumulate(weights, values, out, |a, b, sum| a * b + sum),
        }
    }

    /// R rows of x with all columns, C columns at a time; out of shape (R, columns).
    fn columns<const R: usize, const C: usize>(self, x: [&[f32]; R], w: &[f32], k: usize, out: &mut [f32]) {
        let n_columns = w.len() / k;
        let mut column = 0;
        let mut groups = w.chunks_exact(C * k);
        for group in groups.by_ref() {
            let mut columns = [group; C];
            for (c, slot) in columns.iter_mut().enumerate() {
                *slot = &group[c * k..(c + 1) * k];
            }
            store(self.tile(x, columns), out, n_columns, column);
            column += C;
        }
        for single in groups.remainder().chunks_exact(k) {
            store(self.tile(x, [single]), out, n_columns, column);
            column += 1;
        }
    }

    fn tile<const R: usize, const C: usize>(self, x: [&[f32]; R], w: [&[f32]; C]) -> [[f32; C]; R] {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` made this value only where the machine has the instructions.
            Self::Avx2Fma => unsafe { tile_avx2(x, w) },
            Self::Portable => tile_portable(x, w),
        }
    }
}

fn store<const R: usize, const C: usize>(tile: [[f32; C]; R], out: &mut [f32], n_columns: usize, column: usize) {
    for (row, values) in out.chunks_exact_mut(n_columns).zip(tile) {
        row[column..column + C].copy_from_slice(&values);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn tile_avx2<const R: usize, const C: usize>(x: [&[f32]; R], w: [&[f32]; C]) -> [[f32; C]; R] {
    let k = x.iter().chain(&w).map(|row| row.len()).min().unwrap_or(0);
    let whole = k / LANES * LANES;
    let mut sums: [[__m256; C]; R] = [[_mm256_setzero_ps(); C]; R];
    let mut at = 0;
    while at < whole {
        let mut columns = [_mm256_setzero_ps(); C];
        for (column, values) in w.iter().zip(&mut columns) {
            // SAFETY: at + 8 <= whole <= the length of every row.
            *values = unsafe { _mm256_loadu_ps(column.as_ptr().add(at)) };
        }
        for (row, sums) in x.iter().zip(&mut sums) {
            // SAFETY: as above.
            let values = unsafe { _mm256_loadu_ps(row.as_ptr().add(at)) };
            for (column, sum) in columns.iter().zip(sums) {
                *sum = _mm256_fmadd_ps(values, *column, *sum);
            }
        }
        at += LANES;
    }
    let mut out = [[0.0; C]; R];
    for r in 0..R {
        for c in 0..C {
            let mut lanes = [0.0; LANES];
            // SAFETY: an array of eight floats is what is stored.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sums[r][c]) };
            out[r][c] = finish(lanes, &x[r][whole..k], &w[c][whole..k], f32::mul_add);
        }
    }
    out
}

fn tile_portable<const R: usize, const C: usize>(x: [&[f32]; R], w: [&[f32]; C]) -> [[f32; C]; R] {
    let mut out = [[0.0; C]; R];
    for (row, out) in x.iter().zip(&mut out) {
        for (column, out) in w.iter().zip(out) {
            let mut lanes = [0.0; LANES];
            let whole = row.len() / LANES * LANES;
            for (a, b) in row.chunks_exact(LANES).zip(column.chunks_exact(LANES)) {
                for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                    *lane += a * b;
                }
            }
            *out = finish(lanes, &row[whole..], &column[whole..], |a, b, sum| a * b + sum);
        }
    }
    out
}

/// The lanes in a fixed tree, then the elements that fill no eight lanes.
#[expect(clippy::inline_always, reason = "its caller's instruction set holds only for what is inlined there")]
#[inline(always)]
fn finish(lanes: [f32; LANES], x: &[f32], w: &[f32], multiply_add: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let [l0, l1, l2, l3, l4, l5, l6, l7] = lanes;
    let sum = ((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7));
    x.iter().zip(w).fold(sum, |sum, (x, w)| multiply_add(*x, *w, sum))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn accumulate_avx2(weights: &[f32], values: &[f32], out: &mut [f32]) {
    accumulate(weights, values, out, f32::mul_add);
}

#[expect(clippy::inline_always, reason = "its caller's instruction set holds only for what is inlined there")]
#[inline(always)]
fn accumulate(weights: &[f32], values: &[f32], out: &mut [f32], multiply_add: impl Fn(f32, f32, f32) -> f32) {
    for (weight, values) in weights.iter().zip(values.chunks_exact(out.len())) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = multiply_add(*weight, *value, *out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
    }

    fn kernels() -> Vec<Kernel> {
        let mut kernels = vec![Kernel::Portable, Kernel::detect()];
        kernels.dedup();
        kernels
    }

    #[test]
    fn products_are_those_of_plain_sums() {
        for kernel in kernels() {
            for (rows, columns, k) in [(1, 1, 1), (1, 9, 8), (5, 7, 37), (4, 3, 256), (9, 11, 100)] {
                let (x, w) = (numbers(rows * k, 1), numbers(columns * k, 2));
                let mut out = vec![f32::NAN; rows * columns];
                kernel.products(&x, &w, k, &mut out);
                for r in 0..rows {
                    for c in 0..columns {
                        let plain: f64 = (0..k).map(|i| f64::from(x[r * k + i]) * f64::from(w[c * k + i])).sum();
                        assert!(
                            (plain - f64::from(out[r * columns + c])).abs() < 1e-4,
                            "{kernel:?} {rows} {columns} {k}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_rows_bits_do_not_depend_on_its_neighbours() {
        for kernel in kernels() {
            let (rows, columns, k) = (11, 13, 83);
            let (x, w) = (numbers(rows * k, 3), numbers(columns * k, 4));
            let mut together = vec![0.0; rows * columns];
            kernel.products(&x, &w, k, &mut together);
            for r in 0..rows {
                for c in 0..columns {
                    let mut alone = [0.0];
                    kernel.products(&x[r * k..(r + 1) * k], &w[c * k..(c + 1) * k], k, &mut alone);
                    assert_eq!(alone[0].to_bits(), together[r * columns + c].to_bits());
                }
            }
        }
    }
}
