//! The presence server: who is there, and who may know (RFC 3856, 3903, 3863).
//!
//! [`Presence`] is a `sip_ims::service::Service`. It takes the PUBLISHes and SUBSCRIBEs of the home domain's users, keeps
//! publications and subscriptions in memory and a row of each in the store, composes what was published and registered into
//! one document ([`compose`]), lets [`rules`] decide who sees how much of it, and sends the NOTIFYs.
//!
//! [`capabilities`] tells by OPTIONS what a user's phones can do.
//!
//! Does not do: routing (`sip-call`), bindings (`sip-registrar`, asked through `sip_ims::service::Location`), SQL, XCAP.
//!
//! Start at [`Presence`]; `publish` and `subscribe` are the ways in, `work` is the way out.

pub mod capabilities;
pub mod compose;
pub mod document;
pub mod filters;
pub mod lists;
pub mod names;
pub mod partial;
pub mod rules;
pub mod services;
pub mod transform;

mod abroad;
mod book;
mod config;
mod contained;
mod counts;
mod fold;
mod follow;
mod mailbox;
mod manipulate;
mod packed;
mod presentity;
mod publish;
mod reply;
mod restore;
mod rlmi;
mod rows;
mod server;
mod subscribe;
mod takeover;
mod versions;
mod watch;
mod winfo;
mod work;
pub mod xcap_diff;

pub use book::{Book, MANIPULATED, RULES, key_of, owner_of};
pub use config::Config;
pub use counts::Counts;
pub use mailbox::SUMMARIES;
pub use server::{Parts, Presence};
