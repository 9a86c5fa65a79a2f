//! The upstreams: how each of them does, how busy it is, and which one is asked next.
//!
//! Asks none of them itself. **Architecture Invariant:** an upstream that failed is asked again only where no other is well, until
//! a check has found it well.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{address::Address, models::Found};

/// How an upstream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    /// The last check went well, and no request has failed since.
    Well,
    /// A request or one check failed.
    Doubtful,
    /// Checks fail.
    Down,
}

/// The upstreams, in the order in which they were named.
#[derive(Debug)]
pub(super) struct Pool {
    addresses: Vec<Address>,
    states: Mutex<Vec<State>>,
}

#[derive(Debug, Clone)]
struct State {
    health: Health,
    n_running: usize,
    n_failed: u64,
    /// What it said of its model when it was well.
    found: Option<Found>,
}

/// One upstream, as it stands now.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Where it is.
    pub address: Address,
    /// Whether the last check went well, and no request has failed since.
    pub is_well: bool,
    /// Requests that it has now.
    pub n_running: usize,
    /// Requests that it failed so far, each try counted.
    pub n_failed: u64,
}

/// One request at one upstream. Dropped, it is no longer counted there.
#[derive(Debug)]
pub(super) struct Lease<'p> {
    pool: &'p Pool,
    /// Which upstream.
    pub(super) at: usize,
    /// Its model's name.
    pub(super) model: String,
}

impl Health {
    /// After a check.
    fn checked(self, is_well: bool) -> Self {
        match (self, is_well) {
            (_, true) => Self::Well,
            (Self::Well, false) => Self::Doubtful,
            (Self::Doubtful | Self::Down, false) => Self::Down,
        }
    }
}

impl Pool {
    /// Upstreams of which nothing is known.
    pub(super) fn new(addresses: Vec<Address>) -> Self {
        let state = State { health: Health::Down, n_running: 0, n_failed: 0, found: None };
        let states = vec![state; addresses.len()];
        Self { addresses, states: Mutex::new(states) }
    }

    /// Where they are.
    pub(super) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Where one of them is.
    pub(super) fn address(&self, at: usize) -> &Address {
        self.addresses.get(at).expect("invariant: a lease names an upstream")
    }

