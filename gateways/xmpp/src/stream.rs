//! Reading a stream (RFC 6120 §4): a header, and then elements one after the other, each as a small tree.
//!
//! What a peer may make us hold is bounded below the XML parser: it is never given more bytes of one element than the budget, and
//! what it says of depth and number is counted as it says it. That also bounds its time, which grows with the square of the depth.

use rxml::error::EndOrError;
use rxml::{Event, Parse, Parser};
use sip_xml::escape_attribute;

pub const STREAMS: &str = "http://etherx.jabber.org/streams";
pub const SERVER: &str = "jabber:server";
pub const DIALBACK: &str = "jabber:server:dialback";
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
pub const DIALBACK_FEATURE: &str = "urn:xmpp:features:dialback";

/// Bytes of one element, or of the header, before the peer has proved its domain. RFC 6120 §4.9.3.14 leaves at least 10,000.
pub const STRANGERS: usize = 10_000;
/// And afterwards.
pub const PROVED: usize = 512 * 1024;
/// Elements within each other, the stream's own counted.
const MAX_DEPTH: usize = 64;
/// Elements of one that stands in the stream, that one counted.
const MAX_ELEMENTS: usize = 2_000;

/// The peer's fault. Each has its condition of RFC 6120 §4.9.3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    #[error("not well-formed XML")]
    NotWellFormed,
    #[error("XML that streams do not have")]
    RestrictedXml,
    #[error("not in a namespace of streams between servers")]
    InvalidNamespace,
    #[error("too long, too deep, or too much")]
    PolicyViolation,
    #[error("for a domain that is not here")]
    HostUnknown,
    #[error("from or to nobody")]
    ImproperAddressing,
    #[error("from a domain that this stream has not proved")]
    InvalidFrom,
    #[error("before the domain is proved")]
    NotAuthorized,
    #[error("older than XMPP 1.0")]
    UnsupportedVersion,
    #[error("nothing that is known")]
    UnsupportedStanzaType,
    #[error("silent for too long")]
    ConnectionTimeout,
    /// Not a fault, but said in the same way.
    #[error("this server stops")]
    SystemShutdown,
}

impl Fault {
    pub fn condition(self) -> &'static str {
        match self {
            Fault::NotWellFormed => "not-well-formed",
            Fault::RestrictedXml => "restricted-xml",
            Fault::InvalidNamespace => "invalid-namespace",
            Fault::PolicyViolation => "policy-violation",
            Fault::HostUnknown => "host-unknown",
            Fault::ImproperAddressing => "improper-addressing",
            Fault::InvalidFrom => "invalid-from",
            Fault::NotAuthorized => "not-authorized",
            Fault::UnsupportedVersion => "unsupported-version",
            Fault::UnsupportedStanzaType => "unsupported-stanza-type",
            Fault::ConnectionTimeout => "connection-timeout",
            Fault::SystemShutdown => "system-shutdown",
        }
    }

    /// The stream error and the end of the stream.
    pub fn write(self, out: &mut Vec<u8>) {
        sip_xml::Writer::element(out, "stream:error", |e| {
            e.child(self.condition(), |c| {
                c.attribute("xmlns", STREAM_ERRORS);
            });
        });
        out.extend_from_slice(END);
    }
}

/// The end of a stream.
pub const END: &[u8] = b"</stream:stream>";

/// What a stream's opening tag says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Header {
    pub from: Option<String>,
    pub to: Option<String>,
    /// The receiving side gives it.
    pub id: Option<String>,
    /// False: from before XMPP 1.0.
    pub is_current: bool,
}

impl Header {
    /// The prefix of dialback is declared here, because ejabberd and Openfire answer it only then.
    pub fn write(from: &str, to: Option<&str>, id: Option<&str>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<?xml version='1.0'?><stream:stream");
        let fixed = [("xmlns", SERVER), ("xmlns:stream", STREAMS), ("xmlns:db", DIALBACK), ("version", "1.0")];
        let given = [("to", to), ("id", id)].into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in fixed.into_iter().chain([("from", from)]).chain(given) {
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"=\"");
            escape_attribute(value, out);
            out.push(b'"');
        }
        out.push(b'>');
    }
}

/// An element that stands in a stream, or within one that does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    pub namespace: String,
    pub name: String,
    /// Those without a namespace.
    pub attributes: Vec<(String, String)>,
    pub children: Vec<Element>,
    /// All text that stands directly in it.
    pub text: String,
}

impl Element {
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace == namespace && self.name == name
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn child(&self, namespace: &str, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.is(namespace, name))
    }
}

