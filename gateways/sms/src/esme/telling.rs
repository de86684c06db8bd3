//! Telling ESMEs how their messages ended: receipts by deliver_sm, and outbind for one that has to be called first.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gw_smpp::pdu::{COctets, Octets, Outbind, ShortMessage, Tag, Tlvs};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::names::Wish;
use super::{CLIENT, Receivers, state};
use crate::billing::Calendar;
use crate::notice::{Teller, Told};
use crate::queue::{Notice, State};
use crate::receipt;
use crate::smpp::number;

/// Receipts on their way to ESMEs.
#[derive(Default)]
pub struct Receipts {
    open: Mutex<HashMap<u64, oneshot::Sender<bool>>>,
}

impl Receipts {
    pub(super) fn settle(&self, ticket: u64, taken: bool) {
        if let Some(waiting) = self.open.lock().remove(&ticket) {
            // Whoever waited may have given up.
            let _ = waiting.send(taken);
        }
    }
}

/// Where an ESME listens that binds when it is asked to.
#[derive(Clone, Debug)]
pub struct Callee {
    pub address: SocketAddr,
    pub outbind: Outbind,
}

/// Tells ESMEs, by deliver_sm.
pub struct EsmeTeller {
    pub receivers: Arc<Receivers>,
    pub receipts: Arc<Receipts>,
    pub calendar: Calendar,
    pub bell: Arc<Bell>,
}

/// Calls ESMEs that bind when they are asked to (outbind).
pub struct Bell {
    pub receivers: Arc<Receivers>,
    /// By system_id.
    pub callees: HashMap<COctets<16>, Callee>,
    /// Where calls are made.
    pub runtime: Handle,
    /// When each was called last.
    pub called: Mutex<HashMap<COctets<16>, Instant>>,
}

impl Teller for EsmeTeller {
    fn tell(&self, notice: &Notice) -> Pin<Box<dyn Future<Output = Told> + Send>> {
        let system_id = notice.client.strip_prefix(CLIENT).and_then(|id| COctets::new(id.as_bytes()).ok());
        let delivered = notice.delivered == notice.parts;
        let Some(system_id) = system_id.filter(|_| Wish::of(&notice.reqid).includes(delivered)) else {
            return Box::pin(std::future::ready(Told::Gone));
        };
        let (settled, outcome) = oneshot::channel();
        let ticket = notice.id.0 as u64;
        self.receipts.open.lock().insert(ticket, settled);
        if !self.receivers.deliver(&system_id, ticket, self.receipt(notice)) {
            self.receipts.open.lock().remove(&ticket);
            self.bell.ring(&system_id);
            return Box::pin(std::future::ready(Told::Absent));
        }
        Box::pin(async move { if outcome.await == Ok(true) { Told::Yes } else { Told::Absent } })
    }
}

impl Bell {
    /// Asks an ESME to bind that has no receiver with us, if it listens somewhere.
    pub(super) fn ring(&self, system_id: &COctets<16>) {
        let (Some(door), Some(callee)) = (self.receivers.door(), self.callees.get(system_id)) else { return };
        if self.receivers.receives(system_id, b"") {
            return;
        }
        let now = Instant::now();
        let mut called = self.called.lock();
        if called.get(system_id).is_none_or(|last| now.saturating_duration_since(*last) >= CALL_AGAIN) {
            called.insert(*system_id, now);
            drop(called);
            let _entered = self.runtime.enter();
            door.outbind(callee.address, callee.outbind.clone());
        }
    }
}

impl EsmeTeller {
    fn receipt(&self, notice: &Notice) -> ShortMessage {
        let ended = if notice.delivered == notice.parts { State::Delivered } else { State::Failed };
        let state = state(ended, notice.verdict);
        let error = if state == receipt::State::Delivered { 0 } else { notice.verdict.0 % 1_000 };
        let at = |ms: i64| {
            let text: String = self.calendar.timestamp(ms).chars().filter(char::is_ascii_digit).collect();
            // YYYYMMDDhhmm… without the century.
            text.get(2..12).unwrap_or_default().to_owned()
        };
        let text = receipt::write(&notice.reqid, state, &at(notice.accepted_at), &at(notice.done_at), error, "");
        ShortMessage {
            source: number(notice.msn),
            esm_class: 0x04,
            short_message: Octets::copied(text.as_bytes()),
            tlvs: Tlvs::build()
                .text(Tag::RECEIPTED_MESSAGE_ID, notice.reqid.as_bytes())
                .u8(Tag::MESSAGE_STATE, state.octet())
                .done(),
            ..ShortMessage::default()
        }
    }
}

/// One call at a time: it has so long to bind.
const CALL_AGAIN: Duration = Duration::from_secs(8);
