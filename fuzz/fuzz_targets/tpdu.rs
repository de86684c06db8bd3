//! Any octets as RP message, TPDU of both directions, and user data: what was read is written and read as the same again.

#![no_main]

use gw_sms::dcs::Alphabet;
use gw_sms::rp::Relay;
use gw_sms::tpdu::{Carrier, FromHandset, ToHandset};
use gw_sms::user_data::UserData;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(relay) = Relay::decode(bytes) {
        assert_eq!(Relay::decode(&relay.encode()), Ok(relay));
    }
    for carrier in [Carrier::Data, Carrier::Ack, Carrier::Error] {
        if let Ok(tpdu) = FromHandset::decode(bytes, carrier) {
            let octets = tpdu.encode();
            let again = FromHandset::decode(&octets, carrier).expect("what was written reads back");
            assert_eq!(again.encode(), octets);
        }
        if let Ok(tpdu) = ToHandset::decode(bytes, carrier) {
            let octets = tpdu.encode();
            let again = ToHandset::decode(&octets, carrier).expect("what was written reads back");
            assert_eq!(again.encode(), octets);
        }
    }
    for alphabet in [Alphabet::Gsm7, Alphabet::Octets, Alphabet::Ucs2] {
        for has_header in [false, true] {
            if let Ok((data, _)) = UserData::decode(bytes, alphabet, has_header) {
                assert!(data.fits());
                let _ = data.text(alphabet);
            }
            if let Ok(data) = UserData::from_unpacked(bytes, alphabet, has_header) {
                let _ = data.text(alphabet);
            }
        }
    }
});
