//! Opening the database: its folder, its lock, its health, its shape.
//!
//! A file whose pages do not make sense is moved aside and a new one begun, since a server that cannot start helps nobody;
//! a folder that cannot be written to leaves a server that keeps nothing and says so. Answers that were running when the
//! program ended are interrupted from here on.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::{
    error::StorageError,
    migrations,
    threads::{self, Queue},
};

/// The file's name in its folder.
const FILE: &str = "conversations.db";

/// The file that a running program holds locked.
const LOCK: &str = "lock";

/// How long another program's lock on the database is waited for.
const LOCKED: Duration = Duration::from_secs(2);

/// How many threads read.
const READERS: usize = 2;

/// Conversations on disk; cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    pub(super) threads: Option<Threads>,
}

#[derive(Debug, Clone)]
pub(super) struct Threads {
    pub(super) writer: Queue,
    pub(super) readers: Queue,
}

/// Why there is no database, and the program had better not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another program uses the folder.
    #[error(
        "{0} is used by another server; expected a data folder of its own\nhint: end that server, or choose another folder with --data_dir"
    )]
    InUse(PathBuf),
    /// A later version of the program wrote it.
    #[error("{0}: {1}\nhint: use that version, or choose another folder with --data_dir")]
    Later(PathBuf, String),
}

/// What was found on opening, to be said on the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Conversations are kept in this file.
    Kept(PathBuf),
    /// The file made no sense and was moved here; a new one was begun.
    MovedAside(PathBuf),
    /// Nothing can be kept, for this reason.
    Nothing(String),
}

impl Storage {
    /// Opens the database in this folder, which is made where it is missing.
    ///
    /// # Errors
    /// [`OpenError`]. What merely keeps conversations from being kept is [`Found::Nothing`].
    pub fn open(folder: &Path) -> Result<(Self, Found), OpenError> {
        let unusable = |error: &dyn std::fmt::Display| Found::Nothing(format!("{}: {error}", folder.display()));
        let lock = match lock(folder) {
            Ok(lock) => lock,
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Ok((Self::absent(), unusable(&error))),
        };
        let path = folder.join(FILE);
        let (opened, found) = match open_or_begin(&path) {
            Ok(opened) => opened,
            Err(StorageError::Other(why)) if why.contains("later version") => return Err(OpenError::Later(path, why)),
            Err(error) => return Ok((Self::absent(), unusable(&error))),
        };
        let (writer, readers) = opened;
        let threads = Threads {
            writer: threads::writer(writer, move |connection| {
                // The next start is quicker for it; where it fails the log is read then.
                let _ = connection.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE)");
                // Nobody else may write before the last write.
                drop(lock);
            }),
            readers: threads::readers(readers),
        };
        Ok((Self { threads: Some(threads) }, found))
    }

    /// No database: nothing is kept and nothing found.
    #[must_use]
    pub fn absent() -> Self {
        Self { threads: None }
    }

    /// Runs statements on the connection that writes: how tests fill the disk.
    ///
    /// # Errors
    /// What the statements say.
    pub async fn run_script(&self, statements: &'static str) -> Result<(), StorageError> {
        self.write(move |connection| Ok(connection.execute_batch(statements)?)).await
    }

    /// Waits until all that was asked so far has been written.
    pub async fn settled(&self) {
        // Where nothing can be written there is nothing to wait for.
        let _ = self.write(|_| Ok(())).await;
    }

    pub(super) fn write<T, W>(&self, work: W) -> impl Future<Output = Result<T, StorageError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, StorageError> + Send + 'static,
    {
        ask(self.threads.as_ref().map(|threads| &threads.writer), work)
    }

    pub(super) fn read<T, W>(&self, work: W) -> impl Future<Output = Result<T, StorageError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, StorageError> + Send + 'static,
    {
        ask(self.threads.as_ref().map(|threads| &threads.readers), work)
    }
}

/// Asks at once, so that what is asked first is done first, also where the answer is waited for later or never.
fn ask<T, W>(queue: Option<&Queue>, work: W) -> impl Future<Output = Result<T, StorageError>> + Send + use<T, W>
where
    T: Send + 'static,
    W: FnOnce(&Connection) -> Result<T, StorageError> + Send + 'static,
{
    let asked = queue.map(|queue| queue.ask(work));
    async move {
        match asked {
            Some(asked) => asked.await,
            None => Err(StorageError::Absent),
        }
    }
}

fn lock(folder: &Path) -> Result<File, TryLockError> {
    make_private(folder).map_err(TryLockError::Error)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK))
        .map_err(TryLockError::Error)?;
    file.try_lock()?;
    Ok(file)
}

/// Makes the folder where it is missing, for its owner's eyes only.
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

type Connections = (Connection, Vec<Connection>);

fn open_or_begin(path: &Path) -> Result<(Connections, Found), StorageError> {
    match open_file(path) {
        Ok(connections) => Ok((connections, Found::Kept(path.to_owned()))),
        Err(StorageError::Corrupt) => {
            let aside = move_aside(path).map_err(|error| StorageError::Other(error.to_string()))?;
            Ok((open_file(path)?, Found::MovedAside(aside)))
        }
        Err(error) => Err(error),
    }
}

fn open_file(path: &Path) -> Result<Connections, StorageError> {
    let mut writer = Connection::open(path)?;
    writer.busy_timeout(LOCKED)?;
    // Deleted texts are overwritten; what was said is committed when it has reached the disk.
    writer.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON",
    )?;
    check_health(&writer)?;
    migrations::apply(&mut writer)?;
    writer.execute(
        "UPDATE message SET end = ?1 WHERE generation IS NOT NULL AND end IS NULL",
        [super::code::json(&crate::chat::event::EndReason::Interrupted)],
    )?;
    let readers = (0..READERS).map(|_| open_reader(path)).collect::<Result<_, _>>()?;
    Ok((writer, readers))
}

fn check_health(connection: &Connection) -> Result<(), StorageError> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(StorageError::Corrupt) }
}

fn open_reader(path: &Path) -> Result<Connection, StorageError> {
    let reader =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    reader.busy_timeout(LOCKED)?;
    reader.pragma_update(None, "query_only", true)?;
    super::list::teach(&reader)?;
    Ok(reader)
}

/// Gives the file and its logs names of their own: what is in them may be saved by hand.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let named = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let free = (1..1000).map(|n| named(&format!(".corrupt-{n}"))).find(|aside| !aside.exists());
    let aside = free.ok_or_else(|| io::Error::other("there are too many corrupt databases beside it"))?;
    fs::rename(path, &aside)?;
    for log in ["-wal", "-shm"] {
        let from = named(log);
        if from.exists() {
            fs::rename(from, format!("{}{log}", aside.display()))?;
        }
    }
    Ok(aside)
}