/// What comes in a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    Header(Header),
    Element(Element),
    End,
}

/// One direction of one stream; another begins after STARTTLS.
pub struct Reader {
    parser: Parser,
    /// Those that are open, the stream's own left out.
    open: Vec<Element>,
    begun: bool,
    /// Bytes that the element so far has cost, and those that it may.
    spent: usize,
    budget: usize,
    elements: usize,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader { parser: Parser::new(), open: Vec::new(), begun: false, spent: 0, budget: STRANGERS, elements: 0 }
    }
}

impl Reader {
    /// The peer has proved who it is.
    pub fn trust(&mut self) {
        self.budget = PROVED;
    }

    /// Takes from `bytes` up to the end of the next piece; `None` when all are taken and there is none.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Piece>, Fault> {
        loop {
            let allowed = self.budget - self.spent;
            if allowed == 0 {
                return Err(Fault::PolicyViolation);
            }
            let mut some = &bytes[..bytes.len().min(allowed)];
            let offered = some.len();
            let event = self.parser.parse(&mut some, false);
            let taken = offered - some.len();
            *bytes = &bytes[taken..];
            self.spent += taken;
            match event {
                Ok(Some(event)) => {
                    if let Some(piece) = self.event(event)? {
                        self.spent = 0;
                        self.elements = 0;
                        return Ok(Some(piece));
                    }
                }
                Ok(None) => return Ok(Some(Piece::End)),
                Err(EndOrError::NeedMoreData) if bytes.is_empty() => return Ok(None),
                Err(EndOrError::NeedMoreData) => {}
                Err(EndOrError::Error(rxml::Error::RestrictedXml(_))) => return Err(Fault::RestrictedXml),
                Err(EndOrError::Error(_)) => return Err(Fault::NotWellFormed),
            }
        }
    }

    fn event(&mut self, event: Event) -> Result<Option<Piece>, Fault> {
        match event {
            Event::XmlDeclaration(..) => Ok(None),
            Event::StartElement(_, (namespace, name), attributes) if !self.begun => {
                if &*namespace != STREAMS || name.as_str() != "stream" {
                    return Err(Fault::InvalidNamespace);
                }
                self.begun = true;
                let mut header = Header::default();
                for ((namespace, name), value) in attributes {
                    match (&*namespace, name.as_str()) {
                        ("", "from") => header.from = Some(value),
                        ("", "to") => header.to = Some(value),
                        ("", "id") => header.id = Some(value),
                        ("", "version") => {
                            let major = value.split('.').next().and_then(|v| v.parse::<u32>().ok());
                            header.is_current = major.is_some_and(|v| v >= 1);
                        }
                        _ => {}
                    }
                }
                Ok(Some(Piece::Header(header)))
            }
            Event::StartElement(_, (namespace, name), attributes) => {
                self.elements += 1;
                if self.open.len() + 1 >= MAX_DEPTH || self.elements > MAX_ELEMENTS {
                    return Err(Fault::PolicyViolation);
                }
                let plain = attributes.into_iter().filter(|((namespace, _), _)| namespace.is_empty());
                self.open.push(Element {
                    namespace: namespace.to_string(),
                    name: name.to_string(),
                    attributes: plain.map(|((_, name), value)| (name.to_string(), value)).collect(),
                    children: Vec::new(),
                    text: String::new(),
                });
                Ok(None)
            }
            Event::EndElement(_) => {
                let Some(whole) = self.open.pop() else { return Ok(Some(Piece::End)) };
                match self.open.last_mut() {
                    Some(parent) => {
                        parent.children.push(whole);
                        Ok(None)
                    }
                    None => Ok(Some(Piece::Element(whole))),
                }
            }
            Event::Text(_, text) => {
                match self.open.last_mut() {
                    Some(element) => element.text.push_str(&text),
                    // Blanks between elements keep connections alive (RFC 6120 §4.6.1).
                    None if text.trim_ascii().is_empty() => self.spent = 0,
                    None => return Err(Fault::NotWellFormed),
                }
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' from='a.test' to='b.test' id='x&amp;y' \
                        xmlns:stream='http://etherx.jabber.org/streams' version='1.0' xml:lang='en'>";

    fn read(reader: &mut Reader, text: &str) -> Result<Vec<Piece>, Fault> {
        let mut bytes = text.as_bytes();
        let mut pieces = Vec::new();
        while let Some(piece) = reader.next(&mut bytes)? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    fn begun() -> Reader {
        let mut reader = Reader::default();
        let header =
            Header { from: Some("a.test".into()), to: Some("b.test".into()), id: Some("x&y".into()), is_current: true };
        assert_eq!(read(&mut reader, HEAD), Ok(vec![Piece::Header(header)]));
        reader
    }

    #[test]
    fn pieces_come_whole_however_the_bytes_come() {
        let text = format!(
            "{HEAD} <message to='u@b.test'><body>a &lt; b</body><x xmlns='urn:x'/></message>\n</stream:stream>"
        );
        let whole = read(&mut Reader::default(), &text).unwrap();
        let [Piece::Header(_), Piece::Element(message), Piece::End] = &whole[..] else { panic!("{whole:?}") };
        assert!(message.is(SERVER, "message") && message.child("urn:x", "x").is_some());
        assert_eq!(message.child(SERVER, "body").unwrap().text, "a < b");
        assert_eq!(message.attribute("to"), Some("u@b.test"));
        let mut reader = Reader::default();
        let mut pieces = Vec::new();
        for at in 0..text.len() {
            pieces.extend(read(&mut reader, &text[at..=at]).unwrap());
        }
        assert_eq!(pieces, whole);
    }

    #[test]
    fn what_is_written_as_a_header_reads_as_one() {
        let mut out = Vec::new();
        Header::write("a.test", Some("b.test"), Some("\"<&"), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(" xmlns:db=\"jabber:server:dialback\""), "{text}");
        let pieces = read(&mut Reader::default(), &text).unwrap();
        let [Piece::Header(header)] = &pieces[..] else { panic!("{pieces:?}") };
        assert_eq!(
            (header.id.as_deref(), header.to.as_deref(), header.is_current),
            (Some("\"<&"), Some("b.test"), true)
        );
    }

    #[test]
    fn nothing_grows_without_bound() {
        let too_long = format!("<a>{}", "x".repeat(STRANGERS));
        assert_eq!(read(&mut begun(), &too_long), Err(Fault::PolicyViolation));
        let mut trusted = begun();
        trusted.trust();
        assert_eq!(read(&mut trusted, &too_long), Ok(vec![]));
        assert_eq!(read(&mut trusted, &"x".repeat(PROVED)), Err(Fault::PolicyViolation));
        assert_eq!(read(&mut begun(), &"<a>".repeat(MAX_DEPTH)), Err(Fault::PolicyViolation));
        let deep = MAX_DEPTH - 2;
        assert_eq!(read(&mut begun(), &format!("{}{}", "<a>".repeat(deep), "</a>".repeat(deep))).unwrap().len(), 1);
        let mut trusted = begun();
        trusted.trust();
        assert_eq!(read(&mut trusted, &format!("<a>{}", "<b/>".repeat(MAX_ELEMENTS))), Err(Fault::PolicyViolation));
        // Each element has a budget of its own.
        assert_eq!(read(&mut begun(), &"<a>123456</a>".repeat(STRANGERS)).unwrap().len(), STRANGERS);
        let endless = format!("<stream:stream xmlns:stream='{STREAMS}' x='{}", "x".repeat(STRANGERS));
        assert!(read(&mut Reader::default(), &endless).is_err());
    }

    #[test]
    fn what_is_no_stream_is_refused_in_its_own_terms() {
        let of = |text: &str| read(&mut Reader::default(), text).unwrap_err();
        assert_eq!(of("<stream xmlns='x'>"), Fault::InvalidNamespace);
        // Words are no fault before they end, or grow too long.
        assert_eq!(of("GET / HTTP/1.1\r\n\r\n<"), Fault::NotWellFormed);
        assert_eq!(of(&"GET".repeat(STRANGERS)), Fault::NotWellFormed);
        assert_eq!(of("<\u{16}\u{3}\u{1}"), Fault::NotWellFormed);
        for restricted in ["<!DOCTYPE a>", "<!-- x -->", "<?php ?>"] {
            assert!(read(&mut begun(), restricted).is_err(), "{restricted}");
        }
        assert_eq!(read(&mut begun(), "words"), Ok(vec![]));
        assert_eq!(read(&mut begun(), "words<a/>"), Err(Fault::NotWellFormed));
        assert_eq!(read(&mut begun(), "<a></b>"), Err(Fault::NotWellFormed));
        let mut out = Vec::new();
        Fault::HostUnknown.write(&mut out);
        assert!(out.starts_with(b"<stream:error><host-unknown xmlns=\"urn:ietf:params:xml:ns:xmpp-streams\"/>"));
    }
}
