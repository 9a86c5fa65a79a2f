//! A device that says what its script says, when the test lets it, and breaks where the script says so.

use std::sync::{Arc, Condvar, Mutex};

use xverse_chat::engine::{
    backend::{Backend, BackendError, BackendSpec, Batch, Drawn, Row, RowOutput, SequenceId},
    kv::BlockId,
    sampling::{self, SamplingError},
};

/// Lets steps through: none, some, or all.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<Passes>, Condvar)>);

#[derive(Debug, Default)]
struct Passes {
    left: u64,
    is_open: bool,
}

impl Gate {
    /// Lets `n` more steps through.
    pub fn pass(&self, n: u64) {
        self.0.0.lock().unwrap().left += n;
        self.0.1.notify_all();
    }

    /// Lets all steps through from now on.
    pub fn open(&self) {
        self.0.0.lock().unwrap().is_open = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let mut passes =
            self.0.1.wait_while(self.0.0.lock().unwrap(), |passes| !passes.is_open && passes.left == 0).unwrap();
        passes.left = passes.left.saturating_sub(1);
    }
}

/// The device.
pub struct Scripted {
    spec: BackendSpec,
    script: Script,
    gate: Gate,
    n_steps: u64,
}

/// What is drawn, and what goes wrong.
#[derive(Debug, Clone)]
pub struct Script {
    /// The answer's tokens; the end token comes after them.
    pub tokens: Vec<u32>,
    /// Ends an answer.
    pub eos: u32,
    pub faults: Vec<(At, Fault)>,
}

/// Where something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// At the device's so many-th step, counted from 1.
    Step(u64),
    /// At each step that draws an answer's so many-th token, counted from 0.
    Token(u64),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// The step panics.
    Panic,
    /// The step fails.
    Error,
    /// The device is gone for good.
    Lost,
    /// All logits of the row at this place are this number.
    Logits { row: usize, value: f32 },
}

impl Scripted {
    pub fn new(spec: BackendSpec, script: Script, gate: Gate) -> Self {
        Self { spec, script, gate, n_steps: 0 }
    }

    fn fault(&self, batch: &Batch) -> Option<Fault> {
        let is_now = |at: &At| match at {
            At::Step(step) => *step == self.n_steps,
            At::Token(index) => batch.rows.iter().filter_map(|row| row.draw).any(|draw| draw.index == *index),
        };
        self.script.faults.iter().find(|(at, _)| is_now(at)).map(|(_, fault)| *fault)
    }

    fn row(&self, row: &Row, logits: Option<f32>) -> Result<RowOutput, SamplingError> {
        let token = |index: u64| self.script.tokens.get(index as usize).copied().unwrap_or(self.script.eos);
        let drawn = match (row.draw, logits) {
            (None, _) => None,
            (Some(draw), None) => Some(token(draw.index)),
            (Some(draw), Some(logit)) => Some(sampling::draw(&vec![logit; self.spec.vocab_size], &row.ids, &draw)?),
        };
        Ok(RowOutput { drawn: drawn.map(|token| Drawn { token, logprobs: None }), ..RowOutput::default() })
    }
}

impl Backend for Scripted {
    fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    fn step(&mut self, batch: &Batch) -> Result<Vec<Result<RowOutput, SamplingError>>, BackendError> {
        self.gate.wait();
        self.n_steps += 1;
        let says = "the script says so";
        let spoiled = match self.fault(batch) {
            Some(Fault::Panic) => panic!("{says}"),
            Some(Fault::Error) => return Err(candle_core::Error::Msg(says.to_owned()).into()),
            Some(Fault::Lost) => return Err(BackendError::DeviceLost(says.to_owned())),
            Some(Fault::Logits { row, value }) => Some((row, value)),
            None => None,
        };
        let logits = |at: usize| spoiled.and_then(|(row, value)| (row == at).then_some(value));
        Ok(batch.rows.iter().enumerate().map(|(at, row)| self.row(row, logits(at))).collect())
    }

    fn release(&mut self, _: SequenceId) {}

    fn poison(&mut self, _: &[BlockId]) {}

    fn reset(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}
