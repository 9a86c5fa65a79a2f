//! Places for connections: so many in all, and so many for one address.
//!
//! Knows addresses and no sockets. **Architecture Invariant:** a place is free again as soon as its [`Place`] is dropped.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// All places.
#[derive(Debug)]
pub struct Places {
    taken: Arc<Mutex<Taken>>,
    in_all: usize,
    per_address: usize,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One place, taken.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    counted: IpAddr,
}

impl Places {
    /// So many places.
    pub fn new(in_all: usize, per_address: usize) -> Self {
        Self { taken: Arc::default(), in_all, per_address }
    }

    /// Takes a place for this peer, where there is one. This machine itself is bounded by the places in all only: a proxy
    /// that stands here brings everybody's connections.
    pub fn take(&self, peer: IpAddr) -> Option<Place> {
        let counted = counted_as(peer);
        let mut taken = lock(&self.taken);
        let of_this = taken.by_address.get(&counted).copied().unwrap_or_default();
        let is_bounded = !peer.is_loopback();
        if taken.in_all >= self.in_all || (is_bounded && of_this >= self.per_address) {
            return None;
        }
        taken.in_all += 1;
        taken.by_address.insert(counted, of_this + 1);
        Some(Place { taken: self.taken.clone(), counted })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.in_all -= 1;
        if let Some(of_this) = taken.by_address.get_mut(&self.counted) {
            *of_this -= 1;
            if *of_this == 0 {
                taken.by_address.remove(&self.counted);
            }
        }
    }
}

/// Whoever has an IPv6 address has as a rule all 2^64 of that network, so these are one.
fn counted_as(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(places: &Places, peer: &str, n: usize) -> Vec<Option<Place>> {
        (0..n).map(|_| places.take(peer.parse().unwrap())).collect()
    }

    #[test]
    fn the_65th_connection_of_an_address_and_the_513th_in_all_have_no_place() {
        let places = Places::new(512, 64);
        let mut held = all(&places, "192.0.2.1", 65);
        assert!(held[63].is_some() && held[64].is_none());
        for last in 2..=8 {
            held.extend(all(&places, &format!("192.0.2.{last}"), 64));
        }
        assert_eq!(held.iter().flatten().count(), 512);
        assert!(places.take("192.0.2.99".parse().unwrap()).is_none());
        drop(held.swap_remove(0));
        assert!(places.take("192.0.2.1".parse().unwrap()).is_some(), "a place that was given up is there again");
    }

    #[test]
    fn this_machine_is_bounded_by_the_places_in_all_only() {
        let places = Places::new(100, 2);
        for peer in ["127.0.0.1", "::1"] {
            assert_eq!(all(&places, peer, 50).iter().flatten().count(), 50, "{peer}");
        }
        let held = all(&places, "127.0.0.1", 101);
        assert_eq!(held.iter().flatten().count(), 100);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_counted_as_one() {
        let places = Places::new(100, 2);
        let held = [all(&places, "2001:db8::1", 1), all(&places, "2001:db8::ffff:1", 1)];
        assert!(held.iter().flatten().all(Option::is_some));
        assert!(places.take("2001:db8::2".parse().unwrap()).is_none());
        assert!(places.take("2001:db8:0:1::2".parse().unwrap()).is_some());
    }

    #[test]
    fn nothing_is_kept_of_an_address_that_has_gone() {
        let places = Places::new(100, 2);
        drop(all(&places, "192.0.2.1", 3));
        let taken = lock(&places.taken);
        assert!(taken.by_address.is_empty() && taken.in_all == 0);
    }
}
