//! XCAP (RFC 4825) as values: a request's URI and body in, the document as it is then out.
//!
//! [`Target`] reads a request URI; [`NodeSelector`] finds one node of a document; [`Text`] is a document that is edited in its
//! own bytes, so that blanks, comments and declarations stay as their author wrote them; [`usage`] says what a document of an
//! application usage must be like, with the [`schema`]s of their RFCs as rules; [`Conflict`] is the 409 that says what was not. [`diff`]
//! writes what subscribers of changes are told (RFC 5874). [`recipients`] reads lists that come in a request's body.
//!
//! Does not do: HTTP, who may read or write, storing, what documents mean (`sip-presence`).
//!
//! Start at [`Target`], then [`Text`]; the rules of one usage are in `usage/` under its name.

mod conflict;
pub mod diff;
mod edit;
pub mod patch;
pub mod recipients;
pub mod schema;
mod selector;
mod start_tag;
mod target;
mod text;
pub mod usage;

pub use conflict::{Conflict, Exists};
pub use edit::{Edited, Node, Put, Refused};
pub use selector::{BadSelector, MAX_SELECTOR, Name, NodeSelector, Terminal};
pub use target::{BadTarget, Bindings, Target, Tree, encode_segment, meant};
pub use text::{LIMITS, Text};
