//! What a developer asks, read strictly: an unknown property is a mistake.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sip_ims::Msisdn;

use super::Refusal;
use super::wap::{Indication, Loading};
use crate::push::message::{Coding, Content, Header, MAX_VALIDITY, hex};

/// Recipients of one message.
pub const MAX_RECIPIENTS: usize = 100;

/// Longest request, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// CAMARA's `MessageRequest` and our additions.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MessageRequest {
    /// International numbers with `+`, 1 to [`MAX_RECIPIENTS`].
    pub to: Vec<String>,
    /// One of the agreement's senders; left out: the agreement's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// The text; or else one of `binary`, `indication` and `loading`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// TS 23.038 §4: 0 (shown at once) to 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_class: Option<u8>,
    /// Minutes for which delivery is tried, 1 to [`MAX_VALIDITY`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<Binary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indication: Option<Indication>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loading: Option<Loading>,
}

/// Promotions go behind everything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Category {
    Promotion,
    Service,
    Transaction,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// The cheapest that loses nothing.
    Auto,
    Gsm7,
    Ucs2,
}

/// A message for a device; octets in hexadecimal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Binary {
    pub user_data: String,
    /// With its length octet; or else ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data_header: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// TS 23.038 §4; left out: 8-bit data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_coding: Option<u8>,
    /// TS 23.040 §9.2.3.9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_id: Option<u8>,
}

impl MessageRequest {
    /// Reads a body of at most [`MAX_BODY`] bytes.
    pub fn read(body: &[u8]) -> Result<MessageRequest, Refusal> {
        super::read(body)
    }

    /// The recipients, each once.
    pub fn recipients(&self) -> Result<Vec<Msisdn>, Refusal> {
        if !(1..=MAX_RECIPIENTS).contains(&self.to.len()) {
            return Err(Refusal::argument(format!("to: must hold 1 to {MAX_RECIPIENTS} numbers")));
        }
        let mut seen = HashSet::with_capacity(self.to.len());
        let mut all = Vec::with_capacity(self.to.len());
        for (n, text) in self.to.iter().enumerate() {
            let number = text
                .parse::<Msisdn>()
                .map_err(|_| Refusal::argument(format!("to[{n}]: not an international number")))?;
            if !seen.insert(number) {
                return Err(Refusal::argument(format!("to[{n}]: stands twice")));
            }
            all.push(number);
        }
        Ok(all)
    }

    /// What is to be sent.
    pub fn content(&self) -> Result<Content, Refusal> {
        let others = [self.binary.is_some(), self.indication.is_some(), self.loading.is_some()];
        let others = others.into_iter().filter(|other| *other).count();
        if others > 0 && (self.encoding.is_some() || self.message_class.is_some()) && self.message.is_none() {
            return Err(Refusal::argument("encoding, messageClass: of texts only"));
        }
        match &self.message {
            Some(text) if !text.is_empty() && others == 0 => {
                if self.message_class.is_some_and(|c| c > 3) {
                    return Err(Refusal::argument("messageClass: must be 0 to 3"));
                }
                let coding = match self.encoding {
                    None | Some(Encoding::Auto) => Coding::Auto,
                    Some(Encoding::Gsm7) => Coding::Gsm7,
                    Some(Encoding::Ucs2) => Coding::Ucs2,
                };
                Ok(Content::Text { text: text.clone(), coding, mclass: self.message_class })
            }
            None if others == 1 => {
                let binary = self.binary.as_ref().map(Binary::content);
                let indication = || self.indication.as_ref().map(Indication::content);
                let loading = || self.loading.as_ref().map(Loading::content);
                // One of them is there.
                binary.or_else(indication).or_else(loading).unwrap_or_else(|| Err(Refusal::argument(NOTHING)))
            }
            _ => Err(Refusal::argument(NOTHING)),
        }
    }

    /// Minutes.
    pub fn validity(&self) -> Result<Option<u32>, Refusal> {
        match self.validity {
            Some(minutes) if !(1..=MAX_VALIDITY).contains(&minutes) => {
                Err(Refusal::new(400, "OUT_OF_RANGE", format!("validity: must be 1 to {MAX_VALIDITY} minutes")))
            }
            validity => Ok(validity),
        }
    }

