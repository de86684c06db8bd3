//! Responses: what goes back at once, what is weighed, and the end of a fork (RFC 3261 §16.7).

use sip_ims::service::{NoteEvent, Request, Step};
use sip_proto::build::Response;
use sip_proto::endpoint::{ClientId, ServerId};
use sip_proto::headers::{Privacy, list};
use sip_proto::privacy::{Neighbour, Seal};
use sip_proto::slots::Slot;
use sip_proto::uri::Uri;
use sip_proto::{Edits, HeaderName, Message, Method, privacy};

use super::{Proxy, settings};
use crate::fork::AttemptState;
use crate::forward;
use crate::route::Routed;
use crate::screen::describes;
use crate::veil::{self, Side, Veil};

impl Proxy {
    /// A response on one of the fork's branches.
    pub(super) fn fork_response(&mut self, step: &mut Step<'_>, slot: Slot, client: ClientId, message: &Message<'_>) {
        let Some(fork) = self.forks.get_mut(slot) else { return };
        let status = message.status();
        let (server, to, in_books) = (fork.server, fork.asker(), fork.in_books);
        let position = fork.position(client);
        if let Some(index) = position.filter(|_| status < 200) {
            let link = &mut fork.attempts[index].target.link;
            match link {
                // It has told the caller something: what comes now is its answer.
                Some(_) if status > 100 => *link = None,
                Some(link) => link.heard = true,
                None => {}
            }
        }
        if status == 100 {
            return;
        }
        let from = position.map_or(Neighbour::Untrusted, |index| fork.attempts[index].neighbour);
        if status < 200 {
            if !fork.settled && !fork.closed {
                let first_ring = status == 180 && !std::mem::replace(&mut fork.ringing, true);
                self.pass_back(step, server, message, from, to);
                if first_ring && !in_books {
                    self.note(message, NoteEvent::CallRinging, status);
                }
            }
            return;
        }
        let Some(index) = position else {
            // A second 2xx of a forked INVITE.
            if status < 300 && fork.invite {
                self.pass_back(step, server, message, from, to);
            }
            return;
        };
        fork.attempts[index].state = AttemptState::Done;
        if status < 300 {
            // A 2xx to an INVITE always goes back; of a non-INVITE only the first.
            if fork.invite || !fork.settled {
                fork.settled = true;
                fork.waiting.clear();
                self.settle(step, slot, server, message, from);
            }
            self.cancel_branches(step, slot, Some(index));
        } else {
            // RFC 3263 §4.3: a 503 sends us to the next address as a failure does.
            if status == 503 && !fork.closed && !fork.attempts[index].spare.is_empty() {
                fork.attempts[index].state = AttemptState::Trying(client);
                return self.attempt_lapsed(step, slot, client, false);
            }
            if matches!(status, 401 | 407) && fork.attempts.len() > 1 {
                for name in [HeaderName::WwwAuthenticate, HeaderName::ProxyAuthenticate] {
                    for line in message.lines(name) {
                        fork.challenges.extend_from_slice(&message.bytes()[line.line()]);
                    }
                }
            }
            if status == 430
                && let Some(aor) = &fork.callee
            {
                self.parts.location.failed(aor.as_str(), &fork.attempts[index].target.reach());
            }
            fork.answered(index, status);
            fork.consider(status, message.bytes(), from);
            if status >= 600 {
                fork.closed = true;
                fork.waiting.clear();
                self.cancel_branches(step, slot, Some(index));
            }
        }
        self.advance(step, slot);
    }

    fn settle(&mut self, step: &mut Step<'_>, slot: Slot, server: ServerId, message: &Message<'_>, from: Neighbour) {
        let Some(fork) = self.forks.get(slot) else { return };
        let (invite, to, in_books) = (fork.invite, fork.asker(), fork.in_books);
        self.remember(step, slot, message.method());
        self.pass_back(step, server, message, from, to);
        let event = match message.method() {
            _ if in_books => return,
            _ if invite => NoteEvent::CallAnswered,
            Method::Message => NoteEvent::MessageRelayed,
            Method::Bye => NoteEvent::CallEnded,
            _ => return,
        };
        self.note(message, event, message.status());
    }

