//! The database's shape, in numbered steps: `migrations/NNNN-what.sql`, each applied once, in order.
//!
//! `PRAGMA user_version` is how many have been applied. **Architecture Invariant:** a step that was ever released never
//! changes.

use rusqlite::Connection;

use super::error::StorageError;

const STEPS: &[&str] = &[include_str!("migrations/0001-conversations.sql")];

/// Applies what is missing.
///
/// # Errors
/// Where the database is of a later version of the program, or a step fails; the steps before it stay applied.
pub(super) fn apply(connection: &mut Connection) -> Result<(), StorageError> {
    let applied: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let applied = applied.cast_unsigned() as usize;
    if applied > STEPS.len() {
        return Err(StorageError::Other(format!(
            "the database has version {applied}, expected at most {}; it was written by a later version of this program",
            STEPS.len()
        )));
    }
    for (number, step) in STEPS.iter().enumerate().skip(applied) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", (number + 1).cast_signed() as i64)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_applied_once_and_a_later_database_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        apply(&mut connection).unwrap();
        apply(&mut connection).unwrap();
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version.cast_unsigned() as usize, STEPS.len());
        connection.pragma_update(None, "user_version", (STEPS.len() + 1).cast_signed() as i64).unwrap();
        let error = apply(&mut connection).unwrap_err();
        assert!(error.to_string().contains("later version"), "{error}");
    }
}
