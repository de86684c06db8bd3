//! TPDUs of TS 23.040: what a service centre and a handset tell each other.
//!
//! Each direction has its own set of three, and reports look different in an RP-ACK and an RP-ERROR, so [`ToHandset`] and
//! [`FromHandset`] are read with the [`Carrier`] that brought them.

mod address;
mod command;
mod deliver;
mod octets;
pub mod pid;
mod report;
mod status;
mod submit;
mod time;

pub use address::{Address, NotAnAddress, TypeOfNumber};
pub use command::{Command, CommandType};
pub use deliver::Deliver;
pub use octets::Octets;
pub use report::{DeliverReport, Optional, SubmitReport, failure};
pub use status::{Outcome, StatusReport};
pub use submit::Submit;
pub use time::{Timestamp, Validity};

use crate::user_data;

/// Octets of the longest TPDU (TS 24.011 §8.2.5.3: RP-User-Data at most 233).
pub const MAX: usize = 232;

/// What brought a TPDU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// RP-DATA.
    Data,
    /// RP-ACK.
    Ack,
    /// RP-ERROR.
    Error,
}

/// Octets that are no TPDU. The peer's fault: RP-ERROR 95 or 111.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    #[error("ends early, in {0}")]
    Short(&'static str),
    #[error("an address longer than 20 digits")]
    Address,
    #[error("an RP address of a reserved type")]
    RelayAddress,
    #[error("message type {0} in this direction is reserved")]
    Type(u8),
    #[error(transparent)]
    UserData(#[from] user_data::Broken),
}

/// From the service centre.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToHandset {
    Deliver(Deliver),
    SubmitReport(SubmitReport),
    StatusReport(StatusReport),
}

/// To the service centre.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromHandset {
    DeliverReport(DeliverReport),
    Submit(Submit),
    Command(Command),
}

impl ToHandset {
    pub fn decode(bytes: &[u8], carrier: Carrier) -> Result<ToHandset, Broken> {
        let mut octets = Octets(bytes);
        let first = octets.take("the first octet")?;
        match first & 3 {
            0 => Deliver::decode(first, octets).map(ToHandset::Deliver),
            1 => SubmitReport::decode(first, octets, carrier).map(ToHandset::SubmitReport),
            2 => StatusReport::decode(first, octets).map(ToHandset::StatusReport),
            reserved => Err(Broken::Type(reserved)),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        match self {
            ToHandset::Deliver(deliver) => deliver.encode(),
            ToHandset::SubmitReport(report) => report.encode(),
            ToHandset::StatusReport(report) => report.encode(),
        }
    }
}

impl FromHandset {
    pub fn decode(bytes: &[u8], carrier: Carrier) -> Result<FromHandset, Broken> {
        let mut octets = Octets(bytes);
        let first = octets.take("the first octet")?;
        match first & 3 {
            0 => DeliverReport::decode(first, octets, carrier).map(FromHandset::DeliverReport),
            1 => Submit::decode(first, octets).map(FromHandset::Submit),
            2 => Command::decode(first, octets).map(FromHandset::Command),
            reserved => Err(Broken::Type(reserved)),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        match self {
            FromHandset::DeliverReport(report) => report.encode(),
            FromHandset::Submit(submit) => submit.encode(),
            FromHandset::Command(command) => command.encode(),
        }
    }
}

/// `bit` of the first octet.
fn flag(set: bool, bit: u8) -> u8 {
    u8::from(set) << bit
}

fn is_set(octet: u8, bit: u8) -> bool {
    octet >> bit & 1 == 1
}

#[cfg(test)]
mod tests;
