//! The way out: a thread that tells watchers, and the clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use sip_ims::Aor;
use sip_ims::notify::verdict;
use sip_ims::ports::{Document, Done, StateChange, Version};
use sip_ims::service::{Outcome, Outlet};
use sip_proto::subscription::{EndReason, NotifierEvent};
use sip_proto::{HeaderName, Hop, Message};

use crate::abroad::Pair;
use crate::book::{MANIPULATED, RULES};
use crate::counts::add;
use crate::lists::LISTS;
use crate::mailbox::SUMMARIES;
use crate::packed::Held;
use crate::presentity::{Presentity, Publication, View};
use crate::rules::Handling;
use crate::server::{Presence, seen};
use crate::watch::{Package, RESERVE, Seen};
use crate::winfo;

/// Presentities that have something to tell: each stands there once.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    presentities: VecDeque<Aor>,
    /// Subscriptions elsewhere that are to begin or to end.
    abroad: VecDeque<Pair>,
    /// Users whose registration has changed, and whether it ended: at most [`MAX_REGISTRATIONS`].
    registrations: VecDeque<(Box<str>, bool)>,
    closed: bool,
}

/// Registrations that wait to be looked at; beyond it watchers hear with the next change.
const MAX_REGISTRATIONS: usize = 100_000;
/// Seconds: what nobody has looked at for as long rests, at the latest after twice as long.
const REST_EACH: u64 = 2;
/// Watches told with the presentity locked once.
const AT_ONCE: usize = 64;

enum Work {
    Abroad(Pair),
    Presentity(Aor),
    Registration(Box<str>, bool),
}

impl Queue {
    pub fn push(&self, aor: Aor) {
        self.waiting.lock().presentities.push_back(aor);
        self.wake.notify_one();
    }

    fn registration(&self, aor: &str, ended: bool) {
        let mut waiting = self.waiting.lock();
        if waiting.registrations.len() < MAX_REGISTRATIONS {
            waiting.registrations.push_back((aor.into(), ended));
            drop(waiting);
            self.wake.notify_one();
        }
    }

    pub fn abroad(&self, pair: Pair) {
        self.waiting.lock().abroad.push_back(pair);
        self.wake.notify_one();
    }

    fn close(&self) {
        self.waiting.lock().closed = true;
        self.wake.notify_one();
    }

    fn next(&self) -> Option<Work> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some((aor, ended)) = waiting.registrations.pop_front() {
                return Some(Work::Registration(aor, ended));
            }
            if let Some(pair) = waiting.abroad.pop_front() {
                return Some(Work::Abroad(pair));
            }
            if let Some(aor) = waiting.presentities.pop_front() {
                return Some(Work::Presentity(aor));
            }
            self.wake.wait(&mut waiting);
        }
    }
}

/// A NOTIFY that is written.
#[derive(Clone)]
pub(crate) struct Ready {
    pub number: u64,
    pub hop: Hop,
    pub bytes: Vec<u8>,
}

