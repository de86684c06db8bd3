//! Any bytes as an envelope and as the documents that travel in one: what is taken reads the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_cpim::{CPIM, Composing, Cpim, Draft, Imdn};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = Cpim::parse(bytes) {
        let mut out = Vec::new();
        let mut draft = Draft::new(&mut out);
        for header in envelope.headers() {
            draft.copy(header);
        }
        let content_type = envelope.content_type().unwrap_or("text/plain").to_owned();
        draft.content(&content_type, [], envelope.content);
        let again = Cpim::parse(&out).expect("what was written reads");
        assert_eq!(again.headers(), envelope.headers());
        assert_eq!((again.content, again.wanted()), (envelope.content, envelope.wanted()));
        assert_eq!((again.from(), again.message_id()), (envelope.from(), envelope.message_id()));
        if let Some(from) = envelope.from() {
            let mut out = Vec::new();
            Draft::new(&mut out).address("From", &from);
            out.extend_from_slice(b"\r\n\r\n");
            let again = Cpim::parse(&out).expect("an address that was written reads");
            let read = again.from().expect("and names the same");
            assert_eq!((read.uri, read.name.trim()), (from.uri, from.name.trim()));
        }
        let _ = (envelope.text(CPIM, "Subject"), envelope.original_to(), envelope.to().count(), envelope.record_route().count());
    }
    if let Ok(imdn) = Imdn::parse(bytes) {
        let mut out = Vec::new();
        imdn.write(&mut out);
        assert_eq!(Imdn::parse(&out), Ok(imdn));
    }
    if let Ok(composing) = Composing::parse(bytes) {
        let mut out = Vec::new();
        composing.write(&mut out);
        assert_eq!(Composing::parse(&out), Ok(composing));
    }
});
