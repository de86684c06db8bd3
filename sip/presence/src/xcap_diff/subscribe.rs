//! A SUBSCRIBE to the package, from its first check to its answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sip_ims::User;
use sip_ims::notify::{self, dialog_key};
use sip_ims::service::{Caller, NOBODY, Request, Step, Verdict};
use sip_proto::build::{Response, Writer};
use sip_proto::dialog::Dialog;
use sip_proto::headers::{Event, MediaType, delta_seconds};
use sip_proto::subscription::{Grant, Notifier, NotifierEvent};
use sip_proto::{Flow, HeaderName, Message, edit};
use sip_xcap::diff;

use super::resources::{self, Reader, Resource};
use super::{MAX_PER_USER, Mode, Told, Watch, XcapDiff};
use crate::reply::No;

/// §4.5.
const GRANT: Grant = Grant { min: 60, max: 86_400, default: 3600 };
/// Bytes of an Event header that are kept for each subscription.
const MAX_EVENT: usize = 256;

impl XcapDiff {
    /// Takes the SUBSCRIBEs of the package that are for our users or our domain; passes on those of others.
    pub(super) fn subscribe(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let message = request.message;
        let event = message.value(HeaderName::Event).and_then(Event::parse);
        if event.is_none_or(|e| e.package != b"xcap-diff") {
            return Verdict::Pass;
        }
        let in_dialog = message.is_in_dialog();
        let ours = request.callee.is_some()
            || self.parts.home.is_us(&request.uri)
            || self.parts.home.is_domain(request.uri.host());
        let result = match in_dialog {
            true => self.refresh(step, request),
            false if ours => self.begin(step, request),
            false => return Verdict::Pass,
        };
        if let Err(no) = result {
            match no {
                // What its bodies are is another than of presence.
                No::MediaType => step.reply(request.flow, message, 415, None, |w| {
                    w.text(HeaderName::Accept, b"application/resource-lists+xml");
                }),
                other => other.reply(step, request),
            }
        }
        Verdict::Taken
    }

    fn begin(&self, step: &mut Step<'_>, request: &Request<'_>) -> Result<(), No> {
        let (message, flow) = (request.message, request.flow);
        let user = reader(request)?;
        if !notify::accepts(message, diff::MEDIA_TYPE.as_bytes()) {
            return Err(No::NotAcceptable(diff::MEDIA_TYPE.as_bytes()));
        }
        let seconds = granted(message)?;
        let resources = self.resources(message, &user)?.ok_or(No::Because("No Resource List".into()))?;
        let tag = step.endpoint.local_tag(message.call_id().unwrap_or_default());
        let mut dialog = Dialog::uas(message, &tag).map_err(|error| No::Because(error.to_string()))?;
        let event = message.value(HeaderName::Event).unwrap_or_default();
        if event.len() > MAX_EVENT {
            return Err(No::Because("Event Too Long".into()));
        }
        let key = dialog_key(message);
        let mut state = self.state.lock();
        if state.by_dialog.contains_key(&key) {
            // It has a dialog already, whose tag this lacks.
            return Err(No::Status(482));
        }
        let own = state.watches.values().filter(|w| w.user == user.id).count();
        if own >= MAX_PER_USER || state.watches.len() >= self.config.subscriptions {
            return Err(No::Busy);
        }
        let contact = notify::contact(&self.parts.home, flow);
        accept(step, flow, message, seconds, &tag, &contact)?;
        dialog.responded(message, 200);
        let (notifier, first) = Notifier::start(step.now, seconds, true, self.config.pace);
        state.next += 1;
        let id = state.next;
        let watch = Watch {
            key: key.clone(),
            user: user.id.clone(),
            resources,
            dialog,
            notifier,
            flow: *flow,
            contact,
            event: event.into(),
            mode: mode(message),
            told: Told::default(),
            steps: Vec::new(),
            full: true,
        };
        state.watches.insert(id, watch);
        state.by_dialog.insert(key, id);
        self.live.store(state.watches.len(), Relaxed);
        self.follow(&mut state, id, first);
        Ok(())
    }

    /// A SUBSCRIBE in a dialog: prolongs, perhaps with another list, or ends with 0 seconds.
    fn refresh(&self, step: &mut Step<'_>, request: &Request<'_>) -> Result<(), No> {
        let (message, flow) = (request.message, request.flow);
        let user = reader(request)?;
        let seconds = granted(message)?;
        let resources = self.resources(message, &user)?;
        let mut state = self.state.lock();
        let id = state.by_dialog.get(&dialog_key(message)).copied().ok_or(No::Status(481))?;
        let watch = state.watches.get_mut(&id).ok_or(No::Status(481))?;
        let to = message.to_tag();
        if to != Some(watch.dialog.id().local_tag) || watch.notifier.is_terminated() || watch.user != user.id {
            return Err(No::Status(481));
        }
        watch.dialog.receive(message).map_err(|_| No::Status(500))?;
        let tag = watch.dialog.id().local_tag.to_vec();
        accept(step, flow, message, seconds, &tag, &watch.contact)?;
        watch.dialog.responded(message, 200);
        (watch.flow, watch.full, watch.mode) = (*flow, true, mode(message));
        if let Some(resources) = resources {
            watch.resources = resources;
        }
        self.step(&mut state, step.now, id, NotifierEvent::Subscribed { seconds });
        Ok(())
    }

    /// What the body names; `None`: there is none.
    fn resources(&self, message: &Message<'_>, user: &User) -> Result<Option<Arc<[Resource]>>, No> {
        if message.body().is_empty() {
            return Ok(None);
        }
        let media = message.value(HeaderName::ContentType).and_then(MediaType::parse);
        if !media.is_some_and(|m| m.is("application/resource-lists+xml")) {
            return Err(No::MediaType);
        }
        let reader = Reader {
            user,
            admin: self.config.admins.iter().any(|id| **id == *user.id),
            home: &self.parts.home,
            directory: &self.parts.directory,
            root: &self.config.root,
        };
        let found = resources::read(message.body(), &reader).map_err(|why| No::Because(why.to_string()))?;
        Ok(Some(found.into()))
    }
}

/// RFC 5875 §7: subscribers are authenticated.
fn reader(request: &Request<'_>) -> Result<Arc<User>, No> {
    match &request.caller {
        Caller::User(user) => Ok(user.clone()),
        Caller::Trusted | Caller::Foreign => Err(No::Status(403)),
    }
}

fn mode(message: &Message<'_>) -> Mode {
    message.value(HeaderName::Event).and_then(Event::parse).map_or(Mode::None, |event| Mode::of(&event))
}

fn granted(message: &Message<'_>) -> Result<u32, No> {
    let asked = message.value(HeaderName::Expires).and_then(delta_seconds);
    GRANT.seconds(asked).map_err(|brief| No::TooBrief(brief.min_expires))
}

/// Answers 200 in a transaction of its own, which absorbs the retransmissions.
fn accept(
    step: &mut Step<'_>,
    flow: &Flow,
    message: &Message<'_>,
    seconds: u32,
    tag: &[u8],
    contact: &[u8],
) -> Result<(), No> {
    let id = step.endpoint.accept(flow, message, NOBODY).map_err(|_full| No::Busy)?;
    let more = |w: &mut Writer<'_>| {
        w.header(HeaderName::Expires, |out| edit::number(out, seconds.into()));
        w.text(HeaderName::Contact, contact);
    };
    let response = Response::to(message, 200).source(flow.remote).tag(tag);
    step.endpoint.respond(step.now, id, 200, step.out, |b| response.write(b, more));
    Ok(())
}
