//! The way of each message and call through the server: small fixed-size events, by trace id.
//!
//! A trace id is made of the Call-ID, so every node and every restart gives the same one. Events go into rings in memory
//! (about 20 ns each, no lock); once a second a thread copies the new ones into a ring on disk ([`disk`]). No event holds a
//! name, number, body or credential.

pub mod disk;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

use sip_proto::{Method, Transport};
use siphasher::sip::SipHasher13;

use crate::config::{self, TraceLevel};

/// Names one call or message from its first byte to its charging record. Prints as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceId(pub u64);

impl TraceId {
    /// Of a Call-ID, or of whatever else identifies the exchange. The hash key is public on purpose: the id must be the same
    /// on every node. A peer can make two calls share an id, which muddles the trace of those two.
    pub fn of(call_id: &[u8]) -> TraceId {
        TraceId(SipHasher13::new_with_key(b"isthmus trace id").hash(call_id))
    }

    /// Reads what an operator typed: 16 hexadecimal digits are an id, anything else is taken for a Call-ID.
    pub fn from_input(text: &str) -> TraceId {
        match u64::from_str_radix(text, 16) {
            Ok(id) if text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()) => TraceId(id),
            _ => TraceId::of(text.as_bytes()),
        }
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

macro_rules! steps {
    ($($variant:ident = $number:literal $text:literal),+ $(,)?) => {
        /// What happened. The numbers stand in files on disk: never reuse one.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Step { $($variant = $number),+ }

        impl Step {
            fn from_number(n: u8) -> Option<Step> {
                match n { $($number => Some(Step::$variant),)+ _ => None }
            }

            /// In words.
            pub fn as_str(self) -> &'static str {
                match self { $(Step::$variant => $text),+ }
            }
        }
    };
}

steps! {
    Received = 1 "received",
    Sent = 2 "sent",
    Challenged = 3 "challenged",
    Refused = 4 "refused",
    Registered = 5 "binding stored",
    Unregistered = 6 "binding removed",
    Forwarded = 7 "forwarded to a branch",
    Diverted = 8 "diverted by the callee's settings",
    Cancelled = 9 "branch cancelled",
    Timeout = 10 "branch timed out",
    Unreachable = 11 "hop unreachable",
    Kept = 12 "kept for later",
    Delivered = 13 "delivered",
    Expired = 14 "expired undelivered",
    Charged = 15 "charging record written",
    Shed = 16 "refused for load",
    Submitted = 17 "submitted as short message",
    Deferred = 18 "put off",
    Failed = 19 "failed",
    Withdrawn = 20 "cancelled by its sender",
    Anchored = 21 "its messages go through this server",
    SessionEnded = 22 "its messages end",
    Invoked = 23 "service invoked",
    Taken = 24 "taken by service",
    Skipped = 25 "service down, session continued",
    Down = 26 "service down, session terminated",
    Returned = 27 "back from an application server",
    Joined = 28 "joined by us with trace",
    Relayed = 29 "its media go through this server",
}

/// One step of one trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    pub trace: TraceId,
    /// Microseconds since 1970.
    pub at: u64,
    pub step: Step,
    pub method: Method,
    /// 0 for a request.
    pub status: u16,
    pub transport: Transport,
    /// The other end; unspecified when no peer takes part. Of a step of a service, [`service_peer`].
    pub peer: SocketAddr,
}

impl Event {
    /// Whether this is a provisional answer, which [`TraceLevel::Final`] leaves out.
    fn is_provisional(&self) -> bool {
        (100..200).contains(&self.status)
    }

    fn words(&self) -> [u64; WORDS] {
        let ip = match self.peer.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let ip = u128::from(ip);
        let packed = u64::from(self.step as u8)
            | (self.method as u64) << 8
            | (self.transport as u64) << 16
            | u64::from(self.status) << 32
            | u64::from(self.peer.port()) << 48;
        [self.trace.0, self.at, packed, (ip >> 64) as u64, ip as u64]
    }

