//! Reading JSON.
//!
//! Knows nothing of what is read. **Architecture Invariant:** the page reads JSON from bytes only, as the answers of
//! commands are read, so that the wasm holds each type's reader once.

use leptos::serde_json;
use serde::de::DeserializeOwned;

/// Reads a value.
///
/// # Errors
/// Where the text is no JSON of such a value.
pub fn read<T: DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
    serde_json::from_slice(json.as_bytes())
}
