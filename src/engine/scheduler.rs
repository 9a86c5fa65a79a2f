//! Which sequences take part in the next step, and what a finished step means for them.
//!
//! A pure state machine over submit, cancel, plan, step done and step failed: no tensors, no clock, no channels, no text.
//! Continuous batching: every sequence that decodes takes part in every step; prompts are read in chunks beside them, so
//! that nobody's next token waits for somebody's long prompt. Requests are admitted in the order of their coming, each
//! when the KV pool can promise all it may ever need.
//!
//! **Architecture Invariant:** each submitted sequence gives exactly one [`Outcome::Ended`], and nothing after it.

mod sequence;

use std::collections::VecDeque;

use super::{
    backend::{Batch, RowOutput, SequenceId},
    end_tokens::EndTokens,
    kv::{BlockId, Pool},
    request::{EngineEnd, GenerationRequest, TokenLogprobs},
    sampling::SamplingError,
};
use sequence::Sequence;

/// What the scheduler may do.
#[derive(Debug, Clone)]
pub struct SchedulerLimits {
    /// Most sequences computed at once.
    pub max_running: usize,
    /// Most prompt tokens a step reads while others decode; four times as many where nobody does.
    pub prefill_chunk: usize,
    /// What ends an answer.
    pub end_tokens: EndTokens,
}

/// What happened to a sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It waits at this place; 1 is next.
    Queued(SequenceId, u32),
    /// Part of its prompt has been read.
    Prefilled {
        /// Whose.
        sequence: SequenceId,
        /// Prompt tokens that have keys and values.
        done: usize,
        /// Prompt tokens in all.
        total: usize,
        /// Of those done, how many were reused.
        reused: usize,
    },
    /// All its prompt tokens' log-probabilities, where asked for.
    PromptLogprobs(SequenceId, Vec<TokenLogprobs>),
    /// The end token was drawn, and its log-probabilities were asked for.
    EndToken(SequenceId, TokenLogprobs),
    /// A token was drawn.
    Drawn(SequenceId, u32, Option<TokenLogprobs>),
    /// It is over.
    Ended(SequenceId, EngineEnd),
}

/// How many sequences are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Being computed.
    pub running: usize,
    /// Waiting.
    pub waiting: usize,
    /// Blocks that live sequences hold or may still take.
    pub blocks_used: usize,
    /// Blocks kept for reuse.
    pub blocks_cached: usize,
}

/// The state machine.
#[derive(Debug)]
pub struct Scheduler {
    limits: SchedulerLimits,
    pool: Pool,
    waiting: VecDeque<(SequenceId, GenerationRequest)>,
    running: Vec<Sequence>,
}

impl Scheduler {
    /// An idle scheduler over `n_blocks` blocks.
    #[must_use]
    pub fn new(limits: SchedulerLimits, n_blocks: usize) -> Self {
        Self { limits, pool: Pool::new(n_blocks), waiting: VecDeque::new(), running: Vec::new() }
    }

    /// Takes a request, whose prompt is not empty and fits the pool; tells its place where it has to wait.
    pub fn submit(&mut self, sequence: SequenceId, request: GenerationRequest) -> Vec<Outcome> {
        self.waiting.push_back((sequence, request));
        let mut outcomes = self.admit();
        if self.waiting.back().is_some_and(|(last, _)| *last == sequence) {
            outcomes.push(Outcome::Queued(sequence, self.waiting.len() as u32));
        }
        outcomes
    }

