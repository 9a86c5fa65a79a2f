//! What memory does: how fast it is copied, how much of it was held.

use std::{hint::black_box, time::Instant};

/// Bytes that each thread copies: more than any cache holds.
const BYTES_PER_THREAD: usize = 256 << 20;
const ROUNDS: usize = 5;

/// 10⁹ bytes read and written a second by copying with `threads` threads; the best of a few rounds.
pub(super) fn copy_gb_s(threads: usize) -> f64 {
    let mut buffers: Vec<(Vec<u64>, Vec<u64>)> =
        (0..threads).map(|_| (vec![1; BYTES_PER_THREAD / 8], vec![2; BYTES_PER_THREAD / 8])).collect();
    let mut best: f64 = 0.0;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for (from, to) in &mut buffers {
                scope.spawn(|| black_box(to).copy_from_slice(black_box(from)));
            }
        });
        let bytes = 2 * threads * BYTES_PER_THREAD;
        best = best.max(bytes as f64 / began.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// Lets the peak begin anew, so that what the measurement of copying took is not in it; where the system does not do
/// that, it is.
pub(super) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Most resident memory of this process so far, 10⁹ bytes; 0 where the system does not say.
pub(super) fn peak_gb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().strip_suffix("kB"))
        .and_then(|value| value.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e9
}
