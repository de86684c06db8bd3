//! One message, one segment or several (TS 23.040 §9.2.3.24.1 and .8).

use crate::dcs::{Alphabet, Class, DataCoding};
use crate::text::{self, Coding, Languages, NotInAlphabet, Shift};
use crate::udh::{Element, Header, Part, Reference};
use crate::user_data::{MAX_OCTETS, UserData, septet_room};

/// What is to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content<'a> {
    /// In the coding that costs least and loses nothing.
    Text(&'a str),
    /// In the default alphabet and allowed national tables, or refused.
    Gsm7(&'a str),
    /// In UCS-2, whatever it costs.
    Ucs2(&'a str),
    /// 8 bit data.
    Octets(&'a [u8]),
    /// Written already: septets, one in each octet, in the tables that [`Layout::elements`] name.
    Septets(&'a [u8]),
    /// Written already: UTF-16, big endian.
    Units(&'a [u8]),
}

/// How it is to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// For the segments, should there be several.
    pub reference: Reference,
    /// Other elements of each segment's header: ports, what a client asked for. With a part among them the sender has
    /// divided the message already, and it is not divided again.
    pub elements: Vec<Element>,
    pub class: Option<Class>,
    /// National languages that the receiving handsets are said to know.
    pub languages: Languages,
    /// Most segments, 1 to 255.
    pub limit: u8,
}

impl Layout {
    pub fn new(reference: Reference, limit: u8) -> Layout {
        Layout { reference, elements: Vec::new(), class: None, languages: Languages::NONE, limit }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    pub data_coding: DataCoding,
    pub user_data: UserData,
}

/// Why a message is not sent. The sender's fault; nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("{needed} segments where {limit} are allowed")]
    TooLong { needed: usize, limit: u8 },
    #[error(transparent)]
    NotInAlphabet(#[from] NotInAlphabet),
    #[error("header elements leave no room for a body")]
    Header,
}

/// Divides `content` into at most `layout.limit` segments. An escape pair or a surrogate pair is never divided.
pub fn split(content: Content<'_>, layout: &Layout) -> Result<Vec<Segment>, SegmentError> {
    let body = written(content, layout)?;
    let mut elements = body.shift_elements();
    elements.extend(layout.elements.iter().cloned());
    let whole = Header { elements };
    let data_coding = DataCoding::new(body.alphabet(), layout.class);
    let divided_already = whole.part().is_some();
    let ranges = body.ranges(whole.octets()).ok_or(SegmentError::Header)?;
    if ranges.len() <= 1 {
        let user_data = body.user_data(whole, 0..body.bytes.len());
        return Ok(vec![Segment { data_coding, user_data }]);
    }
    let header = |number, total| {
        let mut elements = vec![Element::Part(Part { reference: layout.reference, total, number })];
        elements.extend(whole.elements.iter().cloned());
        Header { elements }
    };
    let ranges = body.ranges(header(1, 1).octets()).ok_or(SegmentError::Header)?;
    let too_long = SegmentError::TooLong { needed: ranges.len(), limit: layout.limit };
    let total = u8::try_from(ranges.len()).map_err(|_| too_long)?;
    if total > layout.limit || divided_already {
        return Err(too_long);
    }
    Ok((1..=total)
        .zip(ranges)
        .map(|(number, range)| Segment { data_coding, user_data: body.user_data(header(number, total), range) })
        .collect())
}

/// Content in its coding: septets or octets.
struct Written {
    coding: Option<Coding>,
    bytes: Vec<u8>,
}

/// The cheapest coding: fewest segments, then fewest octets, then the plainest.
fn written(content: Content<'_>, layout: &Layout) -> Result<Written, SegmentError> {
    let (text, ucs2) = match content {
        Content::Octets(octets) => return Ok(Written { coding: None, bytes: octets.to_vec() }),
        Content::Septets(septets) => {
            return Ok(Written { coding: Some(Coding::Gsm7(Shift::DEFAULT)), bytes: septets.to_vec() });
        }
        Content::Units(units) => return Ok(Written { coding: Some(Coding::Ucs2), bytes: units.to_vec() }),
        Content::Ucs2(text) => return Ok(Written { coding: Some(Coding::Ucs2), bytes: text::encode_ucs2(text) }),
        Content::Text(text) => (text, true),
        Content::Gsm7(text) => (text, false),
    };
    let mut best: Option<((usize, usize), Written)> = None;
    for coding in text::candidates(text, layout.languages).filter(|c| ucs2 || *c != Coding::Ucs2) {
        let bytes = match coding {
            Coding::Gsm7(shift) => text::encode(text, shift)?,
            Coding::Ucs2 => text::encode_ucs2(text),
        };
        let written = Written { coding: Some(coding), bytes };
        let Some(cost) = written.cost(layout) else { continue };
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            best = Some((cost, written));
        }
    }
    match best {
        Some((_, written)) => Ok(written),
        // Either no alphabet has a character, and the default one says which; or the header leaves no room.
        None => Err(text::encode(text, Shift::DEFAULT).err().map_or(SegmentError::Header, SegmentError::from)),
    }
}

impl Written {
    fn alphabet(&self) -> Alphabet {
        match self.coding {
            None => Alphabet::Octets,
            Some(Coding::Ucs2) => Alphabet::Ucs2,
            Some(Coding::Gsm7(_)) => Alphabet::Gsm7,
        }
    }

    fn shift_elements(&self) -> Vec<Element> {
        let Some(Coding::Gsm7(shift)) = self.coding else { return Vec::new() };
        let single = shift.single.map(Element::SingleShift);
        let locking = shift.locking.map(Element::LockingShift);
        single.into_iter().chain(locking).collect()
    }

    /// Segments and octets that it takes, headers included.
    fn cost(&self, layout: &Layout) -> Option<(usize, usize)> {
        let mut elements = self.shift_elements();
        elements.extend(layout.elements.iter().cloned());
        let whole = Header { elements };
        let octets = |header: usize| match self.alphabet() {
            Alphabet::Gsm7 => header + (self.bytes.len() * 7).div_ceil(8),
            _ => header + self.bytes.len(),
        };
        if self.ranges(whole.octets())?.len() <= 1 {
            return Some((1, octets(whole.octets())));
        }
        let part = match layout.reference {
            Reference::Byte(_) => 5,
            Reference::Word(_) => 6,
        };
        let header = whole.octets().max(1) + part;
        let segments = self.ranges(header)?.len();
        Some((segments, octets(header * segments)))
    }

    /// Where the segments begin and end, behind headers of `header` octets; `None` if not even one unit fits.
    fn ranges(&self, header: usize) -> Option<Vec<std::ops::Range<usize>>> {
        let room = match self.alphabet() {
            Alphabet::Gsm7 => septet_room(header),
            Alphabet::Octets => MAX_OCTETS.saturating_sub(header),
            Alphabet::Ucs2 => MAX_OCTETS.saturating_sub(header) & !1,
        };
        // The longest unit that is not divided: an escape pair, a surrogate pair, an octet.
        let unit = match self.alphabet() {
            Alphabet::Gsm7 => 2,
            Alphabet::Octets => 1,
            Alphabet::Ucs2 => 4,
        };
        if room < unit && !self.bytes.is_empty() || header > MAX_OCTETS {
            return None;
        }
        let mut ranges = Vec::new();
        let mut from = 0;
        while from < self.bytes.len() {
            let mut to = (from + room).min(self.bytes.len());
            if to < self.bytes.len() {
                to -= self.inside_a_pair(to);
            }
            ranges.push(from..to);
            from = to;
        }
        Some(ranges)
    }

    /// How far a cut before `at` has to go back so as not to divide a pair.
    fn inside_a_pair(&self, at: usize) -> usize {
        match self.alphabet() {
            // An escape never escapes an escape in what we write.
            Alphabet::Gsm7 => usize::from(self.bytes[at - 1] == text::ESCAPE),
            Alphabet::Ucs2 if self.bytes[at] & 0xFC == 0xDC => 2,
            _ => 0,
        }
    }

    fn user_data(&self, header: Header, range: std::ops::Range<usize>) -> UserData {
        let bytes = self.bytes[range].to_vec();
        match self.alphabet() {
            Alphabet::Gsm7 => UserData::septets(header, bytes),
            _ => UserData::octets(header, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::Language;
    use crate::udh::Ports;
    use crate::user_data::Body;

    fn layout(limit: u8) -> Layout {
        Layout::new(Reference::Byte(7), limit)
    }

    fn sizes(content: Content<'_>, layout: &Layout) -> Vec<usize> {
        let size = |s: &Segment| match &s.user_data.body {
            Body::Septets(bytes) | Body::Octets(bytes) => bytes.len(),
        };
        split(content, layout).unwrap().iter().map(size).collect()
    }

    #[test]
    fn capacities_alone_and_concatenated() {
        let word = Layout::new(Reference::Word(7), 10);
        assert_eq!(sizes(Content::Text(&"a".repeat(160)), &layout(10)), [160]);
        assert_eq!(sizes(Content::Text(&"a".repeat(161)), &layout(10)), [153, 8]);
        assert_eq!(sizes(Content::Text(&"a".repeat(161)), &word), [152, 9]);
        assert_eq!(sizes(Content::Octets(&[0; 140]), &layout(10)), [140]);
        assert_eq!(sizes(Content::Octets(&[0; 141]), &layout(10)), [134, 7]);
        assert_eq!(sizes(Content::Octets(&[0; 141]), &word), [133, 8]);
        assert_eq!(sizes(Content::Text(&"я".repeat(70)), &layout(10)), [140]);
        assert_eq!(sizes(Content::Text(&"я".repeat(71)), &layout(10)), [134, 8]);
        assert_eq!(sizes(Content::Text(&"я".repeat(71)), &word), [132, 10]);
    }

    #[test]
    fn pairs_are_not_divided() {
        let text = format!("{}€{}", "a".repeat(152), "a".repeat(20));
        assert_eq!(sizes(Content::Text(&text), &layout(10)), [152, 22]);
        let text = format!("{}😀{}", "я".repeat(66), "я".repeat(10));
        assert_eq!(sizes(Content::Text(&text), &layout(10)), [132, 24]);
    }

    #[test]
    fn the_limit_is_ten_for_push_and_says_what_was_needed() {
        let text = "a".repeat(1531);
        assert_eq!(split(Content::Text(&text), &layout(10)), Err(SegmentError::TooLong { needed: 11, limit: 10 }));
        assert_eq!(split(Content::Text(&text[..1530]), &layout(10)).unwrap().len(), 10);
        let long = vec![0; 64 * 1024];
        assert_eq!(split(Content::Octets(&long), &layout(255)), Err(SegmentError::TooLong { needed: 490, limit: 255 }));
    }

    #[test]
    fn an_empty_text_is_one_empty_segment() {
        assert_eq!(sizes(Content::Text(""), &layout(1)), [0]);
        assert_eq!(sizes(Content::Octets(&[]), &layout(1)), [0]);
    }

    #[test]
    fn ports_stand_in_every_segment() {
        let elements = vec![Element::Ports(Ports { destination: 2948, source: 9200 })];
        let segments = split(Content::Octets(&[1; 200]), &Layout { elements, ..layout(10) }).unwrap();
        assert_eq!(segments.len(), 2);
        for segment in segments {
            assert_eq!(segment.user_data.header.ports().map(|p| p.destination), Some(2948));
            assert!(segment.user_data.header.part().is_some() && segment.user_data.fits());
        }
    }

    #[test]
    fn turkish_is_cheaper_with_its_tables_where_handsets_know_them() {
        let text = "ş".repeat(100);
        let plain = split(Content::Text(&text), &layout(10)).unwrap();
        assert_eq!((plain.len(), plain[0].data_coding.alphabet()), (2, Alphabet::Ucs2));
        let languages = Languages::NONE.with(Language::Turkish);
        let national = split(Content::Text(&text), &Layout { languages, ..layout(10) }).unwrap();
        assert_eq!((national.len(), national[0].data_coding.alphabet()), (1, Alphabet::Gsm7));
        assert_eq!(national[0].user_data.text(Alphabet::Gsm7), Some(text));
    }

    #[test]
    fn gsm7_only_refuses_what_it_would_lose() {
        assert_eq!(split(Content::Gsm7("aşb"), &layout(10)), Err(SegmentError::NotInAlphabet(NotInAlphabet('ş'))));
    }

    #[test]
    fn what_the_sender_divided_is_not_divided_again() {
        let elements = vec![Element::Part(Part { reference: Reference::Byte(1), total: 2, number: 1 })];
        let layout = Layout { elements, ..layout(10) };
        assert_eq!(sizes(Content::Octets(&[0; 134]), &layout), [134]);
        assert!(split(Content::Octets(&[0; 135]), &layout).is_err());
    }

    #[test]
    fn a_header_without_room_is_refused() {
        let elements = vec![Element::Other { identifier: 0x70, data: vec![0; 138] }];
        assert_eq!(split(Content::Octets(&[0]), &Layout { elements, ..layout(10) }), Err(SegmentError::Header));
    }

    proptest! {
        #[test]
        fn segments_fit_and_join_to_the_text(text in "[a-z€\\[ñşığя😀]{0,300}", word in any::<bool>(), all in any::<bool>()) {
            let reference = if word { Reference::Word(300) } else { Reference::Byte(3) };
            let languages = if all { Languages::ALL } else { Languages::NONE };
            let segments = split(Content::Text(&text), &Layout { languages, ..Layout::new(reference, 255) }).unwrap();
            let mut joined = String::new();
            for (n, segment) in segments.iter().enumerate() {
                prop_assert!(segment.user_data.fits());
                if segments.len() > 1 {
                    let part = segment.user_data.header.part().unwrap();
                    prop_assert_eq!((usize::from(part.number), usize::from(part.total)), (n + 1, segments.len()));
                }
                joined.push_str(&segment.user_data.text(segment.data_coding.alphabet()).unwrap());
            }
            prop_assert_eq!(joined, text);
        }
    }
}
