//! XMPP federation (RFC 6120, XEP-0220): streams between our domain and those of XMPP users, and texts to them (RFC 7572).
//!
//! The values, bytes in and actions out: [`stream`] reads a stream under a budget of bytes and a bound of depth, [`outgoing`] and
//! [`incoming`] are the two roles at one, [`dialback`] makes keys, [`address`] maps addresses (RFC 7247), [`message`] writes and reads
//! stanzas. [`federation`] drives them over TCP and TLS: one outgoing stream for each domain that has something to get, and a
//! listener, whose streams bring answers back.
//!
//! Does not do: presence, rosters, chat sessions, rooms, SASL EXTERNAL, streams between clients and servers.
//!
//! Start at [`federation::Federation`] for how a text becomes a stanza and when it counts as delivered.

pub mod address;
pub mod dialback;
pub mod federation;
pub mod incoming;
pub mod message;
pub mod outgoing;
pub mod stream;

pub use address::Jid;
pub use federation::{Config, Counts, Federation, PORT, Parts, Route, SERVICE};
