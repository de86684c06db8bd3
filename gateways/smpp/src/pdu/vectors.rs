//! Frames that others published, byte for byte, and properties of the codec.
//!
//! The bind is the example of SMPP 3.4 §3.2.3 (SMPP3TEST, secret08, SUBMIT1). The responses, the enquiry and the oddities are
//! those of cloudhopper-smpp (PduDecoderTest, Apache-2.0), recorded from real centres; the deliver_sm stands in the documentation
//! of the Python package smpp.pdu.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

fn unhex(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect::<Vec<u8>>()
        .into()
}

fn read(frame: &Bytes) -> (Header, Result<Pdu, Malformed>) {
    let mut frames = Frames::default();
    frames.buffer().extend_from_slice(frame);
    let whole = frames.next_frame().unwrap().unwrap();
    assert_eq!(whole.len(), frame.len());
    let header = Header::of(&whole).unwrap();
    (header, Pdu::decode(header, &whole))
}

fn written(sequence: u32, pdu: &Pdu) -> Bytes {
    let mut out = BytesMut::new();
    match pdu {
        Pdu::Request(request) => request.encode(sequence, &mut out),
        Pdu::Response(status, response) => response.encode(*status, sequence, &mut out),
    }
    out.freeze()
}

#[test]
fn the_bind_of_the_specification_reads_and_writes_back() {
    let frame = unhex(
        "0000002F 00000002 00000000 00000001 534D50503354455354 00 7365637265743038 00 5355424D495431 00 00 01 01 00",
    );
    let (header, pdu) = read(&frame);
    let Ok(Pdu::Request(Request::Bind(bind))) = pdu else { panic!("{pdu:?}") };
    assert_eq!(bind.kind, BindKind::Transmitter);
    assert_eq!(bind.system_id.as_bytes(), b"SMPP3TEST");
    assert_eq!(bind.password.as_bytes(), b"secret08");
    assert_eq!(bind.system_type.as_bytes(), b"SUBMIT1");
    assert_eq!((bind.interface_version, bind.addr_ton, bind.addr_npi), (0, 1, 1));
    assert_eq!(written(header.sequence, &Pdu::Request(Request::Bind(bind))), frame);
}

#[test]
fn recorded_frames_read_and_write_back() {
    for hex in [
        "0000001000000015000000000a342ee7",
        "0000001080000015000000000a342eed",
        "0000001c80000004000000000a342ee1393432353834333135393400",
        "0000001180000004000000000a342ee100",
        // Found by the fuzzer: a refusal without a body.
        "00000010800000030000006700000001",
        "0000001c800000050000000000116ac7393432353834333135393400",
        "000000100000000600000000000000ff",
        "0000004d00000005000000009f88f12441575342440001013136353035353531323334000101313737333535353430373000\
         000000000000000300117468657265206973206e6f2073706f6f6e",
    ] {
        let frame = unhex(hex);
        let (header, pdu) = read(&frame);
        assert_eq!(written(header.sequence, &pdu.unwrap()), frame);
    }
}

#[test]
fn a_recorded_delivery_means_what_it_says() {
    let (header, pdu) = read(&unhex(
        "0000004d00000005000000009f88f12441575342440001013136353035353531323334000101313737333535353430373000\
         000000000000000300117468657265206973206e6f2073706f6f6e",
    ));
    let Ok(Pdu::Request(Request::DeliverSm(message))) = pdu else { panic!("{pdu:?}") };
    // Beyond 0x7FFFFFFF, and borne.
    assert_eq!(header.sequence, 0x9f88_f124);
    assert_eq!(message.service_type.as_bytes(), b"AWSBD");
    assert_eq!(message.source.digits.as_bytes(), b"16505551234");
    assert_eq!(message.destination.digits.as_bytes(), b"17735554070");
    assert_eq!((message.data_coding, message.text()), (3, &b"there is no spoon"[..]));
}

