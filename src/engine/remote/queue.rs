//! Who is sent to the upstreams and who waits, in the order of their coming.
//!
//! Knows no upstreams and no texts. **Architecture Invariant:** a place is given back by dropping its [`Ticket`], whether it was
//! ever used or not.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::engine::{request::SubmitError, stats::EngineStats};

/// The queue before the upstreams.
#[derive(Debug)]
pub(super) struct Queue {
    line: Mutex<Line>,
    max_running: usize,
    max_waiting: usize,
    stats: Arc<EngineStats>,
}

#[derive(Debug, Default)]
struct Line {
    running: usize,
    waiting: VecDeque<(u64, watch::Sender<u32>)>,
    next: u64,
}

/// A place in the queue, or among those that run.
#[derive(Debug)]
pub(super) struct Ticket {
    queue: Arc<Queue>,
    number: u64,
    /// 0 for one that runs.
    place: watch::Receiver<u32>,
}

impl Queue {
    /// An empty queue.
    pub(super) fn new(max_running: usize, max_waiting: usize, stats: Arc<EngineStats>) -> Arc<Self> {
        Arc::new(Self { line: Mutex::default(), max_running, max_waiting, stats })
    }

    /// Takes a place, where there is one.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Ticket, SubmitError> {
        let mut line = self.lock();
        let waits = line.running >= self.max_running;
        if waits && line.waiting.len() >= self.max_waiting {
            self.stats.rejected.add(1);
            return Err(SubmitError::QueueFull { waiting: line.waiting.len(), limit: self.max_waiting });
        }
        let number = line.next;
        line.next += 1;
        let (sender, place) = watch::channel(if waits { line.waiting.len() as u32 + 1 } else { 0 });
        if waits {
            line.waiting.push_back((number, sender));
        } else {
            line.running += 1;
        }
        self.count(&line);
        drop(line);
        Ok(Ticket { queue: self.clone(), number, place })
    }

    fn leave(&self, number: u64) {
        let mut line = self.lock();
        match line.waiting.iter().position(|(waiting, _)| *waiting == number) {
            Some(at) => {
                line.waiting.remove(at);
            }
            None => line.running -= 1,
        }
        while line.running < self.max_running {
            let Some((_, next)) = line.waiting.pop_front() else { break };
            next.send_replace(0);
            line.running += 1;
        }
        for (before, (_, place)) in line.waiting.iter().enumerate() {
            let now = before as u32 + 1;
            place.send_if_modified(|place| std::mem::replace(place, now) != now);
        }
        self.count(&line);
    }

    fn count(&self, line: &Line) {
        self.stats.running.set(line.running as u64);
        self.stats.waiting.set(line.waiting.len() as u64);
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // Nothing in between can panic.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Waits until it is its turn; `tell` hears its place now and whenever that changes.
    pub(super) async fn turn(&mut self, mut tell: impl FnMut(u32)) {
        loop {
            match *self.place.borrow_and_update() {
                0 => return,
                place => tell(place),
            }
            if self.place.changed().await.is_err() {
                // It was taken out of the line with its turn, which was written before.
                return;
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queue.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn queue(max_running: usize, max_waiting: usize) -> Arc<Queue> {
        Queue::new(max_running, max_waiting, Arc::default())
    }

    /// The places that are told, and whether its turn has come.
    fn look(ticket: &mut Ticket) -> (Vec<u32>, bool) {
        let mut places = Vec::new();
        let has_come = ticket.turn(|place| places.push(place)).now_or_never().is_some();
        (places, has_come)
    }

    #[test]
    fn whoever_came_first_goes_first_and_the_others_are_told_their_places() {
        let queue = queue(1, 3);
        let mut first = queue.enter().unwrap();
        let mut others = [queue.enter().unwrap(), queue.enter().unwrap(), queue.enter().unwrap()];
        assert_eq!(look(&mut first), (vec![], true));
        assert_eq!(others.each_mut().map(look), [(vec![1], false), (vec![2], false), (vec![3], false)]);
        assert_eq!(queue.enter().unwrap_err(), SubmitError::QueueFull { waiting: 3, limit: 3 });
        drop(first);
        assert_eq!(others.each_mut().map(look), [(vec![], true), (vec![1], false), (vec![2], false)]);
        let [running, waiting, mut last] = others;
        drop(waiting);
        assert_eq!(look(&mut last), (vec![1], false), "one before it gave up");
        assert_eq!((queue.stats.running.get(), queue.stats.waiting.get(), queue.stats.rejected.get()), (1, 1, 1));
        drop(running);
        assert_eq!(look(&mut last), (vec![], true));
        drop(last);
        assert_eq!((queue.stats.running.get(), queue.stats.waiting.get()), (0, 0));
    }

    #[test]
    fn a_place_that_was_given_and_never_looked_at_is_given_on() {
        let queue = queue(1, 2);
        let (first, second, mut third) = (queue.enter().unwrap(), queue.enter().unwrap(), queue.enter().unwrap());
        drop(first);
        drop(second);
        assert_eq!(look(&mut third), (vec![], true));
    }

    #[test]
    fn nobody_waits_where_nobody_may() {
        let queue = queue(2, 0);
        let both = [queue.enter().unwrap(), queue.enter().unwrap()];
        assert!(queue.enter().is_err());
        drop(both);
        assert!(queue.enter().is_ok());
    }
}
