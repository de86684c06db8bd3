//! Which numbers are applications'.

use std::collections::{BTreeMap, HashMap};

use gw_smpp::pdu::{Address, COctets};
use sip_ims::Msisdn;

/// Numbers and short codes, and the ESMEs that messages to them are for. The queue knows whole numbers alone, so each short code
/// stands for one, under which it is kept.
#[derive(Clone, Default, Debug)]
pub struct Numbers {
    esmes: Vec<COctets<16>>,
    /// Beginnings of numbers, digits without `+`.
    prefixes: BTreeMap<Box<str>, usize>,
    codes: HashMap<Box<str>, Msisdn>,
    spelt: HashMap<Msisdn, (Box<str>, usize)>,
}

/// Somebody has this number or code already. The operator's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is another application's")]
pub struct Taken;

/// Not `+` and 1 to 15 digits that do not begin with 0. The operator's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("must be + and the first digits of international numbers")]
pub struct NotABeginning;

/// The digits of a beginning such as `+8190555`.
pub fn beginning(text: &str) -> Result<&str, NotABeginning> {
    let digits = text.strip_prefix('+').ok_or(NotABeginning)?;
    let good = (1..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if good && !digits.starts_with('0') { Ok(digits) } else { Err(NotABeginning) }
}

/// Whether this can be a short code: 2 to 10 digits.
pub fn is_short_code(text: &str) -> bool {
    (2..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

impl Numbers {
    /// The place of an ESME, for what follows.
    pub fn esme(&mut self, system_id: COctets<16>) -> usize {
        self.esmes.push(system_id);
        self.esmes.len() - 1
    }

    /// Every number that begins with these digits; of two beginnings that fit, the longer counts.
    pub fn range(&mut self, digits: &str, esme: usize) -> Result<(), Taken> {
        match self.prefixes.insert(digits.into(), esme) {
            Some(_) => Err(Taken),
            None => Ok(()),
        }
    }

    pub fn short_code(&mut self, code: &str, stands_for: Msisdn, esme: usize) -> Result<(), Taken> {
        if self.codes.insert(code.into(), stands_for).is_some()
            || self.spelt.insert(stands_for, (code.into(), esme)).is_some()
        {
            return Err(Taken);
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.codes.is_empty()
    }

    /// Whose this number is.
    pub fn of(&self, msn: Msisdn) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        if let Some((_, esme)) = self.spelt.get(&msn) {
            return Some(*esme);
        }
        let digits = msn.as_u64().to_string();
        (1..=digits.len()).rev().find_map(|length| self.prefixes.get(&digits[..length]).copied())
    }

    /// The ESMEs that have any.
    pub fn with_numbers(&self) -> impl Iterator<Item = (usize, &COctets<16>)> {
        let has = |esme: usize| self.prefixes.values().chain(self.spelt.values().map(|s| &s.1)).any(|of| *of == esme);
        self.esmes.iter().enumerate().filter(move |(esme, _)| has(*esme))
    }

    pub fn name(&self, esme: usize) -> Option<&COctets<16>> {
        self.esmes.get(esme)
    }

    pub fn place(&self, system_id: &COctets<16>) -> Option<usize> {
        self.esmes.iter().position(|name| name == system_id)
    }

    /// What a user dialled: a short code, or a number.
    pub fn dialled(&self, text: &str) -> Option<Msisdn> {
        self.codes.get(text).copied().or_else(|| text.parse().ok())
    }

    /// The destination of a PDU: a short code, or a number.
    pub fn destination(&self, address: &Address) -> Option<Msisdn> {
        let code = std::str::from_utf8(address.digits.as_bytes()).ok().and_then(|text| self.codes.get(text));
        code.copied().or_else(|| crate::smpp::destination(address))
    }

    /// As its application knows the number.
    pub fn address(&self, msn: Msisdn) -> Address {
        match self.spelt.get(&msn) {
            Some((code, _)) => crate::smpp::address(code),
            None => crate::smpp::number(msn),
        }
    }

    /// Everything of an ESME, from the least to the greatest number of each kind.
    pub fn ranges(&self, esme: usize) -> Vec<(Msisdn, Msisdn)> {
        let mut ranges = Vec::new();
        for (prefix, _) in self.prefixes.iter().filter(|p| *p.1 == esme) {
            for rest in 0..=15usize.saturating_sub(prefix.len()) {
                let end = |digit: &str| format!("+{prefix}{}", digit.repeat(rest)).parse().ok();
                ranges.extend(end("0").zip(end("9")));
            }
        }
        ranges.extend(self.spelt.iter().filter(|s| s.1.1 == esme).map(|(msn, _)| (*msn, *msn)));
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn msn(text: &str) -> Msisdn {
        text.parse().unwrap()
    }

    fn two() -> Numbers {
        let mut numbers = Numbers::default();
        let (wide, narrow) =
            (numbers.esme(COctets::new(b"wide").unwrap()), numbers.esme(COctets::new(b"narrow").unwrap()));
        numbers.range("8190", wide).unwrap();
        numbers.range("819055", narrow).unwrap();
        numbers.short_code("5555", msn("+8112000000"), narrow).unwrap();
        numbers
    }

    #[test]
    fn the_longest_beginning_counts() {
        let numbers = two();
        assert_eq!(numbers.of(msn("+819012345678")), Some(0));
        assert_eq!(numbers.of(msn("+819055345678")), Some(1));
        assert_eq!(numbers.of(msn("+8112000000")), Some(1));
        assert_eq!((numbers.of(msn("+8112000001")), numbers.of(msn("+41790000000"))), (None, None));
    }

    #[test]
    fn a_short_code_stands_for_its_number_both_ways() {
        let numbers = two();
        assert_eq!(numbers.dialled("5555"), Some(msn("+8112000000")));
        assert_eq!((numbers.dialled("+81905500000"), numbers.dialled("5556")), (Some(msn("+81905500000")), None));
        let address = numbers.address(msn("+8112000000"));
        assert_eq!((address.ton, address.digits.as_bytes()), (0, &b"5555"[..]));
        assert_eq!(numbers.destination(&address), Some(msn("+8112000000")));
        assert_eq!(numbers.address(msn("+81905500000")).digits.as_bytes(), b"81905500000");
    }

    #[test]
    fn nothing_is_given_twice() {
        let mut numbers = two();
        assert_eq!(numbers.range("8190", 1), Err(Taken));
        assert_eq!(numbers.short_code("5555", msn("+8112000001"), 0), Err(Taken));
        assert_eq!(numbers.short_code("5556", msn("+8112000000"), 0), Err(Taken));
    }

    #[test]
    fn ranges_hold_what_is_theirs_and_nothing_else() {
        let numbers = two();
        let within =
            |esme: usize, n: &str| numbers.ranges(esme).iter().any(|(from, to)| (*from..=*to).contains(&msn(n)));
        for (number, theirs) in
            [("+81905512345", true), ("+819055999999999", true), ("+81905500000", true), ("+819056000000", false)]
        {
            assert_eq!(within(1, number), theirs, "{number}");
        }
        assert!(within(1, "+8112000000") && !within(1, "+8112000001"));
        assert!(within(0, "+819012345678"));
    }

    #[test]
    fn beginnings_are_international() {
        assert_eq!(beginning("+8190"), Ok("8190"));
        for bad in ["8190", "+", "+0", "+81a", "+1234567890123456", ""] {
            assert_eq!(beginning(bad), Err(NotABeginning), "{bad}");
        }
        assert!(
            is_short_code("5555") && !is_short_code("5") && !is_short_code("+555") && !is_short_code("12345678901")
        );
    }
}
