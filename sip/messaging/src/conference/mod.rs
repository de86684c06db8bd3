//! Chat rooms (RFC 7701): the focus (RFC 4579) that users call to open one, to join it, to invite others, and to hear who is
//! there (RFC 4575). What is said in a room goes to everybody in it; see [`room`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_cpim::CPIM_TYPE;
use sip_ims::ports::{Document, Documents, Expect, StoreError};
use sip_ims::service::{Caller, Request, Service, Step, Verdict};
use sip_ims::{Aor, Home, answer};
use sip_proto::headers::{MediaType, NameAddr};
use sip_proto::uri::Uri;
use sip_proto::{HeaderName, Message, Method, derived, multipart};
use tokio::runtime::Handle;

use crate::agent::{Agent, Invited, reply};
use crate::terms::Offered;

mod counts;
mod info;
mod invitee;
mod inviting;
mod list;
mod member;
mod nickname;
mod room;
mod row;
mod watch;

pub use counts::Counts;
pub use list::read as read_list;

use invitee::Invitee;
use member::{Joining, Member};
use room::Room;

/// What rooms are like.
#[derive(Clone, Debug)]
pub struct ConferenceConfig {
    /// User part of the address that opens a room.
    pub factory: String,
    /// Rooms at a time.
    pub rooms: usize,
    /// Sessions in one room.
    pub members: usize,
    /// The longest message, in bytes.
    pub max_message: usize,
    /// Seconds that an empty room lasts.
    pub keep: u64,
    pub strangers: Strangers,
}

/// Which users of other domains come in. One that a trusted node vouches for is no stranger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strangers {
    Nobody,
    /// Whom somebody in the room has asked in.
    Invited,
    /// Into rooms that are open to our users, too.
    Anybody,
}

/// What they work with.
pub struct ConferenceParts {
    pub agent: Arc<Agent>,
    pub home: Arc<Home>,
    pub documents: Arc<dyn Documents>,
    pub unix: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub runtime: Handle,
}

/// Every room.
pub struct Conferences(Arc<Rooms>);

/// The documents that hold rooms.
const COLLECTION: &str = "chat-room";
/// Rooms read from the store at a time.
const PAGE: u32 = 200;
/// How often rooms that nobody uses are looked for.
const CLEANING: Duration = Duration::from_secs(3600);

pub(crate) struct Rooms {
    pub config: ConferenceConfig,
    pub parts: ConferenceParts,
    pub counts: Counts,
    rooms: Mutex<HashMap<Box<str>, Arc<Room>>>,
}

/// Who somebody is in a room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Who {
    /// `sip:alice@example.com`.
    pub uri: Box<str>,
    pub display: Box<str>,
    /// A user of ours, or one that a trusted node vouches for.
    pub known: bool,
}

impl Conferences {
    pub fn new(config: ConferenceConfig, parts: ConferenceParts) -> Conferences {
        let counts = Counts::default();
        Conferences(Arc::new(Rooms { config, parts, counts, rooms: Mutex::default() }))
    }

    /// Reads the rooms of the store. Before the first INVITE.
    pub async fn load(&self) -> Result<usize, StoreError> {
        let mut after = String::new();
        loop {
            let (done, page) = answer();
            self.0.parts.documents.list(COLLECTION, &after, PAGE, done);
            let page = page.await?;
            let Some(last) = page.last() else { break };
            after = last.key.clone();
            page.iter().for_each(|document| self.0.restore(document));
        }
        Ok(self.0.rooms.lock().len())
    }

    /// Keeps time. Ends with the runtime.
    pub fn start(&self) {
        let rooms = Arc::downgrade(&self.0);
        self.0.parts.runtime.spawn(async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut cleaned = Instant::now();
            loop {
                second.tick().await;
                let Some(rooms) = rooms.upgrade() else { return };
                let now = Instant::now();
                rooms.all().iter().for_each(|room| room.tick(now));
                if now >= cleaned + CLEANING {
                    cleaned = now;
                    rooms.clean();
                }
            }
        });
    }

    pub fn rooms(&self) -> usize {
        self.0.rooms.lock().len()
    }

    /// Sessions in all rooms.
    pub fn members(&self) -> usize {
        self.0.all().iter().map(|room| room.size()).sum()
    }

    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }
}

