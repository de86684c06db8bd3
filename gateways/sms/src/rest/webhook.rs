//! Telling developers: CloudEvents by POST to their subscriptions' addresses, signed as Standard Webhooks has it.
//!
//! ```text
//! webhook-id:        the event's id; the same when it is sent again
//! webhook-timestamp: unix seconds of this attempt
//! webhook-signature: v1,base64(HMAC-SHA256(key, id "." timestamp "." body))      key: what stands behind whsec_, base64
//! ```

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::Sha256;
use sip_ims::ports::StoreError;

use super::letter::Letters;
use super::subscription::{DELIVERY_STATUS, Subscription, Subscriptions};
use super::{reason, timestamp};
use crate::notice::{Poster, Teller, Told};
use crate::queue::{Notice, Verdict};

const ENDS: &str = "org.camaraproject.sms.v0.subscription-ends";

/// Tells API clients, at their subscriptions' addresses.
#[derive(Clone)]
pub struct ApiTeller(Arc<Inner>);

struct Inner {
    subscriptions: Arc<Subscriptions>,
    letters: Arc<Letters>,
    poster: Arc<dyn Poster>,
    /// Unix milliseconds.
    clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// By notice: the subscriptions that have taken it, while others have not. As many as notices are tried again.
    taken: Mutex<HashMap<i64, Vec<String>>>,
}

impl ApiTeller {
    pub fn new(
        subscriptions: Arc<Subscriptions>,
        letters: Arc<Letters>,
        poster: Arc<dyn Poster>,
        clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    ) -> ApiTeller {
        ApiTeller(Arc::new(Inner { subscriptions, letters, poster, clock, taken: Mutex::default() }))
    }

    /// Ends subscriptions whose time is over, and says so. Once, to each: whoever does not answer has had its time.
    pub async fn end_subscriptions(&self) -> Result<(), StoreError> {
        for over in self.0.subscriptions.take_over((self.0.clock)()).await? {
            self.0.ended(&over, "", "SUBSCRIPTION_EXPIRED").await;
        }
        Ok(())
    }
}

impl Teller for ApiTeller {
    fn tell(&self, notice: &Notice) -> Pin<Box<dyn Future<Output = Told> + Send>> {
        let (inner, notice) = (self.0.clone(), notice.clone());
        Box::pin(async move {
            match inner.tell(&notice).await {
                Ok(told) => {
                    if told != Told::No {
                        inner.taken.lock().remove(&notice.id.0);
                    }
                    told
                }
                Err(error) => {
                    tracing::warn!(%error, "subscriptions are not read");
                    Told::Absent
                }
            }
        })
    }
}

impl Inner {
    async fn tell(&self, notice: &Notice) -> Result<Told, StoreError> {
        let all = self.subscriptions.of(&notice.client).await?;
        if all.is_empty() {
            return Ok(Told::Gone);
        }
        let now = (self.clock)();
        let from = self.letters.get(&notice.reqid).await?.map(|letter| letter.from).unwrap_or_default();
        let wants = |s: &&Subscription| !s.is_over(now) && s.sender.as_ref().is_none_or(|sender| *sender == from);
        let mut taken = self.taken.lock().get(&notice.id.0).cloned().unwrap_or_default();
        let mut told = if taken.is_empty() { Told::Gone } else { Told::Yes };
        for subscription in all.iter().filter(wants) {
            if taken.contains(&subscription.id) {
                continue;
            }
            if self.post(subscription, &event(notice, subscription)).await {
                taken.push(subscription.id.clone());
                if told == Told::Gone {
                    told = Told::Yes;
                }
                if self.subscriptions.told(subscription).await? {
                    // Whoever deletes it meanwhile wants the same.
                    let _ = self.subscriptions.remove(&subscription.client, &subscription.id).await;
                    self.ended(subscription, &notice.reqid, "MAX_EVENTS_REACHED").await;
                }
            } else {
                told = Told::No;
            }
        }
        if told == Told::No && !taken.is_empty() {
            self.taken.lock().insert(notice.id.0, taken);
        }
        Ok(told)
    }

    async fn ended(&self, subscription: &Subscription, msg_id: &str, reason: &str) {
        let data = json!({ "msgId": msg_id, "terminationReason": reason, "subscriptionId": subscription.id });
        let id = format!("end-{}", subscription.id);
        let event = cloud_event(&id, ENDS, &subscription.id, (self.clock)(), &data);
        self.post(subscription, &(id, event)).await;
    }

    async fn post(&self, subscription: &Subscription, (id, event): &(String, Value)) -> bool {
        let body = event.to_string().into_bytes();
        let at = ((self.clock)() / 1_000).to_string();
        let mut headers = vec![
            ("content-type", "application/cloudevents+json".to_owned()),
            ("webhook-id", id.clone()),
            ("webhook-signature", sign(&subscription.secret, id, &at, &body)),
            ("webhook-timestamp", at),
        ];
        if let Some(token) = &subscription.token {
            headers.push(("authorization", format!("Bearer {token}")));
        }
        let status = self.poster.post(&subscription.url, headers, body).await;
        status.is_some_and(|s| (200..300).contains(&s))
    }
}

fn event(notice: &Notice, subscription: &Subscription) -> (String, Value) {
    let status = if notice.verdict == Verdict::DELIVERED { "SUCCESS" } else { "FAIL" };
    let mut data = json!({
        "msgId": &*notice.reqid,
        "subscriptionId": subscription.id,
        "status": status,
        "to": notice.msn.to_string(),
        "segments": notice.parts,
        "delivered": notice.delivered,
    });
    if let Some(reason) = reason(notice.verdict) {
        data["reason"] = reason.into();
    }
    let id = format!("{:016x}-{}", notice.id.0, subscription.id);
    let event = cloud_event(&id, DELIVERY_STATUS, &notice.reqid, notice.done_at, &data);
    (id, event)
}

fn cloud_event(id: &str, kind: &str, subject: &str, at: i64, data: &Value) -> Value {
    json!({
        "id": id,
        "source": "/sms/v1/messages",
        "type": kind,
        "specversion": "1.0",
        "subject": subject,
        "datacontenttype": "application/json",
        "time": timestamp(at),
        "data": data,
    })
}

/// The value of `webhook-signature`.
pub fn sign(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    // We made the secret: it is base64, and HMAC takes a key of any length.
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).unwrap_or_default();
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return String::new() };
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification.
    #[test]
    fn a_signature_is_the_specifications() {
        let signature = sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
