//! The ids that end an answer: mostly one, of some checkpoints a few.
//!
//! It knows no model and no text.

/// The ids that end an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTokens(Vec<u32>);

impl EndTokens {
    /// Whether this id is one of them.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.0.contains(&id)
    }

    /// These, and others.
    #[must_use]
    pub fn and(mut self, others: &[u32]) -> Self {
        for id in others {
            if !self.contains(*id) {
                self.0.push(*id);
            }
        }
        self
    }
}

impl From<u32> for EndTokens {
    fn from(id: u32) -> Self {
        Self(vec![id])
    }
}
