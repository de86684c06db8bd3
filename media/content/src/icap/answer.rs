//! What an ICAP server says: bytes in, their meaning out.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::scanner::Finding;

/// Longest status line with its fields, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Fields of one answer.
const MAX_FIELDS: usize = 100;
/// Longest HTTP head inside an answer, in bytes.
const MAX_HTTP: usize = 64 * 1024;
/// Longest line before a chunk, extensions included.
const MAX_CHUNK_LINE: usize = 1024;
/// Letters of a finding's name.
const MAX_NAME: usize = 100;

/// Why an answer is none to us; the operator's, who chose the service.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadAnswer {
    #[error("not ICAP: {0}")]
    Syntax(&'static str),
    /// Its status (RFC 3507 §4.3.3) and reason.
    #[error("{0} {1}")]
    Status(u16, String),
}

/// What a service is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// To look at a request that goes out.
    Reqmod,
    /// To look at a response that came.
    Respmod,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Reqmod => "REQMOD",
            Method::Respmod => "RESPMOD",
        }
    }
}

/// What a service says of itself (RFC 3507 §4.10.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub method: Method,
    /// Bytes that it wants to see before it says whether it needs more.
    pub preview: Option<u64>,
    /// How long this is true.
    pub ttl: Option<Duration>,
    /// `ISTag`: another one when it might find something else (RFC 3507 §4.7).
    pub tag: String,
}

impl Options {
    /// `None`: more is to come. What is read is taken from `buffer`.
    pub fn read(buffer: &mut Vec<u8>) -> Result<Option<Options>, BadAnswer> {
        let Some(head) = Head::take(buffer)? else { return Ok(None) };
        if head.status != 200 && head.status != 204 {
            return Err(head.refusal());
        }
        let methods = head.field("methods").unwrap_or_default().to_ascii_uppercase();
        let has = |method: Method| methods.split(',').any(|m| m.trim() == method.as_str());
        let method = [Method::Respmod, Method::Reqmod].into_iter().find(|m| has(*m));
        let number = |name| head.field(name).and_then(|v| v.trim().parse().ok());
        Ok(Some(Options {
            method: method.ok_or(BadAnswer::Syntax("a service without REQMOD and RESPMOD"))?,
            preview: number("preview"),
            ttl: number("options-ttl").map(Duration::from_secs),
            tag: head.tag(),
        }))
    }
}

/// What came in answer to content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// Nothing that is whole.
    More,
    /// It wants what is behind the preview.
    Continue,
    Finding(Finding),
}

/// What was handed to the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    pub method: Method,
    pub size: u64,
    /// SHA-256.
    pub hash: [u8; 32],
}

/// An answer to REQMOD or RESPMOD, and what it means for somebody who passes content on as it is or not at all. A
/// service that gives it back unchanged has nothing against it; whatever else it gives back is a refusal.
pub struct Answer {
    asked: Asked,
    buffer: Vec<u8>,
    stage: Stage,
    tag: String,
}

enum Stage {
    Head,
    Http(Encapsulated, String),
    Body(Body),
}

/// The list of what is inside (RFC 3507 §4.4.1).
#[derive(Clone, Copy, Debug)]
struct Encapsulated {
    /// Where the head of an HTTP response begins.
    response: Option<usize>,
    /// Where all heads end.
    body: usize,
    has_body: bool,
}

struct Body {
    hash: Sha256,
    received: u64,
    chunk: Chunk,
}

enum Chunk {
    Size,
    /// So many bytes are missing.
    Data(u64),
    End,
}

impl Answer {
    pub fn new(asked: Asked) -> Answer {
        Answer { asked, buffer: Vec::new(), stage: Stage::Head, tag: String::new() }
    }

