//! Descriptions that are not to say where their sender is (RFC 3323 §5.2, RFC 5379 §5.2): what a relay has to know of
//! them, and what stands in them once the relay is the address that everybody sees.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

use crate::{Line, Sdp, Section};

/// Where the sender of a section wants its media (its `c=` line, or that of the session).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// RTP, and RTCP by `a=rtcp` (RFC 3605) or at the next port.
    At { media: SocketAddr, control: SocketAddr },
    /// A host name, or nothing that could be read: whoever sends first is there.
    Unknown,
    /// `0.0.0.0`: nothing is to be sent (RFC 2543 §B.5, RFC 3264 §8.4).
    Nowhere,
}

/// Whether a section is carried in datagrams from one port to another, whatever is in them: RTP in all its profiles,
/// SRTP with its DTLS, fax (T.38), BFCP.
pub fn is_datagrams(section: &Section<'_>) -> bool {
    let protocol = section.line.protocol.split(|&b| b == b'/').next().unwrap_or_default();
    ["RTP", "UDP", "udptl"].iter().any(|p| protocol.eq_ignore_ascii_case(p.as_bytes()))
}

/// The address that a section's media go to; `None`: a name, or none at all.
pub fn address<'a>(sdp: &Sdp<'a>, section: &Section<'a>) -> Option<IpAddr> {
    let of = |lines: &[Line<'_>]| lines.iter().find(|l| l.kind == b'c').map(|l| literal(l.value));
    of(sdp.lines(section)).or_else(|| of(sdp.session())).flatten()
}

/// The address of the host that made the description, by its `o=` line.
pub fn origin(sdp: &Sdp<'_>) -> Option<IpAddr> {
    let line = sdp.session().iter().find(|l| l.kind == b'o')?;
    // `o=user id version` and what a `c=` line has.
    literal(line.value.splitn(4, |&b| b == b' ').nth(3)?)
}

pub fn place<'a>(sdp: &Sdp<'a>, section: &Section<'a>) -> Place {
    let Some(ip) = address(sdp, section) else { return Place::Unknown };
    if ip.is_unspecified() {
        return Place::Nowhere;
    }
    let media = SocketAddr::new(ip, section.line.port);
    let said = sdp.attribute(section, "rtcp").map(<[u8]>::trim_ascii).and_then(|value| {
        let mut words = value.splitn(2, |&b| b == b' ');
        let port = number(words.next()?)?;
        Some(SocketAddr::new(words.next().and_then(literal).unwrap_or(ip), port))
    });
    let next = SocketAddr::new(ip, section.line.port.checked_add(1).unwrap_or(section.line.port));
    Place::At { media, control: said.unwrap_or(next) }
}

/// What becomes of a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// Its address is a server's already.
    AsItIs,
    /// This port of ours; RTCP, where it has one of its own, at the next.
    Port(u16),
    /// Port 0 (RFC 3264 §6).
    Refused,
}

/// Appends the description with `ours` for every address in it, and without what may say who its sender is: the user of
/// `o=`, the lines `i=`, `u=`, `e=`, `p=`, candidates (RFC 8839), and attributes that repeat an address. `s=`, and all
/// about codecs and keys, stays byte for byte.
pub fn write(sdp: &Sdp<'_>, ours: IpAddr, out: &mut Vec<u8>, mut shown: impl FnMut(usize) -> Shown) {
    let secrets = secrets(sdp, ours);
    for line in sdp.session() {
        session_line(line, sdp, ours, &secrets, out);
    }
    for (index, section) in sdp.media().iter().enumerate() {
        let shown = shown(index);
        for line in sdp.lines(section) {
            match (line.kind, shown) {
                (b'm', Shown::Port(port)) => media_line(section, port, out),
                (b'm', Shown::Refused) => media_line(section, 0, out),
                (b'i', _) => {}
                (_, Shown::AsItIs) => out.extend_from_slice(sdp.whole(line)),
                _ => session_line(line, sdp, ours, &secrets, out),
            }
        }
    }
}

