//! One PDU: its header and the body that its command id calls for.

use bytes::{Bytes, BytesMut};

use super::reader::{Malformed, Reader};
use super::{
    Address, AlertNotification, Bind, BindKind, BindResp, CancelSm, CommandId, CommandStatus, DataSm, HEADER, Header,
    MessageResp, Outbind, QuerySm, QuerySmResp, ReplaceSm, ShortMessage, SubmitMulti, SubmitMultiResp, Tag, Tlvs,
};

/// What one side asks of the other. [`Request::Outbind`] and [`Request::AlertNotification`] have no response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    Bind(Bind),
    Outbind(Outbind),
    Unbind,
    EnquireLink,
    SubmitSm(ShortMessage),
    SubmitMulti(SubmitMulti),
    DataSm(DataSm),
    DeliverSm(ShortMessage),
    QuerySm(QuerySm),
    CancelSm(CancelSm),
    ReplaceSm(ReplaceSm),
    AlertNotification(AlertNotification),
}

/// What comes back. The status is beside it, in the header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    GenericNack,
    Bind(BindKind, BindResp),
    Unbind,
    EnquireLink,
    SubmitSm(MessageResp),
    SubmitMulti(SubmitMultiResp),
    DataSm(MessageResp),
    DeliverSm(MessageResp),
    QuerySm(QuerySmResp),
    CancelSm,
    ReplaceSm,
}

/// A PDU that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pdu {
    Request(Request),
    Response(CommandStatus, Response),
}

impl Pdu {
    /// Reads a frame that [`Frames`](super::Frames) gave. Requests must be whole; responses are read as far as they go,
    /// because what they answer has happened by then. Bodies point into `frame`.
    pub fn decode(header: Header, frame: &Bytes) -> Result<Pdu, Malformed> {
        let body = Reader::new(frame, HEADER);
        if header.command.is_response() {
            Response::decode(header.command, body).map(|r| Pdu::Response(header.status, r))
        } else {
            Request::decode(header.command, body).map(Pdu::Request)
        }
    }
}

impl Request {
    fn decode(command: CommandId, body: Reader<'_>) -> Result<Request, Malformed> {
        Ok(match command {
            CommandId::SUBMIT_SM => Request::SubmitSm(ShortMessage::decode(body)?),
            CommandId::DELIVER_SM => Request::DeliverSm(ShortMessage::decode(body)?),
            CommandId::DATA_SM => Request::DataSm(DataSm::decode(body)?),
            CommandId::SUBMIT_MULTI => Request::SubmitMulti(SubmitMulti::decode(body)?),
            CommandId::QUERY_SM => Request::QuerySm(QuerySm::decode(body)?),
            CommandId::CANCEL_SM => Request::CancelSm(CancelSm::decode(body)?),
            CommandId::REPLACE_SM => Request::ReplaceSm(ReplaceSm::decode(body)?),
            CommandId::ALERT_NOTIFICATION => Request::AlertNotification(AlertNotification::decode(body)?),
            CommandId::OUTBIND => Request::Outbind(Outbind::decode(body)?),
            CommandId::UNBIND => Request::Unbind,
            CommandId::ENQUIRE_LINK => Request::EnquireLink,
            other => match BindKind::of(other) {
                Some(kind) => Request::Bind(Bind::decode(kind, body)?),
                None => return Err(UNKNOWN),
            },
        })
    }

    pub fn command(&self) -> CommandId {
        match self {
            Request::Bind(bind) => bind.kind.command(),
            Request::Outbind(_) => CommandId::OUTBIND,
            Request::Unbind => CommandId::UNBIND,
            Request::EnquireLink => CommandId::ENQUIRE_LINK,
            Request::SubmitSm(_) => CommandId::SUBMIT_SM,
            Request::SubmitMulti(_) => CommandId::SUBMIT_MULTI,
            Request::DataSm(_) => CommandId::DATA_SM,
            Request::DeliverSm(_) => CommandId::DELIVER_SM,
            Request::QuerySm(_) => CommandId::QUERY_SM,
            Request::CancelSm(_) => CommandId::CANCEL_SM,
            Request::ReplaceSm(_) => CommandId::REPLACE_SM,
            Request::AlertNotification(_) => CommandId::ALERT_NOTIFICATION,
        }
    }

