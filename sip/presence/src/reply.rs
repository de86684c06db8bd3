//! Answers that are no.

use sip_ims::service::{Request, Step};
use sip_proto::build::Writer;
use sip_proto::{HeaderName, Message, encoding, validate};

use crate::names::PIDF_TYPE;

/// Why a PUBLISH or SUBSCRIBE is not granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum No {
    Status(u16),
    /// 400.
    Because(String),
    /// 415.
    MediaType,
    /// 406, with what there is.
    NotAcceptable(&'static [u8]),
    /// 423, with Min-Expires.
    TooBrief(u32),
    /// 421: a list, for one who does not read lists (RFC 4662 §4.1).
    ExtensionRequired,
    /// 415: a body of another format than those that a SUBSCRIBE may have.
    OtherBody(&'static [u8]),
    /// 415: a body that is packed in a way that is not known here.
    Encoded,
    /// 420: Require has what is not supported.
    BadExtension(Vec<u8>),
    /// 488: filters that are none, and why (RFC 4660 §5.4).
    Filters(String),
    /// 489.
    BadEvent,
    /// 403: the watcher has as many subscriptions as anybody may have.
    TooMany,
    /// 503, with Retry-After: too much is there already, or under way.
    Busy,
    /// The answer has gone already.
    Answered,
}

/// Seconds until it makes sense to try a busy server again.
const RETRY_AFTER: u64 = 5;
/// The extensions that may be demanded of us.
const EXTENSIONS: [&str; 2] = ["eventlist", "recipient-list-subscribe"];
/// The packages served here.
pub const PACKAGES: &[u8] = b"presence, presence.winfo, message-summary";

/// Whether all that a request demands is supported (RFC 3261 §8.2.2.3).
pub fn supported(message: &Message<'_>) -> Result<(), No> {
    validate::extensions(message, HeaderName::Require, &EXTENSIONS).map_err(|bad| {
        let mut unsupported = Vec::new();
        bad.write_unsupported(&mut unsupported);
        No::BadExtension(unsupported)
    })
}

impl No {
    pub fn status(&self) -> u16 {
        match self {
            No::Status(status) => *status,
            No::Because(_) => 400,
            No::TooMany => 403,
            No::MediaType | No::OtherBody(_) | No::Encoded => 415,
            No::BadExtension(_) => 420,
            No::Filters(_) => 488,
            No::NotAcceptable(_) => 406,
            No::TooBrief(_) => 423,
            No::ExtensionRequired => 421,
            No::BadEvent => 489,
            No::Busy | No::Answered => 503,
        }
    }

    /// The headers that go with it.
    pub fn write(&self, w: &mut Writer<'_>) {
        match self {
            No::MediaType => w.text(HeaderName::Accept, PIDF_TYPE),
            No::OtherBody(taken) => w.text(HeaderName::Accept, taken),
            No::Encoded => w.text(HeaderName::AcceptEncoding, encoding::ACCEPTED),
            No::BadExtension(unsupported) => w.text(HeaderName::Unsupported, unsupported),
            No::Filters(why) => w.header(HeaderName::Warning, |out| {
                out.extend_from_slice(b"399 presence \"");
                // Ours are plain; what is quoted of others must not end the quotes.
                out.extend(why.bytes().filter(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\')));
                out.push(b'"');
            }),
            No::NotAcceptable(there) => w.text(HeaderName::Accept, there),
            No::TooBrief(seconds) => w.number(HeaderName::MinExpires, (*seconds).into()),
            No::ExtensionRequired => w.text(HeaderName::Require, b"eventlist"),
            No::BadEvent => w.text(HeaderName::AllowEvents, PACKAGES),
            No::Busy => w.number(HeaderName::RetryAfter, RETRY_AFTER),
            No::Status(_) | No::Because(_) | No::TooMany | No::Answered => {}
        }
    }

    /// Answers without a transaction.
    pub fn reply(&self, step: &mut Step<'_>, request: &Request<'_>) {
        if *self == No::Answered {
            return;
        }
        let reason = match self {
            No::Because(reason) => Some(reason.as_str()),
            No::TooMany => Some("Too Many Subscriptions"),
            _ => None,
        };
        step.reply(request.flow, request.message, self.status(), reason, |w| self.write(w));
    }
}