impl Rooms {
    fn all(&self) -> Vec<Arc<Room>> {
        self.rooms.lock().values().cloned().collect()
    }

    fn get(&self, id: &str) -> Option<Arc<Room>> {
        self.rooms.lock().get(id).cloned()
    }

    fn restore(self: &Arc<Self>, document: &Document) {
        let Ok(row) = row::Row::read(&document.body) else {
            return tracing::warn!(room = document.key, "a stored chat room does not read back");
        };
        let room = Room::new(self.clone(), &document.key, row);
        self.rooms.lock().insert(document.key.as_str().into(), room);
    }

    /// Forgets rooms that have been empty for long.
    fn clean(&self) {
        let now = (self.parts.unix)();
        let over: Vec<Arc<Room>> =
            self.all().into_iter().filter(|r| r.size() == 0 && r.touched() + self.config.keep < now).collect();
        for room in over {
            self.rooms.lock().remove(room.id());
            self.parts.documents.delete(COLLECTION, room.id(), Expect::Anything, Box::new(|_| {}));
        }
    }

    /// Writes a room; `None` while the store fails, which is said in the log.
    pub async fn save(&self, room: &Room) -> Option<()> {
        let (done, saved) = answer();
        self.parts.documents.put(COLLECTION, room.id(), Expect::Anything, room.row().write(), done);
        match saved.await {
            Ok(_) => Some(()),
            Err(error) => {
                tracing::warn!(%error, "a chat room could not be stored");
                None
            }
        }
    }

    fn invited(self: &Arc<Self>, step: &mut Step<'_>, request: &Request<'_>, user: &str) -> Verdict {
        let answered = if user == self.config.factory {
            self.open(step, request)
        } else {
            match self.get(user) {
                Some(room) => self.join(step, request, room, Vec::new(), false),
                None => return Verdict::Pass,
            }
        };
        if let Err(status) = answered {
            self.counts.refused.fetch_add(1, Relaxed);
            reply(step, request, status, |_| {});
        }
        Verdict::Taken
    }

    /// An INVITE to the factory: a room of one's own, and perhaps users to invite at once (RFC 5366).
    fn open(self: &Arc<Self>, step: &mut Step<'_>, request: &Request<'_>) -> Result<(), u16> {
        let who = self.who(request)?;
        if !who.known {
            return Err(403);
        }
        if self.rooms.lock().len() >= self.config.rooms {
            return Err(503);
        }
        let wanted = match list_of(request.message) {
            Some(body) => list::read(body).map_err(|_| 400u16)?,
            None => Vec::new(),
        };
        let invitee = |uri: &String| Invitee::of(&self.parts.home, uri.as_bytes()).filter(|i| self.may_ask(&who, i));
        let asked: Vec<Invitee> = wanted.iter().filter_map(invitee).collect();
        let id = format!("chat-{}", String::from_utf8_lossy(&media_msrp::write::letters::<21>(rand::random())));
        let subject = request.message.value(HeaderName::Subject).unwrap_or_default();
        let row = row::Row {
            creator: who.uri.to_string(),
            closed: !wanted.is_empty(),
            allowed: asked.iter().map(|invitee| invitee.entity.to_string()).collect(),
            subject: String::from_utf8_lossy(subject).chars().take(row::MAX_SUBJECT).collect(),
            nicknames: Default::default(),
            touched: step.unix,
        };
        let room = Room::new(self.clone(), &id, row);
        self.rooms.lock().insert(id.as_str().into(), room.clone());
        let joined = self.join(step, request, room, asked, true);
        if joined.is_err() {
            self.rooms.lock().remove(&*id);
        } else {
            self.counts.opened.fetch_add(1, Relaxed);
        }
        joined
    }

