//! The records of the journal, one after the other.

use std::sync::Arc;

use gw_sms::queue::{Progress, SegmentId, SentAs, State, Verdict};
use siphasher::sip::SipHasher13;

/// News that a process before this one left.
pub type Left = (SegmentId, Progress);

/// `length u16, check u32, id, kind, fields`. What is given back to the queue needs no record: a restart gives everything back.
pub fn write(out: &mut Vec<u8>, id: SegmentId, progress: &Progress) {
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
pub fn read(mut bytes: &[u8]) -> Vec<Left> {
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

/// What stands in a record that is whole.
pub fn parse(body: &[u8]) -> Option<Left> {
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
pub mod tests {
    use super::*;

    pub fn marks() -> Vec<Left> {
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
        marks.iter().for_each(|(id, progress)| write(&mut bytes, *id, progress));
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
}
