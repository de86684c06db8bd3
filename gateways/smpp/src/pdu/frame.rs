//! Frames: a PDU by its length alone (SMPP 3.4 §3.2).
//!
//! ```text
//!  0               4               8               12              16
//! +---------------+---------------+---------------+---------------+----------
//! |command_length |  command_id   |command_status |sequence_number| body ...
//! +---------------+---------------+---------------+---------------+----------
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::{CommandId, CommandStatus};

/// Octets of a header.
pub const HEADER: usize = 16;

/// Longest frame that is read. A message_payload may have 64 KiB less its own frame; nobody sends such.
pub const MAX_FRAME: usize = 64 * 1024;

/// The four numbers in front of each PDU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub command: CommandId,
    pub status: CommandStatus,
    /// 1 to 0x7FFFFFFF from a peer that keeps the rules; any other is borne and echoed.
    pub sequence: u32,
}

impl Header {
    /// Of a frame that [`Frames`] gave; `None` when it is shorter than a header.
    pub fn of(frame: &[u8]) -> Option<Header> {
        let four = |at: usize| frame.get(at..)?.first_chunk::<4>().map(|f| u32::from_be_bytes(*f));
        Some(Header { command: CommandId(four(4)?), status: CommandStatus(four(8)?), sequence: four(12)? })
    }

    /// Writes a header, then what `body` writes, then the length in front.
    pub(super) fn encode(self, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
        let start = out.len();
        out.put_u32(HEADER as u32);
        out.put_u32(self.command.0);
        out.put_u32(self.status.0);
        out.put_u32(self.sequence);
        let empty = out.len();
        body(out);
        if out.len() > empty {
            // What we encode is bounded far below 4 GiB: 254 addresses and optional parameters of 64 KiB at most.
            let length = (out.len() - start) as u32;
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// `command_length` is no length of a PDU: where the next one begins is unknown, so the session cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("command_length {0} is not within 16 and 65536")]
pub struct BadLength(pub u32);

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Where the carrier reads into; more than [`MAX_FRAME`] and a read's worth never waits here, as long as the frames are
    /// taken out after each read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame, header included; `None` until more is read.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, BadLength> {
        let Some(length) = self.buffer.first_chunk::<4>().map(|f| u32::from_be_bytes(*f)) else { return Ok(None) };
        let whole = match usize::try_from(length) {
            Ok(whole @ HEADER..=MAX_FRAME) => whole,
            _ => return Err(BadLength(length)),
        };
        if self.buffer.len() < whole {
            return Ok(None);
        }
        Ok(Some(self.buffer.split_to(whole).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8]) -> Result<Option<Bytes>, BadLength> {
        let mut frames = Frames::default();
        frames.buffer().extend_from_slice(bytes);
        frames.next_frame()
    }

    #[test]
    fn lengths_that_no_pdu_has_are_refused_at_once() {
        for length in [0, 4, 15, 65_537, u32::MAX] {
            assert_eq!(cut(&length.to_be_bytes()), Err(BadLength(length)));
        }
    }

    #[test]
    fn a_stream_comes_apart_however_it_was_cut() {
        let mut stream = Vec::new();
        for sequence in 1..=3u32 {
            stream.extend([0, 0, 0, 16, 0, 0, 0, 0x15, 0, 0, 0, 0]);
            stream.extend(sequence.to_be_bytes());
        }
        for piece in [1, 3, 15, 16, 17, 48] {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for bytes in stream.chunks(piece) {
                frames.buffer().extend_from_slice(bytes);
                while let Some(frame) = frames.next_frame().unwrap() {
                    seen.push(Header::of(&frame).unwrap().sequence);
                }
            }
            assert_eq!(seen, [1, 2, 3], "in pieces of {piece}");
        }
    }
}
