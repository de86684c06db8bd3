//! SUBSCRIBE to presence (RFC 3856), to watcher information (RFC 3857) and to mailboxes (RFC 3842), from its first check to its answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use sip_ims::Aor;
use sip_ims::notify::{accepts, asks_for, contact};
use sip_ims::ports::{StateChange, StateRow, StoreError};
use sip_ims::service::{Caller, Request, Step, Transaction, Verdict};
use sip_proto::dialog::Dialog;
use sip_proto::headers::{Event, delta_seconds, has_token};
use sip_proto::subscription::{EndReason, Notifier, NotifierEvent, Rates};
use sip_proto::{Flow, HeaderName, Hop, Message, edit};

use crate::contained::{self, Bodies};
use crate::counts::add;
use crate::filters::Asked;
use crate::mailbox;
use crate::names::{LIST_FORMATS, PIDF_DIFF_TYPE, PIDF_TYPE, SIMPLE_FILTER_TYPE, SUMMARY_TYPE, WATCHERINFO_TYPE};
use crate::presentity::Presentity;
use crate::reply::{No, supported};
use crate::rows;
use crate::rules::{Decision, Handling};
use crate::server::{Presence, seen};
use crate::watch::{DialogKey, Package, RESERVE, Watch};
use crate::winfo::{self, Untold};

/// Bytes of an Event header that are kept for each subscription.
const MAX_EVENT: usize = 256;

/// The packages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Presence,
    Winfo,
    Summary,
}

impl Kind {
    fn of(package: &[u8]) -> Option<Kind> {
        match package {
            b"presence" => Some(Kind::Presence),
            b"presence.winfo" => Some(Kind::Winfo),
            b"message-summary" => Some(Kind::Summary),
            _ => None,
        }
    }
}

/// What the store's thread needs to finish a SUBSCRIBE.
struct Finish {
    transaction: Transaction,
    aor: Aor,
    number: u64,
    seconds: u32,
    /// It set the dialog up.
    first: bool,
}

/// The formats of bodies in SUBSCRIBEs; of mailboxes' state there are no filters.
fn formats(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Presence | Kind::Winfo => SIMPLE_FILTER_TYPE,
        Kind::Summary => b"",
    }
}

/// What filters that are asked for make of those before.
fn filters(body: &[u8], before: Option<&Asked>) -> Result<Option<Arc<Asked>>, No> {
    let asked = Asked::after(before, body).map_err(|why| No::Filters(why.to_string()))?;
    Ok(asked.map(Arc::new))
}

impl Presence {
    /// Takes the SUBSCRIBEs of our packages; passes on those of others.
    pub(crate) fn subscribe(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let message = request.message;
        let Some(event) = message.value(HeaderName::Event).and_then(Event::parse) else { return Verdict::Pass };
        let Some(kind) = Kind::of(event.package) else { return Verdict::Pass };
        let in_dialog = message.is_in_dialog();
        let result = match (in_dialog, &request.callee) {
            (true, _) => match self.known(message) {
                Some((aor, number)) => self.refresh(step, request, &aor, number),
                // A dialog with somebody behind us.
                None if request.callee.is_some() => return Verdict::Pass,
                None => self.take_later(step, request),
            },
            // RFC 5627: a GRUU names a device, which may know more of itself.
            (false, Some(_)) if request.uri.gr().is_some() => return Verdict::Pass,
            (false, Some(aor)) => self.try_subscribe(step, request, aor, kind),
            (false, None) => return Verdict::Pass,
        };
        match result {
            Ok(()) => add(&self.counts.subscribed),
            Err(no) => {
                add(&self.counts.not_subscribed);
                no.reply(step, request);
            }
        }
        Verdict::Taken
    }

    fn known(&self, message: &Message<'_>) -> Option<(Aor, u64)> {
        let key = self.dialog_key(message);
        Some((self.watched_in(key)?, key.number()))
    }

