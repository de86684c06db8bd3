//! bind_transmitter, bind_receiver, bind_transceiver, their responses, and outbind (SMPP 3.4 §4.1).

use bytes::{BufMut, BytesMut};

use super::reader::{Malformed, Reader};
use super::{COctets, CommandId, CommandStatus, Tlvs};

/// Which way messages go over the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BindKind {
    Transmitter,
    Receiver,
    Transceiver,
}

impl BindKind {
    /// Whether the ESME may submit.
    pub const fn transmits(self) -> bool {
        matches!(self, BindKind::Transmitter | BindKind::Transceiver)
    }

    /// Whether the ESME takes deliveries.
    pub const fn receives(self) -> bool {
        matches!(self, BindKind::Receiver | BindKind::Transceiver)
    }

    pub(crate) const fn command(self) -> CommandId {
        match self {
            BindKind::Transmitter => CommandId::BIND_TRANSMITTER,
            BindKind::Receiver => CommandId::BIND_RECEIVER,
            BindKind::Transceiver => CommandId::BIND_TRANSCEIVER,
        }
    }

    pub(super) const fn of(command: CommandId) -> Option<BindKind> {
        Some(match command {
            CommandId::BIND_TRANSMITTER => BindKind::Transmitter,
            CommandId::BIND_RECEIVER => BindKind::Receiver,
            CommandId::BIND_TRANSCEIVER => BindKind::Transceiver,
            _ => return None,
        })
    }
}

/// A request to bind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bind {
    pub kind: BindKind,
    pub system_id: COctets<16>,
    pub password: COctets<9>,
    pub system_type: COctets<13>,
    /// 0x34 for 3.4, 0x50 for 5.0; at most 0x33: no optional parameters may be sent to this peer (§3.3).
    pub interface_version: u8,
    pub addr_ton: u8,
    pub addr_npi: u8,
    /// Addresses that the ESME serves; by convention a UNIX regular expression (3.4 appendix A). Often empty.
    pub address_range: COctets<41>,
}

impl Bind {
    pub(super) fn decode(kind: BindKind, mut from: Reader<'_>) -> Result<Bind, Malformed> {
        Ok(Bind {
            kind,
            system_id: from.c_octets("system_id", CommandStatus::RINVSYSID)?,
            password: from.c_octets("password", CommandStatus::RINVPASWD)?,
            system_type: from.c_octets("system_type", CommandStatus::RINVSYSTYP)?,
            interface_version: from.u8("interface_version")?,
            addr_ton: from.u8("addr_ton")?,
            addr_npi: from.u8("addr_npi")?,
            address_range: from.c_octets("address_range", CommandStatus::RBINDFAIL)?,
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.system_id.encode(out);
        self.password.encode(out);
        self.system_type.encode(out);
        out.put_slice(&[self.interface_version, self.addr_ton, self.addr_npi]);
        self.address_range.encode(out);
    }
}

/// The answer to a bind that was let in.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct BindResp {
    pub system_id: COctets<16>,
    /// sc_interface_version, if the centre tells.
    pub tlvs: Tlvs,
}

impl BindResp {
    pub(super) fn decode(mut from: Reader<'_>) -> BindResp {
        BindResp { system_id: from.lenient(), tlvs: from.lenient_tlvs() }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.system_id.encode(out);
        self.tlvs.encode(out);
    }
}

/// A centre asks an ESME to bind (§4.1.7). Has no response; bind_receiver is the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outbind {
    pub system_id: COctets<16>,
    pub password: COctets<9>,
}

impl Outbind {
    pub(super) fn decode(mut from: Reader<'_>) -> Result<Outbind, Malformed> {
        Ok(Outbind {
            system_id: from.c_octets("system_id", CommandStatus::RINVSYSID)?,
            password: from.c_octets("password", CommandStatus::RINVPASWD)?,
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        self.system_id.encode(out);
        self.password.encode(out);
    }
}
