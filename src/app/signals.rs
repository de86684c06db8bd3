//! What the operator says to a running server: stop (SIGTERM, SIGINT), and read the configuration again (SIGHUP).

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::settings::tls_config;
use super::{AppError, authorities};
use crate::config::{Config, ConfigError};
use crate::http::tls::Certificates;
use crate::msrp::Msrp;
use crate::secrets;
use crate::sip::Sip;
use crate::telemetry::log::LogControl;
use crate::telemetry::trace::Trace;

/// What SIGHUP changes.
pub(super) struct Live<'a> {
    pub logs: LogControl,
    pub trace: &'a Trace,
    pub sip: &'a Sip,
    pub certificates: Certificates,
    pub msrp: Option<&'a Msrp>,
}

/// What the operator says by signals, from the moment this is made.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// In the runtime's context. From here on SIGTERM, SIGINT and SIGHUP no longer end the process by themselves.
    pub fn heard() -> io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }
}

pub(super) async fn until_stopped(
    Signals { mut term, mut int, mut hup }: Signals,
    mut config: Config,
    reload: impl Fn() -> Result<Config, ConfigError>,
    live: &Live<'_>,
) {
    let next = async |s: &mut Signal| s.recv().await;
    loop {
        tokio::select! {
            _ = next(&mut term) => return,
            _ = next(&mut int) => return,
            _ = next(&mut hup) => match reload() {
                Ok(new) => match live.take(&config, &new) {
                    Ok(()) => { tracing::info!("reloaded"); config = new; }
                    Err(error) => tracing::error!(%error, "not reloaded; the old settings stay"),
                },
                Err(error) => tracing::error!(%error, "not reloaded; the old settings stay"),
            },
        }
    }
}

impl Live<'_> {
    /// Log level, trace level and certificates change at once; everything else is said to need a restart.
    fn take(&self, old: &Config, new: &Config) -> Result<(), AppError> {
        let pems = secrets::certificates(new)?;
        // Built first, so that a bad one changes nothing.
        Certificates::new(&pems, new.http.client_certificates)?;
        self.sip.carriers.reload_certificates(&tls_config(new, &pems)?)?;
        self.certificates.replace(&pems)?;
        if let Some(msrp) = self.msrp {
            msrp.certify(&pems, &authorities(new)?)?;
        }
        self.logs.set_level(&new.log.level)?;
        self.trace.set_level(new.telemetry.trace.level);
        let rest = |c: &Config| {
            let mut c = c.clone();
            c.log.level.clear();
            c.telemetry.trace.level = crate::config::TraceLevel::Off;
            c.tls = crate::config::Tls::default();
            format!("{c:?}")
        };
        if rest(old) != rest(new) {
            tracing::warn!("some changed settings take effect at the next start only");
        }
        Ok(())
    }
}
