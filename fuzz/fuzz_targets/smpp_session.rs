//! A bound session under whatever a peer sends: it bears it, its window and what it has to send stay within their bounds, and
//! each of our requests comes back once.

#![no_main]

use std::time::{Duration, Instant};

use bytes::BytesMut;
use gw_smpp::pdu::{Bind, BindKind, BindResp, COctets, Request, ShortMessage};
use gw_smpp::session::{Event, Limits, Role, Session};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let now = Instant::now();
    let role = if first & 1 == 0 { Role::Centre } else { Role::Esme };
    let mut session: Session<u64> = Session::new(role, Limits { window: 4, inbound: 4, ..Limits::default() }, now);
    let bind = Bind {
        kind: BindKind::Transceiver,
        system_id: COctets::EMPTY,
        password: COctets::EMPTY,
        system_type: COctets::EMPTY,
        interface_version: 0x34,
        addr_ton: 0,
        addr_npi: 0,
        address_range: COctets::EMPTY,
    };
    match role {
        Role::Esme => {
            session.bind(bind, now);
            session.buffer().extend_from_slice(&[0, 0, 0, 17, 0x80, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
            session.received(now);
        }
        Role::Centre => {
            let mut asked = BytesMut::new();
            Request::Bind(bind).encode(1, &mut asked);
            session.buffer().extend_from_slice(&asked);
            session.received(now);
            session.accept(1, BindResp::default(), now);
        }
    }
    assert!(session.bound().is_some());
    let message = ShortMessage::default();
    let request = if role == Role::Esme { Request::SubmitSm(message) } else { Request::DeliverSm(message) };
    let mut open: Vec<u64> = (0..4).filter(|t| session.request(&request, *t, now).is_ok()).collect();
    for (i, part) in rest.chunks(61).enumerate() {
        session.buffer().extend_from_slice(part);
        session.received(now + Duration::from_secs(i as u64));
        session.elapsed(now + Duration::from_secs(i as u64));
        while let Some(event) = session.next_event() {
            if let Event::Answered { token, .. } | Event::Lapsed { token } = event {
                let at = open.iter().position(|t| *t == token).expect("once");
                open.swap_remove(at);
            }
        }
        assert!(session.outstanding() == open.len() && session.unanswered() <= 4);
    }
    session.lost();
    let mut left: Vec<u64> = session.unfinished().map(|(token, _)| token).collect();
    left.sort_unstable();
    open.sort_unstable();
    assert_eq!(left, open);
});
