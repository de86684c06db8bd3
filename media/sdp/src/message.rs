//! `m=message`: MSRP sessions in a description (RFC 4975 §8, RFC 6135, RFC 8122).

use std::io::Write;
use std::net::IpAddr;

use crate::{Sdp, Section};

/// Which end opens the connection (RFC 4145 §4, RFC 6135).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setup {
    Active,
    Passive,
    /// Of an offer: either.
    ActPass,
    /// Nobody, for now.
    HoldConn,
}

impl Setup {
    pub fn parse(text: &[u8]) -> Option<Setup> {
        let all = [Setup::Active, Setup::Passive, Setup::ActPass, Setup::HoldConn];
        all.into_iter().find(|s| s.as_str().as_bytes().eq_ignore_ascii_case(text.trim_ascii()))
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Setup::Active => "active",
            Setup::Passive => "passive",
            Setup::ActPass => "actpass",
            Setup::HoldConn => "holdconn",
        }
    }
}

/// What a media section says of an MSRP session. All of it borrows from the description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Messages<'a> {
    /// 0: refused.
    pub port: u16,
    /// `TCP/TLS/MSRP`.
    pub secure: bool,
    /// The URIs of `a=path`, as they stand; never empty.
    pub path: &'a [u8],
    /// `a=accept-types`, which every description needs (RFC 4975 §8.6); empty in some that come.
    pub accept_types: &'a [u8],
    pub accept_wrapped_types: &'a [u8],
    /// The largest message, in bytes.
    pub max_size: Option<u64>,
    pub setup: Option<Setup>,
    /// `a=fingerprint`, as it stands.
    pub fingerprint: Option<&'a [u8]>,
}

/// Whether a section is an MSRP session, in use or not.
pub fn is_messages(section: &Section<'_>) -> bool {
    let protocols: [&[u8]; 2] = [b"TCP/MSRP", b"TCP/TLS/MSRP"];
    section.line.kind.eq_ignore_ascii_case(b"message")
        && protocols.iter().any(|p| p.eq_ignore_ascii_case(section.line.protocol))
}

impl<'a> Messages<'a> {
    /// `None` for other media, and for a session without a path.
    pub fn of(sdp: &Sdp<'a>, section: &Section<'a>) -> Option<Messages<'a>> {
        if !is_messages(section) {
            return None;
        }
        let number = |text: &[u8]| {
            let digits = text.trim_ascii();
            let fine = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
            fine.then(|| digits.iter().fold(0, |n, b| n * 10 + u64::from(b - b'0')))
        };
        Some(Messages {
            port: section.line.port,
            secure: section.line.protocol.len() > b"TCP/MSRP".len(),
            path: sdp.attribute(section, "path").map(<[u8]>::trim_ascii).filter(|p| !p.is_empty())?,
            accept_types: sdp.attribute(section, "accept-types").unwrap_or_default().trim_ascii(),
            accept_wrapped_types: sdp.attribute(section, "accept-wrapped-types").unwrap_or_default().trim_ascii(),
            max_size: sdp.attribute(section, "max-size").and_then(number),
            setup: sdp.attribute_anywhere(section, "setup").and_then(Setup::parse),
            fingerprint: sdp.attribute_anywhere(section, "fingerprint"),
        })
    }

    /// The same inside of a CPIM message, where nothing said means anything (RFC 4975 §8.6).
    pub fn accepts_wrapped(types: &[u8], media_type: &[u8]) -> bool {
        types.is_empty() || accepts(types, media_type)
    }

    /// Whether a body of this type may be sent as a message of its own (RFC 4975 §8.6). Parameters do not count.
    pub fn accepts(&self, media_type: &[u8]) -> bool {
        accepts(self.accept_types, media_type)
    }
}

/// Whether a list of types and ranges takes in a type.
fn accepts(types: &[u8], media_type: &[u8]) -> bool {
    fn essence(text: &[u8]) -> &[u8] {
        text.split(|&b| b == b';').next().unwrap_or_default()
    }
    let wanted = essence(media_type).trim_ascii();
    let kind = wanted.split(|&b| b == b'/').next().unwrap_or_default();
    types.split(|&b| b == b' ').map(essence).any(|entry| {
        entry == b"*"
            || entry.eq_ignore_ascii_case(wanted)
            || entry.strip_suffix(b"/*").is_some_and(|k| k.eq_ignore_ascii_case(kind))
    })
}

