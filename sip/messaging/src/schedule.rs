//! Who is served when: the order of the users, the limit on those served at once, and the pauses after a failure.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use sip_ims::Aor;

/// How a round for one user ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Nothing is left that could be delivered now.
    Empty,
    /// The user has no binding: the next registration starts the next round.
    Absent,
    /// Nobody took the next message. Not before so many seconds, if the phone said so.
    Later { retry_after: Option<u32> },
}

/// Users with something to deliver, as values. At most one round for a user at any time.
#[derive(Debug)]
pub struct Schedule {
    users: HashMap<Aor, State>,
    ready: VecDeque<Aor>,
    /// When paused users are tried again, in the order of time; the number tells equal times apart.
    pauses: BTreeMap<(Instant, u64), Aor>,
    stamps: u64,
    running: usize,
    parallel: usize,
}

#[derive(Debug)]
enum State {
    Ready { failures: u32 },
    Running { failures: u32, then: Then },
    Paused { failures: u32, key: (Instant, u64) },
}

/// What follows a running round because of what happened meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Then {
    Nothing,
    Pause,
    Round,
}

impl Schedule {
    /// `parallel`: rounds at the same time, at least 1.
    pub fn new(parallel: usize) -> Schedule {
        Schedule {
            users: HashMap::new(),
            ready: VecDeque::new(),
            pauses: BTreeMap::new(),
            stamps: 0,
            running: 0,
            parallel: parallel.max(1),
        }
    }

    /// There is reason to think that the user can be reached now.
    pub fn wake(&mut self, aor: Aor) {
        match self.users.get_mut(&aor) {
            Some(State::Ready { .. }) => {}
            Some(State::Running { then, .. }) => *then = Then::Round,
            Some(State::Paused { key, .. }) => {
                self.pauses.remove(key);
                self.make_ready(aor, 0);
            }
            None => self.make_ready(aor, 0),
        }
    }

    /// A message was kept because none of the user's phones took it just now: a first pause, unless one is running.
    pub fn later(&mut self, now: Instant, aor: Aor) {
        match self.users.get_mut(&aor) {
            Some(State::Running { then, .. }) => *then = (*then).max(Then::Pause),
            Some(_) => {}
            None => self.pause(now, aor, 1, None),
        }
    }

    /// The next user to serve, who counts as being served from here on.
    pub fn next(&mut self, now: Instant) -> Option<Aor> {
        while let Some(entry) = self.pauses.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let aor = entry.remove();
            let failures = match self.users.get(&aor) {
                Some(State::Paused { failures, .. }) => *failures,
                _ => 0,
            };
            self.make_ready(aor, failures);
        }
        if self.running >= self.parallel {
            return None;
        }
        let aor = self.ready.pop_front()?;
        let state = self.users.get_mut(&aor)?;
        let failures = if let State::Ready { failures } = state { *failures } else { 0 };
        *state = State::Running { failures, then: Then::Nothing };
        self.running += 1;
        Some(aor)
    }

    /// The round of a user that [`next`](Self::next) gave out is over.
    pub fn ended(&mut self, now: Instant, aor: Aor, ended: Ended) {
        let Some(State::Running { failures, then }) = self.users.remove(&aor) else { return };
        self.running -= 1;
        match (then, ended) {
            (Then::Round, _) => self.make_ready(aor, 0),
            (_, Ended::Later { retry_after }) => self.pause(now, aor, failures + 1, retry_after),
            (Then::Pause, _) => self.pause(now, aor, 1, None),
            (Then::Nothing, _) => {}
        }
    }

    /// When [`next`](Self::next) will have something without being told.
    pub fn deadline(&self) -> Option<Instant> {
        self.pauses.first_key_value().map(|(key, _)| key.0)
    }

    fn make_ready(&mut self, aor: Aor, failures: u32) {
        self.users.insert(aor.clone(), State::Ready { failures });
        self.ready.push_back(aor);
    }

    /// Doubling pauses; after [`MAX_FAILURES`] in a row only a registration helps.
    fn pause(&mut self, now: Instant, aor: Aor, failures: u32, retry_after: Option<u32>) {
        if failures > MAX_FAILURES {
            return;
        }
        let doubled = FIRST_PAUSE * 2u32.pow(failures.saturating_sub(1));
        let asked = Duration::from_secs(retry_after.unwrap_or(0).into());
        self.stamps += 1;
        let key = (now + doubled.max(asked).min(LONGEST_PAUSE), self.stamps);
        self.pauses.insert(key, aor.clone());
        self.users.insert(aor, State::Paused { failures, key });
    }
}

