//! The shelf with all that belongs to it: its links, its rules, and for how long files stay. What the door for clients works with, and
//! whoever puts a file there in a client's place.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt, pin_mut};

use crate::control::{Control, Reason, Verdict};
use crate::info;
use crate::link::{Grant, Links};
use crate::quota::Quota;
use crate::shelf::{Entry, Id, Shelf, ShelfError, State, Upload};

const DAY: u64 = 86_400;

/// Why a file was not kept.
#[derive(Debug, thiserror::Error)]
pub enum Unkept {
    /// Whoever sends it: it does not pass.
    #[error("{0}")]
    Refused(Reason),
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// It could not be read.
    #[error("the file could not be read: {0}")]
    File(String),
}

/// Files, and what is made known of them.
pub struct Depot {
    pub shelf: Arc<Shelf>,
    pub links: Links,
    pub control: Control,
    pub quota: Quota,
    pub keep_days: u32,
    /// Where links begin, with a slash at the end; empty: nobody said how clients find us.
    pub base: String,
}

/// A file that comes from elsewhere than an upload.
pub struct Incoming {
    /// Whose share it counts for.
    pub owner: String,
    pub name: String,
    pub media_type: String,
}

impl Depot {
    /// Whether files can be put here in a client's place: the links need a beginning.
    pub fn is_known(&self) -> bool {
        !self.base.is_empty()
    }

    /// The file that a document of ours links to.
    pub fn linked(&self, document: &[u8], unix: u64) -> Option<Id> {
        let url = info::linked(document)?.url;
        let link = url.strip_prefix(&self.base).filter(|_| self.is_known())?;
        let (path, query) = link.split_once('?')?;
        let id: Id = path.strip_suffix("/file")?.parse().ok()?;
        let (until, signature) = query.strip_prefix("until=")?.split_once("&sig=")?;
        self.links.check(&id, Grant::File, until.parse().ok()?, signature, unix).ok()?;
        Some(id)
    }

    /// Keeps a file under a number of its own, and gives the document that tells of it (RCC.07).
    pub async fn keep(
        &self,
        file: Incoming,
        unix: u64,
        number: u128,
        bytes: impl Stream<Item = Result<Bytes, String>>,
    ) -> Result<Vec<u8>, Unkept> {
        self.control.admits_type(&file.media_type).map_err(Unkept::Refused)?;
        let until = unix + u64::from(self.keep_days) * DAY;
        let Incoming { owner, name, media_type } = file;
        let entry = Entry { owner, name, media_type, until, thumbnail: None, state: State::Open };
        // Days since 1970 fit for millions of years.
        let id = Id { day: (unix / DAY) as u32, number: number.to_be_bytes() };
        let mut upload = self.shelf.begin(id, entry).await?;
        if let Err(unkept) = self.fill(&mut upload, id.day, bytes).await {
            // Nobody goes on with it.
            upload.close(State::Refused(unkept.to_string())).await?;
            return Err(unkept);
        }
        let parts = upload.whole().await?;
        let size = parts.iter().sum();
        let read = || self.shelf.read(id, &parts, 0..size).map_err(|e| e.to_string());
        match self.control.judge(read).await {
            Verdict::Passed => {
                let entry = upload.close(State::Whole(parts)).await?;
                let link = |grant| format!("{}{}", self.base, self.links.sign(&id, grant, entry.until));
                Ok(info::file(&entry, size, &link(Grant::File), &link(Grant::Thumbnail)))
            }
            Verdict::Refused(reason) => {
                upload.close(State::Refused(reason.to_string())).await?;
                Err(Unkept::Refused(reason))
            }
        }
    }

    async fn fill(
        &self,
        upload: &mut Upload,
        day: u32,
        bytes: impl Stream<Item = Result<Bytes, String>>,
    ) -> Result<(), Unkept> {
        pin_mut!(bytes);
        while let Some(piece) = bytes.try_next().await.map_err(Unkept::File)? {
            if !self.quota.take(&upload.entry.owner, day, piece.len() as u64) {
                return Err(Unkept::Refused(Reason::Share));
            }
            upload.push(piece).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_file_is_kept_with_its_link_unless_its_type_does_not_pass() {
        let depot = Depot {
            shelf: Shelf::new(Arc::new(InMemory::new()), 1 << 20),
            links: Links::new(&[7; 32]),
            control: Control::new(&["video/*".into()], 1 << 20, None, false),
            quota: Quota::new(20),
            keep_days: 7,
            base: "https://files.test/content/".into(),
        };
        let file = |media_type: &str| Incoming { owner: "a".into(), name: "n".into(), media_type: media_type.into() };
        let bytes = || stream::iter([Ok(Bytes::from_static(b"hel")), Ok(Bytes::from_static(b"lo"))]);
        let told = depot.keep(file("image/png"), 1_795_780_000, 5, bytes()).await.unwrap();
        let told = String::from_utf8(told).unwrap();
        let link = "<data url=\"https://files.test/content/20784/00000000000000000000000000000005/file?until=";
        assert_eq!(depot.linked(told.as_bytes(), 1_795_780_000).map(|id| id.number[15]), Some(5));
        assert_eq!(depot.linked(told.replace("sig=", "sig=A").as_bytes(), 1_795_780_000), None);
        assert!(told.contains(link) && told.contains("<file-size>5</file-size>"), "{told}");
        let refused = depot.keep(file("video/mp4"), 1_795_780_000, 6, bytes()).await;
        assert!(matches!(refused, Err(Unkept::Refused(Reason::Type(_)))));
        let broken = stream::iter([Ok(Bytes::from_static(b"hel")), Err("gone".into())]);
        assert!(matches!(depot.keep(file("image/png"), 1_795_780_000, 7, broken).await, Err(Unkept::File(_))));
        let long = stream::iter([Ok(Bytes::from_static(b"thirteen more"))]);
        let refused = depot.keep(file("image/png"), 1_795_780_000, 8, long).await;
        assert!(matches!(refused, Err(Unkept::Refused(Reason::Share))));
    }
}
