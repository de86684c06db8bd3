//! A SUBSCRIBE to the package, from its first check to its answer (RFC 6665 §4.2.1, RFC 3680 §4).

use std::sync::atomic::Ordering::Relaxed;

use sip_ims::notify::{self, dialog_key};
use sip_ims::service::{Caller, NOBODY, Request, Step, Verdict};
use sip_proto::build::{Response, Writer};
use sip_proto::dialog::Dialog;
use sip_proto::headers::{Event as EventHeader, delta_seconds};
use sip_proto::subscription::{Grant, Notifier, NotifierEvent};
use sip_proto::{Flow, HeaderName, Message, edit};

use super::{MEDIA_TYPE, PACE, Watch, Watchers};
use crate::registrar::Registrar;

/// RFC 3680 §4.4: an hour's registration and a little more.
const GRANT: Grant = Grant { min: 60, max: 86_400, default: 3761 };
/// Bytes of an Event header that are kept for each subscription.
const MAX_EVENT: usize = 256;

/// An answer other than 200.
struct No(u16, Option<u32>);

impl Registrar {
    /// Takes the SUBSCRIBEs of the package; passes on those of others.
    pub(crate) fn subscribe(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let message = request.message;
        let Some(event) = message.value(HeaderName::Event).and_then(EventHeader::parse) else { return Verdict::Pass };
        if event.package != b"reg" {
            return Verdict::Pass;
        }
        let in_dialog = message.is_in_dialog();
        let result = match (in_dialog, &request.callee) {
            (true, _) => self.watchers.refresh(step, request),
            (false, Some(aor)) if self.may_watch(request, aor.as_str()) => {
                self.watchers.subscribe(step, request, aor.as_str())
            }
            (false, Some(_)) => Err(No(403, None)),
            (false, None) => return Verdict::Pass,
        };
        if let Err(No(status, min_expires)) = result {
            step.reply(request.flow, message, status, None, |w| match (status, min_expires) {
                (423, Some(seconds)) => w.number(HeaderName::MinExpires, seconds.into()),
                (406, _) => w.text(HeaderName::Accept, MEDIA_TYPE),
                (503, _) => w.number(HeaderName::RetryAfter, crate::reply::RETRY_AFTER),
                _ => {}
            });
        }
        Verdict::Taken
    }

    /// RFC 3680 §4.6: the user itself, and nodes of the core.
    fn may_watch(&self, request: &Request<'_>, aor: &str) -> bool {
        match &request.caller {
            Caller::Trusted => true,
            Caller::User(user) => user.aor.as_str() == aor,
            Caller::Foreign => self.parts.authenticator.is_none(),
        }
    }
}

impl Watchers {
    fn subscribe(&self, step: &mut Step<'_>, request: &Request<'_>, aor: &str) -> Result<(), No> {
        let (message, flow) = (request.message, request.flow);
        // No Accept says so too (RFC 3680 §4.7).
        if !notify::accepts(message, MEDIA_TYPE) {
            return Err(No(406, None));
        }
        let seconds = granted(message)?;
        let tag = step.endpoint.local_tag(message.call_id().unwrap_or_default());
        let mut dialog = Dialog::uas(message, &tag).map_err(|_| No(400, None))?;
        let event = message.value(HeaderName::Event).unwrap_or_default();
        if event.len() > MAX_EVENT {
            return Err(No(400, None));
        }
        let key = dialog_key(message);
        let mut state = self.state.lock();
        if state.by_dialog.contains_key(&key) {
            // It has a dialog already, whose tag this lacks.
            return Err(No(482, None));
        }
        if state.watches.len() >= self.limits.subscriptions
            || state.by_aor.get(aor).is_some_and(|ids| ids.len() >= self.limits.watchers)
        {
            return Err(No(503, None));
        }
        let contact = notify::contact(&self.home, flow);
        accept(step, flow, message, seconds, &tag, &contact)?;
        dialog.responded(message, 200);
        let (notifier, first) = Notifier::start(step.now, seconds, true, PACE);
        let id = state.insert(Watch {
            aor: aor.into(),
            key,
            dialog,
            notifier,
            flow: *flow,
            contact,
            event: event.into(),
            version: 0,
            full: true,
            pending: Vec::new(),
        });
        self.live.store(state.watches.len(), Relaxed);
        self.follow(&mut state, step.now, step.unix, id, first);
        Ok(())
    }

    /// A SUBSCRIBE in a dialog: prolongs, or ends with 0 seconds.
    fn refresh(&self, step: &mut Step<'_>, request: &Request<'_>) -> Result<(), No> {
        let (message, flow) = (request.message, request.flow);
        let seconds = granted(message)?;
        let mut state = self.state.lock();
        let id = state.by_dialog.get(&dialog_key(message)).copied().ok_or(No(481, None))?;
        let watch = state.watches.get_mut(&id).ok_or(No(481, None))?;
        let to = message.to_tag();
        if to != Some(watch.dialog.id().local_tag) || watch.notifier.is_terminated() {
            return Err(No(481, None));
        }
        watch.dialog.receive(message).map_err(|_| No(500, None))?;
        let tag = watch.dialog.id().local_tag.to_vec();
        accept(step, flow, message, seconds, &tag, &watch.contact)?;
        watch.dialog.responded(message, 200);
        watch.flow = *flow;
        watch.full = true;
        self.step_locked(&mut state, step.now, step.unix, id, NotifierEvent::Subscribed { seconds });
        Ok(())
    }
}

fn granted(message: &Message<'_>) -> Result<u32, No> {
    let asked = message.value(HeaderName::Expires).and_then(delta_seconds);
    GRANT.seconds(asked).map_err(|brief| No(423, Some(brief.min_expires)))
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
    let id = step.endpoint.accept(flow, message, NOBODY).map_err(|_| No(503, None))?;
    let more = |w: &mut Writer<'_>| {
        w.header(HeaderName::Expires, |out| edit::number(out, seconds.into()));
        w.text(HeaderName::Contact, contact);
    };
    let response = Response::to(message, 200).source(flow.remote).tag(tag);
    step.endpoint.respond(step.now, id, 200, step.out, |b| response.write(b, more));
    Ok(())
}
