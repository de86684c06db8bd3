//! `application/reginfo+xml` (RFC 3680 §5), with public GRUUs (RFC 5628).

use std::hash::Hasher as _;

use sip_proto::headers::{Params, Q, unquoted};
use sip_xml::{Open, Writer};
use siphasher::sip::SipHasher13;

use super::Event;
use crate::binding::Binding;
use crate::gruu;

pub const MEDIA_TYPE: &[u8] = b"application/reginfo+xml";
const REGINFO: &str = "urn:ietf:params:xml:ns:reginfo";
const GRUUINFO: &str = "urn:ietf:params:xml:ns:gruuinfo";

/// Names a contact for as long as it is bound: instance and flow, or else the URI.
pub fn id(binding: &Binding) -> u64 {
    // The key is no secret: who watches a user may know the contacts.
    let mut hash = SipHasher13::new();
    hash.write_u32(binding.reg_id);
    hash.write(if binding.reg_id > 0 { binding.instance() } else { binding.contact() });
    hash.finish()
}

/// Every contact there is, and those that have just gone.
pub fn full(aor: &str, version: u32, bindings: &[Binding], changes: &[(Event, Binding)], unix: u64, out: &mut Vec<u8>) {
    let live = || bindings.iter().filter(|b| b.is_live(unix));
    let ended = || changes.iter().filter(|(e, b)| e.is_end() && !live().any(|l| id(l) == id(b)));
    let state = match (live().next(), ended().next()) {
        (Some(_), _) => "active",
        (None, Some(_)) => "terminated",
        (None, None) => "init",
    };
    write(aor, version, "full", state, out, |registration| {
        for binding in live() {
            let known = changes.iter().find(|(_, b)| id(b) == id(binding)).map(|(e, _)| *e).filter(|e| !e.is_end());
            contact(registration, aor, known.unwrap_or(Event::Registered), binding, unix);
        }
        ended().for_each(|(event, binding)| contact(registration, aor, *event, binding, unix));
    });
}

/// The contacts that have changed. `left`: the address-of-record has bindings still.
pub fn partial(aor: &str, version: u32, left: bool, changes: &[(Event, Binding)], unix: u64, out: &mut Vec<u8>) {
    write(aor, version, "partial", if left { "active" } else { "terminated" }, out, |registration| {
        changes.iter().for_each(|(event, binding)| contact(registration, aor, *event, binding, unix));
    });
}

