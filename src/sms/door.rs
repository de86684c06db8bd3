//! The door for legacy ESMEs, and what nodes tell each other of these.

use std::collections::HashMap;
use std::sync::Arc;

use gw_smpp::pdu::{COctets, Outbind};
use gw_smpp::{Account, Accounts, Door, DoorConfig};
use gw_sms::billing::Calendar;
use gw_sms::esme::elsewhere::{Nodes, REPEAT, Word};
use gw_sms::esme::{Applications, Bell, Callee, EsmeSide, EsmeTeller, Numbers, Receipts, Receivers};
use gw_sms::notice::Teller;
use gw_sms::smpp::SmppCentre;
use parking_lot::Mutex;
use sip_ims::ports::{Bus, Subscription};
use tokio::runtime::Handle;

use super::{SmsError, clock};
use crate::config::Config;
use crate::http::tls::Certificates;
use crate::store::sms::SmsQueue;

/// Those that have numbers; their door opens later. `bus`: that of a cluster.
pub(super) fn applications(
    config: &Config,
    numbers: Arc<Numbers>,
    bus: Option<&Arc<dyn Bus>>,
    runtime: &Handle,
) -> Arc<Applications> {
    let node = config.node_name();
    let nodes = bus.map(|bus| (&*node, Arc::new(Others { bus: bus.clone() }) as Arc<dyn Nodes>));
    let receivers = Arc::new(Receivers::new(nodes));
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
    let bell = Bell { receivers: receivers.clone(), callees, runtime: runtime.clone(), called: Mutex::default() };
    let windows = config.smpp.esme.iter().map(|esme| usize::from(esme.deliver_window));
    Arc::new(Applications::new(numbers, receivers, Arc::new(bell), windows))
}

/// What an open door leaves behind.
#[derive(Default)]
pub(super) struct Opened {
    /// Tells ESMEs how their messages ended.
    pub teller: Option<Arc<dyn Teller>>,
    /// While it is there, other nodes are heard.
    pub heard: Option<Subscription>,
}

/// Opens it where ESMEs are configured.
pub(super) fn open(
    config: &Config,
    (queue, bus): (&Arc<SmsQueue>, Option<&Arc<dyn Bus>>),
    centre: Arc<SmppCentre>,
    applications: &Arc<Applications>,
    calendar: &Calendar,
    certificates: &Certificates,
    runtime: &Handle,
) -> Result<Opened, SmsError> {
    if config.smpp.esme.is_empty() {
        return Ok(Opened::default());
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
    let side = Arc::new(EsmeSide {
        accounts,
        queue: queue.clone(),
        centre,
        validity: i64::from(config.sms.validity) * 60_000,
        clock: clock(),
        random: Arc::new(rand::random),
        receipts: receipts.clone(),
        applications: applications.clone(),
    });
    let _entered = runtime.enter();
    let limits = config.smpp.timers.limits(DoorConfig::default().limits);
    let tls = Some(certificates.without_protocol());
    let door = Door::new(DoorConfig { limits, tls, ..DoorConfig::default() }, side.clone());
    for (key, at, encrypted) in [("smpp.listen", config.smpp.listen, false), ("smpp.tls", config.smpp.tls, true)] {
        let Some(at) = at.0 else { continue };
        let listener = runtime.block_on(tokio::net::TcpListener::bind(at));
        door.listen(listener.map_err(|e| SmsError::Listen(key, at, e))?, encrypted);
    }
    let (receivers, bell) = (applications.receivers.clone(), applications.bell.clone());
    receivers.open(door);
    let heard = match bus {
        Some(bus) => {
            let listener = side.clone();
            runtime.spawn(repeat(side));
            Some(bus.subscribe(ESMES, Box::new(move |_, word| listener.heard(word))).map_err(SmsError::Bus)?)
        }
        None => None,
    };
    let teller = EsmeTeller { receivers, receipts, calendar: calendar.clone(), bell };
    Ok(Opened { teller: Some(Arc::new(teller)), heard })
}

/// Until the runtime ends.
async fn repeat(side: Arc<EsmeSide>) {
    let mut again = tokio::time::interval(REPEAT);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        side.repeat();
    }
}

struct Others {
    bus: Arc<dyn Bus>,
}

impl Nodes for Others {
    fn say(&self, word: &Word) {
        if let Err(error) = self.bus.publish(ESMES, &word.to_bytes()) {
            tracing::debug!(%error, "other nodes are not told of an ESME");
        }
    }
}

const ESMES: &str = "sms.esmes";
