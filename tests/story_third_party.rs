//! Third-party registration, both ways (TS 24.229 §5.4.1.7, §5.7.1.1): what an S-CSCF, here SIPp, tells us and is asked; and what our own
//! registrar tells application servers, SIPp again.

mod harness;

use std::time::Duration;

use harness::presence::SOON;
use harness::{DOMAIN, Peer, Ports, Server, Setup, Sipp, eventually, header, stunnel};

const CHAT: &str = "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"";

fn tells(server: &Server, from: u16, scscf: u16, number: u32, expires: u32) {
    let sipp = Sipp::new(server, "third_party", from).set("USER", "bob").set("SCSCF", format!("127.0.0.1:{scscf}"));
    sipp.set("NUMBER", number).set("EXPIRES", expires).set("CODE", 200).succeed();
}

/// What bob's phones can do, as alice is told.
fn bobs_tags(server: &Server, port: u16) -> String {
    let sipp = Sipp::new(server, "ask", port).set("METHOD", "OPTIONS").set("USER", "bob");
    let sipp = sipp.set("LINES", "Contact: <sip:alice@192.0.2.1>").set("CODE", 200);
    let outcome = sipp.users(&["alice"]).succeed();
    header(outcome.received().last().unwrap(), "Contact").unwrap_or_default().to_owned()
}

#[test]
fn s_cscf_is_asked_what_phones_can_do() {
    let ports = Ports::claim();
    let (teller, scscf, asker) = (ports.next(), ports.next(), ports.next());
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sip = format!("trusted = [\"127.0.0.1:{teller}\", \"127.0.0.1:{scscf}\"]\n");
    setup.sections = "[capabilities]\nanswer = \"network\"\n".into();
    let server = setup.start();
    let core = Sipp::new(&server, "tell_registrations", scscf).set("USER", "bob");
    let core = core.limit(Duration::from_secs(120)).start();
    tells(&server, teller, scscf, 1, 600);
    eventually("both phones are known", SOON, || {
        let tags = bobs_tags(&server, asker);
        tags.contains(CHAT) && tags.contains(";+g.3gpp.smsip")
    });
    // A refresh that does not say forgets nothing.
    tells(&server, teller, scscf, 2, 600);
    let subscribed = core.so_far().received()[0].to_owned();
    let peer = Peer::new(0);
    let call_id = header(&subscribed, "Call-ID").unwrap();
    peer.send(scscf, &peer.request("INFO", "sip:x", ["bob", "alice"], call_id, "", ""));
    eventually("one of them is gone", SOON, || {
        let tags = bobs_tags(&server, asker);
        !tags.contains(CHAT) && tags.contains(";+g.3gpp.smsip")
    });
    assert_eq!(server.metric("isthmus_subscriptions_elsewhere"), 1.0);
    tells(&server, teller, scscf, 3, 0);
    let seen = core.succeed(1);
    let subscribe = seen.received()[0];
    assert!(subscribe.starts_with(&format!("SUBSCRIBE sip:bob@{DOMAIN} SIP/2.0")), "{subscribe}");
    assert_eq!(header(subscribe, "Accept"), Some("application/reginfo+xml"));
    assert_eq!(header(subscribe, "Route"), Some(&*format!("<sip:127.0.0.1:{scscf};lr>")));
    eventually("nobody is watched", SOON, || server.metric("isthmus_subscriptions_elsewhere") == 0.0);
}

#[test]
fn s_cscf_is_believed_for_its_certificate() {
    let mut setup = Setup::with_users(&["bob"]);
    setup.sip = "trusted = [\"tls:scscf.ims.test\"]\n".into();
    setup.tls = "client_authorities = \"ca.pem\"".into();
    setup.registrar = "reg_event = false\n".into();
    let server = setup.start();
    for (number, name, sip, code) in
        [(1, "stranger", "sip:other.ims.test", 401), (2, "scscf", "sip:scscf.ims.test", 200)]
    {
        server.authority.issue_for(name, &format!("URI:{sip}"));
        let tunnel = server.ports.next();
        let _tunnel = stunnel::client_as(server.path(), tunnel, server.sips, DOMAIN, name);
        let sipp = Sipp::new(&server, "third_party", server.ports.next()).tls_by_stunnel().towards(tunnel);
        let sipp = sipp.set("USER", "bob").set("SCSCF", "scscf.ims.test").set("NUMBER", number).set("EXPIRES", 600);
        sipp.set("CODE", code).succeed();
        assert_eq!(server.metric("isthmus_registered_users"), if code == 200 { 1.0 } else { 0.0 });
    }
}

