//! Whose the URIs of services are: one document's on the whole server (RFC 4826 §4.4.5).
//!
//! A document claims the URIs that it brings before it is stored, a row each, so that of two nodes one wins; and gives back what it has no
//! more. A claim that its owner did not come to use, because its node died, is void after a minute.

use std::time::{SystemTime, UNIX_EPOCH};

use sip_ims::answer;
use sip_ims::ports::{Document, Expect, StoreError};
use sip_presence::rules::canonical;
use sip_xcap::usage::rls_services;
use sip_xcap::{Conflict, Exists, Text};

use super::{No, Seat, Xcap};

/// The collection of claims, by URI.
const CLAIMS: &str = "rls-services.uri";
/// Seconds for which a claim holds that no document backs.
const GRACE: u64 = 60;
/// Other URIs that are suggested, and how many are tried for each.
const SUGGESTED: usize = 3;
const TRIED: usize = 20;

impl Xcap {
    /// Makes the URIs that a document brings its own, or says which are others'.
    pub(super) async fn claim(&self, seat: &Seat, old: &[u8], new: &Text) -> Result<(), No> {
        if seat.usage.auid != rls_services::AUID {
            return Ok(());
        }
        let before = uris_of(old);
        let mut taken = Vec::new();
        for (uri, field) in rls_services::uris(new) {
            let uri = canonical(uri);
            if before.contains(&uri) {
                continue;
            }
            if !self.is_free_of_others(seat, &uri) || !self.take(seat, &uri).await? {
                let alternatives = self.alternatives(seat, &uri).await?;
                taken.push(Exists { field, alternatives });
            }
        }
        if taken.is_empty() { Ok(()) } else { Err(Conflict::Uniqueness(taken).into()) }
    }

    /// Gives back what a document had and has no more. What cannot be given back now is void later.
    pub(super) async fn release(&self, auid: &str, key: &str, old: &[u8], new: Option<&Text>) {
        if auid != rls_services::AUID {
            return;
        }
        let kept: Vec<Box<str>> =
            new.map(|t| rls_services::uris(t).iter().map(|(u, _)| canonical(u)).collect()).unwrap_or_default();
        for uri in uris_of(old).into_iter().filter(|uri| !kept.contains(uri)) {
            if let Ok(Some(claim)) = self.claim_of(&uri).await
                && owner(&claim).is_some_and(|(claimed, _)| claimed == key)
            {
                let (done, gone) = answer();
                self.parts.documents.delete(CLAIMS, &uri, Expect::Version(claim.version), done);
                let _ = gone.await;
            }
        }
    }

    /// No user's address, not the one that takes lists, and no list of a document that was stored without a claim.
    fn is_free_of_others(&self, seat: &Seat, uri: &str) -> bool {
        let Some(Ok(aor)) = uri.strip_prefix("sip:").map(str::parse::<sip_ims::Aor>) else { return true };
        let others = self.parts.presence.as_ref().is_some_and(|presence| {
            let list = presence.lists().list(&aor);
            presence.takes_lists(&aor) || list.is_some_and(|list| list.owner != seat.owner.aor)
        });
        !others && self.parts.directory.by_aor(aor.as_str()).is_none()
    }

    /// True: the URI is the document's now.
    async fn take(&self, seat: &Seat, uri: &str) -> Result<bool, StoreError> {
        for _ in 0..super::ATTEMPTS {
            let expect = match self.claim_of(uri).await? {
                None => Expect::Absent,
                Some(claim) => {
                    let (key, at) = owner(&claim).unwrap_or_default();
                    if key != seat.key && (at + GRACE > now() || self.backs(key, uri).await?) {
                        return Ok(false);
                    }
                    Expect::Version(claim.version)
                }
            };
            let (done, claimed) = answer();
            // Written anew even when it was its own: whoever thinks it void just now loses.
            self.parts.documents.put(CLAIMS, uri, expect, format!("{} {}", now(), seat.key).into_bytes(), done);
            match claimed.await {
                Ok(_) => return Ok(true),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    async fn claim_of(&self, uri: &str) -> Result<Option<Document>, StoreError> {
        let (done, found) = answer();
        self.parts.documents.get(CLAIMS, uri, done);
        found.await
    }

    /// Whether a document has the URI.
    async fn backs(&self, key: &str, uri: &str) -> Result<bool, StoreError> {
        let (done, found) = answer();
        self.parts.documents.get(rls_services::AUID, key, done);
        Ok(found.await?.is_some_and(|d| uris_of(&d.body).iter().any(|u| **u == *uri)))
    }

    /// URIs like that which nobody has (RFC 4825 §11.1).
    async fn alternatives(&self, seat: &Seat, uri: &str) -> Result<Vec<String>, StoreError> {
        let Some((user, domain)) = uri.split_once('@') else { return Ok(Vec::new()) };
        let mut free = Vec::new();
        for number in 2..2 + TRIED {
            let other = format!("{user}-{number}@{domain}");
            if self.is_free_of_others(seat, &other) && self.claim_of(&other).await?.is_none() {
                free.push(other);
            }
            if free.len() == SUGGESTED {
                break;
            }
        }
        Ok(free)
    }
}

fn uris_of(body: &[u8]) -> Vec<Box<str>> {
    let text = Text::read(body.to_vec());
    text.map(|t| rls_services::uris(&t).iter().map(|(uri, _)| canonical(uri)).collect()).unwrap_or_default()
}

/// Whose a claim is, and since when (unix seconds).
fn owner(claim: &Document) -> Option<(&str, u64)> {
    let (at, key) = std::str::from_utf8(&claim.body).ok()?.split_once(' ')?;
    Some((key, at.parse().ok()?))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
