//! INVITEs of our own, to every phone of a user of ours, or to somebody of another domain: the first to accept has the session
//! (RFC 3261 §13.2).

use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use media_msrp::{Bridge, LocalEnd, PHONE, Peer};
use sip_ims::Aor;
use sip_ims::service::{Outcome, Outlet};
use sip_proto::build::{Request, Writer};
use sip_proto::dialog::Dialog;
use sip_proto::endpoint::hex16;
use sip_proto::headers::{NameAddr, list};
use sip_proto::{HeaderName, Hop, Message, Method};
use tokio::sync::oneshot;

use super::{Agent, Handset, Party, Session, is_web_socket, key_of};
use crate::terms::{Offered, Terms};

/// Whom we call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Callee {
    /// One of ours: every phone.
    User(Aor),
    /// Somebody of another domain, by URI: its proxies know the phones.
    Foreign(Box<str>),
}

/// A session that we ask somebody for.
pub struct Call {
    pub to: Callee,
    /// Who asks: an address with angle brackets, without a tag.
    pub from: String,
    /// User part of our Contact.
    pub user: String,
    pub features: &'static str,
    pub terms: Terms,
    pub party: Arc<dyn Party>,
    pub subject: String,
    /// Who wanted it, as the value of Referred-By; empty: nobody.
    pub referred_by: Box<[u8]>,
    /// What the phone must be willing to take.
    pub accepts: Box<str>,
    /// In an envelope will do.
    pub wrapped: bool,
}

/// One way to a phone.
struct Way {
    uri: Box<[u8]>,
    /// Route values to go through; may be empty.
    route: Vec<u8>,
    /// Tried one after the other (RFC 3263 §4.3).
    hops: Vec<Hop>,
}

/// An INVITE that was sent, and what it came to.
struct Asked {
    hop: Hop,
    contact: Vec<u8>,
    request: Vec<u8>,
    outcome: Outcome,
}

/// Phones of one user that are asked.
const MAX_PHONES: usize = 8;
/// Addresses that are tried for one of them.
const MAX_HOPS: usize = 4;
/// Bytes of a Via of ours.
const VIA_ROOM: usize = 128;

impl Agent {
    /// Asks for a session. `Err`: the status that it came to.
    pub async fn call(self: &Arc<Self>, call: Call) -> Result<(), u16> {
        let outlet = self.outlet().cloned().ok_or(503u16)?;
        let call_id = format!("{}{}", text(&hex16(rand::random())), text(&hex16(rand::random())));
        let ways = self.ways(&call.to, call_id.as_bytes()).await;
        if ways.is_empty() {
            return Err(480);
        }
        let offered = Offered { secure: self.parts.doors.plain.is_none(), ..Offered::default() };
        let door = self.parts.door(offered.secure).ok_or(503u16)?;
        let end: Arc<dyn LocalEnd> = call.party.clone();
        let bridge = self.parts.switch.open_local(&call_id, door, end, call.terms.max_size).map_err(|_| 503u16)?;
        let body = self.parts.describe(&bridge, &offered, &call.terms);
        let tag = text(&hex16(rand::random()));
        let mut calls: FuturesUnordered<_> =
            ways.into_iter().map(|way| self.ask(&*outlet, &call, way, [&call_id, &tag], &body)).collect();
        let mut best = 480;
        let mut taken = false;
        while let Some(asked) = calls.next().await {
            let Some(asked) = asked else { continue };
            let Outcome::Response { status, .. } = asked.outcome else { continue };
            if !(200..300).contains(&status) {
                best = if status >= 600 { status } else { best.min(status).max(300) };
                continue;
            }
            taken |= self.accepted(&call, &bridge, asked, taken).await;
        }
        drop(calls);
        if taken {
            return Ok(());
        }
        self.parts.switch.close_now(&bridge);
        Err(best)
    }

