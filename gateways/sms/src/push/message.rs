//! The messages of the push interface, read and written.
//!
//! ```text
//! <smsgw> fncid comway msn reqid svcid ctrlflg
//!   text SMS (1):    text, [coding auto|gsm7|ucs2], [mclass 0-3]
//!   command SMS (0): ud (hex), [udh hex | dstport, srcport], [dcs], [pid]
//!   both:            [oa], [vp minutes], [notify 0|1]          </smsgw>
//! ```
//!
//! The order of the elements does not matter and unknown ones are passed over; one that is known may stand once.

use std::hash::Hasher;

use sip_ims::Msisdn;
use sip_xml::{Document, Element, Limits, Writer};
use siphasher::sip::SipHasher13;

use super::Code;
use crate::queue::{Notice, Verdict};

/// Largest message, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Push(Box<Push>),
    Cancel(Address),
}

/// Which request of whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    pub msn: Msisdn,
    /// 1 to 64 printable characters.
    pub reqid: String,
    /// 11 digits.
    pub svcid: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Push {
    pub address: Address,
    pub content: Content,
    /// Originating address: a number with `+`, or up to 11 characters; empty: the link's own.
    pub oa: String,
    /// Minutes, 1 to [`MAX_VALIDITY`]; `None`: the service's default.
    pub vp: Option<u32>,
    pub notify: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    Text {
        text: String,
        coding: Coding,
        /// 0 to 3.
        mclass: Option<u8>,
    },
    Command {
        ud: Vec<u8>,
        header: Header,
        dcs: Option<u8>,
        pid: u8,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    Auto,
    Gsm7,
    Ucs2,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Header {
    None,
    /// A user data header with its length octet.
    Octets(Vec<u8>),
    Ports {
        destination: u16,
        source: u16,
    },
}

/// Longest validity, in minutes: 30 days.
pub const MAX_VALIDITY: u32 = 43_200;

/// A message that is refused, with as much of it as an answer repeats.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: Code,
    pub heading: Heading,
}

/// What an answer repeats of its request. Empty where it could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Heading {
    /// Of the answer.
    pub fncid: &'static str,
    pub reqid: String,
    pub svcid: String,
}

/// Reads a request, and what its answer begins with.
pub fn read(bytes: &[u8]) -> Result<(Command, Heading), Refusal> {
    let limits = Limits { bytes: MAX_BODY, depth: 4, elements: 64, attributes: 16, name: 64 };
    let refused = |code, heading: &Heading| Refusal { code, heading: heading.clone() };
    let mut heading = Heading { fncid: PUSH_RESPONSE, ..Heading::default() };
    let document = Document::parse_with(bytes, &limits).map_err(|_| refused(Code::BAD_XML, &heading))?;
    let fields = Fields(&document.root);
    if &*document.root.name != "smsgw" {
        return Err(refused(Code::BAD_XML, &heading));
    }
    // As far as they are fit to be repeated.
    heading.reqid = fields.of("reqid").ok().flatten().filter(|r| is_reqid(r)).unwrap_or_default();
    heading.svcid = fields.of("svcid").ok().flatten().filter(|s| is_xpid(s)).unwrap_or_default();
    let fncid = fields.of("fncid").ok().flatten().unwrap_or_default();
    if fncid == CANCEL {
        heading.fncid = CANCEL_RESPONSE;
    }
    let known =
        [PUSH, CANCEL].contains(&fncid.as_str()) && fields.of("comway").ok().flatten().as_deref() == Some(COMWAY);
    if !known {
        return Err(refused(Code::UNKNOWN_PROCESS, &heading));
    }
    let read = if fncid == PUSH {
        fields.push().map(|p| Command::Push(Box::new(p)))
    } else {
        fields.address().map(Command::Cancel)
    };
    match read {
        Ok(command) => Ok((command, heading)),
        Err(BadField) => Err(refused(Code::BAD_FIELD, &heading)),
    }
}

