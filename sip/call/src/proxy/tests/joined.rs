//! Back-to-back user agents: Alice at 10.0.0.2, Bob at 10.0.0.3, and we between two dialogs.

use sip_ims::criteria::Rule;

use super::*;

const SDP: &str = "v=0\nm=audio 4000 RTP/AVP 0\n";

fn joining() -> Bench {
    let b = bench(world(&[BOB]), vec![user("alice", CallSettings::default()), user("bob", CallSettings::default())]);
    let text = "{\"user\":\"bob@home.test\",\"priority\":7,\"service\":\"b2bua\",\"session_case\":\"terminating\"}";
    b.proxy.parts.filters.put(serde_json::from_str::<Rule>(text).unwrap()).unwrap();
    b
}

fn value(message: &str, name: &str) -> String {
    let line = message.lines().find(|l| l.starts_with(&format!("{name}: ")));
    line.and_then(|l| l.split_once(": ")).map_or_else(String::new, |(_, v)| v.to_owned())
}

/// A request of one end in its dialog, made after `model`, a message of that dialog that came to it (or went from it).
fn in_dialog(model: &str, method: &str, number: u32, from_callee: bool, extra: &str, body: &str) -> String {
    let (from, to) = match from_callee {
        true => (value(model, "To"), value(model, "From")),
        false => (value(model, "From"), value(model, "To")),
    };
    let port = if from_callee { "10.0.0.3:5070" } else { "10.0.0.2:5062" };
    format!(
        "{method} sip:10.0.0.1:5060 SIP/2.0\nVia: SIP/2.0/UDP {port};branch=z9hG4bK-{method}{number}\nMax-Forwards: 70\n\
         From: {from}\nTo: {to}\nCall-ID: {}\nCSeq: {number} {method}\nContact: <sip:x@{port}>\n{extra}\
         Content-Length: {}\n\n{body}",
        value(model, "Call-ID"),
        body.replace('\n', "\r\n").len(),
    )
}

/// A call that is up: what Bob got, and the 200 that Alice got.
fn call(b: &mut Bench, extra: &str, answers: &str) -> [String; 2] {
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", extra));
    assert_eq!(starts(&sent), ["10.0.0.2:5062 SIP/2.0 100", "10.0.0.3:5070 INVITE sip:bob@10.0.0.3:5070"]);
    let invite = sent[1].1.clone();
    let accepted = b.feed(&answer(&invite, 200).replace("Content-Length", &format!("{answers}Content-Length")));
    assert_eq!(starts(&accepted), ["10.0.0.2:5062 SIP/2.0 200"]);
    let accepted = accepted[0].1.clone();
    let acknowledged = b.feed(&in_dialog(&accepted, "ACK", 1, false, "", ""));
    assert_eq!(starts(&acknowledged), ["10.0.0.3:5070 ACK sip:bob@10.0.0.3:5070"]);
    let with_tag = format!("{};tag=t200", value(&invite, "To"));
    [invite.replace(&format!("To: {}", value(&invite, "To")), &format!("To: {with_tag}")), accepted]
}

#[test]
fn each_side_has_a_dialog_of_its_own_and_the_filters_go_on() {
    let mut b = joining();
    let [invite, accepted] =
        call(&mut b, "X-Unknown: a,b\nP-Asserted-Identity: <sip:forged@home.test>\n", "Server: phone\n");
    assert!(value(&invite, "Call-ID") != "c1" && !value(&invite, "From").contains(";tag=1"), "{invite}");
    assert!(value(&invite, "Contact").starts_with("<sip:10.0.0.1:5060>") && !invite.contains("10.0.0.2"), "{invite}");
    assert_eq!((value(&invite, "X-Unknown"), value(&invite, "Max-Forwards")), ("a,b".to_owned(), "68".to_owned()));
    assert!(!invite.contains("forged") && !invite.contains("Route: <sip:o"), "{invite}");
    assert_eq!(
        (value(&accepted, "Call-ID"), value(&accepted, "From")),
        ("c1".into(), "<sip:alice@home.test>;tag=1".into())
    );
    assert!(value(&accepted, "Contact").starts_with("<sip:10.0.0.1:5060>") && !accepted.contains("10.0.0.3"));
    assert!(!accepted.contains("tag=t200") && accepted.contains("Server: phone"), "{accepted}");
    let events = b.events();
    for event in [NoteEvent::ServiceInvoked, NoteEvent::Joined, NoteEvent::ServerReturned, NoteEvent::CallAnswered] {
        assert!(events.contains(&event), "{event:?} in {events:?}");
    }
    assert_eq!(events.iter().filter(|e| **e == NoteEvent::CallAttempt).count(), 1);
}

