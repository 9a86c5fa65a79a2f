//! The file that a run leaves behind, so that later ones can be compared with it.
//!
//! Little endian, without gaps. The header: eight bytes of magic; version, vocabulary and context as u32; the number of
//! tokens as u64; the SHA-256 of their ids, each as u32; a length as u32 and so many bytes of text that say what was run.
//! Then, for each token but the first of each window, a [`Record`]: its log-probability as f64, the rest's logarithm as
//! f32, and as many ids as [`n_listed`] says as u32, followed by their log-probabilities as f32. At the end the SHA-256 of
//! all before it. What is in a file follows from its header, and so does its size.
//!
//! **Architecture Invariant:** nothing is allocated by what a header claims before the claim was checked against the
//! file's size; a file has its name only when it is whole and on disk; and nothing is replaced but such a file.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::distribution::{Record, n_listed};
use crate::engine::checkpoint::writer::{available, hex, partial};

const MAGIC: [u8; 8] = *b"xvc-run\n";
const VERSION: u32 = 2;
/// Bytes of a header before the text.
const FIXED_BYTES: usize = 64;
/// Bytes of the digest at the end.
const DIGEST_BYTES: usize = 32;
/// More text than this says no more.
const MOST_MODEL_BYTES: usize = 4096;
/// How far probabilities in f32 may be from summing to one.
const TOLERANCE: f64 = 1e-3;

/// What was run on what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunHeader {
    /// How many token ids there are.
    pub vocab_size: u32,
    /// Tokens of a window.
    pub context: u32,
    /// Tokens of the text.
    pub n_tokens: u64,
    /// Of their ids.
    pub ids_sha256: [u8; 32],
    /// The model and how it was held, for people.
    pub model: String,
}

/// Why a run cannot be kept or compared with.
#[derive(Debug, thiserror::Error)]
pub enum StoredRunError {
    /// The file cannot be read.
    #[error("{} cannot be read: {source}\nhint: --compare names a file that --save wrote", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{} cannot be written: {source}\nhint: --save names a file in a folder that this program may write to", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else is where the file is to be.
    #[error(
        "{} is there already and is {what}, expected nothing or a run that was kept\nhint: --save names a new file, or one that --save wrote", .path.display()
    )]
    Occupied {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The disk has not that much room.
    #[error(
        "{} takes {expected} bytes, there is room for {available}\nhint: make room, or --save on another disk", .path.display()
    )]
    Room {
        /// The file.
        path: PathBuf,
        /// What there is.
        available: u64,
        /// What is needed.
        expected: u64,
    },
    /// Some other file.
    #[error("{} is no run that was kept\nhint: --compare names a file that --save wrote", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Of another layout.
    #[error("{} is of version {found}, expected {VERSION}\nhint: make it again with --save", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
    /// Cut short, or longer than it can be.
    #[error("{} has {found} bytes, its header says {expected}\nhint: it was not copied whole; make it again with --save", .path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// What its header says, or the header's own size where it is cut off.
        expected: u64,
    },
    /// Something in it that no run has.
    #[error("{} is damaged: {what}\nhint: make it again with --save", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The models have not the same tokens.
    #[error(
        "the run in {} has a vocabulary of {stored} tokens, this one of {present}\nhint: only runs with the same tokens can be compared", .path.display()
    )]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// Of the run that was kept.
        stored: u32,
        /// Of this one.
        present: u32,
    },
    /// The text was cut elsewhere.
    #[error(
        "the run in {} has windows of {stored} tokens, this one of {present}\nhint: --context {stored}", .path.display()
    )]
    Context {
        /// The file.
        path: PathBuf,
        /// Of the run that was kept.
        stored: u32,
        /// Of this one.
        present: u32,
    },
    /// Another text, or another tokenizer.
    #[error(
        "the run in {} is of other token ids ({stored}, here {present})\nhint: runs to compare are of the same text, made to tokens by the same tokenizer", .path.display()
    )]
    Tokens {
        /// The file.
        path: PathBuf,
        /// How many it has.
        stored: u64,
        /// How many this one has.
        present: u64,
    },
}

/// The digest of token ids that a header has.
#[must_use]
pub fn digest(ids: &[u32]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for id in ids {
        digest.update(id.to_le_bytes());
    }
    digest.finalize().into()
}

