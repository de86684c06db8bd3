//! WAP pushes, read by programs of others: Wireshark and libwbxml.

use std::path::Path;
use std::process::Command;

/// What Wireshark sees in a datagram to the push port.
pub fn dissected(dir: &Path, push: &[u8]) -> String {
    let (dump, pcap) = (dir.join("push.txt"), dir.join("push.pcap"));
    let octets: Vec<String> = push.iter().map(|o| format!("{o:02x}")).collect();
    std::fs::write(&dump, format!("0000 {}\n", octets.join(" "))).unwrap();
    let done = Command::new("text2pcap").args(["-q", "-u", "9200,2948"]).arg(&dump).arg(&pcap).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let seen = Command::new("tshark").args(["-n", "-V", "-r"]).arg(&pcap).output().expect("tshark runs");
    String::from_utf8_lossy(&seen.stdout).into_owned()
}

/// What libwbxml makes of a push's content, on one line. In front of it stand a transaction, a type, and headers with their length.
pub fn content(dir: &Path, push: &[u8]) -> String {
    let (from, to) = (dir.join("content.wbxml"), dir.join("content.xml"));
    std::fs::write(&from, &push[3 + usize::from(push[2])..]).unwrap();
    let done = Command::new("wbxml2xml").args(["-m", "0", "-o"]).arg(&to).arg(&from).output().expect("wbxml2xml runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    std::fs::read_to_string(to).unwrap()
}
