//! A user's own presence document (RFC 4827): one more publication, that does not end by itself.

use std::sync::Arc;

use sip_ims::ports::Document;

use crate::book::{MANIPULATED, owner_of};
use crate::document::Published;
use crate::server::Presence;

impl Presence {
    /// A document of a usage is this now, or gone; those of others are passed by. One that does not read publishes nothing.
    pub fn manipulate(&self, usage: &str, key: &str, document: Option<&Document>) {
        let Some(owner) = owner_of(key).filter(|_| usage == MANIPULATED) else { return };
        let read = document.and_then(|document| {
            let published = Published::parse(&document.body, document.body.len());
            published.inspect_err(|error| tracing::warn!(%error, "a stored presence document does not read")).ok()
        });
        let mut shard = self.shard(owner.as_str());
        {
            let (p, _) = shard.entry(&owner);
            if p.content().manipulated.as_deref() != read.as_ref() {
                p.content().manipulated = read.map(Arc::new);
                p.touch(false);
                self.enqueue(&owner, p);
            }
        }
        shard.tidy(owner.as_str());
    }
}
