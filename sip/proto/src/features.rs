//! Feature sets (RFC 3840): what a contact can do by the parameters of its Contact, whether that suits a caller (RFC 3841), and
//! what several contacts can do together.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::headers::{Event, Params, list, unquoted};
use crate::message::{Message, is_token};
use crate::method::Method;
use crate::name::HeaderName;

/// Values of Accept-Contact and Reject-Contact, of each, that are looked at; the rest says nothing.
pub const MAX_PREFERENCES: usize = 16;
/// Tags of a [`Union`], and bytes of all of it.
const MAX_TAGS: usize = 64;
const MAX_UNION: usize = 4096;

/// RFC 3840 §9, in the order of its table; all others begin with `+`.
const BASE: [&str; 21] = [
    "audio",
    "automata",
    "class",
    "duplex",
    "data",
    "control",
    "mobility",
    "description",
    "events",
    "priority",
    "methods",
    "schemes",
    "application",
    "video",
    "language",
    "type",
    "isfocus",
    "actor",
    "text",
    "extensions",
    "message",
];

/// Whether a parameter is a tag of the base scheme, which have no `+`.
pub(crate) fn is_base(name: &[u8]) -> bool {
    BASE.iter().any(|tag| name.eq_ignore_ascii_case(tag.as_bytes()))
}

/// Whether a Contact parameter says what the contact can do. Its instance and what push services need say who it is.
pub fn is_feature(name: &[u8]) -> bool {
    let identity = || name.eq_ignore_ascii_case(b"+sip.instance") || name.to_ascii_lowercase().starts_with(b"+sip.pns");
    if name.starts_with(b"+") { !identity() && name.iter().all(|b| is_token(*b)) } else { is_base(name) }
}

fn features<'a>(params: Params<'a>) -> impl Iterator<Item = (&'a [u8], Cow<'a, [u8]>)> {
    // A tag without a value is true (RFC 3840 §9).
    params
        .iter()
        .filter(|(name, _)| is_feature(name))
        .map(|(n, v)| (n, v.map_or(Cow::Borrowed(&b"TRUE"[..]), unquoted)))
}

