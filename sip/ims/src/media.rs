//! Sessions whose media this server carries, as the proxy sees them: session descriptions that change on their way.

use sip_proto::Message;

/// What becomes of a message that passes through the proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Passing {
    /// It goes on as it came.
    AsItIs,
    /// It goes on with this body, of the same type, and the server stays on the path of the dialog.
    Body(Vec<u8>),
}

impl Passing {
    pub fn into_body(self) -> Option<Vec<u8>> {
        match self {
            Passing::AsItIs => None,
            Passing::Body(body) => Some(body),
        }
    }
}

/// Carries the media of sessions. Called under the lock of a shard: decides at once.
///
/// The same message may be shown more than once: for each branch of a fork, and when it is sent again. It becomes the same
/// every time.
pub trait Media: Send + Sync {
    /// A request that may belong to an INVITE's dialog leaves.
    fn request(&self, message: &Message<'_>) -> Passing;

    /// A response to such a request goes back. `request`: that, as it came, until its final response has gone.
    fn response(&self, message: &Message<'_>, request: Option<&[u8]>) -> Passing;

    /// An INVITE goes to another node, which is an end of its session: the media of its dialog do not come by here.
    fn passes_by(&self, message: &Message<'_>) {
        let _ = message;
    }
}
