//! What one side of a session sends, judged.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, try_unfold};
use media_content::{Reason, Verdict};
use media_msrp::{Held, Inspector, Judged, Judgement, Withheld};
use media_sdp::file::{self, FileSelector, HashAlgorithm};
use sip_cpim::{Address, CPIM_TYPE, Cpim, Draft};

use super::pieces::{self, Base64, essence};
use super::{ContentControl, address, notice};
use crate::hashing::Hashing;

/// Messages up to this many bytes are taken apart in memory.
const IN_MEMORY: u64 = 256 << 10;

pub(super) struct Session {
    control: Arc<ContentControl>,
    /// URIs.
    sender: String,
    addressee: String,
    file: Option<Promised>,
}

/// What the description promises of the file that comes.
struct Promised {
    size: Option<u64>,
    hash: Option<(HashAlgorithm, file::Digest)>,
}

impl Session {
    pub fn new(control: Arc<ContentControl>, [from, to]: [&[u8]; 2], file: Option<&FileSelector<'_>>) -> Arc<Session> {
        let file = file.map(|file| match file.partial {
            // The rest of it was sent before.
            true => Promised { size: None, hash: None },
            false => Promised { size: file.size, hash: file.hash },
        });
        Arc::new(Session { control, sender: address(from), addressee: address(to), file })
    }

    async fn verdict(&self, held: &Arc<Held>) -> Result<Verdict, String> {
        let control = &self.control.parts.sessions.control;
        let content_type = String::from_utf8_lossy(held.content_type()).into_owned();
        let (from, encoding) = if held.len() <= IN_MEMORY {
            let mut body = Vec::with_capacity(held.len() as usize);
            while (body.len() as u64) < held.len() {
                body.extend(held.read(body.len() as u64).await.map_err(|e| e.to_string())?);
            }
            if let refused @ Verdict::Refused(_) = pieces::judge(control, &content_type, &body).await {
                return Ok(refused);
            }
            envelope(&content_type, &body)
        } else {
            let head = held.read(0).await.map_err(|e| e.to_string())?;
            let (from, encoding, inner) = match Cpim::parse(&head).ok().filter(|_| essence(&content_type) == CPIM_TYPE)
            {
                Some(cpim) => {
                    let (from, encoding) = envelope(&content_type, &head);
                    (from, encoding, cpim.content_type().unwrap_or("text/plain").to_owned())
                }
                None => (0, Encoding::Plain, content_type),
            };
            if let Err(reason) = control.admits_type(&inner) {
                return Ok(Verdict::Refused(reason));
            }
            if encoding == Encoding::Other && control.scans() {
                return Ok(Verdict::Refused(Reason::Unscanned));
            }
            if let refused @ Verdict::Refused(_) = control.judge(|| content(held.clone(), from, encoding)).await {
                return Ok(refused);
            }
            (from, encoding)
        };
        if self.is_as_promised(held, from, encoding).await? {
            Ok(Verdict::Passed)
        } else {
            Ok(Verdict::Refused(Reason::Hash))
        }
    }

    async fn is_as_promised(&self, held: &Arc<Held>, from: u64, encoding: Encoding) -> Result<bool, String> {
        let Some(Promised { size, hash }) = &self.file else { return Ok(true) };
        let mut hashing = hash.map(|(algorithm, _)| Hashing::new(algorithm));
        if size.is_none() && hash.is_none() || encoding == Encoding::Other {
            return Ok(true);
        }
        let mut length = 0;
        let bytes = content(held.clone(), from, encoding);
        futures_util::pin_mut!(bytes);
        while let Some(piece) = futures_util::TryStreamExt::try_next(&mut bytes).await? {
            length += piece.len() as u64;
            if let Some(hashing) = &mut hashing {
                hashing.update(&piece);
            }
        }
        let same = hashing.zip(*hash).is_none_or(|(hashing, (_, digest))| hashing.is(&digest));
        Ok(same && size.is_none_or(|size| size == length))
    }

