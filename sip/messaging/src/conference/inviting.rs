//! Asking others in: REFER to the focus (RFC 4579 §5.5), and the list of an INVITE.

use std::sync::Arc;
use std::time::Instant;

use sip_cpim::CPIM_TYPE;
use sip_ims::notify::write_notify;
use sip_ims::service::{Outcome, Request, Step, Verdict};
use sip_proto::build::Writer;
use sip_proto::dialog::Dialog;
use sip_proto::refer::{Order, Referral, SIPFRAG};
use sip_proto::subscription::NotifierEvent;
use sip_proto::uri::Uri;
use sip_proto::{HeaderName, Hop, Method};
use tokio::sync::oneshot;

use super::Who;
use super::invitee::Invitee;
use super::member::{Joining, Member};
use super::room::Room;
use crate::agent::{Call, reply};
use crate::terms::Offered;

/// Seconds that an invited user has to answer.
const PATIENCE: u32 = 180;

/// Where the sender of a REFER hears how it went: by the way that it came, behind its answer.
enum Ear {
    /// In the session that it came in.
    Session(Box<[u8]>, Hop),
    /// In a dialog of its own.
    Dialog(Box<Dialog>, Hop),
}

/// A REFER to the focus: asks somebody in, or with `method=BYE` has somebody leave. `session`: the one it came in.
pub fn refer(room: &Arc<Room>, step: &mut Step<'_>, request: &Request<'_>, session: Option<&[u8]>) -> Verdict {
    match refer_to(room, step, request, session) {
        Ok(()) => {}
        Err(status) => reply(step, request, status, |_| {}),
    }
    Verdict::Taken
}

fn refer_to(room: &Arc<Room>, step: &mut Step<'_>, request: &Request<'_>, session: Option<&[u8]>) -> Result<(), u16> {
    let message = request.message;
    let order = Order::read(message).map_err(|_| 400u16)?;
    let who = room.rooms().who(request)?;
    if !room.is_in(&who) && !room.is_creator(&who) {
        return Err(403);
    }
    let uri = order.refer_to.0.uri().filter(Uri::is_sip).ok_or(400u16)?;
    let invitee = Invitee::of(&room.rooms().parts.home, uri.as_bytes()).ok_or(404u16)?;
    let leave = uri.params().get("method").is_some_and(|m| m.eq_ignore_ascii_case(b"BYE"));
    let allowed = if leave { room.is_creator(&who) } else { room.rooms().may_ask(&who, &invitee) };
    if !allowed {
        return Err(403);
    }
    if !leave && !room.allow(&invitee.entity) {
        return Err(486);
    }
    let tag = step.endpoint.local_tag(message.call_id().unwrap_or_default());
    let ear = match session {
        Some(key) => Ear::Session(key.into(), Hop::Flow(*request.flow)),
        None => {
            let mut dialog = Dialog::uas(message, &tag).map_err(|_| 400u16)?;
            dialog.responded(message, 202);
            Ear::Dialog(Box::new(dialog), Hop::Flow(*request.flow))
        }
    };
    reply(step, request, 202, |w| {
        w.text(HeaderName::Contact, &room.contact(request.flow));
        if !order.subscription {
            w.text(HeaderName::ReferSub, b"false");
        }
    });
    let report = order.subscription.then(|| (Referral::start(Instant::now(), &order, PATIENCE).0, ear));
    if leave {
        let status = if room.expel(&invitee.entity) { 200 } else { 404 };
        if let Some((referral, ear)) = report {
            let room = room.clone();
            room.rooms().parts.runtime.clone().spawn(async move {
                let ear = &mut { ear };
                let referral = told(&room, ear, referral).await;
                told(&room, ear, referral.progress(Instant::now(), status, b"").0).await;
            });
        }
    } else {
        ask(room, invitee, &who, report.map(|(referral, ear)| Report { referral, ear }));
    }
    Ok(())
}

/// How the sender of a REFER is told.
pub struct Report {
    referral: Referral,
    ear: Ear,
}

/// Asks somebody who is allowed in.
pub fn ask(room: &Arc<Room>, invitee: Invitee, by: &Who, report: Option<Report>) {
    let (room, by) = (room.clone(), by.clone());
    let runtime = room.rooms().parts.runtime.clone();
    runtime.spawn(async move {
        let mut report = report;
        if let Some(Report { referral, ear }) = report.take() {
            let mut ear = ear;
            let referral = told(&room, &mut ear, referral).await;
            let status = call(&room, invitee, &by).await;
            told(&room, &mut ear, referral.progress(Instant::now(), status, b"").0).await;
        } else {
            call(&room, invitee, &by).await;
        }
    });
}

async fn call(room: &Arc<Room>, invitee: Invitee, by: &Who) -> u16 {
    let Some(_place) = room.reserve() else { return 486 };
    let who = Who { known: !invitee.is_foreign(), uri: invitee.entity, display: "".into() };
    let member = Member::new(room.clone(), who, b"", &Offered::default(), Joining::DialedOut, Vec::new());
    let call = Call {
        to: invitee.callee,
        from: format!("<{}>", room.uri),
        user: room.id().to_owned(),
        features: ";isfocus",
        terms: room.terms(),
        party: member,
        subject: room.subject(),
        referred_by: format!("<{}>", by.uri).into_bytes().into(),
        accepts: CPIM_TYPE.into(),
        wrapped: false,
    };
    match room.rooms().parts.agent.call(call).await {
        Ok(()) => 200,
        Err(status) => status,
    }
}

/// Sends a NOTIFY with the state of a referral, and waits for its answer.
async fn told(room: &Arc<Room>, ear: &mut Ear, referral: Referral) -> Referral {
    let (ended, outcome) = oneshot::channel::<Outcome>();
    let now = Instant::now();
    let more = |w: &mut Writer<'_>| {
        w.header(HeaderName::Event, |out| referral.write_event(out));
        w.header(HeaderName::SubscriptionState, |out| referral.write_state(now, out));
        let mut body = Vec::new();
        referral.write_body(&mut body);
        w.body(SIPFRAG, &body);
    };
    let agent = &room.rooms().parts.agent;
    match ear {
        Ear::Session(key, hop) => {
            agent.request_within(key, *hop, Method::Notify, more, move |outcome| _ = ended.send(outcome));
        }
        Ear::Dialog(dialog, hop) => {
            if let (Some(bytes), Some(outlet)) = (write_notify(dialog, 256, more), agent.outlet()) {
                outlet.request(*hop, bytes, Box::new(move |outcome| _ = ended.send(outcome)));
            }
        }
    }
    let status = match outcome.await {
        Ok(Outcome::Response { status, .. }) => status,
        _ => 408,
    };
    referral.step(Instant::now(), NotifierEvent::Answered { status, retry_after: None }).0
}

impl Room {
    /// Has a user leave, with every device, and not come back unasked. False: they were not there.
    fn expel(self: &Arc<Self>, uri: &str) -> bool {
        let (asked, theirs) = {
            let mut state = self.state.lock();
            let theirs: Vec<Arc<Member>> = state.members.iter().filter(|m| *m.who.uri == *uri).cloned().collect();
            (state.row.allowed.remove(uri), theirs)
        };
        if asked {
            self.save();
        }
        theirs.iter().for_each(|m| m.hang_up());
        !theirs.is_empty()
    }
}
