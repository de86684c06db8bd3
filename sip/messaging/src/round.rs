//! One round: the messages of one user, in order, to the phones that are there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use sip_ims::ports::{MessageId, MessageQueue, QueuedMessage};
use sip_ims::service::{Chronicle, Location, NextHops, Note, NoteEvent, Outcome, Outlet, Reach};
use sip_ims::{Aor, Home, answer};
use sip_proto::headers::{NameAddr, RetryAfter, list};
use sip_proto::transport::LONGEST_DATAGRAM_REQUEST;
use sip_proto::{HeaderName, Hop, Message};
use tokio::sync::{mpsc, oneshot};

use crate::config::Devices;
use crate::counts::{Counts, add};
use crate::late::Late;
use crate::letter::Letter;
use crate::notice;
use crate::pager::Order;
use crate::pushed::{Pushed, Pusher};
use crate::schedule::Ended;
use crate::waiting::Waiting;

/// What a round works with; shared by all rounds.
pub struct Rounds {
    pub queue: Arc<dyn MessageQueue>,
    pub location: Arc<dyn Location>,
    pub outlet: Arc<dyn Outlet>,
    pub next_hops: Arc<dyn NextHops>,
    pub chronicle: Arc<dyn Chronicle>,
    pub home: Arc<Home>,
    pub unix: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub own: mpsc::WeakUnboundedSender<Order>,
    /// Seconds that notifications are kept.
    pub expiry: u32,
    pub waiting: Arc<Waiting>,
    pub counts: Arc<Counts>,
    pub late: Arc<Late>,
    pub devices: Devices,
    pub pusher: Arc<OnceLock<Pusher>>,
    /// Rounds end after the message they are at.
    pub stopping: AtomicBool,
    pub memory: Mutex<Memory>,
}

/// What is remembered of messages from one round to the next.
#[derive(Default)]
pub struct Memory {
    /// How often phones answered this message with an error that may pass. At most [`MAX_FAILED`].
    failed: HashMap<MessageId, u8>,
    /// Taken by a phone or refused for good, but the store did not forget it yet: not to be sent again. At most one of a
    /// user whose rounds go on, and as many as phones take late.
    settled: HashSet<MessageId>,
}

impl Memory {
    /// Whether that is news.
    pub fn settle(&mut self, id: MessageId) -> bool {
        self.settled.insert(id)
    }

    pub fn forget(&mut self, id: MessageId) {
        self.failed.remove(&id);
        self.settled.remove(&id);
    }
}

/// How one message fared with one phone, or with all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    Delivered(u16),
    /// Not this message, not ever.
    Refused(u16),
    /// `failing`: the phone is there, but this very message goes wrong.
    NotNow {
        retry_after: Option<u32>,
        failing: bool,
    },
}

/// Messages read from the store at a time: at most 1 MiB for a round.
const PAGE: u32 = 8;
/// After so many failures of the kind that concerns one message, the messages behind it are delivered first.
const MAX_FAILURES: u8 = 5;
/// Failing messages that are remembered, of all users.
const MAX_FAILED: usize = 100_000;
/// Phones of one user that are tried.
const MAX_TARGETS: usize = 32;
/// Addresses of one phone that are tried.
const MAX_HOPS: usize = 4;
/// Seconds for which a node may deliver to a user without renewing its right: longer than timer F, 32 s.
const LEASE: i64 = 40;
/// How often it is renewed while a session lasts.
const RENEWAL: Duration = Duration::from_secs(15);
const RESOLVE_LIMIT: Duration = Duration::from_secs(30);

impl Rounds {
    pub async fn run(&self, aor: &Aor) -> Ended {
        self.waiting.answer_call(aor);
        // Another node is at it; should it die, its right runs out.
        if !self.claim(aor).await {
            return self.put_off(None);
        }
        let ended = self.deliver_all(aor).await;
        self.queue.release(aor);
        ended
    }

