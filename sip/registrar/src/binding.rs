//! One binding in memory: one allocation for all its text, and a few numbers.

use sip_ims::ports::BindingRow;
use sip_ims::service::Reach;
use sip_proto::Flow;

use crate::way::Way;

/// Where a user can be reached until it expires (RFC 3261 §10).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Contact, parameters, Path, instance, Call-ID and User-Agent, one after the other.
    text: Box<[u8]>,
    /// Where the first five end.
    ends: [u16; 5],
    /// Unix seconds.
    pub expires_at: u32,
    /// Unix seconds: when the contact was first bound.
    pub since: u32,
    pub cseq: u32,
    /// 0: none (RFC 5626 §4.2).
    pub reg_id: u32,
    /// Thousandths.
    pub q: u16,
    /// The phone proved by digest who it is, on this very flow, with nobody between.
    pub proved: bool,
    pub way: Option<Way>,
}

/// The text of a binding, borrowed. All of it together is at most 64 KiB; see [`crate::contact`] for each bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Text<'a> {
    /// The URI as received, without angle brackets.
    pub contact: &'a [u8],
    /// Contact parameters to repeat, `;` before each.
    pub params: &'a [u8],
    /// Path values, `,`-separated.
    pub path: &'a [u8],
    /// `+sip.instance` without quotes and brackets.
    pub instance: &'a [u8],
    pub call_id: &'a [u8],
    pub user_agent: &'a [u8],
}

/// The numbers of a binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    pub expires_at: u32,
    pub since: u32,
    pub cseq: u32,
    pub reg_id: u32,
    pub q: u16,
    pub proved: bool,
    pub way: Option<Way>,
}

impl Binding {
    /// `None` when the text is longer than 64 KiB.
    pub fn new(text: &Text<'_>, facts: Facts) -> Option<Binding> {
        let parts = [text.contact, text.params, text.path, text.instance, text.call_id, text.user_agent];
        let mut joined = Vec::with_capacity(parts.iter().map(|p| p.len()).sum());
        let mut ends = [0u16; 5];
        for (i, part) in parts.into_iter().enumerate() {
            joined.extend_from_slice(part);
            let end = u16::try_from(joined.len()).ok()?;
            if let Some(slot) = ends.get_mut(i) {
                *slot = end;
            }
        }
        let Facts { expires_at, since, cseq, reg_id, q, proved, way } = facts;
        Some(Binding { text: joined.into(), ends, expires_at, since, cseq, reg_id, q, proved, way })
    }

    pub fn text(&self) -> Text<'_> {
        let [contact, params, path, instance, call_id] = self.ends.map(usize::from);
        Text {
            contact: &self.text[..contact],
            params: &self.text[contact..params],
            path: &self.text[params..path],
            instance: &self.text[path..instance],
            call_id: &self.text[instance..call_id],
            user_agent: &self.text[call_id..],
        }
    }

    /// Takes new numbers over, and new text if it differs: a refresh allocates nothing. False when the text is too long.
    pub fn update(&mut self, text: &Text<'_>, facts: Facts) -> bool {
        if self.text() != *text {
            match Binding::new(text, facts) {
                Some(new) => *self = new,
                None => return false,
            }
        }
        let Facts { expires_at, since, cseq, reg_id, q, proved, way } = facts;
        (self.expires_at, self.since, self.cseq, self.reg_id) = (expires_at, since, cseq, reg_id);
        (self.q, self.proved, self.way) = (q, proved, way);
        true
    }

    pub fn contact(&self) -> &[u8] {
        &self.text[..usize::from(self.ends[0])]
    }

    pub fn instance(&self) -> &[u8] {
        self.text().instance
    }

    pub fn is_live(&self, unix: u64) -> bool {
        u64::from(self.expires_at) > unix
    }

    /// Seconds left.
    pub fn remaining(&self, unix: u64) -> u32 {
        u64::from(self.expires_at).saturating_sub(unix) as u32
    }

    pub fn reach(&self) -> Reach<'_> {
        let text = self.text();
        Reach {
            uri: text.contact,
            path: text.path,
            hop: self.way.map(|w| w.hop()),
            q: self.q,
            instance: text.instance,
            params: text.params,
        }
    }

    /// As the store keeps it. `None` for text that is not UTF-8, which [`crate::contact`] does not let in.
    pub fn row<'a>(&'a self, aor: &'a str, key: &'a str, node: &'a str) -> Option<BindingRow<'a>> {
        row(&self.text(), &self.facts(), aor, key, node)
    }

    pub fn facts(&self) -> Facts {
        let Binding { expires_at, since, cseq, reg_id, q, proved, way, .. } = *self;
        Facts { expires_at, since, cseq, reg_id, q, proved, way }
    }

    /// Back from the store. Flows of connections are gone; so is the proof that went with them.
    pub fn from_row(row: &BindingRow<'_>, ours: bool, unix: u64) -> Option<Binding> {
        let text = Text {
            contact: row.contact.as_bytes(),
            params: row.params.as_bytes(),
            path: row.path.as_bytes(),
            instance: row.instance.as_bytes(),
            call_id: row.call_id.as_bytes(),
            user_agent: row.user_agent.as_bytes(),
        };
        let facts = Facts {
            expires_at: u32::try_from(row.expires_at).ok()?,
            since: unix as u32,
            cseq: row.cseq,
            reg_id: row.reg_id,
            q: row.q.min(1000),
            proved: false,
            way: row.flow.as_ref().filter(|_| ours).and_then(Way::restored),
        };
        Binding::new(&text, facts)
    }
}

