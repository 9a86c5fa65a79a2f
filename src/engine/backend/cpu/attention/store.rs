//! Keys or values in memory: rows of one head's numbers, narrowed when they are put in.

use std::io;

use bytemuck::{AnyBitPattern, NoUninit, zeroed_vec};
use half::{bf16, f16};

use crate::engine::{
    backend::cpu::{
        kernel::{element::Element, prefetch},
        large_pages::LargePages,
    },
    kv::BLOCK_SIZE,
};

/// A number type that keys and values are held in.
pub(in crate::engine::backend::cpu) trait Stored:
    Element + AnyBitPattern + NoUninit
{
    /// Whether a row has a scale of its own, by which its numbers are multiplied.
    const HAS_SCALE: bool;

    /// Narrows a row; its scale.
    fn narrow(row: &[f32], to: &mut [Self]) -> f16;

    /// Something that makes a row no numbers.
    fn spoil(to: &mut [Self]) -> f16;
}

/// Rows of `width` numbers each.
pub(super) struct Store<N> {
    numbers: LargePages<N>,
    /// One a row, or none at all.
    scales: Vec<f16>,
    width: usize,
}

impl<N: Stored> Store<N> {
    /// Room for so many rows; the system gives the memory when it is first written.
    ///
    /// # Errors
    /// Where the system does not give even addresses.
    pub(super) fn new(n_rows: usize, width: usize) -> io::Result<Self> {
        let scales = zeroed_vec(if N::HAS_SCALE { n_rows } else { 0 });
        Ok(Self { numbers: LargePages::new(n_rows * width)?, scales, width })
    }

    /// Puts a row in.
    pub(super) fn put(&mut self, row_idx: usize, row: &[f32]) {
        let scale = N::narrow(row, &mut self.numbers.as_mut_slice()[row_idx * self.width..(row_idx + 1) * self.width]);
        if let Some(slot) = self.scales.get_mut(row_idx) {
            *slot = scale;
        }
    }

    /// Makes rows no numbers.
    pub(super) fn poison(&mut self, first: usize, n_rows: usize) {
        let scale = N::spoil(&mut self.numbers.as_mut_slice()[first * self.width..(first + n_rows) * self.width]);
        if N::HAS_SCALE {
            self.scales[first..first + n_rows].fill(scale);
        }
    }

    /// Rows from `first` on, before their scales.
    pub(super) fn rows(&self, first: usize, n_rows: usize) -> &[N] {
        &self.numbers.as_slice()[first * self.width..(first + n_rows) * self.width]
    }

    /// Asks for a block's rows from `first` on before they are read: what belongs together is too short for the processor to
    /// see by itself that it goes on.
    pub(super) fn prefetch(&self, first: usize) {
        let end = ((first + BLOCK_SIZE) * self.width).min(self.numbers.as_slice().len());
        prefetch(&self.numbers.as_slice()[first * self.width..end]);
    }

    /// Multiplies one number a row by the rows' scales.
    pub(super) fn scale(&self, first: usize, numbers: &mut [f32]) {
        if N::HAS_SCALE {
            for (number, scale) in numbers.iter_mut().zip(&self.scales[first..]) {
                *number *= scale.to_f32();
            }
        }
    }
}

impl Stored for f32 {
    const HAS_SCALE: bool = false;

    fn narrow(row: &[f32], to: &mut [Self]) -> f16 {
        to.copy_from_slice(row);
        f16::ONE
    }

    fn spoil(to: &mut [Self]) -> f16 {
        to.fill(f32::NAN);
        f16::ONE
    }
}

impl Stored for bf16 {
    const HAS_SCALE: bool = false;

    fn narrow(row: &[f32], to: &mut [Self]) -> f16 {
        for (to, number) in to.iter_mut().zip(row) {
            *to = Self::from_f32(*number);
        }
        f16::ONE
    }

    fn spoil(to: &mut [Self]) -> f16 {
        to.fill(Self::NAN);
        f16::ONE
    }
}

impl Stored for f16 {
    const HAS_SCALE: bool = false;

    fn narrow(row: &[f32], to: &mut [Self]) -> f16 {
        for (to, number) in to.iter_mut().zip(row) {
            *to = Self::from_f32(*number);
        }
        f16::ONE
    }

    fn spoil(to: &mut [Self]) -> f16 {
        to.fill(Self::NAN);
        f16::ONE
    }
}

impl Stored for i8 {
    const HAS_SCALE: bool = true;

    /// Symmetric: the largest becomes ±127. A row that is no number has a scale that is none, so that it still shows.
    fn narrow(row: &[f32], to: &mut [Self]) -> f16 {
        if row.iter().any(|number| number.is_nan()) {
            return f16::NAN;
        }
        let largest = row.iter().fold(0.0, |largest: f32, number| largest.max(number.abs()));
        let scale = f16::from_f32(largest / 127.0);
        let inverse = if scale > f16::ZERO { scale.to_f32().recip() } else { 0.0 };
        for (to, number) in to.iter_mut().zip(row) {
            *to = (number * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
        }
        scale
    }

    fn spoil(_: &mut [Self]) -> f16 {
        f16::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits_keep_a_row_within_half_a_step() {
        let row: Vec<f32> = (0..64_i16).map(|i| f32::from(i * i % 37 - 18) / 7.0).collect();
        let mut store = Store::<i8>::new(3, 64).unwrap();
        store.put(1, &row);
        let mut scale = [1.0];
        store.scale(1, &mut scale);
        let largest = row.iter().fold(0.0, |largest: f32, number| largest.max(number.abs()));
        assert!((scale[0] * 127.0 / largest - 1.0).abs() < 1e-3);
        for (number, kept) in row.iter().zip(store.rows(1, 1)) {
            assert!((number - f32::from(*kept) * scale[0]).abs() <= scale[0] * 0.51, "{number} {kept}");
        }
        store.put(2, &[0.0; 64]);
        assert_eq!(store.rows(2, 1), [0; 64]);
    }

    #[test]
    fn what_is_no_number_stays_none() {
        fn check<N: Stored>() {
            let mut store = Store::<N>::new(2, 8).unwrap();
            let read = |store: &Store<N>, row: usize| {
                let mut scale = [1.0];
                store.scale(row, &mut scale);
                store.rows(row, 1).iter().map(|number| number.widen() * scale[0]).collect::<Vec<_>>()
            };
            store.put(0, &[1.0; 8]);
            assert!(read(&store, 0).iter().all(|number| (number - 1.0).abs() < 1e-3));
            store.put(1, &[1.0, f32::NAN, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
            assert!(read(&store, 1)[1].is_nan());
            store.poison(0, 1);
            assert!(read(&store, 0).iter().all(|number| number.is_nan()));
        }
        check::<f32>();
        check::<f16>();
        check::<bf16>();
        check::<i8>();
    }
}
