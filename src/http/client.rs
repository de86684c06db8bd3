//! Requests of our own: notifications to push clients, questions to an HLR. HTTP/1.1, connections kept for the next; a redirect is an answer
//! like any other and is not followed.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, Uri, header};
use gw_sms::delivery::LookUp;
use gw_sms::notice::Poster;
use gw_sms::registry::Line;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use sip_ims::Msisdn;
use tokio::net::{TcpStream, lookup_host};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::guard::Guard;

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

/// Why nothing did.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The operator's: not an `http:` or `https:` URL.
    #[error("not a URL that can be asked")]
    Url,
    /// The developer's who named it: see [`Guard`].
    #[error("not an address that strangers may send us to")]
    Forbidden,
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("no answer in time")]
    Timeout,
    /// The peer's: more than [`MAX_ANSWER`].
    #[error("the answer is too long or broken")]
    Body,
}

type Connection = SendRequest<Full<Bytes>>;

/// An HTTP client. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    /// Idle connections by scheme and authority; at most [`MAX_IDLE`] each.
    idle: Arc<Mutex<HashMap<String, Vec<Connection>>>>,
    /// `None`: the operator names the addresses.
    guard: Option<Guard>,
}

impl Client {
    /// `tls` says whose certificates are believed.
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Client {
        Client { tls: TlsConnector::from(tls), idle: Arc::default(), guard: None }
    }

    /// The same for addresses that strangers name, as far as `guard` admits them.
    pub fn guarded(&self, guard: Guard) -> Client {
        Client { tls: self.tls.clone(), idle: Arc::default(), guard: Some(guard) }
    }

    pub async fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<Answer, ClientError> {
        let uri: Uri = url.parse().map_err(|_| ClientError::Url)?;
        let authority = uri.authority().ok_or(ClientError::Url)?.as_str().to_owned();
        let key = format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let body = Bytes::from(body);
        let made = || {
            let mut request = Request::builder().method(&method).uri(&path).header(header::HOST, &authority);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            request.body(Full::new(body.clone())).map_err(|_| ClientError::Url)
        };
        // A kept connection may have been closed by the other side meanwhile: then once more, on a new one.
        while let Some(mut kept) = self.take(&key) {
            if kept.is_closed() {
                continue;
            }
            match self.exchange(&mut kept, made()?).await {
                Ok(answer) => {
                    self.keep(&key, kept);
                    return Ok(answer);
                }
                Err(ClientError::Http(error))
                    if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => {}
                Err(error) => return Err(error),
            }
        }
        let mut fresh = timeout(CONNECT, self.connect(&uri)).await.map_err(|_| ClientError::Timeout)??;
        let answer = self.exchange(&mut fresh, made()?).await?;
        self.keep(&key, fresh);
        Ok(answer)
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, ClientError> {
        let whole = async {
            connection.ready().await?;
            let response = connection.send_request(request).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|_| ClientError::Body)?;
            Ok(Answer { status, body: body.to_bytes() })
        };
        timeout(ANSWER, whole).await.map_err(|_| ClientError::Timeout)?
    }

    async fn connect(&self, uri: &Uri) -> Result<Connection, ClientError> {
        let host = uri.host().ok_or(ClientError::Url)?.trim_matches(['[', ']']).to_owned();
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(ClientError::Url),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let mut addresses: Vec<_> = lookup_host((host.as_str(), port)).await.map_err(ClientError::Connect)?.collect();
        if let Some(guard) = &self.guard {
            addresses.retain(|a| guard.admits(a.ip(), secure));
            if addresses.is_empty() {
                return Err(ClientError::Forbidden);
            }
        }
        let stream = TcpStream::connect(&addresses[..]).await.map_err(ClientError::Connect)?;
        // A request is one write: nothing is gained by waiting for more.
        let _ = stream.set_nodelay(true);
        if secure {
            let name = ServerName::try_from(host).map_err(|_| ClientError::Url)?;
            let stream = self.tls.connect(name, stream).await.map_err(ClientError::Connect)?;
            handshake(TokioIo::new(stream)).await
        } else {
            handshake(TokioIo::new(stream)).await
        }
    }

    fn take(&self, key: &str) -> Option<Connection> {
        self.idle.lock().get_mut(key)?.pop()
    }

    fn keep(&self, key: &str, connection: Connection) {
        let mut idle = self.idle.lock();
        let list = idle.entry(key.to_owned()).or_default();
        list.retain(|c| !c.is_closed());
        if list.len() < MAX_IDLE {
            list.push(connection);
        }
    }
}

async fn handshake<T>(io: T) -> Result<Connection, ClientError>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP connection ended");
        }
    });
    Ok(sender)
}

impl Poster for Client {
    fn post(
        &self,
        url: &str,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Option<u16>> + Send>> {
        let (client, url) = (self.clone(), url.to_owned());
        Box::pin(async move {
            match client.request(Method::POST, &url, &headers, body).await {
                Ok(answer) => Some(answer.status),
                Err(error) => {
                    tracing::info!(%error, "a notification was not taken");
                    None
                }
            }
        })
    }
}

/// An HLR or HSS behind HTTP: `GET` of the URL with `{msisdn}` filled in, answered by the keys of `[[line]]` as a JSON object; 404: an
/// ordinary line. Anything else, or nothing in time, says nothing.
pub struct HlrClient {
    client: Client,
    url: String,
    patience: Duration,
    /// It may be a slow one: no more questions at once than it was built for.
    room: Arc<Semaphore>,
    runtime: Handle,
}

impl HlrClient {
    pub fn new(client: Client, url: &str, patience: Duration, runtime: Handle) -> HlrClient {
        HlrClient { client, url: url.to_owned(), patience, room: Arc::new(Semaphore::new(HLR_AT_ONCE)), runtime }
    }
}

impl LookUp for HlrClient {
    fn look_up(&self, msn: Msisdn, done: Box<dyn FnOnce(Option<Line>) + Send>) {
        let url = self.url.replace("{msisdn}", &msn.as_u64().to_string());
        let (client, room, patience) = (self.client.clone(), self.room.clone(), self.patience);
        self.runtime.spawn(async move {
            // Never closed.
            let _place = room.acquire().await;
            let accept = [("accept", "application/json".to_owned())];
            let line = match timeout(patience, client.request(Method::GET, &url, &accept, Vec::new())).await {
                Ok(Ok(answer)) => Line::told(answer.status, &answer.body),
                Ok(Err(_)) | Err(_) => None,
            };
            if line.is_none() {
                tracing::warn!("the HLR does not tell how a line stands");
            }
            done(line);
        });
    }
}

/// Questions to an HLR at once.
const HLR_AT_ONCE: usize = 64;
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Idle connections to one place.
const MAX_IDLE: usize = 32;
/// For TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(5);
/// From the request to the end of its answer.
const ANSWER: Duration = Duration::from_secs(10);