/// An answer: `fncid`, `reqid`, `svcid`, `code`.
pub fn answer(heading: &Heading, code: Code) -> Vec<u8> {
    let code = code.to_string();
    let fields = [("fncid", heading.fncid), ("reqid", &heading.reqid), ("svcid", &heading.svcid), ("code", &code)];
    document(&fields)
}

/// Tells a client that its request is through (0301).
pub fn completed(notice: &Notice, donetime: &str) -> Vec<u8> {
    let (result, segments) = (result(notice.verdict), notice.parts.to_string());
    document(&[
        ("fncid", COMPLETED),
        ("comway", COMWAY),
        ("msn", &notice.msn.to_string()),
        ("reqid", &notice.reqid),
        ("svcid", &notice.client),
        ("result", &result),
        ("segments", &segments),
        ("donetime", donetime),
    ])
}

/// Tells a client what its cancellation came to (0401).
pub fn cancelled(notice: &Notice, donetime: &str) -> Vec<u8> {
    let (cancelled, total) = (notice.cancelled.to_string(), notice.parts.to_string());
    let result = if notice.cancelled == notice.parts { "0000".to_owned() } else { result(notice.verdict) };
    document(&[
        ("fncid", CANCELLED),
        ("comway", COMWAY),
        ("msn", &notice.msn.to_string()),
        ("reqid", &notice.reqid),
        ("svcid", &notice.client),
        ("result", &result),
        ("cancelled", &cancelled),
        ("total", &total),
        ("donetime", donetime),
    ])
}

/// What a request came to, as the interface has it: a cancelled segment is no failure of ours.
fn result(verdict: Verdict) -> String {
    if verdict == Verdict::CANCELLED { "0000".to_owned() } else { format!("{:04}", verdict.0) }
}

/// The layout of the interface's own example: a line each, CRLF, nothing indented.
fn document(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"<?xml version=\"1.0\"?>\r\n<smsgw>\r\n");
    for (name, value) in fields {
        Writer::element(&mut out, name, |e| e.text(value));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"</smsgw>\r\n");
    out
}

struct BadField;

struct Fields<'e>(&'e Element);

impl Fields<'_> {
    /// The text of an element, its blanks trimmed. Twice is a mistake.
    fn of(&self, name: &str) -> Result<Option<String>, BadField> {
        Ok(self.whole(name)?.map(|t| t.trim().to_owned()))
    }

    fn whole(&self, name: &str) -> Result<Option<String>, BadField> {
        let mut found = self.0.elements().filter(|e| &*e.name == name);
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(one), None) if one.elements().next().is_none() => Ok(Some(one.text())),
            _ => Err(BadField),
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, BadField> {
        self.of(name)?.map(|t| t.parse().map_err(|_| BadField)).transpose()
    }

    fn hex(&self, name: &str) -> Result<Option<Vec<u8>>, BadField> {
        self.of(name)?.map(|t| hex(&t).ok_or(BadField)).transpose()
    }

    fn address(&self) -> Result<Address, BadField> {
        let reqid = self.of("reqid")?.filter(|r| is_reqid(r)).ok_or(BadField)?;
        let svcid = self.of("svcid")?.filter(|s| is_xpid(s)).ok_or(BadField)?;
        Ok(Address { msn: number(&self.of("msn")?.ok_or(BadField)?).ok_or(BadField)?, reqid, svcid })
    }

    fn push(&self) -> Result<Push, BadField> {
        let content = match self.of("ctrlflg")?.as_deref() {
            Some("1") => self.text()?,
            Some("0") => self.command()?,
            _ => return Err(BadField),
        };
        let vp = self.number("vp")?;
        if vp.is_some_and(|m: u32| !(1..=MAX_VALIDITY).contains(&m)) {
            return Err(BadField);
        }
        let notify = match self.of("notify")?.as_deref() {
            None | Some("1") => true,
            Some("0") => false,
            Some(_) => return Err(BadField),
        };
        let oa = self.of("oa")?.unwrap_or_default();
        if !is_source(&oa) {
            return Err(BadField);
        }
        Ok(Push { address: self.address()?, content, oa, vp, notify })
    }

    fn text(&self) -> Result<Content, BadField> {
        let text = self.whole("text")?.filter(|t| !t.is_empty()).ok_or(BadField)?;
        let coding = match self.of("coding")?.as_deref() {
            None | Some("auto") => Coding::Auto,
            Some("gsm7") => Coding::Gsm7,
            Some("ucs2") => Coding::Ucs2,
            Some(_) => return Err(BadField),
        };
        let mclass = self.number::<u8>("mclass")?;
        if mclass.is_some_and(|c| c > 3) {
            return Err(BadField);
        }
        Ok(Content::Text { text, coding, mclass })
    }

    fn command(&self) -> Result<Content, BadField> {
        let ud = self.hex("ud")?.ok_or(BadField)?;
        let ports = (self.number::<u16>("dstport")?, self.number::<u16>("srcport")?);
        let header = match (self.hex("udh")?, ports) {
            (None, (None, None)) => Header::None,
            (Some(udh), (None, None)) if udh.first().is_some_and(|n| usize::from(*n) + 1 == udh.len()) => {
                Header::Octets(udh)
            }
            (None, (Some(destination), source)) => Header::Ports { destination, source: source.unwrap_or(0) },
            _ => return Err(BadField),
        };
        let octet = |name| match self.of(name)? {
            None => Ok(None),
            // As the handset will have it: two hexadecimal digits, as `ud` and `udh` are.
            Some(t) => hex(&t).filter(|o| o.len() == 1).map(|o| Some(o[0])).ok_or(BadField),
        };
        Ok(Content::Command { ud, header, dcs: octet("dcs")?, pid: octet("pid")?.unwrap_or(0) })
    }
}

