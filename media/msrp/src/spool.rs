//! Bytes that wait for a verdict: in memory while they are few, else in a file without a name.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// More of one message goes into a file.
const IN_MEMORY: u64 = 256 << 10;

/// The room for all of them.
#[derive(Debug)]
pub(crate) struct Pool {
    folder: PathBuf,
    /// Bytes of all messages that wait together.
    most: u64,
    used: AtomicU64,
}

impl Pool {
    pub(crate) fn new(folder: PathBuf, most: u64) -> Pool {
        Pool { folder, most, used: AtomicU64::new(0) }
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        let taken =
            self.used.fetch_update(Relaxed, Relaxed, |used| used.checked_add(bytes).filter(|u| *u <= self.most));
        taken.map(|_| ()).map_err(|_| io::ErrorKind::QuotaExceeded.into())
    }
}

/// One message's bytes. Gone when it is dropped, and with the process.
#[derive(Debug)]
pub(crate) struct Spool {
    pool: Arc<Pool>,
    kept: Kept,
    len: u64,
}

#[derive(Debug)]
enum Kept {
    Memory(Vec<u8>),
    Disk(Arc<File>),
}

impl Spool {
    pub(crate) fn new(pool: Arc<Pool>) -> Spool {
        Spool { pool, kept: Kept::Memory(Vec::new()), len: 0 }
    }

    /// Bytes up to the last one that came, whether all before it are there or not.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// `at`: from 0.
    pub(crate) async fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let end = at + bytes.len() as u64;
        let more = end.saturating_sub(self.len);
        self.pool.take(more)?;
        self.len += more;
        if let Kept::Memory(memory) = &mut self.kept {
            if end <= IN_MEMORY {
                let (at, end) = (at as usize, end as usize);
                if memory.len() < end {
                    memory.resize(end, 0);
                }
                memory[at..end].copy_from_slice(bytes);
                return Ok(());
            }
            let (memory, pool) = (std::mem::take(memory), self.pool.clone());
            self.kept = Kept::Disk(Arc::new(blocking(move || pool.file(&memory)).await?));
        }
        let Kept::Disk(file) = &self.kept else { return Ok(()) };
        let (file, bytes) = (file.clone(), bytes.to_vec());
        blocking(move || file.write_all_at(&bytes, at)).await
    }

    /// Up to `most` bytes from `at` on, which counts from 0; none at the end.
    pub(crate) async fn read(&self, at: u64, most: usize) -> io::Result<Vec<u8>> {
        let length = self.len.saturating_sub(at).min(most as u64) as usize;
        match &self.kept {
            // The length says that it is there.
            Kept::Memory(memory) => Ok(memory[at.min(self.len) as usize..][..length].to_vec()),
            Kept::Disk(file) => {
                let file = file.clone();
                blocking(move || {
                    let mut bytes = vec![0; length];
                    file.read_exact_at(&mut bytes, at)?;
                    Ok(bytes)
                })
                .await
            }
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.len, Relaxed);
    }
}

impl Pool {
    /// A file that nobody else can open, with these bytes in it.
    fn file(&self, bytes: &[u8]) -> io::Result<File> {
        std::fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("{:032x}", rand::random::<u128>()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        file.write_all_at(bytes, 0)?;
        Ok(file)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn few_bytes_stay_in_memory_and_many_do_not_and_all_are_given_back() {
        let folder = std::env::temp_dir().join(format!("spool-{:x}", rand::random::<u64>()));
        let pool = Arc::new(Pool::new(folder.clone(), 2 << 20));
        let mut spool = Spool::new(pool.clone());
        spool.write(5, b"world").await.unwrap();
        spool.write(0, b"hello").await.unwrap();
        assert_eq!(spool.read(0, 100).await.unwrap(), b"helloworld");
        assert!(matches!(spool.kept, Kept::Memory(_)));
        spool.write(1 << 20, b"far").await.unwrap();
        assert!(matches!(spool.kept, Kept::Disk(_)));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "without a name");
        assert_eq!(spool.read(0, 10).await.unwrap(), b"helloworld");
        assert_eq!(spool.read(1 << 20, 10).await.unwrap(), b"far");
        assert_eq!(spool.read(2 << 20, 10).await.unwrap(), b"");
        let full = spool.write(2 << 20, b"x").await.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::QuotaExceeded);
        drop(spool);
        assert_eq!(pool.used.load(Relaxed), 0);
        std::fs::remove_dir(folder).unwrap();
    }
}