    /// Chooses an upstream: the least busy one that is well and has been tried least, `tried` being how often each was.
    pub(super) fn lease(&self, tried: &[u32]) -> Lease<'_> {
        let mut states = self.lock();
        let rank = |at: usize, state: &State| (state.health, tried.get(at).copied().unwrap_or(0), state.n_running);
        let best = states.iter().enumerate().min_by_key(|(at, state)| rank(*at, state)).map_or(0, |(at, _)| at);
        // One that was never reached is asked for the model that the others have.
        let model = |state: &State| state.found.as_ref().map(|found| found.model.clone());
        let known = states.get(best).and_then(model).or_else(|| states.iter().find_map(model));
        if let Some(state) = states.get_mut(best) {
            state.n_running += 1;
        }
        Lease { pool: self, at: best, model: known.unwrap_or_default() }
    }

    /// Whether one is well that has not been tried.
    pub(super) fn has_fresh(&self, tried: &[u32]) -> bool {
        let states = self.lock();
        let mut all = states.iter().enumerate();
        all.any(|(at, state)| state.health == Health::Well && tried.get(at).copied().unwrap_or(0) == 0)
    }

    /// A request failed in a way that says something of its upstream.
    pub(super) fn failed(&self, at: usize) {
        if let Some(state) = self.lock().get_mut(at) {
            state.n_failed += 1;
            state.health = state.health.max(Health::Doubtful);
        }
    }

    /// Notes what a check found; how it did before and does now.
    pub(super) fn checked(&self, at: usize, found: Option<Found>) -> (Health, Health) {
        let mut states = self.lock();
        let Some(state) = states.get_mut(at) else { return (Health::Down, Health::Down) };
        let before = state.health;
        state.health = before.checked(found.is_some());
        if found.is_some() {
            state.found = found;
        }
        (before, state.health)
    }

    /// What each of them said of its model last, in order. One that is down for a while may come back as it was, so that what is
    /// promised for all does not change with it.
    pub(super) fn known(&self) -> Vec<Found> {
        self.lock().iter().filter_map(|state| state.found.clone()).collect()
    }

    /// How each of them stands, in order.
    pub(super) fn standings(&self) -> Vec<Standing> {
        let standing = |(address, state): (&Address, &State)| Standing {
            address: address.clone(),
            is_well: state.health == Health::Well,
            n_running: state.n_running,
            n_failed: state.n_failed,
        };
        self.addresses.iter().zip(self.lock().iter()).map(standing).collect()
    }

    /// How the best of them does.
    pub(super) fn best(&self) -> Health {
        self.lock().iter().map(|state| state.health).min().unwrap_or(Health::Down)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        // Nothing in between can panic.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.pool.lock().get_mut(self.at) {
            state.n_running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(n: usize) -> Pool {
        let address = |at: usize| Address::parse(&format!("http://gpu{at}")).unwrap();
        let pool = Pool::new((0..n).map(address).collect());
        for at in 0..n {
            pool.checked(at, Some(Found { model: format!("model {at}"), context_length: None }));
        }
        pool
    }

    #[test]
    fn the_least_busy_one_is_asked_and_of_equals_the_first() {
        let pool = pool(3);
        let leases = [pool.lease(&[]), pool.lease(&[]), pool.lease(&[]), pool.lease(&[])];
        assert_eq!(leases.each_ref().map(|lease| lease.at), [0, 1, 2, 0]);
        let [first, second, third, fourth] = leases;
        drop(second);
        assert_eq!(pool.lease(&[]).at, 1);
        drop((first, third, fourth));
        assert_eq!(pool.lease(&[]).model, "model 0");
    }

    #[test]
    fn one_that_failed_is_left_out_until_a_check_goes_well() {
        let pool = pool(2);
        pool.failed(0);
        let busy = [pool.lease(&[]), pool.lease(&[])];
        assert_eq!(busy.each_ref().map(|lease| lease.at), [1, 1]);
        drop(busy);
        assert_eq!(pool.checked(0, None), (Health::Doubtful, Health::Down));
        assert_eq!(pool.lease(&[]).at, 1);
        pool.checked(0, Some(Found { model: "new".to_owned(), context_length: None }));
        let lease = pool.lease(&[]);
        assert_eq!((lease.at, lease.model.as_str()), (0, "new"));
    }

    #[test]
    fn where_none_is_well_the_one_that_was_tried_least_is_asked() {
        let pool = pool(2);
        pool.failed(0);
        pool.failed(1);
        assert_eq!(pool.lease(&[1, 0]).at, 1);
        assert_eq!(pool.lease(&[1, 1]).at, 0);
        assert!(!pool.has_fresh(&[0, 0]) && pool.best() == Health::Doubtful);
    }

    #[test]
    fn one_check_that_fails_is_no_proof() {
        let pool = pool(1);
        assert_eq!(pool.checked(0, None), (Health::Well, Health::Doubtful));
        assert_eq!(pool.checked(0, None), (Health::Doubtful, Health::Down));
        assert_eq!(pool.best(), Health::Down);
    }

    #[test]
    fn what_one_said_of_its_model_holds_until_it_says_something_else() {
        let pool = pool(2);
        let names = || pool.known().into_iter().map(|found| found.model).collect::<Vec<_>>();
        pool.checked(0, None);
        pool.checked(0, None);
        assert_eq!(names(), ["model 0", "model 1"]);
        pool.checked(0, Some(Found { model: "new".to_owned(), context_length: None }));
        assert_eq!(names(), ["new", "model 1"]);
    }
}
