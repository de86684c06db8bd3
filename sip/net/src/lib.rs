//! SIP carriers (UDP, TCP, TLS, WebSocket), the resolver, and the driver that feeds the machines of `sip-proto`.
pub mod driver;
pub mod handler;

pub use handler::Handler;
