//! Candidates in descending order, sorted only as far as somebody looks.
//!
//! A vocabulary has a hundred thousand tokens and a draw mostly looks at the first few; the order that comes out is the one
//! that sorting all of them would give.

/// A token with its weight, which is not NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) weight: f64,
}

/// Candidates, heaviest first, of equal ones the lower id first.
#[derive(Debug)]
pub(super) struct Ranking {
    candidates: Vec<Candidate>,
    n_sorted: usize,
}

const FIRST_PART: usize = 64;

impl Ranking {
    pub(super) fn new(candidates: Vec<Candidate>) -> Self {
        Self { candidates, n_sorted: 0 }
    }

    /// The candidate of a rank, from 0.
    pub(super) fn get(&mut self, rank: usize) -> Option<Candidate> {
        if rank >= self.n_sorted {
            self.sort_up_to((rank + 1).max(FIRST_PART).max(self.n_sorted * 4));
        }
        self.candidates.get(rank).copied()
    }

    /// The first `n`, or all where there are fewer.
    pub(super) fn first(&mut self, n: usize) -> &[Candidate] {
        self.sort_up_to(n);
        self.candidates.get(..n).unwrap_or(&self.candidates)
    }

    fn sort_up_to(&mut self, n: usize) {
        let n = n.min(self.candidates.len());
        if n <= self.n_sorted {
            return;
        }
        let n_new = n - self.n_sorted;
        let Some(rest) = self.candidates.get_mut(self.n_sorted..) else { return };
        if n_new < rest.len() {
            rest.select_nth_unstable_by(n_new, before);
        }
        if let Some(new) = rest.get_mut(..n_new) {
            new.sort_unstable_by(before);
        }
        self.n_sorted = n;
    }
}

fn before(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_step_by_step_gives_the_order_of_a_full_sort() {
        let candidates: Vec<Candidate> =
            (0..1000_u32).map(|id| Candidate { id, weight: f64::from(id * 7919 % 251) }).collect();
        let mut sorted = candidates.clone();
        sorted.sort_by(before);
        let mut ranking = Ranking::new(candidates.clone());
        let looked: Vec<Candidate> = (0..1000).map_while(|rank| ranking.get(rank)).collect();
        assert_eq!(looked, sorted);
        assert_eq!(ranking.get(1000), None);
        let mut ranking = Ranking::new(candidates);
        assert_eq!(ranking.first(3), &sorted[..3]);
        assert_eq!(ranking.first(5000), &sorted[..]);
    }

    #[test]
    fn there_may_be_no_candidates() {
        let mut ranking = Ranking::new(Vec::new());
        assert_eq!(ranking.get(0), None);
        assert!(ranking.first(3).is_empty());
    }
}
