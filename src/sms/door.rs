//! The door for legacy ESMEs.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use gw_smpp::pdu::{COctets, Outbind};
use gw_smpp::{Account, Accounts, Door, DoorConfig};
use gw_sms::billing::Calendar;
use gw_sms::esme::{Applications, Bell, Callee, EsmeSide, EsmeTeller, Numbers, Receipts};
use gw_sms::notice::Teller;
use gw_sms::smpp::SmppCentre;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{SmsError, clock};
use crate::config::Config;
use crate::http::tls::Certificates;
use crate::store::sms::SmsQueue;

/// Those that have numbers; their door opens later.
pub(super) fn applications(config: &Config, numbers: Arc<Numbers>, runtime: &Handle) -> Arc<Applications> {
    let door = Arc::new(OnceLock::new());
    let mut callees = HashMap::new();
    for esme in &config.smpp.esme {
        if let Some(address) = esme.outbind {
            // Lengths are checked with the rest of the configuration.
            let name = COctets::new(esme.system_id.as_bytes()).unwrap_or_default();
            let password = COctets::new(esme.outbind_password.as_bytes()).unwrap_or_default();
            let outbind = Outbind { system_id: DoorConfig::default().system_id, password };
            callees.insert(name, Callee { address, outbind });
        }
    }
    let bell = Bell { door: door.clone(), callees, runtime: runtime.clone(), called: Mutex::default() };
    let windows = config.smpp.esme.iter().map(|esme| usize::from(esme.deliver_window));
    Arc::new(Applications::new(numbers, door, Arc::new(bell), windows))
}

/// Opens it where ESMEs are configured; gives who tells them how their messages ended.
pub(super) fn open(
    config: &Config,
    queue: &Arc<SmsQueue>,
    centre: Arc<SmppCentre>,
    applications: &Arc<Applications>,
    calendar: &Calendar,
    certificates: &Certificates,
    runtime: &Handle,
) -> Result<Option<Arc<dyn Teller>>, SmsError> {
    if config.smpp.esme.is_empty() {
        return Ok(None);
    }
    let mut accounts = Accounts::default();
    for esme in &config.smpp.esme {
        // Lengths are checked with the rest of the configuration.
        let name = COctets::new(esme.system_id.as_bytes()).unwrap_or_default();
        let password = COctets::new(esme.password.as_bytes()).unwrap_or_default();
        let account = Account {
            sources: esme.sources.clone(),
            rate: esme.rate,
            window: usize::from(esme.window),
            deliver_window: usize::from(esme.deliver_window),
            sessions: usize::from(esme.sessions),
            ..Account::new(name)
        };
        accounts.add(password, esme.allow_from.clone(), account);
    }
    let receipts = Arc::new(Receipts::default());
    let side = EsmeSide {
        accounts,
        queue: queue.clone(),
        centre,
        validity: i64::from(config.sms.validity) * 60_000,
        clock: clock(),
        random: Arc::new(rand::random),
        receipts: receipts.clone(),
        applications: applications.clone(),
    };
    let _entered = runtime.enter();
    let limits = config.smpp.timers.limits(DoorConfig::default().limits);
    let tls = Some(certificates.without_protocol());
    let door = Door::new(DoorConfig { limits, tls, ..DoorConfig::default() }, Arc::new(side));
    for (key, at, encrypted) in [("smpp.listen", config.smpp.listen, false), ("smpp.tls", config.smpp.tls, true)] {
        let Some(at) = at.0 else { continue };
        let listener = runtime.block_on(tokio::net::TcpListener::bind(at));
        door.listen(listener.map_err(|e| SmsError::Listen(key, at, e))?, encrypted);
    }
    // Just made, so it is empty.
    let cell = applications.door.clone();
    let _ = cell.set(door);
    let bell = applications.bell.clone();
    Ok(Some(Arc::new(EsmeTeller { door: cell, receipts, calendar: calendar.clone(), bell })))
}
