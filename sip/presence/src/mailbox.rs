//! Message waiting (RFC 3842): what waits in users' mailboxes, as those who watch are told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use sip_ims::Aor;
use sip_ims::ports::Document;
use sip_ims::summary::Summary;

use crate::presentity::View;

/// The collection of [`Documents`](sip_ims::ports::Documents) that keeps summaries; their keys are addresses-of-record.
pub const SUMMARIES: &str = "message-summary";

/// Least time between two NOTIFYs of a mailbox (RFC 3842 §3.11).
pub(crate) const PACE: Duration = Duration::from_secs(1);

/// All users' mailboxes in which anything was ever counted.
#[derive(Default)]
pub(crate) struct Shelf {
    users: RwLock<HashMap<Aor, Arc<View>>>,
}

impl Shelf {
    /// What a watcher of this user is told.
    pub fn view(&self, aor: &Aor) -> Arc<View> {
        let known = self.users.read().get(aor).cloned();
        known.unwrap_or_else(|| view(aor, &Summary::default()))
    }

    /// A document is this now, or gone. Gives whose it is.
    pub fn enter(&self, key: &str, document: Option<&Document>) -> Option<Aor> {
        let aor: Aor = key.parse().ok()?;
        let summary = document.and_then(|d| {
            let read = Summary::parse(&d.body);
            if read.is_none() {
                tracing::warn!("a stored message summary does not read: nothing waits by it");
            }
            read
        });
        match summary {
            Some(summary) => drop(self.users.write().insert(aor.clone(), view(&aor, &summary))),
            None => drop(self.users.write().remove(&aor)),
        }
        Some(aor)
    }
}

fn view(aor: &Aor, summary: &Summary) -> Arc<View> {
    // RFC 3842 §3.8: whoever watches by another name must know whose mailbox it is.
    let account = summary.account.clone().or_else(|| Some(format!("sip:{aor}")));
    View::of(Summary { account, counts: summary.counts.clone() }.to_text().into_bytes())
}

#[cfg(test)]
mod tests {
    use sip_ims::ports::Version;

    use super::*;

    #[test]
    fn summaries_come_and_go() {
        let shelf = Shelf::default();
        let aor: Aor = "alice@h".parse().unwrap();
        let text = || String::from_utf8(shelf.view(&aor).body.to_vec()).unwrap();
        let nothing = "Messages-Waiting: no\r\nMessage-Account: sip:alice@h\r\n";
        assert_eq!(text(), nothing);
        let body = b"Messages-Waiting: yes\r\nVoice-Message: 2/8 (0/2)\r\n".to_vec();
        let document = Document { key: "alice@h".into(), version: Version(1), body };
        assert_eq!(shelf.enter("alice@h", Some(&document)), Some(aor.clone()));
        assert_eq!(text(), "Messages-Waiting: yes\r\nMessage-Account: sip:alice@h\r\nVoice-Message: 2/8 (0/2)\r\n");
        shelf.enter("alice@h", Some(&Document { body: b"broken".to_vec(), ..document }));
        assert_eq!(text(), nothing);
        assert_eq!(shelf.enter("nonsense", None), None);
    }
}
