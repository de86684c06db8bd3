//! MSRP (RFC 4975): messages and files of any size within sessions.
//!
//! What it does: takes the byte stream apart without ever holding a body ([`reader`]), reads header sections ([`head`]), URIs
//! ([`uri`]) and byte ranges ([`range`]), writes requests and responses ([`write`]), keeps the writing side of a connection in
//! order ([`lane`]): these are values that know no socket and no clock. On top of them the [`Switch`] anchors sessions: each
//! has two legs, over TCP, TLS or WebSocket, and what one peer sends is passed on to the other while it comes. A session may end in this
//! process instead ([`LocalEnd`]): its messages are put together ([`assembly`]). What a side sends may be held until somebody has judged
//! it ([`Inspector`]), or heard as it goes on ([`Listener`]).
//!
//! What it does not: session descriptions (media-sdp), and the calls that carry them (sip-messaging).
//!
//! Start reading at [`Switch`] for what others call, at [`reader::Reader`] for the protocol.

pub mod assembly;
mod bridge;
mod buffer;
mod connection;
mod counts;
pub mod head;
mod held;
pub mod lane;
mod local;
mod passage;
pub mod range;
pub mod reader;
mod relay;
mod spool;
mod switch;
mod tap;
mod tls;
pub mod uri;
mod websocket;
pub mod write;

pub use bridge::{Bridge, Peer, Side};
pub use connection::Gone;
pub use counts::Counts;
pub use held::{Held, Inspector, Judged, Judgement, Withheld};
pub use local::{Answered, LocalEnd, Outgoing, PHONE};
pub use relay::{Denied, Gatekeeper};
pub use switch::{Address, Certificates, Config, Full, Switch};
pub use tap::Listener;
pub use tls::{Fingerprint, TlsError, any_client, any_server, believing};
pub use uri::MsrpUri;
pub use websocket::{SUB_PROTOCOL, offers_msrp};
