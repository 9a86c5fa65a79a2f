//! Rows of x, rounded once to eight bits for all the products that they go into.
//!
//! Every 32 numbers share a scale, whatever the format of the weights: finer than the 256 of the k-quants' usual partner
//! and no slower. Knows nothing of weights. A row's numbers depend on nothing but the row.

#![expect(unsafe_code, reason = "vector instructions that are there only on some machines")]

use rayon::{iter::ParallelIterator, slice::ParallelSlice};

use super::layout::UNIT;

/// Rows that lie beside each other and meet a tile of weights together.
pub(super) const GROUP_ROWS: usize = 8;
/// Numbers below which a second thread costs more than it helps.
const SEQUENTIAL_BELOW: usize = 1 << 16;
/// Smaller numbers than this are nothing beside any weight, and their reciprocal would overflow.
const NOTHING: f32 = 1e-30;

/// Rows of x as the kernels take them.
#[derive(Debug, Clone)]
pub struct Activations {
    n_in: usize,
    n_rows: usize,
    groups: Vec<Group>,
}

/// Up to eight rows of x, beside each other for each unit of 32 columns.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) n_rows: usize,
    /// Shape (unit, row, 32).
    pub(super) quants: Vec<i8>,
    /// Shape (unit, row).
    pub(super) scales: Vec<f32>,
    /// The sum of a unit's quants times their scale; shape (unit, row).
    pub(super) sums: Vec<f32>,
    /// -128 times the sum of a unit's quants, which takes the offset of `Q8_0` back, and, shifted, those of `Q4_0` and
    /// `Q5_0`; shape (unit, row).
    pub(super) offsets: Vec<i32>,
    /// -32 times the sum of half a unit's quants, which takes the offset of `Q6_K` back, and, shifted, that
    /// of `Q3_K`; shape (unit, row, 2).
    pub(super) half_offsets: Vec<i32>,
    /// The sums of both halves of a unit's quants; shape (unit, row).
    pub(super) half_sums: Vec<[i16; 2]>,
}

impl Activations {
    /// Rounds the rows of `x`, shape (row, `n_in`); `n_in` is a multiple of 32. A unit with a number that is not finite has
    /// a scale that is none either, so that it shows in all products.
    ///
    /// # Panics
    /// Where `x` is no whole rows or a row is no whole units.
    #[must_use]
    pub fn new(x: &[f32], n_in: usize) -> Self {
        assert!(n_in > 0 && n_in.is_multiple_of(UNIT) && x.len().is_multiple_of(n_in), "rows of whole units");
        let groups = if x.len() < SEQUENTIAL_BELOW {
            x.chunks(GROUP_ROWS * n_in).map(|rows| Group::new(rows, n_in)).collect()
        } else {
            x.par_chunks(GROUP_ROWS * n_in).map(|rows| Group::new(rows, n_in)).collect()
        };
        Self { n_in, n_rows: x.len() / n_in, groups }
    }

    /// Numbers of a row.
    #[must_use]
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// How many rows there are.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The numbers that the rounded ones stand for, shape (row, `n_in`).
    #[must_use]
    pub fn rounded(&self) -> Vec<f32> {
        let mut rows = vec![0.0; self.n_rows * self.n_in];
        for (group, rows) in self.groups.iter().zip(rows.chunks_mut(GROUP_ROWS * self.n_in)) {
            for (index, (quants, scale)) in group.quants.chunks_exact(UNIT).zip(&group.scales).enumerate() {
                let (unit, row) = (index / group.n_rows, index % group.n_rows);
                let to = rows.iter_mut().skip(row * self.n_in + unit * UNIT);
                to.zip(quants).for_each(|(to, quant)| *to = scale * f32::from(*quant));
            }
        }
        rows
    }
}

impl Group {
    fn new(rows: &[f32], n_in: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has the instructions.
            return unsafe { Self::with_avx2(rows, n_in) };
        }
        Self::with_any(rows, n_in)
    }

    /// The same; the compiler uses the instructions, which change no bits.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn with_avx2(rows: &[f32], n_in: usize) -> Self {
        Self::with_any(rows, n_in)
    }

    #[expect(clippy::inline_always, reason = "its caller's instruction set holds only for what is inlined there")]
    #[inline(always)]
    fn with_any(rows: &[f32], n_in: usize) -> Self {
        let (n_rows, n_units) = (rows.len() / n_in, rows.len() / UNIT);
        let mut group = Self {
            n_rows,
            quants: vec![0; rows.len()],
            scales: vec![0.0; n_units],
            sums: vec![0.0; n_units],
            offsets: vec![0; n_units],
            half_offsets: vec![0; 2 * n_units],
            half_sums: vec![[0; 2]; n_units],
        };
        for (row, values) in rows.chunks_exact(n_in).enumerate() {
            let places = (row..).step_by(n_rows);
            for (values, place) in values.as_chunks::<UNIT>().0.iter().zip(places) {
                group.put(place, values);
            }
        }
        group
    }

    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    fn put(&mut self, place: usize, values: &[f32; UNIT]) {
        let (scale, quants) = round(values);
        let half = |half: &[i8]| half.iter().map(|quant| i32::from(*quant)).sum::<i32>();
        let (first, second) = quants.split_at(UNIT / 2);
        let (first, second) = (half(first), half(second));
        self.quants[place * UNIT..(place + 1) * UNIT].copy_from_slice(&quants);
        self.scales[place] = scale;
        self.sums[place] = scale * (first + second) as f32;
        self.offsets[place] = -128 * (first + second);
        self.half_offsets[2 * place..2 * place + 2].copy_from_slice(&[-32 * first, -32 * second]);
        self.half_sums[place] = [first as i16, second as i16];
    }
}

/// The scale and the multiples of it that come next to `values`.
#[expect(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn round(values: &[f32; UNIT]) -> (f32, [i8; UNIT]) {
    // As integers the bits of magnitudes are in order, those that are not finite on top.
    let largest = values.iter().map(|value| value.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return (f32::NAN, [0; UNIT]);
    }
    if largest < NOTHING {
        return (0.0, [0; UNIT]);
    }
    let reciprocal = 127.0 / largest;
    // Beside this number a float has no bits below one: the addition rounds, to even, and leaves the result in the low bits.
    let shift = 12_582_912.0_f32;
    (largest / 127.0, values.map(|value| (value * reciprocal + shift).to_bits() as i8))
}
