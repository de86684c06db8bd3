//! C-octet strings (SMPP 3.4 §3.1): bytes up to a NUL, bounded by their field.

use bytes::{BufMut, BytesMut};

/// A C-octet string whose field holds at most `N` octets, the closing NUL included: as the tables of SMPP 3.4 §4 count.
/// Kept in place, because addresses and ids are short and there are four in each message.
#[derive(Clone, Copy)]
pub struct COctets<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

/// Longer than its field, or with a NUL in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("does not fit a C-octet string of {0} octets")]
pub struct TooLong(pub usize);

impl<const N: usize> COctets<N> {
    pub const EMPTY: COctets<N> = COctets { len: 0, bytes: [0; N] };

    /// At most `N - 1` bytes, none of them NUL.
    pub fn new(bytes: &[u8]) -> Result<COctets<N>, TooLong> {
        const { assert!(N > 0 && N <= 256) };
        if bytes.len() >= N || bytes.contains(&0) {
            return Err(TooLong(N));
        }
        let mut own = COctets::EMPTY;
        own.bytes[..bytes.len()].copy_from_slice(bytes);
        // Fits: shorter than N, which is at most 256.
        own.len = bytes.len() as u8;
        Ok(own)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_slice(self.as_bytes());
        out.put_u8(0);
    }
}

impl<const N: usize> Default for COctets<N> {
    fn default() -> Self {
        COctets::EMPTY
    }
}

impl<const N: usize> PartialEq for COctets<N> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl<const N: usize> Eq for COctets<N> {}

impl<const N: usize> std::hash::Hash for COctets<N> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl<const N: usize> TryFrom<&str> for COctets<N> {
    type Error = TooLong;

    fn try_from(text: &str) -> Result<Self, TooLong> {
        COctets::new(text.as_bytes())
    }
}

/// Numbers, names and passwords travel in these: a log sees their length only.
impl<const N: usize> std::fmt::Debug for COctets<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} octets>", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_counts_the_closing_nul() {
        assert_eq!(COctets::<6>::new(b"WAP12").unwrap().as_bytes(), b"WAP12");
        assert_eq!(COctets::<6>::new(b"WAP123"), Err(TooLong(6)));
        assert_eq!(COctets::<6>::new(b"A\0B"), Err(TooLong(6)));
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_and_not_shown() {
        let sender = COctets::<21>::new(b"Caf\xe9").unwrap();
        assert_eq!(sender.as_bytes(), b"Caf\xe9");
        assert_eq!(format!("{sender:?}"), "<4 octets>");
    }
}
