//! Kamailio: the neighbouring proxy of the stories, and the stand-in subject that proves their scenarios.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::process::Process;
use super::server::{DOMAIN, PASSWORD, Setup};

const SCRIPT: &str = include_str!("kamailio.cfg");
const EDGE: &str = include_str!("edge.cfg");
const HANDSET: &str = include_str!("handset.cfg");
const SCSCF: &str = include_str!("scscf.cfg");
const ON_PATH: &str = include_str!("server_on_path.cfg");
const WATCHER: &str = include_str!("watcher.cfg");
const PUBLISHER: &str = include_str!("publisher.cfg");
const PRESENCE_SERVER: &str = include_str!("presence_server.cfg");
const MSRP_RELAY: &str = include_str!("msrp_relay.cfg");

/// Starts Kamailio as the home proxy of [`DOMAIN`].
pub fn subject(dir: &Path, setup: &Setup, sip: u16, sips: u16) -> Process {
    let users: String = setup.users.iter().map(|u| format!("\t$sht(users=>{u}) = \"{PASSWORD}\";\n")).collect();
    let mut flags = vec!["WITH_TLS"];
    if setup.auth == "digest" {
        flags.push("WITH_DIGEST");
    }
    start(
        SCRIPT,
        "kamailio",
        dir,
        &flags,
        &[("DOMAIN", DOMAIN), ("PORT", &sip.to_string()), ("TLSPORT", &sips.to_string()), ("USERS", &users)],
    )
}

/// Starts Kamailio as the proxy of another domain, that sends what is not for it to `next` (`127.0.0.1:port`).
pub fn neighbour(dir: &Path, domain: &str, port: u16, next: &str) -> Process {
    start(
        SCRIPT,
        "neighbour",
        dir,
        &["WITH_NEIGHBOUR"],
        &[("DOMAIN", domain), ("PORT", &port.to_string()), ("NEIGHBOUR", next), ("USERS", "\t$var(none) = 0;")],
    )
}

/// Starts Kamailio as an edge proxy in front of `registrar` (`127.0.0.1:port`).
pub fn edge(dir: &Path, port: u16, registrar: &str) -> Process {
    edge_that(dir, port, registrar, "")
}

/// The same, which asks for privacy in the place of its phones.
pub fn private_edge(dir: &Path, port: u16, registrar: &str, wish: &str) -> Process {
    edge_that(dir, port, registrar, &format!("append_hf(\"Privacy: {wish}\\r\\n\");"))
}

fn edge_that(dir: &Path, port: u16, registrar: &str, does: &str) -> Process {
    let sets = [("PORT", &*port.to_string()), ("REGISTRAR", registrar), ("INVITE", does)];
    start(EDGE, &format!("edge-{port}"), dir, &[], &sets)
}

/// Starts Kamailio as the S-CSCF of [`DOMAIN`] that has the server at port `server` serve its users over ISC.
pub fn scscf(dir: &Path, port: u16, server: u16) -> Process {
    scscf_naming(dir, port, server, "")
}

/// The same with one service of the server, by its public identity.
pub fn scscf_naming(dir: &Path, port: u16, server: u16, service: &str) -> Process {
    let identity = if service.is_empty() { String::new() } else { format!("{service}@") };
    let ports = [port, server].map(|p| p.to_string());
    let sets = [("DOMAIN", DOMAIN), ("PORT", &*ports[0]), ("SERVER", &*ports[1]), ("SERVICE", &*identity)];
    start(SCSCF, "scscf", dir, &[], &sets)
}

/// Starts Kamailio as an application server that sends back what it gets, with a header that names it.
pub fn server_on_path(dir: &Path, name: &str, port: u16) -> Process {
    start(ON_PATH, &format!("server-{name}"), dir, &[], &[("NAME", name), ("PORT", &port.to_string())])
}

/// Starts Kamailio as a handset that reads short messages.
pub fn handset(dir: &Path, port: u16) -> Process {
    start(HANDSET, "handset", dir, &[], &[("PORT", &port.to_string())])
}

/// Starts Kamailio as an MSRP relay with the certificate `relay.pem` in `dir`; it believes the authority there. `client`: what
/// only the URI of its client has in it.
pub fn msrp_relay(dir: &Path, [port, tls_port]: [u16; 2], client: &str) -> Process {
    let profiles = format!(
        "[server:default]\nmethod = TLSv1.2+\nverify_certificate = no\nprivate_key = {0}/relay.key\ncertificate = {0}/relay.pem\n\
         [client:default]\nmethod = TLSv1.2+\nverify_certificate = yes\nca_list = {0}/ca.pem\n",
        dir.display()
    );
    std::fs::write(dir.join("msrp-relay-tls.cfg"), profiles).unwrap();
    let sets = [("PORT", &*port.to_string()), ("TLSPORT", &*tls_port.to_string()), ("CLIENT", client)];
    start(MSRP_RELAY, "msrp-relay", dir, &[], &sets)
}

