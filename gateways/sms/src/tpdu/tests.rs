//! Byte vectors from public test suites, and round trips. Each vector is read, compared with what its source says, and
//! written again, byte for byte. Service centre addresses in front of the TPDUs, which modems add, are left out.

use proptest::prelude::*;

use super::*;
use crate::dcs::{Alphabet, DataCoding};
use crate::udh::{Element, Header, Part, Reference};
use crate::user_data::UserData;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn deliver(text: &str) -> Deliver {
    let bytes = hex(text);
    let Ok(ToHandset::Deliver(deliver)) = ToHandset::decode(&bytes, Carrier::Data) else { panic!("{text}") };
    assert_eq!(deliver.encode(), bytes);
    deliver
}

fn submit(text: &str) -> Submit {
    let bytes = hex(text);
    let Ok(FromHandset::Submit(submit)) = FromHandset::decode(&bytes, Carrier::Data) else { panic!("{text}") };
    assert_eq!(submit.encode(), bytes);
    submit
}

fn text_of(deliver: &Deliver) -> String {
    deliver.user_data.text(deliver.data_coding.alphabet()).expect("text")
}

/// oFono 1.31, unit/test-sms.c.
#[test]
fn vectors_of_ofono() {
    let how = deliver("040B911346610089F60000208062917314480CC8F71D14969741F977FD07");
    assert_eq!((how.originator.spelt().as_str(), text_of(&how).as_str()), ("+31641600986", "How are you?"));
    // 2002-08-26 19:37:41 -01:00
    assert_eq!(how.timestamp.to_unix(), Some(1_030_394_261));

    let named = deliver("040DD0F334FC1CA6970100008080312170224008D4F29CDE0EA7D9");
    assert_eq!(named.originator, Address::name("sipgate").unwrap());
    assert_eq!(text_of(&named), "Testmail");

    let submitted = submit("11000B916407281553F80000AA0AE8329BFD4697D9EC37");
    assert_eq!((submitted.destination.spelt().as_str(), submitted.reference), ("+46708251358", 0));
    assert_eq!(submitted.validity, Some(Validity::Relative(0xAA)));
    assert_eq!(submitted.user_data.text(Alphabet::Gsm7).as_deref(), Some("hellohello"));
}

