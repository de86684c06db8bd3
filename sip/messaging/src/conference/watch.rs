//! The conference event package (RFC 4575): who hears of a room, and what each has not been told yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sip_ims::notify::{accepts, dialog_key, verdict, write_notify};
use sip_ims::service::{Request, Step, Verdict};
use sip_proto::build::Writer;
use sip_proto::dialog::Dialog;
use sip_proto::headers::{Event, delta_seconds};
use sip_proto::subscription::{EndReason, Grant, Notifier, NotifierEvent, NotifierStep};
use sip_proto::{HeaderName, Hop, Message, edit};

use super::info::{self, Info, MEDIA_TYPE};
use super::room::{Room, State};
use crate::agent::{reply, way_back};

/// RFC 4575 §3.4: an hour.
const GRANT: Grant = Grant { min: 60, max: 86_400, default: 3600 };
/// Least time between two notifications to one watcher (RFC 4575 §3.9: five seconds; people wait for each other here).
const PACE: Duration = Duration::from_millis(500);
/// Watchers of one room.
const MAX_WATCHES: usize = 512;
/// Bytes of an Event header that are kept for each subscription.
const MAX_EVENT: usize = 256;

/// One subscription.
pub struct Watch {
    dialog: Dialog,
    notifier: Notifier,
    hop: Hop,
    /// The way of the SUBSCRIBE: the NOTIFY behind its answer does not overtake it there.
    first: Option<Hop>,
    contact: Vec<u8>,
    event: Box<[u8]>,
    /// Of the next document.
    version: u32,
    /// The next document has everything.
    full: bool,
    /// Users to be told of; at most as many as are in the room, and who left it.
    changed: BTreeSet<Box<str>>,
}

/// A NOTIFY on its way.
struct Notice {
    key: Box<[u8]>,
    hop: Hop,
    bytes: Vec<u8>,
}

impl Room {
    pub fn subscribe(self: &Arc<Self>, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let message = request.message;
        let event = message.value(HeaderName::Event).and_then(Event::parse);
        if event.is_none_or(|e| e.package != b"conference") {
            return Verdict::Pass;
        }
        if let Err(status) = self.subscribed(step, request) {
            reply(step, request, status, |w| match status {
                406 => w.text(HeaderName::Accept, MEDIA_TYPE),
                423 => w.number(HeaderName::MinExpires, GRANT.min.into()),
                _ => {}
            });
        }
        Verdict::Taken
    }

    /// Whether a SUBSCRIBE belongs to a subscription to this room.
    pub fn is_watched_by(&self, message: &Message<'_>) -> bool {
        let tag = message.to_tag();
        let state = self.state.lock();
        state.watches.get(&dialog_key(message)).is_some_and(|w| Some(w.dialog.id().local_tag) == tag)
    }

    fn subscribed(self: &Arc<Self>, step: &mut Step<'_>, request: &Request<'_>) -> Result<(), u16> {
        let (message, flow) = (request.message, request.flow);
        let asked = message.value(HeaderName::Expires).and_then(delta_seconds);
        let seconds = GRANT.seconds(asked).map_err(|_| 423u16)?;
        let key = dialog_key(message);
        let in_dialog = message.is_in_dialog();
        if !in_dialog {
            let who = self.rooms().who(request)?;
            // Who may come in may look in.
            if !self.is_in(&who) && !self.lets_in(&who) {
                return Err(403);
            }
            if !accepts(message, MEDIA_TYPE) {
                return Err(406);
            }
        }
        let mut state = self.state.lock();
        let first = if in_dialog {
            let watch = state.watches.get_mut(&key).filter(|w| !w.notifier.is_terminated()).ok_or(481u16)?;
            watch.dialog.receive(message).map_err(|_| 500u16)?;
            watch.dialog.responded(message, 200);
            (watch.full, watch.first) = (true, Some(Hop::Flow(*flow)));
            if matches!(watch.hop, Hop::Flow(_)) {
                watch.hop = Hop::Flow(*flow);
            }
            None
        } else {
            if state.watches.contains_key(&key) {
                return Err(482);
            }
            let event = message.value(HeaderName::Event).unwrap_or_default();
            if state.watches.len() >= MAX_WATCHES || event.len() > MAX_EVENT {
                return Err(503);
            }
            let tag = step.endpoint.local_tag(message.call_id().unwrap_or_default());
            let mut dialog = Dialog::uas(message, &tag).map_err(|_| 400u16)?;
            dialog.responded(message, 200);
            let (notifier, first) = Notifier::start(step.now, seconds, true, PACE);
            let watch = Watch {
                dialog,
                notifier,
                hop: way_back(message, flow),
                first: Some(Hop::Flow(*flow)),
                contact: self.contact(flow),
                event: event.into(),
                version: 0,
                full: true,
                changed: BTreeSet::new(),
            };
            state.watches.insert(key.clone(), watch);
            Some(first)
        };
        let contact = state.watches.get(&key).map(|w| w.contact.clone()).unwrap_or_default();
        reply(step, request, 200, |w| {
            w.header(HeaderName::Expires, |out| edit::number(out, seconds.into()));
            w.text(HeaderName::Contact, &contact);
        });
        let notice = match first {
            Some(first) => self.follow(&mut state, step.now, &key, first),
            None => self.step(&mut state, step.now, &key, NotifierEvent::Subscribed { seconds }),
        };
        drop(state);
        self.send(notice);
        Ok(())
    }

