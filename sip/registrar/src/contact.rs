//! What a REGISTER asks for, read and checked (RFC 3261 §10.3 steps 2, 6 and 7; RFC 3327, 5626, 5627).

use std::borrow::Cow;

use sip_proto::headers::{NameAddr, Q, Via, delta_seconds, list};
use sip_proto::uri::Uri;
use sip_proto::validate::{self, BadExtension};
use sip_proto::{Flow, HeaderName, Message};
use smallvec::SmallVec;

use crate::registrar::RegistrarConfig;
use crate::way::{Way, needs_flow};

/// Bytes of one contact URI.
pub const MAX_CONTACT: usize = 1024;
/// Bytes of the parameters of one contact that are kept.
pub const MAX_PARAMS: usize = 1024;
/// Bytes of all Path values together.
pub const MAX_PATH: usize = 4096;
/// Bytes of an instance id.
pub const MAX_INSTANCE: usize = 256;
/// Bytes of a Call-ID.
pub const MAX_CALL_ID: usize = 512;
/// Bytes of a User-Agent that are kept; the rest is cut off.
pub const MAX_USER_AGENT: usize = 128;

/// The extensions that may stand in Require (RFC 3261 §10.3 step 2).
pub const EXTENSIONS: &[&str] = &["path", "outbound", "gruu"];

/// A REGISTER that makes sense.
#[derive(Debug)]
pub struct Wish<'m> {
    pub change: Change,
    /// For [`Change::Contacts`]; one is the rule.
    pub contacts: SmallVec<[Wanted<'m>; 2]>,
    /// All Path values, empty when there is none.
    pub path: Cow<'m, str>,
    pub call_id: &'m str,
    pub cseq: u32,
    pub user_agent: &'m str,
    /// The phone understands GRUUs.
    pub gruu: bool,
    /// The binding is one of RFC 5626: `Require: outbound` goes into the answer.
    pub outbound: bool,
    /// The phone is at the other end of the flow, with nobody between.
    pub direct: bool,
    /// The flow is UDP's.
    pub datagrams: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// No Contact: only show what there is.
    Fetch,
    /// `Contact: *` with `Expires: 0`.
    RemoveAll,
    Contacts,
}

/// One contact to bind or, with 0 seconds, to remove.
#[derive(Debug)]
pub struct Wanted<'m> {
    pub uri: Uri<'m>,
    /// The text of `uri`.
    pub contact: &'m str,
    /// Parameters to repeat: all but those that have their own field, and those that only we may write.
    pub params: String,
    pub instance: &'m str,
    /// 0: none, or to be ignored.
    pub reg_id: u32,
    /// Thousandths.
    pub q: u16,
    /// Granted seconds.
    pub expires: u32,
    /// The way back, when it is not the contact's own address.
    pub way: Option<Way>,
}

/// Why a REGISTER is turned away; each has its status.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Refused<'m> {
    /// The peer's: breaks a rule of the grammar or of RFC 3261 §10.
    #[error("{0}")]
    Bad(&'static str),
    /// The peer's: more or longer than is kept.
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("Bad Extension")]
    Extension(BadExtension<'m>),
    /// A proxy added a Path for a phone that knows nothing of it (RFC 3327 §5.3).
    #[error("Path Without Support")]
    Path,
    #[error("First Hop Lacks Outbound Support")]
    NoOutbound,
    #[error("Interval Too Brief")]
    TooBrief,
    /// A request of the same Call-ID with a higher CSeq was there before.
    #[error("CSeq Out Of Order")]
    OutOfOrder,
}

impl Refused<'_> {
    pub fn status(&self) -> u16 {
        match self {
            Refused::Bad(_) => 400,
            Refused::Forbidden(_) => 403,
            Refused::Extension(_) | Refused::Path => 420,
            Refused::NoOutbound => 439,
            Refused::TooBrief => 423,
            Refused::OutOfOrder => 500,
        }
    }
}

/// Whether each Contact can be read at all.
pub fn are_readable(message: &Message<'_>) -> bool {
    message.list(HeaderName::Contact).all(|value| NameAddr::parse(value).is_some())
}

