//! What one side of a session sends, judged.

use std::sync::Arc;

use media_content::{Reason, Verdict};
use media_msrp::{Held, Inspector, Judged, Judgement, Withheld};
use media_sdp::file::FileSelector;
use sip_cpim::{Address, CPIM_TYPE, Draft};

use super::content::Content;
use super::pieces::{self, essence};
use super::{ContentControl, address, notice};
use crate::hashing::Promised;

/// Messages up to this many bytes are taken apart in memory.
const IN_MEMORY: u64 = 256 << 10;

pub(super) struct Session {
    control: Arc<ContentControl>,
    /// URIs.
    sender: String,
    addressee: String,
    file: Option<Promised>,
}

impl Session {
    pub fn new(control: Arc<ContentControl>, [from, to]: [&[u8]; 2], file: Option<&FileSelector<'_>>) -> Arc<Session> {
        let file = file.map(|file| match file.partial {
            // The rest of it was sent before.
            true => Promised::default(),
            false => Promised { size: file.size, hash: file.hash },
        });
        Arc::new(Session { control, sender: address(from), addressee: address(to), file })
    }

    async fn verdict(&self, held: &Arc<Held>) -> Result<Verdict, String> {
        let control = &self.control.parts.sessions.control;
        let content = Content::of(held).await?;
        let verdict = if held.len() <= IN_MEMORY {
            let mut body = Vec::with_capacity(held.len() as usize);
            while (body.len() as u64) < held.len() {
                body.extend(held.read(body.len() as u64).await.map_err(|e| e.to_string())?);
            }
            pieces::judge(control, &String::from_utf8_lossy(held.content_type()), &body).await
        } else if let Err(reason) = control.admits_type(&content.media_type) {
            Verdict::Refused(reason)
        } else if !content.is_readable() && control.scans() {
            Verdict::Refused(Reason::Unscanned)
        } else {
            control.judge(|| content.stream()).await
        };
        let promised = self.file.as_ref().filter(|_| verdict == Verdict::Passed && content.is_readable());
        match promised {
            Some(promised) if !promised.is_kept(&content).await? => Ok(Verdict::Refused(Reason::Hash)),
            _ => Ok(verdict),
        }
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
