//! A client of ICAP (RFC 3507): shows content to a service as a proxy shows what it fetched (RESPMOD) or, where a service does that
//! alone, what it passes on (REQMOD). One connection for each content, over TLS where the address is `icaps://…`.

pub mod answer;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt, pin_mut};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::scanner::{Finding, ScanError, patient};
use answer::{Answer, Asked, BadAnswer, Heard, Method, Options};

/// Not `icap://host:port/service`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an address like icap://host:1344/service or icaps://host/service")]
pub struct BadUrl;

/// Where a service is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    url: String,
    /// Host and port.
    authority: String,
    /// Whom the server proves to be, over TLS; `None`: without.
    proves: Option<ServerName<'static>>,
}

/// A service of an ICAP server.
pub struct Icap {
    at: Address,
    tls: TlsConnector,
    options: Mutex<Option<(Instant, Options)>>,
    state: Mutex<State>,
}

/// Of the service, as far as it is known.
#[derive(Default)]
struct State {
    tag: String,
    generation: u64,
}

/// Where RFC 3507 §4.2 has them listen.
const PORT: u16 = 1344;
/// Of ICAP over TLS, as Squid has it: no standard says one.
const TLS_PORT: u16 = 11344;
const CHUNK: usize = 64 * 1024;
/// Bytes of a preview that are held in memory: a service may get fewer than it would like (RFC 3507 §4.5).
const MAX_PREVIEW: u64 = 64 * 1024;
/// For how long a service is what it said, at most.
const TTL: Duration = Duration::from_secs(3600);
const READ: usize = 16 * 1024;

impl Address {
    pub fn parse(url: &str) -> Result<Address, BadUrl> {
        let (scheme, rest) = url.split_once("://").filter(|(_, rest)| rest.len() < 1_000).ok_or(BadUrl)?;
        let secure = match scheme {
            "icap" => false,
            "icaps" => true,
            _ => return Err(BadUrl),
        };
        let (authority, service) = rest.split_once('/').ok_or(BadUrl)?;
        let is_graphic = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'@');
        if !is_graphic(authority) || !is_graphic(service) {
            return Err(BadUrl);
        }
        // What follows the last colon of an IPv6 address is not its port.
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) if !host.is_empty() => (host, port.parse().map_err(|_| BadUrl)?),
            None => (authority, if secure { TLS_PORT } else { PORT }),
            Some(_) => return Err(BadUrl),
        };
        let name = || ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| BadUrl);
        let proves = secure.then(name).transpose()?;
        Ok(Address { url: url.to_owned(), authority: format!("{host}:{port}"), proves })
    }
}

/// To a service, with or without TLS.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

impl Icap {
    /// `tls`: whom it believes, for a service that has TLS.
    pub fn new(at: Address, tls: Arc<ClientConfig>) -> Icap {
        Icap { at, tls: tls.into(), options: Mutex::default(), state: Mutex::default() }
    }

