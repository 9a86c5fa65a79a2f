//! How values are written into columns and read out of them.

use rusqlite::{Row, types::Type};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// An identifier as its 16 bytes.
pub(super) fn id_bytes(id: u128) -> [u8; 16] {
    id.to_be_bytes()
}

/// The identifier in a column.
pub(super) fn id_at(row: &Row<'_>, column: &str) -> rusqlite::Result<u128> {
    row.get(column).map(u128::from_be_bytes)
}

/// The identifier in a column that may have none.
pub(super) fn optional_id_at(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<u128>> {
    Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(u128::from_be_bytes))
}

/// Token ids as 4 bytes each, little endian.
pub(super) fn token_bytes(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

/// The token ids in a column.
pub(super) fn tokens_at(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<u32>> {
    let bytes: Vec<u8> = row.get(column)?;
    let (tokens, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(unreadable(&format!("{column} has {} bytes, expected a multiple of 4", bytes.len())));
    }
    Ok(tokens.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
}

/// SHA-256 of token ids.
pub(super) fn tokens_hash(ids: &[u32]) -> [u8; 32] {
    Sha256::digest(token_bytes(ids)).into()
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("invariant: a record has string keys and finite numbers")
}

/// The value that a column has as JSON.
pub(super) fn json_at<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    read_json(column, &row.get::<_, String>(column)?)
}

/// The value that a column may have as JSON.
pub(super) fn optional_json_at<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    row.get::<_, Option<String>>(column)?.map(|text| read_json(column, &text)).transpose()
}

fn read_json<T: DeserializeOwned>(column: &str, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| unreadable(&format!("{column}: {error}")))
}

fn unreadable(why: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, why.into())
}
