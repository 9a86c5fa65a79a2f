//! The order of rows of queries and keys.
//!
//! llama.cpp turns neighbouring numbers of a head together, Hugging Face's models turn one of the first half with one of the
//! second, so the converter moves the rows of these two projections. **Architecture Invariant:** [`HeadPermutation`] is a
//! permutation inside each head.

use crate::engine::config::ModelConfig;

/// Where the rows of a projection of queries or keys are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadPermutation {
    n_heads: usize,
    head_dim: usize,
}

impl HeadPermutation {
    /// For `n_heads` heads of `head_dim` rows each, an even number above 0.
    #[must_use]
    pub fn new(n_heads: usize, head_dim: usize) -> Self {
        Self { n_heads, head_dim: head_dim.max(2).next_multiple_of(2) }
    }

    /// For the tensor that Hugging Face calls `name`; `None` where rows are in order.
    #[must_use]
    pub fn of(name: &str, config: &ModelConfig) -> Option<Self> {
        if name.ends_with(".self_attn.q_proj.weight") {
            Some(Self::new(config.num_attention_heads, config.head_dim))
        } else if name.ends_with(".self_attn.k_proj.weight") {
            Some(Self::new(config.num_key_value_heads, config.head_dim))
        } else {
            None
        }
    }

    /// Rows in all.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// The stored row that is row `row` of Hugging Face's projection.
    #[must_use]
    pub fn stored_row(&self, row: usize) -> usize {
        let half = self.head_dim / 2;
        let (head, in_head) = (row / self.head_dim, row % self.head_dim);
        head * self.head_dim + 2 * (in_head % half) + in_head / half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `reshape(n_head, 2, dim / 2, in).swapaxes(1, 2)` of the numbers 0, 1, 2, … as rows.
    fn converted(n_heads: usize, head_dim: usize) -> Vec<usize> {
        let mut stored = Vec::new();
        for head in 0..n_heads {
            for pair in 0..head_dim / 2 {
                for half in 0..2 {
                    stored.push((head * 2 + half) * (head_dim / 2) + pair);
                }
            }
        }
        stored
    }

    #[test]
    fn rows_come_back_in_their_order() {
        for (n_heads, head_dim) in [(1, 2), (4, 8), (2, 8), (40, 128), (3, 6)] {
            let stored = converted(n_heads, head_dim);
            let order = HeadPermutation::new(n_heads, head_dim);
            let read: Vec<usize> = (0..order.n_rows()).map(|row| stored[order.stored_row(row)]).collect();
            assert_eq!(read, (0..n_heads * head_dim).collect::<Vec<_>>());
        }
    }
}
