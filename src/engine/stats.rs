//! Counters of the engine, written by its thread, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter or gauge.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets a gauge. Whoever sees it sees those that were set before it, too.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Release);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// What the engine counts.
#[derive(Debug, Default)]
pub struct EngineStats {
    /// Steps computed.
    pub steps: Count,
    /// Tokens drawn.
    pub generated_tokens: Count,
    /// Prompt tokens computed.
    pub prefill_tokens: Count,
    /// Prompt tokens whose keys and values were reused.
    pub reused_tokens: Count,
    /// Requests taken.
    pub submitted: Count,
    /// Requests cancelled by whoever made them.
    pub cancelled: Count,
    /// Requests that were refused because the queue was full.
    pub rejected: Count,
    /// Failed steps.
    pub failures: Count,
    /// Sequences being computed now.
    pub running: Count,
    /// Requests waiting now.
    pub waiting: Count,
    /// KV blocks in use by live sequences now.
    pub kv_blocks_used: Count,
    /// KV blocks kept for reuse now.
    pub kv_blocks_cached: Count,
    /// KV blocks in all.
    pub kv_blocks_total: Count,
    /// Milliseconds from the engine's start to its last sign of life.
    pub heartbeat_ms: Count,
    /// Milliseconds from the engine's start to the moment after which the present step counts as stalled; 0 between steps.
    pub step_due_ms: Count,
}

/// How the engine's thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// It computes, however slowly, or waits for work.
    Beating,
    /// The present step has taken so long that it may never end.
    Stalled,
    /// It is in no step and shows no sign of life.
    Silent,
}

/// How long the thread, between steps, may show no sign of life; it shows one every second, and after each step.
const HEARTBEAT_LIMIT_MS: u64 = 5_000;

impl EngineStats {
    /// How the thread does so many milliseconds after the engine's start.
    #[must_use]
    pub fn pulse(&self, now_ms: u64) -> Pulse {
        match self.step_due_ms.get() {
            0 if now_ms.saturating_sub(self.heartbeat_ms.get()) < HEARTBEAT_LIMIT_MS => Pulse::Beating,
            0 => Pulse::Silent,
            due if now_ms <= due => Pulse::Beating,
            _ => Pulse::Stalled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_step_is_neither_death_nor_a_stall_before_its_time_is_up() {
        let stats = EngineStats::default();
        stats.heartbeat_ms.set(1_000);
        stats.step_due_ms.set(61_000);
        assert_eq!(stats.pulse(60_000), Pulse::Beating);
        assert_eq!(stats.pulse(61_001), Pulse::Stalled);
        stats.heartbeat_ms.set(62_000);
        stats.step_due_ms.set(0);
        assert_eq!(stats.pulse(63_000), Pulse::Beating, "it came back");
        assert_eq!(stats.pulse(67_000), Pulse::Silent);
    }
}
