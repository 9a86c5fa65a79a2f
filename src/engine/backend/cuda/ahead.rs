//! A step of drawing that was launched before what the one before it drew was known here.
//!
//! While the host takes in what a step drew, the device computes the next one, whose rows it made itself (`advance` in
//! `kernels/sample.cuh`). A sequence that goes on finds its token there; what was drawn for one that ended meanwhile is forgotten.
//! What the device is given comes in the order in which it was given: blocks that go to somebody else are written by that one after
//! such a step, never before.

use super::{
    CudaBackend, GraphKey,
    device::{DeviceError, Reading},
    kernels::{DrawSettings, MOST_ROWS},
    step::{Outputs, Token},
};
use crate::engine::{
    backend::{BackendError, SequenceId},
    kv::BLOCK_SIZE,
    sampling::Draw,
};

/// The step, and what it drew.
pub(super) struct Ahead {
    rows: Vec<AheadRow>,
    drawn: Reading,
}

struct AheadRow {
    sequence: SequenceId,
    /// Of the row that this is the step of; none where the device did not draw the token before.
    is_for: Option<Next>,
}

struct Next {
    n_ids: usize,
    last: u32,
    draw: Draw,
}

impl Ahead {
    /// The step after the one in which these tokens' sequences drew `drawn`.
    fn after(group: &[Token<'_>], drawn: &[i32], reading: Reading) -> Self {
        let rows = group.iter().zip(drawn).map(|(token, drawn)| {
            let next = |(last, draw): (u32, Draw)| Next {
                n_ids: token.row.ids.len() + 1,
                last,
                draw: Draw { index: draw.index + 1, ..draw },
            };
            AheadRow { sequence: token.row.sequence, is_for: u32::try_from(*drawn).ok().zip(token.row.draw).map(next) }
        });
        Self { rows: rows.collect(), drawn: reading }
    }

    /// Which of its rows computes this token.
    fn place(&self, token: &Token<'_>) -> Option<usize> {
        self.rows.iter().position(|row| row.is_of(token))
    }

    /// Whether it is the step of these tokens, and of no others.
    fn is_of(&self, group: &[Token<'_>]) -> bool {
        self.rows.len() == group.len() && self.rows.iter().zip(group).all(|(row, token)| row.is_of(token))
    }
}

impl AheadRow {
    fn is_of(&self, token: &Token<'_>) -> bool {
        let row = token.row;
        let is_next =
            |next: &Next| (next.n_ids, Some(&next.last), Some(next.draw)) == (row.ids.len(), row.ids.last(), row.draw);
        self.sequence == row.sequence && !token.asks_more() && self.is_for.as_ref().is_some_and(is_next)
    }
}

impl CudaBackend {
    /// Sequences that go on by one token each; `is_all`, where the batch has no others.
    pub(super) fn draw_singles(
        &mut self,
        single: &[Token<'_>],
        is_all: bool,
        outputs: &mut Outputs,
    ) -> Result<(), BackendError> {
        let left = match self.ahead.take() {
            Some(ahead) if is_all && ahead.is_of(single) => return self.go_on(single, ahead.drawn, outputs),
            Some(ahead) => self.take_from(&ahead, single, outputs)?,
            None => single.to_vec(),
        };
        if is_all && left.len() == single.len() && self.may_go_on(single) {
            let key = self.stage(single)?;
            let drawn = self.launch_ahead(key, single.len())?;
            return self.go_on(single, drawn, outputs);
        }
        for group in left.chunks(MOST_ROWS) {
            self.draw_group(group, outputs)?;
        }
        Ok(())
    }

    /// Launches the step after the one that these tokens are in, then takes in what that one drew.
    fn go_on(&mut self, group: &[Token<'_>], drawn: Reading, outputs: &mut Outputs) -> Result<(), BackendError> {
        let next = if self.may_go_on(group) { Some(self.launch_next(group)?) } else { None };
        let found = self.finish(drawn, group.len())?;
        let mut again = Vec::new();
        for (place, (token, drawn)) in group.iter().zip(&found).enumerate() {
            // The next step has overwritten what the host would draw from.
            if next.is_some() && token.is_missing(*drawn) {
                again.push(*token);
            } else {
                self.take(token, (place, *drawn), None, outputs)?;
            }
        }
        self.ahead = next.map(|reading| Ahead::after(group, &found, reading));
        if again.is_empty() { Ok(()) } else { self.draw_group(&again, outputs) }
    }

    /// What was drawn ahead for those of these tokens for which it was; gives the others.
    fn take_from<'b>(
        &mut self,
        ahead: &Ahead,
        single: &[Token<'b>],
        outputs: &mut Outputs,
    ) -> Result<Vec<Token<'b>>, BackendError> {
        let found = self.finish(ahead.drawn, ahead.rows.len())?;
        let mut is_taken = vec![false; found.len()];
        let mut left = Vec::new();
        for token in single {
            match ahead.place(token) {
                Some(place) => {
                    self.take(token, (place, found[place]), None, outputs)?;
                    is_taken[place] = true;
                }
                None => left.push(*token),
            }
        }
        for (row, _) in ahead.rows.iter().zip(is_taken).filter(|(_, is_taken)| !is_taken) {
            self.seen.distrust(row.sequence);
        }
        Ok(left)
    }

    /// Whether the device can make the next step's rows of these by itself, and all of them go on unless they are ended.
    fn may_go_on(&self, group: &[Token<'_>]) -> bool {
        let most_positions = self.model.plan.most_positions;
        let goes_on = |token: &Token<'_>| {
            let next = token.position + 1;
            let is_drawn = token.row.draw.filter(|_| token.draws() && !token.asks_more()).is_some_and(|draw| {
                DrawSettings::of(&draw).is_some() && draw.index + 1 < u64::from(draw.sampling.max_new_tokens)
            });
            is_drawn && next < most_positions && next < token.row.blocks.len() * BLOCK_SIZE
        };
        self.settings.ahead && self.settings.sampler && group.len() <= MOST_ROWS && group.iter().all(goes_on)
    }

    /// The step after the one that these tokens are in, whose rows the device has made.
    fn launch_next(&mut self, group: &[Token<'_>]) -> Result<Reading, BackendError> {
        for (index, token) in group.iter().enumerate() {
            let next = token.position + 1;
            if next.is_multiple_of(BLOCK_SIZE) {
                let entry = (index, next / BLOCK_SIZE);
                let width = self.model.plan.table_width();
                self.staging.write_block(&mut *self.device, (group.len(), width), entry, token.row.blocks[entry.1])?;
            }
        }
        let longest = group.iter().map(|token| token.position + 2).max().unwrap_or(1);
        self.launch_ahead(self.key(group.len(), longest), group.len())
    }

    fn launch_ahead(&mut self, key: GraphKey, n: usize) -> Result<Reading, BackendError> {
        self.run(key)?;
        let drawn = self.staging.draw_places(key.n_rows).drawn;
        Ok(self.device.begin_reading(drawn, n * size_of::<i32>())?)
    }

    fn finish(&mut self, reading: Reading, n: usize) -> Result<Vec<i32>, DeviceError> {
        let mut drawn = vec![0_i32; n];
        self.device.finish_reading(reading, bytemuck::cast_slice_mut(&mut drawn))?;
        Ok(drawn)
    }
}
