//! Optional parameters (SMPP 3.4 §5.3, SMPP 5.0 §4.8): tag, length, value.
//!
//! ```text
//! +-------+-------+-------+-------+-----------------
//! |      tag      |    length     |  value ...
//! +-------+-------+-------+-------+-----------------
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::{CommandStatus, Malformed};

/// Which optional parameter. 0x1400 to 0x3FFF belong to vendors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u16);

impl Tag {
    pub const DEST_ADDR_SUBUNIT: Tag = Tag(0x0005);
    pub const DEST_NETWORK_TYPE: Tag = Tag(0x0006);
    pub const DEST_BEARER_TYPE: Tag = Tag(0x0007);
    pub const DEST_TELEMATICS_ID: Tag = Tag(0x0008);
    pub const SOURCE_ADDR_SUBUNIT: Tag = Tag(0x000D);
    pub const SOURCE_NETWORK_TYPE: Tag = Tag(0x000E);
    pub const SOURCE_BEARER_TYPE: Tag = Tag(0x000F);
    pub const SOURCE_TELEMATICS_ID: Tag = Tag(0x0010);
    pub const QOS_TIME_TO_LIVE: Tag = Tag(0x0017);
    pub const PAYLOAD_TYPE: Tag = Tag(0x0019);
    pub const ADDITIONAL_STATUS_INFO_TEXT: Tag = Tag(0x001D);
    pub const RECEIPTED_MESSAGE_ID: Tag = Tag(0x001E);
    pub const MS_MSG_WAIT_FACILITIES: Tag = Tag(0x0030);
    pub const PRIVACY_INDICATOR: Tag = Tag(0x0201);
    pub const SOURCE_SUBADDRESS: Tag = Tag(0x0202);
    pub const DEST_SUBADDRESS: Tag = Tag(0x0203);
    pub const USER_MESSAGE_REFERENCE: Tag = Tag(0x0204);
    pub const USER_RESPONSE_CODE: Tag = Tag(0x0205);
    pub const SOURCE_PORT: Tag = Tag(0x020A);
    pub const DESTINATION_PORT: Tag = Tag(0x020B);
    pub const SAR_MSG_REF_NUM: Tag = Tag(0x020C);
    pub const LANGUAGE_INDICATOR: Tag = Tag(0x020D);
    pub const SAR_TOTAL_SEGMENTS: Tag = Tag(0x020E);
    pub const SAR_SEGMENT_SEQNUM: Tag = Tag(0x020F);
    pub const SC_INTERFACE_VERSION: Tag = Tag(0x0210);
    pub const CALLBACK_NUM_PRES_IND: Tag = Tag(0x0302);
    pub const CALLBACK_NUM_ATAG: Tag = Tag(0x0303);
    pub const NUMBER_OF_MESSAGES: Tag = Tag(0x0304);
    pub const CALLBACK_NUM: Tag = Tag(0x0381);
    pub const DPF_RESULT: Tag = Tag(0x0420);
    pub const SET_DPF: Tag = Tag(0x0421);
    pub const MS_AVAILABILITY_STATUS: Tag = Tag(0x0422);
    pub const NETWORK_ERROR_CODE: Tag = Tag(0x0423);
    pub const MESSAGE_PAYLOAD: Tag = Tag(0x0424);
    pub const DELIVERY_FAILURE_REASON: Tag = Tag(0x0425);
    pub const MORE_MESSAGES_TO_SEND: Tag = Tag(0x0426);
    pub const MESSAGE_STATE: Tag = Tag(0x0427);
    pub const CONGESTION_STATE: Tag = Tag(0x0428);
    pub const USSD_SERVICE_OP: Tag = Tag(0x0501);
    pub const BROADCAST_CHANNEL_INDICATOR: Tag = Tag(0x0600);
    pub const BROADCAST_CONTENT_TYPE: Tag = Tag(0x0601);
    pub const BROADCAST_CONTENT_TYPE_INFO: Tag = Tag(0x0602);
    pub const BROADCAST_MESSAGE_CLASS: Tag = Tag(0x0603);
    pub const BROADCAST_REP_NUM: Tag = Tag(0x0604);
    pub const BROADCAST_FREQUENCY_INTERVAL: Tag = Tag(0x0605);
    pub const BROADCAST_AREA_IDENTIFIER: Tag = Tag(0x0606);
    pub const BROADCAST_ERROR_STATUS: Tag = Tag(0x0607);
    pub const BROADCAST_AREA_SUCCESS: Tag = Tag(0x0608);
    pub const BROADCAST_END_TIME: Tag = Tag(0x0609);
    pub const BROADCAST_SERVICE_GROUP: Tag = Tag(0x060A);
    pub const BILLING_IDENTIFICATION: Tag = Tag(0x060B);
    pub const SOURCE_NETWORK_ID: Tag = Tag(0x060D);
    pub const DEST_NETWORK_ID: Tag = Tag(0x060E);
    pub const SOURCE_NODE_ID: Tag = Tag(0x060F);
    pub const DEST_NODE_ID: Tag = Tag(0x0610);
    pub const DEST_ADDR_NP_RESOLUTION: Tag = Tag(0x0611);
    pub const DEST_ADDR_NP_INFORMATION: Tag = Tag(0x0612);
    pub const DEST_ADDR_NP_COUNTRY: Tag = Tag(0x0613);
    pub const DISPLAY_TIME: Tag = Tag(0x1201);
    pub const SMS_SIGNAL: Tag = Tag(0x1203);
    pub const MS_VALIDITY: Tag = Tag(0x1204);
    pub const ALERT_ON_MESSAGE_DELIVERY: Tag = Tag(0x130C);
    pub const ITS_REPLY_TYPE: Tag = Tag(0x1380);
    pub const ITS_SESSION_INFO: Tag = Tag(0x1383);

