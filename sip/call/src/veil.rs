//! What the callee of a dialog does not see of the caller, and what brings it back: carried in our Record-Route as `hi=`, and
//! in the Contact that stands for the caller's as `hc=`, both sealed.

use sip_ims::Home;
use sip_proto::headers::{NameAddr, Privacy};
use sip_proto::privacy::Hidden;
use sip_proto::uri::Uri;
use sip_proto::{Edits, HeaderName, Hop, Message, Transport, derived, edit, privacy};

use crate::seal::{Kind, Seals};

/// Longest From that is remembered, in bytes; of a longer one only its tag is.
const MAX_FROM: usize = 400;
/// Longest Contact URI that is hidden, in bytes.
const MAX_CONTACT: usize = 500;
/// Most bytes of Record-Route, in all, that are hidden: they travel in every request of the dialog.
const MAX_ROUTE: usize = 500;

/// Of a dialog whose caller asked for privacy (RFC 3323).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Veil {
    /// From is another for the callee.
    pub user: bool,
    /// So are Via, Contact and Record-Route.
    pub header: bool,
    /// So is where its media come from and go to.
    pub session: bool,
    /// The From value that the caller began the dialog with; its tag says which side a request comes from.
    pub from: Box<[u8]>,
    /// The Record-Route values of those between the caller and us, as a Route list in the order of a request to the caller.
    pub route: Box<[u8]>,
}

/// Who sends a request in a veiled dialog.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Caller,
    Callee,
}

impl Veil {
    /// Over the request that begins a dialog.
    pub fn over(message: &Message<'_>, Hidden { from: user, header }: Hidden, session: bool) -> Veil {
        let from = message.value(HeaderName::From).unwrap_or_default();
        let from = match from.len() {
            // What comes back to the caller then is anonymous too, and the dialog is still known by its tags (RFC 3261 §12).
            MAX_FROM.. => [privacy::ANONYMOUS, b";tag=", derived::tag(from).unwrap_or_default()].concat(),
            _ => from.to_vec(),
        };
        let mut route = Vec::new();
        for item in message.list(HeaderName::RecordRoute).filter(|_| header) {
            if !route.is_empty() {
                route.push(b',');
            }
            route.extend_from_slice(item);
        }
        Veil { user, header, session, from: one_line(from), route: one_line(route) }
    }

    pub fn side(&self, message: &Message<'_>) -> Option<Side> {
        let caller = derived::tag(&self.from)?;
        let is_callers = |name| message.value(name).and_then(derived::tag) == Some(caller);
        match (is_callers(HeaderName::From), is_callers(HeaderName::To)) {
            (true, _) => Some(Side::Caller),
            (_, true) => Some(Side::Callee),
            _ => None,
        }
    }

    /// What its caller asked for.
    pub fn privacy(&self) -> Privacy {
        Privacy { user: self.user, header: self.header, session: self.session, ..Privacy::default() }
    }

    /// Appends it as a token for this call.
    pub fn seal(&self, seals: &Seals, call_id: &[u8], out: &mut Vec<u8>) {
        let flags = b'0' + u8::from(self.user) + 2 * u8::from(self.header) + 4 * u8::from(self.session);
        seals.hide(Kind::Veil, call_id, &[&[flags][..], &self.from, b"\n", &self.route].concat(), out);
    }

    pub fn reveal(seals: &Seals, call_id: &[u8], token: &[u8]) -> Option<Veil> {
        let text = seals.reveal(Kind::Veil, call_id, token)?;
        let (flags, rest) = text.split_first()?;
        let flags = flags.checked_sub(b'0').filter(|f| *f < 8)?;
        let end = rest.iter().position(|b| *b == b'\n')?;
        let (from, route) = (rest[..end].into(), rest[end + 1..].into());
        Some(Veil { user: flags & 1 != 0, header: flags & 2 != 0, session: flags & 4 != 0, from, route })
    }
}

