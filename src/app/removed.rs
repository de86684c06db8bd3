//! What a user leaves behind goes with the user.

use std::sync::Arc;
use std::time::Instant;

use sip_ims::history::HistoryPart;
use sip_ims::ports::UserChange;
use sip_ims::{Aor, answer};
use sip_messaging::History;
use sip_registrar::Registrar;
use tokio::runtime::Handle;

use super::unix_now;
use crate::http::session::Sessions;
use crate::xcap::Xcap;

/// A user who was removed is registered no longer, and keeps no documents, no history and no sessions.
pub(super) struct Removed {
    pub registrar: Arc<Registrar>,
    pub xcap: Arc<Xcap>,
    pub history: Arc<History>,
    pub sessions: Option<Arc<Sessions>>,
    pub domain: String,
    pub runtime: Handle,
}

impl Removed {
    /// Who was removed while no server ran.
    pub async fn catch_up(xcap: Arc<Xcap>) {
        if let Err(error) = xcap.forget_strangers().await {
            tracing::warn!(%error, "documents of users who were removed are left");
        }
    }

    pub fn see(&self, change: &UserChange) {
        if change.user.is_none()
            && let Ok(aor) = Aor::from_parts(change.id.as_bytes(), self.domain.as_bytes())
        {
            self.registrar.deregister(Instant::now(), unix_now(), aor.as_str());
            let (xcap, history, sessions) = (self.xcap.clone(), self.history.clone(), self.sessions.clone());
            let id = change.id.clone();
            self.runtime.spawn(async move {
                if let Some(sessions) = sessions
                    && let Err(error) = sessions.forget(&id).await
                {
                    tracing::warn!(%error, "the sessions of a user who was removed are left");
                }
                let (done, removed) = answer();
                history.store().remove(HistoryPart::of(aor.clone()), done);
                if let Err(error) = removed.await {
                    tracing::warn!(%error, "the history of a user who was removed is left");
                }
                if let Err(error) = xcap.forget(&aor).await {
                    tracing::warn!(%error, "documents of a user who was removed are left");
                }
            });
        }
    }
}
