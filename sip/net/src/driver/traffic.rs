//! What a driver counts of the messages that pass.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sip_proto::{HeaderName, Message, Method, StartLine, Transport};

/// Messages counted by one shard: `[direction][transport][kind]`. A kind is a method (the known ones, and one for all others) and
/// what of it: the request, or a response with a registered status code, or one of the class 1xx to 6xx of all other codes.
#[derive(Debug)]
pub struct Traffic {
    counts: [[[AtomicU64; KINDS]; 5]; 2],
    pub transactions: AtomicU64,
    /// Requests refused with 503 because of load.
    pub shed: AtomicU64,
    /// Requests refused with 503 because there was no room for another transaction.
    pub full: AtomicU64,
    /// Messages that cannot be read at all; they get no answer.
    pub malformed: AtomicU64,
}

/// Which way a message went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    In,
    Out,
}

/// What a message was, for counting: its method (of a response: of what it answers), and which of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    pub method: Method,
    pub part: Part,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Request,
    /// A response with a status code that is registered.
    Response(u16),
    /// One with any other status code, by its first digit: 1 to 6.
    Class(u8),
}

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic {
            counts: std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)))),
            transactions: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            full: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
        }
    }
}

impl Traffic {
    /// With the shard's lock held: a plain addition without a locked instruction is enough.
    pub(super) fn count(&self, direction: Direction, transport: Transport, kind: usize) {
        let counter = self.counter(direction, transport, kind);
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }

    /// Without a lock.
    pub(super) fn count_shared(&self, direction: Direction, transport: Transport, kind: usize) {
        self.counter(direction, transport, kind).fetch_add(1, Relaxed);
    }

    fn counter(&self, direction: Direction, transport: Transport, kind: usize) -> &AtomicU64 {
        &self.counts[direction as usize][transport as usize][kind]
    }

    /// Every counter that is not zero.
    pub fn each(&self, mut show: impl FnMut(Direction, Transport, Kind, u64)) {
        for direction in [Direction::In, Direction::Out] {
            for transport in Transport::ALL {
                for kind in 0..KINDS {
                    let n = self.counter(direction, transport, kind).load(Relaxed);
                    if n > 0 {
                        show(direction, transport, named(kind), n);
                    }
                }
            }
        }
    }
}

fn named(kind: usize) -> Kind {
    let method = Method::KNOWN.get(kind / PARTS).copied().unwrap_or(Method::Other);
    let part = match (kind % PARTS).checked_sub(1) {
        None => Part::Request,
        Some(status) => match STATUSES.get(status) {
            Some(status) => Part::Response(*status),
            None => Part::Class((status - STATUSES.len()) as u8 + 1),
        },
    };
    Kind { method, part }
}

/// The kind of a message that was received.
pub(super) fn kind(message: &Message<'_>) -> usize {
    let part = match message.start() {
        StartLine::Request { .. } => 0,
        StartLine::Response { status, .. } => of_status(status),
    };
    message.method() as usize * PARTS + part
}

/// The kind of a message that we wrote ourselves, from its first bytes, and of a response from what it follows from.
pub(super) fn kind_of(bytes: &[u8], about: Option<&Message<'_>>) -> usize {
    if let Some([a, b, c, ..]) = bytes.strip_prefix(b"SIP/2.0 ") {
        let status = [a, b, c].iter().fold(0, |n, digit| n * 10 + u16::from(digit.wrapping_sub(b'0') % 10));
        // What follows from a CANCEL answers either that or the INVITE.
        let method = match about.map(Message::method) {
            None | Some(Method::Cancel) => answered(bytes),
            Some(method) => method,
        };
        return method as usize * PARTS + of_status(status);
    }
    let end = memchr::memchr(b' ', bytes).unwrap_or(0);
    Method::from_bytes(&bytes[..end]) as usize * PARTS
}

/// The method in the CSeq of a response of ours.
fn answered(bytes: &[u8]) -> Method {
    let cseq = bytes.split(|b| *b == b'\n').take_while(|line| !line.trim_ascii().is_empty()).find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        (HeaderName::from_bytes(line[..colon].trim_ascii_end()) == HeaderName::CSeq)
            .then(|| line[colon + 1..].trim_ascii())
    });
    Method::from_bytes(cseq.and_then(|value| value.rsplit(|b| *b == b' ').next()).unwrap_or_default())
}

