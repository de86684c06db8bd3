//! RP messages of TS 24.011 §7.3: what carries TPDUs between a handset and the network, in an SMS over IP as the body of a
//! MESSAGE of type `application/vnd.3gpp.sms`.

use crate::tpdu::{self, Address, Octets};

/// The content type of RP messages in SIP (TS 24.341 §4).
pub const CONTENT_TYPE: &str = "application/vnd.3gpp.sms";

/// Longest RP message: RP-DATA with two addresses and 233 octets of user data, with room to spare. Longer bodies are refused
/// unread.
pub const MAX: usize = 300;

/// RP-Cause (TS 24.011 §8.2.5.4).
pub mod cause {
    pub const UNASSIGNED_NUMBER: u8 = 1;
    pub const BARRED: u8 = 10;
    pub const TRANSFER_REJECTED: u8 = 21;
    pub const MEMORY_EXCEEDED: u8 = 22;
    pub const DESTINATION_OUT_OF_ORDER: u8 = 27;
    pub const UNIDENTIFIED_SUBSCRIBER: u8 = 28;
    pub const FACILITY_REJECTED: u8 = 29;
    pub const UNKNOWN_SUBSCRIBER: u8 = 30;
    pub const NETWORK_OUT_OF_ORDER: u8 = 38;
    pub const TEMPORARY_FAILURE: u8 = 41;
    pub const CONGESTION: u8 = 42;
    pub const RESOURCES_UNAVAILABLE: u8 = 47;
    pub const NOT_SUBSCRIBED: u8 = 50;
    pub const NOT_IMPLEMENTED: u8 = 69;
    pub const INVALID_REFERENCE: u8 = 81;
    pub const SEMANTICALLY_INCORRECT: u8 = 95;
    pub const INVALID_MANDATORY: u8 = 96;
    pub const PROTOCOL_ERROR: u8 = 111;
    pub const INTERWORKING: u8 = 127;
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    FromHandset,
    ToHandset,
}

/// An RP message. `direction` decides the message type's lowest bit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relay {
    pub direction: Direction,
    /// RP-MR: the same in a message and its answer.
    pub reference: u8,
    pub kind: Kind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// RP-DATA. To the handset the service centre is the originator, from the handset it is the destination.
    Data { originator: Option<Address>, destination: Option<Address>, tpdu: Vec<u8> },
    /// RP-ACK.
    Ack { tpdu: Option<Vec<u8>> },
    /// RP-ERROR.
    Error { cause: u8, diagnostic: Option<u8>, tpdu: Option<Vec<u8>> },
    /// RP-SMMA: memory is available again. From the handset only.
    Smma,
}

/// Octets that are no RP message. The peer's fault: RP-ERROR with cause 96 or 97 where a reference could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    #[error(transparent)]
    Octets(#[from] tpdu::Broken),
    #[error("RP message type {0} is reserved")]
    Type(u8),
    #[error("a cause without a value")]
    Cause,
    #[error("longer than {MAX} octets")]
    Long,
}

/// The optional RP-User-Data of RP-ACK and RP-ERROR.
const USER_DATA: u8 = 0x41;

impl Relay {
    pub fn decode(bytes: &[u8]) -> Result<Relay, Broken> {
        if bytes.len() > MAX {
            return Err(Broken::Long);
        }
        let mut octets = Octets(bytes);
        let kind = octets.take("the RP message type")? & 7;
        let reference = octets.take("RP-MR")?;
        let direction = if kind & 1 == 0 { Direction::FromHandset } else { Direction::ToHandset };
        let kind = match kind {
            0 | 1 => {
                let originator = Address::decode_rp(&mut octets)?;
                let destination = Address::decode_rp(&mut octets)?;
                let length = usize::from(octets.take("RP-User-Data")?);
                let tpdu = octets.slice(length, "RP-User-Data")?.to_vec();
                Kind::Data { originator, destination, tpdu }
            }
            2 | 3 => Kind::Ack { tpdu: optional_user_data(octets)? },
            4 | 5 => {
                let length = usize::from(octets.take("RP-Cause")?);
                let (cause, rest) = octets.slice(length, "RP-Cause")?.split_first().ok_or(Broken::Cause)?;
                Kind::Error {
                    cause: cause & 0x7F,
                    diagnostic: rest.first().copied(),
                    tpdu: optional_user_data(octets)?,
                }
            }
            6 => Kind::Smma,
            reserved => return Err(Broken::Type(reserved)),
        };
        Ok(Relay { direction, reference, kind })
    }

