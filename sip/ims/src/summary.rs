//! What waits in a user's mailboxes: `application/simple-message-summary` (RFC 3842 §5).

use std::fmt::Write as _;

/// The kinds of messages (RFC 3458 §6.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Context {
    Voice,
    Video,
    Fax,
    Pager,
    Multimedia,
    Text,
    /// Of no kind.
    Other,
}

impl Context {
    pub const ALL: [Context; 7] = [
        Context::Voice,
        Context::Video,
        Context::Fax,
        Context::Pager,
        Context::Multimedia,
        Context::Text,
        Context::Other,
    ];

    /// As it stands in a summary.
    pub fn as_str(self) -> &'static str {
        match self {
            Context::Voice => "Voice-Message",
            Context::Video => "Video-Message",
            Context::Fax => "Fax-Message",
            Context::Pager => "Pager-Message",
            Context::Multimedia => "Multimedia-Message",
            Context::Text => "Text-Message",
            Context::Other => "None",
        }
    }

    pub fn from_name(name: &str) -> Option<Context> {
        Context::ALL.into_iter().find(|c| c.as_str().eq_ignore_ascii_case(name))
    }
}

/// Messages of one kind. The urgent ones are counted among the others too.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    pub new: u32,
    pub old: u32,
    pub urgent_new: u32,
    pub urgent_old: u32,
}

/// What waits for a user.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    /// URI by which the mailbox is called; at most [`MAX_ACCOUNT`] bytes.
    pub account: Option<String>,
    /// Each kind at most once.
    pub counts: Vec<(Context, Count)>,
}

/// Longest account, in bytes.
pub const MAX_ACCOUNT: usize = 256;
/// Longest summary that is read, in bytes.
const MAX_SUMMARY: usize = 4096;

impl Summary {
    /// Something new is there.
    pub fn is_waiting(&self) -> bool {
        self.counts.iter().any(|(_, count)| count.new > 0)
    }

    /// Whether an account can stand in a summary: a URI without line ends.
    pub fn is_account(text: &str) -> bool {
        let scheme = text.split_once(':').is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
        scheme && text.len() <= MAX_ACCOUNT && text.bytes().all(|b| b.is_ascii_graphic())
    }

    pub fn count(&self, context: Context) -> Count {
        self.counts.iter().find(|(c, _)| *c == context).map(|(_, count)| *count).unwrap_or_default()
    }

    /// The document.
    pub fn to_text(&self) -> String {
        let mut out = format!("Messages-Waiting: {}\r\n", if self.is_waiting() { "yes" } else { "no" });
        // Writing to a string does not fail.
        if let Some(account) = &self.account {
            let _ = write!(out, "Message-Account: {account}\r\n");
        }
        for (context, Count { new, old, urgent_new, urgent_old }) in &self.counts {
            let _ = write!(out, "{}: {new}/{old} ({urgent_new}/{urgent_old})\r\n", context.as_str());
        }
        out
    }

    /// Reads a document; headers of single messages, which may follow behind an empty line, are passed over.
    pub fn parse(text: &[u8]) -> Option<Summary> {
        let text = std::str::from_utf8(text).ok().filter(|t| t.len() <= MAX_SUMMARY)?;
        let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        let (name, state) = lines.next()?.split_once(':')?;
        let state = state.trim();
        let known = state.eq_ignore_ascii_case("yes") || state.eq_ignore_ascii_case("no");
        (name.trim().eq_ignore_ascii_case("Messages-Waiting") && known).then_some(())?;
        let mut summary = Summary::default();
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let (name, value) = (name.trim(), value.trim());
            if name.eq_ignore_ascii_case("Message-Account") {
                summary.account = Some(value.to_owned()).filter(|v| Summary::is_account(v));
                continue;
            }
            // Other kinds may come.
            let Some(context) = Context::from_name(name) else { continue };
            if summary.counts.iter().all(|(c, _)| *c != context) {
                summary.counts.push((context, count(value)?));
            }
        }
        Some(summary)
    }
}

/// `2/8 (0/2)`.
fn count(text: &str) -> Option<Count> {
    let pair = |text: &str| {
        let (new, old) = text.split_once('/')?;
        let number = |t: &str| Some(t.trim()).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse::<u32>().ok();
        Some((number(new)?, number(old)?))
    };
    let (all, urgent) = match text.split_once('(') {
        Some((all, urgent)) => (all, pair(urgent.trim_end().strip_suffix(')')?)?),
        None => (text, (0, 0)),
    };
    let (new, old) = pair(all)?;
    Some(Count { new, old, urgent_new: urgent.0, urgent_old: urgent.1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3842 §4.1, message A5.
    const A5: &[u8] =
        b"Messages-Waiting: yes\r\nMessage-Account: sip:alice@vmail.example.com\r\nVoice-Message: 4/8 (1/2)\r\n\r\n\
        To: <alice@atlanta.example.com>\r\nSubject: carpool tomorrow?\r\n";

    #[test]
    fn the_example_of_the_rfc_reads_and_is_written() {
        let summary = Summary::parse(A5).unwrap();
        let expected = Count { new: 4, old: 8, urgent_new: 1, urgent_old: 2 };
        assert_eq!((summary.count(Context::Voice), summary.counts.len()), (expected, 1));
        assert_eq!(summary.account.as_deref(), Some("sip:alice@vmail.example.com"));
        let text = summary.to_text();
        assert!(A5.starts_with(text.as_bytes()), "{text}");
        assert_eq!(Summary::parse(text.as_bytes()), Some(summary));
    }

    #[test]
    fn odd_documents_are_read_or_refused() {
        let summary = Summary::parse(b"messages-waiting : NO\nTEXT-message:0/1\nSmell-Message: many\n").unwrap();
        assert!(!summary.is_waiting() && summary.count(Context::Text).old == 1);
        assert_eq!(Summary::default().to_text(), "Messages-Waiting: no\r\n");
        for bad in [
            &b""[..],
            b"Voice-Message: 1/2",
            b"Messages-Waiting: perhaps",
            b"Messages-Waiting: yes\r\nVoice-Message: 1",
            b"Messages-Waiting: yes\r\nVoice-Message: 4294967296/0",
            b"Messages-Waiting: yes\r\nVoice-Message: +1/0",
            b"Messages-Waiting: yes\r\nVoice-Message: 1/0 (1/1",
            b"\xff",
        ] {
            assert_eq!(Summary::parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
        assert!(
            !Summary::is_account("sip:a\r\nX: y") && !Summary::is_account("alice") && Summary::is_account("sip:a@h")
        );
    }
}
