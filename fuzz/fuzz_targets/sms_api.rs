//! Whatever a developer posts is read or refused as a mistake of theirs, and what is read is divided or refused.
#![no_main]

use gw_sms::compose::compose;
use gw_sms::push::message::{Address, Push};
use gw_sms::rest::request::{MAX_RECIPIENTS, MessageRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let request = match MessageRequest::read(bytes) {
        Ok(request) => request,
        Err(refusal) => return assert_eq!(refusal.status, 400),
    };
    // What it comes to is the same when it is asked again.
    let again = serde_json::to_vec(&request).unwrap();
    assert_eq!(MessageRequest::read(&again).map(|r| r.digest()), Ok(request.digest()));
    if let (Ok(to), Ok(content), Ok(vp)) = (request.recipients(), request.content(), request.validity()) {
        assert!((1..=MAX_RECIPIENTS).contains(&to.len()));
        let address = Address { msn: to[0], reqid: "r".into(), svcid: String::new() };
        let push = Push { address, content, oa: String::new(), vp, notify: true };
        if let Ok(parts) = compose(&push, true, 0) {
            assert!((1..=10).contains(&parts.len()));
        }
    }
});
