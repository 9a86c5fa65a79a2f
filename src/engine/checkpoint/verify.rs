//! Whether the numbers in a checkpoint's files are whole, which headers do not tell.
//!
//! Reads every byte, some of them twice. **Architecture Invariant:** only what was compared with something is called right.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{layout, pickle, safetensors_file, shards, writer};
use crate::engine::{
    config::ModelConfig,
    regular_file,
    weights::{self, Weights, WeightsError},
};

/// What was found out about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its name.
    pub name: String,
    /// SHA-256 of all of it, in hexadecimal.
    pub sha256: String,
    /// What it was compared with and matched; `None` where there is nothing to compare with.
    pub matches: Option<&'static str>,
}

/// Why a checkpoint is not whole.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read to its end.
    #[error("{} cannot be read: {source}\nhint: {}", .path.display(), regular_file::hint(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is in a file is not what was put there.
    #[error(
        "{name}: {what} is {found}, expected {expected}\nhint: the file is damaged; fetch it again, or make it again where it was made here"
    )]
    Damaged {
        /// The file.
        name: String,
        /// What was compared.
        what: &'static str,
        /// What was found.
        found: String,
        /// What was promised.
        expected: String,
    },
    /// A record of a pickled file.
    #[error("{name}: a record cannot be read: {source}\nhint: the file is damaged; fetch it again")]
    Record {
        /// The file.
        name: String,
        /// What the reader of archives says.
        source: io::Error,
    },
    /// A tensor with numbers that are none.
    #[error(
        "{tensor} has {found} numbers that are not finite, expected none\nhint: the file is damaged, or training went wrong"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// How many.
        found: usize,
    },
    /// A tensor that cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

const READ_AT_ONCE: usize = 1 << 20;
const NUMBERS_AT_ONCE: usize = 1 << 22;

/// Hashes the files of the checkpoint at `path` and compares with what is known of them: the name that a download cache
/// gave them, the checksums of an archive, the hash in a file that `convert` wrote.
///
/// # Errors
/// All that is damaged.
pub fn files(path: &Path) -> Result<Vec<Verified>, Vec<VerifyError>> {
    let Ok(shards) = shards::find(path) else { return Ok(Vec::new()) };
    let (mut verified, mut problems) = (Vec::new(), Vec::new());
    for path in &shards.paths {
        match file(path) {
            Ok(one) => verified.push(one),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(verified) } else { Err(problems) }
}

/// Reads all weights and looks for numbers that are none.
///
/// # Errors
/// All tensors that have some.
pub fn numbers(weights: &dyn Weights, config: &ModelConfig) -> Result<(), Vec<VerifyError>> {
    let problems: Vec<VerifyError> =
        layout::tensors(config).iter().filter_map(|(name, _)| tensor(weights, name).err()).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn tensor(weights: &dyn Weights, name: &str) -> Result<(), VerifyError> {
    let Some(info) = weights.info(name) else { return Ok(()) };
    let rows_at_once = (NUMBERS_AT_ONCE / info.n_columns).max(1);
    let (mut buffer, mut numbers, mut found) = (Vec::new(), Vec::new(), 0);
    for first in (0..info.n_rows).step_by(rows_at_once) {
        let rows = first..(first + rows_at_once).min(info.n_rows);
        numbers.resize(rows.len() * info.n_columns, 0.0);
        weights::read_f32(weights, (name, info), rows, &mut buffer, &mut numbers)?;
        found += numbers.iter().filter(|number| !number.is_finite()).count();
    }
    if found == 0 { Ok(()) } else { Err(VerifyError::NotFinite { tensor: name.to_owned(), found }) }
}

fn file(path: &Path) -> Result<Verified, VerifyError> {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let sha256 = digest(path, 0)?;
    let mut matches = None;
    // Hugging Face's cache calls large files by their hash.
    let target = path.canonicalize().ok();
    let called = target.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    if called.len() == 64 && called.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        compare(&name, "the SHA-256", &sha256, called)?;
        matches = Some("its name in the download cache");
    }
    let is_a = |extension: &str| path.extension().is_some_and(|found| found == extension);
    if is_a("bin") {
        pickle::read_records(path).map_err(|source| VerifyError::Record { name: name.clone(), source })?;
        matches = matches.or(Some("the checksums of its records"));
    }
    if is_a("safetensors")
        && let Ok(mut header) = safetensors_file::read_header(path)
        && let Some(expected) = header.metadata.remove(writer::CONTENT_KEY)
    {
        let begin = header.tensors.first().map_or(header.n_bytes, |tensor| tensor.begin);
        compare(&name, "the SHA-256 of its tensors", &digest(path, begin)?, &expected)?;
        matches = Some("the hash it was written with");
    }
    Ok(Verified { name, sha256, matches })
}

fn compare(name: &str, what: &'static str, found: &str, expected: &str) -> Result<(), VerifyError> {
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let (found, expected) = (found.to_owned(), expected.to_owned());
    Err(VerifyError::Damaged { name: name.to_owned(), what, found, expected })
}

/// SHA-256 of a file from byte `begin` on, in hexadecimal.
fn digest(path: &Path, begin: u64) -> Result<String, VerifyError> {
    let unreadable = |source| VerifyError::Unreadable { path: path.to_owned(), source };
    let (mut file, _) = regular_file::open(path).map_err(unreadable)?;
    io::Seek::seek(&mut file, io::SeekFrom::Start(begin)).map_err(unreadable)?;
    let (mut hash, mut bytes) = (Sha256::new(), vec![0; READ_AT_ONCE]);
    loop {
        match file.read(&mut bytes).map_err(unreadable)? {
            0 => return Ok(writer::hex(&hash.finalize())),
            n => hash.update(&bytes[..n]),
        }
    }
}
