//! `/content/`: files that users send each other (GSMA RCC.07 "File Transfer via HTTP"; docs/content.md).
//!
//! Uploads are their owner's, who proves it ([`Authentication`]); everything else is asked for by a signed link.

mod range;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::multipart::Field;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, Multipart, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use media_content::depot::Depot;
use media_content::link::Bad;
use media_content::quota::Quota;
use media_content::{
    Control, Entry, Grant, Id, Links, Reason, Scanner, Shelf, ShelfError, State as Stage, Upload, Verdict, info, place,
};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Peer;
use super::authentication::{Authentication, Refusal};
use super::etag::{Conditions, Failed};
use super::problem::Problem;
use super::rate::Rates;
use crate::app::{AppError, unix_now};
use crate::config::{Config, S3, WhenUnscanned};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Family;
use crate::telemetry::redact::Redacted;
use range::Wanted;

const ROOT: &str = "/content/";
const DAY: u64 = 86_400;
/// Bytes of the largest thumbnail; RCC.07 has clients stay below 10 kB.
const MAX_THUMBNAIL: usize = 1 << 20;
/// A tid is a UUID.
const MAX_TID: usize = 128;
/// Longest name of a file or a type.
const MAX_NAME: usize = 255;
/// Nobody keeps an upload's place for longer without sending.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long, and how much, is read after a refusal.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 16 << 20;
/// How often expired files are looked for.
const SWEEP: Duration = Duration::from_secs(3600);

struct Content {
    depot: Arc<Depot>,
    /// `None`: everybody is let in (closed test nets only).
    authentication: Option<Arc<Authentication>>,
    rates: Rates,
    places: Arc<Semaphore>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    stored: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    received: AtomicU64,
    downloads: AtomicU64,
}

/// The shelf of this server and what belongs to it, if it has one. `secret`: shared by all nodes.
pub fn depot(
    config: &Config,
    secret: &[u8; 32],
    scanner: Option<Arc<Scanner>>,
) -> Result<Option<Arc<Depot>>, AppError> {
    let settings = &config.content;
    if !settings.enabled {
        return Ok(None);
    }
    let store = match &settings.s3 {
        Some(s3) => {
            let S3 { bucket, region, endpoint, access_key, secret_key } = s3;
            let keys = (!access_key.is_empty()).then_some((access_key.as_str(), secret_key.as_str()));
            place::bucket(bucket, region, endpoint, keys).map_err(|e| (bucket.clone(), e))
        }
        None => {
            let folder = match settings.folder.as_os_str().is_empty() {
                true => config.data_dir.join("content"),
                false => settings.folder.clone(),
            };
            place::folder(&folder).map_err(|e| (folder.display().to_string(), e))
        }
    };
    let store = store.map_err(|(at, source)| AppError::Io { what: format!("content, {at}"), source })?;
    let fail_open = settings.unscanned == WhenUnscanned::Pass;
    let url = config.http.public_url.trim_end_matches('/');
    Ok(Some(Arc::new(Depot {
        shelf: Shelf::new(store, settings.max_file.0),
        links: Links::new(secret),
        control: Control::new(&settings.refused_types, settings.max_file.0, scanner, fail_open),
        quota: Quota::new(settings.daily_quota.0),
        keep_days: settings.keep_days,
        base: if url.is_empty() { String::new() } else { format!("{url}{ROOT}") },
    })))
}

/// The door, or none where it is shut. Runs in `runtime`, and sweeps there.
pub fn open(
    config: &Config,
    depot: Option<Arc<Depot>>,
    authentication: Option<Arc<Authentication>>,
    metrics: &Metrics,
    runtime: &tokio::runtime::Handle,
) -> Router {
    let settings = &config.content;
    let Some(depot) = depot else { return Router::new() };
    let content = Arc::new(Content {
        depot,
        authentication,
        rates: Rates::new(settings.rate, settings.rate.saturating_mul(100)),
        places: Arc::new(Semaphore::new(settings.max_uploads)),
        counts: Counts::default(),
    });
    count(&content, metrics);
    runtime.spawn(sweep(content.depot.shelf.clone(), settings.keep_days));
    Router::new()
        .route(ROOT, get(state_of_upload).post(upload))
        .route("/content/{day}/{number}/{grant}", get(download).put(resume))
        .layer(DefaultBodyLimit::disable())
        .with_state(content)
}