    /// The state of the service that gave it; empty: it does not say.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    pub fn push(&mut self, bytes: &[u8]) -> Result<Heard, BadAnswer> {
        self.buffer.extend_from_slice(bytes);
        loop {
            match &mut self.stage {
                Stage::Head => {
                    let Some(head) = Head::take(&mut self.buffer)? else { return Ok(Heard::More) };
                    if head.status == 100 {
                        return Ok(Heard::Continue);
                    }
                    self.tag = head.tag();
                    if let Some(name) = head.infection() {
                        return Ok(Heard::Finding(Finding::Found(name)));
                    }
                    match head.status {
                        204 => return Ok(Heard::Finding(Finding::Clean)),
                        200 | 201 => {}
                        _ => return Err(head.refusal()),
                    }
                    let list = head.field("encapsulated").ok_or(BadAnswer::Syntax("no Encapsulated"))?;
                    let name = head.name().unwrap_or_else(|| BLOCKED.to_owned());
                    self.stage = Stage::Http(Encapsulated::read(list)?, name);
                }
                Stage::Http(inside, name) => {
                    if self.buffer.len() < inside.body {
                        return Ok(Heard::More);
                    }
                    let heads: Vec<u8> = self.buffer.drain(..inside.body).collect();
                    // In place of a request that was looked at, a response is a refusal.
                    let kept = match (inside.response, self.asked.method) {
                        (None, _) => true,
                        (Some(_), Method::Reqmod) => false,
                        (Some(at), Method::Respmod) => http_status(&heads[at..])? == 200,
                    };
                    if !kept {
                        return Ok(Heard::Finding(Finding::Found(std::mem::take(name))));
                    }
                    let body = Body { hash: Sha256::new(), received: 0, chunk: Chunk::Size };
                    if !inside.has_body {
                        return Ok(Heard::Finding(body.compared(&self.asked)));
                    }
                    self.stage = Stage::Body(body);
                }
                Stage::Body(body) => {
                    let (taken, whole) = body.take(&self.buffer)?;
                    self.buffer.drain(..taken);
                    // One that does not end is another one.
                    if whole || body.received > self.asked.size {
                        let body = std::mem::replace(&mut self.stage, Stage::Head);
                        let Stage::Body(body) = body else { unreachable!("matched above") };
                        return Ok(Heard::Finding(body.compared(&self.asked)));
                    }
                    return Ok(Heard::More);
                }
            }
        }
    }
}

/// Names for findings without one.
const BLOCKED: &str = "something that it blocks";
const CHANGED: &str = "something that it would change";

impl Encapsulated {
    fn read(list: &str) -> Result<Encapsulated, BadAnswer> {
        let bad = BadAnswer::Syntax("Encapsulated");
        let mut last = 0;
        let mut response = None;
        for item in list.split(',') {
            let (name, offset) = item.split_once('=').ok_or(bad.clone())?;
            let offset: usize = offset.trim().parse().map_err(|_| bad.clone())?;
            if offset < last || offset > MAX_HTTP {
                return Err(bad);
            }
            last = offset;
            let body = |has_body| Encapsulated { response: response.filter(|at| *at < offset), body: offset, has_body };
            match name.trim().to_ascii_lowercase().as_str() {
                "req-hdr" => {}
                "res-hdr" => response = Some(offset),
                "null-body" => return Ok(body(false)),
                "req-body" | "res-body" | "opt-body" => return Ok(body(true)),
                _ => return Err(bad),
            }
        }
        Err(bad)
    }
}

impl Body {
    /// Bytes of the input that were read, and whether the body is whole.
    fn take(&mut self, input: &[u8]) -> Result<(usize, bool), BadAnswer> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.chunk {
                Chunk::Size => {
                    let Some(end) = rest.iter().take(MAX_CHUNK_LINE + 1).position(|b| *b == b'\n') else {
                        let bounded = rest.len() <= MAX_CHUNK_LINE;
                        return if bounded { Ok((at, false)) } else { Err(BadAnswer::Syntax("chunk")) };
                    };
                    at += end + 1;
                    match chunk_size(&rest[..end])? {
                        0 => return Ok((at, true)),
                        size => self.chunk = Chunk::Data(size),
                    }
                }
                Chunk::Data(_) if rest.is_empty() => return Ok((at, false)),
                Chunk::Data(missing) => {
                    let here = &rest[..rest.len().min(usize::try_from(missing).unwrap_or(usize::MAX))];
                    self.hash.update(here);
                    self.received = self.received.saturating_add(here.len() as u64);
                    at += here.len();
                    let missing = missing - here.len() as u64;
                    self.chunk = if missing == 0 { Chunk::End } else { Chunk::Data(missing) };
                }
                Chunk::End if rest.len() < 2 => return Ok((at, false)),
                Chunk::End => {
                    if !rest.starts_with(b"\r\n") {
                        return Err(BadAnswer::Syntax("chunk"));
                    }
                    at += 2;
                    self.chunk = Chunk::Size;
                }
            }
        }
    }

    fn compared(self, asked: &Asked) -> Finding {
        let same = self.received == asked.size && <[u8; 32]>::from(self.hash.finalize()) == asked.hash;
        if same { Finding::Clean } else { Finding::Found(CHANGED.to_owned()) }
    }
}

/// The number before a chunk, extensions aside (RFC 9112 §7.1).
fn chunk_size(line: &[u8]) -> Result<u64, BadAnswer> {
    let line = std::str::from_utf8(line).unwrap_or_default();
    let digits = line.split(';').next().unwrap_or_default().trim();
    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| hex).ok_or(BadAnswer::Syntax("chunk"))
}

fn http_status(head: &[u8]) -> Result<u16, BadAnswer> {
    let line = head.split(|b| *b == b'\r').next().and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let status = line.strip_prefix("HTTP/").and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
    status.ok_or(BadAnswer::Syntax("the HTTP inside"))
}

