//! Integers in 32-bit words, the lowest bits first, and ggml's blocks made of them.
//!
//! Pure functions on slices; indices beyond the data read as zero. **Architecture Invariant:** a block's numbers are
//! `(integer - middle) · scale`, without rounding.

use std::ops::Range;

use half::f16;

use super::config::ZeroPoint;

/// Integers of `bits` bits, packed down the columns of a row-major matrix of words.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) bytes: Vec<u8>,
    pub(super) bits: usize,
    pub(super) n_columns: usize,
}

impl Packed {
    /// The integers of some columns, `n_rows` of each, one column after the other.
    pub(super) fn columns(&self, columns: Range<usize>, n_rows: usize, out: &mut [u8]) {
        let words = self.bytes.as_chunks::<4>().0;
        let per_word = 32 / self.bits;
        for (word_idx, words) in words.chunks_exact(self.n_columns).enumerate() {
            let words = words.get(columns.clone()).unwrap_or_default();
            for (word, out) in words.iter().zip(out.chunks_exact_mut(n_rows)) {
                let out = out.get_mut(word_idx * per_word..(word_idx + 1) * per_word).unwrap_or_default();
                unpack(u32::from_le_bytes(*word), self.bits, out);
            }
        }
    }
}

/// Zero points, which are packed along the rows.
pub(super) fn zeros(bytes: &[u8], bits: usize, zero_point: ZeroPoint) -> Vec<u8> {
    let words = bytes.as_chunks::<4>().0;
    let per_word = 32 / bits;
    let mut zeros = vec![0; words.len() * per_word];
    for (word, out) in words.iter().zip(zeros.chunks_mut(per_word)) {
        unpack(u32::from_le_bytes(*word), bits, out);
    }
    if zero_point == ZeroPoint::LessOne {
        let mask = mask(bits) as u8;
        for zero in &mut zeros {
            *zero = zero.wrapping_add(1) & mask;
        }
    }
    zeros
}

/// One block of ggml's `Q8_0` or `Q4_0`: the scale, then the integers.
pub(super) fn block(bits: usize, scale: f16, values: &[u8], out: &mut [u8]) {
    let Some((head, body)) = out.split_first_chunk_mut() else { return };
    *head = scale.to_le_bytes();
    if bits == 8 {
        // Less 128 is the upper bit turned over.
        body.iter_mut().zip(values).for_each(|(out, &value)| *out = value ^ 0x80);
    } else {
        let (low, high) = values.split_at(values.len() / 2);
        body.iter_mut().zip(low.iter().zip(high)).for_each(|(out, (&low, &high))| *out = low | high << 4);
    }
}

fn unpack(word: u32, bits: usize, out: &mut [u8]) {
    for (idx, out) in out.iter_mut().enumerate() {
        *out = (word >> (idx * bits) & mask(bits)) as u8;
    }
}

fn mask(bits: usize) -> u32 {
    (1 << bits) - 1
}
