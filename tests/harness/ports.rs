//! Loopback ports that no other test of the same run uses.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports in one block; the first is the guard that keeps the block ours.
const BLOCK: u16 = 20;

/// A block of ports, ours while this lives. The kernel takes the guard back when the test process dies, however it dies.
pub struct Ports {
    guard: TcpListener,
    used: AtomicU16,
}

impl Ports {
    /// Claims a free block of the range in `ISTHMUS_TEST_PORTS` (default `22200-22999`).
    pub fn claim() -> Self {
        let range = std::env::var("ISTHMUS_TEST_PORTS").unwrap_or_else(|_| "22200-22999".into());
        let (first, last) = range.split_once('-').expect("ISTHMUS_TEST_PORTS is FIRST-LAST");
        let (first, last): (u16, u16) = (first.parse().unwrap(), last.parse().unwrap());
        let blocks = (last - first + 1) / BLOCK;
        for turn in 0..600u32 {
            // Start at different places, so that tests that start together seldom meet.
            let start = std::process::id().wrapping_mul(7).wrapping_add(turn * 13);
            let base = first + (start % u32::from(blocks)) as u16 * BLOCK;
            if let Ok(guard) = TcpListener::bind(("127.0.0.1", base)) {
                return Self { guard, used: AtomicU16::new(0) };
            }
            std::thread::sleep(std::time::Duration::from_millis(if turn < 100 { 1 } else { 100 }));
        }
        panic!("no free block of ports in {range}");
    }

    /// The next port of the block. A block has 19.
    pub fn next(&self) -> u16 {
        let nth = self.used.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(nth < BLOCK, "a test needs more than {} ports", BLOCK - 1);
        self.guard.local_addr().expect("a bound listener has an address").port() + nth
    }
}
