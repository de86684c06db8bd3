//! Our codec beside another one, rusmpp: what either writes the other reads, field for field, and writes again octet for octet.

use bytes::{Bytes, BytesMut};
use gw_smpp::pdu::{
    Address, COctets, CancelSm, Frames, Header, Octets, Pdu, QuerySm, Request, ShortMessage, Tag, Tlvs,
};
use proptest::prelude::*;
use rusmpp_core::CommandStatus;
use rusmpp_core::command::owned::Command;
use rusmpp_core::decode::owned::DecodeWithLength;
use rusmpp_core::encode::{Encode, Length};
use rusmpp_core::pdus::owned::{Pdu as Theirs, SubmitSm};
use rusmpp_core::tlvs::owned::MessageSubmissionRequestTlvValue;
use rusmpp_core::types::owned::{AnyOctetString, COctetString, EmptyOrFullCOctetString, OctetString};
use rusmpp_core::values::owned::{MessagePayload, ServiceType};

fn frame(command: &Command) -> Bytes {
    let mut body = vec![0; command.length()];
    command.encode(&mut body);
    let mut whole = BytesMut::from(&(4 + body.len() as u32).to_be_bytes()[..]);
    whole.extend_from_slice(&body);
    whole.freeze()
}

fn ours(frame: &Bytes) -> Pdu {
    let mut frames = Frames::default();
    frames.buffer().extend_from_slice(frame);
    let cut = frames.next_frame().expect("a length").expect("whole");
    assert_eq!((&cut, frames.buffer().len()), (frame, 0));
    let header = Header::of(&cut).expect("a header");
    Pdu::decode(header, &cut).unwrap_or_else(|bad| panic!("{bad}: {:?} {frame:02x?}", header.command))
}

fn made_by_them(m: &ShortMessage) -> SubmitSm {
    let text = |octets: &[u8]| [octets, &[0]].concat();
    let payload = m.tlvs.get(Tag::MESSAGE_PAYLOAD).map(|p| MessagePayload::new(AnyOctetString::from_slice(p)));
    SubmitSm::builder()
        .service_type(ServiceType::new(COctetString::from_vec(text(m.service_type.as_bytes())).unwrap()))
        .source_addr_ton(m.source.ton.into())
        .source_addr_npi(m.source.npi.into())
        .source_addr(COctetString::from_vec(text(m.source.digits.as_bytes())).unwrap())
        .dest_addr_ton(m.destination.ton.into())
        .dest_addr_npi(m.destination.npi.into())
        .destination_addr(COctetString::from_vec(text(m.destination.digits.as_bytes())).unwrap())
        .esm_class(m.esm_class.into())
        .protocol_id(m.protocol_id)
        .priority_flag(m.priority.into())
        .schedule_delivery_time(EmptyOrFullCOctetString::from_vec(text(m.schedule.as_bytes())).unwrap())
        .validity_period(EmptyOrFullCOctetString::from_vec(text(m.validity.as_bytes())).unwrap())
        .registered_delivery(m.registered_delivery.into())
        .replace_if_present_flag(m.replace_if_present.into())
        .data_coding(m.data_coding.into())
        .sm_default_msg_id(m.default_message_id)
        .short_message(OctetString::from_slice(&m.short_message).unwrap())
        .tlvs(payload.into_iter().map(MessageSubmissionRequestTlvValue::MessagePayload).collect())
        .build()
}

fn theirs(frame: &[u8]) -> Command {
    let mut body = BytesMut::from(&frame[4..]);
    let length = body.len();
    Command::decode(&mut body, length).unwrap_or_else(|bad| panic!("{bad:?}: {frame:02x?}")).0
}

/// What a short message says: addresses with their kinds, the numbers of one octet, times, body, parameters.
type Said = ([(u8, u8, Vec<u8>); 2], [u8; 7], [Vec<u8>; 3], Vec<u8>);

fn said_by_us(m: &ShortMessage) -> Said {
    let address = |a: &Address| (a.ton, a.npi, a.digits.as_bytes().to_vec());
    (
        [address(&m.source), address(&m.destination)],
        [
            m.esm_class,
            m.protocol_id,
            m.priority,
            m.registered_delivery,
            m.replace_if_present,
            m.data_coding,
            m.default_message_id,
        ],
        [m.service_type.as_bytes().to_vec(), m.schedule.as_bytes().to_vec(), m.validity.as_bytes().to_vec()],
        m.short_message.to_vec(),
    )
}

macro_rules! said_by_them {
    ($m:ident) => {{
        let text = |octets: &str| octets.as_bytes().to_vec();
        let said: Said = (
            [
                (u8::from($m.source_addr_ton), u8::from($m.source_addr_npi), text($m.source_addr.as_str())),
                (u8::from($m.dest_addr_ton), u8::from($m.dest_addr_npi), text($m.destination_addr.as_str())),
            ],
            [
                u8::from($m.esm_class),
                $m.protocol_id,
                u8::from($m.priority_flag),
                u8::from($m.registered_delivery),
                u8::from($m.replace_if_present_flag),
                u8::from($m.data_coding),
                $m.sm_default_msg_id,
            ],
            [
                text($m.service_type.value().as_str()),
                text($m.schedule_delivery_time.as_str()),
                text($m.validity_period.as_str()),
            ],
            $m.short_message().clone().into_vec(),
        );
        said
    }};
}

