//! Softmax and `SiLU`, with an exponential function that the compiler can do for eight numbers at once.
//!
//! Each number's bits depend on nothing but the row it is in. A row that holds what is no number becomes none.

#![expect(unsafe_code, reason = "vector instructions that are there only on some machines")]

use super::kernel::Kernel;

/// Lanes of one sum.
const LANES: usize = 8;

/// Numbers to weights that add up to one, `scores` being multiplied by `scale` first.
pub(super) fn softmax(kernel: Kernel, scores: &mut [f32], scale: f32) {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a kernel of this kind is there only where the machine has the instructions.
        Kernel::Avx2Fma => unsafe { softmax_avx2(scores, scale) },
        Kernel::Portable => softmax_with(scores, scale, f32::exp),
    }
}

/// `gate = silu(gate) * up`.
pub(super) fn silu_multiply(kernel: Kernel, gate: &mut [f32], up: &[f32]) {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Kernel::Avx2Fma => unsafe { silu_multiply_avx2(gate, up) },
        Kernel::Portable => silu_multiply_with(gate, up, f32::exp),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn softmax_avx2(scores: &mut [f32], scale: f32) {
    softmax_with(scores, scale, exp);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn silu_multiply_avx2(gate: &mut [f32], up: &[f32]) {
    silu_multiply_with(gate, up, exp);
}

#[expect(clippy::inline_always, reason = "its caller's instruction set holds only for what is inlined there")]
#[inline(always)]
fn softmax_with(scores: &mut [f32], scale: f32, exp: impl Fn(f32) -> f32) {
    let (eights, rest) = scores.as_chunks_mut::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for eight in &mut *eights {
        for (score, largest) in eight.iter_mut().zip(&mut largest) {
            *score *= scale;
            *largest = if *score > *largest { *score } else { *largest };
        }
    }
    let mut most = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    for score in &mut *rest {
        *score *= scale;
        most = most.max(*score);
    }
    let mut sums = [0.0; LANES];
    for eight in &mut *eights {
        for (score, sum) in eight.iter_mut().zip(&mut sums) {
            *score = exp(*score - most);
            *sum += *score;
        }
    }
    let mut sum: f32 = sums.into_iter().sum();
    for score in &mut *rest {
        *score = exp(*score - most);
        sum += *score;
    }
    let share = sum.recip();
    for score in scores {
        *score *= share;
    }
}

#[expect(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn silu_multiply_with(gate: &mut [f32], up: &[f32], exp: impl Fn(f32) -> f32) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// e to the power of x, to about a unit in the last place; beyond ±87 what it is there.
///
/// As Cephes does it: x = n ln 2 + r with |r| at most half of ln 2, and a polynomial for r.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Beside this number a float has no bits below one: the addition rounds and leaves n in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    const LN_2_UPPER: f32 = 355.0 / 512.0;
    const LN_2_LOWER: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 5] = [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_3e-1];
    // Comparisons that let what is no number pass.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 87.0 { 87.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = n.mul_add(-LN_2_LOWER, n.mul_add(-LN_2_UPPER, x));
    let polynomial = COEFFICIENTS.into_iter().fold(1.987_569_1e-4, |sum: f32, c| sum.mul_add(r, c));
    let fraction = polynomial.mul_add(r * r, r + 1.0);
    let exponent = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    fraction * exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels() -> Vec<Kernel> {
        let mut kernels = vec![Kernel::Portable, Kernel::detect()];
        kernels.dedup();
        kernels
    }

    #[test]
    fn weights_are_those_of_double_precision() {
        // What is rounded most are the differences of the scores, which are in the powers.
        for kernel in kernels() {
            for n in [1, 7, 8, 9, 64, 1003] {
                let scores: Vec<f32> = (0..n).map(|i| ((i * 7919) % 2003) as f32 / 20.0 - 50.0).collect();
                let mut weights = scores.clone();
                softmax(kernel, &mut weights, 0.3);
                let powers: Vec<f64> = scores.iter().map(|score| (f64::from(*score) * 0.3).exp()).collect();
                let sum: f64 = powers.iter().sum();
                for (weight, power) in weights.iter().zip(powers) {
                    assert!((f64::from(*weight) - power / sum).abs() <= 4e-6 * (power / sum) + 1e-30, "{kernel:?} {n}");
                }
            }
        }
    }

    #[test]
    fn gates_are_those_of_double_precision() {
        for kernel in kernels() {
            let gates: Vec<f32> = (-2000..2000).map(|i| i as f32 / 13.0).collect();
            let ups = vec![2.0; gates.len()];
            let mut out = gates.clone();
            silu_multiply(kernel, &mut out, &ups);
            for (out, gate) in out.iter().zip(gates) {
                let gate = f64::from(gate);
                let expected = 2.0 * gate / (1.0 + (-gate).exp());
                assert!((f64::from(*out) - expected).abs() <= 1e-6 * expected.abs() + 1e-30, "{kernel:?} {gate} {out}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for kernel in kernels() {
            for at in [0, 9, 16] {
                let mut scores = vec![1.0; 17];
                scores[at] = f32::NAN;
                softmax(kernel, &mut scores, 1.0);
                assert!(scores.iter().all(|weight| weight.is_nan()), "{kernel:?} {at}");
                let mut gates = vec![1.0; 17];
                gates[at] = f32::NAN;
                silu_multiply(kernel, &mut gates, &[1.0; 17]);
                assert!(gates[at].is_nan(), "{kernel:?} {at}");
            }
        }
    }
}
