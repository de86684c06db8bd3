//! Whatever a push client posts is read or refused, and what is read is divided or refused.
#![no_main]

use gw_sms::compose::compose;
use gw_sms::push::message::{self, Command};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match message::read(bytes) {
        Ok((Command::Push(push), heading)) => {
            let answer = message::answer(&heading, gw_sms::push::Code::ACCEPTED);
            assert!(answer.ends_with(b"</smsgw>\r\n"));
            if let Ok(parts) = compose(&push, true, 0) {
                assert!((1..=10).contains(&parts.len()));
            }
        }
        Ok((Command::Cancel(_), _)) => {}
        Err(refusal) => drop(message::answer(&refusal.heading, refusal.code)),
    }
});