    /// As the specification spells it; `None` for a tag that it does not define.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x0005 => "dest_addr_subunit",
            0x0006 => "dest_network_type",
            0x0007 => "dest_bearer_type",
            0x0008 => "dest_telematics_id",
            0x000D => "source_addr_subunit",
            0x000E => "source_network_type",
            0x000F => "source_bearer_type",
            0x0010 => "source_telematics_id",
            0x0017 => "qos_time_to_live",
            0x0019 => "payload_type",
            0x001D => "additional_status_info_text",
            0x001E => "receipted_message_id",
            0x0030 => "ms_msg_wait_facilities",
            0x0201 => "privacy_indicator",
            0x0202 => "source_subaddress",
            0x0203 => "dest_subaddress",
            0x0204 => "user_message_reference",
            0x0205 => "user_response_code",
            0x020A => "source_port",
            0x020B => "destination_port",
            0x020C => "sar_msg_ref_num",
            0x020D => "language_indicator",
            0x020E => "sar_total_segments",
            0x020F => "sar_segment_seqnum",
            0x0210 => "sc_interface_version",
            0x0302 => "callback_num_pres_ind",
            0x0303 => "callback_num_atag",
            0x0304 => "number_of_messages",
            0x0381 => "callback_num",
            0x0420 => "dpf_result",
            0x0421 => "set_dpf",
            0x0422 => "ms_availability_status",
            0x0423 => "network_error_code",
            0x0424 => "message_payload",
            0x0425 => "delivery_failure_reason",
            0x0426 => "more_messages_to_send",
            0x0427 => "message_state",
            0x0428 => "congestion_state",
            0x0501 => "ussd_service_op",
            0x0600 => "broadcast_channel_indicator",
            0x0601 => "broadcast_content_type",
            0x0602 => "broadcast_content_type_info",
            0x0603 => "broadcast_message_class",
            0x0604 => "broadcast_rep_num",
            0x0605 => "broadcast_frequency_interval",
            0x0606 => "broadcast_area_identifier",
            0x0607 => "broadcast_error_status",
            0x0608 => "broadcast_area_success",
            0x0609 => "broadcast_end_time",
            0x060A => "broadcast_service_group",
            0x060B => "billing_identification",
            0x060D => "source_network_id",
            0x060E => "dest_network_id",
            0x060F => "source_node_id",
            0x0610 => "dest_node_id",
            0x0611 => "dest_addr_np_resolution",
            0x0612 => "dest_addr_np_information",
            0x0613 => "dest_addr_np_country",
            0x1201 => "display_time",
            0x1203 => "sms_signal",
            0x1204 => "ms_validity",
            0x130C => "alert_on_message_delivery",
            0x1380 => "its_reply_type",
            0x1383 => "its_session_info",
            _ => return None,
        })
    }

    /// Least and most octets of its value; `None` for a tag that the specification does not define.
    const fn lengths(self) -> Option<(usize, usize)> {
        Some(match self.0 {
            0x0005 | 0x0006 | 0x0007 | 0x000D | 0x000E | 0x000F | 0x0019 | 0x0030 | 0x0201 | 0x0205 | 0x020D
            | 0x020E | 0x020F | 0x0210 | 0x0302 | 0x0304 | 0x0420 | 0x0421 | 0x0422 | 0x0425 | 0x0426 | 0x0427
            | 0x0428 | 0x0501 | 0x0600 | 0x0603 | 0x0608 | 0x0611 | 0x1201 | 0x1380 => (1, 1),
            0x0008 | 0x0204 | 0x020A | 0x020B | 0x020C | 0x0604 | 0x1203 | 0x1383 => (2, 2),
            0x0010 => (1, 2),
            0x0017 | 0x0607 => (4, 4),
            0x001D => (1, 256),
            0x001E => (1, 65),
            0x0202 | 0x0203 => (2, 23),
            0x0303 => (0, 65),
            0x0381 => (4, 19),
            0x0423 | 0x0601 | 0x0605 => (3, 3),
            0x0424 => (0, 65535),
            0x0602 | 0x060A => (1, 255),
            0x0606 => (1, 100),
            0x0609 => (16, 17),
            0x060B => (1, 1024),
            0x060D | 0x060E => (7, 65),
            0x060F | 0x0610 => (6, 6),
            0x0612 => (10, 10),
            0x0613 => (1, 5),
            0x1204 => (1, 4),
            0x130C => (0, 1),
            _ => return None,
        })
    }
}

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "tag 0x{:04x}", self.0),
        }
    }
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// One optional parameter, in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tlv<'a> {
    pub tag: Tag,
    pub value: &'a [u8],
}