    fn try_subscribe(&self, step: &mut Step<'_>, request: &Request<'_>, aor: &Aor, kind: Kind) -> Result<(), No> {
        let (message, flow) = (request.message, request.flow);
        let contained = kind == Kind::Presence && self.takes_lists(aor);
        // A user's address is the user's, whatever documents say.
        let stored = self.lists.list(aor).filter(|_| !contained && kind == Kind::Presence && request.profile.is_none());
        let is_list = contained || stored.is_some();
        if !is_list && request.profile.is_none() && !self.config.open {
            return Err(No::Status(404));
        }
        supported(message)?;
        if is_list && !has_token(message, HeaderName::Supported, "eventlist") {
            return Err(No::ExtensionRequired);
        }
        let media_type = match kind {
            Kind::Presence => PIDF_TYPE,
            Kind::Winfo => WATCHERINFO_TYPE,
            Kind::Summary => SUMMARY_TYPE,
        };
        if !accepts(message, media_type) {
            return Err(No::NotAcceptable(media_type));
        }
        let seconds = self.granted(message)?;
        let body = contained::body(message)?;
        let bodies = Bodies::of(message, &body, if contained { LIST_FORMATS } else { formats(kind) })?;
        let filters = bodies.filters.map_or(Ok(None), |body| filters(body, None))?;
        let watcher = self.watcher(request);
        let is = |owner: &Aor| watcher.uri.strip_prefix("sip:") == Some(owner.as_str());
        let only_if = |allowed| {
            let handling = if allowed { Handling::Allow } else { Handling::Block };
            Decision { handling, permissions: None }
        };
        let decision = match (kind, &stored) {
            // RFC 4662 §4.4: who made it.
            (_, Some(list)) => only_if(is(&list.owner)),
            // RFC 5363 §5: nobody who has not proved who it is.
            _ if contained => only_if(!matches!(request.caller, Caller::Foreign) || self.config.open),
            (Kind::Presence, None) => self.decide(aor, &watcher, step.unix),
            // RFC 3857 §4.6, RFC 3842 §3.7: only the user itself, and nodes of the core.
            (Kind::Winfo | Kind::Summary, None) => {
                let trusted = matches!(request.caller, Caller::Trusted);
                only_if(is(aor) || trusted || kind == Kind::Summary && self.config.open)
            }
        };
        if decision.handling == Handling::Block {
            return Err(No::Status(403));
        }
        if self.has_too_many(&watcher.uri) {
            return Err(No::TooMany);
        }
        let event = message.value(HeaderName::Event).unwrap_or_default();
        if event.len() > MAX_EVENT {
            return Err(No::Because("Event Too Long".into()));
        }
        let tag = step.endpoint.local_tag(message.call_id().unwrap_or_default());
        let mut dialog = Dialog::uas(message, &tag).map_err(|error| No::Because(error.to_string()))?;
        dialog.responded(message, 200);
        let key = self.dialog_key(message);
        let partial = asks_for(message, PIDF_DIFF_TYPE);
        let (place, package) = match (kind, &stored) {
            _ if contained => self.contained(aor, message, bodies.list)?,
            (_, Some(list)) => (aor.clone(), Package::of_list(aor, list)),
            (Kind::Winfo, None) => (aor.clone(), Package::Winfo(Box::new(Untold::new()))),
            (Kind::Summary, None) => (aor.clone(), Package::Summary),
            (Kind::Presence, None) if partial => (aor.clone(), Package::Partial(None)),
            (Kind::Presence, None) => (aor.clone(), Package::Presence),
        };
        let authorised = decision.handling != Handling::Confirm;
        let (notifier, rates) = self.notifier(step.now, seconds, authorised, kind, event);
        let watch = Watch {
            key,
            package,
            rates,
            watcher: Arc::new(watcher),
            dialog,
            notifier,
            hop: Hop::Flow(*flow),
            contact: contact(&self.parts.home, flow).into(),
            event: event.into(),
            seen: seen(&decision),
            told: 0,
            owed: true,
            reserved: RESERVE,
            since: step.unix,
            expires_at: step.unix + u64::from(seconds),
            filters,
            before: None,
            fetch: seconds == 0,
            rejected: false,
        };
        let mut shard = self.shard(place.as_str());
        let result = {
            let (p, mut calendar) = shard.entry(&place);
            let entered = self.enter(step, request, &place, p, watch, seconds);
            entered.map(|due| Presence::expect(&mut calendar, &place, p, due))
        };
        shard.tidy(place.as_str());
        result
    }

