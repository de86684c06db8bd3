//! Who is who, and the ports through which services reach what outlives them.
//!
//! Holds the identities of a subscriber ([`Aor`], [`Msisdn`]), how they are proved ([`authenticate`]) and the links between them ([`User`], [`Directory`]), and the
//! traits behind which stores, queues and the bus live ([`ports`]), and other networks than SIP ([`bearer`]).
//!
//! What calls a service for a user, and in which order, is in [`criteria`].
//!
//! Does not hold: any SQL, socket or thread (the backends are the server's), nor the parsing of URIs (`sip-proto`).
//!
//! Start at [`ports`] for what a service may ask for, at [`user`] for what is known of a subscriber.

pub mod authenticate;
pub mod bearer;
pub mod criteria;
pub mod gate;
pub mod history;
pub mod home;
pub mod identity;
pub mod media;
pub mod notify;
pub mod ports;
pub mod service;
pub mod subscriptions;
pub mod summary;
pub mod user;
pub mod vectors;

mod answer;
mod directory;
mod reading;

pub use answer::{Answer, answer};
pub use authenticate::Authenticator;
pub use directory::Directory;
pub use home::Home;
pub use identity::{Aor, IdentityError, Msisdn};
pub use reading::Reading;
pub use user::{CallSettings, DigestSecrets, Role, User};
