//! The initiating side of a stream to another domain: STARTTLS, dialback, then stanzas from us to them and none back (RFC 6120 §4, §5,
//! XEP-0220 §2).

use sip_xml::Writer;

use crate::dialback::Keys;
use crate::stream::{self, DIALBACK, Element, Fault, Header, Piece, Reader, STREAM_ERRORS, STREAMS, TLS};

/// What the owner of the connection has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Send(Vec<u8>),
    /// The TLS handshake, and then [`Outgoing::secured`]. What came behind it unencrypted is thrown away.
    StartTls,
    /// Keys can be asked about from now on ([`Outgoing::verify`]).
    Secured,
    /// Stanzas can be sent from now on.
    Ready,
    /// The answer about the key of a stream of theirs to us.
    Verified {
        stream: String,
        valid: bool,
    },
    /// Over. Nothing follows.
    Closed(Closed),
}

/// Why a stream is over.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Closed {
    #[error("they ended it")]
    Ended,
    /// The condition of their stream error.
    #[error("they say {0}")]
    Theirs(String),
    #[error("they are {0}")]
    Ours(Fault),
    #[error("they offer no encryption")]
    NoTls,
    #[error("they do not believe that we are who we say")]
    Disbelieved,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Header,
    Features,
    Proceed,
    Dialback,
    Ready,
    Over,
}

pub struct Outgoing {
    local: Box<str>,
    remote: Box<str>,
    keys: Keys,
    reader: Reader,
    state: State,
    is_secure: bool,
    /// Theirs of the stream.
    id: String,
}

impl Outgoing {
    /// Begins on a fresh connection.
    pub fn open(local: &str, remote: &str, keys: Keys, out: &mut Vec<Action>) -> Outgoing {
        let outgoing = Outgoing {
            local: local.into(),
            remote: remote.into(),
            keys,
            reader: Reader::default(),
            state: State::Header,
            is_secure: false,
            id: String::new(),
        };
        outgoing.begin(out);
        outgoing
    }

    /// The handshake is done: everything begins anew (RFC 6120 §5.4.3.3).
    pub fn secured(&mut self, out: &mut Vec<Action>) {
        self.reader = Reader::default();
        self.is_secure = true;
        self.state = State::Header;
        self.begin(out);
    }

