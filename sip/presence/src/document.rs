//! A published presence document (RFC 3863, 4479), cut into the pieces that are composed.
//!
//! A piece is a child of the root, kept byte for byte as it was published, extensions and all. Only its start tag is added to:
//! the namespaces that the published root declared and a composed root does not.

use sip_xml::{Document, Element, Limits};

use crate::names::{BOUND, DATA_MODEL, PIDF};

/// Why a body is not taken. Always the publisher's fault: 400 with this as its reason.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotPresence {
    #[error("Malformed XML: {0}")]
    Xml(#[from] sip_xml::Broken),
    #[error("No Presence Document")]
    Root,
    #[error("Presence Document Without Entity")]
    Entity,
    #[error("Tuple Without Id Or Status")]
    Tuple,
    #[error("Too Many Presence Elements")]
    TooMany,
}

/// One publication's document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    pub pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    pub kind: Kind,
    /// Which of [`BOUND`] it leaves to the composed root to declare.
    pub uses: u8,
    /// Where the value of its `id` stands in `xml`; empty: it has none.
    pub id: (u16, u16),
    pub xml: Box<[u8]>,
}

/// What a piece is, in the order in which a document has them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Tuple,
    Note,
    Person,
    Device,
    /// Any other child of the root.
    Extension,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Tuple, Kind::Note, Kind::Person, Kind::Device, Kind::Extension];
}

/// Pieces of one document.
const MAX_PIECES: usize = 128;
/// Bytes by which the pieces may be more than twice their document.
const SLACK: usize = 4096;
/// Bytes in a piece's start tag: its `id` is found by 16-bit offsets.
const MAX_START_TAG: usize = 8 * 1024;

impl Published {
    /// Reads a document of at most `max` bytes.
    pub fn parse(bytes: &[u8], max: usize) -> Result<Published, NotPresence> {
        let limits = Limits { bytes: max, depth: 32, elements: 4096, attributes: 32, name: 128 };
        let root = Document::parse_with(bytes, &limits)?.root;
        if !root.is(PIDF, "presence") {
            return Err(NotPresence::Root);
        }
        if root.attribute("entity").is_none_or(str::is_empty) {
            return Err(NotPresence::Entity);
        }
        let mut pieces = Vec::new();
        for child in root.elements() {
            if pieces.len() == MAX_PIECES {
                return Err(NotPresence::TooMany);
            }
            pieces.push(piece(&root, child, bytes)?);
        }
        // A long namespace name would otherwise be repeated with each piece.
        if pieces.iter().map(|p| p.xml.len()).sum::<usize>() > 2 * bytes.len() + SLACK {
            return Err(NotPresence::TooMany);
        }
        Ok(Published { pieces })
    }

    /// Appends the pieces as a row.
    pub fn write_row(&self, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            out.push(piece.kind as u8);
            out.push(piece.uses);
            out.extend_from_slice(&piece.id.0.to_le_bytes());
            out.extend_from_slice(&piece.id.1.to_le_bytes());
            out.extend_from_slice(&(piece.xml.len() as u32).to_le_bytes());
            out.extend_from_slice(&piece.xml);
        }
    }

    /// Reads what [`Published::write_row`] wrote; `None` for anything else.
    pub fn from_row(mut row: &[u8]) -> Option<Published> {
        let mut pieces = Vec::new();
        while let Some((&[kind, uses, a, b, c, d], rest)) = row.split_first_chunk::<6>() {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (xml, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            let id = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
            if id.0 > id.1 || usize::from(id.1) > xml.len() {
                return None;
            }
            pieces.push(Piece { kind: *Kind::ALL.get(usize::from(kind))?, uses, id, xml: xml.into() });
            row = rest;
        }
        row.is_empty().then_some(Published { pieces })
    }
}

impl Piece {
    /// The value of `id` as it stands in the document; empty: none.
    pub fn id(&self) -> &[u8] {
        &self.xml[usize::from(self.id.0)..usize::from(self.id.1)]
    }
}