/// The optional parameters of a PDU as they are on the wire: known and unknown, in their order, byte for byte. Whole: a run
/// that ends within a parameter cannot be held here.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tlvs(Bytes);

impl Tlvs {
    pub fn build() -> TlvsBuilder {
        TlvsBuilder::default()
    }

    /// `None` when it is no run of whole parameters.
    pub(super) fn decode(bytes: Bytes) -> Option<Tlvs> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = cut(rest)?.1;
        }
        Some(Tlvs(bytes))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Copied out of the buffer that they were read from.
    #[must_use]
    pub fn detached(&self) -> Tlvs {
        Tlvs(Bytes::copy_from_slice(&self.0))
    }

    pub fn iter(&self) -> impl Iterator<Item = Tlv<'_>> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (tlv, after) = cut(rest)?;
            rest = after;
            Some(tlv)
        })
    }

    /// The value of the first one with this tag.
    pub fn get(&self, tag: Tag) -> Option<&[u8]> {
        self.iter().find(|t| t.tag == tag).map(|t| t.value)
    }

    /// The same as a slice that shares the buffer.
    pub fn get_shared(&self, tag: Tag) -> Option<Bytes> {
        self.get(tag).map(|value| self.0.slice_ref(value))
    }

    /// `None` too when it has another length.
    pub fn u8(&self, tag: Tag) -> Option<u8> {
        self.get(tag).and_then(|v| <[u8; 1]>::try_from(v).ok()).map(|[byte]| byte)
    }

    /// `None` too when it has another length.
    pub fn u16(&self, tag: Tag) -> Option<u16> {
        self.get(tag).and_then(|v| v.try_into().ok()).map(u16::from_be_bytes)
    }

    /// The text of a C-octet string, with or without its NUL: peers send receipted_message_id both ways.
    pub fn text(&self, tag: Tag) -> Option<&[u8]> {
        let value = self.get(tag)?;
        Some(value.split(|b| *b == 0).next().unwrap_or_default())
    }

    /// Whether each known parameter has a length that it may have.
    pub fn check(&self) -> Result<(), Malformed> {
        for tlv in self.iter() {
            if let (Some((least, most)), Some(field)) = (tlv.tag.lengths(), tlv.tag.name())
                && !(least..=most).contains(&tlv.value.len())
            {
                return Err(Malformed { status: CommandStatus::RINVTLVLEN, field });
            }
        }
        Ok(())
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }
}