/// Longer than the 32 s for which a phone remembers a request it has seen (Timer J, RFC 3261 §17.2.2): an earlier copy would
/// be taken for a merged request (§8.2.2.2).
const FIRST_PAUSE: Duration = Duration::from_secs(40);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Two hours and a half of trying.
const MAX_FAILURES: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Ended = Ended::Later { retry_after: None };

    fn aor(text: &str) -> Aor {
        text.parse().unwrap()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_user_has_one_round_at_a_time() {
        let now = Instant::now();
        let mut s = Schedule::new(8);
        s.wake(aor("bob@x"));
        s.wake(aor("bob@x"));
        assert_eq!(s.next(now), Some(aor("bob@x")));
        s.wake(aor("bob@x"));
        assert_eq!(s.next(now), None);
        s.ended(now, aor("bob@x"), Ended::Empty);
        assert_eq!(s.next(now), Some(aor("bob@x")), "woken while running: once more");
        s.ended(now, aor("bob@x"), Ended::Empty);
        assert_eq!((s.next(now), s.deadline()), (None, None));
    }

    #[test]
    fn no_more_users_at_once_than_the_limit() {
        let now = Instant::now();
        let mut s = Schedule::new(2);
        for user in ["a@x", "b@x", "c@x"] {
            s.wake(aor(user));
        }
        assert_eq!((s.next(now), s.next(now), s.next(now)), (Some(aor("a@x")), Some(aor("b@x")), None));
        s.ended(now, aor("b@x"), Ended::Absent);
        assert_eq!(s.next(now), Some(aor("c@x")));
    }

    #[test]
    fn pauses_double_and_then_only_a_registration_helps() {
        let mut now = Instant::now();
        let mut s = Schedule::new(2);
        s.wake(aor("bob@x"));
        for pause in [40, 80, 160, 320, 640, 1280, 2560, 3600] {
            assert_eq!(s.next(now), Some(aor("bob@x")));
            s.ended(now, aor("bob@x"), LATER);
            assert_eq!(s.deadline(), Some(now + seconds(pause)));
            assert_eq!(s.next(now + seconds(pause - 1)), None);
            now += seconds(pause);
        }
        assert_eq!(s.next(now), Some(aor("bob@x")));
        s.ended(now, aor("bob@x"), LATER);
        assert_eq!(s.deadline(), None);
        s.wake(aor("bob@x"));
        assert_eq!(s.next(now), Some(aor("bob@x")));
        s.ended(now, aor("bob@x"), LATER);
        assert_eq!(s.deadline(), Some(now + seconds(40)), "the count began anew");
    }

    #[test]
    fn a_registration_ends_a_pause_and_retry_after_lengthens_it() {
        let now = Instant::now();
        let mut s = Schedule::new(2);
        s.later(now, aor("bob@x"));
        assert_eq!(s.deadline(), Some(now + seconds(40)));
        s.wake(aor("bob@x"));
        assert_eq!((s.next(now), s.deadline()), (Some(aor("bob@x")), None));
        s.ended(now, aor("bob@x"), Ended::Later { retry_after: Some(300) });
        assert_eq!(s.deadline(), Some(now + seconds(300)));
        s.wake(aor("bob@x"));
        s.next(now);
        s.ended(now, aor("bob@x"), Ended::Later { retry_after: Some(u32::MAX) });
        assert_eq!(s.deadline(), Some(now + seconds(3600)), "no phone decides for a month");
    }

    #[test]
    fn a_user_in_a_round_or_pause_gets_no_second_one() {
        let now = Instant::now();
        let mut s = Schedule::new(2);
        s.later(now, aor("bob@x"));
        s.later(now + seconds(10), aor("bob@x"));
        assert_eq!(s.deadline(), Some(now + seconds(40)));
        assert_eq!(s.next(now + seconds(40)), Some(aor("bob@x")));
        s.later(now + seconds(41), aor("bob@x"));
        assert_eq!((s.next(now + seconds(50)), s.deadline()), (None, None));
        s.ended(now + seconds(50), aor("bob@x"), Ended::Empty);
        assert_eq!(s.deadline(), Some(now + seconds(90)), "the round may have missed it");
    }
}
