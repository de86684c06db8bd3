//! WAP push as octets: what a handset of the WAP years understands when it comes in a short message to port 2948.
//!
//! A [`push::Push`] is a WSP PDU around a content: a [`si::ServiceIndication`], a [`sl::ServiceLoading`], or octets of
//! another type. Both directions, so that what is written can be read.
//!
//! Does not do: the short message itself and its ports' header (`gw-sms`), WBXML of other families (`gw-wbxml`), connection
//! oriented push, OTA-HTTP.
//!
//! Start at [`push::Push`].

pub mod push;
pub mod si;
pub mod sl;

mod uintvar;
mod wbxml;

pub use wbxml::{Broken, NotWritable};

/// WDP port of connectionless push (WAP-259-WDP annex B).
pub const PUSH_PORT: u16 = 2948;
/// WDP port of connectionless sessions: where pushes come from.
pub const SESSION_PORT: u16 = 9200;
