//! Back-to-back user agents (TS 23.218 §9.1.1.4): two dialogs joined, each with a Call-ID, tags, Contact and numbers of its own.
//!
//! [`Joint`] is what both dialogs of one call know of each other, on whatever shard a request of either comes in; [`Joints`]
//! finds it. What crosses from one to the other is written by [`crossing`]. The transactions are `proxy::joined`'s.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use sip_ims::service::{Request, Service, Step, Verdict};
use sip_proto::dialog::{Dialog, DialogId, DialogState};
use sip_proto::session_timer::{SessionDue, SessionTimer};
use sip_proto::{Flow, Message, Method};

pub mod crossing;

/// Calls that are joined at once; beyond it 503.
pub const MAX_JOINTS: usize = 50_000;
/// How long both ends of a call that is over are still known: requests that cross its BYE are answered.
const LINGER: Duration = Duration::from_secs(32);
/// The same when one of them has been referred to somebody and still tells how that goes (RFC 3515 §2.4.4).
const LINGER_REFERRED: Duration = Duration::from_secs(180);
/// How often both ends of a call without a session timer are asked whether they are still there.
const AUDIT: Duration = Duration::from_secs(900);

/// The service of that name: joins what a filter or a Route brings to it, and is asked for nothing else.
pub struct BackToBack;

impl Service for BackToBack {
    fn name(&self) -> &'static str {
        "b2bua"
    }

    fn request(&self, _step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        if request.message.method() == Method::Invite { Verdict::Join } else { Verdict::Pass }
    }
}

/// One of the two ends of a joint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// Who called: we are the user agent server of its INVITE.
    Near,
    /// Who was called.
    Far,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Near, Side::Far];

    pub fn other(self) -> Side {
        match self {
            Side::Near => Side::Far,
            Side::Far => Side::Near,
        }
    }
}

/// Our end of one dialog.
#[derive(Debug)]
pub struct Leg {
    pub dialog: Dialog,
    /// Our Contact in it, with angle brackets.
    pub contact: Box<[u8]>,
    /// The connection that is the only way to this end.
    pub flow: Option<Flow>,
    /// Number of the last INVITE that came by this leg, and the one that it has on the other: ACK and RAck name it.
    pub invite: Option<(u32, u32)>,
}

/// Both dialogs, and what they have in common.
#[derive(Debug)]
pub struct Legs {
    legs: [Leg; 2],
    /// Who has asked to change the session, and waits: the other may not at the same time (RFC 3261 §14.2).
    pub changing: Option<Side>,
    /// The session's timer, agreed between the ends (RFC 4028): when it is over we hang up.
    pub timer: Option<SessionTimer>,
    /// When [`Legs::due`] will say something.
    due: Option<Instant>,
    /// One end has hung up.
    ended: bool,
}

impl Index<Side> for Legs {
    type Output = Leg;

    fn index(&self, side: Side) -> &Leg {
        &self.legs[side as usize]
    }
}

impl IndexMut<Side> for Legs {
    fn index_mut(&mut self, side: Side) -> &mut Leg {
        &mut self.legs[side as usize]
    }
}

/// What the time asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Nothing now; ask again then.
    Later(Instant),
    /// Ask both ends whether they are there; then again.
    Audit(Instant),
    /// The session is over, for nobody has refreshed it: hang up.
    Expired,
    /// Nothing comes any more: forget it.
    Over,
}

impl Legs {
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// The call is up: its timer, if it has one, begins anew. Gives the time of the next [`Legs::due`].
    pub fn refreshed(&mut self, now: Instant, seconds: Option<u32>) -> Instant {
        // Whoever refreshes, it is not us.
        self.timer = seconds.map(|s| SessionTimer::new(now, s, false));
        self.set_due(self.timer.as_ref().map_or(now + AUDIT, SessionTimer::deadline))
    }

    /// One end has hung up. Gives the time of the next [`Legs::due`].
    pub fn end(&mut self, now: Instant) -> Instant {
        self.ended = true;
        let referred = self.legs.iter().any(|l| l.dialog.state() != DialogState::Terminated);
        self.set_due(now + if referred { LINGER_REFERRED } else { LINGER })
    }

    fn set_due(&mut self, at: Instant) -> Instant {
        self.due = Some(at);
        at
    }

    pub fn due(&mut self, now: Instant) -> Option<Due> {
        let at = self.due?;
        if now < at {
            // Put off since; what put it off has its own call.
            return None;
        }
        if self.ended {
            return Some(Due::Over);
        }
        match &mut self.timer {
            None => Some(Due::Audit(self.set_due(now + AUDIT))),
            Some(timer) => match timer.due(now) {
                SessionDue::Expired => Some(Due::Expired),
                SessionDue::Nothing | SessionDue::Refresh => {
                    let at = timer.deadline();
                    Some(Due::Later(self.set_due(at)))
                }
            },
        }
    }

    /// A subscription began or ended in both dialogs: a call's end is not theirs (RFC 5057 §4).
    pub fn subscribed(&mut self, begins: bool) {
        for leg in &mut self.legs {
            if begins { leg.dialog.add_usage() } else { leg.dialog.end_usage() }
        }
    }
}

