//! Work against the clock, coarsely.
//!
//! A busy machine makes anything slow once, so what was slow is done again. Invariant: only work that is slow each time fails.

use std::time::{Duration, Instant};

const ATTEMPTS: usize = 5;

/// Does the work, which may take 200 ms and 20 µs a byte.
///
/// # Panics
/// Where it takes longer each time.
pub fn in_time<T>(n_bytes: usize, work: impl Fn() -> T) -> T {
    let limit = Duration::from_millis(200) + Duration::from_micros(20) * u32::try_from(n_bytes).unwrap_or(u32::MAX);
    let mut fastest = Duration::MAX;
    for _ in 0..ATTEMPTS {
        let started = Instant::now();
        let outcome = work();
        fastest = fastest.min(started.elapsed());
        if fastest <= limit {
            return outcome;
        }
    }
    panic!("{n_bytes} bytes took {fastest:?} at the fastest of {ATTEMPTS} times, at most {limit:?} were expected");
}
