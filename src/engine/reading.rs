//! Sequences of given token ids, read by a backend, and the logits at each of their positions.
//!
//! Draws nothing and knows no text. **Architecture Invariant:** no logits are held here beyond the step that gave them.

use super::{
    backend::{Backend, BackendError, Batch, Row, SequenceId},
    kv::{BLOCK_SIZE, BlockId},
    sampling::SamplingError,
};

/// A backend that reads.
pub struct Reader {
    backend: Box<dyn Backend>,
    /// Tokens of a sequence that are computed in a step.
    chunk: usize,
    /// Names of sequences are never used again.
    next_id: u64,
}

/// What one step gave of one sequence.
#[derive(Debug)]
pub struct Piece {
    /// Which of the sequences that are read together.
    pub sequence: usize,
    /// The position of the first logits.
    pub start: usize,
    /// Shape (positions, vocabulary), row-major, unmodified.
    pub logits: Vec<f32>,
}

/// A sequence on its way.
struct Sequence<'i> {
    id: SequenceId,
    ids: &'i [u32],
    blocks: Vec<BlockId>,
    done: usize,
}

/// How many positions of keys and values it takes to read these together.
#[must_use]
pub fn n_positions(sequences: &[&[u32]]) -> usize {
    sequences.iter().map(|ids| ids.len().next_multiple_of(BLOCK_SIZE)).sum()
}

impl Reader {
    /// One that computes up to `chunk` tokens of a sequence in a step, at least one.
    #[must_use]
    pub fn new(backend: Box<dyn Backend>, chunk: usize) -> Self {
        Self { backend, chunk: chunk.max(1), next_id: 0 }
    }

    /// Reads the sequences, all in the same steps, and hands on what each step gave; the backend has room for
    /// [`n_positions`] of them. Nothing of what was read before is seen by them.
    ///
    /// # Errors
    /// [`BackendError`] and [`SamplingError`] of the backend, and whatever `take` fails with.
    pub fn read<E: From<BackendError> + From<SamplingError>>(
        &mut self,
        sequences: &[&[u32]],
        mut take: impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut next_block = 0..;
        let mut sequences: Vec<Sequence<'_>> = sequences
            .iter()
            .zip(self.next_id..)
            .map(|(ids, id)| {
                let blocks = next_block.by_ref().take(ids.len().div_ceil(BLOCK_SIZE)).map(BlockId).collect();
                Sequence { id: SequenceId(id), ids, blocks, done: 0 }
            })
            .collect();
        self.next_id += sequences.len() as u64;
        while sequences.iter().any(|sequence| sequence.done < sequence.ids.len()) {
            self.step(&mut sequences, &mut take)?;
        }
        for sequence in sequences {
            self.backend.release(sequence.id);
        }
        Ok(())
    }

    /// Computes the next tokens of each sequence that has some.
    fn step<E: From<BackendError> + From<SamplingError>>(
        &mut self,
        sequences: &mut [Sequence<'_>],
        take: &mut impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let unread = |sequence: &Sequence<'_>| sequence.done < sequence.ids.len();
        let end = |sequence: &Sequence<'_>| (sequence.done + self.chunk).min(sequence.ids.len());
        let rows = sequences.iter().filter(|sequence| unread(sequence)).map(|sequence| {
            let end = end(sequence);
            Row {
                sequence: sequence.id,
                ids: sequence.ids[..end].to_vec(),
                start: sequence.done,
                blocks: sequence.blocks[..end.div_ceil(BLOCK_SIZE)].to_vec(),
                draw: None,
                logprobs: None,
                prompt_logprobs: None,
                following: None,
                logits: true,
            }
        });
        let outputs = self.backend.step(&Batch { rows: rows.collect() })?;
        let computed = sequences.iter_mut().enumerate().filter(|(_, sequence)| unread(sequence));
        for ((index, sequence), output) in computed.zip(outputs) {
            take(Piece { sequence: index, start: sequence.done, logits: output?.logits })?;
            sequence.done = end(sequence);
        }
        Ok(())
    }
}
