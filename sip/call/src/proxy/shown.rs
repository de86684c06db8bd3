//! What others are shown of a call: whether the privacy asked for can be given, and what becomes of the bodies that tell of its
//! media. A session's messages may go through this server, and where media come from may be hidden: both write another body.

use sip_ims::media::Passing;
use sip_proto::privacy::{self, Neighbour, Unfulfilled};
use sip_proto::uri::Uri;
use sip_proto::{Hop, Message, Method};

use super::{Proxy, ProxyParts};
use crate::forward;
use crate::route::{Routed, literal_hop};
use crate::screen::describes;
use crate::veil::{self, Side};

/// How a message goes on.
pub(super) struct Shown {
    /// In the place of its own.
    pub body: Option<Vec<u8>>,
    /// Nothing of the call says where its media come from.
    pub hidden: bool,
}

impl ProxyParts {
    /// A request leaves. `screened`: to somebody who is not to see where the media come from, if the call is one of those.
    pub(super) fn shown(&self, message: &Message<'_>, screened: bool) -> Shown {
        let of_a_call = [Method::Invite, Method::Ack, Method::Update, Method::Prack, Method::Bye];
        let mut passing = Passing::AsItIs;
        if of_a_call.contains(&message.method()) {
            passing = self.media.as_ref().map_or(passing, |media| media.request(message));
            if let Some(screen) = self.screen.as_ref().filter(|_| screened) {
                passing = also(message, passing, |message| screen.request(message));
            }
        }
        Shown { body: passing.into_body(), hidden: self.hides(message) }
    }

    /// A response goes back; `request` as [`Media::response`](sip_ims::media::Media::response) has it.
    pub(super) fn shown_back(&self, message: &Message<'_>, request: Option<&[u8]>) -> Shown {
        let mut passing = self.media.as_ref().map_or(Passing::AsItIs, |media| media.response(message, request));
        if let Some(screen) = &self.screen {
            passing = also(message, passing, |message| screen.response(message));
        }
        Shown { body: passing.into_body(), hidden: self.hides(message) }
    }

    pub(super) fn hides(&self, message: &Message<'_>) -> bool {
        self.screen.as_ref().is_some_and(|screen| screen.hides(message))
    }
}

impl Proxy {
    /// RFC 3323 §5: privacy that is critical and cannot be given fails the request, unless the next hop is one of our trust
    /// domain, which may be able to. So does what was given before in the dialog and cannot be given again. Gives whether it is
    /// to be hidden where the media come from.
    pub(super) fn private_enough(&self, message: &Message<'_>, routed: &Routed<'_>) -> Result<bool, Unfulfilled> {
        let asked = privacy::asked(message);
        let goes_on = routed.veil.as_ref().is_some_and(|v| v.header && v.side(message) == Some(Side::Caller));
        let covered = !(asked.header || goes_on) || veil::covers(message);
        if goes_on && !covered {
            return Err(Unfulfilled::Header);
        }
        let next = routed.next.and_then(Uri::parse).and_then(|uri| literal_hop(&uri));
        let next = next.map(|(transport, remote)| self.neighbour(false, &Hop::Address { transport, remote }));
        let trusted = next == Some(Neighbour::Trusted);
        let veiled = routed.veil.as_ref().is_some_and(|v| v.session);
        let wanted = asked.session && !asked.none && !trusted || veiled;
        let session = wanted && self.parts.screen.as_ref().is_some_and(|screen| screen.can_hide(message));
        if veiled && !session && describes(message.method()) && !message.body().is_empty() {
            return Err(Unfulfilled::Session);
        }
        match privacy::fulfillable(asked, covered, session) {
            Err(failure) if !trusted => Err(failure),
            _ => Ok(session),
        }
    }
}

/// What becomes of a message whose body is another one already, perhaps, and passes a second time.
fn also(message: &Message<'_>, first: Passing, second: impl FnOnce(&Message<'_>) -> Passing) -> Passing {
    let Passing::Body(body) = &first else { return second(message) };
    let changed = forward::with_body(message, body);
    match Message::parse(&changed).map(|changed| second(&changed)) {
        Ok(Passing::Body(body)) => Passing::Body(body),
        Ok(Passing::AsItIs) | Err(_) => first,
    }
}
