//! Weights written as one safetensors file: packed for the CPU backend where they are quantised, else number by number.
//!
//! What is packed comes first, at multiples of 64 bytes, so that it can be used where it lies. **Architecture Invariant:** the
//! file has its name only when it is whole and on disk.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{layout, place};
use crate::engine::{
    backend::{
        BackendError,
        cpu::quantized::{layout::LAYOUT_VERSION, packing::Packing},
    },
    block_format::BlockFormat,
    config::ModelConfig,
    format::Format,
    precision::Precision,
    weights::{self, NumberType, TensorInfo, Weights, WeightsError},
};

/// The entry of a file's own description with the SHA-256 of its tensors' bytes.
pub const CONTENT_KEY: &str = "xverse_chat_content";
/// The entry that says what the weights were made from.
pub const SOURCE_KEY: &str = "xverse_chat_source";
/// Bytes at whose multiples packed tensors begin.
const ALIGNMENT: usize = 64;
/// Room on the disk that is left to others.
const SPARE_BYTES: u64 = 256 << 20;
/// Bytes that are made before they are written.
const BATCH_BYTES: usize = 64 << 20;

/// Why weights could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk has not that much room.
    #[error(
        "{} has room for {available} bytes, the weights take {expected}\nhint: make room, or choose a folder on another disk",
        .dir.display()
    )]
    Room {
        /// The folder.
        dir: PathBuf,
        /// What there is.
        available: u64,
        /// What is needed.
        expected: u64,
    },
    /// A file cannot be written.
    #[error("{} cannot be written: {source}\nhint: the folder must be one that this program may write to, with room for the weights", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The weights cannot be read or quantised.
    #[error(transparent)]
    Weights(#[from] BackendError),
}

impl From<WeightsError> for WriteError {
    fn from(error: WeightsError) -> Self {
        Self::Weights(error.into())
    }
}

/// A tensor that is to be written.
struct Entry {
    name: String,
    info: TensorInfo,
    shape: Vec<usize>,
    form: Form,
}

/// How it is written.
#[derive(Clone, Copy)]
enum Form {
    Packed(BlockFormat),
    Dense(NumberType),
}

/// What tensors are written in.
#[derive(Debug, Clone, Copy)]
pub struct Formats {
    precision: Precision,
    /// Of embeddings and norms; `None` for what they are stored in.
    others: Option<NumberType>,
}

impl Formats {
    /// For a copy that computes as the weights themselves would.
    #[must_use]
    pub fn kept(precision: Precision) -> Self {
        Self { precision, others: None }
    }

    /// For a checkpoint of its own: where a number type was asked for, everything that is not quantised is in it.
    #[must_use]
    pub fn converted(precision: Precision) -> Self {
        Self { precision, others: precision.number_type }
    }
}

/// Writes all weights of a model in `formats` to `path`, under another name until it is done;
/// `source` is kept as what they were made from. Returns the file's size.
///
/// # Errors
/// [`WriteError`]; then no file of that name was made or replaced.
pub fn write(
    path: &Path,
    weights: &dyn Weights,
    config: &ModelConfig,
    formats: Formats,
    source: &str,
) -> Result<u64, WriteError> {
    let entries = entries(weights, config, formats)?;
    let (header, digest_at) = header(weights, &entries, source)?;
    let n_bytes = header.len() as u64 + total(weights, &entries)?;
    check_room(path, n_bytes)?;
    let partial = partial(path);
    let written = write_all(&partial, weights, &entries, (&header, digest_at));
    if let Err(error) = written.and_then(|()| fs::rename(&partial, path).map_err(|source| unwritable(path, source))) {
        // What is half written is of no use; where it cannot be removed it is overwritten the next time.
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    Ok(n_bytes)
}

/// The name that a file has while it is written.
#[must_use]
pub fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

fn entries(weights: &dyn Weights, config: &ModelConfig, formats: Formats) -> Result<Vec<Entry>, WriteError> {
    let Formats { precision, others } = formats;
    let parts: BTreeMap<String, _> =
        layout::matrices(config).into_iter().map(|(name, part, _, n_columns)| (name, (part, n_columns))).collect();
    let mut entries = Vec::new();
    for (name, shape) in layout::tensors(config) {
        let (n_rows, n_columns) = match *shape {
            [n_rows, n_columns] => (n_rows, n_columns),
            _ => (1, shape.iter().product()),
        };
        let info = weights::expect(weights, &name, n_rows, n_columns)?;
        let other = others.map_or(info.natural, Format::Dense);
        let format = parts.get(&name).map_or(other, |(part, n)| precision.format(*part, *n, info.natural));
        let form = match format {
            Format::Blocks(blocks) if parts.contains_key(&name) => Form::Packed(blocks),
            Format::Dense(number_type) => Form::Dense(number_type),
            // Rows of the embedding table are fetched one by one.
            Format::Blocks(_) => Form::Dense(NumberType::F32),
        };
        entries.push(Entry { name, info, shape, form });
    }
    entries.sort_by_key(|entry| matches!(entry.form, Form::Dense(_)));
    Ok(entries)
}

impl Entry {
    fn n_bytes(&self, weights: &dyn Weights) -> Result<usize, WriteError> {
        Ok(match self.form {
            Form::Packed(blocks) => Packing::new(weights, (&self.name, self.info), blocks)?.n_bytes(),
            Form::Dense(number_type) => self.info.n_rows * self.info.n_columns * number_type.n_bytes(),
        })
    }
}

fn total(weights: &dyn Weights, entries: &[Entry]) -> Result<u64, WriteError> {
    entries.iter().map(|entry| Ok(entry.n_bytes(weights)? as u64)).sum()
}

/// The file's beginning, with zeros where the digest of the rest will be, and where that is.
fn header(weights: &dyn Weights, entries: &[Entry], source: &str) -> Result<(Vec<u8>, usize), WriteError> {
    let placeholder = "0".repeat(64);
    let mut fields = serde_json::Map::new();
    fields.insert(
        "__metadata__".to_owned(),
        json!({
            "format": "pt",
            place::LAYOUT_KEY: LAYOUT_VERSION.to_string(),
            CONTENT_KEY: placeholder,
            SOURCE_KEY: source,
        }),
    );
    let mut begin = 0;
    for entry in entries {
        let n_bytes = entry.n_bytes(weights)?;
        let (name, dtype, shape) = match entry.form {
            Form::Packed(blocks) => (place::packed_name(&entry.name, blocks), "U8", vec![n_bytes]),
            Form::Dense(NumberType::F32) => (entry.name.clone(), "F32", entry.shape.clone()),
            Form::Dense(NumberType::F16) => (entry.name.clone(), "F16", entry.shape.clone()),
            Form::Dense(NumberType::Bf16) => (entry.name.clone(), "BF16", entry.shape.clone()),
        };
        fields.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + n_bytes]}));
        begin += n_bytes;
    }
    let mut json = serde_json::Value::Object(fields).to_string();
    let digest_at = json.find(&placeholder).map_or(0, |at| at + size_of::<u64>());
    // Spaces after the object are part of the format.
    let length = (size_of::<u64>() + json.len()).next_multiple_of(ALIGNMENT) - size_of::<u64>();
    json.push_str(&" ".repeat(length - json.len()));
    let mut header = (length as u64).to_le_bytes().to_vec();
    header.extend_from_slice(json.as_bytes());
    Ok((header, digest_at))
}

