//! The loop of the engine's thread, and the requests it has.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc as sync_mpsc},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{Command, EngineOptions, PROGRESS_EVENTS, Shared, step_times::StepTimes};
use crate::engine::{
    backend::{Backend, BackendError, Batch, RowOutput, SequenceId},
    detokenizer::Detokenizer,
    end_tokens::EndTokens,
    request::{EngineEnd, EngineEvent, GenerationRequest, TokenLogprobs},
    sampling::SamplingError,
    scheduler::{Outcome, Scheduler, SchedulerLimits},
    stop::{Checked, StopStrings},
    tokenizer::ChatTokenizer,
};

/// How long the thread sleeps at most where nothing is to be done.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// What the thread owns.
pub(super) struct Thread {
    backend: Box<dyn Backend>,
    tokenizer: Arc<ChatTokenizer>,
    scheduler: Scheduler,
    live: HashMap<SequenceId, Live>,
    options: EngineOptions,
    shared: Arc<Shared>,
    times: StepTimes,
    /// Whether there was nothing to compute the last time round.
    idle: bool,
}

/// A request that is not over.
struct Live {
    events: mpsc::Sender<EngineEvent>,
    detokenizer: Detokenizer,
    stop: StopStrings,
    /// Whether a stop string came up, after which no text is told.
    is_stopped: bool,
    /// Prompt tokens counted so far; none before it was admitted.
    prefilled: Option<usize>,
}

enum Flow {
    GoOn,
    /// The thread is over, and with it whatever it has.
    ShutDown,
}

