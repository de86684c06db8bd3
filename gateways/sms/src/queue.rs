//! The durable queue of short messages: what stands in it, and the port behind which it is kept.
//!
//! Each segment is a row, and its states are [`State`]. [`Queue`] lives here and not among the ports of `sip-ims` because only this crate's services speak of
//! segments, receipts and XPIDs; the server's store implements it. As there, no call blocks and completions run on a thread of the store's.
//!
//! What the queue promises: `enqueue` is done when the request is on disk; what [`Queue::mark`] took outlives a kill of the process and is on
//! disk within a second; and whatever was neither is handed out again ([`Outlet::ready`]): at least once, never lost.

mod part;

use std::sync::Arc;

pub use part::{BadPart, MAX_SHORT_MESSAGE, Part};
use sip_ims::Msisdn;
use sip_ims::ports::{Done, StoreError};

/// Names a segment: when and by which node its request was accepted, and its place in it. Later requests have greater ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentId(pub i64);

impl SegmentId {
    /// Bits of an id that tell the segments of one request apart.
    pub const PLACE_BITS: u32 = 4;

    /// The id of the request's first segment, which names the request.
    pub fn request(self) -> SegmentId {
        SegmentId(self.0 & !Self::PLACE_MASK)
    }

    /// 0-based place in the request.
    pub fn place(self) -> u8 {
        (self.0 & Self::PLACE_MASK) as u8
    }

    /// The request's segment at a place below 16.
    pub fn at(self, place: u8) -> SegmentId {
        SegmentId(self.request().0 | i64::from(place) & Self::PLACE_MASK)
    }

    const PLACE_MASK: i64 = (1 << Self::PLACE_BITS) - 1;
}

/// Most segments of a request (S3).
pub const MAX_PARTS: usize = 10;

/// Where a segment is. The numbers stand in the store. Between `Queued` and `Sent` it may be on the wire: that is its node's knowledge alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum State {
    Queued = 0,
    /// Waits for its time after an attempt that failed for now, or behind such a one for the same number.
    Deferred = 1,
    /// The SMSC or the handset's registrar has it.
    Sent = 2,
    /// Somebody asked for it back.
    Cancelling = 3,
    /// Its time has not come ([`Request::not_before`]). It holds nothing back.
    Scheduled = 5,
    Delivered = 8,
    Failed = 9,
    Expired = 10,
    Cancelled = 11,
}

impl State {
    pub fn from_number(n: i64) -> Option<State> {
        use State::*;
        [Queued, Deferred, Sent, Cancelling, Scheduled, Delivered, Failed, Expired, Cancelled]
            .into_iter()
            .find(|s| i64::from(*s as u8) == n)
    }

    pub fn is_final(self) -> bool {
        self >= State::Delivered
    }

    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Deferred => "deferred",
            State::Sent => "sent",
            State::Cancelling => "cancelling",
            State::Scheduled => "scheduled",
            State::Delivered => "delivered",
            State::Failed => "failed",
            State::Expired => "expired",
            State::Cancelled => "cancelled",
        }
    }
}

/// What a request came to, as notifications and billing have it: 0 delivered, 6001 and up as in [`crate::push::Code`]. Cancelled segments
/// have [`Verdict::CANCELLED`], which appears in billing only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Verdict(pub u16);

impl Verdict {
    pub const DELIVERED: Verdict = Verdict(0);
    pub const EXPIRED: Verdict = Verdict(6001);
    pub const UNDELIVERABLE: Verdict = Verdict(6002);
    pub const REJECTED: Verdict = Verdict(6003);
    /// Not a code of the interface: cancelled before it arrived.
    pub const CANCELLED: Verdict = Verdict(1);
}

/// What all segments of a request have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Who asked: an 11-digit XPID, `api:<id>` or `esme:<system_id>`.
    pub client: Arc<str>,
    pub msn: Msisdn,
    /// The client's own name for the request; unique with `client` and `msn`. At most 64 characters.
    pub reqid: Arc<str>,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// 0 goes first, 3 last.
    pub rank: u8,
    pub flags: u8,
    /// Segments of the request, 1 to [`MAX_PARTS`].
    pub parts: u8,
}