fn check_room(path: &Path, n_bytes: u64) -> Result<(), WriteError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    match available(dir) {
        Some(available) if available < n_bytes.saturating_add(SPARE_BYTES) => {
            Err(WriteError::Room { dir: dir.to_owned(), available, expected: n_bytes })
        }
        _ => Ok(()),
    }
}

/// Bytes that the disk under a folder has left, where the system says.
#[must_use]
pub fn available(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn write_all(
    path: &Path,
    weights: &dyn Weights,
    entries: &[Entry],
    (header, digest_at): (&[u8], usize),
) -> Result<(), WriteError> {
    let failed = |source| unwritable(path, source);
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    file.write_all(header).map_err(failed)?;
    let mut digest = Sha256::new();
    for entry in entries {
        write_entry(weights, entry, &mut |bytes| {
            digest.update(bytes);
            file.write_all(bytes).map_err(failed)
        })?;
    }
    let mut file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.seek(SeekFrom::Start(digest_at as u64)).map_err(failed)?;
    file.write_all(hex(&digest.finalize()).as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// Makes a tensor's bytes, some at once by all threads, and puts them out in order.
fn write_entry(
    weights: &dyn Weights,
    entry: &Entry,
    put: &mut dyn FnMut(&[u8]) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let Entry { name, info, form, .. } = entry;
    match *form {
        Form::Packed(blocks) => {
            // Packing again what was packed would round it again.
            if let Some(packed) = weights.packed(name)?.filter(|packed| packed.format() == blocks) {
                return packed.bytes().chunks(BATCH_BYTES).try_for_each(put);
            }
            let packing = Packing::new(weights, (name, *info), blocks)?;
            let pieces_at_once = (BATCH_BYTES / packing.piece_bytes()).max(1);
            let batch_bytes = pieces_at_once * packing.piece_bytes();
            let mut batch = vec![0; batch_bytes.min(packing.n_bytes())];
            for (batch_idx, begin) in (0..packing.n_bytes()).step_by(batch_bytes).enumerate() {
                let batch = &mut batch[..batch_bytes.min(packing.n_bytes() - begin)];
                let first = batch_idx * pieces_at_once;
                let pieces = batch.par_chunks_mut(packing.piece_bytes()).enumerate();
                pieces.try_for_each(|(piece, packed)| packing.pack(first + piece, packed))?;
                put(batch)?;
            }
        }
        Form::Dense(number_type) => {
            let row_bytes = info.n_columns * number_type.n_bytes();
            let rows_at_once = (BATCH_BYTES / row_bytes).clamp(1, info.n_rows);
            let (mut batch, mut buffer, mut numbers) = (vec![0; rows_at_once * row_bytes], Vec::new(), Vec::new());
            for first in (0..info.n_rows).step_by(rows_at_once) {
                let rows = first..(first + rows_at_once).min(info.n_rows);
                let batch = &mut batch[..rows.len() * row_bytes];
                if info.format == Format::Dense(number_type) {
                    weights.read(name, rows, batch)?;
                } else {
                    numbers.resize(rows.len() * info.n_columns, 0.0);
                    weights::read_f32(weights, (name, *info), rows, &mut buffer, &mut numbers)?;
                    number_type.narrow(&numbers, batch);
                }
                put(batch)?;
            }
        }
    }
    Ok(())
}

fn unwritable(path: &Path, source: io::Error) -> WriteError {
    WriteError::Unwritable { path: path.to_owned(), source }
}

/// In hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}
