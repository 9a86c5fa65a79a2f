//! Any bytes as the index of a checkpoint in several files.
//!
//! Input: the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{LazyLock, Mutex, PoisonError},
};

use serde::Deserialize;

use crate::{
    memory,
    outcome::Outcome,
    tiny_weights::{self, Folder, TENSORS},
};

const SHARDS: [&str; 2] = ["a.safetensors", "b.safetensors"];

/// Beside the folder is a file that an index could try to reach.
static FOLDER: LazyLock<Mutex<Folder>> = LazyLock::new(|| {
    let folder = Folder::new();
    let (first, second) = TENSORS.split_at(TENSORS.len() / 2);
    folder.write(SHARDS[0], &tiny_weights::file_of(first));
    folder.write(SHARDS[1], &tiny_weights::file_of(second));
    folder.write_beside(SHARDS[0], &tiny_weights::file_of(first));
    Mutex::new(folder)
});

/// # Panics
/// Where an index is taken that names anything but the files beside it, with the tensors that are in them.
pub fn target(data: &[u8]) -> Outcome {
    let folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    let path = folder.write("model.safetensors.index.json", data);
    // Headers of the shards are read too, whatever the index says.
    let n_given = data.len() + SHARDS.iter().map(|name| size(&folder, name)).sum::<usize>();
    match memory::within_reason(n_given, || folder.open()) {
        Ok(checkpoint) => {
            names_only_what_is_there(data);
            tiny_weights::can_be_read(checkpoint);
            Outcome::Taken
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && !said.contains(&*path.to_string_lossy()), "{said}");
            Outcome::Refused
        }
    }
}

fn size(folder: &Folder, name: &str) -> usize {
    fs::metadata(folder.path().join(name)).map_or(0, |metadata| metadata.len() as usize)
}

fn names_only_what_is_there(index: &[u8]) {
    /// What else an index says is nobody's business, be it text or not.
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }

    let index: Index = serde_json::from_slice(index).expect("an index that was taken has a weight map");
    let claims = &index.weight_map;
    let named: BTreeSet<_> = claims.values().map(String::as_str).collect();
    assert!(named.iter().all(|name| SHARDS.contains(name)), "{named:?}");
    assert_eq!(named.len(), SHARDS.len(), "files that no claim names were read");
    for (tensor, file) in claims {
        let place = TENSORS.iter().position(|(name, _)| name == tensor).expect("a tensor that is there");
        assert_eq!(file, SHARDS[place * 2 / TENSORS.len()], "{tensor}");
    }
}
