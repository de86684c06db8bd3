use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::build::Response;

const INVITE: &[u8] = b"INVITE sip:bob@b.example SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
    From: \"Al\" <sip:alice@a.example>;tag=at\r\nTo: <sip:bob@b.example>\r\nCall-ID: c1\r\nCSeq: 7 INVITE\r\n\
    Contact: <sip:alice@10.0.0.1:5070>\r\nRecord-Route: <sip:p2;lr>\r\nRecord-Route: <sip:p1;lr>\r\nContent-Length: 0\r\n\r\n";

fn parse(bytes: &[u8]) -> Message<'_> {
    Message::parse(bytes).unwrap()
}

fn answer(request: &[u8], status: u16, tag: &[u8], contact: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    Response::to(&parse(request), status).tag(tag).write(&mut out, |w| {
        if let Some(c) = contact {
            w.text(HeaderName::Contact, c);
        }
    });
    out
}

/// Both ends of an established call.
fn call() -> (Dialog, Dialog) {
    let ok = answer(INVITE, 200, b"bt", Some(b"<sip:bob@10.0.0.2>"));
    let mut callee = Dialog::uas(&parse(INVITE), b"bt").unwrap();
    assert_eq!(callee.state(), DialogState::Early);
    callee.responded(&parse(INVITE), 200);
    (Dialog::uac(&parse(INVITE), &parse(&ok)).unwrap(), callee)
}

fn send(dialog: &mut Dialog, method: Method) -> Vec<u8> {
    let mut out = Vec::new();
    dialog
        .write_request(
            method,
            &mut out,
            |v| v.extend_from_slice(b"SIP/2.0/UDP x;branch=z9hG4bK2"),
            |w| w.text(HeaderName::Contact, b"<sip:new@10.0.0.9>"),
        )
        .unwrap();
    out
}

#[test]
fn both_ends_find_the_dialog_of_the_others_requests() {
    let (mut caller, mut callee) = call();
    assert_eq!((caller.state(), callee.state()), (DialogState::Confirmed, DialogState::Confirmed));
    let bytes = send(&mut caller, Method::Info);
    let request = parse(&bytes);
    assert_eq!(DialogId::of_request(&request), Some(callee.id()));
    callee.receive(&request).unwrap();
    let ok = answer(&bytes, 200, b"", None);
    assert_eq!(DialogId::of_response(&parse(&ok)), Some(caller.id()));
    let bytes = send(&mut callee, Method::Info);
    assert_eq!(DialogId::of_request(&parse(&bytes)), Some(caller.id()));
    caller.receive(&parse(&bytes)).unwrap();
}

#[test]
fn requests_carry_target_route_set_parties_and_the_next_number() {
    let (mut caller, mut callee) = call();
    let bytes = send(&mut caller, Method::Info);
    let m = parse(&bytes);
    assert_eq!(m.request_uri(), b"sip:bob@10.0.0.2");
    assert_eq!(m.list(HeaderName::Route).collect::<Vec<_>>(), [b"<sip:p1;lr>", b"<sip:p2;lr>"]);
    assert_eq!(m.value(HeaderName::From), Some(&b"\"Al\" <sip:alice@a.example>;tag=at"[..]));
    assert_eq!(m.value(HeaderName::To), Some(&b"<sip:bob@b.example>;tag=bt"[..]));
    assert_eq!(m.cseq().unwrap().number, 8);
    assert_eq!(m.value(HeaderName::MaxForwards), Some(&b"70"[..]));
    assert_eq!(caller.next_hop(), b"sip:p1;lr");
    let bytes = send(&mut callee, Method::Info);
    let m = parse(&bytes);
    assert_eq!(m.request_uri(), b"sip:alice@10.0.0.1:5070");
    assert_eq!(m.list(HeaderName::Route).collect::<Vec<_>>(), [b"<sip:p2;lr>", b"<sip:p1;lr>"]);
    assert_eq!(m.cseq().unwrap().number, 1);
}

#[test]
fn an_ack_has_the_number_of_its_invite() {
    let (caller, _) = call();
    let mut out = Vec::new();
    caller.write_ack(7, &mut out, |v| v.extend_from_slice(b"SIP/2.0/UDP x;branch=z9hG4bK3"), |_| {});
    let m = parse(&out);
    assert_eq!((m.cseq().unwrap().number, m.cseq().unwrap().method()), (7, Method::Ack));
}

