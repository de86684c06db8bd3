//! Reliable provisional responses (RFC 3262): [`ReliableResponses`] for the called side, [`ReliableReceipt`] for the caller.
//!
//! Both are values per INVITE (the caller's: per early dialog). Whether 100rel may be used is told by [`wanted`].

mod receipt;
mod responses;

pub use receipt::{Receipt, ReliableReceipt};
pub use responses::{NotAwaited, ReliableResponses, Resend};

use crate::headers::has_token;
use crate::message::Message;
use crate::name::HeaderName;

/// What an INVITE says of reliable provisional responses (RFC 3262 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reliability {
    /// Not understood by the caller: must not be used.
    No,
    Possible,
    /// Every provisional response but 100 must be reliable; who cannot answers 420.
    Required,
}

pub fn wanted(invite: &Message<'_>) -> Reliability {
    if has_token(invite, HeaderName::Require, "100rel") {
        Reliability::Required
    } else if has_token(invite, HeaderName::Supported, "100rel") {
        Reliability::Possible
    } else {
        Reliability::No
    }
}

#[cfg(test)]
mod tests;