/// What we say of ourselves where a session ends here.
#[derive(Clone, Debug)]
pub struct Own<'a> {
    pub at: Anchored<'a>,
    /// `message/cpim text/plain`.
    pub accept_types: &'a str,
    /// Of what stands inside of those; empty: nothing is said.
    pub accept_wrapped_types: &'a str,
    /// Bytes.
    pub max_size: u64,
    /// Further attributes: `chatroom:nickname private-messages`.
    pub more: &'a [&'a str],
}

/// Appends a media section of ours.
pub fn write(own: &Own<'_>, out: &mut Vec<u8>) {
    // Writing into a Vec cannot fail.
    let protocol = if own.at.secure { "TCP/TLS/MSRP" } else { "TCP/MSRP" };
    let _ = write!(out, "m=message {} {protocol} *\r\n", own.at.port);
    connection(own.at.address, out);
    let _ = write!(out, "a=accept-types:{}\r\n", own.accept_types);
    if !own.accept_wrapped_types.is_empty() {
        let _ = write!(out, "a=accept-wrapped-types:{}\r\n", own.accept_wrapped_types);
    }
    let _ = write!(out, "a=max-size:{}\r\n", own.max_size);
    for line in own.more {
        let _ = write!(out, "a={line}\r\n");
    }
    attributes(&own.at, out);
}

/// Appends a media section that refuses another (RFC 3264 §6).
pub fn write_refusal(section: &Section<'_>, out: &mut Vec<u8>) {
    media_line(section, None, out);
}

/// What an anchor puts in the place of a peer's own address.
#[derive(Clone, Debug)]
pub struct Anchored<'a> {
    /// The new path: one URI of ours.
    pub path: &'a [u8],
    pub address: IpAddr,
    pub port: u16,
    pub secure: bool,
    /// `None`: the far end has not heard of RFC 6135.
    pub setup: Option<Setup>,
    /// `sha-256 …`, when `secure`.
    pub fingerprint: Option<String>,
}

/// What becomes of a section.
#[derive(Clone, Debug)]
pub enum Change<'a> {
    Keep,
    Anchor(Anchored<'a>),
    /// Port 0 (RFC 3264 §6).
    Refuse,
}

/// Writes a description with some of its sections changed. All else stays byte for byte.
pub fn rewrite<'c>(sdp: &Sdp<'_>, out: &mut Vec<u8>, mut change: impl FnMut(usize) -> Change<'c>) {
    let mut at = 0;
    for (index, section) in sdp.media().iter().enumerate() {
        let lines = sdp.lines(section);
        let Some(first) = lines.first() else { continue };
        let change = change(index);
        let anchored = match &change {
            Change::Keep => continue,
            Change::Refuse => None,
            Change::Anchor(anchored) => Some(anchored),
        };
        out.extend_from_slice(&sdp.bytes[at..first.start]);
        media_line(section, anchored, out);
        at = first.end;
        let Some(anchored) = anchored else { continue };
        connection(anchored.address, out);
        for line in &lines[1..] {
            let ours = line.kind == b'c' || line.attribute().is_some_and(|(name, _)| is_replaced(name));
            out.extend_from_slice(&sdp.bytes[at..line.start]);
            at = if ours { line.end } else { line.start };
        }
        let end = lines.last().map_or(at, |l| l.end);
        out.extend_from_slice(&sdp.bytes[at..end]);
        at = end;
        if !out.ends_with(b"\n") {
            out.extend_from_slice(b"\r\n");
        }
        attributes(anchored, out);
    }
    out.extend_from_slice(&sdp.bytes[at..]);
}

fn is_replaced(name: &[u8]) -> bool {
    // msrp-cema: the path itself is changed here, so that nobody has to look at the c= line (RFC 6714 §6).
    ["path", "setup", "fingerprint", "connection", "msrp-cema"].iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
}

fn media_line(section: &Section<'_>, anchored: Option<&Anchored<'_>>, out: &mut Vec<u8>) {
    let line = &section.line;
    out.extend_from_slice(b"m=");
    out.extend_from_slice(line.kind);
    let protocol: &[u8] = match anchored {
        Some(a) if a.secure => b"TCP/TLS/MSRP",
        Some(_) => b"TCP/MSRP",
        None => line.protocol,
    };
    // Writing into a Vec cannot fail.
    let _ = write!(out, " {} ", anchored.map_or(0, |a| a.port));
    out.extend_from_slice(protocol);
    out.push(b' ');
    out.extend_from_slice(line.formats);
    out.extend_from_slice(b"\r\n");
}

