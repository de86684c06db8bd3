//! `[[filter]]`: initial filter criteria of the stand-alone mode (TS 29.228 Annex B).

use gw_sms::registry::{Entry, Kind, Wrong};
use serde::Deserialize;
use sip_ims::Aor;
use sip_ims::criteria::{self, Case, DefaultHandling, EVERYBODY, Rule, Stage};

/// As written. Every condition that is given must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// A user's id, an address-of-record, or `"*"` for everybody.
    pub user: String,
    /// 0 to 65535; lower is met first.
    pub priority: u32,
    /// One method or a list of them, any of which will do.
    #[serde(default)]
    pub method: OneOrMany,
    #[serde(default)]
    pub to_domain: String,
    #[serde(default)]
    pub request_uri: String,
    #[serde(default)]
    pub header: Vec<String>,
    #[serde(default)]
    pub sdp: Vec<String>,
    #[serde(default)]
    pub session_case: Option<Case>,
    #[serde(default)]
    pub registered: Option<bool>,
    /// Name of a service, or `sip:` URI of an application server.
    pub service: String,
    #[serde(default)]
    pub default_handling: DefaultHandling,
    /// For the method REGISTER: at which stages; none: at each.
    #[serde(default)]
    pub registration: Vec<Stage>,
    #[serde(default)]
    pub include_request: bool,
    #[serde(default)]
    pub include_response: bool,
    #[serde(default)]
    pub service_info: String,
}

/// A text, or a list of texts.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> OneOrMany {
        OneOrMany::Many(Vec::new())
    }
}

impl OneOrMany {
    fn list(&self) -> Vec<String> {
        match self {
            OneOrMany::One(text) if text.is_empty() => Vec::new(),
            OneOrMany::One(text) => vec![text.clone()],
            OneOrMany::Many(list) => list.clone(),
        }
    }
}

impl Filter {
    /// As it is stored.
    pub fn registration(&self, domain: &str) -> Result<Entry, Wrong> {
        let rule = self.rule(domain)?;
        // Patterns are read once here, so that the operator hears of a mistake and not the running server.
        criteria::Filter::new(rule.clone()).map_err(|bad| (bad.key, bad.text))?;
        let body = serde_json::to_string(&rule).map_err(|e| ("user", e.to_string()))?;
        Ok(Entry { kind: Kind::Filter, key: rule.key(), body, numbers: Vec::new() })
    }

    fn rule(&self, domain: &str) -> Result<Rule, Wrong> {
        let wrong = |e: sip_ims::IdentityError| ("user", e.to_string());
        let user = match self.user.as_str() {
            EVERYBODY => EVERYBODY.to_owned(),
            id if id.contains('@') => id.parse::<Aor>().map_err(wrong)?.to_string(),
            id => Aor::from_parts(id.as_bytes(), domain.as_bytes()).map_err(wrong)?.to_string(),
        };
        if user.contains('/') {
            return Err(("user", "a filter's user has no slash".to_owned()));
        }
        let priority =
            u16::try_from(self.priority).map_err(|_| ("priority", "is not between 0 and 65535".to_owned()))?;
        Ok(Rule {
            user,
            priority,
            method: self.method.list(),
            to_domain: self.to_domain.clone(),
            request_uri: self.request_uri.clone(),
            header: self.header.clone(),
            sdp: self.sdp.clone(),
            session_case: self.session_case,
            registered: self.registered,
            service: self.service.clone(),
            default_handling: self.default_handling,
            registration: self.registration.clone(),
            include_request: self.include_request,
            include_response: self.include_response,
            service_info: self.service_info.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::provision::File;

    fn keys(text: &str) -> Result<Vec<String>, (String, Option<usize>)> {
        match File::parse(text, "x.test") {
            Ok(made) => Ok(made.registrations.into_iter().map(|e| e.key).collect()),
            Err(problems) => Err((problems[0].key.clone(), problems[0].line)),
        }
    }

    #[test]
    fn filters_are_kept_by_user_priority_and_service() {
        let one =
            |more: &str| format!("[[filter]]\nuser = \"alice\"\npriority = 10\nservice = \"sip:as.test\"\n{more}");
        assert_eq!(keys(&one("")).unwrap(), ["alice@x.test/00010/sip:as.test"]);
        assert_eq!(
            keys(&one("method = [\"INVITE\", \"MESSAGE\"]\nheader = [\"Subject: ^a\"]\nsdp = [\"!m: video\"]\n\
            session_case = \"originating\"\nregistered = true\ndefault_handling = \"terminate\"\n"))
            .unwrap()
            .len(),
            1
        );
        assert_eq!(keys(&one("header = [\"Subject: (\"]\n")), Err(("filter[0].header".to_owned(), Some(5))));
        assert_eq!(keys(&one("colour = 1\n")), Err(("filter[0].colour".to_owned(), Some(5))));
        assert_eq!(keys(&one("").replace("10", "70000")), Err(("filter[0].priority".to_owned(), Some(3))));
    }
}
