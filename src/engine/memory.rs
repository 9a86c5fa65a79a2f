//! What memory does: how much there is, how fast it is copied, how much of it was held.
//!
//! Knows nothing of models. Where the system does not say, there is no answer rather than a guess.

use std::{fs, hint::black_box, path::Path, time::Instant};

const ROUNDS: usize = 5;
/// What measuring may take in all, where that leaves each thread [`LEAST_MIB`].
const MOST_MIB: usize = 1024;
/// More than one core's caches.
const LEAST_MIB: usize = 4;

/// Bytes that can be had without swapping, by the machine and by the limit of a container; `None` where neither says.
#[must_use]
pub fn available() -> Option<f64> {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let limited = left_in_group(Path::new("/sys/fs/cgroup"), Path::new(group));
    [on_machine(), limited].into_iter().flatten().reduce(f64::min)
}

fn on_machine() -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// What the strictest limit of a control group (version 2) and those around it leaves, files that can be dropped counted
/// as free.
fn left_in_group(root: &Path, group: &Path) -> Option<f64> {
    let left = |group: &Path| {
        let number = |name: &str| fs::read_to_string(root.join(group).join(name)).ok()?.trim().parse::<f64>().ok();
        let stat = fs::read_to_string(root.join(group).join("memory.stat")).unwrap_or_default();
        let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<f64>().ok());
        Some((number("memory.max")? - number("memory.current")? + files.unwrap_or(0.0)).max(0.0))
    };
    group.ancestors().filter_map(left).reduce(f64::min)
}

/// 10⁹ bytes read and written a second by copying `mib_per_thread` with each of `threads` threads, which should be more
/// than the caches hold; less with many threads, so that it is never much memory. The best of a few rounds.
#[must_use]
pub fn copy_gb_s(threads: usize, mib_per_thread: usize) -> f64 {
    let bytes_per_thread = mib_per_thread.min(MOST_MIB / (2 * threads)).max(LEAST_MIB) << 20;
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
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Most resident memory of this process so far, 10⁹ bytes; 0 where the system does not say.
#[must_use]
pub fn peak_gb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().strip_suffix("kB"))
        .and_then(|value| value.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_limit_counts_and_the_strictest_one_wins() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        let write = |folder: &Path, name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write(&inner, "memory.max", "max\n");
        write(&inner, "memory.current", "10\n");
        assert_eq!(left_in_group(root.path(), Path::new("outer/inner")), None, "no limit is no answer");
        write(&root.path().join("outer"), "memory.max", "1000\n");
        write(&root.path().join("outer"), "memory.current", "700\n");
        write(&root.path().join("outer"), "memory.stat", "anon 400\ninactive_file 250\n");
        assert_eq!(left_in_group(root.path(), Path::new("outer/inner")), Some(550.0));
        write(&inner, "memory.max", "100\n");
        assert_eq!(left_in_group(root.path(), Path::new("outer/inner")), Some(90.0));
    }
}
