//! The edits that turn a received request into the one that is sent on (RFC 3261 §16.6).

use sip_ims::{Home, User};
use sip_net::driver::write_via;
use sip_proto::build::write_top_via;
use sip_proto::edit::number;
use sip_proto::endpoint::{Branch, Endpoint};
use sip_proto::headers::{Credentials, Privacy, list};
use sip_proto::privacy::{self, Neighbour};
use sip_proto::{Edits, Flow, HeaderName, Hop, Message, Method, derived};
use smallvec::SmallVec;

use crate::route::{Routed, seal, write_flow, write_record_route};
use crate::target::Target;

/// What all branches of one request have in common.
#[derive(Debug)]
pub struct Plan<'a> {
    pub home: &'a Home,
    pub message: &'a Message<'a>,
    pub routed: &'a Routed<'a>,
    pub source: &'a Flow,
    /// The user whose identity we vouch for.
    pub asserted: Option<&'a User>,
    /// The sender may assert identities itself (RFC 3325 §4).
    pub trusted: bool,
    pub record_route: bool,
    /// Added as Diversion by call forwarding: the diverting user and the reason.
    pub diverted: Option<(&'a str, &'static str)>,
}

/// The loop hash of RFC 3261 §16.6 step 8: what routing depends on. Two passes with the same hash are a loop.
pub fn loop_hash(message: &Message<'_>, endpoint: &Endpoint) -> u32 {
    let tag = |name| message.value(name).and_then(derived::tag).unwrap_or_default();
    let route = message.value(HeaderName::Route).unwrap_or_default();
    let cseq = message.value(HeaderName::CSeq).unwrap_or_default();
    endpoint.seal(&[
        message.request_uri(),
        tag(HeaderName::From),
        tag(HeaderName::To),
        message.call_id().unwrap_or_default(),
        cseq,
        route,
    ]) as u32
}

/// This request has been here before, and nothing that routing depends on has changed (RFC 3261 §16.3 step 4).
pub fn is_looping(message: &Message<'_>, endpoint: &Endpoint) -> bool {
    let mut hash = None;
    message.list(HeaderName::Via).skip(1).any(|via| {
        sip_proto::headers::Via::parse(via)
            .and_then(|v| Branch::parse(v.branch()?))
            .is_some_and(|b| b.suffix == *hash.get_or_insert_with(|| loop_hash(message, endpoint)))
    })
}

/// Pieces that need the endpoint, computed before it is borrowed for sending.
pub struct Tokens {
    seal: [u8; 16],
    inward: SmallVec<[u8; 72]>,
    outward: SmallVec<[u8; 72]>,
}

impl Tokens {
    pub fn of(plan: &Plan<'_>, hop: &Hop, endpoint: &Endpoint) -> Option<Tokens> {
        if !(plan.record_route && makes_dialog(plan.message)) {
            return None;
        }
        let call_id = plan.message.call_id().unwrap_or_default();
        let token = |flow: &Flow| {
            if flow.transport.is_reliable() { write_flow(flow, endpoint, call_id) } else { SmallVec::new() }
        };
        let outward = if let Hop::Flow(flow) = hop { token(flow) } else { SmallVec::new() };
        Some(Tokens { seal: seal(endpoint, call_id), inward: token(plan.source), outward })
    }
}

/// Requests that may set up a dialog get our Record-Route.
fn makes_dialog(message: &Message<'_>) -> bool {
    matches!(message.method(), Method::Invite | Method::Subscribe | Method::Refer | Method::Notify)
        && message.value(HeaderName::To).is_none_or(|to| derived::tag(to).is_none())
}

/// Writes the request for one branch.
pub fn write(
    plan: &Plan<'_>,
    target: &Target,
    hop: &Hop,
    branch: &Branch,
    tokens: Option<&Tokens>,
    edits: &mut Edits,
    out: &mut Vec<u8>,
) {
    let sent_by = plan.home.sent_by(hop.transport(), hop.remote().ip());
    edits.clear();
    edits.insert(plan.message.headers_start(), |t| {
        write_via(t, hop.transport(), sent_by, branch);
        if let Some(tokens) = tokens {
            record_routes(plan, hop, sent_by, tokens, t);
        }
        if !target.path.is_empty() {
            sip_proto::edit::header(t, HeaderName::Route.as_str(), |t| t.extend_from_slice(&target.path));
        }
    });
    common(plan, target, edits);
    edits.apply(plan.message.bytes(), out);
}

