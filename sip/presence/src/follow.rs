//! Watchers of lists (RFC 4662): whose state they hear, and when.
//!
//! A list is a presentity like another, under its own URI, that nobody publishes for. Its watchers follow its members: what
//! changes for a member puts the list into the worker's queue. The members' states are read without the list's lock held, because
//! a member may be in the same shard.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use sip_ims::Aor;
use sip_proto::subscription::NotifierEvent;

use crate::lists::Member;
use crate::presentity::{Presentity, View};
use crate::rlmi::{Seen, State};
use crate::rules::{Handling, Watcher};
use crate::server::{Presence, seen};
use crate::watch::{Package, Watch};
use crate::work::Ready;

/// Which lists follow a user: how many watches of each.
#[derive(Default)]
pub(crate) struct Followers {
    lists: Mutex<HashMap<Aor, HashMap<Aor, u32>>>,
    users: AtomicUsize,
    /// Of all lists that are watched, once for each watch.
    members: AtomicUsize,
}

impl Followers {
    /// Whether a list that is watched has this user in it.
    pub fn follow(&self, user: &Aor) -> bool {
        self.users.load(Relaxed) > 0 && self.lists.lock().contains_key(user)
    }

    /// Members of the lists that are watched.
    pub fn members(&self) -> usize {
        self.members.load(Relaxed)
    }
}

impl Presence {
    /// What a watcher of this URI watches, when it stands for a list.
    pub(crate) fn package_of_list(&self, uri: &Aor) -> Option<Package> {
        self.lists.list(uri).map(|list| Package::of_list(uri, &list))
    }

    pub(crate) fn follow_members(&self, list: &Aor, watch: &Watch) {
        self.follow_abroad(list, watch);
        let mut lists = self.followers.lists.lock();
        self.followers.members.fetch_add(watch.members(), Relaxed);
        for member in self.users_of(watch) {
            *lists.entry(member).or_default().entry(list.clone()).or_default() += 1;
        }
        self.followers.users.store(lists.len(), Relaxed);
    }

    pub(crate) fn leave_members(&self, list: &Aor, watch: &Watch) {
        self.leave_abroad(list, watch);
        let mut lists = self.followers.lists.lock();
        self.followers.members.fetch_sub(watch.members(), Relaxed);
        for member in self.users_of(watch) {
            let Some(following) = lists.get_mut(&member) else { continue };
            if let Some(count) = following.get_mut(list) {
                *count -= 1;
                if *count == 0 {
                    following.remove(list);
                }
            }
            if following.is_empty() {
                lists.remove(&member);
            }
        }
        self.followers.users.store(lists.len(), Relaxed);
    }

    /// The members of a watch's list that are users of ours.
    fn users_of(&self, watch: &Watch) -> Vec<Aor> {
        let Package::List(following) = &watch.package else { return Vec::new() };
        following.members.iter().filter_map(|m| self.user_of(m)).collect()
    }

    pub(crate) fn user_of(&self, member: &Member) -> Option<Aor> {
        let aor: Aor = member.uri.strip_prefix("sip:")?.parse().ok()?;
        self.parts.home.is_domain(aor.domain().as_bytes()).then_some(aor)
    }

    /// Something has changed for a user: the lists that follow it are looked at.
    pub(crate) fn tell_followers(&self, user: &str) {
        if self.followers.users.load(Relaxed) == 0 {
            return;
        }
        let lists: Vec<Aor> = match self.followers.lists.lock().get(user) {
            Some(lists) => lists.keys().cloned().collect(),
            None => return,
        };
        for list in lists {
            let mut shard = self.shard(list.as_str());
            if let Some((p, _)) = shard.get(list.as_str()) {
                p.touch(false);
                self.enqueue(&list, p);
            }
        }
    }

    /// A list has other members now, or none: those who watch it are told.
    pub(crate) fn relist(&self, uri: &Aor) {
        let members = self.lists.list(uri).map_or_else(|| Arc::from([]), |list| list.members.clone());
        let mut shard = self.shard(uri.as_str());
        let Some((p, _)) = shard.get(uri.as_str()) else { return };
        for (_, watch) in p.awake() {
            if !matches!(&watch.package, Package::List(following) if !following.contained) {
                continue;
            }
            self.leave_members(uri, watch);
            if let Package::List(following) = &mut watch.package {
                following.members = members.clone();
            }
            self.follow_members(uri, watch);
        }
        p.touch(false);
        self.enqueue(uri, p);
    }

    /// Tells one watcher of a list what there is to tell. `changed`: only what is new, and whether that is urgent; else its
    /// notifier has asked already. Called without any lock.
    pub(crate) fn serve_list(
        &self,
        list: &Aor,
        number: u64,
        changed: Option<bool>,
        now: Instant,
        unix: u64,
        ready: &mut Vec<Ready>,
    ) {
        let found = {
            let mut shard = self.shard(list.as_str());
            shard.get(list.as_str()).and_then(|(p, _)| {
                let watch = self.watch(list, p, number)?;
                let Package::List(following) = &watch.package else { return None };
                Some((following.members.clone(), watch.watcher.clone()))
            })
        };
        let Some((members, watcher)) = found else { return };
        let states: Vec<Seen> = members.iter().map(|m| self.state_of(m, &watcher, unix)).collect();
        let mut shard = self.shard(list.as_str());
        let Some((p, _)) = shard.get(list.as_str()) else { return };
        let Some(watch) = self.watch(list, p, number) else { return };
        let (states, made_of) = watch.filtered_members(states);
        if let Some(hurry) = changed {
            if watch.list_news(&states).is_empty() && !watch.has_lost(&states) {
                return;
            }
            let event = if hurry && !watch.is_limited() { NotifierEvent::ChangedNow } else { NotifierEvent::Changed };
            let (notifier, step) = watch.notifier.clone().step(now, event);
            watch.notifier = notifier;
            if !step.notify {
                return self.follow(list, p, now, number, step);
            }
        } else if !watch.owed && watch.list_news(&states).is_empty() && !watch.has_lost(&states) {
            // It has heard that with the last one.
            return self.step(list, p, now, number, NotifierEvent::Answered { status: 200, retry_after: None });
        }
        self.write_list(list, p, number, now, (&states, made_of), ready);
    }

    fn write_list(
        &self,
        list: &Aor,
        p: &mut Presentity,
        number: u64,
        now: Instant,
        states: (&[Seen], HashMap<Box<str>, Arc<View>>),
        ready: &mut Vec<Ready>,
    ) {
        let domain = self.parts.home.domain();
        let bytes = self.watch(list, p, number).and_then(|w| w.notify_list(now, domain, states));
        self.hand_over(list, p, number, bytes, ready);
    }

    /// What the watcher of a list may see of a member now.
    fn state_of(&self, member: &Member, watcher: &Watcher, unix: u64) -> Seen {
        let state = match self.user_of(member) {
            None => self.known_abroad(&watcher.uri, &member.uri),
            Some(user) => {
                let decision = self.decide(&user, watcher, unix);
                match decision.handling {
                    Handling::Block => State::Rejected,
                    Handling::Confirm => State::Pending,
                    Handling::Allow | Handling::PoliteBlock => {
                        let mut shard = self.shard(user.as_str());
                        // Made for a moment where it is not there, for the registered contacts.
                        let (p, _) = shard.entry(&user);
                        let view = self.view(&user, p, &seen(&decision), unix);
                        shard.tidy(user.as_str());
                        State::Active(view)
                    }
                }
            }
        };
        Seen { uri: member.uri.clone(), name: member.name.clone(), state }
    }
}
