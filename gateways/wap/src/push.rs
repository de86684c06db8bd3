//! The WSP push PDU (WAP-230-WSP §8.2.4.1): what goes to port 2948 in a connectionless push.

use crate::uintvar;

const PUSH: u8 = 0x06;
/// Octets of headers that are read.
const MAX_HEADERS: u32 = 1024;
/// X-Wap-Application-Id (WAP-230-WSP, table 39).
const APPLICATION_ID: u8 = 0x2F;
const INITIATOR_URI: u8 = 0x31;
const PUSH_FLAG: u8 = 0x34;

/// Content types with assigned numbers (OMNA, WSP content types), and any other as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ContentType {
    /// `application/vnd.wap.sic`
    ServiceIndication,
    /// `application/vnd.wap.slc`
    ServiceLoading,
    /// `application/vnd.wap.connectivity-wbxml`
    Provisioning,
    /// `application/vnd.wap.mms-message`
    MmsMessage,
    /// `application/vnd.wap.emn+wbxml`
    EmailNotification,
    /// `application/vnd.syncml.notification`
    SyncmlNotification,
    /// `application/vnd.syncml.dm+wbxml`
    SyncmlDm,
    /// Another number.
    Assigned(u32),
    /// Graphic ASCII, as `text/plain`.
    Text(String),
}

const NUMBERS: &[(u32, ContentType)] = &[
    (0x2E, ContentType::ServiceIndication),
    (0x30, ContentType::ServiceLoading),
    (0x36, ContentType::Provisioning),
    (0x3E, ContentType::MmsMessage),
    (0x30A, ContentType::EmailNotification),
    (0x44, ContentType::SyncmlNotification),
    (0x42, ContentType::SyncmlDm),
];

impl ContentType {
    fn number(&self) -> Option<u32> {
        match self {
            ContentType::Assigned(number) => Some(*number),
            known => NUMBERS.iter().find(|(_, kind)| kind == known).map(|(number, _)| *number),
        }
    }

    fn from_number(number: u32) -> ContentType {
        NUMBERS.iter().find(|(n, _)| *n == number).map_or(ContentType::Assigned(number), |(_, kind)| kind.clone())
    }
}

/// Which application of the handset is meant (OMNA, push application identifiers).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Application {
    Number(u32),
    /// A URI.
    Uri(String),
}

