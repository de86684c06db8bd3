//! One subscription.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sip_ims::Aor;
use sip_ims::notify::write_notify;
use sip_proto::dialog::Dialog;
use sip_proto::headers::Event;
use sip_proto::subscription::{Notifier, Rates};
use sip_proto::{HeaderName, Hop};

use crate::filters::{Asked, Target};
use crate::lists::{List, Member};
use crate::names::{PIDF_DIFF_TYPE, PIDF_TYPE, SUMMARY_TYPE, WATCHERINFO_TYPE};
use crate::partial;
use crate::presentity::View;
use crate::rlmi::{self, Dialect, Seen as Told, State};
use crate::rules::{Permissions, Watcher};
use crate::subscribe::Kind;
use crate::winfo::{self, Untold};

/// Names a dialog among all: a keyed hash of Call-ID and the watcher's tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DialogKey(pub u128);

impl DialogKey {
    /// Names the subscription among those to one presentity.
    pub fn number(self) -> u64 {
        self.0 as u64
    }

    /// The key of its row.
    pub fn row_key(self) -> String {
        format!("s{:032x}", self.0)
    }
}

/// What is subscribed to.
#[derive(Clone, Debug)]
pub enum Package {
    Presence,
    /// With documents of changes (RFC 5263): the document that it has, if that is known.
    Partial(Option<Arc<View>>),
    Winfo(Box<Untold>),
    /// What waits in a mailbox (RFC 3842).
    Summary,
    /// Of several users (RFC 4662).
    List(Box<Following>),
}

/// What the watcher of a list follows, and what it was told.
#[derive(Clone, Debug)]
pub struct Following {
    /// Of the list, as its watcher knows it.
    pub uri: Aor,
    pub members: Arc<[Member]>,
    /// The list came with the subscription, and ends with it.
    pub contained: bool,
    pub dialect: Dialect,
    /// By URI: the mark of the state that was told last.
    pub told: HashMap<Box<str>, u64>,
    /// With filters: by URI, the document that was told last, before any filter.
    pub before: HashMap<Box<str>, Arc<View>>,
}

impl Package {
    /// A stored list.
    pub fn of_list(uri: &Aor, list: &List) -> Package {
        Package::List(Box::new(Following::of(uri.clone(), list.members.clone())))
    }
}

impl Following {
    /// A list whose watcher has been told nothing yet.
    pub fn of(uri: Aor, members: Arc<[Member]>) -> Following {
        Following {
            uri,
            members,
            contained: false,
            dialect: Dialect::Standard,
            told: HashMap::new(),
            before: HashMap::new(),
        }
    }
}

/// How much an active watcher sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    Everything,
    Part(Arc<Permissions>),
    /// Politely blocked: closed, whatever is.
    Nothing,
}

/// One subscription, and its dialog.
#[derive(Debug)]
pub struct Watch {
    pub key: DialogKey,
    pub package: Package,
    pub watcher: Arc<Watcher>,
    pub dialog: Dialog,
    pub notifier: Notifier,
    /// The way its last SUBSCRIBE came.
    pub hop: Hop,
    /// The value of our Contact.
    pub contact: Box<[u8]>,
    /// The value of Event, `id` included.
    pub event: Box<[u8]>,
    /// What its watcher wants of the rate of its NOTIFYs.
    pub rates: Option<Box<Rates>>,
    pub seen: Seen,
    /// Hash of the document it was told last; 0: of none.
    pub told: u64,
    /// Its next NOTIFY goes even when its document is the one told last.
    pub owed: bool,
    /// The CSeq up to which its row lets us send.
    pub reserved: u32,
    /// Unix seconds.
    pub since: u64,
    pub expires_at: u64,
    /// What it wants to hear of, where it does not want everything (RFC 4660).
    pub filters: Option<Arc<Asked>>,
    /// With filters: the document that it was told last, before any filter.
    pub before: Option<Arc<View>>,
    /// It asked once and has no row.
    pub fetch: bool,
    /// The last NOTIFY is of no more use: its watcher was rejected.
    pub rejected: bool,
}

/// CSeq numbers that a row grants at a time.
pub const RESERVE: u32 = 256;

impl Watch {
    pub fn is_presence(&self) -> bool {
        matches!(self.package, Package::Presence | Package::Partial(_))
    }

    /// Whether its row must be written again before long, because nearly all numbers are used.
    pub fn runs_out(&self) -> bool {
        !self.fetch && self.dialog.local_sequence().unwrap_or(0) + RESERVE / 2 > self.reserved
    }

    /// Whether its row lets it send the number that was used last.
    pub fn is_granted(&self) -> bool {
        self.fetch || self.dialog.local_sequence().unwrap_or(0) <= self.reserved
    }