impl Thread {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        tokenizer: Arc<ChatTokenizer>,
        end_tokens: EndTokens,
        options: EngineOptions,
        shared: Arc<Shared>,
    ) -> Self {
        let spec = backend.spec();
        let prefill_chunk = options.prefill_chunk.unwrap_or(spec.prefill_chunk);
        let limits = SchedulerLimits { max_running: options.max_running, prefill_chunk, end_tokens };
        let scheduler = Scheduler::new(limits, spec.n_blocks);
        let times = StepTimes::new(options.stall_floor);
        Self { backend, tokenizer, scheduler, live: HashMap::new(), options, shared, times, idle: true }
    }

    /// Takes commands in, plans, steps, tells; until told to end or nobody is left who could ask for anything.
    pub(super) fn run(&mut self, inbox: &sync_mpsc::Receiver<Command>) {
        loop {
            let mut flow = self.take_commands(inbox);
            // A step may take seconds, and whoever asks meanwhile is to know who takes part in it.
            self.count();
            if matches!(flow, Flow::GoOn) {
                let batch = self.scheduler.plan();
                self.idle = batch.rows.is_empty();
                if !self.idle {
                    flow = self.step(&batch);
                }
            }
            if matches!(flow, Flow::ShutDown) {
                let outcomes = self.scheduler.end_all(EngineEnd::ShuttingDown);
                self.tell(outcomes);
                self.count();
                return;
            }
        }
    }

    /// Takes in what is there; waits where there is nothing to compute.
    fn take_commands(&mut self, inbox: &sync_mpsc::Receiver<Command>) -> Flow {
        if self.idle {
            match inbox.recv_timeout(IDLE_TICK) {
                Ok(command) => {
                    if matches!(self.obey(command), Flow::ShutDown) {
                        return Flow::ShutDown;
                    }
                }
                Err(sync_mpsc::RecvTimeoutError::Timeout) => {}
                Err(sync_mpsc::RecvTimeoutError::Disconnected) => return Flow::ShutDown,
            }
        }
        while let Ok(command) = inbox.try_recv() {
            if matches!(self.obey(command), Flow::ShutDown) {
                return Flow::ShutDown;
            }
        }
        Flow::GoOn
    }

    fn obey(&mut self, command: Command) -> Flow {
        match command {
            Command::Submit { sequence, request, events } => self.submit(sequence, request, events),
            Command::Cancel(sequence) => {
                if self.live.contains_key(&sequence) {
                    self.shared.stats.cancelled.add(1);
                }
                let outcomes = self.scheduler.end(sequence, EngineEnd::Cancelled);
                self.tell(outcomes);
            }
            Command::ShutDown => return Flow::ShutDown,
        }
        Flow::GoOn
    }

    fn submit(&mut self, sequence: SequenceId, mut request: GenerationRequest, events: mpsc::Sender<EngineEvent>) {
        let mut detokenizer = Detokenizer::new(Arc::clone(&self.tokenizer));
        for id in request.continued_ids.iter() {
            // Told already, by the request that is continued.
            detokenizer.push(*id);
        }
        let stop = StopStrings::new(std::mem::take(&mut request.stop));
        self.live.insert(sequence, Live { events, detokenizer, stop, is_stopped: false, prefilled: None });
        let outcomes = self.scheduler.submit(sequence, request);
        self.tell(outcomes);
    }

    /// One step, and all that follows from it. Whoever looks from outside knows meanwhile how long it may take.
    fn step(&mut self, batch: &Batch) -> Flow {
        let began = Instant::now();
        let pace = Duration::from_millis(self.options.min_step_ms);
        let n_prompt_tokens = n_prompt_tokens(batch);
        let limit = self.times.limit(n_prompt_tokens);
        self.shared.stats.step_due_ms.set(self.shared.now_ms() + (limit + pace).as_millis() as u64);
        if self.options.poison_freed_blocks {
            let freed = self.scheduler.take_freed();
            self.backend.poison(&freed);
        } else {
            self.scheduler.take_freed();
        }
        let result = catch_unwind(AssertUnwindSafe(|| self.backend.step(batch)));
        self.shared.stats.steps.add(1);
        let flow = match result {
            Ok(Ok(outputs)) => {
                self.times.note(n_prompt_tokens, began.elapsed());
                self.step_done(batch, outputs)
            }
            Ok(Err(BackendError::DeviceLost(why))) => self.device_lost(why),
            Ok(Err(error)) => self.step_failed(&error.to_string()),
            Err(_) => self.step_failed("the step panicked"),
        };
        if let Some(rest) = pace.checked_sub(began.elapsed()) {
            std::thread::sleep(rest);
        }
        self.shared.stats.heartbeat_ms.set(self.shared.now_ms());
        self.shared.stats.step_due_ms.set(0);
        flow
    }

    fn step_done(&mut self, batch: &Batch, outputs: Vec<Result<RowOutput, SamplingError>>) -> Flow {
        let outcomes = self.scheduler.step_done(batch, outputs);
        self.tell(outcomes);
        Flow::GoOn
    }

    fn step_failed(&mut self, why: &str) -> Flow {
        tracing::error!(why, "a step failed; its answers end and the caches are rebuilt");
        self.shared.stats.failures.add(1);
        let outcomes = self.scheduler.end_running(EngineEnd::StepFailed);
        self.tell(outcomes);
        match catch_unwind(AssertUnwindSafe(|| self.backend.reset())) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return self.device_lost(error.to_string()),
            Err(_) => return self.device_lost("forgetting keys and values panicked".into()),
        }
        let outcomes = self.scheduler.admit();
        self.tell(outcomes);
        Flow::GoOn
    }

    fn device_lost(&mut self, why: String) -> Flow {
        tracing::error!(why, "the device is lost");
        self.shared.stats.failures.add(1);
        self.shared.lost.get_or_init(|| why);
        Flow::ShutDown
    }

    fn tell(&mut self, outcomes: Vec<Outcome>) {
        let mut outcomes = std::collections::VecDeque::from(outcomes);
        while let Some(outcome) = outcomes.pop_front() {
            match outcome {
                Outcome::Queued(sequence, place) => self.tell_progress(sequence, EngineEvent::Queued { place }),
                Outcome::Prefilled { sequence, done, total, reused } => {
                    self.count_prefilled(sequence, done, reused);
                    let (done, total, reused) = (done as u32, total as u32, reused as u32);
                    self.tell_progress(sequence, EngineEvent::Prefilled { done, total, reused });
                }
                Outcome::PromptLogprobs(sequence, all) => {
                    self.tell_once(sequence, EngineEvent::PromptLogprobs(all));
                }
                Outcome::EndToken(sequence, logprobs) => self.tell_once(sequence, EngineEvent::EndToken(logprobs)),
                Outcome::Drawn(sequence, token, logprobs) => {
                    outcomes.extend(self.drawn(sequence, token, logprobs));
                }
                Outcome::Ended(sequence, reason) => self.ended(sequence, reason),
            }
        }
    }

    /// Tells a drawn token; what follows where its text completes a stop string or nobody listens any more.
    fn drawn(&mut self, sequence: SequenceId, token: u32, logprobs: Option<TokenLogprobs>) -> Vec<Outcome> {
        self.shared.stats.generated_tokens.add(1);
        let Some(live) = self.live.get_mut(&sequence) else {
            return Vec::new();
        };
        let (text, stopped) = match live.stop.push(&live.detokenizer.push(token)) {
            Checked::Text(text) => (text, false),
            Checked::Stopped(text) => (text, true),
        };
        let heard = live.events.try_send(EngineEvent::Token { id: token, text, logprobs }).is_ok();
        match (stopped, heard) {
            (true, _) => {
                live.is_stopped = true;
                // Nothing happens where this was the last token allowed: its end is on the way.
                self.scheduler.end(sequence, EngineEnd::StopString)
            }
            (false, false) => {
                // Noticed before its command came.
                self.shared.stats.cancelled.add(1);
                self.scheduler.end(sequence, EngineEnd::Cancelled)
            }
            (false, true) => Vec::new(),
        }
    }

    /// Tells what comes once; there is room for it beside the tokens.
    fn tell_once(&self, sequence: SequenceId, event: EngineEvent) {
        if let Some(live) = self.live.get(&sequence) {
            // A reader that is gone is noticed at the next token.
            let _ = live.events.try_send(event);
        }
    }

    fn tell_progress(&self, sequence: SequenceId, event: EngineEvent) {
        if let Some(live) = self.live.get(&sequence)
            && live.events.capacity() + PROGRESS_EVENTS / 2 > live.events.max_capacity()
        {
            // A reader that is gone is noticed at the next token.
            let _ = live.events.try_send(event);
        }
    }

    fn count_prefilled(&mut self, sequence: SequenceId, done: usize, reused: usize) {
        let Some(live) = self.live.get_mut(&sequence) else {
            return;
        };
        match live.prefilled.replace(done) {
            None => self.shared.stats.reused_tokens.add(reused as u64),
            Some(before) => self.shared.stats.prefill_tokens.add(done.saturating_sub(before) as u64),
        }
    }

    fn ended(&mut self, sequence: SequenceId, reason: EngineEnd) {
        self.backend.release(sequence);
        let Some(mut live) = self.live.remove(&sequence) else {
            return;
        };
        let end = if live.is_stopped {
            EngineEvent::End { reason: EngineEnd::StopString, text: String::new() }
        } else {
            match live.stop.push(&live.detokenizer.finish()) {
                Checked::Stopped(text) => EngineEvent::End { reason: EngineEnd::StopString, text },
                Checked::Text(text) => EngineEvent::End { reason, text: text + &live.stop.finish() },
            }
        };
        // Before the end is told: whoever knows it finds the place free.
        self.shared.leave();
        // A reader that is gone needs no end.
        let _ = live.events.try_send(end);
    }

    fn count(&self) {
        let stats = &self.shared.stats;
        let occupancy = self.scheduler.occupancy();
        stats.running.set(occupancy.running as u64);
        stats.waiting.set(occupancy.waiting as u64);
        stats.kv_blocks_used.set(occupancy.blocks_used as u64);
        stats.kv_blocks_cached.set(occupancy.blocks_cached as u64);
        stats.heartbeat_ms.set(self.shared.now_ms());
    }
}

/// Prompt tokens that a step reads. A row of a single token costs what decoding costs, whatever the token is.
fn n_prompt_tokens(batch: &Batch) -> usize {
    batch.rows.iter().map(|row| row.ids.len() - row.start).filter(|n| *n > 1).sum()
}
