//! An incoming short message reaches users of XMPP: Prosody is their server, slixmpp what they read with.

mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::dns::{NameServer, Record};
use harness::handset::{ACK, SMSIP};
use harness::prosody::{Prosody, XMPP_DOMAIN};
use harness::sms::{self, NUMBER};
use harness::{DOMAIN, PASSWORD, Ports, Server, Sipp, eventually};

/// Bob has the number that the centre sends to, and an account at the XMPP server.
struct Town {
    smsc: sms::Peer,
    prosody: Prosody,
    server: Server,
    /// The server's door for other domains.
    s2s: u16,
    _dns: NameServer,
    _ports: Ports,
}

struct Plan {
    /// Of the centre.
    mode: &'static str,
    /// Messages for our users are kept here, and not there.
    keep: bool,
    /// Else the DNS tells where the XMPP server is.
    by_route: bool,
    /// Bob's account there.
    account: &'static str,
}

const PLAN: Plan = Plan { mode: TO_BOB, keep: false, by_route: true, account: "bob" };

fn town(plan: Plan) -> Town {
    let ports = Ports::claim();
    let (smsc, callback, s2s, theirs, dns) = (ports.next(), ports.next(), ports.next(), ports.next(), ports.next());
    let mut setup = sms::setup(smsc, callback, "");
    setup.auth = "none";
    setup.tls = "authorities = \"ca.pem\"".into();
    setup.sip = format!("resolver = \"127.0.0.1:{dns}\"");
    setup.issue = vec![("xmpp", XMPP_DOMAIN)];
    setup.sections.push_str(&format!("[sms_over_ip]\nkeep = {}\n[xmpp]\ns2s = \"127.0.0.1:{s2s}\"\n", plan.keep));
    if plan.by_route {
        setup.sections.push_str(&format!("[xmpp.route.\"{XMPP_DOMAIN}\"]\naddress = \"127.0.0.1:{theirs}\"\n"));
    }
    setup.provisions.push_str(&format!(
        "[[user]]\nid = \"bob\"\npassword = \"{PASSWORD}\"\nmsisdn = \"{NUMBER}\"\njid = \"{}@{XMPP_DOMAIN}\"\n\
         [[user]]\nid = \"dora\"\npassword = \"{PASSWORD}\"\nmsisdn = \"+819012345601\"\n",
        plan.account
    ));
    let table = vec![
        Record::Srv("_xmpp-server._tcp.isthmus.test", 0, 0, s2s, "isthmus.test"),
        Record::Srv("_xmpp-server._tcp.xmpp.test", 0, 0, theirs, "xmpp.test"),
        Record::A("isthmus.test", Ipv4Addr::LOCALHOST),
        Record::A("xmpp.test", Ipv4Addr::LOCALHOST),
    ];
    let name_server = NameServer::start(dns, table);
    let server = setup.start();
    let prosody = Prosody::start(server.path(), &ports, theirs, dns);
    let smsc = sms::Peer::smsc(server.path(), smsc, plan.mode);
    smsc.wait_for("bound", 1);
    Town { smsc, prosody, server, s2s, _dns: name_server, _ports: ports }
}

impl Town {
    /// Makes the centre send `count` messages to bob: it answers each that dora sends to a number outside.
    fn incoming(&self, count: u32) {
        let sipp = Sipp::new(&self.server, "message_open", self.server.ports.next());
        let sipp = sipp.set("URI", format!("tel:{OUTSIDE}")).set("TEXT", "Tell bob").set("CODE", 202);
        sipp.users(&["dora"]).calls(count).succeed();
    }

    fn texts(&self, fate: &str) -> f64 {
        self.server.metric(&format!("isthmus_xmpp_texts_total{{fate=\"{fate}\"}}"))
    }
}

const TO_BOB: &str = "819012345678";
const OUTSIDE: &str = "+819099999999";

#[test]
fn a_message_of_a_centre_reaches_a_jid() {
    let town = town(PLAN);
    let bob = town.prosody.client("bob");
    town.incoming(1);
    let got = &bob.wait_for("message", 1)[0];
    assert_eq!((got["text"].as_str(), got["type"].as_str()), (Some("Back from outside"), Some("normal")), "{got}");
    assert_eq!(got["from"].as_str(), Some(&*format!("{OUTSIDE}@{DOMAIN}")), "{got}");
    // The centre hears that it is there, and so do the records.
    assert_eq!(town.smsc.wait_for("taken", 1)[0]["status"], 0);
    assert_eq!(town.texts("taken"), 1.0);
    let streams = |direction: &str| town.server.metric(&format!("isthmus_xmpp_streams{{direction=\"{direction}\"}}"));
    assert_eq!((streams("out"), streams("in")), (1.0, 1.0));
    let records = sms::wait_records(&town.server, 1);
    let inward = records.iter().find(|r| r["call_id"].as_str().unwrap().starts_with("smsc-")).expect("the centre's");
    assert_eq!((inward["to"].as_str(), &inward["status"]), (Some(NUMBER), &0.into()), "{records:?}");
    let name = inward["call_id"].as_str().unwrap();
    eventually("the trace tells", Duration::from_secs(20), || {
        town.server.command(&["trace", name, "--config", "isthmus.toml"]).contains("delivered")
    });
}

