//! What ESMEs ask about messages that they submitted: query_sm, cancel_sm, replace_sm. One of a submit_multi is asked about as one
//! message, all of whose destinations it speaks of, unless it names one.

use std::sync::Arc;

use gw_smpp::Reply;
use gw_smpp::pdu::{COctets, CancelSm, CommandStatus, QuerySmResp, ReplaceSm, Response, Tag};
use parking_lot::Mutex;
use sip_ims::ports::StoreError;

use super::names::{Kin, is_many, key};
use super::{EsmeSide, source, state};
use crate::queue::{Cancel, MAX_SHORT_MESSAGE, Older, Replaced, Replacement, RequestKey, State, Status};
use crate::{receipt, smpp_time};

impl EsmeSide {
    /// `scheduled`: the ESME knows that state (5.0 §4.7.15); 3.4 has none but ENROUTE for it.
    pub(super) fn query(&self, client: Arc<str>, id: COctets<65>, scheduled: bool, reply: Reply) {
        let Some(key) = key(client, &id) else { return reply.status(CommandStatus::RINVMSGID) };
        let done = move |result: Result<Vec<Status>, StoreError>| match result {
            Ok(found) if found.is_empty() => reply.status(CommandStatus::RINVMSGID),
            Ok(found) => reply.with(CommandStatus::ROK, Response::QuerySm(answer(id, &found, scheduled))),
            Err(_) => reply.status(CommandStatus::RQUERYFAIL),
        };
        self.all(key, Box::new(done));
    }

    pub(super) fn cancel(&self, client: Arc<str>, cancel: &CancelSm, reply: Reply) {
        let destination = self.destination(&cancel.destination);
        if cancel.message_id.is_empty() {
            // All of that source and service to that number (§4.9.1).
            let Some(msn) = destination else { return reply.status(CommandStatus::RINVDSTADR) };
            let like = Kin::of(&source(&cancel.source), cancel.service_type.as_bytes()).like();
            let done = move |result: Result<u64, StoreError>| match result {
                Ok(0) => reply.status(CommandStatus::RCANCELFAIL),
                Ok(_) => reply.ok(),
                Err(_) => reply.status(CommandStatus::RSYSERR),
            };
            return self.queue.supersede(Older { client, msn, like, than: None }, (self.clock)(), Box::new(done));
        }
        let Some(key) = key(client, &cancel.message_id) else { return reply.status(CommandStatus::RINVMSGID) };
        let at = (self.clock)();
        if let (Some(msn), true) = (destination, is_many(&key.reqid)) {
            let one = Several::of(1, reply);
            return self.queue.cancel(RequestKey { msn, ..key }, at, Box::new(move |result| one.cancelled(result)));
        }
        let queue = self.queue.clone();
        let done = move |result: Result<Vec<Status>, StoreError>| match result {
            Ok(found) if found.is_empty() => reply.status(CommandStatus::RINVMSGID),
            Ok(found) => {
                let several = Several::of(found.len(), reply);
                for status in found {
                    let several = several.clone();
                    queue.cancel(name(&status), at, Box::new(move |result| several.cancelled(result)));
                }
            }
            Err(_) => reply.status(CommandStatus::RSYSERR),
        };
        self.all(key, Box::new(done));
    }

    /// In the queue, or by the centre that has it.
    pub(super) fn replace(&self, client: Arc<str>, replace: ReplaceSm, reply: Reply) {
        let Some(key) = key(client, &replace.message_id) else { return reply.status(CommandStatus::RINVMSGID) };
        let text = match replace.tlvs.get(Tag::MESSAGE_PAYLOAD) {
            Some(payload) if replace.short_message.is_empty() => payload,
            _ => &replace.short_message,
        };
        if text.len() > MAX_SHORT_MESSAGE {
            return reply.status(CommandStatus::RINVMSGLEN);
        }
        let times = self
            .not_before(&replace.schedule)
            .and_then(|not_before| Ok((not_before, self.expiry(&replace.validity, not_before.unwrap_or_default())?)));
        let (not_before, expires_at) = match times {
            Ok(times) => times,
            Err(status) => return reply.status(status),
        };
        let with = Replacement { short_message: text.into(), expires_at, not_before };
        let (queue, centre) = (self.queue.clone(), self.centre.clone());
        let done = move |result: Result<Vec<Status>, StoreError>| match result {
            Ok(found) if found.is_empty() => reply.status(CommandStatus::RINVMSGID),
            Ok(found) => {
                let several = Several::of(found.len(), reply);
                for status in found {
                    let (several, centre, replace) = (several.clone(), centre.clone(), replace.clone());
                    let done = move |result: Result<Replaced, StoreError>| match result {
                        Ok(Replaced::Yes) => several.ended(CommandStatus::ROK),
                        Ok(Replaced::Unknown) => several.ended(CommandStatus::RINVMSGID),
                        Ok(Replaced::No | Replaced::Busy) => several.ended(CommandStatus::RREPLACEFAIL),
                        Ok(Replaced::Sent(name)) => {
                            centre.replace(&name, replace, Box::new(move |status| several.ended(status)));
                        }
                        Err(_) => several.ended(CommandStatus::RSYSERR),
                    };
                    queue.replace(name(&status), with.clone(), Box::new(done));
                }
            }
            Err(_) => reply.status(CommandStatus::RSYSERR),
        };
        self.all(key, Box::new(done));
    }

