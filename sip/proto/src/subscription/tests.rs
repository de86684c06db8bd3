use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::headers::SubscriptionState;

const PACE: Duration = Duration::from_secs(5);
const WAIT: Duration = Duration::from_secs(32);
const OK: NotifierEvent = NotifierEvent::Answered { status: 200, retry_after: None };

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn state(n: &Notifier, now: Instant) -> String {
    let mut out = Vec::new();
    n.write_state(now, &mut out);
    String::from_utf8(out).unwrap()
}

/// Feeds events; gives how many NOTIFYs went out and whether it is gone.
fn feed(n: Notifier, now: Instant, events: &[NotifierEvent]) -> (Notifier, usize, bool) {
    events.iter().fold((n, 0, false), |(n, sent, gone), event| {
        let (n, step) = n.step(now, *event);
        (n, sent + usize::from(step.notify), gone || step.gone)
    })
}

fn fed(s: Subscriber, now: Instant, event: SubscriberEvent<'_>) -> (Subscriber, SubscriberStep) {
    s.step(now, event)
}

fn said(text: &str) -> SubscriberEvent<'_> {
    SubscriberEvent::Notified(SubscriptionState::parse(text.as_bytes()).unwrap())
}

fn answered(status: u16, expires: Option<u32>) -> SubscriberEvent<'static> {
    SubscriberEvent::Answered { status, expires, min_expires: None, retry_after: None }
}

#[test]
fn grants_are_bounded_and_too_brief_ones_refused() {
    let g = Grant { min: 60, max: 7200, default: 3600 };
    assert_eq!(g.seconds(None), Ok(3600));
    assert_eq!(g.seconds(Some(0)), Ok(0));
    assert_eq!(g.seconds(Some(59)), Err(TooBrief { min_expires: 60 }));
    assert_eq!(g.seconds(Some(u32::MAX)), Ok(7200));
    assert_eq!(Grant { min: 10_000, ..g }.seconds(Some(3600)), Ok(3600));
}

#[test]
fn each_subscribe_is_followed_by_a_notify_at_once() {
    let t = Instant::now();
    let (n, step) = Notifier::start(t, 600, true, PACE);
    assert!(step.notify && n.is_active());
    assert_eq!(state(&n, t), "active;expires=600");
    let (n, sent, _) = feed(n, t + secs(1), &[OK, NotifierEvent::Subscribed { seconds: 300 }]);
    assert_eq!((sent, state(&n, t + secs(1)).as_str()), (1, "active;expires=300"));
}

#[test]
fn a_fetch_gets_one_notify_and_is_gone() {
    let t = Instant::now();
    let (n, step) = Notifier::start(t, 0, true, PACE);
    assert!(step.notify);
    assert_eq!(state(&n, t), "terminated;reason=timeout");
    assert!(feed(n, t, &[OK]).2);
}

#[test]
fn a_pending_watcher_is_told_nothing_until_authorised() {
    let t = Instant::now();
    let (n, _) = Notifier::start(t, 600, false, PACE);
    let (n, sent, _) = feed(n, t, &[OK, NotifierEvent::Changed]);
    assert_eq!((sent, state(&n, t).as_str()), (0, "pending;expires=600"));
    let (n, sent, _) = feed(n, t, &[NotifierEvent::Authorised]);
    assert_eq!((sent, state(&n, t).as_str()), (1, "active;expires=600"));
}

#[test]
fn changes_are_joined_while_a_notify_is_under_way_and_paced_after() {
    let t = Instant::now();
    let (n, _) = Notifier::start(t, 600, true, PACE);
    let (n, sent, _) = feed(n, t, &[NotifierEvent::Changed, NotifierEvent::Changed, OK]);
    assert_eq!((sent, n.deadline()), (0, Some(t + PACE)));
    let (n, sent, _) = feed(n, t + secs(4), &[NotifierEvent::Deadline, NotifierEvent::Changed]);
    assert_eq!(sent, 0);
    let (n, sent, _) = feed(n, t + PACE, &[NotifierEvent::Deadline]);
    assert_eq!((sent, n.deadline()), (1, Some(t + secs(600))));
}

