//! Short messages: what they look like on each wire, and the services that move them.
//!
//! The codecs are values without sockets or clock: [`text`] (alphabets), [`dcs`] (data coding), [`udh`] and [`user_data`]
//! (headers and what follows them), [`segment`] and [`reassembly`] (one message, several segments), [`tpdu`] (TS 23.040) and
//! [`rp`] (TS 24.011), and [`receipt`] (what SMSCs write about a message's end).
//!
//! The services: [`ip_sm_gw`] (SMS over IP, TS 24.341).
//!
//! Does not do: the SMPP protocol itself (`gw-smpp`), WAP contents (`gw-wap`), SQL (ports of `sip-ims`).
//!
//! Start at [`segment::split`] for how a text becomes what is sent.

pub mod dcs;
pub mod ip_sm_gw;
pub mod reassembly;
pub mod receipt;
pub mod rp;
pub mod segment;
pub mod text;
pub mod tpdu;
pub mod udh;
pub mod user_data;
