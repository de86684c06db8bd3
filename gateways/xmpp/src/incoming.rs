//! The receiving side of a stream from another domain: it has to encrypt, and to prove each domain that it speaks for, before a stanza
//! of it is heard (RFC 6120 §4, §5, XEP-0220 §2).

use sip_xml::Writer;

use crate::address::Jid;
use crate::dialback::Keys;
use crate::message::Stanza;
use crate::stream::{self, DIALBACK, DIALBACK_FEATURE, Element, Fault, Header, Piece, Reader, SERVER, STREAMS, TLS};

/// Domains that one stream may speak for.
pub const MAX_DOMAINS: usize = 16;

/// What the owner of the connection has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Send(Vec<u8>),
    /// The TLS handshake, and then [`Incoming::secured`]. What came behind it unencrypted is thrown away.
    StartTls,
    /// The domain has to be asked whether it made this key for this stream; then [`Incoming::judged`].
    Ask {
        domain: String,
        stream: String,
        key: String,
    },
    Stanza(Stanza),
    /// Over. Nothing follows.
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Header,
    Open,
    Over,
}

pub struct Incoming {
    local: Box<str>,
    keys: Keys,
    reader: Reader,
    state: State,
    is_secure: bool,
    /// Ours of the stream.
    id: String,
    /// Each with whether it is proved, or is being asked about.
    domains: Vec<(String, bool)>,
}

impl Incoming {
    /// `id`: one that nobody can guess; the key of a proof is made of it.
    pub fn new(local: &str, keys: Keys, id: String) -> Incoming {
        Incoming {
            local: local.into(),
            keys,
            reader: Reader::default(),
            state: State::Header,
            is_secure: false,
            id,
            domains: Vec::new(),
        }
    }

    /// The handshake is done: everything begins anew, under another id.
    pub fn secured(&mut self, id: String) {
        self.reader = Reader::default();
        self.is_secure = true;
        self.state = State::Header;
        self.id = id;
    }

    /// Whether some domain is proved.
    pub fn is_proved(&self) -> bool {
        self.domains.iter().any(|(_, proved)| *proved)
    }

