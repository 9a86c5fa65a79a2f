//! What the logits at one position say: a token's log-probability, the likeliest tokens, the distance from another
//! distribution.
//!
//! Knows one position at a time, and nothing of text. Logits are in f32, what is made of them in f64 until it is kept.

use crate::engine::sampling::{self, SamplingError};

/// More tokens than these are not listed one by one.
pub const MOST_LISTED: usize = 1000;

/// The unmodified distribution of logits.
#[derive(Debug)]
pub struct Distribution<'l> {
    logits: &'l [f32],
    log_mass: f64,
}

/// What is kept of the distribution at one position; logarithms are natural.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Log-probability of the token that stands there.
    pub logprob: f64,
    /// Logarithm of what all tokens that are not listed have together; minus infinity where all are.
    pub log_rest: f32,
    /// The likeliest tokens, likeliest first, of equal ones the lower id first.
    pub ids: Vec<u32>,
    /// Their log-probabilities.
    pub logprobs: Vec<f32>,
}

/// How many tokens a record of a vocabulary of this size lists.
#[must_use]
pub fn n_listed(vocab_size: usize) -> usize {
    vocab_size.min(MOST_LISTED)
}

impl<'l> Distribution<'l> {
    /// The distribution of these logits, one for each token.
    ///
    /// # Errors
    /// [`SamplingError::NotANumber`] where one of them is not finite.
    pub fn new(logits: &'l [f32]) -> Result<Self, SamplingError> {
        if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
            return Err(SamplingError::NotANumber);
        }
        Ok(Self { logits, log_mass: sampling::log_mass(logits.iter().copied()) })
    }

    /// Log-probability of a token; minus infinity of one outside the vocabulary.
    #[must_use]
    pub fn logprob(&self, token: u32) -> f64 {
        self.logits.get(token as usize).map_or(f64::NEG_INFINITY, |&logit| f64::from(logit) - self.log_mass)
    }

    /// What is kept of it where `token` stands.
    #[must_use]
    pub fn record(&self, token: u32) -> Record {
        let likeliest = sampling::likeliest(self.logits, n_listed(self.logits.len()) as u32);
        let ids: Vec<u32> = likeliest.into_iter().map(|(id, _)| id).collect();
        Record {
            logprob: self.logprob(token),
            log_rest: self.log_rest(&ids) as f32,
            logprobs: ids.iter().map(|id| self.logprob(*id) as f32).collect(),
            ids,
        }
    }

    /// Whether its likeliest token is that of `other`.
    #[must_use]
    pub fn agrees_with(&self, other: &Record) -> bool {
        let max = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let likeliest = self.logits.iter().zip(0..).find(|(logit, _)| **logit == max).map(|(_, id)| id);
        likeliest == other.ids.first().copied()
    }

    /// KL(other ‖ this), in nats, of what `other` lists one by one and everything else as one.
    ///
    /// Written as Σ p ln(p/q) − p + q, which is the same for what sums to one. No term of it is below zero, and what
    /// keeping p in f32 has rounded enters by its square: a distribution is no distance from itself.
    #[must_use]
    pub fn divergence_from(&self, other: &Record) -> f64 {
        let listed = other.ids.iter().zip(&other.logprobs);
        let one_by_one: f64 = listed.map(|(id, p)| term(f64::from(*p), self.logprob(*id))).sum();
        one_by_one + term(f64::from(other.log_rest), self.log_rest(&other.ids))
    }

    /// Logarithm of what all tokens but `ids` have together.
    fn log_rest(&self, ids: &[u32]) -> f64 {
        let mut is_listed = vec![false; self.logits.len()];
        for id in ids {
            if let Some(is_listed) = is_listed.get_mut(*id as usize) {
                *is_listed = true;
            }
        }
        let rest = self.logits.iter().zip(&is_listed).filter(|(_, is_listed)| !**is_listed);
        sampling::log_mass(rest.map(|(logit, _)| *logit)) - self.log_mass
    }
}

/// p ln(p/q) − p + q from the logarithms.
fn term(log_p: f64, log_q: f64) -> f64 {
    let (p, distance) = (log_p.exp(), log_p - log_q);
    if p == 0.0 {
        log_q.exp()
    } else if distance.abs() < 0.5 {
        // Where both are nearly the same, the plain way subtracts what is nearly the same.
        p * (distance + (-distance).exp_m1())
    } else {
        p * distance - p + log_q.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits without a pattern, of a spread as models have it.
    fn logits(n: usize, seed: u32) -> Vec<f32> {
        let mixed = |id: u32| ((id ^ seed << 16).wrapping_mul(2_654_435_761) >> 8) % 1009;
        (0..n as u32).map(|id| mixed(id) as f32 / 80.0 - 3.0).collect()
    }

    /// KL as it stands in books, of whole distributions.
    fn plain(p: &[f32], q: &[f32]) -> f64 {
        let (p, q) = (Distribution::new(p).unwrap(), Distribution::new(q).unwrap());
        (0..p.logits.len() as u32).map(|id| p.logprob(id).exp() * (p.logprob(id) - q.logprob(id))).sum()
    }

    #[test]
    fn of_a_small_vocabulary_it_is_the_plain_divergence() {
        let (p, q) = (logits(700, 1), logits(700, 9));
        let record = Distribution::new(&p).unwrap().record(5);
        assert_eq!((record.ids.len(), record.log_rest), (700, f32::NEG_INFINITY));
        let found = Distribution::new(&q).unwrap().divergence_from(&record);
        assert!((found - plain(&p, &q)).abs() < 1e-6 && found > 0.1, "{found}");
    }

    #[test]
    fn of_a_large_one_it_is_a_lower_bound() {
        let (p, q) = (logits(5000, 1), logits(5000, 9));
        let record = Distribution::new(&p).unwrap().record(5);
        assert_eq!(record.ids.len(), MOST_LISTED);
        let sum: f64 = record.logprobs.iter().chain([&record.log_rest]).map(|p| f64::from(*p).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        let found = Distribution::new(&q).unwrap().divergence_from(&record);
        let whole = plain(&p, &q);
        assert!(found > 0.1 && found < whole, "{found} of {whole}");
    }

    #[test]
    fn a_distribution_is_no_distance_from_itself() {
        for n in [1, 2, 700, 5000] {
            let logits = logits(n, 3);
            let distribution = Distribution::new(&logits).unwrap();
            let record = distribution.record(0);
            assert!(distribution.divergence_from(&record).abs() < 1e-12, "{n}");
            assert!(distribution.agrees_with(&record));
        }
    }

    #[test]
    fn what_is_nearly_impossible_is_still_measured() {
        let (p, q) = ([0.0, -2000.0, 5.0], [1500.0, 0.0, -1500.0]);
        let record = Distribution::new(&p).unwrap().record(2);
        let found = Distribution::new(&q).unwrap().divergence_from(&record);
        assert!(found.is_finite() && (found - plain(&p, &q)).abs() < 1e-3, "{found}");
        assert!(!Distribution::new(&q).unwrap().agrees_with(&record));
        let swapped = Distribution::new(&p).unwrap().divergence_from(&Distribution::new(&q).unwrap().record(2));
        assert!(swapped.is_finite() && swapped > 0.0, "{swapped}");
    }

    #[test]
    fn what_is_not_a_number_is_no_distribution() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(matches!(Distribution::new(&[0.0, wrong]), Err(SamplingError::NotANumber)));
        }
        assert!(Distribution::new(&[]).is_err());
    }
}