fn piece(root: &Element, child: &Element, bytes: &[u8]) -> Result<Piece, NotPresence> {
    let kind = match () {
        () if child.is(PIDF, "tuple") => {
            if child.attribute("id").is_none_or(str::is_empty) || child.child(PIDF, "status").is_none() {
                return Err(NotPresence::Tuple);
            }
            Kind::Tuple
        }
        () if child.is(PIDF, "note") => Kind::Note,
        () if child.is(DATA_MODEL, "person") => Kind::Person,
        () if child.is(DATA_MODEL, "device") => Kind::Device,
        () => Kind::Extension,
    };
    let mended = mend(child, bytes);
    let text = mended.as_deref().unwrap_or(&bytes[child.span.clone()]);
    let tag = start_tag(text);
    let name = 1 + text[1..].iter().position(|b| b" \t\r\n/>".contains(b)).unwrap_or(0);
    if tag > MAX_START_TAG {
        return Err(NotPresence::TooMany);
    }
    let mut xml = Vec::with_capacity(text.len() + 64);
    xml.extend_from_slice(&text[..name]);
    let uses = declare(root, child, text, &mut xml);
    let head = xml.len();
    xml.extend_from_slice(&text[name..]);
    let id = id_value(&xml[..head + tag - name], head);
    let id = match (u16::try_from(id.0), u16::try_from(id.1)) {
        (Ok(from), Ok(to)) => (from, to),
        _ => return Err(NotPresence::TooMany),
    };
    Ok(Piece { kind, uses, id, xml: xml.into() })
}

/// A tuple's text without a `basic` that is neither open nor closed (RFC 3863 §4.1.4): baresip publishes "unknown", and Linphone
/// refuses every document that has one.
fn mend(tuple: &Element, bytes: &[u8]) -> Option<Vec<u8>> {
    let basics = tuple.all(PIDF, "status").flat_map(|s| s.all(PIDF, "basic"));
    let wrong: Vec<&Element> = basics.filter(|b| !matches!(b.text().trim(), "open" | "closed")).collect();
    if wrong.is_empty() {
        return None;
    }
    let (mut text, mut at) = (Vec::with_capacity(tuple.span.len()), tuple.span.start);
    for basic in wrong {
        text.extend_from_slice(&bytes[at..basic.span.start]);
        at = basic.span.end;
    }
    text.extend_from_slice(&bytes[at..tuple.span.end]);
    Some(text)
}

/// Appends the declarations of the published root that the piece needs and a composed root will not have.
fn declare(root: &Element, child: &Element, text: &[u8], xml: &mut Vec<u8>) -> u8 {
    let declared = |prefix: Option<&str>, element: &Element| {
        let mut all = element.declarations.iter();
        all.find(|d| d.prefix.as_deref() == prefix).map(|d| d.namespace.clone())
    };
    let default = declared(None, root).unwrap_or_default();
    if &*default != PIDF && declared(None, child).is_none() {
        write_declaration(None, &default, xml);
    }
    let mut uses = 0;
    for declaration in &root.declarations {
        let Some(prefix) = declaration.prefix.as_deref() else { continue };
        let mentioned = memchr::memmem::find(text, [prefix.as_bytes(), b":"].concat().as_slice()).is_some();
        if !mentioned || declared(Some(prefix), child).is_some() {
            continue;
        }
        match BOUND.iter().find(|(p, namespace, _)| *p == prefix && *namespace == &*declaration.namespace) {
            Some((_, _, bit)) => uses |= bit,
            None => write_declaration(Some(prefix), &declaration.namespace, xml),
        }
    }
    uses
}

fn write_declaration(prefix: Option<&str>, namespace: &str, xml: &mut Vec<u8>) {
    xml.extend_from_slice(b" xmlns");
    if let Some(prefix) = prefix {
        xml.push(b':');
        xml.extend_from_slice(prefix.as_bytes());
    }
    xml.extend_from_slice(b"=\"");
    sip_xml::escape_attribute(namespace, xml);
    xml.push(b'"');
}

/// The length of the start tag that the text begins with.
fn start_tag(text: &[u8]) -> usize {
    let mut quote = None;
    for (at, &b) in text.iter().enumerate() {
        match (quote, b) {
            (None, b'"' | b'\'') => quote = Some(b),
            (None, b'>') => return at + 1,
            (Some(q), _) if q == b => quote = None,
            _ => {}
        }
    }
    text.len()
}