/// Starts Kamailio as one that watches where `user` is registered.
pub fn watcher(dir: &Path, port: u16, registrar: &str, user: &str) -> Process {
    let tables = text_tables(dir, "watcher", &["pua", "version"]);
    let sets = [
        ("PORT", &*port.to_string()),
        ("REGISTRAR", registrar),
        ("USER", user),
        ("DOMAIN", DOMAIN),
        ("TABLES", &tables),
    ];
    start(WATCHER, "watcher", dir, &[], &sets)
}

/// Starts Kamailio as the registrar of another network's edge, that publishes who is registered there to `server`.
pub fn publisher(dir: &Path, port: u16, server: &str) -> Process {
    let tables = text_tables(dir, "publisher", &["pua", "version"]);
    let sets = [("PORT", &*port.to_string()), ("SERVER", server), ("DOMAIN", DOMAIN), ("TABLES", &tables)];
    start(PUBLISHER, "publisher", dir, &[], &sets)
}

/// Starts Kamailio as the presence server of another domain.
pub fn presence_server(dir: &Path, domain: &str, port: u16) -> Process {
    let tables = text_tables(dir, "presence", &["version", "presentity", "active_watchers", "watchers", "xcap"]);
    let sets = [("DOMAIN", domain), ("PORT", &*port.to_string()), ("TABLES", &tables)];
    start(PRESENCE_SERVER, "presence", dir, &[], &sets)
}

/// Some of its modules want a database; these are empty tables of text, from its own package.
fn text_tables(dir: &Path, name: &str, wanted: &[&str]) -> String {
    let tables = dir.join(format!("{name}-tables"));
    std::fs::create_dir_all(&tables).unwrap();
    for table in wanted {
        std::fs::copy(Path::new("/usr/share/kamailio/dbtext/kamailio").join(table), tables.join(table))
            .expect("a table of Kamailio's package");
    }
    tables.display().to_string()
}

/// The same over TLS to `next`, with the certificate `client.pem` and `client.key` in `dir` if `certified`. Whatever its users
/// call, it asserts that they are `boss` of its domain.
pub fn neighbour_over_tls(dir: &Path, domain: &str, [port, tls_port]: [u16; 2], next: u16, certified: bool) -> Process {
    let own = format!("private_key = {0}/client.key\ncertificate = {0}/client.pem\n", dir.display());
    let client = if certified { own.as_str() } else { "" };
    let profiles = format!(
        "[server:default]\nmethod = TLSv1.2+\nverify_certificate = no\n{own}\
         [client:default]\nmethod = TLSv1.2+\nverify_certificate = yes\nca_list = {}/ca.pem\n{client}",
        dir.display()
    );
    std::fs::write(dir.join("neighbour-tls.cfg"), profiles).unwrap();
    start(
        SCRIPT,
        "neighbour",
        dir,
        &["WITH_NEIGHBOUR", "WITH_TLS", "WITH_PROFILES"],
        &[
            ("DOMAIN", domain),
            ("PORT", &port.to_string()),
            ("TLSPORT", &tls_port.to_string()),
            ("NEIGHBOUR", &format!("127.0.0.1:{next};transport=tls")),
            ("USERS", "\t$var(none) = 0;"),
        ],
    )
}

fn start(script: &str, name: &str, dir: &Path, flags: &[&str], sets: &[(&str, &str)]) -> Process {
    let (head, rest) = script.split_once('\n').expect("the script has lines");
    let mut text = format!("{head}\n");
    for flag in flags {
        text.push_str(&format!("#!define {flag}\n"));
    }
    text.push_str(rest);
    for (key, value) in sets {
        text = text.replace(&format!("@{key}@"), value);
    }
    let run = dir.join(format!("{name}-run"));
    std::fs::create_dir_all(&run).unwrap();
    let text = text.replace("@DIR@", &dir.display().to_string());
    let config = run.join("kamailio.cfg");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("kamailio");
    command
        .arg("-f")
        .arg(&config)
        .args(["-x", "tlsf", "-X", "tlsf", "-m", "64", "-M", "8", "-DD", "-E", "-Y"])
        .arg(&run);
    command.arg("-P").arg(run.join("pid"));
    let process = Process::start(name, dir, &mut command);
    let port = sets.iter().find(|(k, _)| *k == "PORT").map_or(0, |(_, v)| v.parse().unwrap());
    super::raw::Peer::new(0).wait_until_answered(port, Duration::from_secs(15));
    process
}
