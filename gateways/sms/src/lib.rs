//! Short messages: what they look like on each wire, and the services that move them.
//!
//! The codecs are values without sockets or clock: [`text`] (alphabets and the cheapest coding that loses nothing), [`udh`]
//! (user data headers), `segment` and `reassembly` (one message, several segments), `tpdu` and `rp` (TS 23.040, TS 24.011),
//! `receipt` (what SMSCs write about a message's end).
//!
//! Does not do: the SMPP protocol itself (`gw-smpp`), WAP contents (`gw-wap`), SQL (ports of `sip-ims`).
//!
//! Start at [`text`] for how characters become octets.

pub mod text;
pub mod udh;
