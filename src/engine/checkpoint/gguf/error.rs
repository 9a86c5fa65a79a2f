//! Why a GGUF file was refused.
//!
//! It owns the words only.

use std::{io, path::PathBuf};

use crate::engine::regular_file;

/// Why a GGUF file was refused.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be opened or read.
    #[error("{} cannot be read: {source}\nhint: {}", .path.display(), regular_file::hint(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else.
    #[error("{file} begins with {found:02x?}, expected \"GGUF\"\nhint: this is not a GGUF file, or it is damaged")]
    Magic {
        /// The file.
        file: String,
        /// Its first bytes.
        found: [u8; 4],
    },
    /// Another version, or the highest byte first.
    #[error(
        "{file} has version {found} of the format, expected 2 or 3, little endian\nhint: convert the model again with a current llama.cpp, on a little-endian machine"
    )]
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
    },
    /// The file ends inside its header.
    #[error(
        "{file} has {found} bytes and ends inside its header, which asks for {expected} at least\nhint: the file is incomplete or damaged; fetch it again"
    )]
    CutShort {
        /// The file.
        file: String,
        /// Its size.
        found: u64,
        /// Where what is being read would end.
        expected: u64,
    },
    /// Something is larger than it may be.
    #[error(
        "{file}: {what} is {found}, at most {limit} is expected\nhint: the file is damaged, or not of an XVERSE model"
    )]
    TooLarge {
        /// The file.
        file: String,
        /// What.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// A text that is none.
    #[error("{file}: {what} at byte {at} is not UTF-8\nhint: the file is damaged; fetch it again")]
    Text {
        /// The file.
        file: String,
        /// What should be a text.
        what: &'static str,
        /// Where it is.
        at: u64,
    },
    /// A kind of value that does not exist.
    #[error(
        "{file}: {key} has a value of kind {found}, expected 0 to 12, and no lists of lists\nhint: the file is damaged, or of a newer version"
    )]
    ValueKind {
        /// The file.
        file: String,
        /// The entry.
        key: String,
        /// Its kind.
        found: u32,
    },
    /// A value of another kind than is expected.
    #[error("{file}: {key} is {found}, expected {expected}\nhint: the file is damaged, or not of an XVERSE model")]
    Value {
        /// The file.
        file: String,
        /// The entry.
        key: String,
        /// Its value.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// An entry that is needed is not there, or is there twice.
    #[error("{file} has {found} entries {key}, expected one\nhint: the file is damaged, or not of an XVERSE model")]
    Entry {
        /// The file.
        file: String,
        /// The entry.
        key: String,
        /// How many there are.
        found: usize,
    },
    /// Another architecture.
    #[error(
        "{file} is a model of the architecture {found:?}, expected \"xverse\" or \"llama\"\nhint: only XVERSE models, which have the LLaMA architecture, are supported"
    )]
    Architecture {
        /// The file.
        file: String,
        /// Its architecture.
        found: String,
    },
    /// Something that the engine does not compute.
    #[error(
        "{file}: {key} is {found}, which is {what}\nhint: only dense models with plain rotary positions are supported"
    )]
    Unsupported {
        /// The file.
        file: String,
        /// The entry.
        key: String,
        /// Its value.
        found: String,
        /// What it means.
        what: &'static str,
    },
    /// One part of several.
    #[error(
        "{file} is one of {found} parts of a model, expected one file\nhint: join them with llama.cpp's llama-gguf-split --merge"
    )]
    Split {
        /// The file.
        file: String,
        /// How many parts there are.
        found: u64,
    },
    /// A tensor that has no place in the model.
    #[error(
        "{file} has a tensor {tensor:?}, which an XVERSE model does not have\nhint: only XVERSE models, which have the LLaMA architecture without biases or experts, are supported"
    )]
    UnknownTensor {
        /// The file.
        file: String,
        /// Its name in the file.
        tensor: String,
    },
    /// A tensor that comes twice.
    #[error("{file} has the tensor {tensor} twice, expected once\nhint: the file is damaged; fetch it again")]
    Duplicate {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// A number type that is not read.
    #[error(
        "{file}: {tensor} has numbers of ggml's type {found}, expected F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 or Q2_K to Q6_K\nhint: fetch the model in one of these formats"
    )]
    NumberType {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The number of its type.
        found: u32,
    },
    /// A shape that is none, or whose rows are not filled by whole blocks.
    #[error(
        "{file}: {tensor} has shape {shape:?}, expected one to four axes and rows of whole blocks\nhint: the file is damaged; fetch it again"
    )]
    Shape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its shape, the longest step first.
        shape: Vec<u64>,
    },
    /// A tensor that is not inside the file.
    #[error(
        "{file}: {tensor} ends at byte {expected}, but the file has {found}\nhint: the file is incomplete or damaged; fetch it again"
    )]
    Outside {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The file's size.
        found: u64,
        /// Where the tensor would end; the largest number where no number holds it.
        expected: u64,
    },
    /// A tensor that begins where none may.
    #[error(
        "{file}: {tensor} begins at byte {found} of the data, expected a multiple of {alignment}\nhint: the file is damaged; fetch it again"
    )]
    Unaligned {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Where it begins.
        found: u64,
        /// What must divide that.
        alignment: u64,
    },
    /// Two tensors that share bytes.
    #[error(
        "{file}: {first} and {second} overlap, expected each to have bytes of its own\nhint: the file is damaged, or not meant well; fetch it again"
    )]
    Overlap {
        /// The file.
        file: String,
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
}
