//! Filter criteria: any text as a condition, asked about any message. What is read as a condition is read the same again, a
//! negated one says the opposite, and asking never fails.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_ims::criteria::{Filter, Occasion, Pattern, Rule};
use sip_proto::headers::SessionCase;
use sip_proto::uri::Uri;
use sip_proto::{HeaderName, Message};

fuzz_target!(|bytes: &[u8]| {
    // A condition, a line end, a message.
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return };
    let Ok(condition) = std::str::from_utf8(&bytes[..end]) else { return };
    let Ok(pattern) = Pattern::parse(condition) else { return };
    let Ok(message) = Message::parse(&bytes[end + 1..]) else { return };
    let values = || message.values(HeaderName::from_bytes(pattern.name.as_bytes()));
    if !pattern.negated && pattern.holds(values()) {
        let opposite = Pattern::parse(&format!("!{condition}"));
        assert!(opposite.is_err() || !opposite.expect("looked at").holds(values()));
    }
    let Some(uri) = Uri::parse(message.request_uri()) else { return };
    let rule = Rule {
        user: "*".to_owned(),
        priority: 1,
        method: Vec::new(),
        to_domain: String::new(),
        request_uri: String::new(),
        header: vec![condition.to_owned()],
        sdp: vec!["m: audio".to_owned(), "!a: inactive".to_owned()],
        session_case: None,
        registered: None,
        service: "pager".to_owned(),
        default_handling: Default::default(),
        registration: Vec::new(),
        include_request: false,
        include_response: false,
        service_info: String::new(),
    };
    let filter = Filter::new(rule).expect("the condition was read");
    let _ = filter.meets(&Occasion {
        message: &message,
        uri: &uri,
        user: "alice@home.test",
        case: SessionCase::Originating,
        registered: &|| true,
    });
});
