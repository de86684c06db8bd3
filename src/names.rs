//! Where a URI leads: the proxy's question put to the resolver, and the answer brought back to the shard that asked.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use sip_call::Names;
use sip_ims::service::NextHops;
use sip_net::driver::Driver;
use sip_net::{Question, Resolver};
use sip_proto::uri::{Scheme, Uri};
use sip_proto::{Hop, Transport};
use tokio::runtime::Handle;

/// The resolver of RFC 3263 as the proxy sees it. Made before the driver that it answers to, see [`Located::tie`].
#[derive(Default)]
pub struct Located(OnceLock<Parties>);

struct Parties {
    /// Weak: the driver holds us.
    driver: Weak<Driver>,
    resolver: Arc<Resolver>,
    runtime: Handle,
}

impl Located {
    /// Once, before the first message.
    pub fn tie(&self, driver: &Arc<Driver>, resolver: Resolver, runtime: Handle) {
        let parties = Parties { driver: Arc::downgrade(driver), resolver: Arc::new(resolver), runtime };
        // The first stays: there is only one driver.
        let _ = self.0.set(parties);
    }
}

impl Names for Located {
    fn resolve(&self, shard: u16, token: u64, uri: &[u8]) -> Option<Vec<Hop>> {
        let (Some(parties), Some(question)) = (self.0.get(), question(uri)) else { return Some(Vec::new()) };
        if let Some(answer) = parties.resolver.cached(Instant::now(), &question) {
            return Some(answer.map(|hops| hops.to_vec()).unwrap_or_default());
        }
        let driver = parties.driver.clone();
        parties.resolver.resolve_then(&parties.runtime, question, move |answer| {
            if let Some(driver) = driver.upgrade() {
                driver.resolved(shard, token, answer.map(|hops| hops.to_vec()).unwrap_or_default());
            }
        });
        None
    }
}

impl NextHops for Located {
    fn next_hops(&self, uri: &[u8], done: Box<dyn FnOnce(Vec<Hop>) + Send>) {
        let (Some(parties), Some(question)) = (self.0.get(), question(uri)) else { return done(Vec::new()) };
        parties.resolver.resolve_then(&parties.runtime, question, |answer| {
            done(answer.map(|hops| hops.to_vec()).unwrap_or_default())
        });
    }
}

/// RFC 3263 §4: the target is `maddr` if there is one, else the host. `None` for what is no SIP URI, or names a transport that
/// does not exist.
fn question(uri: &[u8]) -> Option<Question> {
    let uri = Uri::parse(uri).filter(Uri::is_sip)?;
    let host = uri.params().get("maddr").filter(|m| !m.is_empty()).unwrap_or(uri.host());
    let transport = match uri.transport() {
        Some(token) => Some(Transport::from_token(token)?),
        None => None,
    };
    Some(Question {
        host: String::from_utf8(host.to_vec()).ok()?,
        port: uri.port(),
        transport,
        secure: uri.scheme() == Scheme::Sips,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_takes_maddr_port_transport_and_scheme() {
        let asked = question(b"sips:a@x.test:5099;transport=TCP;maddr=192.0.2.1").unwrap();
        let expected =
            Question { host: "192.0.2.1".to_owned(), port: Some(5099), transport: Some(Transport::Tcp), secure: true };
        assert_eq!(asked, expected);
        assert_eq!(question(b"sip:x.test").unwrap().host, "x.test");
    }

    #[test]
    fn what_leads_nowhere_is_no_question() {
        assert_eq!(question(b"tel:+81312345678"), None);
        assert_eq!(question(b"sip:x.test;transport=pigeon"), None);
    }
}
