//! An answer that waits until what it acknowledges is in the store.

use std::sync::Arc;

use parking_lot::Mutex;
use sip_ims::ports::{Done, StoreError};
use sip_ims::service::Outlet;
use sip_proto::{HeaderName, Hop, Message, edit};

use crate::undo::Undo;

/// Seconds after which a phone may try again when the store could not take its binding.
pub const RETRY_AFTER: u64 = 5;

/// The meeting of an answer with the writes it waits for: whoever comes last sends it.
pub struct Reply {
    outlet: Arc<dyn Outlet>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Writes under way.
    writes: u32,
    failed: bool,
    /// The 200, and what to do once it may go.
    ready: Option<Ready>,
}

/// An answer that may go, and what to do then.
pub struct Ready {
    pub hop: Hop,
    pub bytes: Vec<u8>,
    pub then: Option<Then>,
    undo: Option<Undo>,
}

/// Runs when the answer may go.
pub type Then = Box<dyn FnOnce() + Send>;

impl Reply {
    pub fn new(outlet: Arc<dyn Outlet>) -> Arc<Reply> {
        Arc::new(Reply { outlet, state: Mutex::default() })
    }

    /// The completion of one more write.
    pub fn write(self: &Arc<Self>) -> Done<()> {
        self.state.lock().writes += 1;
        let reply = self.clone();
        Box::new(move |result| reply.written(result))
    }

    /// The store gave a write back: its completion will not run.
    pub fn unwritten(&self) {
        self.state.lock().writes -= 1;
    }

    /// The answer to send when all writes are done, and how to take back what one of them refuses. If they are done already
    /// it comes back, for the caller to send: within a step nobody may call the outlet.
    pub fn ready(&self, hop: Hop, bytes: Vec<u8>, then: Option<Then>, undo: Undo) -> Option<Ready> {
        let settled = {
            let mut state = self.state.lock();
            state.ready = Some(Ready { hop, bytes, then, undo: Some(undo) });
            state.settled()
        };
        settled.map(Ready::refused)
    }

    fn written(&self, result: Result<(), StoreError>) {
        let ready = {
            let mut state = self.state.lock();
            state.writes -= 1;
            if let Err(error) = result {
                tracing::warn!(%error, "a binding could not be stored");
                state.failed = true;
            }
            state.settled()
        };
        if let Some(Ready { hop, bytes, then, .. }) = ready.map(Ready::refused) {
            self.outlet.send(hop, &bytes);
            if let Some(then) = then {
                then();
            }
        }
    }
}

impl State {
    /// What may go now; something is to be taken back only if a write failed.
    fn settled(&mut self) -> Option<Ready> {
        if self.writes > 0 {
            return None;
        }
        let ready = self.ready.take()?;
        Some(if self.failed { ready } else { Ready { undo: None, ..ready } })
    }
}

impl Ready {
    /// Takes back what was refused, and puts a 500 in the place of the 200. Takes locks: not under one.
    fn refused(mut self) -> Ready {
        let Some(undo) = self.undo.take() else { return self };
        undo.run(&self.bytes);
        Ready { bytes: failure(&self.bytes), then: None, ..self }
    }
}

/// The 500 that goes in the place of a 200 (RFC 3261 §10.3 step 7).
fn failure(ok: &[u8]) -> Vec<u8> {
    let mut out = b"SIP/2.0 500 Server Internal Error\r\n".to_vec();
    if let Ok(message) = Message::parse(ok) {
        for line in message.headers() {
            let copied = matches!(
                line.name,
                HeaderName::Via | HeaderName::From | HeaderName::To | HeaderName::CallId | HeaderName::CSeq
            );
            if copied {
                out.extend_from_slice(&message.bytes()[line.line()]);
            }
        }
    }
    edit::header(&mut out, HeaderName::RetryAfter, |v| edit::number(v, RETRY_AFTER));
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_keeps_what_a_response_must_have() {
        let ok =
            b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:a@h>;tag=2\r\n\
            Call-ID: c\r\nCSeq: 1 REGISTER\r\nContact: <sip:a@c>;expires=5\r\nContent-Length: 0\r\n\r\n";
        let out = failure(ok);
        let m = Message::parse(&out).unwrap();
        assert_eq!((m.status(), m.defect(), m.cseq().unwrap().number), (500, None, 1));
        assert_eq!(m.value(HeaderName::Contact), None);
        assert_eq!(m.value(HeaderName::RetryAfter), Some(&b"5"[..]));
        assert!(sip_proto::validate::response(&m).is_ok());
    }
}
