//! PUBLISH (RFC 3903), from its first check to its answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sip_ims::Aor;
use sip_ims::ports::{StateChange, StateRow, StoreError};
use sip_ims::service::{Caller, Request, Step, Transaction, Verdict};
use sip_proto::build::Response;
use sip_proto::headers::{Event, MediaType, delta_seconds, list};
use sip_proto::subscription::Grant;
use sip_proto::{HeaderName, Message, edit};

use crate::config::Config;
use crate::counts::add;
use crate::document::Published;
use crate::presentity::Publication;
use crate::reply::{No, supported};
use crate::rows;
use crate::server::Presence;

/// What a PUBLISH asks for.
struct Wish {
    /// SIP-If-Match.
    etag: Option<u64>,
    /// 0: to end it.
    seconds: u32,
    document: Option<Arc<Published>>,
}

impl Presence {
    /// Takes what is published for users of the home domain.
    pub(crate) fn publish(&self, step: &mut Step<'_>, request: &Request<'_>) -> Verdict {
        // RFC 3903 §6: a GRUU names a device, and its presence is not ours.
        let Some(aor) = request.callee.as_ref().filter(|_| request.uri.gr().is_none()) else { return Verdict::Pass };
        match self.try_publish(step, request, aor) {
            Ok(()) => add(&self.counts.published),
            Err(no) => {
                add(&self.counts.not_published);
                no.reply(step, request);
            }
        }
        Verdict::Taken
    }

    fn try_publish(&self, step: &mut Step<'_>, request: &Request<'_>, aor: &Aor) -> Result<(), No> {
        let message = request.message;
        if request.profile.is_none() && !self.config.open {
            return Err(No::Status(404));
        }
        let event = message.value(HeaderName::Event).and_then(Event::parse);
        if event.is_none_or(|e| e.package != b"presence") {
            return Err(No::BadEvent);
        }
        let allowed = match &request.caller {
            Caller::Trusted => true,
            Caller::User(user) => user.aor == *aor,
            Caller::Foreign => self.config.open,
        };
        if !allowed {
            return Err(No::Status(403));
        }
        supported(message)?;
        let wish = self.wish(message)?;
        let handset = self.sender(aor.as_str(), request, step.unix);
        let mut shard = self.shard(aor.as_str());
        let result = {
            let (p, mut calendar) = shard.entry(aor);
            // RFC 3903 §6 step 4.
            let place = wish.etag.map(|etag| {
                let known = p.publications().iter().position(|b| b.etag == etag && b.expires_at > step.unix);
                known.ok_or(No::Status(412))
            });
            place.transpose().and_then(|place| {
                let full = p.publications().len() >= self.config.publications_per_user
                    || self.publications.load(Relaxed) >= self.config.publications;
                if place.is_none() && full && wish.seconds > 0 {
                    return Err(No::Busy);
                }
                let old = place.map(|i| p.publications()[i].clone());
                let new = Publication {
                    id: old.as_ref().map_or_else(|| self.draw(), |o| o.id),
                    etag: self.draw(),
                    expires_at: step.unix + u64::from(wish.seconds),
                    handset: handset.or(old.as_ref().and_then(|o| o.handset)),
                    document: match (&wish.document, &old) {
                        (Some(document), _) => document.clone(),
                        (None, Some(old)) => old.document.clone(),
                        // `wish` has made sure that there is one or the other.
                        (None, None) => return Err(No::Status(400)),
                    },
                };
                self.commit(step, request, aor, &new, wish.seconds)?;
                let same = old.as_ref().is_some_and(|o| o.document == new.document && wish.seconds > 0);
                match place {
                    Some(i) if same && wish.document.is_none() => p.content().publications[i] = new.clone(),
                    Some(i) => {
                        p.content().publications.remove(i);
                        if wish.seconds > 0 {
                            p.content().publications.push(new.clone());
                        } else {
                            self.publications.fetch_sub(1, Relaxed);
                        }
                    }
                    None if wish.seconds > 0 => {
                        p.content().publications.push(new.clone());
                        self.publications.fetch_add(1, Relaxed);
                    }
                    None => {}
                }
                if wish.seconds > 0 {
                    Presence::expect(&mut calendar, aor, p, new.expires_at);
                }
                if !same && (place.is_some() || wish.seconds > 0) {
                    p.touch(false);
                    if p.watched() > 0 || self.followers.follow(aor) {
                        self.enqueue(aor, p);
                    }
                }
                Ok(())
            })
        };
        shard.tidy(aor.as_str());
        result
    }