    /// Takes or renews the right to deliver to this user, for longer than a request can take.
    async fn claim(&self, aor: &Aor) -> bool {
        let (done, mine) = answer();
        let now = self.unix_now();
        self.queue.claim(aor, now, now + LEASE, done);
        matches!(mine.await, Ok(true))
    }

    async fn deliver_all(&self, aor: &Aor) -> Ended {
        let mut after = MessageId(0);
        // Something was passed over: it must be tried again; it must at least not be forgotten.
        let (mut again, mut left) = (false, false);
        loop {
            let seen = self.waiting.stamp();
            let (done, page) = answer();
            self.queue.pending(aor, after, PAGE, done);
            let Ok(page) = page.await else { return self.put_off(None) };
            if page.is_empty() {
                if again {
                    return self.put_off(None);
                }
                if !left {
                    self.waiting.remove(aor, seen);
                }
                return Ended::Empty;
            }
            let mut rest = &page[..];
            while let Some(((id, queued), behind)) = rest.split_first() {
                let id = *id;
                after = id;
                if self.stopping.load(Relaxed) {
                    return Ended::Empty;
                }
                match self.deliver_together(aor, rest).await {
                    Some(0) => return self.put_off(None),
                    Some(n) => {
                        after = rest[n - 1].0;
                        rest = &rest[n..];
                        continue;
                    }
                    None => rest = behind,
                }
                if self.memory.lock().settled.contains(&id) {
                    if !self.remove(id).await {
                        return self.put_off(None);
                    }
                    continue;
                }
                // A phone may still answer what it was sent before: it must not get it twice.
                if let Some(left) = self.late.until(id).map(|until| until.saturating_duration_since(now()))
                    && !left.is_zero()
                {
                    return self.put_off(Some(left.as_secs() as u32 + 1));
                }
                // Expired ones are left to the sweep, which accounts for them; one that cannot be read, to its expiry.
                let Some(letter) = Letter::read(&queued.body).ok().filter(|_| queued.expires_at > self.unix_now())
                else {
                    left = true;
                    continue;
                };
                let sent = match self.push(aor, &letter).await {
                    Some(sent) => Some(sent),
                    None => self.deliver(aor, &letter).await,
                };
                match sent {
                    None => return Ended::Absent,
                    Some(Sent::NotNow { retry_after, failing }) => {
                        if !(failing && self.pass_over(id)) {
                            return self.put_off(retry_after);
                        }
                        again = true;
                    }
                    Some(Sent::Delivered(status)) => {
                        add(&self.counts.delivered, 1);
                        self.note(&letter, NoteEvent::MessageDelivered, status);
                        if !self.settle(id).await {
                            return self.put_off(None);
                        }
                    }
                    Some(Sent::Refused(status)) => {
                        add(&self.counts.refused, 1);
                        self.note(&letter, NoteEvent::MessageRelayed, status);
                        self.tell_failed(&letter).await;
                        if !self.settle(id).await {
                            return self.put_off(None);
                        }
                    }
                }
            }
        }
    }

    /// What the phones take in a session alone. `None`: something else.
    async fn push(&self, aor: &Aor, letter: &Letter<'_>) -> Option<Sent> {
        let pusher = self.pusher.get()?;
        let what = pusher.concerns(aor, letter.message())?;
        let push = pusher.push(aor, letter.message(), &what);
        tokio::pin!(push);
        let fate = loop {
            match tokio::time::timeout(RENEWAL, &mut push).await {
                Ok(fate) => break fate,
                Err(_) if self.claim(aor).await => {}
                Err(_) => return Some(AWAY),
            }
        };
        Some(match fate {
            Ok(()) => Sent::Delivered(200),
            // Gone from the shelf: the document itself says until when it was there.
            Err(404) => return None,
            // Who takes no such session may take a long datagram.
            Err(_) if matches!(what, Pushed::Chat) => return None,
            Err(status @ (488 | 600..)) => Sent::Refused(status),
            Err(_) => Sent::NotNow { retry_after: None, failing: true },
        })
    }

