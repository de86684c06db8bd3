//! From publications and registrations to the one document that a watcher sees (RFC 3903 §4.3, RFC 4479).
//!
//! Every tuple and note of every publication is there; of persons, and of devices with one id, the newest. Two tuples with one
//! id, which may be two handsets of one make, are both kept, the later under another name. Only when nobody has published,
//! the registered contacts speak; when there are none, one closed tuple says so.

use sip_proto::features::Union;
use sip_proto::headers::{Params, unquoted};
use sip_xml::{Document, Writer};

use crate::document::{Kind, Piece, Published};
use crate::names::{BOUND, CAPS, DATA_MODEL, PIDF};
use crate::services;

/// A registered contact, as far as it is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registered {
    /// Names it for as long as it is bound.
    pub id: u64,
    /// Contact parameters: feature tags (RFC 3840).
    pub params: Box<[u8]>,
    /// Thousandths.
    pub q: u16,
}

/// Appends the composed document. `publications`: oldest first.
pub fn compose(aor: &str, publications: &[&Published], registered: &[Registered], out: &mut Vec<u8>) {
    let pieces = select(publications);
    let mut uses = pieces.iter().fold(0, |bits, chosen| bits | chosen.piece.uses);
    if publications.is_empty() && !registered.is_empty() {
        uses |= bit_of(CAPS);
    }
    open_root(aor, uses, out);
    for chosen in &pieces {
        let xml = &chosen.piece.xml;
        match &chosen.id {
            None => out.extend_from_slice(xml),
            Some(id) => {
                out.extend_from_slice(&xml[..usize::from(chosen.piece.id.0)]);
                out.extend_from_slice(id.as_bytes());
                out.extend_from_slice(&xml[usize::from(chosen.piece.id.1)..]);
            }
        }
    }
    if publications.is_empty() {
        match registered {
            [] => write_closed(out),
            contacts => {
                contacts.iter().for_each(|contact| write_contact(aor, contact, out));
                let mut features = Union::default();
                contacts.iter().for_each(|contact| features.add(Params::new(&contact.params)));
                services::write_tuples(aor, &features, out);
            }
        }
    }
    out.extend_from_slice(b"</presence>\n");
}

/// Appends what a watcher is told who may not know, and one who may not know that (polite blocking, a pending subscription): closed.
pub fn unavailable(aor: &str, out: &mut Vec<u8>) {
    compose(aor, &[], &[], out);
}

/// A piece of the composed document; `id` replaces its own.
struct Chosen<'a> {
    piece: &'a Piece,
    id: Option<String>,
}

fn select<'a>(publications: &[&'a Published]) -> Vec<Chosen<'a>> {
    let all = || publications.iter().flat_map(|p| p.pieces.iter());
    let mut chosen: Vec<Chosen<'a>> = Vec::with_capacity(all().count());
    let person = publications.iter().rev().find(|p| p.pieces.iter().any(|piece| piece.kind == Kind::Person));
    for kind in [Kind::Tuple, Kind::Note] {
        for piece in all().filter(|p| p.kind == kind) {
            add(piece, &mut chosen);
        }
    }
    for piece in person.into_iter().flat_map(|p| p.pieces.iter()).filter(|p| p.kind == Kind::Person) {
        add(piece, &mut chosen);
    }
    let mut devices: Vec<&Piece> = Vec::new();
    for piece in all().filter(|p| p.kind == Kind::Device) {
        // The newest occurrence of a device stands for it.
        match device_id(piece) {
            Some(id) => {
                devices.retain(|d| device_id(d).as_deref() != Some(&*id));
                devices.push(piece);
            }
            None => devices.push(piece),
        }
    }
    devices.into_iter().for_each(|piece| add(piece, &mut chosen));
    all().filter(|p| p.kind == Kind::Extension).for_each(|piece| add(piece, &mut chosen));
    chosen
}

