//! Where files lie: `files/<day>/<id>/` in a folder or a bucket holds `info`, perhaps `thumbnail`, and the parts of the file,
//! each named by its offset. The day is that of the upload's beginning, so that old files are found without looking at all.
//!
//! A part is in the store (of a folder: on disk) before the next is begun. What an upload lost with its connection, or with the
//! whole server, is one part at most.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Bytes of a part: held in memory while it fills.
const PART: usize = 4 << 20;
/// Parts of the longest file.
const MAX_PARTS: u64 = 1 << 18;
const ROOT: &str = "files";

/// Names a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Id {
    /// Days since 1970, in UTC, at the upload's beginning.
    pub day: u32,
    pub number: [u8; 16],
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:032x}", self.day, u128::from_be_bytes(self.number))
    }
}

/// Not a day and 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadId;

impl FromStr for Id {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Id, BadId> {
        let (day, number) = text.split_once('/').ok_or(BadId)?;
        let digits = |t: &str| t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if day.len() > 6 || number.len() != 32 || !digits(number) || day.starts_with(['+', '0']) {
            return Err(BadId);
        }
        let number = u128::from_str_radix(number, 16).map_err(|_| BadId)?;
        Ok(Id { day: day.parse().map_err(|_| BadId)?, number: number.to_be_bytes() })
    }
}

/// What is known of a file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Entry {
    pub owner: String,
    pub name: String,
    pub media_type: String,
    /// Unix time from which on it is gone.
    pub until: u64,
    pub thumbnail: Option<Thumbnail>,
    pub state: State,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Thumbnail {
    pub media_type: String,
    pub size: u64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Being uploaded, or left in the middle.
    Open,
    /// All there; the sizes of its parts.
    Whole(Vec<u64>),
    /// Not passed, and why; its bytes are gone.
    Refused(String),
}