    /// Notifications at the head of `page` that can travel together, in one message: how many it was, 0 if it must be tried later.
    /// `None`: fewer than two, or no phone took them so; they go one by one.
    async fn deliver_together(&self, aor: &Aor, page: &[(MessageId, QueuedMessage)]) -> Option<usize> {
        let now = self.unix_now();
        let mut letters = Vec::<Letter<'_>>::new();
        for (id, queued) in page {
            let free = !self.memory.lock().settled.contains(id) && self.late.until(*id).is_none();
            let letter = Letter::read(&queued.body).ok().filter(|_| free && queued.expires_at > now);
            match letter.filter(|l| letters.first().is_none_or(|first| notice::go_together(first, l))) {
                Some(letter) => letters.push(letter),
                None => break,
            }
        }
        let whole = notice::together(&letters, now as u64)?;
        let whole = Letter::read(&whole).ok()?;
        let status = match self.deliver(aor, &whole).await? {
            Sent::Delivered(status) => status,
            Sent::NotNow { failing: false, .. } => return Some(0),
            _ => return None,
        };
        for ((id, _), letter) in page.iter().zip(&letters) {
            add(&self.counts.delivered, 1);
            self.note(letter, NoteEvent::MessageDelivered, status);
            if !self.settle(*id).await {
                return Some(0);
            }
        }
        Some(letters.len())
    }

    fn put_off(&self, retry_after: Option<u32>) -> Ended {
        add(&self.counts.put_off, 1);
        Ended::Later { retry_after }
    }

    fn pass_over(&self, id: MessageId) -> bool {
        let mut memory = self.memory.lock();
        if memory.failed.len() >= MAX_FAILED {
            // All it costs is that they hold up others a few times more.
            memory.failed.clear();
        }
        let failures = memory.failed.entry(id).or_default();
        *failures = failures.saturating_add(1);
        *failures >= MAX_FAILURES
    }

    async fn settle(&self, id: MessageId) -> bool {
        self.memory.lock().settle(id);
        self.remove(id).await
    }

    /// Whether the store has forgotten the message.
    async fn remove(&self, id: MessageId) -> bool {
        let (done, removed) = answer();
        self.queue.remove(id, done);
        let gone = removed.await.is_ok();
        if gone {
            self.memory.lock().forget(id);
        }
        gone
    }

    pub fn note(&self, letter: &Letter<'_>, event: NoteEvent, status: u16) {
        let note = Note { trace: letter.call_id(), event, status, from: letter.from(), to: letter.to() };
        self.chronicle.note(&note);
    }

    pub fn unix_now(&self) -> i64 {
        (self.unix)() as i64
    }

    /// Whether the user has a binding.
    pub fn is_there(&self, aor: &Aor) -> bool {
        let mut there = false;
        self.location.each(aor.as_str(), (self.unix)(), &mut |_| there = true);
        there
    }

    /// `None`: the user has no binding.
    async fn deliver(&self, aor: &Aor, letter: &Letter<'_>) -> Option<Sent> {
        let (first, second_ways) = self.targets(aor);
        let mut sent: Option<Sent> = None;
        let mut one_by_one = second_ways;
        match self.devices {
            Devices::All => {
                let all = join_all(first.iter().map(|target| self.send(aor, target, letter))).await;
                sent = all.into_iter().reduce(Sent::or);
            }
            Devices::BestFirst => one_by_one.splice(..0, first).for_each(drop),
        }
        for target in &one_by_one {
            if matches!(sent, Some(Sent::Delivered(_) | Sent::Refused(600..))) {
                break;
            }
            let one = self.send(aor, target, letter).await;
            sent = Some(sent.map_or(one, |sent| sent.or(one)));
        }
        sent
    }

