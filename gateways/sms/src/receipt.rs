//! Delivery receipts: what SMSCs write about the end of a message, in all their dialects, read into one type.
//!
//! A receipt comes in a deliver_sm or data_sm: as text (SMPP 3.4 appendix B suggests a form that everyone varies), as TLVs
//! (receipted_message_id, message_state), or both; the TLVs are believed first. The identifier may be in another base than the
//! one in submit_sm_resp: [`keys`] gives every spelling to look for.

/// Bytes of text that are looked at: dialects put their fields first, the quoted message last.
const MAX_TEXT: usize = 1024;
/// Bytes of an identifier (SMPP 3.4 §5.2.23: 64 and a NUL).
const MAX_ID: usize = 65;
/// Bytes of any other value.
const MAX_VALUE: usize = 32;

/// What a PDU says, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Source<'a> {
    /// short_message or message_payload, in septets or octets: receipts are ASCII.
    pub text: &'a [u8],
    /// TLV 0x001E, with or without its NUL.
    pub receipted_message_id: Option<&'a [u8]>,
    /// TLV 0x0427.
    pub message_state: Option<u8>,
    /// TLV 0x0423.
    pub network_error: Option<[u8; 3]>,
}

/// How a message ended, or where it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    Scheduled,
    Enroute,
    Delivered,
    Expired,
    Deleted,
    Undeliverable,
    /// Read by an operator or a service on the addressee's behalf: not final for some SMSCs, so not for us.
    Accepted,
    /// The SMSC does not know what became of it.
    Unknown,
    Rejected,
    Skipped,
}

impl State {
    /// SMPP 5.0 §4.7.15.
    pub fn from_octet(octet: u8) -> Option<State> {
        Some(match octet {
            0 => State::Scheduled,
            1 => State::Enroute,
            2 => State::Delivered,
            3 => State::Expired,
            4 => State::Deleted,
            5 => State::Undeliverable,
            6 => State::Accepted,
            7 => State::Unknown,
            8 => State::Rejected,
            9 => State::Skipped,
            _ => return None,
        })
    }

    /// SMPP 5.0 §4.7.15.
    pub fn octet(self) -> u8 {
        self as u8
    }

    /// Nothing more will come.
    pub fn is_final(self) -> bool {
        !matches!(self, State::Scheduled | State::Enroute | State::Accepted)
    }

    /// The seven letters of SMPP 3.4 appendix B.
    pub fn word(self) -> &'static str {
        match self {
            State::Scheduled => "SCHEDUL",
            State::Enroute => "ENROUTE",
            State::Delivered => "DELIVRD",
            State::Expired => "EXPIRED",
            State::Deleted => "DELETED",
            State::Undeliverable => "UNDELIV",
            State::Accepted => "ACCEPTD",
            State::Unknown => "UNKNOWN",
            State::Rejected => "REJECTD",
            State::Skipped => "SKIPPED",
        }
    }

    /// The words of the field, by their first letters; digits are taken as message_state.
    fn from_word(word: &[u8]) -> Option<State> {
        if let [digit @ b'0'..=b'9'] = word {
            return State::from_octet(digit - b'0');
        }
        let upper = word.to_ascii_uppercase();
        let starts = |prefix: &str| upper.starts_with(prefix.as_bytes());
        Some(match () {
            () if starts("DELIV") || starts("DLVRD") => State::Delivered,
            () if starts("UNDEL") || starts("FAIL") => State::Undeliverable,
            () if starts("EXPIR") => State::Expired,
            () if starts("DELET") || starts("CANCEL") => State::Deleted,
            () if starts("REJ") || starts("BLOCK") => State::Rejected,
            () if starts("ACCEP") || starts("ACKED") => State::Accepted,
            () if starts("ENROU") || starts("BUFFER") || starts("SENT") || starts("SUBMIT") || starts("QUEUED") => {
                State::Enroute
            }
            () if starts("SCHED") => State::Scheduled,
            () if starts("SKIP") => State::Skipped,
            () if starts("UNKN") || starts("UNREC") || starts("NOROUTE") => State::Unknown,
            () => return None,
        })
    }
}

/// A receipt. Text is as received, bounded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// As the SMSC spells it; look for [`keys`] of it.
    pub id: String,
    pub state: State,
    /// `err`: the SMSC's own code, or the code of the network_error_code TLV.
    pub error: Option<String>,
    /// `YYMMDDhhmm[ss]`, in the SMSC's time zone, which it does not tell.
    pub submitted: Option<String>,
    pub done: Option<String>,
}

