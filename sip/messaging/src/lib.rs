//! Messages: pager mode (RFC 3428) for users who are away, kept durably and delivered in order when they come back; sessions that
//! pass through ([`Anchor`]); what of both does not pass ([`ContentControl`]), and what is kept for users to read again ([`History`]); sessions that end here: chats with users who are away, and chat rooms ([`Agent`], [`Conferences`]).
//!
//! A MESSAGE to somebody who is there is the proxy's business. One that reached nobody comes to the [`Pager`], which
//! writes it to the store and has it answered with 202 once the commit is on disk. The [`Courier`] delivers: one message
//! after the other to each user, several users side by side.
//!
//! Does not do: SQL or sockets (ports of `sip-ims`), SMS. What a message in CPIM asks to be told of is told ([`notice`]).
//!
//! Start at [`Pager`] for what is accepted, at [`Courier`] for when and how it is delivered.

mod agent;
mod anchor;
mod away;
mod conference;
mod config;
mod control;
mod counts;
mod courier;
mod hashing;
mod history;
mod late;
mod letter;
mod notice;
mod pager;
mod pushed;
mod round;
mod schedule;
mod sweep;
mod taken;
mod telling;
mod terms;
mod waiting;

#[cfg(test)]
mod fakes;
#[cfg(test)]
mod through_the_stack;

pub use agent::{Agent, AgentParts, Sessions};
pub use anchor::{Anchor, AnchorConfig};
pub use conference::{ConferenceConfig, ConferenceParts, Conferences, Counts as ConferenceCounts, Strangers};
pub use config::{Config, Devices};
pub use control::pieces::types as content_types;
pub use control::{Again, Audit, ContentControl, ControlParts, Policy, Whose, Withheld};
pub use counts::Counts;
pub use courier::{Courier, CourierParts};
pub use history::{History, HistoryCounts, HistoryParts};
pub use pager::{Inbox, Pager};
