//! Who is bound.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Account, AddressRange, Esme};
use crate::outcome::{Refused, Submission, Ticket, Unaccepted};
use crate::pace::Pace;
use crate::pdu::{COctets, CommandStatus, Request};
use crate::pump;

/// Why a delivery was not taken; it has no outcome.
pub type Undeliverable = Unaccepted;

/// The sessions by system_id. One lock: taken when somebody comes or goes and once for each delivery.
#[derive(Default)]
pub(crate) struct Directory {
    systems: Mutex<HashMap<COctets<16>, System>>,
    last_session: AtomicU64,
}

/// Everything under one system_id.
struct System {
    sessions: Vec<Taken>,
    turn: usize,
    /// Shared by its sessions.
    rate: Arc<Rate>,
}

struct Taken {
    esme: Arc<Esme>,
    range: AddressRange,
    deliveries: mpsc::Sender<Submission>,
}

/// The rate of an account, over all its sessions.
pub(crate) struct Rate(Mutex<Pace>);

impl Rate {
    /// So many at once; those of one request go together, and what comes after them waits the longer.
    pub(crate) fn admits(&self, messages: usize, now: Instant) -> bool {
        let mut pace = self.0.lock();
        let admitted = messages == 0 || pace.allowance(now).is_ok();
        if admitted {
            (0..messages).for_each(|_| pace.sent(now));
        }
        admitted
    }
}

impl Taken {
    fn receives(&self, address: &[u8]) -> bool {
        self.esme.kind.receives() && self.range.serves(address)
    }
}

impl Directory {
    pub(crate) fn next_session(&self) -> u64 {
        self.last_session.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Enters a session, unless its account has as many as it may.
    pub(crate) fn enter(
        &self,
        account: &Account,
        esme: Arc<Esme>,
        range: AddressRange,
        deliveries: mpsc::Sender<Submission>,
    ) -> Result<Arc<Rate>, CommandStatus> {
        let mut systems = self.systems.lock();
        let system = systems.entry(account.system_id).or_insert_with(|| System {
            sessions: Vec::new(),
            turn: 0,
            rate: Arc::new(Rate(Mutex::new(Pace::new(account.rate, 1)))),
        });
        if system.sessions.len() >= account.sessions {
            if system.sessions.is_empty() {
                systems.remove(&account.system_id);
            }
            // SMPP has no status for this; RALYBND is what centres answer.
            return Err(CommandStatus::RALYBND);
        }
        system.sessions.push(Taken { esme, range, deliveries });
        Ok(system.rate.clone())
    }

    pub(crate) fn leave(&self, esme: &Esme) {
        let mut systems = self.systems.lock();
        if let Some(system) = systems.get_mut(&esme.system_id) {
            system.sessions.retain(|t| t.esme.session != esme.session);
            if system.sessions.is_empty() {
                systems.remove(&esme.system_id);
            }
        }
    }

    pub(crate) fn deliver(
        &self,
        system_id: &COctets<16>,
        ticket: Ticket,
        request: Request,
    ) -> Result<(), Undeliverable> {
        let address = match &request {
            Request::DeliverSm(message) => message.destination.digits,
            _ => COctets::EMPTY,
        };
        let mut submission = Submission { ticket, request };
        let mut why = Refused::Down;
        let mut systems = self.systems.lock();
        if let Some(system) = systems.get_mut(system_id) {
            for _ in 0..system.sessions.len() {
                system.turn = (system.turn + 1) % system.sessions.len();
                let taken = &system.sessions[system.turn];
                if !taken.receives(address.as_bytes()) {
                    continue;
                }
                match pump::offer(&taken.deliveries, submission) {
                    Ok(()) => return Ok(()),
                    Err((Refused::Down, back)) => submission = *back,
                    Err((full, back)) => {
                        why = full;
                        submission = *back;
                    }
                }
            }
        }
        Err(Unaccepted { why, request: Box::new(submission.request) })
    }

    pub(crate) fn receives(&self, system_id: &COctets<16>, address: &[u8]) -> bool {
        let systems = self.systems.lock();
        systems.get(system_id).is_some_and(|s| s.sessions.iter().any(|t| t.receives(address)))
    }

    pub(crate) fn list(&self) -> Vec<Arc<Esme>> {
        self.systems.lock().values().flat_map(|s| s.sessions.iter().map(|t| t.esme.clone())).collect()
    }
}
