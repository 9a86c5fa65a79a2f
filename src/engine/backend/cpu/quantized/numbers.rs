//! How the numbers of a unit share the bytes of its vectors: eight groups of two to eight bits a number.
//!
//! Plain code; knows nothing of scales. As many vectors as a number has bits, so that no bit is empty:
//!
//! * Eight bits: eight vectors, one a group.
//! * Four bits: four vectors with group g in the lower and g + 4 in the upper halves of the bytes.
//! * Five bits: a vector with the upper bit of group g in bit g, then the lower four as above.
//! * Six bits: two times a vector with upper bits, those of groups g, g + 4, g + 1 and g + 5 in bits 4-5, 6-7, 0-1 and 2-3,
//!   and two vectors with the lower four, as above.
//! * Two bits: two vectors, each with four groups in a row from the lowest bits on.
//! * Three bits: a vector with the upper bit of group g in bit g, then the lower two as above.

use super::layout::{TILE_ROWS, VECTOR};

/// The numbers of a unit in eight groups of sixteen rows, four columns each.
pub(super) type Groups = [[u8; VECTOR]; 8];
/// The numbers of a row of a unit, four to a word.
pub(super) type Words = [u32; 8];

/// Puts the numbers of a row into vectors that have zeros there.
#[inline]
pub(super) fn put(bits: usize, vectors: &mut [u8], row: usize, words: &Words) {
    match bits {
        2 => put_crumbs(vectors, row, words),
        3 => {
            put_top(2, vectors, row, words);
            put_crumbs(&mut vectors[VECTOR..], row, words);
        }
        4 => put_nibbles(vectors, row, words),
        5 => {
            put_top(4, vectors, row, words);
            put_nibbles(&mut vectors[VECTOR..], row, words);
        }
        6 => put_sixes(vectors, row, words),
        _ => words.iter().zip(vectors.chunks_exact_mut(VECTOR)).for_each(|(word, vector)| put_word(vector, row, *word)),
    }
}

/// The numbers of all rows.
#[inline]
pub(super) fn groups(bits: usize, vectors: &[u8]) -> Groups {
    let mut groups = [[0; VECTOR]; 8];
    match bits {
        2 => add_parts(&mut groups, vectors, crumbs, 0),
        3 => {
            add_parts(&mut groups, vectors, |group| (0, group, 1), 2);
            add_parts(&mut groups, &vectors[VECTOR..], crumbs, 0);
        }
        4 => add_parts(&mut groups, vectors, nibbles, 0),
        5 => {
            add_parts(&mut groups, vectors, |group| (0, group, 1), 4);
            add_parts(&mut groups, &vectors[VECTOR..], nibbles, 0);
        }
        6 => {
            let lower = |group| (group % 4 / 2 * 3 + 1 + group % 2, group / 4 * 4, 4);
            add_parts(&mut groups, vectors, lower, 0);
            let upper = |group| (group % 4 / 2 * 3, (4 + group / 4 * 2 + group % 2 * 4) % 8, 2);
            add_parts(&mut groups, vectors, upper, 4);
        }
        _ => {
            for (group, vector) in groups.iter_mut().zip(vectors.chunks_exact(VECTOR)) {
                group.copy_from_slice(vector);
            }
        }
    }
    groups
}

const FOURS: u32 = 0x0f0f_0f0f;
const TWOS: u32 = 0x0303_0303;
const ONES: u32 = 0x0101_0101;

#[inline]
fn put_crumbs(vectors: &mut [u8], row: usize, words: &Words) {
    for (words, vector) in words.chunks_exact(4).zip(vectors.chunks_exact_mut(VECTOR)) {
        let shifted = words.iter().zip([0, 2, 4, 6]).map(|(word, shift)| (word & TWOS) << shift);
        put_word(vector, row, shifted.fold(0, |all, word| all | word));
    }
}

#[inline]
fn put_nibbles(vectors: &mut [u8], row: usize, words: &Words) {
    let (low, high) = words.split_at(4);
    for ((low, high), vector) in low.iter().zip(high).zip(vectors.chunks_exact_mut(VECTOR)) {
        put_word(vector, row, low & FOURS | (high & FOURS) << 4);
    }
}

/// Bit `bit` of each number, its uppermost.
#[inline]
fn put_top(bit: usize, vector: &mut [u8], row: usize, words: &Words) {
    let tops = words.iter().enumerate().map(|(group, word)| (word >> bit & ONES) << group);
    put_word(vector, row, tops.fold(0, |all, word| all | word));
}

#[inline]
fn put_sixes(vectors: &mut [u8], row: usize, words: &Words) {
    let (first, second) = words.split_at(4);
    let halves = first.chunks_exact(2).zip(second.chunks_exact(2));
    for ((first, second), vectors) in halves.zip(vectors.chunks_exact_mut(3 * VECTOR)) {
        let upper = [first[0], second[0], first[1], second[1]].map(|word| word >> 4 & TWOS);
        put_word(vectors, row, upper[0] << 4 | upper[1] << 6 | upper[2] | upper[3] << 2);
        put_word(&mut vectors[VECTOR..], row, first[0] & FOURS | (second[0] & FOURS) << 4);
        put_word(&mut vectors[2 * VECTOR..], row, first[1] & FOURS | (second[1] & FOURS) << 4);
    }
}

#[inline]
fn put_word(vector: &mut [u8], row: usize, word: u32) {
    vector[4 * row..4 * row + 4].copy_from_slice(&word.to_le_bytes());
}

/// The vector with two bits of a group, the lowest of them, and their number.
fn crumbs(group: usize) -> (usize, usize, usize) {
    (group / 4, group % 4 * 2, 2)
}

/// The vector with four bits of a group, the lowest of them, and their number.
fn nibbles(group: usize) -> (usize, usize, usize) {
    (group % 4, group / 4 * 4, 4)
}

/// Adds some bits of each group, whose places in the vectors `place` gives, from bit `to` of the numbers on.
#[inline]
fn add_parts(groups: &mut Groups, vectors: &[u8], place: impl Fn(usize) -> (usize, usize, usize), to: usize) {
    for (index, group) in groups.iter_mut().enumerate() {
        let (vector, shift, bits) = place(index);
        let mask = (1 << bits) - 1;
        for (number, byte) in group.iter_mut().zip(&vectors[vector * VECTOR..][..4 * TILE_ROWS]) {
            *number |= (byte >> shift & mask) << to;
        }
    }
}
