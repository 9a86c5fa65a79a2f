//! Why a GPTQ checkpoint was refused.
//!
//! It owns the words only.

use std::{io, path::PathBuf};

use crate::engine::{checkpoint::stored_type::StoredType, regular_file};

/// Why a GPTQ checkpoint was refused.
#[derive(Debug, thiserror::Error)]
pub enum GptqError {
    /// A configuration cannot be read.
    #[error("{} cannot be read: {source}\nhint: {}", .path.display(), regular_file::hint(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A configuration is too large.
    #[error("{file} has {found} bytes, at most {limit} are expected\nhint: the file is damaged; fetch it again")]
    TooLarge {
        /// The file.
        file: &'static str,
        /// Its size.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// A configuration is not JSON, or has a field of another kind.
    #[error("{file} cannot be understood: {source}\nhint: the file is damaged, or not of a GPTQ checkpoint")]
    Broken {
        /// The file.
        file: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A setting that is not read.
    #[error(
        "{file}: {field} is {found}, expected {expected}\nhint: use the checkpoint in bf16, fp16 or fp32; it is quantised on load"
    )]
    Unsupported {
        /// The file.
        file: &'static str,
        /// The setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// What is taken.
        expected: &'static str,
    },
    /// A tensor of a projection that is not there.
    #[error(
        "{name} has no {part}, expected qweight, qzeros and scales\nhint: the checkpoint is incomplete; fetch it again"
    )]
    Part {
        /// The projection.
        name: String,
        /// What is not there.
        part: &'static str,
    },
    /// A projection that whole words do not fill.
    #[error(
        "{name} has {found} {axis}, expected a multiple of {divisor}\nhint: config.json and the weights are not of the same model"
    )]
    Width {
        /// The projection.
        name: String,
        /// `inputs` or `outputs`.
        axis: &'static str,
        /// How many.
        found: usize,
        /// Integers in a word.
        divisor: usize,
    },
    /// A tensor of another number type.
    #[error(
        "{tensor} has numbers of type {found}, expected I32 for integers and F16, BF16 or F32 for scales\nhint: the file is damaged, or not of a GPTQ checkpoint"
    )]
    NumberType {
        /// The tensor.
        tensor: String,
        /// Its type.
        found: StoredType,
    },
    /// A tensor of another shape.
    #[error(
        "{tensor} has shape {found:?}, expected {expected:?}\nhint: quantize_config.json, config.json and the weights are not of the same model"
    )]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that follows from the configurations.
        expected: Vec<usize>,
    },
    /// Another number of bytes than the shape asks for.
    #[error("{name}.{part} has {found} bytes, expected {expected}\nhint: the file was changed while it was read")]
    Bytes {
        /// The projection.
        name: String,
        /// The part.
        part: &'static str,
        /// How many there are.
        found: usize,
        /// How many follow from the shape.
        expected: usize,
    },
    /// A scale that is no number.
    #[error(
        "{name}: the scale of group {group} and output {output} is {found}, expected a finite number\nhint: the file is damaged; fetch it again"
    )]
    Scale {
        /// The projection.
        name: String,
        /// Its group.
        group: usize,
        /// Its output.
        output: usize,
        /// Its value.
        found: f32,
    },
    /// An input whose group does not exist.
    #[error("{name}: input {input} is in group {found}, expected 0 to {}\nhint: the file is damaged; fetch it again", .n_groups - 1)]
    Group {
        /// The projection.
        name: String,
        /// The input.
        input: usize,
        /// Its group.
        found: i32,
        /// How many there are.
        n_groups: usize,
    },
}
