//! Members of lists in other domains: a subscription there for each watcher and member (RFC 4662 §4.5), in the watcher's name, so
//! that the member's own rules decide.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sip_ims::Aor;
use sip_ims::subscriptions::{News, Wish};

use crate::document::Published;
use crate::lists::Member;
use crate::presentity::View;
use crate::rlmi::State;
use crate::server::Presence;
use crate::watch::{Package, Watch};

/// A watcher's URI, and a member's.
pub(crate) type Pair = (Arc<str>, Box<str>);

/// All of them.
#[derive(Default)]
pub(crate) struct Abroad(Mutex<HashMap<Pair, Back>>);

/// One subscription elsewhere.
struct Back {
    /// Once it has begun.
    number: Option<u64>,
    state: State,
    /// Those of the watcher in which the member is: how many watches of each.
    lists: HashMap<Aor, u32>,
}

/// Seconds asked for.
const EXPIRES: u32 = 3600;

impl Presence {
    /// The members of a watch's list that are users of others.
    fn strangers_of(&self, watch: &Watch) -> Vec<Pair> {
        let Package::List(following) = &watch.package else { return Vec::new() };
        if self.parts.abroad.is_none() {
            return Vec::new();
        }
        let stranger = |m: &&Member| m.uri.starts_with("sip:") && self.user_of(m).is_none();
        let members = following.members.iter().filter(stranger);
        members.map(|m| (watch.watcher.uri.clone(), m.uri.clone())).collect()
    }

    pub(crate) fn follow_abroad(&self, list: &Aor, watch: &Watch) {
        for pair in self.strangers_of(watch) {
            let mut backs = self.abroad.0.lock();
            let back = backs.entry(pair.clone()).or_insert_with(|| {
                self.queue.abroad(pair);
                Back { number: None, state: State::Unknown, lists: HashMap::new() }
            });
            *back.lists.entry(list.clone()).or_default() += 1;
        }
    }

    pub(crate) fn leave_abroad(&self, list: &Aor, watch: &Watch) {
        for pair in self.strangers_of(watch) {
            let mut backs = self.abroad.0.lock();
            let Some(back) = backs.get_mut(&pair) else { continue };
            if let Some(count) = back.lists.get_mut(list) {
                *count -= 1;
                if *count == 0 {
                    back.lists.remove(list);
                }
            }
            if back.lists.is_empty() {
                self.queue.abroad(pair);
            }
        }
    }

    /// Begins or ends a subscription elsewhere, as is wanted now. On the worker's thread, with nothing locked.
    pub(crate) fn see_abroad(&self, pair: &Pair) {
        let Some(subscriptions) = &self.parts.abroad else { return };
        let wanted = {
            let mut backs = self.abroad.0.lock();
            let Some(back) = backs.get(pair) else { return };
            if back.lists.is_empty() {
                let number = back.number;
                backs.remove(pair);
                drop(backs);
                return number.into_iter().for_each(|number| subscriptions.stop(number));
            }
            back.number.is_none()
        };
        if !wanted {
            return;
        }
        let wish = Wish {
            target: pair.1.clone(),
            watcher: (*pair.0).into(),
            route: None,
            package: "presence",
            accept: "application/pidf+xml",
            expires: EXPIRES,
        };
        let (me, about) = (self.me.clone(), pair.clone());
        let tell = move |news| {
            if let Some(me) = me.upgrade() {
                me.heard_from_abroad(&about, news);
            }
        };
        let number = subscriptions.start(wish, Arc::new(tell));
        if let Some(back) = self.abroad.0.lock().get_mut(pair) {
            back.number = Some(number);
        }
    }

    fn heard_from_abroad(&self, pair: &Pair, news: News) {
        let state = match news {
            News::Pending => State::Pending,
            News::Lost => State::Terminated("probation".into()),
            News::Refused(reason) => State::Terminated(match reason.parse::<u16>() {
                // RFC 4662 §5.5 has the reasons of RFC 6665.
                Ok(_) => "rejected".into(),
                Err(_) => reason,
            }),
            News::Document { media_type, body } => {
                let reads =
                    &*media_type == "application/pidf+xml" && Published::parse(&body, self.config.max_document).is_ok();
                if !reads {
                    tracing::debug!("a document from another domain does not read: what was known before stays");
                    return;
                }
                State::Active(View::of(body.into_vec()))
            }
        };
        let lists: Vec<Aor> = {
            let mut backs = self.abroad.0.lock();
            let Some(back) = backs.get_mut(pair) else { return };
            back.state = state;
            back.lists.keys().cloned().collect()
        };
        for list in lists {
            let mut shard = self.shard(list.as_str());
            if let Some((p, _)) = shard.get(list.as_str()) {
                p.look_again();
                self.enqueue(&list, p);
            }
        }
    }

    /// What a watcher knows of a member elsewhere.
    pub(crate) fn known_abroad(&self, watcher: &Arc<str>, member: &str) -> State {
        let pair = (watcher.clone(), member.into());
        self.abroad.0.lock().get(&pair).map_or(State::Unknown, |back| back.state.clone())
    }
}
