//! One segment as it goes out: what SMPP's submit_sm and a TPDU both need, and its form in the store.

/// Octets of one segment (SMPP 3.4 §5.2.22 `short_message`; a TPDU holds fewer).
pub const MAX_SHORT_MESSAGE: usize = 254;

/// What one segment carries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// Originating address: digits with `+`, or up to 11 other characters. Empty: the link's own.
    pub source: Box<str>,
    /// `short_message` begins with a user data header.
    pub udhi: bool,
    /// TS 23.038 §4.
    pub data_coding: u8,
    pub protocol_id: u8,
    /// User data with its header, if any: GSM 7-bit one character an octet, else as it is. At most [`MAX_SHORT_MESSAGE`] octets.
    pub short_message: Box<[u8]>,
}

/// A stored part that does not read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a stored segment is damaged")]
pub struct BadPart;

impl Part {
    /// Its bytes for the store.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(5 + self.source.len() + self.short_message.len());
        bytes.extend_from_slice(&[FORM, u8::from(self.udhi), self.data_coding, self.protocol_id]);
        // Addresses are bounded far below 255 where they come in.
        let source = &self.source.as_bytes()[..self.source.len().min(255)];
        bytes.push(source.len() as u8);
        bytes.extend_from_slice(source);
        bytes.extend_from_slice(&self.short_message);
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Part, BadPart> {
        let [FORM, udhi, data_coding, protocol_id, len, rest @ ..] = bytes else { return Err(BadPart) };
        let (source, short_message) = rest.split_at_checked(usize::from(*len)).ok_or(BadPart)?;
        if short_message.len() > MAX_SHORT_MESSAGE {
            return Err(BadPart);
        }
        Ok(Part {
            source: std::str::from_utf8(source).map_err(|_| BadPart)?.into(),
            udhi: *udhi != 0,
            data_coding: *data_coding,
            protocol_id: *protocol_id,
            short_message: short_message.into(),
        })
    }
}

/// Of this layout; another one gets another number.
const FORM: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_reads_back() {
        let part = Part {
            source: "Fleet".into(),
            udhi: true,
            data_coding: 8,
            protocol_id: 0x41,
            short_message: vec![5, 0, 3, 1, 2, 1, 0x30, 0x42].into(),
        };
        assert_eq!(Part::from_bytes(&part.to_bytes()), Ok(part));
    }

    #[test]
    fn damaged_bytes_are_refused() {
        for bad in [&[][..], &[1, 0, 0, 0], &[2, 0, 0, 0, 0], &[1, 0, 0, 0, 5, b'a']] {
            assert_eq!(Part::from_bytes(bad), Err(BadPart));
        }
    }
}
