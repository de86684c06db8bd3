//! Command statuses (SMPP 3.4 §5.1.3, SMPP 5.0 §4.7.6), named without their `ESME_`.

/// The result in a response. Values that no version defines are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CommandStatus(pub u32);

impl CommandStatus {
    pub const ROK: CommandStatus = CommandStatus(0x00);
    pub const RINVMSGLEN: CommandStatus = CommandStatus(0x01);
    pub const RINVCMDLEN: CommandStatus = CommandStatus(0x02);
    pub const RINVCMDID: CommandStatus = CommandStatus(0x03);
    pub const RINVBNDSTS: CommandStatus = CommandStatus(0x04);
    pub const RALYBND: CommandStatus = CommandStatus(0x05);
    pub const RINVPRTFLG: CommandStatus = CommandStatus(0x06);
    pub const RINVREGDLVFLG: CommandStatus = CommandStatus(0x07);
    pub const RSYSERR: CommandStatus = CommandStatus(0x08);
    pub const RINVSRCADR: CommandStatus = CommandStatus(0x0A);
    pub const RINVDSTADR: CommandStatus = CommandStatus(0x0B);
    pub const RINVMSGID: CommandStatus = CommandStatus(0x0C);
    pub const RBINDFAIL: CommandStatus = CommandStatus(0x0D);
    pub const RINVPASWD: CommandStatus = CommandStatus(0x0E);
    pub const RINVSYSID: CommandStatus = CommandStatus(0x0F);
    pub const RCANCELFAIL: CommandStatus = CommandStatus(0x11);
    pub const RREPLACEFAIL: CommandStatus = CommandStatus(0x13);
    pub const RMSGQFUL: CommandStatus = CommandStatus(0x14);
    pub const RINVSERTYP: CommandStatus = CommandStatus(0x15);
    pub const RINVNUMDESTS: CommandStatus = CommandStatus(0x33);
    pub const RINVDLNAME: CommandStatus = CommandStatus(0x34);
    pub const RINVDESTFLAG: CommandStatus = CommandStatus(0x40);
    pub const RINVSUBREP: CommandStatus = CommandStatus(0x42);
    pub const RINVESMCLASS: CommandStatus = CommandStatus(0x43);
    pub const RCNTSUBDL: CommandStatus = CommandStatus(0x44);
    pub const RSUBMITFAIL: CommandStatus = CommandStatus(0x45);
    pub const RINVSRCTON: CommandStatus = CommandStatus(0x48);
    pub const RINVSRCNPI: CommandStatus = CommandStatus(0x49);
    pub const RINVDSTTON: CommandStatus = CommandStatus(0x50);
    pub const RINVDSTNPI: CommandStatus = CommandStatus(0x51);
    pub const RINVSYSTYP: CommandStatus = CommandStatus(0x53);
    pub const RINVREPFLAG: CommandStatus = CommandStatus(0x54);
    pub const RINVNUMMSGS: CommandStatus = CommandStatus(0x55);
    pub const RTHROTTLED: CommandStatus = CommandStatus(0x58);
    pub const RINVSCHED: CommandStatus = CommandStatus(0x61);
    pub const RINVEXPIRY: CommandStatus = CommandStatus(0x62);
    pub const RINVDFTMSGID: CommandStatus = CommandStatus(0x63);
    pub const RX_T_APPN: CommandStatus = CommandStatus(0x64);
    pub const RX_P_APPN: CommandStatus = CommandStatus(0x65);
    pub const RX_R_APPN: CommandStatus = CommandStatus(0x66);
    pub const RQUERYFAIL: CommandStatus = CommandStatus(0x67);
    pub const RINVTLVSTREAM: CommandStatus = CommandStatus(0xC0);
    pub const RTLVNOTALLWD: CommandStatus = CommandStatus(0xC1);
    pub const RINVTLVLEN: CommandStatus = CommandStatus(0xC2);
    pub const RMISSINGTLV: CommandStatus = CommandStatus(0xC3);
    pub const RINVTLVVAL: CommandStatus = CommandStatus(0xC4);
    pub const RDELIVERYFAILURE: CommandStatus = CommandStatus(0xFE);
    pub const RUNKNOWNERR: CommandStatus = CommandStatus(0xFF);
    pub const RSERTYPUNAUTH: CommandStatus = CommandStatus(0x100);
    pub const RPROHIBITED: CommandStatus = CommandStatus(0x101);
    pub const RSERTYPUNAVAIL: CommandStatus = CommandStatus(0x102);
    pub const RSERTYPDENIED: CommandStatus = CommandStatus(0x103);
    pub const RINVDCS: CommandStatus = CommandStatus(0x104);
    pub const RINVSRCADDRSUBUNIT: CommandStatus = CommandStatus(0x105);
    pub const RINVDSTADDRSUBUNIT: CommandStatus = CommandStatus(0x106);
    pub const RINVBCASTFREQINT: CommandStatus = CommandStatus(0x107);
    pub const RINVBCASTALIAS_NAME: CommandStatus = CommandStatus(0x108);
    pub const RINVBCASTAREAFMT: CommandStatus = CommandStatus(0x109);
    pub const RINVNUMBCAST_AREAS: CommandStatus = CommandStatus(0x10A);
    pub const RINVBCASTCNTTYPE: CommandStatus = CommandStatus(0x10B);
    pub const RINVBCASTMSGCLASS: CommandStatus = CommandStatus(0x10C);
    pub const RBCASTFAIL: CommandStatus = CommandStatus(0x10D);
    pub const RBCASTQUERYFAIL: CommandStatus = CommandStatus(0x10E);
    pub const RBCASTCANCELFAIL: CommandStatus = CommandStatus(0x10F);
    pub const RINVBCAST_REP: CommandStatus = CommandStatus(0x110);
    pub const RINVBCASTSRVGRP: CommandStatus = CommandStatus(0x111);
    pub const RINVBCASTCHANIND: CommandStatus = CommandStatus(0x112);

    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// The peer asks for less at a time and will take the same message later.
    pub const fn is_throttle(self) -> bool {
        matches!(self, CommandStatus::RTHROTTLED | CommandStatus::RMSGQFUL)
    }

