//! Client transactions: RFC 3261 §17.1, RFC 6026 §8.4.

use std::time::Duration;

use super::{Step, Timer, Timing};

/// What can happen to a client transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientEvent {
    /// A response with this status, 100 to 699.
    Response(u16),
    Timer(Timer),
    /// The transport says that the request could not be delivered.
    Unreachable,
}

/// RFC 3261 §17.1.1 with RFC 6026's Accepted state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InviteClient {
    Calling {
        interval: Duration,
    },
    Proceeding,
    /// A 2xx came; more of them may come from other branches of a fork.
    Accepted,
    /// A final non-2xx came and was acknowledged.
    Completed,
    Terminated,
}

impl InviteClient {
    /// The request has just been sent.
    pub fn start(reliable: bool, timing: &Timing) -> (InviteClient, Step) {
        let mut step = Step::NOTHING.arm(Timer::B, timing.timeout());
        if !reliable {
            step = step.arm(Timer::A, timing.t1);
        }
        (InviteClient::Calling { interval: timing.t1 }, step)
    }

    pub fn step(self, event: ClientEvent, reliable: bool, timing: &Timing) -> (InviteClient, Step) {
        use InviteClient::*;
        match (self, event) {
            (Calling { interval }, ClientEvent::Timer(Timer::A)) => {
                let interval = interval * 2;
                (Calling { interval }, Step::resend().arm(Timer::A, interval))
            }
            (Calling { .. }, ClientEvent::Timer(Timer::B)) | (Proceeding, ClientEvent::Timer(Timer::C)) => {
                (Terminated, Step { timeout: true, ..Step::ended() })
            }
            (Calling { .. } | Proceeding, ClientEvent::Unreachable) => {
                (Terminated, Step { timeout: true, ..Step::ended() })
            }
            // RFC 3261 §16.7 step 2: every 101-199 starts timer C anew; a 100 only starts it.
            (Calling { .. }, ClientEvent::Response(100..=199)) | (Proceeding, ClientEvent::Response(101..=199)) => {
                (Proceeding, Step { quiet: true, ..Step::pass() }.arm(Timer::C, timing.c))
            }
            (Proceeding, ClientEvent::Response(100)) => (Proceeding, Step::pass()),
            (Calling { .. } | Proceeding, ClientEvent::Response(200..=299)) => {
                (Accepted, Step { quiet: true, ..Step::pass() }.arm(Timer::M, timing.timeout()))
            }
            (Calling { .. } | Proceeding, ClientEvent::Response(300..)) => {
                let wait = timing.linger(timing.d, reliable);
                (Completed, Step { ack: true, ..Step::pass() }.wait_or_end(Timer::D, wait))
            }
            (Accepted, ClientEvent::Response(200..=299)) => (Accepted, Step::pass()),
            (Accepted, ClientEvent::Timer(Timer::M)) | (Completed, ClientEvent::Timer(Timer::D)) => {
                (Terminated, Step::ended())
            }
            (Completed, ClientEvent::Response(300..)) => (Completed, Step { ack: true, ..Step::NOTHING }),
            (state, _) => (state, Step::NOTHING),
        }
    }
}

/// RFC 3261 §17.1.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NonInviteClient {
    Trying { interval: Duration },
    Proceeding,
    Completed,
    Terminated,
}

impl NonInviteClient {
    /// The request has just been sent.
    pub fn start(reliable: bool, timing: &Timing) -> (NonInviteClient, Step) {
        let mut step = Step::NOTHING.arm(Timer::F, timing.timeout());
        if !reliable {
            step = step.arm(Timer::E, timing.t1);
        }
        (NonInviteClient::Trying { interval: timing.t1 }, step)
    }

