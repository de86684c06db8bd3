//! Any body with any Content-Type: the first line is the type, the rest the body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sip_proto::headers::MediaType;
use sip_proto::multipart;

fuzz_target!(|bytes: &[u8]| {
    let split = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let (first, body) = (&bytes[..split], bytes.get(split + 1..).unwrap_or_default());
    let Some(content_type) = MediaType::parse(first) else { return };
    if let Ok(parts) = multipart::parts(&content_type, body) {
        assert!(!parts.is_empty() && parts.len() <= multipart::MAX_PARTS);
        for part in parts {
            let _ = (part.content_type(), part.disposition(), part.content_id());
        }
    }
    let _ = multipart::find(&content_type, body, "application/sdp");
});