#[test]
fn bye_of_either_end_reaches_the_other_and_is_known_a_little_longer() {
    for from_callee in [false, true] {
        let mut b = joining();
        let [invite, accepted] = call(&mut b, "", "");
        let (model, away) = if from_callee { (&invite, "10.0.0.2:5062") } else { (&accepted, "10.0.0.3:5070") };
        let bye = b.feed(&in_dialog(model, "BYE", 2, from_callee, "", ""));
        assert!(starts(&bye).len() == 1 && bye[0].0 == away && bye[0].1.starts_with("BYE "), "{:?}", starts(&bye));
        // Crossing it: the other end hangs up too.
        let other = if from_callee { &accepted } else { &invite };
        let ended = b.feed(&answer(&bye[0].1, 481));
        assert_eq!(first_line(&ended[0]), "SIP/2.0 200 OK");
        let crossing = b.feed(&in_dialog(other, "BYE", 9, !from_callee, "", ""));
        assert_eq!(first_line(&crossing[0]), "SIP/2.0 200 OK");
        assert_eq!(b.events().iter().filter(|e| **e == NoteEvent::CallEnded).count(), 1);
        b.pass(Duration::from_secs(40));
        assert_eq!(b.proxy.parts.joints.count(), 0);
        let late = b.feed(&in_dialog(other, "BYE", 10, !from_callee, "", ""));
        assert_eq!(first_line(&late[0]), "SIP/2.0 481 Call/Transaction Does Not Exist");
    }
}

#[test]
fn changes_of_the_session_cross_both_ways_and_meet_491() {
    let mut b = joining();
    let [invite, accepted] = call(&mut b, "", "");
    let sdp = "Content-Type: application/sdp\n";
    let asked = b.feed(&in_dialog(&accepted, "INVITE", 2, false, sdp, SDP));
    assert_eq!(starts(&asked), ["10.0.0.2:5062 SIP/2.0 100", "10.0.0.3:5070 INVITE sip:bob@10.0.0.3:5070"]);
    assert!(asked[1].1.ends_with("m=audio 4000 RTP/AVP 0\r\n") && value(&asked[1].1, "CSeq") == "2 INVITE");
    // The other end, and the same again.
    let glare = b.feed(&in_dialog(&invite, "UPDATE", 5, true, sdp, SDP));
    assert_eq!(first_line(&glare[0]), "SIP/2.0 491 Request Pending");
    let twice = b.feed(&in_dialog(&accepted, "UPDATE", 3, false, sdp, SDP));
    assert!(first_line(&twice[0]).starts_with("SIP/2.0 500") && twice[0].1.contains("Retry-After: "));
    let changed = b.feed(&answer(&asked[1].1, 200));
    assert_eq!(first_line(&changed[0]), "SIP/2.0 200 OK");
    let again = b.feed(&answer(&asked[1].1, 200));
    assert_eq!(first_line(&again[0]), "SIP/2.0 200 OK", "a 2xx that is sent again crosses again");
    let ack = b.feed(&in_dialog(&accepted, "ACK", 2, false, "", ""));
    assert_eq!((first_line(&ack[0]), &*value(&ack[0].1, "CSeq")), ("ACK sip:bob@10.0.0.3:5070 SIP/2.0", "2 ACK"));
    // Free again, in the other direction; a failed change changes nothing.
    let asked = b.feed(&in_dialog(&invite, "INVITE", 6, true, sdp, SDP));
    assert!(asked[1].0 == "10.0.0.2:5062" && value(&asked[1].1, "Call-ID") == "c1", "{:?}", starts(&asked));
    let refused = b.feed(&answer(&asked[1].1, 488));
    assert!(starts(&refused).contains(&"10.0.0.2:5070 SIP/2.0 488".to_owned()), "{:?}", starts(&refused));
    assert_eq!(b.proxy.parts.joints.count(), 1);
}

#[test]
fn caller_who_gives_up_and_callee_who_refuses_leave_nothing_behind() {
    let mut b = joining();
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    let rings = b.feed(&answer(&sent[1].1, 180));
    assert_eq!(starts(&rings), ["10.0.0.2:5062 SIP/2.0 180"]);
    assert_eq!(b.proxy.parts.joints.count(), 1);
    let cancel =
        request("INVITE", "sip:bob@home.test", "").replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL");
    let cancelled = b.feed(&cancel);
    assert_eq!(starts(&cancelled), ["10.0.0.2:5062 SIP/2.0 200", "10.0.0.3:5070 CANCEL sip:bob@10.0.0.3:5070"]);
    assert!(starts(&b.feed(&answer(&sent[1].1, 487))).contains(&"10.0.0.2:5062 SIP/2.0 487".to_owned()));
    assert_eq!(b.proxy.parts.joints.count(), 0);
    for status in [302, 486, 603] {
        let mut b = joining();
        let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
        let refused = b.feed(&answer(&sent[1].1, status));
        assert!(starts(&refused).contains(&format!("10.0.0.2:5062 SIP/2.0 {status}")), "{:?}", starts(&refused));
        assert_eq!(b.events().iter().filter(|e| **e == NoteEvent::CallFailed).count(), 1);
    }
}

