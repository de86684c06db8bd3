//! `/admin/v1/users/ID/message-summary`: what waits in a user's mailbox (RFC 3842).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sip_ims::summary::{Context, Count, Summary};
use sip_ims::{Aor, answer};

use super::Admin;
use crate::http::problem::Problem;

/// `{"account": "sip:box@h", "messages": {"voice-message": {"new": 2, "old": 8, "urgent_new": 0, "urgent_old": 2}}}`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shown {
    /// URI by which the mailbox is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default)]
    messages: BTreeMap<String, Messages>,
}

/// Messages of one kind; the urgent ones are counted among the others too.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Messages {
    new: u32,
    old: u32,
    urgent_new: u32,
    urgent_old: u32,
}

fn owner(admin: &Admin, id: &str) -> Result<Aor, Problem> {
    admin.directory.by_id(id).map(|user| user.aor.clone()).ok_or_else(|| Problem::not_found("user"))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Json<Shown>, Problem> {
    let (done, found) = answer();
    admin.mailboxes.summary(&owner(&admin, &id)?, done);
    let Summary { account, counts } = found.await?;
    let one = |(context, Count { new, old, urgent_new, urgent_old }): (Context, Count)| {
        (context.as_str().to_ascii_lowercase(), Messages { new, old, urgent_new, urgent_old })
    };
    Ok(Json(Shown { account, messages: counts.into_iter().map(one).collect() }))
}

/// Replaces it. The phones that watch are told at once.
pub(super) async fn put(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    body: Result<Json<Shown>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let Json(Shown { account, messages }) = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let wrong = |what: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, what);
    if account.as_deref().is_some_and(|text| !Summary::is_account(text)) {
        return Err(wrong("account: not a URI".to_owned()));
    }
    let mut summary = Summary { account, counts: Vec::new() };
    for (name, Messages { new, old, urgent_new, urgent_old }) in messages {
        let context = Context::from_name(&name).ok_or_else(|| wrong(format!("messages: no kind \"{name}\"")))?;
        if summary.counts.iter().any(|(known, _)| *known == context) {
            return Err(wrong(format!("messages: \"{name}\" twice")));
        }
        summary.counts.push((context, Count { new, old, urgent_new, urgent_old }));
    }
    summary.counts.sort_by_key(|(context, _)| *context);
    let (done, stored) = answer();
    admin.mailboxes.set_summary(&owner(&admin, &id)?, summary, done);
    stored.await?;
    Ok(StatusCode::NO_CONTENT)
}
