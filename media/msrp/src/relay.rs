//! The role of a relay (RFC 4976) for clients that cannot be connected to, browsers above all (RFC 7977): AUTH gives them a URI of
//! ours to put in front of their own. What comes for it is a session that is anchored here, so nothing is relayed to anywhere
//! else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::head::Head;
use crate::switch::{SESSION_ID, Switch};
use crate::uri::{self, MsrpUri};
use crate::write::letters;

/// How long a URI is good for, in seconds, and the bounds of what a client may ask for.
const LIFETIME: u64 = 3600;
const MIN_LIFETIME: u64 = 60;
/// URIs that are given out at a time, in all and on one connection.
const MAX_URIS: usize = 200_000;
const MAX_URIS_EACH: usize = 16;

/// Who may have a URI.
pub trait Gatekeeper: Send + Sync {
    /// Judges an AUTH request of `from`: `uri` is the last of its To-Path, `authorization` its header.
    fn admits(&self, from: IpAddr, uri: &[u8], authorization: Option<&[u8]>) -> Result<(), Denied>;
}

/// Why somebody may not.
pub enum Denied {
    /// 401, with these values of WWW-Authenticate.
    Challenge(Vec<Vec<u8>>),
    /// 403: not by asking again.
    Forbidden,
}

/// The URIs that were given out, by their session part.
#[derive(Default)]
pub(crate) struct Relays(HashMap<[u8; SESSION_ID], Given>);

struct Given {
    connection: Arc<Connection>,
    until: Instant,
}

/// How an AUTH is answered: a status and header lines.
pub(crate) type Reply = (u16, Vec<(&'static str, Vec<u8>)>);

impl Switch {
    /// Lets clients have URIs of ours. Once; without it AUTH is answered with 501.
    pub fn guard(&self, gatekeeper: Arc<dyn Gatekeeper>) {
        let _ = self.gatekeeper.set(gatekeeper);
    }

    /// Answers an AUTH.
    pub(crate) fn auth(&self, connection: &Arc<Connection>, head: &Head<'_>) -> Reply {
        let Some(gatekeeper) = self.gatekeeper.get() else { return (501, Vec::new()) };
        let path = head.to_path();
        let Some(asked) = uri::path(path).filter(|p| p.len() == 1) else { return (403, Vec::new()) };
        match gatekeeper.admits(connection.remote, path, head.other("Authorization")) {
            Ok(()) => {}
            Err(Denied::Challenge(values)) => {
                return (401, values.into_iter().map(|value| ("WWW-Authenticate", value)).collect());
            }
            Err(Denied::Forbidden) => return (403, Vec::new()),
        }
        let wanted = match head.other("Expires") {
            Some(text) => std::str::from_utf8(text).ok().and_then(|t| t.parse::<u64>().ok()).unwrap_or(LIFETIME),
            None => LIFETIME,
        };
        if wanted < MIN_LIFETIME {
            return (423, vec![("Min-Expires", MIN_LIFETIME.to_string().into_bytes())]);
        }
        let seconds = wanted.min(LIFETIME);
        let id: [u8; SESSION_ID] = letters(rand::random());
        let until = Instant::now() + Duration::from_secs(seconds);
        {
            let mut relays = self.relays.lock();
            if relays.0.len() >= MAX_URIS || !connection.add_relay(MAX_URIS_EACH) {
                return (403, Vec::new());
            }
            relays.0.insert(id, Given { connection: connection.clone(), until });
        }
        // It has said who it is.
        self.bound(connection);
        let mut uri = written(&asked[0]);
        uri.push(b'/');
        uri.extend_from_slice(&id);
        uri.push(b';');
        uri.extend_from_slice(asked[0].transport());
        (200, vec![("Use-Path", uri), ("Expires", seconds.to_string().into_bytes())])
    }

    /// Whether a URI is one that AUTH gave out.
    pub fn is_relay(&self, uri: &MsrpUri<'_>) -> bool {
        let id: Option<[u8; SESSION_ID]> = uri.session().try_into().ok();
        id.is_some_and(|id| self.relays.lock().0.get(&id).is_some_and(|g| g.until > Instant::now()))
    }

    /// The connection of the client that such a URI was given to.
    pub(crate) fn relayed(&self, uri: &[u8]) -> Option<Arc<Connection>> {
        let id: [u8; SESSION_ID] = MsrpUri::parse(uri)?.session().try_into().ok()?;
        self.relays.lock().0.get(&id).map(|g| g.connection.clone())
    }

    /// What is left of a To-Path behind the relay that we are for this connection.
    pub(crate) fn behind_relay<'p>(&self, connection: &Connection, to_path: &'p [u8]) -> &'p [u8] {
        let Some(space) = to_path.iter().position(|&b| b == b' ') else { return to_path };
        let (first, rest) = (&to_path[..space], to_path[space + 1..].trim_ascii());
        let id: Option<[u8; SESSION_ID]> = MsrpUri::parse(first).and_then(|u| u.session().try_into().ok());
        let ours = id
            .is_some_and(|id| self.relays.lock().0.get(&id).is_some_and(|g| g.connection.number == connection.number));
        if ours { rest } else { to_path }
    }

    /// Takes back the URIs whose time is over.
    pub(crate) fn lapse_relays(&self, now: Instant) {
        let lapsed: Vec<Given> = self.relays.lock().0.extract_if(|_, g| g.until <= now).map(|(_, g)| g).collect();
        for given in lapsed {
            given.connection.release_relay();
        }
    }

    /// The URIs of a connection that is gone are nobody's.
    pub(crate) fn forget_relays(&self, connection: &Connection) {
        let mut relays = self.relays.lock();
        if !relays.0.is_empty() {
            relays.0.retain(|_, g| g.connection.number != connection.number);
        }
    }
}

/// `msrps://host:port` as the client knows us.
fn written(uri: &MsrpUri<'_>) -> Vec<u8> {
    let mut out = if uri.is_secure() { b"msrps://".to_vec() } else { b"msrp://".to_vec() };
    let bracketed = uri.host().contains(&b':');
    if bracketed {
        out.push(b'[');
    }
    out.extend_from_slice(uri.host());
    if bracketed {
        out.push(b']');
    }
    if let Some(port) = uri.port() {
        out.extend_from_slice(format!(":{port}").as_bytes());
    }
    out
}