    /// Sends the INVITE by one hop after the other, until somebody answers. `None`: there is no hop.
    async fn ask(&self, outlet: &dyn Outlet, call: &Call, way: Way, ids: [&str; 2], body: &[u8]) -> Option<Asked> {
        let mut last = None;
        for hop in way.hops {
            let contact = self.contact_over(&hop, &call.user, call.features);
            let request = write(call, [&way.uri, &way.route], ids, &contact, body);
            let (ended, outcome) = oneshot::channel();
            outlet.request(hop, request.clone(), Box::new(move |outcome| _ = ended.send(outcome)));
            let outcome = outcome.await.unwrap_or(Outcome::Unreachable);
            let failed =
                matches!(outcome, Outcome::Timeout | Outcome::Unreachable | Outcome::Response { status: 503, .. });
            last = Some(Asked { hop, contact, request, outcome });
            if !failed {
                break;
            }
        }
        last
    }

    /// A phone accepts. The second one to do so is thanked and hung up on.
    async fn accepted(self: &Arc<Self>, call: &Call, bridge: &Arc<Bridge>, asked: Asked, late: bool) -> bool {
        let Asked { hop, contact, request, outcome: Outcome::Response { bytes, .. } } = &asked else { return false };
        let (Ok(request), Ok(response)) = (Message::parse(request), Message::parse(bytes)) else { return false };
        let Ok(dialog) = Dialog::uac(&request, &response) else { return false };
        let hop = match &call.to {
            // By the way that it came, which may be the only one through a NAT.
            Callee::User(_) => *hop,
            // Whoever wants to stay on the path of the dialog has said so.
            Callee::Foreign(_) => self.hops_of(dialog.next_hop()).await.first().copied().unwrap_or(*hop),
        };
        self.acknowledge(&dialog, request.cseq().map_or(1, |c| c.number), hop);
        let bare = |o: &Offered| o.accepts(call.accepts.as_bytes());
        let wrapped = |o: &Offered| call.wrapped && o.accepts_wrapped(call.accepts.as_bytes());
        let answer =
            Offered::read(&self.parts.switch, &response).ok().filter(|o| o.peer.is_some() && (bare(o) || wrapped(o)));
        let enveloped = answer.as_ref().is_some_and(|o| !bare(o));
        let session = Session {
            hop,
            contact: contact.clone().into(),
            terms: call.terms.clone(),
            secure: self.parts.doors.plain.is_none(),
            unacked: None,
            offering: false,
            bridge: bridge.clone(),
            party: call.party.clone(),
            dialog,
        };
        let key = key_of(&session.dialog.id());
        let by_web = answer.as_ref().is_some_and(|a| a.ws) || is_web_socket(hop.transport());
        let Some(peer) = answer.and_then(|a| a.peer).filter(|_| !late) else {
            self.refuse(session);
            return false;
        };
        self.sessions.lock().insert(key.clone(), session);
        let connect = !crate::terms::Described::is_active(&self.parts.switch, &response);
        self.inspect(bridge, [format!("<{}>", call.to.uri()).as_bytes(), call.from.as_bytes()], by_web);
        self.parts.switch.describe(bridge, PHONE, Peer { connect, ..peer });
        call.party.clone().begun(&Handset { key, bridge: bridge.clone(), enveloped });
        true
    }

    fn refuse(self: &Arc<Self>, mut session: Session) {
        let bye = sip_ims::notify::write_in_dialog(&mut session.dialog, Method::Bye, 0, |_| {});
        if let (Some(bye), Some(outlet)) = (bye, self.outlet()) {
            outlet.request(session.hop, bye, Box::new(|_| {}));
        }
    }

