//! Dot products whose order of summation depends on nothing but their length.
//!
//! Each product of a row of x and a row of w is summed in eight lanes, lane l taking elements l, l + 8, l + 16, …, the
//! lanes then in a fixed tree, the rest one by one. How many rows are computed beside each other only decides how often
//! memory is read, never the bits. What w holds is widened to singles in registers, exactly, so that its number type does
//! not change the bits either.

#![expect(unsafe_code, reason = "vector instructions that are there only on some machines")]

pub(super) mod element;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, _MM_HINT_T1, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm_prefetch,
    _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_storeu_ps,
};

use element::Element;

/// Lanes of one sum.
const LANES: usize = 8;
/// Rows of w that all rows of x meet before the next ones are read: with k = 2048 they are 192 KiB, which stays in a core's
/// cache. Whole groups of the three and of the eight that a tile takes.
const PANEL: usize = 24;

/// Which instructions this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Eight lanes with fused multiply-add and conversion from half precision.
    #[cfg(target_arch = "x86_64")]
    Avx2Fma,
    /// Whatever the compiler makes of plain code.
    Portable,
}

impl Kernel {
    /// The best that this machine has.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("fma")
            && std::is_x86_feature_detected!("f16c")
        {
            return Self::Avx2Fma;
        }
        Self::Portable
    }

    /// `out[r][c] = x[r] · w[c]`, for x of shape (rows, k), w of shape (columns, k), out of shape (rows, columns), all
    /// row-major.
    pub(super) fn products<W: Element>(self, x: &[f32], w: &[W], k: usize, out: &mut [f32]) {
        let n_columns = w.len() / k;
        debug_assert_eq!(out.len(), x.len() / k * n_columns);
        for (panel, column) in w.chunks(PANEL * k).zip((0..).step_by(PANEL)) {
            let mut quads = x.chunks_exact(4 * k);
            let mut out_quads = out.chunks_exact_mut(4 * n_columns);
            for (quad, out) in quads.by_ref().zip(out_quads.by_ref()) {
                let (first, rest) = quad.split_at(k);
                let (second, rest) = rest.split_at(k);
                let (third, fourth) = rest.split_at(k);
                self.columns::<W, 4, 3>([first, second, third, fourth], panel, out, n_columns, column);
            }
            let rest = quads.remainder().chunks_exact(k);
            for (row, out) in rest.zip(out_quads.into_remainder().chunks_exact_mut(n_columns)) {
                self.columns::<W, 1, 8>([row], panel, out, n_columns, column);
            }
        }
    }

    /// `out[j] += sum over i of weights[i] * values[i][j]`, i ascending; values of shape (weights, out).
    pub(super) fn accumulate<V: Element>(self, weights: &[f32], values: &[V], out: &mut [f32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` made this value only where the machine has the instructions.
            Self::Avx2Fma => unsafe { accumulate_avx2(weights, values, out) },
            Self::Portable => accumulate(weights, values, out),
        }
    }

    /// R rows of x with all of `w`, C at a time; into out of shape (R, `n_columns`) from `column` on.
    fn columns<W: Element, const R: usize, const C: usize>(
        self,
        x: [&[f32]; R],
        w: &[W],
        out: &mut [f32],
        n_columns: usize,
        mut column: usize,
    ) {
        let k = x[0].len();
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

    fn tile<W: Element, const R: usize, const C: usize>(self, x: [&[f32]; R], w: [&[W]; C]) -> [[f32; C]; R] {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` made this value only where the machine has the instructions.
            Self::Avx2Fma => unsafe { tile_avx2(x, w) },
            Self::Portable => tile_portable(x, w),
        }
    }
}