    pub fn encode(&self) -> Vec<u8> {
        let to_handset = u8::from(self.direction == Direction::ToHandset);
        let user_data = |tpdu: &Option<Vec<u8>>, out: &mut Vec<u8>| {
            if let Some(tpdu) = tpdu {
                out.push(USER_DATA);
                with_length(tpdu, out);
            }
        };
        let mut out = Vec::new();
        match &self.kind {
            Kind::Data { originator, destination, tpdu } => {
                out.extend([to_handset, self.reference]);
                Address::encode_rp(originator.as_ref(), &mut out);
                Address::encode_rp(destination.as_ref(), &mut out);
                with_length(tpdu, &mut out);
            }
            Kind::Ack { tpdu } => {
                out.extend([0x02 | to_handset, self.reference]);
                user_data(tpdu, &mut out);
            }
            Kind::Error { cause, diagnostic, tpdu } => {
                out.extend([0x04 | to_handset, self.reference, 1 + u8::from(diagnostic.is_some()), cause & 0x7F]);
                out.extend(*diagnostic);
                user_data(tpdu, &mut out);
            }
            Kind::Smma => out.extend([0x06, self.reference]),
        }
        out
    }
}

/// TPDUs that the codec makes are below 233 octets; a longer one is cut off.
fn with_length(tpdu: &[u8], out: &mut Vec<u8>) {
    let tpdu = &tpdu[..tpdu.len().min(usize::from(u8::MAX))];
    out.push(tpdu.len() as u8);
    out.extend_from_slice(tpdu);
}

/// Elements with another tag are skipped (TS 24.007 §11.2.4).
fn optional_user_data(mut octets: Octets<'_>) -> Result<Option<Vec<u8>>, Broken> {
    while !octets.0.is_empty() {
        let tag = octets.take("an element")?;
        // Type 1 and 2 elements have no length.
        if tag & 0x80 != 0 {
            continue;
        }
        let length = usize::from(octets.take("an element length")?);
        let value = octets.slice(length, "an element")?;
        if tag == USER_DATA {
            return Ok(Some(value.to_vec()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layouts_are_those_of_ts_24_011() {
        let number = Address::number("+1234").unwrap();
        let data = |direction, originator, destination| Relay {
            direction,
            reference: 9,
            kind: Kind::Data { originator, destination, tpdu: vec![0xAA] },
        };
        assert_eq!(
            data(Direction::FromHandset, None, Some(number.clone())).encode(),
            [0x00, 9, 0, 3, 0x91, 0x21, 0x43, 1, 0xAA]
        );
        assert_eq!(data(Direction::ToHandset, Some(number), None).encode(), [0x01, 9, 3, 0x91, 0x21, 0x43, 0, 1, 0xAA]);
        let ack = Relay { direction: Direction::FromHandset, reference: 9, kind: Kind::Ack { tpdu: Some(vec![0, 0]) } };
        assert_eq!(ack.encode(), [0x02, 9, 0x41, 2, 0, 0]);
        let error = Relay {
            direction: Direction::ToHandset,
            reference: 9,
            kind: Kind::Error { cause: cause::CONGESTION, diagnostic: None, tpdu: None },
        };
        assert_eq!(error.encode(), [0x05, 9, 1, 42]);
    }

    #[test]
    fn what_overruns_is_refused() {
        for bad in
            [&[][..], &[0], &[0, 1, 9, 1], &[1, 1, 0, 0, 5, 1], &[4, 1, 0], &[2, 1, 0x41], &[2, 1, 0x41, 3, 0], &[7, 1]]
        {
            assert!(Relay::decode(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Relay::decode(&[0; MAX + 1]), Err(Broken::Long));
    }

    #[test]
    fn unknown_elements_are_skipped() {
        let relay = Relay::decode(&[2, 1, 0x91, 0x22, 1, 7, 0x41, 1, 5]).unwrap();
        assert_eq!(relay.kind, Kind::Ack { tpdu: Some(vec![5]) });
    }

    proptest! {
        #[test]
        fn what_was_read_is_read_again_from_what_is_written(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(relay) = Relay::decode(&bytes) {
                prop_assert_eq!(Relay::decode(&relay.encode()), Ok(relay));
            }
        }
    }
}
