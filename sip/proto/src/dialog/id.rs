//! What tells dialogs apart (RFC 3261 §12).

use crate::derived::tag;
use crate::message::Message;
use crate::name::HeaderName;

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
        let (call_id, from, to) = parts(request)?;
        Some(DialogId { call_id, local_tag: to?, remote_tag: from.unwrap_or_default() })
    }

    /// Of a response to a request of ours: our tag is in From.
    pub fn of_response(response: &Message<'a>) -> Option<DialogId<'a>> {
        let (call_id, from, to) = parts(response)?;
        Some(DialogId { call_id, local_tag: from?, remote_tag: to.unwrap_or_default() })
    }
}

type Parts<'a> = (&'a [u8], Option<&'a [u8]>, Option<&'a [u8]>);

fn parts<'a>(message: &Message<'a>) -> Option<Parts<'a>> {
    let from = message.value(HeaderName::From)?;
    let to = message.value(HeaderName::To)?;
    Some((message.call_id()?, tag(from), tag(to)))
}
