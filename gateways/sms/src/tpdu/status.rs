//! SMS-STATUS-REPORT (TS 23.040 §9.2.2.3): what became of a message that a handset sent earlier.

use super::{Address, Broken, Octets, Optional, Timestamp, flag, is_set};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusReport {
    /// As in [`Deliver`](super::Deliver): inverted on the wire.
    pub more: bool,
    pub loop_prevention: bool,
    /// TP-SRQ: the result of a command, not of a message.
    pub of_command: bool,
    /// TP-MR of the message.
    pub reference: u8,
    pub recipient: Address,
    /// When the service centre got the message.
    pub timestamp: Timestamp,
    /// When it was delivered, or last tried.
    pub discharged: Timestamp,
    /// TP-ST.
    pub status: u8,
    pub optional: Optional,
}

/// TP-ST in four words (TS 23.040 §9.2.3.15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Delivered,
    /// The service centre still tries.
    Trying,
    Failed,
    /// Failed for now, and not tried again.
    GivenUp,
}

impl StatusReport {
    pub const RECEIVED: u8 = 0x00;
    /// Forwarded, delivery unknown.
    pub const FORWARDED: u8 = 0x01;
    pub const REPLACED: u8 = 0x02;
    pub const TRYING_CONGESTION: u8 = 0x20;
    pub const REMOTE_ERROR: u8 = 0x40;
    pub const NOT_OBTAINABLE: u8 = 0x43;
    pub const EXPIRED: u8 = 0x46;
    pub const DELETED_BY_SENDER: u8 = 0x47;
    pub const DELETED_BY_CENTRE: u8 = 0x48;
    pub const GIVEN_UP_CONGESTION: u8 = 0x60;

    pub fn outcome(&self) -> Outcome {
        match self.status >> 5 & 3 {
            0 => Outcome::Delivered,
            1 => Outcome::Trying,
            2 => Outcome::Failed,
            _ => Outcome::GivenUp,
        }
    }

    pub(super) fn decode(first: u8, mut octets: Octets<'_>) -> Result<StatusReport, Broken> {
        let reference = octets.take("TP-MR")?;
        let recipient = Address::decode(&mut octets)?;
        let timestamp = Timestamp(octets.array("TP-SCTS")?);
        let discharged = Timestamp(octets.array("TP-DT")?);
        let status = octets.take("TP-ST")?;
        let optional = if octets.0.is_empty() {
            Optional::default()
        } else {
            let indicator = Optional::decode_indicator(&mut octets)?;
            Optional::decode(indicator, &mut octets, is_set(first, 6))?
        };
        Ok(StatusReport {
            more: !is_set(first, 2),
            loop_prevention: is_set(first, 3),
            of_command: is_set(first, 5),
            reference,
            recipient,
            timestamp,
            discharged,
            status,
            optional,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![
            0x02 | flag(!self.more, 2)
                | flag(self.loop_prevention, 3)
                | flag(self.of_command, 5)
                | flag(self.optional.has_header(), 6),
            self.reference,
        ];
        self.recipient.encode(&mut out);
        out.extend(self.timestamp.0);
        out.extend(self.discharged.0);
        out.push(self.status);
        if !self.optional.is_empty() {
            self.optional.encode_indicator(&mut out);
            self.optional.encode(&mut out);
        }
        out
    }
}
