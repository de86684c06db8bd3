//! Messages for applications, by deliver_sm: each ESME with numbers of its own is to the dispatcher what a link is.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use gw_smpp::pdu::{COctets, CommandStatus, Octets, ShortMessage};
use gw_smpp::{Reply, Verdict as SmppVerdict};
use parking_lot::Mutex;
use sip_ims::Msisdn;
use sip_ims::ports::StoreError;

use super::{Bell, Numbers, Receivers, source};
use crate::dispatch::{Centre, Dispatcher, LinkId, Pause, Report};
use crate::queue::{Enqueued, MAX_PARTS, Origin, Part, Queue, Recall, Request, Segment, SegmentId, SentAs, Verdict};
use crate::short_message::{Message, UDHI};
use crate::smpp::{Inbound, SmppCentre, address};

/// The ESMEs that have numbers.
pub struct Applications {
    pub numbers: Arc<Numbers>,
    pub receivers: Arc<Receivers>,
    /// Calls those that bind only when they are asked to.
    pub bell: Arc<Bell>,
    /// Messages that each has at a time, in its window and behind it, by its place.
    windows: Vec<usize>,
    /// Whose each message on its way is.
    open: Mutex<HashMap<SegmentId, usize>>,
    dispatcher: OnceLock<Arc<Dispatcher>>,
}

impl Applications {
    /// `windows`: of their sessions, by place.
    pub fn new(
        numbers: Arc<Numbers>,
        receivers: Arc<Receivers>,
        bell: Arc<Bell>,
        windows: impl IntoIterator<Item = usize>,
    ) -> Applications {
        // One on the wire and one that waits behind it, so that the wire is never idle.
        let windows = windows.into_iter().map(|window| 2 * window).collect();
        Applications { numbers, receivers, bell, windows, open: Mutex::default(), dispatcher: OnceLock::new() }
    }

    /// The dispatcher has these among its carriers, so it comes later.
    pub fn tie(&self, dispatcher: Arc<Dispatcher>) {
        // The first stays: there is one.
        let _ = self.dispatcher.set(dispatcher);
    }

    /// Those that have numbers, by place and name.
    pub fn each(&self, mut f: impl FnMut(usize, &str)) {
        self.numbers.with_numbers().for_each(|(esme, name)| f(esme, &String::from_utf8_lossy(name.as_bytes())));
    }

    /// Messages for this one on their way.
    pub fn open(&self, esme: usize) -> usize {
        self.open.lock().values().filter(|of| **of == esme).count()
    }

    /// Whether a receiver of this one is bound, here or elsewhere.
    pub fn receives(&self, esme: usize) -> bool {
        self.numbers.name(esme).is_some_and(|name| self.receivers.receives(name, b""))
    }

    /// Whether one is that serves this number.
    fn serves(&self, esme: usize, msn: Msisdn) -> bool {
        let address = self.numbers.address(msn);
        self.numbers.name(esme).is_some_and(|name| self.receivers.receives(name, address.digits.as_bytes()))
    }

    /// What waits for this ESME can be delivered.
    pub(super) fn bound(&self, system_id: &COctets<16>) {
        let Some(place) = self.numbers.place(system_id) else { return };
        if let Some(dispatcher) = self.dispatcher.get() {
            dispatcher.returned(&self.numbers.ranges(place));
        }
    }

    /// What it had and did not answer is looked after.
    pub(super) fn unbound(&self) {
        if let Some(dispatcher) = self.dispatcher.get() {
            dispatcher.wake();
        }
    }

    /// How deliveries ended.
    pub(super) fn reported(&self, outcomes: &[(SegmentId, SmppVerdict)]) {
        let Some(dispatcher) = self.dispatcher.get() else { return };
        let mut reports: HashMap<usize, Vec<(SegmentId, Report)>> = HashMap::new();
        let mut open = self.open.lock();
        for (id, verdict) in outcomes {
            if let Some(esme) = open.remove(id) {
                reports.entry(esme).or_default().push((*id, report(verdict)));
            }
        }
        drop(open);
        for (esme, reports) in reports {
            dispatcher.reported(LinkId(FIRST + esme), reports);
        }
    }

    fn submit(&self, esme: usize, segment: &Segment) -> bool {
        let Some(name) = self.numbers.name(esme) else { return false };
        let part = &segment.part;
        let message = ShortMessage {
            source: address(&part.source),
            destination: self.numbers.address(segment.origin.msn),
            esm_class: if part.udhi { UDHI } else { 0 },
            protocol_id: part.protocol_id,
            data_coding: part.data_coding,
            short_message: Octets::copied(&part.short_message),
            ..ShortMessage::default()
        };
        // Before the outcome can come.
        self.open.lock().insert(segment.id, esme);
        let taken = self.receivers.deliver(name, segment.id.0 as u64 | DELIVERY, message);
        if !taken {
            self.open.lock().remove(&segment.id);
        }
        taken
    }
}

