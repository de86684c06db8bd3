//! What a SIP service is to the rest of the house: an object that is shown requests and answers some of them.
//!
//! Services are called under the lock of the shard that owns the transaction, so they decide at once; what takes time
//! (a commit, a look-up elsewhere) is queued with a completion that answers later through an [`Outlet`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use sip_proto::build::{Response, Writer};
use sip_proto::endpoint::{Endpoint, Full, ServerId, reply_hop};
use sip_proto::transport::Transmit;
use sip_proto::uri::Uri;
use sip_proto::{Flow, Hop, Message, Outbox, validate};

use crate::identity::Aor;
use crate::user::User;

/// One step of a shard: its transactions, the time, and where to write.
pub struct Step<'a> {
    pub now: Instant,
    /// Wall-clock seconds since 1970.
    pub unix: u64,
    pub shard: u16,
    pub endpoint: &'a mut Endpoint,
    pub out: &'a mut Outbox,
    /// The carrier's queue grows: shed new work with 503.
    pub loaded: bool,
}

/// Who sent a request, as far as we believe it.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Nobody that we know: another domain, or an open test net.
    Foreign,
    /// A node of the IMS core: what it asserts is believed (RFC 3325 §4).
    Trusted,
    /// One of our users, authenticated.
    User(Arc<User>),
}

/// A request on its way through the services.
pub struct Request<'a> {
    pub message: &'a Message<'a>,
    pub flow: &'a Flow,
    /// The Request-URI, after route processing.
    pub uri: Uri<'a>,
    pub caller: Caller,
    /// The address-of-record that the Request-URI names, when it is one of ours.
    pub callee: Option<Aor>,
    /// Its profile, when it is a provisioned user.
    pub profile: Option<Arc<User>>,
}

/// What a service did with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing; the next service may have it.
    Pass,
    /// Answered, or will be.
    Taken,
    /// To go on as another dialog, with ourselves between the two: the service acts as a back-to-back user agent
    /// (TS 23.218 §9.1.1.4). For an INVITE that begins a dialog, of a service that a filter or a Route names.
    Join,
    /// To be answered by the node of the cluster that takes SIP there, which believes what we say of the caller.
    HandOver(Hop),
}

/// A named piece of service logic (TS 23.218 calls the whole of them an application server).
pub trait Service: Send + Sync {
    /// For logs, traces and filter criteria: lower case, short.
    fn name(&self) -> &'static str;

    /// User part of its public service identity, `sip:<identity>@<domain>`: an S-CSCF that has this in Route asks no other
    /// service (TS 23.228 §5.4.12).
    fn identity(&self) -> &str {
        self.name()
    }

    /// A new request, before it is routed.
    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict;

    /// A request that reached nobody: its addressee has no binding, or every branch ended in `status` (408, 430, 480).
    /// `server` is its transaction, if it has one already.
    fn unreached(&self, step: &mut Step<'_>, request: &Request<'_>, server: Option<ServerId>, status: u16) -> Verdict {
        let _ = (step, request, server, status);
        Verdict::Pass
    }

    /// Whether a request or ACK belongs to a dialog of which this service is an end: then it was let in once, and is not
    /// asked for credentials again. Called for messages with a tag in To, before their sender is known.
    fn knows(&self, message: &Message<'_>) -> bool {
        let _ = message;
        false
    }

    /// The ACK of a dialog that the service [knows](Service::knows).
    fn acknowledged(&self, message: &Message<'_>) {
        let _ = message;
    }

    /// A request that a service took in [`Service::unreached`], on a status of 408, was taken by a phone after all: its 2xx
    /// came late, within the life of its transaction.
    fn reached_late(&self, transaction: Transaction) {
        let _ = transaction;
    }
}

/// A server transaction, from outside its shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Transaction {
    pub shard: u16,
    pub id: ServerId,
}