fn write(aor: &str, version: u32, kind: &str, state: &str, out: &mut Vec<u8>, contacts: impl FnOnce(&mut Open<'_>)) {
    Writer::document(out, "reginfo", |root| {
        root.attribute("xmlns", REGINFO).attribute("xmlns:gr", GRUUINFO);
        root.attribute("version", &version.to_string()).attribute("state", kind);
        root.child("registration", |registration| {
            // One address-of-record for each subscription.
            registration.attribute("aor", &format!("sip:{aor}")).attribute("id", "r").attribute("state", state);
            contacts(registration);
        });
    });
}

fn contact(registration: &mut Open<'_>, aor: &str, event: Event, binding: &Binding, unix: u64) {
    let text = binding.text();
    let lossy = String::from_utf8_lossy;
    registration.child("contact", |c| {
        c.attribute("id", &format!("{:016x}", id(binding)));
        c.attribute("state", if event.is_end() { "terminated" } else { "active" });
        c.attribute("event", event.as_str());
        // Optional for one that has ended, but Kamailio's watcher passes over a contact without it.
        let left = if event.is_end() { 0 } else { binding.remaining(unix) };
        c.attribute("expires", &left.to_string());
        c.attribute("duration-registered", &unix.saturating_sub(binding.since.into()).to_string());
        if binding.q != 1000 {
            let mut q = Vec::with_capacity(5);
            Q::new(binding.q).write(&mut q);
            c.attribute("q", &lossy(&q));
        }
        c.attribute("callid", text.call_id).attribute("cseq", &binding.cseq.to_string());
        c.child("uri", |u| u.text(text.contact));
        let mut unknown = |name: &[u8], value: &[u8]| {
            c.child("unknown-param", |p| {
                p.attribute("name", &lossy(name));
                p.text(&lossy(value));
            });
        };
        if !text.instance.is_empty() {
            unknown(b"+sip.instance", &[b"<", text.instance.as_bytes(), b">"].concat());
        }
        if binding.reg_id > 0 {
            unknown(b"reg-id", binding.reg_id.to_string().as_bytes());
        }
        for (name, value) in Params::new(text.params.as_bytes()).iter() {
            unknown(name, &unquoted(value.unwrap_or_default()));
        }
        if !text.instance.is_empty() {
            let mut uri = Vec::with_capacity(128);
            gruu::write_public(aor, text.instance.as_bytes(), &mut uri);
            c.child("gr:pub-gruu", |g| {
                g.attribute("uri", &lossy(&uri));
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::{Facts, Text};
    use sip_xml::Document;

    fn binding(contact: &str, instance: &str) -> Binding {
        let text = Text { contact, instance, params: ";audio;+x=\"<&\"", call_id: "c\"1", ..Text::default() };
        let facts = Facts { expires_at: 160, since: 40, cseq: 7, reg_id: 0, q: 500, proved: false, way: None };
        Binding::new(&text, facts).unwrap()
    }

    #[test]
    fn full_state_lists_contacts_and_those_that_have_gone() {
        let (one, two) = (binding("sip:a@h?", "urn:x"), binding("sip:b@h", ""));
        let mut out = Vec::new();
        full("a@x", 3, std::slice::from_ref(&one), &[(Event::Expired, two.clone())], 100, &mut out);
        let d = Document::parse(&out).unwrap();
        assert_eq!((d.root.attribute("version"), d.root.attribute("state")), (Some("3"), Some("full")));
        let r = d.root.child(REGINFO, "registration").unwrap();
        assert_eq!((r.attribute("aor"), r.attribute("state")), (Some("sip:a@x"), Some("active")));
        let contacts: Vec<_> = r.all(REGINFO, "contact").collect();
        let of = |i: usize, name| contacts[i].attribute(name).unwrap_or("-");
        assert_eq!(
            (of(0, "state"), of(0, "event"), of(0, "expires"), of(0, "q")),
            ("active", "registered", "60", "0.5")
        );
        assert_eq!((of(0, "duration-registered"), of(0, "callid"), of(0, "cseq")), ("60", "c\"1", "7"));
        assert_eq!((of(1, "state"), of(1, "event"), of(1, "expires")), ("terminated", "expired", "0"));
        assert_eq!(contacts[0].child(REGINFO, "uri").unwrap().text(), "sip:a@h?");
        let params: Vec<_> =
            contacts[0].all(REGINFO, "unknown-param").map(|p| (p.attribute("name").unwrap(), p.text())).collect();
        assert_eq!(params, [("+sip.instance", "<urn:x>".into()), ("audio", String::new()), ("+x", "<&".into())]);
        let gruu = contacts[0].child(GRUUINFO, "pub-gruu").unwrap();
        assert_eq!(gruu.attribute("uri"), Some("sip:a@x;gr=urn:x"));
        assert!(contacts[1].child(GRUUINFO, "pub-gruu").is_none());
        assert_ne!(id(&one), id(&two));
    }

    #[test]
    fn the_registration_ends_with_its_last_contact() {
        let state = |bytes: &[u8]| {
            let d = Document::parse(bytes).unwrap();
            d.root.child(REGINFO, "registration").unwrap().attribute("state").unwrap().to_owned()
        };
        let gone = [(Event::Unregistered, binding("sip:b@h", ""))];
        for (left, expected) in [(true, "active"), (false, "terminated")] {
            let mut out = Vec::new();
            partial("a@x", 1, left, &gone, 100, &mut out);
            assert_eq!(state(&out), expected);
        }
        let mut out = Vec::new();
        full("a@x", 0, &[], &[], 100, &mut out);
        assert_eq!(state(&out), "init");
    }
}
