//! One binding in memory: one allocation for all its text, and a few numbers.

use sip_ims::ports::BindingRow;
use sip_ims::service::Reach;
use sip_proto::Flow;
use sip_proto::uri::Uri;

use crate::way::Way;

/// Where a user can be reached until it expires (RFC 3261 §10).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Contact, parameters, Path, instance, Call-ID and User-Agent, one after the other.
    text: Box<str>,
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
    /// Apart, because most phones are reached at their address.
    way: Option<Box<Way>>,
}

/// The text of a binding, borrowed. All of it together is at most 64 KiB; see [`crate::contact`] for each bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Text<'a> {
    /// The URI as received, without angle brackets.
    pub contact: &'a str,
    /// Contact parameters to repeat, `;` before each.
    pub params: &'a str,
    /// Path values, `,`-separated.
    pub path: &'a str,
    /// `+sip.instance` without quotes and brackets.
    pub instance: &'a str,
    pub call_id: &'a str,
    pub user_agent: &'a str,
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
        let ends = text.ends()?;
        let Facts { expires_at, since, cseq, reg_id, q, proved, way } = facts;
        let way = way.map(Box::new);
        Some(Binding { text: text.parts().concat().into(), ends, expires_at, since, cseq, reg_id, q, proved, way })
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

    /// Takes new numbers over, and new text if it differs; text of the same length (a new Call-ID, mostly) goes where the old
    /// one was, so a refresh allocates nothing. False when the text is too long.
    pub fn update(&mut self, text: &Text<'_>, facts: Facts) -> bool {
        if self.text() != *text {
            let Some(ends) = text.ends() else { return false };
            let parts = text.parts();
            let length = parts.iter().map(|p| p.len()).sum();
            let mut joined = if length == self.text.len() {
                String::from(std::mem::take(&mut self.text))
            } else {
                String::with_capacity(length)
            };
            joined.clear();
            parts.iter().for_each(|p| joined.push_str(p));
            (self.text, self.ends) = (joined.into(), ends);
        }
        let Facts { expires_at, since, cseq, reg_id, q, proved, way } = facts;
        (self.expires_at, self.since, self.cseq, self.reg_id) = (expires_at, since, cseq, reg_id);
        (self.q, self.proved) = (q, proved);
        match (&mut self.way, way) {
            (Some(old), Some(new)) => **old = new,
            (old, new) => *old = new.map(Box::new),
        }
        true
    }

    /// The way back, when it is not the contact's own address.
    pub fn way(&self) -> Option<Way> {
        self.way.as_deref().copied()
    }

    /// Only another node can send to it.
    pub fn is_elsewhere(&self) -> bool {
        self.way.as_ref().is_some_and(|w| w.elsewhere_at().is_some())
    }

    pub fn contact(&self) -> &[u8] {
        &self.text.as_bytes()[..usize::from(self.ends[0])]
    }

    pub fn instance(&self) -> &[u8] {
        let [_, _, path, instance, _] = self.ends.map(usize::from);
        &self.text.as_bytes()[path..instance]
    }

    /// Whether both are one binding: by instance and flow (RFC 5626 §6), or else by the URI.
    pub fn is_same(&self, other: &Binding) -> bool {
        if self.reg_id > 0 || other.reg_id > 0 {
            return self.reg_id == other.reg_id && self.instance() == other.instance();
        }
        let uris = (Uri::parse(self.contact()), Uri::parse(other.contact()));
        self.contact() == other.contact() || matches!(uris, (Some(a), Some(b)) if a.equivalent(&b))
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
            uri: text.contact.as_bytes(),
            path: text.path.as_bytes(),
            hop: self.way().and_then(|w| w.hop()),
            elsewhere: None,
            q: self.q,
            instance: text.instance.as_bytes(),
            params: text.params.as_bytes(),
        }
    }

    /// As the store keeps it.
    pub fn row<'a>(&'a self, aor: &'a str, key: &'a str, node: &'a str) -> BindingRow<'a> {
        row(&self.text(), &self.facts(), aor, key, node)
    }

    pub fn facts(&self) -> Facts {
        let Binding { expires_at, since, cseq, reg_id, q, proved, .. } = *self;
        Facts { expires_at, since, cseq, reg_id, q, proved, way: self.way() }
    }

    /// Back from the store; `node` is the number of the one that wrote it, 0 ours. Our flows of connections are gone; so is the
    /// proof that went with any.
    pub fn from_row(row: &BindingRow<'_>, node: u16, unix: u64) -> Option<Binding> {
        let text = Text {
            contact: row.contact,
            params: row.params,
            path: row.path,
            instance: row.instance,
            call_id: row.call_id,
            user_agent: row.user_agent,
        };
        let facts = Facts {
            expires_at: u32::try_from(row.expires_at).ok()?,
            since: unix as u32,
            cseq: row.cseq,
            reg_id: row.reg_id,
            q: row.q.min(1000),
            proved: false,
            way: row.flow.as_ref().and_then(|flow| match node {
                0 => Way::restored(flow),
                _ => Some(Way::elsewhere(flow, node)),
            }),
        };
        Binding::new(&text, facts)
    }
}

