//! Billing files: written on command, and by a running server when a day or month is over.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gw_sms::billing::{self, Calendar, Period};
use gw_sms::queue::{Queue, Total};
use sip_ims::answer;

use crate::config::Config;
use crate::secrets::put_in_place;

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
            let text = billing::text(period, name, &self.zone, run, at, &self.calendar, totals);
            // One of a period that is begun and empty would count as written for ever. Another process may write the same period now: whoever
            // makes the file has its number.
            match put_in_place(&path, text.as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => run += 1,
                written => return written.map(|()| path),
            }
        }
    }

    fn path(&self, period: Period, name: &str, run: u32) -> PathBuf {
        self.folder.join(format!("sms-{}-{name}.{run:04}.csv", period.as_str()))
    }

    fn is_written(&self, period: Period, name: &str) -> bool {
        Path::exists(&self.path(period, name, 1))
    }

    /// Writes each day's file after its midnight, and each month's after its last; nobody types anything. After a start, what was missed
    /// while nothing ran: of the last month's days those with traffic, and the month before.
    pub async fn keep(self, queue: Arc<dyn Queue>, clock: Arc<dyn Fn() -> i64 + Send + Sync>) {
        // What this process has seen: since when, and whether a midnight was in it.
        let (mut since, mut lived, mut left) = (None, false, true);
        loop {
            let now = clock();
            if since.is_some_and(|at| now >= self.calendar.next_midnight(at) + SETTLED) {
                (lived, left) = (true, true);
            }
            if left {
                since = Some(now);
                left = !self.close(&*queue, now, lived).await;
            }
            // The clock is looked at again and again: it may be set, or the machine may have slept.
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Writes what is over and not written; false if some of it could not be. `lived`: this process saw the last midnight, so a day without
    /// traffic is known to be one.
    async fn close(&self, queue: &dyn Queue, now: i64, lived: bool) -> bool {
        let mut all = true;
        for (days_ago, (day, last_of_month)) in self.calendar.days_before(now, CATCH_UP).into_iter().enumerate() {
            let empty = lived && days_ago == 0;
            all &= self.close_period(queue, Period::Day, &day, (&day, &day), now, empty).await;
            if last_of_month
                && let Some(month) = day.get(..7)
                && let Some((first, last)) = billing::month(month)
            {
                all &= self.close_period(queue, Period::Month, month, (&first, &last), now, empty).await;
            }
        }
        all
    }

    async fn close_period(
        &self,
        queue: &dyn Queue,
        period: Period,
        name: &str,
        (from, to): (&str, &str),
        at: i64,
        empty: bool,
    ) -> bool {
        if self.is_written(period, name) {
            return true;
        }
        let (done, totals) = answer();
        queue.totals(from, to, done);
        let totals = match totals.await {
            Ok(totals) if totals.is_empty() && !empty => return true,
            Ok(totals) => totals,
            Err(error) => {
                tracing::error!(%error, "billing totals are not read");
                return false;
            }
        };
        match self.write(period, name, at, &totals) {
            Ok(path) => tracing::info!(file = %path.display(), "billing file written"),
            Err(error) => tracing::error!(%error, "a billing file is not written"),
        }
        self.is_written(period, name)
    }
}

/// Days that are caught up with: the longest month, and so the end of the one before.
const CATCH_UP: usize = 31;
/// Milliseconds after midnight at which the last receipts of the day are written.
const SETTLED: i64 = 60_000;
const LOOK: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use gw_sms::queue::{
        Cancel, Enqueued, Mark, Older, Outlet, Replaced, Replacement, Request, RequestKey, SegmentId, SentAs, Status,
        Verdict, Waiting,
    };
    use sip_ims::ports::{Done, StoreError};

    use super::*;

    /// A message a day from one on, but on another.
    struct Book {
        since: &'static str,
        without: &'static str,
        fails: AtomicBool,
    }

    impl Queue for Book {
        fn attach(&self, _: Arc<dyn Outlet>) {}
        fn enqueue(&self, _: Request, _: Done<Enqueued>) {}
        fn cancel(&self, _: RequestKey, _: i64, _: Done<Cancel>) {}
        fn supersede(&self, _: Older, _: i64, _: Done<u64>) {}
        fn find(&self, _: RequestKey, _: Done<Option<Status>>) {}
        fn find_many(&self, _: Arc<str>, _: Arc<str>, _: Done<Vec<Status>>) {}
        fn replace(&self, _: RequestKey, _: Replacement, _: Done<Replaced>) {}
        fn mark(&self, _: Vec<Mark>) -> Result<(), StoreError> {
            Ok(())
        }
        fn mark_for_good(&self, _: Vec<Mark>, _: Done<()>) {}
        fn sent_as(&self, _: Vec<SentAs>, _: Done<Vec<Waiting>>) {}
        fn wake(&self, _: sip_ims::Msisdn) {}
        fn wake_ranges(&self, _: &[(sip_ims::Msisdn, sip_ims::Msisdn)]) {}
        fn notified(&self, _: SegmentId) {}
        fn notify_later(&self, _: SegmentId, _: i64, _: u16) {}
        fn totals(&self, from: &str, to: &str, done: Done<Vec<Total>>) {
            if self.fails.swap(false, Relaxed) {
                return done(Err(StoreError::Full));
            }
            let total = |day: &str| Total {
                day: day.into(),
                client: "12345678901".into(),
                verdict: Verdict::DELIVERED,
                requests: 1,
                segments: 1,
            };
            let days = (1..=31).map(|d| format!("{}-{d:02}", &from[..7])).filter(|d| (from..=to).contains(&&**d));
            let days = days.filter(|d| billing::is_day(d) && &**d >= self.since && *d != self.without);
            done(Ok(days.map(|d| total(&d)).collect()));
        }
    }

    fn office(folder: &Path) -> Office {
        let calendar = Calendar::parse("+09:00").unwrap();
        Office { folder: folder.join("b"), zone: "+09:00".into(), calendar }
    }

    /// Keeps the books for so long on a pretend clock, from an RFC 3339 time on; the names of the files there are then.
    async fn kept(folder: &Path, book: Book, from: &str, seconds: u64) -> Vec<String> {
        let start = tokio::time::Instant::now();
        let from = billing::unix_seconds(from).unwrap() * 1_000;
        let clock = Arc::new(move || from + start.elapsed().as_millis() as i64);
        let keep = tokio::spawn(office(folder).keep(Arc::new(book), clock));
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        keep.abort();
        let mut names: Vec<String> = std::fs::read_dir(folder.join("b"))
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn book(without: &'static str, fails: bool) -> Book {
        Book { since: "2026-11-30", without, fails: AtomicBool::new(fails) }
    }

    #[tokio::test(start_paused = true)]
    async fn days_and_months_are_closed_at_the_operators_midnight() {
        let folder = tempfile::tempdir().unwrap();
        // Just before and after the midnight of Tokyo that ends November, which is no midnight of anybody in Europe.
        let start = "2026-11-30T23:59:00+09:00";
        assert_eq!(kept(folder.path(), book("", false), start, 100).await, [""; 0]);
        let files = kept(folder.path(), book("", false), start, 200).await;
        assert_eq!(files, ["sms-day-2026-11-30.0001.csv", "sms-month-2026-11.0001.csv"]);
        let day = std::fs::read_to_string(folder.path().join("b/sms-day-2026-11-30.0001.csv")).unwrap();
        assert!(day.starts_with("H,isthmus,sms,day,2026-11-30,+09:00,1,2026-12-01T00:01:"), "{day}");
        assert!(day.contains("\n12345678901,0000,1,1\nT,1,1,1,"), "{day}");
        // A server that starts again closes nothing twice, and goes on; a day without traffic that it saw has its empty file.
        let files = kept(folder.path(), book("2026-12-02", false), "2026-12-01T12:00:00+09:00", 49 * 3_600).await;
        let december = ["sms-day-2026-12-01.0001.csv", "sms-day-2026-12-02.0001.csv"];
        assert!(december.iter().all(|d| files.iter().any(|f| f == d)), "{files:?}");
        let empty = std::fs::read_to_string(folder.path().join("b").join(december[1])).unwrap();
        assert!(empty.contains("\nT,0,0,0,"), "{empty}");
        assert!(files.iter().all(|f| f.ends_with(".0001.csv") && !f.contains("2026-12-03")), "{files:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_missed_is_caught_up_with() {
        let folder = tempfile::tempdir().unwrap();
        // It was away from the 29th of November to the 3rd of December, and the store fails for the first question.
        let first = kept(folder.path(), book("", true), "2026-12-03T10:00:00+09:00", 5).await;
        let expected = ["sms-day-2026-11-30.0001.csv", "sms-day-2026-12-01.0001.csv", "sms-month-2026-11.0001.csv"];
        assert_eq!(first, expected);
        // What failed is asked for again soon, and the next day comes in its turn.
        let files = kept(folder.path(), book("", true), "2026-12-03T11:00:00+09:00", 15).await;
        assert!(files.contains(&"sms-day-2026-12-02.0001.csv".to_owned()) && files.len() == 4, "{files:?}");
        let files = kept(folder.path(), book("", false), "2026-12-03T23:00:00+09:00", 3_700).await;
        assert!(files.contains(&"sms-day-2026-12-03.0001.csv".to_owned()) && files.len() == 5, "{files:?}");
    }

    #[test]
    fn each_run_has_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let office = office(folder.path());
        assert!(!office.is_written(Period::Day, "2026-11-26"));
        let first = office.write(Period::Day, "2026-11-26", 0, &[]).unwrap();
        let second = office.write(Period::Day, "2026-11-26", 0, &[]).unwrap();
        assert!(first.ends_with("sms-day-2026-11-26.0001.csv") && second.ends_with("sms-day-2026-11-26.0002.csv"));
        assert!(std::fs::read_to_string(second).unwrap().starts_with("H,isthmus,sms,day,2026-11-26,+09:00,2,"));
        assert!(office.is_written(Period::Day, "2026-11-26"));
    }
}
