//! The gateway's task: it owns what is under way, and sends.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_ims::bearer::{Bearer, Carried, Text, Unheard};
use sip_ims::history::TextArchive;
use sip_ims::service::{Location, NextHops, Outcome, Outlet, Transaction};
use sip_ims::{Aor, Directory, Home, User};
use sip_proto::Hop;
use sip_proto::headers::{NameAddr, list};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::letter::{Handset, Letter};
use super::remembered::Remembered;
use super::transfers::Transfers;
use super::watch;
use super::{
    Config, Counts, Delivery, Discharge, Fate, Inbox, MAX_ORDERS, MAX_REPLIED, MAX_SEGMENTS, Nodes, NotAccepted, Order,
    Outbound, Relayed, Report, Submission, WANTS_REPORT, handsets,
};
use crate::notice::Told;
use crate::reassembly::{Assembler, Limits};
use crate::rp::{Direction, Kind, Relay, cause};
use crate::segment::{self, Content, Layout, Segment};
use crate::short_message::{Message, Unreadable};
use crate::tpdu::{
    Address, Carrier, Deliver, FromHandset, Optional, StatusReport, Submit, SubmitReport, Timestamp, ToHandset, failure,
};
use crate::udh::{self, Reference};

/// What the worker works with.
pub struct WorkerParts {
    pub location: Arc<dyn Location>,
    pub outlet: Arc<dyn Outlet>,
    pub next_hops: Arc<dyn NextHops>,
    pub outbound: Arc<dyn Outbound>,
    pub archive: Arc<dyn TextArchive>,
    /// `None`: there are no others.
    pub nodes: Option<Arc<dyn Nodes>>,
    /// Unix seconds.
    pub unix: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Octets that nobody can guess, for Call-IDs.
    pub random: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
}

/// Made apart from the [`IpSmGw`](super::IpSmGw), because the stack that it sends by holds the service.
pub struct Worker {
    config: Config,
    directory: Arc<Directory>,
    home: Arc<Home>,
    bearer: Option<Arc<dyn Bearer>>,
    parts: WorkerParts,
    counts: Arc<Counts>,
    orders: mpsc::UnboundedReceiver<Order>,
    again: mpsc::UnboundedSender<Order>,
    transfers: Transfers<Done>,
    /// Parts of texts for users without a handset that takes RP messages.
    texts: Assembler<(Box<str>, Aor), (String, Done)>,
    reference: u8,
    remembered: Arc<Remembered>,
}

/// Completions: of one segment, or of all that one text was made of. Dropped unsaid (a part whose others never came, a stop),
/// they are told that nothing arrived, so that each runs exactly once.
#[derive(Default)]
pub(crate) struct Done(Vec<Box<dyn FnOnce(Fate) + Send>>);

impl Done {
    fn of(done: Box<dyn FnOnce(Fate) + Send>) -> Done {
        Done(vec![done])
    }

    fn say(mut self, fate: Fate) {
        std::mem::take(&mut self.0).into_iter().for_each(|done| done(fate));
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        std::mem::take(&mut self.0).into_iter().for_each(|done| done(Fate::Unreachable { status: 408 }));
    }
}

/// A text, or a part of one, on its way from a handset to the bearer.
pub(crate) struct Carriage {
    to: Arc<User>,
    from: Box<str>,
    part: Option<udh::Part>,
    text: String,
}

/// Whom to tell about a submission.
pub(crate) enum Submitted {
    /// The handset that sent RP-DATA.
    Handset { from: Arc<User>, call_id: Box<str>, reference: u8, source: std::net::SocketAddr },
    /// The client whose transaction waits.
    Client(Transaction),
    /// Who wrote it over the bearer.
    Bearer(Box<dyn FnOnce(Result<(), Unheard>) + Send>),
}

