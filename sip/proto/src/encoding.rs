//! Bodies that are packed for the way (RFC 3261 §20.12).

use std::borrow::Cow;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit as inflate;

use crate::message::Message;
use crate::name::HeaderName;

/// What a body may be packed in, as Accept-Encoding has it.
pub const ACCEPTED: &[u8] = b"deflate";

/// Why a body cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    /// 415 with [`ACCEPTED`].
    #[error("packed in another way")]
    Unknown,
    /// 413.
    #[error("too long when it is unpacked")]
    TooLong,
    /// 400.
    #[error("does not unpack")]
    Broken,
}

/// The body of a message as it was before it was packed, of at most so many bytes.
pub fn unpacked<'a>(message: &Message<'a>, most: usize) -> Result<Cow<'a, [u8]>, Unreadable> {
    let body = message.body();
    let encoding = message.value(HeaderName::ContentEncoding).unwrap_or(b"identity");
    if body.is_empty() || encoding.eq_ignore_ascii_case(b"identity") {
        return if body.len() > most { Err(Unreadable::TooLong) } else { Ok(body.into()) };
    }
    if !encoding.eq_ignore_ascii_case(b"deflate") {
        return Err(Unreadable::Unknown);
    }
    inflate(body, most).map(Cow::Owned).map_err(|error| match error.status {
        TINFLStatus::HasMoreOutput => Unreadable::TooLong,
        _ => Unreadable::Broken,
    })
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::compress_to_vec_zlib;

    use super::*;

    fn read(encoding: &str, body: &[u8], most: usize) -> Result<Vec<u8>, Unreadable> {
        let head = format!(
            "SUBSCRIBE sip:a SIP/2.0\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let bytes = [head.as_bytes(), body].concat();
        unpacked(&Message::parse(&bytes).unwrap(), most).map(Cow::into_owned)
    }

    #[test]
    fn what_was_packed_is_read_within_its_bounds() {
        let text = b"a list, a list, a list".repeat(100);
        let packed = compress_to_vec_zlib(&text, 9);
        assert_eq!(read("Deflate", &packed, text.len()).as_ref(), Ok(&text));
        assert_eq!(read("identity", &text, text.len()).as_ref(), Ok(&text));
        assert_eq!(read("deflate", &packed, text.len() - 1), Err(Unreadable::TooLong));
        assert_eq!(read("identity", &text, text.len() - 1), Err(Unreadable::TooLong));
        assert_eq!(read("deflate", &packed[..packed.len() - 5], text.len()), Err(Unreadable::Broken));
        assert_eq!(read("deflate", &text, text.len()), Err(Unreadable::Broken));
        assert_eq!(read("gzip", &packed, text.len()), Err(Unreadable::Unknown));
        // 16 MiB of nothing in 16 KiB.
        assert_eq!(read("deflate", &compress_to_vec_zlib(&vec![0; 16 << 20], 9), 64 << 10), Err(Unreadable::TooLong));
    }
}