    fn acknowledge(&self, dialog: &Dialog, number: u32, hop: Hop) {
        let mut ack = Vec::new();
        let transport = hop.transport();
        let via = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"SIP/2.0/");
            out.extend_from_slice(transport.via_token().as_bytes());
            out.push(b' ');
            out.extend_from_slice(self.parts.home.sent_by(transport, hop.remote().ip()));
            out.extend_from_slice(b";rport;branch=z9hG4bK");
            out.extend_from_slice(&hex16(rand::random()));
        };
        dialog.write_ack(number, &mut ack, via, |_| {});
        if let Some(outlet) = self.outlet() {
            outlet.send(hop, &ack);
        }
    }

    fn contact_over(&self, hop: &Hop, user: &str, features: &str) -> Vec<u8> {
        let transport = hop.transport();
        let at = String::from_utf8_lossy(self.parts.home.sent_by(transport, hop.remote().ip())).into_owned();
        format!("<sip:{user}@{at};transport={}>{features}", transport.uri_token()).into_bytes()
    }

    /// The phones of a user of ours; one way to somebody of another domain.
    async fn ways(&self, to: &Callee, call_id: &[u8]) -> Vec<Way> {
        let mut found = Vec::<(Box<[u8]>, Vec<u8>, Option<Hop>)>::new();
        match to {
            Callee::User(aor) => self.parts.location.each_anywhere(aor.as_str(), (self.parts.unix)(), &mut |reach| {
                if found.len() == MAX_PHONES {
                    return;
                }
                // The node that has its connection finds the rest of the way.
                match (&self.parts.nodes, &reach.elsewhere) {
                    (Some(nodes), Some(elsewhere)) => {
                        let mut route = nodes.way(elsewhere, call_id);
                        if !reach.path.is_empty() {
                            route.extend_from_slice(b", ");
                            route.extend_from_slice(reach.path);
                        }
                        found.push((reach.uri.into(), route, Some(elsewhere.node)));
                    }
                    (None, Some(_)) => {}
                    (_, None) => found.push((reach.uri.into(), reach.path.to_vec(), reach.hop)),
                }
            }),
            Callee::Foreign(uri) => found.push((uri.as_bytes().into(), Vec::new(), None)),
        }
        let mut ways = Vec::with_capacity(found.len());
        for (uri, route, hop) in found {
            let first = list(&route).next().and_then(NameAddr::parse).map_or(&*uri, |first| first.addr);
            let hops = match hop {
                Some(hop) => vec![hop],
                None => self.hops_of(first).await,
            };
            if !hops.is_empty() {
                ways.push(Way { uri, route, hops });
            }
        }
        ways
    }

    /// Where a URI leads (RFC 3263).
    async fn hops_of(&self, uri: &[u8]) -> Vec<Hop> {
        let (done, hops) = oneshot::channel();
        self.parts.next_hops.next_hops(uri, Box::new(move |hops| _ = done.send(hops)));
        let mut hops = hops.await.unwrap_or_default();
        hops.truncate(MAX_HOPS);
        hops
    }
}

impl Callee {
    /// As a SIP URI.
    pub fn uri(&self) -> String {
        match self {
            Callee::User(aor) => format!("sip:{aor}"),
            Callee::Foreign(uri) => uri.to_string(),
        }
    }
}

fn write(call: &Call, [uri, route]: [&[u8]; 2], [call_id, tag]: [&str; 2], contact: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 1024 + VIA_ROOM);
    Request::new(Method::Invite, uri).write(&mut out, |w: &mut Writer<'_>| {
        if !route.is_empty() {
            w.text(HeaderName::Route, route);
        }
        w.number(HeaderName::MaxForwards, 70);
        w.text(HeaderName::From, format!("{};tag={tag}", call.from).as_bytes());
        w.text(HeaderName::To, format!("<{}>", call.to.uri()).as_bytes());
        w.text(HeaderName::CallId, call_id.as_bytes());
        w.cseq(1, Method::Invite);
        w.text(HeaderName::Contact, contact);
        w.text(HeaderName::PAssertedIdentity, call.from.as_bytes());
        w.text(HeaderName::Allow, super::ALLOW);
        if !call.subject.is_empty() {
            w.text(HeaderName::Subject, call.subject.as_bytes());
        }
        if !call.referred_by.is_empty() {
            w.text(HeaderName::ReferredBy, &call.referred_by);
        }
        w.body(b"application/sdp", body);
    });
    out
}

fn text(hex: &[u8; 16]) -> String {
    String::from_utf8_lossy(hex).into_owned()
}
