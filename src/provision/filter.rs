//! `[[filter]]`: initial filter criteria of the stand-alone mode (TS 29.228 Annex B).

use gw_sms::registry::{Entry, Kind, Wrong};
use sip_ims::Aor;
use sip_ims::criteria::{EVERYBODY, Filter, Rule};

/// A rule as it is stored.
pub fn filter_entry(mut rule: Rule, domain: &str) -> Result<Entry, Wrong> {
    let wrong = |e: sip_ims::IdentityError| ("user", e.to_string());
    rule.user = match rule.user.as_str() {
        EVERYBODY => EVERYBODY.to_owned(),
        id if id.contains('@') => id.parse::<Aor>().map_err(wrong)?.to_string(),
        id => Aor::from_parts(id.as_bytes(), domain.as_bytes()).map_err(wrong)?.to_string(),
    };
    if rule.user.contains('/') {
        return Err(("user", "a filter's user has no slash".to_owned()));
    }
    // Patterns are read once here, so that the operator hears of a mistake and not the running server.
    Filter::new(rule.clone()).map_err(|bad| (bad.key, bad.text))?;
    let body = serde_json::to_string(&rule).map_err(|e| ("user", e.to_string()))?;
    Ok(Entry { kind: Kind::Filter, key: rule.key(), body, numbers: Vec::new() })
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