impl Entry {
    /// Bytes of the file when it is whole.
    pub fn size(&self) -> Option<u64> {
        match &self.state {
            State::Whole(parts) => Some(parts.iter().sum()),
            State::Open | State::Refused(_) => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// Nobody's fault: never uploaded, or expired.
    #[error("no such file")]
    Absent,
    /// The client's: it sends one file twice at the same time.
    #[error("this file is being uploaded")]
    Busy,
    /// The client's: the file goes on at another byte.
    #[error("the upload goes on at byte {0}")]
    Position(u64),
    /// The client's.
    #[error("larger than the {0} bytes that are allowed")]
    TooLarge(u64),
    /// The disk's or the bucket's.
    #[error("store: {0}")]
    Store(#[from] object_store::Error),
    /// Something else wrote there.
    #[error("store: what is kept of a file cannot be read")]
    Damaged,
}

/// All files.
pub struct Shelf {
    store: Arc<dyn ObjectStore>,
    max_file: u64,
    /// Being written by this node.
    busy: Mutex<HashSet<Id>>,
}

impl Shelf {
    /// `max_file`: bytes of the largest file.
    pub fn new(store: Arc<dyn ObjectStore>, max_file: u64) -> Arc<Shelf> {
        let max_file = max_file.min(PART as u64 * MAX_PARTS);
        Arc::new(Shelf { store, max_file, busy: Mutex::default() })
    }

    pub fn max_file(&self) -> u64 {
        self.max_file
    }

    /// Begins an upload. What was there of an earlier one under this name is removed.
    pub async fn begin(self: &Arc<Shelf>, id: Id, entry: Entry) -> Result<Upload, ShelfError> {
        let upload = Upload::new(self, id, entry, 0)?;
        self.remove(&folder(&id)).await?;
        self.note(&id, &upload.entry).await?;
        Ok(upload)
    }

    /// Goes on with an upload at byte `from`, which must be the first that is missing.
    pub async fn resume(self: &Arc<Shelf>, id: Id, from: u64) -> Result<Upload, ShelfError> {
        let entry = self.find(&id).await?;
        if entry.state != State::Open {
            return Err(ShelfError::Absent);
        }
        let upload = Upload::new(self, id, entry, from)?;
        let received = self.received(&id).await?;
        if received == from { Ok(upload) } else { Err(ShelfError::Position(received)) }
    }

    pub async fn find(&self, id: &Id) -> Result<Entry, ShelfError> {
        let info = match self.store.get(&at(id, "info")).await {
            Err(object_store::Error::NotFound { .. }) => return Err(ShelfError::Absent),
            other => other?.bytes().await?,
        };
        serde_json::from_slice(&info).map_err(|_| ShelfError::Damaged)
    }

    /// Bytes of an upload that are there without a gap.
    pub async fn received(&self, id: &Id) -> Result<u64, ShelfError> {
        Ok(self.parts(id).await?.iter().sum())
    }

    pub async fn thumbnail(&self, id: &Id) -> Result<Bytes, ShelfError> {
        Ok(self.store.get(&at(id, "thumbnail")).await?.bytes().await?)
    }

    /// The bytes of a range of a file whose parts have these sizes.
    pub fn read(
        &self,
        id: Id,
        parts: &[u64],
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, ShelfError>> + Send + use<> {
        let mut offset = 0;
        let mut wanted = Vec::new();
        for size in parts {
            let (from, to) = (range.start.max(offset), range.end.min(offset + size));
            if from < to {
                wanted.push((offset, from - offset..to - offset));
            }
            offset += size;
        }
        let store = self.store.clone();
        let part = move |(offset, range)| {
            let store = store.clone();
            async move {
                let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
                Ok::<_, ShelfError>(
                    store.get_opts(&part(&id, offset), options).await?.into_stream().map_err(ShelfError::from),
                )
            }
        };
        stream::iter(wanted).then(part).try_flatten()
    }

    /// Removes what was begun before that day.
    pub async fn sweep(&self, before: u32) -> Result<usize, ShelfError> {
        let days = self.store.list_with_delimiter(Some(&Path::from(ROOT))).await?.common_prefixes;
        let mut removed = 0;
        for folder in days {
            if folder.filename().and_then(|day| day.parse().ok()).is_some_and(|day: u32| day < before) {
                removed += self.remove(&folder).await?;
            }
        }
        Ok(removed)
    }

    /// The sizes of the parts from the file's start on, up to the first gap.
    async fn parts(&self, id: &Id) -> Result<Vec<u64>, ShelfError> {
        let offset = |path: &Path| path.filename().and_then(|name| name.parse::<u64>().ok());
        let listed = self.store.list(Some(&folder(id))).map_ok(|o| offset(&o.location).map(|at| (at, o.size)));
        let mut parts: Vec<(u64, u64)> = listed.try_filter_map(|part| async move { Ok(part) }).try_collect().await?;
        parts.sort_unstable();
        let mut end = 0;
        let without_gap = parts.into_iter().map_while(|(at, size)| {
            (at == end).then(|| {
                end += size;
                size
            })
        });
        Ok(without_gap.collect())
    }

    async fn note(&self, id: &Id, entry: &Entry) -> Result<(), ShelfError> {
        let info = serde_json::to_vec(entry).map_err(|_| ShelfError::Damaged)?;
        self.store.put(&at(id, "info"), info.into()).await?;
        Ok(())
    }

    async fn remove(&self, folder: &Path) -> Result<usize, ShelfError> {
        let all = self.store.list(Some(folder)).map_ok(|o| o.location).boxed();
        let gone = self.store.delete_stream(all).filter(|gone| {
            // Somebody else may have removed it meanwhile.
            let gone = !matches!(gone, Err(object_store::Error::NotFound { .. }));
            async move { gone }
        });
        Ok(gone.try_collect::<Vec<_>>().await?.len())
    }
}

fn folder(id: &Id) -> Path {
    Path::from(format!("{ROOT}/{id}"))
}

fn at(id: &Id, name: &str) -> Path {
    Path::from(format!("{ROOT}/{id}/{name}"))
}

/// Twenty digits hold every u64, and names sort as numbers do.
fn part(id: &Id, offset: u64) -> Path {
    at(id, &format!("{offset:020}"))
}

/// A file being written. Dropped in the middle, it keeps what it had stored, and can be gone on with.
pub struct Upload {
    claim: Claim,
    pub entry: Entry,
    /// Bytes in the store.
    stored: u64,
    filling: Vec<Bytes>,
    filled: usize,
}

/// One writer at a time.
struct Claim {
    shelf: Arc<Shelf>,
    id: Id,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shelf.busy.lock().remove(&self.id);
    }
}

impl Upload {
    fn new(shelf: &Arc<Shelf>, id: Id, entry: Entry, stored: u64) -> Result<Upload, ShelfError> {
        if !shelf.busy.lock().insert(id) {
            return Err(ShelfError::Busy);
        }
        let claim = Claim { shelf: shelf.clone(), id };
        Ok(Upload { claim, entry, stored, filling: Vec::new(), filled: 0 })
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.stored + self.filled as u64
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub async fn thumbnail(&mut self, media_type: String, bytes: Bytes) -> Result<(), ShelfError> {
        let Claim { shelf, id } = &self.claim;
        self.entry.thumbnail = Some(Thumbnail { media_type, size: bytes.len() as u64 });
        shelf.store.put(&at(id, "thumbnail"), bytes.into()).await?;
        shelf.note(id, &self.entry).await
    }

    /// Writes down what is known of the file by now.
    pub async fn note(&self) -> Result<(), ShelfError> {
        self.claim.shelf.note(&self.claim.id, &self.entry).await
    }

    pub async fn push(&mut self, bytes: Bytes) -> Result<(), ShelfError> {
        if self.len() + bytes.len() as u64 > self.claim.shelf.max_file {
            return Err(ShelfError::TooLarge(self.claim.shelf.max_file));
        }
        self.filled += bytes.len();
        self.filling.push(bytes);
        if self.filled >= PART { self.flush().await } else { Ok(()) }
    }

    /// Stores what has come, however little: at an end, and when the connection broke.
    pub async fn flush(&mut self) -> Result<(), ShelfError> {
        if self.filled == 0 {
            return Ok(());
        }
        let Claim { shelf, id } = &self.claim;
        let filled = std::mem::take(&mut self.filled) as u64;
        let payload: PutPayload = std::mem::take(&mut self.filling).into_iter().collect();
        shelf.store.put(&part(id, self.stored), payload).await?;
        self.stored += filled;
        Ok(())
    }

    /// All of it has come: its parts. It is not handed out before [`Upload::close`].
    pub async fn whole(&mut self) -> Result<Vec<u64>, ShelfError> {
        self.flush().await?;
        self.claim.shelf.parts(&self.claim.id).await
    }

    /// The end: whole, or refused, which removes its bytes.
    pub async fn close(mut self, state: State) -> Result<Entry, ShelfError> {
        let Claim { shelf, id } = &self.claim;
        if let State::Refused(_) = state {
            shelf.remove(&folder(id)).await?;
            self.entry.thumbnail = None;
        }
        self.entry.state = state;
        shelf.note(id, &self.entry).await?;
        Ok(self.entry)
    }
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;

    use super::*;

    const ID: Id = Id { day: 20_784, number: [0xab; 16] };

    fn entry() -> Entry {
        Entry {
            owner: "alice".into(),
            name: "a.bin".into(),
            media_type: "application/octet-stream".into(),
            until: 9,
            thumbnail: None,
            state: State::Open,
        }
    }

    fn content(len: usize) -> Bytes {
        (0..len).map(|i| (i / 251 % 256) as u8).collect::<Vec<u8>>().into()
    }

    async fn get(shelf: &Shelf, parts: &[u64], range: Range<u64>) -> Vec<u8> {
        let bytes: Vec<Bytes> = shelf.read(ID, parts, range).try_collect().await.unwrap();
        bytes.concat()
    }

    async fn store_and_read(shelf: Arc<Shelf>) {
        let all = content(PART * 2 + 12_345);
        let mut upload = shelf.begin(ID, entry()).await.unwrap();
        assert!(matches!(shelf.begin(ID, entry()).await, Err(ShelfError::Busy)));
        for chunk in all[..PART + 1_000].chunks(70_001) {
            upload.push(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        // The server dies: what lay in memory is lost, the part is not.
        drop(upload);
        let received = shelf.received(&ID).await.unwrap();
        assert!((PART as u64..PART as u64 + 70_001).contains(&received));
        assert!(matches!(shelf.resume(ID, received + 1).await, Err(ShelfError::Position(at)) if at == received));
        let mut upload = shelf.resume(ID, received).await.unwrap();
        upload.push(all.slice(received as usize..received as usize + 10)).await.unwrap();
        // The connection breaks: nothing is lost.
        upload.flush().await.unwrap();
        drop(upload);
        let mut upload = shelf.resume(ID, received + 10).await.unwrap();
        upload.push(all.slice(received as usize + 10..)).await.unwrap();
        let parts = upload.whole().await.unwrap();
        assert_eq!(shelf.find(&ID).await.unwrap().state, State::Open);
        let entry = upload.close(State::Whole(parts.clone())).await.unwrap();
        assert_eq!((entry.size(), shelf.find(&ID).await.unwrap()), (Some(all.len() as u64), entry));
        for range in [0..all.len(), 0..1, PART - 1..PART + 100_000, all.len() - 1..all.len(), 5..5] {
            let read = get(&shelf, &parts, range.start as u64..range.end as u64).await;
            assert!(read == all[range.clone()], "{range:?}");
        }
        assert!(matches!(shelf.resume(ID, all.len() as u64).await, Err(ShelfError::Absent)));
        assert_eq!(shelf.sweep(ID.day).await.unwrap(), 0);
        assert_eq!(shelf.sweep(ID.day + 1).await.unwrap(), parts.len() + 1);
        assert!(matches!(shelf.find(&ID).await, Err(ShelfError::Absent)));
    }

    #[tokio::test]
    async fn a_broken_upload_goes_on_where_it_was() {
        store_and_read(Shelf::new(Arc::new(InMemory::new()), 1 << 30)).await;
        let folder = tempfile::tempdir().unwrap();
        let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        store_and_read(Shelf::new(Arc::new(local), 1 << 30)).await;
    }

    #[tokio::test]
    async fn a_refused_file_leaves_its_name_only() {
        let shelf = Shelf::new(Arc::new(InMemory::new()), 100);
        let mut upload = shelf.begin(ID, entry()).await.unwrap();
        upload.thumbnail("image/png".into(), content(3)).await.unwrap();
        assert_eq!(shelf.thumbnail(&ID).await.unwrap(), content(3));
        upload.push(content(100)).await.unwrap();
        assert!(matches!(upload.push(content(1)).await, Err(ShelfError::TooLarge(100))));
        upload.whole().await.unwrap();
        let entry = upload.close(State::Refused("no".into())).await.unwrap();
        assert_eq!(shelf.find(&ID).await.unwrap(), entry);
        assert!(shelf.thumbnail(&ID).await.is_err() && shelf.received(&ID).await.unwrap() == 0);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        assert_eq!(ID.to_string().parse(), Ok(ID));
        for bad in [
            "",
            "1/",
            "1/ab",
            "/abababababababababababababababab",
            "+1/abababababababababababababababab",
            "01/abababababababababababababababab",
            "1/ABABABABABABABABABABABABABABABAB",
            "1/../../../../../../../../../../etc/pas",
        ] {
            assert_eq!(bad.parse::<Id>(), Err(BadId), "{bad}");
        }
    }
}