fn connection(address: IpAddr, out: &mut Vec<u8>) {
    // As above.
    let _ = write!(out, "c=IN {} {address}\r\n", if address.is_ipv6() { "IP6" } else { "IP4" });
}

fn attributes(anchored: &Anchored<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"a=path:");
    out.extend_from_slice(anchored.path);
    out.extend_from_slice(b"\r\n");
    // As above.
    if let Some(setup) = anchored.setup {
        let _ = write!(out, "a=setup:{}\r\n", setup.as_str());
    }
    if let Some(fingerprint) = anchored.fingerprint.as_ref().filter(|_| anchored.secure) {
        let _ = write!(out, "a=fingerprint:{fingerprint}\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4975 §8.7, figure 9, with what later RFCs add.
    const OFFER: &[u8] = b"v=0\r\no=usera 2890844526 2890844527 IN IP4 alice.example.com\r\ns= -\r\n\
        c=IN IP4 alice.example.com\r\nt=0 0\r\nm=message 7394 TCP/MSRP *\r\na=accept-types:message/cpim text/* text/html;a=b\r\n\
        a=path:msrp://alice.example.com:7394/2s93i93idj;tcp\r\na=setup:actpass\r\na=max-size:1048576\r\na=x-kept:1\r\n";

    #[test]
    fn an_offer_reads() {
        let sdp = Sdp::parse(OFFER).unwrap();
        let messages = Messages::of(&sdp, &sdp.media()[0]).unwrap();
        assert_eq!(messages.path, b"msrp://alice.example.com:7394/2s93i93idj;tcp");
        assert_eq!((messages.setup, messages.max_size), (Some(Setup::ActPass), Some(1_048_576)));
        for accepted in ["text/plain;charset=utf-8", "Message/CPIM", "text/html"] {
            assert!(messages.accepts(accepted.as_bytes()), "{accepted}");
        }
        assert!(!messages.accepts(b"image/png"));
    }

    #[test]
    fn an_anchor_changes_where_to_connect_and_nothing_else() {
        let sdp = Sdp::parse(OFFER).unwrap();
        let mut out = Vec::new();
        rewrite(&sdp, &mut out, |_| {
            Change::Anchor(Anchored {
                path: b"msrps://192.0.2.1:2856/abc;tcp",
                address: "192.0.2.1".parse().unwrap(),
                port: 2856,
                secure: true,
                setup: Some(Setup::Passive),
                fingerprint: Some("sha-256 AA".to_owned()),
            })
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "v=0\r\no=usera 2890844526 2890844527 IN IP4 alice.example.com\r\ns= -\r\nc=IN IP4 alice.example.com\r\nt=0 0\r\n\
            m=message 2856 TCP/TLS/MSRP *\r\nc=IN IP4 192.0.2.1\r\na=accept-types:message/cpim text/* text/html;a=b\r\n\
            a=max-size:1048576\r\na=x-kept:1\r\na=path:msrps://192.0.2.1:2856/abc;tcp\r\na=setup:passive\r\n\
            a=fingerprint:sha-256 AA\r\n"
        );
    }

    #[test]
    fn other_sections_and_a_missing_line_break_survive() {
        let text = b"v=0\ns=-\nm=audio 1 RTP/AVP 0\na=x\nm=message 9 TCP/MSRP *\na=path:msrp://h:9/s;tcp\nm=message 8 TCP/MSRP *\na=y";
        let sdp = Sdp::parse(text).unwrap();
        assert!(Messages::of(&sdp, &sdp.media()[0]).is_none());
        assert!(Messages::of(&sdp, &sdp.media()[2]).is_none());
        let mut same = Vec::new();
        rewrite(&sdp, &mut same, |_| Change::Keep);
        assert_eq!(same, text);
        let mut out = Vec::new();
        rewrite(&sdp, &mut out, |index| match index {
            1 => Change::Refuse,
            2 => Change::Anchor(Anchored {
                path: b"msrp://[2001:db8::1]:7/q;tcp",
                address: "2001:db8::1".parse().unwrap(),
                port: 7,
                secure: false,
                setup: None,
                fingerprint: None,
            }),
            _ => Change::Keep,
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "v=0\ns=-\nm=audio 1 RTP/AVP 0\na=x\nm=message 0 TCP/MSRP *\r\na=path:msrp://h:9/s;tcp\n\
            m=message 7 TCP/MSRP *\r\nc=IN IP6 2001:db8::1\r\na=y\r\na=path:msrp://[2001:db8::1]:7/q;tcp\r\n"
        );
    }
}
