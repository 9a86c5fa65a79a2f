//! Arbitrary bytes as a row of choices.
//!
//! Knows nothing of what is chosen. Invariant: it never runs out; behind the last byte every choice is the first.

/// What is left to choose by.
#[derive(Debug, Clone, Copy)]
pub struct Choices<'data> {
    rest: &'data [u8],
}

impl<'data> Choices<'data> {
    /// Chooses by these bytes.
    #[must_use]
    pub fn new(data: &'data [u8]) -> Self {
        Self { rest: data }
    }

    /// Whether every byte has been used.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// A number of two bytes.
    pub fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// One of several.
    pub fn of<T: Copy>(&mut self, several: &[T]) -> T {
        several[usize::from(self.byte()) % several.len()]
    }

    /// The next bytes, fewer at the end.
    pub fn bytes(&mut self, n: usize) -> &'data [u8] {
        let (bytes, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// A text that is up to 255 bytes long.
    pub fn text(&mut self) -> String {
        let n = usize::from(self.byte());
        String::from_utf8_lossy(self.bytes(n)).into_owned()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'data [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// A number that every byte has a part in: for choices beside the data, such as where to divide it.
#[must_use]
pub fn mixed(data: &[u8]) -> u64 {
    data.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}