#[test]
fn parts_that_a_centre_gives_one_by_one_reach_a_jid_as_one_text() {
    let town = town(Plan { mode: "819012345678:parts", ..PLAN });
    let bob = town.prosody.client("bob");
    town.incoming(1);
    let taken = town.smsc.wait_for("taken", 3);
    assert!(taken.iter().all(|t| t["status"] == 0), "{taken:?}");
    let text = "Part 1 of a long message. Part 2 of a long message. Part 3 of a long message. ";
    assert_eq!(bob.wait_for("message", 1)[0]["text"], text);
}

#[test]
fn the_dns_tells_where_the_server_is_and_that_keeps_it_for_who_is_away() {
    let town = town(Plan { by_route: false, ..PLAN });
    town.incoming(1);
    assert_eq!(town.smsc.wait_for("taken", 1)[0]["status"], 0);
    // Prosody answers for it from now on.
    let bob = town.prosody.client("bob");
    assert_eq!(bob.wait_for("message", 1)[0]["text"], "Back from outside");
}

#[test]
fn a_server_that_is_down_loses_nothing_and_is_served_when_it_is_back() {
    let mut town = town(Plan { keep: true, ..PLAN });
    town.prosody.kill();
    town.incoming(3);
    // They are kept here, so the centre forgets them.
    let taken = town.smsc.wait_for("taken", 3);
    assert!(taken.iter().all(|t| t["status"] == 0), "{taken:?}");
    eventually("they are put off", Duration::from_secs(20), || town.texts("put_off") >= 1.0);
    town.prosody.restart();
    let bob = town.prosody.client("bob");
    // By the queue's own schedule it would be later than this.
    bob.wait_for("message", 3);
    eventually("they are taken", Duration::from_secs(20), || town.texts("taken") == 3.0);
    assert_eq!(bob.events("message").len(), 3);
}

#[test]
fn without_a_queue_the_centre_keeps_what_a_server_that_is_down_cannot_have() {
    let mut town = town(Plan { mode: "819012345678:again", ..PLAN });
    town.prosody.kill();
    town.incoming(1);
    assert_ne!(town.smsc.wait_for("taken", 1)[0]["status"], 0);
    town.prosody.restart();
    let bob = town.prosody.client("bob");
    bob.wait_for("message", 1);
    eventually("the centre hears", Duration::from_secs(20), || {
        town.smsc.events("taken").iter().any(|t| t["status"] == 0)
    });
    assert_eq!(bob.events("message").len(), 1);
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    const COUNT: usize = 100;
    let mut town = town(Plan { keep: true, ..PLAN });
    let bob = town.prosody.client("bob");
    // So that they are on their way when it dies, and not through.
    town.incoming(COUNT as u32 / 2);
    town.server.process.signal("KILL");
    town.server.restart();
    town.smsc.wait_for("bound", 2);
    let acknowledged = || town.smsc.events("taken").iter().filter(|t| t["status"] == 0).count();
    let before = acknowledged();
    town.incoming(COUNT as u32 / 2);
    eventually("the second half is acknowledged", Duration::from_secs(60), || acknowledged() >= before + COUNT / 2);
    eventually("all that were acknowledged are there", Duration::from_secs(60), || {
        bob.events("message").len() >= acknowledged()
    });
    // What was on its way may have come twice, and nothing else.
    assert!(bob.events("message").len() <= COUNT + COUNT / 2);
}

#[test]
fn who_has_no_account_there_is_refused_to_the_centre() {
    let town = town(Plan { account: "nobody", ..PLAN });
    town.incoming(1);
    // ESME_RINVDSTADR: it is for nobody.
    let taken = town.smsc.wait_for("taken", 1);
    assert_eq!(taken[0]["status"], 0x0B, "{taken:?}");
    assert_eq!((town.texts("refused"), town.texts("taken")), (1.0, 0.0));
}

#[test]
fn a_phone_and_a_jid_get_a_text_once_each() {
    let town = town(PLAN);
    let bob = town.prosody.client("bob");
    let port = town.server.ports.next();
    let phone = Sipp::new(&town.server, "take_messages", port).set("CODE", 200).start();
    bind(&town.server, port, "");
    town.incoming(1);
    let seen = phone.succeed(1);
    assert!(seen.received()[0].trim_end().ends_with("\r\n\r\nBack from outside"), "{}", seen.received()[0]);
    assert_eq!(town.smsc.wait_for("taken", 1)[0]["status"], 0);
    bob.wait_for("message", 1);
    eventually("it is taken once", Duration::from_secs(20), || town.texts("taken") == 1.0);
    assert_eq!((bob.events("message").len(), seen.received().len()), (1, 1));
}