    /// The user's phones, best first; and further ways to the same phones (RFC 5626 §6).
    pub fn targets(&self, aor: &Aor) -> (Vec<Target>, Vec<Target>) {
        let (mut first, mut second) = (Vec::<Target>::new(), Vec::new());
        self.location.each(aor.as_str(), (self.unix)(), &mut |reach| {
            if first.len() + second.len() == MAX_TARGETS {
                return;
            }
            let known = !reach.instance.is_empty() && first.iter().any(|t| *t.instance == *reach.instance);
            let target = Target {
                uri: reach.uri.into(),
                path: reach.path.into(),
                instance: reach.instance.into(),
                hop: reach.hop,
            };
            if known { second.push(target) } else { first.push(target) }
        });
        (first, second)
    }

    async fn send(&self, aor: &Aor, target: &Target, letter: &Letter<'_>) -> Sent {
        let bytes = letter.write(&target.uri, &target.path);
        let mut sent = AWAY;
        for hop in self.hops(target, bytes.len()).await {
            if !self.claim(aor).await {
                break;
            }
            let outcome = self.request(hop, bytes.clone()).await;
            sent = match &outcome {
                Outcome::Response { status, bytes } => classify(*status, bytes),
                Outcome::Timeout | Outcome::Unreachable | Outcome::Busy => AWAY,
            };
            let broken = outcome == Outcome::Unreachable && matches!(hop, Hop::Flow(f) if f.transport.is_reliable());
            if broken || matches!(outcome, Outcome::Response { status: 430, .. }) {
                self.location.failed(aor.as_str(), &target.reach());
            }
            // RFC 3263 §4.3: the next address after a failure of the way or a 503, not after a phone's own word.
            if matches!(outcome, Outcome::Response { status, .. } if status != 503) {
                break;
            }
        }
        sent
    }

    pub async fn hops(&self, target: &Target, length: usize) -> Vec<Hop> {
        if let Some(hop) = target.hop {
            return preferring_streams([hop], length);
        }
        let first_path = list(&target.path).next().and_then(NameAddr::parse).map(|a| a.addr);
        self.hops_of(first_path.unwrap_or(&target.uri), length).await
    }

    /// Where a URI leads, for a request of that length.
    pub async fn hops_of(&self, uri: &[u8], length: usize) -> Vec<Hop> {
        let (found, hops) = oneshot::channel();
        self.next_hops.next_hops(uri, Box::new(move |hops| _ = found.send(hops)));
        match tokio::time::timeout(RESOLVE_LIMIT, hops).await {
            Ok(Ok(hops)) => preferring_streams(hops, length),
            _ => Vec::new(),
        }
    }

    pub async fn request(&self, hop: Hop, bytes: Vec<u8>) -> Outcome {
        let (ended, outcome) = oneshot::channel();
        self.outlet.request(hop, bytes, Box::new(move |outcome| _ = ended.send(outcome)));
        // A stack that goes down drops the completion.
        outcome.await.unwrap_or(Outcome::Unreachable)
    }
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// A binding, copied out of the registrar.
pub struct Target {
    pub uri: Box<[u8]>,
    pub path: Box<[u8]>,
    instance: Box<[u8]>,
    pub hop: Option<Hop>,
}

impl Target {
    fn reach(&self) -> Reach<'_> {
        let Target { uri, path, instance, hop } = self;
        Reach { uri, path, hop: *hop, elsewhere: None, q: 0, instance, params: b"" }
    }
}

/// Puts TCP to the same address before UDP for a long message. A UDP flow stays: behind a NAT there is no other way.
fn preferring_streams(hops: impl IntoIterator<Item = Hop>, length: usize) -> Vec<Hop> {
    let mut ways = Vec::new();
    for hop in hops.into_iter().take(MAX_HOPS) {
        if length > LONGEST_DATAGRAM_REQUEST {
            ways.extend(hop.over_tcp());
        }
        ways.push(hop);
    }
    ways
}

