//! SMS-DELIVER-REPORT and SMS-SUBMIT-REPORT (TS 23.040 §9.2.2.1a and §9.2.2.2a): what became of a message, in the RP-ACK or
//! RP-ERROR that answers it.

use super::{Broken, Carrier, Octets, Timestamp, flag, is_set};
use crate::dcs::DataCoding;
use crate::user_data::UserData;

/// TP-FCS, failure causes (TS 23.040 §9.2.3.22).
pub mod failure {
    pub const UNSPECIFIED_PID: u8 = 0x8F;
    pub const UNSPECIFIED_DCS: u8 = 0x9F;
    pub const COMMAND_CANNOT_BE_ACTIONED: u8 = 0xA0;
    pub const COMMAND_UNSUPPORTED: u8 = 0xA1;
    pub const TPDU_NOT_SUPPORTED: u8 = 0xB0;
    pub const SC_BUSY: u8 = 0xC0;
    pub const NO_SC_SUBSCRIPTION: u8 = 0xC1;
    pub const SC_SYSTEM_FAILURE: u8 = 0xC2;
    pub const INVALID_ADDRESS: u8 = 0xC3;
    pub const DESTINATION_BARRED: u8 = 0xC4;
    pub const SIM_STORAGE_FULL: u8 = 0xD0;
    pub const MEMORY_EXCEEDED: u8 = 0xD3;
    pub const UNSPECIFIED: u8 = 0xFF;
}

/// What TP-PI announces. Octets of TP-PI beyond the first, and unknown bits, are not kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Optional {
    pub pid: Option<u8>,
    pub data_coding: Option<DataCoding>,
    pub user_data: Option<UserData>,
}

impl Optional {
    fn indicator(&self) -> u8 {
        flag(self.pid.is_some(), 0) | flag(self.data_coding.is_some(), 1) | flag(self.user_data.is_some(), 2)
    }

    pub(super) fn has_header(&self) -> bool {
        self.user_data.as_ref().is_some_and(|u| !u.header.elements.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.indicator() == 0
    }

    /// TP-PI; later octets of it have no meaning yet and are skipped (§9.2.3.27).
    pub(super) fn decode_indicator(octets: &mut Octets<'_>) -> Result<u8, Broken> {
        let first = octets.take("TP-PI")?;
        let mut more = first;
        while is_set(more, 7) {
            more = octets.take("TP-PI")?;
        }
        Ok(first)
    }

    pub(super) fn decode(indicator: u8, octets: &mut Octets<'_>, has_header: bool) -> Result<Optional, Broken> {
        let pid = is_set(indicator, 0).then(|| octets.take("TP-PID")).transpose()?;
        let data_coding = is_set(indicator, 1).then(|| octets.take("TP-DCS")).transpose()?.map(DataCoding);
        let user_data = if is_set(indicator, 2) {
            // Without TP-DCS it is the default alphabet (§9.2.3.27).
            let alphabet = data_coding.unwrap_or_default().alphabet();
            Some(UserData::decode(octets.0, alphabet, has_header)?.0)
        } else {
            None
        };
        Ok(Optional { pid, data_coding, user_data })
    }

    pub(super) fn encode_indicator(&self, out: &mut Vec<u8>) {
        out.push(self.indicator());
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.pid);
        out.extend(self.data_coding.map(|d| d.0));
        if let Some(user_data) = &self.user_data {
            user_data.encode(out);
        }
    }
}

fn decode_failure(octets: &mut Octets<'_>, carrier: Carrier) -> Result<Option<u8>, Broken> {
    (carrier == Carrier::Error).then(|| octets.take("TP-FCS")).transpose()
}

/// From the handset.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeliverReport {
    /// TP-FCS, in an RP-ERROR only.
    pub failure: Option<u8>,
    pub optional: Optional,
}

impl DeliverReport {
    pub(super) fn decode(first: u8, mut octets: Octets<'_>, carrier: Carrier) -> Result<DeliverReport, Broken> {
        let failure = decode_failure(&mut octets, carrier)?;
        let indicator = Optional::decode_indicator(&mut octets)?;
        let optional = Optional::decode(indicator, &mut octets, is_set(first, 6))?;
        Ok(DeliverReport { failure, optional })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![flag(self.optional.has_header(), 6)];
        out.extend(self.failure);
        self.optional.encode_indicator(&mut out);
        self.optional.encode(&mut out);
        out
    }
}

/// From the service centre.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubmitReport {
    /// TP-FCS, in an RP-ERROR only.
    pub failure: Option<u8>,
    pub timestamp: Timestamp,
    pub optional: Optional,
}

impl SubmitReport {
    pub(super) fn decode(first: u8, mut octets: Octets<'_>, carrier: Carrier) -> Result<SubmitReport, Broken> {
        let failure = decode_failure(&mut octets, carrier)?;
        let indicator = Optional::decode_indicator(&mut octets)?;
        let timestamp = Timestamp(octets.array("TP-SCTS")?);
        let optional = Optional::decode(indicator, &mut octets, is_set(first, 6))?;
        Ok(SubmitReport { failure, timestamp, optional })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0x01 | flag(self.optional.has_header(), 6)];
        out.extend(self.failure);
        self.optional.encode_indicator(&mut out);
        out.extend(self.timestamp.0);
        self.optional.encode(&mut out);
        out
    }
}
