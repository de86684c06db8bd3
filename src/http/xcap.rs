//! `/xcap-root/`: users' documents (RFC 4825, docs/xcap.md). HTTP here; what requests do is in [`crate::xcap`].

mod caller;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use parking_lot::Mutex;
use sip_xcap::{BadSelector, BadTarget, Conflict, NodeSelector, Put, Target, Terminal, usage};

use self::caller::Caller;
use super::Peer;
use super::authentication::Authentication;
use super::digest::challenged;
use super::etag::{Conditions, Failed};
use super::rate::Rates;
use crate::config;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Family;
use crate::xcap::{Changed, Current, Made, No, Resource, Seat, Wish, Xcap};

/// Below which all resources are.
pub const ROOT: &str = "/xcap-root/";
/// Bytes of a body beyond the largest document: to read the last blank of one that is just small enough.
const SLACK: usize = 1024;

/// What the door is opened with.
pub struct Door {
    pub xcap: Arc<Xcap>,
    /// `None`: everybody is who they say (closed test nets only).
    authentication: Option<Arc<Authentication>>,
    config: config::Xcap,
    rates: Rates,
    counts: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Door {
    pub fn new(xcap: Arc<Xcap>, authentication: Option<Arc<Authentication>>, config: config::Xcap) -> Door {
        let rates = Rates::new(config.rate, config.total_rate);
        Door { xcap, authentication, config, rates, counts: Mutex::default() }
    }

    /// Requests so far, by method and status.
    pub fn each(&self, mut show: impl FnMut(&'static str, u16, u64)) {
        self.counts.lock().iter().for_each(|((method, status), n)| show(method, *status, *n));
    }
}

/// The door, or none where it is shut, and its numbers.
pub fn open(
    xcap: &Arc<Xcap>,
    authentication: Option<Arc<Authentication>>,
    config: &config::Xcap,
    metrics: &Metrics,
) -> Router {
    if !config.enabled {
        return Router::new();
    }
    let door = Arc::new(Door::new(xcap.clone(), authentication, config.clone()));
    let counted = door.clone();
    let family = Family::counter("isthmus_xcap_requests_total", "XCAP requests, by method and status.");
    metrics.source(family, move |s| {
        counted.each(|method, status, n| s.push(&[("method", method), ("status", &status.to_string())], n as f64));
    });
    let counted = xcap.clone();
    let family = Family::counter("isthmus_xcap_changes_total", "Changes of users' documents that were stored.");
    metrics.source(family, move |s| s.push(&[], counted.changed() as f64));
    router(door)
}

fn router(door: Arc<Door>) -> Router {
    let limit = door.config.max_document.0 as usize + SLACK;
    Router::new().route("/xcap-root/{*resource}", any(serve)).layer(DefaultBodyLimit::max(limit)).with_state(door)
}

type Body = Result<Bytes, BytesRejection>;

async fn serve(
    State(door): State<Arc<Door>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let response = door.answer(&peer, &method, &uri, &headers, body).await.unwrap_or_else(IntoResponse::into_response);
    let name = match method {
        Method::GET | Method::HEAD => "GET",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    *door.counts.lock().entry((name, response.status().as_u16())).or_default() += 1;
    response
}

/// An answer other than the wanted one.
enum Refusal {
    Status(StatusCode),
    /// 401, with these challenges.
    Unauthenticated(Vec<Vec<u8>>),
    /// 405.
    Only(&'static str),
    /// 415: what would have been taken.
    MediaType(&'static str),
    /// 409.
    Conflict(Conflict),
    /// 304, with the tag.
    Same(String),
    /// 429 or 503.
    Later(StatusCode),
}

impl Door {
    async fn answer(
        &self,
        peer: &Peer,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Refusal> {
        if !matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE) {
            // RFC 4825 §8.1: a POST too.
            return Err(Refusal::Only("GET, HEAD, PUT, DELETE"));
        }
        // Before anything is said of what is there: a stranger learns of nobody whether they are a user.
        let caller = self.caller(peer, method, uri, headers).await?;
        if !self.rates.admits(caller.name()) {
            return Err(Refusal::Later(StatusCode::TOO_MANY_REQUESTS));
        }
        let below = uri.path().strip_prefix(ROOT).ok_or(Refusal::Status(StatusCode::NOT_FOUND))?;
        let target = Target::parse(below, uri.query()).map_err(|bad| {
            Refusal::Status(match bad {
                BadTarget::NotFound => StatusCode::NOT_FOUND,
                BadTarget::Query => StatusCode::BAD_REQUEST,
                BadTarget::TooLong => StatusCode::URI_TOO_LONG,
            })
        })?;
        let resource = self.xcap.resource(&target)?;
        if !self.may(&caller, &resource, method) {
            return Err(Refusal::Status(StatusCode::FORBIDDEN));
        }
        let selector = match &target.node {
            None => None,
            Some(node) => {
                let namespace = usage::find(&target.auid).map(|u| u.namespace);
                let selector = NodeSelector::parse(node, &target.bindings, namespace).map_err(|bad| {
                    Refusal::Status(match bad {
                        BadSelector::Prefix => StatusCode::BAD_REQUEST,
                        BadSelector::Extension => StatusCode::NOT_FOUND,
                    })
                })?;
                Some(selector)
            }
        };
        let conditions = Conditions::of(headers);
        if matches!(*method, Method::GET | Method::HEAD) {
            return self.get(&resource, selector.as_ref(), &conditions).await;
        }
        let seat = match resource {
            Resource::Made(_) => return Err(Refusal::Only("GET, HEAD")),
            Resource::Nowhere { home } if method == Method::PUT => {
                return Err(Refusal::Conflict(Conflict::NoParent(Some(home))));
            }
            Resource::Nowhere { .. } => return Err(Refusal::Status(StatusCode::NOT_FOUND)),
            Resource::Stored(seat) => seat,
        };
        if selector.as_ref().is_some_and(|s| s.terminal == Terminal::Namespaces) {
            return Err(Refusal::Only("GET, HEAD"));
        }
        match *method {
            Method::PUT => self.put(&seat, &target, selector.as_ref(), &conditions, headers, body).await,
            _ => {
                let wish = selector.as_ref().map_or(Wish::Delete, Wish::DeleteNode);
                let changed = self.xcap.change(&seat, &conditions, wish).await?;
                Ok(done(&changed))
            }
        }
    }

    async fn get(
        &self,
        resource: &Resource,
        selector: Option<&NodeSelector>,
        conditions: &Conditions,
    ) -> Result<Response, Refusal> {
        let current = self.xcap.read(resource).await?;
        match conditions.hold(current.as_ref().map(|c| &*c.tag)) {
            Ok(()) => {}
            Err(Failed::Match) => return Err(Refusal::Status(StatusCode::PRECONDITION_FAILED)),
            Err(Failed::NoneMatch) => return Err(Refusal::Same(current.map(|c| c.tag).unwrap_or_default())),
        }
        let Current { media_type, tag, body } = current.ok_or(Refusal::Status(StatusCode::NOT_FOUND))?;
        let (media_type, body) = match selector {
            None => (media_type, body),
            Some(selector) => {
                let text = sip_xcap::Text::read(body).map_err(|_| Refusal::Status(StatusCode::NOT_FOUND))?;
                let node = text.get(selector).ok_or(Refusal::Status(StatusCode::NOT_FOUND))?;
                (node.media_type, node.body.into_bytes())
            }
        };
        let headers = [
            (header::CONTENT_TYPE, media_type),
            (header::ETAG, &tag),
            // RFC 4825 §9: caches do not know which resources change with another.
            (header::CACHE_CONTROL, "private, no-cache"),
        ];
        Ok((headers, body).into_response())
    }

    async fn put(
        &self,
        seat: &Seat,
        target: &Target,
        selector: Option<&NodeSelector>,
        conditions: &Conditions,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Refusal> {
        let wanted = selector.map_or(seat.usage.media_type, NodeSelector::media_type);
        if !is(headers, wanted) {
            return Err(Refusal::MediaType(wanted));
        }
        let body = body.map_err(|error| Refusal::Status(error.status()))?;
        let uri = target.document_uri();
        let wish = match selector {
            None => Wish::Put(&body),
            Some(selector) => {
                let put = match selector.terminal {
                    Terminal::Attribute(_) => Put::Attribute(&body),
                    _ => Put::Element(&body),
                };
                Wish::PutNode(selector, put, &uri)
            }
        };
        let changed = self.xcap.change(seat, conditions, wish).await?;
        Ok(done(&changed))
    }

    /// RFC 4825 §5.7: everybody their own, and what is for all; RFC 4826 §4.4.9: the index of services is the core's.
    fn may(&self, caller: &Caller, resource: &Resource, method: &Method) -> bool {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let user = match caller {
            Caller::Anybody => return true,
            Caller::Node => return reads,
            Caller::User(user) if self.config.admins.iter().any(|id| **id == *user.id) => return true,
            Caller::User(user) => user,
        };
        match resource {
            Resource::Stored(seat) => seat.owner.id == user.id,
            Resource::Made(Made::Directory(owner)) => owner.id == user.id,
            Resource::Made(Made::Capabilities) => true,
            Resource::Made(Made::Index) => false,
            // Nothing is there, whosoever it would be.
            Resource::Nowhere { .. } => true,
        }
    }
}

/// A change was made.
fn done(changed: &Changed) -> Response {
    let status = if changed.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = status.into_response();
    if let Some(tag) = changed.tag.as_deref().and_then(|t| HeaderValue::from_str(t).ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The media type, whatever its parameters; in UTF-8.
fn is(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (kind, _) = value.split_once(';').unwrap_or((value, ""));
    kind.trim().eq_ignore_ascii_case(wanted)
}

impl From<No> for Refusal {
    fn from(no: No) -> Refusal {
        match no {
            No::NotFound => Refusal::Status(StatusCode::NOT_FOUND),
            No::ReadOnly => Refusal::Only("GET, HEAD"),
            No::Precondition => Refusal::Status(StatusCode::PRECONDITION_FAILED),
            No::TooLarge => Refusal::Status(StatusCode::PAYLOAD_TOO_LARGE),
            No::Conflict(conflict) => Refusal::Conflict(conflict),
            No::Busy => Refusal::Later(StatusCode::SERVICE_UNAVAILABLE),
            No::Store(error) => {
                tracing::warn!(%error, "the store did not do what XCAP asked");
                Refusal::Later(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Status(status) => status.into_response(),
            Refusal::Unauthenticated(challenges) => challenged(&challenges),
            Refusal::Only(methods) => (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, methods)]).into_response(),
            Refusal::MediaType(wanted) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, [(header::ACCEPT, wanted)]).into_response()
            }
            Refusal::Conflict(conflict) => {
                (StatusCode::CONFLICT, [(header::CONTENT_TYPE, Conflict::TYPE)], conflict.report()).into_response()
            }
            Refusal::Same(tag) => (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response(),
            Refusal::Later(status) => (status, [(header::RETRY_AFTER, "1")]).into_response(),
        }
    }
}
