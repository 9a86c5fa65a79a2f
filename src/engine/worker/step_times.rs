//! How long steps take, and how long one may take before it counts as stalled.
//!
//! A stall is measured against the model's own pace: a slow model is none. Steps that read prompts are measured by the
//! prompt token and the others by the step, because the two differ by orders of magnitude. Knows no clock and no device.
//! **Invariant:** no limit is below the floor.

use std::time::Duration;

/// A step counts as stalled after so many times what it is expected to take.
const STALL_FACTOR: u32 = 20;

/// How many measurements a mean remembers, more or less.
const MEMORY: u32 = 32;

/// Means of what steps took.
#[derive(Debug)]
pub(super) struct StepTimes {
    floor: Duration,
    decode: Mean,
    prompt_token: Mean,
}

#[derive(Debug, Default)]
struct Mean {
    value: Duration,
    n: u32,
}

impl StepTimes {
    pub(super) fn new(floor: Duration) -> Self {
        Self { floor, decode: Mean::default(), prompt_token: Mean::default() }
    }

    /// How long a step may take that reads so many prompt tokens; 0 where all it does is decode.
    ///
    /// Of what was never measured nothing is known but that it need not be fast: it counts as if it took the floor.
    pub(super) fn limit(&self, n_prompt_tokens: usize) -> Duration {
        let decode = self.decode.get();
        let expected = if n_prompt_tokens == 0 {
            decode
        } else {
            // However short the prompt, all weights are read.
            self.prompt_token.get().map(|each| each.saturating_mul(n_prompt_tokens as u32) + decode.unwrap_or_default())
        };
        expected.unwrap_or(self.floor).saturating_mul(STALL_FACTOR).max(self.floor)
    }

    /// Takes in what a step took.
    ///
    /// One that stalled counts for no more than its limit, so that one stall does not hide the next, and a machine that has
    /// become slow for good is one that has become slow after some steps.
    pub(super) fn note(&mut self, n_prompt_tokens: usize, took: Duration) {
        let took = took.min(self.limit(n_prompt_tokens));
        match u32::try_from(n_prompt_tokens) {
            Ok(0) => self.decode.note(took),
            Ok(n) => self.prompt_token.note(took / n),
            Err(_) => {}
        }
    }
}

impl Mean {
    fn get(&self) -> Option<Duration> {
        (self.n > 0).then_some(self.value)
    }

    fn note(&mut self, measured: Duration) {
        self.n = (self.n + 1).min(MEMORY);
        self.value = self.value * (self.n - 1) / self.n + measured / self.n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_secs(30);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_slow_model_is_not_a_stall() {
        let mut times = StepTimes::new(FLOOR);
        times.note(0, seconds(3.0));
        assert_eq!(times.limit(0), seconds(60.0));
        times.note(0, seconds(6.0));
        assert_eq!(times.limit(0), seconds(90.0), "of the mean");
    }

    #[test]
    fn no_limit_is_below_the_floor() {
        let mut times = StepTimes::new(FLOOR);
        times.note(0, seconds(0.01));
        times.note(256, seconds(0.1));
        assert_eq!((times.limit(0), times.limit(256)), (FLOOR, FLOOR));
    }

    #[test]
    fn reading_a_prompt_is_measured_by_its_length_and_apart_from_decoding() {
        let mut times = StepTimes::new(FLOOR);
        times.note(0, seconds(2.0));
        times.note(100, seconds(50.0));
        assert_eq!(times.limit(0), seconds(40.0));
        assert_eq!(times.limit(1000), seconds(20.0 * 502.0));
    }

    #[test]
    fn what_was_never_measured_may_take_its_time() {
        let mut times = StepTimes::new(FLOOR);
        assert_eq!((times.limit(0), times.limit(1024)), (seconds(600.0), seconds(600.0)));
        times.note(0, seconds(1.0));
        assert_eq!(times.limit(1024), seconds(600.0), "decoding says nothing of reading");
    }

    #[test]
    fn one_stall_does_not_hide_the_next_and_a_slower_machine_is_learned() {
        let mut times = StepTimes::new(FLOOR);
        for _ in 0..100 {
            times.note(0, seconds(0.1));
        }
        times.note(0, seconds(3600.0));
        assert_eq!(times.limit(0), FLOOR);
        for _ in 0..100 {
            times.note(0, seconds(40.0));
        }
        assert!(times.limit(0) > seconds(400.0), "{:?}", times.limit(0));
    }
}
