//! The server: reads its configuration, opens its stores and doors, wires one to the other, and drains when told to.
//!
//! This crate does: command line ([`ctl`]), configuration ([`config`]), stores, buses, telemetry, charging records, HTTP
//! listeners. It does not: know any protocol's rules; those live in the crates below it, and none of them sees this one.
//!
//! Start reading at `main.rs`, then [`config::Config`], then [`app`], which wires everything.

mod allocator;
pub mod app;
pub mod billing;
pub mod bus;
pub mod cdr;
mod chat;
pub mod chronicle;
pub mod cluster;
pub mod config;
mod control;
pub mod ctl;
mod history;
pub mod http;
pub mod msrp;
pub mod names;
mod presence;
pub mod provision;
mod relay;
pub mod secrets;
pub mod sip;
pub mod sms;
pub mod store;
pub mod telemetry;
pub mod xcap;
mod xmpp;
