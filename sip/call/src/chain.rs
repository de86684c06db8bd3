//! A request on its way from service to service (TS 24.229 §5.4.3.2, §5.4.3.3), and what we remember of it in the meantime:
//! nothing but which tokens have come back.
//!
//! Towards an application server elsewhere our own Route entry follows the server's. It carries the original dialog
//! identifier: a sealed token that says for whom which filters have been met. It does not depend on the Call-ID, because the
//! server may be a back-to-back user agent.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use sip_ims::Home;
use sip_ims::criteria::{Filter, Order, SessionCase};
use sip_proto::Transport;
use sip_proto::headers::ServedUser;
use sip_proto::uri::Uri;

use crate::route::literal_hop;
use crate::seal::{Kind, Seals};

/// Seconds that a server may hold a request before it sends it back.
const LIFETIME: u64 = 3600;
/// Servers that one request may meet on its way, over all users whose services it meets.
pub const MAX_HOPS: u8 = 20;
/// Longest Call-ID that is carried, for the trace; a longer one is left out.
const MAX_CALL_ID: usize = 200;
/// In front of the token in the user part of our Route.
const MARK: u8 = b'o';

/// How far a request has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Names this stretch of the way.
    pub number: u64,
    /// Unix seconds: not taken back later.
    pub until: u64,
    pub case: SessionCase,
    /// The last filter that was met.
    pub after: Order,
    pub hops: u8,
    /// Whose filters they are: `user@domain`.
    pub served: Box<str>,
    /// Of the request that went to the server.
    pub call_id: Box<[u8]>,
}

impl Chain {
    pub fn new(
        number: u64,
        unix: u64,
        case: SessionCase,
        after: Order,
        hops: u8,
        served: &str,
        call_id: &[u8],
    ) -> Chain {
        let call_id = if call_id.len() <= MAX_CALL_ID { call_id } else { b"" };
        Chain { number, until: unix + LIFETIME, case, after, hops, served: served.into(), call_id: call_id.into() }
    }

    fn seal(&self, seals: &Seals, out: &mut Vec<u8>) {
        let mut raw = Vec::with_capacity(128);
        raw.extend_from_slice(&self.number.to_be_bytes());
        raw.extend_from_slice(&self.until.to_be_bytes());
        raw.extend_from_slice(&self.after.key.to_be_bytes());
        raw.extend_from_slice(&self.after.priority.to_be_bytes());
        raw.push(self.hops);
        raw.push(match self.case {
            SessionCase::Originating => 0,
            SessionCase::OriginatingAfterDiversion => 1,
            SessionCase::Terminating => 2,
        });
        raw.push(self.call_id.len() as u8);
        raw.extend_from_slice(&self.call_id);
        raw.extend_from_slice(self.served.as_bytes());
        out.push(MARK);
        seals.hide(Kind::Chain, b"", &raw, out);
    }

    /// From the user part of a Route of ours. `None`: not made here.
    pub fn read(seals: &Seals, user: &[u8]) -> Option<Chain> {
        let raw = seals.reveal(Kind::Chain, b"", user.strip_prefix(&[MARK])?)?;
        let (number, rest) = raw.split_first_chunk()?;
        let (until, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (priority, rest) = rest.split_first_chunk()?;
        let ([hops, case, length], rest) = rest.split_first_chunk()?;
        let (call_id, served) = rest.split_at_checked(usize::from(*length))?;
        Some(Chain {
            number: u64::from_be_bytes(*number),
            until: u64::from_be_bytes(*until),
            case: match case {
                0 => SessionCase::Originating,
                1 => SessionCase::OriginatingAfterDiversion,
                _ => SessionCase::Terminating,
            },
            after: Order { priority: u16::from_be_bytes(*priority), key: u64::from_be_bytes(*key) },
            hops: *hops,
            served: std::str::from_utf8(served).ok()?.into(),
            call_id: call_id.into(),
        })
    }

    /// The Route list of a request to the server at `uri`: the server, and behind it ourselves, to have it back.
    pub fn route(&self, uri: &str, home: &Home, seals: &Seals) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.push(b'<');
        out.extend_from_slice(uri.as_bytes());
        let parsed = Uri::parse(uri.as_bytes());
        if !parsed.as_ref().is_some_and(Uri::has_lr) {
            out.extend_from_slice(b";lr");
        }
        out.extend_from_slice(b">, ");
        let literal = parsed.as_ref().and_then(literal_hop);
        let named = || Transport::from_token(parsed.as_ref()?.transport()?);
        let transport = literal.map(|(transport, _)| transport).or_else(named).unwrap_or(Transport::Udp);
        let remote = literal.map_or(std::net::Ipv4Addr::LOCALHOST.into(), |(_, remote)| remote.ip());
        self.write_back(transport, home.sent_by(transport, remote), seals, &mut out);
        out
    }

    /// The Route entry by which we have the request back.
    pub fn write_back(&self, transport: Transport, sent_by: &[u8], seals: &Seals, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<sip:");
        self.seal(seals, out);
        out.push(b'@');
        out.extend_from_slice(sent_by);
        if transport != Transport::Udp {
            out.extend_from_slice(b";transport=");
            out.extend_from_slice(transport.uri_token().as_bytes());
        }
        out.extend_from_slice(b";lr>");
    }
}

