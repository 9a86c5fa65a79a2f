//! What is wrong with a checkpoint, told in bearable length.
//!
//! It knows kinds of errors, not their reasons. **Architecture Invariant:** of no kind are more than a few kept, however many
//! are found.

use std::{
    collections::HashMap,
    mem::{Discriminant, discriminant},
};

use super::error::CheckpointError;

/// How many of a kind are told one by one.
const MOST_OF_A_KIND: usize = 8;

/// Errors in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Problems {
    kept: Vec<CheckpointError>,
    found: HashMap<Discriminant<CheckpointError>, usize>,
}

impl Problems {
    pub(super) fn push(&mut self, problem: CheckpointError) {
        let found = self.found.entry(discriminant(&problem)).or_default();
        *found += 1;
        if *found <= MOST_OF_A_KIND {
            self.kept.push(problem);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// All that are kept, each kind's last one followed by how many more there are.
    pub(super) fn into_vec(self) -> Vec<CheckpointError> {
        let Self { kept, found } = self;
        let mut told: HashMap<Discriminant<CheckpointError>, usize> = HashMap::new();
        let mut all = Vec::with_capacity(kept.len());
        for problem in kept {
            let kind = discriminant(&problem);
            let n_told = told.entry(kind).or_default();
            *n_told += 1;
            let n_more = found.get(&kind).map_or(0, |found| found.saturating_sub(MOST_OF_A_KIND));
            let is_last = *n_told == MOST_OF_A_KIND && n_more > 0;
            all.push(problem);
            all.extend(is_last.then_some(CheckpointError::More { n: n_more }));
        }
        all
    }
}

impl Extend<CheckpointError> for Problems {
    fn extend<T: IntoIterator<Item = CheckpointError>>(&mut self, problems: T) {
        problems.into_iter().for_each(|problem| self.push(problem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_of_each_kind_are_told_and_how_many_more_there_are() {
        let mut problems = Problems::default();
        assert!(problems.is_empty());
        for shard in 0..1000 {
            problems.push(CheckpointError::ShardMissing { name: shard.to_string() });
        }
        problems.extend([CheckpointError::IndexEmpty { index: "index".to_owned() }]);
        let said: Vec<String> = problems.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), MOST_OF_A_KIND + 2);
        assert!(said[0].contains("there is no 0") && said[7].contains("there is no 7"), "{said:?}");
        assert!(said[8].contains("and 992 more"), "{said:?}");
        assert!(said[9].contains("names no tensor"), "{said:?}");
    }
}
