//! What tells dialogs apart (RFC 3261 §12).

use crate::message::Message;

/// Call-ID and both tags, as one end sees them. A missing tag of the peer is empty (RFC 2543).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DialogId<'a> {
    pub call_id: &'a [u8],
    pub local_tag: &'a [u8],
    pub remote_tag: &'a [u8],
}

impl<'a> DialogId<'a> {
    /// Of a request that came in: our tag is in To. `None` without one: the request belongs to no dialog.
    pub fn of_request(request: &Message<'a>) -> Option<DialogId<'a>> {
        let remote_tag = request.from_tag().unwrap_or_default();
        Some(DialogId { call_id: request.call_id()?, local_tag: request.to_tag()?, remote_tag })
    }

    /// Of a response to a request of ours: our tag is in From.
    pub fn of_response(response: &Message<'a>) -> Option<DialogId<'a>> {
        let remote_tag = response.to_tag().unwrap_or_default();
        Some(DialogId { call_id: response.call_id()?, local_tag: response.from_tag()?, remote_tag })
    }
}