impl Worker {
    pub fn new(inbox: Inbox, parts: WorkerParts) -> Worker {
        let own = own_uri(&inbox.config, &inbox.home);
        let remembered = Remembered::new(parts.archive.clone(), inbox.directory.clone(), &own);
        Worker {
            remembered: Arc::new(remembered),
            config: inbox.config,
            directory: inbox.directory,
            home: inbox.home,
            bearer: inbox.bearer,
            counts: inbox.counts,
            parts,
            orders: inbox.orders,
            again: inbox.again,
            transfers: Transfers::default(),
            texts: Assembler::new(Limits { messages: 5_000, bytes: 4 << 20, wait: TEXT_WAIT }),
            reference: 0,
        }
    }

    /// Runs until `stop` is ready or the service is gone. What is under way then is told to have no report.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let deadline = self.transfers.deadline();
            let lapse = async {
                match deadline {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut stop => break,
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => break,
                },
                () = lapse => {}
                _ = second.tick() => {}
            }
            let now = Instant::now();
            for (done, fate) in self.transfers.lapsed(now) {
                done.say(fate);
            }
            // Whose parts were given up waits for nothing: their completions run when they are dropped with it.
            self.texts.expire(now);
        }
        for done in self.transfers.drain() {
            done.say(Fate::NoReport);
        }
    }

    fn take(&mut self, order: Order) {
        if let Order::Submitted(_, result) = &order {
            self.counts.submitted(*result);
        }
        match order {
            Order::Relay(relayed) => self.relayed(relayed),
            Order::Text { from, source, to, text, key, whom } => {
                self.reference = self.reference.wrapping_add(1);
                let layout = Layout::new(Reference::Byte(self.reference), MAX_SEGMENTS);
                match segment::split(Content::Text(&text), &layout) {
                    Err(_) => match whom {
                        Submitted::Client(transaction) => self.parts.outlet.answer(transaction, 413, &|_| {}),
                        Submitted::Bearer(done) => done(Err(Unheard::TooLong)),
                        // Handsets divide by themselves.
                        Submitted::Handset { .. } => {}
                    },
                    Ok(segments) => {
                        let submission = Submission { from, source, to, segments, protocol_id: 0, validity: None, key };
                        self.submit(submission, whom);
                    }
                }
            }
            Order::Deliver(delivery) if self.orders.len() > MAX_ORDERS => (delivery.done)(Fate::Busy),
            Order::Deliver(delivery) => self.deliver(delivery),
            Order::Carry(carriage, done) => self.carry(carriage, done),
            Order::Discharge(discharge) => self.discharge(discharge),
            Order::Answered { call_id, status } => {
                if let Some((done, fate)) = self.transfers.answered(&call_id, status) {
                    done.say(fate);
                }
            }
            Order::Reported(Report { from, reference, cause, in_reply_to }) => {
                if let Some((done, fate)) = self.transfers.reported(in_reply_to.as_deref(), &from, reference, cause) {
                    done.say(fate);
                }
            }
            Order::Submitted(Submitted::Client(transaction), result) => {
                let status = match result {
                    Ok(()) => 202,
                    Err(NotAccepted::Busy) => 503,
                    Err(NotAccepted::NoRoute) => 404,
                    Err(NotAccepted::Failed) => 500,
                };
                self.parts.outlet.answer(transaction, status, &|_| {});
            }
            Order::Submitted(Submitted::Bearer(done), result) => done(result.map_err(|why| match why {
                NotAccepted::Busy | NotAccepted::Failed => Unheard::Busy,
                NotAccepted::NoRoute => Unheard::NoRoute,
            })),
            Order::Submitted(Submitted::Handset { from, call_id, reference, source }, result) => {
                let answer = Reply { from: &from, call_id: &call_id, reference, source };
                match result {
                    Ok(()) => self.reply(&answer, None),
                    Err(NotAccepted::Busy) => self.reply(&answer, Some((cause::CONGESTION, failure::SC_BUSY))),
                    Err(NotAccepted::NoRoute) => {
                        self.reply(&answer, Some((cause::UNASSIGNED_NUMBER, failure::INVALID_ADDRESS)))
                    }
                    Err(NotAccepted::Failed) => {
                        self.reply(&answer, Some((cause::TEMPORARY_FAILURE, failure::SC_SYSTEM_FAILURE)));
                    }
                }
            }
        }
    }

    /// An RP message of a handset.
    fn relayed(&mut self, relayed: Relayed) {
        let reference = relayed.body.get(1).copied().unwrap_or_default();
        let reply = Reply { from: &relayed.from, call_id: &relayed.call_id, reference, source: relayed.source };
        let relay = match Relay::decode(&relayed.body) {
            Ok(relay) if relay.direction == Direction::FromHandset => {
                self.counts.relayed(match relay.kind {
                    Kind::Data { .. } => watch::Relayed::Data,
                    Kind::Ack { .. } => watch::Relayed::Ack,
                    Kind::Error { .. } => watch::Relayed::Error,
                    Kind::Smma => watch::Relayed::Smma,
                });
                relay
            }
            _ => {
                self.counts.relayed(watch::Relayed::Unreadable);
                return self.unreadable(&relayed, &reply);
            }
        };
        let aor = relayed.from.aor.clone();
        let in_reply_to = relayed.in_reply_to.as_deref();
        match relay.kind {
            Kind::Ack { .. } => self.reported(in_reply_to, &aor, relay.reference, None),
            Kind::Error { cause, .. } => self.reported(in_reply_to, &aor, relay.reference, Some(cause)),
            Kind::Smma => {
                if let Some(msn) = relayed.from.msisdn {
                    self.parts.outbound.available(msn);
                }
                self.reply_smma(&reply);
            }
            Kind::Data { tpdu, .. } => match FromHandset::decode(&tpdu, Carrier::Data) {
                Ok(FromHandset::Submit(submit)) => self.submitted(&relayed, relay.reference, submit),
                Ok(FromHandset::Command(_)) => {
                    self.reply(&reply, Some((cause::FACILITY_REJECTED, failure::COMMAND_UNSUPPORTED)));
                }
                Ok(FromHandset::DeliverReport(_)) | Err(_) => {
                    self.reply(&reply, Some((cause::SEMANTICALLY_INCORRECT, failure::TPDU_NOT_SUPPORTED)));
                }
            },
        }
    }

    /// There is no answering an answer: RP-ERROR only for what may have been RP-DATA (TS 24.011 §9.3).
    fn unreadable(&mut self, relayed: &Relayed, reply: &Reply<'_>) {
        if relayed.body.first().is_none_or(|kind| kind & 7 == 0) {
            self.reply(reply, Some((cause::INVALID_MANDATORY, failure::UNSPECIFIED)));
        } else {
            tracing::debug!("an RP message that cannot be read");
        }
    }

    fn reported(&mut self, in_reply_to: Option<&str>, from: &Aor, reference: u8, cause: Option<u8>) {
        match self.transfers.reported(in_reply_to, from, reference, cause) {
            Some((done, fate)) => done.say(fate),
            None => match &self.parts.nodes {
                Some(nodes) => nodes.tell(&Report {
                    from: from.clone(),
                    reference,
                    cause,
                    in_reply_to: in_reply_to.filter(|id| id.len() <= MAX_REPLIED).map(Box::from),
                }),
                None => tracing::debug!("a report that fits no short message under way"),
            },
        }
    }

    fn submitted(&mut self, relayed: &Relayed, reference: u8, submit: Submit) {
        let reply = Reply { from: &relayed.from, call_id: &relayed.call_id, reference, source: relayed.source };
        let Some(source) = relayed.from.msisdn else {
            return self.reply(&reply, Some((cause::UNIDENTIFIED_SUBSCRIBER, failure::NO_SC_SUBSCRIPTION)));
        };
        let spelt = submit.destination.spelt();
        let Some(to) = self.config.numbers.dialled(&spelt) else {
            return self.reply(&reply, Some((cause::UNASSIGNED_NUMBER, failure::INVALID_ADDRESS)));
        };
        let wants_report = if submit.status_report { WANTS_REPORT } else { 'm' };
        // A handset that repeats itself repeats TP-MR and Call-ID or not at all.
        let key = format!(
            "{wants_report}{:02x}{:016x}",
            submit.reference,
            hash(&[relayed.call_id.as_bytes(), &relayed.body])
        );
        let unix = (self.parts.unix)() as i64;
        let submission = Submission {
            from: relayed.from.clone(),
            source,
            to,
            validity: submit.validity.and_then(|v| v.period(unix)),
            protocol_id: submit.pid,
            segments: vec![Segment { data_coding: submit.data_coding, user_data: submit.user_data }],
            key,
        };
        let whom = Submitted::Handset {
            from: relayed.from.clone(),
            call_id: relayed.call_id.clone(),
            reference,
            source: relayed.source,
        };
        self.submit(submission, whom);
    }

    /// Its sender is told once it is in the histories too.
    fn submit(&self, submission: Submission, whom: Submitted) {
        let (again, remembered, said) =
            (self.again.clone(), self.remembered.clone(), self.remembered.outgoing(&submission));
        let tell = move |result| _ = again.send(Order::Submitted(whom, result));
        let submitted = move |result: Result<(), NotAccepted>| match said.filter(|_| result.is_ok()) {
            Some(said) => remembered.keep(said, Box::new(move || tell(result))),
            None => tell(result),
        };
        self.parts.outbound.submit(submission, Box::new(submitted));
    }

    /// RP-ACK, or RP-ERROR with cause and TP-FCS, to the handset that sent RP-DATA.
    fn reply(&mut self, reply: &Reply<'_>, error: Option<(u8, u8)>) {
        let timestamp = Timestamp::from_unix((self.parts.unix)() as i64, self.config.zone);
        let report = SubmitReport { failure: error.map(|(_, f)| f), timestamp, optional: Optional::default() };
        let tpdu = Some(ToHandset::SubmitReport(report).encode());
        let kind = match error {
            None => Kind::Ack { tpdu },
            Some((cause, _)) => Kind::Error { cause, diagnostic: None, tpdu },
        };
        self.answer(reply, kind);
    }

    fn reply_smma(&mut self, reply: &Reply<'_>) {
        self.answer(reply, Kind::Ack { tpdu: None });
    }

    fn answer(&mut self, reply: &Reply<'_>, kind: Kind) {
        let aor = &reply.from.aor;
        let all = handsets(&*self.parts.location, aor, (self.parts.unix)());
        let same = |h: &&Handset| h.at() == Some(reply.source);
        let Some(handset) = all.iter().filter(|h| h.smsip).find(same).or_else(|| all.iter().find(|h| h.smsip)) else {
            return tracing::debug!("the handset that sent a short message has gone");
        };
        let body = Relay { direction: Direction::ToHandset, reference: reply.reference, kind }.encode();
        let (call_id, tag) = self.names();
        let letter = Letter {
            handset,
            way: &self.way(handset, &call_id),
            to: aor,
            from: &self.own_uri(),
            call_id: &call_id,
            tag: &tag,
            in_reply_to: Some(reply.call_id),
        };
        self.send(handset, &call_id, letter.relay(&body));
    }

    fn deliver(&mut self, mut delivery: Delivery) {
        let unix = (self.parts.unix)();
        let Some(user) = self.directory.by_msisdn(delivery.to) else {
            return (delivery.done)(Fate::Unreachable { status: 404 });
        };
        let all = handsets(&*self.parts.location, &user.aor, unix);
        let bearer = self.bearer.clone().filter(|bearer| delivery.as_text && bearer.reaches(&user));
        if all.is_empty() && bearer.is_none() {
            return (delivery.done)(Fate::Unreachable { status: 480 });
        }
        let octets = std::mem::take(&mut delivery.octets);
        let refused = Fate::Refused { cause: cause::SEMANTICALLY_INCORRECT };
        let Ok(message) = Message::read(delivery.data_coding, delivery.has_header, &octets) else {
            return (delivery.done)(refused);
        };
        if let Some(piece) = self.remembered.incoming(&user, &delivery, &message) {
            let (remembered, done) = (self.remembered.clone(), delivery.done);
            delivery.done = Box::new(move |fate| {
                if fate == Fate::Delivered {
                    remembered.keep(piece, Box::new(|| {}));
                }
                done(fate);
            });
        }
        let Some(handset) = all.first().filter(|handset| handset.smsip) else {
            return self.deliver_text(&user, &all, bearer, delivery, &message);
        };
        if bearer.is_some() {
            self.to_bearer_afterwards(&user, &mut delivery, &message);
        }
        let (coding, data) = match message.user_data() {
            Ok(read) => read,
            // In letters that a handset does not know, and too long in those that it does.
            Err(Unreadable::Long) => return (delivery.done)(Fate::Unreachable { status: 415 }),
            Err(_) => return (delivery.done)(refused),
        };
        let originator = Address::parse(&delivery.source).ok().or_else(|| self.centre());
        let Some(originator) = originator else {
            return (delivery.done)(Fate::Refused { cause: cause::SEMANTICALLY_INCORRECT });
        };
        let deliver = Deliver {
            more: false,
            loop_prevention: false,
            status_report: false,
            reply_path: false,
            originator,
            pid: delivery.protocol_id,
            data_coding: coding,
            timestamp: Timestamp::from_unix(unix as i64, self.config.zone),
            user_data: data,
        };
        self.transfer(&user.aor, handset, ToHandset::Deliver(deliver), Done::of(delivery.done));
    }

    /// RP-DATA to a handset.
    fn transfer(&mut self, aor: &Aor, handset: &Handset, tpdu: ToHandset, done: Done) {
        let (call_id, tag) = self.names();
        let reference = match self.transfers.begin(aor, call_id.clone(), done, Instant::now()) {
            Ok(reference) => reference,
            Err(done) => return done.say(Fate::Busy),
        };
        let originator = self.centre();
        let kind = Kind::Data { originator, destination: None, tpdu: tpdu.encode() };
        let body = Relay { direction: Direction::ToHandset, reference, kind }.encode();
        let (way, from) = (self.way(handset, &call_id), self.own_uri());
        let letter =
            Letter { handset, way: &way, to: aor, from: &from, call_id: &call_id, tag: &tag, in_reply_to: None };
        self.send(handset, &call_id, letter.relay(&body));
    }

    /// What the handset has taken goes to the bearer too; what it has not, goes there instead. Not the parts of a text: some would
    /// be here and some there.
    fn to_bearer_afterwards(&self, user: &Arc<User>, delivery: &mut Delivery, message: &Message<'_>) {
        let Some(text) = readable(message) else { return };
        let (to, from, part) = (user.clone(), self.sender(&delivery.source).into(), message.header.part());
        let carriage = Carriage { to, from, part, text };
        let (again, nothing) = (self.again.clone(), Box::new(|_| {}) as Box<dyn FnOnce(Fate) + Send>);
        let done = std::mem::replace(&mut delivery.done, nothing);
        delivery.done = Box::new(move |fate| match fate {
            Fate::Delivered => {
                // The worker is gone when the server stops.
                let _ = again.send(Order::Carry(carriage, Done::default()));
                done(fate);
            }
            Fate::NoReport | Fate::Unreachable { .. } if carriage.part.is_none() => {
                let _ = again.send(Order::Carry(carriage, Done::of(done)));
            }
            _ => done(fate),
        });
    }

    fn carry(&mut self, carriage: Carriage, done: Done) {
        let Carriage { to, from, part, text } = carriage;
        let Some(bearer) = self.bearer.clone() else { return };
        let pieces = match part {
            None => Some(vec![(text, done)]),
            Some(part) => {
                let weight = text.len() + size_of::<Done>();
                // A URI, so they are not among those that phones wait for.
                self.texts.offer((from.clone(), to.aor.clone()), part, (text, done), weight, Instant::now())
            }
        };
        let Some((text, done)) = pieces.map(together) else { return };
        bearer.carry(Text { to, from, text }, Box::new(move |carried| done.say(fate(carried))));
    }

    /// A text MESSAGE to every phone, and to the bearer, once all its segments are here. What is no text, or is for an application, goes
    /// another way.
    fn deliver_text(
        &mut self,
        user: &Arc<User>,
        phones: &[Handset],
        bearer: Option<Arc<dyn Bearer>>,
        delivery: Delivery,
        message: &Message<'_>,
    ) {
        let aor = &user.aor;
        let Some(text) = readable(message) else { return (delivery.done)(Fate::Unreachable { status: 415 }) };
        let whole = match message.header.part() {
            None => Some(vec![(text, Done::of(delivery.done))]),
            Some(part) => {
                let weight = text.len() + size_of::<Done>();
                let ends = (delivery.source.clone(), aor.clone());
                self.texts.offer(ends, part, (text, Done::of(delivery.done)), weight, Instant::now())
            }
        };
        let Some((text, done)) = whole.map(together) else { return };
        let from = self.sender(&delivery.source);
        let first = Arc::new(Mutex::new((phones.len() + usize::from(bearer.is_some()), Some(done))));
        if let Some(bearer) = bearer {
            let (to, from, text, first) = (user.clone(), from.as_str().into(), text.clone(), first.clone());
            let carried = move |carried| one_ended(&first, fate(carried));
            bearer.carry(Text { to, from, text }, Box::new(carried));
        }
        for phone in phones {
            let (call_id, tag) = self.names();
            let way = self.way(phone, &call_id);
            let letter = Letter {
                handset: phone,
                way: &way,
                to: aor,
                from: &from,
                call_id: &call_id,
                tag: &tag,
                in_reply_to: None,
            };
            let bytes = letter.text(&text);
            let first = first.clone();
            self.request(phone, bytes, Box::new(move |status| one_ended(&first, answered(status))));
        }
    }

    fn discharge(&mut self, discharge: Discharge) {
        let reference = discharge.key.strip_prefix(WANTS_REPORT).and_then(|k| u8::from_str_radix(k.get(..2)?, 16).ok());
        let (Some(reference), Some(user)) = (reference, self.directory.by_msisdn(discharge.from)) else {
            return (discharge.done)(Told::Gone);
        };
        let all = handsets(&*self.parts.location, &user.aor, (self.parts.unix)());
        let Some(handset) = all.first().filter(|h| h.smsip) else { return (discharge.done)(Told::Absent) };
        let Ok(recipient) = Address::number(&discharge.to.to_string()) else { return (discharge.done)(Told::Gone) };
        let done = discharge.done;
        let told = move |fate| {
            done(match fate {
                Fate::Delivered => Told::Yes,
                // It will not like it better the next time.
                Fate::Refused { .. } => Told::Gone,
                Fate::NoReport | Fate::Unreachable { .. } | Fate::NoMemory | Fate::Busy => Told::Absent,
            });
        };
        let stamp = |unix| Timestamp::from_unix(unix, self.config.zone);
        let report = StatusReport {
            more: false,
            loop_prevention: false,
            of_command: false,
            reference,
            recipient,
            timestamp: stamp(discharge.accepted_at),
            discharged: stamp(discharge.ended_at),
            status: discharge.status,
            optional: Optional::default(),
        };
        self.transfer(&user.aor, handset, ToHandset::StatusReport(report), Done::of(Box::new(told)));
    }

    fn send(&self, handset: &Handset, call_id: &Arc<str>, bytes: Vec<u8>) {
        let (again, call_id) = (self.again.clone(), call_id.clone());
        let done = move |status| _ = again.send(Order::Answered { call_id, status });
        self.request(handset, bytes, Box::new(done));
    }

    /// Sends to the handset's flow, or to where its name leads first.
    fn request(&self, handset: &Handset, bytes: Vec<u8>, done: Box<dyn FnOnce(Option<u16>) + Send>) {
        let outlet = self.parts.outlet.clone();
        let hop = handset.hop.or_else(|| handset.elsewhere.map(|elsewhere| elsewhere.node));
        let ended = move |outcome| {
            done(match outcome {
                Outcome::Response { status, .. } => Some(status),
                Outcome::Busy => Some(503),
                Outcome::Timeout | Outcome::Unreachable => None,
            });
        };
        if let Some(hop) = hop {
            return outlet.request(hop, bytes, Box::new(ended));
        }
        let first = list(&handset.path).next().and_then(NameAddr::parse).map(|a| a.addr);
        let found = move |hops: Vec<Hop>| match hops.first() {
            Some(hop) => outlet.request(*hop, bytes, Box::new(ended)),
            None => ended(Outcome::Unreachable),
        };
        self.parts.next_hops.next_hops(first.unwrap_or(&handset.uri), Box::new(found));
    }

    fn way(&self, handset: &Handset, call_id: &str) -> Vec<u8> {
        let elsewhere = self.parts.nodes.as_ref().zip(handset.elsewhere.as_ref());
        elsewhere.map(|(nodes, to)| nodes.way(to, call_id.as_bytes())).unwrap_or_default()
    }

    /// A configured number that cannot be written is no address; then handsets see none.
    fn centre(&self) -> Option<Address> {
        Address::number(&self.config.centre).ok()
    }

    fn own_uri(&self) -> String {
        own_uri(&self.config, &self.home)
    }

    /// Whom the addressee of a text sees: the number that it is from, or the gateway for names and for nobody.
    fn sender(&self, source: &str) -> String {
        let number = Address::parse(source).ok().map(|address| address.spelt());
        match number.filter(|n| !n.is_empty() && n.bytes().all(|b| b == b'+' || b.is_ascii_digit())) {
            Some(number) => format!("sip:{number}@{};user=phone", self.home.domain()),
            None => self.own_uri(),
        }
    }

    /// A Call-ID and a tag.
    fn names(&self) -> (Arc<str>, String) {
        let octets = (self.parts.random)();
        let hex = |octets: &[u8]| octets.iter().map(|o| format!("{o:02x}")).collect::<String>();
        (format!("{}@{}", hex(&octets), self.home.domain()).into(), hex(&octets[..4]))
    }
}

