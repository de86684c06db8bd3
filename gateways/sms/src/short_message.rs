//! What a message of SMPP says: header, coding and body, read in one way whoever sent it, an ESME or a centre.
//!
//! What fits one message is passed on as it came, octet for octet. What does not is divided; text in an alphabet that only SMPP knows
//! (Latin-1, Cyrillic, Shift_JIS, …) is written anew for that in one that every handset knows, and never with a letter less.

use encoding_rs::{EUC_JP, EUC_KR, Encoding, ISO_2022_JP, ISO_8859_5, ISO_8859_8, SHIFT_JIS};
use gw_smpp::pdu::{CommandStatus, DataSm, ShortMessage, Tag, Tlvs};

use crate::dcs::{Alphabet, DataCoding};
use crate::queue::{MAX_SHORT_MESSAGE, Part};
use crate::segment::{self, Content, Layout, Segment, SegmentError};
use crate::text;
use crate::udh::{self, Element, Header, Ports, Reference};
use crate::user_data::UserData;

/// A message, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    pub header: Header,
    data_coding: u8,
    coding: Coding,
    body: &'a [u8],
}

/// Why a message is not taken. The sender's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Header(#[from] udh::Broken),
    #[error("needs more segments than allowed, or was divided wrongly")]
    Long,
    #[error("not of the alphabet that it says")]
    Coding,
}

impl Unreadable {
    pub fn status(self) -> CommandStatus {
        match self {
            Unreadable::Header(_) => CommandStatus::RINVESMCLASS,
            Unreadable::Long => CommandStatus::RINVMSGLEN,
            Unreadable::Coding => CommandStatus::RINVDCS,
        }
    }
}

/// data_coding (SMPP 3.4 §5.2.19); above 15 as TS 23.038 §4 has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Coding {
    /// What TPDUs know, too.
    Common(Alphabet),
    /// ISO 8859-1, and ASCII as a part of it.
    Latin1,
    Other(&'static Encoding),
}

impl Coding {
    fn of(data_coding: u8) -> Coding {
        match data_coding {
            1 | 3 => Coding::Latin1,
            // Octets; pictograms.
            2 | 9 => Coding::Common(Alphabet::Octets),
            5 => Coding::Other(SHIFT_JIS),
            6 => Coding::Other(ISO_8859_5),
            7 => Coding::Other(ISO_8859_8),
            10 => Coding::Other(ISO_2022_JP),
            13 => Coding::Other(EUC_JP),
            14 => Coding::Other(EUC_KR),
            other => Coding::Common(DataCoding(other).alphabet()),
        }
    }
}

