//! Filters and the S-CSCF's requests.

use sip_ims::criteria::{DefaultHandling, Rule};

use super::*;

fn rule(user: &str, priority: u16, service: &str) -> Rule {
    let text = format!("{{\"user\":\"{user}\",\"priority\":{priority},\"service\":\"{service}\"}}");
    serde_json::from_str(&text).unwrap()
}

fn core(rules: Vec<Rule>) -> Bench {
    let b = bench(World { trusted: true, ..world(&[BOB]) }, vec![user("bob", CallSettings::default())]);
    rules.into_iter().for_each(|rule| b.proxy.parts.filters.put(rule).unwrap());
    b
}

/// What a server behind `sent` makes of it: the next Route is ours.
fn back(sent: &str, branch: &str) -> String {
    let (_, rest) = sent.split_once(">, <sip:o").unwrap();
    let token = rest.split('>').next().unwrap();
    request("MESSAGE", "sip:bob@home.test", &format!("Route: <sip:o{token}>\n"))
        .replace("z9hG4bK-MESSAGE", &format!("z9hG4bK-{branch}"))
        .replace("Call-ID: c1", "Call-ID: another")
}

#[test]
fn a_server_gets_the_request_once_and_its_token_is_taken_once() {
    let mut b = core(vec![rule("bob@home.test", 10, "sip:10.0.0.9:5070"), rule("*", 20, "sip:10.0.0.8:5070")]);
    let sent = b.feed(&request("MESSAGE", "sip:bob@home.test", "P-Served-User: <sip:x@y>\n"));
    assert_eq!(starts(&sent), ["10.0.0.9:5070 MESSAGE sip:bob@home.test"]);
    let text = sent[0].1.clone();
    assert!(text.contains("Route: <sip:10.0.0.9:5070;lr>, <sip:o"), "{text}");
    assert_eq!(text.matches("P-Served-User").count(), 1);
    assert!(text.contains("P-Served-User: <sip:bob@home.test>;sescase=term;regstate=reg\r\n"), "{text}");
    let next = b.feed(&back(&text, "a"));
    assert_eq!(starts(&next), ["10.0.0.8:5070 MESSAGE sip:bob@home.test"]);
    let last = b.feed(&back(&next[0].1, "b"));
    assert_eq!(starts(&last), ["10.0.0.3:5070 MESSAGE sip:bob@10.0.0.3:5070"]);
    assert!(!last[0].1.contains("Route: <sip:o"), "{}", last[0].1);
    assert_eq!(starts(&b.feed(&back(&text, "c"))), ["10.0.0.2:5062 SIP/2.0 403"]);
}

#[test]
fn what_is_behind_a_server_that_is_down_happens_anyway_unless_the_filter_says_no() {
    let ends = Rule { default_handling: DefaultHandling::Terminate, ..rule("*", 10, "sip:10.0.0.9:5070") };
    for (first, wanted) in [
        (rule("*", 10, "sip:10.0.0.9:5070"), "10.0.0.3:5070 MESSAGE sip:bob@10.0.0.3:5070"),
        (ends, "10.0.0.2:5062 SIP/2.0 500"),
    ] {
        let mut b = core(vec![first]);
        let sent = b.feed(&request("MESSAGE", "sip:bob@home.test", ""));
        let next = b.feed(&answer(&sent[0].1, 503));
        assert_eq!(starts(&next), [wanted]);
        if wanted.contains("MESSAGE") {
            assert_eq!(starts(&b.feed(&back(&sent[0].1, "late"))), ["10.0.0.2:5062 SIP/2.0 403"]);
        }
    }
}

#[test]
fn a_silent_server_is_given_up_before_the_sender_gives_up() {
    let mut b = core(vec![rule("*", 10, "sip:10.0.0.9:5070")]);
    b.feed(&request("INVITE", "sip:bob@home.test", ""));
    let sent = b.pass(Duration::from_secs(6));
    assert!(starts(&sent).contains(&"10.0.0.3:5070 INVITE sip:bob@10.0.0.3:5070".to_owned()), "{:?}", starts(&sent));
    // One that has said anything is waited for.
    let mut b = core(vec![rule("*", 10, "sip:10.0.0.9:5070")]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    b.feed(&answer(&sent[1].1, 100));
    let sent = b.pass(Duration::from_secs(6));
    assert!(!starts(&sent).iter().any(|s| s.starts_with("10.0.0.3")), "{:?}", starts(&sent));
}

#[test]
fn a_service_that_is_not_there_is_down() {
    let gone = Rule { default_handling: DefaultHandling::Terminate, ..rule("*", 20, "nowhere") };
    let mut b = core(vec![rule("*", 10, "nowhere")]);
    let sent = b.feed(&request("MESSAGE", "sip:bob@home.test", ""));
    assert_eq!(starts(&sent), ["10.0.0.3:5070 MESSAGE sip:bob@10.0.0.3:5070"]);
    let mut b = core(vec![gone]);
    assert_eq!(starts(&b.feed(&request("MESSAGE", "sip:bob@home.test", ""))), ["10.0.0.2:5062 SIP/2.0 503"]);
    assert!(b.events().contains(&NoteEvent::ServiceFailed));
}

#[test]
fn an_s_cscf_has_its_request_back_and_the_served_users_settings_count() {
    let routes = "Route: <sip:10.0.0.1:5060;lr>, <sip:odi-7@10.0.0.7:5060;lr>\n";
    let mut b = core(vec![]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", routes));
    assert_eq!(starts(&sent)[1], "10.0.0.7:5060 INVITE sip:bob@home.test");
    assert!(sent[1].1.contains("\r\nRoute: <sip:odi-7@10.0.0.7:5060;lr>\r\n"), "{}", sent[1].1);
    let forward = CallSettings { forward_unconditional: Some("sip:carol@two.test".into()), ..CallSettings::default() };
    for (case, uri) in [("term", "sip:carol@two.test"), ("orig", "sip:bob@home.test")] {
        let mut b = bench(World { trusted: true, ..world(&[]) }, vec![user("bob", forward.clone())]);
        let served = format!("{routes}P-Served-User: <sip:bob@home.test>;sescase={case}\n");
        let sent = b.feed(&request("INVITE", "sip:bob@home.test", &served));
        assert_eq!(starts(&sent)[1], format!("10.0.0.7:5060 INVITE {uri}"));
    }
    // Busy: by the way that the S-CSCF gave.
    let busy = CallSettings { forward_busy: Some("sip:carol@two.test".into()), ..CallSettings::default() };
    let mut b = bench(World { trusted: true, ..world(&[]) }, vec![user("bob", busy)]);
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", routes));
    let sent = b.feed(&answer(&sent[1].1, 486));
    assert!(starts(&sent).contains(&"10.0.0.7:5060 INVITE sip:carol@two.test".to_owned()), "{:?}", starts(&sent));
}
