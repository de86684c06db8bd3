//! Content control, tied together: one scanner, and the operator's rules for files, messages and sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use media_content::clamd::Clamd;
use media_content::depot::Depot;
use media_content::icap::{Address, Icap};
use media_content::{Control, Engine, Scanner};
use sip_ims::{Directory, Home};
use sip_messaging::{Again, ContentControl, ControlParts, Pager, Policy, Whose, Withheld};
use sip_net::driver::Driver;
use tokio::runtime::Handle;

use crate::app::{self, AppError};
use crate::config::{self, Config, WhenUnscanned};
use crate::http;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Family;
use crate::telemetry::redact::Redacted;

/// What the doors for files, messages and sessions have in common.
pub struct Shared {
    pub scanner: Option<Arc<Scanner>>,
    pub depot: Option<Arc<Depot>>,
}

/// `secret`: that of all nodes.
pub fn shared(config: &Config, secret: &[u8; 32]) -> Result<Shared, AppError> {
    let config::Content { clamd, icap, .. } = &config.content;
    let clamd = (!clamd.is_empty()).then(|| Engine::Clamd(Clamd::new(clamd)));
    // An address that is none was found by the check.
    let icap = Address::parse(icap).ok();
    let icap = icap.map(|at| Ok::<_, AppError>(Engine::Icap(Icap::new(at, app::tls_client(config)?)))).transpose()?;
    let engines: Vec<Engine> = clamd.into_iter().chain(icap).collect();
    let scanner = (!engines.is_empty()).then(|| Arc::new(Scanner::new(engines)));
    let depot = http::content::depot(config, secret, scanner.clone())?;
    Ok(Shared { scanner, depot })
}

/// Control of messages and sessions. `around`: whose users, and how they are told.
pub fn open(
    config: &Config,
    around: (Arc<Home>, Arc<Directory>, Arc<Pager>),
    scanner: &Option<Arc<Scanner>>,
    metrics: &Metrics,
    runtime: &Handle,
) -> Arc<ContentControl> {
    let (home, directory, pager) = around;
    let content = &config.content;
    let policy = |of: &config::Control| {
        let types = of.refused_types.as_ref().unwrap_or(&content.refused_types);
        let fail_open = of.unscanned.unwrap_or(content.unscanned) == WhenUnscanned::Pass;
        let max_size = if of.max_size.0 == 0 { u64::MAX } else { of.max_size.0 };
        Policy {
            whose: match of.judge {
                config::Whose::None => Whose::Nobodys,
                config::Whose::Outsiders => Whose::Outsiders,
                config::Whose::All => Whose::Everybodys,
            },
            control: Control::new(types, max_size, scanner.clone(), fail_open),
            tell: of.tell_addressee,
        }
    };
    let counts = SERVICES.map(|_| Arc::<AtomicU64>::default());
    let counted = counts.clone();
    let family = Family::counter("isthmus_content_withheld_total", "What did not pass content control, by service.");
    metrics.source(family, move |s| {
        for (service, n) in SERVICES.iter().zip(&counted) {
            s.push(&[("service", service)], n.load(Relaxed) as f64);
        }
    });
    ContentControl::new(ControlParts {
        messages: policy(&content.messages),
        sessions: policy(&content.sessions),
        home,
        directory,
        pager,
        audit: Box::new(move |withheld| {
            for (_, n) in SERVICES.iter().zip(&counts).filter(|(service, _)| **service == withheld.service) {
                n.fetch_add(1, Relaxed);
            }
            audit(withheld);
        }),
        runtime: runtime.clone(),
    })
}

const SERVICES: [&str; 3] = ["message", "session", "file"];

fn audit(withheld: &Withheld<'_>) {
    let Withheld { service, sender, addressee, why } = *withheld;
    let (user, addressee) = (Redacted(sender), Redacted(addressee));
    tracing::warn!(target: "audit", service, %user, %addressee, %why, "content was withheld");
}

/// Hands in again what had to wait.
pub fn again(driver: &Arc<Driver>) -> Again {
    let driver = Arc::downgrade(driver);
    Arc::new(move |flow, bytes| {
        if let Some(driver) = driver.upgrade() {
            driver.again(flow, bytes);
        }
    })
}
