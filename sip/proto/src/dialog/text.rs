//! The texts of a dialog in one allocation.

use super::NoDialog;
use crate::headers::{NameAddr, Params};

#[derive(Clone, Copy)]
pub(super) enum Part {
    CallId,
    LocalTag,
    RemoteTag,
    Local,
    Remote,
    Target,
    /// Comma-separated, in the order in which they are visited.
    Routes,
}

const PARTS: usize = 7;
/// Octets of all texts together.
const MAX_TEXT: usize = 16 * 1024;

/// Texts one after another, each with its end. At most [`MAX_TEXT`] octets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Text {
    octets: Box<[u8]>,
    ends: [u16; PARTS],
}

impl Text {
    pub(super) fn new(
        call_id: &[u8],
        local: &NameAddr<'_>,
        local_tag: Option<&[u8]>,
        remote: &NameAddr<'_>,
        remote_tag: Option<&[u8]>,
        target: &[u8],
        routes: &[u8],
    ) -> Result<Text, NoDialog> {
        let party = |address: &NameAddr<'_>| {
            let mut text = Vec::new();
            NameAddr { params: Params::default(), ..*address }.write(&mut text);
            text
        };
        let (local, remote) = (party(local), party(remote));
        let (local_tag, remote_tag) = (local_tag.unwrap_or_default(), remote_tag.unwrap_or_default());
        Text::pack([call_id, local_tag, remote_tag, &local, &remote, target, routes])
    }

    fn pack(parts: [&[u8]; PARTS]) -> Result<Text, NoDialog> {
        let total: usize = parts.iter().map(|p| p.len()).sum();
        if total > MAX_TEXT {
            return Err(NoDialog::TooLarge);
        }
        let mut octets = Vec::with_capacity(total);
        let mut ends = [0u16; PARTS];
        for (end, part) in ends.iter_mut().zip(parts) {
            octets.extend_from_slice(part);
            *end = octets.len() as u16;
        }
        Ok(Text { octets: octets.into(), ends })
    }

    pub(super) fn get(&self, part: Part) -> &[u8] {
        self.at(part as usize)
    }

    fn at(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.octets[usize::from(start)..usize::from(self.ends[i])]
    }

    pub(super) fn set(&mut self, part: Part, text: &[u8]) -> Result<(), NoDialog> {
        if self.get(part) != text {
            let parts = std::array::from_fn(|i| if i == part as usize { text } else { self.at(i) });
            *self = Text::pack(parts)?;
        }
        Ok(())
    }

    pub(super) fn write_row(&self, out: &mut Vec<u8>) {
        for end in self.ends {
            out.extend_from_slice(&end.to_be_bytes());
        }
        out.extend_from_slice(&self.octets);
    }

    pub(super) fn from_row(row: &[u8]) -> Option<Text> {
        let (head, octets) = row.split_at_checked(2 * PARTS)?;
        let ends: [u16; PARTS] = std::array::from_fn(|i| u16::from_be_bytes([head[2 * i], head[2 * i + 1]]));
        let good = ends.is_sorted() && usize::from(ends[PARTS - 1]) == octets.len() && octets.len() <= MAX_TEXT;
        good.then(|| Text { octets: octets.into(), ends })
    }
}
