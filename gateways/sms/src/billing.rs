//! Billing: which day a message belongs to, and the files that an operator's billing system reads.

mod calendar;
mod file;

pub use calendar::{Calendar, UnknownZone, is_day, month, unix_seconds};
pub use file::{Period, text};
