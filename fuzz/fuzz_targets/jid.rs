//! Addresses of XMPP and their mapping: what is read is written the same, and what came from a JID goes back to it.
#![no_main]

use gw_xmpp::Jid;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(jid) = text.parse::<Jid>() {
        assert_eq!(jid.to_string().parse::<Jid>().as_ref(), Ok(&jid));
        if let Some(uri) = jid.to_sip() {
            assert!(uri.is_ascii() && !uri.contains([' ', '<', '>', '"']), "{uri}");
        }
    }
    if let Some(jid) = Jid::from_sip(text, "home.test") {
        assert_eq!(jid.to_string().parse::<Jid>().as_ref(), Ok(&jid));
        let uri = jid.to_sip().expect("it has a local part");
        assert_eq!(Jid::from_sip(&uri, "home.test").as_ref(), Some(&jid), "{uri}");
    }
});
