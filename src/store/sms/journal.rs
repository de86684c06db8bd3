//! News of segments between two commits, in a file: written without a sync, so that it outlives a kill of the process, not of the machine.
//!
//! Two files take turns: while one's news is being committed the other takes the next, and the committed one is emptied.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use gw_sms::queue::{Mark, Progress, SegmentId, SentAs, State, Verdict};
use siphasher::sip::SipHasher13;

pub struct Journal {
    files: [File; 2],
    active: usize,
    /// Grows with each turn; stands first in a file.
    turn: u64,
    buffer: Vec<u8>,
}

/// News that a process before this one left.
pub type Left = (SegmentId, Progress);

impl Journal {
    /// Opens both files, and reads what is in them, oldest first.
    pub fn open(folder: &Path) -> io::Result<(Journal, Vec<Left>)> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let open = |n| {
            let path = folder.join(format!("sms.journal.{n}"));
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
        };
        let mut files = [open(0)?, open(1)?];
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

    pub fn append(&mut self, marks: &[Mark]) -> io::Result<()> {
        self.buffer.clear();
        for mark in marks {
            record(&mut self.buffer, mark.id, &mark.progress);
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

/// `length u16, check u32, id, kind, fields`. What is given back to the queue needs no record: a restart gives everything back.
fn record(out: &mut Vec<u8>, id: SegmentId, progress: &Progress) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    out.extend_from_slice(&id.0.to_le_bytes());
    match progress {
        Progress::Returned => return out.truncate(start),
        Progress::Sent(name) => {
            out.push(1);
            sent_as(out, name);
        }
        Progress::NotCancelled(name) => {
            out.push(2);
            sent_as(out, name);
        }
        Progress::Deferred { due, attempts } => {
            out.push(3);
            out.extend_from_slice(&due.to_le_bytes());
            out.extend_from_slice(&attempts.to_le_bytes());
        }
        Progress::Ended { state, verdict, at } => {
            out.extend_from_slice(&[4, *state as u8]);
            out.extend_from_slice(&verdict.0.to_le_bytes());
            out.extend_from_slice(&at.to_le_bytes());
        }
    }
    let body = start + HEAD;
    let (len, check) = ((out.len() - body) as u16, check(&out[body..]));
    out[start..start + 2].copy_from_slice(&len.to_le_bytes());
    out[start + 2..body].copy_from_slice(&check.to_le_bytes());
}

fn sent_as(out: &mut Vec<u8>, name: &SentAs) {
    // Both are bounded where they come from: link names by the configuration, ids by SMPP.
    let link = &name.link.as_bytes()[..name.link.len().min(255)];
    out.push(link.len() as u8);
    out.extend_from_slice(link);
    out.extend_from_slice(&name.message_id.as_bytes()[..name.message_id.len().min(255)]);
}

/// Up to the first record that is not whole: a machine that lost its power may have torn the end.
fn read(mut bytes: &[u8]) -> Vec<Left> {
    let mut left = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() {
        let [a, b, c @ ..] = *head;
        let Some((body, rest)) = rest.split_at_checked(usize::from(u16::from_le_bytes([a, b]))) else { break };
        if u32::from_le_bytes(c) != check(body) {
            break;
        }
        left.extend(parse(body));
        bytes = rest;
    }
    left
}

fn parse(body: &[u8]) -> Option<Left> {
    let (id, rest) = body.split_first_chunk::<8>()?;
    let (kind, rest) = rest.split_first()?;
    let name = || {
        let (len, rest) = rest.split_first()?;
        let (link, message_id) = rest.split_at_checked(usize::from(*len))?;
        let text = |b: &[u8]| std::str::from_utf8(b).ok().map(Arc::from);
        Some(SentAs { link: text(link)?, message_id: text(message_id)? })
    };
    let progress = match kind {
        1 => Progress::Sent(name()?),
        2 => Progress::NotCancelled(name()?),
        3 => Progress::Deferred {
            due: i64::from_le_bytes(*rest.first_chunk()?),
            attempts: u16::from_le_bytes(*rest.get(8..)?.first_chunk()?),
        },
        4 => Progress::Ended {
            state: State::from_number(i64::from(*rest.first()?))?,
            verdict: Verdict(u16::from_le_bytes(*rest.get(1..)?.first_chunk()?)),
            at: i64::from_le_bytes(*rest.get(3..)?.first_chunk()?),
        },
        _ => return None,
    };
    Some((SegmentId(i64::from_le_bytes(*id)), progress))
}

fn check(body: &[u8]) -> u32 {
    SipHasher13::new_with_key(b"isthmus sms mark").hash(body) as u32
}

/// Bytes before a record's body.
const HEAD: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Vec<Left> {
        let name = |id: &str| SentAs { link: "smsc".into(), message_id: id.into() };
        vec![
            (SegmentId(16), Progress::Sent(name("a1"))),
            (SegmentId(32), Progress::NotCancelled(name(""))),
            (SegmentId(48), Progress::Deferred { due: -5, attempts: 3 }),
            (SegmentId(64), Progress::Ended { state: State::Failed, verdict: Verdict::REJECTED, at: 77 }),
        ]
    }

    fn written(marks: &[Left]) -> Vec<u8> {
        let mut bytes = Vec::new();
        marks.iter().for_each(|(id, progress)| record(&mut bytes, *id, progress));
        bytes
    }

    #[test]
    fn records_read_back_and_a_torn_end_costs_only_itself() {
        let bytes = written(&marks());
        assert_eq!(read(&bytes), marks());
        assert_eq!(read(&bytes[..bytes.len() - 1]), marks()[..3]);
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(read(&flipped), marks()[..3]);
        assert_eq!(read(&[0xff; 40]), []);
    }

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