    pub fn encode(&self, sequence: u32, out: &mut BytesMut) {
        let header = Header { command: self.command(), status: CommandStatus::ROK, sequence };
        header.encode(out, |out| match self {
            Request::Bind(body) => body.encode(out),
            Request::Outbind(body) => body.encode(out),
            Request::Unbind | Request::EnquireLink => {}
            Request::SubmitSm(body) | Request::DeliverSm(body) => body.encode(out),
            Request::SubmitMulti(body) => body.encode(out),
            Request::DataSm(body) => body.encode(out),
            Request::QuerySm(body) => body.encode(out),
            Request::CancelSm(body) => body.encode(out),
            Request::ReplaceSm(body) => body.encode(out),
            Request::AlertNotification(body) => body.encode(out),
        });
    }

    /// Its optional parameters; `None` for a request that has none.
    pub fn tlvs(&self) -> Option<&Tlvs> {
        Some(match self {
            Request::SubmitSm(body) | Request::DeliverSm(body) => &body.tlvs,
            Request::SubmitMulti(body) => &body.message.tlvs,
            Request::DataSm(body) => &body.tlvs,
            Request::ReplaceSm(body) => &body.tlvs,
            Request::AlertNotification(body) => &body.tlvs,
            Request::Bind(_)
            | Request::Outbind(_)
            | Request::Unbind
            | Request::EnquireLink
            | Request::QuerySm(_)
            | Request::CancelSm(_) => return None,
        })
    }

    /// Takes the optional parameters off, for a peer older than 3.4; a body among them stays, because without it there is no
    /// message.
    pub(crate) fn strip_tlvs(&mut self) {
        let tlvs = match self {
            Request::SubmitSm(body) | Request::DeliverSm(body) => &mut body.tlvs,
            Request::DataSm(body) => &mut body.tlvs,
            _ => return,
        };
        *tlvs = match tlvs.get(Tag::MESSAGE_PAYLOAD) {
            Some(payload) => Tlvs::build().bytes(Tag::MESSAGE_PAYLOAD, payload).done(),
            None => Tlvs::default(),
        };
    }

    /// How many new messages it brings.
    pub fn messages(&self) -> usize {
        match self {
            Request::SubmitSm(_) | Request::DataSm(_) => 1,
            Request::SubmitMulti(body) => body.destinations.len(),
            _ => 0,
        }
    }

    /// The source address of those that have a short one.
    pub(crate) fn source_mut(&mut self) -> Option<&mut Address> {
        Some(match self {
            Request::SubmitSm(body) | Request::DeliverSm(body) => &mut body.source,
            Request::SubmitMulti(body) => &mut body.message.source,
            Request::QuerySm(body) => &mut body.source,
            Request::CancelSm(body) => &mut body.source,
            Request::ReplaceSm(body) => &mut body.source,
            _ => return None,
        })
    }

    /// An empty response of its kind, to carry a refusal; `None` where there is no response.
    pub fn refusal(&self) -> Option<Response> {
        Response::empty(self.command())
    }
}

impl Response {
    fn decode(command: CommandId, body: Reader<'_>) -> Result<Response, Malformed> {
        let request = CommandId(command.0 ^ CommandId::GENERIC_NACK.0);
        Ok(match request {
            CommandId(0) => Response::GenericNack,
            CommandId::SUBMIT_SM => Response::SubmitSm(MessageResp::decode(body)),
            CommandId::DELIVER_SM => Response::DeliverSm(MessageResp::decode(body)),
            CommandId::DATA_SM => Response::DataSm(MessageResp::decode(body)),
            CommandId::SUBMIT_MULTI => Response::SubmitMulti(SubmitMultiResp::decode(body)),
            CommandId::QUERY_SM => Response::QuerySm(QuerySmResp::decode(body)),
            CommandId::CANCEL_SM => Response::CancelSm,
            CommandId::REPLACE_SM => Response::ReplaceSm,
            CommandId::UNBIND => Response::Unbind,
            CommandId::ENQUIRE_LINK => Response::EnquireLink,
            other => match BindKind::of(other) {
                Some(kind) => Response::Bind(kind, BindResp::decode(body)),
                None => return Err(UNKNOWN),
            },
        })
    }

