//! Third-party registration (TS 24.229 §5.7.1.1): an S-CSCF tells an application server that a user has registered with it.
//!
//! The user is reached by its own address through that S-CSCF, so that is what is bound: the address-of-record with the
//! S-CSCF as Path, and with the feature tags of the user's phones where their REGISTER comes along (§5.4.1.7).

use std::sync::Arc;

use sip_ims::notify::contact_for;
use sip_ims::service::{Caller, Request, Step};
use sip_ims::{Aor, Msisdn, User};
use sip_proto::features::Union;
use sip_proto::headers::{MediaType, NameAddr, Params, delta_seconds};
use sip_proto::uri::Scheme;
use sip_proto::{Edits, HeaderName, Message, edit, multipart};
use sip_xml::Document;

use crate::contact::MAX_CONTACT;
use crate::register::Account;
use crate::registrar::Registrar;

/// The XML that an S-CSCF may add: service information from the HSS (TS 24.229 §7.6).
const IMS_XML: &str = "application/3gpp-ims+xml";

/// Whether a REGISTER is about somebody else than its sender (RFC 3261 §10.2).
pub fn is_third_party(message: &Message<'_>) -> bool {
    let (from, to) = (message.from(), message.to());
    // Nearly always.
    if from.map(|n| n.addr) == to.map(|n| n.addr) {
        return false;
    }
    match (from.and_then(|n| n.uri()), to.and_then(|n| n.uri())) {
        (Some(from), Some(to)) if from.is_sip() && to.is_sip() => {
            from.user() != to.user() || !from.host().eq_ignore_ascii_case(to.host())
        }
        // A number has no host to compare; whoever has no user part is a server.
        (Some(from), Some(to)) => to.scheme() == Scheme::Tel && from.is_sip() && from.user().is_none(),
        _ => false,
    }
}

/// What an S-CSCF got wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum Bad {
    #[error("Missing Or Malformed Contact")]
    Contact,
    #[error("Malformed IMS XML")]
    Xml,
}

impl Registrar {
    /// `false`: an ordinary REGISTER. From the core only: for anybody else it proves nothing.
    pub(crate) fn third_party(&self, step: &mut Step<'_>, request: &Request<'_>) -> bool {
        let (flow, message) = (request.flow, request.message);
        if !is_third_party(message) {
            return false;
        }
        if !matches!(request.caller, Caller::Trusted) {
            // With passwords, whoever it is must have that of the user in To. Without, everybody is believed but a server.
            let from = message.from().and_then(|n| n.uri());
            if self.parts.authenticator.is_some() || from.is_some_and(|uri| uri.user().is_some()) {
                return false;
            }
            step.reply(flow, message, 403, Some("Third-Party Registration From A Stranger"), |_| {});
            return true;
        }
        let Some((aor, user)) = self.registered_elsewhere(message) else {
            step.reply(flow, message, 404, None, |_| {});
            return true;
        };
        match rewritten(message, &aor, self.core.features(&aor)) {
            Ok((bytes, Reported { scscf, seconds, complete })) => {
                // The core tells by itself when it does not bring the phone's REGISTER along.
                match seconds {
                    Some(0) => self.core.unwant(&aor),
                    _ if !complete && self.config.reg_event => {
                        let us = contact_for(&self.parts.home, flow.transport, flow.remote.ip());
                        let us =
                            NameAddr::parse(&us).map_or_else(String::new, |a| String::from_utf8_lossy(a.addr).into());
                        self.core.want(&aor, &scscf, us);
                    }
                    _ => {}
                }
                // Written by us from what has been read, so it reads again.
                let Ok(message) = Message::parse(&bytes) else { return true };
                let account = Account { aor, user, proved: false, third_party: true };
                self.wish(
                    step,
                    &Request { message: &message, caller: Caller::Trusted, callee: None, profile: None, ..*request },
                    &account,
                );
            }
            Err(bad) => step.reply(flow, message, 400, Some(&bad.to_string()), |_| {}),
        }
        true
    }

    /// The user in To: whether provisioned here or only in the HSS.
    fn registered_elsewhere(&self, message: &Message<'_>) -> Option<(Aor, Option<Arc<User>>)> {
        let (home, directory) = (&self.parts.home, &self.parts.directory);
        let uri = message.to()?.uri()?;
        if uri.scheme() == Scheme::Tel {
            let number = Msisdn::from_user(uri.user()?).ok()?;
            return match directory.by_msisdn(number) {
                Some(user) => Some((user.aor.clone(), Some(user))),
                None => Some((number.aor(home.domain()).ok()?, None)),
            };
        }
        let aor = home.aor(&uri)?;
        match directory.by_parts(uri.user()?, home.domain().as_bytes()) {
            Some(user) => Some((user.aor.clone(), Some(user))),
            None => Some((aor, None)),
        }
    }
}