impl Step<'_> {
    /// Answers a request without a transaction: sent again, it gets the same answer again (RFC 3261 §8.2.7). An ACK, and what
    /// has no readable Via, gets none. `reason` replaces the usual phrase.
    pub fn reply(
        &mut self,
        flow: &Flow,
        message: &Message<'_>,
        status: u16,
        reason: Option<&str>,
        more: impl FnOnce(&mut Writer<'_>),
    ) {
        if !validate::is_answerable(message) {
            return;
        }
        let tag = self.endpoint.local_tag(message.call_id().unwrap_or_default());
        let hop = reply_hop(flow, message.top_via().as_ref());
        self.out.push(hop, Transmit::NO_TOKEN, |b| {
            let response = Response::to(message, status).source(flow.remote).tag(&tag);
            match reason {
                Some(reason) => response.reason(reason).write(b, more),
                None => response.write(b, more),
            }
        });
    }

    /// Takes a request into a transaction that will be answered later, by [`Outlet::answer`].
    pub fn defer(&mut self, request: &Request<'_>) -> Result<Transaction, Full> {
        let id = self.endpoint.accept(request.flow, request.message, NOBODY)?;
        Ok(Transaction { shard: self.shard, id })
    }
}

/// The user value of transactions in which the proxy has no part.
pub const NOBODY: u64 = u64::MAX;

/// How a request of our own ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The final response, whole.
    Response { status: u16, bytes: Box<[u8]> },
    /// Nobody answered in time.
    Timeout,
    /// There is no way to the destination.
    Unreachable,
    /// This node is too busy to try.
    Busy,
}

/// Completion of [`Outlet::request`].
pub type OnOutcome = Box<dyn FnOnce(Outcome) + Send>;

/// The way back into the SIP stack for whoever is not inside a step. Calling it from within a step would wait for the
/// caller's own lock: queue the work instead.
pub trait Outlet: Send + Sync {
    /// Writes bytes that need no transaction: an answer that was prepared earlier. Takes no shard's lock, so a completion may
    /// call it even from within a step.
    fn send(&self, hop: Hop, bytes: &[u8]);

    /// Answers a deferred request. `extra` adds headers; the rest follows from the request (RFC 3261 §8.2.6).
    fn answer(&self, transaction: Transaction, status: u16, extra: &dyn Fn(&mut Writer<'_>));

    /// Runs completions, one after another, whose messages leave together when it is over, or at [`Outlet::hurry`].
    fn gather(&self, run: &mut dyn FnMut()) {
        run();
    }

    /// Sends what this thread has gathered: what follows on another thread may not overtake it.
    fn hurry(&self) {}

    /// Sends a request as a user agent client. `bytes` is the whole request but for its Via, which is added here.
    fn request(&self, hop: Hop, bytes: Vec<u8>, done: OnOutcome);
}

/// Looks up where a URI leads (RFC 3263).
pub trait NextHops: Send + Sync {
    /// `done` gets the hops for a URI, best first; none if there is no way. It may run inside the call.
    fn next_hops(&self, uri: &[u8], done: Box<dyn FnOnce(Vec<Hop>) + Send>);
}

/// A connection that another node of the cluster holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elsewhere {
    /// Where that node takes SIP.
    pub node: Hop,
    pub flow: Flow,
}

/// The nodes of a cluster, as one of them knows them.
pub trait Nodes: Send + Sync {
    /// The name of this one.
    fn own(&self) -> &str;

    /// Where another one takes SIP. `None`: it is dead, or not heard of yet.
    fn at(&self, name: &str) -> Option<Hop>;

    /// Whether another one takes SIP there, dead or alive.
    fn has(&self, address: SocketAddr) -> bool;

    /// Nothing has been heard of it for long. False as long as nobody has been heard at all.
    fn is_dead(&self, name: &str) -> bool;

    /// The Route value that leads a request with this Call-ID to a connection that another node holds.
    fn way(&self, to: &Elsewhere, call_id: &[u8]) -> Vec<u8>;
}

/// One place where a user can be reached now, borrowed from the registrar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach<'a> {
    /// The registered contact URI.
    pub uri: &'a [u8],
    /// The Path values to go through, as a Route list; empty when there is none (RFC 3327).
    pub path: &'a [u8],
    /// The flow or address to send to. `None`: resolve the first Path, or the contact.
    pub hop: Option<Hop>,
    /// Only that node can send to it; there is no `hop` then.
    pub elsewhere: Option<Elsewhere>,
    /// Preference, 0 to 1000.
    pub q: u16,
    /// Contacts of one instance are alternatives of each other (RFC 5626 §6); empty when unknown.
    pub instance: &'a [u8],
    /// Other contact parameters as registered (feature tags, RFC 3840).
    pub params: &'a [u8],
}

