//! Address fields (TS 23.040 §9.1.2.5): numbers in swapped semi-octets, or a name in septets.

use std::fmt;

use super::{Broken, Octets};
use crate::text::{self, Shift, septets};

/// Digits that an address has at most.
const MAX_DIGITS: usize = 20;
/// Numbering plan: E.164.
const ISDN: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum TypeOfNumber {
    Unknown = 0,
    International = 1,
    National = 2,
    NetworkSpecific = 3,
    Subscriber = 4,
    Alphanumeric = 5,
    Abbreviated = 6,
    Reserved = 7,
}

impl TypeOfNumber {
    pub fn from_bits(bits: u8) -> TypeOfNumber {
        match bits & 7 {
            0 => TypeOfNumber::Unknown,
            1 => TypeOfNumber::International,
            2 => TypeOfNumber::National,
            3 => TypeOfNumber::NetworkSpecific,
            4 => TypeOfNumber::Subscriber,
            5 => TypeOfNumber::Alphanumeric,
            6 => TypeOfNumber::Abbreviated,
            _ => TypeOfNumber::Reserved,
        }
    }
}

/// A number or a name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    ton: TypeOfNumber,
    npi: u8,
    /// Digits `0-9*#abc`, at most 20; or, for a name, text of at most 11 septets.
    value: String,
}

/// Not a number of at most 20 digits, nor a name of at most 11 letters of the default alphabet. The caller's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("neither a number of at most 20 digits nor a name of at most 11 letters")]
pub struct NotAnAddress;

impl Address {
    /// `+` and digits is international; digits alone are of unknown type.
    pub fn number(text: &str) -> Result<Address, NotAnAddress> {
        let (ton, digits) = match text.strip_prefix('+') {
            Some(digits) => (TypeOfNumber::International, digits),
            None => (TypeOfNumber::Unknown, text),
        };
        Address::new(ton, ISDN, digits)
    }

    /// A sender's name.
    pub fn name(text: &str) -> Result<Address, NotAnAddress> {
        Address::new(TypeOfNumber::Alphanumeric, 0, text)
    }

    /// A number if it looks like one, else a name.
    pub fn parse(text: &str) -> Result<Address, NotAnAddress> {
        let plus = text.starts_with('+');
        Address::number(text).or_else(|no| if plus { Err(no) } else { Address::name(text) })
    }

    /// `npi` is the numbering plan, 0 to 15.
    pub fn new(ton: TypeOfNumber, npi: u8, value: &str) -> Result<Address, NotAnAddress> {
        let fits = match ton {
            TypeOfNumber::Alphanumeric => text::length(value, Shift::DEFAULT).is_some_and(|n| (1..=11).contains(&n)),
            _ => (1..=MAX_DIGITS).contains(&value.len()) && value.bytes().all(|b| nibble(b).is_some()),
        };
        if fits { Ok(Address { ton, npi: npi & 0x0F, value: value.to_owned() }) } else { Err(NotAnAddress) }
    }

    pub fn ton(&self) -> TypeOfNumber {
        self.ton
    }

    pub fn npi(&self) -> u8 {
        self.npi
    }

    /// Digits without `+`, or the name.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// As people write it: `+` before an international number.
    pub fn spelt(&self) -> String {
        match self.ton {
            TypeOfNumber::International => format!("+{}", self.value),
            _ => self.value.clone(),
        }
    }

    fn type_of_address(&self) -> u8 {
        0x80 | (self.ton as u8) << 4 | self.npi
    }