#[test]
fn an_impatient_watcher_hears_though_nothing_has_changed() {
    let t = Instant::now();
    let (mut n, _) = Notifier::start(t, 600, true, PACE);
    n.set_patience(Some(secs(20)));
    let (n, ..) = feed(n, t, &[OK]);
    assert_eq!(
        (n.deadline(), n.is_overdue(t + secs(19)), n.is_overdue(t + secs(20))),
        (Some(t + secs(20)), false, true)
    );
    assert_eq!(feed(n.clone(), t + secs(19), &[NotifierEvent::Deadline]).1, 0);
    let (n, sent, _) = feed(n, t + secs(20), &[NotifierEvent::Deadline]);
    assert_eq!((sent, n.is_overdue(t + secs(60))), (1, false), "one at a time");
    let (n, ..) = feed(n, t + secs(21), &[OK]);
    assert_eq!(n.deadline(), Some(t + secs(40)));
    let (mut n, _) = Notifier::start(t, 600, false, PACE);
    n.set_patience(Some(secs(20)));
    assert_eq!(feed(n, t, &[OK]).0.deadline(), Some(t + secs(600)), "who waits is told nothing");
}

#[test]
fn a_subscription_that_is_not_refreshed_ends_with_a_last_notify() {
    let t = Instant::now();
    let (n, _) = Notifier::start(t, 600, true, PACE);
    let (n, ..) = feed(n, t, &[OK]);
    assert_eq!(n.until(), Some(t + secs(600)));
    let (n, sent, gone) = feed(n, t + secs(600), &[NotifierEvent::Deadline]);
    assert_eq!(n.until(), None);
    assert_eq!((sent, gone, state(&n, t).as_str()), (1, false, "terminated;reason=timeout"));
    assert!(feed(n, t + secs(601), &[OK]).2);
}

#[test]
fn a_notifier_with_nothing_to_do_is_made_again_of_what_it_knows() {
    let t = Instant::now();
    for authorised in [true, false] {
        let (n, _) = Notifier::start(t, 600, authorised, PACE);
        assert_eq!(n.idle(), None, "its first NOTIFY is under way");
        let (n, ..) = feed(n, t, &[OK]);
        assert_eq!(Notifier::from_idle(n.idle().unwrap(), PACE), n);
        let (n, ..) = feed(n, t, &[NotifierEvent::Changed]);
        assert_eq!(n.idle().is_none(), authorised, "one waits for the pace");
    }
    let (n, _) = Notifier::start(t, 0, true, PACE);
    assert_eq!(n.idle(), None);
}

#[test]
fn the_last_notify_waits_for_the_one_under_way() {
    let t = Instant::now();
    let (n, _) = Notifier::start(t, 600, true, PACE);
    let ended = NotifierEvent::Ended { reason: EndReason::Probation, retry_after: Some(30) };
    let (n, sent, gone) = feed(n, t, &[ended]);
    assert_eq!((sent, gone), (0, false));
    let (n, sent, gone) = feed(n, t, &[OK]);
    assert_eq!((sent, gone, state(&n, t).as_str()), (1, false, "terminated;reason=probation;retry-after=30"));
    assert!(feed(n, t, &[OK]).2);
}

#[test]
fn a_notify_that_finds_nobody_ends_the_subscription_and_other_failures_do_not() {
    let t = Instant::now();
    for (status, retry_after, gone) in [(481, None, true), (408, None, true), (500, None, false), (481, Some(9), true)]
    {
        let (n, _) = Notifier::start(t, 600, true, PACE);
        assert_eq!(feed(n, t, &[NotifierEvent::Answered { status, retry_after }]).2, gone, "{status}");
    }
    let (n, _) = Notifier::start(t, 600, true, PACE);
    let (n, sent, gone) = feed(n, t, &[NotifierEvent::Answered { status: 503, retry_after: Some(9) }]);
    assert_eq!((sent, gone, n.deadline()), (0, false, Some(t + secs(9))));
    assert_eq!(feed(n, t + secs(9), &[NotifierEvent::Deadline]).1, 1);
}