    /// The empty response to a request of this kind; `None` where there is none, or no such request.
    pub fn empty(request: CommandId) -> Option<Response> {
        Some(match request {
            CommandId::SUBMIT_SM => Response::SubmitSm(MessageResp::default()),
            CommandId::DELIVER_SM => Response::DeliverSm(MessageResp::default()),
            CommandId::DATA_SM => Response::DataSm(MessageResp::default()),
            CommandId::SUBMIT_MULTI => Response::SubmitMulti(SubmitMultiResp::default()),
            CommandId::QUERY_SM => Response::QuerySm(QuerySmResp::default()),
            CommandId::CANCEL_SM => Response::CancelSm,
            CommandId::REPLACE_SM => Response::ReplaceSm,
            CommandId::UNBIND => Response::Unbind,
            CommandId::ENQUIRE_LINK => Response::EnquireLink,
            other => Response::Bind(BindKind::of(other)?, BindResp::default()),
        })
    }

    pub fn command(&self) -> CommandId {
        match self {
            Response::GenericNack => CommandId::GENERIC_NACK,
            Response::Bind(kind, _) => kind.command().response(),
            Response::Unbind => CommandId::UNBIND.response(),
            Response::EnquireLink => CommandId::ENQUIRE_LINK.response(),
            Response::SubmitSm(_) => CommandId::SUBMIT_SM.response(),
            Response::SubmitMulti(_) => CommandId::SUBMIT_MULTI.response(),
            Response::DataSm(_) => CommandId::DATA_SM.response(),
            Response::DeliverSm(_) => CommandId::DELIVER_SM.response(),
            Response::QuerySm(_) => CommandId::QUERY_SM.response(),
            Response::CancelSm => CommandId::CANCEL_SM.response(),
            Response::ReplaceSm => CommandId::REPLACE_SM.response(),
        }
    }

    /// With an error status the body is left out (3.4 §4.1.2, §4.4.2), unless it holds something: data_sm_resp tells the
    /// network's reason in optional parameters.
    pub fn encode(&self, status: CommandStatus, sequence: u32, out: &mut BytesMut) {
        let header = Header { command: self.command(), status, sequence };
        header.encode(out, |out| match self {
            _ if !status.is_ok() && self.is_empty() => {}
            Response::GenericNack
            | Response::Unbind
            | Response::EnquireLink
            | Response::CancelSm
            | Response::ReplaceSm => {}
            Response::Bind(_, body) => body.encode(out),
            Response::SubmitSm(body) | Response::DataSm(body) | Response::DeliverSm(body) => body.encode(out),
            Response::SubmitMulti(body) => body.encode(out),
            Response::QuerySm(body) => body.encode(out),
        });
    }

    fn is_empty(&self) -> bool {
        match self {
            Response::Bind(_, body) => body == &BindResp::default(),
            Response::SubmitSm(body) | Response::DataSm(body) | Response::DeliverSm(body) => {
                body.message_id.is_empty() && body.tlvs.is_empty()
            }
            Response::SubmitMulti(body) => body == &SubmitMultiResp::default(),
            Response::QuerySm(body) => body == &QuerySmResp::default(),
            Response::GenericNack
            | Response::Unbind
            | Response::EnquireLink
            | Response::CancelSm
            | Response::ReplaceSm => true,
        }
    }
}

const UNKNOWN: Malformed = Malformed { status: CommandStatus::RINVCMDID, field: "command_id" };