    /// Takes a new watch in, and gives the second at which to look at it.
    fn enter(
        &self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        aor: &Aor,
        p: &mut Presentity,
        watch: Watch,
        seconds: u32,
    ) -> Result<u64, No> {
        let key = watch.key;
        if p.watched() >= self.config.subscriptions_per_user
            || self.subscriptions.load(Relaxed) >= self.config.subscriptions
            || self.followers.members() + watch.members() > self.config.subscriptions
        {
            return Err(No::Busy);
        }
        // It has a dialog already, whose tag this lacks.
        if self.watched_in(key).is_some() {
            return Err(No::Status(482));
        }
        let due = watch.due(step.now, step.unix).unwrap_or(step.unix + 64);
        let transaction = step.defer(request).map_err(|_full| No::Busy)?;
        let number = self.admit(aor, p, watch);
        let result = self.commit_watch(transaction, aor, p, number, seconds, true).map_err(|no| {
            self.remove(aor, p, number);
            self.refuse(step, request, transaction, &no);
            No::Answered
        });
        result.map(|()| due)
    }

    /// A SUBSCRIBE in a dialog: prolongs, or ends with 0 seconds.
    fn refresh(&self, step: &mut Step<'_>, request: &Request<'_>, aor: &Aor, number: u64) -> Result<(), No> {
        let transaction = step.defer(request).map_err(|_full| No::Busy)?;
        let result = self.prolong(transaction, request.message, request.flow, (step.now, step.unix), aor, number);
        result.map_err(|no| {
            self.refuse(step, request, transaction, &no);
            No::Answered
        })
    }

    /// The same for a request that is in a transaction; whoever calls answers an error.
    pub(crate) fn prolong(
        &self,
        transaction: Transaction,
        message: &Message<'_>,
        flow: &Flow,
        (now, unix): (Instant, u64),
        aor: &Aor,
        number: u64,
    ) -> Result<(), No> {
        let seconds = self.granted(message)?;
        supported(message)?;
        let mut shard = self.shard(aor.as_str());
        let (p, mut calendar) = shard.get(aor.as_str()).ok_or(No::Status(481))?;
        let watch = self.watch(aor, p, number).ok_or(No::Status(481))?;
        let to = message.to_tag();
        if to != Some(watch.dialog.id().local_tag) || watch.notifier.is_terminated() {
            return Err(No::Status(481));
        }
        let body = contained::body(message)?;
        if let Some(asked) = Bodies::of(message, &body, formats(watch.kind()))?.filters {
            watch.filters = filters(asked, watch.filters.as_deref())?;
            watch.before = None;
        }
        watch.dialog.receive(message).map_err(|_| No::Status(500))?;
        watch.dialog.responded(message, 200);
        watch.hop = Hop::Flow(*flow);
        watch.contact = contact(&self.parts.home, flow).into();
        watch.expires_at = unix + u64::from(seconds);
        let event = message.value(HeaderName::Event).unwrap_or_default();
        if event.len() <= MAX_EVENT {
            watch.event = event.into();
            self.set_rates(watch, now, event);
        }
        if let Package::Winfo(untold) = &mut watch.package {
            untold.full = true;
        }
        self.commit_watch(transaction, aor, p, number, seconds, false)?;
        if seconds > 0 {
            Presence::expect(&mut calendar, aor, p, unix + u64::from(seconds));
        }
        Ok(())
    }

    /// A notifier at the pace that the package and the watcher want.
    pub(crate) fn notifier(
        &self,
        now: Instant,
        seconds: u32,
        authorised: bool,
        kind: Kind,
        event: &[u8],
    ) -> (Notifier, Option<Box<Rates>>) {
        let rates = Rates::asked(event, self.pace_of(kind));
        let pace = rates.as_ref().map_or(self.pace_of(kind), Rates::pace);
        (Notifier::start(now, seconds, authorised, pace).0, rates.map(Box::new))
    }

    /// What its watcher asks for now counts from the next NOTIFY on.
    pub(crate) fn set_rates(&self, watch: &mut Watch, now: Instant, event: &[u8]) {
        let ours = self.pace_of(watch.kind());
        let mut rates = Rates::asked(event, ours);
        watch.notifier.set_pace(rates.as_ref().map_or(ours, Rates::pace));
        watch.notifier.set_patience(rates.as_mut().and_then(|r| r.told(now)));
        watch.rates = rates.map(Box::new);
    }

