//! Our octets read by programs that were not written here, and theirs by us: libwbxml's converters and Wireshark.

#![expect(clippy::disallowed_methods, reason = "a test of a pure floor hands files to programs")]

use std::path::Path;
use std::process::Command;

use gw_wap::push::{Application, ContentType, Header, Push};
use gw_wap::si::{Action, ServiceIndication, Time};
use gw_wap::sl::{self, ServiceLoading};

fn run(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("UTF-8")
}

/// What libwbxml makes of WBXML, on one line.
fn xml_of(folder: &Path, wbxml: &[u8]) -> String {
    let (from, to) = (folder.join("in.wbxml"), folder.join("out.xml"));
    std::fs::write(&from, wbxml).unwrap();
    run("wbxml2xml", &["-m", "0", "-o", to.to_str().unwrap(), from.to_str().unwrap()]);
    std::fs::read_to_string(to).unwrap()
}

fn wbxml_of(folder: &Path, options: &[&str], xml: &str) -> Vec<u8> {
    let (from, to) = (folder.join("in.xml"), folder.join("out.wbxml"));
    std::fs::write(&from, xml).unwrap();
    run("xml2wbxml", &[options, &["-o", to.to_str().unwrap(), from.to_str().unwrap()]].concat());
    std::fs::read(to).unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn indication() -> ServiceIndication {
    ServiceIndication {
        href: Some("https://www.example.com/mail?folder=1&n=2".to_owned()),
        id: Some("box-1".to_owned()),
        created: Some(Time([0x20, 0x26, 0x01, 0x02, 0x03, 0x04, 0x05])),
        expires: Some(Time([0x20, 0x26, 0x01, 0x03, 0, 0, 0])),
        action: Action::High,
        text: "Grüße <3".to_owned(),
    }
}

#[test]
fn libwbxml_reads_our_service_indication() {
    let folder = folder();
    let xml = xml_of(folder.path(), &indication().encode().unwrap());
    for told in [
        "-//WAPFORUM//DTD SI 1.0//EN",
        "href=\"https://www.example.com/mail?folder=1&amp;n=2\"",
        "si-id=\"box-1\"",
        "created=\"2026-01-02T03:04:05Z\"",
        "si-expires=\"2026-01-03T00:00:00Z\"",
        "action=\"signal-high\"",
        "Grüße &lt;3</indication></si>",
    ] {
        assert!(xml.contains(told), "{told} in {xml}");
    }
}

#[test]
fn we_read_the_service_indication_of_libwbxml() {
    let folder = folder();
    let xml = "<?xml version=\"1.0\"?><!DOCTYPE si PUBLIC \"-//WAPFORUM//DTD SI 1.0//EN\" \
        \"http://www.wapforum.org/DTD/si.dtd\"><si><indication href=\"https://www.example.com/mail?folder=1&amp;n=2\" \
        si-id=\"box-1\" created=\"2026-01-02T03:04:05Z\" si-expires=\"2026-01-03T00:00:00Z\" action=\"signal-high\">\
        Grüße &lt;3</indication></si>";
    for options in [&[][..], &["-n"], &["-n", "-v", "1.1"]] {
        let read = ServiceIndication::decode(&wbxml_of(folder.path(), options, xml));
        assert_eq!(read, Ok(indication()), "{options:?}");
    }
}

#[test]
fn service_loading_goes_both_ways() {
    let folder = folder();
    for (action, word) in [
        (sl::Action::ExecuteLow, "execute-low"),
        (sl::Action::ExecuteHigh, "execute-high"),
        (sl::Action::Cache, "cache"),
    ] {
        let sl = ServiceLoading { href: "http://example.org/a/b.wml".to_owned(), action };
        let xml = xml_of(folder.path(), &sl.encode().unwrap());
        assert!(xml.contains("href=\"http://example.org/a/b.wml\""), "{xml}");
        assert!(action == sl::Action::ExecuteLow || xml.contains(&format!("action=\"{word}\"")), "{xml}");
        let xml = format!(
            "<?xml version=\"1.0\"?><!DOCTYPE sl PUBLIC \"-//WAPFORUM//DTD SL 1.0//EN\" \
             \"http://www.wapforum.org/DTD/sl.dtd\"><sl href=\"http://example.org/a/b.wml\" action=\"{word}\"/>"
        );
        assert_eq!(ServiceLoading::decode(&wbxml_of(folder.path(), &["-n"], &xml)), Ok(sl));
    }
}

/// A capture file with one UDP datagram to the push port, written here: link type raw IP.
fn capture(payload: &[u8]) -> Vec<u8> {
    let udp = (8 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
    packet.extend(gw_wap::SESSION_PORT.to_be_bytes());
    packet.extend(gw_wap::PUSH_PORT.to_be_bytes());
    packet.extend(udp.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    let mut file = Vec::new();
    for word in [0xA1B2_C3D4u32, 0x0002_0004, 0, 0, 65535, 101] {
        // Major and minor version are two halves of one word.
        file.extend(if word == 0x0002_0004 { [2, 0, 4, 0] } else { word.to_le_bytes() });
    }
    for word in [0, 0, packet.len() as u32, packet.len() as u32] {
        file.extend(word.to_le_bytes());
    }
    file.extend(packet);
    file
}

fn dissected(folder: &Path, push: &Push) -> String {
    let file = folder.join("push.pcap");
    std::fs::write(&file, capture(&push.encode())).unwrap();
    run("tshark", &["-n", "-V", "-r", file.to_str().unwrap(), "-O", "wsp,wbxml"])
}

#[test]
fn wireshark_reads_our_pushes() {
    let folder = folder();
    let mut push = Push::new(7, ContentType::ServiceIndication, Application::WML, indication().encode().unwrap());
    push.headers.push(Header::InitiatorUri("http://ppg.example/".to_owned()));
    push.headers.push(Header::PushFlag(5));
    let text = dissected(folder.path(), &push);
    for told in [
        "Transaction ID: 0x07",
        "PDU Type: Push (0x06)",
        "Content-Type: application/vnd.wap.sic",
        "X-Wap-Application-Id: x-wap-application:wml.ua",
        "Initiator-Uri: http://ppg.example/",
        "Push-Flag",
        "href='https://www.'",
        "signal-high",
    ] {
        assert!(text.contains(told), "{told} in {text}");
    }
    for (content_type, application, type_name, application_name) in [
        (ContentType::MmsMessage, Application::MMS, "application/vnd.wap.mms-message", "mms.ua"),
        (ContentType::SyncmlNotification, Application::SYNCML_DM, "application/vnd.syncml.notification", "syncml.dm"),
        // Wireshark reads the number, but has no name for it.
        (ContentType::EmailNotification, Application::EMN, "media type identifier 0x30A", "emn.ua"),
        (ContentType::Provisioning, Application::WML, "application/vnd.wap.connectivity-wbxml", "wml.ua"),
        (ContentType::ServiceLoading, Application::WML, "application/vnd.wap.slc", "wml.ua"),
        (ContentType::SyncmlDm, Application::SYNCML_DM, "application/vnd.syncml.dm+wbxml", "syncml.dm"),
    ] {
        let text = dissected(folder.path(), &Push::new(1, content_type, application, Vec::new()));
        for told in [type_name, application_name] {
            assert!(text.contains(told), "{told} in {text}");
        }
    }
}
