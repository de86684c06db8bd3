//! User data headers (TS 23.040 §9.2.3.24): concatenation, ports, national languages; what is unknown is kept.

use crate::text::{Language, Shift};

/// Part of a concatenated message. `total` and `number` count from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Part {
    pub reference: Reference,
    pub total: u8,
    pub number: u8,
}

/// The same for all segments of one message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reference {
    /// Element 0x00.
    Byte(u8),
    /// Element 0x08.
    Word(u16),
}

/// Application ports (element 0x05, or 0x04 with 8 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ports {
    pub destination: u16,
    pub source: u16,
}

/// One information element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Element {
    /// Part of several.
    Part(Part),
    /// Element 0x05: 16 bit ports.
    Ports(Ports),
    /// Element 0x04: 8 bit ports, 240 to 255 for applications.
    ShortPorts { destination: u8, source: u8 },
    /// Element 0x24.
    SingleShift(Language),
    /// Element 0x25.
    LockingShift(Language),
    /// Any other, or one of the above with a value that is not sensible: kept as it came.
    Other { identifier: u8, data: Vec<u8> },
}

/// Information elements in order. Empty: no header at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Header {
    pub elements: Vec<Element>,
}

/// The user data begins with a header that is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    #[error("user data header longer than the user data")]
    Length,
    #[error("information element longer than the header")]
    Element,
}

impl Header {
    /// From user data that starts with a header length octet; gives the number of octets read.
    pub fn decode(user_data: &[u8]) -> Result<(Header, usize), Broken> {
        let (&length, rest) = user_data.split_first().ok_or(Broken::Length)?;
        let mut rest = rest.get(..usize::from(length)).ok_or(Broken::Length)?;
        let mut elements = Vec::new();
        while let [identifier, tail @ ..] = rest {
            let (&length, tail) = tail.split_first().ok_or(Broken::Element)?;
            let (data, tail) = tail.split_at_checked(usize::from(length)).ok_or(Broken::Element)?;
            elements.push(element(*identifier, data));
            rest = tail;
        }
        Ok((Header { elements }, 1 + usize::from(length)))
    }

    /// Octets with the length octet; none at all for an empty header. A header beyond 255 octets cannot be written and does
    /// not fit a message either: elements that would pass 140 octets are the caller's to avoid ([`octets`](Self::octets)).
    pub fn encode(&self) -> Vec<u8> {
        if self.elements.is_empty() {
            return Vec::new();
        }
        let mut out = vec![0];
        for element in &self.elements {
            match element {
                Element::Part(Part { reference: Reference::Byte(reference), total, number }) => {
                    out.extend([0x00, 3, *reference, *total, *number]);
                }
                Element::Part(Part { reference: Reference::Word(reference), total, number }) => {
                    let [high, low] = reference.to_be_bytes();
                    out.extend([0x08, 4, high, low, *total, *number]);
                }
                Element::Ports(Ports { destination, source }) => {
                    out.extend([0x05, 4]);
                    out.extend(destination.to_be_bytes());
                    out.extend(source.to_be_bytes());
                }
                Element::ShortPorts { destination, source } => out.extend([0x04, 2, *destination, *source]),
                Element::SingleShift(language) => out.extend([0x24, 1, language.identifier()]),
                Element::LockingShift(language) => out.extend([0x25, 1, language.identifier()]),
                Element::Other { identifier, data } => {
                    out.extend([*identifier, u8::try_from(data.len()).unwrap_or(u8::MAX)]);
                    out.extend(data.iter().take(usize::from(u8::MAX)));
                }
            }
        }
        out[0] = u8::try_from(out.len() - 1).unwrap_or(u8::MAX);
        out
    }

    /// Length on the wire, with the length octet.
    pub fn octets(&self) -> usize {
        if self.elements.is_empty() {
            return 0;
        }
        let each = |element: &Element| match element {
            Element::Part(Part { reference: Reference::Byte(_), .. }) => 5,
            Element::Part(_) | Element::Ports(_) => 6,
            Element::ShortPorts { .. } => 4,
            Element::SingleShift(_) | Element::LockingShift(_) => 3,
            Element::Other { data, .. } => 2 + data.len(),
        };
        1 + self.elements.iter().map(each).sum::<usize>()
    }