/// Reads a REGISTER that passed [`validate::request`]. `trusted`: from the core, whose Path is taken as it is.
pub fn read<'m>(
    config: &RegistrarConfig,
    message: &'m Message<'m>,
    flow: &Flow,
    trusted: bool,
) -> Result<Wish<'m>, Refused<'m>> {
    validate::extensions(message, HeaderName::Require, EXTENSIONS).map_err(Refused::Extension)?;
    let via = message.top_via().ok_or(Refused::Bad("Missing Via"))?;
    let one_via = message.has_one_via();
    let path = path(message)?;
    let (mut supports_path, mut supports, mut gruu) = (false, false, false);
    for tag in message.list(HeaderName::Supported) {
        supports_path |= tag.eq_ignore_ascii_case(b"path");
        supports |= tag.eq_ignore_ascii_case(b"outbound");
        gruu |= tag.eq_ignore_ascii_case(b"gruu");
    }
    if !path.is_empty() && !trusted && !supports_path {
        return Err(Refused::Path);
    }
    let direct = one_via && path.is_empty();
    let flows = Flows { flow, direct, supports };
    let Ok(call_id) = std::str::from_utf8(message.call_id().unwrap_or_default()) else {
        return Err(Refused::Bad("Missing Or Bad Call-ID"));
    };
    if call_id.len() > MAX_CALL_ID {
        return Err(Refused::Bad("Call-ID Too Long"));
    }
    let cseq = message.cseq().ok_or(Refused::Bad("Missing Or Bad CSeq"))?.number;
    let agent = message.value(HeaderName::UserAgent).unwrap_or_default();
    let mut wish = Wish {
        change: Change::Fetch,
        contacts: SmallVec::new(),
        path,
        call_id,
        cseq,
        user_agent: cut(agent, MAX_USER_AGENT),
        gruu,
        outbound: false,
        direct,
        datagrams: !flow.transport.is_reliable(),
    };
    if message.line(HeaderName::Contact).is_none() {
        return Ok(wish);
    }
    let header = message.value(HeaderName::Expires).map(|v| delta_seconds(v).unwrap_or(UNREADABLE));
    let mut contacts: SmallVec<[Wanted<'m>; 2]> = SmallVec::new();
    for value in message.list(HeaderName::Contact) {
        let contact = NameAddr::parse(value).ok_or(Refused::Bad("Malformed Contact"))?;
        if contact.is_star() {
            if message.list(HeaderName::Contact).count() > 1 || header != Some(0) {
                return Err(Refused::Bad("Contact * Needs Expires 0 And No Other Contact"));
            }
            wish.change = Change::RemoveAll;
            return Ok(wish);
        }
        if contacts.len() >= config.max_contacts {
            return Err(Refused::Forbidden("Too Many Contacts"));
        }
        let wanted = wanted(config, &contact, header, &via, &flows, wish.path.as_bytes())?;
        if contacts.iter().any(|c| c.is_same(&wanted)) {
            return Err(Refused::Bad("Repeated Contact"));
        }
        contacts.push(wanted);
    }
    let flowing = |c: &&Wanted<'_>| c.expires > 0 && c.reg_id > 0;
    if contacts.iter().any(|c| flowing(&c)) {
        if contacts.iter().filter(|c| c.expires > 0).count() > 1 {
            // RFC 5626 §6.
            return Err(Refused::Bad("One Flow At A Time"));
        }
        wish.outbound = supports;
    }
    (wish.change, wish.contacts) = (Change::Contacts, contacts);
    Ok(wish)
}

/// RFC 3261 §10.2.1.1: what an unreadable expiry means, in seconds.
const UNREADABLE: u32 = 3600;

struct Flows<'f> {
    flow: &'f Flow,
    direct: bool,
    supports: bool,
}

impl Flows<'_> {
    /// The first hop knows how to keep a flow: us, or an edge proxy that says so in its Path (RFC 5626 §6).
    fn are_possible(&self, path: &[u8]) -> bool {
        let edge = || list(path).next().and_then(NameAddr::parse).and_then(|a| a.uri());
        self.direct || edge().is_some_and(|uri| uri.params().has("ob"))
    }
}

