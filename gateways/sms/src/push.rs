//! The push interface: XML over HTTP between push clients and this centre (`POST /smsgw/`).
//!
//! [`message`] reads what clients send and writes what they get; [`service`] decides, [`rate`] holds it to what was agreed. docs/smsgw.md tells clients.

pub mod message;
pub mod rate;
pub mod service;

/// Result codes of the interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code(pub u16);

impl Code {
    /// The same request again is accepted again, and sent once.
    pub const ACCEPTED: Code = Code(0);
    pub const BAD_XML: Code = Code(1001);
    /// A field is missing or not as it must be.
    pub const BAD_FIELD: Code = Code(1002);
    pub const UNKNOWN_PROCESS: Code = Code(1003);
    /// The request id was used for something else.
    pub const REUSED: Code = Code(1004);
    pub const UNKNOWN_CLIENT: Code = Code(2001);
    /// Whoever asks is not that client.
    pub const NOT_ALLOWED: Code = Code(2002);
    pub const NOT_CONTRACTED: Code = Code(2003);
    pub const STOPPED: Code = Code(2004);
    pub const TOO_MANY_SEGMENTS: Code = Code(3001);
    pub const SEGMENTATION_OFF: Code = Code(3002);
    pub const NOT_ENCODABLE: Code = Code(3003);
    /// Cancellation: no such request.
    pub const UNKNOWN_REQUEST: Code = Code(4001);
    pub const ALL_OVER: Code = Code(4002);
    pub const CANCELLED_ALREADY: Code = Code(4003);
    /// Part has arrived; the rest is being cancelled.
    pub const PARTLY_OVER: Code = Code(4004);
    pub const THROTTLED: Code = Code(5001);
    pub const FULL: Code = Code(5002);
    pub const INTERNAL: Code = Code(9999);
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}", self.0)
    }
}
