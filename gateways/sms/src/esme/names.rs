//! How the messages of ESMEs are called: number, draw and kinship in hexadecimal, and then what was wished. So query_sm, cancel_sm and
//! replace_sm find their row by the name, and replace_if_present_flag what it replaces, without another index.

use std::hash::Hasher;
use std::sync::Arc;

use gw_smpp::pdu::COctets;
use sip_ims::Msisdn;
use siphasher::sip::SipHasher13;

use crate::queue::RequestKey;

/// Which ends an ESME wants to hear of (registered_delivery, §5.2.17, and 3 of 5.0 §4.7.21).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    Nothing,
    Everything,
    Failures,
    Successes,
}

impl Wish {
    pub fn from_bits(registered_delivery: u8) -> Wish {
        match registered_delivery & 3 {
            0 => Wish::Nothing,
            1 => Wish::Everything,
            2 => Wish::Failures,
            _ => Wish::Successes,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Wish::Nothing | Wish::Everything => "",
            Wish::Failures => "-2",
            Wish::Successes => "-3",
        }
    }

    /// Of a message that asked for something.
    pub fn of(name: &str) -> Wish {
        match name.get(name.len().saturating_sub(2)..) {
            Some("-2") => Wish::Failures,
            Some("-3") => Wish::Successes,
            _ => Wish::Everything,
        }
    }

    pub fn includes(self, delivered: bool) -> bool {
        match self {
            Wish::Nothing => false,
            Wish::Everything => true,
            Wish::Failures => !delivered,
            Wish::Successes => delivered,
        }
    }
}

/// The same for messages of one source and service_type: one of them may replace another (§5.2.18).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kin(u32);

impl Kin {
    pub fn of(source: &str, service_type: &[u8]) -> Kin {
        let mut hasher = SipHasher13::new();
        hasher.write(source.as_bytes());
        hasher.write_u8(0xFF);
        hasher.write(service_type);
        Kin(hasher.finish() as u32)
    }

    /// What the names of its messages are like, to whatever number.
    pub fn like(self) -> Box<str> {
        format!("%-{}{:08x}%", "_".repeat(DRAWN), self.0).into()
    }
}

/// What a name is made of.
pub(super) struct Making {
    /// Of a submit_multi, whose destinations share it, the first number.
    pub msn: Msisdn,
    /// Random. Two messages that met in it would be one to the queue, and the second lost: of half as many bits, 20,000 messages to one
    /// number do in one of twenty runs.
    pub drawn: u64,
    pub kin: Kin,
    pub many: bool,
    pub wish: Wish,
}

impl Making {
    /// At most 13 + 1 + 24 + 1 + 2 characters.
    pub fn name(&self) -> COctets<65> {
        let Making { msn, drawn, kin, many, wish } = self;
        let many = if *many { MANY } else { "" };
        let name = format!("{:x}-{drawn:0DRAWN$x}{:08x}{many}{}", msn.as_u64(), kin.0, wish.suffix());
        // Shorter than 65, and without a NUL.
        COctets::new(name.as_bytes()).unwrap_or_default()
    }
}

/// Of a message id that we gave.
pub(super) fn key(client: Arc<str>, id: &COctets<65>) -> Option<RequestKey> {
    let name = std::str::from_utf8(id.as_bytes()).ok()?;
    let (digits, _) = name.split_once('-')?;
    let msn = format!("+{}", u64::from_str_radix(digits, 16).ok()?).parse().ok()?;
    Some(RequestKey { client, msn, reqid: name.into() })
}

/// Whether several numbers have a message of this name.
pub(super) fn is_many(name: &str) -> bool {
    name.split_once('-').and_then(|(_, rest)| rest.get(DRAWN + 8..)).is_some_and(|rest| rest.starts_with(MANY))
}

const MANY: &str = "m";
/// Digits of what is drawn.
const DRAWN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn made(many: bool, wish: Wish) -> String {
        let msn = "+819012345678".parse().unwrap();
        let name = Making { msn, drawn: 1, kin: Kin(0xAB), many, wish }.name();
        String::from_utf8(name.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_message_id_finds_its_request() {
        let id = COctets::new(b"beb2b0b5ae-000000000000000100000002").unwrap();
        let found = key("esme:x".into(), &id).unwrap();
        assert_eq!(found.msn.as_u64(), 0xbe_b2b0_b5ae);
        assert!(key("esme:x".into(), &COctets::new(b"17").unwrap()).is_none());
        let name = made(true, Wish::Failures);
        assert_eq!(name, "beb0f09f4e-0000000000000001000000abm-2");
        assert_eq!(
            key("esme:x".into(), &COctets::new(name.as_bytes()).unwrap()).unwrap().msn.as_u64(),
            819_012_345_678
        );
    }

    #[test]
    fn a_name_says_which_ends_are_told_and_whether_there_are_many() {
        for (bits, told) in [(1, [true, true]), (2, [true, false]), (3, [false, true]), (0x12, [true, false])] {
            for many in [false, true] {
                let name = made(many, Wish::from_bits(bits));
                assert_eq!([false, true].map(|delivered| Wish::of(&name).includes(delivered)), told, "{bits}");
                assert_eq!(is_many(&name), many);
            }
        }
        assert_eq!(Wish::from_bits(0), Wish::Nothing);
        assert!(!is_many("17") && !is_many("beb0f09f4e-00000000000000010000"));
    }

    #[test]
    fn kin_are_of_one_source_and_service() {
        assert_eq!(Kin::of("5555", b"CMT"), Kin::of("5555", b"CMT"));
        assert_ne!(Kin::of("5555", b"CMT"), Kin::of("5555", b"VMN"));
        assert_ne!(Kin::of("5555", b"C"), Kin::of("5555C", b""));
        assert_eq!(&*Kin(0xAB).like(), "%-________________000000ab%");
    }
}