/// The example of RFC 3261 §12.2.1.1.
#[test]
fn a_strict_router_gets_the_request_uri_and_the_target_goes_last() {
    let invite = String::from_utf8(INVITE.to_vec()).unwrap();
    let invite = invite.replace(
        "Record-Route: <sip:p2;lr>\r\nRecord-Route: <sip:p1;lr>",
        "Record-Route: <sip:proxy1>,<sip:proxy2>,<sip:proxy3;lr>,<sip:proxy4>",
    );
    let mut callee = Dialog::uas(&parse(invite.as_bytes()), b"bt").unwrap();
    let bytes = send(&mut callee, Method::Info);
    let m = parse(&bytes);
    assert_eq!(m.request_uri(), b"sip:proxy1");
    assert_eq!(
        m.value(HeaderName::Route),
        Some(&b"<sip:proxy2>,<sip:proxy3;lr>,<sip:proxy4>,<sip:alice@10.0.0.1:5070>"[..])
    );
}

#[test]
fn a_number_that_is_not_higher_is_out_of_order_and_gaps_pass() {
    let (mut caller, mut callee) = call();
    let (one, two, three) =
        (send(&mut caller, Method::Info), send(&mut caller, Method::Info), send(&mut caller, Method::Info));
    callee.receive(&parse(&one)).unwrap();
    callee.receive(&parse(&three)).unwrap();
    assert_eq!(callee.receive(&parse(&two)), Err(OutOfOrder));
    assert_eq!(callee.receive(&parse(&three)), Err(OutOfOrder));
    let mut ack = Vec::new();
    caller.write_ack(7, &mut ack, |v| v.extend_from_slice(b"SIP/2.0/UDP x;branch=z9hG4bK3"), |_| {});
    callee.receive(&parse(&ack)).unwrap();
    assert_eq!(callee.remote_sequence(), Some(10));
}

#[test]
fn the_target_moves_only_when_a_refresh_is_accepted() {
    let (mut caller, mut callee) = call();
    let update = send(&mut caller, Method::Update);
    callee.receive(&parse(&update)).unwrap();
    callee.responded(&parse(&update), 491);
    assert_eq!(callee.remote_target(), b"sip:alice@10.0.0.1:5070");
    callee.responded(&parse(&update), 200);
    assert_eq!(callee.remote_target(), b"sip:new@10.0.0.9");
    let info = send(&mut callee, Method::Info);
    caller.receive(&parse(&info)).unwrap();
    caller.responded(&parse(&info), 200);
    assert_eq!(caller.remote_target(), b"sip:bob@10.0.0.2");
    let ok = answer(&update, 200, b"", Some(b"<sip:bob@10.0.0.3>"));
    assert_eq!(caller.response(&parse(&ok)), Impact::None);
    assert_eq!(caller.remote_target(), b"sip:bob@10.0.0.3");
}

#[test]
fn a_bye_ends_both_ends_and_nothing_more_is_sent() {
    let (mut caller, mut callee) = call();
    let bye = send(&mut caller, Method::Bye);
    callee.receive(&parse(&bye)).unwrap();
    callee.responded(&parse(&bye), 200);
    assert_eq!(callee.state(), DialogState::Terminated);
    assert_eq!(caller.response(&parse(&answer(&bye, 200, b"", None))), Impact::None);
    assert_eq!(caller.state(), DialogState::Terminated);
    assert_eq!(caller.write_request(Method::Info, &mut Vec::new(), |_| {}, |_| {}), Err(Over));
}

#[test]
fn a_failed_bye_ends_the_call_and_a_challenged_one_does_not() {
    let (mut caller, _) = call();
    let bye = send(&mut caller, Method::Bye);
    assert_eq!(caller.response(&parse(&answer(&bye, 407, b"", None))), Impact::Transaction);
    assert_eq!(caller.state(), DialogState::Confirmed);
    caller.response(&parse(&answer(&bye, 481, b"", None)));
    assert_eq!(caller.state(), DialogState::Terminated);
}

#[test]
fn failures_reach_as_far_as_rfc_5057_says() {
    let (mut caller, _) = call();
    let info = send(&mut caller, Method::Update);
    assert_eq!(caller.response(&parse(&answer(&info, 500, b"", None))), Impact::Transaction);
    assert_eq!(caller.response(&parse(&answer(&info, 481, b"", None))), Impact::Usage);
    caller.add_usage();
    caller.end_usage();
    assert_eq!(caller.state(), DialogState::Confirmed);
    assert_eq!(caller.response(&parse(&answer(&info, 404, b"", None))), Impact::Dialog);
    assert_eq!(caller.state(), DialogState::Terminated);
}

