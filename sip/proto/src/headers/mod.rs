//! Typed views of header values: borrowed, read on demand, written back by the same type.
//!
//! One header (or family of the same grammar), one file. Views keep the octets they were given; a value that breaks the
//! grammar gives `None`.

mod auth;
mod contact;
mod cseq;
mod date;
mod event;
mod history;
pub(crate) mod host;
mod media;
mod name_addr;
mod number;
mod p_headers;
mod param;
mod privacy;
mod rack;
mod reason;
mod refer;
mod retry_after;
mod security;
mod session;
mod tokens;
mod via;
mod warning;

pub use auth::{Challenge, Credentials, Qop};
pub use contact::{Contact, Q};
pub use cseq::CSeq;
pub use date::Date;
pub use event::{Event, SubscriptionState, Substate};
pub use history::{Diversion, HistoryInfo};
pub use media::{ContentDisposition, MediaType};
pub use name_addr::{NameAddr, write_quoted};
pub use number::{delta_seconds, max_forwards, response_num};
pub use p_headers::{
    AccessNetworkInfo, ChargingFunctionAddresses, ChargingVector, ServedUser, SessionCase, VisitedNetworkId,
    service_urn,
};
pub(crate) use param::quoted_end;
pub use param::{Params, list, unquoted};
pub use privacy::Privacy;
pub use rack::RAck;
pub use reason::Reason;
pub use refer::{ReferTo, ReferredBy, Replaces, TargetDialog};
pub use retry_after::RetryAfter;
pub use security::SecurityMechanism;
pub use session::{Refresher, SessionExpires, min_se};
pub use tokens::{MethodSet, has_token, write_tokens};
pub use via::Via;
pub use warning::Warning;
