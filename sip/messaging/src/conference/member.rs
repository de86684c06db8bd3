//! Somebody in a room: one session, and the messages that wait for it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use media_msrp::assembly::Whole;
use media_msrp::{Answered, LocalEnd, Outgoing};
use media_sdp::message::Messages;
use parking_lot::Mutex;
use sip_ims::service::{Request, Step, Verdict};
use tokio::sync::mpsc;

use super::invitee::Invitee;
use super::room::Room;
use super::{Who, inviting, nickname};
use crate::agent::{Handset, Party};
use crate::terms::Offered;

/// Messages that wait for one member.
const MAX_WAITING: usize = 256;
/// Bytes of them; a message of which copies wait for others counts too.
const MAX_WAITING_BYTES: usize = 4 << 20;

/// How somebody came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joining {
    DialedIn,
    DialedOut,
}

pub struct Member {
    pub who: Who,
    /// Their Contact: the device.
    pub contact: Box<str>,
    pub joining: Joining,
    /// Tells messages to everybody and to itself apart (RFC 7701 §8).
    pub private: bool,
    room: Arc<Room>,
    /// What it takes inside of CPIM; empty: anything.
    wrapped: Box<[u8]>,
    handset: OnceLock<Handset>,
    queue: mpsc::Sender<Outgoing>,
    waiting: Mutex<Option<mpsc::Receiver<Outgoing>>>,
    bytes: Arc<AtomicUsize>,
    invite: Vec<Invitee>,
}

impl Member {
    /// `invite`: whom this member asks into the room by coming in.
    pub fn new(
        room: Arc<Room>,
        who: Who,
        contact: &[u8],
        offered: &Offered,
        joining: Joining,
        invite: Vec<Invitee>,
    ) -> Arc<Member> {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let tokens = offered.chatroom.as_deref();
        let private = tokens.is_some_and(|t| t.split(|b| *b == b' ').any(|t| t == b"private-messages"));
        Arc::new(Member {
            who,
            contact: String::from_utf8_lossy(contact).into(),
            joining,
            // Whom we ask in has said nothing yet, but hears from us what the room can do.
            private: private || joining == Joining::DialedOut,
            room,
            wrapped: offered.accept_wrapped_types.clone(),
            handset: OnceLock::new(),
            queue,
            waiting: Mutex::new(Some(waiting)),
            bytes: Arc::default(),
            invite,
        })
    }

    pub fn accepts(&self, content_type: &str) -> bool {
        Messages::accepts_wrapped(&self.wrapped, content_type.as_bytes())
    }

    /// Queues a message. `false`: too many wait already.
    pub fn send(&self, message: Outgoing) -> bool {
        let length = message.body.len();
        if self.bytes.fetch_add(length, Relaxed) + length > MAX_WAITING_BYTES && self.bytes.load(Relaxed) != length {
            return false;
        }
        self.queue.try_send(message).is_ok()
    }

    pub fn key(&self) -> Option<&[u8]> {
        self.handset.get().map(|h| &*h.key)
    }

    pub fn hang_up(&self) {
        if let Some(key) = self.key() {
            self.room.rooms().parts.agent.hang_up(key);
        }
    }
}

impl LocalEnd for Member {
    fn received(self: Arc<Self>, message: Whole) -> Answered {
        let status = self.room.said(&self, &message);
        Box::pin(std::future::ready(status))
    }

    fn nickname(&self, name: Option<&str>) -> u16 {
        match name.and_then(nickname::shown) {
            Some(name) => self.room.nickname(&self.who, &name),
            None => 424,
        }
    }

    fn down(&self) {
        // A session without its connection is over (RFC 4975 §5.4): the phone joins again.
        self.hang_up();
    }
}

impl Party for Member {
    fn begun(self: Arc<Self>, handset: &Handset) {
        let Some(mut waiting) = self.waiting.lock().take() else { return };
        let _ = self.handset.set(handset.clone());
        let parts = &self.room.rooms().parts;
        let (switch, bridge, bytes) = (parts.agent.parts.switch.clone(), handset.bridge.clone(), self.bytes.clone());
        // Its own task: who takes nothing holds up nobody else.
        parts.runtime.spawn(async move {
            while let Some(message) = waiting.recv().await {
                if switch.send(&bridge, &message).await.is_err() {
                    return;
                }
                bytes.fetch_sub(message.body.len(), Relaxed);
            }
        });
        self.room.joined(&self);
        for invitee in &self.invite {
            inviting::ask(&self.room, invitee.clone(), &self.who, None);
        }
    }

    fn ended(&self) {
        self.room.left(self);
    }

    fn referred(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        inviting::refer(&self.room, step, request, self.key())
    }
}
