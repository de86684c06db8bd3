//! From notes to charging records: puts the notes of one call together, and writes one record when it is over.
//!
//! The hot side copies a note into a buffer and wakes nobody; a thread empties it a few times a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use sip_ims::service::{Chronicle, Note, NoteEvent};

use crate::cdr::{Kind, Record, Records};
use crate::telemetry::TraceId;

/// Notes that wait for the thread; more are dropped and counted.
const MAX_WAITING: usize = 100_000;
/// Calls whose end has not been seen; the oldest knowledge gives way.
const MAX_CALLS: usize = 500_000;
/// Refused Call-IDs remembered; when there are more, the next repetition of an old one makes a second record.
const MAX_REFUSED: usize = 10_000;
/// Milliseconds for which a client may repeat a request (RFC 3261 §17.1.1.2, §17.1.2.2: timers B and F, 64 times T1).
const REPEATED: u64 = 32_000;
const PERIOD: Duration = Duration::from_millis(200);
/// Bytes kept of each of Call-ID, From and To.
const MAX_TEXT: usize = 512;

/// Takes the notes of the whole server.
pub struct Ledger {
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    notes: Mutex<Notes>,
    ended: Condvar,
}

#[derive(Default)]
struct Notes {
    list: Vec<Kept>,
    dropped: u64,
    closed: bool,
}

struct Kept {
    at: u64,
    event: NoteEvent,
    status: u16,
    call_id: Box<str>,
    from: Box<str>,
    to: Box<str>,
}

/// The thread that writes records; [`LedgerWriter::finish`] waits for what is queued.
pub struct LedgerWriter {
    waiting: Arc<Waiting>,
    thread: JoinHandle<()>,
}

impl Ledger {
    /// `records` is dropped by the thread when it ends.
    pub fn start(records: Records, node: String) -> std::io::Result<(Ledger, LedgerWriter)> {
        let waiting = Arc::new(Waiting::default());
        let for_thread = waiting.clone();
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || Book { records, node, calls: HashMap::new(), refused: HashMap::new() }.keep(&for_thread))?;
        Ok((Ledger { waiting: waiting.clone() }, LedgerWriter { waiting, thread }))
    }
}

impl LedgerWriter {
    pub fn finish(self) {
        self.waiting.notes.lock().closed = true;
        self.waiting.ended.notify_all();
        if self.thread.join().is_err() {
            tracing::error!("the ledger panicked");
        }
    }
}

impl Chronicle for Ledger {
    fn note(&self, note: &Note<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]).into_owned().into();
        // Ringing is in no record, and the parties of a call are known from its start.
        let parties = match note.event {
            NoteEvent::CallRinging
            | NoteEvent::SessionAnchored
            | NoteEvent::SessionEnded
            | NoteEvent::MediaRelayed
            | NoteEvent::ServiceInvoked
            | NoteEvent::ServiceTook
            | NoteEvent::ServiceSkipped
            | NoteEvent::ServiceFailed
            | NoteEvent::ServerReturned
            | NoteEvent::Joined => return,
            NoteEvent::CallAnswered | NoteEvent::CallEnded | NoteEvent::CallFailed => [&[][..]; 2],
            _ => [note.from, note.to],
        };
        let kept = Kept {
            at: unix_ms(),
            event: note.event,
            status: note.status,
            call_id: text(note.trace),
            from: text(parties[0]),
            to: text(parties[1]),
        };
        let mut notes = self.waiting.notes.lock();
        if notes.list.len() < MAX_WAITING {
            notes.list.push(kept);
        } else {
            notes.dropped += 1;
        }
    }
}

struct Book {
    records: Records,
    node: String,
    calls: HashMap<Box<str>, Call>,
    /// Call-IDs that were refused lately, and when: their retransmissions are the same call. At most [`MAX_REFUSED`].
    refused: HashMap<Box<str>, u64>,
}

struct Call {
    start: u64,
    answer: Option<u64>,
    from: Box<str>,
    to: Box<str>,
}

impl Book {
    fn keep(mut self, waiting: &Waiting) {
        loop {
            let (list, dropped, closed) = {
                let mut notes = waiting.notes.lock();
                if !notes.closed {
                    waiting.ended.wait_for(&mut notes, PERIOD);
                }
                let dropped = std::mem::take(&mut notes.dropped);
                (std::mem::take(&mut notes.list), dropped, notes.closed)
            };
            if dropped > 0 {
                tracing::warn!(dropped, "notes for charging records were dropped");
            }
            list.into_iter().for_each(|kept| self.enter(kept));
            if closed {
                return;
            }
        }
    }

