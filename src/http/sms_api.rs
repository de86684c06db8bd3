//! Short messages for developers: `/sms/v1`, and CAMARA's drafts exactly (docs/sms-api.md). HTTP here, everything else in
//! [`gw_sms::rest`].

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use gw_sms::registry::ApiClient;
use gw_sms::rest::request::{MAX_BODY, MessageRequest};
use gw_sms::rest::service::{Accepted, MessageService};
use gw_sms::rest::subscription::{Subscription, Subscriptions};
use serde_json::{Value, json};

use super::camara::{self, Refusal};
use super::oauth2::Tokens;

/// What the door is opened with.
pub struct SmsApi {
    pub tokens: Arc<Tokens>,
    pub messages: Arc<MessageService>,
    pub subscriptions: Arc<Subscriptions>,
}

const SEND: &str = "send-sms:short-message";
const READ: &str = "read-sms:short-message";
const CANCEL: &str = "cancel-sms:short-message";
const SUBSCRIBE: &str = "sms-delivery:subscriptions:create";
const READ_SUBSCRIPTIONS: &str = "sms-delivery:subscriptions:read";
const UNSUBSCRIBE: &str = "sms-delivery:subscriptions:delete";

pub fn router(api: Arc<SmsApi>) -> Router {
    let subscriptions = "/sms-delivery-notification-subscriptions/v0alpha1/subscriptions";
    Router::new()
        .route("/sms/v1/messages", post(create))
        .route("/sms/v1/messages/{id}", get(show).delete(cancel))
        .route("/sms/v0alpha1/short-message", post(send))
        .route(subscriptions, post(subscribe).get(subscribed))
        .route(&format!("{subscriptions}/{{id}}"), get(subscription).delete(unsubscribe))
        .method_not_allowed_fallback(async || Refusal::no_such_method())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(camara::correlate))
        .with_state(api)
}

type Body = Result<Bytes, BytesRejection>;

/// The draft's: 200.
async fn send(State(api): State<Arc<SmsApi>>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let accepted = api.counted("send", api.accept(&headers, body).await)?;
    Ok(Json(json!({ "msgId": accepted.msg_id, "timestamp": accepted.timestamp })).into_response())
}

/// Ours: 201, and where to ask for it.
async fn create(State(api): State<Arc<SmsApi>>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let accepted = api.counted("send", api.accept(&headers, body).await)?;
    let location = format!("/sms/v1/messages/{}", accepted.msg_id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(accepted)).into_response())
}

async fn show(State(api): State<Arc<SmsApi>>, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Refusal> {
    let asked = async {
        let client = api.tokens.authorise(&headers, READ)?;
        Ok(api.messages.show(&client, &id).await?)
    };
    Ok(Json(api.counted("query", asked.await)?).into_response())
}

async fn cancel(
    State(api): State<Arc<SmsApi>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let asked = async {
        let client = api.tokens.authorise(&headers, CANCEL)?;
        Ok(api.messages.cancel(&client, &id, now()).await?)
    };
    Ok((StatusCode::ACCEPTED, Json(api.counted("cancel", asked.await)?)).into_response())
}

async fn subscribe(State(api): State<Arc<SmsApi>>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let asked = async {
        let client = api.tokens.authorise(&headers, SUBSCRIBE)?;
        let body = read(&headers, body)?;
        Ok(api.subscriptions.create(&client.name(), &body, now()).await?)
    };
    let made: Subscription = api.counted("subscribe", asked.await)?;
    let mut shown = made.shown();
    // The only time that it is told.
    shown["webhook"]["secret"] = made.secret.into();
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

async fn subscribed(State(api): State<Arc<SmsApi>>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let client = api.tokens.authorise(&headers, READ_SUBSCRIPTIONS)?;
    let all = api.subscriptions.of(&client.name()).await.map_err(gw_sms::rest::Refusal::from)?;
    Ok(Json(all.iter().map(Subscription::shown).collect()))
}

async fn subscription(
    State(api): State<Arc<SmsApi>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let client = api.tokens.authorise(&headers, READ_SUBSCRIPTIONS)?;
    Ok(Json(api.subscriptions.get(&client.name(), &id).await?.shown()))
}

async fn unsubscribe(
    State(api): State<Arc<SmsApi>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let client = api.tokens.authorise(&headers, UNSUBSCRIBE)?;
    api.subscriptions.remove(&client.name(), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl SmsApi {
    async fn accept(&self, headers: &HeaderMap, body: Body) -> Result<Accepted, Refusal> {
        let client: Arc<ApiClient> = self.tokens.authorise(headers, SEND)?;
        let request = MessageRequest::read(&read(headers, body)?)?;
        // What is not text is no key either, and is refused as such.
        let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap_or_default());
        Ok(self.messages.send(&client, &request, key, now()).await?)
    }

    fn counted<T>(&self, operation: &'static str, result: Result<T, Refusal>) -> Result<T, Refusal> {
        let status = result.as_ref().map_or_else(|refusal| refusal.status.as_u16(), |_| 200);
        self.messages.counts().count(operation, status);
        result
    }
}

fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    camara::is_json(headers)?;
    body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", format!("longer than {MAX_BODY} bytes"))
        }
        status => Refusal::new(status, "INVALID_ARGUMENT", error.body_text()),
    })
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