    pub fn received(&mut self, mut bytes: &[u8], out: &mut Vec<Action>) {
        while self.state != State::Over {
            match self.reader.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(piece)) => {
                    self.piece(piece, out);
                    if out.last() == Some(&Action::StartTls) {
                        return;
                    }
                }
                Err(fault) => self.fault(fault, out),
            }
        }
    }

    /// Asks the domain whether it made this key, for the stream that it has to us under that id. After [`Action::Secured`].
    pub fn verify(&self, stream: &str, key: &str, out: &mut Vec<Action>) {
        let mut bytes = Vec::with_capacity(256);
        Writer::element(&mut bytes, "db:verify", |e| {
            e.attribute("from", &self.local).attribute("to", &self.remote).attribute("id", stream);
            e.text(key);
        });
        out.push(Action::Send(bytes));
    }

    /// Ends it because they were silent for too long, or because we stop.
    pub fn fault(&mut self, fault: Fault, out: &mut Vec<Action>) {
        let mut bytes = Vec::new();
        fault.write(&mut bytes);
        out.push(Action::Send(bytes));
        self.over(Closed::Ours(fault), out);
    }

    /// Ends it for want of anything to send.
    pub fn end(&mut self, out: &mut Vec<Action>) {
        out.push(Action::Send(stream::END.to_vec()));
        self.over(Closed::Ended, out);
    }

    fn begin(&self, out: &mut Vec<Action>) {
        let mut bytes = Vec::with_capacity(256);
        Header::write(&self.local, Some(&self.remote), None, &mut bytes);
        out.push(Action::Send(bytes));
    }

    fn piece(&mut self, piece: Piece, out: &mut Vec<Action>) {
        match (self.state, piece) {
            (_, Piece::End) => self.over(Closed::Ended, out),
            (State::Header, Piece::Header(header)) => match header.id {
                Some(id) if header.is_current => {
                    self.id = id;
                    self.state = State::Features;
                }
                _ => self.fault(Fault::UnsupportedVersion, out),
            },
            (_, Piece::Header(_)) => self.fault(Fault::NotWellFormed, out),
            (_, Piece::Element(element)) => self.element(&element, out),
        }
    }

    fn element(&mut self, element: &Element, out: &mut Vec<Action>) {
        if element.is(STREAMS, "error") {
            let condition = element.children.iter().find(|c| c.namespace == STREAM_ERRORS);
            let condition = condition.map_or("error", |c| c.name.as_str()).chars().take(64).collect();
            return self.over(Closed::Theirs(condition), out);
        }
        match self.state {
            State::Features if element.is(STREAMS, "features") => self.features(element, out),
            State::Proceed if element.is(TLS, "proceed") => out.push(Action::StartTls),
            State::Proceed => self.over(Closed::NoTls, out),
            State::Dialback if element.is(DIALBACK, "result") => match element.attribute("type") {
                Some("valid") => {
                    self.state = State::Ready;
                    self.reader.trust();
                    out.push(Action::Ready);
                }
                _ => self.over(Closed::Disbelieved, out),
            },
            State::Dialback | State::Ready if element.is(DIALBACK, "verify") => {
                if let Some(stream) = element.attribute("id") {
                    let valid = element.attribute("type") == Some("valid");
                    out.push(Action::Verified { stream: stream.to_owned(), valid });
                }
            }
            // Their stanzas come over their own stream; on this one they would be from nobody.
            State::Dialback | State::Ready => {}
            State::Header | State::Features | State::Over => self.fault(Fault::NotAuthorized, out),
        }
    }

    fn features(&mut self, features: &Element, out: &mut Vec<Action>) {
        if !self.is_secure {
            if features.child(TLS, "starttls").is_none() {
                return self.over(Closed::NoTls, out);
            }
            let mut bytes = Vec::new();
            Writer::element(&mut bytes, "starttls", |e| {
                e.attribute("xmlns", TLS);
            });
            self.state = State::Proceed;
            return out.push(Action::Send(bytes));
        }
        // Not every server that does dialback says so among its features (XEP-0220 §2.3 came later).
        let mut bytes = Vec::with_capacity(256);
        Writer::element(&mut bytes, "db:result", |e| {
            e.attribute("from", &self.local).attribute("to", &self.remote);
            e.text(&self.keys.key(&self.remote, &self.local, &self.id));
        });
        self.state = State::Dialback;
        out.extend([Action::Secured, Action::Send(bytes)]);
    }

    fn over(&mut self, closed: Closed, out: &mut Vec<Action>) {
        self.state = State::Over;
        out.push(Action::Closed(closed));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const HEAD: &str = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' id='s1' \
                                   xmlns:stream='http://etherx.jabber.org/streams' from='x.test' version='1.0'>";
    const OFFER: &str = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>";
    const PROCEED: &str = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

    fn opened() -> Outgoing {
        let mut out = Vec::new();
        let outgoing = Outgoing::open("home.test", "x.test", Keys::new(b"secret"), &mut out);
        assert!(matches!(&out[..], [Action::Send(_)]));
        outgoing
    }

    fn step(outgoing: &mut Outgoing, text: &str) -> Vec<Action> {
        let mut out = Vec::new();
        outgoing.received(text.as_bytes(), &mut out);
        out
    }

    fn dialling() -> Outgoing {
        let mut outgoing = opened();
        let out = step(&mut outgoing, &format!("{HEAD}{OFFER}"));
        assert_eq!(out, [Action::Send(b"<starttls xmlns=\"urn:ietf:params:xml:ns:xmpp-tls\"/>".to_vec())]);
        // What somebody put behind it in clear is not heard.
        let smuggled = "<db:result type='valid' from='x.test' to='home.test'/>";
        assert_eq!(step(&mut outgoing, &format!("{PROCEED}{smuggled}")), [Action::StartTls]);
        let mut out = Vec::new();
        outgoing.secured(&mut out);
        assert!(matches!(&out[..], [Action::Send(_)]));
        let out = step(&mut outgoing, &format!("{HEAD}<stream:features/>"));
        let key = Keys::new(b"secret").key("x.test", "home.test", "s1");
        let result = format!("<db:result from=\"home.test\" to=\"x.test\">{key}</db:result>");
        assert_eq!(out, [Action::Secured, Action::Send(result.into_bytes())]);
        outgoing
    }

    #[test]
    fn a_stream_is_ready_when_it_is_encrypted_and_believed() {
        let mut outgoing = dialling();
        assert_eq!(step(&mut outgoing, "<db:result type='valid' from='x.test' to='home.test'/>"), [Action::Ready]);
        assert_eq!(step(&mut outgoing, "<message from='u@x.test' to='v@home.test'/> "), []);
        assert_eq!(step(&mut outgoing, "</stream:stream>"), [Action::Closed(Closed::Ended)]);
        assert_eq!(step(&mut outgoing, "<db:result type='valid'/>"), []);
    }

    #[test]
    fn keys_are_asked_about_before_it_is_believed_itself() {
        let mut outgoing = dialling();
        let mut out = Vec::new();
        outgoing.verify("theirs", "key", &mut out);
        let asked = "<db:verify from=\"home.test\" to=\"x.test\" id=\"theirs\">key</db:verify>";
        assert_eq!(out, [Action::Send(asked.into())]);
        let answer = |kind: &str| format!("<db:verify from='x.test' to='home.test' id='theirs' type='{kind}'/>");
        let verified = |valid| Action::Verified { stream: "theirs".into(), valid };
        assert_eq!(step(&mut outgoing, &answer("valid")), [verified(true)]);
        assert_eq!(step(&mut outgoing, &answer("error")), [verified(false)]);
    }

    #[test]
    fn what_they_do_wrong_ends_it() {
        let ends = |mut outgoing: Outgoing, text: &str| match step(&mut outgoing, text).pop() {
            Some(Action::Closed(closed)) => closed,
            other => panic!("{other:?}"),
        };
        assert_eq!(ends(opened(), &format!("{HEAD}<stream:features/>")), Closed::NoTls);
        let before = HEAD.replace("version='1.0'", "");
        assert_eq!(ends(opened(), &before), Closed::Ours(Fault::UnsupportedVersion));
        assert_eq!(ends(opened(), &format!("{HEAD}<message/>")), Closed::Ours(Fault::NotAuthorized));
        assert_eq!(ends(dialling(), "<db:result type='invalid'/>"), Closed::Disbelieved);
        let error = "<stream:error><host-gone xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
        assert_eq!(ends(dialling(), error), Closed::Theirs("host-gone".into()));
        assert_eq!(ends(dialling(), "<a></b>"), Closed::Ours(Fault::NotWellFormed));
    }
}
