//! How far a backend is from the golden files: one judgement for right and for wrong ones.

use super::{
    driver::Driver,
    files::{GoldenModel, LogitsCase},
};

/// Largest difference of a logit that is put down to rounding.
pub const TOLERANCE: f32 = 1e-4;

/// How far a backend is off.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Of all logits that were compared; infinite where one is no number.
    pub largest_difference: f32,
    /// How many prompts got another greedy answer.
    pub n_other_answers: usize,
}

impl Verdict {
    /// Whether this is the model.
    pub fn agrees(&self) -> bool {
        self.largest_difference <= TOLERANCE && self.n_other_answers == 0
    }

    fn compare(&mut self, expected: &[f32], found: &[f32]) {
        assert_eq!(expected.len(), found.len());
        self.largest_difference = self.largest_difference.max(difference(expected, found));
    }
}

/// The largest difference of two rows; infinite where one number is none.
pub fn difference(expected: &[f32], found: &[f32]) -> f32 {
    let differences = expected.iter().zip(found).map(|(expected, found)| (expected - found).abs());
    differences.fold(0.0, |largest, next| if next.is_nan() { f32::INFINITY } else { next.max(largest) })
}

/// Holds a backend against all prompts of a model.
pub fn judge(driver: &mut Driver, model: &GoldenModel) -> Verdict {
    let mut verdict = Verdict::default();
    for case in &model.cases {
        judge_answer(driver, case, &mut verdict);
        judge_logits(driver, case, &mut verdict);
    }
    verdict
}

/// The prompt in one piece, the answer token by token, then the logits after the last token.
fn judge_answer(driver: &mut Driver, case: &LogitsCase, verdict: &mut Verdict) {
    let mut sequence = driver.begin(&case.prompt);
    let answer = driver.answer(&mut sequence, usize::MAX, case.greedy.len());
    let tokens: Vec<u32> = answer.iter().map(|drawn| drawn.token).collect();
    if tokens == case.greedy {
        sequence.ids.extend(tokens.last());
        let (position, expected) = case.logits.last().unwrap();
        assert_eq!(*position, sequence.ids.len() - 1);
        verdict.compare(expected, &driver.last_logits(&mut sequence));
    } else {
        verdict.n_other_answers += 1;
    }
    driver.end(sequence);
}

/// Prompt and golden answer in one piece, with all logits.
fn judge_logits(driver: &mut Driver, case: &LogitsCase, verdict: &mut Verdict) {
    let mut sequence = driver.begin(&[case.prompt.as_slice(), &case.greedy].concat());
    let logits = driver.logits(&mut sequence);
    for (position, expected) in &case.logits {
        verdict.compare(expected, &logits[*position]);
    }
    driver.end(sequence);
}