/// One value of a tag (RFC 3840 §9 `tag-value`).
#[derive(Clone, Copy, PartialEq, Debug)]
struct Value<'a> {
    not: bool,
    kind: Kind<'a>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind<'a> {
    Token(&'a [u8]),
    /// In angle brackets: case counts.
    Text(&'a [u8]),
    Number {
        low: f64,
        high: f64,
    },
}

impl<'a> Value<'a> {
    fn parse(text: &'a [u8]) -> Value<'a> {
        let (not, text) = text.strip_prefix(b"!").map_or((false, text), |rest| (true, rest));
        let number = text.strip_prefix(b"#").and_then(number);
        let string = text.strip_prefix(b"<").and_then(|t| t.strip_suffix(b">"));
        let kind = match (number, string) {
            (Some((low, high)), _) => Kind::Number { low, high },
            (None, Some(text)) => Kind::Text(text),
            (None, None) => Kind::Token(text),
        };
        Value { not, kind }
    }

    /// Whether something may be both.
    fn meets(&self, other: &Value<'_>) -> bool {
        let same = match (self.kind, other.kind) {
            (Kind::Token(a), Kind::Token(b)) => a.eq_ignore_ascii_case(b),
            (Kind::Text(a), Kind::Text(b)) => a == b,
            (Kind::Number { low, high }, Kind::Number { low: l, high: h }) => low <= h && l <= high,
            _ => false,
        };
        match (self.not, other.not) {
            (false, false) => same,
            (true, true) => true,
            _ => !same,
        }
    }
}

/// `=5`, `>=5`, `<=5`, `5:7`.
fn number(text: &[u8]) -> Option<(f64, f64)> {
    let text = std::str::from_utf8(text).ok().filter(|t| t.len() <= 32)?;
    let parse = |t: &str| t.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    if let Some(n) = text.strip_prefix(">=") {
        return Some((parse(n)?, f64::INFINITY));
    }
    if let Some(n) = text.strip_prefix("<=") {
        return Some((f64::NEG_INFINITY, parse(n)?));
    }
    if let Some(n) = text.strip_prefix('=') {
        return parse(n).map(|n| (n, n));
    }
    let (low, high) = text.split_once(':')?;
    Some((parse(low)?, parse(high)?))
}

/// How the features of a contact go together with those that somebody names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fit {
    /// No tag that both have excludes the other's (RFC 2533).
    matches: bool,
    /// Of the tags named, those that the contact has too.
    named: usize,
    all: usize,
}

fn fit(contact: Params<'_>, wanted: Params<'_>) -> Fit {
    let mut fit = Fit { matches: true, named: 0, all: 0 };
    for (name, want) in features(wanted) {
        fit.all += 1;
        let Some((_, have)) = features(contact).find(|(n, _)| n.eq_ignore_ascii_case(name)) else { continue };
        fit.named += 1;
        let meets = |w: &[u8]| list(&have).any(|h| Value::parse(w).meets(&Value::parse(h)));
        fit.matches &= list(&want).any(meets);
    }
    fit
}

/// What a caller wants of the contacts that its request is sent to (RFC 3841).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preferences<'m> {
    accept: SmallVec<[Accept<'m>; 2]>,
    reject: SmallVec<[Params<'m>; 1]>,
    /// Counts where there is neither: the method, and the package of a SUBSCRIBE.
    method: Method,
    package: Option<&'m [u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Accept<'m> {
    wanted: Params<'m>,
    require: bool,
    explicit: bool,
}

impl<'m> Preferences<'m> {
    pub fn of(message: &Message<'m>) -> Preferences<'m> {
        let params = |name| {
            let values = message.list(name).take(MAX_PREFERENCES);
            values.map(|v| v.iter().position(|b| *b == b';').map_or(Params::default(), |at| Params::new(&v[at..])))
        };
        let accept = params(HeaderName::AcceptContact)
            .map(|p| Accept { wanted: p, require: p.has("require"), explicit: p.has("explicit") })
            .collect();
        let package = (message.method() == Method::Subscribe)
            .then(|| message.value(HeaderName::Event).and_then(Event::parse))
            .flatten()
            .map(|e| e.package);
        Preferences { accept, reject: params(HeaderName::RejectContact).collect(), method: message.method(), package }
    }

    /// The caller has said what it wants. Otherwise a contact that does not suit is left out only while others do (RFC 3841 §7.2.4).
    pub fn are_explicit(&self) -> bool {
        !(self.accept.is_empty() && self.reject.is_empty())
    }

    /// How much a contact with these parameters suits, in thousandths; `None`: not at all.
    pub fn weigh(&self, contact: Params<'_>) -> Option<u16> {
        // One that says nothing of itself is immune (RFC 3841 §7.2.3).
        if features(contact).next().is_none() {
            return Some(1000);
        }
        if !self.are_explicit() {
            let can = |tag: &str, what: &[u8]| {
                let value = features(contact).find(|(n, _)| n.eq_ignore_ascii_case(tag.as_bytes())).map(|(_, v)| v);
                let want = Value { not: false, kind: Kind::Token(what) };
                value.is_none_or(|v| list(&v).any(|h| Value::parse(h).meets(&want)))
            };
            let suits =
                can("methods", self.method.as_str().as_bytes()) && self.package.is_none_or(|p| can("events", p));
            return suits.then_some(1000);
        }
        let unwanted = |reject: &Params<'_>| {
            let fit = fit(contact, *reject);
            fit.matches && fit.named == fit.all && fit.all > 0
        };
        if self.reject.iter().any(unwanted) {
            return None;
        }
        let (mut sum, mut count) = (0usize, 0usize);
        for Accept { wanted, require, explicit } in &self.accept {
            let fit = fit(contact, *wanted);
            if !fit.matches {
                if *require {
                    return None;
                }
                continue;
            }
            let score = (fit.named * 1000).checked_div(fit.all).unwrap_or(1000);
            sum += match (score < 1000 && *explicit, require) {
                (true, true) => return None,
                (true, false) => 0,
                (false, _) => score,
            };
            count += 1;
        }
        // Whoever accepts nothing in particular, or is matched by none, is not preferred to anybody.
        let nobody = if self.accept.is_empty() { 1000 } else { 0 };
        Some(usize::checked_div(sum, count).unwrap_or(nobody) as u16)
    }
}

/// How a request is to be spread over its targets (RFC 3841 §9.1).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Disposition {
    /// To one target only.
    pub no_fork: bool,
    /// `Some(true)`: to all at once; `Some(false)`: one after the other.
    pub parallel: Option<bool>,
}

impl Disposition {
    pub fn of(message: &Message<'_>) -> Disposition {
        let mut all = Disposition::default();
        for directive in message.list(HeaderName::RequestDisposition).take(MAX_PREFERENCES) {
            match () {
                () if directive.eq_ignore_ascii_case(b"no-fork") => all.no_fork = true,
                () if directive.eq_ignore_ascii_case(b"parallel") => all.parallel = Some(true),
                () if directive.eq_ignore_ascii_case(b"sequential") => all.parallel = Some(false),
                () => {}
            }
        }
        all
    }
}

/// The features of several contacts, each tag once with all its values.
#[derive(Clone, Default, Debug)]
pub struct Union {
    tags: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    size: usize,
}

impl Union {
    /// The features among the parameters of a contact.
    pub fn add(&mut self, params: Params<'_>) {
        for (name, value) in features(params) {
            list(&value).for_each(|one| self.insert(name, one));
        }
    }

    /// One more value of a tag. What goes beyond the bound is left out.
    pub fn insert(&mut self, name: &[u8], value: &[u8]) {
        let sound = |b: &u8| matches!(b, 0x20..=0x7e) && !matches!(b, b'"' | b'\\');
        if !value.iter().all(sound) || self.size + name.len() + value.len() > MAX_UNION {
            return;
        }
        let at = self.tags.iter().position(|(n, _)| n.eq_ignore_ascii_case(name));
        let at = match at {
            Some(at) => at,
            None if self.tags.len() >= MAX_TAGS => return,
            None => {
                self.size += name.len();
                self.tags.push((name.to_ascii_lowercase(), Vec::new()));
                self.tags.len() - 1
            }
        };
        let values = &mut self.tags[at].1;
        if values.iter().all(|v| !v.eq_ignore_ascii_case(value)) {
            self.size += value.len();
            values.push(value.to_vec());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// The values of a tag.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let tag = self.tags.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        tag.into_iter().flat_map(|(_, values)| values.iter().map(Vec::as_slice))
    }

    /// Whether a tag is there and true.
    pub fn has(&self, name: &str) -> bool {
        self.values(name).any(|v| v.eq_ignore_ascii_case(b"TRUE"))
    }

    /// As parameters of a contact, `;` before each.
    pub fn write(&self, out: &mut Vec<u8>) {
        for (name, values) in &self.tags {
            out.push(b';');
            out.extend_from_slice(name);
            if values.iter().any(|v| v.eq_ignore_ascii_case(b"TRUE")) {
                continue;
            }
            out.extend_from_slice(b"=\"");
            for (n, value) in values.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(value);
            }
            out.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, more: &str) -> Vec<u8> {
        format!(
            "{method} sip:user@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:b@h>;tag=b1\r\n\
             To: <sip:user@example.com>\r\nCall-ID: c1\r\nCSeq: 4 {method}\r\n{more}\r\n"
        )
        .into_bytes()
    }

    fn weigh(bytes: &[u8], contacts: &[&str]) -> Vec<Option<u16>> {
        let message = Message::parse(bytes).unwrap();
        let wants = Preferences::of(&message);
        contacts.iter().map(|c| wants.weigh(Params::new(c.as_bytes()))).collect()
    }

    /// RFC 3841 §7.2.5.
    #[test]
    fn the_example_of_the_rfc_comes_out_as_it_says() {
        let invite = request(
            "INVITE",
            "Reject-Contact: *;actor=\"msg-taker\";video\r\nAccept-Contact: *;audio;require\r\n\
             Accept-Contact: *;video;explicit\r\nAccept-Contact: *;methods=\"BYE\";class=\"business\";q=1.0\r\n",
        );
        let contacts = [
            ";audio;video;methods=\"INVITE,BYE\"",
            ";audio=\"FALSE\";methods=\"INVITE\";actor=\"msg-taker\"",
            ";audio;actor=\"msg-taker\";methods=\"INVITE\";video",
            ";audio;methods=\"INVITE,OPTIONS\"",
            "",
        ];
        // u1: (1 + 1 + 0.5) / 3; u4: (1 + 0) / 2, for BYE is none of its methods.
        assert_eq!(weigh(&invite, &contacts), [Some(833), None, None, Some(500), Some(1000)]);
    }

    #[test]
    fn a_service_is_asked_for_by_its_tag() {
        let want = request("MESSAGE", "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aa.msg\";require;explicit\r\n");
        let contacts =
            [";+g.3gpp.icsi-ref=\"urn%3Aa.mmtel,urn%3Aa.msg\"", ";+g.3gpp.icsi-ref=\"urn%3Aa.mmtel\"", ";audio"];
        assert_eq!(weigh(&want, &contacts), [Some(1000), None, None]);
        let not = request("MESSAGE", "j: *;mobility=\"mobile\"\r\n");
        assert_eq!(
            weigh(&not, &[";mobility=\"mobile\"", ";mobility=\"fixed\"", ";audio"]),
            [None, Some(1000), Some(1000)]
        );
    }

    #[test]
    fn the_method_itself_is_a_preference() {
        let contacts = [";methods=\"INVITE,BYE\"", ";methods=\"MESSAGE\"", ";audio", ";events=\"presence\""];
        assert_eq!(weigh(&request("MESSAGE", ""), &contacts), [None, Some(1000), Some(1000), Some(1000)]);
        let all = weigh(&request("SUBSCRIBE", "Event: dialog;id=3\r\n"), &contacts);
        assert_eq!(all, [None, None, Some(1000), None]);
    }

    #[test]
    fn values_are_numbers_strings_tokens_and_their_opposites() {
        let meets = |a: &str, b: &str| Value::parse(a.as_bytes()).meets(&Value::parse(b.as_bytes()));
        assert!(meets("#>=5", "#=7") && meets("#1:5", "#<=1") && !meets("#=5", "#>=6") && !meets("#=5", "5"));
        assert!(meets("<Abc>", "<Abc>") && !meets("<Abc>", "<abc>") && meets("Abc", "aBC") && !meets("<a>", "a"));
        assert!(meets("!a", "b") && !meets("!a", "A") && meets("!a", "!a"));
    }

    #[test]
    fn what_several_contacts_can_is_said_once() {
        let mut all = Union::default();
        all.add(Params::new(
            b";audio;methods=\"INVITE,BYE\";q=0.3;+sip.instance=\"<urn:uuid:1>\";expires=3;+g.oma.sip-im",
        ));
        all.add(Params::new(b";audio=\"FALSE\";Methods=\"invite,MESSAGE\";+G.3gpp.icsi-ref=\"a,b\""));
        all.insert(b"+g.3gpp.icsi-ref", b"b");
        all.insert(b"+x", b"a\"b");
        let mut out = Vec::new();
        all.write(&mut out);
        let expected = ";audio;methods=\"INVITE,BYE,MESSAGE\";+g.oma.sip-im;+g.3gpp.icsi-ref=\"a,b\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(all.has("audio") && !all.has("video"));
        (0..10_000).for_each(|n| all.insert(format!("+t{n}").as_bytes(), b"TRUE"));
        assert_eq!(all.tags.len(), MAX_TAGS);
    }

    #[test]
    fn directives_spread_a_request() {
        let of = |more: &str| Disposition::of(&Message::parse(&request("INVITE", more)).unwrap());
        assert_eq!(of("Request-Disposition: proxy, Sequential\r\n").parallel, Some(false));
        assert!(of("d: no-fork\r\n").no_fork && of("") == Disposition::default());
    }
}