/// Writes an ACK for a 2xx, or any other request that goes on without a transaction. `branch` is a whole Via branch.
pub fn write_stateless(
    plan: &Plan<'_>,
    target: &Target,
    hop: &Hop,
    branch: &[u8],
    edits: &mut Edits,
    out: &mut Vec<u8>,
) {
    let sent_by = plan.home.sent_by(hop.transport(), hop.remote().ip());
    edits.clear();
    edits.insert_header(plan.message.headers_start(), HeaderName::Via, |t| {
        t.extend_from_slice(b"SIP/2.0/");
        t.extend_from_slice(hop.transport().via_token().as_bytes());
        t.push(b' ');
        t.extend_from_slice(sent_by);
        t.extend_from_slice(b";rport;branch=");
        t.extend_from_slice(branch);
    });
    common(plan, target, edits);
    edits.apply(plan.message.bytes(), out);
}

fn record_routes(plan: &Plan<'_>, hop: &Hop, sent_by: &[u8], tokens: &Tokens, t: &mut Vec<u8>) {
    let inside = plan.home.sent_by(plan.source.transport, plan.source.remote.ip());
    let two = inside != sent_by
        || plan.source.transport != hop.transport()
        || !tokens.inward.is_empty()
        || !tokens.outward.is_empty();
    // RFC 5658: where the two sides differ, one entry for each; the side that the request leaves by stands on top.
    t.extend_from_slice(b"Record-Route: ");
    write_record_route(t, hop.transport(), sent_by, &tokens.outward, &tokens.seal);
    if two {
        t.extend_from_slice(b", ");
        write_record_route(t, plan.source.transport, inside, &tokens.inward, &tokens.seal);
    }
    t.extend_from_slice(b"\r\n");
}

fn common(plan: &Plan<'_>, target: &Target, edits: &mut Edits) {
    let message = plan.message;
    if !target.uri.is_empty() {
        edits.replace(message.request_uri_range(), |t| t.extend_from_slice(&target.uri));
    }
    if let Some(via) = message.value(HeaderName::Via).and_then(|v| list(v).next()) {
        edits.replace(message.range_of(via), |t| write_top_via(via, plan.source.remote, t));
    }
    match message.line(HeaderName::MaxForwards) {
        Some(line) => {
            let left = sip_proto::validate::next_max_forwards(message).unwrap_or(0);
            edits.replace(line.value(), |t| number(t, u64::from(left)));
        }
        None => edits.insert_header(message.headers_start(), HeaderName::MaxForwards, |t| t.extend_from_slice(b"70")),
    }
    for popped in &plan.routed.popped {
        edits.delete(popped.clone());
    }
    for line in message.lines(HeaderName::ProxyAuthorization) {
        // Credentials for us go no further (RFC 3261 §22.3 lets a proxy consume its own).
        if names_realm(&message.bytes()[line.value()], plan.home.domain()) {
            edits.delete(line.line());
        }
    }
    if !plan.trusted {
        privacy::arriving(message, Neighbour::Untrusted, true, edits);
        message.lines(HeaderName::PPreferredIdentity).for_each(|l| edits.delete(l.line()));
    } else if target.binding && wants_id_withheld(message) {
        // RFC 3325 §7: the phones that we serve are outside the trust domain.
        message.lines(HeaderName::PAssertedIdentity).for_each(|l| edits.delete(l.line()));
    }
    if let Some(user) = plan.asserted {
        assert_identity(plan, user, edits);
    }
    if let Some((who, reason)) = plan.diverted {
        edits.insert_header(message.headers_start(), HeaderName::Diversion, |t| {
            t.extend_from_slice(b"<sip:");
            t.extend_from_slice(who.as_bytes());
            t.extend_from_slice(b">;reason=");
            t.extend_from_slice(reason.as_bytes());
        });
    }
}

/// RFC 3325 §5: the identity that we authenticated, as SIP URI and as number.
fn assert_identity(plan: &Plan<'_>, user: &User, edits: &mut Edits) {
    if plan.message.method() == Method::Ack || plan.message.method() == Method::Cancel {
        return;
    }
    if wants_id_withheld(plan.message) {
        return;
    }
    edits.insert_header(plan.message.headers_start(), HeaderName::PAssertedIdentity, |t| {
        t.extend_from_slice(b"<sip:");
        t.extend_from_slice(user.aor.user().as_bytes());
        t.push(b'@');
        t.extend_from_slice(plan.home.domain().as_bytes());
        t.push(b'>');
        if let Some(number) = user.msisdn {
            t.extend_from_slice(b", <tel:");
            sip_proto::edit::display(t, number);
            t.push(b'>');
        }
    });
}

/// A Privacy of "id": nobody outside the trust domain is to see who this is (RFC 3325 §7).
fn wants_id_withheld(message: &Message<'_>) -> bool {
    message.values(HeaderName::Privacy).any(|p| Privacy::parse(p).id)
}

fn names_realm(credentials: &[u8], realm: &str) -> bool {
    Credentials::parse(credentials).is_some_and(|c| c.realm.eq_ignore_ascii_case(realm.as_bytes()))
}
