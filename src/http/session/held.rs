//! The sessions of one user as they are stored: one document.

use serde::{Deserialize, Serialize};

/// One session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// What can be made only of the cookie's secret and the user's: 64 hexadecimal digits.
    pub mark: String,
    /// Unix seconds: when it began, and when it was last used, or a little earlier.
    pub since: u64,
    pub seen: u64,
}

/// How long sessions last, in seconds, and how many a user has.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a request.
    pub idle: u64,
    /// At most.
    pub lifetime: u64,
    pub per_user: usize,
}

impl Limits {
    pub fn admit(&self, session: &Session, now: u64) -> bool {
        now < self.end(session) && now < session.seen.saturating_add(self.idle)
    }

    /// When a session ends at the latest.
    pub fn end(&self, session: &Session) -> u64 {
        session.since.saturating_add(self.lifetime)
    }

    /// Whether it is time to write down that a session is in use: not at every request.
    pub fn stale(&self, session: &Session, now: u64) -> bool {
        now.saturating_sub(session.seen) > self.idle / 8
    }

    /// Begins a session; the ones that are over go, and the one that was idle longest where there are too many.
    pub fn begin(&self, sessions: &mut Vec<Session>, mark: String, now: u64) {
        sessions.retain(|s| self.admit(s, now));
        while sessions.len() >= self.per_user.max(1) {
            let longest = sessions.iter().enumerate().min_by_key(|(_, s)| s.seen).map_or(0, |(at, _)| at);
            sessions.remove(longest);
        }
        sessions.push(Session { mark, since: now, seen: now });
    }
}

/// `None`: damaged.
pub fn read(body: &[u8]) -> Option<Vec<Session>> {
    serde_json::from_slice(body).ok()
}

pub fn write(sessions: &[Session]) -> Vec<u8> {
    // Text and numbers: writing them cannot fail.
    serde_json::to_vec(sessions).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { idle: 100, lifetime: 1_000, per_user: 3 };

    #[test]
    fn a_session_ends_when_idle_and_at_its_end() {
        let session = |since, seen| Session { mark: String::new(), since, seen };
        for (since, seen, now, live) in
            [(0, 0, 99, true), (0, 0, 100, false), (0, 950, 999, true), (0, 950, 1_000, false), (500, 500, 400, true)]
        {
            assert_eq!(LIMITS.admit(&session(since, seen), now), live, "{since} {seen} {now}");
        }
        assert!(!LIMITS.stale(&session(0, 50), 62) && LIMITS.stale(&session(0, 50), 63));
    }

    #[test]
    fn one_more_than_there_may_be_takes_the_place_of_the_idlest() {
        let mut sessions = Vec::new();
        for (mark, now) in [("a", 10), ("b", 20), ("c", 30)] {
            LIMITS.begin(&mut sessions, mark.into(), now);
        }
        sessions[0].seen = 40;
        LIMITS.begin(&mut sessions, "d".into(), 50);
        let marks = |sessions: &[Session]| sessions.iter().map(|s| s.mark.clone()).collect::<String>();
        assert_eq!(marks(&sessions), "acd");
        LIMITS.begin(&mut sessions, "e".into(), 135);
        assert_eq!(marks(&sessions), "ade");
        assert_eq!(read(&write(&sessions)), Some(sessions));
    }
}