/// Where the value of the attribute `id` stands, its quotes left out, in a well-formed start tag from `at` on.
fn id_value(tag: &[u8], mut at: usize) -> (usize, usize) {
    while let Some(equals) = memchr::memchr(b'=', &tag[at..]).map(|i| at + i) {
        let Some(open) = tag[equals..].iter().position(|b| matches!(b, b'"' | b'\'')).map(|i| equals + i) else {
            break;
        };
        let Some(close) = memchr::memchr(tag[open], &tag[open + 1..]).map(|i| open + 1 + i) else { break };
        if tag[at..equals].trim_ascii() == b"id" {
            return (open + 1, close);
        }
        at = close + 1;
    }
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Published {
        Published::parse(text.as_bytes(), 65_536).unwrap()
    }

    fn xml(piece: &Piece) -> &str {
        std::str::from_utf8(&piece.xml).unwrap()
    }

    #[test]
    fn pieces_stay_byte_for_byte_and_bring_their_namespaces() {
        let p = parse(
            "<?xml version='1.0'?><presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:im='urn:im' \
             xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' xmlns:rpid='urn:other' entity='pres:a@h'>\
             <tuple  id='t&gt;1' ><status><basic>open</basic><im:im >busy</im:im></status><!-- c --></tuple>\
             <note>x</note><dm:person id=\"p1\"><rpid:mood/></dm:person></presence>",
        );
        let kinds: Vec<Kind> = p.pieces.iter().map(|p| p.kind).collect();
        assert_eq!(kinds, [Kind::Tuple, Kind::Note, Kind::Person]);
        assert_eq!(
            xml(&p.pieces[0]),
            "<tuple xmlns:im=\"urn:im\"  id='t&gt;1' ><status><basic>open</basic><im:im >busy</im:im></status><!-- c --></tuple>"
        );
        assert_eq!((p.pieces[0].id(), p.pieces[1].id(), p.pieces[2].id()), (&b"t&gt;1"[..], &b""[..], &b"p1"[..]));
        assert_eq!(xml(&p.pieces[1]), "<note>x</note>");
        // `dm` means what it does in a composed document, `rpid` does not.
        assert_eq!(
            (xml(&p.pieces[2]), p.pieces[2].uses),
            ("<dm:person xmlns:rpid=\"urn:other\" id=\"p1\"><rpid:mood/></dm:person>", 1)
        );
    }

    #[test]
    fn a_prefixed_document_says_that_its_bare_names_are_in_no_namespace() {
        let p = parse(
            "<p:presence xmlns:p='urn:ietf:params:xml:ns:pidf' entity='x'><p:tuple id='1'><p:status/><bare/></p:tuple></p:presence>",
        );
        assert_eq!(
            xml(&p.pieces[0]),
            "<p:tuple xmlns=\"\" xmlns:p=\"urn:ietf:params:xml:ns:pidf\" id='1'><p:status/><bare/></p:tuple>"
        );
    }

    #[test]
    fn a_basic_that_is_none_is_left_out() {
        let p = parse(
            "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='x'><tuple id='a'><status> <basic>unknown</basic><y/></status></tuple></presence>",
        );
        assert_eq!(xml(&p.pieces[0]), "<tuple id='a'><status> <y/></status></tuple>");
    }

    #[test]
    fn what_is_no_presence_document_is_refused() {
        let refused = |text: &str| Published::parse(text.as_bytes(), 1000).unwrap_err();
        assert!(matches!(refused("<presence"), NotPresence::Xml(_)));
        assert!(matches!(refused("<!DOCTYPE x><presence/>"), NotPresence::Xml(_)));
        assert_eq!(refused("<presence entity='x'/>"), NotPresence::Root);
        assert_eq!(refused("<presence xmlns='urn:ietf:params:xml:ns:pidf'/>"), NotPresence::Entity);
        let tuple =
            |inner: &str| format!("<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='x'>{inner}</presence>");
        assert_eq!(refused(&tuple("<tuple><status/></tuple>")), NotPresence::Tuple);
        assert_eq!(refused(&tuple("<tuple id='a'/>")), NotPresence::Tuple);
        assert!(Published::parse(tuple(&"<note/>".repeat(MAX_PIECES + 1)).as_bytes(), 65_536).is_err());
    }

    #[test]
    fn rows_read_back_and_damaged_ones_do_not() {
        let p = parse(
            "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='x'><tuple id='a'><status/></tuple><note>n</note></presence>",
        );
        let mut row = Vec::new();
        p.write_row(&mut row);
        assert_eq!(Published::from_row(&row).unwrap(), p);
        for cut in 1..row.len() {
            assert!(Published::from_row(&row[..cut]).is_none_or(|shorter| shorter.pieces.len() < 2), "{cut}");
        }
    }
}
