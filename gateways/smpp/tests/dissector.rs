//! Everything that we write, read by tshark's SMPP dissector.

mod ends;

use std::process::Command;

use bytes::BytesMut;
use ends::{octets, text};
use gw_smpp::pdu::{
    Address, AlertNotification, Bind, BindKind, BindResp, CancelSm, CommandStatus, DataSm, Destination, Failed,
    MessageResp, Octets, Outbind, QuerySm, QuerySmResp, ReplaceSm, Request, Response, ShortMessage, SubmitMulti,
    SubmitMultiResp, Tag, Tlvs,
};

fn requests() -> Vec<Request> {
    let bind = |kind| {
        Request::Bind(Bind {
            kind,
            system_id: octets("isthmus"),
            password: octets("secret"),
            system_type: octets("VMA"),
            interface_version: 0x34,
            addr_ton: 1,
            addr_npi: 1,
            address_range: octets("^81"),
        })
    };
    let long = Address { ton: 1, npi: 1, digits: octets("819012345678") };
    let source = Address { ton: 1, npi: 1, digits: octets("819012345678") };
    let mut full = text("819012345678", b"with everything");
    full.service_type = octets("CMT");
    full.schedule = octets("261127050000032+");
    full.validity = octets("000001000000000R");
    full.esm_class = 0x40;
    full.short_message = Octets::copied(b"\x05\x00\x03\x01\x02\x01with everything");
    full.tlvs = Tlvs::build()
        .u16(Tag::USER_MESSAGE_REFERENCE, 7)
        .u16(Tag::SOURCE_PORT, 2948)
        .u16(Tag::DESTINATION_PORT, 9200)
        .u16(Tag::SAR_MSG_REF_NUM, 1)
        .u8(Tag::SAR_TOTAL_SEGMENTS, 2)
        .u8(Tag::SAR_SEGMENT_SEQNUM, 1)
        .u8(Tag::PRIVACY_INDICATOR, 3)
        .u8(Tag(0x1501), 0x15)
        .done();
    let mut receipt = text(
        "123",
        b"id:1a2b sub:001 dlvrd:001 submit date:2611270500 done date:2611270501 stat:DELIVRD err:000 text:",
    );
    receipt.esm_class = 4;
    receipt.tlvs = Tlvs::build()
        .text(Tag::RECEIPTED_MESSAGE_ID, b"1a2b")
        .u8(Tag::MESSAGE_STATE, 2)
        .bytes(Tag::NETWORK_ERROR_CODE, &[3, 0, 0])
        .done();
    let payload = Tlvs::build().bytes(Tag::MESSAGE_PAYLOAD, b"a payload").u32(Tag::QOS_TIME_TO_LIVE, 60).done();
    let destinations = vec![Destination::Address(source), Destination::List(octets("friends"))];
    vec![
        bind(BindKind::Transmitter),
        bind(BindKind::Receiver),
        bind(BindKind::Transceiver),
        Request::Outbind(Outbind { system_id: octets("isthmus"), password: octets("secret") }),
        Request::SubmitSm(text("819012345678", b"plain")),
        Request::SubmitSm(full),
        Request::DeliverSm(receipt),
        Request::DataSm(DataSm { source: long, destination: long, tlvs: payload, ..DataSm::default() }),
        Request::SubmitMulti(SubmitMulti {
            destinations,
            message: ShortMessage { source, short_message: Octets::copied(b"all"), ..ShortMessage::default() },
        }),
        Request::QuerySm(QuerySm { message_id: octets("1a2b"), source }),
        Request::CancelSm(CancelSm { message_id: octets("1a2b"), source, destination: source, ..CancelSm::default() }),
        Request::ReplaceSm(ReplaceSm {
            message_id: octets("1a2b"),
            source,
            short_message: Octets::copied(b"new"),
            ..ReplaceSm::default()
        }),
        Request::AlertNotification(AlertNotification {
            source: long,
            esme: long,
            tlvs: Tlvs::build().u8(Tag::MS_AVAILABILITY_STATUS, 0).done(),
        }),
        Request::EnquireLink,
        Request::Unbind,
    ]
}