/// A line that is the same in the session and in a section.
fn session_line(line: &Line<'_>, sdp: &Sdp<'_>, ours: IpAddr, secrets: &[&[u8]], out: &mut Vec<u8>) {
    match line.kind {
        b'o' => write_origin(line.value, ours, out),
        b'c' => {
            out.extend_from_slice(b"c=");
            // Who holds goes on holding.
            network(literal(line.value).filter(IpAddr::is_unspecified).unwrap_or(ours), out);
        }
        b'i' | b'u' | b'e' | b'p' => {}
        b'a' if tells(line, secrets) => {}
        _ => out.extend_from_slice(sdp.whole(line)),
    }
}

/// The addresses of a description as they are written in it, without ours.
fn secrets<'a>(sdp: &Sdp<'a>, ours: IpAddr) -> SmallVec<[&'a [u8]; 4]> {
    let mut found = SmallVec::new();
    for line in sdp.all() {
        let address = match line.kind {
            b'c' => line.value.split(|&b| b == b' ').nth(2).and_then(|a| a.split(|&b| b == b'/').next()),
            b'o' => line.value.split(|&b| b == b' ').nth(5),
            _ => None,
        };
        let is_ours = |a: &[u8]| std::str::from_utf8(a).is_ok_and(|a| a.parse() == Ok(ours));
        // What is shorter is met by chance.
        if let Some(address) = address.filter(|a| a.len() > 3 && !is_ours(a) && !found.contains(a)) {
            found.push(address);
        }
    }
    found
}

/// Whether an attribute goes: ICE, which would lead around us, what would put all streams on one port, where RTCP is
/// (at our next port it needs no word), a CNAME of the old kind `user@host` (RFC 3550 §6.5.1, RFC 5576 §6.1), and
/// whatever repeats an address.
fn tells(line: &Line<'_>, secrets: &[&[u8]]) -> bool {
    const GONE: [&str; 11] = [
        "candidate",
        "remote-candidates",
        "end-of-candidates",
        "ice-ufrag",
        "ice-pwd",
        "ice-options",
        "ice-lite",
        "ice-mismatch",
        "ice-pacing",
        "bundle-only",
        "rtcp",
    ];
    let (name, value) = line.attribute().unwrap_or_default();
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    GONE.iter().any(|gone| is(gone))
        || is("group") && value.get(..6).is_some_and(|v| v.eq_ignore_ascii_case(b"BUNDLE"))
        || is("ssrc") && memchr::memmem::find(value, b" cname:").is_some() && value.contains(&b'@')
        || secrets.iter().any(|secret| memchr::memmem::find(line.value, secret).is_some())
}

/// `o=`: another name and address, the same session and version (RFC 5379 §5.2.2).
fn write_origin(value: &[u8], ours: IpAddr, out: &mut Vec<u8>) {
    let mut words = value.split(|&b| b == b' ');
    out.extend_from_slice(b"o=-");
    for word in words.by_ref().skip(1).take(2) {
        out.push(b' ');
        out.extend_from_slice(word);
    }
    out.push(b' ');
    network(ours, out);
}

fn network(ours: IpAddr, out: &mut Vec<u8>) {
    // Writing into a Vec cannot fail.
    let _ = write!(out, "IN {} {ours}\r\n", if ours.is_ipv6() { "IP6" } else { "IP4" });
}

fn media_line(section: &Section<'_>, port: u16, out: &mut Vec<u8>) {
    let line = &section.line;
    out.extend_from_slice(b"m=");
    out.extend_from_slice(line.kind);
    // As above.
    let _ = write!(out, " {port} ");
    out.extend_from_slice(line.protocol);
    out.push(b' ');
    out.extend_from_slice(line.formats);
    out.extend_from_slice(b"\r\n");
}

/// The address in `IN IP4 192.0.2.1/127`.
fn literal(value: &[u8]) -> Option<IpAddr> {
    let address = value.trim_ascii().split(|&b| b == b' ').nth(2)?.split(|&b| b == b'/').next()?;
    std::str::from_utf8(address).ok()?.parse().ok()
}

