//! The edits that turn a received request into the one that is sent on (RFC 3261 §16.6).

use sip_ims::{Home, User};
use sip_net::driver::write_via;
use sip_proto::build::{top_via_span, write_top_via};
use sip_proto::edit::number;
use sip_proto::endpoint::{Branch, Endpoint};
use sip_proto::headers::{Credentials, Privacy};
use sip_proto::privacy::{self, Hidden, Neighbour, Seal};
use sip_proto::{Edits, Flow, HeaderName, Hop, Message, Method};

use crate::chain::Link;
use crate::route::{Routed, write_flow, write_record_route, write_route_elsewhere};
use crate::seal::{Kind, Seals};
use crate::target::Target;
use crate::veil::{self, Side, Veil};

/// What all branches of one request have in common.
#[derive(Debug)]
pub struct Plan<'a> {
    pub home: &'a Home,
    pub seals: &'a Seals,
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
    /// A body to go in the place of the one that came ([`sip_ims::media`]).
    pub body: Option<&'a [u8]>,
    /// Nothing of the call says where its media come from.
    pub session: bool,
    /// The application server that it goes to.
    pub link: Option<&'a Link>,
    /// Added as Diversion by call forwarding: the diverting user and the reason.
    pub diverted: Option<(&'a str, &'static str)>,
}

/// The loop hash of RFC 3261 §16.6 step 8: what routing depends on. Two passes with the same hash are a loop.
pub fn loop_hash(message: &Message<'_>, endpoint: &Endpoint) -> u32 {
    let route = message.value(HeaderName::Route).unwrap_or_default();
    let cseq = message.value(HeaderName::CSeq).unwrap_or_default();
    endpoint.seal(&[
        message.request_uri(),
        message.from_tag().unwrap_or_default(),
        message.to_tag().unwrap_or_default(),
        message.call_id().unwrap_or_default(),
        cseq,
        route,
    ]) as u32
}

/// This request has been here before, and nothing that routing depends on has changed (RFC 3261 §16.3 step 4).
pub fn is_looping(message: &Message<'_>, endpoint: &Endpoint) -> bool {
    if message.has_one_via() {
        return false;
    }
    let mut hash = None;
    message.list(HeaderName::Via).skip(1).any(|via| {
        sip_proto::headers::Via::parse(via)
            .and_then(|v| Branch::parse(v.branch()?))
            .is_some_and(|b| b.suffix == *hash.get_or_insert_with(|| loop_hash(message, endpoint)))
    })
}

/// What our Record-Route carries.
pub struct Tokens {
    seal: [u8; 16],
    inward: Vec<u8>,
    outward: Vec<u8>,
    /// What is hidden of the caller, to be brought back later in the dialog; empty when nothing is.
    veil: Vec<u8>,
}

impl Tokens {
    pub fn of(plan: &Plan<'_>, hop: &Hop) -> Option<Tokens> {
        let hidden = hides(plan);
        let veiled = hidden.from || hidden.header || plan.session;
        // What is hidden in a dialog only we can bring back.
        if !((plan.record_route || veiled) && makes_dialog(plan.message)) {
            return None;
        }
        let call_id = plan.message.call_id().unwrap_or_default();
        let token = |flow: &Flow| {
            if flow.transport.is_reliable() { write_flow(flow, Kind::Flow, plan.seals, call_id) } else { Vec::new() }
        };
        // Another node is reached again at its own Record-Route.
        let inward = if plan.routed.from_node { Vec::new() } else { token(plan.source) };
        let outward = if let Hop::Flow(flow) = hop { token(flow) } else { Vec::new() };
        let mut veil = Vec::new();
        if veiled {
            Veil::over(plan.message, hidden, plan.session).seal(plan.seals, call_id, &mut veil);
        }
        Some(Tokens { seal: plan.seals.of_call(call_id), inward, outward, veil })
    }
}

/// What of the caller whoever gets the request is not to see.
fn hides(plan: &Plan<'_>) -> Hidden {
    let (asked, known) = (privacy::asked(plan.message), known(plan));
    if plan.to == Neighbour::Trusted || asked.none {
        return Hidden::default();
    }
    Hidden { from: asked.user || known.user, header: seals_contact(plan, asked.header, known) }
}

/// Whether the responses to the request are other than what comes back for it.
pub fn is_veiled(plan: &Plan<'_>) -> bool {
    let Hidden { from, header } = hides(plan);
    from || header || side(plan) == Some(Side::Callee)
}

fn side(plan: &Plan<'_>) -> Option<Side> {
    plan.routed.veil.as_ref()?.side(plan.message)
}

/// What the caller asked for when the dialog began.
fn known(plan: &Plan<'_>) -> Privacy {
    let veil = plan.routed.veil.as_ref().filter(|veil| veil.side(plan.message) == Some(Side::Caller));
    veil.map_or(Privacy::default(), Veil::privacy)
}

/// Whether Contact and the way are hidden. Once that has begun it goes on, at the price of a Contact that is too long.
fn seals_contact(plan: &Plan<'_>, asked: bool, known: Privacy) -> bool {
    known.header || asked && veil::covers(plan.message)
}

