//! What the courier tells besides the messages themselves: their fate to who sent them, and what was read to the reader's other
//! devices.

use std::net::SocketAddr;

use sip_cpim::Fate;
use sip_ims::ports::QueuedMessage;
use sip_ims::service::Outcome;
use sip_ims::{Aor, answer};
use sip_proto::Hop;
use sip_proto::uri::Uri;

use crate::counts::add;
use crate::letter::Letter;
use crate::notice::Notice;
use crate::pager::Order;
use crate::round::Rounds;

impl Rounds {
    /// The sender of a message that will never arrive hears so, if it asked.
    pub async fn tell_failed(&self, letter: &Letter<'_>) {
        let now = (self.unix)();
        if let Some(notice) = Notice::about(letter, Fate::Delivery, sip_cpim::Outcome::Failed, now) {
            self.tell(notice).await;
        }
    }

    /// Sends a notification. One for a user of ours is kept like any message, so that it waits for a sender who is away.
    pub async fn tell(&self, notice: Notice) {
        add(&self.counts.notices, 1);
        let Some(uri) = Uri::parse(&notice.uri) else { return };
        let Some(aor) = self.home.aor(&uri) else { return self.tell_elsewhere(&notice).await };
        let expires_at = self.unix_now() + i64::from(self.expiry);
        let (done, kept) = answer();
        let queued = QueuedMessage { aor: aor.clone(), key: notice.key, body: notice.request, expires_at };
        self.queue.put(queued, done);
        match kept.await {
            Ok(_) => {
                // A courier that is gone will find it at the next start.
                if let Some(own) = self.own.upgrade() {
                    let _ = own.send(Order::Kept(aor));
                }
            }
            Err(error) => tracing::debug!(%error, "a notification was not kept"),
        }
    }

    /// To another domain, once: it has a server of its own that may keep it.
    async fn tell_elsewhere(&self, notice: &Notice) {
        let Ok(letter) = Letter::read(&notice.request) else { return };
        let bytes = letter.write(&notice.uri, b"");
        for hop in self.hops_of(&notice.uri, bytes.len()).await {
            if let Outcome::Response { status, .. } = self.request(hop, bytes.clone()).await
                && status != 503
            {
                return;
            }
        }
    }

    /// Tells the devices of a user but the one at `by` what was read there. Not kept: a device that is away finds out otherwise.
    pub async fn share(&self, aor: &Aor, by: SocketAddr, request: &[u8]) {
        let Ok(letter) = Letter::read(request) else { return };
        let (first, _) = self.targets(aor);
        for target in first.iter().filter(|t| !is_at(t.hop, &t.uri, by)) {
            let bytes = letter.write(&target.uri, &target.path);
            if let Some(hop) = self.hops(target, bytes.len()).await.into_iter().next()
                && let Outcome::Response { status: 200..=299, .. } = self.request(hop, bytes).await
            {
                add(&self.counts.shared, 1);
            }
        }
    }
}

fn is_at(hop: Option<Hop>, contact: &[u8], by: SocketAddr) -> bool {
    let remote = match hop {
        Some(Hop::Flow(flow)) => Some(flow.remote),
        Some(Hop::Address { remote, .. } | Hop::Host { remote, .. }) => Some(remote),
        None => Uri::parse(contact).and_then(|u| Some(SocketAddr::new(u.host_ip()?, u.port_or_default()))),
    };
    remote == Some(by)
}
