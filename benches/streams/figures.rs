//! Figures: times in a histogram that does not grow, and what the process takes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Of each bucket.
const WIDTH: Duration = Duration::from_micros(100);
const BUCKETS: usize = 100_000;

/// Many times, told by their shares.
#[derive(Debug)]
pub struct Times {
    buckets: Vec<AtomicU64>,
    longest_us: AtomicU64,
}

impl Default for Times {
    fn default() -> Self {
        let mut buckets = Vec::with_capacity(BUCKETS);
        buckets.resize_with(BUCKETS, AtomicU64::default);
        Self { buckets, longest_us: AtomicU64::default() }
    }
}

impl Times {
    pub fn note(&self, time: Duration) {
        let bucket = (time.as_micros() / WIDTH.as_micros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.longest_us.fetch_max(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Half, nearly all and all of them took no longer, in milliseconds.
    pub fn report(&self) -> Value {
        let longest = self.longest_us.load(Ordering::Relaxed) as f64 / 1e3;
        json!({ "p50": self.share(0.5), "p99": self.share(0.99), "max": longest })
    }

    fn share(&self, share: f64) -> f64 {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let wanted = counts.iter().sum::<u64>() as f64 * share;
        let mut passed = 0;
        let bucket = counts.iter().position(|count| {
            passed += count;
            passed as f64 >= wanted
        });
        (bucket.unwrap_or(BUCKETS) + 1) as f64 * WIDTH.as_secs_f64() * 1e3
    }
}

/// Memory of this process that is there now.
pub fn resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: f64| kib / 1024.0).context("the system does not tell how much memory is taken")
}

/// Processor time of this process so far, of all its threads.
pub fn processor_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, behind_name) = stat.rsplit_once(')').context("the system does not tell how much time is taken")?;
    // User and system time, in hundredths of a second.
    let ticks = behind_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// Files and sockets that this process has open.
pub fn n_descriptors() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}
