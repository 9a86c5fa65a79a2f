//! The bytes of a pickle, taken one after the other.
//!
//! **Architecture Invariant:** nothing is taken that is not there, and what is taken is borrowed, not copied.

use crate::engine::checkpoint::pickle::error::PickleProblem;

/// What is left of a pickle.
#[derive(Default)]
pub(super) struct Input<'p> {
    bytes: &'p [u8],
    next: usize,
    /// Where the last step or its operand began.
    last: usize,
}

impl<'p> Input<'p> {
    pub(super) fn new(bytes: &'p [u8]) -> Self {
        Self { bytes, next: 0, last: 0 }
    }

    /// Where the last thing that was taken began.
    pub(super) fn last(&self) -> usize {
        self.last
    }

    pub(super) fn take(&mut self, n_bytes: usize) -> Result<&'p [u8], PickleProblem> {
        self.last = self.next;
        let end = self.next.checked_add(n_bytes);
        let Some((end, bytes)) = end.and_then(|end| Some((end, self.bytes.get(self.next..end)?))) else {
            return Err(PickleProblem::Broken { at: self.last, what: "it ends in the middle of a step" });
        };
        self.next = end;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleProblem> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleProblem> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("invariant: as many bytes were taken as were asked for"))
    }

    /// Up to a line's end, which is taken and left out.
    pub(super) fn line(&mut self) -> Result<&'p str, PickleProblem> {
        let rest = self.bytes.get(self.next..).unwrap_or_default();
        let n_bytes = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        let line = self.take(n_bytes)?;
        self.take(1)?;
        str::from_utf8(line).map_err(|_| PickleProblem::Broken { at: self.last, what: "a name that is not UTF-8" })
    }
}

/// A little-endian two's complement number of up to eight bytes.
pub(super) fn signed(bytes: &[u8]) -> Option<i64> {
    let fill = if bytes.last().is_some_and(|&highest| highest & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [fill; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(all))
}

/// Module and name as they may be shown: a hostile file chose them.
pub(super) fn printable(module: &str, name: &str) -> String {
    const SHOWN: usize = 100;
    let shown: String = module.chars().chain(['.']).chain(name.chars()).take(SHOWN).collect();
    shown.escape_debug().to_string()
}