    /// The messages of a name: one, or those of a submit_multi.
    fn all(&self, key: RequestKey, done: Box<dyn FnOnce(Result<Vec<Status>, StoreError>) + Send>) {
        if is_many(&key.reqid) {
            return self.queue.find_many(key.client, key.reqid, done);
        }
        let one = move |result: Result<Option<Status>, StoreError>| done(result.map(|one| one.into_iter().collect()));
        self.queue.find(key, Box::new(one));
    }
}

fn name(status: &Status) -> RequestKey {
    let origin = &status.origin;
    RequestKey { client: origin.client.clone(), msn: origin.msn, reqid: origin.reqid.clone() }
}

/// Not over while one is not; else what the first one came to that did not arrive.
fn answer(message_id: COctets<65>, found: &[Status], scheduled: bool) -> QuerySmResp {
    let segments = || found.iter().flat_map(|status| &status.segments);
    let last = segments().find(|s| !s.0.is_final());
    let last = last.or_else(|| segments().find(|s| s.0 != State::Delivered)).or(segments().next());
    let (said, error) = last.map_or((receipt::State::Unknown, 0), |s| (state(s.0, s.1), s.1.0 % 1_000));
    let said = if said == receipt::State::Scheduled && !scheduled { receipt::State::Enroute } else { said };
    let done_at = found.iter().map(|status| status.done_at).max().unwrap_or_default();
    QuerySmResp {
        message_id,
        final_date: if said.is_final() { smpp_time::absolute(done_at) } else { COctets::EMPTY },
        state: said.octet(),
        error: if said == receipt::State::Delivered { 0 } else { error as u8 },
        ..QuerySmResp::default()
    }
}

/// One answer for something that is done to several messages: good when it went well with one at least.
struct Several(Mutex<Open>);

struct Open {
    left: usize,
    status: Option<CommandStatus>,
    reply: Option<Reply>,
}

impl Several {
    fn of(left: usize, reply: Reply) -> Arc<Several> {
        Arc::new(Several(Mutex::new(Open { left, status: None, reply: Some(reply) })))
    }

    fn cancelled(&self, result: Result<Cancel, StoreError>) {
        self.ended(match result {
            Ok(Cancel::Taken | Cancel::Partly | Cancel::Again) => CommandStatus::ROK,
            Ok(Cancel::Unknown) => CommandStatus::RINVMSGID,
            Ok(Cancel::Over) => CommandStatus::RCANCELFAIL,
            Err(_) => CommandStatus::RSYSERR,
        });
    }

    fn ended(&self, status: CommandStatus) {
        let mut open = self.0.lock();
        open.left = open.left.saturating_sub(1);
        open.status = if status.is_ok() { Some(status) } else { open.status.or(Some(status)) };
        if open.left == 0
            && let (Some(reply), Some(status)) = (open.reply.take(), open.status)
        {
            drop(open);
            reply.status(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Origin, SegmentId, Verdict};

    fn status(segments: &[(State, Verdict)]) -> Status {
        let origin = Origin {
            client: "esme:x".into(),
            msn: "+819012345678".parse().unwrap(),
            reqid: "r".into(),
            expires_at: 0,
            rank: 1,
            flags: 0,
            parts: segments.len() as u8,
        };
        Status { id: SegmentId(0), origin: Arc::new(origin), accepted_at: 0, done_at: 1, segments: segments.to_vec() }
    }

    #[test]
    fn several_are_told_of_as_one() {
        let delivered = status(&[(State::Delivered, Verdict::DELIVERED)]);
        let failed = status(&[(State::Failed, Verdict::REJECTED)]);
        let waits = status(&[(State::Deferred, Verdict::DELIVERED)]);
        let later = status(&[(State::Scheduled, Verdict::DELIVERED)]);
        let state = |found: &[&Status], scheduled| {
            let found: Vec<Status> = found.iter().map(|s| (*s).clone()).collect();
            let answer = answer(COctets::EMPTY, &found, scheduled);
            (answer.state, answer.final_date.is_empty())
        };
        assert_eq!(state(&[&delivered, &delivered], false), (2, false));
        assert_eq!(state(&[&delivered, &failed], false), (8, false));
        assert_eq!(state(&[&failed, &delivered, &waits], false), (1, true));
        assert_eq!((state(&[&later], false), state(&[&later], true)), ((1, true), (0, true)));
    }
}
