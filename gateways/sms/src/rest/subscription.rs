//! Who wants to be told how messages ended: CAMARA's sms-delivery-notification-subscription.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sip_ims::ports::{Documents, Expect, StoreError, Version};

use super::shelf::Shelf;
use super::{Refusal, read, timestamp, uuid};
use crate::billing::unix_seconds;

/// The only type of event that is subscribed to.
pub const DELIVERY_STATUS: &str = "org.camaraproject.sms.v0.sms-delivery-status";

/// Subscriptions of one client.
pub const MAX_SUBSCRIPTIONS: usize = 10;

/// One subscription as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub struct Subscription {
    pub id: String,
    /// The client's name in the queue.
    pub client: String,
    /// Messages sent as this; `None`: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    pub url: String,
    /// Sent as a Bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// `whsec_` and base64: the key of the signatures.
    pub secret: String,
    /// Unix milliseconds.
    pub starts_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_events: Option<u32>,
    /// Told so far; counted only where there is a most.
    #[serde(default)]
    pub events: u32,
}

impl Subscription {
    pub fn is_over(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// CAMARA's `SubscriptionInfo`.
    pub fn shown(&self) -> Value {
        let mut shown = json!({
            "subscriptionId": self.id,
            // Both are required by the draft's schema, which has no such properties.
            "eventSubscriptionId": self.id,
            "type": DELIVERY_STATUS,
            "subscriptionDetail": { "type": DELIVERY_STATUS },
            "webhook": { "notificationUrl": self.url },
            "startsAt": timestamp(self.starts_at),
        });
        if let Some(sender) = &self.sender {
            shown["subscriptionDetail"]["senderId"] = sender.as_str().into();
        }
        if let Some(at) = self.expires_at {
            shown["subscriptionExpireTime"] = timestamp(at).into();
            shown["expiresAt"] = timestamp(at).into();
        }
        if let Some(most) = self.max_events {
            shown["subscriptionMaxEvents"] = most.into();
        }
        shown
    }

    fn key(&self) -> String {
        key(&self.client, &self.id)
    }
}

/// Ids of clients have no blanks, so those of one stand together.
fn key(client: &str, id: &str) -> String {
    format!("{client} {id}")
}

/// Says what is wrong with a URL that is to be told things, before anything is sent there.
pub type CheckUrl = Arc<dyn Fn(&str) -> Result<(), &'static str> + Send + Sync>;

/// Every subscription.
pub struct Subscriptions {
    shelf: Shelf<Subscription>,
    check: CheckUrl,
    random: Arc<dyn Fn() -> u128 + Send + Sync>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Create {
    subscription_detail: Detail,
    #[serde(default)]
    subscription_expire_time: Option<String>,
    #[serde(default)]
    subscription_max_events: Option<i64>,
    webhook: Webhook,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Detail {
    #[serde(default)]
    sender_id: Option<String>,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Webhook {
    notification_url: String,
    #[serde(default)]
    notification_auth_token: Option<String>,
}

impl Subscriptions {
    pub fn new(
        documents: Arc<dyn Documents>,
        check: CheckUrl,
        random: Arc<dyn Fn() -> u128 + Send + Sync>,
    ) -> Subscriptions {
        Subscriptions { shelf: Shelf::new(documents, "sms_subscription"), check, random }
    }

    /// Takes a subscription of a client's. `now`: unix milliseconds.
    pub async fn create(&self, client: &str, body: &[u8], now: i64) -> Result<Subscription, Refusal> {
        let made = self.read(client, body, now)?;
        if self.of(client).await?.len() >= MAX_SUBSCRIPTIONS {
            return Err(Refusal::new(409, "CONFLICT", format!("there are {MAX_SUBSCRIPTIONS} subscriptions already")));
        }
        self.shelf.put(&made.key(), Expect::Absent, &made).await?;
        Ok(made)
    }

    fn read(&self, client: &str, body: &[u8], now: i64) -> Result<Subscription, Refusal> {
        let Create { subscription_detail, subscription_expire_time, subscription_max_events, webhook } = read(body)?;
        if subscription_detail.r#type != DELIVERY_STATUS {
            return Err(Refusal::argument(format!("subscriptionDetail.type: must be {DELIVERY_STATUS}")));
        }
        let url = webhook.notification_url;
        (self.check)(&url).map_err(|why| Refusal::argument(format!("webhook.notificationUrl: {why}")))?;
        let token = webhook.notification_auth_token.filter(|t| !t.is_empty());
        // RFC 6750 §2.1.
        let fits = |t: &String| t.len() <= 4_096 && t.bytes().all(|b| b.is_ascii_graphic());
        if !token.as_ref().is_none_or(fits) || subscription_detail.sender_id.as_ref().is_some_and(|s| s.len() > 64) {
            return Err(Refusal::argument("webhook.notificationAuthToken or senderId: too long, or not printable"));
        }
        let expires_at = match subscription_expire_time {
            None => None,
            Some(text) => match unix_seconds(&text).map(|s| s.saturating_mul(1_000)) {
                Some(at) if at > now => Some(at),
                Some(_) => return Err(Refusal::argument("subscriptionExpireTime: is over")),
                None => return Err(Refusal::argument("subscriptionExpireTime: not a time of RFC 3339")),
            },
        };
        let max_events = match subscription_max_events {
            None | Some(-1) => None,
            Some(n) => Some(
                u32::try_from(n)
                    .ok()
                    .filter(|n| *n > 0)
                    .ok_or_else(|| Refusal::argument("subscriptionMaxEvents: must be 1 or more, or -1"))?,
            ),
        };
        let key: [u8; 32] = std::array::from_fn(|_| (self.random)() as u8);
        Ok(Subscription {
            id: uuid((self.random)(), 4),
            client: client.to_owned(),
            sender: subscription_detail.sender_id,
            url,
            token,
            secret: format!("whsec_{}", BASE64_STANDARD.encode(key)),
            starts_at: now,
            expires_at,
            max_events,
            events: 0,
        })
    }

    /// A client's.
    pub async fn of(&self, client: &str) -> Result<Vec<Subscription>, StoreError> {
        let found = self.shelf.list(&key(client, ""), MAX_SUBSCRIPTIONS as u32 * 2).await?;
        Ok(found.into_iter().map(|f| f.1).take_while(|s| s.client == client).collect())
    }

    pub async fn get(&self, client: &str, id: &str) -> Result<Subscription, Refusal> {
        let found = self.shelf.get(&key(client, id)).await?;
        found.map(|f| f.0).ok_or_else(|| Refusal::not_found("subscription"))
    }

    pub async fn remove(&self, client: &str, id: &str) -> Result<(), Refusal> {
        self.get(client, id).await?;
        Ok(self.shelf.delete(&key(client, id)).await?)
    }

    /// Counts an event that was told. True: it was the last one.
    pub async fn told(&self, subscription: &Subscription) -> Result<bool, StoreError> {
        let Some(most) = subscription.max_events else { return Ok(false) };
        loop {
            let Some((mut there, version)): Option<(Subscription, Version)> =
                self.shelf.get(&subscription.key()).await?
            else {
                return Ok(false);
            };
            there.events += 1;
            match self.shelf.put(&subscription.key(), Expect::Version(version), &there).await {
                Ok(_) => return Ok(there.events >= most),
                // Another event was counted meanwhile.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Those that have run out, taken away: their clients are to be told so.
    pub async fn take_over(&self, now: i64) -> Result<Vec<Subscription>, StoreError> {
        let (mut over, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.shelf.list(&after, 500).await?;
            let Some(last) = page.last() else { return Ok(over) };
            after.clone_from(&last.0);
            for (key, subscription, _) in page {
                if subscription.is_over(now) {
                    self.shelf.delete(&key).await?;
                    over.push(subscription);
                }
            }
        }
    }
}
