//! Which files hold the weights: one, or those that an index names.
//!
//! A checkpoint comes from somewhere else, so its index may name only files beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;

use super::CheckpointError;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const MAX_INDEX_BYTES: u64 = 16 << 20;

/// The files with weights.
#[derive(Debug)]
pub(super) struct Shards {
    pub(super) paths: Vec<PathBuf>,
    /// Which tensor is in which file, where there is an index.
    claims: BTreeMap<String, String>,
}

impl Shards {
    /// Checks every claim of the index with `holds(tensor, file)`.
    pub(super) fn check_claims(&self, holds: impl Fn(&str, &str) -> bool) -> Result<(), CheckpointError> {
        match self.claims.iter().find(|(tensor, file)| !holds(tensor, file)) {
            None => Ok(()),
            Some((tensor, file)) => Err(CheckpointError::IndexMismatch { tensor: tensor.clone(), file: file.clone() }),
        }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Finds the files of the checkpoint in `dir`.
pub(super) fn find(dir: &Path) -> Result<Shards, CheckpointError> {
    if exists(&dir.join(SINGLE)) {
        return Ok(Shards { paths: vec![inside(dir, SINGLE)?], claims: BTreeMap::new() });
    }
    let index_path = dir.join(INDEX);
    if !exists(&index_path) {
        return Err(without_safetensors(dir));
    }
    let unreadable = |source| CheckpointError::Unreadable { path: index_path.clone(), source };
    let found = fs::metadata(&index_path).map_err(unreadable)?.len();
    if found > MAX_INDEX_BYTES {
        return Err(CheckpointError::IndexTooLarge { found, limit: MAX_INDEX_BYTES });
    }
    let json = fs::read(&index_path).map_err(unreadable)?;
    let index: Index = serde_json::from_slice(&json).map_err(|source| CheckpointError::IndexBroken { source })?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    if names.is_empty() {
        return Err(CheckpointError::IndexEmpty);
    }
    if let Some(name) = names.iter().find(|name| !is_plain(name)) {
        return Err(CheckpointError::ShardName { name: (**name).clone() });
    }
    let paths = names.iter().map(|name| inside(dir, name)).collect::<Result<_, _>>()?;
    Ok(Shards { paths, claims: index.weight_map })
}

/// Whether something is there, be it a link that leads nowhere.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn is_plain(name: &str) -> bool {
    let path = Path::new(name);
    let mut components = path.components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == OsStr::new(name))
        && !name.contains(['\\', '\0'])
        && path.extension() == Some(OsStr::new("safetensors"))
}

/// The file's path in `dir`, when it does not lead out of it.
fn inside(dir: &Path, name: &str) -> Result<PathBuf, CheckpointError> {
    let path = dir.join(name);
    let target = fs::canonicalize(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CheckpointError::ShardMissing { name: name.to_owned() },
        _ => CheckpointError::Unreadable { path: path.clone(), source },
    })?;
    let root = fs::canonicalize(dir).map_err(|source| CheckpointError::Unreadable { path: dir.to_owned(), source })?;
    if target.starts_with(&root) || hub_blobs(&root).is_some_and(|blobs| target.starts_with(blobs)) {
        Ok(path)
    } else {
        Err(CheckpointError::ShardOutside { name: name.to_owned(), target })
    }
}

/// Hugging Face's download cache keeps `snapshots/<revision>/<name>` as links into the `blobs` beside `snapshots`.
fn hub_blobs(root: &Path) -> Option<PathBuf> {
    let snapshots = root.parent()?;
    (snapshots.file_name()? == "snapshots").then(|| snapshots.with_file_name("blobs"))
}

/// The error for a folder without safetensors: another format is told by name.
fn without_safetensors(dir: &Path) -> CheckpointError {
    let Ok(entries) = fs::read_dir(dir) else { return CheckpointError::NoWeights { dir: dir.to_owned() } };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    for (extension, format) in [("bin", "pickled .bin files"), ("gguf", "GGUF files"), ("pth", "pickled .pth files")] {
        let is_one = |name: &&String| Path::new(name.as_str()).extension() == Some(OsStr::new(extension));
        if let Some(found) = names.iter().find(is_one) {
            return CheckpointError::OtherFormat { found: found.clone(), format };
        }
    }
    CheckpointError::NoWeights { dir: dir.to_owned() }
}
