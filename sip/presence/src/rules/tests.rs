use super::*;

/// RFC 5025 §6, byte for byte.
const EXAMPLE: &str = include_str!("../../tests/rfc5025-6.xml");

fn watcher(uri: &str) -> Watcher {
    Watcher { uri: canonical(uri).as_ref().into(), number: None, anonymous: false }
}

fn ruleset(rules: &str) -> Rules {
    let text = format!(
        "<ruleset xmlns='urn:ietf:params:xml:ns:common-policy' xmlns:p='urn:ietf:params:xml:ns:pres-rules' \
         xmlns:o='urn:oma:xml:xdm:common-policy'>{rules}</ruleset>"
    );
    Rules::parse(text.as_bytes()).unwrap()
}

fn rule(conditions: &str, handling: &str) -> String {
    format!(
        "<rule id='r'><conditions>{conditions}</conditions><actions><p:sub-handling>{handling}</p:sub-handling></actions></rule>"
    )
}

#[test]
fn the_example_of_the_rfc_reads() {
    let rules = Rules::parse(EXAMPLE.as_bytes()).unwrap();
    let decision = rules.decide(&watcher("sip:user@EXAMPLE.com"), 0);
    assert_eq!(decision.handling, Handling::Allow);
    let permissions = decision.permissions.unwrap();
    let scheme = |s: &str| Selector::ServiceScheme(s.into());
    assert_eq!(permissions.services, Occurrences::Only([scheme("sip"), scheme("mailto")].into()));
    assert_eq!((&permissions.persons, permissions.user_input), (&Occurrences::All, UserInput::Bare));
    assert_eq!(permissions.devices, Occurrences::Only(BTreeSet::new()));
    assert_eq!(permissions.attributes, ["activities"].into());
    assert_eq!(permissions.unknown, [("urn:vendor-specific:foo-namespace".into(), "foo".into())].into());
    let other = rules.decide(&watcher("sip:else@example.com"), 0);
    assert_eq!(other.handling, Handling::Block);
}

#[test]
fn the_most_generous_rule_counts() {
    let one = |id: &str| format!("<identity><one id='{id}'/></identity>");
    let rules = ruleset(
        &[rule("", "confirm"), rule(&one("sip:bob@h"), "allow"), rule(&one("sip:eve@h"), "polite-block")].concat(),
    );
    let handling = |uri: &str| rules.decide(&watcher(uri), 0).handling;
    assert_eq!((handling("sip:bob@h"), handling("sip:eve@h")), (Handling::Allow, Handling::PoliteBlock));
    assert_eq!(handling("sip:carol@h"), Handling::Confirm);
}

#[test]
fn many_is_a_domain_with_exceptions() {
    let many = "<identity><many domain='h'><except id='sip:eve@h'/></many><many><except domain='h'/></many></identity>";
    let rules = ruleset(&rule(many, "allow"));
    let handling = |uri: &str| rules.decide(&watcher(uri), 0).handling;
    assert_eq!((handling("sip:bob@H"), handling("sip:eve@h")), (Handling::Allow, Handling::Block));
    assert_eq!(handling("sip:eve@elsewhere"), Handling::Allow);
}

#[test]
fn a_number_names_its_user() {
    let rules = ruleset(&rule("<identity><one id='tel:+819012345678'/></identity>", "allow"));
    let bob = Watcher { number: Some("tel:+819012345678".into()), ..watcher("sip:bob@h") };
    assert_eq!(rules.decide(&bob, 0).handling, Handling::Allow);
    assert_eq!(rules.decide(&Watcher { anonymous: true, ..bob }, 0).handling, Handling::Block);
}

#[test]
fn conditions_of_oma_and_unknown_ones() {
    let rules = ruleset(
        &[
            rule("<identity><one id='sip:bob@h'/></identity>", "polite-block"),
            rule("<o:other-identity/>", "confirm"),
            rule("<o:anonymous-request/>", "block"),
            rule("<sphere value='work'/>", "allow"),
        ]
        .concat(),
    );
    assert_eq!(rules.decide(&watcher("sip:bob@h"), 0).handling, Handling::PoliteBlock);
    assert_eq!(rules.decide(&watcher("sip:eve@h"), 0).handling, Handling::Confirm);
    assert_eq!(rules.decide(&Watcher { anonymous: true, ..watcher("sip:x@h") }, 0).handling, Handling::Block);
}

#[test]
fn validity_begins_and_ends() {
    let span = "<validity><from>2003-12-24T17:00:00+01:00</from><until>2003-12-24T19:00:00+01:00</until></validity>";
    let rules = ruleset(&rule(span, "allow"));
    let from = 1_072_281_600;
    let handling = |at| rules.decide(&watcher("sip:b@h"), at).handling;
    assert_eq!(
        (handling(from - 1), handling(from), handling(from + 7200)),
        (Handling::Block, Handling::Allow, Handling::Block)
    );
    assert_eq!((rules.next_border(from), rules.next_border(from + 7200)), (Some(from + 7200), None));
}

#[test]
fn what_is_no_ruleset_is_refused() {
    assert!(matches!(Rules::parse(b"<x"), Err(NotRules::Xml(_))));
    assert_eq!(Rules::parse(b"<ruleset/>"), Err(NotRules::Root));
    let text = "<ruleset xmlns='urn:ietf:params:xml:ns:common-policy'><rule><actions><sub-handling xmlns='urn:ietf:params:xml:ns:pres-rules'>maybe</sub-handling></actions></rule></ruleset>";
    assert_eq!(Rules::parse(text.as_bytes()), Err(NotRules::Handling));
}

#[test]
fn times_are_read_with_their_zones() {
    assert_eq!(timestamp("1970-01-01T00:00:00Z"), Some(0));
    assert_eq!(timestamp("2026-11-27T10:17:29.5-01:00"), Some(1_795_778_249));
    for bad in ["", "2026", "2026-13-01T00:00:00Z", "x-1-1T0:0:0", "2026-01-01T00:00", "2026-01-01T00:00:00+x"] {
        assert_eq!(timestamp(bad), None, "{bad}");
    }
}
