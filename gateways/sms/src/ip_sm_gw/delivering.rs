//! Who delivers through the gateway: the dispatcher with what is queued, and the SMPP links with what a centre has for our users.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use gw_smpp::Reply;
use gw_smpp::pdu::{CommandStatus, ShortMessage};
use parking_lot::Mutex;
use sip_ims::Msisdn;
use sip_ims::service::Location;

use super::watch::{Underway, Watch};
use super::{CLIENT, Delivery, Fate, IpSmGw, Phone};
use crate::dispatch::{Dispatcher, HandsetReport, Handsets, Pause};
use crate::esme::{Keeper, source};
use crate::queue::{MAX_PARTS, Origin, Part, Segment, Verdict};
use crate::short_message::Message;
use crate::smpp::{Inbound, destination};

/// Our users' handsets, as the dispatcher sees them: over IMS first, else by the centre.
pub struct Registered {
    pub gateway: Arc<IpSmGw>,
    pub location: Arc<dyn Location>,
    pub dispatcher: Arc<Dispatcher>,
    /// Unix seconds.
    pub unix: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Handsets for Registered {
    fn reachable(&self, msn: Msisdn, text: bool) -> bool {
        match self.gateway.phone(&*self.location, msn, (self.unix)()) {
            Some(Phone::Relay) => true,
            Some(Phone::Text) => text,
            None => false,
        }
    }

    fn submit(&self, segment: &Segment) {
        let (id, dispatcher) = (segment.id, self.dispatcher.clone());
        let done = Box::new(move |fate| dispatcher.handset_reported(id, report(fate)));
        let Origin { client, reqid, msn, .. } = &*segment.origin;
        let name = (!client.starts_with(CLIENT)).then(|| format!("{client} {reqid}").into());
        let as_text = segment.origin.has(Origin::TEXT);
        self.gateway.deliver(Delivery { as_text, ..delivery(*msn, segment.part.clone(), name, done) });
    }
}

fn delivery(to: Msisdn, part: Part, name: Option<Box<str>>, done: Box<dyn FnOnce(Fate) + Send>) -> Delivery {
    Delivery {
        to,
        source: part.source,
        protocol_id: part.protocol_id,
        data_coding: part.data_coding,
        has_header: part.udhi,
        octets: part.short_message,
        as_text: true,
        name,
        done,
    }
}

fn report(fate: Fate) -> HandsetReport {
    match fate {
        Fate::Delivered => HandsetReport::Delivered,
        // With the same concatenation reference: a handset that has it already knows it again.
        Fate::NoReport | Fate::Unreachable { .. } => HandsetReport::Elsewhere,
        Fate::NoMemory => HandsetReport::Later(Pause::Absent),
        Fate::Busy => HandsetReport::Later(Pause::Busy),
        Fate::Refused { .. } => HandsetReport::Never(Verdict::UNDELIVERABLE),
    }
}

/// Takes what a centre has for our users. Without `keep` the centre keeps it until the handset has it; but the parts of a text that a phone is to
/// get whole are kept here, or the first would have to be answered before the centre gives the last.
pub struct Terminating {
    pub gateway: Arc<IpSmGw>,
    pub location: Arc<dyn Location>,
    pub keeper: Arc<Keeper>,
    /// Everything is kept here, and answered when it is on disk.
    pub keep: bool,
    /// Unix milliseconds.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub watch: Arc<dyn Watch>,
    /// Names them, with the link: a centre does not. Its last octet tells apart those that had to be divided here.
    pub count: AtomicU64,
}

impl Inbound for Terminating {
    fn message(&self, link: &Arc<str>, message: ShortMessage, reply: Reply) {
        let Some(to) = destination(&message.destination) else { return reply.status(CommandStatus::RINVDSTADR) };
        let source = source(&message.source);
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let read = Message::of(&message).and_then(|read| {
            let several = read.header.part().is_some();
            Ok((several, read.parts(&source, message.protocol_id, count as u8, MAX_PARTS as u8)?))
        });
        let (several, parts) = match read {
            Ok(read) => read,
            Err(unreadable) => return reply.status(unreadable.status()),
        };
        let phone = self.gateway.phone(&*self.location, to, (self.clock)() as u64 / 1_000);
        let whole = phone == Some(Phone::Text) && (several || parts.len() > 1);
        if whole || (self.keep && self.gateway.serves(to)) {
            return self.keeper.keep(link, to, Origin::HERE | Origin::TEXT, parts, reply);
        }
        let began = (self.clock)();
        let passage = Underway {
            watch: self.watch.clone(),
            clock: self.clock.clone(),
            name: format!("{link}-{began:x}-{count:x}").into(),
            from: source,
            to,
            began,
        };
        let waiting = Arc::new(Waiting {
            parts: AtomicUsize::new(parts.len()),
            worst: Mutex::new(CommandStatus::ROK),
            reply: Mutex::new(Some(reply)),
            passage,
        });
        for part in parts {
            let (waiting, name) = (waiting.clone(), Some(waiting.passage.name.clone()));
            self.gateway.deliver(delivery(to, part, name, Box::new(move |fate| waiting.ended(fate))));
        }
    }
}

/// A message of a centre, until the last of its parts has its fate.
struct Waiting {
    parts: AtomicUsize,
    worst: Mutex<CommandStatus>,
    reply: Mutex<Option<Reply>>,
    passage: Underway,
}

impl Waiting {
    fn ended(&self, fate: Fate) {
        self.passage.ended(fate);
        if fate != Fate::Delivered {
            *self.worst.lock() = status(fate);
        }
        if self.parts.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(reply) = self.reply.lock().take()
        {
            reply.status(*self.worst.lock());
        }
    }
}

fn status(fate: Fate) -> CommandStatus {
    match fate {
        Fate::Delivered => CommandStatus::ROK,
        Fate::Unreachable { status: 404 } => CommandStatus::RINVDSTADR,
        // Nothing that this phone can show.
        Fate::Unreachable { status: 415 } => CommandStatus::RX_R_APPN,
        // The centre tries again.
        Fate::NoReport | Fate::Unreachable { .. } | Fate::NoMemory | Fate::Busy => CommandStatus::RX_T_APPN,
        Fate::Refused { .. } => CommandStatus::RX_R_APPN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fate_leads_to_another_way_a_later_time_or_an_end() {
        assert_eq!(report(Fate::Delivered), HandsetReport::Delivered);
        for fate in [Fate::NoReport, Fate::Unreachable { status: 480 }] {
            assert_eq!(report(fate), HandsetReport::Elsewhere);
            assert_eq!(status(fate), CommandStatus::RX_T_APPN);
        }
        assert_eq!(report(Fate::NoMemory), HandsetReport::Later(Pause::Absent));
        assert_eq!(report(Fate::Busy), HandsetReport::Later(Pause::Busy));
        assert_eq!(report(Fate::Refused { cause: 111 }), HandsetReport::Never(Verdict::UNDELIVERABLE));
        assert_eq!(status(Fate::Refused { cause: 111 }), CommandStatus::RX_R_APPN);
        assert_eq!(status(Fate::Unreachable { status: 404 }), CommandStatus::RINVDSTADR);
        assert_eq!(status(Fate::Unreachable { status: 415 }), CommandStatus::RX_R_APPN);
    }
}