/// ModemManager, src/tests/test-sms-part-3gpp.c.
#[test]
fn vectors_of_modemmanager() {
    let extended = deliver(
        "040b916171957291f80000112082110505 0a 6ac8b2bc7c9a83c220f6db7d2ecb41edf27c1e3e97411bde06754fd3d1a0f9bb5d0695f1f4b29b5c\
         2683c6e8b03c3ca697e5f34d6ae303d1d1f2f7dd0d4abb59a0797d8c0685e7a00028ec26832a960b28ec2683be6050780eba97d96c17",
    );
    assert_eq!(extended.originator.spelt(), "+16175927198");
    assert_eq!(
        text_of(&extended),
        "Here's a longer message [{with some extended characters}] thrown in, such as £ and ΩΠΨ and §¿ as well."
    );

    let named = deliver("0414d04937bd2c7797e9d3e614000811309291024061080442043504410442");
    assert_eq!((named.originator.value(), text_of(&named).as_str()), ("InternetSMS", "тест"));
    // 2011-03-29 19:20:04 +04:00
    assert_eq!(named.timestamp.to_unix(), Some(1_301_412_004));

    let octets = deliver("040b918100551512f20004111010214365000ae8329bfd4697d9ec37de");
    assert_eq!(octets.user_data.text(Alphabet::Octets), None);
    let equipment = deliver("040b918100551512f200f4111010214365000ae8329bfd4697d9ec37de");
    assert_eq!(equipment.data_coding.alphabet(), Alphabet::Octets);

    // The network that sent these two had set the fill bit behind the header; ours is 0.
    let first = deliver(
        "440B916171056429F5000021405291650569A00500034C0201A8E8F41C949E83C2207B599E07B1DFEE33885E9ED341E4F23C7D7697C920FA1B54C6\
         97E5E3F4BC0C6AD7D9F434081E96D341E3303C2C4EB3D3F4BC0B94A483E6E8779D4D06CDD1EF3BA80E0785E7A0B7BB0C6A97E7F3F0B9CC02B9DF74\
         50780EA2DFDF2C50780EA2A3CBA0BA9B5C96B3F369F71954768FDFE4B4FB0C9297E1F2F2BCECA6CF41",
    );
    assert_eq!(first.user_data.header.part(), Some(Part { reference: Reference::Byte(0x4C), total: 2, number: 1 }));
    assert!(text_of(&first).starts_with("This is a very long test designed to exercise multi part capability."));
    let second = deliver(
        "440B916171056429F5000021405291651569320500034C0202E8E8301D44479741F0B09C3E0785E56590BCCC0ED3CB6410FD0D7ABBCBA0B0FB4D47\
         97E52E10",
    );
    assert_eq!(text_of(&second), "that the parts are related to one another. ");

    let chinese =
        submit("2100098136397339F70008224F60597D4F60597D4F60597D4F60597D4F60597D4F60597D4F60597D4F60597D4F60");
    assert!(chinese.status_report && chinese.destination.value() == "639337937");
    assert_eq!(chinese.user_data.text(Alphabet::Ucs2).as_deref(), Some("你好你好你好你好你好你好你好你好你"));

    let bytes = hex("065A098136397339F7219011700463802190117004638030");
    let Ok(ToHandset::StatusReport(report)) = ToHandset::decode(&bytes, Carrier::Data) else { panic!("a report") };
    assert_eq!((report.reference, report.recipient.value(), report.status), (0x5A, "639337937", 0x30));
    assert_eq!((report.outcome(), report.encode()), (Outcome::Trying, bytes));

    let short = hex("040b918100551512f20000111010214365000be8329bfd4697d9ec37");
    assert_eq!(ToHandset::decode(&short, Carrier::Data), Err(Broken::UserData(user_data::Broken::Short)));
}

/// RestComm jSS7, map-impl, tests of the package smstpdu.
#[test]
fn vectors_of_jss7() {
    let bytes = [2, 11, 33, 44, 12, 13, 0x91, 17, 34, 51, 68, 85, 102, 0xF7, 5, 115, 101, 116, 32, 65];
    let Ok(FromHandset::Command(command)) = FromHandset::decode(&bytes, Carrier::Data) else { panic!("a command") };
    assert_eq!((command.reference, command.pid, command.kind, command.message), (11, 33, CommandType::Other(44), 12));
    assert_eq!(
        (command.destination.spelt().as_str(), command.data.as_slice()),
        ("+1122334455667", b"set A".as_slice())
    );
    assert_eq!(command.encode(), bytes);

    let bytes = [0, 0xC8, 6, 0, 10, 0xC8, 50, 0x9B, 0xFD, 6, 0x85, 66, 0xA1, 16];
    let Ok(FromHandset::DeliverReport(report)) = FromHandset::decode(&bytes, Carrier::Error) else {
        panic!("a report")
    };
    assert_eq!((report.failure, report.optional.data_coding), (Some(200), Some(DataCoding(0))));
    let text = report.optional.user_data.as_ref().and_then(|u| u.text(Alphabet::Gsm7));
    assert_eq!((text.as_deref(), report.encode()), (Some("Hello !!!!"), bytes.to_vec()));
    let bytes = [0, 1, 44];
    let Ok(FromHandset::DeliverReport(report)) = FromHandset::decode(&bytes, Carrier::Ack) else { panic!("a report") };
    assert_eq!((report.failure, report.optional.pid, report.encode()), (None, Some(44), bytes.to_vec()));

    let stamp = [0x90, 48, 66, 97, 65, 35];
    let bytes = [
        &[34, 0xFF, 7, 0x91, 119, 102, 85, 0xF0],
        &stamp[..],
        &[0],
        &stamp,
        &[76, 10, 7, 0, 0, 4, 0xC1, 0xB0, 0xD0, 14],
    ]
    .concat();
    let Ok(ToHandset::StatusReport(report)) = ToHandset::decode(&bytes, Carrier::Data) else { panic!("a report") };
    assert_eq!((report.of_command, report.more, report.reference, report.status), (true, true, 255, 10));
    assert_eq!((report.recipient.spelt().as_str(), report.encode()), ("+7766550", bytes));
}

