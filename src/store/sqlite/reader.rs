//! Reader threads: each has its own read-only connection and takes work from one bounded queue.
//!
//! A read sees everything that was answered as committed before it began (WAL snapshot at its first statement).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::file;
use crate::store::StoreError;
use crate::store::writer::stopped;

/// How many. Reads take microseconds from the page cache; more threads would only contend.
const READERS: usize = 3;

/// How many reads may wait before callers are told to try again. Our own choice: well under a second's worth.
const QUEUE_MAX: usize = 1024;

/// One read: runs on a reader thread and answers by itself.
pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The running threads.
#[derive(Debug)]
pub(super) struct Readers {
    queue: Option<SyncSender<Read>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut readers = Self { queue: Some(sender), threads: Vec::with_capacity(READERS) };
        for _ in 0..READERS {
            let conn = file::connect_reader(path)?;
            let receiver = Arc::clone(&receiver);
            let thread = std::thread::Builder::new()
                .name("store-reader".to_owned())
                .spawn(move || serve(&conn, &receiver))
                .map_err(|error| StoreError::Failed { doing: "starting a reader", why: error.to_string() })?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Whether one of its threads runs.
    pub(super) fn is_alive(&self) -> bool {
        self.threads.iter().any(|thread| !thread.is_finished())
    }

    pub(super) fn submit(&self, read: Read) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or_else(|| stopped("reading"))?;
        queue.try_send(read).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => stopped("reading"),
        })
    }
}

fn serve(conn: &Connection, queue: &Mutex<Receiver<Read>>) {
    loop {
        // Held only while waiting for work: the next reader waits for the lock instead of for the queue.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(read) = next else { return };
        // A read that panics fails alone: its answer is dropped, which its caller sees as a failure. It changes nothing, and
        // a statement that it left open is closed on the way out.
        if catch_unwind(AssertUnwindSafe(|| read(conn))).is_err() {
            tracing::error!("a read panicked");
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.queue.take());
        for thread in self.threads.drain(..) {
            // A reader that panicked has dropped its answer, which its caller saw as a failure.
            drop(thread.join());
        }
    }
}