fn count(content: &Arc<Content>, metrics: &Metrics) {
    let counted = content.clone();
    let family = Family::counter("isthmus_content_uploads_total", "Uploads of files, by fate.");
    metrics.source(family, move |s| {
        let c = &counted.counts;
        for (fate, n) in [("stored", &c.stored), ("refused", &c.refused), ("broken", &c.broken)] {
            s.push(&[("fate", fate)], n.load(Relaxed) as f64);
        }
    });
    let counted = content.clone();
    let family = Family::counter("isthmus_content_received_bytes_total", "Bytes of files that were uploaded.");
    metrics.source(family, move |s| s.push(&[], counted.counts.received.load(Relaxed) as f64));
    let counted = content.clone();
    let family = Family::counter("isthmus_content_downloads_total", "Downloads begun.");
    metrics.source(family, move |s| s.push(&[], counted.counts.downloads.load(Relaxed) as f64));
}

async fn sweep(shelf: Arc<Shelf>, keep_days: u32) {
    let mut hour = tokio::time::interval(SWEEP);
    loop {
        hour.tick().await;
        // A file of that day's last second is good until this day's.
        match shelf.sweep(today().saturating_sub(keep_days)).await {
            Ok(0) => {}
            Ok(objects) => tracing::info!(objects, "expired files removed"),
            Err(error) => tracing::warn!(%error, "expired files could not be removed"),
        }
    }
}

fn today() -> u32 {
    u32::try_from(unix_now() / DAY).unwrap_or(u32::MAX)
}

/// `POST /content/`: without a body the way in is shown (204), with a form a file comes.
async fn upload(
    State(content): State<Arc<Content>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let owner = content.caller(&peer, &parts).await?;
    let Some(media_type) = parts.headers.get(header::CONTENT_TYPE) else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    if !media_type.to_str().is_ok_and(|t| t.trim_start().to_ascii_lowercase().starts_with("multipart/form-data")) {
        return Err(no(StatusCode::UNSUPPORTED_MEDIA_TYPE, "files come as multipart/form-data"));
    }
    let place = content.place()?;
    let base = content.base(&peer, &parts.headers);
    let form = Multipart::from_request(Request::from_parts(parts, body), &());
    let form = form.await.map_err(|e| no(StatusCode::BAD_REQUEST, e.body_text()))?;
    // It outlives the connection, to keep what has come.
    let taken = tokio::spawn(async move {
        let response = content.take_form(form, owner, &base).await;
        drop(place);
        response
    });
    taken.await.unwrap_or_else(|_| Err(no(StatusCode::INTERNAL_SERVER_ERROR, "the upload was given up")))
}

#[derive(Deserialize)]
struct Asked {
    tid: String,
    get_upload_info: Option<String>,
    get_download_info: Option<String>,
}

/// `GET /content/?tid=…&get_upload_info` and `…&get_download_info`: for a client whose upload broke, or whose answer was lost.
async fn state_of_upload(
    State(content): State<Arc<Content>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(asked): Query<Asked>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, _) = request.into_parts();
    let owner = content.caller(&peer, &parts).await?;
    let base = content.base(&peer, &parts.headers);
    let (id, entry) = content.find_upload(&owner, &asked.tid).await?;
    match (asked.get_upload_info, asked.get_download_info) {
        (Some(_), None) => {
            let received = match entry.size() {
                Some(size) => size,
                None => content.depot.shelf.received(&id).await?,
            };
            if received == 0 {
                return Err(ShelfError::Absent.into());
            }
            let url = format!("{base}{}", content.depot.links.sign(&id, Grant::Upload, entry.until));
            Ok(xml(info::RESUME_TYPE, info::resume(received, &url)))
        }
        (None, Some(_)) => content.told(&id, &entry, &base),
        _ => Err(no(StatusCode::BAD_REQUEST, "get_upload_info or get_download_info")),
    }
}

