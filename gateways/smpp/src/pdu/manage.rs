//! query_sm, cancel_sm, replace_sm (SMPP 3.4 §4.8 to §4.10): what can be done with a message that the centre has.

use bytes::{BufMut, BytesMut};

use super::message::{decode_counted, encode_counted};
use super::reader::{Malformed, Reader};
use super::{Address, COctets, CommandStatus, Octets, Tlvs};

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct QuerySm {
    pub message_id: COctets<65>,
    /// The source address that the message was submitted with.
    pub source: Address,
}

impl QuerySm {
    pub(super) fn decode(mut from: Reader<'_>) -> Result<QuerySm, Malformed> {
        Ok(QuerySm {
            message_id: from.c_octets("message_id", CommandStatus::RINVMSGID)?,
            source: Address::decode(&mut from, "source_addr", CommandStatus::RINVSRCADR)?,
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.message_id.encode(out);
        self.source.encode(out);
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuerySmResp {
    pub message_id: COctets<65>,
    /// When it became final; empty while it is not.
    pub final_date: COctets<17>,
    /// 1 enroute, 2 delivered, 3 expired, 4 deleted, 5 undeliverable, 6 accepted, 7 unknown, 8 rejected (§5.2.28).
    pub state: u8,
    /// The network's code; 0 when it did not fail.
    pub error: u8,
    pub tlvs: Tlvs,
}

/// Says nothing: state unknown.
impl Default for QuerySmResp {
    fn default() -> QuerySmResp {
        QuerySmResp {
            message_id: COctets::EMPTY,
            final_date: COctets::EMPTY,
            state: UNKNOWN,
            error: 0,
            tlvs: Tlvs::default(),
        }
    }
}

impl QuerySmResp {
    pub(super) fn decode(mut from: Reader<'_>) -> QuerySmResp {
        QuerySmResp {
            message_id: from.lenient(),
            final_date: from.lenient(),
            state: from.u8("message_state").unwrap_or(UNKNOWN),
            error: from.u8("error_code").unwrap_or_default(),
            tlvs: from.lenient_tlvs(),
        }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.message_id.encode(out);
        self.final_date.encode(out);
        out.put_slice(&[self.state, self.error]);
        self.tlvs.encode(out);
    }
}

/// message_state of a response that does not tell.
const UNKNOWN: u8 = 7;

/// With a message id: that one. With an empty one: all of this source, destination and service type (§4.9.1).
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct CancelSm {
    pub service_type: COctets<6>,
    pub message_id: COctets<65>,
    pub source: Address,
    pub destination: Address,
}

impl CancelSm {
    pub(super) fn decode(mut from: Reader<'_>) -> Result<CancelSm, Malformed> {
        Ok(CancelSm {
            service_type: from.c_octets("service_type", CommandStatus::RINVSERTYP)?,
            message_id: from.c_octets("message_id", CommandStatus::RINVMSGID)?,
            source: Address::decode(&mut from, "source_addr", CommandStatus::RINVSRCADR)?,
            destination: Address::decode(&mut from, "destination_addr", CommandStatus::RINVDSTADR)?,
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.service_type.encode(out);
        self.message_id.encode(out);
        self.source.encode(out);
        self.destination.encode(out);
    }
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ReplaceSm {
    pub message_id: COctets<65>,
    pub source: Address,
    pub schedule: COctets<17>,
    pub validity: COctets<17>,
    pub registered_delivery: u8,
    pub default_message_id: u8,
    pub short_message: Octets,
    /// Only message_payload, and only since 5.0 (§4.5.3.1 there).
    pub tlvs: Tlvs,
}

impl ReplaceSm {
    pub(super) fn decode(mut from: Reader<'_>) -> Result<ReplaceSm, Malformed> {
        Ok(ReplaceSm {
            message_id: from.c_octets("message_id", CommandStatus::RINVMSGID)?,
            source: Address::decode(&mut from, "source_addr", CommandStatus::RINVSRCADR)?,
            schedule: from.c_octets("schedule_delivery_time", CommandStatus::RINVSCHED)?,
            validity: from.c_octets("validity_period", CommandStatus::RINVEXPIRY)?,
            registered_delivery: from.u8("registered_delivery")?,
            default_message_id: from.u8("sm_default_msg_id")?,
            short_message: decode_counted(&mut from)?,
            tlvs: from.tlvs()?,
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.message_id.encode(out);
        self.source.encode(out);
        self.schedule.encode(out);
        self.validity.encode(out);
        out.put_slice(&[self.registered_delivery, self.default_message_id]);
        encode_counted(&self.short_message, out);
        self.tlvs.encode(out);
    }
}
