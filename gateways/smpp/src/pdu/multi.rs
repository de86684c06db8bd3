//! submit_multi (SMPP 3.4 §4.5): one message to many.

use bytes::{BufMut, BytesMut};

use super::reader::{Malformed, Reader};
use super::{Address, COctets, CommandStatus, ShortMessage, Tlvs};

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
    /// At most 255; more are not written.
    pub destinations: Vec<Destination>,
    /// What each of them gets; its own destination is not written.
    pub message: ShortMessage,
}

impl SubmitMulti {
    pub(super) fn decode(mut from: Reader<'_>) -> Result<SubmitMulti, Malformed> {
        let service_type = from.c_octets("service_type", CommandStatus::RINVSERTYP)?;
        let source = Address::decode(&mut from, "source_addr", CommandStatus::RINVSRCADR)?;
        let count = from.u8("number_of_dests")?;
        let destinations = (0..count).map(|_| Destination::decode(&mut from)).collect::<Result<Vec<_>, _>>()?;
        let message = ShortMessage { service_type, source, ..ShortMessage::default() }.decode_rest(from)?;
        Ok(SubmitMulti { destinations, message })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.message.service_type.encode(out);
        self.message.source.encode(out);
        let destinations = &self.destinations[..self.destinations.len().min(MAX_DESTINATIONS)];
        // Cut to fit above.
        out.put_u8(destinations.len() as u8);
        destinations.iter().for_each(|d| d.encode(out));
        self.message.encode_rest(out);
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
