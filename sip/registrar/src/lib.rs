//! The registrar: where users are, and who may say so.
//!
//! Holds the bindings of the home domain in memory ([`Registrar`], which is a `sip_ims::service::Service` and a
//! `sip_ims::service::Location`), writes each change to the binding store before it is acknowledged, and tells watchers
//! (the registration event package, RFC 3680).
//!
//! Does not route requests (`sip-call`), judge passwords (`sip_ims::authenticate`) or know SQL.
//!
//! Start at [`Registrar`], then `register` for what happens to a REGISTER.

mod announce;
mod binding;
mod contact;
mod core;
mod elsewhere;
mod events;
mod gruu;
mod register;
mod registrar;
mod reply;
mod table;
mod third_party;
mod undo;
mod way;

#[cfg(test)]
mod tests;

pub use core::features_of;
pub use registrar::{Acknowledge, Arrival, Ims, OnChanged, OnRegistered, Parts, Penalise, Registrar, RegistrarConfig};
pub use third_party::service_info;
