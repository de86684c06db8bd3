//! From what a push client asks to the segments that go out.

use crate::dcs::{Class, DataCoding};
use crate::push::Code;
use crate::push::message::{Coding, Content, Header, Push};
use crate::queue::{MAX_PARTS, MAX_SHORT_MESSAGE, Part};
use crate::segment::{self, Layout, SegmentError};
use crate::udh::{self, Element, Ports, Reference};

/// Divides a push into its parts, or says why it cannot go out. `reference` tells concatenated messages to one number apart.
pub fn compose(push: &Push, segmentation: bool, reference: u8) -> Result<Vec<Part>, Code> {
    let mut layout = Layout::new(Reference::Byte(reference), if segmentation { MAX_PARTS as u8 } else { 1 });
    let (segments, data_coding, protocol_id) = match &push.content {
        Content::Text { text, coding, mclass } => {
            layout.class = mclass.map(Class::from_bits);
            let content = match coding {
                Coding::Auto => segment::Content::Text(text),
                Coding::Gsm7 => segment::Content::Gsm7(text),
                Coding::Ucs2 => segment::Content::Ucs2(text),
            };
            (segment::split(content, &layout), None, 0)
        }
        Content::Command { ud, header, dcs, pid } => {
            layout.elements = match header {
                Header::None => Vec::new(),
                Header::Octets(octets) => udh::Header::decode(octets).map_err(|_| Code::BAD_FIELD)?.0.elements,
                Header::Ports { destination, source } => {
                    vec![Element::Ports(Ports { destination: *destination, source: *source })]
                }
            };
            (segment::split(segment::Content::Octets(ud), &layout), dcs.map(DataCoding), *pid)
        }
    };
    let segments = segments.map_err(|error| match error {
        SegmentError::TooLong { .. } if segmentation => Code::TOO_MANY_SEGMENTS,
        SegmentError::TooLong { .. } => Code::SEGMENTATION_OFF,
        SegmentError::NotInAlphabet(_) => Code::NOT_ENCODABLE,
        SegmentError::Header => Code::BAD_FIELD,
    })?;
    let part = |segment: segment::Segment| {
        let short_message = segment.user_data.unpacked();
        (short_message.len() <= MAX_SHORT_MESSAGE).then(|| Part {
            source: push.oa.as_str().into(),
            udhi: !segment.user_data.header.elements.is_empty(),
            data_coding: data_coding.unwrap_or(segment.data_coding).0,
            protocol_id,
            short_message: short_message.into(),
        })
    };
    segments.into_iter().map(part).collect::<Option<_>>().ok_or(Code::BAD_FIELD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::message::Address;

    fn push(content: Content) -> Push {
        let address = Address { msn: "+819012345678".parse().unwrap(), reqid: "r".into(), svcid: "12345678901".into() };
        Push { address, content, oa: "Fleet".into(), vp: None, notify: true }
    }

    fn text(text: &str, coding: Coding) -> Push {
        push(Content::Text { text: text.into(), coding, mclass: None })
    }

    #[test]
    fn ten_segments_are_the_most_and_without_segmentation_one_is() {
        let size = |n: usize, on| compose(&text(&"a".repeat(n), Coding::Auto), on, 7).map(|p| p.len());
        assert_eq!((size(160, false), size(1530, true)), (Ok(1), Ok(10)));
        assert_eq!((size(161, false), size(1531, true)), (Err(Code::SEGMENTATION_OFF), Err(Code::TOO_MANY_SEGMENTS)));
        assert_eq!(size(9999, false), Err(Code::SEGMENTATION_OFF));
    }

    #[test]
    fn what_the_alphabet_lacks_is_said() {
        assert_eq!(compose(&text("日本", Coding::Gsm7), true, 0), Err(Code::NOT_ENCODABLE));
        let parts = compose(&text("日本", Coding::Auto), true, 0).unwrap();
        assert_eq!((parts[0].data_coding, parts[0].short_message.len(), parts[0].udhi), (8, 4, false));
    }

    #[test]
    fn commands_keep_their_octets_header_and_coding() {
        let command = |header, dcs| push(Content::Command { ud: vec![1, 2], header, dcs, pid: 0x7f });
        let parts = compose(&command(Header::Ports { destination: 2948, source: 9200 }, None), false, 0).unwrap();
        assert_eq!(&*parts[0].short_message, [6, 5, 4, 0x0b, 0x84, 0x23, 0xf0, 1, 2]);
        assert_eq!((parts[0].udhi, parts[0].data_coding, parts[0].protocol_id), (true, 4, 0x7f));
        assert_eq!(compose(&command(Header::None, Some(0xf6)), false, 0).unwrap()[0].data_coding, 0xf6);
        assert_eq!(compose(&command(Header::Octets(vec![3, 9, 9, 9]), None), false, 0), Err(Code::BAD_FIELD));
    }
}