#[test]
fn a_subscriber_gives_up_when_no_notify_comes() {
    let t = Instant::now();
    let (s, step) = Subscriber::start(t, 3600, WAIT);
    assert_eq!(step.subscribe, Some(3600));
    let (s, _) = fed(s, t, answered(200, Some(3600)));
    assert_eq!(s.deadline(), Some(t + WAIT));
    assert_eq!(fed(s, t + WAIT, SubscriberEvent::Deadline).1.over, Some(Resubscribe::Anytime));
}

#[test]
fn a_notify_may_come_before_the_answer() {
    let t = Instant::now();
    let (s, _) = Subscriber::start(t, 3600, WAIT);
    let (s, _) = fed(s, t, said("pending;expires=3600"));
    assert!(s.is_pending());
    let (s, _) = fed(s, t, answered(200, Some(1800)));
    assert_eq!(s.deadline(), Some(t + secs(1200)));
    let (s, _) = fed(s, t, said("active;expires=1000"));
    assert!(s.is_active());
    assert_eq!(s.deadline(), Some(t + secs(500)));
}

#[test]
fn a_refresh_goes_out_in_time_and_a_failed_one_leaves_the_rest_of_the_time() {
    let t = Instant::now();
    let (s, _) = Subscriber::start(t, 1000, WAIT);
    let (s, _) = fed(s, t, said("active;expires=1000"));
    let (s, step) = fed(s, t + secs(500), SubscriberEvent::Deadline);
    assert_eq!(step.subscribe, Some(1000));
    let (s, step) = fed(s, t + secs(501), answered(500, None));
    assert_eq!((step, s.deadline()), (SubscriberStep::default(), Some(t + secs(1000))));
    assert_eq!(fed(s, t + secs(1000), SubscriberEvent::Deadline).1.over, Some(Resubscribe::Now));
}

#[test]
fn a_refresh_that_finds_nobody_subscribes_anew() {
    let t = Instant::now();
    let (s, _) = Subscriber::start(t, 1000, WAIT);
    let (s, _) = fed(s, t, said("active;expires=1000"));
    let (s, _) = fed(s, t + secs(500), SubscriberEvent::Deadline);
    assert_eq!(fed(s, t, answered(481, None)).1.over, Some(Resubscribe::Now));
}

#[test]
fn a_bad_event_is_never_tried_again_and_a_brief_one_longer() {
    let t = Instant::now();
    let (s, _) = Subscriber::start(t, 30, WAIT);
    assert_eq!(fed(s.clone(), t, answered(489, None)).1.over, Some(Resubscribe::Never));
    let brief =
        |min| SubscriberEvent::Answered { status: 423, expires: None, min_expires: Some(min), retry_after: None };
    let (mut s, step) = fed(s, t, brief(60));
    assert_eq!(step.subscribe, Some(60));
    for min in [70, 80] {
        let step;
        (s, step) = fed(s, t, brief(min));
        assert_eq!(step.subscribe, Some(min));
    }
    assert_eq!(fed(s, t, brief(90)).1.over, Some(Resubscribe::Never));
}

#[test]
fn reasons_say_when_to_subscribe_again() {
    let t = Instant::now();
    for (text, again) in [
        ("terminated;reason=deactivated", Resubscribe::Now),
        ("terminated;reason=timeout;retry-after=9", Resubscribe::Now),
        ("terminated;reason=probation;retry-after=9", Resubscribe::After(9)),
        ("terminated;reason=giveup", Resubscribe::Anytime),
        ("terminated;reason=rejected", Resubscribe::Never),
        ("terminated;reason=noresource", Resubscribe::Never),
        ("terminated;reason=invariant", Resubscribe::Never),
        ("terminated", Resubscribe::Anytime),
    ] {
        let (s, _) = Subscriber::start(t, 1000, WAIT);
        assert_eq!(fed(s, t, said(text)).1.over, Some(again), "{text}");
    }
}

