//! Lists that come in the SUBSCRIBE to them (RFC 5367).
//!
//! Each is a presentity of its own, since nobody else follows just that list, at a place that no request can name. It ends with its
//! subscription, of which it is a part in the store too.

use std::borrow::Cow;
use std::collections::HashSet;

use sip_ims::Aor;
use sip_ims::service::{Request, Step};
use sip_proto::headers::MediaType;
use sip_proto::{HeaderName, Message, encoding, multipart};
use sip_xcap::recipients::{self, BadList, Recipient};

use crate::lists::{MAX_MEMBERS, Member};
use crate::names::LIST_FORMATS;
use crate::reply::{No, PACKAGES};
use crate::rlmi::Dialect;
use crate::rules::canonical;
use crate::server::Presence;
use crate::watch::{DialogKey, Following, Package};

/// Bytes of the body of a SUBSCRIBE.
const MAX_BODY: usize = 128 * 1024;

/// The body of a SUBSCRIBE, unpacked: Linphone packs its lists.
pub(crate) fn body<'a>(message: &Message<'a>) -> Result<Cow<'a, [u8]>, No> {
    encoding::unpacked(message, MAX_BODY).map_err(|unreadable| match unreadable {
        encoding::Unreadable::Unknown => No::Encoded,
        encoding::Unreadable::TooLong => No::Status(413),
        encoding::Unreadable::Broken => No::Because("Body Does Not Unpack".into()),
    })
}

/// What the body of a SUBSCRIBE has in it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bodies<'a> {
    pub list: Option<&'a [u8]>,
    /// RFC 4660 §5.2.
    pub filters: Option<&'a [u8]>,
}

impl<'a> Bodies<'a> {
    /// Alone, or as parts of a multipart. `taken`: the formats that may be, as Accept names them.
    pub fn of(message: &Message<'a>, body: &'a [u8], taken: &'static [u8]) -> Result<Bodies<'a>, No> {
        if body.is_empty() {
            return Ok(Bodies::default());
        }
        let media = message.value(HeaderName::ContentType).and_then(MediaType::parse).ok_or(No::OtherBody(taken))?;
        let find = |essence| multipart::find(&media, body, essence).map(|part| part.body);
        let found = Bodies { list: find(recipients::TYPE), filters: find("application/simple-filter+xml") };
        // RFC 5367 §5.1: only the address that takes lists understands them, and only at first.
        let out_of_place = found.list.is_some() && taken != LIST_FORMATS;
        let none = found.list.is_none() && found.filters.is_none();
        if out_of_place || none || taken.is_empty() { Err(No::OtherBody(taken)) } else { Ok(found) }
    }
}

/// Where the subscription of this dialog to its own list stands. No request leads there (RFC 2606 §2).
fn place(key: DialogKey) -> Option<Aor> {
    Aor::from_parts(format!("{:032x}", key.0).as_bytes(), b"list.invalid").ok()
}

impl Presence {
    /// Whether this is the address that takes lists.
    pub fn takes_lists(&self, aor: &Aor) -> bool {
        aor.user() == self.config.list_server && self.parts.home.is_domain(aor.domain().as_bytes())
    }

    /// The place of the subscription that a request in a dialog with this address belongs to.
    pub(crate) fn place_of(&self, aor: Aor, key: DialogKey) -> Option<Aor> {
        if self.takes_lists(&aor) { place(key) } else { Some(aor) }
    }

    /// What is watched by a SUBSCRIBE that brings its list, and where that stands.
    pub(crate) fn contained(
        &self,
        uri: &Aor,
        message: &Message<'_>,
        list: Option<&[u8]>,
    ) -> Result<(Aor, Package), No> {
        let list = list.ok_or_else(|| No::Because("No List In It".into()))?;
        let read = recipients::read(list, MAX_MEMBERS).map_err(|bad| match bad {
            BadList::TooMany(_) | BadList::TooLong => No::Status(413),
            bad => No::Because(bad.to_string()),
        })?;
        let mut members: Vec<Member> = Vec::with_capacity(read.len());
        let mut seen = HashSet::new();
        for Recipient { uri, name } in read {
            let uri = canonical(&uri);
            if seen.insert(uri.clone()) {
                members.push(Member { uri, name: name.map(String::into) });
            }
        }
        let agent = message.value(HeaderName::UserAgent).unwrap_or_default();
        let dialect = if agent.starts_with(b"Linphone") { Dialect::Linphone } else { Dialect::Standard };
        let following = Following { contained: true, dialect, ..Following::of(uri.clone(), members.into()) };
        Ok((place(self.dialog_key(message)).ok_or(No::Status(500))?, Package::List(Box::new(following))))
    }

    /// OPTIONS to the address that takes lists (RFC 5367 §5). False: it is to somebody else.
    pub(crate) fn tell_capabilities(&self, step: &mut Step<'_>, request: &Request<'_>) -> bool {
        let in_dialog = request.message.is_in_dialog();
        let ours = !in_dialog && request.callee.as_ref().is_some_and(|aor| self.takes_lists(aor));
        if ours {
            step.reply(request.flow, request.message, 200, None, |w| {
                w.text(HeaderName::Allow, b"SUBSCRIBE, OPTIONS");
                w.text(HeaderName::AllowEvents, PACKAGES);
                w.text(HeaderName::Supported, b"eventlist, recipient-list-subscribe");
                w.header(HeaderName::Accept, |out| out.extend_from_slice(LIST_FORMATS));
            });
        }
        ours
    }
}
