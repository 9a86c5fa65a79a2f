//! What a model is called, and what its name tells.
//!
//! It knows paths and no files' content. A download cache calls folders by revisions and files by hashes; the name is in the
//! folders above.

use std::path::{self, Path};

use super::checkpoint;

/// What a model or an adapter is called after its folder or file. A link has the name that somebody gave it.
#[must_use]
pub fn of(path: &Path) -> String {
    // `.` and what ends in `..` have no names.
    let absolute = if path.file_name().is_some() { path::absolute(path) } else { path.canonicalize() };
    let absolute = absolute.unwrap_or_else(|_| path.to_owned());
    let name = absolute.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    hub_name(&absolute).unwrap_or(name)
}

/// A warning where the folder's name says that a checkpoint was not trained for conversations; XVERSE's configuration is the
/// same for both kinds. With an adapter nobody knows: it may be what makes a chat model of it.
#[must_use]
pub fn not_a_chat_model(path: &Path, adapter: Option<&Path>) -> Option<String> {
    let name = of(checkpoint::folder(path));
    (adapter.is_none() && is_base(&name)).then(|| {
        format!("{name} seems to be a base model, which continues texts and was not trained to answer; conversations need one of the Chat models")
    })
}

/// The name in `models--OWNER--NAME/snapshots/REVISION`, where a download cache keeps this folder.
fn hub_name(path: &Path) -> Option<String> {
    let snapshots = path.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
    let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    let name = repository.split_once("--").map_or(repository, |(_, name)| name);
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether this is what XVERSE calls a base model: its size, and nothing else but a version or a format. Whatever somebody made
/// of one has a further word in its name, and may have been trained to answer.
fn is_base(name: &str) -> bool {
    let lower = name.to_lowercase();
    let Some(rest) = lower.strip_prefix("xverse-") else { return false };
    let mut words = rest.split(['-', '_', '.', ' ']);
    let is_size = |word: &str| word.strip_suffix('b').is_some_and(|size| size.parse::<u32>().is_ok());
    words.next().is_some_and(is_size) && words.all(says_nothing_of_training)
}

fn says_nothing_of_training(word: &str) -> bool {
    const FORMATS: [&str; 14] = [
        "base",
        "hf",
        "bf16",
        "fp16",
        "f16",
        "fp32",
        "f32",
        "int8",
        "int4",
        "gptq",
        "gguf",
        "4bit",
        "8bit",
        "safetensors",
    ];
    word.parse::<u32>().is_ok() || FORMATS.contains(&word)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_model_in_a_download_cache_is_called_as_its_repository() {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("models--xverse--XVERSE-13B-Chat");
        let snapshot = repository.join("snapshots/abc123");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(repository.join("blobs")).unwrap();
        assert_eq!(of(&snapshot), "XVERSE-13B-Chat");
        assert_eq!(of(&snapshot.join(".")), "XVERSE-13B-Chat");
        let file = snapshot.join("xverse-13b-chat-q4_k_m.gguf");
        fs::write(repository.join("blobs/0f3a"), "GGUF").unwrap();
        symlink("../../blobs/0f3a", &file).unwrap();
        assert_eq!(of(&file), "xverse-13b-chat-q4_k_m.gguf");
        assert_eq!(of(Path::new("/cache/models--gpt2/snapshots/1")), "gpt2");
        assert_eq!(of(Path::new("/other/snapshots/1")), "1");
    }

    #[test]
    fn a_link_keeps_its_name_and_a_path_without_one_gets_its_folders() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("XVERSE-13B-Chat");
        fs::create_dir_all(model.join("below")).unwrap();
        symlink(&model, dir.path().join("mine")).unwrap();
        assert_eq!(of(&dir.path().join("mine")), "mine");
        assert_eq!(of(&model.join("below/..")), "XVERSE-13B-Chat");
        assert_eq!(of(Path::new(".")), of(&std::env::current_dir().unwrap()));
    }

    #[test]
    fn base_models_are_warned_of_by_their_names_and_what_was_made_of_them_is_not() {
        let warned = |name: &str| not_a_chat_model(&Path::new("/models").join(name), None).is_some();
        let hub = "models--xverse--XVERSE-13B/snapshots/abc";
        for base in ["XVERSE-13B", "xverse-65b-2", "XVERSE-7B-GPTQ-Int4", "XVERSE-13B_bf16", hub] {
            assert!(warned(base), "{base}");
        }
        let chat_in_hub = "models--xverse--XVERSE-13B-Chat/snapshots/abc";
        for other in ["XVERSE-13B-Chat", "xverse-13b-merged", "XVERSE-13B-256K", "xverse-mini", "my-model", chat_in_hub]
        {
            assert!(!warned(other), "{other}");
        }
        assert_eq!(not_a_chat_model(Path::new("/models/XVERSE-13B"), Some(Path::new("adapter"))), None);
    }
}