/// One call that we are in the middle of.
#[derive(Debug)]
pub struct Joint {
    pub number: u64,
    /// The Call-ID in whose name the call is charged; empty when another's charging record covers it.
    pub charged: Box<[u8]>,
    keys: [Box<[u8]>; 2],
    legs: Mutex<Legs>,
}

impl Joint {
    pub fn lock(&self) -> MutexGuard<'_, Legs> {
        self.legs.lock()
    }

    /// The tag of the far end: an INVITE may reach several.
    pub fn is_with(&self, far_tag: &[u8]) -> bool {
        self.keys[Side::Far as usize].ends_with(&[b"\0", far_tag].concat())
    }
}

/// All joints of this process.
#[derive(Default)]
pub struct Joints {
    table: Mutex<Table>,
    count: AtomicUsize,
}

#[derive(Default)]
struct Table {
    by_dialog: HashMap<Box<[u8]>, (Arc<Joint>, Side)>,
    by_number: HashMap<u64, Arc<Joint>>,
    numbers: u64,
}

impl Joints {
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub fn is_full(&self) -> bool {
        self.count() >= MAX_JOINTS
    }

    pub fn insert(&self, near: Leg, far: Leg, charged: &[u8]) -> Arc<Joint> {
        let mut table = self.table.lock();
        table.numbers += 1;
        let keys = [key(&near.dialog.id()), key(&far.dialog.id())];
        let legs = Legs { legs: [near, far], changing: None, timer: None, due: None, ended: false };
        let joint = Arc::new(Joint { number: table.numbers, charged: charged.into(), keys, legs: Mutex::new(legs) });
        for (key, side) in joint.keys.iter().zip(Side::BOTH) {
            table.by_dialog.insert(key.clone(), (joint.clone(), side));
        }
        table.by_number.insert(joint.number, joint.clone());
        self.count.store(table.by_number.len(), Relaxed);
        joint
    }

    pub fn remove(&self, joint: &Joint) {
        let mut table = self.table.lock();
        for key in &joint.keys {
            table.by_dialog.remove(key);
        }
        table.by_number.remove(&joint.number);
        self.count.store(table.by_number.len(), Relaxed);
    }

    pub fn by_number(&self, number: u64) -> Option<Arc<Joint>> {
        self.table.lock().by_number.get(&number).cloned()
    }

    /// The joint to whose dialog a request belongs, and the end that sent it.
    pub fn of_request(&self, message: &Message<'_>) -> Option<(Arc<Joint>, Side)> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        self.of_dialog(&DialogId::of_request(message)?)
    }

    fn of_dialog(&self, id: &DialogId<'_>) -> Option<(Arc<Joint>, Side)> {
        self.table.lock().by_dialog.get(&key(id)).cloned()
    }
}

fn key(id: &DialogId<'_>) -> Box<[u8]> {
    [id.call_id, b"\0", id.local_tag, b"\0", id.remote_tag].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(call_id: &str) -> Leg {
        let text = format!(
            "INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=far\r\nTo: <sip:b@h>\r\n\
             Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@192.0.2.1>\r\n\r\n"
        );
        let message = Message::parse(text.as_bytes()).unwrap();
        let mut dialog = Dialog::uas(&message, b"ours").unwrap();
        dialog.responded(&message, 200);
        Leg { dialog, contact: b"<sip:us>".as_slice().into(), flow: None, invite: None }
    }

    #[test]
    fn a_session_that_nobody_refreshes_expires_and_one_without_a_timer_is_asked_after() {
        let now = Instant::now();
        let joints = Joints::default();
        let joint = joints.insert(leg("one"), leg("two"), b"one");
        let mut legs = joint.lock();
        assert_eq!(legs.due(now), None, "it is not up yet");
        let first = legs.refreshed(now, Some(90));
        let second = legs.refreshed(now + Duration::from_secs(40), Some(90));
        assert_eq!(legs.due(first), None, "refreshed");
        assert_eq!(legs.due(second), Some(Due::Expired));
        let audit = legs.refreshed(now, None);
        assert_eq!(legs.due(audit), Some(Due::Audit(audit + AUDIT)));
    }

    #[test]
    fn a_call_that_is_over_is_known_a_little_longer_and_longer_when_one_was_referred() {
        let now = Instant::now();
        let joints = Joints::default();
        let joint = joints.insert(leg("one"), leg("two"), b"one");
        let mut legs = joint.lock();
        legs.subscribed(true);
        Side::BOTH.into_iter().for_each(|side| legs[side].dialog.end_usage());
        assert_eq!(legs.end(now), now + LINGER_REFERRED);
        legs.subscribed(false);
        let at = legs.end(now);
        assert_eq!((at, legs.due(at)), (now + LINGER, Some(Due::Over)));
        drop(legs);
        assert_eq!(joints.count(), 1);
        joints.remove(&joint);
        assert!(joints.count() == 0 && joints.by_number(joint.number).is_none());
    }
}
