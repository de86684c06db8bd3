//! The machine of one transaction, and its timers.

use std::time::Duration;

use crate::transaction::{InviteClient, InviteServer, NonInviteClient, NonInviteServer, Step, Timer};

#[derive(Debug)]
pub(super) enum ServerMachine {
    Invite(InviteServer),
    NonInvite(NonInviteServer),
}

#[derive(Debug)]
pub(super) enum ClientMachine {
    Invite(InviteClient),
    NonInvite(NonInviteClient),
}

/// The running timers of one transaction: at most one that resends and one that ends a state. The wheel holds a single
/// entry for both, never later than the earlier of them; when it comes up too early, because a timer was put off, it is
/// armed again. So most timers, which never fire, cost nothing.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Due {
    timers: [Option<(u32, Timer)>; 2],
    /// The tick of the entry in the wheel that counts; 0 when there is none.
    queued: u32,
}

impl Due {
    /// Follows a step: starts and stops timers. Returns whether the wheel needs an entry, and for when.
    pub(super) fn follow(&mut self, step: &Step, tick_of: impl Fn(Duration) -> u32) -> Option<u32> {
        if step.quiet {
            self.timers[0] = None;
        }
        for (which, armed) in step.arm.into_iter().enumerate() {
            if let Some((timer, after)) = armed {
                self.timers[which] = Some((tick_of(after), timer));
            }
        }
        self.entry()
    }

    /// The tick at which the wheel must call, if it would not do so already.
    pub(super) fn entry(&mut self) -> Option<u32> {
        let next = self.timers.iter().flatten().map(|t| t.0).min()?;
        if self.queued != 0 && self.queued <= next {
            return None;
        }
        self.queued = next;
        Some(next)
    }

    /// The entry of that tick came up: false if it was a stale one.
    pub(super) fn called(&mut self, tick: u32) -> bool {
        let counts = self.queued != 0 && self.queued <= tick;
        if counts {
            self.queued = 0;
        }
        counts
    }

    /// Takes out a timer that is due.
    pub(super) fn take(&mut self, now: u32) -> Option<Timer> {
        self.timers.iter_mut().find_map(|slot| match *slot {
            Some((tick, timer)) if tick <= now => {
                *slot = None;
                Some(timer)
            }
            _ => None,
        })
    }
}
