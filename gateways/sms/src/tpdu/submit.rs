//! SMS-SUBMIT (TS 23.040 §9.2.2.2): a handset sends a message.

use super::{Address, Broken, Octets, Timestamp, Validity, flag, is_set};
use crate::dcs::DataCoding;
use crate::user_data::UserData;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submit {
    pub reject_duplicates: bool,
    pub status_report: bool,
    pub reply_path: bool,
    /// TP-MR.
    pub reference: u8,
    pub destination: Address,
    pub pid: u8,
    pub data_coding: DataCoding,
    pub validity: Option<Validity>,
    pub user_data: UserData,
}

impl Submit {
    pub(super) fn decode(first: u8, mut octets: Octets<'_>) -> Result<Submit, Broken> {
        let reference = octets.take("TP-MR")?;
        let destination = Address::decode(&mut octets)?;
        let pid = octets.take("TP-PID")?;
        let data_coding = DataCoding(octets.take("TP-DCS")?);
        let validity = match first >> 3 & 3 {
            0 => None,
            1 => Some(Validity::Enhanced(octets.array("TP-VP")?)),
            2 => Some(Validity::Relative(octets.take("TP-VP")?)),
            _ => Some(Validity::Absolute(Timestamp(octets.array("TP-VP")?))),
        };
        let (user_data, _) = UserData::decode(octets.0, data_coding.alphabet(), is_set(first, 6))?;
        Ok(Submit {
            reject_duplicates: is_set(first, 2),
            status_report: is_set(first, 5),
            reply_path: is_set(first, 7),
            reference,
            destination,
            pid,
            data_coding,
            validity,
            user_data,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let has_header = !self.user_data.header.elements.is_empty();
        let mut out = vec![
            0x01 | flag(self.reject_duplicates, 2)
                | Validity::format(self.validity) << 3
                | flag(self.status_report, 5)
                | flag(has_header, 6)
                | flag(self.reply_path, 7),
            self.reference,
        ];
        self.destination.encode(&mut out);
        out.extend([self.pid, self.data_coding.0]);
        match self.validity {
            None => {}
            Some(Validity::Relative(value)) => out.push(value),
            Some(Validity::Absolute(Timestamp(octets)) | Validity::Enhanced(octets)) => out.extend(octets),
        }
        self.user_data.encode(&mut out);
        out
    }
}
