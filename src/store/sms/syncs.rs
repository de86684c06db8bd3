//! Syncs of the journal, for news that somebody is told we have: a receipt that is acknowledged does not come again.
//!
//! They run beside the writer, so that no push waits for one. While a sync runs, those who want the next gather.

use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use sip_ims::ports::{Done, StoreError};

use crate::store::{OpenError, sql};

/// Ends its thread when dropped, after what was asked for.
pub struct Syncs {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    wake: Condvar,
}

#[derive(Default)]
struct Wanted {
    /// Which of the journal's files.
    files: [bool; 2],
    /// As many as links have receipts under way: their windows bound them.
    done: Vec<Done<()>>,
    stop: bool,
}

impl Syncs {
    pub fn start(files: [File; 2]) -> Result<Syncs, OpenError> {
        let shared = Arc::<Shared>::default();
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("sms-journal".into())
            .spawn(move || run(&for_thread, &files))
            .map_err(OpenError::Thread)?;
        Ok(Syncs { shared, thread: Some(thread) })
    }

    /// `done` runs once what has been written to that file is on disk.
    pub fn ask(&self, file: usize, done: Done<()>) {
        let mut wanted = self.shared.wanted.lock();
        wanted.files[file] = true;
        wanted.done.push(done);
        self.shared.wake.notify_one();
    }
}

impl Drop for Syncs {
    fn drop(&mut self) {
        self.shared.wanted.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // One that panicked has reported itself; receipts without an answer come again.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, files: &[File; 2]) {
    let mut wanted = shared.wanted.lock();
    loop {
        if wanted.done.is_empty() {
            if wanted.stop {
                return;
            }
            shared.wake.wait(&mut wanted);
            continue;
        }
        let (which, done) = (std::mem::take(&mut wanted.files), std::mem::take(&mut wanted.done));
        drop(wanted);
        let synced = files.iter().zip(which).filter(|(_, wanted)| *wanted).try_for_each(|(file, _)| file.sync_data());
        let synced = synced.map_err(|error| {
            tracing::error!(%error, "the short message journal is not synced");
            StoreError::engine(error)
        });
        done.into_iter().for_each(|done| sql::finish(done, synced.clone()));
        wanted = shared.wanted.lock();
    }
}
