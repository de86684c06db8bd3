//! An address with its kind (SMPP 3.4 §5.2.5, §5.2.6).

use bytes::{BufMut, BytesMut};

use super::reader::{Malformed, Reader};
use super::{COctets, CommandStatus};

/// Type of number, numbering plan, digits (or letters, or whatever the sender took for them). 21 octets hold the addresses of
/// submit_sm and its kin, 65 those of data_sm.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Address<const N: usize = 21> {
    /// 0 unknown, 1 international, 2 national, 3 network specific, 4 subscriber, 5 alphanumeric, 6 abbreviated.
    pub ton: u8,
    /// 0 unknown, 1 ISDN (E.164), 3 data, 4 telex, 6 land mobile, 8 national, 9 private, 10 ERMES, 14 Internet, 18 WAP.
    pub npi: u8,
    pub digits: COctets<N>,
}

impl<const N: usize> Address<N> {
    pub(super) fn decode(from: &mut Reader<'_>, field: &'static str, fault: CommandStatus) -> Result<Self, Malformed> {
        Ok(Address { ton: from.u8(field)?, npi: from.u8(field)?, digits: from.c_octets(field, fault)? })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.ton);
        out.put_u8(self.npi);
        self.digits.encode(out);
    }
}