fn report(verdict: &SmppVerdict) -> Report {
    match verdict {
        SmppVerdict::Done(_) => Report::Delivered,
        SmppVerdict::Again(_) => Report::Again,
        SmppVerdict::Refused(status, _) if status.is_temporary() => Report::Later(Pause::Busy),
        SmppVerdict::Refused(..) => Report::Never(Verdict::REJECTED),
        SmppVerdict::Unknown | SmppVerdict::Unsent => Report::Unknown,
    }
}

/// Centres and applications, as one: applications have the places from [`FIRST`] on.
pub struct Carriers {
    pub centre: Arc<SmppCentre>,
    pub applications: Arc<Applications>,
}

impl Carriers {
    fn application(id: LinkId) -> Option<usize> {
        id.0.checked_sub(FIRST)
    }
}

impl Centre for Carriers {
    fn choose(&self, msn: Msisdn) -> Option<LinkId> {
        match self.applications.numbers.of(msn) {
            Some(esme) => self.applications.serves(esme, msn).then_some(LinkId(FIRST + esme)),
            None => self.centre.choose(msn),
        }
    }

    fn room(&self, link: LinkId) -> usize {
        let Some(esme) = Carriers::application(link) else { return self.centre.room(link) };
        let applications = &self.applications;
        let window = applications.windows.get(esme).copied().unwrap_or(0);
        if applications.receives(esme) { window.saturating_sub(applications.open(esme)) } else { 0 }
    }

    fn submit(&self, link: LinkId, segment: &Segment, instruction: Option<u8>) -> bool {
        match Carriers::application(link) {
            Some(esme) => self.applications.submit(esme, segment),
            None => self.centre.submit(link, segment, instruction),
        }
    }

    fn cancel(&self, recall: &Recall, sent_as: &SentAs) -> bool {
        self.centre.cancel(recall, sent_as)
    }

    fn name(&self, link: LinkId) -> Arc<str> {
        self.centre.name(link)
    }

    fn exists(&self) -> bool {
        self.centre.exists()
    }

    fn application(&self, msn: Msisdn) -> Option<bool> {
        let esme = self.applications.numbers.of(msn)?;
        let receives = self.applications.serves(esme, msn);
        if !receives && let Some(name) = self.applications.numbers.name(esme) {
            self.applications.bell.ring(name);
        }
        Some(receives)
    }
}

/// Keeps here what a centre gave us, which then has not got it any more.
pub struct Keeper {
    pub queue: Arc<dyn Queue>,
    /// Milliseconds for which it is tried.
    pub validity: i64,
    /// Unix milliseconds.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Keeper {
    /// `flags` besides that it is not to be judged. At most [`MAX_PARTS`].
    pub(crate) fn keep(&self, link: &Arc<str>, to: Msisdn, flags: u8, parts: Vec<Part>, reply: Reply) {
        let origin = Origin {
            client: format!("link:{link}").into(),
            msn: to,
            reqid: format!("{:016x}", (self.random)()).into(),
            expires_at: (self.clock)() + self.validity,
            rank: 1,
            flags: Origin::UNJUDGED | flags,
            parts: parts.len() as u8,
        };
        let done = move |result: Result<Enqueued, StoreError>| match result {
            Ok(_) => reply.ok(),
            Err(_) => reply.status(CommandStatus::RX_T_APPN),
        };
        self.queue.enqueue(Request { origin, digest: 0, not_before: 0, parts }, Box::new(done));
    }
}

/// Takes what a centre has for an application's number; the rest is for others.
pub struct ToApplications {
    pub numbers: Arc<Numbers>,
    pub keeper: Arc<Keeper>,
    pub others: Arc<dyn Inbound>,
}

impl Inbound for ToApplications {
    fn message(&self, link: &Arc<str>, message: ShortMessage, reply: Reply) {
        let to = self.numbers.destination(&message.destination).filter(|to| self.numbers.of(*to).is_some());
        let Some(to) = to else { return self.others.message(link, message, reply) };
        let reference = (self.keeper.random)() as u8;
        let parts = Message::of(&message)
            .and_then(|read| read.parts(&source(&message.source), message.protocol_id, reference, MAX_PARTS as u8));
        match parts {
            Ok(parts) => self.keeper.keep(link, to, 0, parts, reply),
            Err(unreadable) => reply.status(unreadable.status()),
        }
    }
}

/// Where the places of applications begin, far above those of links.
const FIRST: usize = 1 << 20;
/// Marks the tickets of messages among those of receipts.
pub(super) const DELIVERY: u64 = 1 << 63;
