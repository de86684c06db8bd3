//! submit_sm and deliver_sm, which have one body, and the responses that carry a message id (SMPP 3.4 §4.4, §4.6).

use bytes::{BufMut, BytesMut};

use super::reader::{Malformed, Reader};
use super::{Address, COctets, CommandStatus, Octets, Tag, Tlvs};

/// A message on its way to the centre (submit_sm) or from it (deliver_sm).
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ShortMessage {
    /// Empty for the default; `CMT`, `WAP`, `USSD`, ...
    pub service_type: COctets<6>,
    pub source: Address,
    pub destination: Address,
    /// Bits 1-0 mode, 5-2 type (a receipt is 0x04), 6 UDH in the body, 7 reply path (§5.2.12).
    pub esm_class: u8,
    pub protocol_id: u8,
    /// 0 to 3.
    pub priority: u8,
    /// `YYMMDDhhmmsstnnp`, absolute or relative (§7.1.1); empty: at once.
    pub schedule: COctets<17>,
    /// The same format; empty: the centre's default.
    pub validity: COctets<17>,
    /// Bits 1-0 receipt: 1 whenever final, 2 on failure only (§5.2.17).
    pub registered_delivery: u8,
    pub replace_if_present: u8,
    pub data_coding: u8,
    pub default_message_id: u8,
    /// At most 254 octets (§5.2.22); 255 are borne, because the count allows it; one longer than 255 leaves as message_payload.
    pub short_message: Octets,
    pub tlvs: Tlvs,
}

impl ShortMessage {
    /// The body, wherever it is. Both at once are not allowed (§5.3.2.32); then short_message is believed.
    pub fn text(&self) -> &[u8] {
        match self.tlvs.get(Tag::MESSAGE_PAYLOAD) {
            Some(payload) if self.short_message.is_empty() => payload,
            _ => &self.short_message,
        }
    }

    /// Whether it is a receipt or another acknowledgement rather than a message (§5.2.12, bits 5-2).
    pub fn is_receipt(&self) -> bool {
        self.esm_class & 0b0011_1100 == 0b0000_0100
    }

    /// Copied out of the buffer that it was read from.
    #[must_use]
    pub fn detached(mut self) -> ShortMessage {
        self.short_message = self.short_message.detached();
        self.tlvs = self.tlvs.detached();
        self
    }

    pub(super) fn decode(mut from: Reader<'_>) -> Result<ShortMessage, Malformed> {
        let service_type = from.c_octets("service_type", CommandStatus::RINVSERTYP)?;
        let source = Address::decode(&mut from, "source_addr", CommandStatus::RINVSRCADR)?;
        let destination = Address::decode(&mut from, "destination_addr", CommandStatus::RINVDSTADR)?;
        ShortMessage { service_type, source, destination, ..ShortMessage::default() }.decode_rest(from)
    }

    /// What stands behind the destination, or the destinations.
    pub(super) fn decode_rest(self, mut from: Reader<'_>) -> Result<ShortMessage, Malformed> {
        Ok(ShortMessage {
            esm_class: from.u8("esm_class")?,
            protocol_id: from.u8("protocol_id")?,
            priority: from.u8("priority_flag")?,
            schedule: from.c_octets("schedule_delivery_time", CommandStatus::RINVSCHED)?,
            validity: from.c_octets("validity_period", CommandStatus::RINVEXPIRY)?,
            registered_delivery: from.u8("registered_delivery")?,
            replace_if_present: from.u8("replace_if_present_flag")?,
            data_coding: from.u8("data_coding")?,
            default_message_id: from.u8("sm_default_msg_id")?,
            short_message: decode_counted(&mut from)?,
            tlvs: from.tlvs()?,
            ..self
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.service_type.encode(out);
        self.source.encode(out);
        self.destination.encode(out);
        self.encode_rest(out);
    }

    pub(super) fn encode_rest(&self, out: &mut BytesMut) {
        out.put_slice(&[self.esm_class, self.protocol_id, self.priority]);
        self.schedule.encode(out);
        self.validity.encode(out);
        out.put_slice(&[self.registered_delivery, self.replace_if_present, self.data_coding, self.default_message_id]);
        encode_counted(&self.short_message, out);
        self.tlvs.encode(out);
    }
}

pub(super) fn decode_counted(from: &mut Reader<'_>) -> Result<Octets, Malformed> {
    let count = usize::from(from.u8("sm_length")?);
    from.octets(count, "short_message", CommandStatus::RINVMSGLEN)
}

/// A body behind its count. One that does not fit the count leaves as message_payload instead, which is where it belongs.
pub(super) fn encode_counted(body: &[u8], out: &mut BytesMut) {
    match u8::try_from(body.len()) {
        Ok(count) => {
            out.put_u8(count);
            out.put_slice(body);
        }
        Err(_) => {
            out.put_u8(0);
            let body = &body[..body.len().min(usize::from(u16::MAX))];
            out.put_u16(Tag::MESSAGE_PAYLOAD.0);
            // Cut to fit above.
            out.put_u16(body.len() as u16);
            out.put_slice(body);
        }
    }
}

/// The response to submit_sm, deliver_sm and data_sm.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MessageResp {
    /// The centre's name for the message. Unused (empty) in deliver_sm_resp.
    pub message_id: COctets<65>,
    pub tlvs: Tlvs,
}

impl MessageResp {
    pub(super) fn decode(mut from: Reader<'_>) -> MessageResp {
        MessageResp { message_id: from.lenient(), tlvs: from.lenient_tlvs() }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.message_id.encode(out);
        self.tlvs.encode(out);
    }
}
