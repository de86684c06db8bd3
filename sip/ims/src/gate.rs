//! Control of what messages hold, as the proxy sees it: a gate that some messages pass only once they have been judged.

use sip_proto::{Flow, Message};

use crate::service::Caller;

/// What becomes of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    Passes,
    /// It is being looked at, and comes again when that is done.
    Waits,
    Refused {
        status: u16,
        /// For its sender.
        why: String,
    },
}

/// Judges messages (RFC 3428). Called under the lock of a shard: what takes time is done elsewhere, and the message handed in again.
pub trait Gate: Send + Sync {
    /// A message that came by `flow`.
    fn admits(&self, flow: &Flow, message: &Message<'_>, caller: &Caller) -> Admission;

    /// The verdict about a message that waited, once, and who sent it: found out the first time, and not to be proved again.
    fn settled(&self, flow: &Flow, message: &Message<'_>) -> Option<(Caller, Admission)>;
}
