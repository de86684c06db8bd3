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

use crate::route::{Routed, write_flow, write_record_route};
use crate::seal::{MAX_HIDDEN, Seals};
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
    /// Whom it goes to: within the trust domain nothing is hidden yet.
    pub to: Neighbour,
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
    /// The caller's From, to be brought back to it later in the dialog; empty when it is not hidden.
    hidden: Vec<u8>,
}

impl Tokens {
    pub fn of(plan: &Plan<'_>, hop: &Hop, seals: &Seals, endpoint: &Endpoint) -> Option<Tokens> {
        if !(plan.record_route && makes_dialog(plan.message)) {
            return None;
        }
        let call_id = plan.message.call_id().unwrap_or_default();
        let token = |flow: &Flow| {
            if flow.transport.is_reliable() { write_flow(flow, endpoint, call_id) } else { SmallVec::new() }
        };
        let outward = if let Hop::Flow(flow) = hop { token(flow) } else { SmallVec::new() };
        let mut hidden = Vec::new();
        if hides_from(plan) {
            seals.hide(call_id, &caller(plan.message), &mut hidden);
        }
        Some(Tokens { seal: seals.of_call(call_id), inward: token(plan.source), outward, hidden })
    }
}

/// Whether the callee is to see another From than the caller sent.
pub fn hides_from(plan: &Plan<'_>) -> bool {
    let asked = privacy::asked(plan.message);
    plan.to == Neighbour::Untrusted && !asked.none && (asked.user || side(plan) == Some(Side::Caller))
}

/// Whether To is brought back to what the caller once wrote into From.
pub fn restores_to(plan: &Plan<'_>) -> bool {
    side(plan) == Some(Side::Callee)
}

/// Who sends a request in a dialog whose caller is hidden from the callee.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Caller,
    Callee,
}

fn side(plan: &Plan<'_>) -> Option<Side> {
    let caller = derived::tag(plan.routed.hidden.as_deref()?)?;
    let is_callers = |name| plan.message.value(name).and_then(derived::tag) == Some(caller);
    match (is_callers(HeaderName::From), is_callers(HeaderName::To)) {
        (true, _) => Some(Side::Caller),
        (_, true) => Some(Side::Callee),
        _ => None,
    }
}

/// The From value to remember. Of one that is very long, only the tag: then what comes back to the caller is anonymous too,
/// and the dialog is still known by its tags (RFC 3261 §12).
fn caller(message: &Message<'_>) -> SmallVec<[u8; 128]> {
    let value = message.value(HeaderName::From).unwrap_or_default();
    if value.len() <= MAX_HIDDEN {
        return SmallVec::from_slice(value);
    }
    let mut short = SmallVec::from_slice(privacy::ANONYMOUS);
    short.extend_from_slice(b";tag=");
    short.extend_from_slice(derived::tag(value).unwrap_or_default());
    short
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
            path_routes(target, t);
        }
    });
    common(plan, target, edits);
    edits.apply(plan.message.bytes(), out);
}

/// Most of what we add to a request, beside what the target and the tokens bring: Via, Record-Route, identity.
const ADDED: usize = 400;

/// Whether the request as [`write`] makes it is longer than `limit`. It is written to find out only if it may be.
pub fn is_longer(
    plan: &Plan<'_>,
    target: &Target,
    hop: &Hop,
    branch: &Branch,
    tokens: Option<&Tokens>,
    edits: &mut Edits,
    limit: usize,
) -> bool {
    if plan.message.bytes().len() + target.uri.len() + target.path.len() + ADDED <= limit {
        return false;
    }
    let mut whole = Vec::new();
    write(plan, target, hop, branch, tokens, edits, &mut whole);
    whole.len() > limit
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
    write_record_route(t, hop.transport(), sent_by, &tokens.outward, &tokens.seal, &tokens.hidden);
    if two {
        t.extend_from_slice(b", ");
        write_record_route(t, plan.source.transport, inside, &tokens.inward, &tokens.seal, b"");
    }
    t.extend_from_slice(b"\r\n");
}

/// The Route of a registered Path. A strict router at its head stands in the Request-URI instead, and the contact at the end.
fn path_routes(target: &Target, t: &mut Vec<u8>) {
    let strict = target.strict_path();
    let rest = match strict {
        None => Some(&target.path[..]),
        Some((_, rest)) => rest,
    };
    sip_proto::edit::header(t, HeaderName::Route.as_str(), |t| {
        t.extend_from_slice(rest.unwrap_or_default());
        if strict.is_some() {
            t.extend_from_slice(if rest.is_some() { b", <" } else { b"<" });
            t.extend_from_slice(&target.uri);
            t.push(b'>');
        }
    });
}

/// RFC 3261 §16.6 steps 2 and 6: the Request-URI, and what a strict router as next hop does to it and to Route.
fn request_uri(plan: &Plan<'_>, target: &Target, edits: &mut Edits) {
    let message = plan.message;
    let uri = if target.uri.is_empty() { message.request_uri() } else { &target.uri };
    if let (Some(next), Some(first), Some(last)) =
        (plan.routed.next, &plan.routed.strict, message.lines(HeaderName::Route).last())
    {
        edits.delete(first.clone());
        edits.insert_header(last.line().end, HeaderName::Route, |t| {
            t.push(b'<');
            t.extend_from_slice(uri);
            t.push(b'>');
        });
        edits.replace(message.request_uri_range(), |t| t.extend_from_slice(next));
    } else if let Some((router, _)) = target.strict_path() {
        edits.replace(message.request_uri_range(), |t| t.extend_from_slice(router));
    } else if !target.uri.is_empty() {
        edits.replace(message.request_uri_range(), |t| t.extend_from_slice(uri));
    }
}

fn common(plan: &Plan<'_>, target: &Target, edits: &mut Edits) {
    let message = plan.message;
    request_uri(plan, target, edits);
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
    }
    let known = Privacy { user: side(plan) == Some(Side::Caller), ..Privacy::default() };
    // What cannot be fulfilled and must be was refused before it came here.
    let _ = privacy::leaving(message, plan.to, known, edits);
    if let (true, Some(caller), Some(to)) = (restores_to(plan), &plan.routed.hidden, message.line(HeaderName::To)) {
        edits.replace(to.value(), |t| t.extend_from_slice(caller));
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
    let hidden = privacy::asked(plan.message).hides_identity() || side(plan) == Some(Side::Caller);
    if hidden && plan.to == Neighbour::Untrusted {
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

fn names_realm(credentials: &[u8], realm: &str) -> bool {
    Credentials::parse(credentials).is_some_and(|c| c.realm.eq_ignore_ascii_case(realm.as_bytes()))
}
