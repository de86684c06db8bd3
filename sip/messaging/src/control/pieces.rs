//! What a body holds, as a scanner wants to see it: each piece alone, and in the octets that its reader will have.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use media_content::{Control, Reason, Verdict};
use sip_cpim::{CPIM_TYPE, Cpim};
use sip_proto::headers::MediaType;
use sip_proto::multipart;

/// Envelopes and multiparts within each other that are opened.
const MAX_DEPTH: usize = 4;
/// Pieces of one body that are looked at; a body of more is not looked at.
const MAX_PIECES: usize = 64;

/// Judges a body that is in memory.
pub async fn judge(control: &Control, content_type: &str, body: &[u8]) -> Verdict {
    if let Err(reason) = control.admits_size(body.len() as u64) {
        return Verdict::Refused(reason);
    }
    let mut all = Pieces::default();
    all.open(content_type, Cow::Borrowed(body), MAX_DEPTH);
    if let Err(reason) = all.types.iter().try_for_each(|t| control.admits_type(t)) {
        return Verdict::Refused(reason);
    }
    if all.too_many && control.scans() {
        return Verdict::Refused(Reason::Unscanned);
    }
    for piece in &all.leaves {
        let bytes = bytes::Bytes::copy_from_slice(piece);
        let read = || futures_util::stream::iter([Ok(bytes.clone())]);
        if let refused @ Verdict::Refused(_) = control.judge(read).await {
            return refused;
        }
    }
    Verdict::Passed
}

/// The types of a body and of everything in it.
pub fn types(content_type: &str, body: &[u8]) -> Vec<String> {
    let mut all = Pieces::default();
    all.open(content_type, Cow::Borrowed(body), MAX_DEPTH);
    all.types
}

#[derive(Default)]
struct Pieces<'a> {
    types: Vec<String>,
    leaves: Vec<Cow<'a, [u8]>>,
    too_many: bool,
}

impl<'a> Pieces<'a> {
    fn open(&mut self, content_type: &str, body: Cow<'a, [u8]>, depth: usize) {
        self.types.push(essence(content_type));
        if depth > 0 && self.enter(content_type, &body, depth) {
            return;
        }
        if self.leaves.len() == MAX_PIECES {
            self.too_many = true;
        } else {
            self.leaves.push(body);
        }
    }

    /// False: there is nothing in it that could be taken out.
    #[expect(clippy::ptr_arg, reason = "pieces of a body that was borrowed are borrowed for as long")]
    fn enter(&mut self, content_type: &str, body: &Cow<'a, [u8]>, depth: usize) -> bool {
        let found: Vec<(String, Cow<'a, [u8]>)> = match body {
            Cow::Borrowed(body) => inside(content_type, body),
            Cow::Owned(body) => {
                inside(content_type, body).into_iter().map(|(t, b)| (t, Cow::Owned(b.into_owned()))).collect()
            }
        };
        let any = !found.is_empty();
        for (content_type, body) in found {
            self.open(&content_type, body, depth - 1);
        }
        any
    }
}

fn inside<'b>(content_type: &str, body: &'b [u8]) -> Vec<(String, Cow<'b, [u8]>)> {
    if essence(content_type) == CPIM_TYPE {
        let Ok(cpim) = Cpim::parse(body) else { return Vec::new() };
        let encoding = cpim.mime("Content-Transfer-Encoding").unwrap_or_default();
        return vec![(cpim.content_type().unwrap_or("text/plain").to_owned(), decoded(encoding, cpim.content))];
    }
    let Some(media_type) = MediaType::parse(content_type.as_bytes()) else { return Vec::new() };
    if !media_type.kind.eq_ignore_ascii_case(b"multipart") {
        return Vec::new();
    }
    let Ok(parts) = multipart::parts(&media_type, body) else { return Vec::new() };
    let text =
        |value: Option<&[u8]>, usual: &str| value.map_or(usual.to_owned(), |v| String::from_utf8_lossy(v).into_owned());
    let opened = parts.iter().map(|part| {
        let encoding = text(part.header("Content-Transfer-Encoding"), "");
        (text(part.header("Content-Type"), "text/plain"), decoded(&encoding, part.body))
    });
    opened.collect()
}