/// A folded value on one line.
fn one_line(mut value: Vec<u8>) -> Box<[u8]> {
    value.iter_mut().filter(|b| matches!(b, b'\r' | b'\n')).for_each(|b| *b = b' ');
    value.into()
}

/// Whether what `header` privacy hides of this message is short enough to be brought back.
pub fn covers(message: &Message<'_>) -> bool {
    let route: usize = message.list(HeaderName::RecordRoute).map(|item| item.len() + 1).sum();
    let contact = message.list(HeaderName::Contact).next().and_then(NameAddr::parse);
    route <= MAX_ROUTE && contact.is_none_or(|c| c.addr.len() <= MAX_CONTACT)
}

/// Appends the URI that stands for `contact` in a message of this call that leaves by `hop`: nobody's, at our own address.
pub fn write_contact(home: &Home, seals: &Seals, call_id: &[u8], hop: &Hop, contact: &[u8], out: &mut Vec<u8>) -> bool {
    if contact.len() > MAX_CONTACT {
        return false;
    }
    let sips = contact.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sips:"));
    let transport = match hop.transport() {
        transport if sips && !transport.is_secure() => Transport::Tls,
        transport => transport,
    };
    out.extend_from_slice(if sips { b"sips:anonymous@" } else { b"sip:anonymous@" });
    out.extend_from_slice(home.sent_by(transport, hop.remote().ip()));
    if transport != Transport::Udp {
        out.extend_from_slice(b";transport=");
        out.extend_from_slice(transport.uri_token().as_bytes());
    }
    out.extend_from_slice(b";hc=");
    seals.hide(Kind::Contact, call_id, contact, out);
    true
}

