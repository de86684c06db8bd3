//! SMS-DELIVER (TS 23.040 §9.2.2.1): a handset is given a message.

use super::{Address, Broken, Octets, Timestamp, flag, is_set};
use crate::dcs::DataCoding;
use crate::user_data::UserData;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deliver {
    /// More wait in the service centre. On the wire TP-MMS is 1 when there are none.
    pub more: bool,
    /// TP-LP: not to be forwarded again (TS 23.040 §9.2.3.28).
    pub loop_prevention: bool,
    /// The sender gets a status report.
    pub status_report: bool,
    pub reply_path: bool,
    pub originator: Address,
    pub pid: u8,
    pub data_coding: DataCoding,
    pub timestamp: Timestamp,
    pub user_data: UserData,
}

impl Deliver {
    pub(super) fn decode(first: u8, mut octets: Octets<'_>) -> Result<Deliver, Broken> {
        let originator = Address::decode(&mut octets)?;
        let pid = octets.take("TP-PID")?;
        let data_coding = DataCoding(octets.take("TP-DCS")?);
        let timestamp = Timestamp(octets.array("TP-SCTS")?);
        let (user_data, _) = UserData::decode(octets.0, data_coding.alphabet(), is_set(first, 6))?;
        Ok(Deliver {
            more: !is_set(first, 2),
            loop_prevention: is_set(first, 3),
            status_report: is_set(first, 5),
            reply_path: is_set(first, 7),
            originator,
            pid,
            data_coding,
            timestamp,
            user_data,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let has_header = !self.user_data.header.elements.is_empty();
        let mut out = vec![
            flag(!self.more, 2)
                | flag(self.loop_prevention, 3)
                | flag(self.status_report, 5)
                | flag(has_header, 6)
                | flag(self.reply_path, 7),
        ];
        self.originator.encode(&mut out);
        out.extend([self.pid, self.data_coding.0]);
        out.extend(self.timestamp.0);
        self.user_data.encode(&mut out);
        out
    }
}
