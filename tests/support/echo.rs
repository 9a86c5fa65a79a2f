//! A device that answers with what it was asked: the newest message, character by character.
//!
//! It reads the message out of the prompt, between the marks of format v2; so whatever a person writes passes through the
//! whole server and comes back as an answer.

use std::collections::HashMap;

use xverse_chat::engine::{
    backend::{Backend, BackendError, BackendSpec, Batch, Drawn, Row, RowOutput, SequenceId},
    kv::BlockId,
    sampling::SamplingError,
};

use super::letters;

/// The device.
pub struct Echo {
    spec: BackendSpec,
    marks: Marks,
    /// What each sequence is answered with.
    answers: HashMap<SequenceId, Vec<u32>>,
}

struct Marks {
    user: Vec<u32>,
    exec: Vec<u32>,
    after_system: Vec<u32>,
    end: Vec<u32>,
}

impl Echo {
    pub fn new(spec: BackendSpec) -> Self {
        let tokenizer = letters::tokenizer();
        let encode = |mark: &str| tokenizer.encode(mark).unwrap();
        let marks = Marks {
            user: encode("Human: "),
            exec: encode("Exec: "),
            after_system: encode("\nHuman: "),
            end: encode("\n\nAssistant: "),
        };
        Self { spec, marks, answers: HashMap::new() }
    }

    fn draw(&mut self, row: &Row, index: usize) -> Drawn {
        let marks = &self.marks;
        let answer = self.answers.entry(row.sequence).or_insert_with(|| {
            let n_prompt = row.ids.len() - index;
            marks.newest(&row.ids[..n_prompt]).to_vec()
        });
        Drawn { token: answer.get(index).copied().unwrap_or(letters::END), logprobs: None }
    }
}

impl Marks {
    /// The newest message of a prompt: all before the last end token are earlier rounds.
    fn newest<'p>(&self, prompt: &'p [u32]) -> &'p [u32] {
        let round = prompt.iter().rposition(|id| *id == letters::END).map_or(0, |end| end + 1);
        let text = prompt[round..].strip_suffix(self.end.as_slice()).unwrap_or_default();
        let marked = text.strip_prefix(self.user.as_slice()).or_else(|| text.strip_prefix(self.exec.as_slice()));
        let text = marked.unwrap_or_default();
        // Only the first round can begin with a system prompt.
        let mut places = text.windows(self.after_system.len());
        match places.rposition(|place| place == self.after_system).filter(|_| round == 0) {
            Some(at) => &text[at + self.after_system.len()..],
            None => text,
        }
    }
}

impl Backend for Echo {
    fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    fn step(&mut self, batch: &Batch) -> Result<Vec<Result<RowOutput, SamplingError>>, BackendError> {
        let drawn = |row: &Row| row.draw.map(|draw| self.draw(row, draw.index as usize));
        let drawn: Vec<Option<Drawn>> = batch.rows.iter().map(drawn).collect();
        Ok(drawn.into_iter().map(|drawn| Ok(RowOutput { drawn, ..RowOutput::default() })).collect())
    }

    fn release(&mut self, sequence: SequenceId) {
        self.answers.remove(&sequence);
    }

    fn poison(&mut self, _: &[BlockId]) {}

    fn reset(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}