    /// As winfo shows it.
    pub fn entry(&self, event: winfo::Event) -> winfo::Entry {
        winfo::Entry {
            id: self.key.number(),
            uri: self.watcher.uri.clone(),
            event,
            active: self.notifier.is_active(),
            since: self.since,
            expires_at: self.expires_at,
        }
    }

    /// The second at which its notifier wants to be looked at.
    pub fn due(&self, now: Instant, unix: u64) -> Option<u64> {
        self.notifier.deadline().map(|at| second(at, now, unix))
    }

    /// Each of its documents has everything, and goes only when it is another one than the last.
    pub fn has_view(&self) -> bool {
        self.is_presence() || matches!(self.package, Package::Summary)
    }

    /// What is told of a document, empty: nothing of it; and whether its filters let it be told now.
    pub fn filtered(&self, aor: &str, view: &Arc<View>) -> (Arc<View>, bool) {
        let Some(asked) = &self.filters else { return (view.clone(), true) };
        let uri = format!("sip:{aor}");
        let target = Target::itself(&uri);
        let before = self.before.as_ref();
        let due = before.is_none_or(|before| asked.filters.triggered(target, &before.body, &view.body));
        (part_of(asked, target, view), due)
    }

    /// The states of a list's members as its filters let them be told, and what they were made of.
    pub fn filtered_members(&self, mut states: Vec<Told>) -> (Vec<Told>, HashMap<Box<str>, Arc<View>>) {
        let mut made_of = HashMap::new();
        let (Some(asked), Package::List(following)) = (&self.filters, &self.package) else { return (states, made_of) };
        let list = format!("sip:{}", following.uri);
        for state in &mut states {
            let State::Active(view) = &mut state.state else { continue };
            let target = Target { requested: &list, uri: &state.uri };
            let before = following.before.get(&state.uri).filter(|_| !self.owed);
            let kept = before.filter(|before| !asked.filters.triggered(target, &before.body, &view.body));
            // What its watcher does not want to hear of has not happened for it.
            let base = kept.unwrap_or(view).clone();
            *view = part_of(asked, target, &base);
            made_of.insert(state.uri.clone(), base);
        }
        (states, made_of)
    }

    /// The next NOTIFY with this document.
    pub fn notify_view(&mut self, now: Instant, view: &Arc<View>) -> Option<Vec<u8>> {
        self.told = view.hash;
        if self.rejected {
            return self.notify(now, None);
        }
        if view.body.is_empty() {
            // RFC 4660 §5.3.1.
            self.lost_document();
            return self.notify(now, None);
        }
        let number = self.dialog.local_sequence().unwrap_or(0) + 1;
        let known = match &mut self.package {
            Package::Partial(known) => known,
            Package::Summary => return self.notify(now, Some((SUMMARY_TYPE, &view.body))),
            _ => return self.notify(now, Some((PIDF_TYPE, &view.body))),
        };
        // A SUBSCRIBE is answered with everything (RFC 5263 §4.4). The CSeq counts as the version must: from 1, by 1.
        let before = known.replace(view.clone()).filter(|_| !self.owed);
        let body = partial::write(before.as_ref().map(|v| &*v.body), &view.body, number);
        self.notify(now, Some((PIDF_DIFF_TYPE, &body)))
    }

    fn lost_document(&mut self) {
        if let Package::Partial(known) = &mut self.package {
            *known = None;
        }
    }

    /// It may not have got its last NOTIFY.
    pub fn lost_track(&mut self) {
        (self.told, self.before) = (0, None);
        match &mut self.package {
            Package::Partial(known) => *known = None,
            Package::List(following) => {
                following.told.clear();
                following.before.clear();
            }
            Package::Presence | Package::Winfo(_) | Package::Summary => {}
        }
    }

