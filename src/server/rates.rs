//! How often and how much at once one may ask.
//!
//! Knows neither HTTP nor what is asked. Time is monotonic: a clock that jumps lets nobody in or out.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Those who asked longest ago are forgotten beyond so many.
const REMEMBERED: usize = 16_384;

/// So many a minute, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_minute: u32,
    /// At once.
    pub burst: u32,
}

/// Counts what each one asks.
#[derive(Debug)]
pub struct RateLimiter<K> {
    rate: Rate,
    by_key: Mutex<HashMap<K, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// What may still be asked at once.
    left: f64,
    at: Instant,
}

impl<K: Eq + Hash + Clone> RateLimiter<K> {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, by_key: Mutex::default() }
    }

    /// Counts one, where it may be asked.
    ///
    /// # Errors
    /// How long to wait until it may.
    pub fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let per_second = f64::from(self.rate.per_minute) / 60.0;
        let full = f64::from(self.rate.burst);
        let refilled = |bucket: &Bucket| {
            let rested = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.left + rested * per_second).min(full)
        };
        let mut by_key = self.lock();
        if by_key.len() >= REMEMBERED {
            // Whoever could ask as much as one who never did need not be remembered.
            by_key.retain(|_, bucket| refilled(bucket) < full);
        }
        let left = by_key.get(key).map_or(full, refilled);
        let is_allowed = left >= 1.0;
        let left = if is_allowed { left - 1.0 } else { left };
        by_key.insert(key.clone(), Bucket { left, at: now });
        if is_allowed { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - left) / per_second)) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Bucket>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many things each one has at once.
#[derive(Debug)]
pub struct Slots<K> {
    each: usize,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

/// One of somebody's places; dropped, it is free again.
#[derive(Debug)]
pub struct Slot<K: Eq + Hash + Clone> {
    key: K,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Eq + Hash + Clone> Slots<K> {
    /// So many for each.
    #[must_use]
    pub fn new(each: usize) -> Self {
        Self { each, taken: Arc::default() }
    }

    /// Takes one, where there is one left.
    #[must_use]
    pub fn take(&self, key: K) -> Option<Slot<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let n = taken.get(&key).copied().unwrap_or(0);
        if n >= self.each {
            return None;
        }
        taken.insert(key.clone(), n + 1);
        Some(Slot { key, taken: self.taken.clone() })
    }
}

impl<K: Eq + Hash + Clone> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.key) {
            Some(n) if *n > 1 => *n -= 1,
            Some(_) | None => {
                taken.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_one_waits_and_is_told_how_long() {
        let limiter = RateLimiter::new(Rate { per_minute: 30, burst: 3 });
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(limiter.take(&"a", now), Ok(()));
        }
        assert_eq!(limiter.take(&"a", now), Err(Duration::from_secs(2)));
        assert_eq!(limiter.take(&"b", now), Ok(()), "another is not held up");
        assert!(limiter.take(&"a", now + Duration::from_millis(1900)).is_err());
        assert_eq!(limiter.take(&"a", now + Duration::from_millis(2100)), Ok(()));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_lets_nobody_in() {
        let limiter = RateLimiter::new(Rate { per_minute: 60, burst: 1 });
        let before = Instant::now();
        let now = before + Duration::from_secs(10);
        assert_eq!(limiter.take(&1, now), Ok(()));
        assert!(limiter.take(&1, now).is_err() && limiter.take(&1, before).is_err());
    }

    #[test]
    fn a_slot_is_free_again_when_it_is_dropped() {
        let slots = Slots::new(2);
        let (first, second) = (slots.take(1), slots.take(1));
        assert!(first.is_some() && second.is_some() && slots.take(1).is_none());
        assert!(slots.take(2).is_some());
        drop(first);
        assert!(slots.take(1).is_some());
    }
}