/// Takes a piece unless it is there already, under a new id if its own is taken.
fn add<'a>(piece: &'a Piece, chosen: &mut Vec<Chosen<'a>>) {
    if chosen.iter().any(|c| c.piece.xml == piece.xml) {
        return;
    }
    let taken = |id: &[u8], chosen: &[Chosen<'_>]| {
        chosen.iter().any(|c| c.id.as_deref().map_or(c.piece.id(), str::as_bytes) == id)
    };
    let own = piece.id();
    let id = (!own.is_empty() && taken(own, chosen)).then(|| {
        let own = String::from_utf8_lossy(own);
        let mut names = (2u32..).map(|n| format!("{own}-{n}"));
        names.find(|name| !taken(name.as_bytes(), chosen)).unwrap_or_default()
    });
    chosen.push(Chosen { piece, id });
}

fn device_id(piece: &Piece) -> Option<Box<str>> {
    let mut wrapped = Vec::with_capacity(piece.xml.len() + 256);
    open_root("d", u8::MAX, &mut wrapped);
    wrapped.extend_from_slice(&piece.xml);
    wrapped.extend_from_slice(b"</presence>");
    let document = Document::parse(&wrapped).ok()?;
    let device = document.root.elements().next()?;
    Some(device.child(DATA_MODEL, "deviceID")?.text().trim().into())
}

fn open_root(aor: &str, uses: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<presence xmlns=\"");
    out.extend_from_slice(PIDF.as_bytes());
    out.push(b'"');
    for (prefix, namespace, bit) in BOUND {
        if uses & bit != 0 {
            out.extend_from_slice(b" xmlns:");
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(b"=\"");
            out.extend_from_slice(namespace.as_bytes());
            out.push(b'"');
        }
    }
    out.extend_from_slice(b" entity=\"sip:");
    sip_xml::escape_attribute(aor, out);
    out.extend_from_slice(b"\">");
}

fn bit_of(namespace: &str) -> u8 {
    BOUND.iter().find(|(_, n, _)| *n == namespace).map_or(0, |(_, _, bit)| *bit)
}

/// An `id` that no publisher is likely to use.
const NOBODY: &str = "nobody-there";

fn write_closed(out: &mut Vec<u8>) {
    Writer::element(out, "tuple", |tuple| {
        tuple.attribute("id", NOBODY);
        tuple.child("status", |status| status.child("basic", |basic| basic.text("closed")));
    });
}

/// A handset that is there and says nothing of itself but what it registered (RFC 5196 for its feature tags).
fn write_contact(aor: &str, contact: &Registered, out: &mut Vec<u8>) {
    let lossy = String::from_utf8_lossy;
    Writer::element(out, "tuple", |tuple| {
        tuple.attribute("id", &format!("r{:016x}", contact.id));
        tuple.child("status", |status| status.child("basic", |basic| basic.text("open")));
        let params = Params::new(&contact.params);
        let media: Vec<&str> = MEDIA.into_iter().filter(|tag| params.has(tag)).collect();
        let methods = params.get("methods").map(|v| unquoted(v).into_owned()).unwrap_or_default();
        if !media.is_empty() || !methods.is_empty() {
            tuple.child("caps:servcaps", |caps| {
                for tag in media {
                    caps.child(&format!("caps:{tag}"), |c| c.text("true"));
                }
                if !methods.is_empty() {
                    caps.child("caps:methods", |m| {
                        m.child("caps:supported", |supported| {
                            for name in lossy(&methods).split(',').map(str::trim) {
                                if KNOWN_METHODS.contains(&name) {
                                    supported.child(&format!("caps:{name}"), |_| {});
                                }
                            }
                        });
                    });
                }
            });
        }
        // The address, and neither where the handset is nor which one: that is nobody's business (RFC 3856 §9.2).
        tuple.child("contact", |c| {
            if contact.q != 1000 {
                let mut q = Vec::with_capacity(5);
                sip_proto::headers::Q::new(contact.q).write(&mut q);
                c.attribute("priority", &lossy(&q));
            }
            c.text(&format!("sip:{aor}"));
        });
    });
}

