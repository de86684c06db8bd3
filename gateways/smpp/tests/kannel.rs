//! Kannel, from Debian: its bearerbox at our door, and our link at the message centre of its own tests (drive_smpp).

mod ends;
#[path = "../../../tests/harness/ports.rs"]
mod ports;

use std::time::Duration;

use ends::peer::Peer;
use ends::{Centre, Esme, PATIENCE, account, octets, text};
use gw_smpp::pdu::Request;
use gw_smpp::{BindMode, LinkConfig, Verdict};
use ports::Ports;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: kannel\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// Asks until the answer has `text`.
async fn until(port: u16, path: &str, text: &str) {
    let asking = async {
        loop {
            if get(port, path).await.is_some_and(|a| a.contains(text)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(timeout(PATIENCE, asking).await.is_ok(), "{path} did not say {text}");
}

#[tokio::test]
async fn bearerbox_binds_submits_is_throttled_and_takes_messages_and_receipts() {
    let centre = Centre::open(account("kannel", "secret")).await;
    let ports = Ports::claim();
    let (admin, boxes, sendsms) = (ports.next(), ports.next(), ports.next());
    let folder = tempfile::TempDir::new().unwrap();
    let config = folder.path().join("kannel.conf");
    let lines = format!(
        "group = core\nadmin-port = {admin}\nadmin-interface = 127.0.0.1\nsmsbox-port = {boxes}\nadmin-password = x\n\
        status-password = x\nbox-allow-ip = 127.0.0.1\nsms-resend-freq = 1\n\n\
        group = smsc\nsmsc = smpp\nsmsc-id = isthmus\nhost = 127.0.0.1\nport = {}\ntransceiver-mode = true\n\
        smsc-username = kannel\nsmsc-password = secret\nsystem-type = VMA\nenquire-link-interval = 1\n\
\n\
        group = smsbox\nbearerbox-host = 127.0.0.1\nsendsms-port = {sendsms}\nsendsms-interface = 127.0.0.1\n\n\
        group = sendsms-user\nusername = u\npassword = p\n\n\
        group = sms-service\nkeyword = default\ntext = \"pong\"\n",
        centre.address.port()
    );
    std::fs::write(&config, lines).unwrap();
    let _bearerbox = Peer::start("/usr/sbin/bearerbox", &["-v", "4", config.to_str().unwrap()]);
    centre.receiver("kannel").await;
    let _smsbox = Peer::start("/usr/sbin/smsbox", &["-v", "4", config.to_str().unwrap()]);

    // Whom Kannel tells when it has found the message of a receipt.
    let client = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let send = format!(
        "/cgi-bin/sendsms?username=u&password=p&from=123&to=%2B819012345678&dlr-mask=1&dlr-url=http://{}/receipt&text=",
        client.local_addr().unwrap()
    );
    until(sendsms, &format!("{send}hello"), "Accepted").await;
    let Request::SubmitSm(message) = centre.asked().await else { panic!("not a submit_sm") };
    assert_eq!((message.text(), message.destination.digits.as_bytes()), (&b"hello"[..], &b"819012345678"[..]));
    assert_eq!((message.destination.ton, message.registered_delivery & 1), (1, 1));

    // Throttled twice: the same message comes again each time.
    until(sendsms, &format!("{send}throttle+twice"), "Accepted").await;
    for _ in 0..3 {
        let Request::SubmitSm(message) = centre.asked().await else { panic!("not a submit_sm") };
        assert_eq!(message.text(), b"throttle twice");
    }

    // A message from a handset: its service answers through us.
    centre.door.deliver(&octets("kannel"), 1, Request::DeliverSm(text("123", b"ping"))).unwrap();
    assert!(matches!(centre.outcome().await, (1, Verdict::Done(_))));
    let Request::SubmitSm(message) = centre.asked().await else { panic!("not a submit_sm") };
    assert_eq!(message.text(), b"pong");

    // The receipt for the first.
    let mut receipt = text(
        "123",
        b"id:id-hello sub:001 dlvrd:001 submit date:2611270500 done date:2611270501 stat:DELIVRD err:000 text:hello",
    );
    receipt.esm_class = 4;
    centre.door.deliver(&octets("kannel"), 2, Request::DeliverSm(receipt)).unwrap();
    assert!(matches!(centre.outcome().await, (2, Verdict::Done(_))));
    let (mut told, _) = timeout(PATIENCE, client.accept()).await.expect("Kannel tells of the receipt").unwrap();
    let mut line = [0; 12];
    told.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"GET /receipt");

    // Both ends part in order when we close.
    timeout(PATIENCE, centre.door.stop()).await.expect("the door closes");
}

/// Kannel's own test of its SMPP: a centre that hands out messages as soon as a receiver is there. After some seconds without
/// a bearerbox it gives up, which is long after it has done what is asked here.
async fn drive_smpp(mode: BindMode) -> (Ports, Peer, std::sync::Arc<Esme>, gw_smpp::Link) {
    let ports = Ports::claim();
    let port = ports.next();
    let smsc = Peer::start("/usr/lib/kannel/test/drive_smpp", &["-v", "4", "-p", &port.to_string(), "-m", "20"]);
    let mut config = LinkConfig::new("kannel", ([127, 0, 0, 1], port).into(), octets("foo"), octets("bar"));
    config.mode = mode;
    config.reconnect = (Duration::from_millis(50), Duration::from_millis(200));
    let (esme, link) = Esme::start(config);
    esme.up().await;
    (ports, smsc, esme, link)
}

#[tokio::test]
async fn drive_smpp_takes_our_messages() {
    let (_ports, _smsc, esme, link) = drive_smpp(BindMode::Transmitter).await;
    for ticket in 1..=50 {
        link.submit(ticket, Request::SubmitSm(text("456", b"hello"))).await.unwrap();
    }
    for _ in 1..=50 {
        let (_, verdict) = esme.outcome().await;
        assert!(matches!(verdict, Verdict::Done(_)), "{verdict:?}");
    }
    link.stop().await;
}

#[tokio::test]
async fn drive_smpp_hands_its_messages_out_to_us() {
    let (_ports, _smsc, esme, link) = drive_smpp(BindMode::Receiver).await;
    for _ in 1..=20 {
        assert!(esme.delivered().await.is_some());
    }
    assert_eq!(link.oddities(), [0, 0, 0]);
    link.stop().await;
}