    /// `None` for words that no version of this wrote.
    fn from_words(words: [u64; WORDS]) -> Option<Event> {
        let [trace, at, packed, high, low] = words;
        let ip = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
        let method = (packed >> 8 & 0xff) as usize;
        Some(Event {
            trace: TraceId(trace),
            at,
            step: Step::from_number(packed as u8)?,
            method: Method::KNOWN.get(method).copied().unwrap_or(Method::Other),
            status: (packed >> 32) as u16,
            transport: *Transport::ALL.get((packed >> 16 & 0xff) as usize)?,
            peer: SocketAddr::new(IpAddr::V6(ip).to_canonical(), (packed >> 48) as u16),
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = time::OffsetDateTime::from_unix_timestamp((self.at / 1_000_000) as i64)
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
        write!(
            f,
            "{} {:02}:{:02}:{:02}.{:06}  {:<8} ",
            at.date(),
            at.hour(),
            at.minute(),
            at.second(),
            self.at % 1_000_000,
            self.method.to_string()
        )?;
        if self.status != 0 {
            write!(f, "{} ", self.status)?;
        }
        f.write_str(self.step.as_str())?;
        if self.step.is_of_service() {
            return write_service(f, self.peer);
        }
        if !self.peer.ip().is_unspecified() {
            let word = if self.step == Step::Received { "from" } else { "peer" };
            write!(f, " {word} {}/{}", self.peer, self.transport)?;
        }
        Ok(())
    }
}

impl Step {
    fn is_of_service(self) -> bool {
        self as u8 >= Step::Invoked as u8
    }
}

/// The beginning of a service's name and the priority of its filter, in the place where other events have an address.
pub fn service_peer(name: &[u8], priority: u16) -> SocketAddr {
    let name = name.strip_prefix(b"sip:").unwrap_or(name);
    let mut text = [0; 16];
    text.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    SocketAddr::new(Ipv6Addr::from(text).into(), priority)
}

fn write_service(f: &mut fmt::Formatter<'_>, peer: SocketAddr) -> fmt::Result {
    let IpAddr::V6(text) = peer.ip() else { return Ok(()) };
    let name: Vec<u8> = text.octets().into_iter().take_while(u8::is_ascii_graphic).collect();
    if !name.is_empty() {
        write!(f, " {}", String::from_utf8_lossy(&name))?;
    }
    if peer.port() > 0 { write!(f, ", filter of priority {}", peer.port()) } else { Ok(()) }
}

/// The rings. Shared by reference count.
pub struct Trace {
    rings: Box<[Ring]>,
    level: AtomicU8,
}

impl Trace {
    pub fn new(trace: &config::Trace) -> Trace {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let rings = cores.next_power_of_two().min(8);
        let each = (trace.events / rings).next_power_of_two();
        Trace { rings: (0..rings).map(|_| Ring::new(each)).collect(), level: AtomicU8::new(trace.level as u8) }
    }

    /// Takes effect at once; SIGHUP calls it.
    pub fn set_level(&self, level: TraceLevel) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// Whether [`record`](Self::record) keeps anything: ask before making an event that costs something to make.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.level.load(Ordering::Relaxed) > TraceLevel::Off as u8
    }

    /// Keeps an event, if the level wants it. Never blocks.
    #[inline]
    pub fn record(&self, event: &Event) {
        let level = self.level.load(Ordering::Relaxed);
        if level == TraceLevel::Off as u8 || (level == TraceLevel::Final as u8 && event.is_provisional()) {
            return;
        }
        self.rings[super::metrics::thread_number() & (self.rings.len() - 1)].put(event.words());
    }

    /// The events of one trace that are still in memory, oldest first. Reads every slot: for operators, not for hot paths.
    pub fn find(&self, id: TraceId) -> Vec<Event> {
        let mut found = Vec::new();
        for ring in &self.rings {
            ring.each(0, |_, words| {
                if words[0] == id.0 {
                    found.extend(Event::from_words(words));
                }
            });
        }
        found.sort_by_key(|e| e.at);
        found
    }

    /// Shows every event recorded since the last call with the same `seen`, per ring in order.
    fn drain(&self, seen: &mut Vec<u64>, mut show: impl FnMut([u64; WORDS])) {
        seen.resize(self.rings.len(), 0);
        for (ring, seen) in self.rings.iter().zip(seen) {
            *seen = ring.each(*seen, |_, words| show(words));
        }
    }
}

const WORDS: usize = 5;

/// A power of two of slots; the oldest is overwritten.
struct Ring {
    next: AtomicU64,
    slots: Box<[Slot]>,
}

/// `stamp` is 1 + the event's number once its words are whole, 0 while they are being written.
#[derive(Default)]
#[repr(align(64))]
struct Slot {
    stamp: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Ring {
    fn new(slots: usize) -> Ring {
        Ring { next: AtomicU64::new(0), slots: (0..slots).map(|_| Slot::default()).collect() }
    }

    /// Two writers meet in one slot only if one of them sleeps through a whole turn of the ring; the event is garbled then,
    /// which a diagnostic may be.
    #[inline]
    fn put(&self, words: [u64; WORDS]) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = &self.slots[number as usize & (self.slots.len() - 1)];
        slot.stamp.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        for (to, from) in slot.words.iter().zip(words) {
            to.store(from, Ordering::Relaxed);
        }
        slot.stamp.store(number + 1, Ordering::Release);
    }

