//! Our RP messages and TPDUs read, and written again, by pycrate.

use std::io::Write;
use std::process::{Command, Stdio};

use gw_sms::dcs::DataCoding;
use gw_sms::rp::{Direction, Kind, Relay};
use gw_sms::segment::{Content, Layout, split};
use gw_sms::tpdu::{Address, Deliver, FromHandset, Submit, Timestamp, ToHandset, Validity};
use gw_sms::udh::Reference;

const TEXTS: [&str; 4] = ["Hello, world [€]", "Grüße, ñandú, Ωmega", "привет, мир", "12345678"];

fn address(text: &str) -> Address {
    Address::number(text).expect("a number")
}

/// Each text as SMS-DELIVER and SMS-SUBMIT, and a long one in its segments; with the address and text to be read.
fn relays() -> Vec<(Relay, &'static str, String)> {
    let long = "The quick brown fox jumps over the lazy dog {}. ".repeat(5);
    let texts = TEXTS.iter().map(|t| (*t).to_owned()).chain([long]);
    let mut relays = Vec::new();
    for text in texts {
        for segment in split(Content::Text(&text), &Layout::new(Reference::Word(513), 10)).expect("fits") {
            let read = segment.user_data.text(segment.data_coding.alphabet()).expect("text");
            let deliver = Deliver {
                more: true,
                loop_prevention: false,
                status_report: true,
                reply_path: false,
                originator: address("+819012345601"),
                pid: 0x41,
                data_coding: DataCoding(segment.data_coding.0),
                timestamp: Timestamp::from_unix(1_795_000_000, 36),
                user_data: segment.user_data.clone(),
            };
            let data = |tpdu| Kind::Data { originator: Some(address("+10000000000")), destination: None, tpdu };
            let kind = data(ToHandset::Deliver(deliver).encode());
            relays.push((Relay { direction: Direction::ToHandset, reference: 3, kind }, "819012345601", read.clone()));
            let submit = Submit {
                reject_duplicates: true,
                status_report: true,
                reply_path: false,
                reference: 200,
                destination: address("+8190123456029"),
                pid: 0,
                data_coding: segment.data_coding,
                validity: Some(Validity::Relative(0xA7)),
                user_data: segment.user_data,
            };
            let tpdu = FromHandset::Submit(submit).encode();
            let kind = Kind::Data { originator: None, destination: Some(address("+10000000000")), tpdu };
            relays.push((Relay { direction: Direction::FromHandset, reference: 4, kind }, "8190123456029", read));
        }
    }
    relays
}

#[test]
fn pycrate_reads_what_we_write() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut python = Command::new(format!("{root}/tests/python/venv/bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/relay.py"))
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a venv in tests/python/venv: tests/run makes it");
    let relays = relays();
    let hex = |octets: &[u8]| octets.iter().map(|o| format!("{o:02x}")).collect::<String>();
    let mut input = python.stdin.take().expect("piped");
    for (relay, ..) in &relays {
        writeln!(input, "{}", hex(&relay.encode())).expect("it reads");
    }
    drop(input);
    let done = python.wait_with_output().expect("it ends");
    let output = String::from_utf8(done.stdout).expect("UTF-8");
    assert_eq!(output.lines().count(), relays.len(), "{output}");
    for ((relay, address, text), line) in relays.iter().zip(output.lines()) {
        assert_eq!(line, format!("{address}\t{text}\t{}", hex(&relay.encode())));
    }
}