/// Reads a receipt. `None`: not one, or one that says neither which message nor what became of it.
pub fn parse(source: &Source<'_>) -> Option<Receipt> {
    let fields = fields(&source.text[..source.text.len().min(MAX_TEXT)]);
    let of = |keys: &[&str]| fields.iter().find(|(key, _)| keys.contains(&key.as_str())).map(|(_, value)| *value);
    let tlv = source.receipted_message_id.map(|id| id.split(|b| *b == 0).next().unwrap_or_default());
    let id = tlv.filter(|id| !id.is_empty()).or_else(|| of(&["id", "msgid", "messageid", "smscid"]))?;
    let id = bounded(id, MAX_ID)?;
    let word = || of(&["stat", "status", "state", "stats", "messagestate"]).and_then(State::from_word);
    let state = source.message_state.and_then(State::from_octet).or_else(word)?;
    let network = source.network_error.map(|[_, high, low]| u16::from_be_bytes([high, low]).to_string());
    let text = |keys: &[&str]| of(keys).and_then(|value| bounded(value, MAX_VALUE));
    Some(Receipt {
        id,
        state,
        error: text(&["err", "error", "errorcode", "errcode"]).or(network),
        submitted: text(&["submitdate", "sd"]),
        done: text(&["donedate", "dd"]),
    })
}

fn bounded(value: &[u8], most: usize) -> Option<String> {
    let printable = !value.is_empty() && value.len() <= most && value.iter().all(u8::is_ascii_graphic);
    printable.then(|| String::from_utf8_lossy(value).into_owned())
}

/// Words that are keys, squeezed: no spaces, underscores or hyphens, lower case. Two that belong together come joined.
const KEYS: &[&str] = &[
    "id",
    "msgid",
    "messageid",
    "smscid",
    "sub",
    "dlvrd",
    "submitdate",
    "donedate",
    "sd",
    "dd",
    "stat",
    "status",
    "state",
    "stats",
    "messagestate",
    "err",
    "error",
    "errorcode",
    "errcode",
    "text",
];

/// `key:value` or `key=value`, with spaces, commas or semicolons between, in any order; spaces after the colon, within the key
/// (`submit date`), or none at all before the next key are borne. The quoted text ends it.
fn fields(text: &[u8]) -> Vec<(String, &[u8])> {
    let mut fields: Vec<(String, &[u8])> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| matches!(b, b':' | b'=')) {
        let key = last_key(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(key) = key else { continue };
        if key == "text" {
            break;
        }
        let value = rest.trim_ascii_start();
        let end = value.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b',' | b';' | b'|'));
        let mut value = &value[..end.unwrap_or(value.len())];
        // An absent value: the next key stands where it should be.
        if let Some(colon) = value.iter().position(|b| *b == b':') {
            value = &value[..colon];
            if KEYS.contains(&squeezed(value).as_str()) {
                continue;
            }
        }
        let value = value.trim_ascii_end();
        let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
        if !fields.iter().any(|(k, _)| *k == key) {
            fields.push((key, value));
        }
    }
    fields
}

/// The key that ends `before`: its last two words together if that is one, else its last.
fn last_key(before: &[u8]) -> Option<String> {
    let words: Vec<&[u8]> = before
        .rsplit(|b| b.is_ascii_whitespace() || matches!(b, b',' | b';' | b'|' | b'"' | b'{'))
        .filter(|w| !w.is_empty())
        .take(2)
        .collect();
    let last = squeezed(words.first()?);
    let joined = words.get(1).map(|w| squeezed(w) + &last);
    let known = |key: &String| KEYS.contains(&key.as_str());
    joined.filter(known).or(Some(last).filter(known))
}

fn squeezed(word: &[u8]) -> String {
    let letters = word.iter().filter(|b| b.is_ascii_alphanumeric()).take(16);
    letters.map(|b| char::from(b.to_ascii_lowercase())).collect()
}

/// One spelling of an identifier, to store and look up: lower case, without leading zeros or spaces.
pub fn key(id: &str) -> String {
    let lower = id.trim().to_ascii_lowercase();
    let bare = lower.strip_prefix("0x").unwrap_or(&lower).trim_start_matches('0');
    if bare.is_empty() { "0".to_owned() } else { bare.to_owned() }
}

