//! Pager-mode messages (RFC 3428) for users who are away: kept durably, delivered in order when they come back.
//!
//! A MESSAGE to somebody who is there is the proxy's business. One that reached nobody comes to the [`Pager`], which
//! writes it to the store and has it answered with 202 once the commit is on disk. The [`Courier`] delivers: one message
//! after the other to each user, several users side by side.
//!
//! Does not do: SQL or sockets (ports of `sip-ims`), SMS. What a message in CPIM asks to be told of is told ([`notice`]).
//!
//! Start at [`Pager`] for what is accepted, at [`Courier`] for when and how it is delivered.

mod anchor;
mod config;
mod counts;
mod courier;
mod late;
mod letter;
mod notice;
mod pager;
mod round;
mod schedule;
mod sweep;
mod telling;
mod waiting;

#[cfg(test)]
mod fakes;
#[cfg(test)]
mod through_the_stack;

pub use anchor::{Anchor, AnchorConfig};
pub use config::{Config, Devices};
pub use counts::Counts;
pub use courier::{Courier, CourierParts, NextHops};
pub use pager::{Inbox, Pager};
