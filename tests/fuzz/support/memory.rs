//! How much memory a piece of work takes, counted at the allocator.
//!
//! Each thread counts for itself, so that tests beside each other don't disturb the count. Invariant: what is measured is
//! the work's own peak, whatever was there before.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator with a count. What measures must make it the `#[global_allocator]`.
pub struct Counting;

thread_local! {
    /// Bytes that this thread took and did not give back. Below zero where it frees what others took.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // At the end of a thread there may be nothing left to count in.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

#[expect(unsafe_code, reason = "an allocator cannot be written otherwise")]
// SAFETY: every call is handed on as it is, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // While it grows there may be two of it.
        count(new_size.cast_signed());
        count(-layout.size().cast_signed());
        unsafe { System.realloc(place, layout, new_size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        unsafe { System.dealloc(place, layout) }
    }
}

/// Does the work, and says how many bytes it held at most.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let outcome = work();
    (outcome, usize::try_from(PEAK.get() - before).unwrap_or_default())
}

/// Does the work and holds it to ten times what it was given and a MiB.
///
/// # Panics
/// Where it takes more.
pub fn within_reason<T>(n_given: usize, work: impl FnOnce() -> T) -> T {
    let (outcome, peak) = peak_of(work);
    let limit = 10 * n_given + (1 << 20);
    assert!(peak <= limit, "{n_given} bytes made it take {peak} bytes of memory, at most {limit} were expected");
    outcome
}