impl Push {
    /// Of everything but the request's name: the same again has the same.
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher13::new_with_key(b"isthmus sms push");
        let mut field = |bytes: &[u8]| {
            hasher.write(&(bytes.len() as u64).to_le_bytes());
            hasher.write(bytes);
        };
        match &self.content {
            Content::Text { text, coding, mclass } => {
                field(text.as_bytes());
                field(&[1, *coding as u8, mclass.map_or(255, |c| c)]);
            }
            Content::Command { ud, header, dcs, pid } => {
                field(ud);
                match header {
                    Header::None => field(b""),
                    Header::Octets(udh) => field(udh),
                    Header::Ports { destination, source } => {
                        field(&[destination.to_be_bytes(), source.to_be_bytes()].concat());
                    }
                }
                field(&[0, u8::from(dcs.is_some()), dcs.unwrap_or(0), *pid]);
            }
        }
        field(self.oa.as_bytes());
        field(&self.vp.unwrap_or(0).to_le_bytes());
        field(&[u8::from(self.notify)]);
        hasher.finish()
    }
}

/// With `+` or without; a national number (`090…`) is not one.
pub fn number(text: &str) -> Option<Msisdn> {
    if text.starts_with('+') { text.parse().ok() } else { format!("+{text}").parse().ok() }
}