    fn enter(&mut self, kept: Kept) {
        match kept.event {
            NoteEvent::CallAttempt => {
                if self.calls.len() >= MAX_CALLS
                    && let Some(any) = self.calls.keys().next().cloned()
                {
                    self.calls.remove(&any);
                }
                let call = Call { start: kept.at, answer: None, from: kept.from, to: kept.to };
                self.calls.entry(kept.call_id).or_insert(call);
            }
            NoteEvent::CallAnswered => {
                if let Some(call) = self.calls.get_mut(&kept.call_id) {
                    call.answer.get_or_insert(kept.at);
                }
            }
            NoteEvent::CallFailed => match self.calls.get(&kept.call_id) {
                // A re-INVITE that failed does not end the call.
                Some(call) if call.answer.is_some() => {}
                _ => self.end(kept),
            },
            NoteEvent::CallEnded => self.end(kept),
            NoteEvent::CallRefused => self.refuse(Kind::Call, kept),
            NoteEvent::MessageRefused => self.refuse(Kind::Message, kept),
            NoteEvent::MessageRelayed
            | NoteEvent::MessageKept
            | NoteEvent::MessageDelivered
            | NoteEvent::MessageExpired => {
                let call = Call { start: kept.at, answer: None, from: kept.from, to: kept.to };
                self.write(Kind::Message, &kept.call_id, &call, kept.at, kept.status);
            }
            // The rest is not kept.
            _ => {}
        }
    }

    fn end(&mut self, kept: Kept) {
        if let Some(call) = self.calls.remove(&kept.call_id) {
            self.write(Kind::Call, &kept.call_id, &call, kept.at, kept.status);
        }
    }

    fn refuse(&mut self, kind: Kind, kept: Kept) {
        let recent = |at: u64| kept.at.saturating_sub(at) < REPEATED;
        if self.refused.get(&kept.call_id).is_some_and(|at| recent(*at)) {
            return;
        }
        if self.refused.len() >= MAX_REFUSED {
            self.refused.retain(|_, at| recent(*at));
            if self.refused.len() >= MAX_REFUSED {
                self.refused.clear();
            }
        }
        self.refused.insert(kept.call_id.clone(), kept.at);
        let call = Call { start: kept.at, answer: None, from: kept.from, to: kept.to };
        self.write(kind, &kept.call_id, &call, kept.at, kept.status);
    }

    fn write(&self, kind: Kind, call_id: &str, call: &Call, end: u64, status: u16) {
        self.records.write(&Record {
            kind,
            trace: &TraceId::of(call_id.as_bytes()).to_string(),
            node: &self.node,
            call_id,
            from: address(&call.from),
            to: address(&call.to),
            start: call.start,
            answer: call.answer,
            end,
            status,
            bytes: None,
        });
    }
}

/// The URI of a From or To value.
fn address(value: &str) -> &str {
    match sip_proto::headers::NameAddr::parse(value.as_bytes()) {
        Some(name) => std::str::from_utf8(name.addr).unwrap_or(""),
        None => "",
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdr::Writer;

    fn note(event: NoteEvent, call: &'static str, status: u16) -> Note<'static> {
        Note { trace: call.as_bytes(), event, status, from: b"<sip:a@h>;tag=1", to: b"<sip:b@h>" }
    }

    #[test]
    fn one_record_for_each_call_and_message() {
        let folder = tempfile::tempdir().unwrap();
        let (records, writer) = Writer::start(folder.path().join("{date}.jsonl")).unwrap();
        let (ledger, book) = Ledger::start(records, "n1".into()).unwrap();
        for (event, call, status) in [
            (NoteEvent::CallAttempt, "answered", 0),
            (NoteEvent::CallAttempt, "failed", 0),
            (NoteEvent::CallAnswered, "answered", 200),
            (NoteEvent::CallFailed, "answered", 488),
            (NoteEvent::CallFailed, "failed", 486),
            (NoteEvent::CallEnded, "answered", 200),
            (NoteEvent::MessageRelayed, "message", 200),
            (NoteEvent::CallRefused, "nobody", 404),
            (NoteEvent::CallRefused, "nobody", 404),
        ] {
            ledger.note(&note(event, call, status));
        }
        drop(ledger);
        book.finish();
        writer.finish();
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let lines = std::fs::read_to_string(file).unwrap();
        let records: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let of = |id: &str| records.iter().find(|r| r["call_id"] == id).unwrap();
        assert_eq!(records.len(), 4);
        assert_eq!(of("nobody")["status"], 404);
        assert_eq!((of("failed")["status"].as_u64(), of("failed").get("answer")), (Some(486), None));
        assert!(of("answered")["answer"].is_u64());
        assert_eq!(of("message")["from"], "sip:a@h");
    }
}
