//! The four transaction machines of RFC 3261 §17 with the corrections of RFC 6026, as values.
//!
//! A machine holds its state and nothing else: no bytes, no addresses. [`crate::endpoint`] owns those and does what a
//! [`Step`] says. Each step takes the state and an event, and returns the next state.

mod client;
mod server;

pub use client::{ClientEvent, InviteClient, NonInviteClient};
pub use server::{InviteServer, NonInviteServer, ServerEvent};

use std::time::Duration;

/// Every timer of a transaction (RFC 3261 table 4, RFC 6026 §7.1 and §8.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Timer {
    /// INVITE request retransmission, unreliable transports.
    A,
    /// INVITE transaction time-out.
    B,
    /// Proxy INVITE time-out (RFC 3261 §16.6 step 11).
    C,
    /// Wait for response retransmissions after a final non-2xx to INVITE.
    D,
    /// Non-INVITE request retransmission.
    E,
    /// Non-INVITE transaction time-out.
    F,
    /// INVITE response retransmission.
    G,
    /// Wait for the ACK.
    H,
    /// Wait for ACK retransmissions.
    I,
    /// Wait for non-INVITE request retransmissions.
    J,
    /// Wait for response retransmissions.
    K,
    /// Accepted INVITE server (RFC 6026).
    L,
    /// Accepted INVITE client (RFC 6026).
    M,
}

impl Timer {
    /// A transaction runs at most two timers at a time: one that resends and one that ends a state.
    pub fn resends(self) -> bool {
        matches!(self, Timer::A | Timer::E | Timer::G)
    }
}

/// The base values (RFC 3261 §17.1.1.1, §17.1.2.2, §16.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Round-trip estimate.
    pub t1: Duration,
    /// Longest interval between retransmissions.
    pub t2: Duration,
    /// Longest time a message stays in the network.
    pub t4: Duration,
    /// Timer C; RFC 3261 wants more than 3 minutes.
    pub c: Duration,
    /// Timer D on unreliable transports; at least 32 s.
    pub d: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            c: Duration::from_secs(185),
            d: Duration::from_secs(32),
        }
    }
}

impl Timing {
    /// 64*T1: timers B, F, H, J, L and M.
    pub fn timeout(&self) -> Duration {
        self.t1 * 64
    }

    /// A wait that only unreliable transports need.
    fn linger(&self, wait: Duration, reliable: bool) -> Duration {
        if reliable { Duration::ZERO } else { wait }
    }
}

/// What the owner of a machine has to do after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// Send the last request or response again.
    pub resend: bool,
    /// Send the ACK for a non-2xx final response.
    pub ack: bool,
    /// Hand the message to the transaction user.
    pub pass: bool,
    /// Tell the transaction user that nobody answered.
    pub timeout: bool,
    /// Start these timers (zero: at once). A timer replaces the running one of its kind (resending or ending).
    pub arm: [Option<(Timer, Duration)>; 2],
    /// Stop the resending timer.
    pub quiet: bool,
    /// The machine is done; forget it.
    pub ended: bool,
}

impl Step {
    const NOTHING: Step =
        Step { resend: false, ack: false, pass: false, timeout: false, arm: [None, None], quiet: false, ended: false };

    fn pass() -> Step {
        Step { pass: true, ..Step::NOTHING }
    }

    fn resend() -> Step {
        Step { resend: true, ..Step::NOTHING }
    }

    fn ended() -> Step {
        Step { ended: true, quiet: true, ..Step::NOTHING }
    }

    fn arm(mut self, timer: Timer, after: Duration) -> Step {
        self.arm[usize::from(!timer.resends())] = Some((timer, after));
        self
    }

    /// Starts the timer that ends the machine, or ends it at once where there is nothing to wait for.
    fn wait_or_end(mut self, timer: Timer, after: Duration) -> Step {
        self.quiet = true;
        if after.is_zero() {
            self.ended = true;
            self
        } else {
            self.arm(timer, after)
        }
    }
}
