//! Chats with users who are away: this server takes part in their place, and keeps what is said.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use media_msrp::assembly::Whole;
use media_msrp::{Answered, LocalEnd, Switch};
use sip_cpim::{CPIM_TYPE, Fate, Outcome};
use sip_ims::ports::MessageQueue;
use sip_ims::service::{Caller, Request};
use sip_ims::{Aor, answer};
use sip_proto::HeaderName;
use tokio::sync::mpsc;

use crate::agent::Party;
use crate::config::Config;
use crate::history::History;
use crate::letter::{self, Ends, Letter, NotKept};
use crate::notice::Notice;
use crate::pager::{Order, status_of};
use crate::terms::{Offered, Terms};

/// User part of our Contact in such a chat.
pub const USER: &str = "kept";

/// What is taken: text, and whatever a message in CPIM holds.
pub fn terms(config: &Config) -> Terms {
    Terms {
        accept_types: "message/cpim text/plain text/html application/im-iscomposing+xml",
        accept_wrapped_types: "*",
        max_size: config.max_body,
        more: Vec::new(),
    }
}

/// What an INVITE offers, if it is to a session that we can take part in: from somebody who says who they are.
pub fn offered(switch: &Switch, request: &Request<'_>) -> Option<Offered> {
    let message = request.message;
    let in_dialog = message.is_in_dialog();
    if in_dialog || message.line(HeaderName::Privacy).is_some() {
        return None;
    }
    Offered::read(switch, message).ok().filter(|o| o.peer.is_some())
}

/// Who takes part in a session, for what is kept of it.
pub fn ends(request: &Request<'_>, aor: &Aor) -> Ends {
    let message = request.message;
    let value = |name| message.value(name).unwrap_or_default();
    let asserted = match &request.caller {
        Caller::User(user) => Some(format!("<sip:{}>", user.aor).into_bytes().into()),
        Caller::Trusted => message.value(HeaderName::PAssertedIdentity).map(Box::from),
        Caller::Foreign => None,
    };
    Ends {
        from: value(HeaderName::From).into(),
        to: value(HeaderName::To).into(),
        call_id: value(HeaderName::CallId).into(),
        asserted,
        aor: aor.clone(),
    }
}

/// Our end of such a chat.
pub struct Away {
    ends: Ends,
    config: Config,
    queue: Arc<dyn MessageQueue>,
    orders: mpsc::UnboundedSender<Order>,
    numbers: AtomicU32,
    history: Option<Arc<History>>,
}

impl Away {
    pub(crate) fn new(
        request: &Request<'_>,
        aor: &Aor,
        config: &Config,
        queue: Arc<dyn MessageQueue>,
        orders: mpsc::UnboundedSender<Order>,
        history: Option<Arc<History>>,
    ) -> Away {
        Away { ends: ends(request, aor), config: config.clone(), queue, orders, numbers: AtomicU32::new(1), history }
    }

    async fn keep(&self, message: Whole) -> u16 {
        let content = [&*message.content_type, &*message.body];
        if !is_kept(&message.content_type) {
            return 415;
        }
        let number = self.numbers.fetch_add(1, Relaxed);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let queued = match letter::from_session(&self.ends, number, content, unix, &self.config) {
            Ok(queued) => queued,
            Err(NotKept::Fleeting) => return 200,
            Err(NotKept::Bad { status, .. }) => return status,
        };
        let letter = Letter::read(&queued.body).ok();
        let stored = letter.and_then(|letter| Notice::about(&letter, Fate::Processing, Outcome::Stored, unix));
        let (done, kept) = answer();
        self.queue.put(queued, done);
        match kept.await {
            Ok(_) => {
                self.remember(&message).await;
                let (aor, call_id) = (self.ends.aor.clone(), self.ends.call_id.clone());
                // A courier that is gone will find it at the next start.
                let _ = self.orders.send(Order::KeptOfSession { aor, call_id, stored });
                200
            }
            // MSRP has a word for "no more of this", and one for all else (RFC 4975 §10).
            Err(error) => {
                if matches!(status_of(&error).0, 413 | 480) {
                    413
                } else {
                    408
                }
            }
        }
    }
}

impl Away {
    async fn remember(&self, message: &Whole) {
        let Some(history) = &self.history else { return };
        let Ends { from, asserted, call_id, aor, .. } = &self.ends;
        let to = format!("sip:{aor}");
        let entries = history.of_session(from, asserted.as_deref(), &to, call_id, message);
        let (done, written) = answer();
        history.write(entries, move || done(Ok(())));
        // It was counted, whichever way it went.
        let _ = written.await;
    }
}

fn is_kept(content_type: &[u8]) -> bool {
    let essence = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(CPIM_TYPE.as_bytes())
        || essence.get(..5).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/"))
        || essence.eq_ignore_ascii_case(sip_cpim::IS_COMPOSING_TYPE.as_bytes())
}

impl LocalEnd for Away {
    fn received(self: Arc<Self>, message: Whole) -> Answered {
        Box::pin(async move { self.keep(message).await })
    }
}

impl Party for Away {}
