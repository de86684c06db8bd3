//! What the server says of itself: logs, metrics, the trace of each message, copies for a capture server.
//!
//! Everything here is written to from hot threads and must cost them next to nothing; reading is slow and rare.

pub mod hep;
pub mod log;
pub mod marks;
pub mod metrics;
pub mod redact;
pub mod sources;
pub mod tap;
pub mod timed;
pub mod trace;

pub use hep::Capture;
pub use marks::Marks;
pub use metrics::{Latency, Metrics};
pub use redact::{Hidden, Redacted};
pub use tap::Tap;
pub use timed::Timed;
pub use trace::{Event, Trace, TraceId};
