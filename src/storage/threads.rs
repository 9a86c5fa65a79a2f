//! The threads that use the database: one that writes, some that read.
//!
//! What arrives while the writer is busy is written together, in one transaction with one sync, so that many writers cost
//! little more than one. **Architecture Invariant:** a write is answered after its transaction was committed, or has
//! failed; never before.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use futures::channel::oneshot;
use rusqlite::Connection;

use super::error::StorageError;

/// Most writes that share a transaction.
const BATCH: usize = 256;

/// Answers a write once it is known whether it was committed.
type Answer = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// Something to be done with a connection, or told why there is no transaction to do it in; what went wrong, and what
/// answers.
type Job = Box<dyn FnOnce(Result<&Connection, StorageError>) -> (Result<(), StorageError>, Answer) + Send>;

/// The way to one kind of thread.
#[derive(Debug, Clone)]
pub(super) struct Queue(mpsc::Sender<Job>);

impl Queue {
    /// Has something done, and tells what came of it. It is done also where nobody waits for that.
    pub(super) fn ask<T, W>(&self, work: W) -> impl Future<Output = Result<T, StorageError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, StorageError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(connection?)))
                .unwrap_or_else(|_| Err(StorageError::Other("a statement panicked".to_owned())));
            let done = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
            let answer: Answer = Box::new(move |committed| {
                // Nobody may be waiting any more.
                let _ = sender.send(committed.and(outcome));
            });
            (done, answer)
        });
        let sent = self.0.send(job);
        async move {
            match sent {
                Ok(()) => receiver.await.unwrap_or(Err(StorageError::Absent)),
                Err(_) => Err(StorageError::Absent),
            }
        }
    }
}

/// Starts the thread that writes. It ends when the last queue to it is gone, after all that was asked.
pub(super) fn writer(connection: Connection, at_end: impl FnOnce(&Connection) + Send + 'static) -> Queue {
    let (sender, jobs) = mpsc::channel::<Job>();
    spawn("storage-write", move || {
        while let Ok(first) = jobs.recv() {
            write(&connection, first, &jobs);
        }
        at_end(&connection);
    });
    Queue(sender)
}

/// Starts the threads that read, one a connection.
pub(super) fn readers(connections: Vec<Connection>) -> Queue {
    let (sender, jobs) = mpsc::channel::<Job>();
    let jobs = Arc::new(Mutex::new(jobs));
    for connection in connections {
        let jobs = jobs.clone();
        spawn("storage-read", move || {
            loop {
                let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(job) = job else { return };
                job(Ok(&connection)).1(Ok(()));
            }
        });
    }
    Queue(sender)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .expect("invariant: a program that has just started can start a thread");
}

/// Writes the first job and those that wait behind it, in one transaction.
fn write(connection: &Connection, first: Job, jobs: &mpsc::Receiver<Job>) {
    let mut held = connection.execute_batch("BEGIN IMMEDIATE").map_err(StorageError::from);
    let mut answers = Vec::new();
    for job in std::iter::once(first).chain(std::iter::from_fn(|| jobs.try_recv().ok())).take(BATCH) {
        let answer = match &held {
            Ok(()) => apart(connection, job, &mut held),
            Err(error) => job(Err(error.clone())).1,
        };
        answers.push(answer);
    }
    if held.is_ok() {
        held = connection.execute_batch("COMMIT").map_err(StorageError::from);
    }
    if !connection.is_autocommit() {
        // Fails only where there is nothing to roll back.
        let _ = connection.execute_batch("ROLLBACK");
    }
    for answer in answers {
        answer(held.clone());
    }
}

/// Does a job so that its failure undoes nothing but itself, unless the whole transaction is lost with it.
fn apart(connection: &Connection, job: Job, held: &mut Result<(), StorageError>) -> Answer {
    let begun = connection.execute_batch("SAVEPOINT job").map_err(StorageError::from);
    let (done, answer) = job(begun.map(|()| connection));
    if connection.is_autocommit() {
        *held = Err(done.err().unwrap_or(StorageError::Full));
    } else if done.is_err() {
        *held = connection.execute_batch("ROLLBACK TO job; RELEASE job").map_err(StorageError::from);
    } else {
        *held = connection.execute_batch("RELEASE job").map_err(StorageError::from);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (x INTEGER UNIQUE)").unwrap();
        writer(connection, |_| {})
    }

    fn insert(queue: &Queue, x: i64) -> impl Future<Output = Result<(), StorageError>> + use<> {
        queue.ask(move |connection| Ok(connection.execute("INSERT INTO t VALUES (?1)", [x]).map(|_| ())?))
    }

    async fn count(queue: &Queue) -> i64 {
        queue.ask(|connection| Ok(connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)).await.unwrap()
    }

    /// Keeps the writer busy until what is given is dropped, so that what is asked meanwhile shares a transaction.
    fn hold(queue: &Queue) -> mpsc::Sender<()> {
        let (release, held) = mpsc::channel::<()>();
        drop(queue.ask(move |_| {
            let _ = held.recv();
            Ok(())
        }));
        release
    }

    #[test]
    fn a_write_that_fails_takes_nothing_of_its_neighbours_with_it() {
        futures::executor::block_on(async {
            let queue = queue();
            let release = hold(&queue);
            let writes = [insert(&queue, 1), insert(&queue, 1), insert(&queue, 2)];
            drop(release);
            let outcomes = futures::future::join_all(writes).await;
            assert!(outcomes[0].is_ok() && outcomes[1].is_err() && outcomes[2].is_ok(), "{outcomes:?}");
            assert_eq!(count(&queue).await, 2);
        });
    }

    #[test]
    fn a_statement_that_panics_is_an_error_and_the_thread_goes_on() {
        futures::executor::block_on(async {
            let queue = queue();
            let outcome = queue.ask(|_| -> Result<(), StorageError> { panic!("on purpose") }).await;
            assert!(matches!(outcome, Err(StorageError::Other(_))), "{outcome:?}");
            assert!(insert(&queue, 1).await.is_ok());
        });
    }

    #[test]
    fn what_nobody_waits_for_is_written_all_the_same() {
        futures::executor::block_on(async {
            let queue = queue();
            drop(insert(&queue, 1));
            assert_eq!(count(&queue).await, 1);
        });
    }
}
