//! User data (TS 23.040 §9.2.3.24): a header and what follows it, as a TPDU carries it and as SMPP does.

use crate::dcs::Alphabet;
use crate::text::{self, septets};
use crate::udh::{self, Header};

/// Octets in the user data of one message, header included.
pub const MAX_OCTETS: usize = 140;
/// Septets in the user data of one message, header and fill bits included.
pub const MAX_SEPTETS: usize = 160;

/// What stands behind the header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// One septet in each byte.
    Septets(Vec<u8>),
    /// 8 bit data, or UCS-2.
    Octets(Vec<u8>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserData {
    pub header: Header,
    pub body: Body,
}

impl Default for UserData {
    fn default() -> UserData {
        UserData { header: Header::default(), body: Body::Septets(Vec::new()) }
    }
}

/// User data that does not hold together. The peer's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    #[error("user data shorter than its length says")]
    Short,
    #[error("user data longer than a message may have")]
    Long,
    #[error(transparent)]
    Header(#[from] udh::Broken),
}

impl UserData {
    pub fn septets(header: Header, septets: Vec<u8>) -> UserData {
        UserData { header, body: Body::Septets(septets) }
    }

    pub fn octets(header: Header, octets: Vec<u8>) -> UserData {
        UserData { header, body: Body::Octets(octets) }
    }

    /// Whether it fits one message.
    pub fn fits(&self) -> bool {
        let header = self.header.octets();
        match &self.body {
            Body::Septets(septets) => septets.len() <= septet_room(header),
            Body::Octets(octets) => header + octets.len() <= MAX_OCTETS,
        }
    }

    /// TP-UDL and TP-UD. The length counts septets, header and fill bits included, for a body of septets, else octets.
    /// Only for what [`fits`](Self::fits); a longer one is cut off.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let header = self.header.encode();
        match &self.body {
            Body::Septets(septets) => {
                let fill = septets::fill_bits(header.len());
                let room = septet_room(header.len());
                let septets = &septets[..septets.len().min(room)];
                let before = (header.len() * 8).div_ceil(7);
                out.push(u8::try_from(before + septets.len()).unwrap_or(MAX_SEPTETS as u8));
                out.extend_from_slice(&header);
                out.extend(septets::pack(septets, fill));
            }
            Body::Octets(octets) => {
                let octets = &octets[..octets.len().min(MAX_OCTETS.saturating_sub(header.len()))];
                out.push(u8::try_from(header.len() + octets.len()).unwrap_or(MAX_OCTETS as u8));
                out.extend_from_slice(&header);
                out.extend_from_slice(octets);
            }
        }
    }

    /// From TP-UDL onwards; gives the number of octets read.
    pub fn decode(bytes: &[u8], alphabet: Alphabet, has_header: bool) -> Result<(UserData, usize), Broken> {
        let (&length, rest) = bytes.split_first().ok_or(Broken::Short)?;
        let length = usize::from(length);
        let octets = match alphabet {
            Alphabet::Gsm7 if length > MAX_SEPTETS => return Err(Broken::Long),
            Alphabet::Gsm7 => (length * 7).div_ceil(8),
            _ if length > MAX_OCTETS => return Err(Broken::Long),
            _ => length,
        };
        let octets = rest.get(..octets).ok_or(Broken::Short)?;
        let (header, header_octets) = if has_header { Header::decode(octets)? } else { (Header::default(), 0) };
        let body = match alphabet {
            Alphabet::Gsm7 => {
                let before = (header_octets * 8).div_ceil(7);
                let fill = septets::fill_bits(header_octets);
                let count = length.saturating_sub(before);
                Body::Septets(septets::unpack(&octets[header_octets..], fill, count))
            }
            _ => Body::Octets(octets[header_octets..].to_vec()),
        };
        Ok((UserData { header, body }, 1 + octets.len()))
    }

    /// As SMPP carries it in short_message or message_payload: septets unpacked, one in each octet.
    pub fn unpacked(&self) -> Vec<u8> {
        let mut out = self.header.encode();
        match &self.body {
            Body::Septets(bytes) | Body::Octets(bytes) => out.extend_from_slice(bytes),
        }
        out
    }

    /// The reverse of [`unpacked`](Self::unpacked). Longer than one message is fine here: message_payload may be.
    pub fn from_unpacked(bytes: &[u8], alphabet: Alphabet, has_header: bool) -> Result<UserData, Broken> {
        let (header, at) = if has_header { Header::decode(bytes)? } else { (Header::default(), 0) };
        let rest = &bytes[at..];
        Ok(match alphabet {
            Alphabet::Gsm7 => UserData::septets(header, rest.iter().map(|s| s & 0x7F).collect()),
            _ => UserData::octets(header, rest.to_vec()),
        })
    }

    /// The text, unless this is 8 bit data.
    pub fn text(&self, alphabet: Alphabet) -> Option<String> {
        match (&self.body, alphabet) {
            (Body::Septets(septets), _) => Some(text::decode(septets, self.header.shift())),
            (Body::Octets(octets), Alphabet::Ucs2) => Some(text::decode_ucs2(octets)),
            (Body::Octets(_), _) => None,
        }
    }

    /// Bytes in memory, for whoever bounds a collection of them.
    pub fn weight(&self) -> usize {
        let body = match &self.body {
            Body::Septets(bytes) | Body::Octets(bytes) => bytes.len(),
        };
        size_of::<UserData>() + self.header.octets() + body
    }
}

/// Septets of text that fit behind a header of `octets`.
pub fn septet_room(octets: usize) -> usize {
    (MAX_OCTETS.saturating_sub(octets) * 8) / 7
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::udh::{Element, Part, Reference};

    #[test]
    fn the_capacities_of_the_standard() {
        assert_eq!([0, 6, 7].map(septet_room), [160, 153, 152]);
    }

    #[test]
    fn text_behind_a_header_starts_on_a_septet() {
        let part = Element::Part(Part { reference: Reference::Byte(1), total: 2, number: 1 });
        let data = UserData::septets(Header { elements: vec![part] }, b"ab".to_vec());
        let mut out = Vec::new();
        data.encode(&mut out);
        // 7 septets of header with one fill bit, then two of text.
        assert_eq!(out, [9, 5, 0, 3, 1, 2, 1, 0xC2, 0x62]);
        assert_eq!(UserData::decode(&out, Alphabet::Gsm7, true), Ok((data, 9)));
    }

    #[test]
    fn a_length_beyond_the_octets_is_refused() {
        assert_eq!(UserData::decode(&[3, 1, 2], Alphabet::Octets, false), Err(Broken::Short));
        assert_eq!(UserData::decode(&[161; 200], Alphabet::Gsm7, false), Err(Broken::Long));
        assert_eq!(UserData::decode(&[], Alphabet::Ucs2, false), Err(Broken::Short));
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(septets in prop::collection::vec(0u8..128, 0..150), ports in any::<bool>()) {
            let elements = if ports { vec![Element::ShortPorts { destination: 240, source: 241 }] } else { vec![] };
            let data = UserData::septets(Header { elements }, septets);
            let mut out = Vec::new();
            data.encode(&mut out);
            let read = UserData::decode(&out, Alphabet::Gsm7, ports);
            prop_assert_eq!(read, Ok((data, out.len())));
        }
    }
}
