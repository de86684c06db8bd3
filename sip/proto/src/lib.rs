//! SIP as values: bytes and time in, actions out.
//!
//! This crate does: messages as an index over the received bytes ([`message`]), changes as edit lists ([`edit`]), typed
//! header views ([`headers`]), URIs, digest, and the state machines of RFC 3261 and its family. It does not: open a socket,
//! read a clock, spawn a task, decide who may do what.
//!
//! Start reading at [`message::Message`], then [`transport`] for the words shared with the carriers.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod build;
pub mod derived;
pub mod dialog;
pub mod digest;
pub mod edit;
pub mod encoding;
pub mod endpoint;
pub mod features;
pub mod headers;
pub mod message;
pub mod method;
pub mod multipart;
pub mod name;
mod octet;
pub mod privacy;
pub mod refer;
pub mod reliable;
#[cfg(any(test, feature = "rsip"))]
pub mod rsip_compat;
pub mod session_timer;
pub mod slots;
pub mod subscription;
pub mod transaction;
pub mod transport;
pub mod uri;
pub mod validate;
pub mod wheel;

pub use edit::Edits;
pub use message::{Limits, Message, StartLine};
pub use method::Method;
pub use name::HeaderName;
pub use transport::{Flow, FlowId, Hop, HostId, Outbox, Transport};
pub use uri::{OwnedUri, Uri};
