//! The dialogs that one INVITE may set up (RFC 3261 §13.2.2, §12.1).

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::{Dialog, DialogId, DialogState, NoDialog};
use crate::message::Message;

/// Dialogs of one INVITE; responses that would make more are ignored.
pub const MAX_FORKS: usize = 16;

/// All dialogs of one INVITE that we sent.
#[derive(Clone, Debug, Default)]
pub struct Forks {
    dialogs: SmallVec<[Dialog; 1]>,
    /// When early dialogs that are left after the first 2xx are given up.
    deadline: Option<Instant>,
}

/// What a response to the INVITE meant. The number is the dialog's place, which does not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fork {
    /// It belongs to no dialog: 100, or a response without a To tag.
    Nothing,
    /// A new early dialog.
    Early(usize),
    /// An early dialog that was known.
    Progress(usize),
    /// The first 2xx in this dialog: acknowledge it. When another dialog was confirmed before, end this one with BYE.
    Confirmed { dialog: usize, first: bool },
    /// A 2xx again: its ACK was lost, send it again (RFC 3261 §13.2.2.4).
    Again(usize),
    /// The INVITE failed; early dialogs are over.
    Failed,
    /// More than [`MAX_FORKS`].
    TooMany,
}

impl Forks {
    pub fn new() -> Forks {
        Forks::default()
    }

    pub fn get(&self, dialog: usize) -> Option<&Dialog> {
        self.dialogs.get(dialog)
    }

    pub fn get_mut(&mut self, dialog: usize) -> Option<&mut Dialog> {
        self.dialogs.get_mut(dialog)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Dialog> {
        self.dialogs.iter()
    }

    /// Takes in a response to `invite`. `linger` is 64*T1.
    pub fn response(
        &mut self,
        now: Instant,
        linger: Duration,
        invite: &Message<'_>,
        response: &Message<'_>,
    ) -> Result<Fork, NoDialog> {
        let status = response.status();
        if status >= 300 {
            // The one final response that a proxy passes on ends all that are not confirmed.
            self.end_early();
            return Ok(Fork::Failed);
        }
        let tagged = DialogId::of_response(response).filter(|id| !id.remote_tag.is_empty() || status >= 200);
        let Some(id) = tagged.filter(|_| status > 100) else { return Ok(Fork::Nothing) };
        let success = status >= 200;
        let first = success && self.deadline.is_none();
        let known = self.dialogs.iter().position(|d| d.id() == id);
        let fork = match known {
            Some(i) => match (self.dialogs[i].state(), success) {
                (DialogState::Early, true) => {
                    self.dialogs[i].response(response);
                    Fork::Confirmed { dialog: i, first }
                }
                (_, true) => Fork::Again(i),
                (_, false) => Fork::Progress(i),
            },
            None if self.dialogs.len() == MAX_FORKS => Fork::TooMany,
            None => {
                self.dialogs.push(Dialog::uac(invite, response)?);
                let dialog = self.dialogs.len() - 1;
                if success { Fork::Confirmed { dialog, first } } else { Fork::Early(dialog) }
            }
        };
        if first && fork != Fork::TooMany {
            self.deadline = Some(now + linger);
        }
        Ok(fork)
    }

    /// When [`Forks::expire`] should be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.dialogs.iter().any(|d| d.state() == DialogState::Early))
    }

    /// Gives up the early dialogs that a 2xx left behind, 64*T1 after it (RFC 3261 §13.2.2.4).
    pub fn expire(&mut self, now: Instant) {
        if self.deadline.is_some_and(|d| now >= d) {
            self.end_early();
        }
    }

    fn end_early(&mut self) {
        self.dialogs.iter_mut().filter(|d| d.state() == DialogState::Early).for_each(Dialog::terminate);
    }
}
