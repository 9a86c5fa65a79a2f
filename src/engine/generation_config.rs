//! `generation_config.json`: the checkpoint's own sampling defaults.
//!
//! It reads what the page has a setting for and what ends an answer, and ignores the rest. **Architecture Invariant:** the defaults that come out are
//! within the bounds of [`Settings`] and leave at least one token of the context to the prompt.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    config::ModelConfig,
    end_tokens::EndTokens,
    regular_file,
    small_file::{self, SmallFileError},
};
use crate::chat::settings::{OutOfRange, Sampling, Settings};

/// Why a `generation_config.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum GenerationConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read: {source}\nhint: {}", .path.display(), regular_file::hint(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is too large.
    #[error(
        "generation_config.json has {found} bytes, at most {limit} are expected\nhint: without this file, the values of XVERSE-13B-Chat are taken"
    )]
    TooLarge {
        /// Its size.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// Not JSON, or a value of another kind.
    #[error("generation_config.json is not valid, line {}: {source}\nhint: without this file, the values of XVERSE-13B-Chat are taken", .source.line())]
    Broken {
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A value outside its bounds.
    #[error("generation_config.json: {source}\nhint: without this file, the values of XVERSE-13B-Chat are taken")]
    OutOfRange {
        /// Which, its bounds and its value.
        source: OutOfRange,
    },
}

const MAX_FILE_BYTES: u64 = 1 << 20;

/// Absent values are those of XVERSE-13B-Chat.
#[derive(Deserialize)]
struct GenerationConfig {
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    repetition_penalty: Option<f32>,
    max_new_tokens: Option<u32>,
}

/// What else is read of it.
#[derive(Deserialize)]
struct Ends {
    eos_token_id: Option<Ids>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "eos_token_id is neither an integer nor a list of integers, expected one of them")]
enum Ids {
    One(i64),
    Several(Vec<i64>),
}

/// Reads the defaults in `dir`; where there is no such file, XVERSE-13B-Chat's own.
///
/// `max_new_tokens` is lowered to one less than the context, and a `do_sample` of false means temperature 0.
///
/// # Errors
/// [`GenerationConfigError`] where the file is there and wrong.
pub fn read(dir: &Path, config: &ModelConfig) -> Result<Sampling, GenerationConfigError> {
    from_json(&read_json(dir)?, config)
}

/// What ends an answer: what `config` says, and what the file in `dir` adds, where there is one. An id outside the vocabulary is
/// passed over, since nothing ever draws it.
///
/// # Errors
/// [`GenerationConfigError`] where the file is there and wrong.
pub fn end_tokens(dir: &Path, config: &ModelConfig) -> Result<EndTokens, GenerationConfigError> {
    let ends: Ends =
        serde_json::from_slice(&read_json(dir)?).map_err(|source| GenerationConfigError::Broken { source })?;
    let ids = match ends.eos_token_id {
        None => Vec::new(),
        Some(Ids::One(id)) => vec![id],
        Some(Ids::Several(ids)) => ids,
    };
    let known = |id: &i64| u32::try_from(*id).ok().filter(|id| (*id as usize) < config.vocab_size);
    let ids: Vec<u32> = ids.iter().filter_map(known).collect();
    Ok(EndTokens::from(config.eos_token_id).and(&config.other_end_ids).and(&ids))
}

/// The file's content, an empty object where there is none.
fn read_json(dir: &Path) -> Result<Vec<u8>, GenerationConfigError> {
    let path = dir.join("generation_config.json");
    match small_file::read_json(&path, MAX_FILE_BYTES) {
        Ok(json) => Ok(json),
        Err(SmallFileError::Missing) => Ok(b"{}".to_vec()),
        Err(SmallFileError::TooLarge { found }) => {
            Err(GenerationConfigError::TooLarge { found, limit: MAX_FILE_BYTES })
        }
        Err(SmallFileError::Unreadable(source)) => Err(GenerationConfigError::Unreadable { path, source }),
    }
}

