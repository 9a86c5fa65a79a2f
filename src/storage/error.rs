//! Why something is not kept, or not found again.

use rusqlite::ErrorCode;

/// Why the database did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// The file or its folder may not be written to.
    #[error("the database is read-only")]
    ReadOnly,
    /// Another program holds it.
    #[error("another program has locked the database")]
    Locked,
    /// Its pages do not make sense.
    #[error("the database is corrupt")]
    Corrupt,
    /// It is somebody else's or there is none; the two are never told apart.
    #[error("there is no such thing")]
    NotFound,
    /// There is no database: what stood against it was said at the start.
    #[error("there is no database")]
    Absent,
    /// Anything else, in the library's words.
    #[error("{0}")]
    Other(String),
}

impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt,
            _ if error == rusqlite::Error::QueryReturnedNoRows => Self::NotFound,
            _ => Self::Other(error.to_string()),
        }
    }
}