#[test]
fn leaving_ends_with_the_last_notify_or_without_it() {
    let t = Instant::now();
    let (s, _) = Subscriber::start(t, 1000, WAIT);
    let (s, _) = fed(s, t, said("active;expires=1000"));
    let (s, step) = fed(s, t, SubscriberEvent::Leave);
    assert_eq!(step.subscribe, Some(0));
    let (s, _) = fed(s, t, answered(200, Some(0)));
    let (s, step) = fed(s, t, said("active;expires=900"));
    assert_eq!(step, SubscriberStep::default());
    assert_eq!(fed(s.clone(), t, said("terminated;reason=timeout")).1.over, Some(Resubscribe::Never));
    assert_eq!(fed(s, t + WAIT, SubscriberEvent::Deadline).1.over, Some(Resubscribe::Never));
}

/// Both ends over a network that loses SUBSCRIBEs and NOTIFYs; time runs in steps of a second.
fn run(losses: Vec<bool>) -> Result<(), TestCaseError> {
    let start = Instant::now();
    let mut losses = losses.into_iter().chain(std::iter::repeat(false));
    let mut lost = move || losses.next().unwrap_or(false);
    let (sub, step) = Subscriber::start(start, 120, WAIT);
    let (mut sub, mut sub_step) = (Some(sub), step);
    let mut notifier: Option<Notifier> = None;
    for second in 0..2000u64 {
        let now = start + secs(second);
        let mut step = NotifierStep::default();
        if let Some(expires) = sub_step.subscribe.take() {
            if lost() {
                let (s, next) = sub.take().unwrap().step(now, answered(408, None));
                (sub, sub_step) = (Some(s), next);
            } else {
                let status = if notifier.is_some() || second == 0 { 200 } else { 481 };
                if status == 200 {
                    let (n, next) = match notifier.take() {
                        Some(n) => n.step(now, NotifierEvent::Subscribed { seconds: expires }),
                        None => Notifier::start(now, expires, true, PACE),
                    };
                    (notifier, step) = (Some(n), next);
                }
                let (s, next) = sub.take().unwrap().step(now, answered(status, Some(expires)));
                (sub, sub_step) = (Some(s), next);
            }
        }
        if let Some(n) = notifier.take_if(|n| n.deadline().is_some_and(|d| now >= d)) {
            let (n, next) = n.step(now, NotifierEvent::Deadline);
            step.notify |= next.notify;
            step.gone |= next.gone;
            notifier = Some(n);
        }
        while step.notify {
            let text = state(notifier.as_ref().unwrap(), now);
            let status = if lost() { 408 } else { 200 };
            if status == 200 && sub_step.over.is_none() {
                let (s, next) = sub.take().unwrap().step(now, said(&text));
                (sub, sub_step) = (Some(s), next);
            }
            let (n, next) = notifier.take().unwrap().step(now, NotifierEvent::Answered { status, retry_after: None });
            (notifier, step) = (Some(n), next);
        }
        if step.gone {
            notifier = None;
        }
        if sub_step.over.is_none() && sub.as_ref().unwrap().deadline().is_some_and(|d| now >= d) {
            let (s, next) = sub.take().unwrap().step(now, SubscriberEvent::Deadline);
            (sub, sub_step) = (Some(s), next);
        }
        if sub_step.over.is_some() {
            // A notifier that outlives its subscriber ends by itself, at the latest with what it granted.
            let limit = notifier.as_ref().and_then(Notifier::deadline);
            prop_assert!(limit.is_none_or(|d| d <= now + secs(120)));
            return Ok(());
        }
    }
    // Still running: then both ends are.
    prop_assert!(sub.unwrap().is_active());
    prop_assert!(notifier.unwrap().is_active());
    Ok(())
}

proptest! {
    #[test]
    fn both_ends_agree_in_the_end_whatever_is_lost(losses in proptest::collection::vec(proptest::bool::weighted(0.2), 0..60)) {
        run(losses)?;
    }
}
