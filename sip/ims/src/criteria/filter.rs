//! One filter, ready to be asked.

use regex::bytes::Regex;
use sip_proto::headers::{MediaType, SessionCase};
use sip_proto::uri::Uri;
use sip_proto::{HeaderName, Message, Method, multipart};

use super::pattern::{Pattern, expression_of};
use super::{BadRule, DefaultHandling, MAX_CONDITIONS, MAX_SERVICE_INFO, Order, Rule, Stage};

/// Longest name of a service or URI of an application server, in bytes.
const MAX_SERVICE: usize = 256;

/// A [`Rule`] with its patterns compiled. Asking it allocates nothing once each thread has warmed up an expression.
#[derive(Debug)]
pub struct Filter {
    rule: Rule,
    order: Order,
    server: Server,
    /// Known methods as bits; empty means every method.
    methods: Vec<Box<[u8]>>,
    known: Vec<Method>,
    request_uri: Option<Regex>,
    headers: Vec<(HeaderName, Pattern)>,
    lines: Vec<(u8, Pattern)>,
}

/// Who is asked when a filter is met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Server {
    /// A service of this house, by name.
    Service(Box<str>),
    /// An application server elsewhere, by SIP URI.
    Uri(Box<str>),
}

/// A request at the moment when filters are asked.
pub struct Occasion<'a> {
    pub message: &'a Message<'a>,
    /// The Request-URI.
    pub uri: &'a Uri<'a>,
    /// The served user, `user@domain`.
    pub user: &'a str,
    pub case: SessionCase,
    /// Whether the served user is registered; asked only by filters that want to know.
    pub registered: &'a dyn Fn() -> bool,
}

