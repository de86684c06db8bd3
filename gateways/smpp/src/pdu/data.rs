//! data_sm (SMPP 3.4 §4.7) and alert_notification (§4.12), with their longer addresses.

use bytes::{BufMut, BytesMut};

use super::reader::{Malformed, Reader};
use super::{Address, COctets, CommandStatus, Tag, Tlvs};

/// The lean alternative to submit_sm and deliver_sm: everything else is an optional parameter, the body too.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct DataSm {
    pub service_type: COctets<6>,
    pub source: Address<65>,
    pub destination: Address<65>,
    pub esm_class: u8,
    pub registered_delivery: u8,
    pub data_coding: u8,
    pub tlvs: Tlvs,
}

impl DataSm {
    pub fn text(&self) -> &[u8] {
        self.tlvs.get(Tag::MESSAGE_PAYLOAD).unwrap_or_default()
    }

    pub fn is_receipt(&self) -> bool {
        self.esm_class & 0b0011_1100 == 0b0000_0100
    }

    pub(super) fn decode(mut from: Reader<'_>) -> Result<DataSm, Malformed> {
        Ok(DataSm {
            service_type: from.c_octets("service_type", CommandStatus::RINVSERTYP)?,
            source: Address::decode(&mut from, "source_addr", CommandStatus::RINVSRCADR)?,
            destination: Address::decode(&mut from, "destination_addr", CommandStatus::RINVDSTADR)?,
            esm_class: from.u8("esm_class")?,
            registered_delivery: from.u8("registered_delivery")?,
            data_coding: from.u8("data_coding")?,
            tlvs: from.tlvs()?,
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.service_type.encode(out);
        self.source.encode(out);
        self.destination.encode(out);
        out.put_slice(&[self.esm_class, self.registered_delivery, self.data_coding]);
        self.tlvs.encode(out);
    }
}

/// A subscriber is there again, for whom set_dpf was asked. Has no response.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct AlertNotification {
    /// Who is there.
    pub source: Address<65>,
    /// Who asked.
    pub esme: Address<65>,
    pub tlvs: Tlvs,
}

impl AlertNotification {
    pub(super) fn decode(mut from: Reader<'_>) -> Result<AlertNotification, Malformed> {
        Ok(AlertNotification {
            source: Address::decode(&mut from, "source_addr", CommandStatus::RINVSRCADR)?,
            esme: Address::decode(&mut from, "esme_addr", CommandStatus::RINVDSTADR)?,
            tlvs: from.tlvs()?,
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.source.encode(out);
        self.esme.encode(out);
        self.tlvs.encode(out);
    }
}
