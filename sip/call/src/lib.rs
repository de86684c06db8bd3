//! The proxy of the home domain: routing, forking, call settings (RFC 3261 §16).
//!
//! Transaction-stateful, without dialog state: what a dialog needs travels in our Record-Route. Services are asked first;
//! in the order of the users' filter criteria ([`chain`]) or for an S-CSCF that calls us over ISC (`proxy::isc`);
//! what none of them takes is routed to the addressee's bindings or to the next domain. Start at [`Proxy`]. Where a service says
//! so we are in the middle of a call instead, as a back-to-back user agent ([`b2bua`]), and keep its two dialogs.

mod b2bua;
mod chain;
mod fork;
mod forward;
mod proxy;
mod route;
mod screen;
mod seal;
mod target;
mod veil;

pub use b2bua::{BackToBack, Joints};
pub use chain::Spent;
pub use proxy::{Access, Names, Penalise, Proxy, ProxyParts, Trusted};
pub use route::write_route_elsewhere;
pub use screen::{Screen, ScreenConfig};
pub use seal::Seals;