/// Checks the content of a `generation_config.json`.
///
/// # Errors
/// [`GenerationConfigError`] where it is wrong.
pub fn from_json(json: &[u8], config: &ModelConfig) -> Result<Sampling, GenerationConfigError> {
    let file: GenerationConfig =
        serde_json::from_slice(json).map_err(|source| GenerationConfigError::Broken { source })?;
    let most = u32::try_from(config.max_position_embeddings - 1).unwrap_or(u32::MAX);
    let settings = Settings {
        temperature: file.temperature,
        top_k: file.top_k,
        top_p: file.top_p,
        repetition_penalty: file.repetition_penalty,
        max_new_tokens: file.max_new_tokens.map(|tokens| tokens.min(most)),
        seed: None,
    };
    let mut sampling =
        settings.resolve(&Sampling::default(), most).map_err(|source| GenerationConfigError::OutOfRange { source })?;
    if file.do_sample == Some(false) {
        sampling.temperature = 0.0;
    }
    Ok(sampling)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use std::fs;

    use super::*;

    fn config(max_positions: usize) -> ModelConfig {
        let json = json!({
            "architectures": ["XverseForCausalLM"], "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 1000, "max_position_embeddings": max_positions
        });
        ModelConfig::from_json(json.to_string().as_bytes()).unwrap()
    }

    fn parsed(json: &Value) -> Result<Sampling, GenerationConfigError> {
        from_json(json.to_string().as_bytes(), &config(8192))
    }

    #[test]
    fn without_the_file_the_defaults_are_xverse_13b_chats() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), &config(8192)).unwrap(), Sampling::default());
        assert_eq!(read(dir.path(), &config(512)).unwrap().max_new_tokens, 511);
    }

    #[test]
    fn the_file_is_taken_and_unknown_keys_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let json = json!({
            "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "max_new_tokens": 512, "temperature": 0.7,
            "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.2, "do_sample": true, "transformers_version": "4.29.1"
        });
        fs::write(dir.path().join("generation_config.json"), json.to_string()).unwrap();
        let expected =
            Sampling { temperature: 0.7, top_k: 40, top_p: 0.9, repetition_penalty: 1.2, max_new_tokens: 512 };
        assert_eq!(read(dir.path(), &config(8192)).unwrap(), expected);
    }

    #[test]
    fn what_either_file_calls_an_end_ends_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let config = ModelConfig { eos_token_id: 3, other_end_ids: vec![5], ..config(512) };
        let ends = |json: &str| {
            fs::write(dir.path().join("generation_config.json"), json).unwrap();
            let ends = end_tokens(dir.path(), &config).map_err(|error| error.to_string())?;
            Ok::<Vec<u32>, String>((0..1000).filter(|id| ends.contains(*id)).collect())
        };
        assert_eq!(ends("{}").unwrap(), [3, 5]);
        assert_eq!(ends(r#"{"eos_token_id": 7}"#).unwrap(), [3, 5, 7]);
        assert_eq!(ends(r#"{"eos_token_id": [3, 9, 100000, -1]}"#).unwrap(), [3, 5, 9]);
        let said = ends("{\n\"eos_token_id\": \"x\"}").unwrap_err();
        assert!(said.contains("neither an integer nor a list") && said.contains("\nhint: "), "{said}");
        fs::remove_file(dir.path().join("generation_config.json")).unwrap();
        assert!(end_tokens(dir.path(), &config).unwrap().contains(5));
    }

    #[test]
    fn no_sampling_is_temperature_zero() {
        assert_eq!(parsed(&json!({"do_sample": false, "temperature": 0.7})).unwrap().temperature, 0.0);
        assert_eq!(parsed(&json!({"do_sample": null, "temperature": 0.7})).unwrap().temperature, 0.7);
    }

    #[test]
    fn max_new_tokens_leaves_room_for_a_prompt() {
        assert_eq!(parsed(&json!({"max_new_tokens": 100_000})).unwrap().max_new_tokens, 8191);
        assert_eq!(parsed(&json!({"max_new_tokens": 8191})).unwrap().max_new_tokens, 8191);
    }

    #[test]
    fn a_value_out_of_bounds_is_named() {
        for (name, value) in [
            ("temperature", json!(2.5)),
            ("temperature", json!(-1)),
            ("temperature", json!(1e39)),
            ("top_k", json!(101)),
            ("top_p", json!(0)),
            ("top_p", json!(1.5)),
            ("repetition_penalty", json!(0)),
            ("max_new_tokens", json!(0)),
        ] {
            let error = parsed(&json!({name: value})).unwrap_err();
            assert!(matches!(error, GenerationConfigError::OutOfRange { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_broken_file_is_reported_with_its_line() {
        for json in ["{\n\"top_k\": \"many\"}", "{\n\"top_k\": -1}", "{\n\"top_k\" 1}"] {
            let error = from_json(json.as_bytes(), &config(8192)).unwrap_err();
            assert!(matches!(error, GenerationConfigError::Broken { .. }), "{error}");
            assert!(error.to_string().contains("line 2"), "{error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("generation_config.json");
        fs::create_dir(&path).unwrap();
        let error = read(dir.path(), &config(8192)).unwrap_err();
        assert!(matches!(error, GenerationConfigError::Unreadable { .. }), "{error}");
        fs::remove_dir(&path).unwrap();
        fs::File::create(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        let error = read(dir.path(), &config(8192)).unwrap_err();
        assert!(matches!(error, GenerationConfigError::TooLarge { .. }), "{error}");
    }
}
