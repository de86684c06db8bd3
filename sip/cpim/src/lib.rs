//! What instant messages say about themselves: the envelope with its headers ([`Cpim`], RFC 3862), what became of a message
//! ([`Imdn`], RFC 5438), and that somebody is typing ([`Composing`], RFC 3994).
//!
//! Values over bytes: nothing here knows whether a message travels in a SIP MESSAGE or through an MSRP session. The content of
//! an envelope is not read, and multipart bodies are not taken apart (`sip-proto` does that).
//!
//! Start at [`Cpim::parse`] to read an envelope, at [`Draft`] to write one.

mod address;
mod composing;
mod cpim;
mod date_time;
mod draft;
mod imdn;
mod text;

pub use address::Address;
pub use composing::{Composing, IS_COMPOSING_TYPE};
pub use cpim::{BadCpim, CPIM_TYPE, Cpim, Header, MAX_HEAD, MAX_HEADERS, Wanted};
pub use date_time::date_time;
pub use draft::Draft;
pub use imdn::{BadDocument, Fate, IMDN_TYPE, Imdn, MAX_DOCUMENT, Outcome};

/// The namespace that headers without a prefix belong to (RFC 3862 §4).
pub const CPIM: &str = "urn:ietf:params:cpim-headers:";
/// The namespace of the headers that ask for notifications (RFC 5438 §6.1).
pub const IMDN: &str = "urn:ietf:params:imdn";
