//! What memory does: how much there is, how fast it is copied, how much of it was held.
//!
//! Knows nothing of models. Where the system does not say, there is no answer rather than a guess.

use std::{hint::black_box, time::Instant};

const ROUNDS: usize = 5;

/// Bytes that can be had without swapping; `None` where the system does not say.
#[must_use]
pub fn available() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// 10⁹ bytes read and written a second by copying `mib_per_thread` with each of `threads` threads, which should be more
/// than the caches hold; the best of a few rounds.
#[must_use]
pub fn copy_gb_s(threads: usize, mib_per_thread: usize) -> f64 {
    let bytes_per_thread = mib_per_thread << 20;
    let mut buffers: Vec<(Vec<u64>, Vec<u64>)> =
        (0..threads).map(|_| (vec![1; bytes_per_thread / 8], vec![2; bytes_per_thread / 8])).collect();
    let mut best: f64 = 0.0;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for (from, to) in &mut buffers {
                scope.spawn(|| black_box(to).copy_from_slice(black_box(from)));
            }
        });
        let bytes = 2 * threads * bytes_per_thread;
        best = best.max(bytes as f64 / began.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// Lets the peak begin anew, so that what the measurement of copying took is not in it; where the system does not do
/// that, it is.
pub fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Most resident memory of this process so far, 10⁹ bytes; 0 where the system does not say.
#[must_use]
pub fn peak_gb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().strip_suffix("kB"))
        .and_then(|value| value.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e9
}