#[test]
fn a_refused_invite_ends_the_early_dialog_and_a_refused_reinvite_does_not() {
    let mut callee = Dialog::uas(&parse(INVITE), b"bt").unwrap();
    callee.responded(&parse(INVITE), 180);
    assert_eq!(callee.state(), DialogState::Early);
    callee.responded(&parse(INVITE), 486);
    assert_eq!(callee.state(), DialogState::Terminated);
    let (mut caller, mut callee) = call();
    let again = send(&mut caller, Method::Invite);
    callee.receive(&parse(&again)).unwrap();
    callee.responded(&parse(&again), 488);
    assert_eq!(caller.response(&parse(&answer(&again, 488, b"", None))), Impact::Transaction);
    assert_eq!((caller.state(), callee.state()), (DialogState::Confirmed, DialogState::Confirmed));
}

#[test]
fn a_message_without_what_a_dialog_needs_makes_none() {
    let text = String::from_utf8(INVITE.to_vec()).unwrap();
    for (line, name) in [
        ("Contact: <sip:alice@10.0.0.1:5070>\r\n", HeaderName::Contact),
        ("Call-ID: c1\r\n", HeaderName::CallId),
        ("CSeq: 7 INVITE\r\n", HeaderName::CSeq),
        ("To: <sip:bob@b.example>\r\n", HeaderName::To),
    ] {
        let less = text.replace(line, "");
        assert_eq!(Dialog::uas(&parse(less.as_bytes()), b"t"), Err(NoDialog::Header(name)));
    }
    let many = text.replace("Record-Route: <sip:p1;lr>", &format!("Record-Route: {}", ["<sip:p;lr>"; 33].join(",")));
    assert_eq!(Dialog::uas(&parse(many.as_bytes()), b"t"), Err(NoDialog::TooLarge));
    let bad = text.replace("<sip:p1;lr>", "<sip:p1;lr");
    assert_eq!(Dialog::uas(&parse(bad.as_bytes()), b"t"), Err(NoDialog::Header(HeaderName::RecordRoute)));
}

#[test]
fn a_notify_before_the_answer_sets_the_subscribers_dialog_up() {
    let subscribe = b"SUBSCRIBE sip:bob@b SIP/2.0\r\nFrom: <sip:a@a>;tag=at\r\nTo: <sip:bob@b>\r\nCall-ID: s\r\nCSeq: 3 SUBSCRIBE\r\n\r\n";
    let notify = b"NOTIFY sip:a@1 SIP/2.0\r\nFrom: <sip:bob@b>;tag=nt\r\nTo: <sip:a@a>;tag=at\r\nCall-ID: s\r\nCSeq: 9 NOTIFY\r\n\
        Contact: <sip:n@2>\r\nRecord-Route: <sip:p;lr>\r\n\r\n";
    let mut d = Dialog::by_notify(&parse(subscribe), &parse(notify)).unwrap();
    assert_eq!(DialogId::of_request(&parse(notify)), Some(d.id()));
    assert_eq!(d.remote_sequence(), Some(9));
    let bytes = send(&mut d, Method::Subscribe);
    let m = parse(&bytes);
    assert_eq!((m.request_uri(), m.cseq().unwrap().number), (&b"sip:n@2"[..], 4));
    assert_eq!(m.value(HeaderName::Route), Some(&b"<sip:p;lr>"[..]));
}

#[test]
fn one_invite_may_set_up_several_dialogs() {
    let (now, linger) = (Instant::now(), Duration::from_secs(32));
    let mut forks = Forks::new();
    let mut take = |status, tag: &[u8]| {
        let contact: &[u8] = if status < 200 { b"<sip:x@1>" } else { b"<sip:x@2>" };
        let bytes = answer(INVITE, status, tag, Some(contact));
        let fork = forks.response(now, linger, &parse(INVITE), &parse(&bytes)).unwrap();
        (fork, forks.deadline())
    };
    assert_eq!(take(100, b"").0, Fork::Nothing);
    assert_eq!(take(180, b"").0, Fork::Nothing);
    assert_eq!(take(180, b"one").0, Fork::Early(0));
    assert_eq!(take(183, b"two").0, Fork::Early(1));
    assert_eq!(take(180, b"one"), (Fork::Progress(0), None));
    assert_eq!(take(200, b"two"), (Fork::Confirmed { dialog: 1, first: true }, Some(now + linger)));
    assert_eq!(take(200, b"two").0, Fork::Again(1));
    assert_eq!(take(200, b"three").0, Fork::Confirmed { dialog: 2, first: false });
    forks.expire(now + linger - Duration::from_millis(1));
    assert_eq!(forks.get(0).unwrap().state(), DialogState::Early);
    forks.expire(now + linger);
    let states: Vec<_> = forks.iter().map(Dialog::state).collect();
    assert_eq!(states, [DialogState::Terminated, DialogState::Confirmed, DialogState::Confirmed]);
    assert_eq!(forks.get(1).unwrap().remote_target(), b"sip:x@2");
    assert_eq!(forks.deadline(), None);
}