#[test]
fn far_ends_of_a_forked_call_are_dialogs_of_their_own() {
    let mut b = joining();
    let sent = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    let ringing = |b: &mut Bench, tag: &str| {
        let rings = b.feed(&answer(&sent[1].1, 183).replace("t183", tag));
        value(&rings[0].1, "To")
    };
    let (one, two) = (ringing(&mut b, "one"), ringing(&mut b, "two"));
    assert!(one != two && ringing(&mut b, "one") == one);
    let accepted = b.feed(&answer(&sent[1].1, 200).replace("t200", "two"));
    assert_eq!(value(&accepted[0].1, "To"), two);
    assert_eq!(b.proxy.parts.joints.count(), 2);
    b.pass(Duration::from_secs(40));
    assert_eq!(b.proxy.parts.joints.count(), 1, "the end that only rang is forgotten");
}

#[test]
fn a_prack_names_the_invite_of_its_own_dialog_and_another_try_the_same_call() {
    let mut b = joining();
    let invite =
        request("INVITE", "sip:bob@home.test", "Supported: 100rel, outbound\n").replace("CSeq: 1 ", "CSeq: 4711 ");
    let sent = b.feed(&invite);
    assert_eq!(value(&sent[1].1, "Supported"), "100rel");
    let rings = b.feed(&answer(&sent[1].1, 183).replace("Content-Length", "Require: 100rel\nRSeq: 77\nContent-Length"));
    assert_eq!(value(&rings[0].1, "RSeq"), "77");
    let prack = b.feed(&in_dialog(&rings[0].1, "PRACK", 4712, false, "RAck: 77 4711 INVITE\n", ""));
    assert_eq!(value(&prack[0].1, "RAck"), "77 4711 INVITE");
    b.feed(&answer(&prack[0].1, 200));
    let accepted = b.feed(&answer(&sent[1].1, 200).replace("t200", "t183"));
    b.feed(&in_dialog(&accepted[0].1, "ACK", 4711, false, "", ""));
    // Numbers may skip on one side (credentials asked for before us).
    let again = b.feed(&in_dialog(&accepted[0].1, "INVITE", 4720, false, "Supported: 100rel\n", ""));
    assert_eq!(value(&again[1].1, "CSeq"), "4713 INVITE");
    let rings = b.feed(&answer(&again[1].1, 183).replace("Content-Length", "Require: 100rel\nRSeq: 1\nContent-Length"));
    let prack = b.feed(&in_dialog(&rings[0].1, "PRACK", 4721, false, "RAck: 1 4720 INVITE\n", ""));
    assert_eq!(value(&prack[0].1, "RAck"), "1 4713 INVITE");
    // Refused, the caller tries once more.
    let mut b = joining();
    let first = b.feed(&request("INVITE", "sip:bob@home.test", ""));
    b.feed(&answer(&first[1].1, 401));
    let second = request("INVITE", "sip:bob@home.test", "Authorization: Digest x\n").replace("CSeq: 1 ", "CSeq: 2 ");
    let second = b.feed(&second.replace("z9hG4bK-INVITE", "z9hG4bK-again"));
    let of = |sent: &[Sent]| ["Call-ID", "From", "CSeq"].map(|name| value(&sent[1].1, name));
    let ([one, two], [from, again]) =
        ([&first, &second].map(|s| of(s)[0].clone()), [&first, &second].map(|s| of(s)[1].clone()));
    assert_eq!((one, from, of(&second)[2].as_str()), (two, again, "2 INVITE"));
}

