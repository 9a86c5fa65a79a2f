//! ggml's block formats: some consecutive numbers of a row in a few bytes.
//!
//! Plain facts. What the bytes of a block mean is for those who compute with them.

/// How the numbers of a quantised tensor are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockFormat {
    /// 32 numbers: a scale, four bits each.
    Q4_0,
    /// 32 numbers: a scale and a minimum, four bits each.
    Q4_1,
    /// 32 numbers: a scale, five bits each.
    Q5_0,
    /// 32 numbers: a scale and a minimum, five bits each.
    Q5_1,
    /// 32 numbers: a scale, eight bits each.
    Q8_0,
    /// 256 numbers in sixteen parts with a scale and a minimum, two bits each.
    Q2K,
    /// 256 numbers in sixteen parts with a scale, three bits each.
    Q3K,
    /// 256 numbers in eight parts with a scale and a minimum, four bits each.
    Q4K,
    /// 256 numbers in eight parts with a scale and a minimum, five bits each.
    Q5K,
    /// 256 numbers in sixteen parts with a scale, six bits each.
    Q6K,
}

impl BlockFormat {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Numbers of a block: what the columns of a matrix must be a multiple of.
    #[must_use]
    pub const fn columns(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// The name that ggml and `llama.cpp` have for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}