/// How many tokens are scored of so many, in windows of `context`: all but each window's first.
#[must_use]
pub fn n_scored(n_tokens: u64, context: u32) -> u64 {
    n_tokens - n_tokens.div_ceil(u64::from(context.max(1)))
}

fn record_bytes(vocab_size: u32) -> usize {
    size_of::<f64>() + size_of::<f32>() + n_listed(vocab_size as usize) * (size_of::<u32>() + size_of::<f32>())
}

impl RunHeader {
    /// What a file with this header has, where a file can have that much.
    fn file_bytes(&self, model_bytes: usize) -> Option<u64> {
        let records = n_scored(self.n_tokens, self.context).checked_mul(record_bytes(self.vocab_size) as u64)?;
        records.checked_add((FIXED_BYTES + model_bytes + DIGEST_BYTES) as u64)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut model_bytes = self.model.len().min(MOST_MODEL_BYTES);
        while !self.model.is_char_boundary(model_bytes) {
            model_bytes -= 1;
        }
        let mut bytes = MAGIC.to_vec();
        for number in [VERSION, self.vocab_size, self.context] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.n_tokens.to_le_bytes());
        bytes.extend(self.ids_sha256);
        bytes.extend((model_bytes as u32).to_le_bytes());
        bytes.extend(self.model.as_bytes().iter().take(model_bytes));
        bytes
    }
}

/// A run that is kept while it goes on.
#[derive(Debug)]
pub struct RunWriter {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    /// Of what was written so far.
    digest: Sha256,
    is_whole: bool,
}

/// Refuses a path where something is that would be lost.
fn check_free(path: &Path) -> Result<(), StoredRunError> {
    let occupied = |what| Err(StoredRunError::Occupied { path: path.to_owned(), what });
    // A link is not followed: what is renamed takes the link's own place.
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoredRunError::Unwritable { path: path.to_owned(), source }),
        Ok(metadata) if metadata.is_dir() => occupied("a folder"),
        Ok(metadata) if metadata.is_symlink() => occupied("a link"),
        Ok(metadata) if !metadata.is_file() => occupied("no regular file"),
        Ok(metadata) if metadata.len() == 0 || is_run(path) => Ok(()),
        Ok(_) => occupied("another file"),
    }
}

fn is_run(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == MAGIC
}

/// Removes what a run that was broken off has written of the file at `path`.
pub fn discard(path: &Path) {
    let partial = partial(path);
    if check_free(&partial).is_ok() {
        // Where there is none there is nothing to remove.
        let _ = fs::remove_file(partial);
    }
}

impl RunWriter {
    /// Begins a file that will be at `path` when it is whole, with room for `n_records` of a vocabulary of `vocab_size`.
    ///
    /// # Errors
    /// [`StoredRunError::Occupied`], [`StoredRunError::Unwritable`], [`StoredRunError::Room`].
    pub fn create(path: &Path, vocab_size: u32, n_records: u64) -> Result<Self, StoredRunError> {
        let unwritable = |source| StoredRunError::Unwritable { path: path.to_owned(), source };
        let partial = partial(path);
        check_free(path)?;
        check_free(&partial)?;
        let file = BufWriter::new(File::create(&partial).map_err(unwritable)?);
        let writer = Self { path: path.to_owned(), partial, file, digest: Sha256::new(), is_whole: false };
        let expected = n_records.saturating_mul(record_bytes(vocab_size) as u64);
        match writer.partial.parent().and_then(available) {
            Some(available) if available < expected => {
                Err(StoredRunError::Room { path: path.to_owned(), available, expected })
            }
            _ => Ok(writer),
        }
    }

    /// Writes what comes first.
    ///
    /// # Errors
    /// [`StoredRunError::Unwritable`].
    pub fn begin(&mut self, header: &RunHeader) -> Result<(), StoredRunError> {
        self.put(&header.to_bytes()).map_err(|source| self.unwritable(source))
    }

