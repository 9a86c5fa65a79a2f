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

use super::{CheckpointError, file_header::Header, pickle, safetensors_file};

/// How weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileFormat {
    /// Hugging Face's own.
    Safetensors,
    /// `PyTorch`'s, as XVERSE publishes its models.
    Pickle,
}

/// The files with weights.
#[derive(Debug)]
pub(super) struct Shards {
    pub(super) format: FileFormat,
    pub(super) paths: Vec<PathBuf>,
    /// Which tensor is in which file, where there is an index.
    claims: BTreeMap<String, String>,
}

const MAX_INDEX_BYTES: u64 = 16 << 20;

impl FileFormat {
    /// In the order of preference: what cannot hold a program comes first.
    const ALL: [Self; 2] = [Self::Safetensors, Self::Pickle];

    /// Reads and checks what is in a file and where.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was found, what was expected and a hint.
    pub(super) fn read_header(self, path: &Path) -> Result<Header, CheckpointError> {
        match self {
            Self::Safetensors => safetensors_file::read_header(path),
            Self::Pickle => Ok(pickle::read_header(path)?),
        }
    }

    fn single(self) -> &'static str {
        match self {
            Self::Safetensors => "model.safetensors",
            Self::Pickle => "pytorch_model.bin",
        }
    }

    fn index(self) -> &'static str {
        match self {
            Self::Safetensors => "model.safetensors.index.json",
            Self::Pickle => "pytorch_model.bin.index.json",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Pickle => "bin",
        }
    }
}

impl Shards {
    /// What the index says that does not hold by `holds(tensor, file)`; of each file one tensor.
    pub(super) fn broken_claims(&self, holds: impl Fn(&str, &str) -> bool) -> Vec<CheckpointError> {
        let broken = self.claims.iter().filter(|(tensor, file)| !holds(tensor, file));
        let by_file: BTreeMap<&String, &String> = broken.map(|(tensor, file)| (file, tensor)).collect();
        let error = |(file, tensor): (&String, &String)| CheckpointError::IndexMismatch {
            index: self.format.index(),
            tensor: tensor.clone(),
            file: file.clone(),
        };
        by_file.into_iter().map(error).collect()
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Finds the files of the checkpoint in `dir`.
///
/// # Errors
/// All that is wrong with them.
pub(super) fn find(dir: &Path) -> Result<Shards, Vec<CheckpointError>> {
    for format in FileFormat::ALL {
        if exists(&dir.join(format.single())) {
            let path = inside(dir, format.single()).map_err(|error| vec![error])?;
            return Ok(Shards { format, paths: vec![path], claims: BTreeMap::new() });
        }
        if exists(&dir.join(format.index())) {
            let claims = read_index(dir, format).map_err(|error| vec![error])?;
            return named(dir, format, claims);
        }
    }
    Err(vec![without_weights(dir)])
}

fn read_index(dir: &Path, format: FileFormat) -> Result<BTreeMap<String, String>, CheckpointError> {
    let index = format.index();
    let path = dir.join(index);
    let unreadable = |source| CheckpointError::Unreadable { path: path.clone(), source };
    let found = fs::metadata(&path).map_err(unreadable)?.len();
    if found > MAX_INDEX_BYTES {
        return Err(CheckpointError::IndexTooLarge { index, found, limit: MAX_INDEX_BYTES });
    }
    let json = fs::read(&path).map_err(unreadable)?;
    let parsed: Index =
        serde_json::from_slice(&json).map_err(|source| CheckpointError::IndexBroken { index, source })?;
    if parsed.weight_map.is_empty() {
        return Err(CheckpointError::IndexEmpty { index });
    }
    Ok(parsed.weight_map)
}

fn named(dir: &Path, format: FileFormat, claims: BTreeMap<String, String>) -> Result<Shards, Vec<CheckpointError>> {
    let names: BTreeSet<&String> = claims.values().collect();
    let (mut paths, mut problems) = (Vec::new(), Vec::new());
    for name in names {
        let path = if is_plain(name, format.extension()) {
            inside(dir, name)
        } else {
            let (index, extension) = (format.index(), format.extension());
            Err(CheckpointError::ShardName { index, extension, name: name.clone() })
        };
        match path {
            Ok(path) => paths.push(path),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(Shards { format, paths, claims }) } else { Err(problems) }
}

/// Whether something is there, be it a link that leads nowhere.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn is_plain(name: &str, extension: &str) -> bool {
    let path = Path::new(name);
    let mut components = path.components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == OsStr::new(name))
        && !name.contains(['\\', '\0'])
        && path.extension() == Some(OsStr::new(extension))
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

/// The error for a folder without weights that could be read: another format is told by name.
fn without_weights(dir: &Path) -> CheckpointError {
    let Ok(entries) = fs::read_dir(dir) else { return CheckpointError::NoWeights { dir: dir.to_owned() } };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    for (extension, format) in [("gguf", "GGUF files"), ("pth", "pickled .pth files")] {
        let is_one = |name: &&String| Path::new(name.as_str()).extension() == Some(OsStr::new(extension));
        if let Some(found) = names.iter().find(is_one) {
            return CheckpointError::OtherFormat { found: found.clone(), format };
        }
    }
    CheckpointError::NoWeights { dir: dir.to_owned() }
}
