//! From logits to what a row asked for, the same for every backend that has its logits on the host.

use super::{Batch, Drawn, Row, RowOutput};
use crate::engine::{
    request::TokenLogprobs,
    sampling::{self, SamplingError},
};

/// A place whose logits are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// Index of the row in the batch.
    pub row: usize,
    /// Position in the sequence.
    pub position: usize,
    /// Index among all tokens of the batch, rows one after another.
    pub place: usize,
}

/// The places whose logits the rows of `batch` need, in order.
#[must_use]
pub fn needed(batch: &Batch) -> Vec<Needed> {
    let mut needed = Vec::new();
    let mut first = 0;
    for (index, row) in batch.rows.iter().enumerate() {
        let last = row.ids.len() - 1;
        let all = row.logits || row.prompt_logprobs.is_some();
        for position in row.start..row.ids.len() {
            if all || (position == last && row.draw.is_some()) {
                needed.push(Needed { row: index, position, place: first + position - row.start });
            }
        }
        first += row.ids.len() - row.start;
    }
    needed
}

/// The outputs of the rows; `logits` has one row of `vocab_size` for each of `needed`.
#[must_use]
pub fn outputs(
    batch: &Batch,
    needed: &[Needed],
    logits: &[f32],
    vocab_size: usize,
) -> Vec<Result<RowOutput, SamplingError>> {
    let mut outputs: Vec<Result<RowOutput, SamplingError>> =
        batch.rows.iter().map(|_| Ok(RowOutput::default())).collect();
    for (place, logits) in needed.iter().zip(logits.chunks_exact(vocab_size)) {
        let (Some(row), Some(output)) = (batch.rows.get(place.row), outputs.get_mut(place.row)) else {
            continue;
        };
        if let Ok(so_far) = output
            && let Err(error) = add(row, place.position, logits, so_far)
        {
            *output = Err(error);
        }
    }
    outputs
}

/// Adds to a row's output what follows from the logits of one of its positions.
///
/// # Errors
/// [`SamplingError`].
pub(super) fn add(row: &Row, position: usize, logits: &[f32], output: &mut RowOutput) -> Result<(), SamplingError> {
    if row.logits {
        output.logits.extend_from_slice(logits);
    }
    let next = row.ids.get(position + 1).copied().or(row.following);
    if let (Some(n), Some(next)) = (row.prompt_logprobs, next) {
        output.prompt_logprobs.push(checked_logprobs(logits, next, n)?);
    }
    if let Some(draw) = row.draw.filter(|_| position + 1 == row.ids.len()) {
        let token = sampling::draw(logits, &row.ids, &draw)?;
        let logprobs = row.logprobs.map(|n| checked_logprobs(logits, token, n)).transpose()?;
        output.drawn = Some(Drawn { token, logprobs });
    }
    Ok(())
}

fn checked_logprobs(logits: &[f32], token: u32, n: u32) -> Result<TokenLogprobs, SamplingError> {
    let logprobs = sampling::logprobs(logits, token, n);
    if logprobs.logprob.is_nan() { Err(SamplingError::NotANumber) } else { Ok(logprobs) }
}