    fn join(
        self: &Arc<Self>,
        step: &mut Step<'_>,
        request: &Request<'_>,
        room: Arc<Room>,
        invite: Vec<Invitee>,
        new: bool,
    ) -> Result<(), u16> {
        let who = self.who(request)?;
        if !room.lets_in(&who) {
            return Err(403);
        }
        if room.size() >= self.config.members || !self.parts.agent.has_room() {
            return Err(486);
        }
        let offered = Offered::read(self.parts.agent.switch(), request.message)?;
        if offered.peer.is_some() && !offered.accepts(CPIM_TYPE.as_bytes()) {
            // RFC 7701 §5.2: without CPIM nobody can tell who said what.
            return Err(488);
        }
        let contact = request.message.value(HeaderName::Contact).and_then(NameAddr::parse).map_or(&b""[..], |c| c.addr);
        let member = Member::new(room.clone(), who, contact, &offered, Joining::DialedIn, invite);
        let first: Option<crate::agent::First> = new.then(|| {
            let (rooms, room) = (self.clone(), room.clone());
            // The room outlives this process before anybody is in it.
            Box::pin(async move {
                match rooms.save(&room).await {
                    Some(()) => Ok(()),
                    None => {
                        rooms.rooms.lock().remove(room.id());
                        Err(500u16)
                    }
                }
            }) as crate::agent::First
        });
        let invited = Invited {
            party: member,
            terms: room.terms(),
            user: room.id().to_owned(),
            features: ";isfocus",
            first,
            taken_by: None,
        };
        self.parts.agent.answer(step, request, None, &offered, invited)
    }

    /// A stranger does not have us call other strangers.
    fn may_ask(&self, who: &Who, invitee: &Invitee) -> bool {
        !invitee.is_foreign() || who.known && self.config.strangers != Strangers::Nobody
    }

    /// Who a request is from. `Err`: 433 for somebody who wants to stay unknown, which nobody in a room can (RFC 5079).
    fn who(&self, request: &Request<'_>) -> Result<Who, u16> {
        let message = request.message;
        if sip_proto::privacy::asked(message).hides_identity() {
            return Err(433);
        }
        let from = message.value(HeaderName::From).and_then(NameAddr::parse).ok_or(400u16)?;
        let display = String::from_utf8_lossy(&from.display_name()).chars().take(MAX_DISPLAY).collect::<String>();
        let uri = match &request.caller {
            Caller::User(user) => format!("sip:{}", user.aor),
            Caller::Trusted | Caller::Foreign => {
                let asserted = message.value(HeaderName::PAssertedIdentity).and_then(crate::notice::reachable);
                let believed = asserted.filter(|_| matches!(request.caller, Caller::Trusted));
                entity(believed.unwrap_or(from.addr)).ok_or(403u16)?
            }
        };
        let known = !matches!(request.caller, Caller::Foreign) || self.parts.agent.strangers();
        Ok(Who { uri: uri.into(), display: display.into(), known })
    }
}

/// Longest display name that is shown, in characters.
const MAX_DISPLAY: usize = 128;

/// The address-of-record of a SIP URI, as rooms name people.
fn entity(uri: &[u8]) -> Option<String> {
    let uri = Uri::parse(uri).filter(Uri::is_sip)?;
    Aor::from_parts(uri.user()?, uri.host()).ok().map(|aor| format!("sip:{aor}"))
}

/// The list of users to invite in an INVITE (RFC 5366 §4).
fn list_of<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let content_type = MediaType::parse(message.value(HeaderName::ContentType)?)?;
    multipart::find(&content_type, message.body(), "application/resource-lists+xml").map(|p| p.body)
}

impl Service for Conferences {
    fn name(&self) -> &'static str {
        "conference"
    }

    fn identity(&self) -> &str {
        &self.0.config.factory
    }

    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let Some(user) = request.callee.as_ref().map(|aor| aor.user().to_owned()) else { return Verdict::Pass };
        let in_dialog = request.message.value(HeaderName::To).is_some_and(|to| derived::tag(to).is_some());
        match request.message.method() {
            Method::Invite if !in_dialog => self.0.invited(step, request, &user),
            Method::Subscribe => match self.0.get(&user) {
                Some(room) => room.subscribe(step, request),
                None => Verdict::Pass,
            },
            Method::Refer if !in_dialog => match self.0.get(&user) {
                Some(room) => inviting::refer(&room, step, request, None),
                None => Verdict::Pass,
            },
            _ => Verdict::Pass,
        }
    }

    fn knows(&self, message: &Message<'_>) -> bool {
        message.method() == Method::Subscribe
            && Uri::parse(message.request_uri())
                .and_then(|uri| self.0.parts.home.aor(&uri))
                .and_then(|aor| self.0.get(aor.user()))
                .is_some_and(|room| room.is_watched_by(message))
    }
}