/// Asks for memory that will be read soon.
pub(super) fn prefetch<T>(soon: &[T]) {
    const LINE: usize = 64;
    #[cfg(target_arch = "x86_64")]
    for line in soon.chunks(LINE / size_of::<T>()) {
        // SAFETY: every machine of this kind has the instruction, and it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}

fn store<const R: usize, const C: usize>(tile: [[f32; C]; R], out: &mut [f32], n_columns: usize, column: usize) {
    for (row, values) in out.chunks_exact_mut(n_columns).zip(tile) {
        row[column..column + C].copy_from_slice(&values);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn tile_avx2<W: Element, const R: usize, const C: usize>(x: [&[f32]; R], w: [&[W]; C]) -> [[f32; C]; R] {
    let k = x.iter().map(|row| row.len()).chain(w.iter().map(|row| row.len())).min().unwrap_or(0);
    let whole = k / LANES * LANES;
    let mut sums: [[__m256; C]; R] = [[_mm256_setzero_ps(); C]; R];
    let mut at = 0;
    while at < whole {
        let mut columns = [_mm256_setzero_ps(); C];
        for (column, values) in w.iter().zip(&mut columns) {
            // SAFETY: at + 8 <= whole <= the length of every row; the instructions are there where this function is called.
            *values = unsafe { W::widen_eight(column.as_ptr().add(at)) };
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
            out[r][c] = finish(sum_of_lanes(sums[r][c]), &x[r][whole..k], &w[c][whole..k], f32::mul_add);
        }
    }
    out
}

/// The same tree as [`tree`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_of_lanes(lanes: __m256) -> f32 {
    let fours = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let twos = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
    _mm_cvtss_f32(_mm_add_ss(twos, _mm_movehdup_ps(twos)))
}

fn tile_portable<W: Element, const R: usize, const C: usize>(x: [&[f32]; R], w: [&[W]; C]) -> [[f32; C]; R] {
    let mut out = [[0.0; C]; R];
    for (row, out) in x.iter().zip(&mut out) {
        for (column, out) in w.iter().zip(out) {
            let mut lanes = [0.0; LANES];
            let whole = row.len() / LANES * LANES;
            for (a, b) in row.chunks_exact(LANES).zip(column.chunks_exact(LANES)) {
                for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                    *lane += a * b.widen();
                }
            }
            *out = finish(tree(lanes), &row[whole..], &column[whole..], |a, b, sum| a * b + sum);
        }
    }
    out
}

/// The lanes' sum, always in this order.
fn tree(lanes: [f32; LANES]) -> f32 {
    let [l0, l1, l2, l3, l4, l5, l6, l7] = lanes;
    ((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7))
}

/// The lanes' sum with the elements that fill no eight lanes.
#[expect(clippy::inline_always, reason = "its caller's instruction set holds only for what is inlined there")]
#[inline(always)]
fn finish<W: Element>(sum: f32, x: &[f32], w: &[W], multiply_add: impl Fn(f32, f32, f32) -> f32) -> f32 {
    x.iter().zip(w).fold(sum, |sum, (x, w)| multiply_add(*x, w.widen(), sum))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn accumulate_avx2<V: Element>(weights: &[f32], values: &[V], out: &mut [f32]) {
    let width = out.len();
    let mut parts = out.chunks_exact_mut(8 * LANES);
    let mut column = 0;
    for part in parts.by_ref() {
        accumulate_part::<V, 8>(weights, values, width, column, part);
        column += part.len();
    }
    let mut parts = parts.into_remainder().chunks_exact_mut(LANES);
    for part in parts.by_ref() {
        accumulate_part::<V, 1>(weights, values, width, column, part);
        column += part.len();
    }
    for out in parts.into_remainder() {
        for (weight, values) in weights.iter().zip(values.chunks_exact(width)) {
            *out = weight.mul_add(values[column].widen(), *out);
        }
        column += 1;
    }
}

/// The same for 8 N columns from `column` on, held in registers meanwhile.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn accumulate_part<V: Element, const N: usize>(
    weights: &[f32],
    values: &[V],
    width: usize,
    column: usize,
    out: &mut [f32],
) {
    let mut sums = [_mm256_setzero_ps(); N];
    for (sum, out) in sums.iter_mut().zip(out.chunks_exact(LANES)) {
        // SAFETY: a chunk has eight floats.
        *sum = unsafe { _mm256_loadu_ps(out.as_ptr()) };
    }
    for (weight, values) in weights.iter().zip(values.chunks_exact(width)) {
        let weight = _mm256_set1_ps(*weight);
        for (sum, values) in sums.iter_mut().zip(values[column..].chunks_exact(LANES)) {
            // SAFETY: as above, and the instructions are there where this function is called.
            *sum = _mm256_fmadd_ps(weight, unsafe { V::widen_eight(values.as_ptr()) }, *sum);
        }
    }
    for (sum, out) in sums.iter().zip(out.chunks_exact_mut(LANES)) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *sum) };
    }
}

fn accumulate<V: Element>(weights: &[f32], values: &[V], out: &mut [f32]) {
    for (weight, values) in weights.iter().zip(values.chunks_exact(out.len())) {
        for (out, value) in out.iter_mut().zip(values) {
            *out += weight * value.widen();
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

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
    fn what_weights_are_held_in_does_not_change_the_bits() {
        fn check<W: Element>(kernel: Kernel, w: &[W]) {
            let (k, rows) = (37, 5);
            let (x, widened) = (numbers(rows * k, 8), w.iter().map(|w| w.widen()).collect::<Vec<_>>());
            let n_columns = w.len() / k;
            let mut products = [vec![0.0; rows * n_columns], vec![0.0; rows * n_columns]];
            kernel.products(&x, w, k, &mut products[0]);
            kernel.products(&x, &widened, k, &mut products[1]);
            assert_eq!(products[0], products[1]);
            let weights = numbers(n_columns, 9);
            let mut sums = [vec![0.0; k], vec![0.0; k]];
            kernel.accumulate(&weights, w, &mut sums[0]);
            kernel.accumulate(&weights, &widened, &mut sums[1]);
            assert_eq!(sums[0], sums[1]);
        }
        for kernel in kernels() {
            let w = numbers(11 * 37, 2);
            check(kernel, &w.iter().map(|w| bf16::from_f32(*w)).collect::<Vec<_>>());
            check(kernel, &w.iter().map(|w| f16::from_f32(*w)).collect::<Vec<_>>());
            check(kernel, &w.iter().map(|w| (w * 127.0) as i8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn sums_of_weighted_rows_are_added_in_order() {
        for kernel in kernels() {
            for (n, width) in [(1, 1), (16, 64), (5, 64 + 8 + 3), (16, 128), (7, 40)] {
                let (weights, values) = (numbers(n, 5), numbers(n * width, 6));
                let mut out = numbers(width, 7);
                let plain: Vec<f64> = (0..width)
                    .map(|j| {
                        f64::from(out[j])
                            + (0..n).map(|i| f64::from(weights[i]) * f64::from(values[i * width + j])).sum::<f64>()
                    })
                    .collect();
                let mut in_two = out.clone();
                kernel.accumulate(&weights, &values, &mut out);
                for (sum, plain) in out.iter().zip(plain) {
                    assert!((plain - f64::from(*sum)).abs() < 1e-5, "{kernel:?} {n} {width}");
                }
                let (first, rest) = (n / 2, n - n / 2);
                kernel.accumulate(&weights[..first], &values[..first * width], &mut in_two);
                kernel.accumulate(&weights[n - rest..], &values[first * width..], &mut in_two);
                assert_eq!(
                    out.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                    in_two.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                );
            }
        }
    }

    #[test]
    fn a_rows_bits_do_not_depend_on_its_neighbours() {
        for kernel in kernels() {
            let (rows, columns, k) = (11, 61, 83);
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