/// A row for the store. `None` for text that is not UTF-8.
pub fn row<'a>(text: &Text<'a>, facts: &Facts, aor: &'a str, key: &'a str, node: &'a str) -> Option<BindingRow<'a>> {
    let utf8 = |bytes| std::str::from_utf8(bytes).ok();
    Some(BindingRow {
        aor,
        key,
        contact: utf8(text.contact)?,
        params: utf8(text.params)?,
        path: utf8(text.path)?,
        instance: utf8(text.instance)?,
        call_id: utf8(text.call_id)?,
        user_agent: utf8(text.user_agent)?,
        node,
        flow: facts.way.map(|w| w.flow()) as Option<Flow>,
        expires_at: i64::from(facts.expires_at),
        cseq: facts.cseq,
        reg_id: facts.reg_id,
        q: facts.q,
    })
}

/// Lends the name of a binding within its address-of-record: instance and flow, or else the contact URI.
pub fn with_key<R>(instance: &[u8], reg_id: u32, contact: &[u8], with: impl FnOnce(&str) -> R) -> Option<R> {
    if reg_id == 0 {
        return std::str::from_utf8(contact).ok().map(with);
    }
    // Cannot be taken for a contact: those begin with "sip".
    let key = format!("<{}>{reg_id}", std::str::from_utf8(instance).ok()?);
    Some(with(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Text<'_> = Text {
        contact: b"sip:a@h",
        params: b";audio",
        path: b"<sip:p;lr>",
        instance: b"urn:x",
        call_id: b"c",
        user_agent: b"ua",
    };

    fn facts(expires_at: u32) -> Facts {
        Facts { expires_at, since: 1, cseq: 2, reg_id: 0, q: 500, proved: true, way: None }
    }

    #[test]
    fn text_comes_back_in_its_parts() {
        let b = Binding::new(&TEXT, facts(10)).unwrap();
        assert_eq!(b.text(), TEXT);
        assert_eq!((b.contact(), b.instance()), (TEXT.contact, TEXT.instance));
        assert_eq!((b.is_live(9), b.is_live(10), b.remaining(3), b.remaining(11)), (true, false, 7, 0));
        let long = vec![b'x'; 70_000];
        assert_eq!(Binding::new(&Text { path: &long, ..TEXT }, facts(10)), None);
    }

    #[test]
    fn a_refresh_keeps_the_text_where_it_is() {
        let mut b = Binding::new(&TEXT, facts(10)).unwrap();
        let place = b.text.as_ptr();
        assert!(b.update(&TEXT, facts(20)));
        assert_eq!((b.text.as_ptr(), b.expires_at), (place, 20));
        assert!(b.update(&Text { call_id: b"other", ..TEXT }, facts(30)));
        assert_eq!(b.text().call_id, b"other");
    }

    #[test]
    fn a_row_reads_back_without_its_connection() {
        let b = Binding::new(&TEXT, facts(10)).unwrap();
        let row = b.row("a@x", "sip:a@h", "n1").unwrap();
        let again = Binding::from_row(&row, true, 1).unwrap();
        assert_eq!(again.text(), TEXT);
        assert_eq!((again.expires_at, again.cseq, again.q, again.proved), (10, 2, 500, false));
    }

    #[test]
    fn keys_of_flows_and_contacts_differ() {
        assert_eq!(with_key(b"urn:x", 2, b"sip:a", str::to_owned).as_deref(), Some("<urn:x>2"));
        assert_eq!(with_key(b"urn:x", 0, b"sip:a", str::to_owned).as_deref(), Some("sip:a"));
        assert_eq!(with_key(b"", 0, b"\xff", str::to_owned), None);
    }

    #[test]
    fn a_binding_is_small() {
        assert!(size_of::<Binding>() <= 112, "{}", size_of::<Binding>());
    }
}