impl<'a> Message<'a> {
    /// A body as SMPP and our queue have it: septets one in each octet.
    pub fn read(data_coding: u8, has_header: bool, octets: &'a [u8]) -> Result<Message<'a>, Unreadable> {
        let (header, at) = if has_header { Header::decode(octets)? } else { (Header::default(), 0) };
        Ok(Message { header, data_coding, coding: Coding::of(data_coding), body: &octets[at..] })
    }

    /// A submit_sm or deliver_sm. What its optional parameters say of parts and ports (sar_*, source_port, destination_port) goes into the
    /// header, unless that says it already.
    pub fn of(message: &'a ShortMessage) -> Result<Message<'a>, Unreadable> {
        let mut read = Message::read(message.data_coding, message.esm_class & UDHI != 0, message.text())?;
        read.header.elements.extend(sar(&message.tlvs).filter(|_| read.header.part().is_none()).map(Element::Part));
        let ports = ports(&message.tlvs).filter(|_| read.header.ports().is_none());
        read.header.elements.extend(ports.map(Element::Ports));
        Ok(read)
    }

    /// As user data of one TPDU.
    pub fn user_data(&self) -> Result<(DataCoding, UserData), Unreadable> {
        let mut segments = self.divided(Reference::Byte(0), 1)?;
        let Segment { data_coding, user_data } = segments.pop().ok_or(Unreadable::Long)?;
        Ok((data_coding, user_data))
    }

    /// What the queue keeps of it: one part, or as many as it takes, at most `limit`; `reference` tells those of several messages apart.
    pub fn parts(&self, source: &str, protocol_id: u8, reference: u8, limit: u8) -> Result<Vec<Part>, Unreadable> {
        let part = |udhi, data_coding, short_message: Vec<u8>| {
            let fits = short_message.len() <= MAX_SHORT_MESSAGE;
            let part =
                Part { source: source.into(), udhi, data_coding, protocol_id, short_message: short_message.into() };
            if fits { Ok(part) } else { Err(Unreadable::Long) }
        };
        if self.fits_as_it_came() {
            let mut octets = self.header.encode();
            octets.extend_from_slice(self.body);
            return Ok(vec![part(!self.header.elements.is_empty(), self.data_coding, octets)?]);
        }
        let segments = self.divided(Reference::Byte(reference), limit)?.into_iter();
        let parts =
            segments.map(|s| part(!s.user_data.header.elements.is_empty(), s.data_coding.0, s.user_data.unpacked()));
        parts.collect()
    }

    /// The text, unless it is 8 bit data.
    pub fn text(&self) -> Result<Option<String>, Unreadable> {
        Ok(match self.coding {
            Coding::Common(Alphabet::Gsm7) => Some(text::decode(&self.septets(), self.header.shift())),
            Coding::Common(Alphabet::Ucs2) => Some(text::decode_ucs2(self.body)),
            Coding::Common(Alphabet::Octets) => None,
            Coding::Latin1 => Some(self.body.iter().copied().map(char::from).collect()),
            Coding::Other(encoding) => {
                let read = encoding.decode_without_bom_handling_and_without_replacement(self.body);
                Some(read.ok_or(Unreadable::Coding)?.into_owned())
            }
        })
    }

    fn fits_as_it_came(&self) -> bool {
        match self.coding {
            Coding::Common(Alphabet::Gsm7) => UserData::septets(self.header.clone(), self.septets()).fits(),
            _ => UserData::octets(self.header.clone(), self.body.to_vec()).fits(),
        }
    }

    fn divided(&self, reference: Reference, limit: u8) -> Result<Vec<Segment>, Unreadable> {
        let mut layout = Layout::new(reference, limit);
        layout.elements.clone_from(&self.header.elements);
        let (septets, text);
        let (content, coding) = match self.coding {
            Coding::Common(Alphabet::Gsm7) => {
                septets = self.septets();
                (Content::Septets(&septets), Some(DataCoding(self.data_coding)))
            }
            Coding::Common(Alphabet::Ucs2) => (Content::Units(self.body), Some(DataCoding(self.data_coding))),
            // 2 and 9 are octets to SMPP alone.
            Coding::Common(Alphabet::Octets) => {
                let known = DataCoding(self.data_coding).alphabet() == Alphabet::Octets;
                let coding = if known { self.data_coding } else { DataCoding::new(Alphabet::Octets, None).0 };
                (Content::Octets(self.body), Some(DataCoding(coding)))
            }
            Coding::Latin1 | Coding::Other(_) => {
                text = self.text()?.unwrap_or_default();
                (Content::Text(&text), None)
            }
        };
        let mut segments = segment::split(content, &layout).map_err(|error| match error {
            SegmentError::TooLong { .. } | SegmentError::Header => Unreadable::Long,
            SegmentError::NotInAlphabet(_) => Unreadable::Coding,
        })?;
        if let Some(coding) = coding {
            segments.iter_mut().for_each(|s| s.data_coding = coding);
        }
        Ok(segments)
    }

    fn septets(&self) -> Vec<u8> {
        self.body.iter().map(|s| s & 0x7F).collect()
    }
}

/// A data_sm as the submit_sm or deliver_sm that it stands for. Addresses of more than 20 digits exist in data_sm only, and are no telephone
/// numbers: they become empty.
pub fn from_data(data: DataSm) -> ShortMessage {
    use gw_smpp::pdu::{Address, COctets};
    let short = |a: &Address<65>| Address {
        ton: a.ton,
        npi: a.npi,
        digits: COctets::new(a.digits.as_bytes()).unwrap_or_default(),
    };
    ShortMessage {
        source: short(&data.source),
        destination: short(&data.destination),
        service_type: data.service_type,
        esm_class: data.esm_class,
        registered_delivery: data.registered_delivery,
        data_coding: data.data_coding,
        tlvs: data.tlvs,
        ..ShortMessage::default()
    }
}

/// sar_msg_ref_num, sar_total_segments, sar_segment_seqnum (§5.3.2.22 to .24): all of them, and sensible, or none.
fn sar(tlvs: &Tlvs) -> Option<udh::Part> {
    let reference = Reference::Word(tlvs.u16(Tag::SAR_MSG_REF_NUM)?);
    let (total, number) = (tlvs.u8(Tag::SAR_TOTAL_SEGMENTS)?, tlvs.u8(Tag::SAR_SEGMENT_SEQNUM)?);
    (number != 0 && number <= total && total > 1).then_some(udh::Part { reference, total, number })
}

/// With a destination; a source that is not said is 0.
fn ports(tlvs: &Tlvs) -> Option<Ports> {
    let destination = tlvs.u16(Tag::DESTINATION_PORT)?;
    Some(Ports { destination, source: tlvs.u16(Tag::SOURCE_PORT).unwrap_or(0) })
}

/// esm_class: a user data header stands in front (§5.2.12).
pub const UDHI: u8 = 0x40;

#[cfg(test)]
mod tests {
    use gw_smpp::pdu::Octets;
    use proptest::prelude::*;

    use super::*;

    fn parts(data_coding: u8, octets: &[u8], tlvs: Tlvs) -> Result<Vec<Part>, Unreadable> {
        let message =
            ShortMessage { data_coding, short_message: Octets::copied(octets), tlvs, ..ShortMessage::default() };
        Message::of(&message)?.parts("x", 0, 7, 10)
    }

    /// What a receiver reads from parts.
    fn text(parts: &[Part]) -> String {
        let read = |p: &Part| Message::read(p.data_coding, p.udhi, &p.short_message).unwrap().text().unwrap().unwrap();
        parts.iter().map(read).collect()
    }

    #[test]
    fn what_fits_goes_on_as_it_came() {
        for (data_coding, octets) in
            [(3, &b"Caf\xe9 \xe1"[..]), (0, b"\x1be\x00"), (8, b"\x30\x42"), (5, b"\x82\xa0"), (0xF5, b"\x00\xff")]
        {
            let [part] = &parts(data_coding, octets, Tlvs::default()).unwrap()[..] else { panic!("{data_coding}") };
            assert_eq!((part.data_coding, &*part.short_message, part.udhi), (data_coding, octets, false));
        }
    }

    #[test]
    fn a_payload_is_divided_and_reads_the_same() {
        let latin: Vec<u8> = (0..600u32).map(|n| 0xA1 + (n % 90) as u8).collect();
        let many = parts(3, &latin, Tlvs::default()).unwrap();
        assert!(many.len() > 1 && many.iter().all(|p| p.udhi && p.data_coding == 8));
        assert_eq!(text(&many), latin.iter().copied().map(char::from).collect::<String>());
        let kana = SHIFT_JIS.encode(&"ありがとう".repeat(30)).0.into_owned();
        assert_eq!(text(&parts(5, &kana, Tlvs::default()).unwrap()), "ありがとう".repeat(30));
        let payload = Tlvs::build().bytes(Tag::MESSAGE_PAYLOAD, &[b'a'; 400]).done();
        let three = parts(0, b"", payload).unwrap();
        assert_eq!((three.len(), text(&three)), (3, "a".repeat(400)));
        assert_eq!(parts(4, &[1; 2_000], Tlvs::default()), Err(Unreadable::Long));
    }

    #[test]
    fn parameters_say_what_a_header_would() {
        let sar = Tlvs::build()
            .u16(Tag::SAR_MSG_REF_NUM, 0x0102)
            .u8(Tag::SAR_TOTAL_SEGMENTS, 2)
            .u8(Tag::SAR_SEGMENT_SEQNUM, 1);
        let [part] = &parts(0, b"ab", sar.done()).unwrap()[..] else { panic!() };
        assert_eq!((part.udhi, &*part.short_message), (true, &[6, 8, 4, 1, 2, 2, 1, b'a', b'b'][..]));
        let ports = Tlvs::build().u16(Tag::DESTINATION_PORT, 2948).u16(Tag::SOURCE_PORT, 9200);
        let [part] = &parts(4, &[1], ports.done()).unwrap()[..] else { panic!() };
        assert_eq!(*part.short_message, [6, 5, 4, 0x0B, 0x84, 0x23, 0xF0, 1]);
    }

    #[test]
    fn a_tpdu_gets_letters_that_it_can_say() {
        let of = |data_coding, octets: &[u8]| Message::read(data_coding, false, octets).unwrap().user_data();
        let (coding, data) = of(3, b"Caf\xe9").unwrap();
        assert_eq!((coding, data.text(Alphabet::Gsm7).as_deref()), (DataCoding(0), Some("Café")));
        let (coding, data) = of(3, b"\xe1").unwrap();
        assert_eq!((coding, data.text(Alphabet::Ucs2).as_deref()), (DataCoding(8), Some("á")));
        assert_eq!(of(2, &[9]).unwrap().0, DataCoding(4));
        assert_eq!(of(5, &[0x82]), Err(Unreadable::Coding));
        assert_eq!(of(3, &[0xE1; 71]), Err(Unreadable::Long));
        assert_eq!(Message::read(0, true, &[5, 0]), Err(Unreadable::Header(udh::Broken::Length)));
    }

    proptest! {
        #[test]
        fn septets_are_neither_lost_nor_doubled(septets in prop::collection::vec((0u8..128).prop_filter("no escape", |s| *s != 0x1B), 0..1200)) {
            if let Ok(parts) = parts(0, &septets, Tlvs::default()) {
                let bodies = parts.iter().flat_map(|p| Message::read(0, p.udhi, &p.short_message).unwrap().body.to_vec());
                prop_assert_eq!(bodies.collect::<Vec<u8>>(), septets);
            }
        }
    }
}