    /// A MESSAGE was delivered. Before the answer goes back: then it is forgotten.
    fn remember(&self, step: &Step<'_>, slot: Slot, method: Method) {
        let Some(archive) = self.parts.archive.as_ref().filter(|_| method == Method::Message) else { return };
        let Some(fork) = self.forks.get(slot).filter(|fork| !fork.in_books) else { return };
        if archive.wants(&fork.caller, fork.profile.as_ref())
            && let Some(Ok(request)) = step.endpoint.original(fork.server).map(Message::parse)
        {
            archive.said(&request, &fork.caller, fork.profile.as_ref());
        }
    }

    /// Goes on where a fork has nothing left to wait for: the next group, or the end.
    pub(super) fn advance(&mut self, step: &mut Step<'_>, slot: Slot) {
        loop {
            let Some(fork) = self.forks.get_mut(slot) else { return };
            if !fork.is_idle() {
                return;
            }
            if fork.settled {
                self.forks.remove(slot);
                return;
            }
            if !fork.closed && fork.waiting.is_empty() && fork.invite {
                self.divert_on_failure(step, slot);
            }
            if self.server_failed(step, slot) {
                return;
            }
            let Some(fork) = self.forks.get_mut(slot) else { return };
            if fork.closed || fork.waiting.is_empty() {
                return self.conclude(step, slot);
            }
            self.next_group(step, slot);
        }
    }

    /// Call forwarding on busy, on no answer and on not reachable, once the phones have spoken.
    fn divert_on_failure(&mut self, step: &mut Step<'_>, slot: Slot) {
        let Some(fork) = self.forks.get(slot) else { return };
        if fork.diverted.is_some() {
            return;
        }
        let status = fork.best.as_ref().map_or(480, |b| b.status);
        let Some((uri, why)) = fork.profile.as_ref().and_then(|p| settings::on_failure(p, status, fork.ringing)) else {
            return;
        };
        let uri = uri.to_owned();
        self.redirect(step, slot, &uri, why);
    }

    /// Sends the best final response back and forgets the fork.
    fn conclude(&mut self, step: &mut Step<'_>, slot: Slot) {
        let Some(fork) = self.forks.remove(slot) else { return };
        let to = fork.asker();
        let best = fork.best;
        let status = best.as_ref().map_or(480, |b| b.status);
        let made_up = best.as_ref().is_none_or(|b| b.bytes.is_empty());
        if let Some(original) = step.endpoint.original(fork.server).map(<[u8]>::to_vec)
            && let Ok(request) = Message::parse(&original)
        {
            match request.method() {
                _ if fork.in_books => {}
                Method::Invite => self.note(&request, NoteEvent::CallFailed, status),
                Method::Message => self.note(&request, NoteEvent::MessageRelayed, status),
                Method::Bye => self.note(&request, NoteEvent::CallEnded, status),
                _ => {}
            }
            if matches!(status, 408 | 430 | 480)
                && (!fork.invite || request.method() == Method::Invite)
                && fork.callee.is_some()
                && let Some(uri) = Uri::parse(request.request_uri())
            {
                let again = Request {
                    message: &request,
                    flow: &fork.source,
                    uri,
                    caller: fork.caller.clone(),
                    callee: fork.callee.clone(),
                    profile: fork.profile.clone(),
                };
                let parts = self.parts.clone();
                let taken = parts
                    .services
                    .iter()
                    .any(|s| s.unreached(step, &again, Some(fork.server), status) == sip_ims::service::Verdict::Taken);
                if taken {
                    return;
                }
            }
        }
        match best {
            Some(best) if !made_up => {
                if let Ok(message) = Message::parse(&best.bytes) {
                    self.pass_back_with(step, fork.server, &message, &fork.challenges, best.from, to);
                }
            }
            _ if status == 408 && !fork.invite => step.endpoint.abandon(fork.server),
            _ => {
                self.answer(step, fork.server, status);
            }
        }
    }

    /// Sends a response on towards the caller: as it came, without our Via, and without what `from` may not say or `to` not
    /// hear.
    pub(super) fn pass_back(
        &mut self,
        step: &mut Step<'_>,
        server: ServerId,
        message: &Message<'_>,
        from: Neighbour,
        to: Neighbour,
    ) {
        self.pass_back_with(step, server, message, &[], from, to);
    }