/// A request to a Contact of ours that stands for another: gives the same request to the other, by the way that the veil of
/// its dialog hides. `None` when it is to nobody hidden.
pub fn lift(message: &Message<'_>, home: &Home, seals: &Seals) -> Option<Vec<u8>> {
    let to = message.request_uri();
    if !to.windows(4).any(|w| w == b";hc=") {
        return None;
    }
    let uri = Uri::parse(to).filter(|uri| home.is_us(uri))?;
    let call_id = message.call_id()?;
    let contact = seals.reveal(Kind::Contact, call_id, uri.params().get("hc")?)?;
    let mut edits = Edits::new();
    edits.replace(message.request_uri_range(), |t| t.extend_from_slice(&contact));
    let ours = message.list(HeaderName::Route).filter_map(NameAddr::parse).filter_map(|route| route.uri());
    let mut tokens = ours.filter(|uri| home.is_us(uri)).filter_map(|uri| uri.params().get("hi"));
    let veil = tokens.find_map(|token| Veil::reveal(seals, call_id, token));
    if let Some(veil) = veil.filter(|veil| !veil.route.is_empty() && veil.side(message) == Some(Side::Callee))
        && let Some(last) = message.lines(HeaderName::Route).last()
    {
        edits.insert(last.line().end, |t| {
            edit::header(t, HeaderName::Route, |t| t.extend_from_slice(&veil.route));
        });
    }
    let mut lifted = Vec::with_capacity(message.bytes().len() + 64);
    edits.apply(message.bytes(), &mut lifted);
    Some(lifted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sip_proto::FlowId;

    use super::*;

    fn home() -> Home {
        let doors = [Transport::Udp, Transport::Tcp, Transport::Tls];
        Home::new("home.test", doors.map(|t| (t, "10.0.0.1:5060".parse().unwrap())))
    }

    fn seals() -> Seals {
        Seals::new(&[5; 32])
    }

    fn contact(call_id: &[u8], transport: Transport, uri: &[u8]) -> Option<String> {
        let remote = "192.0.2.7:5060".parse().unwrap();
        let hop = Hop::Flow(sip_proto::Flow { transport, id: FlowId(1), local: remote, remote });
        let mut out = Vec::new();
        write_contact(&home(), &seals(), call_id, &hop, uri, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    fn lifted(uri: &str, call_id: &str, routes: &str) -> Option<String> {
        let text = format!(
            "BYE {uri} SIP/2.0\r\n{routes}From: <sip:b@b>;tag=2\r\nTo: <sip:anonymous@anonymous.invalid>;tag=1\r\n\
             Call-ID: {call_id}\r\nCSeq: 1 BYE\r\n\r\n"
        );
        let lifted = lift(&Message::parse(text.as_bytes()).unwrap(), &home(), &seals())?;
        Some(String::from_utf8(lifted).unwrap())
    }

    #[test]
    fn a_hidden_contact_leads_back_in_its_own_call_only() {
        for (transport, secret, starts) in [
            (Transport::Udp, "sip:alice@192.0.2.9;ob", "sip:anonymous@10.0.0.1:5060;hc="),
            (Transport::Tcp, "sip:alice@192.0.2.9", "sip:anonymous@10.0.0.1:5060;transport=tcp;hc="),
            (Transport::Udp, "SIPS:alice@a.example", "sips:anonymous@10.0.0.1:5060;transport=tls;hc="),
        ] {
            let uri = contact(b"c1", transport, secret.as_bytes()).unwrap();
            assert!(uri.starts_with(starts) && !uri.contains("alice") && !uri.contains("192"), "{uri}");
            assert!(lifted(&uri, "c1", "").unwrap().starts_with(&format!("BYE {secret} SIP/2.0\r\n")));
            assert_eq!(lifted(&uri, "c2", ""), None);
            assert_eq!(lifted(&uri.replace("10.0.0.1", "10.0.0.2"), "c1", ""), None);
        }
        assert_eq!(contact(b"c1", Transport::Udp, &[b'x'; MAX_CONTACT + 1]), None);
    }

    #[test]
    fn the_way_behind_us_comes_back_for_the_callee_only() {
        let begins = b"INVITE sip:b SIP/2.0\r\nRecord-Route: <sip:p2;lr>\r\nRecord-Route: <sip:p1;lr>\r\n\
            From: <sip:alice@a>;tag=1\r\n\r\n";
        let veil = Veil::over(&Message::parse(begins).unwrap(), Hidden { from: false, header: true }, false);
        let (mut hi, uri) = (Vec::new(), contact(b"c1", Transport::Udp, b"sip:alice@192.0.2.9").unwrap());
        veil.seal(&seals(), b"c1", &mut hi);
        assert_eq!(Veil::reveal(&seals(), b"c1", &hi), Some(veil));
        let route = format!("Route: <sip:10.0.0.1:5060;lr;hi={}>\r\n", String::from_utf8(hi).unwrap());
        let text = lifted(&uri, "c1", &route).unwrap();
        assert!(text.contains(&format!("{route}Route: <sip:p2;lr>,<sip:p1;lr>\r\n")), "{text}");
        let text = lifted(&uri, "c1", &route.replace("10.0.0.1", "10.0.0.2")).unwrap();
        assert!(!text.contains("p2"), "{text}");
    }

    proptest! {
        #[test]
        fn a_veil_reads_back_whatever_the_caller_wrote(
            (user, session) in any::<(bool, bool)>(),
            from in proptest::collection::vec(any::<u8>(), 0..600),
            route in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let mut bytes = b"INVITE sip:b SIP/2.0\r\nFrom: ".to_vec();
            bytes.extend_from_slice(&from);
            bytes.extend_from_slice(b"\r\nRecord-Route: ");
            bytes.extend_from_slice(&route);
            bytes.extend_from_slice(b"\r\n\r\n");
            let Ok(message) = Message::parse(&bytes) else { return Ok(()) };
            let veil = Veil::over(&message, Hidden { from: user, header: true }, session);
            prop_assume!(covers(&message));
            let mut token = Vec::new();
            veil.seal(&seals(), b"c", &mut token);
            prop_assert_eq!(Veil::reveal(&seals(), b"c", &token), Some(veil));
        }
    }
}