fn registers(server: &Server, expires: u32, phone: u16, code: u16) {
    let sipp = Sipp::new(server, "register_with", server.ports.next()).set("CODE", code).users(&["bob"]);
    sipp.set("LINES", format!("Contact: <sip:bob@127.0.0.1:{phone}>;+g.3gpp.smsip;expires={expires}")).succeed();
}

#[test]
fn application_server_is_told_of_registrations_and_of_their_end() {
    let ports = Ports::claim();
    let server_at = ports.next();
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.provisions = format!(
        "[[filter]]\nuser = \"*\"\npriority = 10\nmethod = \"REGISTER\"\nservice = \"sip:127.0.0.1:{server_at}\"\n\
         registration = [\"initial\", \"end\"]\ninclude_request = true\ninclude_response = true\n\
         service_info = \"plan=<gold> & more\"\n"
    );
    let server = setup.start();
    let elsewhere = Sipp::new(&server, "take_registers", server_at).limit(Duration::from_secs(90)).start();
    registers(&server, 600, 5999, 200);
    // Refreshes are not what it wants to hear of.
    registers(&server, 600, 5999, 200);
    registers(&server, 0, 5999, 200);
    let seen = elsewhere.succeed(1);
    let all: Vec<&str> = seen.received().into_iter().filter(|m| m.starts_with("REGISTER")).collect();
    let [first, last] = all[..] else { panic!("{all:?}") };
    assert!(first.starts_with(&format!("REGISTER sip:127.0.0.1:{server_at} SIP/2.0")), "{first}");
    assert_eq!(header(first, "To"), Some(&*format!("<sip:bob@{DOMAIN}>")));
    assert!(
        header(first, "From").is_some_and(|f| f.starts_with(&format!("<sip:127.0.0.1:{}>;tag=", server.sip))),
        "{first}"
    );
    assert!(header(first, "Expires").and_then(|e| e.parse::<u32>().ok()).is_some_and(|e| (595..=600).contains(&e)));
    assert!(header(first, "Content-Type").is_some_and(|t| t.starts_with("multipart/mixed;boundary=")), "{first}");
    assert!(first.contains("<service-info>plan=&lt;gold&gt; &amp; more</service-info>"), "{first}");
    assert_eq!(first.matches("Content-Type: message/sip").count(), 2, "{first}");
    assert!(first.contains("\r\nSIP/2.0 200 OK\r\n") && first.contains(":5999>;+g.3gpp.smsip;expires=600"), "{first}");
    assert_eq!(header(last, "Expires"), Some("0"));
    assert_eq!(header(last, "Call-ID"), header(first, "Call-ID"));
}

#[test]
fn user_who_cannot_do_without_a_server_is_de_registered_when_it_is_down() {
    let ports = Ports::claim();
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.provisions = format!(
        "[[filter]]\nuser = \"bob\"\npriority = 10\nmethod = \"REGISTER\"\nservice = \"sip:127.0.0.1:{}\"\n\
         default_handling = \"terminate\"\n[[filter]]\nuser = \"alice\"\npriority = 10\nmethod = \"REGISTER\"\n\
         service = \"sip:127.0.0.1:{}\"\n",
        ports.next(),
        ports.next()
    );
    let server = setup.start();
    let phone = Sipp::new(&server, "register_with", server.ports.next()).set("CODE", 200).users(&["alice"]);
    phone.set("LINES", "Contact: <sip:alice@127.0.0.1:5998>;expires=600").succeed();
    registers(&server, 600, 5999, 200);
    // The port is closed, which the machine says at once; or it is the end of timer F.
    eventually("bob is gone, and alice is not", Duration::from_secs(60), || server.metric("isthmus_bindings") == 1.0);
    let sipp = Sipp::new(&server, "ask", server.ports.next()).set("METHOD", "OPTIONS").set("USER", "bob");
    sipp.set("LINES", "Contact: <sip:alice@192.0.2.1>").set("CODE", 480).users(&["alice"]).succeed();
}