    /// Ends a sequence wherever it is; nothing happens where it is over already.
    pub fn end(&mut self, sequence: SequenceId, reason: EngineEnd) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == sequence) {
            self.waiting.remove(at);
            outcomes.push(Outcome::Ended(sequence, reason));
            outcomes.extend(self.places_from(at));
        } else if let Some(at) = self.running.iter().position(|running| running.id == sequence) {
            let ended = self.running.remove(at);
            self.release(ended);
            outcomes.push(Outcome::Ended(sequence, reason));
            outcomes.extend(self.admit());
        }
        outcomes
    }

    /// Ends everything, after a failed step or at shutdown, and forgets all that was kept for reuse.
    pub fn end_all(&mut self, reason: EngineEnd) -> Vec<Outcome> {
        let mut outcomes = self.end_running(reason);
        outcomes.extend(self.waiting.drain(..).map(|(sequence, _)| Outcome::Ended(sequence, reason)));
        outcomes
    }

    /// Ends what takes part in steps, after a failed one; those that wait go on.
    pub fn end_running(&mut self, reason: EngineEnd) -> Vec<Outcome> {
        let outcomes = self.running.drain(..).map(|sequence| Outcome::Ended(sequence.id, reason)).collect();
        self.pool.reset();
        outcomes
    }

    /// Lets waiting requests in, in order, as far as they fit.
    pub fn admit(&mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let before = self.waiting.len();
        while self.running.len() < self.limits.max_running {
            let Some((_, request)) = self.waiting.front() else { break };
            let Some(table) = Sequence::table(&mut self.pool, request) else { break };
            let Some((id, request)) = self.waiting.pop_front() else { break };
            let sequence = Sequence::new(id, request, table);
            outcomes.push(sequence.prefilled());
            self.running.push(sequence);
        }
        if self.waiting.len() < before {
            outcomes.extend(self.places_from(0));
        }
        outcomes
    }

    /// The next step's rows; empty where there is nothing to compute.
    pub fn plan(&mut self) -> Batch {
        let decoding = self.running.iter().any(|sequence| !sequence.is_prefilling());
        let chunk = self.limits.prefill_chunk;
        let mut budget = if decoding { chunk } else { chunk.saturating_mul(4) };
        let mut batch = Batch::default();
        for sequence in &mut self.running {
            let chunk = if sequence.is_prefilling() {
                let chunk = sequence.remaining().min(budget);
                budget -= chunk;
                chunk
            } else {
                1
            };
            if chunk > 0 {
                batch.rows.push(sequence.row(chunk, &mut self.pool));
            }
        }
        batch
    }

    /// Takes in what a step gave; `outputs` are in the order of the rows of the `batch` that was planned.
    pub fn step_done(&mut self, batch: &Batch, outputs: Vec<Result<RowOutput, SamplingError>>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for (row, output) in batch.rows.iter().zip(outputs) {
            let Some(at) = self.running.iter().position(|sequence| sequence.id == row.sequence) else {
                continue;
            };
            let Some(sequence) = self.running.get_mut(at) else { continue };
            let end = match output {
                Ok(output) => sequence.advance(row.ids.len(), output, &self.limits.end_tokens, &mut outcomes),
                Err(SamplingError::NotANumber) => Some(EngineEnd::NotANumber),
            };
            if let Some(reason) = end {
                let mut ended = self.running.remove(at);
                if reason == EngineEnd::NotANumber {
                    ended.distrust();
                }
                outcomes.push(Outcome::Ended(ended.id, reason));
                self.release(ended);
            }
        }
        outcomes.extend(self.admit());
        outcomes
    }

    /// How full it is.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            running: self.running.len(),
            waiting: self.waiting.len(),
            blocks_used: self.pool.n_used(),
            blocks_cached: self.pool.n_cached(),
        }
    }

    /// Blocks whose content means nothing any more since the last call.
    pub fn take_freed(&mut self) -> Vec<BlockId> {
        self.pool.take_freed()
    }

    fn release(&mut self, sequence: Sequence) {
        let (table, ids) = sequence.into_parts();
        self.pool.release(table, &ids);
    }

    fn places_from(&self, at: usize) -> impl Iterator<Item = Outcome> + '_ {
        self.waiting
            .iter()
            .enumerate()
            .skip(at)
            .map(|(before, (sequence, _))| Outcome::Queued(*sequence, before as u32 + 1))
    }
}

#[cfg(test)]
mod tests;