#[derive(Deserialize)]
struct Signed {
    until: u64,
    sig: String,
}

/// `PUT` to the link of an unfinished upload: the rest of it.
async fn resume(
    State(content): State<Arc<Content>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((day, number, grant)): Path<(String, String, String)>,
    Query(signed): Query<Signed>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let (id, grant) = content.granted(&day, &number, &grant, &signed)?;
    if grant != Grant::Upload {
        return Err(no(StatusCode::METHOD_NOT_ALLOWED, "this link is for reading"));
    }
    let header = headers.get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
    let range = header.and_then(range::content_range).ok_or_else(|| {
        no(StatusCode::BAD_REQUEST, "Content-Range must say which bytes of how many come (RFC 9110 section 14.4)")
    })?;
    let place = content.place()?;
    let base = content.base(&peer, &headers);
    let waits = headers.contains_key(header::EXPECT);
    let taken = tokio::spawn(async move {
        let response = content.take_rest(&id, range, body, waits, &base).await;
        drop(place);
        response
    });
    taken.await.unwrap_or_else(|_| Err(no(StatusCode::INTERNAL_SERVER_ERROR, "the upload was given up")))
}

/// `GET` of a link: a file or its thumbnail.
async fn download(
    State(content): State<Arc<Content>>,
    Path((day, number, grant)): Path<(String, String, String)>,
    Query(signed): Query<Signed>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (id, grant) = content.granted(&day, &number, &grant, &signed)?;
    let entry = content.depot.shelf.find(&id).await?;
    let Stage::Whole(parts) = &entry.state else { return Err(ShelfError::Absent.into()) };
    let tag = format!("\"{:032x}\"", u128::from_be_bytes(id.number));
    match Conditions::of(&headers).hold(Some(&tag)) {
        Ok(()) => {}
        Err(Failed::Match) => return Err(no(StatusCode::PRECONDITION_FAILED, "another file")),
        Err(Failed::NoneMatch) => return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response()),
    }
    let mut response = match (grant, &entry.thumbnail) {
        (Grant::Upload, _) => return Err(no(StatusCode::METHOD_NOT_ALLOWED, "this link is for writing")),
        (Grant::Thumbnail, None) => return Err(ShelfError::Absent.into()),
        (Grant::Thumbnail, Some(small)) => {
            shown(&small.media_type, "thumbnail", content.depot.shelf.thumbnail(&id).await?.into())
        }
        (Grant::File, _) => {
            let size = parts.iter().sum();
            let asked = headers.get(header::RANGE).and_then(|v| v.to_str().ok());
            // If-Range with another tag, or with a date: the whole (RFC 9110 §13.1.5).
            let same = headers.get(header::IF_RANGE).is_none_or(|v| *v == *tag);
            let (status, range) = match range::wanted(asked.filter(|_| same), size) {
                Wanted::Whole => (StatusCode::OK, 0..size),
                Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
                Wanted::Nothing => {
                    let of = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
                    return Ok((StatusCode::RANGE_NOT_SATISFIABLE, of).into_response());
                }
            };
            if range.start == 0 {
                content.counts.downloads.fetch_add(1, Relaxed);
            }
            let bytes = content.depot.shelf.read(id, parts, range.clone());
            let mut response = shown(&entry.media_type, &entry.name, Body::from_stream(bytes));
            *response.status_mut() = status;
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            if status == StatusCode::PARTIAL_CONTENT {
                let of = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                headers.extend(of.try_into().map(|of| (header::CONTENT_RANGE, of)));
            }
            response
        }
    };
    response.headers_mut().extend(tag.try_into().map(|tag| (header::ETAG, tag)));
    Ok(response)
}

