//! SMS-COMMAND (TS 23.040 §9.2.2.4): a handset asks about, or takes back, what it sent.

use super::{Address, Broken, Octets, flag, is_set};

/// TP-CT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandType {
    Enquiry,
    CancelStatusReport,
    Delete,
    EnableStatusReport,
    /// Reserved, or specific to a service centre.
    Other(u8),
}

impl CommandType {
    pub fn from_octet(octet: u8) -> CommandType {
        match octet {
            0 => CommandType::Enquiry,
            1 => CommandType::CancelStatusReport,
            2 => CommandType::Delete,
            3 => CommandType::EnableStatusReport,
            other => CommandType::Other(other),
        }
    }

    pub fn octet(self) -> u8 {
        match self {
            CommandType::Enquiry => 0,
            CommandType::CancelStatusReport => 1,
            CommandType::Delete => 2,
            CommandType::EnableStatusReport => 3,
            CommandType::Other(other) => other,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    pub status_report: bool,
    /// The data begin with a header.
    pub has_header: bool,
    /// TP-MR of the command.
    pub reference: u8,
    pub pid: u8,
    pub kind: CommandType,
    /// TP-MN: TP-MR of the message it is about.
    pub message: u8,
    pub destination: Address,
    /// At most 157 octets.
    pub data: Vec<u8>,
}

const MAX_DATA: usize = 157;

impl Command {
    pub(super) fn decode(first: u8, mut octets: Octets<'_>) -> Result<Command, Broken> {
        let reference = octets.take("TP-MR")?;
        let pid = octets.take("TP-PID")?;
        let kind = CommandType::from_octet(octets.take("TP-CT")?);
        let message = octets.take("TP-MN")?;
        let destination = Address::decode(&mut octets)?;
        let length = usize::from(octets.take("TP-CDL")?);
        let data = octets.slice(length, "TP-CD")?.to_vec();
        Ok(Command {
            status_report: is_set(first, 5),
            has_header: is_set(first, 6),
            reference,
            pid,
            kind,
            message,
            destination,
            data,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![
            0x02 | flag(self.status_report, 5) | flag(self.has_header, 6),
            self.reference,
            self.pid,
            self.kind.octet(),
            self.message,
        ];
        self.destination.encode(&mut out);
        let data = &self.data[..self.data.len().min(MAX_DATA)];
        out.push(data.len() as u8);
        out.extend_from_slice(data);
        out
    }
}
