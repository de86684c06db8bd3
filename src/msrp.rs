//! MSRP sessions, tied together: the doors, the switch behind them, the anchor that puts calls through it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use media_msrp::{Certificates, Counts, Switch, TlsError};
use sip_ims::service::Chronicle;
use sip_messaging::{Anchor, AnchorConfig};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::config::{self, Config, Door};
use crate::secrets::Pem;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Family;

/// Why MSRP did not start.
#[derive(Debug, thiserror::Error)]
pub enum MsrpError {
    /// The operator's: the address is taken, or not this machine's.
    #[error("cannot listen on {key} {address}: {source}")]
    Listen { key: &'static str, address: SocketAddr, source: io::Error },
    #[error("msrp: {0}")]
    Tls(#[from] TlsError),
}

/// The running switch and its anchor.
pub struct Msrp {
    pub switch: Arc<Switch>,
    pub anchor: Arc<Anchor>,
    /// Where the doors are, as peers reach them.
    pub told: AnchorConfig,
    doors: Vec<JoinHandle<()>>,
}

impl Msrp {
    /// Opens the doors. `None` when both are shut, or anchoring is off.
    pub fn open(
        config: &Config,
        pems: &[Pem],
        authorities: &[u8],
        chronicle: Arc<dyn Chronicle>,
        metrics: &Metrics,
        runtime: &Handle,
    ) -> Result<Option<Msrp>, MsrpError> {
        let msrp = &config.msrp;
        if !msrp.anchor {
            return Ok(None);
        }
        let plain = bind("msrp.tcp", msrp.tcp, config::Msrp::PLAIN, runtime)?;
        let secure = bind("msrp.tls", msrp.tls, config::Msrp::SECURE, runtime)?;
        if plain.is_none() && secure.is_none() {
            return Ok(None);
        }
        let local = |door: &Option<TcpListener>| door.as_ref().and_then(|l| l.local_addr().ok());
        let all = [local(&plain), local(&secure)];
        let switch = Switch::new(
            media_msrp::Config {
                sessions: msrp.max_sessions,
                max_message: msrp.max_message.0,
                spool: config.data_dir.join("spool"),
                max_spool: msrp.max_spool.0,
                loopback: all.iter().flatten().all(|a| a.ip().is_loopback()),
            },
            runtime.clone(),
        );
        certify(&switch, pems, authorities)?;
        let public = |door: Option<SocketAddr>| {
            let named = |at: SocketAddr| msrp.address.or(at.ip().is_unspecified().then_some(config.media.address));
            door.map(|at| SocketAddr::new(named(at).unwrap_or(at.ip()), at.port()))
        };
        let told = AnchorConfig { plain: public(all[0]), secure: public(all[1]) };
        let anchor = Anchor::new(told, switch.clone(), chronicle);
        let doors = [(plain, false), (secure, true)];
        let doors = doors.into_iter().filter_map(|(door, secure)| Some((door?, secure)));
        let doors = doors.map(|(door, secure)| runtime.spawn(switch.clone().listen(door, secure))).collect();
        runtime.spawn(keep_time(anchor.clone()));
        to_metrics(metrics, &switch, &anchor);
        Ok(Some(Msrp { switch, anchor, told, doors }))
    }

    /// Takes another certificate for connections and descriptions to come.
    pub fn certify(&self, pems: &[Pem], authorities: &[u8]) -> Result<(), MsrpError> {
        certify(&self.switch, pems, authorities)
    }

    /// Closes the doors and every connection.
    pub fn shutdown(&self) {
        self.doors.iter().for_each(JoinHandle::abort);
        self.switch.shutdown();
    }
}

fn certify(switch: &Switch, pems: &[Pem], authorities: &[u8]) -> Result<(), MsrpError> {
    match pems.first() {
        Some(pem) => Ok(switch.certify(Certificates { chain: &pem.chain, key: &pem.key, authorities })?),
        None => Ok(()),
    }
}

/// A door must open, but for the usual one: that may be another server's on this machine.
fn bind(key: &'static str, door: Door, usual: Door, runtime: &Handle) -> Result<Option<TcpListener>, MsrpError> {
    let Some(address) = door.0 else { return Ok(None) };
    let _entered = runtime.enter();
    let opened = std::net::TcpListener::bind(address).and_then(|l| {
        l.set_nonblocking(true)?;
        TcpListener::from_std(l)
    });
    match opened {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if door == usual && error.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!(%address, "the usual {key} is taken: no messaging sessions by this door");
            Ok(None)
        }
        Err(source) => Err(MsrpError::Listen { key, address, source }),
    }
}

async fn keep_time(anchor: Arc<Anchor>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        second.tick().await;
        anchor.sweep(Instant::now());
    }
}

fn to_metrics(metrics: &Metrics, switch: &Arc<Switch>, anchor: &Arc<Anchor>) {
    let (s, a) = (switch.clone(), anchor.clone());
    let family = Family::gauge("isthmus_msrp_open", "Anchored MSRP sessions, their connections and their calls, now.");
    metrics.source(family, move |out| {
        out.push(&[("what", "sessions")], s.open_sessions() as f64);
        out.push(&[("what", "connections")], s.open_connections() as f64);
        out.push(&[("what", "calls")], a.calls() as f64);
    });
    let s = switch.clone();
    metrics.source(Family::counter("isthmus_msrp_total", "What the MSRP switch did, by kind."), move |out| {
        type Of = fn(&Counts) -> &AtomicU64;
        let kinds: [(&str, Of); 14] = [
            ("connections", |c| &c.connections),
            ("connections_refused", |c| &c.connections_refused),
            ("connections_cut", |c| &c.connections_cut),
            ("sessions", |c| &c.sessions),
            ("unreachable", |c| &c.unreachable),
            ("chunks", |c| &c.chunks),
            ("messages", |c| &c.messages),
            ("bytes", |c| &c.bytes),
            ("reports", |c| &c.reports),
            ("refused", |c| &c.refused),
            ("failed", |c| &c.failed),
            ("withheld", |c| &c.withheld),
            ("received", |c| &c.received),
            ("sent", |c| &c.sent),
        ];
        for (kind, of) in kinds {
            out.push(&[("kind", kind)], of(s.counts()).load(Relaxed) as f64);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_door_may_be_taken_already() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let door = Door(Some(taken.local_addr().unwrap()));
        let other = config::Msrp::PLAIN;
        assert!(bind("msrp.tcp", door, door, runtime.handle()).unwrap().is_none());
        assert!(matches!(bind("msrp.tcp", door, other, runtime.handle()), Err(MsrpError::Listen { .. })));
        assert!(bind("msrp.tcp", Door(None), other, runtime.handle()).unwrap().is_none());
    }
}
