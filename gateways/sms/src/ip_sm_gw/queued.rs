//! Submissions of our users: into the durable queue, whoever they are for.

use std::sync::Arc;

use sip_ims::ports::StoreError;
use sip_ims::{Directory, Msisdn};

use super::{NotAccepted, OnSubmitted, Outbound, Submission, WANTS_REPORT};
use crate::dispatch::Dispatcher;
use crate::esme::Numbers;
use crate::queue::{Enqueued, Origin, Part, Queue, Request};

/// How the names of these clients begin; the number of the user follows.
pub const CLIENT: &str = "user:";

pub struct Queued {
    pub directory: Arc<Directory>,
    pub queue: Arc<dyn Queue>,
    pub dispatcher: Arc<Dispatcher>,
    /// Those of applications.
    pub numbers: Arc<Numbers>,
    /// Whether there is a centre for the numbers of others.
    pub has_centre: bool,
    /// Milliseconds for which a message without a validity period is tried, and the most for one with.
    pub validity: i64,
    /// Unix milliseconds.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

impl Outbound for Queued {
    fn submit(&self, submission: Submission, done: OnSubmitted) {
        let known = self.directory.by_msisdn(submission.to).is_some() || self.numbers.of(submission.to).is_some();
        if !self.has_centre && !known {
            return done(Err(NotAccepted::NoRoute));
        }
        let stored = move |result: Result<Enqueued, StoreError>| {
            done(match result {
                Ok(Enqueued::New(_) | Enqueued::Again(_)) => Ok(()),
                Err(StoreError::Full) => Err(NotAccepted::Busy),
                Ok(Enqueued::Other) | Err(_) => Err(NotAccepted::Failed),
            });
        };
        self.queue.enqueue(request(&submission, (self.clock)(), self.validity), Box::new(stored));
    }

    fn available(&self, msn: Msisdn) {
        self.dispatcher.line_changed(msn);
    }
}

fn request(submission: &Submission, now: i64, validity: i64) -> Request {
    let source: Box<str> = submission.source.to_string().into();
    let asked = submission.validity.and_then(|v| i64::try_from(v.as_millis()).ok());
    let parts = submission.segments.iter().map(|segment| Part {
        source: source.clone(),
        udhi: !segment.user_data.header.elements.is_empty(),
        data_coding: segment.data_coding.for_smpp(),
        protocol_id: submission.protocol_id,
        short_message: segment.user_data.unpacked().into(),
    });
    let parts: Vec<Part> = parts.collect();
    let told = if submission.key.starts_with(WANTS_REPORT) { Origin::NOTIFY } else { 0 };
    let origin = Origin {
        client: format!("{CLIENT}{source}").into(),
        msn: submission.to,
        reqid: submission.key.as_str().into(),
        expires_at: now + asked.unwrap_or(validity).min(validity),
        rank: 1,
        flags: Origin::UNJUDGED | Origin::TEXT | told,
        // At most `MAX_SEGMENTS`.
        parts: parts.len() as u8,
    };
    // The key is of the content already.
    Request { origin, digest: 0, not_before: 0, parts }
}