impl Filter {
    pub fn new(rule: Rule) -> Result<Filter, BadRule> {
        let bad = |key: &'static str, text: String| BadRule { key, text };
        let server = server(&rule.service).map_err(|text| bad("service", text))?;
        let token =
            |m: &String| !m.is_empty() && m.len() <= 32 && m.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if rule.method.len() > MAX_CONDITIONS || !rule.method.iter().all(token) {
            return Err(bad("method", format!("must be at most {MAX_CONDITIONS} SIP methods")));
        }
        let registers = rule.method.iter().any(|m| m == "REGISTER");
        if registers && !matches!(server, Server::Uri(_)) {
            return Err(bad("method", "the services of this house know of registrations without a filter".to_owned()));
        }
        let extended = rule.include_request
            || rule.include_response
            || !rule.service_info.is_empty()
            || !rule.registration.is_empty();
        if extended && !registers {
            return Err(bad("method", "REGISTER is missing, which the other keys are about".to_owned()));
        }
        let sound = |text: &str| text.len() <= MAX_SERVICE_INFO && text.chars().all(|c| !c.is_control());
        if !sound(&rule.service_info) {
            return Err(bad(
                "service_info",
                format!("longer than {MAX_SERVICE_INFO} bytes, or with control characters"),
            ));
        }
        let host = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
        if rule.to_domain.len() > 255 || !rule.to_domain.bytes().all(host) {
            return Err(bad("to_domain", "is not a domain".to_owned()));
        }
        let request_uri = match rule.request_uri.as_str() {
            "" => None,
            text => Some(expression_of(text).map_err(|e| bad("request_uri", e.to_string()))?),
        };
        let patterns = |key: &'static str, list: &[String]| {
            if list.len() > MAX_CONDITIONS {
                return Err(bad(key, format!("more than {MAX_CONDITIONS} conditions")));
            }
            let one = |text: &String| Pattern::parse(text).map_err(|e| bad(key, format!("\"{text}\": {e}")));
            list.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        let headers = patterns("header", &rule.header)?;
        let lines = patterns("sdp", &rule.sdp)?;
        let letter = |p: Pattern| match *p.name.as_bytes() {
            [letter] if letter.is_ascii_lowercase() => Ok((letter, p)),
            _ => Err(bad("sdp", format!("\"{}\" is no line of a session description", p.name))),
        };
        Ok(Filter {
            order: Order::of(rule.priority, &rule.key()),
            server,
            known: rule.method.iter().map(|m| Method::from_bytes(m.as_bytes())).collect(),
            methods: rule.method.iter().map(|m| m.as_bytes().into()).collect(),
            request_uri,
            headers: headers.into_iter().map(|p| (HeaderName::from_bytes(p.name.as_bytes()), p)).collect(),
            lines: lines.into_iter().map(letter).collect::<Result<_, _>>()?,
            rule,
        })
    }

    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    pub fn order(&self) -> Order {
        self.order
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Whether its server is to be told of registrations at this stage.
    pub fn is_for_registration(&self, stage: Stage) -> bool {
        self.known.contains(&Method::Register)
            && (self.rule.registration.is_empty() || self.rule.registration.contains(&stage))
    }

    pub fn default_handling(&self) -> DefaultHandling {
        self.rule.default_handling
    }

    /// Whether every condition holds. What is cheap is asked first.
    pub fn meets(&self, occasion: &Occasion<'_>) -> bool {
        let Occasion { message, uri, .. } = occasion;
        self.method(message)
            && self.rule.session_case.is_none_or(|case| SessionCase::from(case) == occasion.case)
            && (self.rule.to_domain.is_empty() || uri.host().eq_ignore_ascii_case(self.rule.to_domain.as_bytes()))
            && self.request_uri.as_ref().is_none_or(|pattern| pattern.is_match(message.request_uri()))
            && self.headers.iter().all(|(name, pattern)| header(message, *name, pattern))
            && (self.lines.is_empty() || self.description(message))
            && self.rule.registered.is_none_or(|wanted| (occasion.registered)() == wanted)
    }

    fn method(&self, message: &Message<'_>) -> bool {
        if self.known.is_empty() {
            return true;
        }
        match message.method() {
            Method::Other => {
                let token = message.bytes().split(|b| *b == b' ').next().unwrap_or_default();
                self.methods.iter().any(|m| **m == *token)
            }
            method => self.known.contains(&method),
        }
    }

    fn description(&self, message: &Message<'_>) -> bool {
        let text = description(message);
        self.lines.iter().all(|(letter, pattern)| {
            let of_letter = |line: &'_ [u8]| matches!(line, [l, b'=', ..] if l == letter);
            let lines = text.split(|b| *b == b'\n').filter(|line| of_letter(line));
            pattern.holds(lines.map(|line| line[2..].trim_ascii_end()))
        })
    }
}

fn server(service: &str) -> Result<Server, String> {
    if service.is_empty() || service.len() > MAX_SERVICE || !service.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("must be 1 to {MAX_SERVICE} printable characters without blanks"));
    }
    if !service.contains(':') {
        return Ok(Server::Service(service.into()));
    }
    let routable = |uri: &Uri<'_>| uri.is_sip() && !service.contains(['<', '>', ',', '"', '?']);
    match Uri::parse(service.as_bytes()).filter(routable) {
        Some(_) => Ok(Server::Uri(service.into())),
        None => Err("is neither a name nor a sip: URI that can stand in Route".to_owned()),
    }
}

fn header(message: &Message<'_>, name: HeaderName, pattern: &Pattern) -> bool {
    match name {
        HeaderName::Other => pattern.holds(message.other_value(&pattern.name).into_iter()),
        name => pattern.holds(message.values(name)),
    }
}

/// The session description of a request; empty when it has none.
fn description<'a>(message: &Message<'a>) -> &'a [u8] {
    let Some(kind) = message.value(HeaderName::ContentType).and_then(MediaType::parse) else { return b"" };
    if kind.is("application/sdp") {
        return message.body();
    }
    multipart::find(&kind, message.body(), "application/sdp").map_or(&b""[..], |part| part.body)
}

#[cfg(test)]
mod tests {
    use super::super::Case;
    use super::super::tests::{ask, rule};
    use super::*;

    const CALL: &str = "INVITE sip:bob@Two.test;user=phone SIP/2.0\nAccept-Contact: *;+g.3gpp.icsi-ref=\"mmtel\"\n\
        X-Mark: one\nContent-Type: application/sdp\n\nv=0\nm=audio 1 RTP/AVP 0\na=sendrecv\nm=video 2 RTP/AVP 31\n";