impl Presence {
    /// Starts the thread; it ends with [`Presence::close`].
    pub(crate) fn run(&self) {
        let Some(me) = self.me.upgrade() else { return };
        let work = move || {
            while let Some(work) = me.queue.next() {
                let (now, unix) = (Instant::now(), unix_now());
                match work {
                    Work::Abroad(pair) => me.see_abroad(&pair),
                    Work::Presentity(aor) => me.serve(&aor, now, unix),
                    Work::Registration(aor, ended) => me.look_at_registration(&aor, ended),
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("presence".into()).spawn(work) {
            tracing::error!(%error, "no thread for presence: watchers are told nothing");
        }
    }

    /// Tells nobody anything any more: the server closes.
    pub fn close(&self) {
        self.queue.close();
    }

    /// A user's contacts have changed. `ended`: one of them is gone. Cheap, takes no lock that is held for long.
    pub fn registration_changed(&self, aor: &str, ended: bool) {
        if self.subscriptions() > 0 {
            self.queue.registration(aor, ended);
        }
    }

    fn look_at_registration(&self, aor: &str, ended: bool) {
        self.tell_followers(aor);
        let mut shard = self.shard(aor);
        let Some((name, _)) = shard.presentities.get_key_value(aor) else { return };
        let name = name.clone();
        if let Some((p, _)) = shard.get(aor) {
            p.touch(ended);
            self.enqueue(&name, p);
        }
    }

    /// Tells the watchers of a presentity what there is to tell.
    pub(crate) fn serve(&self, aor: &Aor, now: Instant, unix: u64) {
        let Some(outlet) = self.outlet.get() else { return };
        self.tell_followers(aor.as_str());
        let mut changed = None;
        let mut after = None::<u64>;
        loop {
            let mut ready = Vec::new();
            let mut more = false;
            let mut lists = Vec::new();
            {
                let mut shard = self.shard(aor.as_str());
                let Some((p, mut calendar)) = shard.get(aor.as_str()) else { return };
                if after.is_none() {
                    p.queued = false;
                    changed = p.changed.take();
                }
                for number in p.take_ready() {
                    match self.watch(aor, p, number).is_some_and(|w| matches!(w.package, Package::List(_))) {
                        true => lists.push((number, None)),
                        false => self.write_notify(aor, p, number, now, unix, &mut ready),
                    }
                }
                if let Some(hurry) = changed {
                    let numbers;
                    (numbers, more) = p.numbers_after(after, AT_ONCE);
                    after = numbers.last().copied().or(after).or(Some(0));
                    for number in numbers {
                        if self.watch(aor, p, number).is_some_and(|w| matches!(w.package, Package::List(_)))
                            && lists.iter().all(|(n, _)| *n != number)
                        {
                            lists.push((number, Some(hurry)));
                        }
                        if self.is_news(aor, p, number, unix) {
                            let limited = self.watch(aor, p, number).is_some_and(|w| w.is_limited());
                            let event =
                                if hurry && !limited { NotifierEvent::ChangedNow } else { NotifierEvent::Changed };
                            self.step(aor, p, now, number, event);
                        }
                    }
                    for number in p.take_ready() {
                        self.write_notify(aor, p, number, now, unix, &mut ready);
                    }
                }
                if !more && let Some(due) = p.next_due(&self.packer, now, unix) {
                    Presence::expect(&mut calendar, aor, p, due);
                }
            }
            for (number, changed) in lists {
                self.serve_list(aor, number, changed, now, unix, &mut ready);
            }
            let mut ready = ready.into_iter();
            outlet.gather(&mut || {
                ready.by_ref().for_each(|one| self.send(&**outlet, aor, one));
            });
            if !more {
                return;
            }
        }
    }

    fn send(&self, outlet: &dyn Outlet, aor: &Aor, Ready { number, hop, bytes }: Ready) {
        add(&self.counts.notified);
        let (me, owner) = (self.me.clone(), aor.clone());
        let done = move |outcome| {
            if let Some(me) = me.upgrade() {
                me.answered(&owner, number, &outcome);
            }
        };
        outlet.request(hop, bytes, Box::new(done));
    }

    /// Whether a watch of presence does not know yet what is true now.
    fn is_news(&self, aor: &Aor, p: &mut Presentity, number: u64, unix: u64) -> bool {
        if !self.watch(aor, p, number).is_some_and(|w| w.has_view() && w.notifier.is_active()) {
            return false;
        }
        let Some(view) = self.view_of(aor, p, number, unix) else { return false };
        let Some(watch) = self.watch(aor, p, number) else { return false };
        let (document, due) = watch.filtered(aor.as_str(), &view);
        due && document.hash != watch.told
    }

    /// What the watcher of a presentity or mailbox may be told now.
    fn view_of(&self, aor: &Aor, p: &mut Presentity, number: u64, unix: u64) -> Option<Arc<View>> {
        let watch = self.watch(aor, p, number).filter(|w| w.has_view())?;
        if matches!(watch.package, Package::Summary) {
            return Some(self.mailboxes.view(aor));
        }
        let seen = watch.seen.clone();
        Some(self.view(aor, p, &seen, unix))
    }

    pub(crate) fn view(&self, aor: &Aor, p: &mut Presentity, seen: &Seen, unix: u64) -> Arc<View> {
        let (view, composed) = p.view(aor.as_str(), seen, || self.registered(aor.as_str(), unix));
        if composed {
            add(&self.counts.composed);
        }
        view
    }

    /// Writes the NOTIFY that a notifier has asked for.
    fn write_notify(
        &self,
        aor: &Aor,
        p: &mut Presentity,
        number: u64,
        now: Instant,
        unix: u64,
        ready: &mut Vec<Ready>,
    ) {
        let Some(watch) = self.watch(aor, p, number) else { return };
        let bytes = match watch.has_view() {
            true => {
                let (owed, told) = (watch.owed, watch.told);
                let Some(view) = self.view_of(aor, p, number, unix) else { return };
                let Some(watch) = self.watch(aor, p, number) else { return };
                let (document, due) = watch.filtered(aor.as_str(), &view);
                if !owed && (told == document.hash || !due) {
                    // What it was to hear has changed back, or it has heard it with the last one.
                    return self.step(aor, p, now, number, NotifierEvent::Answered { status: 200, retry_after: None });
                }
                watch.before = watch.filters.is_some().then_some(view);
                watch.notify_view(now, &document)
            }
            false if matches!(watch.package, Package::List(_)) => return,
            false => {
                let all = watch.wants_all().then(|| p.entries(aor, &self.packer));
                self.watch(aor, p, number).and_then(|w| w.notify_winfo(now, unix, aor.as_str(), all))
            }
        };
        self.hand_over(aor, p, number, bytes, ready);
    }

    /// A NOTIFY is written, or there are none any more in this dialog.
    pub(crate) fn hand_over(
        &self,
        aor: &Aor,
        p: &mut Presentity,
        number: u64,
        bytes: Option<Vec<u8>>,
        ready: &mut Vec<Ready>,
    ) {
        let Some(watch) = self.watch(aor, p, number) else { return };
        watch.owed = false;
        let Some(bytes) = bytes else {
            // All numbers are used, or the dialog is over.
            self.remove_row(aor, watch.key);
            return self.remove(aor, p, number);
        };
        let one = Ready { number, hop: watch.hop, bytes };
        if !watch.runs_out() || watch.notifier.is_terminated() {
            return ready.push(one);
        }
        // The first of another life has a number that no row grants. It waits for the row, or the life after that would use it again.
        let held = (!watch.is_granted()).then(|| one.clone());
        let waits = held.is_some();
        let then = held.map(|held| -> Done<()> {
            let (me, owner) = (self.me.clone(), aor.clone());
            Box::new(move |_| {
                let Some(me) = me.upgrade() else { return };
                if let Some(outlet) = me.outlet.get() {
                    me.send(&**outlet, &owner, held);
                }
            })
        });
        watch.reserved = watch.dialog.local_sequence().unwrap_or(0) + RESERVE;
        match self.write_row(aor, watch, then) {
            Ok(()) if waits => {}
            Ok(()) => ready.push(one),
            // The queue is full: it is tried again with the next one.
            Err(error) => {
                watch.reserved = 0;
                tracing::debug!(%error, "a subscription's row was not renewed");
                ready.push(one);
            }
        }
    }

    /// A NOTIFY was answered, or not.
    fn answered(&self, aor: &Aor, number: u64, outcome: &Outcome) {
        let (status, retry_after) = verdict(outcome);
        let now = Instant::now();
        let mut shard = self.shard(aor.as_str());
        if let Some((p, _)) = shard.get(aor.as_str()) {
            let Some(watch) = self.watch(aor, p, number) else { return };
            let (notifier, step) = watch.notifier.clone().step(now, NotifierEvent::Answered { status, retry_after });
            if !(200..300).contains(&status) {
                watch.lost_track();
            }
            let lost = step.gone && !watch.notifier.is_terminated();
            watch.notifier = notifier;
            if watch.rates.is_some()
                && let Some(event) = event_of(outcome)
            {
                // RFC 6446 §9.3: the watcher wants other rates from now on.
                self.set_rates(watch, now, &event);
            }
            let key = watch.key;
            if lost {
                add(&self.counts.lost_watchers);
                self.remove_row(aor, key);
                self.tell_of(aor, p, now, number, winfo::Event::Ended(EndReason::Timeout));
            }
            self.follow(aor, p, now, number, step);
        }
        shard.tidy(aor.as_str());
    }

    /// Once a second: what has run out.
    pub fn tick(&self, now: Instant, unix: u64) {
        self.beat(now, unix);
        for mut shard in self.shards() {
            for aor in shard.due(unix) {
                if let Some((p, mut calendar)) = shard.get(aor.as_str()) {
                    self.lapse(&aor, p, now, unix);
                    let border = self.book.rules(&aor).and_then(|r| r.next_border(unix)).filter(|_| p.watched() > 0);
                    if let Some(due) = p.next_due(&self.packer, now, unix).into_iter().chain(border).min() {
                        Presence::expect(&mut calendar, &aor, p, due.max(unix + 1));
                    }
                }
                shard.tidy(aor.as_str());
            }
            if unix.is_multiple_of(REST_EACH) {
                self.counts.packed.fetch_add(shard.rest(&self.packer), Relaxed);
            }
        }
    }

    fn lapse(&self, aor: &Aor, p: &mut Presentity, now: Instant, unix: u64) {
        let before = p.publications().len();
        p.content().publications.retain(|publication| {
            let live = publication.expires_at > unix;
            if !live {
                let key = Publication::row_key(publication.id);
                let change = StateChange::Forget { owner: aor.as_str(), key: &key, node: &self.config.node };
                // When the queue is full the row stays; it is dropped when it is read.
                let _ = self.parts.store.write(change, None);
            }
            live
        });
        let left = p.publications().len();
        if left < before {
            self.publications.fetch_sub(before - left, Relaxed);
            p.touch(false);
            self.enqueue(aor, p);
        }
        if self.book.rules(aor).is_some() {
            self.authorise(aor, p, now, unix);
        }
        for number in p.numbers(|held| held.deadline(&self.packer).is_some_and(|at| at <= now)) {
            if let Some(watch) = self.watch(aor, p, number).filter(|w| w.notifier.is_overdue(now)) {
                watch.owed = true;
            }
            self.step(aor, p, now, number, NotifierEvent::Deadline);
            let over = self.watch(aor, p, number).filter(|w| w.notifier.is_terminated()).map(|w| w.key);
            if let Some(key) = over {
                self.remove_row(aor, key);
                self.owe(aor, p, number);
                self.tell_of(aor, p, now, number, winfo::Event::Ended(EndReason::Timeout));
            }
        }
    }

    /// Its next NOTIFY must go whatever its watcher knows.
    fn owe(&self, aor: &Aor, p: &mut Presentity, number: u64) {
        if let Some(watch) = self.watch(aor, p, number) {
            watch.owed = true;
        }
    }

    /// A document of an application usage has changed; `done` runs when it is in force: the watchers it is about judged anew, lists
    /// composed anew, what it publishes composed.
    pub fn document_changed(self: &Arc<Self>, usage: &str, key: &str, done: Done<()>) {
        let Some(usage) = Presence::usages().find(|u| *u == usage) else { return done(Ok(())) };
        let (me, key) = (self.clone(), key.to_owned());
        let name = key.clone();
        let read = move |document: Result<Option<Document>, _>| {
            done(document.map(|document| me.enter_document(usage, &key, document.as_ref())));
        };
        self.parts.documents.get(usage, &name, Box::new(read));
    }

    /// The application usages and collections whose documents count here.
    pub fn usages() -> impl Iterator<Item = &'static str> {
        RULES.into_iter().chain(LISTS).chain([MANIPULATED, SUMMARIES])
    }

    /// A document is this now, or gone.
    pub fn enter_document(&self, usage: &'static str, key: &str, document: Option<&Document>) {
        self.versions.enter(usage, key, document.map(|d| d.version));
        self.manipulate(usage, key, document);
        for list in self.lists.enter(usage, key, document) {
            self.relist(&list);
        }
        if let Some(aor) = self.book.enter(usage, key, document) {
            self.judge(&aor, Instant::now(), unix_now());
        }
        if usage == SUMMARIES
            && let Some(aor) = self.mailboxes.enter(key, document)
        {
            let mut shard = self.shard(aor.as_str());
            if let Some((p, _)) = shard.get(aor.as_str()) {
                p.look_again();
                self.enqueue(&aor, p);
            }
        }
    }

    /// Looks whether the hint of a change was lost: reads which documents of a usage the store has behind the key `after`, at most `limit`, and
    /// those that are others here. `done` gets where to go on; `None`: that was the last page.
    pub fn look_for_changes(
        self: &Arc<Self>,
        usage: &'static str,
        after: &str,
        limit: u32,
        done: Done<Option<String>>,
    ) {
        let (me, from) = (self.clone(), after.to_owned());
        let read = move |page: Result<Vec<(String, Version)>, _>| {
            done(page.map(|page| {
                let is_last = page.len() < limit as usize;
                for key in me.versions.others(usage, &from, &page, is_last) {
                    me.document_changed(usage, &key, Box::new(|_| {}));
                }
                page.into_iter().next_back().map(|(key, _)| key).filter(|_| !is_last)
            }));
        };
        self.parts.documents.versions(usage, after, limit, Box::new(read));
    }

    /// The rules of a user have changed.
    fn judge(&self, aor: &Aor, now: Instant, unix: u64) {
        self.tell_followers(aor.as_str());
        let mut shard = self.shard(aor.as_str());
        if let Some((p, mut calendar)) = shard.get(aor.as_str()) {
            self.authorise(aor, p, now, unix);
            if let Some(border) = self.book.rules(aor).and_then(|r| r.next_border(unix)) {
                Presence::expect(&mut calendar, aor, p, border);
            }
        }
    }

    fn authorise(&self, aor: &Aor, p: &mut Presentity, now: Instant, unix: u64) {
        let mut shown = false;
        for number in p.numbers(Held::is_presence) {
            let Some(watch) = self.watch(aor, p, number).filter(|w| !w.notifier.is_terminated()) else { continue };
            let decision = self.decide(aor, &watch.watcher, unix);
            let (active, key) = (watch.notifier.is_active(), watch.key);
            let end = |reason| NotifierEvent::Ended { reason, retry_after: None };
            let (event, told) = match (decision.handling, active) {
                (Handling::Block, _) => {
                    watch.rejected = true;
                    (Some(end(EndReason::Rejected)), Some(winfo::Event::Ended(EndReason::Rejected)))
                }
                // Its watcher subscribes again, and waits.
                (Handling::Confirm, true) => {
                    watch.rejected = true;
                    (Some(end(EndReason::Deactivated)), Some(winfo::Event::Ended(EndReason::Deactivated)))
                }
                (Handling::Confirm, false) => (None, None),
                (_, false) => (Some(NotifierEvent::Authorised), Some(winfo::Event::Approved)),
                (_, true) => (None, None),
            };
            let now_seen = seen(&decision);
            shown |= now_seen != watch.seen;
            watch.seen = now_seen;
            if let Some(event) = event {
                watch.owed = true;
                self.step(aor, p, now, number, event);
            }
            if let Some(told) = told {
                if matches!(told, winfo::Event::Ended(_)) {
                    self.remove_row(aor, key);
                }
                self.tell_of(aor, p, now, number, told);
            }
        }
        p.forget_shown();
        if shown {
            p.look_again();
            self.enqueue(aor, p);
        }
    }
}

/// The Event header of a 2xx, which seldom has one.
fn event_of(outcome: &Outcome) -> Option<Vec<u8>> {
    let Outcome::Response { status: 200..=299, bytes } = outcome else { return None };
    let message = Message::parse(bytes).ok()?;
    message.value(HeaderName::Event).map(<[u8]>::to_vec)
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