/// A row for the store.
pub fn row<'a>(text: &Text<'a>, facts: &Facts, aor: &'a str, key: &'a str, node: &'a str) -> BindingRow<'a> {
    let Text { contact, params, path, instance, call_id, user_agent } = *text;
    BindingRow {
        aor,
        key,
        contact,
        params,
        path,
        instance,
        call_id,
        user_agent,
        node,
        flow: facts.way.map(|w| w.flow()) as Option<Flow>,
        expires_at: i64::from(facts.expires_at),
        cseq: facts.cseq,
        reg_id: facts.reg_id,
        q: facts.q,
    }
}

/// Lends the name of a binding within its address-of-record: instance and flow, or else the contact URI.
pub fn with_key<R>(instance: &str, reg_id: u32, contact: &str, with: impl FnOnce(&str) -> R) -> R {
    if reg_id == 0 {
        return with(contact);
    }
    // Cannot be taken for a contact: those begin with "sip".
    with(&format!("<{instance}>{reg_id}"))
}

impl<'a> Text<'a> {
    fn parts(&self) -> [&'a str; 6] {
        [self.contact, self.params, self.path, self.instance, self.call_id, self.user_agent]
    }

    /// Where the first five end. `None` beyond 64 KiB.
    fn ends(&self) -> Option<[u16; 5]> {
        let (mut ends, mut end) = ([0; 5], 0usize);
        for (i, part) in self.parts().into_iter().enumerate() {
            end += part.len();
            let short = u16::try_from(end).ok()?;
            if let Some(slot) = ends.get_mut(i) {
                *slot = short;
            }
        }
        Some(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Text<'_> = Text {
        contact: "sip:a@h",
        params: ";audio",
        path: "<sip:p;lr>",
        instance: "urn:x",
        call_id: "c",
        user_agent: "ua",
    };

    fn facts(expires_at: u32) -> Facts {
        Facts { expires_at, since: 1, cseq: 2, reg_id: 0, q: 500, proved: true, way: None }
    }

    #[test]
    fn text_comes_back_in_its_parts() {
        let b = Binding::new(&TEXT, facts(10)).unwrap();
        assert_eq!(b.text(), TEXT);
        assert_eq!((b.contact(), b.instance()), (TEXT.contact.as_bytes(), TEXT.instance.as_bytes()));
        assert_eq!((b.is_live(9), b.is_live(10), b.remaining(3), b.remaining(11)), (true, false, 7, 0));
        let long = "x".repeat(70_000);
        assert_eq!(Binding::new(&Text { path: &long, ..TEXT }, facts(10)), None);
    }

    #[test]
    fn a_refresh_keeps_the_text_where_it_is() {
        let mut b = Binding::new(&TEXT, facts(10)).unwrap();
        let place = b.text.as_ptr();
        assert!(b.update(&TEXT, facts(20)));
        assert_eq!((b.text.as_ptr(), b.expires_at), (place, 20));
        assert!(b.update(&Text { call_id: "other", ..TEXT }, facts(30)));
        assert_eq!(b.text().call_id, "other");
        let place = b.text.as_ptr();
        assert!(b.update(&Text { call_id: "third", ..TEXT }, facts(40)));
        assert_eq!((b.text.as_ptr(), b.text()), (place, Text { call_id: "third", ..TEXT }));
    }

    #[test]
    fn a_row_reads_back_without_its_connection() {
        let b = Binding::new(&TEXT, facts(10)).unwrap();
        let row = b.row("a@x", "sip:a@h", "n1");
        let again = Binding::from_row(&row, 0, 1).unwrap();
        assert_eq!(again.text(), TEXT);
        assert_eq!((again.expires_at, again.cseq, again.q, again.proved), (10, 2, 500, false));
    }

    #[test]
    fn keys_of_flows_and_contacts_differ() {
        assert_eq!(with_key("urn:x", 2, "sip:a", str::to_owned), "<urn:x>2");
        assert_eq!(with_key("urn:x", 0, "sip:a", str::to_owned), "sip:a");
    }

    #[test]
    fn a_binding_is_small() {
        assert!(size_of::<Binding>() <= 56, "{}", size_of::<Binding>());
    }
}
