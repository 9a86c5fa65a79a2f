//! Runs sequences on a backend without a scheduler, so that a test says exactly what each step computes.

use xverse_chat::{
    chat::settings::Sampling,
    engine::{
        backend::{Backend, Batch, Row, RowOutput, SequenceId},
        kv::{BLOCK_SIZE, BlockId},
        request::TokenLogprobs,
        sampling::Draw,
    },
};

/// A backend with its blocks dealt out in an order that no table of consecutive blocks survives.
pub struct Driver {
    backend: Box<dyn Backend>,
    n_sequences: u64,
    free: Vec<BlockId>,
}

/// A sequence on a [`Driver`].
pub struct Sequence {
    id: SequenceId,
    pub ids: Vec<u32>,
    /// How many of `ids` have keys and values.
    n_computed: usize,
    blocks: Vec<BlockId>,
}

/// Takes the likeliest token.
const GREEDY: Draw = Draw {
    sampling: Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, max_new_tokens: 1 },
    seed: 0,
    index: 0,
};

/// What a row is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Nothing,
    /// Logits of all its positions.
    Logits,
    /// The likeliest token and the log-probability of every token.
    Draw,
}

impl Driver {
    pub fn new(mut backend: Box<dyn Backend>) -> Self {
        let n_blocks = backend.spec().n_blocks.min(512) as u32;
        // 5 and 512 have no common divisor, nor have 5 and any count below it that is no multiple of 5.
        let n_blocks = if n_blocks.is_multiple_of(5) { n_blocks - 1 } else { n_blocks };
        let free: Vec<BlockId> = (0..n_blocks).map(|idx| BlockId(idx * 5 % n_blocks)).collect();
        backend.poison(&free);
        Self { backend, n_sequences: 0, free }
    }

    pub fn vocab_size(&self) -> usize {
        self.backend.spec().vocab_size
    }

    /// A new sequence with nothing computed.
    pub fn begin(&mut self, ids: &[u32]) -> Sequence {
        self.n_sequences += 1;
        Sequence { id: SequenceId(self.n_sequences), ids: ids.to_vec(), n_computed: 0, blocks: Vec::new() }
    }

    /// A new sequence that reads the whole blocks that `other` has of the beginning they share, all but the last token.
    pub fn begin_after(&mut self, other: &Sequence, ids: &[u32]) -> Sequence {
        let same = other.ids.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let n_shared = same.min(other.n_computed).min(ids.len() - 1) / BLOCK_SIZE;
        let mut sequence = self.begin(ids);
        sequence.blocks = other.blocks[..n_shared].to_vec();
        sequence.n_computed = n_shared * BLOCK_SIZE;
        sequence
    }

    /// Computes what is left of the sequence's ids in pieces of `piece`, the last one with a draw.
    pub fn read(&mut self, sequence: &mut Sequence, piece: usize) -> TokenLogprobs {
        while sequence.ids.len() - sequence.n_computed > piece {
            let end = sequence.n_computed + piece;
            self.step(sequence, end, Want::Nothing);
        }
        self.draw(sequence)
    }

    /// Logits of all positions, computed in one piece; the sequence must be new.
    pub fn logits(&mut self, sequence: &mut Sequence) -> Vec<Vec<f32>> {
        let vocab_size = self.vocab_size();
        let output = self.step(sequence, sequence.ids.len(), Want::Logits);
        assert_eq!(output.logits.len(), sequence.ids.len() * vocab_size);
        output.logits.chunks_exact(vocab_size).map(<[f32]>::to_vec).collect()
    }

    /// Logits of the last position, the only one that is left to be computed.
    pub fn last_logits(&mut self, sequence: &mut Sequence) -> Vec<f32> {
        assert_eq!(sequence.n_computed + 1, sequence.ids.len());
        self.step(sequence, sequence.ids.len(), Want::Logits).logits
    }

    /// Computes the rest of the sequence and draws the likeliest token.
    pub fn draw(&mut self, sequence: &mut Sequence) -> TokenLogprobs {
        let output = self.step(sequence, sequence.ids.len(), Want::Draw);
        let drawn = output.drawn.unwrap();
        let logprobs = drawn.logprobs.unwrap();
        assert_eq!(drawn.token, logprobs.token);
        logprobs
    }

    /// Reads the prompt in pieces and appends `n` tokens; what each was drawn from.
    pub fn answer(&mut self, sequence: &mut Sequence, piece: usize, n: usize) -> Vec<TokenLogprobs> {
        let mut answer = vec![self.read(sequence, piece)];
        while answer.len() < n {
            sequence.ids.push(answer[answer.len() - 1].token);
            answer.push(self.draw(sequence));
        }
        answer
    }

    /// The sequence is over; its blocks are dealt out again, spoiled.
    pub fn end(&mut self, sequence: Sequence) {
        self.backend.release(sequence.id);
        self.backend.poison(&sequence.blocks);
        self.free.extend(sequence.blocks);
    }

    /// As [`Driver::end`], for a sequence that began after `other` and shares blocks with it.
    pub fn end_but_keep(&mut self, mut sequence: Sequence, other: &Sequence) {
        sequence.blocks.retain(|block| !other.blocks.contains(block));
        self.end(sequence);
    }

    fn step(&mut self, sequence: &mut Sequence, end: usize, want: Want) -> RowOutput {
        while sequence.blocks.len() * BLOCK_SIZE < end {
            sequence.blocks.push(self.free.pop().expect("the test needs fewer blocks than there are"));
        }
        let row = Row {
            sequence: sequence.id,
            ids: sequence.ids[..end].to_vec(),
            start: sequence.n_computed,
            blocks: sequence.blocks.clone(),
            draw: (want == Want::Draw).then_some(GREEDY),
            logprobs: (want == Want::Draw).then(|| self.vocab_size() as u32),
            prompt_logprobs: None,
            following: None,
            logits: want == Want::Logits,
        };
        sequence.n_computed = end;
        let mut outputs = self.backend.step(&Batch { rows: vec![row] }).unwrap();
        assert_eq!(outputs.len(), 1);
        outputs.remove(0).unwrap()
    }
}