    /// Something about a user has changed.
    pub(super) fn tell(self: &Arc<Self>, now: Instant, user: &str) {
        let mut state = self.state.lock();
        let keys: Vec<Box<[u8]>> = state.watches.keys().cloned().collect();
        let mut notices = Vec::new();
        for key in keys {
            if let Some(watch) = state.watches.get_mut(&key) {
                watch.changed.insert(user.into());
            }
            notices.extend(self.step(&mut state, now, &key, NotifierEvent::Changed));
        }
        drop(state);
        self.send(notices);
    }

    /// Nobody is told any more: who wants to go on asks anew (RFC 6665 §4.1.3).
    pub fn end_watches(self: &Arc<Self>, now: Instant) {
        let mut state = self.state.lock();
        let keys: Vec<Box<[u8]>> = state.watches.keys().cloned().collect();
        let ended = NotifierEvent::Ended { reason: EndReason::Deactivated, retry_after: None };
        let notices: Vec<Notice> = keys.iter().filter_map(|key| self.step(&mut state, now, key, ended)).collect();
        drop(state);
        self.send(notices);
    }

    /// What is due.
    pub fn tick(self: &Arc<Self>, now: Instant) {
        let mut state = self.state.lock();
        let due = |w: &Watch| w.notifier.deadline().is_some_and(|d| d <= now);
        let keys: Vec<Box<[u8]>> = state.watches.iter().filter(|(_, w)| due(w)).map(|(k, _)| k.clone()).collect();
        let notices: Vec<Notice> =
            keys.iter().filter_map(|key| self.step(&mut state, now, key, NotifierEvent::Deadline)).collect();
        drop(state);
        self.send(notices);
    }

    fn step(&self, state: &mut State, now: Instant, key: &[u8], event: NotifierEvent) -> Option<Notice> {
        let watch = state.watches.get_mut(key)?;
        let (notifier, step) = watch.notifier.clone().step(now, event);
        watch.notifier = notifier;
        self.follow(state, now, key, step)
    }

    fn follow(&self, state: &mut State, now: Instant, key: &[u8], step: NotifierStep) -> Option<Notice> {
        if step.gone {
            state.watches.remove(key);
            return None;
        }
        if !step.notify {
            return None;
        }
        let body = self.document(state, key)?;
        let watch = state.watches.get_mut(key)?;
        let (notifier, contact, event) = (watch.notifier.clone(), watch.contact.clone(), watch.event.clone());
        let bytes = write_notify(&mut watch.dialog, body.len(), |w: &mut Writer<'_>| {
            w.text(HeaderName::Event, &event);
            w.header(HeaderName::SubscriptionState, |out| notifier.write_state(now, out));
            w.text(HeaderName::Contact, &contact);
            w.body(MEDIA_TYPE, &body);
        })?;
        Some(Notice { key: key.into(), hop: watch.first.take().unwrap_or(watch.hop), bytes })
    }

    /// The next document of a watcher, with which it is up to date.
    fn document(&self, state: &mut State, key: &[u8]) -> Option<Vec<u8>> {
        let everybody = state.users();
        let subject = state.row.subject.clone();
        let watch = state.watches.get_mut(key)?;
        let full = std::mem::take(&mut watch.full);
        let changed = std::mem::take(&mut watch.changed);
        watch.version += 1;
        let there = |uri: &str| everybody.iter().any(|u| *u.uri == *uri);
        let gone: Vec<Box<str>> = changed.iter().filter(|uri| !full && !there(uri)).cloned().collect();
        let users = everybody.iter().filter(|u| full || changed.contains(&u.uri)).cloned().collect::<Vec<_>>();
        let info = Info {
            entity: &self.uri,
            subject: &subject,
            most: self.rooms().config.members,
            version: watch.version,
            full,
            users: &users,
            gone: &gone,
            count: everybody.len(),
        };
        let mut out = Vec::new();
        info::write(&info, &mut out);
        Some(out)
    }

    fn send(self: &Arc<Self>, notices: impl IntoIterator<Item = Notice>) {
        for Notice { key, hop, bytes } in notices {
            let room = self.clone();
            let Some(outlet) = self.rooms().parts.agent.outlet().cloned() else { return };
            // Not from here, where a shard may be locked.
            self.rooms().parts.runtime.spawn(async move {
                let done = Box::new(move |outcome| {
                    let (status, retry_after) = verdict(&outcome);
                    let event = NotifierEvent::Answered { status, retry_after };
                    let mut state = room.state.lock();
                    let next = room.step(&mut state, Instant::now(), &key, event);
                    drop(state);
                    room.send(next);
                });
                outlet.request(hop, bytes, done);
            });
        }
    }
}
