//! Who may ask what in which state (SMPP 3.4 §2.3, table 2-1).

use super::Role;
use crate::pdu::{BindKind, CommandId, Request};

/// Whether the end of this role may send this while the ESME is bound so.
pub(super) fn may(sender: Role, kind: BindKind, command: CommandId) -> bool {
    match (sender, command) {
        (_, CommandId::UNBIND | CommandId::ENQUIRE_LINK) => true,
        (
            Role::Esme,
            CommandId::SUBMIT_SM
            | CommandId::SUBMIT_MULTI
            | CommandId::QUERY_SM
            | CommandId::CANCEL_SM
            | CommandId::REPLACE_SM
            | CommandId::DATA_SM,
        ) => kind.transmits(),
        (Role::Centre, CommandId::DELIVER_SM | CommandId::DATA_SM | CommandId::ALERT_NOTIFICATION) => kind.receives(),
        _ => false,
    }
}

/// Whether a user may send it and gets an answer; the others are the session's own.
pub(super) fn has_answer_for_user(request: &Request) -> bool {
    !matches!(
        request,
        Request::Bind(_) | Request::Outbind(_) | Request::Unbind | Request::EnquireLink | Request::AlertNotification(_)
    )
}
