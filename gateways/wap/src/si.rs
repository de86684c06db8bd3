//! Service indication (WAP-167-ServiceInd): "something has happened, look here".
//!
//! Token table: WAP-167 §8.3, compared with the one of libwbxml 0.11.8.

use crate::wbxml::{self, Broken, NotWritable, Reader};

const PUBLIC_ID: u8 = 0x05;
const PUBLIC_NAME: &str = "-//WAPFORUM//DTD SI 1.0//EN";

const SI: u8 = 0x05;
const INDICATION: u8 = 0x06;
const SIGNAL_NONE: u8 = 0x05;
const CREATED: u8 = 0x0A;
const HREF: &[(u8, &str)] =
    &[(0x0B, ""), (0x0C, "http://"), (0x0D, "http://www."), (0x0E, "https://"), (0x0F, "https://www.")];
const EXPIRES: u8 = 0x10;
const ID: u8 = 0x11;

/// How loudly the handset tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Action {
    None,
    Low,
    #[default]
    Medium,
    High,
    /// Takes back the indication with the same identifier.
    Delete,
}

/// A time in UTC, as `YYYYMMDDhhmmss` in binary coded decimals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Time(pub [u8; 7]);

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceIndication {
    /// Where to look; without one there is only the text.
    pub href: Option<String>,
    /// `si-id`: a later one with the same identifier replaces this one. Defaults to the address.
    pub id: Option<String>,
    pub created: Option<Time>,
    pub expires: Option<Time>,
    pub action: Action,
    pub text: String,
}

impl Action {
    fn token(self) -> u8 {
        SIGNAL_NONE + self as u8
    }

    fn from_token(token: u8) -> Option<Action> {
        [Action::None, Action::Low, Action::Medium, Action::High, Action::Delete]
            .into_iter()
            .find(|a| a.token() == token)
    }
}

impl Time {
    /// Zero octets at the end are left out (WAP-167 §8.2.2).
    fn write(self, out: &mut Vec<u8>) {
        let length = self.0.iter().rposition(|octet| *octet != 0).map_or(0, |at| at + 1);
        wbxml::opaque(out, &self.0[..length]);
    }

    fn read(octets: &[u8]) -> Result<Time, Broken> {
        let decimal = octets.iter().all(|o| o >> 4 <= 9 && o & 0x0F <= 9);
        if octets.len() > 7 || !decimal {
            return Err(Broken::Time);
        }
        let mut time = [0; 7];
        time[..octets.len()].copy_from_slice(octets);
        Ok(Time(time))
    }
}

impl ServiceIndication {
    /// WBXML, of type `application/vnd.wap.sic`.
    pub fn encode(&self) -> Result<Vec<u8>, NotWritable> {
        let mut out = wbxml::document(PUBLIC_ID);
        wbxml::tag(&mut out, SI, false, true);
        // Always with attributes: the action at least, unless it is the default and there is no other.
        let plain = self.action == Action::Medium && self.href.is_none() && self.id.is_none();
        let attributes = !plain || self.created.is_some() || self.expires.is_some();
        wbxml::tag(&mut out, INDICATION, attributes, !self.text.is_empty());
        if attributes {
            if let Some(href) = &self.href {
                wbxml::href(&mut out, HREF, href)?;
            }
            if let Some(id) = &self.id {
                out.push(ID);
                wbxml::text(&mut out, id)?;
            }
            for (token, time) in [(CREATED, self.created), (EXPIRES, self.expires)] {
                if let Some(time) = time {
                    out.push(token);
                    time.write(&mut out);
                }
            }
            if self.action != Action::Medium {
                out.push(self.action.token());
            }
            wbxml::end(&mut out);
        }
        if !self.text.is_empty() {
            wbxml::text(&mut out, &self.text)?;
            wbxml::end(&mut out);
        }
        wbxml::end(&mut out);
        Ok(out)
    }