    fn withheld(&self, content_type: &[u8], why: &Reason) -> Withheld {
        self.control.withheld("session", &self.sender, &self.addressee, why);
        Withheld { status: why.status(), notice: self.notice(content_type, why) }
    }

    /// For whoever would have got it, in the form that it would have come in. A file's addressee sees it fail.
    fn notice(&self, content_type: &[u8], why: &Reason) -> Option<(Box<[u8]>, Vec<u8>)> {
        if !self.control.parts.sessions.tell || self.file.is_some() {
            return None;
        }
        let text = notice(&self.sender, why);
        let content_type = essence(&String::from_utf8_lossy(content_type));
        if content_type.starts_with("text/") {
            return Some((b"text/plain".as_slice().into(), text.into_bytes()));
        }
        if content_type != CPIM_TYPE {
            return None;
        }
        let mut body = Vec::new();
        let mut draft = Draft::new(&mut body);
        let domain = format!("sip:{}", self.control.parts.home.domain());
        draft.address("From", &Address::new("", &domain)).address("To", &Address::new("", &self.addressee));
        draft.content("text/plain;charset=utf-8", [], text.as_bytes());
        Some((CPIM_TYPE.as_bytes().into(), body))
    }
}

/// How the content of an envelope is written down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Plain,
    Base64,
    Other,
}

/// Where the content begins that a message has in its envelope, if it has one, and how that is encoded.
fn envelope(content_type: &str, head: &[u8]) -> (u64, Encoding) {
    let Some(cpim) = Cpim::parse(head).ok().filter(|_| essence(content_type) == CPIM_TYPE) else {
        return (0, Encoding::Plain);
    };
    let written = cpim.mime("Content-Transfer-Encoding").unwrap_or_default().trim().to_ascii_lowercase();
    let encoding = match written.as_str() {
        "" | "7bit" | "8bit" | "binary" => Encoding::Plain,
        "base64" => Encoding::Base64,
        _ => Encoding::Other,
    };
    ((head.len() - cpim.content.len()) as u64, encoding)
}

/// The content's octets.
fn content(held: Arc<Held>, from: u64, encoding: Encoding) -> impl Stream<Item = Result<Bytes, String>> {
    let decoding = (encoding == Encoding::Base64).then(Base64::default);
    try_unfold((held, from, decoding, false), |(held, at, mut decoding, done)| async move {
        if done {
            return Ok(None);
        }
        let piece = held.read(at).await.map_err(|e| e.to_string())?;
        let (at, done) = (at + piece.len() as u64, piece.is_empty());
        let bytes = match &mut decoding {
            Some(decoding) if done => decoding.finish(),
            Some(decoding) => decoding.push(&piece),
            None => piece,
        };
        Ok(Some((Bytes::from(bytes), (held, at, decoding, done))))
    })
}

impl Inspector for Session {
    fn admits(&self, content_type: &[u8], size: Option<u64>) -> Result<(), Withheld> {
        let control = &self.control.parts.sessions.control;
        let allowed = control
            .admits_type(&String::from_utf8_lossy(content_type))
            .and_then(|()| size.map_or(Ok(()), |size| control.admits_size(size)));
        allowed.map_err(|why| self.withheld(content_type, &why))
    }

    fn max_size(&self) -> u64 {
        self.control.parts.sessions.control.max_size()
    }

    fn judge(self: Arc<Self>, message: Arc<Held>) -> Judged {
        Box::pin(async move {
            let why = match self.verdict(&message).await {
                Ok(Verdict::Passed) => return Judgement::Passes,
                Ok(Verdict::Refused(why)) => why,
                Err(error) => {
                    tracing::warn!(error, "a held message cannot be read");
                    Reason::Unscanned
                }
            };
            Judgement::Refused(self.withheld(message.content_type(), &why))
        })
    }
}
