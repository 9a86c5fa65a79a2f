//! Quantised weights that are kept, so that they are made once and not at every start.
//!
//! A copy is one file, named by what it was made from: the names, sizes, times and headers of the checkpoint's files, a sample of
//! the numbers in them, its configuration and the formats. **Architecture Invariant:** where a copy cannot be made or used, the weights are quantised as they are read.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use sha2::{Digest, Sha256};

use super::{
    backend::cpu::quantized::layout::LAYOUT_VERSION,
    checkpoint::{
        Checkpoint,
        error::CheckpointError,
        writer::{self, Formats},
    },
    config::ModelConfig,
    precision::{Precision, Quantize},
};

/// Of what the names of copies are made from.
const KEY_VERSION: u8 = 2;

/// Opens the kept copy of these weights in `folder`, and makes it where there is none; the same weights as they are where
/// neither is possible, or nothing is to be quantised. `paths` are where the weights come from: the model's, and an adapter's.
#[must_use]
pub fn open_or_make(
    folder: &Path,
    checkpoint: Checkpoint,
    config: &ModelConfig,
    (precision, paths): (Precision, &[&Path]),
) -> Checkpoint {
    if precision.quantize == Quantize::None || checkpoint.is_packed() {
        return checkpoint;
    }
    let absolute = |path: &&Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf()).display().to_string();
    let paths: Vec<String> = paths.iter().map(absolute).collect();
    let source = format!("{} --quantize {}", paths.join(" + "), precision.quantize.name());
    let key = match key(&checkpoint, config, precision) {
        Ok(key) => key,
        Err(error) => {
            tracing::warn!(%error, "quantised weights are not kept, since those they are made from cannot be read");
            return checkpoint;
        }
    };
    let path = folder.join(format!("{key}.safetensors"));
    if path.exists() {
        match Checkpoint::open_file(&path, config) {
            Ok(copy) => {
                tracing::info!(path = %path.display(), "quantised weights are taken from the kept copy");
                return copy;
            }
            Err(error) => tracing::warn!(%error, "the kept copy of quantised weights cannot be used and is made again"),
        }
    }
    make(&path, &checkpoint, config, precision, &source).unwrap_or_else(|why| {
        tracing::warn!(why, "quantised weights are not kept; they are made at every start");
        checkpoint
    })
}

fn make(
    path: &Path,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    precision: Precision,
    source: &str,
) -> Result<Checkpoint, String> {
    tracing::info!(path = %path.display(), "quantised weights are made and kept, which takes minutes for a large model");
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    remove_others(folder, source, path);
    writer::write(path, checkpoint.weights(), config, Formats::kept(precision), source)
        .map_err(|error| error.to_string())?;
    Checkpoint::open_file(path, config).map_err(|error| error.to_string())
}

/// Removes what was made from the same path when other weights were there, and what was left half made: one server uses a
/// data folder at a time, so nobody is at it.
fn remove_others(folder: &Path, source: &str, path: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let files = entries.flatten().map(|entry| entry.path()).filter(|other| *other != path);
    for other in files {
        let is_half_made = other.extension().is_some_and(|extension| extension == "partial");
        if is_half_made || made_from(&other).is_some_and(|made_from| made_from == source) {
            // One that stays takes room and does no harm.
            let _ = fs::remove_file(&other);
        }
    }
}

fn made_from(path: &Path) -> Option<String> {
    let header: Result<_, CheckpointError> = Checkpoint::source_of(path);
    header.ok().flatten()
}

/// In which folder copies are kept, below the one for everything that is kept.
#[must_use]
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("weights")
}

/// What a copy of these weights is called. Names, sizes and headers are alike for all models of a shape, and times where they were
/// unpacked from an image; so some of the numbers count as well.
fn key(checkpoint: &Checkpoint, config: &ModelConfig, precision: Precision) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update([KEY_VERSION]);
    for file in checkpoint.files() {
        hash.update((file.name.len() as u64).to_le_bytes());
        hash.update(&file.name);
        hash.update(file.n_bytes.to_le_bytes());
        hash.update(file.header_digest);
        let since = file.modified.and_then(|modified| modified.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        hash.update(since.as_nanos().to_le_bytes());
    }
    hash.update(checkpoint.sample()?);
    // How a GGUF's rows are permuted depends on the number of heads.
    hash.update(format!("{config:?} {precision:?} {LAYOUT_VERSION}"));
    Ok(writer::hex(&hash.finalize())[..32].to_owned())
}

#[cfg(test)]
mod tests;