    /// The members of its list whose state its watcher does not know.
    pub fn list_news<'s>(&self, states: &'s [Told]) -> Vec<&'s Told> {
        let Package::List(following) = &self.package else { return Vec::new() };
        states.iter().filter(|s| following.told.get(&s.uri) != Some(&s.mark())).collect()
    }

    /// Whether its watcher was told of a member that is none any more.
    pub fn has_lost(&self, states: &[Told]) -> bool {
        let Package::List(following) = &self.package else { return false };
        following.told.keys().any(|uri| states.iter().all(|s| s.uri != *uri))
    }

    /// The next NOTIFY of a list: everything when it is owed or little is known, else what is new.
    pub fn notify_list(
        &mut self,
        now: Instant,
        domain: &str,
        (states, made_of): (&[Told], HashMap<Box<str>, Arc<View>>),
    ) -> Option<Vec<u8>> {
        let number = self.dialog.local_sequence().unwrap_or(0);
        let (news, lost) = (self.list_news(states), self.has_lost(states));
        let Package::List(following) = &mut self.package else { return None };
        // A member that has left the list is told by its absence.
        let full = self.owed || lost || following.told.is_empty();
        let members: Vec<&Told> = if full { states.iter().collect() } else { news };
        let mut body = Vec::with_capacity(512 * (members.len() + 1));
        let (list, dialect) = (following.uri.as_str(), following.dialect);
        let content_type =
            rlmi::write(&rlmi::Update { list, domain, version: number, full, dialect }, &members, &mut body);
        following.before = made_of;
        following.told = states.iter().map(|s| (s.uri.clone(), s.mark())).collect();
        self.notify(now, Some((&content_type, &body)))
    }

    /// Whether its watcher must not be told more often than it asked, whatever happens.
    pub fn is_limited(&self) -> bool {
        self.rates.as_ref().is_some_and(|r| r.is_limited())
    }

    pub fn kind(&self) -> Kind {
        match self.package {
            Package::Presence | Package::Partial(_) | Package::List(_) => Kind::Presence,
            Package::Winfo(_) => Kind::Winfo,
            Package::Summary => Kind::Summary,
        }
    }

    /// Members of the list that it watches.
    pub fn members(&self) -> usize {
        if let Package::List(following) = &self.package { following.members.len() } else { 0 }
    }

    /// Whether its next document has every watcher. A change that is cut out of a partial one would never be heard: who filters gets
    /// everything.
    pub fn wants_all(&self) -> bool {
        matches!(&self.package, Package::Winfo(untold) if untold.full || self.filters.is_some())
    }

    /// The next NOTIFY of watcher information; `all`: every watcher there is, for one who [wants](Self::wants_all) that.
    pub fn notify_winfo(
        &mut self,
        now: Instant,
        unix: u64,
        aor: &str,
        all: Option<Vec<winfo::Entry>>,
    ) -> Option<Vec<u8>> {
        let Package::Winfo(untold) = &mut self.package else { return None };
        untold.full = false;
        let (full, changed) = (all.is_some(), std::mem::take(&mut untold.entries));
        let entries = all.unwrap_or(changed);
        let mut body = Vec::with_capacity(256 + 160 * entries.len());
        winfo::write(aor, untold.version, full, &entries, unix, &mut body);
        if let Some(asked) = &self.filters {
            let uri = format!("sip:{aor}");
            match asked.filters.part(Target::itself(&uri), &body) {
                Some(part) => body = part,
                // RFC 4660 §5.3.1.
                None => return self.notify(now, None),
            }
        }
        untold.version = untold.version.wrapping_add(1);
        self.notify(now, Some((WATCHERINFO_TYPE, &body)))
    }

    fn notify(&mut self, now: Instant, body: Option<(&[u8], &[u8])>) -> Option<Vec<u8>> {
        let mut state = Vec::with_capacity(64);
        self.notifier.write_state(now, &mut state);
        if let Some(rates) = self.rates.as_mut().filter(|_| !self.notifier.is_terminated()) {
            rates.write(&mut state);
            let patience = rates.told(now);
            self.notifier.set_patience(patience);
        }
        let event = Event::parse(&self.event);
        let list = if let Package::List(following) = &self.package { Some(following.dialect) } else { None };
        let room = body.map_or(0, |(_, body)| body.len());
        write_notify(&mut self.dialog, room, |w| {
            w.text(HeaderName::Contact, &self.contact);
            w.header(HeaderName::Event, |out| {
                // The package and the id; the rest was for us.
                let Some(event) = event else { return };
                out.extend_from_slice(if list == Some(Dialect::Linphone) { b"Presence" } else { event.package });
                if let Some(id) = event.id() {
                    out.extend_from_slice(b";id=");
                    out.extend_from_slice(id);
                }
            });
            w.text(HeaderName::SubscriptionState, &state);
            if list.is_some() {
                w.text(HeaderName::Require, b"eventlist");
            }
            if let Some((media_type, body)) = body {
                w.body(media_type, body);
            }
        })
    }
}

/// What filters let be told of a document; empty: nothing of it.
fn part_of(asked: &Asked, target: Target<'_>, view: &Arc<View>) -> Arc<View> {
    match asked.filters.part(target, &view.body) {
        Some(part) if *part == *view.body => view.clone(),
        part => View::of(part.unwrap_or_default()),
    }
}

/// The second at or after a moment.
pub fn second(at: Instant, now: Instant, unix: u64) -> u64 {
    let left = at.saturating_duration_since(now);
    unix + left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

/// What is left of a granted time.
pub fn seconds_left(expires_at: u64, unix: u64) -> u32 {
    expires_at.saturating_sub(unix).min(u64::from(u32::MAX)) as u32
}

/// Subscriptions told each second after a restart: all at once would be a flood.
const RESUMED_EACH_SECOND: u64 = 2000;

/// When the `nth` subscription that was taken over is told what is true now.
pub fn resume_at(now: Instant, nth: u64) -> Instant {
    now + Duration::from_secs(nth / RESUMED_EACH_SECOND)
}
