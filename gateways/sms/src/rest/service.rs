//! What is done with a developer's request: what the agreement allows, and then the queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sip_ims::ports::Documents;
use sip_ims::{Msisdn, answer};

use super::letter::{Letter, Letters, Put};
use super::quota::Quotas;
use super::request::{Category, MessageRequest};
use super::{Refusal, reason, timestamp, uuid};
use crate::billing::Calendar;
use crate::compose::compose;
use crate::push::message::{Address, Push};
use crate::push::rate::Rates;
use crate::queue::{Cancel, Enqueued, Origin, Part, Queue, Request, RequestKey, State, Status, Verdict};
use crate::registry::{ApiClient, PushClient, Registry};

/// What the service works with.
pub struct Parts {
    pub registry: Arc<Registry>,
    pub queue: Arc<dyn Queue>,
    pub documents: Arc<dyn Documents>,
    /// Shared with the push interface: a contract has one rate.
    pub rates: Arc<Rates>,
    pub calendar: Calendar,
    /// Milliseconds for which a message without its own validity is tried, and for which its end is remembered.
    pub validity: i64,
    pub keep: i64,
    pub random: Arc<dyn Fn() -> u128 + Send + Sync>,
}

/// Short messages for developers.
pub struct MessageService {
    parts: Parts,
    letters: Arc<Letters>,
    quotas: Quotas,
    reference: AtomicU8,
    counts: Counts,
}