impl Application {
    /// `x-wap-application:wml.ua`, what a push is for when nothing is said.
    pub const WML: Application = Application::Number(0x02);
    pub const MMS: Application = Application::Number(0x04);
    pub const SYNCML_DM: Application = Application::Number(0x07);
    pub const EMN: Application = Application::Number(0x09);
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Header {
    Application(Application),
    InitiatorUri(String),
    /// Bit 0: the initiator is authenticated, 1: trusted content, 2: the last push.
    PushFlag(u8),
    /// Another header with an assigned number, its value as it came.
    Assigned(u8, Vec<u8>),
    /// Name and value in text.
    Text(String, String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Push {
    pub transaction: u8,
    pub content_type: ContentType,
    /// A charset parameter of the content type: 106 is UTF-8.
    pub charset: Option<u32>,
    pub headers: Vec<Header>,
    pub body: Vec<u8>,
}

/// Octets that are no push. The peer's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    #[error("ends early")]
    Short,
    #[error("PDU type 0x{0:02x} is not push")]
    Type(u8),
    #[error("headers longer than {MAX_HEADERS} octets")]
    Long,
    #[error("a header that is not well-formed")]
    Header,
}

impl Push {
    /// A push for the browser or another application, without further headers.
    pub fn new(transaction: u8, content_type: ContentType, application: Application, body: Vec<u8>) -> Push {
        Push { transaction, content_type, charset: None, headers: vec![Header::Application(application)], body }
    }

    /// Text with a NUL in it ends there.
    pub fn encode(&self) -> Vec<u8> {
        let mut headers = Vec::new();
        self.write_content_type(&mut headers);
        for header in &self.headers {
            match header {
                Header::Application(Application::Number(number)) => {
                    headers.push(APPLICATION_ID | 0x80);
                    integer(*number, &mut headers);
                }
                Header::Application(Application::Uri(uri)) => {
                    headers.push(APPLICATION_ID | 0x80);
                    string(uri, &mut headers);
                }
                Header::InitiatorUri(uri) => {
                    headers.push(INITIATOR_URI | 0x80);
                    string(uri, &mut headers);
                }
                Header::PushFlag(flag) => headers.extend([PUSH_FLAG | 0x80, flag | 0x80]),
                Header::Assigned(number, value) => {
                    headers.push(number | 0x80);
                    headers.extend_from_slice(value);
                }
                Header::Text(name, value) => {
                    string(name, &mut headers);
                    string(value, &mut headers);
                }
            }
        }
        let mut out = vec![self.transaction, PUSH];
        uintvar::write(headers.len() as u32, &mut out);
        out.extend(headers);
        out.extend_from_slice(&self.body);
        out
    }

    /// A constrained type alone, the general form with a charset or a long number (WAP-230-WSP §8.4.2.24).
    fn write_content_type(&self, out: &mut Vec<u8>) {
        let mut media = Vec::new();
        match (self.content_type.number(), &self.content_type) {
            (Some(number), _) => integer(number, &mut media),
            (None, ContentType::Text(text)) => string(text, &mut media),
            // Every other kind has a number.
            (None, _) => integer(0, &mut media),
        }
        let constrained = media[0] >= 0x20;
        match self.charset {
            None if constrained => out.extend(media),
            charset => {
                if let Some(charset) = charset {
                    media.push(0x81);
                    integer(charset, &mut media);
                }
                value_length(media.len() as u32, out);
                out.extend(media);
            }
        }
    }

    /// Parameters of the content type other than charset are skipped.
    pub fn decode(bytes: &[u8]) -> Result<Push, Broken> {
        let [transaction, kind, rest @ ..] = bytes else { return Err(Broken::Short) };
        if *kind != PUSH {
            return Err(Broken::Type(*kind));
        }
        let (length, rest) = uintvar::read(rest).ok_or(Broken::Short)?;
        if length > MAX_HEADERS {
            return Err(Broken::Long);
        }
        let (headers, body) = rest.split_at_checked(length as usize).ok_or(Broken::Short)?;
        let (media, mut headers) = value(headers)?;
        let (content_type, charset) = read_content_type(media)?;
        let mut read = Vec::new();
        while !headers.is_empty() {
            let (header, rest) = read_header(headers)?;
            read.push(header);
            headers = rest;
        }
        Ok(Push { transaction: *transaction, content_type, charset, headers: read, body: body.to_vec() })
    }
}

fn read_header(bytes: &[u8]) -> Result<(Header, &[u8]), Broken> {
    let (name, rest) = value(bytes)?;
    let (content, rest) = value(rest)?;
    let header = match name {
        [number @ 0x80..=0xFF] => {
            let number = number & 0x7F;
            match number {
                APPLICATION_ID => Header::Application(match read_integer(content) {
                    Some(number) => Application::Number(number),
                    None => Application::Uri(read_string(content).ok_or(Broken::Header)?),
                }),
                INITIATOR_URI => Header::InitiatorUri(read_string(content).ok_or(Broken::Header)?),
                PUSH_FLAG => match content {
                    [flag @ 0x80..=0xFF] => Header::PushFlag(flag & 0x7F),
                    _ => return Err(Broken::Header),
                },
                other => Header::Assigned(other, content.to_vec()),
            }
        }
        name => {
            let (name, content) = (read_string(name), read_string(content));
            Header::Text(name.ok_or(Broken::Header)?, content.ok_or(Broken::Header)?)
        }
    };
    Ok((header, rest))
}

fn read_content_type(media: &[u8]) -> Result<(ContentType, Option<u32>), Broken> {
    let of = |value: &[u8]| {
        let number = read_integer(value).map(ContentType::from_number);
        number.or_else(|| read_string(value).map(ContentType::Text)).ok_or(Broken::Header)
    };
    let general = match media {
        [0x00..=0x1E, rest @ ..] => rest,
        [0x1F, rest @ ..] => uintvar::read(rest).ok_or(Broken::Short)?.1,
        constrained => return Ok((of(constrained)?, None)),
    };
    let (kind, mut parameters) = value(general)?;
    let mut charset = None;
    while !parameters.is_empty() {
        let (name, rest) = value(parameters)?;
        let (content, rest) = if rest.is_empty() { (&[][..], rest) } else { value(rest)? };
        if name == [0x81] {
            charset = read_integer(content);
        }
        parameters = rest;
    }
    Ok((of(kind)?, charset))
}

/// One value, whatever it means, and what is behind it (WAP-230-WSP §8.4.1.2).
fn value(bytes: &[u8]) -> Result<(&[u8], &[u8]), Broken> {
    let length = match bytes.first().ok_or(Broken::Short)? {
        short @ 0x00..=0x1E => 1 + usize::from(*short),
        0x1F => {
            let (length, rest) = uintvar::read(&bytes[1..]).ok_or(Broken::Short)?;
            (bytes.len() - rest.len()).saturating_add(length as usize)
        }
        0x20..=0x7F => 1 + bytes.iter().position(|b| *b == 0).ok_or(Broken::Short)?,
        _ => 1,
    };
    bytes.split_at_checked(length).ok_or(Broken::Short)
}

/// Integer-value: short below 128, else long.
fn integer(value: u32, out: &mut Vec<u8>) {
    if value < 0x80 {
        return out.push(value as u8 | 0x80);
    }
    let octets = value.to_be_bytes();
    let octets = &octets[octets.iter().position(|o| *o != 0).unwrap_or(3)..];
    out.push(octets.len() as u8);
    out.extend_from_slice(octets);
}

fn read_integer(value: &[u8]) -> Option<u32> {
    match value {
        [short @ 0x80..=0xFF] => Some(u32::from(short & 0x7F)),
        [length @ 1..=4, octets @ ..] if octets.len() == usize::from(*length) => {
            Some(octets.iter().fold(0, |sum, o| sum << 8 | u32::from(*o)))
        }
        _ => None,
    }
}

fn value_length(length: u32, out: &mut Vec<u8>) {
    if length <= 30 {
        out.push(length as u8);
    } else {
        out.push(0x1F);
        uintvar::write(length, out);
    }
}

/// Text-string: a quote in front where it would be taken for something else.
fn string(text: &str, out: &mut Vec<u8>) {
    let octets = text.split('\0').next().unwrap_or_default().as_bytes();
    if octets.first().is_none_or(|first| !(0x21..0x7F).contains(first)) {
        out.push(0x7F);
    }
    out.extend_from_slice(octets);
    out.push(0);
}

fn read_string(value: &[u8]) -> Option<String> {
    let text = value.strip_suffix(&[0])?;
    // What begins otherwise is octets with a length, which may hold a NUL.
    if !text.first().is_none_or(|first| (0x20..0x80).contains(first)) {
        return None;
    }
    let text = text.strip_prefix(&[0x7F]).unwrap_or(text);
    std::str::from_utf8(text).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Kannel and the field send it.
    #[test]
    fn a_service_indication_for_the_browser() {
        let push = Push::new(1, ContentType::ServiceIndication, Application::WML, vec![0xAA]);
        assert_eq!(push.encode(), [0x01, 0x06, 0x03, 0xAE, 0xAF, 0x82, 0xAA]);
    }

    #[test]
    fn an_mms_notification_is_for_the_mms_application() {
        let push = Push::new(2, ContentType::MmsMessage, Application::MMS, vec![]);
        assert_eq!(push.encode(), [0x02, 0x06, 0x03, 0xBE, 0xAF, 0x84]);
    }

    #[test]
    fn long_numbers_and_charsets_take_the_general_form() {
        let mut push = Push::new(1, ContentType::EmailNotification, Application::EMN, vec![]);
        assert_eq!(push.encode(), [0x01, 0x06, 0x06, 0x03, 0x02, 0x03, 0x0A, 0xAF, 0x89]);
        push.content_type = ContentType::ServiceIndication;
        push.charset = Some(106);
        assert_eq!(push.encode(), [0x01, 0x06, 0x06, 0x03, 0xAE, 0x81, 0xEA, 0xAF, 0x89]);
    }

    /// Found by fuzzing.
    #[test]
    fn counted_octets_are_no_text() {
        assert_eq!(Push::decode(&[0, 6, 6, 0x01, 0xFF, 2, 0, 0, 0]), Err(Broken::Header));
    }

    #[test]
    fn lengths_that_overrun_are_refused() {
        for bad in
            [&[][..], &[1], &[1, 6], &[1, 6, 5, 0xAE], &[1, 6, 1, 0x05], &[1, 6, 2, 0xAE, 0xAF], &[1, 6, 2, b'a', b'b']]
        {
            assert!(Push::decode(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Push::decode(&[1, 7, 0]), Err(Broken::Type(7)));
        assert_eq!(Push::decode(&[1, 6, 0x90, 0x00]), Err(Broken::Long));
    }

    fn any_header() -> impl Strategy<Value = Header> {
        prop_oneof![
            any::<u32>().prop_map(|n| Header::Application(Application::Number(n))),
            "[a-z:.-]{1,40}".prop_map(|u| Header::Application(Application::Uri(u))),
            "[a-z:./]{1,40}".prop_map(Header::InitiatorUri),
            (0u8..8).prop_map(Header::PushFlag),
            ("[A-Z][a-z-]{1,20}", "[ -~]{0,20}").prop_map(|(n, v)| Header::Text(n, v)),
            (0u8..8, any::<u8>()).prop_map(|(n, v)| Header::Assigned(n, vec![v | 0x80])),
        ]
    }

    proptest! {
        #[test]
        fn pushes_read_back(
            transaction in any::<u8>(), kind in 0usize..9, number in 0u32..2000, charset in prop::option::of(0u32..2000),
            headers in prop::collection::vec(any_header(), 0..6), body in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let content_type = match kind {
                7 => ContentType::from_number(number),
                8 => ContentType::Text("text/plain".to_owned()),
                known => NUMBERS[known].1.clone(),
            };
            let push = Push { transaction, content_type, charset, headers, body };
            prop_assert_eq!(Push::decode(&push.encode()), Ok(push));
        }

        #[test]
        fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Push::decode(&[&[1, 6], &octets[..]].concat());
        }
    }
}