#[test]
fn a_final_failure_ends_all_early_dialogs_and_forks_are_bounded() {
    let (now, linger) = (Instant::now(), Duration::from_secs(32));
    let mut forks = Forks::new();
    let mut last = Fork::Nothing;
    for i in 0..=MAX_FORKS {
        let bytes = answer(INVITE, 180, format!("t{i}").as_bytes(), None);
        last = forks.response(now, linger, &parse(INVITE), &parse(&bytes)).unwrap();
    }
    assert_eq!(last, Fork::TooMany);
    let busy = answer(INVITE, 486, b"t0", None);
    assert_eq!(forks.response(now, linger, &parse(INVITE), &parse(&busy)), Ok(Fork::Failed));
    assert!(forks.iter().all(|d| d.state() == DialogState::Terminated));
}

#[test]
fn a_row_reads_back_and_goes_on_where_it_stopped() {
    let (mut caller, mut callee) = call();
    send(&mut caller, Method::Info);
    let mut row = Vec::new();
    caller.write_row(&mut row);
    let mut other_node = Dialog::from_row(&row).unwrap();
    assert_eq!(other_node, caller);
    callee.receive(&parse(&send(&mut other_node, Method::Bye))).unwrap();
    for cut in 0..row.len() {
        assert_eq!(Dialog::from_row(&row[..cut]), None);
    }
}

proptest! {
    #[test]
    fn no_row_makes_the_reader_panic(row in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Some(dialog) = Dialog::from_row(&row) {
            let mut again = Vec::new();
            dialog.write_row(&mut again);
            prop_assert_eq!(Dialog::from_row(&again), Some(dialog));
        }
    }

    /// Loss and reordering: whatever arrives, a number is taken once, and numbers only grow.
    #[test]
    fn requests_that_arrive_late_or_twice_are_taken_at_most_once(order in proptest::collection::vec(0usize..20, 0..60)) {
        let (mut caller, mut callee) = call();
        let sent: Vec<_> = (0..20).map(|_| send(&mut caller, Method::Info)).collect();
        let mut highest = 0;
        for i in order {
            let request = parse(&sent[i]);
            let number = request.cseq().unwrap().number;
            prop_assert_eq!(callee.receive(&request).is_ok(), number > highest);
            highest = highest.max(number);
        }
    }

    /// Responses of many callees, lost, doubled and in any order.
    #[test]
    fn forked_answers_in_any_order_confirm_each_dialog_once(
        arrivals in proptest::collection::vec((0usize..20, prop::sample::select(vec![100u16, 180, 183, 200])), 0..80),
        refused in any::<bool>(),
    ) {
        let (now, linger) = (Instant::now(), Duration::from_secs(32));
        let mut forks = Forks::new();
        let (mut firsts, mut confirmed) = (0, std::collections::HashSet::new());
        for (callee, status) in arrivals {
            let bytes = answer(INVITE, status, format!("t{callee}").as_bytes(), Some(b"<sip:x@1>"));
            match forks.response(now, linger, &parse(INVITE), &parse(&bytes)).unwrap() {
                Fork::Confirmed { dialog, first } => {
                    firsts += usize::from(first);
                    prop_assert!(confirmed.insert(dialog), "confirmed twice");
                    prop_assert_eq!(status, 200);
                }
                Fork::Again(dialog) => prop_assert!(status == 200 && confirmed.contains(&dialog)),
                Fork::Early(_) => prop_assert!(status > 100 && status < 200),
                Fork::Progress(_) => prop_assert!(status < 200),
                Fork::Nothing => prop_assert_eq!(status, 100),
                Fork::TooMany => prop_assert_eq!(forks.iter().count(), MAX_FORKS),
                Fork::Failed => prop_assert!(false, "nobody refused"),
            }
        }
        prop_assert_eq!(firsts, usize::from(!confirmed.is_empty()));
        if refused {
            let busy = answer(INVITE, 486, b"t0", None);
            prop_assert_eq!(forks.response(now, linger, &parse(INVITE), &parse(&busy)), Ok(Fork::Failed));
        } else {
            forks.expire(now + linger);
        }
        for (i, dialog) in forks.iter().enumerate() {
            let expected = match (confirmed.contains(&i), refused || !confirmed.is_empty()) {
                (true, _) => DialogState::Confirmed,
                (false, true) => DialogState::Terminated,
                (false, false) => DialogState::Early,
            };
            prop_assert_eq!(dialog.state(), expected);
        }
    }
}
