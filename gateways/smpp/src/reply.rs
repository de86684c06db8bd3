//! The answer to a request of the peer, given whenever the application is ready.

use tokio::sync::mpsc::UnboundedSender;

use crate::door::Decision;
use crate::pdu::{COctets, CommandId, CommandStatus, MessageResp, Response};

/// What a connection is told from outside. The channel is not bounded by itself: replies by the session's limit of unanswered
/// requests.
#[derive(Debug)]
pub(crate) enum Control {
    Respond { sequence: u32, status: CommandStatus, response: Response },
    Bind { sequence: u32, decision: Decision },
}

/// Answers one request, once. Dropped without an answer, it says that something went wrong and later may be better.
#[must_use]
pub struct Reply {
    sequence: u32,
    command: CommandId,
    to: Option<UnboundedSender<Control>>,
    /// What the drop says.
    fallback: CommandStatus,
}

impl Reply {
    pub(crate) fn new(
        sequence: u32,
        command: CommandId,
        fallback: CommandStatus,
        to: UnboundedSender<Control>,
    ) -> Reply {
        Reply { sequence, command, to: Some(to), fallback }
    }

    /// Done, with nothing to tell.
    pub fn ok(self) {
        self.status(CommandStatus::ROK);
    }

    /// Done; the message is called so from now on.
    pub fn accepted(self, message_id: COctets<65>) {
        let body = MessageResp { message_id, ..MessageResp::default() };
        let response = match self.command {
            CommandId::SUBMIT_SM => Response::SubmitSm(body),
            CommandId::DATA_SM => Response::DataSm(body),
            CommandId::SUBMIT_MULTI => {
                Response::SubmitMulti(crate::pdu::SubmitMultiResp { message_id, ..Default::default() })
            }
            _ => return self.ok(),
        };
        self.with(CommandStatus::ROK, response);
    }

    /// An empty response with this status.
    pub fn status(mut self, status: CommandStatus) {
        self.send(status, None);
    }

    /// This response, which must be of the request's kind; another goes out as an empty one of the right kind.
    pub fn with(mut self, status: CommandStatus, response: Response) {
        self.send(status, Some(response).filter(|r| r.command() == self.command.response()));
    }

    fn send(&mut self, status: CommandStatus, response: Option<Response>) {
        if let (Some(to), Some(response)) = (self.to.take(), response.or_else(|| Response::empty(self.command))) {
            // The connection may be gone; then nobody waits for it any more.
            let _ = to.send(Control::Respond { sequence: self.sequence, status, response });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.send(self.fallback, None);
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("command", &self.command).finish_non_exhaustive()
    }
}