#[test]
fn responses_are_read_as_far_as_they_go() {
    // No body at all; an id without its NUL; an id too long to be one.
    for (hex, id) in [
        ("0000001080000004000000000a342ee1", &b""[..]),
        ("0000001180000004000000000a342ee139", b"9"),
        ("0000001080000004000000580a342ee1", b""),
    ] {
        let (_, pdu) = read(&unhex(hex));
        let Ok(Pdu::Response(_, Response::SubmitSm(response))) = pdu else { panic!("{pdu:?}") };
        assert_eq!(response.message_id.as_bytes(), id);
    }
}

#[test]
fn an_error_leaves_the_body_out_unless_it_tells_something() {
    let mut out = BytesMut::new();
    Response::SubmitSm(MessageResp::default()).encode(CommandStatus::RSYSERR, 1, &mut out);
    assert_eq!(out.len(), HEADER);
    out.clear();
    let tlvs = Tlvs::build().u8(Tag::DELIVERY_FAILURE_REASON, 0).done();
    Response::DataSm(MessageResp { tlvs, ..MessageResp::default() }).encode(
        CommandStatus::RDELIVERYFAILURE,
        1,
        &mut out,
    );
    assert_eq!(out.len(), HEADER + 1 + 5);
}

#[test]
fn a_body_too_long_for_its_count_leaves_as_message_payload() {
    let message = ShortMessage { short_message: Octets::copied(&[b'x'; 300]), ..ShortMessage::default() };
    let frame = written(1, &Pdu::Request(Request::SubmitSm(message)));
    let (_, pdu) = read(&frame);
    let Ok(Pdu::Request(Request::SubmitSm(message))) = pdu else { panic!("{pdu:?}") };
    assert!(message.short_message.is_empty());
    assert_eq!(message.text(), [b'x'; 300]);
}

fn c_octets<const N: usize>() -> impl Strategy<Value = COctets<N>> {
    prop::collection::vec(1u8.., 0..N).prop_map(|bytes| COctets::new(&bytes).unwrap())
}

fn address<const N: usize>() -> impl Strategy<Value = Address<N>> {
    (any::<u8>(), any::<u8>(), c_octets()).prop_map(|(ton, npi, digits)| Address { ton, npi, digits })
}

fn tlvs() -> impl Strategy<Value = Tlvs> {
    prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..4)
        .prop_map(|all| all.into_iter().fold(Tlvs::build(), |build, (tag, value)| build.bytes(Tag(tag), &value)).done())
}

fn octets() -> impl Strategy<Value = Octets> {
    prop::collection::vec(any::<u8>(), 0..256).prop_map(|b| Octets::copied(&b))
}

fn message() -> impl Strategy<Value = ShortMessage> {
    (c_octets(), address(), address(), any::<[u8; 7]>(), c_octets(), c_octets(), octets(), tlvs()).prop_map(
        |(service_type, source, destination, n, schedule, validity, short_message, tlvs)| ShortMessage {
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
            tlvs,
        },
    )
}

fn multi() -> impl Strategy<Value = SubmitMulti> {
    let destination = prop_oneof![address().prop_map(Destination::Address), c_octets().prop_map(Destination::List)];
    (message(), prop::collection::vec(destination, 0..20)).prop_map(|(message, destinations)| SubmitMulti {
        destinations,
        message: ShortMessage { destination: Address::default(), ..message },
    })
}

