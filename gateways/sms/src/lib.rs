//! Short messages: what they look like on each wire, and the services that move them.
//!
//! The codecs are values without sockets or clock: [`text`] (alphabets), [`dcs`] (data coding), [`udh`] and [`user_data`]
//! (headers and what follows them), [`segment`] and [`reassembly`] (one message, several segments), [`tpdu`] (TS 23.040) and
//! [`rp`] (TS 24.011), [`short_message`] (what an SMPP PDU says) and [`receipt`] (what SMSCs write about a message's end).
//!
//! The service: [`push`] takes requests, [`registry`] knows who may, [`compose`] makes segments of them, [`queue`] is the port behind which
//! they are kept, [`dispatch`] hands them to the carriers under [`delivery`] control, [`smpp`] is one of those, [`esme`] lets legacy
//! applications submit to the same queue, [`notice`] tells clients, [`billing`]
//! adds up. [`rest`] is the developers' door to the same queue. [`ip_sm_gw`] is SMS over IP (TS 24.341).
//!
//! Does not do: the SMPP protocol itself (`gw-smpp`), WAP contents (`gw-wap`), SQL (the server's store).
//!
//! Start at [`segment::split`] for how a text becomes what is sent, at [`push::service`] for the way of a request.

pub mod billing;
pub mod compose;
pub mod dcs;
pub mod delivery;
pub mod dispatch;
pub mod esme;
pub mod ip_sm_gw;
pub mod notice;
pub mod push;
pub mod queue;
pub mod reassembly;
pub mod receipt;
pub mod registry;
pub mod rest;
pub mod rp;
pub mod segment;
pub mod short_message;
pub mod smpp;
pub mod smpp_time;
pub mod text;
pub mod tpdu;
pub mod udh;
pub mod user_data;
