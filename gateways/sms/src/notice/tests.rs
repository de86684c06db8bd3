//! Notices and a teller that answers as the test says.

use std::time::Duration;

use parking_lot::Mutex;
use sip_ims::ports::{Done, StoreError};

use super::*;
use crate::queue::{
    Cancel, Enqueued, Mark, Older, Outlet, Replaced, Replacement, Request, RequestKey, SegmentId, SentAs, Status,
    Total, Verdict, Waiting,
};

#[derive(Default)]
struct Book(Mutex<Vec<(i64, Option<i64>)>>);

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
    fn notified(&self, id: SegmentId) {
        self.0.lock().push((id.0, None));
    }
    fn notify_later(&self, id: SegmentId, due: i64, _: u16) {
        self.0.lock().push((id.0, Some(due)));
    }
    fn totals(&self, _: &str, _: &str, _: Done<Vec<Total>>) {}
}

struct Says;

impl Teller for Says {
    fn tell(&self, notice: &Notice) -> Pin<Box<dyn Future<Output = Told> + Send>> {
        let told = match &*notice.client {
            "dead" => Told::No,
            "gone" => Told::Gone,
            _ => Told::Yes,
        };
        Box::pin(std::future::ready(told))
    }
}

fn notice(id: i64, client: &str, done_at: i64, attempts: u16) -> Notice {
    Notice {
        id: SegmentId(id),
        client: client.into(),
        msn: "+819012345678".parse().unwrap(),
        reqid: "r".into(),
        verdict: Verdict::DELIVERED,
        delivered: 1,
        cancelled: 0,
        parts: 1,
        cancel: false,
        accepted_at: 0,
        done_at,
        attempts,
    }
}

/// What the queue was told about these, the clock standing at 100,000,000.
fn outcome(notices: Vec<Notice>) -> Vec<(i64, Option<i64>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let count = notices.len();
        let book = Arc::new(Book::default());
        let (way_in, notifier) = Notices::new();
        let run = tokio::spawn(notifier.run(book.clone(), Arc::new(Says), Arc::new(|| 100_000_000)));
        way_in.take(notices);
        let all = async {
            while book.0.lock().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
        assert_eq!(way_in.room(), ROOM);
        drop(way_in);
        run.await.unwrap();
        let mut found = book.0.lock().clone();
        found.sort_unstable();
        found
    })
}

#[test]
fn taken_and_gone_are_through() {
    assert_eq!(outcome(vec![notice(1, "ok", 0, 0), notice(2, "gone", 0, 0)]), [(1, None), (2, None)]);
}

#[test]
fn pauses_grow_and_end_after_a_day() {
    let recent = 99_999_000;
    assert_eq!(outcome(vec![notice(1, "dead", recent, 0)]), [(1, Some(100_010_000))]);
    assert_eq!(outcome(vec![notice(1, "dead", recent, 9)]), [(1, Some(103_600_000))]);
    assert_eq!(outcome(vec![notice(1, "dead", 100_000_000 - PATIENCE - 1, 9)]), [(1, None)]);
}

#[test]
fn a_client_that_does_not_answer_has_the_others_put_off() {
    let all = outcome((0..40).map(|n| notice(n, "dead", 99_999_000, 0)).collect());
    assert!(all.iter().all(|(_, due)| *due == Some(100_010_000)), "{all:?}");
}