/// What strangers sent, for a browser to save and not to run.
fn shown(media_type: &str, name: &str, body: Body) -> Response {
    let encoded: String = name
        .bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect();
    let mut response = body.into_response();
    let headers = response.headers_mut();
    let unknown = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(media_type).unwrap_or(unknown));
    let disposition = format!("attachment; filename*=UTF-8''{encoded}");
    headers.extend(disposition.try_into().map(|d| (header::CONTENT_DISPOSITION, d)));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    response
}

impl Content {
    /// The user's id; empty on a closed test net.
    async fn caller(&self, peer: &Peer, parts: &Parts) -> Result<String, Refusal> {
        let owner = match &self.authentication {
            None => String::new(),
            Some(authentication) => {
                let user = authentication.user(peer, &parts.method, &parts.uri, &parts.headers).await;
                user.map_err(|denied| Refusal::of(denied, later()))?.id.to_string()
            }
        };
        if self.rates.admits(&owner) { Ok(owner) } else { Err(later()) }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.places.clone().try_acquire_owned().map_err(|_| later())
    }

    /// Where links begin: as configured, else as the client found us.
    fn base(&self, peer: &Peer, headers: &HeaderMap) -> String {
        if self.depot.is_known() {
            return self.depot.base.clone();
        }
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let scheme = if peer.secure { "https" } else { "http" };
        format!("{scheme}://{}{ROOT}", host.map_or_else(|| peer.local.to_string(), str::to_owned))
    }

    fn granted(&self, day: &str, number: &str, grant: &str, signed: &Signed) -> Result<(Id, Grant), Refusal> {
        let id: Id = format!("{day}/{number}").parse().map_err(|_| ShelfError::Absent)?;
        let grant = Grant::ALL.into_iter().find(|g| g.as_str() == grant).ok_or(ShelfError::Absent)?;
        match self.depot.links.check(&id, grant, signed.until, &signed.sig, unix_now()) {
            Ok(()) => Ok((id, grant)),
            Err(Bad::Forged) => Err(no(StatusCode::FORBIDDEN, "not a link of ours")),
            Err(Bad::Expired) => Err(ShelfError::Absent.into()),
        }
    }

    /// An upload of today or of yesterday: midnight is no reason to begin anew.
    async fn find_upload(&self, owner: &str, tid: &str) -> Result<(Id, Entry), ShelfError> {
        let today = today();
        for day in [today, today.saturating_sub(1)] {
            let id = self.depot.links.upload(day, owner, tid);
            match self.depot.shelf.find(&id).await {
                Err(ShelfError::Absent) => {}
                found => return found.map(|entry| (id, entry)),
            }
        }
        Err(ShelfError::Absent)
    }

    /// `tid`, perhaps `Thumbnail`, and `File`, in this order (RCC.07).
    async fn take_form(&self, mut form: Multipart, owner: String, base: &str) -> Result<Response, Refusal> {
        let broken = |e: axum::extract::multipart::MultipartError| {
            self.counts.broken.fetch_add(1, Relaxed);
            no(StatusCode::BAD_REQUEST, e.body_text())
        };
        let mut tid = None;
        let mut thumbnail = None;
        while let Some(field) = next(&mut form).await?.map_err(broken)? {
            match field.name() {
                Some("tid") => tid = Some(short(field, MAX_TID).await?),
                Some("Thumbnail") => {
                    let media_type = media_type(&field);
                    thumbnail = Some((media_type, short(field, MAX_THUMBNAIL).await?));
                }
                Some("File") => {
                    let tid = tid.filter(|tid: &Bytes| !tid.is_empty());
                    let tid = tid.ok_or_else(|| no(StatusCode::BAD_REQUEST, "the field tid must come before File"))?;
                    let tid = String::from_utf8_lossy(&tid).trim().to_owned();
                    return self.take_file(field, &tid, thumbnail, owner, base).await;
                }
                // Clients may send more than we know; multer reads over it.
                _ => {}
            }
        }
        Err(no(StatusCode::BAD_REQUEST, "there is no field File"))
    }

