//! Keys and values in blocks of fixed size.

/// Positions a block holds.
pub const BLOCK_SIZE: usize = 16;

/// Names a block of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);
