//! What a user's profile says about calls: barring and forwarding (TS 24.611, TS 24.604).

use sip_ims::User;
use sip_ims::service::{Caller, Request};
use sip_proto::{HeaderName, Method};

use super::Proxy;

impl Proxy {
    /// The status that refuses a barred call; `None` when nothing bars it. Emergency calls are never barred.
    pub(super) fn barred(&self, request: &Request<'_>) -> Option<u16> {
        if request.message.method() != Method::Invite || request.uri.scheme_text().eq_ignore_ascii_case(b"urn") {
            return None;
        }
        if let Caller::User(user) = &request.caller
            && !in_dialog(request)
        {
            let settings = &user.call_settings;
            let number = request.uri.phone().map(|p| {
                let mut digits = Vec::new();
                p.write_e164(&mut digits);
                digits
            });
            let dialled = number.as_deref().or(request.uri.user()).unwrap_or_default();
            let prefixed = settings.bar_outgoing_prefixes.iter().any(|p| dialled.starts_with(p.as_bytes()));
            if settings.bar_outgoing || prefixed {
                return Some(603);
            }
        }
        if let Some(profile) = &request.profile {
            let settings = &profile.call_settings;
            if settings.bar_incoming {
                return Some(603);
            }
            if settings.bar_anonymous && is_anonymous(request) {
                return Some(433);
            }
        }
        None
    }
}

/// Forwarding that does not wait for anything.
pub(super) fn unconditional<'r>(request: &'r Request<'_>) -> Option<&'r str> {
    let profile = request.profile.as_ref().filter(|_| request.message.method() == Method::Invite)?;
    profile.call_settings.forward_unconditional.as_deref()
}

/// Forwarding for the way in which a call failed.
pub(super) fn on_failure(profile: &User, status: u16, rang: bool) -> Option<(&str, &'static str)> {
    let settings = &profile.call_settings;
    let (uri, why) = match status {
        486 | 600 => (&settings.forward_busy, "user-busy"),
        408 | 480 if rang => (&settings.forward_no_answer, "no-answer"),
        408 | 430 | 480 | 500 | 503 => (&settings.forward_not_reachable, "unavailable"),
        _ => return None,
    };
    uri.as_deref().map(|uri| (uri, why))
}

fn in_dialog(request: &Request<'_>) -> bool {
    request.message.is_in_dialog()
}

/// RFC 5079: the caller hides who they are.
fn is_anonymous(request: &Request<'_>) -> bool {
    let private = request.message.value(HeaderName::Privacy).is_some_and(|p| {
        p.split(|b| matches!(b, b';' | b','))
            .map(<[u8]>::trim_ascii)
            .any(|v| [&b"id"[..], b"user", b"header"].iter().any(|p| v.eq_ignore_ascii_case(p)))
    });
    let nameless = request
        .message
        .from()
        .and_then(|a| a.uri())
        .is_some_and(|u| u.host().eq_ignore_ascii_case(b"anonymous.invalid"));
    private || nameless
}
