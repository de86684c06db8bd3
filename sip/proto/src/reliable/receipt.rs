//! The caller's side (RFC 3262 §4).

use crate::headers::{RAck, has_token, response_num};
use crate::message::Message;
use crate::name::HeaderName;

/// The reliable provisional responses of one early dialog, as the caller counts them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReliableReceipt {
    last: Option<u32>,
}

/// What to do with a provisional response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receipt<'a> {
    /// Not reliable: process it, send nothing.
    Unreliable,
    /// Process it and send a PRACK with this RAck in its early dialog.
    Acknowledge(RAck<'a>),
    /// Seen before, its PRACK is under way: drop it.
    Repeated,
    /// One before it is missing and will come first: drop it.
    Gap,
}

impl ReliableReceipt {
    pub fn new() -> ReliableReceipt {
        ReliableReceipt::default()
    }

    /// Takes in a response 101 to 199 to the INVITE.
    pub fn receive<'a>(&mut self, response: &Message<'a>) -> Receipt<'a> {
        let rseq = response.value(HeaderName::RSeq).and_then(response_num);
        let (Some(rseq), Some(cseq)) = (rseq, response.cseq()) else { return Receipt::Unreliable };
        if !matches!(response.status(), 101..=199) || !has_token(response, HeaderName::Require, "100rel") {
            return Receipt::Unreliable;
        }
        match self.last {
            Some(last) if rseq <= last => Receipt::Repeated,
            Some(last) if rseq > last + 1 => Receipt::Gap,
            _ => {
                self.last = Some(rseq);
                Receipt::Acknowledge(RAck { response: rseq, cseq })
            }
        }
    }
}