/// A status line and the fields behind it, names in lower case.
struct Head {
    status: u16,
    reason: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// `None`: more is to come.
    fn take(buffer: &mut Vec<u8>) -> Result<Option<Head>, BadAnswer> {
        let Some(end) = buffer.windows(4).take(MAX_HEAD).position(|w| w == b"\r\n\r\n") else {
            return if buffer.len() < MAX_HEAD + 3 { Ok(None) } else { Err(BadAnswer::Syntax("a head without end")) };
        };
        let bytes: Vec<u8> = buffer.drain(..end + 4).collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let (status, reason) = line
            .strip_prefix("ICAP/1.")
            .and_then(|l| l.split_once(' '))
            .map(|(_, said)| said.split_once(' ').unwrap_or((said, "")))
            .and_then(|(status, reason)| Some((status.parse().ok()?, printable(reason))))
            .ok_or(BadAnswer::Syntax("status line"))?;
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in lines.take_while(|l| !l.is_empty()) {
            // X-Violations-Found is folded.
            if let Some(more) = line.strip_prefix([' ', '\t']) {
                let (_, value) = fields.last_mut().ok_or(BadAnswer::Syntax("field"))?;
                value.extend([" ", more.trim()]);
                continue;
            }
            match line.split_once(':') {
                Some((name, value)) if fields.len() < MAX_FIELDS => {
                    fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                _ => return Err(BadAnswer::Syntax("field")),
            }
        }
        Ok(Some(Head { status, reason, fields }))
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn tag(&self) -> String {
        self.field("istag").unwrap_or_default().to_owned()
    }

    fn refusal(&self) -> BadAnswer {
        BadAnswer::Status(self.status, self.reason.clone())
    }

    /// What it says to have found, whatever its status: some services only tell.
    fn infection(&self) -> Option<String> {
        let violations = self.field("x-violations-found").and_then(|v| v.split_whitespace().next());
        let found = self.field("x-infection-found").is_some() || violations.is_some_and(|n| n != "0");
        found.then(|| self.name().unwrap_or_else(|| BLOCKED.to_owned()))
    }

    /// Its name, in the fields that scanners agree on (draft-stecher-icap-subid).
    fn name(&self) -> Option<String> {
        let threat = |value: &str| {
            let param = value.split(';').find_map(|p| p.trim().strip_prefix("Threat="))?;
            Some(printable(param))
        };
        let named =
            self.field("x-infection-found").and_then(threat).or_else(|| self.field("x-virus-id").map(printable));
        named.filter(|name| !name.is_empty())
    }
}

/// A piece of an answer that people and other protocols get to see.
fn printable(text: &str) -> String {
    let shown = |c: &char| (' '..='~').contains(c) && !matches!(c, '"' | '\\');
    text.trim().chars().filter(shown).take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &[u8] = b"hello world";

    fn asked(method: Method) -> Asked {
        Asked { method, size: HELLO.len() as u64, hash: Sha256::digest(HELLO).into() }
    }

    /// In one piece, and byte by byte.
    fn heard(method: Method, text: &str) -> Result<Heard, BadAnswer> {
        let whole = Answer::new(asked(method)).push(text.as_bytes());
        let mut answer = Answer::new(asked(method));
        let mut last = Ok(Heard::More);
        for byte in text.as_bytes() {
            last = answer.push(&[*byte]);
            if last != Ok(Heard::More) {
                break;
            }
        }
        assert_eq!(whole, last, "{text}");
        whole
    }

    fn found(name: &str) -> Result<Heard, BadAnswer> {
        Ok(Heard::Finding(Finding::Found(name.into())))
    }

    const CLEAN: Result<Heard, BadAnswer> = Ok(Heard::Finding(Finding::Clean));

    #[test]
    fn nothing_to_change_is_clean() {
        assert_eq!(heard(Method::Respmod, "ICAP/1.0 204 Unmodified\r\nISTag: \"1\"\r\n\r\n"), CLEAN);
        let mut answer = Answer::new(asked(Method::Respmod));
        assert_eq!(
            answer.push(b"ICAP/1.0 100 Continue\r\n\r\nICAP/1.0 204 OK\r\nISTag: \"7\"\r\n\r\n"),
            Ok(Heard::Continue)
        );
        assert_eq!((answer.push(b""), answer.tag()), (CLEAN, "\"7\""));
    }

    #[test]
    fn content_that_comes_back_is_compared() {
        let answer = |body: &str| {
            format!(
                "ICAP/1.0 200 OK\r\nISTag: \"1\"\r\nEncapsulated: res-hdr=0, res-body=39\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{body}"
            )
        };
        assert_eq!(heard(Method::Respmod, &answer("6\r\nhello \r\n5;x=y\r\nworld\r\n0\r\n\r\n")), CLEAN);
        assert_eq!(heard(Method::Respmod, &answer("b\r\nhello World\r\n0\r\n\r\n")), found(CHANGED));
        assert_eq!(heard(Method::Respmod, &answer("5\r\nhello\r\n0\r\n\r\n")), found(CHANGED));
        assert_eq!(heard(Method::Respmod, &answer("ffffffffffffffff\r\nhello world, and on")), found(CHANGED));
        assert_eq!(heard(Method::Respmod, &answer("6\r\nhello ")), Ok(Heard::More));
        let request = "ICAP/1.0 200 OK\r\nEncapsulated: req-hdr=0, req-body=19\r\n\r\nPOST / HTTP/1.1\r\n\r\n\
                       b\r\nhello world\r\n0\r\n\r\n";
        assert_eq!(heard(Method::Reqmod, request), CLEAN);
        let nothing = "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, null-body=19\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(heard(Method::Respmod, nothing), found(CHANGED));
    }

    #[test]
    fn a_page_in_its_place_is_a_refusal() {
        let page = "Encapsulated: res-hdr=0, res-body=26\r\n\r\nHTTP/1.1 403 Forbidden\r\n\r\n";
        let named = format!("ICAP/1.0 200 OK\r\nX-Virus-ID: Eicar-\"Test\"\r\n{page}");
        assert_eq!(heard(Method::Respmod, &named), found("Eicar-Test"));
        for method in [Method::Respmod, Method::Reqmod] {
            assert_eq!(heard(method, &format!("ICAP/1.0 200 OK\r\n{page}")), found(BLOCKED));
        }
        let ok = "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, null-body=19\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(heard(Method::Reqmod, ok), found(BLOCKED));
    }

    #[test]
    fn what_a_service_only_tells_counts() {
        let told = |fields: &str| heard(Method::Respmod, &format!("ICAP/1.0 204 OK\r\n{fields}\r\n\r\n"));
        assert_eq!(told("X-Infection-Found: Type=0; Resolution=0; Threat=Win.Test.EICAR;"), found("Win.Test.EICAR"));
        assert_eq!(told("X-Violations-Found: 1\r\n\t-\r\n\tEicar\r\n\t0\r\n\t2\r\nX-Virus-ID: Eicar"), found("Eicar"));
        assert_eq!(told("X-Violations-Found: 0\r\nX-Virus-ID: no threats"), CLEAN);
    }

    #[test]
    fn options_say_what_a_service_does() {
        let read = |text: &str| Options::read(&mut text.as_bytes().to_vec());
        let all = "ICAP/1.0 200 OK\r\nMethods: RESPMOD, REQMOD\r\nISTag: \"CI0001\"\r\nPreview: 1024\r\nOptions-TTL: 3600\r\n\
                   Allow: 204\r\nEncapsulated: null-body=0\r\n\r\n";
        let options = Options {
            method: Method::Respmod,
            preview: Some(1024),
            ttl: Some(Duration::from_secs(3600)),
            tag: "\"CI0001\"".into(),
        };
        assert_eq!(read(all), Ok(Some(options)));
        let bare = read("ICAP/1.0 200 OK\r\nMethods: reqmod\r\n\r\n").unwrap().unwrap();
        assert_eq!((bare.method, bare.preview, bare.ttl), (Method::Reqmod, None, None));
        assert_eq!(read("ICAP/1.0 200 OK\r\nMethods:"), Ok(None));
        assert_eq!(read("ICAP/1.0 404 Not Found\r\n\r\n"), Err(BadAnswer::Status(404, "Not Found".into())));
        assert!(read("ICAP/1.0 200 OK\r\nMethods: OPTIONS\r\n\r\n").is_err());
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        for bad in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "ICAP/1.0\r\n\r\n",
            "ICAP/1.0 200 OK\r\n\r\n",
            "ICAP/1.0 200 OK\r\nno field\r\n\r\n",
            "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0\r\n\r\n",
            "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=9, res-body=4\r\n\r\n",
            "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body=99999999\r\n\r\n",
            "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body=4\r\n\r\nabcd",
            "ICAP/1.0 200 OK\r\nEncapsulated: res-body=0\r\n\r\n-1\r\n",
            "ICAP/1.0 200 OK\r\nEncapsulated: res-body=0\r\n\r\n1\r\nabc",
        ] {
            assert!(matches!(heard(Method::Respmod, bad), Err(BadAnswer::Syntax(_))), "{bad}");
        }
        assert_eq!(heard(Method::Respmod, "ICAP/1.0 503 Busy\r\n\r\n"), Err(BadAnswer::Status(503, "Busy".into())));
        assert!(Answer::new(asked(Method::Respmod)).push(&[b'a'; MAX_HEAD + 3]).is_err());
    }
}
