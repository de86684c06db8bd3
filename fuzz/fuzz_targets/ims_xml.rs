//! What nodes of an IMS core send about registrations (`application/3gpp-ims+xml`, `application/reginfo+xml`), and what services say of
//! mailboxes: read or refused, and what is made of it reads again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_ims::summary::Summary;
use sip_proto::features::Union;
use sip_proto::headers::Params;

fuzz_target!(|bytes: &[u8]| {
    let _ = sip_registrar::service_info(bytes);
    if let Some(params) = sip_registrar::features_of(bytes) {
        again(&params);
    }
    if let Some(summary) = Summary::parse(bytes) {
        assert_eq!(Summary::parse(summary.to_text().as_bytes()).as_ref(), Some(&summary));
    }
});

/// Features that were written are the same features.
fn again(params: &[u8]) {
    let mut read = Union::default();
    read.add(Params::new(params));
    let mut out = Vec::new();
    read.write(&mut out);
    assert_eq!(out, params, "{}", String::from_utf8_lossy(params));
}
