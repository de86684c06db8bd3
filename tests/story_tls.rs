//! TLS with peers of another make: SIPp behind stunnel, which phones use as well as servers; and Kamailio as a neighbour that is
//! believed for its certificate.

mod harness;

use std::path::Path;

use harness::tls::Authority;
use harness::{DOMAIN, Peer, Ports, Process, Server, Setup, Sipp, header, kamailio, stunnel};

const NEIGHBOUR: &str = "neighbour.test";

fn bind_over_tls(server: &Server, tunnel: u16, user: &str, contact: &str, params: &str) {
    // From another address than the contact's: a phone that binds itself would be called over this very connection.
    let registering =
        Sipp::new(server, "register", server.ports.next()).tls_by_stunnel().towards(tunnel).from("127.0.0.2");
    registering.set("CONTACT", contact).set("PARAMS", params).set("EXPIRES", 600).users(&[user]).succeed();
}

#[test]
fn phones_register_and_call_over_tls_both_ways() {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.tls = "authorities = \"ca.pem\"".into();
    let server = setup.start();
    let (tunnel, door, phone) = (server.ports.next(), server.ports.next(), server.ports.next());
    let _tunnel = stunnel::client(server.path(), tunnel, server.sips, DOMAIN);
    server.authority.issue("bob", &["bob.phones.test"]);
    let _door = stunnel::server(server.path(), door, phone, "bob");
    let bob = Sipp::new(&server, "answer", phone).tls_by_stunnel().reached_at(door).start();
    harness::wait_for_tcp(phone);
    bind_over_tls(&server, tunnel, "bob", &format!("127.0.0.1:{door};transport=tls"), "");

    let call = Sipp::new(&server, "call", server.ports.next()).tls_by_stunnel().towards(tunnel);
    let called = call.set("URI", format!("sip:bob@{DOMAIN}")).users(&["alice"]).succeed();
    let seen = bob.succeed(1);
    let invite = seen.received()[0];
    assert!(header(invite, "Via").is_some_and(|v| v.starts_with("SIP/2.0/TLS ")), "{invite}");
    // Both sides are to come back over TLS.
    let routes = header(invite, "Record-Route").unwrap_or_default().matches("transport=tls").count();
    assert_eq!(routes, 2, "{invite}");
    assert!(called.received().iter().any(|m| m.starts_with("SIP/2.0 200")));
    let (udp, tcp) = (r#"transport="udp""#, r#"transport="tcp""#);
    let (_, metrics) = server.admin("/metrics");
    let other = metrics.lines().filter(|l| l.starts_with("isthmus_carrier_received_total"));
    assert!(other.filter(|l| l.contains(udp) || l.contains(tcp)).all(|l| l.ends_with(" 0")), "{metrics}");
}

#[test]
fn each_name_is_answered_with_its_own_certificate() {
    const OTHER: &str = "ims.other.test";
    let mut setup = Setup::with_users(&["alice"]);
    setup.tls = "additional = [{ certificate = \"other.pem\", key = \"other.key\" }]".into();
    setup.issue = vec![("other", OTHER)];
    let server = setup.start();
    for host in [DOMAIN, OTHER] {
        // stunnel goes on only with a server that proves the name it asked for.
        let tunnel = server.ports.next();
        let _tunnel = stunnel::client(server.path(), tunnel, server.sips, host);
        bind_over_tls(&server, tunnel, "alice", "127.0.0.1:9", "");
    }
}

#[test]
fn no_certificate_for_the_name_means_no_connection() {
    let server = Setup::with_users(&["alice"]).start();
    let tunnel = server.ports.next();
    let mut stunnel = stunnel::client(server.path(), tunnel, server.sips, "ims.other.test");
    let registering = Sipp::new(&server, "register", server.ports.next()).tls_by_stunnel().towards(tunnel);
    let refused = registering.set("CONTACT", "127.0.0.1:9").set("PARAMS", "").set("EXPIRES", 600);
    let refused = refused.limit(std::time::Duration::from_secs(10)).users(&["alice"]).run();
    assert_eq!(refused.counts.ok, 0);
    stunnel.wait_for("Subject checks failed", std::time::Duration::from_secs(20));
}

/// A server that believes `tls:scscf.neighbour.test`, bob's phone, and Kamailio with that certificate (or none).
struct Border {
    server: Server,
    // Held for its Drop.
    _ports: Ports,
    neighbour: (Process, u16),
}

impl Border {
    fn with(certificate: impl FnOnce(&Path, &Authority) -> bool) -> Self {
        let ports = Ports::claim();
        let (proxy, proxy_tls) = (ports.next(), ports.next());
        let mut setup = Setup::with_users(&["alice", "bob"]);
        setup.sip = "trusted = [\"tls:scscf.neighbour.test\"]".into();
        setup.tls = "client_authorities = \"ca.pem\"".into();
        let server = setup.start();
        // Kamailio wants one for its own door in any case.
        server.authority.issue_for("client", "URI:sip:someone.else.test");
        let certified = certificate(server.path(), &server.authority);
        let next = server.sips;
        let process = kamailio::neighbour_over_tls(server.path(), NEIGHBOUR, [proxy, proxy_tls], next, certified);
        Self { server, _ports: ports, neighbour: (process, proxy) }
    }

    fn bind_bob(&self, port: u16) {
        let binding = Sipp::new(&self.server, "register", self.server.ports.next());
        let binding = binding.set("CONTACT", format!("127.0.0.1:{port}")).set("PARAMS", "").set("EXPIRES", 600);
        binding.users(&["bob"]).succeed();
    }

    fn carol_calls(&self, scenario: &'static str) -> Sipp {
        let call = Sipp::new(&self.server, scenario, self.server.ports.next()).towards(self.neighbour.1);
        call.set("DOMAIN", NEIGHBOUR).set("URI", format!("sip:bob@{DOMAIN}")).users(&["carol"])
    }

    /// The P-Asserted-Identity of the INVITE that carol's call brings to bob.
    fn identity_that_arrives(&self) -> Option<String> {
        let port = self.server.ports.next();
        let bob = Sipp::new(&self.server, "answer", port).start();
        self.bind_bob(port);
        self.carol_calls("call_open").succeed();
        let seen = bob.succeed(1);
        header(seen.received()[0], "P-Asserted-Identity").map(str::to_owned)
    }
}

#[test]
fn neighbour_with_the_right_certificate_is_believed() {
    let border = Border::with(|_, authority| {
        authority.issue_for("client", "URI:sip:scscf.neighbour.test,DNS:a.host.test");
        true
    });
    assert_eq!(border.identity_that_arrives().as_deref(), Some("<sip:boss@neighbour.test>"));
}

#[test]
fn certificate_with_the_name_of_its_host_is_believed_too() {
    let border = Border::with(|_, authority| {
        authority.issue_for("client", "DNS:SCSCF.neighbour.test");
        true
    });
    assert_eq!(border.identity_that_arrives().as_deref(), Some("<sip:boss@neighbour.test>"));
}

#[test]
fn neighbour_without_a_certificate_is_served_and_not_believed() {
    let border = Border::with(|_, _| false);
    assert_eq!(border.identity_that_arrives(), None);
}

#[test]
fn certificates_of_other_names_are_not_believed() {
    // A wildcard, a person, and a host name beside a SIP domain that is not the one (RFC 5922 sections 7.1 and 7.2).
    for name in
        ["DNS:*.neighbour.test", "URI:sip:x@scscf.neighbour.test,DNS:b.test", "URI:sip:b.test,DNS:scscf.neighbour.test"]
    {
        let border = Border::with(|_, authority| {
            authority.issue_for("client", name);
            true
        });
        assert_eq!(border.identity_that_arrives(), None, "{name}");
    }
}

#[test]
fn certificate_of_another_authority_lets_nobody_in() {
    let border = Border::with(|dir, _| {
        let elsewhere = dir.join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        Authority::new(&elsewhere).issue_for("client", "URI:sip:scscf.neighbour.test");
        for file in ["client.pem", "client.key"] {
            std::fs::copy(elsewhere.join(file), dir.join(file)).unwrap();
        }
        true
    });
    let bob = Peer::new(border.server.ports.next());
    border.bind_bob(bob.port);
    let call = border.carol_calls("call_open").limit(std::time::Duration::from_secs(20)).run();
    assert_eq!(call.counts.ok, 0);
    assert_eq!(bob.receive(std::time::Duration::from_millis(300)), None);
    assert!(border.server.carrier_event("handshake_failed") >= 1.0);
}
