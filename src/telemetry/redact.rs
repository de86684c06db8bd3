//! The wrapper through which numbers, addresses of users and bodies reach a log: recognisable, not readable.

use std::fmt;
use std::hash::Hasher;
use std::sync::OnceLock;

use siphasher::sip::SipHasher13;

/// Prints a keyed hash: two lines about the same user can be joined, the user cannot be read.
///
/// The key is the data folder's, so a hash means the same after a restart and nothing elsewhere.
#[derive(Clone, Copy)]
pub struct Redacted<T>(pub T);

impl<T: AsRef<[u8]>> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hasher = SipHasher13::new_with_key(key());
        hasher.write(self.0.as_ref());
        write!(f, "#{:08x}", hasher.finish() as u32)
    }
}

impl<T: AsRef<[u8]>> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prints how long something is, and nothing of it.
#[derive(Clone, Copy)]
pub struct Hidden<T>(pub T);

impl<T: AsRef<[u8]>> fmt::Display for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "…({} bytes)", self.0.as_ref().len())
    }
}

impl<T: AsRef<[u8]>> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

static KEY: OnceLock<[u8; 16]> = OnceLock::new();

/// Sets the key of this process, once, before the first log line that needs it. Without, it is random.
pub fn set_key(key: [u8; 16]) {
    // A second call changes nothing: lines of one run must agree.
    let _ = KEY.set(key);
}

fn key() -> &'static [u8; 16] {
    KEY.get_or_init(rand::random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_hash_alike_and_do_not_show() {
        let number = "+819012345678";
        let shown = Redacted(number).to_string();
        assert_eq!(shown, format!("{:?}", Redacted(number.as_bytes())));
        assert_ne!(shown, Redacted("+819012345679").to_string());
        assert!(!shown.contains("8190") && shown.len() == 9, "{shown}");
    }

    #[test]
    fn a_hidden_body_tells_its_length_only() {
        assert_eq!(Hidden(b"secret").to_string(), "…(6 bytes)");
    }
}