/// Answers given, by operation and HTTP status.
#[derive(Default, Debug)]
pub struct Counts(Mutex<HashMap<(&'static str, u16), u64>>);

impl Counts {
    pub fn count(&self, operation: &'static str, status: u16) {
        *self.0.lock().entry((operation, status)).or_default() += 1;
    }

    pub fn each(&self, mut show: impl FnMut(&'static str, u16, u64)) {
        self.0.lock().iter().for_each(|((operation, status), n)| show(operation, *status, *n));
    }
}

/// A message that is on disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    pub msg_id: String,
    pub timestamp: String,
    pub recipients: Vec<AcceptedFor>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AcceptedFor {
    pub to: Msisdn,
    pub segments: u8,
}

/// A message as it stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub msg_id: String,
    pub timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    pub recipients: Vec<ShownFor>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ShownFor {
    pub to: Msisdn,
    pub status: &'static str,
    pub segments: u8,
    pub delivered: u8,
    /// Of what did not arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// What a cancellation comes to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Withdrawn {
    pub msg_id: String,
    pub recipients: Vec<WithdrawnFor>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WithdrawnFor {
    pub to: Msisdn,
    pub cancellation: &'static str,
}

/// What a client may.
struct Terms {
    contract: Option<Arc<PushClient>>,
    segmentation: bool,
    rank: u8,
    /// Whose rate it is, and how much.
    rate: (String, u32),
}

impl MessageService {
    pub fn new(parts: Parts) -> MessageService {
        MessageService {
            letters: Arc::new(Letters::new(parts.documents.clone())),
            quotas: Quotas::new(parts.documents.clone(), parts.calendar.clone()),
            reference: AtomicU8::new(0),
            counts: Counts::default(),
            parts,
        }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn letters(&self) -> &Arc<Letters> {
        &self.letters
    }

    /// Accepts a message: when this is done, it is on disk for each recipient. The same `key` (Idempotency-Key) names the same message:
    /// it is answered again, and sent once. `now`: unix milliseconds.
    pub async fn send(
        &self,
        client: &ApiClient,
        request: &MessageRequest,
        key: Option<&str>,
        now: i64,
    ) -> Result<Accepted, Refusal> {
        let (to, content) = (request.recipients()?, request.content()?);
        let validity = request.validity()?.map_or(self.parts.validity, |minutes| i64::from(minutes) * 60_000);
        let terms = self.terms(client, now)?;
        let from = may(client, &terms, &to, request.from.as_deref())?;
        let name = client.name();
        let id = match key {
            Some(key) => named(&name, key)?,
            None => uuid((self.parts.random)(), 4),
        };
        let address = Address { msn: to[0], reqid: id.clone(), svcid: String::new() };
        let push = Push { address, content, oa: from.clone(), vp: request.validity, notify: true };
        let parts = compose(&push, terms.segmentation, self.reference.fetch_add(1, Relaxed))?;
        if !self.parts.rates.take(&terms.rate.0, terms.rate.1, to.len(), now) {
            return Err(Refusal::later(429, "TOO_MANY_REQUESTS", "above the agreed rate", 1));
        }
        let mut letter = Letter {
            client: name.clone(),
            from,
            category: request.category,
            at: now,
            until: now + validity + self.parts.keep,
            digest: request.digest(),
            segments: parts.len() as u8,
            to,
        };
        match self.letters.put(&id, &letter).await? {
            Put::New => {
                if !self.quotas.take(&name, client.daily_quota, letter.to.len(), now).await? {
                    self.letters.remove(&id).await?;
                    return Err(Refusal::new(429, "QUOTA_EXCEEDED", "the agreed number of messages a day is sent"));
                }
            }
            Put::There(there) if there.digest == letter.digest && there.client == letter.client => letter = there,
            Put::There(_) => {
                return Err(Refusal::new(422, "IDEMPOTENCY_KEY_REUSED", "this Idempotency-Key has another request"));
            }
        }
        let rank = match letter.category {
            Some(Category::Promotion) => 3,
            _ => terms.rank,
        };
        self.enqueue(&id, &letter, &parts, (letter.at + validity, rank), push.digest()).await?;
        Ok(Accepted {
            msg_id: id,
            timestamp: timestamp(letter.at),
            recipients: letter.to.iter().map(|to| AcceptedFor { to: *to, segments: letter.segments }).collect(),
        })
    }

    async fn enqueue(
        &self,
        id: &str,
        letter: &Letter,
        parts: &[Part],
        (expires_at, rank): (i64, u8),
        digest: u64,
    ) -> Result<(), Refusal> {
        let (client, reqid): (Arc<str>, Arc<str>) = (letter.client.as_str().into(), id.into());
        let all: Vec<_> = letter
            .to
            .iter()
            .map(|msn| {
                let (done, enqueued) = answer();
                let origin = Origin {
                    client: client.clone(),
                    msn: *msn,
                    reqid: reqid.clone(),
                    expires_at,
                    rank,
                    flags: Origin::NOTIFY,
                    parts: parts.len() as u8,
                };
                self.parts.queue.enqueue(Request { origin, digest, not_before: 0, parts: parts.to_vec() }, done);
                enqueued
            })
            .collect();
        for enqueued in all {
            match enqueued.await? {
                Enqueued::New(_) | Enqueued::Again(_) => {}
                Enqueued::Other => return Err(Refusal::new(500, "INTERNAL", "the message's name is taken")),
            }
        }
        Ok(())
    }

    pub async fn show(&self, client: &ApiClient, id: &str) -> Result<Shown, Refusal> {
        let letter = self.letter(client, id).await?;
        let all: Vec<_> = letter
            .to
            .iter()
            .map(|msn| {
                let (done, found) = answer();
                self.parts.queue.find(key(&letter, *msn, id), done);
                (*msn, found)
            })
            .collect();
        let mut recipients = Vec::with_capacity(all.len());
        for (to, found) in all {
            recipients.extend(found.await?.map(|status| shown(to, &status)));
        }
        // Asked for, and never accepted; or forgotten.
        if recipients.is_empty() {
            return Err(Refusal::not_found("message"));
        }
        Ok(Shown {
            msg_id: id.to_owned(),
            timestamp: timestamp(letter.at),
            from: Some(letter.from).filter(|f| !f.is_empty()),
            category: letter.category,
            recipients,
        })
    }

    /// Asks for a message back, from every recipient. `now`: unix milliseconds.
    pub async fn cancel(&self, client: &ApiClient, id: &str, now: i64) -> Result<Withdrawn, Refusal> {
        let letter = self.letter(client, id).await?;
        let all: Vec<_> = letter
            .to
            .iter()
            .map(|msn| {
                let (done, cancelled) = answer();
                self.parts.queue.cancel(key(&letter, *msn, id), now, done);
                (*msn, cancelled)
            })
            .collect();
        let mut recipients = Vec::with_capacity(all.len());
        let (mut taken, mut again) = (false, false);
        for (to, cancelled) in all {
            let cancellation = match cancelled.await? {
                Cancel::Unknown => continue,
                Cancel::Taken => "ACCEPTED",
                Cancel::Partly => "PART_DELIVERED",
                Cancel::Over => "OVER",
                Cancel::Again => "REPEATED",
            };
            taken |= matches!(cancellation, "ACCEPTED" | "PART_DELIVERED");
            again |= cancellation == "REPEATED";
            recipients.push(WithdrawnFor { to, cancellation });
        }
        match (recipients.is_empty(), taken, again) {
            (true, ..) => Err(Refusal::not_found("message")),
            (_, true, _) => Ok(Withdrawn { msg_id: id.to_owned(), recipients }),
            (_, _, true) => Err(Refusal::new(409, "CONFLICT", "the message was cancelled before")),
            _ => Err(Refusal::new(409, "CONFLICT", "the message is over for every recipient")),
        }
    }

    async fn letter(&self, client: &ApiClient, id: &str) -> Result<Letter, Refusal> {
        let letter = if id.len() == NAME { self.letters.get(id).await? } else { None };
        // Another client's is no business of this one's, not even that it is there.
        letter.filter(|l| l.client == client.name()).ok_or_else(|| Refusal::not_found("message"))
    }

    fn terms(&self, client: &ApiClient, now: i64) -> Result<Terms, Refusal> {
        if client.xpid.is_empty() {
            let rate = (client.name(), client.rate);
            return Ok(Terms { contract: None, segmentation: true, rank: client.priority.min(3), rate });
        }
        let contract = self.parts.registry.push_client(&client.xpid);
        let contract = contract.filter(|c| c.is_served(now / 1_000));
        let contract = contract.ok_or_else(|| Refusal::denied("the contract is not served now"))?;
        Ok(Terms {
            segmentation: contract.segmentation,
            rank: contract.rank.min(3),
            rate: (contract.xpid.clone(), contract.rate),
            contract: Some(contract),
        })
    }
}

/// Whether the agreement has the recipients and the sender; the originating address, empty for the link's own.
fn may(client: &ApiClient, terms: &Terms, to: &[Msisdn], from: Option<&str>) -> Result<String, Refusal> {
    let agreed = |number: &Msisdn| match &terms.contract {
        Some(contract) => contract.numbers.contains(number),
        None => {
            let text = number.to_string();
            client.destinations.iter().any(|d| text.starts_with(d.as_str()))
        }
    };
    if let Some(n) = to.iter().position(|number| !agreed(number)) {
        return Err(Refusal::denied(format!("to[{n}]: not in the agreement")));
    }
    match from {
        None => Ok(client.senders.first().cloned().unwrap_or_default()),
        Some(from) if client.senders.iter().any(|s| s == from) => Ok(from.to_owned()),
        Some(_) => Err(Refusal::denied("from: not in the agreement")),
    }
}

/// The name that an Idempotency-Key gives a message of a client.
fn named(client: &str, key: &str) -> Result<String, Refusal> {
    if !(1..=MAX_KEY).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Err(Refusal::argument(format!("Idempotency-Key: must be 1 to {MAX_KEY} printable characters")));
    }
    let mut hash = Sha256::new();
    for part in ["isthmus short message", "\0", client, "\0", key] {
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let (first, _) = digest.split_at(16);
    Ok(uuid(first.iter().fold(0, |n, b| n << 8 | u128::from(*b)), 8))
}

/// Longest Idempotency-Key.
const MAX_KEY: usize = 255;
/// Length of a message's name.
const NAME: usize = 36;

fn key(letter: &Letter, msn: Msisdn, id: &str) -> RequestKey {
    RequestKey { client: letter.client.as_str().into(), msn, reqid: id.into() }
}

fn shown(to: Msisdn, status: &Status) -> ShownFor {
    let segments = &status.segments;
    let is = |state: State| segments.iter().any(|s| s.0 == state);
    let delivered = segments.iter().filter(|s| s.0 == State::Delivered).count();
    // As notifications have it: of the first segment that did not arrive, a cancelled one last.
    let worst = segments.iter().filter(|s| s.0.is_final() && s.0 != State::Delivered);
    let worst = worst.min_by_key(|s| s.0 == State::Cancelled);
    let state = if segments.iter().all(|s| s.0.is_final()) {
        worst.map_or(State::Delivered, |s| s.0)
    } else if is(State::Cancelling) {
        State::Cancelling
    } else if is(State::Sent) {
        State::Sent
    } else {
        State::Queued
    };
    ShownFor {
        to,
        status: match state {
            State::Queued | State::Deferred | State::Scheduled => "QUEUED",
            State::Sent => "SENT",
            State::Cancelling => "CANCELLING",
            State::Delivered => "DELIVERED",
            State::Failed => "FAILED",
            State::Expired => "EXPIRED",
            State::Cancelled => "CANCELLED",
        },
        segments: segments.len() as u8,
        delivered: delivered as u8,
        reason: reason(worst.map_or(Verdict::DELIVERED, |s| s.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::SegmentId;

    #[test]
    fn a_key_names_one_message_of_one_client() {
        assert_eq!(named("api:a", "k").unwrap(), named("api:a", "k").unwrap());
        assert_ne!(named("api:a", "k").unwrap(), named("api:b", "k").unwrap());
        assert_eq!(named("api:a", "k").unwrap().len(), NAME);
        assert!(
            named("api:a", "").is_err() && named("api:a", "\u{e9}").is_err() && named("a", &"x".repeat(256)).is_err()
        );
    }

    #[test]
    fn a_message_is_as_its_segments_are() {
        let of = |segments: &[(State, u16)]| {
            let origin = Origin {
                client: "api:a".into(),
                msn: "+819012345678".parse().unwrap(),
                reqid: "r".into(),
                expires_at: 0,
                rank: 0,
                flags: 0,
                parts: segments.len() as u8,
            };
            let segments = segments.iter().map(|(s, v)| (*s, Verdict(*v))).collect();
            let status = Status { id: SegmentId(0), origin: Arc::new(origin), accepted_at: 0, done_at: 0, segments };
            let shown = shown(status.origin.msn, &status);
            (shown.status, shown.delivered, shown.reason)
        };
        assert_eq!(of(&[(State::Queued, 0), (State::Deferred, 0)]), ("QUEUED", 0, None));
        assert_eq!(of(&[(State::Delivered, 0), (State::Sent, 0)]), ("SENT", 1, None));
        assert_eq!(of(&[(State::Delivered, 0), (State::Delivered, 0)]), ("DELIVERED", 2, None));
        assert_eq!(of(&[(State::Cancelled, 1), (State::Failed, 6003)]), ("FAILED", 0, Some("REJECTED")));
        assert_eq!(of(&[(State::Cancelling, 0), (State::Sent, 0)]), ("CANCELLING", 0, None));
        assert_eq!(of(&[(State::Delivered, 0), (State::Cancelled, 1)]), ("CANCELLED", 1, Some("CANCELLED")));
        assert_eq!(of(&[(State::Failed, 6011)]), ("FAILED", 0, Some("ROAMING")));
    }

    #[test]
    fn only_what_was_agreed_goes_out() {
        let client = ApiClient {
            id: "crm".into(),
            destinations: vec!["+81".into()],
            senders: vec!["Fleet".into(), "5555".into()],
            ..ApiClient::default()
        };
        let terms = |contract| Terms { contract, segmentation: true, rank: 2, rate: (String::new(), 0) };
        let number = |text: &str| [text.parse::<Msisdn>().unwrap()];
        let try_it = |to: &str, from| may(&client, &terms(None), &number(to), from).map_err(|r| r.message);
        assert_eq!(try_it("+819012345678", None).unwrap(), "Fleet");
        assert_eq!(try_it("+819012345678", Some("5555")).unwrap(), "5555");
        assert!(try_it("+819012345678", Some("Bank")).unwrap_err().starts_with("from"));
        assert!(try_it("+491701234567", None).unwrap_err().starts_with("to[0]"));
        let contract = PushClient { numbers: [number("+491701234567")[0]].into(), ..PushClient::default() };
        let terms = terms(Some(Arc::new(contract)));
        assert!(may(&client, &terms, &number("+491701234567"), None).is_ok());
        assert!(may(&client, &terms, &number("+819012345678"), None).is_err());
        assert!(may(&ApiClient::default(), &terms, &number("+491701234567"), Some("5555")).is_err());
    }
}
