//! What a driver counts of the messages that pass.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sip_proto::{Message, Method, StartLine, Transport};

/// Messages counted by one shard: `[direction][transport][kind]`, kinds being the known methods, other methods, the
/// registered status codes, and the classes 1xx to 6xx of all other codes.
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

/// What a message was, for counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Request(Method),
    /// A status code that is registered.
    Response(u16),
    /// Any other status code, by its first digit: 1 to 6.
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
    match kind.checked_sub(METHODS) {
        None => Kind::Request(Method::KNOWN.get(kind).copied().unwrap_or(Method::Other)),
        Some(status) => match STATUSES.get(status) {
            Some(status) => Kind::Response(*status),
            None => Kind::Class((status - STATUSES.len()) as u8 + 1),
        },
    }
}

/// The kind of a message that was received.
pub(super) fn kind(message: &Message<'_>) -> usize {
    match message.start() {
        StartLine::Request { method, .. } => method as usize,
        StartLine::Response { status, .. } => of_status(status),
    }
}

/// The kind of a message that we wrote ourselves, from its first bytes.
pub(super) fn kind_of(bytes: &[u8]) -> usize {
    if let Some([a, b, c, ..]) = bytes.strip_prefix(b"SIP/2.0 ") {
        return of_status([a, b, c].iter().fold(0, |n, digit| n * 10 + u16::from(digit.wrapping_sub(b'0') % 10)));
    }
    let end = memchr::memchr(b' ', bytes).unwrap_or(0);
    Method::from_bytes(&bytes[..end]) as usize
}

fn of_status(status: u16) -> usize {
    let place = usize::from(status).checked_sub(100).and_then(|i| PLACES.get(i).copied()).unwrap_or(NOWHERE);
    METHODS
        + match place {
            NOWHERE => STATUSES.len() + usize::from((status / 100).clamp(1, 6)) - 1,
            place => usize::from(place),
        }
}

const METHODS: usize = Method::KNOWN.len() + 1;
const KINDS: usize = METHODS + STATUSES.len() + 6;

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
            assert_eq!(named(of_status(status)), Kind::Response(status));
        }
    }

    #[test]
    fn a_message_counts_under_its_method_or_status() {
        let of = |bytes: &[u8]| named(kind_of(bytes));
        assert_eq!(of(b"SIP/2.0 486 Busy Here\r\n\r\n"), Kind::Response(486));
        assert_eq!(of(b"SIP/2.0 299 Fine\r\n\r\n"), Kind::Class(2));
        assert_eq!(of(b"SIP/2.0 699 No\r\n\r\n"), Kind::Class(6));
        assert_eq!(of(b"BYE sip:a@b SIP/2.0\r\n\r\n"), Kind::Request(Method::Bye));
        assert_eq!(of(b"BREW sip:a@b SIP/2.0\r\n\r\n"), Kind::Request(Method::Other));
        assert_eq!(of(b"SIP/2.0 "), Kind::Request(Method::Other));
        assert_eq!(named(of_status(999)), Kind::Class(6));
        assert_eq!(named(of_status(7)), Kind::Class(1));
    }
}
