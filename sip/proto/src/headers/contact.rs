//! Contact with its parameters: RFC 3261 §20.10, outbound (RFC 5626), GRUU (RFC 5627), capabilities (RFC 3840).

use std::borrow::Cow;

use super::name_addr::NameAddr;
use super::number::delta_seconds;
use super::param::{Params, unquoted};
use crate::edit;
use crate::features::is_base;

/// One Contact value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contact<'a>(pub NameAddr<'a>);

impl<'a> Contact<'a> {
    /// Reads one value (not a list); [`Contact::is_star`] tells `*`.
    pub fn parse(value: &'a [u8]) -> Option<Contact<'a>> {
        NameAddr::parse(value).map(Contact)
    }

    pub fn is_star(&self) -> bool {
        self.0.is_star()
    }

    pub fn params(&self) -> Params<'a> {
        self.0.params
    }

    /// Preference, 1000 when absent or unreadable.
    pub fn q(&self) -> Q {
        self.params().get("q").and_then(Q::parse).unwrap_or(Q::ONE)
    }

    /// `Some(None)`: a value is there but cannot be read; RFC 3261 §10.2.1.1 has it mean 3600.
    pub fn expires(&self) -> Option<Option<u32>> {
        self.params().get("expires").map(delta_seconds)
    }

    /// `+sip.instance` without quotes and angle brackets: a URN that names the device (RFC 5626 §4.1).
    pub fn instance(&self) -> Option<&'a [u8]> {
        let quoted = self.params().get("+sip.instance")?;
        let inner = quoted.strip_prefix(b"\"<")?.strip_suffix(b">\"")?;
        (!inner.is_empty()).then_some(inner)
    }

    /// `reg-id`, 1 to 2^31 - 1 (RFC 5626 §4.2).
    pub fn reg_id(&self) -> Option<u32> {
        self.params().get("reg-id").and_then(delta_seconds).filter(|n| (1..1 << 31).contains(n))
    }

    pub fn pub_gruu(&self) -> Option<Cow<'a, [u8]>> {
        self.params().text("pub-gruu")
    }

    pub fn temp_gruu(&self) -> Option<Cow<'a, [u8]>> {
        self.params().text("temp-gruu")
    }

    /// Feature tags: parameters with `+`, and the base tags of RFC 3840 §9, values without quotes.
    pub fn features(&self) -> impl Iterator<Item = (&'a [u8], Cow<'a, [u8]>)> {
        self.params()
            .iter()
            .filter(|(n, _)| n.starts_with(b"+") || is_base(n))
            .map(|(n, v)| (n, unquoted(v.unwrap_or_default())))
    }
}

/// A `qvalue` (RFC 3261 §25.1) in thousandths: 0 to 1000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Q(u16);

impl Q {
    pub const ONE: Q = Q(1000);

    /// `thousandths` above 1000 become 1000.
    pub fn new(thousandths: u16) -> Q {
        Q(thousandths.min(1000))
    }

    pub fn thousandths(self) -> u16 {
        self.0
    }

    /// `1`, `0.5`, `0.`, `1.000`; more than three decimals are refused, as the grammar has it.
    pub fn parse(text: &[u8]) -> Option<Q> {
        let (whole, decimals) = match text {
            [w @ (b'0' | b'1')] => (w, &b""[..]),
            [w @ (b'0' | b'1'), b'.', d @ ..] if d.len() <= 3 => (w, d),
            _ => return None,
        };
        let mut n = u16::from(whole - b'0');
        for i in 0..3 {
            let digit = *decimals.get(i).unwrap_or(&b'0');
            n = n * 10 + u16::from(digit.checked_sub(b'0').filter(|d| *d <= 9)?);
        }
        (n <= 1000).then_some(Q(n))
    }

    pub fn write(self, out: &mut Vec<u8>) {
        edit::number(out, u64::from(self.0 / 1000));
        let mut rest = self.0 % 1000;
        if rest > 0 {
            out.push(b'.');
        }
        while rest > 0 {
            out.push(b'0' + (rest / 100) as u8);
            rest = rest % 100 * 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_of_an_ims_handset() {
        let c = Contact::parse(
            b"<sip:user1@192.0.2.1:5060;transport=tcp>;q=0.75;expires=600000;+sip.instance=\"<urn:gsma:imei:90420156-025763-0>\"\
              ;reg-id=1;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\";audio;methods=\"INVITE,BYE\"\
              ;pub-gruu=\"sip:a@h;gr=urn:x\";temp-gruu=\"sip:t@h;gr\"",
        )
        .unwrap();
        assert_eq!((c.q().thousandths(), c.expires(), c.reg_id()), (750, Some(Some(600000)), Some(1)));
        assert_eq!(c.instance(), Some(&b"urn:gsma:imei:90420156-025763-0"[..]));
        assert_eq!(c.pub_gruu().unwrap().as_ref(), b"sip:a@h;gr=urn:x");
        assert_eq!(c.temp_gruu().unwrap().as_ref(), b"sip:t@h;gr");
        let names: Vec<_> = c.features().map(|(n, _)| n).collect();
        assert_eq!(names, [&b"+sip.instance"[..], b"+g.3gpp.icsi-ref", b"audio", b"methods"]);
        assert_eq!(c.features().last().unwrap().1.as_ref(), b"INVITE,BYE");
    }

    #[test]
    fn unreadable_parameters_are_told_from_absent_ones() {
        let c = Contact::parse(b"<sip:a>;expires=soon;reg-id=0;q=2;+sip.instance=\"\"").unwrap();
        assert_eq!((c.expires(), c.reg_id(), c.q(), c.instance()), (Some(None), None, Q::ONE, None));
        assert_eq!(Contact::parse(b"<sip:a>").unwrap().expires(), None);
        assert!(Contact::parse(b"*").unwrap().is_star());
    }

    #[test]
    fn every_q_reads_back() {
        for n in 0..=1000 {
            let mut out = Vec::new();
            Q::new(n).write(&mut out);
            assert_eq!(Q::parse(&out), Some(Q(n)), "{n}");
        }
        assert_eq!(Q::parse(b"0."), Some(Q(0)));
        for bad in [&b""[..], b"1.001", b"2", b"0.1234", b".5", b"-1", b"0.x", b"0.5\x16", b"0.5 ", b"1.", b"01"] {
            assert_eq!(Q::parse(bad).is_some(), bad == b"1.", "{bad:?}");
        }
    }
}
