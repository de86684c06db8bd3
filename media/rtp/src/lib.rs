//! Media that go through this server: a relay of RTP and RTCP between the two ends of a call (RFC 3550).
//!
//! What it does: decides where a datagram goes, as a value without sockets or clock ([`Bridge`]: symmetric RTP of RFC
//! 4961, latching of RFC 7362), and does it with a pair of ports at each side ([`Relay`], [`Stream`]).
//!
//! What it does not: look into the datagrams. RTP, RTCP on a port of its own or not (RFC 5761), SRTP, DTLS and T.38
//! pass alike, and what is encrypted between the ends stays so.
//!
//! Start reading at [`Bridge::arrives`].

mod bridge;
mod ports;
mod relay;

pub use bridge::{Bridge, Far, Part, Side, Verdict};
pub use relay::{Config, Counts, Full, MAX_DATAGRAM, Relay, Stream};
