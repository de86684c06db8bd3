//! News of segments between two commits, in a file: written without a sync, so that it outlives a kill of the process, not of the machine. What should
//! outlive that too is [synced](super::syncs).
//!
//! Two files take turns: while one's news is being committed the other takes the next, and the committed one is emptied.

mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use gw_sms::queue::Mark;

pub use record::Left;
use record::{read, write};

pub struct Journal {
    files: [File; 2],
    active: usize,
    /// Grows with each turn; stands first in a file.
    turn: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens both files, and reads what is in them, oldest first.
    pub fn open(folder: &Path) -> io::Result<(Journal, Vec<Left>)> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let open = |n| {
            let path = folder.join(format!("sms.journal.{n}"));
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
        };
        let mut files = [open(0)?, open(1)?];
        // Their names, too.
        File::open(folder)?.sync_all()?;
        let mut found = Vec::new();
        for file in &mut files {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            if let Some((turn, records)) = bytes.split_first_chunk::<8>() {
                found.push((u64::from_le_bytes(*turn), read(records)));
            }
        }
        found.sort_by_key(|f| f.0);
        let turn = found.last().map_or(0, |f| f.0);
        let left = found.into_iter().flat_map(|f| f.1).collect();
        Ok((Journal { files, active: 0, turn, buffer: Vec::new() }, left))
    }

    /// Everything in it is committed.
    pub fn clear(&mut self) -> io::Result<()> {
        self.files.iter().try_for_each(|f| f.set_len(0))?;
        self.begin()
    }

    /// Both files again, for a thread that syncs them.
    pub fn handles(&self) -> io::Result<[File; 2]> {
        Ok([self.files[0].try_clone()?, self.files[1].try_clone()?])
    }

    /// Which of them is written.
    pub fn active(&self) -> usize {
        self.active
    }

    pub fn append(&mut self, marks: &[Mark]) -> io::Result<()> {
        self.buffer.clear();
        for mark in marks {
            write(&mut self.buffer, mark.id, &mark.progress);
        }
        self.files[self.active].write_all(&self.buffer)
    }

    /// From here on the other file is written; [`forget`](Self::forget) empties this one. Only after `forget` of the turn before.
    pub fn turn(&mut self) -> io::Result<()> {
        self.active ^= 1;
        self.begin()
    }

    /// The file before the last turn is not needed any more.
    pub fn forget(&mut self) -> io::Result<()> {
        self.files[self.active ^ 1].set_len(0)
    }

    fn begin(&mut self) -> io::Result<()> {
        self.turn += 1;
        self.files[self.active].write_all(&self.turn.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::record::tests::marks;
    use super::*;

    #[test]
    fn both_files_are_read_in_the_order_of_their_turns() {
        let folder = tempfile::tempdir().unwrap();
        let origin = Arc::new(gw_sms::queue::Origin {
            client: "c".into(),
            msn: "+819012345678".parse().unwrap(),
            reqid: "r".into(),
            expires_at: 0,
            rank: 1,
            flags: 0,
            parts: 1,
        });
        let mark = |n: usize| {
            let (id, progress) = marks()[n].clone();
            Mark { id, origin: origin.clone(), progress }
        };
        let (mut journal, left) = Journal::open(folder.path()).unwrap();
        assert_eq!(left, []);
        journal.clear().unwrap();
        journal.append(&[mark(0)]).unwrap();
        journal.turn().unwrap();
        journal.append(&[mark(1)]).unwrap();
        journal.forget().unwrap();
        journal.turn().unwrap();
        journal.append(&[mark(2), mark(3)]).unwrap();
        drop(journal);
        assert_eq!(Journal::open(folder.path()).unwrap().1, marks()[1..]);
    }
}