impl Reach<'_> {
    /// Both are ways to one contact, by one flow: an instance may have the same contact on several (RFC 5626 §4.2).
    pub fn is_same_way(&self, other: &Reach<'_>) -> bool {
        let flow = |elsewhere: Option<Elsewhere>| elsewhere.map(|e| e.flow);
        (self.uri, self.path, self.hop, flow(self.elsewhere))
            == (other.uri, other.path, other.hop, flow(other.elsewhere))
    }
}

/// Where users are: answered from memory.
pub trait Location: Send + Sync {
    /// Shows each current binding of the address-of-record that this node can send to, best first.
    fn each(&self, aor: &str, unix: u64, show: &mut dyn FnMut(&Reach<'_>));

    /// As [`Location::each`], with what other nodes hold the connection of.
    fn each_anywhere(&self, aor: &str, unix: u64, show: &mut dyn FnMut(&Reach<'_>)) {
        self.each(aor, unix, show);
    }

    /// As [`Location::each_anywhere`], for a GRUU of ours (RFC 5627 §6.1): the bindings of the instance that it names. False when it
    /// is no GRUU that we stand by: 404; true and nothing shown: 480.
    fn each_of_gruu(&self, uri: &Uri<'_>, unix: u64, show: &mut dyn FnMut(&Reach<'_>)) -> bool {
        let _ = (uri, unix, show);
        false
    }

    /// The flow of a binding failed (RFC 5626 §5.3): forget it, so that the next attempt takes another. `way` is what was
    /// shown of it.
    fn failed(&self, aor: &str, way: &Reach<'_>);

    /// Whether this flow carried a successful REGISTER of that user.
    fn authenticated(&self, flow: &Flow, user: &User) -> bool;
}

/// A step in the life of a call or message, for charging records and traces.
#[derive(Clone, Copy, Debug)]
pub struct Note<'a> {
    /// The Call-ID: the trace id of calls and messages.
    pub trace: &'a [u8],
    pub event: NoteEvent,
    /// The status that goes with it; 0 if none.
    pub status: u16,
    /// The From and To values, or empty.
    pub from: &'a [u8],
    pub to: &'a [u8],
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoteEvent {
    /// An INVITE was accepted for routing.
    CallAttempt,
    CallRinging,
    CallAnswered,
    /// The INVITE ended without an answer; `status` says why.
    CallFailed,
    CallForwarded,
    /// An INVITE was refused before it went anywhere (barred, nobody there). A retransmission is noted again.
    CallRefused,
    /// A BYE went through.
    CallEnded,
    /// A MESSAGE reached its final response.
    MessageRelayed,
    /// A MESSAGE was refused before it went anywhere. A retransmission is noted again.
    MessageRefused,
    /// A MESSAGE was kept for later.
    MessageKept,
    /// A kept MESSAGE reached its addressee.
    MessageDelivered,
    MessageExpired,
    /// The messages of a session go through this server.
    SessionAnchored,
    SessionEnded,
    /// The media of a call go through this server.
    MediaRelayed,
    /// A filter was met, or an S-CSCF asked. For this and the next four: `status` is the filter's priority, `to` the name of
    /// the service or the URI of the application server.
    ServiceInvoked,
    /// The service answers, or will.
    ServiceTook,
    /// The service is down, and the session goes on without it.
    ServiceSkipped,
    /// The service is down, and the session ends.
    ServiceFailed,
    /// An application server sent the request back.
    ServerReturned,
    /// A back-to-back user agent of ours has joined this dialog to another one, whose Call-ID is in `to`.
    Joined,
}

/// Takes notes for charging and tracing. Called on the hot path: copy and queue.
pub trait Chronicle: Send + Sync {
    fn note(&self, note: &Note<'_>);
}