    /// The least time between two NOTIFYs.
    fn pace_of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Summary => mailbox::PACE,
            Kind::Presence | Kind::Winfo => self.config.pace,
        }
    }

    fn granted(&self, message: &Message<'_>) -> Result<u32, No> {
        let asked = message.value(HeaderName::Expires).and_then(delta_seconds);
        self.grant().seconds(asked).map_err(|brief| No::TooBrief(brief.min_expires))
    }

    /// Writes a watch's row, or removes it; the answer goes when that is in the store, and the NOTIFY after it.
    fn commit_watch(
        &self,
        transaction: Transaction,
        aor: &Aor,
        p: &mut Presentity,
        number: u64,
        seconds: u32,
        first: bool,
    ) -> Result<(), No> {
        let finish = Finish { transaction, aor: aor.clone(), number, seconds, first };
        let me = self.me.clone();
        let done = Box::new(move |result| {
            if let Some(me) = me.upgrade() {
                me.subscribed(finish, result);
            }
        });
        let Some(watch) = self.watch(aor, p, number) else { return Err(No::Status(481)) };
        watch.reserved = watch.dialog.local_sequence().unwrap_or(0) + RESERVE;
        let written = match seconds {
            0 => {
                self.reading.touch(aor.as_str());
                let key = watch.key.row_key();
                self.parts.store.write(StateChange::Remove { owner: aor.as_str(), key: &key }, Some(done))
            }
            _ => self.write_row(aor, watch, Some(done)),
        };
        written.map_err(|error| {
            tracing::warn!(%error, "a subscription could not be queued");
            No::Busy
        })
    }

    pub(crate) fn write_row(
        &self,
        aor: &Aor,
        watch: &Watch,
        done: Option<sip_ims::ports::Done<()>>,
    ) -> Result<(), StoreError> {
        let mut body = Vec::with_capacity(512);
        rows::write_watch(watch, &mut body);
        let key = watch.key.row_key();
        let expires_at = watch.expires_at as i64;
        let row = StateRow { owner: aor.as_str(), key: &key, node: &self.config.node, expires_at, body: &body };
        let written = self.parts.store.write(StateChange::Put(row), done);
        self.reading.touch(aor.as_str());
        written
    }

    pub(crate) fn remove_row(&self, aor: &Aor, key: DialogKey) {
        // When the queue is full the row stays; it is dropped when it is read.
        let change = StateChange::Forget { owner: aor.as_str(), key: &key.row_key(), node: &self.config.node };
        let _ = self.parts.store.write(change, None);
    }

    /// On the store's thread.
    fn subscribed(&self, finish: Finish, result: Result<(), StoreError>) {
        let Some(outlet) = self.outlet.get() else { return };
        let Finish { transaction, aor, number, seconds, first } = finish;
        if let Err(error) = result {
            tracing::warn!(%error, "a subscription was not stored");
            outlet.answer(transaction, 500, &|w| No::Busy.write(w));
            if first {
                self.drop_watch(&aor, number);
            }
            return;
        }
        let mut shard = self.shard(aor.as_str());
        let Some((p, _)) = shard.get(aor.as_str()) else { return };
        let Some(watch) = self.watch(&aor, p, number) else { return };
        let (contact, list) = (watch.contact.clone(), matches!(watch.package, Package::List(_)));
        drop(shard);
        // Before its NOTIFY.
        outlet.answer(transaction, 200, &|w| {
            w.header(HeaderName::Expires, |out| edit::number(out, seconds.into()));
            w.text(HeaderName::Contact, &contact);
            if list {
                w.text(HeaderName::Require, b"eventlist");
            }
        });
        outlet.hurry();
        let now = Instant::now();
        let mut shard = self.shard(aor.as_str());
        let Some((p, _)) = shard.get(aor.as_str()) else { return };
        let Some(watch) = self.watch(&aor, p, number) else { return };
        watch.owed = true;
        let fetch = watch.fetch;
        if first {
            // Its notifier has asked for the first NOTIFY when it was made.
            p.content().ready.push(number);
            self.enqueue(&aor, p);
            if !fetch {
                self.tell_of(&aor, p, now, number, winfo::Event::Subscribe);
            }
        } else {
            self.step(&aor, p, now, number, NotifierEvent::Subscribed { seconds });
            if seconds == 0 {
                self.tell_of(&aor, p, now, number, winfo::Event::Ended(EndReason::Timeout));
            }
        }
    }

    fn drop_watch(&self, aor: &Aor, number: u64) {
        let mut shard = self.shard(aor.as_str());
        if let Some((p, _)) = shard.get(aor.as_str()) {
            self.remove(aor, p, number);
        }
        shard.tidy(aor.as_str());
    }
}
