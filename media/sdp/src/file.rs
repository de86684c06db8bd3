//! A file in a description (RFC 5547 §6).

use crate::{Sdp, Section};

/// What is said of a file: `a=file-selector`, `a=file-range`. All of it borrows from the description.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FileSelector<'a> {
    /// As it stands between the quotes, `%22` and the like in it.
    pub name: &'a [u8],
    /// `image/jpeg`, parameters included; empty when nothing is said.
    pub media_type: &'a [u8],
    pub size: Option<u64>,
    /// The first whose algorithm is known: it, and the digest.
    pub hash: Option<(HashAlgorithm, Digest)>,
    /// Only a part of it is transferred.
    pub partial: bool,
}

/// Of the IANA registry "Hash Function Textual Names"; RFC 5547 itself knows the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashAlgorithm {
    Sha1,
    Sha256,
}

impl HashAlgorithm {
    /// Bytes of a digest.
    pub fn octets(self) -> usize {
        match self {
            HashAlgorithm::Sha1 => 20,
            HashAlgorithm::Sha256 => 32,
        }
    }
}

/// A digest of up to 32 bytes; those that an algorithm does not fill are 0.
pub type Digest = [u8; 32];

impl<'a> FileSelector<'a> {
    /// `None`: the section is about no file.
    pub fn of(sdp: &Sdp<'a>, section: &Section<'a>) -> Option<FileSelector<'a>> {
        let mut file = FileSelector::parse(sdp.attribute(section, "file-selector")?);
        let range = sdp.attribute(section, "file-range").map(<[u8]>::trim_ascii);
        file.partial = range.is_some_and(|range| {
            let whole = file.size.map(|size| format!("1-{size}"));
            range != b"1-*" && whole.is_none_or(|whole| range != whole.as_bytes())
        });
        Some(file)
    }

    /// The value of `a=file-selector`. What cannot be read says nothing.
    pub fn parse(value: &'a [u8]) -> FileSelector<'a> {
        let mut file = FileSelector::default();
        for selector in selectors(value) {
            let Some(colon) = selector.iter().position(|&b| b == b':') else { continue };
            let (name, value) = (&selector[..colon], &selector[colon + 1..]);
            if name.eq_ignore_ascii_case(b"name") {
                let inside = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
                file.name = inside.unwrap_or_default();
            } else if name.eq_ignore_ascii_case(b"type") {
                file.media_type = value;
            } else if name.eq_ignore_ascii_case(b"size") {
                file.size = std::str::from_utf8(value)
                    .ok()
                    .filter(|v| v.bytes().all(|b| b.is_ascii_digit()))
                    .and_then(|v| v.parse().ok());
            } else if name.eq_ignore_ascii_case(b"hash") {
                file.hash = file.hash.or_else(|| hash(value));
            }
        }
        file
    }

    /// The name as its sender meant it.
    pub fn file_name(&self) -> String {
        let mut name = Vec::with_capacity(self.name.len());
        let mut rest = self.name;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            let escaped = (byte == b'%').then(|| after.get(..2).and_then(octet)).flatten();
            match escaped {
                Some(octet) => {
                    name.push(octet);
                    rest = &after[2..];
                }
                None => name.push(byte),
            }
        }
        String::from_utf8_lossy(&name).into_owned()
    }
}

/// Cut at the blanks that stand in no quotes.
fn selectors(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value
        .split(move |&b| {
            quoted ^= b == b'"';
            b == b' ' && !quoted
        })
        .filter(|s| !s.is_empty())
}

fn hash(value: &[u8]) -> Option<(HashAlgorithm, Digest)> {
    let colon = value.iter().position(|&b| b == b':')?;
    let algorithm = match &value[..colon] {
        name if name.eq_ignore_ascii_case(b"sha-1") => HashAlgorithm::Sha1,
        name if name.eq_ignore_ascii_case(b"sha-256") => HashAlgorithm::Sha256,
        _ => return None,
    };
    let mut digest = Digest::default();
    let mut octets = value[colon + 1..].split(|&b| b == b':');
    for place in &mut digest[..algorithm.octets()] {
        *place = octet(octets.next()?)?;
    }
    octets.next().is_none().then_some((algorithm, digest))
}

fn octet(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |b: &u8| char::from(*b).to_digit(16);
    // Two digits are at most 255.
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_5547_is_read() {
        let file = FileSelector::parse(
            b"name:\"My cool picture.jpg\" type:image/jpeg size:32349 hash:sha-1:72:24:5F:E8:65:3D:DA:F3:71:36:2F:86:D4:71:91:3E:E4:A2:CE:2E",
        );
        assert_eq!(
            (file.file_name().as_str(), file.media_type, file.size),
            ("My cool picture.jpg", &b"image/jpeg"[..], Some(32349))
        );
        let (algorithm, digest) = file.hash.unwrap();
        assert_eq!((algorithm, digest[0], digest[19], digest[20]), (HashAlgorithm::Sha1, 0x72, 0x2e, 0));
    }

    #[test]
    fn odd_selectors_say_what_they_can() {
        let file = FileSelector::parse(
            b"size:12x type:text/plain;charset=\"a b\" name:\"50%25 of %22it%22%zz\" hash:md5:00 hash:sha-1:00",
        );
        assert_eq!(file.file_name(), "50% of \"it\"%zz");
        assert_eq!((file.media_type, file.size, file.hash), (&b"text/plain;charset=\"a b\""[..], None, None));
        assert_eq!(FileSelector::parse(b"name:\"open"), FileSelector::default());
    }

    #[test]
    fn a_range_makes_it_partial_unless_it_is_the_whole() {
        for (range, partial) in [
            ("", false),
            ("a=file-range:1-*\r\n", false),
            ("a=file-range:1-7\r\n", false),
            ("a=file-range:4-*\r\n", true),
        ] {
            let text = format!("v=0\r\nm=message 1 TCP/MSRP *\r\na=file-selector:size:7\r\n{range}");
            let sdp = Sdp::parse(text.as_bytes()).unwrap();
            assert_eq!(FileSelector::of(&sdp, &sdp.media()[0]).unwrap().partial, partial, "{range}");
        }
    }
}
