//! Why a checkpoint was refused: what was found, what was expected, and what to do.

use std::{io, path::PathBuf};

use super::{
    adapter::error::AdapterError, gguf::error::GgufError, gptq::error::GptqError, pickle::error::PickleError,
    stored_type::StoredType,
};
use crate::engine::regular_file;

/// Why a checkpoint was refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file cannot be opened or read.
    #[error("{} cannot be read: {source}\nhint: {}", .path.display(), regular_file::hint(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder has no weights.
    #[error(
        "there are no weights in {}, expected model.safetensors, pytorch_model.bin, the index of shards of either, or a .gguf file\nhint: the weights lie beside config.json; fetch all files of the checkpoint",
        .dir.display()
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder has weights in another format.
    #[error(
        "the weights are in {found}, expected safetensors, .bin or .gguf files\nhint: this version does not read {format}; fetch the checkpoint as its makers publish it"
    )]
    OtherFormat {
        /// The file.
        found: String,
        /// Of the file.
        format: &'static str,
    },
    /// The index is too large.
    #[error("{index} has {found} bytes, at most {limit} are expected\nhint: the file is damaged; fetch it again")]
    IndexTooLarge {
        /// Its name.
        index: String,
        /// Its size.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// The index is not what an index is.
    #[error("{index} is not a valid index, line {}: {}\nhint: the file is damaged; fetch it again", .source.line(), short(.source))]
    IndexBroken {
        /// Its name.
        index: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The index names no file.
    #[error("{index} names no tensor in weight_map\nhint: the file is damaged; fetch it again")]
    IndexEmpty {
        /// Its name.
        index: String,
    },
    /// The index names a file outside the folder.
    #[error(
        "{index} names the file {name:?}, expected the plain name of a .{extension} file beside it\nhint: a checkpoint whose index leads elsewhere is damaged, or not meant well"
    )]
    ShardName {
        /// Of the index.
        index: String,
        /// That its files have.
        extension: &'static str,
        /// What it names.
        name: String,
    },
    /// A file that the index names is not there.
    #[error("the weights are incomplete: there is no {name}\nhint: fetch all files of the checkpoint")]
    ShardMissing {
        /// Its name.
        name: String,
    },
    /// A link that leads out of the folder.
    #[error("{name} leads to {}, expected a file inside the checkpoint's folder\nhint: copy the file into the folder", .target.display())]
    ShardOutside {
        /// Its name.
        name: String,
        /// Where it leads.
        target: PathBuf,
    },
    /// The index says that a tensor is where it is not.
    #[error(
        "{index} says that {tensor} is in {file}, but it is not\nhint: index and files are not of the same checkpoint"
    )]
    IndexMismatch {
        /// Of the index.
        index: String,
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// A file is cut short, or too long.
    #[error("{file} has {found} bytes, expected {expected}\nhint: the file is incomplete or damaged; fetch it again")]
    FileSize {
        /// Its name.
        file: String,
        /// Its size.
        found: u64,
        /// The size that follows from its header.
        expected: u64,
    },
    /// The file's header has an absurd length.
    #[error(
        "{file}: the header has {found} bytes, expected 2 to {limit}\nhint: this is not a safetensors file, or it is damaged"
    )]
    HeaderLength {
        /// The file.
        file: String,
        /// What its first eight bytes say.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// The file's header is not what a header is.
    #[error("{file}: the header cannot be read: {}\nhint: this is not a safetensors file, or it is damaged", short(.source))]
    HeaderBroken {
        /// The file.
        file: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A tensor's place in its file is not where it must be.
    #[error("{file}: {tensor} lies at bytes {} to {}, expected {} to {}\nhint: the file is damaged; fetch it again", .found.0, .found.1, .expected.0, .expected.1)]
    Offsets {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Begin and end as the header has them.
        found: (u64, u64),
        /// Begin and end that follow from the tensors before and the shape.
        expected: (u64, u64),
    },
    /// A shape whose size no number holds.
    #[error(
        "{file}: {tensor} has shape {shape:?}, which is larger than any memory\nhint: the file is damaged; fetch it again"
    )]
    ShapeOverflow {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor that comes twice.
    #[error(
        "{tensor} is in {first} and again in {second}, expected once\nhint: the files are not of the same checkpoint"
    )]
    Duplicate {
        /// The tensor.
        tensor: String,
        /// The file it was found in.
        first: String,
        /// The file it was found in again; may be the same.
        second: String,
    },
    /// A tensor of another number type.
    #[error(
        "{file}: {tensor} has numbers of type {found}, expected F32, F16 or BF16\nhint: quantised checkpoints are read as GPTQ or GGUF; fetch one of these, or the original one"
    )]
    NumberType {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: StoredType,
    },
    /// A tensor of another shape.
    #[error(
        "{file}: {tensor} has shape {found:?}, expected {expected:?}\nhint: config.json and the weights are not of the same model"
    )]
    Shape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that follows from `config.json`.
        expected: Vec<usize>,
    },
    /// Several files that could be meant.
    #[error(
        "there are {} files with weights in {}: {}\nhint: name the one that is meant: --model_path {}",
        .names.len(), .dir.display(), abridged(.names), .dir.join(&.names[0]).display()
    )]
    Ambiguous {
        /// The folder.
        dir: PathBuf,
        /// Which, at least one.
        names: Vec<String>,
    },
    /// Several files, and nothing says what is in which.
    #[error(
        "there are {} files with weights in {} and no index of them: {}\nhint: fetch the index, too, such as {index}",
        .names.len(), .dir.display(), abridged(.names)
    )]
    NoIndex {
        /// The folder.
        dir: PathBuf,
        /// Which.
        names: Vec<String>,
        /// What it is mostly called.
        index: &'static str,
    },
    /// A training's state in place of weights.
    #[error(
        "there are no weights in {}, only the state of a training with DeepSpeed, expected a model that was saved\nhint: DeepSpeed's zero_to_fp32.py makes weights of it; give the folder that it writes, with config.json and tokenizer.json",
        .dir.display()
    )]
    TrainingState {
        /// The folder.
        dir: PathBuf,
    },
    /// More of what was told before.
    #[error("and {n} more of this kind\nhint: mend these first; the others may go with them")]
    More {
        /// How many.
        n: usize,
    },
    /// Packed by another version of the program.
    #[error(
        "{file} is packed in layout {found}, expected {expected}\nhint: it was made by another version; make it again from the original checkpoint, with convert"
    )]
    Layout {
        /// The file.
        file: String,
        /// What it says.
        found: String,
        /// What this version reads.
        expected: u32,
    },
    /// A GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A GPTQ checkpoint.
    #[error(transparent)]
    Gptq(#[from] GptqError),
    /// A pickled file.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// An adapter, or that it does not fit.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Tensors that are not there.
    #[error("{} of {expected} tensors are missing: {}\nhint: config.json and the weights are not of the same model, or files are missing", .names.len(), abridged(.names))]
    Missing {
        /// Which.
        names: Vec<String>,
        /// How many there should be in all.
        expected: usize,
    },
}

/// The first few names, and whether there are more.
#[must_use]
pub fn abridged(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, …") } else { shown }
}

/// What a parser says, which may quote the file at any length.
fn short(source: &serde_json::Error) -> String {
    const SHOWN: usize = 300;
    source.to_string().chars().take(SHOWN).collect()
}