fn own_uri(config: &Config, home: &Home) -> String {
    format!("sip:{}@{}", config.user, home.domain())
}

/// The text of a message for a person.
fn readable(message: &Message<'_>) -> Option<String> {
    message.text().ok().flatten().filter(|_| message.header.ports().is_none())
}

/// Of all parts.
fn together(whole: Vec<(String, Done)>) -> (String, Done) {
    let (texts, dones): (Vec<String>, Vec<Done>) = whole.into_iter().unzip();
    (texts.concat(), Done(dones.into_iter().flat_map(|mut d| std::mem::take(&mut d.0)).collect()))
}

fn answered(status: Option<u16>) -> Fate {
    match status {
        Some(200..=299) => Fate::Delivered,
        status => Fate::Unreachable { status: status.unwrap_or(408) },
    }
}

/// A server that refuses a text does not know the user, and others may.
fn fate(carried: Carried) -> Fate {
    match carried {
        Carried::Taken => Fate::Delivered,
        Carried::Later => Fate::Unreachable { status: 480 },
        Carried::Refused => Fate::Unreachable { status: 404 },
    }
}

/// A text has arrived with the first phone that takes it, and has not when none did.
fn one_ended(phones: &Mutex<(usize, Option<Done>)>, fate: Fate) {
    let mut phones = phones.lock();
    phones.0 -= 1;
    if fate != Fate::Delivered && phones.0 > 0 {
        return;
    }
    let done = phones.1.take();
    drop(phones);
    if let Some(done) = done {
        done.say(fate);
    }
}

/// A handset's MESSAGE that is to be answered.
struct Reply<'a> {
    from: &'a User,
    call_id: &'a str,
    reference: u8,
    source: std::net::SocketAddr,
}

fn hash(parts: &[&[u8]]) -> u64 {
    use std::hash::Hasher;
    let mut hash = siphasher::sip::SipHasher13::new();
    parts.iter().for_each(|part| hash.write(part));
    hash.finish()
}

/// How long the parts of a text wait for each other.
const TEXT_WAIT: Duration = Duration::from_secs(120);