fn responses() -> Vec<(CommandStatus, Response)> {
    let id = || MessageResp { message_id: octets("1a2b"), tlvs: Tlvs::default() };
    let failed =
        Failed { destination: Address { ton: 1, npi: 1, digits: octets("1") }, status: CommandStatus::RINVDSTADR };
    let version = Tlvs::build().u8(Tag::SC_INTERFACE_VERSION, 0x34).done();
    let ok = [
        Response::Bind(BindKind::Transmitter, BindResp { system_id: octets("isthmus"), tlvs: version.clone() }),
        Response::Bind(BindKind::Receiver, BindResp { system_id: octets("isthmus"), tlvs: version.clone() }),
        Response::Bind(BindKind::Transceiver, BindResp { system_id: octets("isthmus"), tlvs: version }),
        Response::SubmitSm(id()),
        Response::DeliverSm(MessageResp::default()),
        Response::DataSm(id()),
        Response::SubmitMulti(SubmitMultiResp {
            message_id: octets("1a2b"),
            failed: vec![failed],
            ..SubmitMultiResp::default()
        }),
        Response::QuerySm(QuerySmResp {
            message_id: octets("1a2b"),
            final_date: octets("261127050000032+"),
            state: 2,
            ..QuerySmResp::default()
        }),
        Response::CancelSm,
        Response::ReplaceSm,
        Response::EnquireLink,
        Response::Unbind,
    ];
    let mut all: Vec<_> = ok.into_iter().map(|r| (CommandStatus::ROK, r)).collect();
    all.push((CommandStatus::RINVCMDID, Response::GenericNack));
    all.push((CommandStatus::RTHROTTLED, Response::SubmitSm(MessageResp::default())));
    all.push((CommandStatus::RINVPASWD, Response::Bind(BindKind::Transceiver, BindResp::default())));
    all.push((CommandStatus::RX_T_APPN, Response::DeliverSm(MessageResp::default())));
    all
}

#[test]
fn tshark_reads_every_pdu_and_finds_nothing_malformed() {
    let mut frames: Vec<(u32, Vec<u8>)> = Vec::new();
    for request in requests() {
        let mut out = BytesMut::new();
        request.encode(frames.len() as u32 + 1, &mut out);
        frames.push((request.command().0, out.to_vec()));
    }
    for (status, response) in responses() {
        let mut out = BytesMut::new();
        response.encode(status, frames.len() as u32 + 1, &mut out);
        frames.push((response.command().0, out.to_vec()));
    }
    let folder = tempfile::TempDir::new().unwrap();
    let (hex, capture) = (folder.path().join("hex"), folder.path().join("capture.pcap"));
    let dump: String = frames
        .iter()
        .map(|(_, bytes)| format!("0000 {}\n", bytes.iter().map(|b| format!("{b:02x} ")).collect::<String>()))
        .collect();
    std::fs::write(&hex, dump).unwrap();
    let made = Command::new("text2pcap").args(["-q", "-T", "40000,2775"]).arg(&hex).arg(&capture).output();
    assert!(made.expect("text2pcap; tests/run installs it").status.success());
    let fields = [
        "-T",
        "fields",
        "-e",
        "smpp.command_id",
        "-e",
        "smpp.sequence_number",
        "-e",
        "_ws.malformed",
        "-e",
        "_ws.expert.message",
    ];
    // Each frame is a stream of its own as far as TCP numbers go: what TCP has to say does not count.
    let read = Command::new("tshark")
        .args(["-n", "-o", "tcp.analyze_sequence_numbers:FALSE", "-o", "tcp.desegment_tcp_streams:FALSE", "-r"])
        .arg(&capture)
        .args(fields)
        .output()
        .unwrap();
    let lines = String::from_utf8(read.stdout).unwrap();
    let seen: Vec<Vec<&str>> = lines.lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!(seen.len(), frames.len(), "{lines}");
    for (at, (line, (command, _))) in seen.iter().zip(&frames).enumerate() {
        assert_eq!(line[0], format!("0x{command:08x}"), "{line:?}");
        assert_eq!(line[1].parse::<usize>().ok(), Some(at + 1), "{line:?}");
        assert_eq!(line[2..].concat(), "", "{line:?}");
    }
}
