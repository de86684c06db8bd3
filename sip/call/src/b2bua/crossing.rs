//! What of a message goes over from one dialog to the other, and what belongs to one dialog only (RFC 7092, TS 24.229 §5.7.5).
//!
//! Everything that is not named here crosses as it came: bodies, headers that nobody in this house knows, P-headers.

use sip_proto::build::Writer;
use sip_proto::headers::{CSeq, NameAddr, RAck, ReferTo, Replaces, write_tokens};
use sip_proto::{HeaderName, Message};

use super::{Joints, key};
use sip_proto::dialog::DialogId;

/// Extensions (RFC 3261 §20.32) that work through us: the ends may require them of each other, and of us.
const CROSSING: [&[u8]; 14] = [
    b"100rel",
    b"199",
    b"answermode",
    b"early-session",
    b"eventlist",
    b"from-change",
    b"histinfo",
    b"multiple-refer",
    b"norefersub",
    b"precondition",
    b"privacy",
    b"replaces",
    b"resource-priority",
    b"timer",
];

fn crosses(extension: &[u8]) -> bool {
    CROSSING.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// What a request requires and we would break: 420.
pub fn unsupported<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let values: Vec<&'a [u8]> = message.list(HeaderName::Require).collect();
    values.into_iter().find(|extension| !crosses(extension))
}

/// Writes what crosses, body included. `joints` knows the other view of a dialog that Replaces names (RFC 3891).
pub fn write(w: &mut Writer<'_>, message: &Message<'_>, joints: &Joints) {
    for line in message.headers() {
        let value = &message.bytes()[line.value()];
        match line.name {
            HeaderName::Via
            | HeaderName::Route
            | HeaderName::RecordRoute
            | HeaderName::Path
            | HeaderName::MaxForwards
            | HeaderName::From
            | HeaderName::To
            | HeaderName::CallId
            | HeaderName::CSeq
            | HeaderName::Contact
            | HeaderName::RAck
            | HeaderName::ContentType
            | HeaderName::ContentLength => {}
            HeaderName::Supported => w.header(HeaderName::Supported, |out| {
                write_tokens(sip_proto::headers::list(value).filter(|e| crosses(e)), out);
            }),
            HeaderName::Replaces => match Replaces::parse(value) {
                Some(replaces) => w.header(HeaderName::Replaces, |out| out.extend(joints.seen_from_there(&replaces))),
                None => w.text(HeaderName::Replaces, value),
            },
            HeaderName::ReferTo => w.header(HeaderName::ReferTo, |out| write_refer_to(value, joints, out)),
            HeaderName::Other => {
                if let Ok(name) = std::str::from_utf8(message.name_of(line)) {
                    w.other(name, |out| out.extend_from_slice(value));
                }
            }
            name => w.text(name, value),
        }
    }
    if !message.body().is_empty() {
        let content_type = message.value(HeaderName::ContentType).unwrap_or(b"application/octet-stream");
        w.body(content_type, message.body());
    }
}

/// Our Contact in the place of theirs, with what theirs says they can do (RFC 3840). A redirection names others: it stays.
pub fn write_contact(w: &mut Writer<'_>, message: &Message<'_>, ours: &[u8]) {
    if !message.is_request() && message.status() >= 300 {
        return w.copy(message, HeaderName::Contact);
    }
    let Some(contact) = message.list(HeaderName::Contact).next().and_then(NameAddr::parse) else { return };
    w.header(HeaderName::Contact, |out| {
        out.extend_from_slice(ours);
        for (name, value) in contact.params.iter().filter(|(name, _)| !is_of_the_phone(name)) {
            out.push(b';');
            out.extend_from_slice(name);
            if let Some(value) = value {
                out.push(b'=');
                out.extend_from_slice(value);
            }
        }
    });
}

/// Parameters that name the phone itself, or say something of its registration.
fn is_of_the_phone(name: &[u8]) -> bool {
    const OWN: [&[u8]; 6] = [b"+sip.instance", b"reg-id", b"pub-gruu", b"temp-gruu", b"expires", b"q"];
    OWN.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// RAck names the INVITE by its number in its own dialog: `came` there, `went` here (RFC 3262 §7.2).
pub fn write_rack(w: &mut Writer<'_>, message: &Message<'_>, invite: Option<(u32, u32)>) {
    let Some(rack) = message.value(HeaderName::RAck).and_then(RAck::parse) else { return };
    let number = invite.filter(|(came, _)| *came == rack.cseq.number).map_or(rack.cseq.number, |(_, went)| went);
    let cseq = CSeq { number, ..rack.cseq };
    w.header(HeaderName::RAck, |out| RAck { cseq, ..rack }.write(out));
}

/// The Replaces in a Refer-To names a dialog of who refers; whoever gets the INVITE knows it by its other end.
fn write_refer_to(value: &[u8], joints: &Joints, out: &mut Vec<u8>) {
    let embedded = ReferTo::parse(value).and_then(|to| to.embedded("replaces"));
    let found = embedded.as_deref().and_then(Replaces::parse).map(|replaces| joints.seen_from_there(&replaces));
    let place = found.as_ref().and_then(|_| {
        let start = value.to_ascii_lowercase().windows(9).position(|w| w == b"replaces=")? + 9;
        let length = value[start..].iter().position(|b| matches!(b, b'&' | b'>')).unwrap_or(value.len() - start);
        Some(start..start + length)
    });
    match (found, place) {
        (Some(replaces), Some(place)) => {
            out.extend_from_slice(&value[..place.start]);
            for &b in &replaces {
                if b.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&b) {
                    out.push(b);
                } else {
                    sip_proto::uri::push_escape(b, out);
                }
            }
            out.extend_from_slice(&value[place.end..]);
        }
        _ => out.extend_from_slice(value),
    }
}

impl Joints {
    /// The value of Replaces for the far end of a joint, when it names the near one as that end's peer sees it; else as it is.
    fn seen_from_there(&self, replaces: &Replaces<'_>) -> Vec<u8> {
        let Replaces { call_id, to_tag, from_tag, .. } = *replaces;
        let named = DialogId { call_id, local_tag: to_tag, remote_tag: from_tag };
        let mut out = Vec::new();
        let found = self.table.lock().by_dialog.get(&key(&named)).cloned();
        match found {
            Some((joint, side)) => {
                let there = &joint.keys[side.other() as usize];
                let mut parts = there.split(|b| *b == 0);
                let mut part = || parts.next().unwrap_or_default();
                let (call_id, ours, theirs) = (part(), part(), part());
                Replaces { call_id, to_tag: theirs, from_tag: ours, ..*replaces }.write(&mut out);
            }
            None => replaces.write(&mut out),
        }
        out
    }
}
