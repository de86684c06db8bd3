//! Reads the fields of one frame.

use bytes::Bytes;

use super::{COctets, CommandStatus, Octets, Tlvs};

/// A frame whose body cannot be read: the peer's fault, to be answered with `status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("bad {field}: {status}")]
pub struct Malformed {
    pub status: CommandStatus,
    pub field: &'static str,
}

pub(super) struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(frame: &'a Bytes, at: usize) -> Reader<'a> {
        Reader { frame, at: at.min(frame.len()) }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.frame[self.at..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.frame.len()
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        let byte = self.rest().first().copied().ok_or(ended(field))?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        let four = self.rest().first_chunk::<4>().copied().ok_or(ended(field))?;
        self.at += 4;
        Ok(u32::from_be_bytes(four))
    }

    /// Up to and over the NUL. A body that ends before the NUL is too short; a field that is longer than its bound is at fault
    /// itself.
    pub(super) fn c_octets<const N: usize>(
        &mut self,
        field: &'static str,
        fault: CommandStatus,
    ) -> Result<COctets<N>, Malformed> {
        let rest = self.rest();
        // Looking further than the bound would be for nothing.
        let end = rest.iter().take(N).position(|b| *b == 0);
        let end = end.ok_or(if rest.len() < N { ended(field) } else { Malformed { status: fault, field } })?;
        let value = COctets::new(&rest[..end]).map_err(|_| Malformed { status: fault, field })?;
        self.at += end + 1;
        Ok(value)
    }

    /// For the last mandatory field of a response: absent, cut short and unterminated are all borne, because the peer has done
    /// what was asked and only tells about it badly. Too long for its bound is empty: a wrong id would be worse than none.
    pub(super) fn lenient<const N: usize>(&mut self) -> COctets<N> {
        let rest = self.rest();
        let end = rest.iter().position(|b| *b == 0);
        self.at = end.map_or(self.frame.len(), |end| self.at + end + 1);
        COctets::new(&rest[..end.unwrap_or(rest.len())]).unwrap_or_default()
    }

    pub(super) fn octets(
        &mut self,
        count: usize,
        field: &'static str,
        fault: CommandStatus,
    ) -> Result<Octets, Malformed> {
        if self.rest().len() < count {
            return Err(Malformed { status: fault, field });
        }
        let octets = if count == 0 { Bytes::new() } else { self.frame.slice(self.at..self.at + count) };
        self.at += count;
        Ok(Octets(octets))
    }

    /// What is left, which must be whole optional parameters.
    pub(super) fn tlvs(self) -> Result<Tlvs, Malformed> {
        if self.is_empty() {
            return Ok(Tlvs::default());
        }
        Tlvs::decode(self.frame.slice(self.at..))
            .ok_or(Malformed { status: CommandStatus::RINVTLVSTREAM, field: "optional parameters" })
    }

    /// What is left of a response: if it is no run of optional parameters, then there are none.
    pub(super) fn lenient_tlvs(self) -> Tlvs {
        self.tlvs().unwrap_or_default()
    }
}

fn ended(field: &'static str) -> Malformed {
    Malformed { status: CommandStatus::RINVCMDLEN, field }
}
