//! Server transactions: RFC 3261 §17.2, RFC 6026 §8.5.

use std::time::Duration;

use super::{Step, Timer, Timing};

/// What can happen to a server transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerEvent {
    /// The request came again.
    Request,
    /// An ACK with the same branch: the one for a non-2xx.
    Ack,
    /// The transaction user answers with this status.
    Respond(u16),
    Timer(Timer),
}

/// RFC 3261 §17.2.1 with RFC 6026's Accepted state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InviteServer {
    Proceeding,
    /// A 2xx was sent; its retransmissions are the transaction user's (or come through a proxy).
    Accepted,
    /// A final non-2xx was sent and waits for its ACK.
    Completed {
        interval: Duration,
    },
    Confirmed,
    Terminated,
}

impl InviteServer {
    pub fn step(self, event: ServerEvent, reliable: bool, timing: &Timing) -> (InviteServer, Step) {
        use InviteServer::*;
        match (self, event) {
            (Proceeding | Completed { .. }, ServerEvent::Request) => (self, Step::resend()),
            (Proceeding, ServerEvent::Respond(100..=199)) => (Proceeding, Step::pass()),
            (Proceeding, ServerEvent::Respond(200..=299)) => (Accepted, Step::pass().arm(Timer::L, timing.timeout())),
            (Proceeding, ServerEvent::Respond(300..)) => {
                let step = Step::pass().arm(Timer::H, timing.timeout());
                let step = if reliable { step } else { step.arm(Timer::G, timing.t1) };
                (Completed { interval: timing.t1 }, step)
            }
            (Accepted, ServerEvent::Respond(200..=299)) => (Accepted, Step::pass()),
            (Completed { interval }, ServerEvent::Timer(Timer::G)) => {
                let interval = (interval * 2).min(timing.t2);
                (Completed { interval }, Step::resend().arm(Timer::G, interval))
            }
            (Completed { .. }, ServerEvent::Ack) => {
                (Confirmed, Step::NOTHING.wait_or_end(Timer::I, timing.linger(timing.t4, reliable)))
            }
            (Completed { .. }, ServerEvent::Timer(Timer::H)) => (Terminated, Step { timeout: true, ..Step::ended() }),
            (Accepted, ServerEvent::Timer(Timer::L)) | (Confirmed, ServerEvent::Timer(Timer::I)) => {
                (Terminated, Step::ended())
            }
            (state, _) => (state, Step::NOTHING),
        }
    }

    /// A final response has gone out.
    pub fn is_final(self) -> bool {
        self != InviteServer::Proceeding
    }
}

/// RFC 3261 §17.2.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NonInviteServer {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

impl NonInviteServer {
    pub fn step(self, event: ServerEvent, reliable: bool, timing: &Timing) -> (NonInviteServer, Step) {
        use NonInviteServer::*;
        match (self, event) {
            (Proceeding | Completed, ServerEvent::Request) => (self, Step::resend()),
            (Trying | Proceeding, ServerEvent::Respond(100..=199)) => (Proceeding, Step::pass()),
            (Trying | Proceeding, ServerEvent::Respond(200..)) => {
                (Completed, Step::pass().wait_or_end(Timer::J, timing.linger(timing.timeout(), reliable)))
            }
            (Completed, ServerEvent::Timer(Timer::J)) => (Terminated, Step::ended()),
            (state, _) => (state, Step::NOTHING),
        }
    }

    /// A final response has gone out.
    pub fn is_final(self) -> bool {
        matches!(self, NonInviteServer::Completed | NonInviteServer::Terminated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> Timing {
        Timing::default()
    }

    #[test]
    fn a_failure_is_resent_until_the_ack() {
        let t = timing();
        let (s, step) = InviteServer::Proceeding.step(ServerEvent::Respond(486), false, &t);
        assert!(step.pass);
        assert_eq!(step.arm, [Some((Timer::G, t.t1)), Some((Timer::H, t.timeout()))]);
        let (s, step) = s.step(ServerEvent::Timer(Timer::G), false, &t);
        assert!(step.resend);
        assert_eq!(step.arm[0], Some((Timer::G, t.t1 * 2)));
        let (s, step) = s.step(ServerEvent::Request, false, &t);
        assert!(step.resend);
        let (s, step) = s.step(ServerEvent::Ack, false, &t);
        assert!(step.quiet && !step.pass);
        assert_eq!(step.arm[1], Some((Timer::I, t.t4)));
        assert!(s.step(ServerEvent::Timer(Timer::I), false, &t).1.ended);
    }

    #[test]
    fn no_ack_in_time_tells_the_user() {
        let t = timing();
        let (s, _) = InviteServer::Proceeding.step(ServerEvent::Respond(500), false, &t);
        assert!(s.step(ServerEvent::Timer(Timer::H), false, &t).1.timeout);
    }

    #[test]
    fn accepted_absorbs_invites_and_passes_2xx_again() {
        let t = timing();
        let (s, step) = InviteServer::Proceeding.step(ServerEvent::Respond(200), false, &t);
        assert_eq!(step.arm[1], Some((Timer::L, t.timeout())));
        let (s, step) = s.step(ServerEvent::Request, false, &t);
        assert_eq!(step, Step::NOTHING);
        let (s, step) = s.step(ServerEvent::Respond(200), false, &t);
        assert!(step.pass);
        assert!(s.step(ServerEvent::Timer(Timer::L), false, &t).1.ended);
    }

    #[test]
    fn a_final_response_is_final() {
        let t = timing();
        let (s, _) = InviteServer::Proceeding.step(ServerEvent::Respond(486), false, &t);
        assert_eq!(s.step(ServerEvent::Respond(200), false, &t).1, Step::NOTHING);
        let (s, _) = NonInviteServer::Trying.step(ServerEvent::Respond(200), false, &t);
        assert_eq!(s.step(ServerEvent::Respond(500), false, &t).1, Step::NOTHING);
    }

    #[test]
    fn non_invite_is_silent_while_trying_and_resends_afterwards() {
        let t = timing();
        assert_eq!(NonInviteServer::Trying.step(ServerEvent::Request, false, &t).1, Step::NOTHING);
        let (s, step) = NonInviteServer::Trying.step(ServerEvent::Respond(200), false, &t);
        assert_eq!(step.arm[1], Some((Timer::J, t.timeout())));
        assert!(s.step(ServerEvent::Request, false, &t).1.resend);
        assert!(NonInviteServer::Trying.step(ServerEvent::Respond(200), true, &t).1.ended);
    }
}
