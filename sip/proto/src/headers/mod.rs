//! Typed views of header values: borrowed, read on demand, written back by the same type.
//!
//! One header (or family of the same grammar), one file. Views keep the octets they were given; a value that breaks the
//! grammar gives `None`.

mod auth;
mod cseq;
pub(crate) mod host;
mod name_addr;
mod param;
mod via;

pub use auth::{Challenge, Credentials, Qop};
pub use cseq::CSeq;
pub use name_addr::{NameAddr, write_quoted};
pub use param::{Params, list, unquoted};
pub use via::Via;
