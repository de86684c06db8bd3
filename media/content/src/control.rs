//! What the operator lets pass. A file is judged when it is whole and before anybody else gets a byte of it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::clamd::{Clamd, Finding, ScanError};

/// What became of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Passed,
    /// In words for both sides.
    Refused(String),
}

/// The operator's rules.
pub struct Control {
    /// Types that do not pass: `application/x-msdownload`, or `video/*`.
    refused_types: Vec<String>,
    scanner: Option<Clamd>,
    /// What the scanner cannot look at passes.
    fail_open: bool,
    seen: Mutex<Seen>,
}

/// Verdicts kept by the file's SHA-256.
#[derive(Default)]
struct Seen {
    verdicts: HashMap<[u8; 32], (Instant, Finding)>,
    order: VecDeque<[u8; 32]>,
}

/// Verdicts kept; the oldest goes first.
const KEPT: usize = 10_000;
/// How long a verdict is good: the scanner learns of new viruses.
const GOOD: Duration = Duration::from_secs(3600);

impl Control {
    pub fn new(refused_types: Vec<String>, scanner: Option<Clamd>, fail_open: bool) -> Control {
        let refused_types = refused_types.iter().map(|t| t.to_ascii_lowercase()).collect();
        Control { refused_types, scanner, fail_open, seen: Mutex::default() }
    }

    /// Whether a type passes, parameters aside. Asked before a file is taken.
    pub fn admits_type(&self, media_type: &str) -> bool {
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let matches = |rule: &String| match rule.strip_suffix('*') {
            Some(start) => media_type.starts_with(start),
            None => media_type == *rule,
        };
        !self.refused_types.iter().any(matches)
    }

    /// `read` gives the file from its start, and is called twice at most: for its hash, and for the scanner.
    pub async fn judge<S>(&self, read: impl Fn() -> S) -> Verdict
    where
        S: Stream<Item = Result<Bytes, String>>,
    {
        let Some(scanner) = &self.scanner else { return Verdict::Passed };
        match self.scan(scanner, read).await {
            Ok(Finding::Clean) => Verdict::Passed,
            Ok(Finding::Found(name)) => Verdict::Refused(format!("the virus scanner found {name}")),
            Err(error) => {
                tracing::warn!(%error, passes = self.fail_open, "a file could not be scanned");
                if self.fail_open { Verdict::Passed } else { Verdict::Refused("the virus scanner is not there".into()) }
            }
        }
    }

    async fn scan<S>(&self, scanner: &Clamd, read: impl Fn() -> S) -> Result<Finding, ScanError>
    where
        S: Stream<Item = Result<Bytes, String>>,
    {
        let mut hash = Sha256::new();
        {
            let file = read();
            futures_util::pin_mut!(file);
            while let Some(bytes) = file.next().await {
                hash.update(bytes.map_err(ScanError::File)?);
            }
        }
        let hash: [u8; 32] = hash.finalize().into();
        if let Some(finding) = self.seen.lock().get(&hash, Instant::now()) {
            return Ok(finding);
        }
        let finding = scanner.scan(read()).await?;
        self.seen.lock().keep(hash, Instant::now(), finding.clone());
        Ok(finding)
    }
}

impl Seen {
    fn get(&self, hash: &[u8; 32], now: Instant) -> Option<Finding> {
        let (at, finding) = self.verdicts.get(hash)?;
        (now.saturating_duration_since(*at) < GOOD).then(|| finding.clone())
    }

    fn keep(&mut self, hash: [u8; 32], now: Instant, finding: Finding) {
        if self.verdicts.insert(hash, (now, finding)).is_none() {
            self.order.push_back(hash);
        }
        while self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.verdicts.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_refused_by_name_and_by_kind() {
        let control = Control::new(vec!["application/x-msdownload".into(), "Video/*".into()], None, false);
        for (media_type, admitted) in [
            ("image/jpeg", true),
            ("application/x-msdownload", false),
            ("Application/X-MSDownload; name=a.exe", false),
            ("application/x-msdownload2", true),
            ("video/mp4", false),
        ] {
            assert_eq!(control.admits_type(media_type), admitted, "{media_type}");
        }
    }

    #[test]
    fn the_oldest_verdicts_are_forgotten() {
        let mut seen = Seen::default();
        let now = Instant::now();
        for n in 0..KEPT as u32 + 5 {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&n.to_be_bytes());
            seen.keep(hash, now, Finding::Clean);
            seen.keep(hash, now, Finding::Clean);
        }
        assert_eq!((seen.verdicts.len(), seen.order.len()), (KEPT, KEPT));
        assert_eq!(seen.get(&[0; 32], now), None);
        let last = seen.order[KEPT - 1];
        assert_eq!(seen.get(&last, now + GOOD / 2), Some(Finding::Clean));
        assert_eq!(seen.get(&last, now + GOOD), None);
    }
}
