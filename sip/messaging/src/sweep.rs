//! The sweep: what expired is accounted for and dropped, and the store is asked for whom messages wait.

use std::collections::HashSet;

use sip_ims::ports::{MessageId, StoreError};
use sip_ims::service::NoteEvent;
use sip_ims::{Aor, answer};

use crate::counts::add;
use crate::letter::Letter;
use crate::round::Rounds;

impl Rounds {
    /// Drops what expired. With `look`, asks the store anew for whom messages wait: at the start, and now and then, since
    /// other nodes keep messages too. Gives those among them who are news and have a binding.
    pub async fn clean(&self, look: bool) -> Vec<Aor> {
        if let Err(error) = self.drop_expired().await {
            tracing::warn!(%error, "expired messages could not be dropped");
        }
        let mut there = Vec::new();
        if look && let Err(error) = self.look(&mut there).await {
            tracing::warn!(%error, "the users that messages wait for could not be read");
        }
        there
    }

    async fn drop_expired(&self) -> Result<(), StoreError> {
        let now = self.unix_now();
        let mut after = MessageId(0);
        loop {
            let (done, page) = answer();
            self.queue.overdue(now, after, EXPIRED_PAGE, done);
            let page = page.await?;
            let Some(last) = page.last() else { break };
            after = last.0;
            for (id, queued) in &page {
                self.memory.lock().forget(*id);
                if let Ok(letter) = Letter::read(&queued.body) {
                    self.note(&letter, NoteEvent::MessageExpired, 0);
                    self.tell_failed(&letter).await;
                }
            }
        }
        if after == MessageId(0) {
            return Ok(());
        }
        let (done, gone) = answer();
        self.queue.expire(now, done);
        add(&self.counts.expired, gone.await?);
        Ok(())
    }

    async fn look(&self, there: &mut Vec<Aor>) -> Result<(), StoreError> {
        let seen = self.waiting.stamp();
        let mut found = HashSet::new();
        let mut after = String::new();
        loop {
            let (done, page) = answer();
            self.queue.addressees(&after, LOOK_PAGE, done);
            let page = page.await?;
            let Some(last) = page.last() else { break };
            after = last.as_str().to_owned();
            for aor in page {
                let new = !self.waiting.contains(aor.as_str()) && self.waiting.add(&aor);
                if new && self.is_there(&aor) {
                    there.push(aor.clone());
                }
                found.insert(aor);
            }
        }
        self.waiting.keep_only(&found, seen);
        Ok(())
    }
}

const EXPIRED_PAGE: u32 = 32;
const LOOK_PAGE: u32 = 1000;
