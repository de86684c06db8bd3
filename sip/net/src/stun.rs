//! The STUN keep-alive of RFC 5626 §8: a Binding request on the SIP port is answered with the address it came from.
//!
//! Nothing else of STUN (RFC 5389): no credentials, no fingerprint. A request is told from SIP by its two leading zero
//! bits and the magic cookie.

use std::net::{IpAddr, SocketAddr};

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const BINDING_ERROR: [u8; 2] = [0x01, 0x11];
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const HEADER: usize = 20;
/// Attributes named in a 420 answer, at most; a response stays smaller than three times its request.
const UNKNOWN_NAMED: usize = 4;

/// Whether the datagram is STUN and no SIP (RFC 5389 §6).
pub fn is_stun(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER && bytes[0] < 4 && bytes[4..8] == COOKIE
}

/// Writes the answer to a Binding request from `source` into `out`. False for anything else that is STUN: indications,
/// responses and broken requests are dropped (RFC 5389 §7.3).
pub fn answer(bytes: &[u8], source: SocketAddr, out: &mut Vec<u8>) -> bool {
    if !is_stun(bytes) || bytes[..2] != BINDING_REQUEST {
        return false;
    }
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    if length % 4 != 0 || bytes.len() != HEADER + length {
        return false;
    }
    let Some(unknown) = unknown_attributes(&bytes[HEADER..]) else { return false };
    let transaction = &bytes[4..HEADER];
    let start = out.len();
    if unknown.is_empty() {
        out.extend_from_slice(&BINDING_SUCCESS);
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(transaction);
        mapped_address(out, source, transaction);
    } else {
        out.extend_from_slice(&BINDING_ERROR);
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(transaction);
        attribute(out, ERROR_CODE, &[0, 0, 4, 20]);
        let mut names = Vec::with_capacity(2 * UNKNOWN_NAMED);
        unknown.iter().for_each(|name| names.extend_from_slice(&name.to_be_bytes()));
        attribute(out, UNKNOWN_ATTRIBUTES, &names);
    }
    let body = (out.len() - start - HEADER) as u16;
    out[start + 2..start + 4].copy_from_slice(&body.to_be_bytes());
    true
}

/// RFC 5389 §15.2: port and address are exclusive-ored with cookie and transaction.
fn mapped_address(out: &mut Vec<u8>, source: SocketAddr, transaction: &[u8]) {
    let mut value = vec![0];
    let port = source.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    let address = |value: &mut Vec<u8>, octets: &[u8]| {
        value.extend_from_slice(&port.to_be_bytes());
        value.extend(octets.iter().zip(transaction).map(|(a, b)| a ^ b));
    };
    match source.ip() {
        IpAddr::V4(ip) => {
            value.push(1);
            address(&mut value, &ip.octets());
        }
        IpAddr::V6(ip) => {
            value.push(2);
            address(&mut value, &ip.octets());
        }
    }
    attribute(out, XOR_MAPPED_ADDRESS, &value);
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len() + value.len().next_multiple_of(4) - value.len(), 0);
}

/// Comprehension-required attributes that a server without credentials does not know (RFC 5389 §7.3.1). `None` when the
/// attributes do not fill the message exactly.
fn unknown_attributes(mut rest: &[u8]) -> Option<Vec<u16>> {
    let mut unknown = Vec::new();
    while !rest.is_empty() {
        let (head, value) = rest.split_at_checked(4)?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]])).next_multiple_of(4);
        rest = value.get(length..)?;
        // USERNAME, MESSAGE-INTEGRITY, REALM and NONCE (0x0006, 0x0008, 0x0014, 0x0015) are known and of no use here.
        if kind < 0x8000 && !matches!(kind, 0x0006 | 0x0008 | 0x0014 | 0x0015) && unknown.len() < UNKNOWN_NAMED {
            unknown.push(kind);
        }
    }
    Some(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, attributes.len() as u8];
        bytes.extend_from_slice(&COOKIE);
        // The transaction of RFC 5769 §2.1.
        bytes.extend_from_slice(&[0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
        bytes.extend_from_slice(attributes);
        bytes
    }

    #[test]
    fn the_mapped_address_is_that_of_rfc_5769() {
        let mut out = Vec::new();
        assert!(answer(&request(&[]), "192.0.2.1:32853".parse().unwrap(), &mut out));
        // RFC 5769 §2.2: the XOR-MAPPED-ADDRESS attribute of the sample response.
        assert_eq!(out[..4], [1, 1, 0, 12]);
        assert_eq!(out[20..], [0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let mut out = Vec::new();
        assert!(answer(&request(&[]), "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap(), &mut out));
        // RFC 5769 §2.3.
        let v6 = [
            0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25,
            0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
        ];
        assert_eq!(out[20..], v6);
    }

    #[test]
    fn an_unknown_required_attribute_gets_420() {
        let mut out = Vec::new();
        assert!(answer(&request(&[0x7f, 1, 0, 1, 9, 0, 0, 0]), "192.0.2.1:1".parse().unwrap(), &mut out));
        assert_eq!(out[..2], BINDING_ERROR);
        assert_eq!(out[20..28], [0, 9, 0, 4, 0, 0, 4, 20]);
        assert_eq!(out[28..], [0, 10, 0, 2, 0x7f, 1, 0, 0]);
    }

    #[test]
    fn broken_stun_and_answers_stay_unanswered() {
        let source = "192.0.2.1:1".parse().unwrap();
        let good = request(&[]);
        let mut lying = good.clone();
        lying[3] = 4;
        let mut response = good.clone();
        response[0] = 1;
        let mut overrun = request(&[0x80, 1, 0, 9]);
        overrun[3] = 4;
        for bytes in [&lying[..], &response, &good[..19], &overrun] {
            let mut out = Vec::new();
            assert!(!answer(bytes, source, &mut out));
            assert!(out.is_empty());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_request_gets_more_than_three_times_its_size(attributes in proptest::collection::vec(0..=255u8, 0..60)) {
            let mut out = Vec::new();
            let request = request(&attributes);
            answer(&request, "[2001:db8::1]:1".parse().unwrap(), &mut out);
            proptest::prop_assert!(out.len() <= 3 * request.len());
        }
    }
}
