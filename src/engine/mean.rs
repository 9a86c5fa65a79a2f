//! Means of measured values with their standard errors, and what lies at a share of them.
//!
//! Knows numbers, not what they measure. Sums are in f64, one value after the other: the same values give the same bits.

use serde::Serialize;

/// A mean on its way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mean {
    n: u64,
    value: f64,
    /// Squares of the distances from the mean, summed.
    squares: f64,
}

/// A mean, and how far it may be off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Of all values; 0 where there are none.
    pub mean: f64,
    /// Standard deviation of the mean, as if the values were independent; `None` for fewer than two.
    pub standard_error: Option<f64>,
}

impl Mean {
    /// Takes one more value in.
    pub fn add(&mut self, value: f64) {
        self.n += 1;
        // Welford's way, which subtracts no large sums from each other.
        let before = value - self.value;
        self.value += before / self.n as f64;
        self.squares += before * (value - self.value);
    }

    /// What has come of them so far.
    #[must_use]
    pub fn estimate(&self) -> Estimate {
        let n = self.n as f64;
        let standard_error = (self.n > 1).then(|| (self.squares / (n - 1.0) / n).sqrt());
        Estimate { mean: self.value, standard_error }
    }
}

/// The value below which a `share` of the sorted `values` lies; 0 where there are none.
#[must_use]
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let index = (values.len().saturating_sub(1) as f64 * share).round() as usize;
    values.get(index).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_comes_with_its_standard_error() {
        let of = |values: &[f64]| {
            let mut mean = Mean::default();
            for value in values {
                mean.add(*value);
            }
            mean.estimate()
        };
        assert_eq!(of(&[]), Estimate { mean: 0.0, standard_error: None });
        assert_eq!(of(&[-3.0]), Estimate { mean: -3.0, standard_error: None });
        // Deviations -1, 0, 1: variance 1, of the mean a third.
        let three = of(&[1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0]);
        assert_eq!(three.mean, 1e9 + 2.0);
        assert!((three.standard_error.unwrap() - (1.0_f64 / 3.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn shares_are_of_the_sorted_values() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| percentile(&values, share)), [0.0, 50.0, 99.0, 100.0]);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
