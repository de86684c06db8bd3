//! What a user's phones can do, for whoever asks by OPTIONS (GSMA RCC.07 §2.6.1.1).
//!
//! An OPTIONS goes to the phones themselves, which so learn what the caller's can do; where none of them answers, what the user
//! has published does. Or, for handsets that are better not woken, the network answers with what they have registered and published.
//! A user who is away and has published nothing is 480, a user that there is not 404.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sip_ims::Home;
use sip_ims::service::{Location, Request, Service, Step, Verdict};
use sip_proto::build::{Response, Writer};
use sip_proto::endpoint::ServerId;
use sip_proto::features::Union;
use sip_proto::headers::{MethodSet, Params};
use sip_proto::{HeaderName, Method};

use crate::server::Presence;

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answers {
    /// The phones, and for those who do not, what was published.
    Handsets,
    /// We, as long as the user is registered or has published.
    Network,
}

/// See the module's text.
pub struct Capabilities {
    pub answers: Answers,
    pub home: Arc<Home>,
    pub location: Arc<dyn Location>,
    pub presence: Option<Arc<Presence>>,
    pub counts: Counts,
}

/// OPTIONS answered, since the start of the process.
#[derive(Default, Debug)]
pub struct Counts {
    /// From what is registered.
    pub registered: AtomicU64,
    /// From what is published alone.
    pub published: AtomicU64,
}

impl Capabilities {
    pub fn new(
        answers: Answers,
        home: Arc<Home>,
        location: Arc<dyn Location>,
        presence: Option<Arc<Presence>>,
    ) -> Arc<Capabilities> {
        Arc::new(Capabilities { answers, home, location, presence, counts: Counts::default() })
    }

    /// The features of all registered contacts; `None` when there is no contact.
    fn registered(&self, aor: &str, unix: u64) -> Option<Union> {
        let mut all = None;
        self.location.each_anywhere(aor, unix, &mut |reach| {
            all.get_or_insert_with(Union::default).add(Params::new(reach.params));
        });
        all
    }

    fn answer(&self, step: &mut Step<'_>, request: &Request<'_>, server: Option<ServerId>, features: &Union) {
        let Some(aor) = &request.callee else { return };
        let write = |w: &mut Writer<'_>| {
            w.header(HeaderName::Contact, |out| {
                // The user, and none of the phones.
                out.extend_from_slice(b"<sip:");
                out.extend_from_slice(aor.as_str().as_bytes());
                out.push(b'>');
                features.write(out);
            });
            w.header(HeaderName::Allow, |out| allowed(features).write(out));
            w.text(HeaderName::Accept, b"application/sdp");
        };
        match server {
            None => step.reply(request.flow, request.message, 200, None, write),
            Some(id) => {
                let tag = step.endpoint.local_tag(request.message.call_id().unwrap_or_default());
                let response = Response::to(request.message, 200).source(request.flow.remote).tag(&tag);
                step.endpoint.respond(step.now, id, 200, step.out, |b| response.write(b, write));
            }
        }
    }
}

/// The methods that the phones have registered, or what every phone can do.
fn allowed(features: &Union) -> MethodSet {
    let said: Vec<u8> = features.values("methods").collect::<Vec<_>>().join(&b","[..]);
    match said.is_empty() {
        true => MethodSet::of(&[Method::Invite, Method::Ack, Method::Cancel, Method::Bye, Method::Options]),
        false => MethodSet::parse(&said),
    }
}

/// An OPTIONS to a user, outside any dialog. A GRUU names a phone, which must answer itself.
fn asks(request: &Request<'_>) -> bool {
    let message = request.message;
    message.method() == Method::Options && request.uri.gr().is_none() && !message.is_in_dialog()
}

impl Service for Capabilities {
    fn name(&self) -> &'static str {
        "capabilities"
    }

    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let Some(aor) = request.callee.as_ref().filter(|_| self.answers == Answers::Network && asks(request)) else {
            return Verdict::Pass;
        };
        let Some(mut features) = self.registered(aor.as_str(), step.unix) else { return Verdict::Pass };
        if let Some(presence) = &self.presence {
            presence.published_features(request, step.unix, &mut features);
        }
        self.counts.registered.fetch_add(1, Relaxed);
        self.answer(step, request, None, &features);
        Verdict::Taken
    }

    fn unreached(&self, step: &mut Step<'_>, request: &Request<'_>, server: Option<ServerId>, _: u16) -> Verdict {
        let Some(presence) = self.presence.as_ref().filter(|_| request.callee.is_some() && asks(request)) else {
            return Verdict::Pass;
        };
        let mut features = Union::default();
        presence.published_features(request, step.unix, &mut features);
        if features.is_empty() {
            return Verdict::Pass;
        }
        self.counts.published.fetch_add(1, Relaxed);
        self.answer(step, request, server, &features);
        Verdict::Taken
    }
}
