//! Writing requests and responses (RFC 4975 §7.1, §7.2).

use std::io::Write;

use crate::range::ByteRange;
use crate::reader::Flag;

/// A transaction id of ours: 12 of 62 characters, 71 bits of chance (RFC 4975 §7.1 wants 64).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TransactionId([u8; 12]);

impl TransactionId {
    pub fn new(chance: u128) -> TransactionId {
        TransactionId(letters(chance))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// `None` for an id that cannot be ours.
    pub fn read(text: &[u8]) -> Option<TransactionId> {
        text.try_into().ok().map(TransactionId)
    }
}

/// `N` letters and digits from a random number: 5.95 bits each.
pub fn letters<const N: usize>(mut chance: u128) -> [u8; N] {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    std::array::from_fn(|_| {
        let letter = LETTERS[(chance % 62) as usize];
        chance /= 62;
        letter
    })
}

/// Begins a request, up to its paths.
pub fn request(out: &mut Vec<u8>, id: &TransactionId, method: &str, to_path: &[u8], from_path: &[u8]) {
    out.extend_from_slice(b"MSRP ");
    out.extend_from_slice(id.as_bytes());
    out.push(b' ');
    out.extend_from_slice(method.as_bytes());
    paths(out, to_path, from_path);
}

/// A header line. The value was read from a header line, or is written by us: it holds no line break.
pub fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    debug_assert!(!value.contains(&b'\n'));
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub fn byte_range(out: &mut Vec<u8>, range: ByteRange) {
    // Writing into a Vec cannot fail.
    let _ = write!(out, "Byte-Range: {range}\r\n");
}

/// The end-line of a request without a body, and of a response.
pub fn end(out: &mut Vec<u8>, id: &[u8], flag: Flag) {
    out.extend_from_slice(b"-------");
    out.extend_from_slice(id);
    out.push(flag.as_byte());
    out.extend_from_slice(b"\r\n");
}

/// The end-line after a body.
pub fn body_end(out: &mut Vec<u8>, id: &[u8], flag: Flag) {
    out.extend_from_slice(b"\r\n");
    end(out, id, flag);
}

/// A whole response. `to` is the first URI of the request's From-Path (RFC 4975 §7.2), `id` its transaction id.
pub fn response(out: &mut Vec<u8>, id: &[u8], status: u16, to: &[u8], from: &[u8]) {
    response_with(out, id, status, [to, from], &[]);
}

/// As [`response`], with further header lines.
pub fn response_with(
    out: &mut Vec<u8>,
    id: &[u8],
    status: u16,
    [to, from]: [&[u8]; 2],
    headers: &[(&'static str, Vec<u8>)],
) {
    out.extend_from_slice(b"MSRP ");
    out.extend_from_slice(id);
    // Writing into a Vec cannot fail.
    let _ = write!(out, " {status} {}", comment(status));
    paths(out, to, from);
    headers.iter().for_each(|(name, value)| line(out, name, value));
    end(out, id, Flag::Complete);
}

/// A whole REPORT (RFC 4975 §7.1.2).
pub fn report(
    out: &mut Vec<u8>,
    id: &TransactionId,
    [to_path, from_path]: [&[u8]; 2],
    message_id: &[u8],
    range: ByteRange,
    status: u16,
) {
    request(out, id, "REPORT", to_path, from_path);
    line(out, "Message-ID", message_id);
    byte_range(out, range);
    // As above.
    let _ = write!(out, "Status: 000 {status} {}\r\n", comment(status));
    end(out, id.as_bytes(), Flag::Complete);
}

fn paths(out: &mut Vec<u8>, to: &[u8], from: &[u8]) {
    out.extend_from_slice(b"\r\nTo-Path: ");
    out.extend_from_slice(to);
    out.extend_from_slice(b"\r\nFrom-Path: ");
    out.extend_from_slice(from);
    out.extend_from_slice(b"\r\n");
}

/// The comment of a status code (RFC 4975 §10, RFC 4976 §9, RFC 7701 §7.3).
pub fn comment(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Participant Not Found",
        408 => "Request Timeout",
        413 => "Stop Sending Message",
        415 => "Unsupported Media Type",
        423 => "Parameter Out Of Bounds",
        424 => "Nickname Not Allowed",
        425 => "Nickname Reserved Or Already In Use",
        428 => "Private Messages Not Supported",
        481 => "Session Does Not Exist",
        501 => "Unknown Method",
        506 => "Session In Use On Another Connection",
        _ => "Failed",
    }
}