    async fn take_file(
        &self,
        field: Field<'_>,
        tid: &str,
        thumbnail: Option<(String, Bytes)>,
        owner: String,
        base: &str,
    ) -> Result<Response, Refusal> {
        let name = field.file_name().unwrap_or("file").chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        let until = unix_now() + u64::from(self.depot.keep_days) * DAY;
        let entry = Entry { owner, name, media_type: media_type(&field), until, thumbnail: None, state: Stage::Open };
        let size = field.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        let mut bytes = Box::pin(field.map_err(|e| e.body_text()));
        let taken = async {
            if let Err(reason) = self.depot.control.admits_type(&entry.media_type) {
                return Err(self.refuse(&entry.owner, &reason.to_string()));
            }
            self.fits(size)?;
            let id = self.depot.links.upload(today(), &entry.owner, tid);
            let mut upload = self.depot.shelf.begin(id, entry).await?;
            if let Some((media_type, bytes)) = thumbnail {
                upload.thumbnail(media_type, bytes).await?;
            }
            self.fill(&mut upload, &mut bytes).await?;
            self.finish(&id, upload, base).await
        };
        let taken = taken.await;
        if taken.is_err() {
            linger(&mut bytes).await;
        }
        taken
    }

    /// `waits`: the client sends nothing before it hears that it may (`Expect: 100-continue`).
    async fn take_rest(
        &self,
        id: &Id,
        (range, size): (std::ops::Range<u64>, u64),
        body: Body,
        waits: bool,
        base: &str,
    ) -> Result<Response, Refusal> {
        let mut bytes = body.into_data_stream().map_err(|e| e.to_string());
        let begun = match self.fits(Some(size)) {
            Ok(()) => self.depot.shelf.resume(*id, range.start).await,
            Err(refusal) => Err(refusal),
        };
        let mut upload = match begun {
            Ok(upload) => upload,
            Err(refusal) => {
                if !waits {
                    linger(&mut bytes).await;
                }
                return Err(refusal.into());
            }
        };
        if let Err(refusal) = self.fill(&mut upload, &mut bytes).await {
            linger(&mut bytes).await;
            return Err(refusal);
        }
        let len = upload.len();
        if len == size {
            return self.finish(id, upload, base).await;
        }
        upload.flush().await?;
        if len == range.end {
            // One of several pieces.
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        Err(no(StatusCode::BAD_REQUEST, format!("{len} bytes are there, not {}", range.end)))
    }

    fn fits(&self, size: Option<u64>) -> Result<(), ShelfError> {
        let most = self.depot.shelf.max_file();
        if size.is_some_and(|size| size > most) { Err(ShelfError::TooLarge(most)) } else { Ok(()) }
    }

    /// Keeps what comes, and keeps it too when no more does.
    async fn fill(&self, upload: &mut Upload, bytes: impl Stream<Item = Result<Bytes, String>>) -> Result<(), Refusal> {
        futures_util::pin_mut!(bytes);
        loop {
            let chunk = match timeout(PATIENCE, bytes.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(chunk))) => chunk,
                broken => {
                    upload.flush().await?;
                    self.counts.broken.fetch_add(1, Relaxed);
                    let why = match broken {
                        Ok(Some(Err(why))) => why,
                        _ => "nothing came for a minute".into(),
                    };
                    return Err(no(StatusCode::BAD_REQUEST, format!("broken off after {} bytes: {why}", upload.len())));
                }
            };
            self.counts.received.fetch_add(chunk.len() as u64, Relaxed);
            if !self.depot.quota.take(&upload.entry.owner, today(), chunk.len() as u64) {
                upload.flush().await?;
                return Err(no(StatusCode::TOO_MANY_REQUESTS, Reason::Share.to_string()));
            }
            upload.push(chunk).await?;
        }
    }

    /// All is there: judged, then told.
    async fn finish(&self, id: &Id, mut upload: Upload, base: &str) -> Result<Response, Refusal> {
        let parts = upload.whole().await?;
        let size = parts.iter().sum();
        let read = || self.depot.shelf.read(*id, &parts, 0..size).map_err(|e| e.to_string());
        let verdict = self.depot.control.judge(read).await;
        match verdict {
            Verdict::Passed => {
                let entry = upload.close(Stage::Whole(parts)).await?;
                self.counts.stored.fetch_add(1, Relaxed);
                self.told(id, &entry, base)
            }
            Verdict::Refused(reason) => {
                let why = reason.to_string();
                let owner = upload.entry.owner.clone();
                upload.close(Stage::Refused(why.clone())).await?;
                Err(self.refuse(&owner, &why))
            }
        }
    }

    /// Counts, and writes a line for whoever audits.
    fn refuse(&self, owner: &str, why: &str) -> Refusal {
        self.counts.refused.fetch_add(1, Relaxed);
        tracing::warn!(target: "audit", user = %Redacted(owner), why, "a file was refused");
        no(StatusCode::FORBIDDEN, why)
    }

    /// The document with the links, if there is something to link to.
    fn told(&self, id: &Id, entry: &Entry, base: &str) -> Result<Response, Refusal> {
        if let Stage::Refused(why) = &entry.state {
            return Err(no(StatusCode::FORBIDDEN, why));
        }
        let size = entry.size().ok_or(ShelfError::Absent)?;
        let link = |grant| format!("{base}{}", self.depot.links.sign(id, grant, entry.until));
        Ok(xml(info::FILE_TYPE, info::file(entry, size, &link(Grant::File), &link(Grant::Thumbnail))))
    }
}

