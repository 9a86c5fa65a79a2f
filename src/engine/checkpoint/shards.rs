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

use super::{
    error::CheckpointError, file_header::Header, gguf, limited::Texts, pickle, problems::Problems, safetensors_file,
};
use crate::engine::small_file::{self, SmallFileError};

/// How weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileFormat {
    /// Hugging Face's own.
    Safetensors,
    /// `PyTorch`'s, as XVERSE publishes its models.
    Pickle,
    /// llama.cpp's: one file for everything.
    Gguf,
}

/// The files with weights.
#[derive(Debug)]
pub(super) struct Shards {
    pub(super) format: FileFormat,
    pub(super) paths: Vec<PathBuf>,
    /// Where there is one.
    index: String,
    /// Which tensor is in which file, where there is an index.
    claims: BTreeMap<String, String>,
}

const MAX_INDEX_BYTES: u64 = 16 << 20;

/// A format's names for one file and for the index of several; in the order of preference: what cannot hold a program comes
/// first.
const NAMED: [(FileFormat, &str, &str); 2] = [
    (FileFormat::Safetensors, "model.safetensors", "model.safetensors.index.json"),
    (FileFormat::Pickle, "pytorch_model.bin", "pytorch_model.bin.index.json"),
];

impl FileFormat {
    /// Reads and checks what is in a file and where.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was found, what was expected and a hint.
    pub(super) fn read_header(self, path: &Path) -> Result<Header, CheckpointError> {
        match self {
            Self::Safetensors => safetensors_file::read_header(path),
            Self::Pickle => Ok(pickle::read_header(path)?),
            Self::Gguf => Ok(gguf::read_header(path)?.header),
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Pickle => "bin",
            Self::Gguf => "gguf",
        }
    }

    /// Whether a file that is the only one of its kind in a folder holds the weights, whatever it is called.
    fn may_be_alone(self, name: &str) -> bool {
        match self {
            Self::Safetensors => !name.starts_with("adapter_model"),
            // Trainers leave .bin files of other kinds beside the weights.
            Self::Pickle => {
                name.starts_with("gptq_model") || (name.starts_with("pytorch_model-") && name.contains("-of-"))
            }
            Self::Gguf => true,
        }
    }
}

impl Shards {
    /// One file.
    pub(super) fn one(format: FileFormat, path: PathBuf) -> Self {
        Self { format, paths: vec![path], index: String::new(), claims: BTreeMap::new() }
    }

    /// What the index says that does not hold by `holds(tensor, file)`; of each file one tensor.
    pub(super) fn broken_claims(&self, holds: impl Fn(&str, &str) -> bool) -> Vec<CheckpointError> {
        let broken = self.claims.iter().filter(|(tensor, file)| !holds(tensor, file));
        let by_file: BTreeMap<&String, &String> = broken.map(|(tensor, file)| (file, tensor)).collect();
        let error = |(file, tensor): (&String, &String)| CheckpointError::IndexMismatch {
            index: self.index.clone(),
            tensor: tensor.clone(),
            file: file.clone(),
        };
        by_file.into_iter().map(error).collect()
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: Texts,
}

/// Finds the files of the checkpoint at `path`: a GGUF file, or a folder.
///
/// # Errors
/// All that is wrong with them.
pub(super) fn find(path: &Path) -> Result<Shards, Vec<CheckpointError>> {
    let one = |error| vec![error];
    let dir = super::folder(path);
    if dir != path {
        return Ok(Shards::one(FileFormat::Gguf, path.to_owned()));
    }
    for (format, name, index) in NAMED {
        if exists(&dir.join(name)) {
            return Ok(Shards::one(format, only(dir, name).map_err(one)?));
        }
        if exists(&dir.join(index)) {
            let claims = read_index(dir, index).map_err(one)?;
            return named(dir, format, index, claims);
        }
    }
    let names = file_names(dir);
    // AutoGPTQ calls its files after how they are packed.
    for format in [FileFormat::Safetensors, FileFormat::Pickle] {
        let suffix = format!(".{}.index.json", format.extension());
        let indices: Vec<&String> = names.iter().filter(|name| name.ends_with(&suffix)).collect();
        if let [index] = indices[..] {
            let claims = read_index(dir, index).map_err(one)?;
            return named(dir, format, index, claims);
        }
    }
    let (format, name) = alone(dir, &names).map_err(one)?;
    Ok(Shards::one(format, only(dir, &name).map_err(one)?))
}

fn file_names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// The only file among those of `dir` that can hold weights.
fn alone(dir: &Path, all: &[String]) -> Result<(FileFormat, String), CheckpointError> {
    let of = |extension: &'static str| {
        all.iter().filter(move |name| Path::new(name.as_str()).extension() == Some(OsStr::new(extension))).cloned()
    };
    for format in [FileFormat::Safetensors, FileFormat::Gguf, FileFormat::Pickle] {
        let names: Vec<String> = of(format.extension()).filter(|name| format.may_be_alone(name)).collect();
        let dir = dir.to_owned();
        match (&names[..], format) {
            ([], _) => {}
            ([name], _) => return Ok((format, name.clone())),
            (_, FileFormat::Gguf) => return Err(CheckpointError::Ambiguous { dir, names }),
            (_, FileFormat::Safetensors) => {
                return Err(CheckpointError::NoIndex { dir, names, index: "model.safetensors.index.json" });
            }
            (_, FileFormat::Pickle) => {
                return Err(CheckpointError::NoIndex { dir, names, index: "pytorch_model.bin.index.json" });
            }
        }
    }
    // Trainers keep their random numbers in such files.
    let other = of("pth").find(|name| !name.starts_with("rng_state"));
    let has = |name: &str| all.iter().any(|file| file == name);
    Err(match other {
        Some(found) => CheckpointError::OtherFormat { found, format: "pickled .pth files" },
        None if has("zero_to_fp32.py") || has("latest") => CheckpointError::TrainingState { dir: dir.to_owned() },
        None => CheckpointError::NoWeights { dir: dir.to_owned() },
    })
}