    fn pass_back_with(
        &mut self,
        step: &mut Step<'_>,
        server: ServerId,
        message: &Message<'_>,
        challenges: &[u8],
        from: Neighbour,
        to: Neighbour,
    ) {
        let Proxy { parts, edits, .. } = self;
        let request = step.endpoint.original(server);
        let asked = step.endpoint.kept_original(server).and_then(|original| Message::parse(original).ok());
        // The caller's own answers, within a dialog in which it is hidden.
        let veil = asked.as_ref().and_then(|request| {
            let veil = Routed::of(request, &parts.home, &parts.seals).veil;
            veil.filter(|veil| veil.side(request) == Some(Side::Callee))
        });
        let mut shown = parts.shown_back(message, request);
        let describes = asked.as_ref().is_some_and(|request| describes(request.method())) && !message.body().is_empty();
        if !shown.hidden && describes && veil.as_ref().is_some_and(|veil| veil.session) {
            // The relay is gone, and a description would tell where the media are.
            shown.body = Some(Vec::new());
        }
        edits.clear();
        take_off_via(message, edits);
        if let Some(body) = &shown.body {
            forward::replace_body(message, body, edits);
        }
        privacy::arriving(message, from, true, edits);
        let hop = step.endpoint.reply_hop(server);
        let known = veil.as_ref().map_or(Privacy::default(), Veil::privacy);
        let call_id = message.call_id().unwrap_or_default();
        let mut seal = |uri: &[u8], out: &mut Vec<u8>| {
            hop.is_some_and(|hop| veil::write_contact(&parts.home, &parts.seals, call_id, &hop, uri, out))
        };
        let seal: Option<&mut Seal<'_>> = if known.header { Some(&mut seal) } else { None };
        // A response is never critical (RFC 3323 §4.2).
        let _ = privacy::leaving(message, to, known, seal, shown.hidden, edits);
        match (&asked, hop) {
            (Some(request), Some(hop)) => privacy::restore(message, request, hop.remote(), edits),
            // Some phones copy the first Via alone; without the others the response would find nobody (RFC 3261 §16.7 step 3).
            (None, Some(hop)) if message.list(HeaderName::Via).nth(1).is_none() => {
                if let Some(request) = request.and_then(|r| Message::parse(r).ok()) {
                    privacy::restore_vias(message, &request, hop.remote(), edits);
                }
            }
            _ => {}
        }
        if !challenges.is_empty() {
            for name in [HeaderName::WwwAuthenticate, HeaderName::ProxyAuthenticate] {
                message.lines(name).for_each(|l| edits.delete(l.line()));
            }
            edits.insert(message.headers_end(), |t| t.extend_from_slice(challenges));
        }
        // RFC 3261 §16.7 step 6: a 503 becomes a 500, for it speaks of one server behind us, not of us.
        let status = if message.status() == 503 { 500 } else { message.status() };
        if status != message.status() {
            let code = message.bytes().windows(3).position(|w| w == b"503").unwrap_or(8);
            edits.replace(code..code + 3, |t| t.extend_from_slice(b"500"));
        }
        step.endpoint.respond(step.now, server, status, step.out, |b| edits.apply(message.bytes(), b));
    }

    /// Answers the fork's request ourselves.
    pub(super) fn answer(&mut self, step: &mut Step<'_>, server: ServerId, status: u16) -> bool {
        let Some(original) = step.endpoint.original(server).map(<[u8]>::to_vec) else { return false };
        let Some(hop) = step.endpoint.reply_hop(server) else { return false };
        let Ok(request) = Message::parse(&original) else { return false };
        let tag = step.endpoint.local_tag(request.call_id().unwrap_or_default());
        if let Some(screen) = self.parts.screen.as_ref().filter(|_| status >= 300) {
            screen.failed(&request);
        }
        step.endpoint.respond(step.now, server, status, step.out, |b| {
            Response::to(&request, status).source(hop.remote()).tag(&tag).write(b, |_| {});
        })
    }
}

/// Deletes the topmost Via value.
fn take_off_via(message: &Message<'_>, edits: &mut Edits) {
    let Some(line) = message.line(HeaderName::Via) else { return };
    let value = &message.bytes()[line.value()];
    match list(value).nth(1) {
        Some(second) => edits.delete(line.value().start..message.range_of(second).start),
        None => edits.delete(line.line()),
    }
}
