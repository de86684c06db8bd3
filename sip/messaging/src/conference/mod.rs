//! Chat rooms (RFC 7701): the focus (RFC 4579) that users call to open one, to join it, to invite others, and to hear who is
//! there (RFC 4575). What is said in a room goes to everybody in it; see [`room`].

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sip_cpim::CPIM_TYPE;
use sip_ims::ports::{Document, Documents, Expect, StoreError};
use sip_ims::service::{Caller, Nodes, Request, Service, Step, Verdict};
use sip_ims::{Aor, Home, answer};
use sip_proto::headers::{MediaType, NameAddr};
use sip_proto::uri::Uri;
use sip_proto::{HeaderName, Message, Method, multipart};
use sip_xcap::recipients::{self, Recipient};
use tokio::runtime::Handle;

use crate::agent::{Agent, Invited, reply};
use crate::control::Again;
use crate::history::History;
use crate::terms::Offered;

mod counts;
mod info;
mod invitee;
mod inviting;
mod member;
mod nickname;
mod place;
mod room;
mod row;
mod watch;

pub use counts::Counts;

use invitee::Invitee;
use member::{Joining, Member};
use place::Places;
use room::Room;
use row::Row;

/// Users of one list who are asked in.
const MAX_INVITED: usize = 256;

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
    /// Keeps what is said for those who want to read it again.
    pub history: Arc<History>,
    /// Where others share the store.
    pub nodes: Option<Arc<dyn Nodes>>,
    pub unix: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub runtime: Handle,
}

/// Every room whose focus is here, and the way to the others.
pub struct Conferences(Arc<Rooms>);

/// The documents that hold rooms.
const COLLECTION: &str = "chat-room";
/// Rooms read from the store at a time.
const PAGE: u32 = 200;
/// How often rooms that nobody uses are looked for.
const CLEANING: Duration = Duration::from_secs(3600);
/// Times that a room is written, or taken, when somebody else writes it too.
const TRIES: usize = 3;

