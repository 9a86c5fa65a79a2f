//! A device that says what its script says, when the test lets it.

use std::sync::{Arc, Condvar, Mutex};

use xverse_chat::engine::{
    backend::{Backend, BackendError, BackendSpec, Batch, Drawn, RowOutput, SequenceId},
    kv::BlockId,
    sampling::SamplingError,
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
}

/// What is drawn.
#[derive(Debug, Clone)]
pub struct Script {
    /// The answer's tokens; the end token comes after them.
    pub tokens: Vec<u32>,
    /// Ends an answer.
    pub eos: u32,
    /// The step that draws this many-th token panics.
    pub panic_at: Option<u64>,
    /// At the step that draws this many-th token the device is lost.
    pub lost_at: Option<u64>,
}

impl Scripted {
    pub fn new(vocab_size: usize, max_positions: usize, script: Script, gate: Gate) -> Self {
        let spec = BackendSpec {
            name: "scripted",
            device: "cpu".to_owned(),
            vocab_size,
            max_positions,
            n_blocks: 4096,
            weight_bytes: 0,
            dtype: "f32",
        };
        Self { spec, script, gate }
    }
}

impl Backend for Scripted {
    fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    fn step(&mut self, batch: &Batch) -> Result<Vec<Result<RowOutput, SamplingError>>, BackendError> {
        self.gate.wait();
        let mut draws = batch.rows.iter().filter_map(|row| row.draw);
        if self.script.lost_at.is_some_and(|at| draws.any(|draw| draw.index == at)) {
            return Err(BackendError::DeviceLost("the script says so".to_owned()));
        }
        let draw = |index: u64| {
            assert!(self.script.panic_at != Some(index), "the script says so");
            let token = self.script.tokens.get(index as usize).copied().unwrap_or(self.script.eos);
            Drawn { token, logprobs: None }
        };
        let rows = batch.rows.iter();
        Ok(rows.map(|row| Ok(RowOutput { drawn: row.draw.map(|d| draw(d.index)), ..RowOutput::default() })).collect())
    }

    fn release(&mut self, _: SequenceId) {}

    fn poison(&mut self, _: &[BlockId]) {}

    fn reset(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}
