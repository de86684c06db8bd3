//! Who delivers through the gateway: the dispatcher with what is queued, and the SMPP links with what a centre has for our users.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gw_smpp::Reply;
use gw_smpp::pdu::{CommandStatus, ShortMessage};
use sip_ims::Msisdn;
use sip_ims::service::Location;

use super::watch::{Underway, Watch};
use super::{Delivery, Fate, IpSmGw};
use crate::dispatch::{Dispatcher, HandsetReport, Handsets, Pause};
use crate::esme::{destination, source};
use crate::queue::{Segment, Verdict};
use crate::smpp::Inbound;

/// Our users' handsets, as the dispatcher sees them: over IMS first, else by the centre.
pub struct Registered {
    pub gateway: Arc<IpSmGw>,
    pub location: Arc<dyn Location>,
    pub dispatcher: Arc<Dispatcher>,
    /// Unix seconds.
    pub unix: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Handsets for Registered {
    fn reachable(&self, msn: Msisdn) -> bool {
        self.gateway.reachable(&*self.location, msn, (self.unix)())
    }

    fn submit(&self, segment: &Segment) {
        let (id, part, dispatcher) = (segment.id, &segment.part, self.dispatcher.clone());
        self.gateway.deliver(Delivery {
            to: segment.origin.msn,
            source: part.source.clone(),
            protocol_id: part.protocol_id,
            data_coding: part.data_coding,
            has_header: part.udhi,
            octets: part.short_message.clone(),
            done: Box::new(move |fate| dispatcher.handset_reported(id, report(fate))),
        });
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

/// Takes what a centre has for our users; the centre keeps it until the handset has it.
pub struct Terminating {
    pub gateway: Arc<IpSmGw>,
    /// Unix milliseconds.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub watch: Arc<dyn Watch>,
    /// Names them, with the link: a centre does not.
    pub count: AtomicU64,
}

impl Inbound for Terminating {
    fn message(&self, link: &Arc<str>, message: ShortMessage, reply: Reply) {
        let Some(to) = destination(&message.destination) else { return reply.status(CommandStatus::RINVDSTADR) };
        let began = (self.clock)();
        let passage = Underway {
            watch: self.watch.clone(),
            clock: self.clock.clone(),
            name: format!("{link}-{began:x}-{:x}", self.count.fetch_add(1, Relaxed)).into(),
            from: source(&message.source),
            to,
            began,
        };
        self.gateway.deliver(Delivery {
            to,
            source: source(&message.source),
            protocol_id: message.protocol_id,
            data_coding: message.data_coding,
            has_header: message.esm_class & 0x40 != 0,
            octets: message.text().into(),
            done: Box::new(move |fate| {
                passage.ended(fate);
                reply.status(status(fate));
            }),
        });
    }
}

fn status(fate: Fate) -> CommandStatus {
    match fate {
        Fate::Delivered => CommandStatus::ROK,
        Fate::Unreachable { status: 404 } => CommandStatus::RINVDSTADR,
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
    }
}