impl Origin {
    /// The client is told when the request is through.
    pub const NOTIFY: u8 = 1;
    /// Somebody asked to cancel it.
    pub const CANCEL: u8 = 2;
    /// Skips the judgement by the line's state (what an ESME or a user of ours sends).
    pub const UNJUDGED: u8 = 4;
    /// For handsets of ours alone: a centre gave it to us.
    pub const HERE: u8 = 8;
    /// Any phone of ours will do, as text; otherwise only handsets that take short messages.
    pub const TEXT: u8 = 16;
    /// One of several requests of a client that have one id, each to a number of its own.
    pub const MANY: u8 = 32;

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A request to be stored.
#[derive(Clone, Debug)]
pub struct Request {
    pub origin: Origin,
    /// Of everything that was asked: the same again is the same request, another digest is another.
    pub digest: u64,
    /// Unix milliseconds until which it waits; of the past: it goes at once.
    pub not_before: i64,
    /// 1 to [`MAX_PARTS`].
    pub parts: Vec<Part>,
}

/// What became of [`Queue::enqueue`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enqueued {
    New(SegmentId),
    /// It is there already, in whatever state.
    Again(SegmentId),
    /// Another request of that client, number and id is there.
    Other,
}

impl Enqueued {
    /// The request's id, where it is known.
    pub fn id(self) -> Option<SegmentId> {
        match self {
            Enqueued::New(id) | Enqueued::Again(id) => Some(id),
            Enqueued::Other => None,
        }
    }
}

/// A segment that may go out now.
#[derive(Clone, Debug)]
pub struct Segment {
    pub id: SegmentId,
    pub origin: Arc<Origin>,
    /// Attempts that failed for now.
    pub attempts: u16,
    pub part: Part,
}

/// Names a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RequestKey {
    pub client: Arc<str>,
    pub msn: Msisdn,
    pub reqid: Arc<str>,
}

/// Requests of a client to one number that are not over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Older {
    pub client: Arc<str>,
    pub msn: Msisdn,
    /// What their ids are like: `_` is any character, `%` any number of them.
    pub like: Box<str>,
    /// Those that were accepted before this one; `None`: all.
    pub than: Option<SegmentId>,
}

/// A request as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    pub id: SegmentId,
    pub origin: Arc<Origin>,
    /// Unix milliseconds.
    pub accepted_at: i64,
    /// Unix milliseconds of the last end; 0 while none has ended.
    pub done_at: i64,
    pub segments: Vec<(State, Verdict)>,
}

/// What stands in a request of one segment from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replacement {
    /// In the coding of what it replaces. At most [`MAX_SHORT_MESSAGE`] octets.
    pub short_message: Box<[u8]>,
    /// Unix milliseconds; `None`: as before.
    pub expires_at: Option<i64>,
    /// Of what has not been handed out.
    pub not_before: Option<i64>,
}

/// What became of [`Queue::replace`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Replaced {
    Yes,
    Unknown,
    /// It is over, or being cancelled, or has several segments.
    No,
    /// On its way, or at another node: nobody can say.
    Busy,
    /// A centre has it under this name: it may exchange it.
    Sent(SentAs),
}

/// What became of [`Queue::cancel`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancel {
    /// It will be, as far as it can.
    Taken,
    Unknown,
    /// Every segment has arrived or failed.
    Over,
    Again,
    /// Part of it has arrived; the rest will be cancelled.
    Partly,
}

/// News of one segment.
#[derive(Clone, Debug)]
pub struct Mark {
    pub id: SegmentId,
    pub origin: Arc<Origin>,
    pub progress: Progress,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Handed over; a receipt will name it by `receipt`.
    Sent(SentAs),
    /// Not before `due` (unix milliseconds).
    Deferred { due: i64, attempts: u16 },
    /// Given back for whichever node has room.
    Returned,
    /// It is over. `at`: unix milliseconds.
    Ended { state: State, verdict: Verdict, at: i64 },
    /// The SMSC that has it would not cancel it: its receipt will tell.
    NotCancelled(SentAs),
}

/// The name under which a carrier holds a segment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SentAs {
    /// The link's name.
    pub link: Arc<str>,
    /// As the SMSC wrote it in its response. At most 65 characters (SMPP 3.4 §5.2.23).
    pub message_id: Arc<str>,
}

impl SentAs {
    /// The spelling by which receipts look for it: SMSCs write one id in several ways ([`crate::receipt::keys`]).
    pub fn key(&self) -> SentAs {
        SentAs { link: self.link.clone(), message_id: crate::receipt::key(&self.message_id).into() }
    }
}

/// A segment that waits for its receipt.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub id: SegmentId,
    pub origin: Arc<Origin>,
    pub sent_as: SentAs,
}