    /// Grows when the service says that it might find something else than before (RFC 3507 §4.7).
    pub fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// `content`: `size` bytes with the SHA-256 `hash`.
    pub async fn scan(
        &self,
        size: u64,
        hash: [u8; 32],
        content: impl Stream<Item = Result<Bytes, String>>,
    ) -> Result<Finding, ScanError> {
        let options = self.options().await?;
        let mut answer = Answer::new(Asked { method: options.method, size, hash });
        let heard = self.show(size, &options, content, &mut answer).await;
        self.note(answer.tag());
        match heard {
            Ok(Heard::Finding(finding)) => Ok(finding),
            Ok(Heard::Continue | Heard::More) => Err(BadAnswer::Syntax("Continue out of place").into()),
            Err(error) => {
                // It may be another one than it was.
                *self.options.lock() = None;
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, ScanError> {
        let tcp = patient(TcpStream::connect(&self.at.authority)).await?;
        // The last chunk is short, and would wait for the others to be acknowledged.
        tcp.set_nodelay(true)?;
        Ok(match &self.at.proves {
            None => Box::new(tcp),
            Some(name) => Box::new(patient(self.tls.connect(name.clone(), tcp)).await?),
        })
    }

    async fn options(&self) -> Result<Options, ScanError> {
        let known = self.options.lock().clone();
        if let Some((_, options)) = known.filter(|(until, _)| Instant::now() < *until) {
            return Ok(options);
        }
        let mut connection = self.connect().await?;
        let Address { url, authority, .. } = &self.at;
        let request = format!(
            "OPTIONS {url} ICAP/1.0\r\nHost: {authority}\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n\
             Encapsulated: null-body=0\r\n\r\n"
        );
        patient(connection.write_all(request.as_bytes())).await?;
        patient(connection.flush()).await?;
        let mut buffer = Vec::new();
        let options = loop {
            if patient(connection.read_buf(&mut buffer)).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if let Some(options) = Options::read(&mut buffer)? {
                break options;
            }
        };
        let until = Instant::now() + options.ttl.map_or(TTL, |ttl| ttl.min(TTL));
        *self.options.lock() = Some((until, options.clone()));
        Ok(options)
    }

    /// Sends content, its beginning first where the service wants that, until an answer is there.
    async fn show(
        &self,
        size: u64,
        options: &Options,
        content: impl Stream<Item = Result<Bytes, String>>,
        answer: &mut Answer,
    ) -> Result<Heard, ScanError> {
        pin_mut!(content);
        let (mut from, mut to) = tokio::io::split(self.connect().await?);
        let preview = options.preview.map(|wanted| wanted.min(MAX_PREVIEW).min(size));
        let mut head = self.head(options.method, size, preview);
        let mut rest = BytesMut::new();
        if let Some(preview) = preview {
            // At most MAX_PREVIEW.
            let preview = preview as usize;
            while rest.len() < preview
                && let Some(bytes) = content.next().await
            {
                rest.extend_from_slice(&bytes.map_err(ScanError::File)?);
            }
            let shown = rest.split_to(preview.min(rest.len()));
            let is_all = shown.len() as u64 == size;
            if !shown.is_empty() {
                head.extend_from_slice(format!("{:x}\r\n", shown.len()).as_bytes());
                head.extend_from_slice(&shown);
                head.extend_from_slice(b"\r\n");
            }
            head.extend_from_slice(if is_all { b"0; ieof\r\n\r\n" } else { b"0\r\n\r\n" });
            patient(to.write_all(&head)).await?;
            patient(to.flush()).await?;
            let heard = patient(hear(&mut from, answer)).await?;
            if is_all || heard != Heard::Continue {
                return Ok(heard);
            }
        } else {
            patient(to.write_all(&head)).await?;
        }
        // A service may give back what it gets while it gets it.
        let sending = send(&mut to, rest.freeze(), content);
        let hearing = hear(&mut from, answer);
        pin_mut!(sending, hearing);
        match select(sending, hearing).await {
            Either::Right((heard, _)) => heard,
            Either::Left((Ok(()), hearing)) => patient(hearing).await,
            Either::Left((Err(ScanError::File(why)), _)) => Err(ScanError::File(why)),
            // It hangs up on what it has seen enough of, and has said so.
            Either::Left((Err(error), hearing)) => match patient(hearing).await {
                Err(ScanError::Io(_) | ScanError::Silent) => Err(error),
                heard => heard,
            },
        }
    }

    /// The request up to its body. `Allow: 204` (RFC 3507 §4.6) is asked of services too that do not offer it: whoever does not know it
    /// gives everything back.
    fn head(&self, method: Method, size: u64, preview: Option<u64>) -> Vec<u8> {
        let Address { url, authority, .. } = &self.at;
        let about = format!("Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n");
        let (list, http) = match method {
            Method::Respmod => {
                let request = format!("GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
                let response = format!("HTTP/1.1 200 OK\r\n{about}");
                let at = request.len();
                (format!("req-hdr=0, res-hdr={at}, res-body={}", at + response.len()), request + &response)
            }
            Method::Reqmod => {
                let request = format!("POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\n{about}");
                (format!("req-hdr=0, req-body={}", request.len()), request)
            }
        };
        let preview = preview.map(|n| format!("Preview: {n}\r\n")).unwrap_or_default();
        format!(
            "{} {url} ICAP/1.0\r\nHost: {authority}\r\nUser-Agent: {AGENT}\r\nAllow: 204\r\nConnection: close\r\n{preview}\
             Encapsulated: {list}\r\n\r\n{http}",
            method.as_str()
        )
        .into_bytes()
    }

    fn note(&self, tag: &str) {
        let mut state = self.state.lock();
        if !tag.is_empty() && *tag != state.tag {
            state.generation += u64::from(!state.tag.is_empty());
            state.tag = tag.to_owned();
        }
    }
}

const AGENT: &str = "Isthmus";
/// Content has no address; services that look at addresses see one that nobody has (RFC 2606).
const HOST: &str = "content.invalid";
const PATH: &str = "http://content.invalid/content";

/// The rest of the content, in chunks.
async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    first: Bytes,
    mut rest: impl Stream<Item = Result<Bytes, String>> + Unpin,
) -> Result<(), ScanError> {
    let mut next = Some(Ok(first));
    while let Some(bytes) = next {
        for chunk in bytes.map_err(ScanError::File)?.chunks(CHUNK) {
            let size = format!("{:x}\r\n", chunk.len());
            let written = async {
                to.write_all(size.as_bytes()).await?;
                to.write_all(chunk).await?;
                to.write_all(b"\r\n").await
            };
            patient(written).await?;
        }
        next = rest.next().await;
    }
    patient(to.write_all(b"0\r\n\r\n")).await?;
    patient(to.flush()).await
}

/// The next thing that means something.
async fn hear(from: &mut (impl AsyncRead + Unpin), answer: &mut Answer) -> Result<Heard, ScanError> {
    let mut bytes = vec![0; READ];
    let mut read = 0;
    loop {
        match answer.push(&bytes[..read])? {
            Heard::More => {}
            heard => return Ok(heard),
        }
        read = from.read(&mut bytes).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use sha2::{Digest, Sha256};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_read() {
        let authority = |url: &str| Address::parse(url).map(|at| at.authority);
        assert_eq!(authority("icap://scan.test/av").as_deref(), Ok("scan.test:1344"));
        assert_eq!(authority("icap://[::1]/av?mode=simple").as_deref(), Ok("[::1]:1344"));
        assert_eq!(authority("icap://[::1]:11344/av").as_deref(), Ok("[::1]:11344"));
        assert_eq!(authority("icaps://scan.test/av").as_deref(), Ok("scan.test:11344"));
        let proves = |url: &str| Address::parse(url).unwrap().proves.map(|name| name.to_str().into_owned());
        assert_eq!(proves("icaps://[::1]:1344/av").as_deref(), Some("::1"));
        assert_eq!(
            (proves("icaps://scan.test/av").as_deref(), proves("icap://scan.test/av")),
            (Some("scan.test"), None)
        );
        for bad in [
            "",
            "http://h/av",
            "icaps://no name/av",
            "icaps://-/av",
            "icap://",
            "icap://h",
            "icap://h/",
            "icap://:1/av",
            "icap://h:x/av",
            "icap://a@h/av",
            "icap://h/a v",
            "icap://h/a\r\nb",
        ] {
            assert_eq!(authority(bad), Err(BadUrl), "{bad}");
        }
    }

    /// Of a service without TLS.
    fn icap(url: &str) -> Icap {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let nobody = builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        Icap::new(Address::parse(url).unwrap(), Arc::new(nobody))
    }

    /// What came of showing content to a service that answers OPTIONS with these fields and then, each time it has read the first
    /// of a pair, says the second; and what it read.
    async fn asked(
        options: &'static str,
        exchange: &'static [(&'static str, &'static str)],
        content: &'static [u8],
    ) -> (Result<Finding, ScanError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let icap = icap(&format!("icap://{}/av", listener.local_addr().unwrap()));
        let service = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let said = format!("ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\n{options}\r\n");
            read_until(&mut connection, "null-body=0\r\n\r\n").await;
            connection.write_all(said.as_bytes()).await.unwrap();
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut all = String::new();
            for (until, says) in exchange {
                all += &read_until(&mut connection, until).await;
                connection.write_all(says.as_bytes()).await.unwrap();
            }
            all
        });
        let pieces = stream::iter(content.chunks(7).map(|piece| Ok(Bytes::from_static(piece))));
        let found = icap.scan(content.len() as u64, Sha256::digest(content).into(), pieces).await;
        (found, service.await.unwrap())
    }

    async fn read_until(connection: &mut TcpStream, end: &str) -> String {
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains(end) {
            assert_ne!(connection.read_buf(&mut all).await.unwrap(), 0, "{}", String::from_utf8_lossy(&all));
        }
        String::from_utf8(all).unwrap()
    }

    const CONTINUE: &str = "ICAP/1.0 100 Continue\r\n\r\n";
    const CLEAN: &str = "ICAP/1.0 204 Unmodified\r\n\r\n";
    const BLOCKED: &str = "ICAP/1.0 200 OK\r\nX-Infection-Found: Type=0; Resolution=2; Threat=Eicar;\r\n\r\n";

    #[tokio::test]
    async fn a_service_sees_the_beginning_and_asks_for_the_rest() {
        let exchange = &[("\r\n4\r\nhell\r\n0\r\n\r\n", CONTINUE), ("3\r\no w\r\n4\r\norld\r\n0\r\n\r\n", CLEAN)];
        let (found, sent) = asked("Preview: 4\r\n", exchange, b"hello world").await;
        assert_eq!(found.unwrap(), Finding::Clean);
        assert!(sent.contains("\r\nAllow: 204\r\n") && sent.contains("\r\nPreview: 4\r\n"), "{sent}");
        let (list, http) =
            sent.split_once("Encapsulated: req-hdr=0, res-hdr=").unwrap().1.split_once("\r\n\r\n").unwrap();
        let (response, body) = list.split_once(", res-body=").unwrap();
        assert!(http[response.parse().unwrap()..].starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(http[body.parse().unwrap()..].starts_with("4\r\nhell\r\n"));
    }

    #[tokio::test]
    async fn a_short_content_is_its_own_preview() {
        let (found, _) =
            asked("Preview: 100\r\n", &[("b\r\nhello world\r\n0; ieof\r\n\r\n", CLEAN)], b"hello world").await;
        assert_eq!(found.unwrap(), Finding::Clean);
        let (found, _) = asked("Preview: 100\r\n", &[("0; ieof\r\n\r\n", CONTINUE)], b"").await;
        assert!(matches!(found, Err(ScanError::Refused(_))));
    }

    #[tokio::test]
    async fn without_a_preview_all_is_sent_and_an_answer_in_the_middle_counts() {
        let (found, sent) = asked("", &[("7\r\nhello w\r\n", BLOCKED)], b"hello world").await;
        assert_eq!(found.unwrap(), Finding::Found("Eicar".into()));
        assert!(!sent.contains("Preview"));
        let (found, _) = asked("", &[("7\r\nhello w\r\n", "ICAP/1.0 503 Busy\r\n\r\n")], b"hello world").await;
        assert_eq!(found.unwrap_err().to_string(), "503 Busy");
        let (found, _) = asked("", &[("7\r\nhello w\r\n", "")], b"hello world").await;
        assert!(matches!(found, Err(ScanError::Io(_))));
    }

    #[test]
    fn a_new_state_of_the_service_is_a_new_generation() {
        let icap = icap("icap://h/av");
        let generations = ["\"1\"", "\"1\"", "", "\"2\"", "\"2\""].map(|tag| {
            icap.note(tag);
            icap.generation()
        });
        assert_eq!(generations, [0, 0, 0, 1, 1]);
    }
}
