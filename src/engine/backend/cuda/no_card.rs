//! What stands for cards in a program that was built without.

use super::{card_error::CardError, device::Device};

/// Whether this program was built for cards.
pub const IS_BUILT: bool = false;

/// There is none.
///
/// # Errors
/// [`CardError::NotBuilt`].
pub fn open(index: usize) -> Result<Box<dyn Device>, CardError> {
    Err(CardError::NotBuilt { index })
}
