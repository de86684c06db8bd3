//! The trace on disk: a file of fixed size in which the oldest events are overwritten.
//!
//! Layout: a head of 16 bytes (magic, then the number of events ever written, little-endian), then records of 40 bytes. Written once a
//! second without sync: after a crash of the machine a second or more is missing, after kill -9 at most one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Event, Trace, TraceId, WORDS};

/// The thread that copies events to disk; dropping it writes what is left.
pub struct Writer {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Opens or makes the file, at most `bytes` large, and starts copying.
    pub fn start(trace: Arc<Trace>, path: &Path, bytes: u64) -> io::Result<Writer> {
        let mut ring = Ring::open(path, bytes)?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("trace".to_owned()).spawn(move || {
            let mut seen = Vec::new();
            let mut batch = Vec::with_capacity(BATCH);
            let mut write = |batch: &mut Vec<u8>| {
                if let Err(error) = ring.append(batch) {
                    tracing::warn!(%error, "trace events lost");
                }
                batch.clear();
            };
            loop {
                let last = stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout);
                trace.drain(&mut seen, |words| {
                    words.iter().for_each(|w| batch.extend_from_slice(&w.to_le_bytes()));
                    if batch.len() + RECORD > BATCH {
                        write(&mut batch);
                    }
                });
                write(&mut batch);
                if last {
                    return;
                }
            }
        })?;
        Ok(Writer { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.take();
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the trace writer panicked");
        }
    }
}

/// The events of one trace in a file, oldest first. An absent file holds none.
pub fn find(path: &Path, id: TraceId) -> io::Result<Vec<Event>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let records = bytes.get(HEAD..).unwrap_or_default();
    let mut found: Vec<Event> = records
        .chunks_exact(RECORD)
        .filter(|r| r[..8] == id.0.to_le_bytes())
        .filter_map(|r| {
            let mut words = [0u64; WORDS];
            for (word, bytes) in words.iter_mut().zip(r.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            Event::from_words(words)
        })
        .collect();
    found.sort_by_key(|e| e.at);
    Ok(found)
}

const EVERY: Duration = Duration::from_secs(1);
/// Bytes written at once: few enough to stay in the cache and to need no fresh pages every second.
const BATCH: usize = 64 * 1024;
const MAGIC: &[u8; 8] = b"isthmus1";
const HEAD: usize = 16;
const RECORD: usize = WORDS * 8;

struct Ring {
    file: File,
    /// Events that the file holds.
    capacity: u64,
    /// Events ever written.
    written: u64,
}

impl Ring {
    fn open(path: &Path, bytes: u64) -> io::Result<Ring> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let capacity = (bytes.saturating_sub(HEAD as u64) / RECORD as u64).max(1);
        let mut head = [0u8; HEAD];
        let known = file.read_exact_at(&mut head, 0).is_ok() && head.starts_with(MAGIC);
        let full = HEAD as u64 + capacity * RECORD as u64;
        if !known || file.metadata()?.len() > full {
            // Not ours, or from a larger setting: begin anew.
            file.set_len(0)?;
        }
        // A cut file answers with zeros, which is the right number.
        let mut count = [0u8; 8];
        let written = match file.read_exact_at(&mut count, 8) {
            Ok(()) => u64::from_le_bytes(count),
            Err(_) => 0,
        };
        Ok(Ring { file, capacity, written })
    }

    /// Appends whole records; of more than fit, the last ones.
    fn append(&mut self, mut records: &[u8]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let most = self.capacity as usize * RECORD;
        if records.len() > most {
            records = &records[records.len() - most..];
        }
        let slot = self.written % self.capacity;
        let until_end = ((self.capacity - slot) as usize * RECORD).min(records.len());
        let (first, wrapped) = records.split_at(until_end);
        self.file.write_all_at(first, HEAD as u64 + slot * RECORD as u64)?;
        self.file.write_all_at(wrapped, HEAD as u64)?;
        self.written += (records.len() / RECORD) as u64;
        let mut head = [0u8; HEAD];
        head[..8].copy_from_slice(MAGIC);
        head[8..].copy_from_slice(&self.written.to_le_bytes());
        self.file.write_all_at(&head, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;
    use crate::config;
    use crate::telemetry::trace::Step;

    fn record(call_id: &[u8], at: u64) -> Vec<u8> {
        event(call_id, at, 0).words().iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    #[test]
    fn the_file_wraps_and_survives_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring");
        let size = (HEAD + 4 * RECORD) as u64;
        let mut ring = Ring::open(&path, size).unwrap();
        ring.append(&[record(b"a", 1), record(b"a", 2), record(b"a", 3)].concat()).unwrap();
        drop(ring);
        let mut ring = Ring::open(&path, size).unwrap();
        ring.append(&[record(b"a", 4), record(b"a", 5)].concat()).unwrap();
        let at: Vec<u64> = find(&path, TraceId::of(b"a")).unwrap().iter().map(|e| e.at).collect();
        assert_eq!(at, [2, 3, 4, 5]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
    }

    #[test]
    fn a_foreign_or_absent_file_is_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring");
        assert!(find(&path, TraceId::of(b"a")).unwrap().is_empty());
        std::fs::write(&path, b"something else entirely").unwrap();
        Ring::open(&path, 1000).unwrap().append(&record(b"a", 1)).unwrap();
        assert_eq!(find(&path, TraceId::of(b"a")).unwrap().len(), 1);
    }

    #[test]
    fn what_was_recorded_is_on_disk_when_the_writer_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring");
        let trace = Arc::new(Trace::new(&config::Trace { events: 1024, ..config::Trace::default() }));
        let writer = Writer::start(trace.clone(), &path, 10_000).unwrap();
        trace.record(&Event { step: Step::Charged, ..event(b"a", 9, 0) });
        drop(writer);
        assert_eq!(find(&path, TraceId::of(b"a")).unwrap()[0].step, Step::Charged);
    }
}