fn compare(ours: &Pdu, theirs: &Command) {
    match (ours, theirs.pdu()) {
        (Pdu::Request(Request::SubmitSm(a)), Some(Theirs::SubmitSm(b))) => assert_eq!(said_by_us(a), said_by_them!(b)),
        (Pdu::Request(Request::DeliverSm(a)), Some(Theirs::DeliverSm(b))) => {
            assert_eq!(said_by_us(a), said_by_them!(b))
        }
        (Pdu::Request(Request::QuerySm(a)), Some(Theirs::QuerySm(b))) => {
            assert_eq!(a.message_id.as_bytes(), b.message_id.as_str().as_bytes());
            assert_eq!(a.source.digits.as_bytes(), b.source_addr.as_str().as_bytes());
        }
        (Pdu::Request(Request::CancelSm(a)), Some(Theirs::CancelSm(b))) => {
            assert_eq!(a.message_id.as_bytes(), b.message_id.as_str().as_bytes());
            assert_eq!(a.destination.digits.as_bytes(), b.destination_addr.as_str().as_bytes());
        }
        _ => {}
    }
}

/// Printable ASCII: rusmpp reads no other, as some centres do not.
fn text<const N: usize>() -> impl Strategy<Value = COctets<N>> {
    prop::collection::vec(0x20u8..0x7F, 0..N).prop_map(|bytes| COctets::new(&bytes).unwrap())
}

/// Nothing, or sixteen characters.
fn time() -> impl Strategy<Value = COctets<17>> {
    prop_oneof![Just(COctets::EMPTY), "[0-9]{15}[-+R]".prop_map(|t| COctets::new(t.as_bytes()).unwrap())]
}

fn address<const N: usize>() -> impl Strategy<Value = Address<N>> {
    (any::<u8>(), any::<u8>(), text()).prop_map(|(ton, npi, digits)| Address { ton, npi, digits })
}

fn message() -> impl Strategy<Value = ShortMessage> {
    let octets = prop::collection::vec(any::<u8>(), 0..=255).prop_map(|b| Octets::copied(&b));
    let payload = prop::option::of(prop::collection::vec(any::<u8>(), 1..2_000));
    (text(), address(), address(), any::<[u8; 7]>(), time(), time(), octets, payload).prop_map(
        |(service_type, source, destination, n, schedule, validity, short_message, payload)| ShortMessage {
            service_type,
            source,
            destination,
            esm_class: n[0],
            protocol_id: n[1],
            priority: n[2],
            schedule,
            validity,
            registered_delivery: n[3],
            replace_if_present: n[4],
            data_coding: n[5],
            default_message_id: n[6],
            short_message,
            tlvs: payload.map_or_else(Tlvs::default, |p| Tlvs::build().bytes(Tag::MESSAGE_PAYLOAD, &p).done()),
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        message().prop_map(Request::SubmitSm),
        message().prop_map(Request::DeliverSm),
        (text(), address()).prop_map(|(message_id, source)| Request::QuerySm(QuerySm { message_id, source })),
        (text(), text(), address(), address()).prop_map(|(service_type, message_id, source, destination)| {
            Request::CancelSm(CancelSm { service_type, message_id, source, destination })
        }),
        Just(Request::EnquireLink),
        Just(Request::Unbind),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_rusmpp_writes_we_read_and_write_the_same(message in message(), sequence in any::<u32>()) {
        let command = Command::new(CommandStatus::EsmeRok, sequence, made_by_them(&message));
        let frame = frame(&command);
        let pdu = ours(&frame);
        prop_assert_eq!(&pdu, &Pdu::Request(Request::SubmitSm(message)));
        let mut again = BytesMut::new();
        let Pdu::Request(request) = pdu else { unreachable!("a request") };
        request.encode(sequence, &mut again);
        prop_assert_eq!(&again[..], &frame[..]);
    }

    /// Octets are changed, put in, or left out: whatever rusmpp still understands, we understand in the same way.
    #[test]
    fn what_rusmpp_understands_we_understand_alike(
        request in request(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(any::<u8>()), any::<bool>()), 1..4),
    ) {
        let mut written = BytesMut::new();
        request.encode(7, &mut written);
        let mut body = written[16..].to_vec();
        for (at, octet, insert) in changes {
            let at = at.index(body.len() + 1);
            match octet {
                Some(octet) if insert => body.insert(at, octet),
                Some(octet) => body.get_mut(at).map_or((), |o| *o = octet),
                None if at < body.len() => _ = body.remove(at),
                None => {}
            }
        }
        let mut frame = written[..16].to_vec();
        frame[..4].copy_from_slice(&(16 + body.len() as u32).to_be_bytes());
        frame.extend_from_slice(&body);
        let mut theirs = BytesMut::from(&frame[4..]);
        let length = theirs.len();
        // With something behind the end, they and we may differ in what is meant.
        if let Ok((command, read)) = Command::decode(&mut theirs, length) && read == length {
            compare(&ours(&Bytes::from(frame)), &command);
        }
    }

    #[test]
    fn what_we_write_rusmpp_reads_and_writes_the_same(request in request(), sequence in any::<u32>()) {
        let mut written = BytesMut::new();
        request.encode(sequence, &mut written);
        let command = theirs(&written);
        prop_assert_eq!(command.sequence_number, sequence);
        compare(&Pdu::Request(request), &command);
        prop_assert_eq!(&frame(&command)[..], &written[..]);
    }
}