/// Feature tags of RFC 3840 §10 that RFC 5196 §3.2 has as Boolean elements.
pub(crate) const MEDIA: [&str; 7] = ["audio", "video", "text", "message", "application", "automata", "isfocus"];
/// RFC 5196 §3.2.10.
const KNOWN_METHODS: [&str; 14] = [
    "ACK",
    "BYE",
    "CANCEL",
    "INFO",
    "INVITE",
    "MESSAGE",
    "NOTIFY",
    "OPTIONS",
    "PRACK",
    "PUBLISH",
    "REFER",
    "REGISTER",
    "SUBSCRIBE",
    "UPDATE",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn published(inner: &str) -> Published {
        let root = format!("xmlns='{PIDF}' xmlns:dm='{DATA_MODEL}' entity='pres:a@h'");
        Published::parse(format!("<presence {root}>{inner}</presence>").as_bytes(), 65_536).unwrap()
    }

    fn composed(publications: &[&Published], registered: &[Registered]) -> String {
        let mut out = Vec::new();
        compose("a@h", publications, registered, &mut out);
        // It is one itself.
        assert!(Published::parse(&out, 1 << 20).is_ok(), "{}", String::from_utf8_lossy(&out));
        String::from_utf8(out).unwrap()
    }

    fn tuple(id: &str, basic: &str) -> String {
        format!("<tuple id=\"{id}\"><status><basic>{basic}</basic></status></tuple>")
    }

    #[test]
    fn every_tuple_is_there_and_no_id_twice() {
        let one = published(&(tuple("a", "open") + "<note>one</note>"));
        let two = published(&(tuple("a", "closed") + &tuple("b", "open")));
        let text = composed(&[&one, &two], &[]);
        let expected =
            [tuple("a", "open"), tuple("a-2", "closed"), tuple("b", "open"), "<note>one</note>".into()].concat();
        assert_eq!(text.split_once("entity=\"sip:a@h\">").unwrap().1, expected + "</presence>\n");
        // The same tuple published twice is there once.
        assert_eq!(composed(&[&one, &one.clone()], &[]).matches("<tuple").count(), 1);
    }

    #[test]
    fn the_newest_person_and_device_stand_for_the_others() {
        let device =
            |id: &str, note: &str| format!("<dm:device id='{note}'><dm:deviceID>{id}</dm:deviceID></dm:device>");
        let one = published(&format!("<dm:person id='p1'/>{}{}", device("mac:1", "old"), device("mac:2", "other")));
        let two = published(&format!("<dm:person id='p2'/>{}", device("mac:1", "new")));
        let three = published(&tuple("t", "open"));
        let text = composed(&[&one, &two, &three], &[]);
        assert!(text.contains("id='p2'") && !text.contains("id='p1'"), "{text}");
        assert!(text.contains("id='new'") && text.contains("id='other'") && !text.contains("id='old'"), "{text}");
        assert!(text.find("<tuple") < text.find("<dm:person"), "{text}");
        assert!(text.contains(&format!("xmlns:dm=\"{DATA_MODEL}\"")) && !text.contains("xmlns:rpid"));
    }

    #[test]
    fn registered_contacts_speak_while_nobody_publishes() {
        let contact = Registered { id: 7, params: b";audio;methods=\"INVITE,XYZ\"".as_slice().into(), q: 500 };
        let text = composed(&[], std::slice::from_ref(&contact));
        assert!(text.contains("<basic>open</basic>") && text.contains("<caps:audio>true</caps:audio>"), "{text}");
        assert!(text.contains("<caps:INVITE/>") && !text.contains("XYZ"), "{text}");
        assert!(text.contains("<contact priority=\"0.5\">sip:a@h</contact>"), "{text}");
        assert!(!composed(&[&published(&tuple("a", "open"))], &[contact]).contains("caps"));
        let closed = composed(&[], &[]);
        assert!(closed.contains("<basic>closed</basic>") && closed.matches("<tuple").count() == 1, "{closed}");
    }

    #[test]
    fn bytes_that_this_house_knows_nothing_of_stay_as_they_are() {
        let odd = "<tuple id=\"x\"><status><basic>open</basic><z:q xmlns:z=\"urn:z\" a = 'b' ><![CDATA[<&]]></z:q></status></tuple>";
        assert!(composed(&[&published(odd)], &[]).contains(odd));
    }
}