fn request() -> impl Strategy<Value = Request> {
    let kind = prop_oneof![Just(BindKind::Transmitter), Just(BindKind::Receiver), Just(BindKind::Transceiver)];
    let bind = (kind, c_octets(), c_octets(), c_octets(), any::<[u8; 3]>(), c_octets()).prop_map(
        |(kind, system_id, password, system_type, n, address_range)| Bind {
            kind,
            system_id,
            password,
            system_type,
            interface_version: n[0],
            addr_ton: n[1],
            addr_npi: n[2],
            address_range,
        },
    );
    prop_oneof![
        bind.prop_map(Request::Bind),
        (c_octets(), c_octets()).prop_map(|(system_id, password)| Request::Outbind(Outbind { system_id, password })),
        Just(Request::Unbind),
        Just(Request::EnquireLink),
        message().prop_map(Request::SubmitSm),
        message().prop_map(Request::DeliverSm),
        multi().prop_map(Request::SubmitMulti),
        (c_octets(), address(), address(), any::<[u8; 3]>(), tlvs()).prop_map(
            |(service_type, source, destination, n, tlvs)| {
                Request::DataSm(DataSm {
                    service_type,
                    source,
                    destination,
                    esm_class: n[0],
                    registered_delivery: n[1],
                    data_coding: n[2],
                    tlvs,
                })
            }
        ),
        (c_octets(), address()).prop_map(|(message_id, source)| Request::QuerySm(QuerySm { message_id, source })),
        (c_octets(), c_octets(), address(), address()).prop_map(|(service_type, message_id, source, destination)| {
            Request::CancelSm(CancelSm { service_type, message_id, source, destination })
        }),
        (message(), c_octets()).prop_map(|(m, message_id)| {
            Request::ReplaceSm(ReplaceSm {
                message_id,
                source: m.source,
                schedule: m.schedule,
                validity: m.validity,
                registered_delivery: m.registered_delivery,
                default_message_id: m.default_message_id,
                short_message: m.short_message,
                tlvs: m.tlvs,
            })
        }),
        (address(), address(), tlvs()).prop_map(|(source, esme, tlvs)| Request::AlertNotification(AlertNotification {
            source,
            esme,
            tlvs
        })),
    ]
}

fn response() -> impl Strategy<Value = Response> {
    let id = || (c_octets(), tlvs()).prop_map(|(message_id, tlvs)| MessageResp { message_id, tlvs });
    let failed = (address(), any::<u32>())
        .prop_map(|(destination, status)| Failed { destination, status: CommandStatus(status) });
    prop_oneof![
        Just(Response::GenericNack),
        Just(Response::Unbind),
        Just(Response::EnquireLink),
        Just(Response::CancelSm),
        Just(Response::ReplaceSm),
        (c_octets(), tlvs())
            .prop_map(|(system_id, tlvs)| Response::Bind(BindKind::Receiver, BindResp { system_id, tlvs })),
        id().prop_map(Response::SubmitSm),
        id().prop_map(Response::DataSm),
        id().prop_map(Response::DeliverSm),
        (c_octets(), prop::collection::vec(failed, 0..5), tlvs()).prop_map(|(message_id, failed, tlvs)| {
            Response::SubmitMulti(SubmitMultiResp { message_id, failed, tlvs })
        }),
        (c_octets(), c_octets(), any::<[u8; 2]>(), tlvs()).prop_map(|(message_id, final_date, n, tlvs)| {
            Response::QuerySm(QuerySmResp { message_id, final_date, state: n[0], error: n[1], tlvs })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_reads_back(request in request(), sequence in any::<u32>()) {
        let frame = written(sequence, &Pdu::Request(request.clone()));
        let (header, pdu) = read(&frame);
        prop_assert_eq!((header.command, header.sequence), (request.command(), sequence));
        prop_assert_eq!(pdu, Ok(Pdu::Request(request)));
    }

    #[test]
    fn every_response_reads_back(response in response(), sequence in any::<u32>()) {
        let pdu = Pdu::Response(CommandStatus::ROK, response);
        prop_assert_eq!(read(&written(sequence, &pdu)).1, Ok(pdu));
    }

    #[test]
    fn a_request_cut_short_is_refused_with_a_status(request in request(), cut in any::<prop::sample::Index>()) {
        let frame = written(1, &Pdu::Request(request));
        let end = HEADER + cut.index(frame.len() - HEADER + 1);
        let short = frame.slice(..end);
        let header = Header::of(&short).unwrap();
        if let Err(malformed) = Pdu::decode(header, &short) {
            prop_assert!(!malformed.status.is_ok());
        } else {
            // Between optional parameters, or nothing was cut.
            let again = written(1, &Pdu::decode(header, &short).unwrap());
            prop_assert_eq!(&again[HEADER..], &short[HEADER..]);
        }
    }

    #[test]
    fn any_bytes_are_borne(bytes in prop::collection::vec(any::<u8>(), 0..200), command in 0u32..0x110, response in any::<bool>()) {
        let command = CommandId(if response { command | 0x8000_0000 } else { command });
        let frame = [&[0u8; HEADER][..], &bytes].concat().into();
        let _ = Pdu::decode(Header { command, status: CommandStatus::ROK, sequence: 1 }, &frame);
    }
}