    /// The last one counts (TS 23.040 §9.2.3.24: elements that exclude each other).
    pub fn part(&self) -> Option<Part> {
        self.elements.iter().rev().find_map(|e| if let Element::Part(part) = e { Some(*part) } else { None })
    }

    pub fn ports(&self) -> Option<Ports> {
        self.elements.iter().rev().find_map(|e| match e {
            Element::Ports(ports) => Some(*ports),
            Element::ShortPorts { destination, source } => {
                Some(Ports { destination: u16::from(*destination), source: u16::from(*source) })
            }
            _ => None,
        })
    }

    /// The tables that the text is written with.
    pub fn shift(&self) -> Shift {
        let mut shift = Shift::DEFAULT;
        for element in &self.elements {
            match element {
                Element::SingleShift(language) => shift.single = Some(*language),
                Element::LockingShift(language) => shift.locking = Some(*language),
                _ => {}
            }
        }
        shift
    }
}

/// A part that is 0, or beyond its total, is not sensible and to be ignored (TS 23.040 §9.2.3.24.1): kept as unknown.
fn element(identifier: u8, data: &[u8]) -> Element {
    let part = |reference, total, number| {
        (number != 0 && number <= total).then_some(Element::Part(Part { reference, total, number }))
    };
    let known = match (identifier, data) {
        (0x00, [reference, total, number]) => part(Reference::Byte(*reference), *total, *number),
        (0x08, [high, low, total, number]) => part(Reference::Word(u16::from_be_bytes([*high, *low])), *total, *number),
        (0x04, [destination, source]) => Some(Element::ShortPorts { destination: *destination, source: *source }),
        (0x05, [d1, d0, s1, s0]) => Some(Element::Ports(Ports {
            destination: u16::from_be_bytes([*d1, *d0]),
            source: u16::from_be_bytes([*s1, *s0]),
        })),
        (0x24, [language]) => Language::from_identifier(*language).map(Element::SingleShift),
        (0x25, [language]) => Language::from_identifier(*language).map(Element::LockingShift),
        _ => None,
    };
    known.unwrap_or_else(|| Element::Other { identifier, data: data.to_vec() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn concatenation_and_ports_as_the_facts_have_them() {
        let header = Header {
            elements: vec![
                Element::Part(Part { reference: Reference::Byte(0xA5), total: 3, number: 1 }),
                Element::Ports(Ports { destination: 2948, source: 9200 }),
            ],
        };
        assert_eq!(header.encode(), [0x0B, 0x00, 0x03, 0xA5, 3, 1, 0x05, 0x04, 0x0B, 0x84, 0x23, 0xF0]);
        assert_eq!(header.octets(), 12);
    }

    #[test]
    fn a_part_beyond_its_total_is_kept_but_not_believed() {
        let (header, _) = Header::decode(&[5, 0, 3, 1, 2, 3]).unwrap();
        assert_eq!(header.part(), None);
        assert_eq!(header.encode(), [5, 0, 3, 1, 2, 3]);
    }

    #[test]
    fn lengths_that_overrun_are_refused() {
        assert_eq!(Header::decode(&[]), Err(Broken::Length));
        assert_eq!(Header::decode(&[5, 0, 3]), Err(Broken::Length));
        assert_eq!(Header::decode(&[3, 0, 3, 1]), Err(Broken::Element));
        assert_eq!(Header::decode(&[1, 0]), Err(Broken::Element));
    }

    proptest! {
        #[test]
        fn what_was_read_is_written_again(octets in prop::collection::vec(any::<u8>(), 0..160)) {
            if let Ok((header, length)) = Header::decode(&octets) {
                prop_assert_eq!(header.octets(), if length == 1 { 0 } else { length });
                if length > 1 {
                    prop_assert_eq!(header.encode(), &octets[..length]);
                }
            }
        }
    }
}
