//! XML as SIP's documents use it: UTF-8, namespaces, one root, no DTD.
//!
//! This crate reads a document into a small tree ([`Document::parse`]), refusing whatever a careful peer would not send, and
//! writes elements straight into a buffer ([`Writer`]). It does not validate against schemas, resolve entities beyond the five
//! of XML itself, or read any other encoding than UTF-8.
//!
//! Start at [`Document`] to read, at [`Writer`] to write.

mod characters;
mod element;
mod reader;
mod writer;

pub use characters::is_nc_name;
pub use element::{Attribute, Declaration, Document, Element, Node};
pub use reader::{Broken, Fault, Limits};
pub use writer::{Open, Writer, escape_attribute};
