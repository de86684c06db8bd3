//! What a held message has in its envelope, if it came in one: a file's octets.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, try_unfold};
use media_msrp::Held;
use sip_cpim::{CPIM_TYPE, Cpim};

use super::pieces::{Base64, essence};

/// The content of a message.
pub struct Content {
    held: Arc<Held>,
    /// As its envelope says, or else the message itself.
    pub media_type: String,
    /// Where it begins, from 0.
    from: u64,
    encoding: Encoding,
}

/// How it is written down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Plain,
    Base64,
    Other,
}

impl Content {
    pub async fn of(held: &Arc<Held>) -> Result<Content, String> {
        let media_type = String::from_utf8_lossy(held.content_type()).into_owned();
        let whole = |media_type| Content { held: held.clone(), media_type, from: 0, encoding: Encoding::Plain };
        if essence(&media_type) != CPIM_TYPE {
            return Ok(whole(media_type));
        }
        let head = held.read(0).await.map_err(|e| e.to_string())?;
        let Ok(cpim) = Cpim::parse(&head) else { return Ok(whole(media_type)) };
        let written = cpim.mime("Content-Transfer-Encoding").unwrap_or_default().trim().to_ascii_lowercase();
        Ok(Content {
            held: held.clone(),
            media_type: cpim.content_type().unwrap_or("text/plain").to_owned(),
            from: (head.len() - cpim.content.len()) as u64,
            encoding: match written.as_str() {
                "" | "7bit" | "8bit" | "binary" => Encoding::Plain,
                "base64" => Encoding::Base64,
                _ => Encoding::Other,
            },
        })
    }

    /// Whether [`Content::stream`] gives what its reader would see.
    pub fn is_readable(&self) -> bool {
        self.encoding != Encoding::Other
    }

    pub fn stream(&self) -> impl Stream<Item = Result<Bytes, String>> + Send + use<> {
        let decoding = (self.encoding == Encoding::Base64).then(Base64::default);
        try_unfold((self.held.clone(), self.from, decoding, false), |(held, at, mut decoding, done)| async move {
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
}
