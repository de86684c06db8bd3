//! The door for legacy ESMEs.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use gw_smpp::pdu::{COctets, Outbind};
use gw_smpp::{Account, Accounts, Door, DoorConfig};
use gw_sms::billing::Calendar;
use gw_sms::esme::{Callee, EsmeSide, EsmeTeller, Receipts};
use gw_sms::notice::Teller;
use gw_sms::smpp::SmppCentre;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{SmsError, clock};
use crate::config::Config;
use crate::http::tls::Certificates;
use crate::store::sms::SmsQueue;

/// The door, once it is open; and who tells ESMEs how their messages ended.
type Opened = (Arc<OnceLock<Door>>, Option<Arc<dyn Teller>>);

pub(super) fn open(
    config: &Config,
    queue: &Arc<SmsQueue>,
    centre: Arc<SmppCentre>,
    calendar: &Calendar,
    certificates: &Certificates,
    runtime: &Handle,
) -> Result<Opened, SmsError> {
    let cell = Arc::new(OnceLock::new());
    if config.smpp.esme.is_empty() {
        return Ok((cell, None));
    }
    // Lengths are checked with the rest of the configuration.
    let mut accounts = Accounts::default();
    let mut callees = HashMap::new();
    for esme in &config.smpp.esme {
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
        if let Some(address) = esme.outbind {
            let password = COctets::new(esme.outbind_password.as_bytes()).unwrap_or_default();
            let outbind = Outbind { system_id: DoorConfig::default().system_id, password };
            callees.insert(name, Callee { address, outbind });
        }
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
    let _ = cell.set(door);
    let calendar = calendar.clone();
    let teller = EsmeTeller { door: cell.clone(), receipts, calendar, callees, called: Mutex::default() };
    Ok((cell, Some(Arc::new(teller))))
}