#[test]
fn a_handset_and_a_jid_get_a_message_once_each_and_the_jid_what_the_handset_does_not_take() {
    let town = town(PLAN);
    let bob = town.prosody.client("bob");
    let port = town.server.ports.next();
    let handset = Sipp::new(&town.server, "sms_handset", port).set("REPORT", ACK).users(&["bob"]).start();
    bind(&town.server, port, SMSIP);
    town.incoming(1);
    handset.succeed(1);
    assert_eq!(town.smsc.wait_for("taken", 1)[0]["status"], 0);
    let got = &bob.wait_for("message", 1)[0];
    assert_eq!(
        (got["text"].as_str(), got["from"].as_str()),
        (Some("Back from outside"), Some(&*format!("{OUTSIDE}@{DOMAIN}")))
    );
    // Now it says that it is not there.
    let absent = Sipp::new(&town.server, "take_messages", port).set("CODE", 480).start();
    town.incoming(1);
    absent.succeed(1);
    assert_eq!(town.smsc.wait_for("taken", 2)[1]["status"], 0);
    bob.wait_for("message", 2);
    assert_eq!(town.texts("taken"), 2.0);
}

#[test]
fn what_a_user_writes_to_a_number_goes_out_as_a_short_message_and_the_answer_comes_back() {
    let town = town(PLAN);
    let bob = town.prosody.sending("bob", &format!("{OUTSIDE}@{DOMAIN}"), "Grüße [€]");
    let submit = &town.smsc.wait_for("submit", 1)[0];
    assert_eq!((submit["to"].as_str(), submit["from"].as_str()), (Some("819099999999"), Some(TO_BOB)), "{submit}");
    assert_eq!(submit["text"], "Grüße [€]");
    let got = &bob.wait_for("message", 1)[0];
    let from = format!("{OUTSIDE}@{DOMAIN}");
    assert_eq!((got["text"].as_str(), got["from"].as_str()), (Some("Back from outside"), Some(&*from)), "{got}");
    assert_eq!(bob.events("error").len(), 0);
}

#[test]
fn who_is_not_linked_sends_no_short_messages_and_who_is_none_to_nobody() {
    let town = town(PLAN);
    // Carol has an account, and nobody here is her.
    let carol = town.prosody.sending("carol", &format!("{OUTSIDE}@{DOMAIN}"), "x");
    assert_eq!(carol.wait_for("error", 1)[0]["condition"], "not-authorized");
    let bob = town.prosody.sending("bob", &format!("nobody@{DOMAIN}"), "x");
    assert_eq!(bob.wait_for("error", 1)[0]["condition"], "item-not-found");
    assert_eq!(town.smsc.events("submit").len(), 0);
}

#[test]
fn who_proves_no_domain_is_not_heard() {
    let town = town(PLAN);
    let head = format!(
        "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' from='{XMPP_DOMAIN}' \
         to='{DOMAIN}' version='1.0'>"
    );
    let message = format!("<message from='bob@{XMPP_DOMAIN}' to='{OUTSIDE}@{DOMAIN}'><body>x</body></message>");
    // In clear, nothing but STARTTLS is.
    let mut plain = TcpStream::connect(("127.0.0.1", town.s2s)).unwrap();
    plain.write_all(format!("{head}{message}").as_bytes()).unwrap();
    let mut said = String::new();
    plain.read_to_string(&mut said).unwrap();
    assert!(said.contains("<required/>") && said.contains("<policy-violation "), "{said}");
    let door = format!("127.0.0.1:{}", town.s2s);
    let encrypted = ["s_client", "-quiet", "-starttls", "xmpp-server", "-xmpphost", DOMAIN, "-connect", &door];
    let said = answered(&encrypted, &format!("{head}{message}"));
    assert!(said.contains("<dialback ") && said.contains("<not-authorized "), "{said}");
    let said = answered(&encrypted, &format!("{head}{}", "<a>".repeat(100)));
    assert!(said.contains("<policy-violation "), "{said}");
    // A key that their server did not make.
    let result =
        format!("<db:result xmlns:db='jabber:server:dialback' from='{XMPP_DOMAIN}' to='{DOMAIN}'>x</db:result>");
    let said = answered(&encrypted, &format!("{head}{result}"));
    assert!(said.contains("type=\"invalid\""), "{said}");
    assert_eq!(town.smsc.events("submit").len(), 0);
}

#[test]
fn a_stop_ends_streams_and_says_why() {
    let mut town = town(PLAN);
    let bob = town.prosody.client("bob");
    town.incoming(1);
    bob.wait_for("message", 1);
    town.server.process.signal("TERM");
    town.prosody.says("closed: system-shutdown");
}

/// What the server says to `input` over OpenSSL, until it ends the connection.
fn answered(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut client = command.spawn().expect("it is installed");
    client.stdin.take().expect("piped").write_all(input.as_bytes()).unwrap();
    String::from_utf8_lossy(&client.wait_with_output().unwrap().stdout).into_owned()
}

/// Bob's phone.
fn bind(server: &Server, port: u16, params: &str) {
    let sipp = Sipp::new(server, "register_open", server.ports.next());
    let sipp = sipp.set("CONTACT", format!("127.0.0.1:{port}")).set("PARAMS", params).set("EXPIRES", 600);
    sipp.users(&["bob"]).succeed();
}
