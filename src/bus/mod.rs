//! Hints between the nodes of a cluster: in this process alone, or over core NATS.
//!
//! Nothing here is reliable and nothing has to be; see [`sip_ims::ports::Bus`].

mod local;
mod nats;

pub use local::LocalBus;
pub use nats::{NatsBus, NatsError};