fn any_user_data() -> impl Strategy<Value = (Alphabet, UserData)> {
    let elements = prop_oneof![
        Just(vec![]),
        Just(vec![Element::Part(Part { reference: Reference::Byte(9), total: 3, number: 2 })]),
        Just(vec![Element::Other { identifier: 0x70, data: vec![1, 2, 3] }]),
    ];
    (elements, prop::collection::vec(0u8..128, 0..120), 0..3).prop_map(|(elements, bytes, kind)| {
        let header = Header { elements };
        match kind {
            0 => (Alphabet::Gsm7, UserData::septets(header, bytes)),
            1 => (Alphabet::Octets, UserData::octets(header, bytes)),
            _ => (Alphabet::Ucs2, UserData::octets(header, bytes)),
        }
    })
}

fn any_address() -> impl Strategy<Value = Address> {
    prop_oneof![
        "\\+[0-9]{1,20}".prop_map(|n| Address::number(&n).unwrap()),
        "[0-9*#a-c]{1,20}".prop_map(|n| Address::number(&n).unwrap()),
        "[A-Z]{1,11}".prop_map(|n| Address::name(&n).unwrap()),
    ]
}

fn any_validity() -> impl Strategy<Value = Option<Validity>> {
    prop_oneof![
        Just(None),
        any::<u8>().prop_map(|v| Some(Validity::Relative(v))),
        any::<[u8; 7]>().prop_map(|v| Some(Validity::Absolute(Timestamp(v)))),
        any::<[u8; 7]>().prop_map(|v| Some(Validity::Enhanced(v))),
    ]
}

proptest! {
    #[test]
    fn submits_read_back(
        (alphabet, user_data) in any_user_data(), destination in any_address(), validity in any_validity(),
        [reject_duplicates, status_report, reply_path] in any::<[bool; 3]>(), [reference, pid] in any::<[u8; 2]>(),
    ) {
        let submit = Submit {
            reject_duplicates, status_report, reply_path, reference, destination, pid,
            data_coding: DataCoding::new(alphabet, None), validity, user_data,
        };
        let read = FromHandset::decode(&submit.encode(), Carrier::Data);
        prop_assert_eq!(read, Ok(FromHandset::Submit(submit)));
    }

    #[test]
    fn delivers_read_back(
        (alphabet, user_data) in any_user_data(), originator in any_address(), stamp in any::<[u8; 7]>(),
        [more, loop_prevention, status_report, reply_path] in any::<[bool; 4]>(), pid in any::<u8>(),
    ) {
        let deliver = Deliver {
            more, loop_prevention, status_report, reply_path, originator, pid,
            data_coding: DataCoding::new(alphabet, None), timestamp: Timestamp(stamp), user_data,
        };
        let bytes = deliver.encode();
        prop_assert!(bytes.len() <= MAX);
        prop_assert_eq!(ToHandset::decode(&bytes, Carrier::Data), Ok(ToHandset::Deliver(deliver)));
    }

    #[test]
    fn any_octets_are_read_or_refused_and_what_is_read_keeps(
        bytes in prop::collection::vec(any::<u8>(), 0..180), carrier in 0..3,
    ) {
        let carrier = [Carrier::Data, Carrier::Ack, Carrier::Error][carrier as usize];
        if let Ok(read) = FromHandset::decode(&bytes, carrier) {
            prop_assert_eq!(FromHandset::decode(&read.encode(), carrier), Ok(read));
        }
        if let Ok(read) = ToHandset::decode(&bytes, carrier) {
            prop_assert_eq!(ToHandset::decode(&read.encode(), carrier), Ok(read));
        }
    }
}
