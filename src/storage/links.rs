//! Who is who: the owner behind a cookie, and links by which another device becomes the same owner.
//!
//! Knows hashes only; the secrets themselves are never here.

use rusqlite::{Connection, OptionalExtension};

use super::{
    code::{id_at, id_bytes},
    database::Storage,
    error::StorageError,
    record::{Owner, SecretHash},
};

impl Storage {
    /// The owner that a cookie was joined to, `None` where it was joined to none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn owner(&self, token: SecretHash) -> Result<Option<Owner>, StorageError> {
        self.read(move |connection| {
            let mut statement = connection.prepare("SELECT owner FROM session WHERE token_hash = ?1")?;
            Ok(statement.query_row([token.0], |row| id_at(row, "owner").map(Owner)).optional()?)
        })
        .await
    }

    /// Keeps a link to an owner's conversations until then.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn add_link(&self, owner: Owner, code: SecretHash, expires_ms: u64) -> Result<(), StorageError> {
        self.write(move |connection| {
            connection.execute(
                "INSERT INTO link (code_hash, owner, expires_ms) VALUES (?1, ?2, ?3)",
                (code.0, id_bytes(owner.0), expires_ms.cast_signed()),
            )?;
            Ok(())
        })
        .await
    }

    /// Uses a link up: the cookie opens the conversations of the link's owner from now on, and those that it opened so far
    /// are theirs too. Gives that owner.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] where there is no such link or it is too late.
    pub async fn take_link(
        &self,
        code: SecretHash,
        token: SecretHash,
        mine: Owner,
        now_ms: u64,
    ) -> Result<Owner, StorageError> {
        self.write(move |connection| {
            let theirs = connection.query_row(
                "DELETE FROM link WHERE code_hash = ?1 AND expires_ms > ?2 RETURNING owner",
                (code.0, now_ms.cast_signed()),
                |row| id_at(row, "owner").map(Owner),
            )?;
            join(connection, mine, theirs, token, now_ms)?;
            Ok(theirs)
        })
        .await
    }
}

/// Everything of one owner becomes another's.
fn join(connection: &Connection, from: Owner, to: Owner, token: SecretHash, now_ms: u64) -> Result<(), StorageError> {
    let (from, to) = (id_bytes(from.0), id_bytes(to.0));
    for table in ["conversation", "session", "command"] {
        connection.execute(&format!("UPDATE {table} SET owner = ?2 WHERE owner = ?1"), (from, to))?;
    }
    connection.execute(
        "INSERT INTO session (token_hash, owner, created_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT (token_hash) DO UPDATE SET owner = excluded.owner",
        (token.0, to, now_ms.cast_signed()),
    )?;
    Ok(())
}
