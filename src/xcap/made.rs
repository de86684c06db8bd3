//! Documents that nobody stores: capabilities, directories, the index of all services.

use std::hash::Hasher as _;

use sip_ims::answer;
use sip_xcap::usage::{self, directory, rls_services, xcap_caps};
use sip_xcap::{Text, encode_segment};
use siphasher::sip::SipHasher13;

use super::{Current, Made, No, Xcap};
use crate::http::etag::tag;

/// Documents of the store that are read at once.
const PAGE: u32 = 500;
/// Bytes of the index of all services; a house that has more has other ways to look one up.
const MAX_INDEX: usize = 64 << 20;

impl Xcap {
    pub(super) async fn make(&self, made: &Made) -> Result<Current, No> {
        let (auid, body) = match made {
            Made::Capabilities => ("xcap-caps", xcap_caps::document()),
            Made::Index => (rls_services::AUID, self.index().await?),
            Made::Directory(owner) => {
                let mut folders = Vec::new();
                for (usage, documents) in self.documents_of(owner, self.config.documents_per_user).await? {
                    let entry = |document: sip_ims::ports::Document| {
                        let (owner, name) = document.key.split_once('/')?;
                        let uri = format!(
                            "{}{}/users/{}/{}",
                            self.root,
                            usage.auid,
                            encode_segment(owner),
                            encode_segment(name)
                        );
                        Some(directory::Entry { uri, etag: tag(document.version), size: document.body.len() })
                    };
                    folders.push((usage.auid, documents.into_iter().filter_map(entry).collect()));
                }
                ("org.openmobilealliance.xcap-directory", directory::document(&folders))
            }
        };
        // Not secret: equal documents are merely not sent again.
        let mut hash = SipHasher13::new();
        hash.write(&body);
        let media_type = usage::find(auid).map_or("application/xml", |u| u.media_type);
        Ok(Current { media_type, tag: format!("\"m{:x}\"", hash.finish()), body })
    }

    /// The union of what users have under `index` (RFC 4826 §4.4.8).
    async fn index(&self) -> Result<Vec<u8>, No> {
        let mut index = rls_services::Index::default();
        let mut after = String::new();
        loop {
            let (done, page) = answer();
            self.parts.documents.list(rls_services::AUID, &after, PAGE, done);
            let page = page.await?;
            let Some(last) = page.last() else { return Ok(index.finish()) };
            after = last.key.clone();
            for document in page {
                if document.key.rsplit_once('/').is_some_and(|(_, name)| name == rls_services::INDEX)
                    && let Ok(text) = Text::read(document.body)
                {
                    index.add(&text);
                }
            }
            if index.len() > MAX_INDEX {
                return Err(No::TooLarge);
            }
        }
    }
}