    /// Whether the same message may do better later: the fault lies with the peer's state, not with the message.
    pub const fn is_temporary(self) -> bool {
        matches!(
            self,
            CommandStatus::RTHROTTLED
                | CommandStatus::RMSGQFUL
                | CommandStatus::RSYSERR
                | CommandStatus::RINVBNDSTS
                | CommandStatus::RX_T_APPN
                | CommandStatus::RSUBMITFAIL
                | CommandStatus::RSERTYPUNAVAIL
                | CommandStatus::RUNKNOWNERR
        )
    }

    /// The name in the specification and what it means; `None` for a value that it does not define.
    pub const fn words(self) -> Option<(&'static str, &'static str)> {
        Some(match self.0 {
            0x00 => ("ESME_ROK", "no error"),
            0x01 => ("ESME_RINVMSGLEN", "message length is invalid"),
            0x02 => ("ESME_RINVCMDLEN", "command length is invalid"),
            0x03 => ("ESME_RINVCMDID", "invalid command id"),
            0x04 => ("ESME_RINVBNDSTS", "incorrect bind status for the command"),
            0x05 => ("ESME_RALYBND", "already in bound state"),
            0x06 => ("ESME_RINVPRTFLG", "invalid priority flag"),
            0x07 => ("ESME_RINVREGDLVFLG", "invalid registered delivery flag"),
            0x08 => ("ESME_RSYSERR", "system error"),
            0x0A => ("ESME_RINVSRCADR", "invalid source address"),
            0x0B => ("ESME_RINVDSTADR", "invalid destination address"),
            0x0C => ("ESME_RINVMSGID", "message id is invalid"),
            0x0D => ("ESME_RBINDFAIL", "bind failed"),
            0x0E => ("ESME_RINVPASWD", "invalid password"),
            0x0F => ("ESME_RINVSYSID", "invalid system id"),
            0x11 => ("ESME_RCANCELFAIL", "cancel_sm failed"),
            0x13 => ("ESME_RREPLACEFAIL", "replace_sm failed"),
            0x14 => ("ESME_RMSGQFUL", "message queue full"),
            0x15 => ("ESME_RINVSERTYP", "invalid service type"),
            0x33 => ("ESME_RINVNUMDESTS", "invalid number of destinations"),
            0x34 => ("ESME_RINVDLNAME", "invalid distribution list name"),
            0x40 => ("ESME_RINVDESTFLAG", "destination flag is invalid"),
            0x42 => ("ESME_RINVSUBREP", "invalid submit with replace"),
            0x43 => ("ESME_RINVESMCLASS", "invalid esm_class"),
            0x44 => ("ESME_RCNTSUBDL", "cannot submit to distribution list"),
            0x45 => ("ESME_RSUBMITFAIL", "submit_sm or submit_multi failed"),
            0x48 => ("ESME_RINVSRCTON", "invalid source address TON"),
            0x49 => ("ESME_RINVSRCNPI", "invalid source address NPI"),
            0x50 => ("ESME_RINVDSTTON", "invalid destination address TON"),
            0x51 => ("ESME_RINVDSTNPI", "invalid destination address NPI"),
            0x53 => ("ESME_RINVSYSTYP", "invalid system_type"),
            0x54 => ("ESME_RINVREPFLAG", "invalid replace_if_present flag"),
            0x55 => ("ESME_RINVNUMMSGS", "invalid number of messages"),
            0x58 => ("ESME_RTHROTTLED", "throttled: message limits exceeded"),
            0x61 => ("ESME_RINVSCHED", "invalid scheduled delivery time"),
            0x62 => ("ESME_RINVEXPIRY", "invalid validity period"),
            0x63 => ("ESME_RINVDFTMSGID", "predefined message invalid or not found"),
            0x64 => ("ESME_RX_T_APPN", "ESME receiver temporary error"),
            0x65 => ("ESME_RX_P_APPN", "ESME receiver permanent error"),
            0x66 => ("ESME_RX_R_APPN", "ESME receiver reject message"),
            0x67 => ("ESME_RQUERYFAIL", "query_sm failed"),
            0xC0 => ("ESME_RINVTLVSTREAM", "error in the optional part of the PDU body"),
            0xC1 => ("ESME_RTLVNOTALLWD", "optional parameter not allowed"),
            0xC2 => ("ESME_RINVTLVLEN", "invalid optional parameter length"),
            0xC3 => ("ESME_RMISSINGTLV", "expected optional parameter missing"),
            0xC4 => ("ESME_RINVTLVVAL", "invalid optional parameter value"),
            0xFE => ("ESME_RDELIVERYFAILURE", "transaction delivery failure"),
            0xFF => ("ESME_RUNKNOWNERR", "unknown error"),
            0x100 => ("ESME_RSERTYPUNAUTH", "ESME not authorised to use the service type"),
            0x101 => ("ESME_RPROHIBITED", "ESME prohibited from using the operation"),
            0x102 => ("ESME_RSERTYPUNAVAIL", "service type is unavailable"),
            0x103 => ("ESME_RSERTYPDENIED", "service type is denied"),
            0x104 => ("ESME_RINVDCS", "invalid data coding scheme"),
            0x105 => ("ESME_RINVSRCADDRSUBUNIT", "source address subunit is invalid"),
            0x106 => ("ESME_RINVDSTADDRSUBUNIT", "destination address subunit is invalid"),
            0x107 => ("ESME_RINVBCASTFREQINT", "broadcast frequency interval is invalid"),
            0x108 => ("ESME_RINVBCASTALIAS_NAME", "broadcast alias name is invalid"),
            0x109 => ("ESME_RINVBCASTAREAFMT", "broadcast area format is invalid"),
            0x10A => ("ESME_RINVNUMBCAST_AREAS", "number of broadcast areas is invalid"),
            0x10B => ("ESME_RINVBCASTCNTTYPE", "broadcast content type is invalid"),
            0x10C => ("ESME_RINVBCASTMSGCLASS", "broadcast message class is invalid"),
            0x10D => ("ESME_RBCASTFAIL", "broadcast_sm failed"),
            0x10E => ("ESME_RBCASTQUERYFAIL", "query_broadcast_sm failed"),
            0x10F => ("ESME_RBCASTCANCELFAIL", "cancel_broadcast_sm failed"),
            0x110 => ("ESME_RINVBCAST_REP", "number of repeated broadcasts is invalid"),
            0x111 => ("ESME_RINVBCASTSRVGRP", "broadcast service group is invalid"),
            0x112 => ("ESME_RINVBCASTCHANIND", "broadcast channel indicator is invalid"),
            _ => return None,
        })
    }
}

impl std::fmt::Display for CommandStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.words() {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "status 0x{:08x}", self.0),
        }
    }
}

impl std::fmt::Debug for CommandStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