fn wanted<'m>(
    config: &RegistrarConfig,
    contact: &NameAddr<'m>,
    header: Option<u32>,
    via: &Via<'_>,
    flows: &Flows<'_>,
    path: &[u8],
) -> Result<Wanted<'m>, Refused<'m>> {
    let addr = contact.addr;
    let uri = Uri::parse(addr).ok_or(Refused::Bad("Malformed Contact"))?;
    if !uri.is_sip() {
        // RFC 5627 §5.1 for phones with an instance; for others it could not be routed to either.
        return Err(Refused::Forbidden("Contact Is No SIP URI"));
    }
    if !uri.headers().is_empty() {
        return Err(Refused::Bad("Headers In Contact URI"));
    }
    let text = |bytes: &'m [u8]| std::str::from_utf8(bytes).map_err(|_| Refused::Bad("Malformed Contact"));
    let contact_text = text(addr)?;
    let (mut params, mut q, mut asked) = (String::new(), Q::ONE, header);
    let (mut instance, mut flow) = ("", None);
    // One pass over the parameters: this runs for every refresh.
    for (name, value) in contact.params.iter() {
        match name.len() {
            1 if name.eq_ignore_ascii_case(b"q") => {
                q = value.and_then(Q::parse).ok_or(Refused::Bad("Bad q In Contact"))?;
            }
            7 if name.eq_ignore_ascii_case(b"expires") => {
                asked = Some(value.and_then(delta_seconds).unwrap_or(UNREADABLE));
            }
            // RFC 5626 §4.2: 1 to 2^31 - 1.
            6 if name.eq_ignore_ascii_case(b"reg-id") => {
                flow = value.and_then(delta_seconds).filter(|n| (1..1 << 31).contains(n));
            }
            13 if name.eq_ignore_ascii_case(b"+sip.instance") => {
                let inner = value.and_then(|v| v.strip_prefix(b"\"<")?.strip_suffix(b">\""));
                instance = text(inner.unwrap_or_default())?;
            }
            8 if name.eq_ignore_ascii_case(b"pub-gruu") => {}
            9 if name.eq_ignore_ascii_case(b"temp-gruu") => {}
            _ => {
                params.push(';');
                params.push_str(text(name)?);
                if let Some(value) = value {
                    params.push('=');
                    params.push_str(text(value)?);
                }
            }
        }
    }
    if addr.len() > MAX_CONTACT || params.len() > MAX_PARAMS || instance.len() > MAX_INSTANCE {
        return Err(Refused::Bad("Contact Too Long"));
    }
    let expires = granted(config, asked)?;
    let mut reg_id = flow.filter(|_| !instance.is_empty()).unwrap_or(0);
    if reg_id > 0 && !flows.are_possible(path) {
        if flows.supports && expires > 0 {
            return Err(Refused::NoOutbound);
        }
        reg_id = 0;
    }
    let way = (flows.direct && (reg_id > 0 || needs_flow(&uri, via, flows.flow))).then(|| Way::of(flows.flow));
    Ok(Wanted { uri, contact: contact_text, params, instance, reg_id, q: q.thousandths(), expires, way })
}

/// The expiry that is granted, in seconds; 0 removes.
fn granted<'m>(config: &RegistrarConfig, asked: Option<u32>) -> Result<u32, Refused<'m>> {
    match asked.unwrap_or(config.default_expires) {
        0 => Ok(0),
        // An hour may not be refused (RFC 3261 §10.3 step 7).
        n if n < config.min_expires && n < 3600 => Err(Refused::TooBrief),
        n => Ok(n.min(config.max_expires.max(1))),
    }
}

impl Wanted<'_> {
    /// Whether both would be one binding.
    fn is_same(&self, other: &Wanted<'_>) -> bool {
        match (self.reg_id, other.reg_id) {
            (0, 0) => self.uri.equivalent(&other.uri),
            (a, b) => a == b && self.instance == other.instance,
        }
    }
}

fn path<'m>(message: &'m Message<'m>) -> Result<Cow<'m, str>, Refused<'m>> {
    let bad = |_: std::str::Utf8Error| Refused::Bad("Malformed Path");
    let mut lines = message.values(HeaderName::Path);
    let first = lines.next().unwrap_or_default();
    let path = match lines.next() {
        None => Cow::Borrowed(std::str::from_utf8(first).map_err(bad)?),
        Some(second) => {
            let mut all = first.to_vec();
            for line in std::iter::once(second).chain(lines) {
                all.extend_from_slice(b", ");
                all.extend_from_slice(line);
            }
            Cow::Owned(String::from_utf8(all).map_err(|_| Refused::Bad("Malformed Path"))?)
        }
    };
    if path.len() > MAX_PATH {
        return Err(Refused::Bad("Path Too Long"));
    }
    if list(path.as_bytes()).any(|p| NameAddr::parse(p).is_none_or(|a| a.uri().is_none())) {
        return Err(Refused::Bad("Malformed Path"));
    }
    Ok(path)
}

/// At most `max` bytes, cut between characters; nothing of what is not UTF-8.
fn cut(text: &[u8], max: usize) -> &str {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