    fn meets(change: impl FnOnce(&mut Rule)) -> bool {
        let mut rule = rule("*", 1, "a");
        change(&mut rule);
        let filter = Filter::new(rule).unwrap();
        ask(CALL, SessionCase::Originating, |occasion| filter.meets(occasion))
    }

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn each_kind_of_condition() {
        assert!(meets(|_| {}));
        assert!(meets(|r| r.method = list(&["MESSAGE", "INVITE"])) && !meets(|r| r.method = list(&["MESSAGE"])));
        assert!(meets(|r| r.to_domain = "two.TEST".into()) && !meets(|r| r.to_domain = "one.test".into()));
        assert!(meets(|r| r.request_uri = "^sip:bob@".into()) && !meets(|r| r.request_uri = "^tel:".into()));
        assert!(meets(|r| r.header = list(&["a: mmtel", "X-Mark: ^one$", "!Subject"])), "compact names are names");
        assert!(!meets(|r| r.header = list(&["a: mmtel", "X-Mark: two"])));
        assert!(meets(|r| r.sdp = list(&["m: ^audio ", "m: ^video ", "!m: ^message "])));
        assert!(!meets(|r| r.sdp = list(&["!m: ^video "])));
        assert!(meets(|r| r.session_case = Some(Case::Originating)));
        assert!(!meets(|r| r.session_case = Some(Case::Terminating)));
        assert!(meets(|r| r.registered = Some(true)) && !meets(|r| r.registered = Some(false)));
    }

    #[test]
    fn a_description_within_a_multipart_counts_and_other_bodies_do_not() {
        let mut r = rule("*", 1, "a");
        r.sdp = list(&["m: audio"]);
        let filter = Filter::new(r).unwrap();
        for (kind, body, wanted) in [
            ("multipart/mixed;boundary=b", "--b\nContent-Type: application/sdp\n\nm=audio 1\n--b--\n", true),
            ("text/plain", "m=audio 1\n", false),
        ] {
            let text = format!("INVITE sip:b SIP/2.0\nContent-Type: {kind}\n\n{body}");
            assert_eq!(ask(&text, SessionCase::Originating, |occasion| filter.meets(occasion)), wanted, "{kind}");
        }
    }

    #[test]
    fn rules_that_make_no_sense_are_refused_by_key() {
        let refused = |change: &dyn Fn(&mut Rule)| {
            let mut rule = rule("*", 1, "a");
            change(&mut rule);
            Filter::new(rule).unwrap_err().key
        };
        assert_eq!(refused(&|r| r.service = "".into()), "service");
        assert_eq!(refused(&|r| r.service = "tel:+1".into()), "service");
        assert_eq!(refused(&|r| r.service = "sip:a@b>,<sip:c".into()), "service");
        assert_eq!(refused(&|r| r.method = list(&["invite"])), "method");
        assert_eq!(refused(&|r| r.to_domain = "a b".into()), "to_domain");
        assert_eq!(refused(&|r| r.request_uri = "(".into()), "request_uri");
        assert_eq!(refused(&|r| r.header = list(&["a: ["])), "header");
        assert_eq!(refused(&|r| r.sdp = list(&["media: audio"])), "sdp");
        assert_eq!(refused(&|r| r.header = list(&["a"; MAX_CONDITIONS + 1])), "header");
        assert_eq!(
            refused(&|r| {
                r.method = list(&["REGISTER"]);
            }),
            "method"
        );
        assert_eq!(refused(&|r| r.include_request = true), "method");
        assert_eq!(
            refused(&|r| {
                r.service = "sip:as.test".into();
                r.method = list(&["REGISTER"]);
                r.service_info = "a\nb".into();
            }),
            "service_info"
        );
    }

    #[test]
    fn registrations_are_for_those_who_want_the_method() {
        let filter = |methods: &[&str], stages: &[Stage]| {
            let mut rule = rule("*", 1, "sip:as.test");
            rule.method = list(methods);
            rule.registration = stages.to_vec();
            Filter::new(rule).unwrap()
        };
        assert!(!filter(&[], &[]).is_for_registration(Stage::Initial));
        assert!(!filter(&["INVITE"], &[]).is_for_registration(Stage::Initial));
        assert!(filter(&["INVITE", "REGISTER"], &[]).is_for_registration(Stage::End));
        let some = filter(&["REGISTER"], &[Stage::Initial, Stage::End]);
        assert!(some.is_for_registration(Stage::Initial) && !some.is_for_registration(Stage::Refresh));
    }
}
