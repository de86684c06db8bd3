//! Short messages for developers (W11): JSON over HTTP, on the same queue as the push interface.
//!
//! Follows CAMARA's short-message-service draft (docs/api/camara) and adds what it lacks: several recipients with an end each, queries,
//! cancellation, validity, binary messages, idempotency. [`request`] reads what is asked, [`service`] decides and answers,
//! [`subscription`] keeps whom to tell, [`webhook`] tells them. Who asks has proved it at the server's door (OAuth 2.0), which also asks
//! for the scope. docs/sms-api.md tells developers.
//!
//! Start at [`service::MessageService::send`].

pub mod letter;
pub mod quota;
pub mod request;
pub mod service;
mod shelf;
pub mod subscription;
mod wap;
pub mod webhook;

use serde::de::DeserializeOwned;
use serde_json::Value;
use sip_ims::ports::StoreError;

use crate::push::Code;
use crate::queue::Verdict;

/// Why something is not done, as CAMARA's APIs say it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// HTTP's.
    pub status: u16,
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Seconds.
    pub retry_after: Option<u32>,
}

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into(), retry_after: None }
    }

    pub fn argument(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "INVALID_ARGUMENT", message)
    }

    fn denied(message: impl Into<String>) -> Refusal {
        Refusal::new(403, "PERMISSION_DENIED", message)
    }

    fn not_found(what: &str) -> Refusal {
        Refusal::new(404, "NOT_FOUND", format!("no such {what}"))
    }

    fn later(status: u16, code: &'static str, message: &str, seconds: u32) -> Refusal {
        Refusal { retry_after: Some(seconds), ..Refusal::new(status, code, message) }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        match error {
            StoreError::Full | StoreError::Closed => Refusal::later(503, "UNAVAILABLE", "too much waits already", 5),
            _ => Refusal::new(500, "INTERNAL", "the store failed"),
        }
    }
}

/// Of what cannot be made into segments.
impl From<Code> for Refusal {
    fn from(code: Code) -> Refusal {
        match code {
            Code::TOO_MANY_SEGMENTS => Refusal::new(400, "OUT_OF_RANGE", "the message takes more than ten segments"),
            Code::SEGMENTATION_OFF => {
                Refusal::new(400, "OUT_OF_RANGE", "the message is longer than one, and the contract has no longer ones")
            }
            Code::NOT_ENCODABLE => Refusal::argument("the message has characters that gsm7 lacks"),
            Code::BAD_FIELD => Refusal::argument("the user data and its header do not go together"),
            _ => Refusal::new(500, "INTERNAL", "the message cannot be sent"),
        }
    }
}

/// Why a segment did not arrive, in a word. `None`: it did.
pub fn reason(verdict: Verdict) -> Option<&'static str> {
    Some(match verdict.0 {
        0 => return None,
        1 => "CANCELLED",
        6001 => "EXPIRED",
        6003 => "REJECTED",
        6011 => "ROAMING",
        6012 => "SUSPENDED",
        6013 => "SPAM_BLOCK",
        6014 => "LIMIT_EXCEEDED",
        6015 => "PACKET_ROAMING",
        _ => "UNDELIVERABLE",
    })
}

/// Reads a JSON object.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    // What is derived would take an array of the values as well.
    if body.trim_ascii_start().first().is_some_and(|b| *b != b'{') {
        return Err(Refusal::argument("must be a JSON object"));
    }
    let wrong = |error: serde_json::Error| Refusal::argument(error.to_string());
    let value = serde_json::from_slice(body).map_err(wrong)?;
    // Nor is null a way to leave something out.
    if has_null(&serde_json::from_slice(body).map_err(wrong)?) {
        return Err(Refusal::argument("a property that is null must be left out"));
    }
    Ok(value)
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.iter().any(has_null),
        Value::Object(map) => map.values().any(has_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// RFC 3339, UTC.
fn timestamp(unix_ms: i64) -> String {
    let at = crate::billing::Calendar::utc().timestamp(unix_ms);
    at.strip_suffix("+00:00").map_or_else(|| at.clone(), |t| format!("{t}.{:03}Z", unix_ms.rem_euclid(1_000)))
}

/// Drawn, in the layout of a UUID (RFC 9562 §5.4), or made of something, in that of §5.8.
fn uuid(mut bits: u128, version: u128) -> String {
    bits = bits & !(0xf << 76) & !(0b11 << 62) | version << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_look_like_uuids() {
        let name = uuid(u128::MAX, 4);
        assert_eq!(name, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(0, 8), "00000000-0000-8000-8000-000000000000");
    }

    #[test]
    fn times_have_milliseconds_and_are_utc() {
        assert_eq!(timestamp(1_795_707_000_042), "2026-11-26T15:30:00.042Z");
    }
}