    /// The same request has the same, in hexadecimal.
    pub fn digest(&self) -> String {
        // A struct of strings and numbers: writing it cannot fail.
        let text = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl Binary {
    fn content(&self) -> Result<Content, Refusal> {
        let octets = |key: &str, text: &str| {
            hex(text).ok_or_else(|| Refusal::argument(format!("binary.{key}: must be octets in hexadecimal")))
        };
        let header = match (&self.user_data_header, self.destination_port) {
            (None, None) if self.source_port.is_none() => Header::None,
            (Some(text), None) if self.source_port.is_none() => {
                let header = octets("userDataHeader", text)?;
                if header.first().is_none_or(|n| usize::from(*n) + 1 != header.len()) {
                    return Err(Refusal::argument("binary.userDataHeader: must begin with its length"));
                }
                Header::Octets(header)
            }
            (None, Some(destination)) => Header::Ports { destination, source: self.source_port.unwrap_or_default() },
            _ => return Err(Refusal::argument("binary: either a userDataHeader or ports")),
        };
        Ok(Content::Command {
            ud: octets("userData", &self.user_data)?,
            header,
            dcs: self.data_coding,
            pid: self.protocol_id.unwrap_or_default(),
        })
    }
}

const NOTHING: &str = "exactly one of message, binary, indication and loading must say something";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(Vec<Msisdn>, Content), Refusal> {
        let request = MessageRequest::read(json.as_bytes())?;
        Ok((request.recipients()?, request.content()?))
    }

    #[test]
    fn a_request_of_the_draft_is_read() {
        let (to, content) =
            read(r#"{"to":["+910123456789"],"from":"+919876543210","category":"PROMOTION","message":"xxxxxxxxxx"}"#)
                .unwrap();
        assert_eq!(to.len(), 1);
        assert_eq!(content, Content::Text { text: "xxxxxxxxxx".into(), coding: Coding::Auto, mclass: None });
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (bad, says) in [
            ("", "EOF"),
            ("[]", "object"),
            (r#"{"to":[],"message":"a"}"#, "to:"),
            (r#"{"to":["12345678"],"message":"a"}"#, "to[0]"),
            (r#"{"to":["+12345678","+1 234 5678"],"message":"a"}"#, "to[1]"),
            (r#"{"to":["+12345678","+12345678"],"message":"a"}"#, "twice"),
            (r#"{"to":["+12345678"]}"#, "exactly one"),
            (r#"{"to":["+12345678"],"message":""}"#, "exactly one"),
            (r#"{"to":["+12345678"],"message":"a","binary":{"userData":"00"}}"#, "exactly one"),
            (r#"{"to":["+12345678"],"mesage":"a"}"#, "mesage"),
            (r#"{"to":["+12345678"],"message":"a","category":"SPAM"}"#, "SPAM"),
            (r#"{"to":["+12345678"],"message":"a","from":null}"#, "null"),
            (r#"{"to":["+12345678"],"message":"a","message":"b"}"#, "duplicate"),
            (r#"{"to":["+12345678"],"message":"a","messageClass":4}"#, "messageClass"),
            (r#"{"to":["+12345678"],"binary":{"userData":"0"}}"#, "userData"),
            (r#"{"to":["+12345678"],"binary":{"userData":"00","userDataHeader":"0504"}}"#, "length"),
            (r#"{"to":["+12345678"],"binary":{"userData":"00","sourcePort":1}}"#, "either"),
            (r#"{"to":["+12345678"],"binary":{"userData":"00"},"encoding":"ucs2"}"#, "texts"),
        ] {
            let refusal = read(bad).map(|_| ()).unwrap_err();
            assert!(refusal.status == 400 && refusal.message.contains(says), "{bad}: {refusal:?}");
        }
    }

    #[test]
    fn the_same_request_has_the_same_digest() {
        let of = |json: &str| MessageRequest::read(json.as_bytes()).unwrap().digest();
        assert_eq!(of(r#"{"to":["+12345678"],"message":"a"}"#), of(r#"{"message":"a", "to":["+12345678"]}"#));
        assert_ne!(of(r#"{"to":["+12345678"],"message":"a"}"#), of(r#"{"message":"b","to":["+12345678"]}"#));
    }
}
