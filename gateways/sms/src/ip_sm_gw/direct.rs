//! Submissions without a queue: from handset to handset of our own users, at once or not at all.
//!
//! The sender's RP-ACK then says more than it must: the addressee has the message. Nothing is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};

use parking_lot::Mutex;
use sip_ims::Msisdn;

use super::watch::{self, Watch};
use super::{Delivery, Discharge, Fate, IpSmGw, NotAccepted, OnSubmitted, Outbound, Submission};
use crate::tpdu::StatusReport;

pub struct Direct {
    pub gateway: Arc<IpSmGw>,
    /// Unix milliseconds.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub watch: Arc<dyn Watch>,
}

/// One submission, until the last of its segments has its fate.
struct Underway {
    waiting: AtomicUsize,
    failed: Mutex<Option<NotAccepted>>,
    done: Mutex<Option<OnSubmitted>>,
    gateway: Arc<IpSmGw>,
    discharge: Mutex<Option<Discharge>>,
    passage: watch::Underway,
}

impl Outbound for Direct {
    fn submit(&self, submission: Submission, done: OnSubmitted) {
        let now = (self.clock)();
        let Submission { source, to, segments, protocol_id, key, .. } = submission;
        let discharge = Discharge {
            from: source,
            to,
            key: key.as_str().into(),
            status: StatusReport::RECEIVED,
            accepted_at: now / 1_000,
            ended_at: now / 1_000,
        };
        let underway = Arc::new(Underway {
            waiting: AtomicUsize::new(segments.len()),
            failed: Mutex::new(None),
            done: Mutex::new(Some(done)),
            gateway: self.gateway.clone(),
            discharge: Mutex::new(Some(discharge)),
            passage: watch::Underway {
                watch: self.watch.clone(),
                clock: self.clock.clone(),
                name: key.into(),
                from: source.to_string().into(),
                to,
                began: now,
            },
        });
        for segment in segments {
            let underway = underway.clone();
            self.gateway.deliver(Delivery {
                to,
                source: source.to_string().into(),
                protocol_id,
                data_coding: segment.data_coding.0,
                has_header: !segment.user_data.header.elements.is_empty(),
                octets: segment.user_data.unpacked().into(),
                done: Box::new(move |fate| underway.ended(fate)),
            });
        }
    }

    fn available(&self, _: Msisdn) {}
}

impl Underway {
    fn ended(&self, fate: Fate) {
        self.passage.ended(fate);
        let failed = match fate {
            Fate::Delivered => None,
            Fate::Unreachable { status: 404 } => Some(NotAccepted::NoRoute),
            Fate::Busy | Fate::NoMemory => Some(NotAccepted::Busy),
            Fate::NoReport | Fate::Unreachable { .. } | Fate::Refused { .. } => Some(NotAccepted::Failed),
        };
        if let Some(failed) = failed {
            self.failed.lock().get_or_insert(failed);
        }
        if self.waiting.fetch_sub(1, AcqRel) > 1 {
            return;
        }
        let Some(done) = self.done.lock().take() else { return };
        match *self.failed.lock() {
            Some(failed) => done(Err(failed)),
            None => {
                done(Ok(()));
                if let Some(discharge) = self.discharge.lock().take() {
                    self.gateway.discharge(Discharge { ended_at: (self.passage.clock)() / 1_000, ..discharge });
                }
            }
        }
    }
}
