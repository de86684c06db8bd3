//! Messages as they were asked for: for whom, and how to tell the same request from another. Where each stands is the queue's to say.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sip_ims::Msisdn;
use sip_ims::ports::{Documents, Expect, StoreError};

use super::request::Category;
use super::shelf::Shelf;

/// One message and its recipients.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The sender's name in the queue.
    pub client: String,
    pub to: Vec<Msisdn>,
    /// Empty: the link's own.
    pub from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// Unix milliseconds: asked at, and remembered until.
    pub at: i64,
    pub until: i64,
    /// Of the whole request.
    pub digest: String,
    /// Of each recipient's.
    pub segments: u8,
}

/// Every message that is remembered, by its name.
pub struct Letters(Shelf<Letter>);

/// What became of [`Letters::put`].
pub enum Put {
    New,
    /// Another one has that name already.
    There(Letter),
}

impl Letters {
    pub fn new(documents: Arc<dyn Documents>) -> Letters {
        Letters(Shelf::new(documents, "sms_letter"))
    }

    /// Is on disk when this is done.
    pub async fn put(&self, id: &str, letter: &Letter) -> Result<Put, StoreError> {
        match self.0.put(id, Expect::Absent, letter).await {
            Ok(_) => Ok(Put::New),
            Err(StoreError::Conflict) => Ok(match self.get(id).await? {
                Some(there) => Put::There(there),
                // Taken away in between.
                None => return Err(StoreError::Conflict),
            }),
            Err(error) => Err(error),
        }
    }

    pub async fn get(&self, id: &str) -> Result<Option<Letter>, StoreError> {
        Ok(self.0.get(id).await?.map(|found| found.0))
    }

    pub async fn remove(&self, id: &str) -> Result<(), StoreError> {
        self.0.delete(id).await
    }

    /// Forgets what nobody asks for any more. `now`: unix milliseconds.
    pub async fn purge(&self, now: i64) -> Result<(), StoreError> {
        self.0.purge(|letter| letter.until < now).await
    }
}
