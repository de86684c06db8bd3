//! A body as SMPP has it, in any coding, with and without a header: what it is divided into fits, and reads as the same text. The first octet is
//! data_coding, the second says whether there is a header. And times.

#![no_main]

use gw_sms::short_message::Message;
use gw_smpp::pdu::COctets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(time) = COctets::new(&bytes[..bytes.len().min(16)]) {
        let _ = gw_sms::smpp_time::until(&time, 1_795_777_200_000);
    }
    let [data_coding, flags, octets @ ..] = bytes else { return };
    let Ok(message) = Message::read(*data_coding, flags & 1 == 1, octets) else { return };
    if let Ok((_, data)) = message.user_data() {
        assert!(data.fits());
    }
    let Ok(parts) = message.parts("x", 0, 7, 10) else { return };
    assert!((1..=10).contains(&parts.len()));
    // An odd octet at the end is half a letter, and an escape at a seam belongs to what follows: those texts may differ there.
    let Ok(Some(text)) = message.text() else { return };
    let again: String = parts
        .iter()
        .map(|p| Message::read(p.data_coding, p.udhi, &p.short_message).expect("what was written reads back"))
        .map(|m| m.text().expect("a text").expect("of letters"))
        .collect();
    if !text.contains(char::REPLACEMENT_CHARACTER) && parts.len() > 1 && !octets.iter().any(|o| o & 0x7F == 0x1B) {
        assert_eq!(again, text);
    } else if parts.len() == 1 && parts[0].data_coding == *data_coding {
        assert_eq!(again, text);
    }
});