/// A segment that is asked back.
#[derive(Clone, Debug)]
pub struct Recall {
    pub id: SegmentId,
    pub origin: Arc<Origin>,
    /// `None`: not sent yet, as far as the store knows.
    pub sent_as: Option<SentAs>,
    /// [`Part::source`].
    pub source: Box<str>,
}

/// A request that is through, and whose client wants to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The request's.
    pub id: SegmentId,
    pub client: Arc<str>,
    pub msn: Msisdn,
    pub reqid: Arc<str>,
    pub verdict: Verdict,
    pub delivered: u8,
    pub cancelled: u8,
    pub parts: u8,
    /// Somebody asked to cancel it.
    pub cancel: bool,
    /// Unix milliseconds, both.
    pub accepted_at: i64,
    pub done_at: i64,
    pub attempts: u16,
}

/// Requests and segments of one client that ended in one way on one day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Total {
    /// `YYYY-MM-DD` in the operator's time zone.
    pub day: String,
    pub client: String,
    pub verdict: Verdict,
    pub requests: i64,
    pub segments: i64,
}

/// A segment's end, once it is in the store.
#[derive(Clone, Debug)]
pub struct Ended {
    pub id: SegmentId,
    pub origin: Arc<Origin>,
    pub state: State,
    pub verdict: Verdict,
    /// Unix milliseconds.
    pub accepted_at: i64,
    pub at: i64,
}

/// The durable queue.
pub trait Queue: Send + Sync {
    /// Begins to hand out what there is. Once, before anything else.
    fn attach(&self, outlet: Arc<dyn Outlet>);

    /// `done` runs when the request is on disk, or was there before. A new one is handed to [`Outlet::ready`] after that.
    fn enqueue(&self, request: Request, done: Done<Enqueued>);

    /// Queues the cancellation of what has not arrived. `at`: unix milliseconds.
    fn cancel(&self, key: RequestKey, at: i64, done: Done<Cancel>);

    /// Cancels what one of these replaces, as far as it has not arrived; `done` gets how many requests that were.
    fn supersede(&self, older: Older, at: i64, done: Done<u64>);

    fn find(&self, key: RequestKey, done: Done<Option<Status>>);

    /// The requests to several numbers ([`Origin::MANY`]) that have this id.
    fn find_many(&self, client: Arc<str>, reqid: Arc<str>, done: Done<Vec<Status>>);

    /// Exchanges the body of what has not left.
    fn replace(&self, key: RequestKey, with: Replacement, done: Done<Replaced>);

    /// Takes news of segments; when it returns, a kill of this process loses them no more.
    fn mark(&self, marks: Vec<Mark>) -> Result<(), StoreError>;

    /// The same for news that nobody will tell again; `done` runs when a loss of power takes it away no more.
    fn mark_for_good(&self, marks: Vec<Mark>, done: Done<()>);

    /// The segments that were sent under any of these names, whatever the spelling.
    fn sent_as(&self, names: Vec<SentAs>, done: Done<Vec<Waiting>>);

    /// The line of a number has changed: what waits for it is tried now.
    fn wake(&self, msn: Msisdn);

    /// The same for all numbers from each first to each last.
    fn wake_ranges(&self, ranges: &[(Msisdn, Msisdn)]);

    /// A notice was taken by its client, or is given up.
    fn notified(&self, id: SegmentId);

    /// A notice is to be tried again at `due` (unix milliseconds).
    fn notify_later(&self, id: SegmentId, due: i64, attempts: u16);

    /// Totals of the days `from` to `to`, both included (`YYYY-MM-DD`), by day, client and verdict.
    fn totals(&self, from: &str, to: &str, done: Done<Vec<Total>>);
}

/// Where the queue hands out; called on a thread of the store's, so nothing here may block.
pub trait Outlet: Send + Sync {
    /// Segments to send, in order. From here on they are this node's until marked.
    fn ready(&self, segments: Vec<Segment>);

    /// How many more segments it takes now.
    fn room(&self) -> usize;

    /// Puts the replacement into a segment that was handed out, unless it has left already. Called within a transaction.
    fn exchange(&self, id: SegmentId, with: &Replacement) -> bool;

    /// Take these back, wherever they are.
    fn recall(&self, segments: Vec<Recall>);

    /// The end of these is in the store.
    fn ended(&self, ended: &[Ended]);

    /// Notices to deliver. Each must be answered by [`Queue::notified`] or [`Queue::notify_later`].
    fn notices(&self, notices: Vec<Notice>);

    /// How many more notices it takes now.
    fn notice_room(&self) -> usize;
}
