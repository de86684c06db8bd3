//! INVITEs of our own, to every phone of a user: the first to accept has the session (RFC 3261 §13.2).

use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use media_msrp::{Bridge, LocalEnd, PHONE, Peer};
use sip_ims::Aor;
use sip_ims::service::Outcome;
use sip_proto::build::{Request, Writer};
use sip_proto::dialog::Dialog;
use sip_proto::endpoint::hex16;
use sip_proto::{HeaderName, Hop, Message, Method, Transport};
use tokio::sync::oneshot;

use super::{Agent, Handset, Party, Session, key_of};
use crate::terms::{Offered, Terms};

/// A session that we ask a user for.
pub struct Call {
    pub to: Aor,
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

/// Phones of one user that are asked.
const MAX_PHONES: usize = 8;
/// Bytes of a Via of ours.
const VIA_ROOM: usize = 128;

impl Agent {
    /// Asks for a session. `Err`: the status that it came to.
    pub async fn call(self: &Arc<Self>, call: Call) -> Result<(), u16> {
        let outlet = self.outlet().cloned().ok_or(503u16)?;
        let ways = self.ways(&call.to).await;
        if ways.is_empty() {
            return Err(480);
        }
        let offered = Offered { secure: self.parts.doors.plain.is_none(), ..Offered::default() };
        let door = self.parts.door(offered.secure).ok_or(503u16)?;
        let call_id = format!("{}{}", text(&hex16(rand::random())), text(&hex16(rand::random())));
        let end: Arc<dyn LocalEnd> = call.party.clone();
        let bridge = self.parts.switch.open_local(&call_id, door, end, call.terms.max_size).map_err(|_| 503u16)?;
        let body = self.parts.describe(&bridge, &offered, &call.terms);
        let tag = text(&hex16(rand::random()));
        let mut asked = FuturesUnordered::new();
        for (uri, path, hop) in ways {
            let contact = self.contact_over(&hop, &call.user, call.features);
            let request = write(&call, [&uri, &path], [&call_id, &tag], &contact, &body);
            let (ended, outcome) = oneshot::channel();
            outlet.request(hop, request.clone(), Box::new(move |outcome| _ = ended.send(outcome)));
            asked.push(async move { (hop, contact, request, outcome.await.unwrap_or(Outcome::Unreachable)) });
        }
        let mut best = 480;
        let mut taken = false;
        while let Some((hop, contact, request, outcome)) = asked.next().await {
            let Outcome::Response { status, bytes } = outcome else { continue };
            if !(200..300).contains(&status) {
                best = if status >= 600 { status } else { best.min(status).max(300) };
                continue;
            }
            let accepted = self.accepted(&call, &bridge, hop, contact, [&request, &bytes], taken);
            taken |= accepted;
        }
        if taken {
            return Ok(());
        }
        self.parts.switch.close_now(&bridge);
        Err(best)
    }

    /// A phone accepts. The second one to do so is thanked and hung up on.
    fn accepted(
        self: &Arc<Self>,
        call: &Call,
        bridge: &Arc<Bridge>,
        hop: Hop,
        contact: Vec<u8>,
        [request, response]: [&[u8]; 2],
        late: bool,
    ) -> bool {
        let (Ok(request), Ok(response)) = (Message::parse(request), Message::parse(response)) else { return false };
        let Ok(dialog) = Dialog::uac(&request, &response) else { return false };
        self.acknowledge(&dialog, request.cseq().map_or(1, |c| c.number), hop);
        let bare = |o: &Offered| o.accepts(call.accepts.as_bytes());
        let wrapped = |o: &Offered| call.wrapped && o.accepts_wrapped(call.accepts.as_bytes());
        let answer =
            Offered::read(&self.parts.switch, &response).ok().filter(|o| o.peer.is_some() && (bare(o) || wrapped(o)));
        let enveloped = answer.as_ref().is_some_and(|o| !bare(o));
        let session = Session {
            hop,
            contact: contact.into(),
            terms: call.terms.clone(),
            secure: self.parts.doors.plain.is_none(),
            unacked: None,
            offering: false,
            bridge: bridge.clone(),
            party: call.party.clone(),
            dialog,
        };
        let key = key_of(&session.dialog.id());
        let by_web = answer.as_ref().is_some_and(|a| a.ws) || matches!(hop.transport(), Transport::Ws | Transport::Wss);
        let Some(peer) = answer.and_then(|a| a.peer).filter(|_| !late) else {
            self.refuse(session);
            return false;
        };
        self.sessions.lock().insert(key.clone(), session);
        let connect = !crate::terms::Described::is_active(&self.parts.switch, &response);
        self.inspect(bridge, [format!("<sip:{}>", call.to).as_bytes(), call.from.as_bytes()], by_web);
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

    /// The phones of a user: contact, Path, and the way there.
    async fn ways(&self, aor: &Aor) -> Vec<(Box<[u8]>, Box<[u8]>, Hop)> {
        let mut found = Vec::<(Box<[u8]>, Box<[u8]>, Option<Hop>)>::new();
        self.parts.location.each(aor.as_str(), (self.parts.unix)(), &mut |reach| {
            if found.len() < MAX_PHONES {
                found.push((reach.uri.into(), reach.path.into(), reach.hop));
            }
        });
        let mut ways = Vec::with_capacity(found.len());
        for (uri, path, hop) in found {
            let hop = match hop {
                Some(hop) => Some(hop),
                None => {
                    let (done, hops) = oneshot::channel();
                    self.parts.next_hops.next_hops(&uri, Box::new(move |hops| _ = done.send(hops)));
                    hops.await.ok().and_then(|hops| hops.first().copied())
                }
            };
            ways.extend(hop.map(|hop| (uri, path, hop)));
        }
        ways
    }
}

fn write(call: &Call, [uri, path]: [&[u8]; 2], [call_id, tag]: [&str; 2], contact: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 1024 + VIA_ROOM);
    Request::new(Method::Invite, uri).write(&mut out, |w: &mut Writer<'_>| {
        if !path.is_empty() {
            w.text(HeaderName::Route, path);
        }
        w.number(HeaderName::MaxForwards, 70);
        w.text(HeaderName::From, format!("{};tag={tag}", call.from).as_bytes());
        w.text(HeaderName::To, format!("<sip:{}>", call.to).as_bytes());
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