pub(crate) struct Rooms {
    pub config: ConferenceConfig,
    pub parts: ConferenceParts,
    pub counts: Counts,
    rooms: Mutex<HashMap<Box<str>, Arc<Room>>>,
    places: Places,
    again: OnceLock<Again>,
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
        let (counts, rooms, places) = (Counts::default(), Mutex::default(), Places::default());
        Conferences(Arc::new(Rooms { config, parts, counts, rooms, places, again: OnceLock::new() }))
    }

    /// Reads the rooms of this node from the store. Before the first INVITE.
    pub async fn load(&self) -> Result<usize, StoreError> {
        let rooms = &self.0;
        rooms.each(|document| rooms.restore(&document)).await?;
        Ok(self.rooms())
    }

    /// Keeps time, until the runtime ends. `again` hands in requests that had to wait.
    pub fn start(&self, again: Again) {
        let _ = self.0.again.set(again);
        let rooms = Arc::downgrade(&self.0);
        self.0.parts.runtime.spawn(async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut cleaned = Instant::now();
            let mut looked_at = String::new();
            loop {
                second.tick().await;
                let Some(rooms) = rooms.upgrade() else { return };
                let now = Instant::now();
                rooms.all().iter().for_each(|room| room.tick(now));
                rooms.look_over(&mut looked_at).await;
                if now >= cleaned + CLEANING {
                    cleaned = now;
                    rooms.clean().await;
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

    /// Shows every stored room.
    async fn each(&self, mut show: impl FnMut(Document)) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let (done, page) = answer();
            self.parts.documents.list(COLLECTION, &after, PAGE, done);
            let page = page.await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.key.clone();
            page.into_iter().for_each(&mut show);
        }
    }

    fn restore(self: &Arc<Self>, document: &Document) {
        let Ok(row) = Row::read(&document.body) else {
            return tracing::warn!(room = document.key, "a stored chat room does not read back");
        };
        if row.node == self.node() {
            self.enter(Room::new(self.clone(), &document.key, row, Some(document.version)));
        }
    }

    fn enter(&self, room: Arc<Room>) {
        self.rooms.lock().insert(room.id().into(), room);
    }

    /// Forgets rooms that have been empty for long, those of nodes that are gone too.
    async fn clean(self: &Arc<Self>) {
        let now = (self.parts.unix)();
        let mut over = Vec::new();
        let read = self.each(|document| {
            if let Ok(row) = Row::read(&document.body)
                && row.touched + self.config.keep / 2 < now
            {
                over.push((document.key, document.version, row));
            }
        });
        if let Err(error) = read.await {
            return tracing::warn!(%error, "stored chat rooms could not be looked over");
        }
        for (id, version, row) in over {
            let room = self.get(&id);
            let is_over = |touched| touched + self.config.keep < now;
            match &room {
                Some(room) if room.size() > 0 => {
                    room.touch(now);
                    self.save(room).await;
                    continue;
                }
                Some(room) if !is_over(room.touched()) => continue,
                None if !is_over(row.touched) || self.is_with_another(&row) => continue,
                _ => {}
            }
            if let Some(room) = room {
                self.rooms.lock().remove(&*id);
                room.close();
            }
            self.parts.documents.delete(COLLECTION, &id, Expect::Version(version), Box::new(|_| {}));
        }
    }

    /// Writes a room; `None` while the store fails, which is said in the log, or when its focus is another node.
    pub async fn save(self: &Arc<Self>, room: &Arc<Room>) -> Option<()> {
        let mut stored = room.stored.lock().await;
        for _ in 0..TRIES {
            // Whoever let it go has no say in it.
            if !self.get(room.id()).is_some_and(|known| Arc::ptr_eq(&known, room)) {
                return None;
            }
            let expect = stored.map_or(Expect::Absent, Expect::Version);
            let (done, saved) = answer();
            self.parts.documents.put(COLLECTION, room.id(), expect, room.row().write(), done);
            match saved.await {
                Ok(version) => {
                    *stored = Some(version);
                    return Some(());
                }
                // Somebody else has written it, or we have and were not told.
                Err(StoreError::Conflict) => *stored = self.still_ours(room).await?,
                Err(error) => {
                    tracing::warn!(%error, "a chat room could not be stored");
                    return None;
                }
            }
        }
        None
    }

    /// `room`: `None` for the factory.
    fn invited(self: &Arc<Self>, step: &mut Step<'_>, request: &Request<'_>, room: Option<Arc<Room>>) -> Verdict {
        let answered = match room {
            None => self.open(step, request),
            Some(room) => self.join(step, request, room, Vec::new(), false),
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
            Some(body) => recipients::read(body, MAX_INVITED).map_err(|_| 400u16)?,
            None => Vec::new(),
        };
        let invitee =
            |one: &Recipient| Invitee::of(&self.parts.home, one.uri.as_bytes()).filter(|i| self.may_ask(&who, i));
        let asked: Vec<Invitee> = wanted.iter().filter_map(invitee).collect();
        let id = place::new_id();
        let subject = request.message.value(HeaderName::Subject).unwrap_or_default();
        let row = Row {
            node: self.node().to_owned(),
            creator: who.uri.to_string(),
            closed: !wanted.is_empty(),
            allowed: asked.iter().map(|invitee| invitee.entity.to_string()).collect(),
            subject: String::from_utf8_lossy(subject).chars().take(row::MAX_SUBJECT).collect(),
            nicknames: Default::default(),
            touched: step.unix,
        };
        let room = Room::new(self.clone(), &id, row, None);
        self.enter(room.clone());
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
        let from = message.from().ok_or(400u16)?;
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
    multipart::find(&content_type, message.body(), recipients::TYPE).map(|p| p.body)
}

impl Service for Conferences {
    fn name(&self) -> &'static str {
        "conference"
    }

    fn identity(&self) -> &str {
        &self.0.config.factory
    }

    fn request(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        let rooms = &self.0;
        let Some(user) = request.callee.as_ref().map(Aor::user) else { return Verdict::Pass };
        let in_dialog = request.message.is_in_dialog();
        let method = request.message.method();
        match method {
            Method::Invite if !in_dialog && user == rooms.config.factory => return rooms.invited(step, request, None),
            Method::Invite | Method::Refer if !in_dialog => {}
            Method::Subscribe => {}
            _ => return Verdict::Pass,
        }
        let Some(room) = rooms.get(user) else {
            return if in_dialog { Verdict::Pass } else { rooms.seek(step, request, user) };
        };
        match method {
            Method::Invite => rooms.invited(step, request, Some(room)),
            Method::Refer => inviting::refer(&room, step, request, None),
            _ => room.subscribe(step, request),
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
