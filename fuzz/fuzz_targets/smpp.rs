//! A stream of PDUs: what could be read writes back to something that reads the same, and from then on to the same octets.

#![no_main]

use gw_smpp::pdu::{Frames, HEADER, Header, MAX_FRAME, Pdu};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut frames = Frames::default();
    frames.buffer().extend_from_slice(bytes);
    while let Ok(Some(frame)) = frames.next_frame() {
        assert!((HEADER..=MAX_FRAME).contains(&frame.len()));
        let header = Header::of(&frame).expect("a frame has a header");
        match Pdu::decode(header, &frame) {
            Ok(pdu) => {
                let written = encode(header.sequence, &pdu);
                let again = Pdu::decode(Header::of(&written).expect("a header"), &written).expect("reads back");
                assert_eq!(encode(header.sequence, &again), written);
                if let Pdu::Request(request) = &pdu {
                    assert_eq!(again, pdu);
                    if let Some(tlvs) = request.tlvs() {
                        assert!(frame.ends_with(tlvs.as_bytes()));
                        let _ = tlvs.check();
                    }
                }
            }
            Err(malformed) => assert!(!malformed.status.is_ok()),
        }
    }
});

fn encode(sequence: u32, pdu: &Pdu) -> bytes::Bytes {
    let mut out = bytes::BytesMut::new();
    match pdu {
        Pdu::Request(request) => request.encode(sequence, &mut out),
        Pdu::Response(status, response) => response.encode(*status, sequence, &mut out),
    }
    out.freeze()
}
