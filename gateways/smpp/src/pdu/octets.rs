//! Octet strings: message bodies.

use bytes::Bytes;

/// A message body. Points into the buffer that it was read from: who keeps it for long copies it ([`Octets::detached`]), or
/// a few bytes hold 64 KiB.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Octets(pub Bytes);

impl Octets {
    pub fn copied(bytes: &[u8]) -> Octets {
        Octets(Bytes::copy_from_slice(bytes))
    }

    #[must_use]
    pub fn detached(&self) -> Octets {
        Octets::copied(&self.0)
    }
}

impl std::ops::Deref for Octets {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A log sees the length of a body, not the body.
impl std::fmt::Debug for Octets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} octets>", self.0.len())
    }
}