fn is_reqid(text: &str) -> bool {
    (1..=MAX_REQID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Longest request id. The interface's own are 36 characters.
pub const MAX_REQID: usize = 64;

pub fn is_xpid(text: &str) -> bool {
    text.len() == 11 && text.bytes().all(|b| b.is_ascii_digit())
}

/// A number, a short code, or a name of up to 11 characters (TS 23.040 §9.1.2.5).
pub fn is_source(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let number = (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let name = text.len() <= 11 && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    number || name && !text.starts_with('+')
}

pub(crate) fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

const PUSH: &str = "0101";
const PUSH_RESPONSE: &str = "0102";
const CANCEL: &str = "0201";
const CANCEL_RESPONSE: &str = "0202";
const COMPLETED: &str = "0301";
const CANCELLED: &str = "0401";
const COMWAY: &str = "1101";

#[cfg(test)]
mod tests {
    use super::*;

    fn text_push(more: &str) -> String {
        format!(
            "<smsgw><ctrlflg>1</ctrlflg>{more}<svcid>12345678901</svcid><reqid>r-1</reqid><msn>+819012345678</msn>\
             <fncid> 0101 </fncid><comway>1101</comway></smsgw>"
        )
    }

    fn code(xml: &str) -> u16 {
        read(xml.as_bytes()).map_or_else(|r| r.code.0, |_| 0)
    }

    #[test]
    fn elements_come_in_any_order_and_unknown_ones_are_passed_over() {
        let (command, heading) = read(text_push("<future><x/></future><text> Hello &amp; </text>").as_bytes()).unwrap();
        let Command::Push(push) = command else { panic!("{command:?}") };
        assert_eq!(push.content, Content::Text { text: " Hello & ".into(), coding: Coding::Auto, mclass: None });
        assert_eq!((push.notify, push.vp, push.address.msn.to_string().as_str()), (true, None, "+819012345678"));
        assert_eq!((heading.fncid, heading.reqid.as_str(), heading.svcid.as_str()), ("0102", "r-1", "12345678901"));
    }

    #[test]
    fn an_answer_is_as_long_as_the_interfaces_example() {
        let heading = Heading { fncid: PUSH_RESPONSE, reqid: "r".repeat(36), svcid: "1".repeat(11) };
        assert_eq!(answer(&heading, Code::ACCEPTED).len(), 163);
    }

    #[test]
    fn each_fault_has_its_code() {
        assert_eq!(code("<smsgw>"), 1001);
        assert_eq!(code("<!DOCTYPE smsgw><smsgw/>"), 1001);
        assert_eq!(code("<other/>"), 1001);
        assert_eq!(code(&text_push("<text>a</text>").replace("0101", "0901")), 1003);
        assert_eq!(code(&text_push("<text>a</text>").replace("1101", "1102")), 1003);
        for bad in [
            "",
            "<text></text>",
            "<text>a</text><text>b</text>",
            "<text>a</text><coding>latin</coding>",
            "<text>a</text><mclass>4</mclass>",
            "<text>a</text><vp>0</vp>",
            "<text>a</text><vp>99999</vp>",
            "<text>a</text><notify>2</notify>",
            "<text>a</text><oa>a very long name</oa>",
        ] {
            assert_eq!(code(&text_push(bad)), 1002, "{bad}");
        }
        for (from, to) in [("+819012345678", "09012345678"), ("r-1", "r 1"), ("12345678901", "123")] {
            assert_eq!(code(&text_push("<text>a</text>").replace(from, to)), 1002, "{to}");
        }
    }

    #[test]
    fn commands_carry_octets_and_a_header_or_ports() {
        let command = |more: &str| text_push(more).replace("<ctrlflg>1", "<ctrlflg>0");
        let (read_command, _) =
            read(command("<ud>00ffA0</ud><dstport>2948</dstport><dcs>F5</dcs>").as_bytes()).unwrap();
        let Command::Push(push) = read_command else { panic!() };
        let header = Header::Ports { destination: 2948, source: 0 };
        assert_eq!(push.content, Content::Command { ud: vec![0, 255, 160], header, dcs: Some(0xf5), pid: 0 });
        assert_eq!(code(&command("<ud>00</ud><udh>050415b315b3</udh>")), 0);
        for bad in [
            "<ud>0</ud>",
            "<ud>zz</ud>",
            "",
            "<ud>00</ud><udh>0504</udh>",
            "<ud>00</ud><udh>00</udh><dstport>1</dstport>",
        ] {
            assert_eq!(code(&command(bad)), 1002, "{bad}");
        }
    }

    #[test]
    fn the_digest_is_of_the_content_and_not_of_the_name() {
        let digest = |xml: &str| match read(xml.as_bytes()).unwrap().0 {
            Command::Push(push) => push.digest(),
            Command::Cancel(_) => panic!(),
        };
        let one = digest(&text_push("<text>a</text>"));
        assert_eq!(one, digest(&text_push("<notify>1</notify><text>a</text>").replace("r-1", "r-2")));
        assert_ne!(one, digest(&text_push("<text>b</text>")));
        assert_ne!(one, digest(&text_push("<text>a</text><notify>0</notify>")));
    }
}
