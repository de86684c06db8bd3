//! Any octets as push, service indication and loading: what was read is written and read as the same again.

#![no_main]

use gw_wap::push::Push;
use gw_wap::si::ServiceIndication;
use gw_wap::sl::ServiceLoading;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(push) = Push::decode(bytes) {
        assert_eq!(Push::decode(&push.encode()), Ok(push));
    }
    // Text from a string table or an entity may hold what XML has no place for.
    if let Ok(si) = ServiceIndication::decode(bytes) {
        if let Ok(octets) = si.encode() {
            assert_eq!(ServiceIndication::decode(&octets), Ok(si));
        }
    }
    if let Ok(sl) = ServiceLoading::decode(bytes) {
        if let Ok(octets) = sl.encode() {
            assert_eq!(ServiceLoading::decode(&octets), Ok(sl));
        }
    }
});