    pub fn step(self, event: ClientEvent, reliable: bool, timing: &Timing) -> (NonInviteClient, Step) {
        use NonInviteClient::*;
        match (self, event) {
            (Trying { interval }, ClientEvent::Timer(Timer::E)) => {
                let interval = (interval * 2).min(timing.t2);
                (Trying { interval }, Step::resend().arm(Timer::E, interval))
            }
            (Proceeding, ClientEvent::Timer(Timer::E)) => (Proceeding, Step::resend().arm(Timer::E, timing.t2)),
            (Trying { .. } | Proceeding, ClientEvent::Timer(Timer::F) | ClientEvent::Unreachable) => {
                (Terminated, Step { timeout: true, ..Step::ended() })
            }
            (Trying { .. }, ClientEvent::Response(100..=199)) => {
                let step = Step::pass();
                (Proceeding, if reliable { step } else { step.arm(Timer::E, timing.t2) })
            }
            (Proceeding, ClientEvent::Response(100..=199)) => (Proceeding, Step::pass()),
            (Trying { .. } | Proceeding, ClientEvent::Response(200..)) => {
                (Completed, Step::pass().wait_or_end(Timer::K, timing.linger(timing.t4, reliable)))
            }
            (Completed, ClientEvent::Timer(Timer::K)) => (Terminated, Step::ended()),
            (state, _) => (state, Step::NOTHING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timing = Timing {
        t1: Duration::from_millis(500),
        t2: Duration::from_secs(4),
        t4: Duration::from_secs(5),
        c: Duration::from_secs(185),
        d: Duration::from_secs(32),
    };

    #[test]
    fn invite_doubles_its_interval_without_a_cap() {
        let (mut s, first) = InviteClient::start(false, &T);
        assert_eq!(first.arm, [Some((Timer::A, T.t1)), Some((Timer::B, T.t1 * 64))]);
        for n in [2u32, 4, 8, 16, 32] {
            let (next, step) = s.step(ClientEvent::Timer(Timer::A), false, &T);
            assert!(step.resend);
            assert_eq!(step.arm[0], Some((Timer::A, T.t1 * n)));
            s = next;
        }
        let (s, step) = s.step(ClientEvent::Timer(Timer::B), false, &T);
        assert!(step.timeout && step.ended);
        assert_eq!(s, InviteClient::Terminated);
    }

    #[test]
    fn invite_over_a_stream_never_resends() {
        assert_eq!(InviteClient::start(true, &T).1.arm[0], None);
    }

    #[test]
    fn a_final_failure_is_acknowledged_each_time_and_passed_once() {
        let (s, _) = InviteClient::start(false, &T);
        let (s, step) = s.step(ClientEvent::Response(486), false, &T);
        assert!(step.ack && step.pass && step.quiet);
        assert_eq!(step.arm[1], Some((Timer::D, T.d)));
        let (s, step) = s.step(ClientEvent::Response(486), false, &T);
        assert!(step.ack && !step.pass);
        assert!(s.step(ClientEvent::Timer(Timer::D), false, &T).1.ended);
    }

    #[test]
    fn accepted_passes_every_2xx_and_drops_late_provisionals() {
        let (s, _) = InviteClient::start(false, &T);
        let (s, step) = s.step(ClientEvent::Response(200), false, &T);
        assert!(step.pass && !step.ack);
        assert_eq!(step.arm[1], Some((Timer::M, T.t1 * 64)));
        let (s, step) = s.step(ClientEvent::Response(180), false, &T);
        assert_eq!(step, Step::NOTHING);
        assert!(s.step(ClientEvent::Response(200), false, &T).1.pass);
        assert!(s.step(ClientEvent::Timer(Timer::M), false, &T).1.ended);
    }

    #[test]
    fn every_provisional_but_100_renews_timer_c() {
        let (s, _) = InviteClient::start(false, &T);
        let (s, step) = s.step(ClientEvent::Response(100), false, &T);
        assert_eq!(step.arm[1], Some((Timer::C, T.c)));
        let (s, step) = s.step(ClientEvent::Response(180), false, &T);
        assert_eq!(step.arm[1], Some((Timer::C, T.c)));
        let (s, step) = s.step(ClientEvent::Response(100), false, &T);
        assert_eq!(step.arm[1], None);
        // B no longer counts once something came back.
        assert_eq!(s.step(ClientEvent::Timer(Timer::B), false, &T).1, Step::NOTHING);
        assert!(s.step(ClientEvent::Timer(Timer::C), false, &T).1.timeout);
    }

    #[test]
    fn non_invite_caps_its_interval_at_t2_and_slows_down_when_proceeding() {
        let (mut s, _) = NonInviteClient::start(false, &T);
        for expected in [1000, 2000, 4000, 4000] {
            let (next, step) = s.step(ClientEvent::Timer(Timer::E), false, &T);
            assert_eq!(step.arm[0], Some((Timer::E, Duration::from_millis(expected))));
            s = next;
        }
        let (s, step) = s.step(ClientEvent::Response(100), false, &T);
        assert_eq!(step.arm[0], Some((Timer::E, T.t2)));
        assert!(s.step(ClientEvent::Timer(Timer::F), false, &T).1.timeout);
    }

    #[test]
    fn non_invite_lingers_t4_on_udp_and_not_at_all_on_a_stream() {
        let (s, _) = NonInviteClient::start(false, &T);
        let (s, step) = s.step(ClientEvent::Response(200), false, &T);
        assert_eq!(step.arm[1], Some((Timer::K, T.t4)));
        assert_eq!(s.step(ClientEvent::Response(200), false, &T).1, Step::NOTHING);
        let (s, _) = NonInviteClient::start(true, &T);
        assert!(s.step(ClientEvent::Response(200), true, &T).1.ended);
    }

    #[test]
    fn unreachable_ends_with_a_timeout_only_while_unanswered() {
        let (s, _) = NonInviteClient::start(true, &T);
        assert!(s.step(ClientEvent::Unreachable, true, &T).1.timeout);
        let (s, _) = InviteClient::start(false, &T);
        let (s, _) = s.step(ClientEvent::Response(200), false, &T);
        assert_eq!(s.step(ClientEvent::Unreachable, false, &T).1, Step::NOTHING);
    }
}