    /// Shows what is still here of the events from number `from` on; gives the number after the last one shown.
    fn each(&self, from: u64, mut show: impl FnMut(u64, [u64; WORDS])) -> u64 {
        let end = self.next.load(Ordering::Acquire);
        for number in from.max(end.saturating_sub(self.slots.len() as u64))..end {
            let slot = &self.slots[number as usize & (self.slots.len() - 1)];
            if slot.stamp.load(Ordering::Acquire) != number + 1 {
                continue;
            }
            let words = std::array::from_fn(|i| slot.words[i].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if slot.stamp.load(Ordering::Relaxed) == number + 1 {
                show(number, words);
            }
        }
        end
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn event(call_id: &[u8], at: u64, status: u16) -> Event {
        Event {
            trace: TraceId::of(call_id),
            at,
            step: if status == 0 { Step::Received } else { Step::Sent },
            method: Method::Invite,
            status,
            transport: Transport::Tls,
            peer: "192.0.2.7:5061".parse().unwrap(),
        }
    }

    fn trace(level: TraceLevel) -> Trace {
        Trace::new(&config::Trace { level, events: 1024, ..config::Trace::default() })
    }

    #[test]
    fn a_trace_shows_its_own_events_in_order() {
        let trace = trace(TraceLevel::All);
        trace.record(&event(b"a", 30, 200));
        trace.record(&event(b"b", 20, 0));
        trace.record(&event(b"a", 10, 0));
        let found = trace.find(TraceId::of(b"a"));
        assert_eq!(found, [event(b"a", 10, 0), event(b"a", 30, 200)]);
    }

    #[test]
    fn the_level_decides_what_is_kept() {
        for (level, kept) in [(TraceLevel::Off, 0), (TraceLevel::Final, 2), (TraceLevel::All, 3)] {
            let trace = trace(level);
            for status in [0, 180, 200] {
                trace.record(&event(b"a", 1, status));
            }
            assert_eq!(trace.find(TraceId::of(b"a")).len(), kept, "{level:?}");
        }
    }

    #[test]
    fn the_rings_are_bounded_and_keep_the_newest() {
        let ring = Ring::new(8);
        (0..20).for_each(|n| ring.put([n; WORDS]));
        let mut seen = Vec::new();
        assert_eq!(ring.each(0, |_, words| seen.push(words[0])), 20);
        assert_eq!(seen, (12..20).collect::<Vec<_>>());
        assert_eq!(ring.each(20, |_, _| panic!("nothing is new")), 20);
    }

    #[test]
    fn writers_on_many_threads_never_show_a_torn_event() {
        let ring = Ring::new(64);
        std::thread::scope(|s| {
            for t in 0..2u64 {
                let ring = &ring;
                s.spawn(move || (0..20_000).for_each(|n| ring.put([t << 32 | n; WORDS])));
            }
            for _ in 0..200 {
                ring.each(0, |_, words| assert!(words.iter().all(|w| *w == words[0]), "{words:?}"));
            }
        });
    }

    #[test]
    fn ids_are_read_as_digits_or_as_call_id() {
        let id = TraceId::of(b"abc@host");
        assert_eq!(TraceId::from_input(&id.to_string()), id);
        assert_eq!(TraceId::from_input("abc@host"), id);
        assert_eq!(TraceId::from_input("12"), TraceId::of(b"12"));
    }

    #[test]
    fn an_event_reads_as_a_line() {
        let line = event(b"a", 1_700_000_000_000_042, 486).to_string();
        assert_eq!(line, "2023-11-14 22:13:20.000042  INVITE   486 sent peer 192.0.2.7:5061/tls");
    }

    #[test]
    fn a_step_of_a_service_names_it() {
        let peer = service_peer(b"sip:10.0.0.1:5060;transport=tcp", 10);
        let event = Event { peer, step: Step::Invoked, status: 0, method: Method::Other, ..event(b"a", 0, 0) };
        let line = Event::from_words(event.words()).unwrap().to_string();
        assert!(line.ends_with("OTHER    service invoked 10.0.0.1:5060;tr, filter of priority 10"), "{line}");
    }

    #[test]
    fn words_survive_both_address_families() {
        for peer in ["[2001:db8::1]:9", "10.1.2.3:65535", "0.0.0.0:0"] {
            let event = Event { peer: peer.parse().unwrap(), ..event(b"x", 5, 699) };
            let back = Event::from_words(event.words()).unwrap();
            assert_eq!((back.peer.port(), back.status), (event.peer.port(), 699));
            assert_eq!(back.peer.ip().is_unspecified(), event.peer.ip().is_unspecified());
        }
    }
}