/// What an S-CSCF reported.
struct Reported {
    /// Its URI.
    scscf: String,
    seconds: Option<u32>,
    /// With what the phones can do.
    complete: bool,
}

/// The same REGISTER for the address-of-record itself, to be reached through the S-CSCF. `known`: what the phones can do, should it not
/// say so.
fn rewritten(message: &Message<'_>, aor: &Aor, known: Option<Union>) -> Result<(Vec<u8>, Reported), Bad> {
    let contact = message.list(HeaderName::Contact).next().and_then(NameAddr::parse).ok_or(Bad::Contact)?;
    let scscf = contact.uri().filter(|uri| uri.is_sip() && contact.addr.len() <= MAX_CONTACT).ok_or(Bad::Contact)?;
    let own = contact.params.get("expires").and_then(delta_seconds);
    let expires = own.or_else(|| message.value(HeaderName::Expires).and_then(delta_seconds));
    let mut features = Union::default();
    features.add(contact.params);
    let complete = embedded(message, &mut features)?;
    if let Some(known) = known.filter(|_| !complete) {
        let mut text = Vec::new();
        known.write(&mut text);
        features.add(Params::new(&text));
    }
    let mut edits = Edits::new();
    for name in [HeaderName::Contact, HeaderName::Path] {
        message.lines(name).for_each(|line| edits.delete(line.line()));
    }
    edits.insert_header(message.headers_start(), HeaderName::Contact, |out| {
        out.extend_from_slice(b"<sip:");
        out.extend_from_slice(aor.as_str().as_bytes());
        out.push(b'>');
        if let Some(seconds) = expires {
            out.extend_from_slice(b";expires=");
            edit::number(out, seconds.into());
        }
        features.write(out);
    });
    edits.insert_header(message.headers_start(), HeaderName::Path, |out| {
        out.push(b'<');
        out.extend_from_slice(contact.addr);
        out.extend_from_slice(if scscf.has_lr() { b">" } else { b";lr>" });
    });
    let mut bytes = Vec::with_capacity(message.bytes().len() + 128);
    edits.apply(message.bytes(), &mut bytes);
    let scscf = String::from_utf8_lossy(contact.addr).into_owned();
    Ok((bytes, Reported { scscf, seconds: expires, complete }))
}

/// Reads what the S-CSCF put into the body: the phone's REGISTER, the answer to it (which lists every contact), and XML. Whether
/// either of the messages was there.
fn embedded(message: &Message<'_>, features: &mut Union) -> Result<bool, Bad> {
    let Some(kind) = message.value(HeaderName::ContentType).and_then(MediaType::parse) else { return Ok(false) };
    if kind.boundary().is_none() {
        return part(&kind, message.body(), features);
    }
    // Bodies that do not read say nothing about the user, who is registered all the same.
    let mut complete = false;
    for one in multipart::parts(&kind, message.body()).unwrap_or_default() {
        if let Some(kind) = one.content_type() {
            complete |= part(&kind, one.body, features)?;
        }
    }
    Ok(complete)
}

fn part(kind: &MediaType<'_>, body: &[u8], features: &mut Union) -> Result<bool, Bad> {
    if kind.is(IMS_XML) {
        return service_info(body).map(|_| false).ok_or(Bad::Xml);
    }
    if kind.is("message/sip")
        && let Ok(inner) = Message::parse(body)
    {
        let live = |contact: &NameAddr<'_>| {
            !contact.is_star() && contact.params.get("expires").and_then(delta_seconds) != Some(0)
        };
        inner.list(HeaderName::Contact).filter_map(NameAddr::parse).filter(live).for_each(|c| features.add(c.params));
        return Ok(true);
    }
    Ok(false)
}

/// The service information in `application/3gpp-ims+xml` (TS 24.229 §7.6), which the HSS keeps for the service and nobody else reads;
/// empty when there is none. `None`: it does not read.
pub fn service_info(body: &[u8]) -> Option<String> {
    // Written without a namespace, as in the standard's own schema, or with one.
    let root = Document::parse(body).ok()?.root;
    (&*root.name == "ims-3gpp").then_some(())?;
    let info = root.elements().find(|e| &*e.name == "service-info");
    Some(info.map(|e| e.text()).unwrap_or_default())
}
