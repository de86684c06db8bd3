//! What nodes tell each other of ESMEs and handsets: read, written again, compared. And the range of a bind, against an address.
#![no_main]

use gw_smpp::AddressRange;
use gw_sms::esme::elsewhere::Word;
use gw_sms::ip_sm_gw::Report;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(word) = Word::from_bytes(bytes) {
        let written = word.to_bytes();
        let again = Word::from_bytes(&written).expect("what was written reads back");
        assert_eq!(again.to_bytes(), written);
    }
    if let Some(report) = Report::from_bytes(bytes) {
        assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
    }
    if let Ok(range) = AddressRange::parse(bytes) {
        let _ = range.serves(b"819012345678");
    }
});
