//! A checkpoint written anew: as one safetensors file in a folder of its own, merged with an adapter or quantised where that
//! was asked for.
//!
//! **Architecture Invariant:** the folder has its name only when everything is in it.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{
    checkpoint::{
        self, Checkpoint,
        writer::{self, Formats, WriteError},
    },
    config::ModelConfig,
    format::Format,
    load::{self, LoadError},
    precision::Precision,
    tokenizer::ChatTokenizer,
};

/// What to convert and into what.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// Folder with `config.json` and weights, or a GGUF file.
    pub model_path: PathBuf,
    /// Folder with `tokenizer.json`.
    pub tokenizer_path: PathBuf,
    /// Folder with a PEFT adapter.
    pub adapter_path: Option<PathBuf>,
    /// Of what is written.
    pub precision: Precision,
    /// The folder that is made.
    pub output_path: PathBuf,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// Bytes of the weights.
    pub n_bytes: u64,
    /// What most of them are in.
    pub format: Format,
}

/// Why nothing was converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The checkpoint was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The weights could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// There is something where the folder should be.
    #[error("{} is there already, expected a folder that is yet to be made\nhint: choose another --output_path, or remove it", .path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
    },
    /// Somebody writes there, or did not come to an end.
    #[error("{} is there already: another conversion is at it, or one was cut off\nhint: wait for it, or remove that folder", .path.display())]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder cannot be written.
    #[error("{} cannot be written: {source}\nhint: --output_path must lie where this program may write", .path.display())]
    Unwritable {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What else a checkpoint folder has that is of use to others.
const COPIED: [&str; 4] =
    ["generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// Converts; takes minutes for a large model.
///
/// # Errors
/// [`ConvertError`]; then there is no folder of that name.
pub fn convert(options: &ConvertOptions) -> Result<Converted, ConvertError> {
    let ConvertOptions { model_path, tokenizer_path, adapter_path, precision, output_path } = options;
    if fs::symlink_metadata(output_path).is_ok() {
        return Err(ConvertError::Occupied { path: output_path.clone() });
    }
    let (config_json, stored) = load::read_config(model_path)?;
    let tokenizer_json = ChatTokenizer::read_json(tokenizer_path).map_err(LoadError::from)?;
    let tokenizer = ChatTokenizer::from_json(&tokenizer_json).map_err(LoadError::from)?;
    let config = load::for_tokenizer(&stored, &tokenizer)?;
    let mut checkpoint = Checkpoint::open(model_path, &stored).map_err(LoadError::from)?;
    if let Some(dir) = adapter_path {
        checkpoint = checkpoint.with_adapter(dir, &stored).map_err(LoadError::from)?;
    }
    let checkpoint = checkpoint.with_vocabulary(config.vocab_size);
    let format = precision.main_format(&config, |name| checkpoint.natural(name));

    let dir = writer::partial(output_path);
    make_dir(&dir)?;
    let written = write_folder(&dir, &checkpoint, &config, options).and_then(|n_bytes| {
        put(&dir.join("config.json"), &config_of(&config_json, format, config.vocab_size))?;
        put(&dir.join("tokenizer.json"), &tokenizer_json)?;
        fs::rename(&dir, output_path)
            .map_err(|source| ConvertError::Unwritable { path: output_path.clone(), source })?;
        Ok(n_bytes)
    });
    if written.is_err() {
        // Its name says that it is of no use, too.
        let _ = fs::remove_dir_all(&dir);
    }
    Ok(Converted { n_bytes: written?, format })
}

/// Makes a folder that was not there: what is in it is this run's alone.
fn make_dir(dir: &Path) -> Result<(), ConvertError> {
    let unwritable = |path: &Path, source| ConvertError::Unwritable { path: path.to_owned(), source };
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|source| unwritable(parent, source))?;
    }
    fs::create_dir(dir).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => ConvertError::Unfinished { path: dir.to_owned() },
        _ => unwritable(dir, source),
    })
}

fn write_folder(
    dir: &Path,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    options: &ConvertOptions,
) -> Result<u64, ConvertError> {
    let formats = Formats::converted(options.precision);
    let source = options.model_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let n_bytes = writer::write(&dir.join("model.safetensors"), checkpoint.weights(), config, formats, &source)?;
    let folders = [checkpoint::folder(&options.model_path), &options.tokenizer_path];
    for name in COPIED.map(str::to_owned).into_iter().chain(programs(folders[0])) {
        if let Some(from) = folders.iter().map(|folder| folder.join(&name)).find(|path| path.is_file()) {
            let path = dir.join(name);
            fs::copy(from, &path).map_err(|source| ConvertError::Unwritable { path, source })?;
        }
    }
    Ok(n_bytes)
}

/// The Python files that `config.json` may name, with which transformers loads the model; nothing here runs them.
fn programs(dir: &Path) -> Vec<String> {
    let names =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| Path::new(name).extension() == Some(OsStr::new("py"))).collect()
}

/// `config.json` of what is written: it says how many tokens there are, in what numbers, and that others cannot read them where they are in blocks.
fn config_of(config_json: &[u8], format: Format, vocab_size: usize) -> Vec<u8> {
    let mut fields: Map<String, Value> = serde_json::from_slice(config_json).unwrap_or_default();
    fields.remove("quantization_config");
    // Rows without a token are not written.
    fields.insert("vocab_size".to_owned(), json!(vocab_size));
    match format {
        Format::Dense(number_type) => {
            let name = match number_type.name() {
                "bf16" => "bfloat16",
                "f16" => "float16",
                _ => "float32",
            };
            // Newer versions of transformers call it otherwise.
            let field = if fields.contains_key("dtype") { "dtype" } else { "torch_dtype" };
            fields.insert(field.to_owned(), json!(name));
        }
        Format::Blocks(blocks) => {
            let how = json!({"quant_method": "xverse-chat", "format": blocks.name()});
            fields.insert("quantization_config".to_owned(), how);
        }
    }
    let mut json = serde_json::to_vec_pretty(&fields).unwrap_or_default();
    json.push(b'\n');
    json
}

fn put(path: &Path, content: &[u8]) -> Result<(), ConvertError> {
    fs::write(path, content).map_err(|source| ConvertError::Unwritable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
