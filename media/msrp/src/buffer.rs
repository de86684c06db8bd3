//! Reading buffers, shared by all connections: an idle one has none.

use std::sync::LazyLock;

use parking_lot::Mutex;

/// Bytes read at once.
pub(crate) const SIZE: usize = 128 * 1024;
/// Buffers that are kept for later.
const KEPT: usize = 32;

static FREE: LazyLock<Mutex<Vec<Box<[u8]>>>> = LazyLock::new(Mutex::default);

/// A buffer on loan.
pub(crate) struct Buffer(Option<Box<[u8]>>);

impl Buffer {
    pub(crate) fn take() -> Buffer {
        let free = FREE.lock().pop();
        Buffer(Some(free.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice())))
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = FREE.lock();
        if free.len() < KEPT {
            free.extend(self.0.take());
        }
    }
}
