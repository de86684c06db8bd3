//! Stanzas that we write, and what we read of those that come (RFC 6121 §5, RFC 7572, XEP-0199).

use sip_xml::Writer;

use crate::address::Jid;
use crate::stream::{Element, SERVER, STANZA_ERRORS};

const PING: &str = "urn:xmpp:ping";

/// A text in pager mode (RFC 7572 §5): `normal`, a message by itself and not a part of a chat.
pub fn write_text(from: &Jid, to: &Jid, id: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + text.len());
    Writer::element(&mut out, "message", |m| {
        m.attribute("type", "normal").attribute("from", &from.to_string()).attribute("to", &to.to_string());
        m.attribute("id", id);
        m.child("body", |b| b.text(text));
    });
    out
}

/// Asks for an answer (XEP-0199). It also serves as a proof: the peer answers when it has dealt with what came before.
pub fn write_ping(from: &str, to: &str, id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    Writer::element(&mut out, "iq", |iq| {
        iq.attribute("type", "get").attribute("from", from).attribute("to", to).attribute("id", id);
        iq.child("ping", |p| {
            p.attribute("xmlns", PING);
        });
    });
    out
}

/// What came over a stream, between addresses that are the stream's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stanza {
    pub from: Jid,
    pub to: Jid,
    pub element: Element,
}

/// What is to be done with a stanza.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// The answer to a request of ours, with its id, whatever it says.
    Answered(String),
    /// The message of ours with this id is not taken.
    Refused { id: String, refusal: Refusal },
    /// To be sent back.
    Answer(Vec<u8>),
    /// A text for somebody of ours; [`Stanza::refused`] if it is not taken.
    Text(String),
    /// Nothing: what has no answer.
    Nothing,
}

/// Why a message is not taken (RFC 6120 §8.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `wait`: the same again may be.
    ForNow,
    Final,
}

/// Why we do not take a stanza (RFC 6120 §8.3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    Unavailable,
    /// Nobody of ours is linked with the sender.
    NotAuthorized,
    NotFound,
    TooLong,
    Busy,
}

impl Condition {
    /// The type of the error, and its element.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Condition::Unavailable => ("cancel", "service-unavailable"),
            Condition::NotAuthorized => ("auth", "not-authorized"),
            Condition::NotFound => ("cancel", "item-not-found"),
            Condition::TooLong => ("modify", "policy-violation"),
            Condition::Busy => ("wait", "resource-constraint"),
        }
    }
}

impl Stanza {
    /// Never answers an answer, and no presence at all. Chat states and receipts of a chat, which have no body, mean nothing here.
    pub fn meaning(&self) -> Meaning {
        let id = || self.element.attribute("id").unwrap_or_default().to_owned();
        match (self.element.name.as_str(), self.element.attribute("type").unwrap_or_default()) {
            ("iq", "result" | "error") => Meaning::Answered(id()),
            ("iq", "get") if self.element.child(PING, "ping").is_some() && self.to.local().is_none() => {
                Meaning::Answer(self.reply("result", None))
            }
            ("message", "error") => Meaning::Refused { id: id(), refusal: self.refusal() },
            ("message", "" | "normal" | "chat") => match self.element.child(SERVER, "body") {
                Some(body) => Meaning::Text(body.text.clone()),
                None => Meaning::Nothing,
            },
            ("iq", "get" | "set") | ("message", "groupchat") => Meaning::Answer(self.refused(Condition::Unavailable)),
            _ => Meaning::Nothing,
        }
    }

    fn refusal(&self) -> Refusal {
        match self.element.child(SERVER, "error").and_then(|error| error.attribute("type")) {
            Some("wait") => Refusal::ForNow,
            _ => Refusal::Final,
        }
    }

    /// Sent back with an error.
    pub fn refused(&self, condition: Condition) -> Vec<u8> {
        self.reply("error", Some(condition))
    }