/// Tags and lengths; values may be bodies and numbers.
impl std::fmt::Debug for Tlvs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter().map(|t| (t.tag, t.value.len()))).finish()
    }
}

/// Writes optional parameters in the order of its calls.
#[derive(Default)]
pub struct TlvsBuilder(BytesMut);

impl TlvsBuilder {
    /// A value longer than 65,535 octets has no encoding and is left out.
    #[must_use]
    pub fn bytes(mut self, tag: Tag, value: &[u8]) -> Self {
        if let Ok(length) = u16::try_from(value.len()) {
            self.0.put_u16(tag.0);
            self.0.put_u16(length);
            self.0.put_slice(value);
        }
        self
    }

    #[must_use]
    pub fn u8(self, tag: Tag, value: u8) -> Self {
        self.bytes(tag, &[value])
    }

    #[must_use]
    pub fn u16(self, tag: Tag, value: u16) -> Self {
        self.bytes(tag, &value.to_be_bytes())
    }

    #[must_use]
    pub fn u32(self, tag: Tag, value: u32) -> Self {
        self.bytes(tag, &value.to_be_bytes())
    }

    /// A C-octet string: the bytes and a NUL.
    #[must_use]
    pub fn text(self, tag: Tag, value: &[u8]) -> Self {
        let mut own = value.to_vec();
        own.push(0);
        self.bytes(tag, &own)
    }

    pub fn done(self) -> Tlvs {
        Tlvs(self.0.freeze())
    }
}

fn cut(rest: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let [t0, t1, l0, l1] = *rest.first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let (value, after) = rest[4..].split_at_checked(length)?;
    Some((Tlv { tag: Tag(u16::from_be_bytes([t0, t1])), value }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_parameters_stay_where_they_are() {
        let tlvs = Tlvs::build().u16(Tag(0x1501), 7).u8(Tag::MESSAGE_STATE, 2).bytes(Tag(0x3fff), b"").done();
        let again = Tlvs::decode(Bytes::copy_from_slice(tlvs.as_bytes())).unwrap();
        assert_eq!(again.iter().map(|t| t.tag.0).collect::<Vec<_>>(), [0x1501, 0x427, 0x3fff]);
        assert_eq!((again.u16(Tag(0x1501)), again.u8(Tag::MESSAGE_STATE)), (Some(7), Some(2)));
        assert_eq!(again, tlvs);
    }

    #[test]
    fn a_run_that_ends_within_a_parameter_is_none() {
        for cut_short in [&[0x04][..], &[0x04, 0x24, 0], &[0x04, 0x24, 0, 2, b'h'], &[0x04, 0x27, 0, 1, 2, 0]] {
            assert_eq!(Tlvs::decode(Bytes::copy_from_slice(cut_short)), None, "{cut_short:02x?}");
        }
    }

    #[test]
    fn lengths_of_known_parameters_are_checked_and_only_theirs() {
        let bad = Tlvs::build().bytes(Tag::SAR_MSG_REF_NUM, &[1]).done();
        assert_eq!(bad.check().unwrap_err().status, CommandStatus::RINVTLVLEN);
        assert_eq!(bad.u16(Tag::SAR_MSG_REF_NUM), None);
        assert_eq!(Tlvs::build().bytes(Tag(0x1501), &[1, 2, 3]).done().check(), Ok(()));
    }

    #[test]
    fn receipted_ids_come_with_and_without_their_nul() {
        for value in [&b"0a1b"[..], b"0a1b\0"] {
            let tlvs = Tlvs::build().bytes(Tag::RECEIPTED_MESSAGE_ID, value).done();
            assert_eq!(tlvs.text(Tag::RECEIPTED_MESSAGE_ID), Some(&b"0a1b"[..]));
        }
    }
}