#[test]
fn loss_of_one_end_hangs_up_the_other() {
    // It says that it knows of no call.
    let mut b = joining();
    let [_, accepted] = call(&mut b, "", "");
    let info = b.feed(&in_dialog(&accepted, "INFO", 2, false, "", ""));
    let gone = starts(&b.feed(&answer(&info[0].1, 481)));
    for wanted in [
        "10.0.0.2:5062 BYE sip:alice@10.0.0.2:5062",
        "10.0.0.3:5070 BYE sip:bob@10.0.0.3:5070",
        "10.0.0.2:5062 SIP/2.0 481",
    ] {
        assert!(gone.contains(&wanted.to_owned()), "{wanted} in {gone:?}");
    }
    // Nobody refreshes the session.
    let mut b = joining();
    call(
        &mut b,
        "Supported: timer\nSession-Expires: 90;refresher=uac\n",
        "Session-Expires: 90;refresher=uac\nRequire: timer\n",
    );
    assert!(b.pass(Duration::from_secs(55)).is_empty());
    let ended = starts(&b.pass(Duration::from_secs(6)));
    assert!(
        ended.iter().any(|s| s.starts_with("10.0.0.2:5062 BYE"))
            && ended.iter().any(|s| s.starts_with("10.0.0.3:5070 BYE")),
        "{ended:?}"
    );
    // Neither knows timers: both are asked, and one is not there.
    let mut b = joining();
    call(&mut b, "", "");
    let asked = b.pass(Duration::from_secs(901));
    let questions: Vec<&Sent> = asked.iter().filter(|s| s.1.starts_with("OPTIONS ")).collect();
    assert!(questions.iter().any(|s| s.0 == "10.0.0.2:5062") && questions.iter().any(|s| s.0 == "10.0.0.3:5070"));
    let ended = starts(&b.feed(&answer(&questions[0].1, 481)));
    assert_eq!(ended.iter().filter(|s| s.contains(" BYE ")).count(), 2, "{ended:?}");
}

#[test]
fn timers_are_given_to_ends_that_know_them_and_too_short_ones_refused() {
    let mut b = joining();
    let [invite, accepted] = call(&mut b, "Supported: timer\n", "");
    assert_eq!(value(&invite, "Session-Expires"), "1800");
    assert_eq!(
        (value(&accepted, "Session-Expires"), value(&accepted, "Require")),
        ("1800;refresher=uac".into(), "timer".into())
    );
    let mut b = joining();
    let short = b.feed(&request("INVITE", "sip:bob@home.test", "Supported: timer\nSession-Expires: 60\n"));
    assert_eq!(
        (first_line(&short[0]), &*value(&short[0].1, "Min-SE")),
        ("SIP/2.0 422 Session Interval Too Small", "90")
    );
}

#[test]
fn what_we_would_break_is_refused() {
    let mut b = joining();
    let refused = b.feed(&request("INVITE", "sip:bob@home.test", "Require: gruu\n"));
    assert_eq!((first_line(&refused[0]), &*value(&refused[0].1, "Unsupported")), ("SIP/2.0 420 Bad Extension", "gruu"));
    let [_, accepted] = call(&mut b, "", "");
    let strange = b.feed(&in_dialog(&accepted, "XYZZY", 2, false, "", ""));
    assert!(first_line(&strange[0]).starts_with("SIP/2.0 405"), "{:?}", strange);
    let old = b.feed(&in_dialog(&accepted, "INFO", 1, false, "", ""));
    assert!(first_line(&old[0]).starts_with("SIP/2.0 500"), "{:?}", old);
}

#[test]
fn a_transfer_to_a_joined_call_names_it_as_its_far_end_knows_it() {
    let mut b = joining();
    let [invite, accepted] = call(&mut b, "", "");
    let tag = |v: String| v.split(";tag=").nth(1).unwrap().to_owned();
    // Alice names the call by its near dialog: Bob's tag there is ours.
    let replaces = format!("c1%3Bto-tag%3D{}%3Bfrom-tag%3D1", tag(value(&accepted, "To")));
    let refer = format!("Refer-To: <sip:carol@two.test?Replaces={replaces}&Subject=x>\n");
    let sent = b.feed(&in_dialog(&accepted, "REFER", 2, false, &refer, ""));
    let wanted = format!(
        "<sip:carol@two.test?Replaces={}%3Bto-tag%3Dt200%3Bfrom-tag%3D{}&Subject=x>",
        value(&invite, "Call-ID"),
        tag(value(&invite, "From"))
    );
    assert_eq!(value(&sent[0].1, "Refer-To"), wanted);
    // After its BYE the referred end still tells how it goes.
    b.feed(&answer(&sent[0].1, 202));
    let bye = b.feed(&in_dialog(&accepted, "BYE", 3, false, "", ""));
    b.feed(&answer(&bye[0].1, 200));
    let told =
        in_dialog(&invite, "NOTIFY", 3, true, "Event: refer\nSubscription-State: terminated;reason=noresource\n", "");
    let told = b.feed(&told);
    assert!(told[0].0 == "10.0.0.2:5062" && told[0].1.starts_with("NOTIFY sip:x@10.0.0.2:5062"), "{told:?}");
}
