//! Which format each tensor takes in memory, and what all of them take together.
//!
//! Pure: it looks at shapes and at what was asked for, never at numbers.

use std::collections::BTreeMap;

use super::{block_format::BlockFormat, checkpoint, config::ModelConfig, format::Format, weights::NumberType};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Precision {
    /// Of what is not quantised; `None` for as it is stored.
    pub number_type: Option<NumberType>,
    /// Of the seven projections of each layer and the head.
    pub quantize: Quantize,
}

/// Bits of a quantised weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quantize {
    /// As they are.
    #[default]
    None,
    /// `Q8_0`: 32 weights with one scale.
    Eight,
    /// `Q4_K`, and `Q6_K` for the head: 256 weights with scales and offsets for each 32, or with scales for each 16.
    Four,
}

/// What a matrix is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// One of a layer's seven projections.
    Projection,
    /// The output projection.
    Head,
}

impl Quantize {
    /// As it is spelled on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Eight => "8",
            Self::Four => "4",
        }
    }
}

impl Precision {
    /// The format of a matrix with rows of `n_columns` numbers that would be held as `natural` unless something else was
    /// asked for: where the rows are no whole number of blocks, the next format whose blocks divide them, or none. Blocks
    /// are not made into larger ones, nor into single numbers.
    #[must_use]
    pub fn format(self, part: Part, n_columns: usize, natural: Format) -> Format {
        let otherwise = match natural {
            Format::Dense(stored) => Format::Dense(self.number_type.unwrap_or(stored)),
            Format::Blocks(_) => natural,
        };
        let candidates: &[BlockFormat] = match (self.quantize, part) {
            (Quantize::None, _) => &[],
            (Quantize::Eight, _) => &[BlockFormat::Q8_0],
            (Quantize::Four, Part::Projection) => &[BlockFormat::Q4K, BlockFormat::Q8_0],
            (Quantize::Four, Part::Head) => &[BlockFormat::Q6K, BlockFormat::Q8_0],
        };
        let row_bytes = |format: Format| format.n_bytes(n_columns as u64);
        let divides = |blocks: &&BlockFormat| n_columns.is_multiple_of(blocks.columns());
        match candidates.iter().find(divides).map(|blocks| Format::Blocks(*blocks)) {
            Some(blocks) if row_bytes(blocks) < row_bytes(natural) => blocks,
            _ => otherwise,
        }
    }

    /// Bytes that a model's weights take in memory, which is also what a decode step reads: all but the embeddings, of
    /// which rows are fetched as they are needed. `natural` says what a tensor would be held in by itself.
    #[must_use]
    pub fn weight_bytes(self, config: &ModelConfig, natural: impl Fn(&str) -> Format) -> u64 {
        self.formats(config, natural).into_values().sum::<u64>()
            + checkpoint::n_norm_parameters(config) * size_of::<f32>() as u64
    }

    /// The format that most of a model's weights are held in, by their bytes.
    #[must_use]
    pub fn main_format(self, config: &ModelConfig, natural: impl Fn(&str) -> Format) -> Format {
        let formats = self.formats(config, natural);
        formats.into_iter().max_by_key(|(_, n_bytes)| *n_bytes).map_or(Format::Dense(NumberType::F32), |(most, _)| most)
    }

    /// Which formats the matrices take, and how many bytes are in each.
    fn formats(self, config: &ModelConfig, natural: impl Fn(&str) -> Format) -> BTreeMap<Format, u64> {
        let mut formats = BTreeMap::new();
        for (name, part, n_rows, n_columns) in checkpoint::matrices(config) {
            let format = self.format(part, n_columns, natural(&name));
            *formats.entry(format).or_default() += format.n_bytes(n_rows as u64 * n_columns as u64);
        }
        formats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bench::shape::Shape;

    fn gb(shape: Shape, quantize: Quantize) -> f64 {
        let precision = Precision { number_type: None, quantize };
        precision.weight_bytes(&shape.config(), |_| Format::Dense(NumberType::Bf16)) as f64 / 1e9
    }

    #[test]
    fn weights_take_what_their_blocks_take() {
        // All but the embeddings of XVERSE-13B: 13,201,607,680 parameters.
        assert!((gb(Shape::B13, Quantize::None) - 26.404).abs() < 1e-3);
        assert!(
            (gb(Shape::B13, Quantize::Eight) - 14.027 - 0.0008).abs() < 1e-3,
            "{}",
            gb(Shape::B13, Quantize::Eight)
        );
        assert!((gb(Shape::B13, Quantize::Four) - 7.559).abs() < 1e-3, "{}", gb(Shape::B13, Quantize::Four));
    }

    #[test]
    fn a_row_that_no_block_divides_takes_the_next_format_or_stays_as_it_is() {
        let half = Format::Dense(NumberType::F16);
        let four = Precision { number_type: None, quantize: Quantize::Four };
        let formats = |n_columns| [Part::Projection, Part::Head].map(|part| four.format(part, n_columns, half));
        assert_eq!(formats(13_824), [BlockFormat::Q4K, BlockFormat::Q6K].map(Format::Blocks));
        assert_eq!(formats(13_824 + 128), [Format::Blocks(BlockFormat::Q8_0); 2]);
        assert_eq!(formats(100), [half; 2]);
        let single = Precision { number_type: Some(NumberType::F32), quantize: Quantize::Eight };
        assert_eq!(single.format(Part::Head, 16, half), Format::Dense(NumberType::F32));
    }

    #[test]
    fn blocks_stay_unless_smaller_ones_are_asked_for() {
        let [six, eight] = [BlockFormat::Q6K, BlockFormat::Q8_0].map(Format::Blocks);
        let precision = |quantize| Precision { number_type: Some(NumberType::F32), quantize };
        assert_eq!(precision(Quantize::None).format(Part::Projection, 512, six), six);
        assert_eq!(precision(Quantize::Eight).format(Part::Projection, 512, six), six);
        assert_eq!(precision(Quantize::Four).format(Part::Projection, 512, eight), Format::Blocks(BlockFormat::Q4K));
        assert_eq!(precision(Quantize::Four).format(Part::Head, 512, six), six);
    }
}
