//! Billing files: written on command, and by a running server when a day or month is over.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gw_sms::billing::{self, Calendar, Period};
use gw_sms::queue::{Queue, Total};
use sip_ims::answer;

use crate::config::Config;

/// Where files go and how they are dated.
#[derive(Clone, Debug)]
pub struct Office {
    folder: PathBuf,
    zone: String,
    calendar: Calendar,
}

impl Office {
    pub fn of(config: &Config) -> Office {
        Office {
            folder: config.data_dir.join(&config.billing.folder),
            zone: config.billing.time_zone.clone(),
            // Checked with the rest of the configuration.
            calendar: Calendar::parse(&config.billing.time_zone).unwrap_or_else(|_| Calendar::utc()),
        }
    }

    /// Writes the next file of a period and says where. Each run has its number; earlier files stay.
    pub fn write(&self, period: Period, name: &str, at: i64, totals: &[Total]) -> io::Result<PathBuf> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mut run = 1;
        loop {
            let path = self.path(period, name, run);
            // Another process may write the same period now: whoever makes the file has its number.
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let mut file = match file {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    run += 1;
                    continue;
                }
                file => file?,
            };
            let text = billing::text(period, name, &self.zone, run, at, &self.calendar, totals);
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
            return Ok(path);
        }
    }

    fn path(&self, period: Period, name: &str, run: u32) -> PathBuf {
        self.folder.join(format!("sms-{}-{name}.{run:04}.csv", period.as_str()))
    }

    fn is_written(&self, period: Period, name: &str) -> bool {
        Path::exists(&self.path(period, name, 1))
    }

    /// Writes each day's file after its midnight, and each month's on the first day of the next; after a start, what is missing of
    /// yesterday.
    pub async fn keep(self, queue: Arc<dyn Queue>, clock: Arc<dyn Fn() -> i64 + Send + Sync>) {
        loop {
            let now = clock();
            let day = self.calendar.day_before(now);
            self.close(&*queue, Period::Day, &day, (day.clone(), day.clone()), now).await;
            let mut calendar = self.calendar.clone();
            if calendar.day(now).ends_with("-01")
                && let Some(month) = day.get(..7)
                && let Some(days) = billing::month(month)
            {
                self.close(&*queue, Period::Month, month, days, now).await;
            }
            // A minute later the last receipts of the day are written.
            let wait = self.calendar.next_midnight(now) - now + 60_000;
            tokio::time::sleep(Duration::from_millis(wait.max(1_000) as u64)).await;
        }
    }

    async fn close(&self, queue: &dyn Queue, period: Period, name: &str, (from, to): (String, String), at: i64) {
        if self.is_written(period, name) {
            return;
        }
        let (done, totals) = answer();
        queue.totals(&from, &to, done);
        let totals = match totals.await {
            Ok(totals) if totals.is_empty() => return,
            Ok(totals) => totals,
            Err(error) => return tracing::error!(%error, "billing totals are not read"),
        };
        match self.write(period, name, at, &totals) {
            Ok(path) => tracing::info!(file = %path.display(), "billing file written"),
            Err(error) => tracing::error!(%error, "a billing file is not written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let office = Office { folder: folder.path().join("b"), zone: "UTC".into(), calendar: Calendar::utc() };
        assert!(!office.is_written(Period::Day, "2026-11-26"));
        let first = office.write(Period::Day, "2026-11-26", 0, &[]).unwrap();
        let second = office.write(Period::Day, "2026-11-26", 0, &[]).unwrap();
        assert!(first.ends_with("sms-day-2026-11-26.0001.csv") && second.ends_with("sms-day-2026-11-26.0002.csv"));
        assert!(std::fs::read_to_string(second).unwrap().starts_with("H,isthmus,sms,day,2026-11-26,UTC,2,"));
        assert!(office.is_written(Period::Day, "2026-11-26"));
    }
}