    fn reply(&self, kind: &str, error: Option<Condition>) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        Writer::element(&mut out, &self.element.name, |e| {
            e.attribute("type", kind).attribute("from", &self.to.to_string()).attribute("to", &self.from.to_string());
            if let Some(id) = self.element.attribute("id") {
                e.attribute("id", id);
            }
            if let Some(condition) = error {
                let (kind, name) = condition.names();
                e.child("error", |e| {
                    e.attribute("type", kind);
                    e.child(name, |c| {
                        c.attribute("xmlns", STANZA_ERRORS);
                    });
                });
            }
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(xml: &str) -> Stanza {
        let head =
            "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
        let text = format!("{head}{xml}");
        let (mut reader, mut bytes) = (crate::stream::Reader::default(), text.as_bytes());
        reader.next(&mut bytes).unwrap();
        let Some(crate::stream::Piece::Element(element)) = reader.next(&mut bytes).unwrap() else { panic!("{xml}") };
        let of = |name: &str| element.attribute(name).unwrap().parse().unwrap();
        Stanza { from: of("from"), to: of("to"), element }
    }

    fn answer(xml: &str) -> String {
        match stanza(xml).meaning() {
            Meaning::Answer(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_text_cannot_become_markup() {
        let (from, to) = ("+81@home.test".parse().unwrap(), "bob@xmpp.test".parse().unwrap());
        let written = String::from_utf8(write_text(&from, &to, "m1", "1 < 2 & </body>\u{0}")).unwrap();
        assert_eq!(
            written,
            "<message type=\"normal\" from=\"+81@home.test\" to=\"bob@xmpp.test\" id=\"m1\"><body>1 &lt; 2 &amp; \
             &lt;/body&gt;\u{fffd}</body></message>"
        );
        let read = stanza(&written);
        assert_eq!(read.element.child(SERVER, "body").unwrap().text, "1 < 2 & </body>\u{fffd}");
    }

    #[test]
    fn requests_have_answers_and_answers_have_none() {
        assert_eq!(
            answer("<iq type='get' from='a.test' to='b.test' id='7'><ping xmlns='urn:xmpp:ping'/></iq>"),
            "<iq type=\"result\" from=\"b.test\" to=\"a.test\" id=\"7\"/>"
        );
        let message = stanza("<message from='u@a.test/r' to='v@b.test'><body>x</body></message>");
        assert_eq!(message.meaning(), Meaning::Text("x".into()));
        let refused = String::from_utf8(message.refused(Condition::Busy)).unwrap();
        let head = "<message type=\"error\" from=\"v@b.test\" to=\"u@a.test/r\">";
        assert!(refused.starts_with(&format!("{head}<error type=\"wait\"><resource-constraint ")), "{refused}");
        let state = "<message type='chat' from='u@a.test' to='v@b.test'><composing xmlns='x'/></message>";
        assert_eq!(stanza(state).meaning(), Meaning::Nothing);
        let refused = answer("<iq type='set' from='a.test' to='b.test' id='7'/>");
        assert!(refused.contains("<service-unavailable xmlns=\"urn:ietf:params:xml:ns:xmpp-stanzas\"/>"), "{refused}");
        assert_eq!(stanza("<presence from='u@a.test' to='v@b.test'/>").meaning(), Meaning::Nothing);
        assert_eq!(
            stanza("<iq type='error' from='a.test' to='b.test' id='7'/>").meaning(),
            Meaning::Answered("7".into())
        );
        let refused = |kind: &str| {
            let error = format!("<message type='error' from='u@a.test' to='v@b.test' id='m'>{kind}</message>");
            match stanza(&error).meaning() {
                Meaning::Refused { id, refusal } if id == "m" => refusal,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused("<error type='wait'/>"), Refusal::ForNow);
        assert_eq!((refused("<error type='cancel'/>"), refused("")), (Refusal::Final, Refusal::Final));
    }
}
