//! WAP pushes as developers ask for them: a service indication (WAP-167) or service loading (WAP-168), in WSP's push to port 2948.

use gw_wap::push::{Application, ContentType, Push};
use gw_wap::{NotWritable, PUSH_PORT, SESSION_PORT, si, sl};
use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::push::message::{Content, Header};

/// "Something has happened": shown with the address where to look.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Indication {
    pub text: String,
    /// Where to look; without one there is only the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub href: Option<String>,
    /// A later indication with the same takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// RFC 3339; afterwards the handset forgets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Signal>,
}

/// How loudly it is told; left out: medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    None,
    Low,
    Medium,
    High,
    /// Takes back the one with the same id.
    Delete,
}

/// "Load this."
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Loading {
    pub href: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Load>,
}

/// What becomes of what is loaded; left out: execute, low.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Load {
    #[serde(rename = "execute-low")]
    Low,
    #[serde(rename = "execute-high")]
    High,
    #[serde(rename = "cache")]
    Cache,
}

impl Indication {
    pub fn content(&self) -> Result<Content, Refusal> {
        let action = match self.action {
            Some(Signal::None) => si::Action::None,
            Some(Signal::Low) => si::Action::Low,
            None | Some(Signal::Medium) => si::Action::Medium,
            Some(Signal::High) => si::Action::High,
            Some(Signal::Delete) => si::Action::Delete,
        };
        if action == si::Action::Delete && self.id.is_none() {
            return Err(Refusal::argument("indication.action: what is deleted has an id"));
        }
        let indication = si::ServiceIndication {
            href: self.href.clone(),
            id: self.id.clone(),
            created: None,
            expires: self.expires.as_deref().map(time).transpose()?,
            action,
            text: self.text.clone(),
        };
        content(ContentType::ServiceIndication, indication.encode().map_err(|why| unwritable("indication", why))?)
    }
}

impl Loading {
    pub fn content(&self) -> Result<Content, Refusal> {
        let action = match self.action {
            None | Some(Load::Low) => sl::Action::ExecuteLow,
            Some(Load::High) => sl::Action::ExecuteHigh,
            Some(Load::Cache) => sl::Action::Cache,
        };
        let loading = sl::ServiceLoading { href: self.href.clone(), action };
        content(ContentType::ServiceLoading, loading.encode().map_err(|why| unwritable("loading", why))?)
    }
}

fn content(kind: ContentType, body: Vec<u8>) -> Result<Content, Refusal> {
    // Nothing answers a push, so its transaction needs no number of its own.
    let push = Push { charset: Some(UTF_8), ..Push::new(1, kind, Application::WML, body) };
    let header = Header::Ports { destination: PUSH_PORT, source: SESSION_PORT };
    Ok(Content::Command { ud: push.encode(), header, dcs: None, pid: 0 })
}

fn unwritable(what: &str, why: NotWritable) -> Refusal {
    Refusal::argument(format!("{what}: {why}"))
}

fn time(text: &str) -> Result<si::Time, Refusal> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| Refusal::argument("indication.expires: not a time of RFC 3339"))?;
    let digits = time.strftime("%Y%m%d%H%M%S").to_string();
    let pairs: Vec<u8> = digits.bytes().map(|d| d & 0x0F).collect();
    let octets: Vec<u8> = pairs.chunks(2).map(|p| p.iter().fold(0, |octet, digit| octet << 4 | digit)).collect();
    let octets = octets.try_into().map_err(|_| Refusal::argument("indication.expires: too far away"))?;
    Ok(si::Time(octets))
}

/// Its number among the character sets of IANA (MIBenum).
const UTF_8: u32 = 106;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_indication_is_a_push_to_its_port() {
        let asked = r#"{"text":"You have mail","href":"https://www.example.com/mail","id":"box-1","action":"high","expires":"2026-11-28T09:00:00+09:00"}"#;
        let indication: Indication = serde_json::from_str(asked).unwrap();
        let Ok(Content::Command { ud, header, .. }) = indication.content() else { panic!() };
        assert_eq!(header, Header::Ports { destination: 2948, source: 9200 });
        let push = Push::decode(&ud).unwrap();
        assert_eq!((push.content_type, push.charset), (ContentType::ServiceIndication, Some(106)));
        let read = si::ServiceIndication::decode(&push.body).unwrap();
        assert_eq!((read.text.as_str(), read.action), ("You have mail", si::Action::High));
        assert_eq!(read.expires, Some(si::Time([0x20, 0x26, 0x11, 0x28, 0, 0, 0])));
    }

    #[test]
    fn loading_is_one_too() {
        let loading: Loading = serde_json::from_str(r#"{"href":"http://a.example/","action":"cache"}"#).unwrap();
        let Ok(Content::Command { ud, .. }) = loading.content() else { panic!() };
        let push = Push::decode(&ud).unwrap();
        let read = sl::ServiceLoading::decode(&push.body).unwrap();
        assert_eq!((push.content_type, read.action), (ContentType::ServiceLoading, sl::Action::Cache));
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        for bad in
            [r#"{"text":"a","action":"delete"}"#, r#"{"text":"a","expires":"tomorrow"}"#, "{\"text\":\"a\\u0000b\"}"]
        {
            let indication: Indication = serde_json::from_str(bad).unwrap();
            assert_eq!(indication.content().err().map(|r| r.status), Some(400), "{bad}");
        }
    }
}
