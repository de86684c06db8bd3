//! A handler that answers everything and remembers what it was told, and messages to send it.
#![allow(dead_code)] // each test file uses its part

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use sip_net::Handler;
use sip_proto::transport::Transmit;
use sip_proto::{Flow, Hop, Outbox};

/// What the handler saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    Message(Flow, Vec<u8>, bool),
    Closed(Flow),
    Unreachable(u64),
    Returned(SocketAddr, Vec<u8>),
}

/// Answers each request with a 200 that repeats it as a body, ignores responses.
#[derive(Default)]
pub struct Echo {
    seen: Mutex<Vec<Seen>>,
    changed: Condvar,
}

impl Echo {
    pub fn new() -> Arc<Echo> {
        Arc::default()
    }

    /// Waits until `found` picks something out of what was seen. Panics when it does not come for 10 s.
    pub fn wait<T>(&self, found: impl Fn(&[Seen]) -> Option<T>) -> T {
        let until = Instant::now() + Duration::from_secs(10);
        let mut seen = self.seen.lock();
        loop {
            if let Some(value) = found(&seen) {
                return value;
            }
            assert!(!self.changed.wait_until(&mut seen, until).timed_out(), "not seen; only {seen:?}");
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// The flow of the first message.
    pub fn first_flow(&self) -> Flow {
        self.wait(|seen| {
            seen.iter().find_map(|s| match s {
                Seen::Message(flow, ..) => Some(*flow),
                _ => None,
            })
        })
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().push(seen);
        self.changed.notify_all();
    }
}

impl Handler for Echo {
    fn message(&self, _: Instant, flow: &Flow, bytes: &[u8], loaded: bool, out: &mut Outbox) {
        self.note(Seen::Message(*flow, bytes.to_vec(), loaded));
        assert!(!bytes.starts_with(b"PANIC"), "asked to");
        if !bytes.starts_with(b"SIP/2.0") {
            out.push_bytes(Hop::Flow(*flow), Transmit::NO_TOKEN, &answer(bytes));
        }
    }

    fn tick(&self, _: Instant, _: &mut Outbox) {}

    fn closed(&self, _: Instant, flow: &Flow, _: &mut Outbox) {
        self.note(Seen::Closed(*flow));
    }

    fn returned(&self, _: Instant, to: SocketAddr, quoted: &[u8], _: &mut Outbox) {
        self.note(Seen::Returned(to, quoted.to_vec()));
    }

    fn unreachable(&self, _: Instant, token: u64, _: &mut Outbox) {
        self.note(Seen::Unreachable(token));
    }
}

pub fn request(n: usize) -> Vec<u8> {
    let body = "x".repeat(n % 50);
    format!(
        "MESSAGE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK{n}\r\n\
        From: <sip:a@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: {n}\r\nCSeq: 1 MESSAGE\r\n\
        Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub fn answer(request: &[u8]) -> Vec<u8> {
    let mut answer = format!("SIP/2.0 200 OK\r\nContent-Length: {}\r\n\r\n", request.len()).into_bytes();
    answer.extend_from_slice(request);
    answer
}
