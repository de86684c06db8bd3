//! What is on the wire: frames, headers, PDUs, optional parameters.
//!
//! A PDU is read in two steps, so that a bad one never costs the stream its rhythm: [`Frames`] cuts by `command_length`
//! alone, then [`Pdu::decode`] reads one frame. Every C-octet string is bytes with a bound ([`COctets`]), never text: senders
//! put Latin-1 and worse into addresses, and that is to be passed on, not judged.

mod address;
mod bind;
mod body;
mod c_octets;
mod command;
mod data;
mod frame;
mod manage;
mod message;
mod multi;
mod octets;
mod reader;
mod status;
mod tlv;
#[cfg(test)]
mod vectors;

pub use address::Address;
pub use bind::{Bind, BindKind, BindResp, Outbind};
pub use body::{Pdu, Request, Response};
pub use c_octets::{COctets, TooLong};
pub use command::CommandId;
pub use data::{AlertNotification, DataSm};
pub use frame::{BadLength, Frames, HEADER, Header, MAX_FRAME};
pub use manage::{CancelSm, QuerySm, QuerySmResp, ReplaceSm};
pub use message::{MessageResp, ShortMessage};
pub use multi::{Destination, Failed, SubmitMulti, SubmitMultiResp};
pub use octets::Octets;
pub use reader::Malformed;
pub use status::CommandStatus;
pub use tlv::{Tag, Tlv, Tlvs, TlvsBuilder};