const AWAY: Sent = Sent::NotNow { retry_after: None, failing: false };

/// What a final response means for a message that we have promised to deliver.
fn classify(status: u16, response: &[u8]) -> Sent {
    match status {
        200..=299 => Sent::Delivered(status),
        // RFC 3428 §7: delivered, but refused. Busy everywhere is no word on the message.
        601..=699 => Sent::Refused(status),
        // The message itself is not acceptable, and will not be.
        400 | 402 | 403 | 406 | 413..=416 | 420 | 421 | 488 | 493 | 494 | 505 | 513 => Sent::Refused(status),
        // Nobody there, or busy; or a device that does not do messages, while another one of the user may.
        404 | 405 | 408 | 410 | 430 | 480 | 486 | 487 | 501 | 503 | 504 | 600 => {
            Sent::NotNow { retry_after: retry_after(response), failing: false }
        }
        _ => Sent::NotNow { retry_after: retry_after(response), failing: true },
    }
}

fn retry_after(response: &[u8]) -> Option<u32> {
    let message = Message::parse(response).ok()?;
    message.value(HeaderName::RetryAfter).and_then(RetryAfter::parse).map(|r| r.seconds)
}

impl Sent {
    /// Of two phones: delivered if to one of them; refused for all by a 6xx, else only if by both.
    fn or(self, other: Sent) -> Sent {
        use Sent::*;
        match (self, other) {
            (Delivered(_), _) | (Refused(600..), NotNow { .. } | Refused(_)) => self,
            (_, Delivered(_) | Refused(600..)) => other,
            (NotNow { retry_after: a, failing: f }, NotNow { retry_after: b, failing: g }) => {
                NotNow { retry_after: a.min(b), failing: f && g }
            }
            (NotNow { .. }, Refused(_)) => self,
            (Refused(_), _) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use sip_proto::Transport;

    use super::*;

    #[test]
    fn what_the_phones_said_together() {
        let (yes, no, never, busy) = (Sent::Delivered(200), Sent::Refused(415), Sent::Refused(603), classify(486, b""));
        for (a, b, both) in [
            (no, yes, yes),
            (never, yes, yes),
            (busy, yes, yes),
            (no, busy, busy),
            (no, no, no),
            (busy, never, never),
            (never, busy, never),
            (no, never, never),
        ] {
            assert_eq!((a.or(b), b.or(a)), (both, both));
        }
    }

    #[test]
    fn only_an_error_of_the_message_itself_is_final() {
        for status in [400, 415, 488, 513, 603, 606] {
            assert_eq!(classify(status, b""), Sent::Refused(status));
        }
        for status in [404, 405, 408, 480, 486, 503, 600] {
            assert_eq!(classify(status, b""), AWAY);
        }
        for status in [302, 401, 407, 482, 491, 500, 580] {
            assert_eq!(classify(status, b""), Sent::NotNow { retry_after: None, failing: true });
        }
        let asked = b"SIP/2.0 480 Later\r\nRetry-After: 90 (lunch)\r\n\r\n";
        assert_eq!(classify(480, asked), Sent::NotNow { retry_after: Some(90), failing: false });
    }

    #[test]
    fn long_messages_try_a_stream_first_unless_bound_to_a_flow() {
        let udp = Hop::Address { transport: Transport::Udp, remote: "192.0.2.1:5060".parse().unwrap() };
        let tcp = Hop::Address { transport: Transport::Tcp, remote: "192.0.2.1:5060".parse().unwrap() };
        assert_eq!(preferring_streams([udp], 1300), [udp]);
        assert_eq!(preferring_streams([udp], 1301), [tcp, udp]);
        let flow = Hop::Flow(crate::fakes::flow());
        assert_eq!(preferring_streams([flow], 9000), [flow]);
    }
}