/// 1 and on: 0 is the request.
fn of_status(status: u16) -> usize {
    let place = usize::from(status).checked_sub(100).and_then(|i| PLACES.get(i).copied()).unwrap_or(NOWHERE);
    1 + match place {
        NOWHERE => STATUSES.len() + usize::from((status / 100).clamp(1, 6)) - 1,
        place => usize::from(place),
    }
}

/// The request, the registered codes, six classes.
const PARTS: usize = 1 + STATUSES.len() + 6;
const KINDS: usize = (Method::KNOWN.len() + 1) * PARTS;

/// IANA, Session Initiation Protocol (SIP) Parameters, Response Codes.
const STATUSES: [u16; 77] = [
    100, 180, 181, 182, 183, 199, 200, 202, 204, 300, 301, 302, 305, 380, 400, 401, 402, 403, 404, 405, 406, 407, 408,
    410, 412, 413, 414, 415, 416, 417, 420, 421, 422, 423, 424, 425, 428, 429, 430, 433, 436, 437, 438, 439, 440, 469,
    470, 480, 481, 482, 483, 484, 485, 486, 487, 488, 489, 491, 493, 494, 500, 501, 502, 503, 504, 505, 513, 555, 580,
    600, 603, 604, 606, 607, 608, 409, 411,
];

/// Where each code from 100 to 699 stands in [`STATUSES`].
const PLACES: [u8; 600] = {
    let mut places = [NOWHERE; 600];
    let mut i = 0;
    while i < STATUSES.len() {
        places[STATUSES[i] as usize - 100] = i as u8;
        i += 1;
    }
    places
};
const NOWHERE: u8 = u8::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_told_by_its_own_name() {
        let names: Vec<Kind> = (0..KINDS).map(named).collect();
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{name:?}");
        }
        for status in STATUSES {
            assert_eq!(named(of_status(status)).part, Part::Response(status));
        }
    }

    #[test]
    fn a_message_counts_under_its_method_and_status() {
        let of = |bytes: &[u8]| {
            let Kind { method, part } = named(kind_of(bytes, None));
            (method, part)
        };
        let response = |start: &str| format!("SIP/2.0 {start}\r\nCall-ID: 1\r\nCSeq: 7 INVITE\r\n\r\n").into_bytes();
        assert_eq!(of(&response("486 Busy Here")), (Method::Invite, Part::Response(486)));
        assert_eq!(of(&response("299 Fine")), (Method::Invite, Part::Class(2)));
        assert_eq!(of(&response("699 No")), (Method::Invite, Part::Class(6)));
        assert_eq!(of(b"SIP/2.0 200 OK\r\n\r\nCSeq: 7 INVITE\r\n"), (Method::Other, Part::Response(200)));
        assert_eq!(of(b"BYE sip:a@b SIP/2.0\r\n\r\n"), (Method::Bye, Part::Request));
        assert_eq!(of(b"BREW sip:a@b SIP/2.0\r\n\r\n"), (Method::Other, Part::Request));
        assert_eq!(of(b"SIP/2.0 "), (Method::Other, Part::Request));
        assert_eq!(named(of_status(999)).part, Part::Class(6));
        assert_eq!(named(of_status(7)).part, Part::Class(1));
    }

    #[test]
    fn a_response_is_of_the_request_that_it_follows_from_but_after_a_cancel() {
        let request =
            |method| format!("{method} sip:b@c SIP/2.0\r\nCall-ID: 1\r\nCSeq: 7 {method}\r\n\r\n").into_bytes();
        let after = |method, bytes: &[u8]| {
            let request = request(method);
            named(kind_of(bytes, Some(&Message::parse(&request).unwrap()))).method
        };
        assert_eq!(after("OPTIONS", b"SIP/2.0 200 OK\r\n\r\n"), Method::Options);
        let ended = b"SIP/2.0 487 Request Terminated\r\ncseq : 7 INVITE\r\n\r\n";
        assert_eq!(after("CANCEL", ended), Method::Invite);
    }
}