async fn next(
    form: &mut Multipart,
) -> Result<Result<Option<Field<'_>>, axum::extract::multipart::MultipartError>, Refusal> {
    timeout(PATIENCE, form.next_field()).await.map_err(|_| no(StatusCode::REQUEST_TIMEOUT, "nothing came for a minute"))
}

/// Reads on for a little after a refusal: a connection closed upon unread bytes would take the answer with it.
async fn linger(bytes: &mut (impl Stream<Item = Result<Bytes, String>> + Unpin)) {
    let mut left = LINGER_BYTES;
    let read = async {
        while let Some(Ok(chunk)) = bytes.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // Either way the answer goes out.
    let _ = timeout(LINGER, read).await;
}

/// A field that is held in memory.
async fn short(mut field: Field<'_>, most: usize) -> Result<Bytes, Refusal> {
    let mut all = Vec::new();
    let read = async {
        while let Some(chunk) = field.chunk().await.map_err(|e| no(StatusCode::BAD_REQUEST, e.body_text()))? {
            if all.len() + chunk.len() > most {
                return Err(no(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {most} bytes")));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(())
    };
    match timeout(PATIENCE, read).await {
        Ok(done) => done.map(|()| all.into()),
        Err(_) => Err(no(StatusCode::REQUEST_TIMEOUT, "nothing came for a minute")),
    }
}

fn media_type(field: &Field<'_>) -> String {
    let said = field.content_type().filter(|t| t.len() <= MAX_NAME && t.contains('/') && t.is_ascii());
    said.unwrap_or("application/octet-stream").to_owned()
}

fn xml(media_type: &'static str, document: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, media_type)], document).into_response()
}

fn no(status: StatusCode, why: impl Into<String>) -> Refusal {
    Refusal::Problem(Problem::new(status, why))
}

fn later() -> Refusal {
    no(StatusCode::SERVICE_UNAVAILABLE, "too much at once")
}

impl From<ShelfError> for Refusal {
    fn from(error: ShelfError) -> Refusal {
        let status = match &error {
            ShelfError::Absent => StatusCode::NOT_FOUND,
            ShelfError::Busy | ShelfError::Position(_) => StatusCode::CONFLICT,
            ShelfError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ShelfError::Store(_) | ShelfError::Damaged => {
                tracing::error!(%error, "files");
                return no(StatusCode::INTERNAL_SERVER_ERROR, "the store of files is out of order");
            }
        };
        no(status, error.to_string())
    }
}
