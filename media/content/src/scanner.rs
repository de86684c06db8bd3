//! The virus scanners, and what they said: the same for all parts of the server, so that what is sent ten times is looked at once.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clamd::Clamd;
use crate::icap::Icap;
use crate::icap::answer::BadAnswer;

/// What a scanner says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    Clean,
    /// The name of what was found.
    Found(String),
}

/// Why there is no finding; the operator's: a scanner is away, full, or stricter in size than we are.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no answer")]
    Silent,
    #[error("{0}")]
    Refused(String),
    #[error("the file could not be read: {0}")]
    File(String),
}

/// The same, and whose fault it was.
#[derive(Debug, thiserror::Error)]
#[error("{by}: {why}")]
pub struct Unscanned {
    pub by: &'static str,
    pub why: ScanError,
}

impl From<BadAnswer> for ScanError {
    fn from(bad: BadAnswer) -> ScanError {
        ScanError::Refused(bad.to_string())
    }
}

/// A program that looks at content.
pub enum Engine {
    Clamd(Clamd),
    Icap(Icap),
}

/// Scanners with a memory. Content is clean when all of them say so.
pub struct Scanner {
    engines: Vec<Engine>,
    turns: Semaphore,
    seen: Mutex<Seen>,
}

/// Findings kept by the SHA-256 of what was looked at.
#[derive(Default)]
struct Seen {
    findings: HashMap<[u8; 32], Kept>,
    order: VecDeque<[u8; 32]>,
}

#[derive(Clone)]
struct Kept {
    at: Instant,
    /// Of the scanners' own knowledge.
    generation: u64,
    finding: Finding,
}

/// For each step with a scanner: connecting, writing a chunk, and the verdict, which takes clamd some 40 ms a mebibyte.
const PATIENCE: Duration = Duration::from_secs(60);
/// Questions at a time, as many as clamd's own MaxThreads; it turns away what waits beyond its MaxQueue.
const AT_ONCE: usize = 10;
/// Findings kept; the oldest goes first.
const KEPT: usize = 10_000;
/// How long a finding is good: the scanner learns of new viruses.
const GOOD: Duration = Duration::from_secs(3600);

impl Scanner {
    pub fn new(engines: Vec<Engine>) -> Scanner {
        Scanner { engines, turns: Semaphore::new(AT_ONCE), seen: Mutex::default() }
    }

    /// `read` gives the content from its start: once for its hash, once for each scanner.
    pub async fn scan<S>(&self, read: impl Fn() -> S) -> Result<Finding, Unscanned>
    where
        S: Stream<Item = Result<Bytes, String>>,
    {
        let mut hash = Sha256::new();
        let mut size = 0;
        {
            let content = read();
            futures_util::pin_mut!(content);
            while let Some(bytes) = content.next().await {
                let bytes = bytes.map_err(|why| Unscanned { by: "content", why: ScanError::File(why) })?;
                size += bytes.len() as u64;
                hash.update(bytes);
            }
        }
        let hash: [u8; 32] = hash.finalize().into();
        let known = || self.seen.lock().get(&hash, Instant::now(), self.generation());
        if let Some(finding) = known() {
            return Ok(finding);
        }
        // Never closed.
        let _turn = self.turns.acquire().await;
        // The same may have been looked at while this waited.
        if let Some(finding) = known() {
            return Ok(finding);
        }
        let generation = self.generation();
        let mut finding = Finding::Clean;
        for engine in &self.engines {
            let said = match engine {
                Engine::Clamd(clamd) => clamd.scan(read()).await,
                Engine::Icap(icap) => icap.scan(size, hash, read()).await,
            };
            finding = said.map_err(|why| Unscanned { by: engine.name(), why })?;
            if finding != Finding::Clean {
                break;
            }
        }
        self.seen.lock().keep(hash, Kept { at: Instant::now(), generation, finding: finding.clone() });
        Ok(finding)
    }

    fn generation(&self) -> u64 {
        let of = |engine: &Engine| match engine {
            Engine::Clamd(_) => 0,
            Engine::Icap(icap) => icap.generation(),
        };
        self.engines.iter().map(of).sum()
    }
}

impl Engine {
    fn name(&self) -> &'static str {
        match self {
            Engine::Clamd(_) => "clamd",
            Engine::Icap(_) => "ICAP",
        }
    }
}

pub(crate) async fn patient<T, E: Into<ScanError>>(step: impl Future<Output = Result<T, E>>) -> Result<T, ScanError> {
    timeout(PATIENCE, step).await.map_err(|_| ScanError::Silent)?.map_err(Into::into)
}

impl Seen {
    fn get(&self, hash: &[u8; 32], now: Instant, generation: u64) -> Option<Finding> {
        let kept = self.findings.get(hash)?;
        let is_good = kept.generation == generation && now.saturating_duration_since(kept.at) < GOOD;
        is_good.then(|| kept.finding.clone())
    }

    fn keep(&mut self, hash: [u8; 32], kept: Kept) {
        if self.findings.insert(hash, kept).is_none() {
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
            let kept = Kept { at: now, generation: 3, finding: Finding::Clean };
            seen.keep(hash, kept.clone());
            seen.keep(hash, kept);
        }
        assert_eq!((seen.findings.len(), seen.order.len()), (KEPT, KEPT));
        assert_eq!(seen.get(&[0; 32], now, 3), None);
        let last = seen.order[KEPT - 1];
        assert_eq!(seen.get(&last, now + GOOD / 2, 3), Some(Finding::Clean));
        assert_eq!(seen.get(&last, now + GOOD, 3), None);
        assert_eq!(seen.get(&last, now, 4), None, "the scanner has learnt something");
    }
}
