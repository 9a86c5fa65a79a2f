//! Why a `.bin` file was refused.
//!
//! It owns the words only. **Architecture Invariant:** whatever the reason, nothing of the file has been carried out.

use std::{io, path::PathBuf};

use crate::engine::regular_file;

/// Why a `.bin` file was refused.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// The file cannot be opened or read.
    #[error("{} cannot be read: {source}\nhint: {}", .path.display(), regular_file::hint(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A pickle without an archive around it.
    #[error(
        "{file} is a bare pickle, expected the zip archive that PyTorch writes since version 1.6\nhint: it was saved by an old PyTorch; load it there with weights_only=True and save it again with torch.save"
    )]
    Legacy {
        /// The file.
        file: String,
    },
    /// Something else.
    #[error(
        "{file} begins with {found:02x?}, expected a zip archive as PyTorch writes it\nhint: this is not a .bin checkpoint, or it is damaged"
    )]
    NotAnArchive {
        /// The file.
        file: String,
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// The end of the archive is not at the end of the file.
    #[error(
        "{file} has {found} bytes and does not end as an archive does\nhint: the file is incomplete or damaged; fetch it again"
    )]
    CutShort {
        /// The file.
        file: String,
        /// Its size.
        found: u64,
    },
    /// The archive's directory cannot be read.
    #[error("{file}: the archive's directory cannot be read: {source}\nhint: the file is damaged; fetch it again")]
    Archive {
        /// The file.
        file: String,
        /// What the reader of archives says.
        source: zip::result::ZipError,
    },
    /// The archive says two things of itself.
    #[error(
        "{file}: {what}, expected an archive as PyTorch writes it\nhint: the file is damaged, or not meant well; fetch it again"
    )]
    Ambiguous {
        /// The file.
        file: String,
        /// What can be read in two ways.
        what: String,
    },
    /// Something is larger than it may be.
    #[error("{file}: {what} is {found}, at most {limit} is expected\nhint: the file is damaged, or not a checkpoint")]
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
    /// The archive has no `data.pkl`, or several.
    #[error(
        "{file}: the archive has {found} records named data.pkl, expected one\nhint: this is an archive, but not one that torch.save wrote"
    )]
    NoPickle {
        /// The file.
        file: String,
        /// How many there are.
        found: usize,
    },
    /// A record that is compressed or encrypted.
    #[error(
        "{file}: the record {record} is compressed or encrypted, expected plain bytes\nhint: the archive was packed anew by another program; fetch the original file"
    )]
    Compressed {
        /// The file.
        file: String,
        /// Its name.
        record: String,
    },
    /// Numbers with the highest byte first.
    #[error(
        "{file}: the byte order is {found:?}, expected \"little\"\nhint: the file was saved on another kind of machine; load it there and save it as safetensors"
    )]
    ByteOrder {
        /// The file.
        file: String,
        /// What the archive says.
        found: String,
    },
    /// A record that is not inside the file.
    #[error(
        "{file}: the record {record} ends at byte {found}, expected {limit} at most\nhint: the file is incomplete or damaged; fetch it again"
    )]
    RecordOutside {
        /// The file.
        file: String,
        /// Its name.
        record: String,
        /// Where it ends.
        found: u64,
        /// Where the archive's directory begins.
        limit: u64,
    },
    /// Two records that share bytes.
    #[error(
        "{file}: the records {first} and {second} overlap, expected each to have bytes of its own\nhint: the file is damaged, or not meant well; fetch it again"
    )]
    RecordsOverlap {
        /// The file.
        file: String,
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
    /// The pickle is not one that only builds tensors.
    #[error("{file}: {problem}")]
    Content {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: PickleProblem,
    },
    /// A tensor whose storage is not in the archive.
    #[error(
        "{file}: {tensor} is in the record data/{record}, which is not there\nhint: the file is damaged; fetch it again"
    )]
    RecordMissing {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The record.
        record: String,
    },
    /// A record of another size than its storage.
    #[error(
        "{file}: {tensor} is in the record data/{record}, which has {found} bytes, expected {expected}\nhint: the file is damaged; fetch it again"
    )]
    RecordSize {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The record.
        record: String,
        /// Its size.
        found: u64,
        /// The size that the pickle says.
        expected: u64,
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
    /// Numbers that do not lie one after the other.
    #[error(
        "{file}: {tensor} of shape {shape:?} has strides {stride:?}, expected its numbers row after row\nhint: call .contiguous() on the tensors and save them again"
    )]
    Strides {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its strides.
        stride: Vec<u64>,
    },
    /// A tensor that reaches out of its storage.
    #[error(
        "{file}: {tensor} has shape {shape:?} and begins at number {offset} of a storage of {storage}, expected it to end inside\nhint: the file is damaged, or not meant well; fetch it again"
    )]
    OutsideStorage {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its first number.
        offset: u64,
        /// Its shape.
        shape: Vec<usize>,
        /// Numbers in the storage.
        storage: u64,
    },
    /// Two tensors that share a part of their numbers.
    #[error(
        "{file}: {first} and {second} share a part of their numbers, expected all of them or none\nhint: call .clone() on the tensors and save them again"
    )]
    TensorsOverlap {
        /// The file.
        file: String,
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
}

/// What is wrong with the pickle in a file.
#[derive(Debug, thiserror::Error)]
pub enum PickleProblem {
    /// It asks for a function or class.
    #[error(
        "data.pkl asks for {name}, expected tensors and nothing else; nothing of it was executed\nhint: a checkpoint must hold tensors only: a file that asks for more can be an attack, do not load it with other programs; where you trust it, save only model.state_dict()"
    )]
    Global {
        /// Module and name.
        name: String,
    },
    /// It has a step that no dictionary of tensors needs.
    #[error(
        "data.pkl has the step {name} at byte {at}, which no dictionary of tensors needs; nothing of it was executed\nhint: a checkpoint must hold tensors only; save only model.state_dict(), with the default pickle protocol"
    )]
    Opcode {
        /// As Python's pickletools calls it.
        name: String,
        /// Where.
        at: usize,
    },
    /// A step does not fit what was built before.
    #[error(
        "data.pkl is broken at byte {at}: {what}; nothing of it was executed\nhint: the file is damaged, or not a checkpoint; fetch it again"
    )]
    Broken {
        /// Where.
        at: usize,
        /// What does not fit.
        what: &'static str,
    },
    /// It builds something too large.
    #[error(
        "data.pkl has more than {limit} {what}; nothing of it was executed\nhint: the file is damaged, or not a checkpoint"
    )]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// It is no dictionary.
    #[error(
        "data.pkl is {found}, expected a dictionary of tensors\nhint: save model.state_dict(), not the model or a training state around it"
    )]
    NotADictionary {
        /// What it is.
        found: &'static str,
    },
    /// An entry is no tensor.
    #[error(
        "data.pkl: {name} is {found}, expected a tensor\nhint: save model.state_dict(), not a training state around it"
    )]
    NotATensor {
        /// The entry.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// A name that comes twice.
    #[error("data.pkl has {name} twice, expected once\nhint: the file is damaged; fetch it again")]
    Duplicate {
        /// The tensor.
        name: String,
    },
    /// One storage, described in two ways.
    #[error(
        "data.pkl describes the storage {key} in two ways, expected one type and size\nhint: the file is damaged, or not meant well; fetch it again"
    )]
    StorageClash {
        /// Its key.
        key: String,
    },
}
