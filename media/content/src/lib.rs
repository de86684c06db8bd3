//! Files that users send each other over HTTP (GSMA RCC.07 §3.2.5.4, "File Transfer via HTTP").
//!
//! A sender uploads a file and gets an XML document with a link, which the addressee's client downloads from.
//!
//! - [`shelf`]: where bytes lie, in a folder or a bucket ([`place`]). A file is a row of parts, each on disk before the next begins, so an
//!   upload that breaks goes on where it was, at any node, and nothing is copied when it is whole.
//! - [`link`]: what lets somebody read or go on writing: an address signed with a key that all nodes share.
//! - [`depot`]: all of it together.
//! - [`info`]: the documents that tell a client of a file.
//! - [`control`]: what the operator lets pass, here and in messages and sessions: types, sizes, and virus scanners
//!   ([`scanner`], [`clamd`], [`icap`]).

pub mod clamd;
pub mod control;
pub mod depot;
pub mod icap;
pub mod info;
pub mod link;
pub mod place;
pub mod quota;
pub mod scanner;
pub mod shelf;

pub use control::{Control, Reason, Verdict};
pub use link::{Grant, Links};
pub use scanner::{Engine, Scanner};
pub use shelf::{Entry, Id, Shelf, ShelfError, State, Thumbnail, Upload};