fn number(digits: &[u8]) -> Option<u16> {
    std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OFFER: &str = "v=0\r\no=alice 7 9 IN IP4 10.1.2.3\r\ns=Lunch\r\ni=with bob\r\nu=http://a.example\r\ne=alice@a.example\r\n\
        p=+1 555\r\nc=IN IP4 10.1.2.3\r\nb=AS:64\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\n\
        m=audio 4000 RTP/AVP 0 8\r\ni=voice\r\na=rtpmap:0 PCMU/8000\r\na=rtcp:4005 IN IP4 10.1.2.4\r\na=rtcp-mux\r\n\
        a=candidate:1 1 UDP 1 10.1.2.9 4000 typ host\r\na=ice-ufrag:x\r\na=ice-pwd:y\r\na=x-nat:10.1.2.3:7\r\n\
        a=ssrc:1 cname:alice@h\r\na=ssrc:1 cname:4fZ+/x\r\na=sendrecv\r\n\
        m=video 4002/2 RTP/SAVP 31\r\nc=IN IP4 0.0.0.0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:k\r\n\
        m=message 2855 TCP/MSRP *\r\nc=IN IP4 192.0.2.1\r\na=path:msrp://192.0.2.1:2855/s;tcp\r\n\
        m=image 4010 udptl t38\r\nc=IN IP4 phone.a.example\r\n";

    #[test]
    fn only_our_address_is_left() {
        let sdp = Sdp::parse(OFFER.as_bytes()).unwrap();
        let mut out = Vec::new();
        write(&sdp, "192.0.2.1".parse().unwrap(), &mut out, |index| {
            [Shown::Port(30_000), Shown::Port(30_002), Shown::AsItIs, Shown::Refused][index]
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "v=0\r\no=- 7 9 IN IP4 192.0.2.1\r\ns=Lunch\r\nc=IN IP4 192.0.2.1\r\nb=AS:64\r\nt=0 0\r\n\
             m=audio 30000 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=rtcp-mux\r\na=ssrc:1 cname:4fZ+/x\r\na=sendrecv\r\n\
             m=video 30002 RTP/SAVP 31\r\nc=IN IP4 0.0.0.0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:k\r\n\
             m=message 2855 TCP/MSRP *\r\nc=IN IP4 192.0.2.1\r\na=path:msrp://192.0.2.1:2855/s;tcp\r\n\
             m=image 0 udptl t38\r\nc=IN IP4 192.0.2.1\r\n"
        );
    }

    #[test]
    fn places_are_read() {
        let sdp = Sdp::parse(OFFER.as_bytes()).unwrap();
        let at =
            |media: &str, control: &str| Place::At { media: media.parse().unwrap(), control: control.parse().unwrap() };
        let places: Vec<Place> = sdp.media().iter().map(|s| place(&sdp, s)).collect();
        let expected = [
            at("10.1.2.3:4000", "10.1.2.4:4005"),
            Place::Nowhere,
            at("192.0.2.1:2855", "192.0.2.1:2856"),
            Place::Unknown,
        ];
        assert_eq!(places, expected);
        assert_eq!(origin(&sdp), "10.1.2.3".parse().ok());
        let datagrams: Vec<bool> = sdp.media().iter().map(is_datagrams).collect();
        assert_eq!(datagrams, [true, true, false, true]);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_again_and_does_not_say_where(
            lines in proptest::collection::vec("(a=[a-z:]{0,9}(10\\.9\\.8\\.7)?|c=IN IP4 10\\.9\\.8\\.7|m=audio [0-9]{1,4} RTP/AVP 0|[a-z]=[ -~]{0,12})", 0..20),
        ) {
            let text = format!("v=0\r\no=x 1 1 IN IP4 10.9.8.7\r\ns=-\r\n{}\r\n", lines.join("\r\n"));
            let Ok(sdp) = Sdp::parse(text.as_bytes()) else { return Ok(()) };
            let mut out = Vec::new();
            write(&sdp, "192.0.2.1".parse().unwrap(), &mut out, |_| Shown::Port(30_000));
            let again = Sdp::parse(&out).unwrap();
            prop_assert_eq!(again.media().len(), sdp.media().len());
            let left = String::from_utf8_lossy(&out).into_owned();
            prop_assert!(!left.contains("10.9.8.7"), "{}", left);
        }
    }
}