    /// Writes the next position's record.
    ///
    /// # Errors
    /// [`StoredRunError::Unwritable`].
    pub fn write(&mut self, record: &Record) -> Result<(), StoredRunError> {
        let mut put = |bytes: &[u8]| self.put(bytes);
        put(&record.logprob.to_le_bytes())
            .and_then(|()| put(&record.log_rest.to_le_bytes()))
            .and_then(|()| record.ids.iter().try_for_each(|id| put(&id.to_le_bytes())))
            .and_then(|()| record.logprobs.iter().try_for_each(|logprob| put(&logprob.to_le_bytes())))
            .map_err(|source| self.unwritable(source))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`StoredRunError::Unwritable`]; then there is no file.
    pub fn finish(mut self) -> Result<(), StoredRunError> {
        let digest = self.digest.finalize_reset();
        let done = self.put(&digest).and_then(|()| self.file.flush()).and_then(|()| self.file.get_ref().sync_all());
        done.and_then(|()| fs::rename(&self.partial, &self.path)).map_err(|source| self.unwritable(source))?;
        self.is_whole = true;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.file.write_all(bytes)
    }

    fn unwritable(&self, source: io::Error) -> StoredRunError {
        StoredRunError::Unwritable { path: self.path.clone(), source }
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        if !self.is_whole {
            // What is half written is of no use; where it cannot be removed it is overwritten the next time.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// A run that was kept.
#[derive(Debug)]
pub struct RunReader {
    path: PathBuf,
    header: RunHeader,
    file: BufReader<File>,
    /// Of one record.
    buffer: Vec<u8>,
}

impl RunReader {
    /// Opens the file at `path`; then its size is what its header says, and its content what was written. Reads all of it.
    ///
    /// # Errors
    /// [`StoredRunError`], with what was found, what was expected and a hint.
    pub fn open(path: &Path) -> Result<Self, StoredRunError> {
        let unreadable = |source| StoredRunError::Unreadable { path: path.to_owned(), source };
        let damaged = |what| StoredRunError::Damaged { path: path.to_owned(), what };
        // Before it is opened: something that is no file might never end, or never begin.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(StoredRunError::Foreign { path: path.to_owned() });
        }
        let mut file = File::open(path).map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?.len();
        let mut fixed = Vec::with_capacity(FIXED_BYTES);
        (&file).take(FIXED_BYTES as u64).read_to_end(&mut fixed).map_err(unreadable)?;
        if !fixed.starts_with(&MAGIC) {
            return Err(StoredRunError::Foreign { path: path.to_owned() });
        }
        let mut fields = Fields(fixed.get(MAGIC.len()..).unwrap_or_default());
        let cut_off = || StoredRunError::Size { path: path.to_owned(), found, expected: FIXED_BYTES as u64 };
        let version = fields.u32().ok_or_else(cut_off)?;
        if version != VERSION {
            return Err(StoredRunError::Version { path: path.to_owned(), found: version });
        }
        let (header, model_bytes) = fields.header().ok_or_else(cut_off)?;
        if header.vocab_size == 0 || header.context < 2 || model_bytes > MOST_MODEL_BYTES {
            return Err(damaged("its header has sizes that no run has".to_owned()));
        }
        let expected = header.file_bytes(model_bytes);
        let expected = expected.ok_or_else(|| damaged(format!("its header claims {} tokens", header.n_tokens)))?;
        if found != expected {
            return Err(StoredRunError::Size { path: path.to_owned(), found, expected });
        }
        check_content(&mut file, found, path)?;
        let mut model = vec![0; model_bytes];
        file.seek(SeekFrom::Start(FIXED_BYTES as u64)).map_err(unreadable)?;
        file.read_exact(&mut model).map_err(unreadable)?;
        let header = RunHeader { model: String::from_utf8_lossy(&model).into_owned(), ..header };
        let buffer = vec![0; record_bytes(header.vocab_size)];
        Ok(Self { path: path.to_owned(), header, file: BufReader::new(file), buffer })
    }

    /// What was run.
    #[must_use]
    pub fn header(&self) -> &RunHeader {
        &self.header
    }

    /// Refuses to be compared with a run that has not the same tokens in the same windows.
    ///
    /// # Errors
    /// [`StoredRunError`], with what was found, what was expected and a hint.
    pub fn check(&self, present: &RunHeader) -> Result<(), StoredRunError> {
        let (path, stored) = (self.path.clone(), &self.header);
        if stored.vocab_size != present.vocab_size {
            let (stored, present) = (stored.vocab_size, present.vocab_size);
            return Err(StoredRunError::Vocabulary { path, stored, present });
        }
        if (stored.n_tokens, stored.ids_sha256) != (present.n_tokens, present.ids_sha256) {
            let (stored, present) = (stored.n_tokens, present.n_tokens);
            return Err(StoredRunError::Tokens { path, stored, present });
        }
        if stored.context != present.context {
            let (stored, present) = (stored.context, present.context);
            return Err(StoredRunError::Context { path, stored, present });
        }
        Ok(())
    }

    /// The next position's record.
    ///
    /// # Errors
    /// [`StoredRunError::Unreadable`], also at the end; [`StoredRunError::Damaged`].
    pub fn read(&mut self) -> Result<Record, StoredRunError> {
        let unreadable = |source| StoredRunError::Unreadable { path: self.path.clone(), source };
        self.file.read_exact(&mut self.buffer).map_err(unreadable)?;
        let record = Fields(&self.buffer).record(n_listed(self.header.vocab_size as usize));
        let record = record.expect("invariant: the buffer has the bytes of a record");
        match fault(&record, self.header.vocab_size) {
            None => Ok(record),
            Some(what) => Err(StoredRunError::Damaged { path: self.path.clone(), what }),
        }
    }
}

/// Refuses a file of so many bytes whose content is not the one that was written.
fn check_content(file: &mut File, n_bytes: u64, path: &Path) -> Result<(), StoredRunError> {
    let unreadable = |source| StoredRunError::Unreadable { path: path.to_owned(), source };
    let (mut digest, mut expected) = (Sha256::new(), [0; DIGEST_BYTES]);
    file.rewind().map_err(unreadable)?;
    io::copy(&mut file.take(n_bytes.saturating_sub(DIGEST_BYTES as u64)), &mut digest).map_err(unreadable)?;
    file.read_exact(&mut expected).map_err(unreadable)?;
    let found: [u8; DIGEST_BYTES] = digest.finalize().into();
    if found == expected {
        return Ok(());
    }
    let what = format!("its content has the SHA-256 {}, its end says {}", hex(&found), hex(&expected));
    Err(StoredRunError::Damaged { path: path.to_owned(), what })
}

/// What no distribution has.
fn fault(record: &Record, vocab_size: u32) -> Option<String> {
    let mut ids = record.ids.clone();
    ids.sort_unstable();
    if let Some(id) = ids.last().filter(|id| **id >= vocab_size) {
        return Some(format!("it has token {id}, expected one of {vocab_size}"));
    }
    if let Some([id, _]) = ids.array_windows().find(|[id, next]| id == next) {
        return Some(format!("it has token {id} twice at one place"));
    }
    let logprobs = record.logprobs.iter().map(|logprob| f64::from(*logprob));
    let sum: f64 = logprobs.clone().chain([f64::from(record.log_rest)]).map(f64::exp).sum();
    let is_one = (sum - 1.0).abs() < TOLERANCE;
    if !is_one {
        return Some(format!("probabilities at one place sum to {sum}, expected 1"));
    }
    if !(record.logprob.is_finite() && record.logprob < TOLERANCE && logprobs.clone().all(f64::is_finite)) {
        return Some("it has logarithms that no probability has".to_owned());
    }
    let is_sorted = record.logprobs.is_sorted_by(|first, next| first >= next);
    (!is_sorted).then(|| "tokens are not in the order of their probability".to_owned())
}

/// Numbers from the beginning of what is left.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn f32(&mut self) -> Option<f32> {
        self.bytes().map(f32::from_le_bytes)
    }

    /// What follows the version, and how many bytes of text follow that.
    fn header(&mut self) -> Option<(RunHeader, usize)> {
        let (vocab_size, context) = (self.u32()?, self.u32()?);
        let n_tokens = self.bytes().map(u64::from_le_bytes)?;
        let ids_sha256 = self.bytes()?;
        let model_bytes = self.u32()? as usize;
        Some((RunHeader { vocab_size, context, n_tokens, ids_sha256, model: String::new() }, model_bytes))
    }

    fn record(&mut self, n_listed: usize) -> Option<Record> {
        Some(Record {
            logprob: self.bytes().map(f64::from_le_bytes)?,
            log_rest: self.f32()?,
            ids: (0..n_listed).map(|_| self.u32()).collect::<Option<_>>()?,
            logprobs: (0..n_listed).map(|_| self.f32()).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests;