/// What a branch towards an application server knows of it.
#[derive(Clone, Debug)]
pub struct Link {
    pub filter: Arc<Filter>,
    pub chain: Chain,
    pub registered: bool,
    /// The server has said something: it is not down.
    pub heard: bool,
}

impl Link {
    /// The value of P-Served-User (RFC 5502).
    pub fn write_served(&self, out: &mut Vec<u8>) {
        ServedUser::write(&[b"sip:", self.chain.served.as_bytes()].concat(), self.chain.case, self.registered, out);
    }
}

/// Tokens that have come back, or may not any more: each is taken once, so that a server that wakes up late delivers nothing
/// a second time.
#[derive(Default)]
pub struct Spent {
    tokens: Mutex<HashMap<u64, (u64, u64)>>,
}

/// Tokens that are remembered; beyond it those that have run out are forgotten, and then nothing more is taken back.
const MAX_SPENT: usize = 200_000;
/// Stands for a session that went on without the server.
const NOBODY: u64 = 0;

impl Spent {
    /// Takes a token from `request`, a hash of what the same request sent again repeats. False: it was taken before.
    pub fn take(&self, chain: &Chain, request: u64, unix: u64) -> bool {
        chain.until >= unix && self.enter(chain, request.max(1), unix) == Some(request.max(1))
    }

    /// Whether the token has come back.
    pub fn is_taken(&self, chain: &Chain) -> bool {
        self.tokens.lock().get(&chain.number).is_some_and(|(by, _)| *by != NOBODY)
    }

    /// The session goes on without the server. False: the server has sent the request back already.
    pub fn give_up(&self, chain: &Chain, unix: u64) -> bool {
        self.enter(chain, NOBODY, unix) == Some(NOBODY)
    }

    /// Who has the token now.
    fn enter(&self, chain: &Chain, by: u64, unix: u64) -> Option<u64> {
        let mut tokens = self.tokens.lock();
        if tokens.len() >= MAX_SPENT {
            tokens.retain(|_, (_, until)| *until >= unix);
            if tokens.len() >= MAX_SPENT {
                return None;
            }
        }
        Some(match tokens.entry(chain.number) {
            Entry::Occupied(entry) => entry.get().0,
            Entry::Vacant(entry) => entry.insert((by, chain.until)).0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain(case: SessionCase, priority: u16, served: &str, call_id: &[u8]) -> Chain {
        Chain::new(7, 1000, case, Order { priority, key: 9 }, 3, served, call_id)
    }

    fn home() -> Home {
        Home::new("home.test", [Transport::Udp, Transport::Tcp].map(|t| (t, "10.0.0.1:5060".parse().unwrap())))
    }

    #[test]
    fn the_route_to_a_server_leads_back_with_the_token() {
        let seals = Seals::new(&[3; 32]);
        let chain = chain(SessionCase::Terminating, 10, "bob@home.test", b"c1");
        for (uri, start, end) in [
            ("sip:as.test", "<sip:as.test;lr>, <sip:o", "@10.0.0.1:5060;lr>"),
            ("sip:10.0.0.9:5070;lr", "<sip:10.0.0.9:5070;lr>, <sip:o", "@10.0.0.1:5060;lr>"),
            ("sip:as.test;transport=tcp", "<sip:as.test;transport=tcp;lr>, <sip:o", "@10.0.0.1:5060;transport=tcp;lr>"),
        ] {
            let route = String::from_utf8(chain.route(uri, &home(), &seals)).unwrap();
            assert!(route.starts_with(start) && route.ends_with(end), "{route}");
            let user = route.split("<sip:").nth(2).unwrap().split('@').next().unwrap();
            assert_eq!(Chain::read(&seals, user.as_bytes()).as_ref(), Some(&chain));
            assert_eq!(Chain::read(&Seals::new(&[4; 32]), user.as_bytes()), None);
        }
        assert_eq!(Chain::read(&seals, b"oAAAA"), None);
        assert_eq!(Chain::read(&seals, b"ip-sm-gw"), None);
    }

    #[test]
    fn a_token_is_taken_once() {
        let (spent, one) = (Spent::default(), chain(SessionCase::Originating, 1, "a@b", b""));
        assert!(!spent.is_taken(&one));
        assert!(spent.take(&one, 5, 1000) && spent.take(&one, 5, 1001), "the same request again is no other");
        assert!(spent.is_taken(&one) && !spent.take(&one, 6, 1001) && !spent.give_up(&one, 1001));
        let late = Chain { number: 8, ..one.clone() };
        assert!(spent.give_up(&late, 1000) && !spent.take(&late, 5, 1000) && !spent.is_taken(&late));
        let old = Chain { number: 9, ..one };
        assert!(!spent.take(&old, 5, 1000 + LIFETIME + 1));
    }

    proptest! {
        #[test]
        fn a_token_reads_back(
            priority in any::<u16>(),
            case in 0u8..3,
            served in "[a-z]{0,40}@[a-z.]{1,60}",
            call_id in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let cases = [SessionCase::Originating, SessionCase::OriginatingAfterDiversion, SessionCase::Terminating];
            let chain = chain(cases[usize::from(case)], priority, &served, &call_id);
            let (seals, mut out) = (Seals::new(&[3; 32]), Vec::new());
            chain.seal(&seals, &mut out);
            prop_assert_eq!(Chain::read(&seals, &out), Some(chain));
        }
    }
}
