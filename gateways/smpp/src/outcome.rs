//! What becomes of a submission.

use crate::pdu::{COctets, CommandStatus, Request, Response};
use crate::session::Fate;

/// The submitter's name for a submission, such as the id of its row. Need not be unique to us.
pub type Ticket = u64;

/// Each accepted submission has exactly one.
#[derive(Debug)]
pub struct Outcome {
    pub ticket: Ticket,
    pub verdict: Verdict,
}

/// How a submission ended.
#[derive(Debug)]
pub enum Verdict {
    /// Status OK; the response has the message id.
    Done(Response),
    /// RTHROTTLED or RMSGQFUL: the same message is to be submitted again; it has not failed. That may happen at once: the link
    /// has slowed down and takes it when its time has come.
    Again(CommandStatus),
    /// Any other status. [`CommandStatus::is_temporary`] tells whether later may be better.
    Refused(CommandStatus, Response),
    /// The connection was lost, or the response never came, with the request on its way: it may have been done. To be
    /// submitted again where a duplicate is better than a loss.
    Unknown,
    /// It never left: no duplicate can come of another submission.
    Unsent,
}

impl Verdict {
    pub(crate) fn of(status: CommandStatus, response: Response) -> Verdict {
        if status.is_ok() {
            match response {
                // A nack without an error is no answer.
                Response::GenericNack => Verdict::Unknown,
                response => Verdict::Done(response),
            }
        } else if status.is_throttle() {
            Verdict::Again(status)
        } else {
            Verdict::Refused(status, response)
        }
    }

    pub(crate) fn unfinished(fate: Fate) -> Verdict {
        match fate {
            Fate::Unsent => Verdict::Unsent,
            Fate::Unknown => Verdict::Unknown,
        }
    }

    /// The centre's name for the message, when it took it.
    pub fn message_id(&self) -> Option<&COctets<65>> {
        match self {
            Verdict::Done(Response::SubmitSm(r) | Response::DataSm(r) | Response::DeliverSm(r)) => Some(&r.message_id),
            Verdict::Done(Response::SubmitMulti(r)) => Some(&r.message_id),
            _ => None,
        }
    }
}

/// Why a submission was not accepted; it has no outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// As many as are let in wait already. Wait, or try another link.
    #[error("full")]
    Busy,
    #[error("not bound")]
    Down,
    #[error("no link serves this destination")]
    NoRoute,
}

/// The request comes back with the reason.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Unaccepted {
    pub why: Refused,
    pub request: Box<Request>,
}

/// A request on its way to a session.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) ticket: Ticket,
    pub(crate) request: Request,
}
