//! Status reports for handsets (SMS-STATUS-REPORT, TS 23.040 §9.2.2.3): what became of a message that asked for one, whatever brought its
//! end, another handset's RP-ACK or a centre's receipt.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::queued::CLIENT;
use super::{Discharge, IpSmGw};
use crate::notice::{Teller, Told};
use crate::queue::{Notice, Verdict};
use crate::tpdu::StatusReport;

/// Tells users, at their handsets.
pub struct UserTeller(pub Arc<IpSmGw>);

impl Teller for UserTeller {
    fn tell(&self, notice: &Notice) -> Pin<Box<dyn Future<Output = Told> + Send>> {
        let Some(from) = notice.client.strip_prefix(CLIENT).and_then(|number| number.parse().ok()) else {
            return Box::pin(std::future::ready(Told::Gone));
        };
        let (done, reported) = oneshot::channel();
        self.0.discharge(Discharge {
            from,
            to: notice.msn,
            key: notice.reqid.as_ref().into(),
            status: if notice.delivered == notice.parts { StatusReport::RECEIVED } else { status(notice.verdict) },
            accepted_at: notice.accepted_at / 1_000,
            ended_at: notice.done_at / 1_000,
            // Whoever waited may have given up.
            done: Box::new(move |told| _ = done.send(told)),
        });
        // Dropped with the gateway: as good as absent.
        Box::pin(async move { reported.await.unwrap_or(Told::Absent) })
    }
}

/// TP-ST.
fn status(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::EXPIRED => StatusReport::EXPIRED,
        Verdict::CANCELLED => StatusReport::DELETED_BY_SENDER,
        Verdict::REJECTED => StatusReport::REMOTE_ERROR,
        _ => StatusReport::NOT_OBTAINABLE,
    }
}
