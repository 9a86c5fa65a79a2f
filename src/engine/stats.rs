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

    /// Sets a gauge.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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
}