    /// As a TPDU has it: length in digits, type, value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.ton == TypeOfNumber::Alphanumeric {
            // `new` has seen that it can be written; nothing is lost by the default.
            let septets = text::encode(&self.value, Shift::DEFAULT).unwrap_or_default();
            // Useful semi-octets (TS 23.040 §9.1.2.5).
            out.push((septets.len() * 7).div_ceil(4) as u8);
            out.push(self.type_of_address());
            out.extend(septets::pack(&septets, 0));
        } else {
            out.push(self.value.len() as u8);
            out.push(self.type_of_address());
            out.extend(semi_octets(&self.value));
        }
    }

    pub(super) fn decode(octets: &mut Octets<'_>) -> Result<Address, Broken> {
        let digits = usize::from(octets.take("an address length")?);
        let kind = octets.take("a type of address")?;
        if digits > MAX_DIGITS {
            return Err(Broken::Address);
        }
        let value = octets.slice(digits.div_ceil(2), "an address")?;
        Ok(Address::read(kind, value, digits))
    }

    /// As RP has it (TS 24.011 §8.2.5.1: a called party BCD number of TS 24.008): length in octets, type, digits. `None` is an
    /// empty field, and so is a name: these numbers have no such type.
    pub(crate) fn encode_rp(address: Option<&Address>, out: &mut Vec<u8>) {
        let Some(address) = address.filter(|a| a.ton != TypeOfNumber::Alphanumeric) else { return out.push(0) };
        let value = semi_octets(&address.value);
        out.push((1 + value.len()) as u8);
        out.push(address.type_of_address());
        out.extend(value);
    }

    pub(crate) fn decode_rp(octets: &mut Octets<'_>) -> Result<Option<Address>, Broken> {
        let length = usize::from(octets.take("an address length")?);
        if length > 1 + MAX_DIGITS / 2 {
            return Err(Broken::Address);
        }
        let Some((kind, value)) = octets.slice(length, "an address")?.split_first() else { return Ok(None) };
        // Reserved in TS 24.008 §10.5.4.7: what would be in it is anybody's guess.
        if TypeOfNumber::from_bits(kind >> 4) == TypeOfNumber::Alphanumeric {
            return Err(Broken::RelayAddress);
        }
        Ok(Some(Address::read(*kind, value, value.len() * 2)))
    }

    /// `digits` counts semi-octets. A filler ends the number. What cannot be written again is read as it can.
    fn read(kind: u8, value: &[u8], digits: usize) -> Address {
        let ton = TypeOfNumber::from_bits(kind >> 4);
        let value = if ton == TypeOfNumber::Alphanumeric {
            text::decode(&septets::unpack(value, 0, digits * 4 / 7), Shift::DEFAULT)
        } else {
            let nibbles = value.iter().flat_map(|octet| [octet & 0x0F, octet >> 4]);
            nibbles.take(digits).take_while(|n| *n != 0x0F).map(|n| char::from(DIGITS[usize::from(n)])).collect()
        };
        Address { ton, npi: kind & 0x0F, value }
    }
}

/// A number is personal: logs get the last two digits.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail: String = self.value.chars().rev().take(2).collect();
        write!(f, "{:?}/{}:..{}", self.ton, self.npi, tail.chars().rev().collect::<String>())
    }
}

const DIGITS: &[u8; 15] = b"0123456789*#abc";

fn nibble(digit: u8) -> Option<u8> {
    DIGITS.iter().position(|d| *d == digit.to_ascii_lowercase()).and_then(|n| u8::try_from(n).ok())
}

/// Low half first, 0xF fills up.
fn semi_octets(digits: &str) -> Vec<u8> {
    let nibbles: Vec<u8> = digits.bytes().map(|d| nibble(d).unwrap_or(0x0F)).collect();
    nibbles.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0x0F) << 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(address: &Address) -> Vec<u8> {
        let mut out = Vec::new();
        address.encode(&mut out);
        out
    }

    #[test]
    fn odd_numbers_are_filled_and_count_digits() {
        assert_eq!(
            written(&Address::number("+46708251358").unwrap()),
            [0x0B, 0x91, 0x64, 0x07, 0x28, 0x15, 0x53, 0xF8]
        );
    }

    #[test]
    fn names_count_useful_semi_octets() {
        let name = Address::name("Design@Home").unwrap();
        let octets = written(&name);
        assert_eq!(octets[..2], [0x14, 0xD0]);
        assert_eq!(Address::decode(&mut Octets(&octets)), Ok(name));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", "+", "123456789012345678901", "a name too long", "名前"] {
            assert_eq!(Address::parse(bad), Err(NotAnAddress), "{bad}");
        }
        assert_eq!(Address::decode(&mut Octets(&[21, 0x91])), Err(Broken::Address));
        assert_eq!(Address::decode(&mut Octets(&[4, 0x91, 0x21])), Err(Broken::Short("an address")));
    }

    #[test]
    fn relay_addresses_count_octets() {
        let mut out = Vec::new();
        Address::encode_rp(Some(&Address::number("+14044550000").unwrap()), &mut out);
        assert_eq!(out, [0x07, 0x91, 0x41, 0x40, 0x54, 0x05, 0x00, 0xF0]);
        Address::encode_rp(None, &mut out);
        let mut read = Octets(&out);
        assert_eq!(Address::decode_rp(&mut read).unwrap().map(|a| a.spelt()).as_deref(), Some("+14044550000"));
        assert_eq!(Address::decode_rp(&mut read), Ok(None));
    }

    #[test]
    fn relay_addresses_are_no_names() {
        assert_eq!(Address::decode_rp(&mut Octets(&[4, 0xD0, 0x41, 0xE1, 0x10])), Err(Broken::RelayAddress));
        let mut out = Vec::new();
        Address::encode_rp(Some(&Address::name("Fleet").unwrap()), &mut out);
        assert_eq!(out, [0]);
    }

    #[test]
    fn debug_output_does_not_tell_the_number() {
        assert_eq!(format!("{:?}", Address::number("+819012345678").unwrap()), "International/1:..78");
    }
}