fn read_index(dir: &Path, index: &str) -> Result<BTreeMap<String, String>, CheckpointError> {
    let path = dir.join(index);
    let json = small_file::read_json(&path, MAX_INDEX_BYTES).map_err(|error| match error {
        SmallFileError::Missing => CheckpointError::Unreadable { path, source: io::ErrorKind::NotFound.into() },
        SmallFileError::TooLarge { found } => {
            CheckpointError::IndexTooLarge { index: index.to_owned(), found, limit: MAX_INDEX_BYTES }
        }
        SmallFileError::Unreadable(source) => CheckpointError::Unreadable { path, source },
    })?;
    let parsed: Index = serde_json::from_slice(&json)
        .map_err(|source| CheckpointError::IndexBroken { index: index.to_owned(), source })?;
    let Texts(claims) = parsed.weight_map;
    if claims.is_empty() {
        return Err(CheckpointError::IndexEmpty { index: index.to_owned() });
    }
    Ok(claims)
}

fn named(
    dir: &Path,
    format: FileFormat,
    index: &str,
    claims: BTreeMap<String, String>,
) -> Result<Shards, Vec<CheckpointError>> {
    let names: BTreeSet<&String> = claims.values().collect();
    let root = root(dir).map_err(|error| vec![error])?;
    let (mut paths, mut problems) = (Vec::new(), Problems::default());
    for name in names {
        let path = if is_plain(name, format.extension()) {
            inside((dir, &root), name)
        } else {
            Err(CheckpointError::ShardName {
                index: index.to_owned(),
                extension: format.extension(),
                name: name.clone(),
            })
        };
        match path {
            Ok(path) => paths.push(path),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(Shards { format, paths, index: index.to_owned(), claims })
    } else {
        Err(problems.into_vec())
    }
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

/// The folder itself, wherever links led to it.
fn root(dir: &Path) -> Result<PathBuf, CheckpointError> {
    fs::canonicalize(dir).map_err(|source| CheckpointError::Unreadable { path: dir.to_owned(), source })
}

/// The path of the only file in `dir`, when it does not lead out of it.
fn only(dir: &Path, name: &str) -> Result<PathBuf, CheckpointError> {
    inside((dir, &root(dir)?), name)
}

/// The file's path in `dir`, which is the folder `root`, when it does not lead out of it.
fn inside((dir, root): (&Path, &Path), name: &str) -> Result<PathBuf, CheckpointError> {
    let path = dir.join(name);
    let target = fs::canonicalize(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CheckpointError::ShardMissing { name: name.to_owned() },
        _ => CheckpointError::Unreadable { path: path.clone(), source },
    })?;
    if target.starts_with(root) || hub_blobs(root).is_some_and(|blobs| target.starts_with(blobs)) {
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