    pub fn received(&mut self, mut bytes: &[u8], out: &mut Vec<Action>) {
        while self.state != State::Over {
            match self.reader.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(piece)) => {
                    if let Err(fault) = self.piece(piece, out) {
                        self.fault(fault, out);
                    } else if out.last() == Some(&Action::StartTls) {
                        return;
                    }
                }
                Err(fault) => self.fault(fault, out),
            }
        }
    }

    /// What the domain said about the key. Who proves nothing is not kept.
    pub fn judged(&mut self, domain: &str, valid: bool, out: &mut Vec<Action>) {
        let Some(at) = self.domains.iter().position(|(d, proved)| d == domain && !proved) else { return };
        if self.state != State::Open {
            return;
        }
        if valid {
            self.domains[at].1 = true;
            self.reader.trust();
        } else {
            self.domains.remove(at);
        }
        let mut bytes = Vec::with_capacity(128);
        Writer::element(&mut bytes, "db:result", |e| {
            let kind = if valid { "valid" } else { "invalid" };
            e.attribute("from", &self.local).attribute("to", domain).attribute("type", kind);
        });
        out.push(Action::Send(bytes));
        if self.domains.is_empty() {
            self.end(out);
        }
    }

    /// Ends it: they were silent for too long, or we stop.
    pub fn fault(&mut self, fault: Fault, out: &mut Vec<Action>) {
        let mut bytes = Vec::new();
        // A stream error stands in a stream, so that has to begin (RFC 6120 §4.9.1.2).
        if self.state == State::Header {
            Header::write(&self.local, None, Some(&self.id), &mut bytes);
        }
        fault.write(&mut bytes);
        self.state = State::Over;
        out.extend([Action::Send(bytes), Action::Closed]);
    }

    fn end(&mut self, out: &mut Vec<Action>) {
        self.state = State::Over;
        out.extend([Action::Send(stream::END.to_vec()), Action::Closed]);
    }

    fn piece(&mut self, piece: Piece, out: &mut Vec<Action>) -> Result<(), Fault> {
        match (self.state, piece) {
            (State::Header, Piece::Header(header)) => self.header(&header, out),
            (State::Open, Piece::Element(element)) => self.element(element, out),
            (State::Open, Piece::End) => {
                self.end(out);
                Ok(())
            }
            _ => Err(Fault::NotWellFormed),
        }
    }

    fn header(&mut self, header: &Header, out: &mut Vec<Action>) -> Result<(), Fault> {
        if header.to.as_deref().is_some_and(|to| !to.eq_ignore_ascii_case(&self.local)) {
            return Err(Fault::HostUnknown);
        }
        if !header.is_current {
            return Err(Fault::UnsupportedVersion);
        }
        let mut bytes = Vec::with_capacity(512);
        Header::write(&self.local, header.from.as_deref(), Some(&self.id), &mut bytes);
        Writer::element(&mut bytes, "stream:features", |f| {
            if self.is_secure {
                f.child("dialback", |d| {
                    d.attribute("xmlns", DIALBACK_FEATURE);
                });
            } else {
                f.child("starttls", |s| {
                    s.attribute("xmlns", TLS);
                    s.child("required", |_| {});
                });
            }
        });
        self.state = State::Open;
        out.push(Action::Send(bytes));
        Ok(())
    }

    fn element(&mut self, element: Element, out: &mut Vec<Action>) -> Result<(), Fault> {
        if element.is(STREAMS, "error") {
            self.end(out);
            return Ok(());
        }
        if element.is(TLS, "starttls") && !self.is_secure {
            let mut bytes = Vec::new();
            Writer::element(&mut bytes, "proceed", |e| {
                e.attribute("xmlns", TLS);
            });
            out.extend([Action::Send(bytes), Action::StartTls]);
            return Ok(());
        }
        if !self.is_secure {
            return Err(Fault::PolicyViolation);
        }
        match (element.namespace.as_str(), element.name.as_str()) {
            (DIALBACK, "result") => self.result(&element, out),
            (DIALBACK, "verify") => self.verify(&element, out),
            (SERVER, "message" | "iq" | "presence") => self.stanza(element, out),
            (SERVER, _) => Err(Fault::UnsupportedStanzaType),
            _ => Err(Fault::InvalidNamespace),
        }
    }

    /// They want to prove a domain.
    fn result(&mut self, element: &Element, out: &mut Vec<Action>) -> Result<(), Fault> {
        let domain = self.ends(element)?;
        if self.domains.iter().any(|(known, _)| *known == domain) {
            return Ok(());
        }
        if self.domains.len() >= MAX_DOMAINS {
            return Err(Fault::PolicyViolation);
        }
        self.domains.push((domain.clone(), false));
        out.push(Action::Ask { domain, stream: self.id.clone(), key: element.text.trim().to_owned() });
        Ok(())
    }

    /// They have been told that a key is ours.
    fn verify(&self, element: &Element, out: &mut Vec<Action>) -> Result<(), Fault> {
        let domain = self.ends(element)?;
        let stream = element.attribute("id").ok_or(Fault::ImproperAddressing)?;
        let is_ours = self.keys.is_ours(&element.text, &domain, &self.local, stream);
        let mut bytes = Vec::with_capacity(128);
        Writer::element(&mut bytes, "db:verify", |e| {
            let kind = if is_ours { "valid" } else { "invalid" };
            e.attribute("from", &self.local).attribute("to", &domain).attribute("id", stream);
            e.attribute("type", kind);
        });
        out.push(Action::Send(bytes));
        Ok(())
    }

    /// The domain that an element of dialback is from; it is to ours.
    fn ends(&self, element: &Element) -> Result<String, Fault> {
        let of = |name: &str| {
            let jid: Jid = element.attribute(name)?.parse().ok()?;
            (jid.local().is_none() && jid.resource().is_none()).then(|| jid.domain().to_owned())
        };
        let (from, to) = of("from").zip(of("to")).ok_or(Fault::ImproperAddressing)?;
        if *to != *self.local {
            return Err(Fault::HostUnknown);
        }
        if *from == *self.local { Err(Fault::InvalidFrom) } else { Ok(from) }
    }

    fn stanza(&self, element: Element, out: &mut Vec<Action>) -> Result<(), Fault> {
        let of = |name: &str| element.attribute(name)?.parse::<Jid>().ok();
        let (from, to) = of("from").zip(of("to")).ok_or(Fault::ImproperAddressing)?;
        if !self.is_proved() {
            return Err(Fault::NotAuthorized);
        }
        if !self.domains.iter().any(|(domain, proved)| *proved && *domain == *from.domain()) {
            return Err(Fault::InvalidFrom);
        }
        if *to.domain() != *self.local {
            return Err(Fault::HostUnknown);
        }
        out.push(Action::Stanza(Stanza { from, to, element }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' from='x.test' to='home.test' \
                        xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
    const RESULT: &str = "<db:result from='x.test' to='home.test'> key </db:result>";
    const MESSAGE: &str = "<message from='u@x.test/r' to='+81@home.test'><body>x</body></message>";

    fn keys() -> Keys {
        Keys::new(b"secret")
    }

    fn step(incoming: &mut Incoming, text: &str) -> Vec<Action> {
        let mut out = Vec::new();
        incoming.received(text.as_bytes(), &mut out);
        out
    }

    fn sent(out: &[Action]) -> String {
        let bytes = out.iter().flat_map(|action| match action {
            Action::Send(bytes) => &bytes[..],
            _ => &[],
        });
        String::from_utf8(bytes.copied().collect()).unwrap()
    }

    fn secured() -> Incoming {
        let mut incoming = Incoming::new("home.test", keys(), "s1".into());
        let said = sent(&step(&mut incoming, HEAD));
        assert!(said.contains("id=\"s1\"") && said.contains("<required/>"), "{said}");
        let out = step(&mut incoming, &format!("<starttls xmlns='{TLS}'/>{RESULT}"));
        assert_eq!(out.last(), Some(&Action::StartTls));
        incoming.secured("s2".into());
        let said = sent(&step(&mut incoming, HEAD));
        assert!(said.contains("id=\"s2\"") && said.contains("<dialback ") && !said.contains("starttls"), "{said}");
        incoming
    }

    fn condition(incoming: &mut Incoming, text: &str) -> String {
        let out = step(incoming, text);
        assert_eq!(out.last(), Some(&Action::Closed), "{out:?}");
        let said = sent(&out);
        let condition = said.split_once("<stream:error><").unwrap_or_else(|| panic!("{said}")).1;
        condition.split(' ').next().unwrap().to_owned()
    }

    fn proved() -> Incoming {
        let mut incoming = secured();
        let ask = Action::Ask { domain: "x.test".into(), stream: "s2".into(), key: "key".into() };
        assert_eq!(step(&mut incoming, RESULT), [ask]);
        let mut out = Vec::new();
        incoming.judged("x.test", true, &mut out);
        assert_eq!(sent(&out), "<db:result from=\"home.test\" to=\"x.test\" type=\"valid\"/>");
        incoming
    }

    #[test]
    fn stanzas_are_heard_from_the_domain_that_is_proved() {
        let out = step(&mut proved(), MESSAGE);
        let [Action::Stanza(stanza)] = &out[..] else { panic!("{out:?}") };
        assert_eq!((stanza.from.to_string().as_str(), stanza.to.local()), ("u@x.test/r", Some("+81")));
    }

    #[test]
    fn and_from_no_other() {
        let from = |domain: &str| MESSAGE.replace("x.test", domain);
        assert_eq!(condition(&mut secured(), MESSAGE), "not-authorized");
        assert_eq!(condition(&mut proved(), &from("y.test")), "invalid-from");
        assert_eq!(condition(&mut proved(), &from("home.test")), "invalid-from");
        assert_eq!(condition(&mut proved(), &MESSAGE.replace("home.test", "y.test")), "host-unknown");
        assert_eq!(condition(&mut proved(), "<message to='a@home.test'/>"), "improper-addressing");
        // What is asked about is not proved.
        let mut incoming = secured();
        step(&mut incoming, RESULT);
        assert_eq!(condition(&mut incoming, MESSAGE), "not-authorized");
        let (mut incoming, mut out) = (secured(), Vec::new());
        step(&mut incoming, RESULT);
        incoming.judged("x.test", false, &mut out);
        assert!(sent(&out).contains("type=\"invalid\"") && out.last() == Some(&Action::Closed), "{out:?}");
        assert_eq!(step(&mut incoming, MESSAGE), []);
    }

    #[test]
    fn without_encryption_nothing_is_heard() {
        let mut incoming = Incoming::new("home.test", keys(), "s1".into());
        assert_eq!(condition(&mut incoming, &format!("{HEAD}{RESULT}")), "policy-violation");
    }

    #[test]
    fn our_own_keys_are_known_again() {
        let key = keys().key("x.test", "home.test", "theirs");
        let asked = |key: &str| format!("<db:verify from='x.test' to='home.test' id='theirs'>{key}</db:verify>");
        let said = sent(&step(&mut secured(), &asked(&key)));
        assert_eq!(said, "<db:verify from=\"home.test\" to=\"x.test\" id=\"theirs\" type=\"valid\"/>");
        assert!(sent(&step(&mut secured(), &asked("other"))).contains("type=\"invalid\""));
        let elsewhere = asked(&key).replace("x.test", "y.test");
        assert!(sent(&step(&mut secured(), &elsewhere)).contains("type=\"invalid\""));
    }

    #[test]
    fn what_is_wrong_ends_it_in_its_own_terms() {
        let fresh = || Incoming::new("home.test", keys(), "s1".into());
        assert_eq!(condition(&mut fresh(), &HEAD.replace("home.test", "y.test")), "host-unknown");
        assert_eq!(condition(&mut fresh(), &HEAD.replace("1.0", "0.9")), "unsupported-version");
        assert_eq!(condition(&mut fresh(), "GET / HTTP/1.1\r\n<"), "not-well-formed");
        assert_eq!(condition(&mut secured(), "<query/>"), "unsupported-stanza-type");
        assert_eq!(condition(&mut secured(), "<query xmlns='x'/>"), "invalid-namespace");
        assert_eq!(condition(&mut secured(), "<db:result to='home.test'/>"), "improper-addressing");
        assert_eq!(condition(&mut secured(), "<db:result from='home.test' to='home.test'/>"), "invalid-from");
        let many: String = (0..=MAX_DOMAINS).map(|n| RESULT.replace("x.test", &format!("x{n}.test"))).collect();
        assert_eq!(condition(&mut secured(), &many), "policy-violation");
        let out = step(&mut proved(), "</stream:stream>");
        assert_eq!(sent(&out), "</stream:stream>");
    }
}