    /// `info` and `item` elements are not read.
    pub fn decode(bytes: &[u8]) -> Result<ServiceIndication, Broken> {
        let mut reader = Reader::new(bytes, u32::from(PUBLIC_ID), PUBLIC_NAME)?;
        let (attributes, content) = reader.tag(SI)?;
        if attributes {
            reader.attributes()?;
        }
        let mut si = ServiceIndication::default();
        if !content {
            return Err(Broken::Short);
        }
        let (attributes, content) = reader.tag(INDICATION)?;
        if attributes {
            for attribute in reader.attributes()? {
                let start = attribute.start;
                if let Some(action) = Action::from_token(start) {
                    si.action = action;
                } else if let Some((_, prefix)) = HREF.iter().find(|(token, _)| *token == start) {
                    si.href = Some(format!("{prefix}{}", attribute.text));
                } else if start == ID {
                    si.id = Some(attribute.text);
                } else if start == CREATED {
                    si.created = Some(Time::read(&attribute.opaque)?);
                } else if start == EXPIRES {
                    si.expires = Some(Time::read(&attribute.opaque)?);
                } else {
                    return Err(Broken::Token(start));
                }
            }
        }
        if content {
            si.text = reader.content()?;
            reader.end()?;
        }
        reader.end()?;
        reader.finish()?;
        Ok(si)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of WAP-167 §8.5.
    #[test]
    fn the_example_of_the_specification() {
        let si = ServiceIndication {
            href: Some("http://www.xyz.com/email/123/abc.wml".to_owned()),
            created: Some(Time([0x19, 0x99, 0x06, 0x25, 0x15, 0x23, 0x15])),
            expires: Some(Time([0x19, 0x99, 0x06, 0x30, 0, 0, 0])),
            text: "You have 4 new emails".to_owned(),
            ..ServiceIndication::default()
        };
        let octets = [
            &[0x02, 0x05, 0x6A, 0x00, 0x45, 0xC6, 0x0D, 0x03][..],
            b"xyz",
            &[0x00, 0x85, 0x03],
            b"email/123/abc.wml",
            &[
                0x00, 0x0A, 0xC3, 0x07, 0x19, 0x99, 0x06, 0x25, 0x15, 0x23, 0x15, 0x10, 0xC3, 0x04, 0x19, 0x99, 0x06,
                0x30, 0x01, 0x03,
            ],
            b"You have 4 new emails",
            &[0x00, 0x01, 0x01],
        ]
        .concat();
        assert_eq!(si.encode().unwrap(), octets);
        assert_eq!(ServiceIndication::decode(&octets), Ok(si));
    }

    #[test]
    fn what_xml_does_not_allow_is_not_written() {
        let si = |text: &str| ServiceIndication { text: text.to_owned(), ..ServiceIndication::default() };
        assert_eq!(si("a\0b").encode(), Err(NotWritable));
        assert!(si("a<b & c").encode().is_ok());
    }

    fn any_time() -> impl Strategy<Value = Option<Time>> {
        let bcd = || (0u8..10, 0u8..10).prop_map(|(high, low)| high << 4 | low);
        prop::option::of([bcd(), bcd(), bcd(), bcd(), bcd(), bcd(), bcd()].prop_map(Time))
    }

    proptest! {
        #[test]
        fn indications_read_back(
            href in prop::option::of("(https?://)?(www\\.)?[a-z]{1,9}(\\.com/|\\.org/|\\.net/|/)[a-z.]{0,30}"),
            id in prop::option::of("[a-z0-9]{1,20}"), created in any_time(), expires in any_time(),
            action in 0usize..5, text in "[a-zäж&<>]{0,30}",
        ) {
            let action = [Action::None, Action::Low, Action::Medium, Action::High, Action::Delete][action];
            let si = ServiceIndication { href, id, created, expires, action, text };
            prop_assert_eq!(ServiceIndication::decode(&si.encode().unwrap()), Ok(si));
        }

        #[test]
        fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = ServiceIndication::decode(&octets);
            let _ = ServiceIndication::decode(&[&[2, 5, 0x6A, 0, 0x45, 0xC6], &octets[..]].concat());
        }
    }
}
