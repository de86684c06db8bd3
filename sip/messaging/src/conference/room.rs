//! One room: who is in it, and what becomes of what they say (RFC 7701 §6).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use media_msrp::Outgoing;
use media_msrp::assembly::Whole;
use media_msrp::write::letters;
use parking_lot::Mutex;
use sip_cpim::{Address, CPIM_TYPE, Cpim};
use sip_ims::ports::Version;
use sip_proto::Flow;

use super::info::{Endpoint, User};
use super::member::{Joining, Member};
use super::row::{MAX_ALLOWED, MAX_NICKNAMES, Row};
use super::watch::Watch;
use super::{Rooms, Strangers, Who, entity, nickname};
use crate::terms::Terms;

pub struct Room {
    id: Box<str>,
    /// `sip:chat-…@example.com`.
    pub uri: Box<str>,
    rooms: Arc<Rooms>,
    /// Of its row; held while that is written. `None`: it has none yet.
    pub(super) stored: tokio::sync::Mutex<Option<Version>>,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub row: Row,
    pub members: Vec<Arc<Member>>,
    /// Of those who are being asked in.
    reserved: usize,
    /// By dialog.
    pub watches: HashMap<Box<[u8]>, Watch>,
}

impl Room {
    pub fn new(rooms: Arc<Rooms>, id: &str, row: Row, stored: Option<Version>) -> Arc<Room> {
        let uri = format!("sip:{id}@{}", rooms.parts.home.domain());
        let state = State { row, members: Vec::new(), reserved: 0, watches: HashMap::new() };
        Arc::new(Room { id: id.into(), uri: uri.into(), rooms, stored: stored.into(), state: Mutex::new(state) })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn rooms(&self) -> &Arc<Rooms> {
        &self.rooms
    }

    pub fn row(&self) -> Row {
        self.state.lock().row.clone()
    }

    pub fn touched(&self) -> u64 {
        self.state.lock().row.touched
    }

    pub fn touch(&self, unix: u64) {
        self.state.lock().row.touched = unix;
    }

    /// Our end of a dialog that came over this flow, as the value of Contact.
    pub fn contact(&self, flow: &Flow) -> Vec<u8> {
        self.rooms.parts.agent.contact(flow, &self.id, ";isfocus")
    }

    /// It is no more, or not here: everybody is hung up on.
    pub fn close(self: &Arc<Self>) {
        self.end_watches(Instant::now());
        let members = self.state.lock().members.clone();
        members.iter().for_each(|m| m.hang_up());
    }

    /// Sessions in it.
    pub fn size(&self) -> usize {
        self.state.lock().members.len()
    }

    pub fn subject(&self) -> String {
        self.state.lock().row.subject.clone()
    }

    /// What the room says of itself (RFC 7701 §8).
    pub fn terms(&self) -> Terms {
        Terms {
            accept_types: CPIM_TYPE,
            accept_wrapped_types: "*",
            max_size: self.rooms.config.max_message,
            more: vec!["chatroom:nickname private-messages".to_owned()],
        }
    }

    pub fn lets_in(&self, who: &Who) -> bool {
        let row = &self.state.lock().row;
        let asked = *row.creator == *who.uri || row.allowed.contains(&*who.uri);
        if who.known {
            return asked || !row.closed;
        }
        match self.rooms.config.strangers {
            Strangers::Nobody => false,
            Strangers::Invited => asked,
            Strangers::Anybody => asked || !row.closed,
        }
    }

    /// Nobody is who only says so.
    pub fn is_creator(&self, who: &Who) -> bool {
        who.known && *self.state.lock().row.creator == *who.uri
    }

    pub fn is_in(&self, who: &Who) -> bool {
        self.state.lock().members.iter().any(|m| m.who.uri == who.uri)
    }

    /// Lets a user in from now on. False: too many are let in already.
    pub fn allow(self: &Arc<Self>, uri: &str) -> bool {
        {
            let allowed = &mut self.state.lock().row.allowed;
            if allowed.contains(uri) {
                return true;
            }
            if allowed.len() >= MAX_ALLOWED {
                return false;
            }
            allowed.insert(uri.to_owned());
        }
        self.save();
        true
    }

    /// Keeps a place for somebody who is being asked in. `None`: the room is full.
    pub fn reserve(self: &Arc<Self>) -> Option<Reserved> {
        let mut state = self.state.lock();
        if state.members.len() + state.reserved >= self.rooms.config.members {
            return None;
        }
        state.reserved += 1;
        Some(Reserved(self.clone()))
    }

    pub fn joined(self: &Arc<Self>, member: &Arc<Member>) {
        self.rooms.counts.joined.fetch_add(1, Relaxed);
        let before = {
            let mut state = self.state.lock();
            // The same device again: its earlier session is dead, whether we know it or not.
            let same = |m: &&Arc<Member>| m.who.uri == member.who.uri && m.contact == member.contact;
            let before: Vec<_> = state.members.iter().filter(same).filter(|m| !m.contact.is_empty()).cloned().collect();
            state.members.push(member.clone());
            before
        };
        before.iter().for_each(|m| m.hang_up());
        self.changed(&member.who.uri);
    }

    pub fn left(self: &Arc<Self>, member: &Member) {
        {
            let mut state = self.state.lock();
            let before = state.members.len();
            state.members.retain(|m| !std::ptr::eq(&**m, member));
            if state.members.len() == before {
                return;
            }
            state.row.touched = (self.rooms.parts.unix)();
        }
        self.rooms.counts.left.fetch_add(1, Relaxed);
        self.changed(&member.who.uri);
        if self.size() == 0 {
            self.save();
        }
    }

    pub(super) fn save(self: &Arc<Self>) {
        let room = self.clone();
        self.rooms.parts.runtime.spawn(async move { room.rooms.save(&room).await });
    }

    /// A member says something: the status that their SEND is answered with (RFC 7701 §6.3).
    pub fn said(self: &Arc<Self>, sender: &Arc<Member>, message: &Whole) -> u16 {
        let essence = message.content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        if !essence.eq_ignore_ascii_case(CPIM_TYPE.as_bytes()) {
            return 415;
        }
        let Ok(cpim) = Cpim::parse(&message.body) else { return 400 };
        if !cpim.from().is_some_and(|from| self.is(&from, &sender.who.uri)) {
            return 403;
        }
        let mut to = cpim.to();
        let (Some(to), None) = (to.next(), to.next()) else { return 403 };
        let holds = cpim.content_type().unwrap_or("text/plain");
        let recipients = match self.recipients(sender, &to, holds) {
            Ok(recipients) => recipients,
            Err(status) => return status,
        };
        let body: Arc<[u8]> = message.body.as_slice().into();
        let content_type: Box<[u8]> = message.content_type.clone();
        for member in &recipients {
            self.rooms.counts.copies.fetch_add(1, Relaxed);
            let message_id = letters::<16>(rand::random());
            let copy = Outgoing {
                message_id: message_id.into(),
                content_type: content_type.clone(),
                body: body.clone(),
                success_report: false,
            };
            if !member.send(copy) {
                self.rooms.counts.congested.fetch_add(1, Relaxed);
                tracing::info!(room = self.id(), "a member of a chat room takes too little, and is hung up on");
                member.hang_up();
            }
        }
        let history = &self.rooms.parts.history;
        match recipients.first() {
            Some(one) if !self.is(&to, &self.uri) => {
                history.said_aside(&self.uri, [&sender.who, &one.who], message);
            }
            _ => history.said_in_room(&self.uri, &sender.who, recipients.iter().map(|m| &m.who), message),
        }
        200
    }

    /// Whose sessions a message goes to: all but the sender's own, or those of one user.
    fn recipients(&self, sender: &Arc<Member>, to: &Address<'_>, holds: &str) -> Result<Vec<Arc<Member>>, u16> {
        let state = self.state.lock();
        let counts = &self.rooms.counts;
        let others = state.members.iter().filter(|m| !Arc::ptr_eq(m, sender) && m.accepts(holds));
        if self.is(to, &self.uri) {
            counts.messages.fetch_add(1, Relaxed);
            return Ok(others.cloned().collect());
        }
        let mut theirs = state.members.iter().filter(|m| self.is(to, &m.who.uri)).peekable();
        if theirs.peek().is_none() {
            return Err(404);
        }
        let able: Vec<_> = theirs.filter(|m| m.private && m.accepts(holds)).cloned().collect();
        if able.is_empty() {
            return Err(428);
        }
        counts.private.fetch_add(1, Relaxed);
        Ok(able)
    }

    /// Whether an address in an envelope names this user, or this room.
    fn is(&self, address: &Address<'_>, uri: &str) -> bool {
        let text = match address.uri.strip_prefix("im:") {
            Some(rest) => format!("sip:{rest}"),
            None => address.uri.to_owned(),
        };
        let named = entity(text.as_bytes());
        if named.as_deref() == Some(uri) {
            return true;
        }
        // A room, or a user, at one of our addresses is one of our domain.
        let ours = sip_proto::uri::Uri::parse(text.as_bytes()).and_then(|u| self.rooms.parts.home.aor(&u));
        ours.is_some_and(|aor| uri.strip_prefix("sip:") == Some(aor.as_str()))
    }

    /// A member wants to be called so; an empty name takes the one they have away.
    pub fn nickname(self: &Arc<Self>, who: &Who, name: &str) -> u16 {
        {
            let state = &mut *self.state.lock();
            let names = &mut state.row.nicknames;
            let wanted = nickname::folded(name);
            let taken = names.iter().any(|(user, n)| **user != *who.uri && nickname::folded(n) == wanted);
            if name.is_empty() {
                names.remove(&*who.uri);
            } else if taken {
                return 425;
            } else {
                names.insert(who.uri.to_string(), name.to_owned());
                let bytes =
                    |names: &BTreeMap<String, String>| names.iter().map(|(u, n)| u.len() + n.len()).sum::<usize>();
                if bytes(names) > MAX_NICKNAMES {
                    names.retain(|user, _| state.members.iter().any(|m| *m.who.uri == **user));
                }
                if bytes(names) > MAX_NICKNAMES {
                    names.remove(&*who.uri);
                    return 403;
                }
            }
        }
        self.changed(&who.uri);
        self.save();
        200
    }

    fn changed(self: &Arc<Self>, user: &str) {
        self.tell(Instant::now(), user);
    }
}

/// A place in a room, until it is dropped.
pub struct Reserved(Arc<Room>);

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.state.lock().reserved -= 1;
    }
}

impl State {
    /// A user as documents show them; `None` if they are not there.
    pub fn user(&self, uri: &str) -> Option<User> {
        let mut theirs = self.members.iter().filter(|m| *m.who.uri == *uri).peekable();
        let first = theirs.peek()?;
        Some(User {
            uri: uri.into(),
            display: first.who.display.clone(),
            nickname: self.row.nicknames.get(uri).map(|n| n.as_str().into()),
            creator: self.row.creator == uri,
            endpoints: theirs
                .map(|m| Endpoint {
                    uri: if m.contact.is_empty() { uri.into() } else { m.contact.clone() },
                    dialed_out: m.joining == Joining::DialedOut,
                })
                .collect(),
        })
    }

    /// Everybody, each once, in the order of coming in.
    pub fn users(&self) -> Vec<User> {
        let mut seen = Vec::<&str>::new();
        for member in &self.members {
            if !seen.contains(&&*member.who.uri) {
                seen.push(&member.who.uri);
            }
        }
        seen.into_iter().filter_map(|uri| self.user(uri)).collect()
    }
}
