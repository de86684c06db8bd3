//! The proxy of the home domain: routing, forking, call settings (RFC 3261 §16).
//!
//! Transaction-stateful, without dialog state: what a dialog needs travels in our Record-Route. Services are asked first;
//! what none of them takes is routed to the addressee's bindings or to the next domain. Start at [`Proxy`].

mod fork;
mod forward;
mod proxy;
mod route;
mod seal;
mod target;
mod veil;

pub use proxy::{Access, Names, Penalise, Proxy, ProxyParts, Trusted};
pub use seal::Seals;