    /// What it asks for, in the order of RFC 3903 §6.
    fn wish(&self, message: &Message<'_>) -> Result<Wish, No> {
        let mut tags = message.values(HeaderName::SipIfMatch).flat_map(list);
        let etag = tags.next();
        if tags.next().is_some() {
            return Err(No::Because("Several SIP-If-Match".into()));
        }
        let etag = match etag {
            None => None,
            // One that is not of our making cannot be known.
            Some(tag) => {
                let text = std::str::from_utf8(tag).ok().filter(|t| t.len() == 16);
                Some(text.and_then(|t| u64::from_str_radix(t, 16).ok()).ok_or(No::Status(412))?)
            }
        };
        let asked = message.value(HeaderName::Expires).and_then(delta_seconds);
        let seconds = self.grant().seconds(asked).map_err(|brief| No::TooBrief(brief.min_expires))?;
        let body = message.body();
        let document = match body.is_empty() {
            true if etag.is_none() => return Err(No::Because("Nothing Published".into())),
            true => None,
            // What is taken back need not be read.
            false if seconds == 0 && etag.is_some() => None,
            false => {
                let media = message.value(HeaderName::ContentType).and_then(MediaType::parse);
                if !media.is_some_and(|m| m.is("application/pidf+xml")) {
                    return Err(No::MediaType);
                }
                if message.value(HeaderName::ContentEncoding).is_some_and(|e| !e.eq_ignore_ascii_case(b"identity")) {
                    return Err(No::Encoded);
                }
                if body.len() > self.config.max_document {
                    return Err(No::Status(413));
                }
                let document = Published::parse(body, self.config.max_document);
                Some(Arc::new(document.map_err(|error| No::Because(error.to_string()))?))
            }
        };
        Ok(Wish { etag, seconds, document })
    }

    pub(crate) fn grant(&self) -> Grant {
        let Config { min_expires: min, max_expires: max, default_expires: default, .. } = self.config;
        Grant { min, max, default }
    }

    /// Writes the row; the answer goes when it is in the store. With the presentity locked, so that rows are written in order.
    fn commit(
        &self,
        step: &mut Step<'_>,
        request: &Request<'_>,
        aor: &Aor,
        new: &Publication,
        seconds: u32,
    ) -> Result<(), No> {
        let transaction = step.defer(request).map_err(|_full| No::Busy)?;
        let key = Publication::row_key(new.id);
        let mut body = Vec::new();
        let change = match seconds {
            0 => StateChange::Remove { owner: aor.as_str(), key: &key },
            _ => {
                rows::write_publication(new, &mut body);
                let expires_at = new.expires_at as i64;
                StateChange::Put(StateRow {
                    owner: aor.as_str(),
                    key: &key,
                    node: &self.config.node,
                    expires_at,
                    body: &body,
                })
            }
        };
        let (me, owner, etag) = (self.me.clone(), aor.clone(), new.etag);
        let done = Box::new(move |result: Result<(), StoreError>| {
            if let Some(me) = me.upgrade() {
                me.published(transaction, &owner, etag, seconds, result);
            }
        });
        self.reading.touch(aor.as_str());
        let written = self.parts.store.write(change, Some(done));
        written.map_err(|error| {
            tracing::warn!(%error, "a publication could not be queued");
            // It has a transaction by now.
            self.refuse(step, request, transaction, &No::Busy);
            No::Answered
        })
    }

    /// Answers within the step, in the transaction.
    pub(crate) fn refuse(&self, step: &mut Step<'_>, request: &Request<'_>, transaction: Transaction, no: &No) {
        let (message, status) = (request.message, no.status());
        let tag = step.endpoint.local_tag(message.call_id().unwrap_or_default());
        let response = Response::to(message, status).source(request.flow.remote).tag(&tag);
        step.endpoint.respond(step.now, transaction.id, status, step.out, |b| response.write(b, |w| no.write(w)));
    }

    /// On the store's thread.
    fn published(&self, transaction: Transaction, aor: &Aor, etag: u64, seconds: u32, result: Result<(), StoreError>) {
        let Some(outlet) = self.outlet.get() else { return };
        match result {
            Ok(()) => outlet.answer(transaction, 200, &|w| {
                w.header(HeaderName::SipEtag, |out| out.extend_from_slice(format!("{etag:016x}").as_bytes()));
                w.header(HeaderName::Expires, |out| edit::number(out, seconds.into()));
            }),
            Err(error) => {
                tracing::warn!(%error, "a publication was not stored");
                self.withdraw(aor, etag);
                outlet.answer(transaction, 500, &|w| No::Busy.write(w));
            }
        }
    }

    /// A publication that the store did not take is void: its publisher has no tag to end it by.
    fn withdraw(&self, aor: &Aor, etag: u64) {
        let mut shard = self.shard(aor.as_str());
        if let Some((p, _)) = shard.get(aor.as_str())
            && let Some(at) = p.publications().iter().position(|b| b.etag == etag)
        {
            p.content().publications.remove(at);
            self.publications.fetch_sub(1, Relaxed);
            p.touch(false);
            self.enqueue(aor, p);
        }
        shard.tidy(aor.as_str());
    }
}
