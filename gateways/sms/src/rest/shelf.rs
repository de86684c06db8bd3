//! One collection of documents of one type, as JSON.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sip_ims::answer;
use sip_ims::ports::{Document, Documents, Expect, StoreError, Version};

pub(super) struct Shelf<T> {
    documents: Arc<dyn Documents>,
    collection: &'static str,
    holds: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Shelf<T> {
    pub fn new(documents: Arc<dyn Documents>, collection: &'static str) -> Shelf<T> {
        Shelf { documents, collection, holds: PhantomData }
    }

    pub async fn get(&self, key: &str) -> Result<Option<(T, Version)>, StoreError> {
        let (done, found) = answer();
        self.documents.get(self.collection, key, done);
        found.await?.map(read).transpose().map(|found| found.map(|(_, value, version)| (value, version)))
    }

    /// `Conflict` if `expect` does not hold.
    pub async fn put(&self, key: &str, expect: Expect, value: &T) -> Result<Version, StoreError> {
        let body = serde_json::to_vec(value).map_err(StoreError::engine)?;
        let (done, put) = answer();
        self.documents.put(self.collection, key, expect, body, done);
        put.await
    }

    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let (done, gone) = answer();
        self.documents.delete(self.collection, key, Expect::Anything, done);
        gone.await
    }

    /// Those behind `after`, by key.
    pub async fn list(&self, after: &str, limit: u32) -> Result<Vec<(String, T, Version)>, StoreError> {
        let (done, found) = answer();
        self.documents.list(self.collection, after, limit, done);
        found.await?.into_iter().map(read).collect()
    }

    /// Takes away what `over` says, a page at a time.
    pub async fn purge(&self, over: impl Fn(&T) -> bool) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let page = self.list(&after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.0);
            for (key, value, _) in page {
                if over(&value) {
                    self.delete(&key).await?;
                }
            }
        }
    }
}

fn read<T: DeserializeOwned>(document: Document) -> Result<(String, T, Version), StoreError> {
    let value = serde_json::from_slice(&document.body).map_err(|_| StoreError::Damaged)?;
    Ok((document.key, value, document.version))
}

const PAGE: u32 = 500;
