//! SMPP 3.4 with the optional parameters of 5.0, for both roles.
//!
//! This crate does: cut a byte stream into frames, read and write every PDU of SMPP 3.4 byte-exactly, run sessions with their
//! windows and timers, keep links to message centres ([`Link`], [`Links`]) and let ESMEs bind to us ([`Door`]). It does not:
//! know alphabets, segments or receipts' texts (gateways/sms), keep a queue (who submits keeps the message until its outcome).
//!
//! Start reading at [`pdu`] (what is on the wire), then [`session`] (a value without sockets or clock), then `link` and
//! `door`, which put sockets under sessions by way of `pump`.

mod backoff;
mod door;
mod link;
mod links;
mod outcome;
mod pace;
pub mod pdu;
mod pump;
mod reply;
pub mod session;

pub use door::{
    Account, Accounts, AddressRange, BindAttempt, BindReply, Door, DoorConfig, DoorPort, Esme, Undeliverable,
};
pub use link::{BindMode, ClientTls, Down, Link, LinkConfig, LinkPort, LinkState};
pub use links::{Links, Route};
pub use outcome::{Outcome, Refused, Ticket, Unaccepted, Verdict};
pub use reply::Reply;
