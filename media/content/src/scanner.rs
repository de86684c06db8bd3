//! The virus scanner, and what it said: one for all parts of the server, so that what is sent ten times is looked at once.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::clamd::{Clamd, Finding, ScanError};

/// A scanner with a memory.
pub struct Scanner {
    clamd: Clamd,
    turns: Semaphore,
    seen: Mutex<Seen>,
}

/// Findings kept by the SHA-256 of what was looked at.
#[derive(Default)]
struct Seen {
    findings: HashMap<[u8; 32], (Instant, Finding)>,
    order: VecDeque<[u8; 32]>,
}

/// Questions at a time, as many as clamd's own MaxThreads; it turns away what waits beyond its MaxQueue.
const AT_ONCE: usize = 10;
/// Findings kept; the oldest goes first.
const KEPT: usize = 10_000;
/// How long a finding is good: the scanner learns of new viruses.
const GOOD: Duration = Duration::from_secs(3600);

impl Scanner {
    pub fn new(clamd: Clamd) -> Scanner {
        Scanner { clamd, turns: Semaphore::new(AT_ONCE), seen: Mutex::default() }
    }

    /// `read` gives the content from its start, and is called twice at most: for its hash, and for the scanner.
    pub async fn scan<S>(&self, read: impl Fn() -> S) -> Result<Finding, ScanError>
    where
        S: Stream<Item = Result<Bytes, String>>,
    {
        let mut hash = Sha256::new();
        {
            let content = read();
            futures_util::pin_mut!(content);
            while let Some(bytes) = content.next().await {
                hash.update(bytes.map_err(ScanError::File)?);
            }
        }
        let hash: [u8; 32] = hash.finalize().into();
        let known = || self.seen.lock().get(&hash, Instant::now());
        if let Some(finding) = known() {
            return Ok(finding);
        }
        // Never closed.
        let _turn = self.turns.acquire().await;
        // The same may have been looked at while this waited.
        if let Some(finding) = known() {
            return Ok(finding);
        }
        let finding = self.clamd.scan(read()).await?;
        self.seen.lock().keep(hash, Instant::now(), finding.clone());
        Ok(finding)
    }
}

impl Seen {
    fn get(&self, hash: &[u8; 32], now: Instant) -> Option<Finding> {
        let (at, finding) = self.findings.get(hash)?;
        (now.saturating_duration_since(*at) < GOOD).then(|| finding.clone())
    }

    fn keep(&mut self, hash: [u8; 32], now: Instant, finding: Finding) {
        if self.findings.insert(hash, (now, finding)).is_none() {
            self.order.push_back(hash);
        }
        while self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.findings.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_findings_are_forgotten() {
        let mut seen = Seen::default();
        let now = Instant::now();
        for n in 0..KEPT as u32 + 5 {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&n.to_be_bytes());
            seen.keep(hash, now, Finding::Clean);
            seen.keep(hash, now, Finding::Clean);
        }
        assert_eq!((seen.findings.len(), seen.order.len()), (KEPT, KEPT));
        assert_eq!(seen.get(&[0; 32], now), None);
        let last = seen.order[KEPT - 1];
        assert_eq!(seen.get(&last, now + GOOD / 2), Some(Finding::Clean));
        assert_eq!(seen.get(&last, now + GOOD), None);
    }
}
