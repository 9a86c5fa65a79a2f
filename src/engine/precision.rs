//! Which format each tensor takes in memory, and what all of them take together.
//!
//! Pure: it looks at shapes and at what was asked for, never at numbers.

use super::{checkpoint, config::ModelConfig, weights::NumberType};

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

/// How a matrix is held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Each number by itself.
    Dense(NumberType),
    /// Blocks of 32 in 34 bytes.
    Q8_0,
    /// Blocks of 256 in 144 bytes.
    Q4K,
    /// Blocks of 256 in 210 bytes.
    Q6K,
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

impl Format {
    /// Numbers that belong together.
    #[must_use]
    pub fn block_len(self) -> usize {
        match self {
            Self::Dense(_) => 1,
            Self::Q8_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of so many numbers in whole blocks.
    #[must_use]
    pub fn n_bytes(self, n: u64) -> u64 {
        n / self.block_len() as u64
            * match self {
                Self::Dense(number_type) => number_type.n_bytes() as u64,
                Self::Q8_0 => 34,
                Self::Q4K => 144,
                Self::Q6K => 210,
            }
    }

    /// As llama.cpp names it, or as a number type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense(number_type) => number_type.name(),
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }
}

impl Precision {
    /// What weights are held in, for people.
    #[must_use]
    pub fn name(self, stored: NumberType) -> &'static str {
        match self.quantize {
            Quantize::None => self.number_type.unwrap_or(stored).name(),
            Quantize::Eight => "Q8_0",
            Quantize::Four => "Q4_K",
        }
    }

    /// The format of a matrix with rows of `n_columns` numbers that are stored as `stored`: where the rows are no whole
    /// number of blocks, the next format whose blocks divide them, or none.
    #[must_use]
    pub fn format(self, part: Part, n_columns: usize, stored: NumberType) -> Format {
        let dense = Format::Dense(self.number_type.unwrap_or(stored));
        let candidates: &[Format] = match (self.quantize, part) {
            (Quantize::None, _) => &[],
            (Quantize::Eight, _) => &[Format::Q8_0],
            (Quantize::Four, Part::Projection) => &[Format::Q4K, Format::Q8_0],
            (Quantize::Four, Part::Head) => &[Format::Q6K, Format::Q8_0],
        };
        candidates.iter().copied().find(|format| n_columns.is_multiple_of(format.block_len())).unwrap_or(dense)
    }

    /// Bytes that a model's weights take in memory, which is also what a decode step reads: all but the embeddings, of
    /// which rows are fetched as they are needed.
    #[must_use]
    pub fn weight_bytes(self, config: &ModelConfig, stored: NumberType) -> u64 {
        checkpoint::matrices(config)
            .into_iter()
            .map(|(_, part, n_rows, n_columns)| {
                self.format(part, n_columns, stored).n_bytes(n_rows as u64 * n_columns as u64)
            })
            .sum::<u64>()
            + checkpoint::n_norm_parameters(config) * size_of::<f32>() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bench::shape::Shape;

    fn gb(shape: Shape, quantize: Quantize) -> f64 {
        let precision = Precision { number_type: None, quantize };
        precision.weight_bytes(&shape.config(), NumberType::Bf16) as f64 / 1e9
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
        let four = Precision { number_type: None, quantize: Quantize::Four };
        let formats =
            |n_columns| [Part::Projection, Part::Head].map(|part| four.format(part, n_columns, NumberType::F16));
        assert_eq!(formats(13_824), [Format::Q4K, Format::Q6K]);
        assert_eq!(formats(13_824 + 128), [Format::Q8_0; 2]);
        assert_eq!(formats(100), [Format::Dense(NumberType::F16); 2]);
        let single = Precision { number_type: Some(NumberType::F32), quantize: Quantize::Eight };
        assert_eq!(single.format(Part::Head, 16, NumberType::F16), Format::Dense(NumberType::F32));
    }
}
