//! Command ids (SMPP 3.4 §5.1.2.1).

/// Which operation a PDU is. The top bit marks a response.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u32);

const RESPONSE: u32 = 0x8000_0000;

impl CommandId {
    pub const GENERIC_NACK: CommandId = CommandId(0x8000_0000);
    pub const BIND_RECEIVER: CommandId = CommandId(0x01);
    pub const BIND_TRANSMITTER: CommandId = CommandId(0x02);
    pub const QUERY_SM: CommandId = CommandId(0x03);
    pub const SUBMIT_SM: CommandId = CommandId(0x04);
    pub const DELIVER_SM: CommandId = CommandId(0x05);
    pub const UNBIND: CommandId = CommandId(0x06);
    pub const REPLACE_SM: CommandId = CommandId(0x07);
    pub const CANCEL_SM: CommandId = CommandId(0x08);
    pub const BIND_TRANSCEIVER: CommandId = CommandId(0x09);
    pub const OUTBIND: CommandId = CommandId(0x0B);
    pub const ENQUIRE_LINK: CommandId = CommandId(0x15);
    pub const SUBMIT_MULTI: CommandId = CommandId(0x21);
    pub const ALERT_NOTIFICATION: CommandId = CommandId(0x102);
    pub const DATA_SM: CommandId = CommandId(0x103);

    pub const fn is_response(self) -> bool {
        self.0 & RESPONSE != 0
    }

    /// What a response to this request is called.
    #[must_use]
    pub const fn response(self) -> CommandId {
        CommandId(self.0 | RESPONSE)
    }

    /// As SMPP 3.4 spells it; `None` for one that it does not define.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x01 => "bind_receiver",
            0x8000_0001 => "bind_receiver_resp",
            0x02 => "bind_transmitter",
            0x8000_0002 => "bind_transmitter_resp",
            0x03 => "query_sm",
            0x8000_0003 => "query_sm_resp",
            0x04 => "submit_sm",
            0x8000_0004 => "submit_sm_resp",
            0x05 => "deliver_sm",
            0x8000_0005 => "deliver_sm_resp",
            0x06 => "unbind",
            0x8000_0006 => "unbind_resp",
            0x07 => "replace_sm",
            0x8000_0007 => "replace_sm_resp",
            0x08 => "cancel_sm",
            0x8000_0008 => "cancel_sm_resp",
            0x09 => "bind_transceiver",
            0x8000_0009 => "bind_transceiver_resp",
            0x0B => "outbind",
            0x15 => "enquire_link",
            0x8000_0015 => "enquire_link_resp",
            0x21 => "submit_multi",
            0x8000_0021 => "submit_multi_resp",
            0x102 => "alert_notification",
            0x103 => "data_sm",
            0x8000_0103 => "data_sm_resp",
            0x8000_0000 => "generic_nack",
            _ => return None,
        })
    }
}

impl std::fmt::Display for CommandId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "command 0x{:08x}", self.0),
        }
    }
}

impl std::fmt::Debug for CommandId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