/// Requests that may set up a dialog get our Record-Route.
fn makes_dialog(message: &Message<'_>) -> bool {
    matches!(message.method(), Method::Invite | Method::Subscribe | Method::Refer | Method::Notify)
        && !message.is_in_dialog()
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
        if let Some(elsewhere) = &target.elsewhere {
            sip_proto::edit::header(t, HeaderName::Route, |t| {
                write_route_elsewhere(t, elsewhere, plan.seals, plan.message.call_id().unwrap_or_default());
            });
        }
        if !target.path.is_empty() {
            path_routes(target, t);
        }
    });
    common(plan, target, hop, edits);
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
    if plan.message.bytes().len() + plan.body.map_or(0, <[u8]>::len) + target.uri.len() + target.path.len() + ADDED
        <= limit
    {
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
    common(plan, target, hop, edits);
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
    write_record_route(t, hop.transport(), sent_by, &tokens.outward, &tokens.seal, &tokens.veil);
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
    sip_proto::edit::header(t, HeaderName::Route, |t| {
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

fn common(plan: &Plan<'_>, target: &Target, hop: &Hop, edits: &mut Edits) {
    let message = plan.message;
    request_uri(plan, target, edits);
    let hidden = hide(plan, hop, edits);
    if !hidden.header
        && let Some(via) = top_via_span(message)
    {
        edits.replace(via, |t| write_top_via(message, plan.source.remote, t));
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
    drop_credentials(message, plan.home, edits);
    if !plan.trusted {
        privacy::arriving(message, Neighbour::Untrusted, true, edits);
        message.lines(HeaderName::PPreferredIdentity).for_each(|l| edits.delete(l.line()));
    }
    if let (Some(link), Neighbour::Trusted) = (plan.link, plan.to) {
        message.lines(HeaderName::PServedUser).filter(|_| plan.trusted).for_each(|l| edits.delete(l.line()));
        edits.insert_header(message.headers_start(), HeaderName::PServedUser, |t| link.write_served(t));
    }
    if let Some(user) = plan.asserted {
        assert_identity(plan, user, edits);
    }
    if let Some(body) = plan.body {
        replace_body(message, body, edits);
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

/// Leaves out or replaces what whoever gets the request is not to see, and brings back what it is whose request it is.
fn hide(plan: &Plan<'_>, hop: &Hop, edits: &mut Edits) -> Hidden {
    let (message, known) = (plan.message, known(plan));
    let call_id = message.call_id().unwrap_or_default();
    let mut seal = |uri: &[u8], out: &mut Vec<u8>| veil::write_contact(plan.home, plan.seals, call_id, hop, uri, out);
    let seal: Option<&mut Seal<'_>> =
        if seals_contact(plan, privacy::asked(message).header, known) { Some(&mut seal) } else { None };
    // What cannot be fulfilled and must be was refused before it came here.
    let hidden = privacy::leaving(message, plan.to, known, seal, plan.session, edits).unwrap_or_default();
    if let (Some(Side::Callee), Some(veil), Some(to)) = (side(plan), &plan.routed.veil, message.line(HeaderName::To))
        && veil.user
    {
        edits.replace(to.value(), |t| t.extend_from_slice(&veil.from));
    }
    hidden
}

/// Puts another body in, and its length.
pub fn replace_body(message: &Message<'_>, body: &[u8], edits: &mut Edits) {
    let length = |t: &mut Vec<u8>| number(t, body.len() as u64);
    match message.line(HeaderName::ContentLength) {
        Some(line) => edits.replace(line.value(), length),
        None => edits.insert_header(message.headers_end(), HeaderName::ContentLength, length),
    }
    edits.replace(message.range_of(message.body()), |t| t.extend_from_slice(body));
}

/// The message with another body.
pub fn with_body(message: &Message<'_>, body: &[u8]) -> Vec<u8> {
    let mut edits = Edits::new();
    replace_body(message, body, &mut edits);
    let mut out = Vec::with_capacity(message.bytes().len() + body.len());
    edits.apply(message.bytes(), &mut out);
    out
}

/// RFC 3325 §5: the identity that we authenticated, as SIP URI and as number.
fn assert_identity(plan: &Plan<'_>, user: &User, edits: &mut Edits) {
    if plan.message.method() == Method::Ack || plan.message.method() == Method::Cancel {
        return;
    }
    let hidden = privacy::asked(plan.message).hides_identity() || known(plan).hides_identity();
    if hidden && plan.to == Neighbour::Untrusted {
        return;
    }
    edits.insert_header(plan.message.headers_start(), HeaderName::PAssertedIdentity, |t| {
        write_identity(user, plan.home, t);
    });
}

/// The value of P-Asserted-Identity for a user of ours.
pub fn write_identity(user: &User, home: &Home, t: &mut Vec<u8>) {
    t.extend_from_slice(b"<sip:");
    t.extend_from_slice(user.aor.user().as_bytes());
    t.push(b'@');
    t.extend_from_slice(home.domain().as_bytes());
    t.push(b'>');
    if let Some(number) = user.msisdn {
        t.extend_from_slice(b", <tel:");
        sip_proto::edit::display(t, number);
        t.push(b'>');
    }
}

/// Credentials for us go no further (RFC 3261 §22.3 lets a proxy consume its own).
pub fn drop_credentials(message: &Message<'_>, home: &Home, edits: &mut Edits) {
    for line in message.lines(HeaderName::ProxyAuthorization) {
        if names_realm(&message.bytes()[line.value()], home.domain()) {
            edits.delete(line.line());
        }
    }
}

fn names_realm(credentials: &[u8], realm: &str) -> bool {
    Credentials::parse(credentials).is_some_and(|c| c.realm.eq_ignore_ascii_case(realm.as_bytes()))
}