/// The [`key`]s under which the message of a receipt may be stored, the likeliest first: as it is; in hexadecimal, if it is
/// a decimal number; in decimal, if it is a hexadecimal one.
pub fn keys(id: &str) -> Vec<String> {
    let same = key(id);
    let other = [
        same.parse::<u128>().ok().map(|n| format!("{n:x}")),
        u128::from_str_radix(&same, 16).ok().map(|n| n.to_string()),
    ];
    let mut keys = vec![same];
    for key in other.into_iter().flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// A receipt as SMPP 3.4 appendix B has it, for the ESMEs that bind to us. Dates are `YYMMDDhhmm`; `text` should be the first
/// 20 characters, in ASCII.
pub fn write(id: &str, state: State, submitted: &str, done: &str, error: u16, text: &str) -> String {
    let delivered = u8::from(state == State::Delivered);
    let state = state.word();
    format!(
        "id:{id} sub:001 dlvrd:{delivered:03} submit date:{submitted} done date:{done} stat:{state} err:{error:03} text:{text}"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Option<Receipt> {
        parse(&Source { text: text.as_bytes(), ..Source::default() })
    }

    fn both(dialect: &str) -> (String, State) {
        let receipt = text(dialect).unwrap_or_else(|| panic!("{dialect}"));
        (receipt.id, receipt.state)
    }

    #[test]
    fn the_form_of_appendix_b() {
        let receipt =
            text("id:0123456789 sub:001 dlvrd:001 submit date:1209252356 done date:1209252357 stat:DELIVRD err:000 Text:id:9 stat:EXPIRED")
                .unwrap();
        assert_eq!((receipt.id.as_str(), receipt.state), ("0123456789", State::Delivered));
        assert_eq!(receipt.error.as_deref(), Some("000"));
        assert_eq!((receipt.submitted.as_deref(), receipt.done.as_deref()), (Some("1209252356"), Some("1209252357")));
    }

    #[test]
    fn the_dialects_of_the_field() {
        for (dialect, id, state) in [
            (
                "ID:abc-1 SUB:1 DLVRD:1 SUBMIT DATE:120925235612 DONE DATE:120925235712 STAT:DELIVERED ERR:0",
                "abc-1",
                State::Delivered,
            ),
            (
                "id:17 submitdate:1209252356 donedate:1209252356 stat:UNDELIVERABLE err:0x45 text:",
                "17",
                State::Undeliverable,
            ),
            ("id:17 submit_date:1 done_date:2 status:EXPIRED error:12", "17", State::Expired),
            ("id: 17 stat: REJECTED", "17", State::Rejected),
            ("id:17,sub:001,dlvrd:000,submit date:1,done date:2,stat:DELETED,err:1,text:x", "17", State::Deleted),
            ("id=17;stat=ACCEPTD", "17", State::Accepted),
            ("id:\"17\" stat:ENROUTE", "17", State::Enroute),
            ("stat:DELIVRD id:17", "17", State::Delivered),
            ("msg_id:17 stat:FAILED", "17", State::Undeliverable),
            ("message id:17 state:2", "17", State::Delivered),
            ("id:17 err: stat:UNKNOWN", "17", State::Unknown),
            (
                "id:7220bb6bd0be98fa628de66590f80070 sub:001 dlvrd:001 submit date:150308 done date:1503 stat:UNDELIV",
                "7220bb6bd0be98fa628de66590f80070",
                State::Undeliverable,
            ),
        ] {
            assert_eq!(both(dialect), (id.to_owned(), state), "{dialect}");
        }
    }

    #[test]
    fn tlvs_alone_are_enough_and_go_before_text() {
        let source = Source {
            text: b"id:5 stat:EXPIRED err:1",
            receipted_message_id: Some(b"A1\0"),
            message_state: Some(2),
            network_error: Some([3, 0, 8]),
        };
        let receipt = parse(&source).unwrap();
        assert_eq!((receipt.id.as_str(), receipt.state, receipt.error.as_deref()), ("A1", State::Delivered, Some("1")));
        let receipt = parse(&Source { text: b"", ..source }).unwrap();
        assert_eq!((receipt.id.as_str(), receipt.error.as_deref()), ("A1", Some("8")));
        assert_eq!(parse(&Source { receipted_message_id: Some(b"A1"), ..Source::default() }), None);
    }

    #[test]
    fn what_is_no_receipt_is_none() {
        for other in ["", "hello: world", "id:5", "stat:DELIVRD", "id:5 stat:WHATEVER", "text:id:5 stat:DELIVRD"] {
            assert_eq!(text(other), None, "{other}");
        }
        assert_eq!(text(&format!("id:{} stat:DELIVRD", "9".repeat(66))), None);
        assert_eq!(text("id:\u{1}\u{2} stat:DELIVRD"), None);
    }

    #[test]
    fn decimal_and_hexadecimal_are_the_same_message() {
        // submit_sm_resp said 0x1F2E, the receipt 7982; or the other way round.
        assert!(keys("7982").contains(&key("00001F2E")));
        assert!(keys("1f2e").contains(&key("7982")));
        assert!(keys("0000007982").contains(&key("7982")));
        assert_eq!(keys("abc-1"), ["abc-1"]);
        assert_eq!(key("000"), "0");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&Source { text: &bytes, ..Source::default() });
        }

        #[test]
        fn what_we_write_we_read(id in "[0-9a-zA-Z-]{1,64}", octet in 0u8..10, error in 0u16..1000, quoted in "[ -~]{0,20}") {
            let state = State::from_octet(octet).unwrap();
            let receipt = text(&write(&id, state, "2601020304", "2601020305", error, &quoted)).unwrap();
            prop_assert_eq!((&receipt.id, receipt.state), (&id, state));
            prop_assert_eq!(receipt.error, Some(format!("{error:03}")));
            prop_assert_eq!(receipt.done.as_deref(), Some("2601020305"));
        }
    }
}