/// Lower case, without parameters.
pub fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The octets behind a Content-Transfer-Encoding (RFC 2045 §6); what cannot be read stays as it is.
pub fn decoded<'b>(encoding: &str, body: &'b [u8]) -> Cow<'b, [u8]> {
    if encoding.trim().eq_ignore_ascii_case("base64") {
        let mut decoding = Base64::default();
        let mut out = decoding.push(body);
        out.extend(decoding.finish());
        return Cow::Owned(out);
    }
    if encoding.trim().eq_ignore_ascii_case("quoted-printable") {
        return Cow::Owned(printable(body));
    }
    Cow::Borrowed(body)
}

/// base64 that comes in pieces. Octets that are none of its letters are skipped (RFC 2045 §6.8).
#[derive(Default)]
pub struct Base64 {
    carried: Vec<u8>,
}

impl Base64 {
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.carried.extend(piece.iter().filter(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')));
        let whole = self.carried.len() / 4 * 4;
        // Four letters always are three octets.
        let out = STANDARD.decode(&self.carried[..whole]).unwrap_or_default();
        self.carried.drain(..whole);
        out
    }

    /// The last octets, where the padding was.
    pub fn finish(&mut self) -> Vec<u8> {
        base64::engine::general_purpose::GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            base64::engine::general_purpose::NO_PAD.with_decode_allow_trailing_bits(true),
        )
        .decode(std::mem::take(&mut self.carried))
        .unwrap_or_default()
    }
}

/// RFC 2045 §6.7.
fn printable(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'=' {
            out.push(byte);
            continue;
        }
        let soft = [&b"\r\n"[..], b"\n"].into_iter().find_map(|end| rest.strip_prefix(end));
        let digit = |at: usize| rest.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (soft, digit(0).zip(digit(1))) {
            (Some(next), _) => rest = next,
            (None, Some((high, low))) => {
                // Two digits are at most 255.
                out.push((high * 16 + low) as u8);
                rest = &rest[2..];
            }
            (None, None) => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(content_type: &str, body: &str) -> (Vec<String>, Vec<String>) {
        let mut all = Pieces::default();
        all.open(content_type, Cow::Borrowed(body.as_bytes()), MAX_DEPTH);
        (all.types, all.leaves.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect())
    }

    #[test]
    fn what_is_wrapped_and_encoded_is_seen_as_its_reader_sees_it() {
        let cpim =
            "From: <im:a@h>\r\n\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\naGVs\r\nbG8=";
        assert_eq!(
            leaves("message/CPIM", cpim),
            (vec!["message/cpim".into(), "image/png".into()], vec!["hello".into()])
        );
        let parts = "--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nh=65l=\r\nlo=\r\n--b\r\n\r\nplain\r\n--b--";
        let (types, found) = leaves("multipart/mixed;boundary=b", parts);
        assert_eq!(types, ["multipart/mixed", "text/plain", "text/plain"]);
        assert_eq!((found[0].trim_end_matches('='), found[1].as_str()), ("hello", "plain"));
        // What does not open is looked at as it is.
        assert_eq!(leaves("message/cpim", "no envelope").1, ["no envelope"]);
        assert_eq!(leaves("multipart/mixed", "no parts").1, ["no parts"]);
    }

    #[test]
    fn base64_may_be_cut_anywhere() {
        for cut in 0..=16 {
            let text = b"c29tZSBvY3RldHM=".as_slice();
            let mut decoding = Base64::default();
            let all = [decoding.push(&text[..cut]), decoding.push(&text[cut..]), decoding.finish()].concat();
            assert_eq!(all, b"some octets", "{cut}");
        }
    }
}
