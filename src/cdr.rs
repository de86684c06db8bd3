//! Charging records: one JSON line for each call and each message, in a file a day.
//!
//! [`Records::write`] queues; a thread appends. A record that the queue has no room for is dropped and counted, so that a
//! slow disk never holds up signalling.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

/// What one call or message came to. Times are milliseconds since 1970.
#[derive(Clone, Debug, Serialize)]
pub struct Record<'a> {
    /// Which kind; the rest of a record depends on it.
    pub kind: Kind,
    /// As [`crate::telemetry::TraceId`] prints it.
    pub trace: &'a str,
    pub node: &'a str,
    pub call_id: &'a str,
    /// Identities as asserted or authenticated, else as claimed.
    pub from: &'a str,
    pub to: &'a str,
    pub start: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<u64>,
    pub end: u64,
    /// Final SIP status.
    pub status: u16,
    /// Of the body, for messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Call,
    Message,
    /// A segment of a short message; its status is the verdict: 0, or 6001 and up.
    ShortMessage,
}

/// The way in, shared by every thread.
#[derive(Clone)]
pub struct Records {
    /// `None` ends the writer.
    queue: SyncSender<Option<Line>>,
    counts: Arc<Counts>,
}

#[derive(Default, Debug)]
pub struct Counts {
    pub written: AtomicU64,
    /// No room in the queue, or the disk refused.
    pub dropped: AtomicU64,
}

struct Line {
    /// Days since 1970 (UTC) of the record's end: decides the file.
    day: i64,
    text: String,
}

/// Most records waiting for the disk.
pub const QUEUE: usize = 65_536;

impl Records {
    /// Queues a record for the file of the day on which it ended.
    pub fn write(&self, record: &Record<'_>) {
        let queued = serde_json::to_string(record).is_ok_and(|mut text| {
            text.push('\n');
            let day = (record.end / 86_400_000) as i64;
            self.queue.try_send(Some(Line { day, text })).is_ok()
        });
        if !queued {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

/// The appending thread.
pub struct Writer {
    queue: SyncSender<Option<Line>>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// `pattern` holds `{date}` in its file name; folders are made as needed.
    pub fn start(pattern: PathBuf) -> io::Result<(Records, Writer)> {
        if let Some(folder) = pattern.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let (queue, lines) = mpsc::sync_channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        let thread =
            std::thread::Builder::new().name("cdr".to_owned()).spawn(move || append(&pattern, &lines, &counted))?;
        let writer = Writer { queue: queue.clone(), thread };
        Ok((Records { queue, counts }, writer))
    }

    /// Waits until everything queued is on disk, and ends; what is written later is dropped and counted.
    pub fn finish(self) {
        // An error says that the thread has ended already.
        let _ = self.queue.send(None);
        if self.thread.join().is_err() {
            tracing::error!("the charging record writer panicked");
        }
    }
}

/// The lines of all files of `pattern` that hold `text`, oldest file first; for `isthmus trace`.
pub fn search(pattern: &Path, text: &str) -> io::Result<Vec<String>> {
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let Some((before, after)) = name.split_once("{date}") else { return Ok(Vec::new()) };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|n| n.starts_with(before) && n.ends_with(after)) {
            files.push(entry.path());
        }
    }
    files.sort();
    let mut found = Vec::new();
    for file in files {
        for line in io::BufRead::lines(io::BufReader::new(File::open(file)?)) {
            let line = line?;
            if line.contains(text) {
                found.push(line);
            }
        }
    }
    Ok(found)
}

fn append(pattern: &Path, lines: &Receiver<Option<Line>>, counts: &Counts) {
    let mut day = Day { pattern, number: i64::MIN, file: None };
    let mut flushed = Instant::now();
    loop {
        if flushed.elapsed() >= FLUSH_EVERY {
            day.flush(false);
            flushed = Instant::now();
        }
        let line = match lines.recv_timeout(FLUSH_EVERY) {
            Ok(Some(line)) => line,
            Err(RecvTimeoutError::Timeout) => continue,
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return day.flush(true),
        };
        match day.write(&line) {
            Ok(()) => counts.written.fetch_add(1, Relaxed),
            Err(error) => {
                tracing::error!(%error, "a charging record is lost");
                day.file = None;
                counts.dropped.fetch_add(1, Relaxed)
            }
        };
    }
}

const FLUSH_EVERY: Duration = Duration::from_millis(200);

struct Day<'a> {
    pattern: &'a Path,
    number: i64,
    file: Option<BufWriter<File>>,
}

impl Day<'_> {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        if self.file.is_none() || self.number != line.day {
            self.flush(true);
            let path = self.pattern.to_string_lossy().replace("{date}", &date(line.day));
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            self.file = Some(BufWriter::with_capacity(64 * 1024, file));
            self.number = line.day;
        }
        match &mut self.file {
            Some(file) => file.write_all(line.text.as_bytes()),
            None => Ok(()),
        }
    }

    fn flush(&mut self, sync: bool) {
        let Some(file) = &mut self.file else { return };
        let done = file.flush().and_then(|()| if sync { file.get_ref().sync_data() } else { Ok(()) });
        if let Err(error) = done {
            tracing::error!(%error, "charging records may be lost");
        }
    }
}

/// YYYY-MM-DD of a day number since 1970.
fn date(day: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(day.saturating_mul(86_400))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
        .date()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(trace: &str, end: u64) -> Record<'_> {
        Record {
            kind: Kind::Message,
            trace,
            node: "n1",
            call_id: "c\r\n1",
            from: "sip:alice@localhost",
            to: "sip:bob@localhost",
            start: end - 5,
            answer: None,
            end,
            status: 200,
            bytes: Some(12),
        }
    }

    #[test]
    fn each_day_has_its_file_and_each_record_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let pattern = folder.path().join("cdr/x-{date}.jsonl");
        let (records, writer) = Writer::start(pattern.clone()).unwrap();
        records.write(&record("00000000000000aa", 86_400_000 - 1));
        records.write(&record("00000000000000bb", 86_400_000));
        records.write(&record("00000000000000bb", 86_400_001));
        let counts = records.counts().clone();
        // Others may still hold the queue when the server stops.
        writer.finish();
        records.write(&record("00000000000000bb", 86_400_002));
        assert_eq!((counts.written.load(Relaxed), counts.dropped.load(Relaxed)), (3, 1));
        let second = std::fs::read_to_string(folder.path().join("cdr/x-1970-01-02.jsonl")).unwrap();
        assert_eq!(second.lines().count(), 2);
        let parsed: serde_json::Value = serde_json::from_str(second.lines().next().unwrap()).unwrap();
        assert_eq!(parsed["trace"], "00000000000000bb");
        assert_eq!(parsed["call_id"], "c\r\n1");
        assert_eq!(search(&pattern, "00000000000000aa").unwrap().len(), 1);
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, _held) = mpsc::sync_channel(1);
        let records = Records { queue, counts: Arc::default() };
        records.write(&record("a", 5));
        records.write(&record("a", 6));
        assert_eq!(records.counts().dropped.load(Relaxed), 1);
    }
}
