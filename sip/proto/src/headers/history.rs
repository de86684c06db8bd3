//! Where a call was retargeted: History-Info (RFC 7044) and Diversion (RFC 5806).

use std::borrow::Cow;

use super::name_addr::NameAddr;
use super::reason::Reason;
use crate::message::decimal;
use crate::uri::decoded;

/// One History-Info entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryInfo<'a>(pub NameAddr<'a>);

impl<'a> HistoryInfo<'a> {
    pub fn parse(value: &'a [u8]) -> Option<HistoryInfo<'a>> {
        NameAddr::parse(value).filter(|a| a.bracketed).map(HistoryInfo)
    }

    /// `1.2.1`: numbers with dots (RFC 7044 §10.3); `None` when absent or otherwise.
    pub fn index(&self) -> Option<&'a [u8]> {
        let index = self.0.params.get("index")?;
        index.split(|b| *b == b'.').all(|n| decimal(n).is_some()).then_some(index)
    }

    /// The index of the entry that this one was made from by mapping (`mp`), by change of contact (`rc`) or by none (`np`).
    pub fn made_from(&self) -> Option<(&'static str, &'a [u8])> {
        ["mp", "rc", "np"].into_iter().find_map(|name| self.0.params.get(name).map(|v| (name, v)))
    }

    /// The `cause` of retargeting in the URI (RFC 4458).
    pub fn cause(&self) -> Option<u16> {
        self.0.uri()?.params().get("cause").and_then(decimal).and_then(|n| u16::try_from(n).ok())
    }

    /// The Reason header that stands escaped in the URI.
    pub fn reason_text(&self) -> Option<Cow<'a, [u8]>> {
        self.0.uri()?.header_fields().find(|(n, _)| n.eq_ignore_ascii_case(b"Reason")).map(|(_, v)| decoded(v))
    }

    /// The cause of [`HistoryInfo::reason_text`].
    pub fn reason_cause(&self) -> Option<u16> {
        Reason::parse(&self.reason_text()?)?.cause()
    }
}

/// One Diversion value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Diversion<'a>(pub NameAddr<'a>);

impl<'a> Diversion<'a> {
    pub fn parse(value: &'a [u8]) -> Option<Diversion<'a>> {
        NameAddr::parse(value).filter(|a| !a.is_star()).map(Diversion)
    }

    /// `unconditional`, `user-busy`, `no-answer`, `unavailable`, …
    pub fn reason(&self) -> Option<Cow<'a, [u8]>> {
        self.0.params.text("reason")
    }

    /// How many diversions this value stands for: 1 when not said.
    pub fn counter(&self) -> u32 {
        self.0.params.get("counter").and_then(decimal).and_then(|n| u32::try_from(n).ok()).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_with_its_reason() {
        let h =
            HistoryInfo::parse(b"<sip:bob@192.0.2.4;cause=486?Reason=SIP%3Bcause%3D302>;index=1.2.1;rc=1.2").unwrap();
        assert_eq!((h.index(), h.made_from()), (Some(&b"1.2.1"[..]), Some(("rc", &b"1.2"[..]))));
        assert_eq!((h.cause(), h.reason_cause()), (Some(486), Some(302)));
        assert_eq!(HistoryInfo::parse(b"<sip:a>;index=1..2").unwrap().index(), None);
        assert_eq!(HistoryInfo::parse(b"sip:a;index=1"), None);
        let mut out = Vec::new();
        h.0.write(&mut out);
        assert_eq!(HistoryInfo::parse(&out), Some(h));
    }

    #[test]
    fn a_diversion_counts_once_unless_it_says_more() {
        let d = Diversion::parse(b"<tel:+12015550123>;reason=\"user-busy\";counter=2;privacy=off").unwrap();
        assert_eq!((d.reason().unwrap().as_ref(), d.counter()), (&b"user-busy"[..], 2));
        assert_eq!(Diversion::parse(b"<tel:+1>;counter=x").unwrap().counter(), 1);
    }
}
