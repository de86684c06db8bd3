//! submit_multi (SMPP 3.4 §4.5): one message to many.

use bytes::{BufMut, BytesMut};

use super::message::encode_counted;
use super::reader::{Malformed, Reader};
use super::{Address, COctets, CommandStatus, Octets, Tlvs};

/// One of the many (§4.5.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    Address(Address),
    /// A distribution list that the centre knows by this name.
    List(COctets<21>),
}

/// Most destinations: number_of_dests is one octet.
pub const MAX_DESTINATIONS: usize = 255;

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct SubmitMulti {
    pub service_type: COctets<6>,
    pub source: Address,
    /// At most 255; more are not written.
    pub destinations: Vec<Destination>,
    pub esm_class: u8,
    pub protocol_id: u8,
    pub priority: u8,
    pub schedule: COctets<17>,
    pub validity: COctets<17>,
    pub registered_delivery: u8,
    pub replace_if_present: u8,
    pub data_coding: u8,
    pub default_message_id: u8,
    pub short_message: Octets,
    pub tlvs: Tlvs,
}

impl SubmitMulti {
    pub(super) fn decode(mut from: Reader<'_>) -> Result<SubmitMulti, Malformed> {
        let service_type = from.c_octets("service_type", CommandStatus::RINVSERTYP)?;
        let source = Address::decode(&mut from, "source_addr", CommandStatus::RINVSRCADR)?;
        let count = from.u8("number_of_dests")?;
        let destinations = (0..count).map(|_| Destination::decode(&mut from)).collect::<Result<Vec<_>, _>>()?;
        Ok(SubmitMulti {
            service_type,
            source,
            destinations,
            esm_class: from.u8("esm_class")?,
            protocol_id: from.u8("protocol_id")?,
            priority: from.u8("priority_flag")?,
            schedule: from.c_octets("schedule_delivery_time", CommandStatus::RINVSCHED)?,
            validity: from.c_octets("validity_period", CommandStatus::RINVEXPIRY)?,
            registered_delivery: from.u8("registered_delivery")?,
            replace_if_present: from.u8("replace_if_present_flag")?,
            data_coding: from.u8("data_coding")?,
            default_message_id: from.u8("sm_default_msg_id")?,
            short_message: {
                let count = usize::from(from.u8("sm_length")?);
                from.octets(count, "short_message", CommandStatus::RINVMSGLEN)?
            },
            tlvs: from.tlvs()?,
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.service_type.encode(out);
        self.source.encode(out);
        let destinations = &self.destinations[..self.destinations.len().min(MAX_DESTINATIONS)];
        // Cut to fit above.
        out.put_u8(destinations.len() as u8);
        destinations.iter().for_each(|d| d.encode(out));
        out.put_slice(&[self.esm_class, self.protocol_id, self.priority]);
        self.schedule.encode(out);
        self.validity.encode(out);
        out.put_slice(&[self.registered_delivery, self.replace_if_present, self.data_coding, self.default_message_id]);
        encode_counted(&self.short_message, out);
        self.tlvs.encode(out);
    }
}

impl Destination {
    fn decode(from: &mut Reader<'_>) -> Result<Destination, Malformed> {
        match from.u8("dest_flag")? {
            1 => Address::decode(from, "destination_addr", CommandStatus::RINVDSTADR).map(Destination::Address),
            2 => from.c_octets("dl_name", CommandStatus::RINVDLNAME).map(Destination::List),
            _ => Err(Malformed { status: CommandStatus::RINVDESTFLAG, field: "dest_flag" }),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Destination::Address(address) => {
                out.put_u8(1);
                address.encode(out);
            }
            Destination::List(name) => {
                out.put_u8(2);
                name.encode(out);
            }
        }
    }
}

/// One of the many that will not get it, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failed {
    pub destination: Address,
    pub status: CommandStatus,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct SubmitMultiResp {
    pub message_id: COctets<65>,
    /// At most 255; more are not written.
    pub failed: Vec<Failed>,
    pub tlvs: Tlvs,
}

impl SubmitMultiResp {
    /// What can be read of it: the centre took the message, however badly it tells.
    pub(super) fn decode(mut from: Reader<'_>) -> SubmitMultiResp {
        let message_id = from.lenient();
        let count = from.u8("no_unsuccess").unwrap_or_default();
        let mut failed = Vec::new();
        for _ in 0..count {
            let Ok(destination) = Address::decode(&mut from, "destination_addr", CommandStatus::RINVDSTADR) else {
                break;
            };
            let Ok(status) = from.u32("error_status_code") else { break };
            failed.push(Failed { destination, status: CommandStatus(status) });
        }
        let tlvs = if failed.len() == usize::from(count) { from.lenient_tlvs() } else { Tlvs::default() };
        SubmitMultiResp { message_id, failed, tlvs }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.message_id.encode(out);
        let failed = &self.failed[..self.failed.len().min(MAX_DESTINATIONS)];
        // Cut to fit above.
        out.put_u8(failed.len() as u8);
        for one in failed {
            one.destination.encode(out);
            out.put_u32(one.status.0);
        }
        self.tlvs.encode(out);
    }
}
