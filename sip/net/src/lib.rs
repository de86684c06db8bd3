//! SIP carriers (UDP, TCP, TLS, WebSocket), the resolver, and the driver that feeds the machines of `sip-proto`.
//!
//! This crate does: open every socket that speaks SIP, frame what comes, give it to a [`Handler`] on the thread that read
//! it, write what the handler put into its outbox, keep and reuse connections, bound whatever a peer controls, find the
//! next hop of a URI (RFC 3263). It does not: understand messages, beyond where one ends.
//!
//! Start reading at [`Carriers`], then `udp.rs` for the fast path, `connections.rs` and `pump.rs` for streams; the framing
//! of streams is a value without sockets in [`stream`].

mod carriers;
mod config;
mod connections;
mod counters;
pub mod driver;
pub mod flood;
pub mod handler;
mod handshakes;
mod names;
mod pump;
mod quoted;
mod refusal;
pub mod resolver;
pub mod stream;
pub mod stun;
mod tcp;
pub mod tls;
mod udp;
pub mod ws;

pub use carriers::{Bound, Carriers, StartError};
pub use config::{CarrierConfig, StreamLimits};
pub use counters::Counters;
pub use flood::{Flood, FloodConfig, Prefix};
pub use handler::Handler;
pub use names::HostNames;
pub use resolver::{Question, Resolver, ResolverConfig, Unresolved};
pub use tls::{Certificate, TlsConfig, TlsError};
