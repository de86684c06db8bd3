//! A user's browser is known by a session of the portal: curl with a jar of cookies, and Chromium, at documents, histories and files.

#[path = "harness/cluster.rs"]
mod cluster;
mod harness;
#[path = "harness/nats.rs"]
#[allow(dead_code)] // Shared: other tests use the rest of it.
mod nats;
#[path = "harness/postgres.rs"]
#[allow(dead_code)]
mod postgres;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cluster::Cluster;
use harness::faketime::under;
use harness::xcap::{Answer, Client, LISTS, home};
use harness::{DOMAIN, PASSWORD, Process, Server, Setup, eventually};

const SOON: Duration = Duration::from_secs(30);
const SESSION: &str = "api/v1/session";
const EMPTY: &str = "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"/>";
/// A header that no form elsewhere can send.
const BY_SCRIPT: [&str; 2] = ["-H", "X-Requested-With: curl"];

/// A user's document below the server's root.
fn lists(user: &str) -> String {
    format!("xcap-root/{}", home("resource-lists", user, "index"))
}

/// At the whole server, without TLS.
fn plain(server: &Server) -> Client {
    let mut client = Client::nobody(server);
    client.root = client.root.replace("xcap-root/", "");
    client
}

fn secure(server: &Server) -> Client {
    plain(server).secure(server)
}

fn log_in(client: &Client, user: &str, password: &str) -> Answer {
    client.post_json(SESSION, &format!("{{\"user\": \"{user}\", \"password\": \"{password}\"}}"))
}

/// Logs in over TLS: the cookie, `name=value`.
fn cookie(server: &Server, user: &str) -> String {
    let answer = log_in(&secure(server), user, PASSWORD);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.cookie.unwrap().split(';').next().unwrap().to_owned()
}

/// A client over TLS that sends this cookie.
fn with(server: &Server, cookie: &str) -> Client {
    secure(server).with(&["-H", &format!("Cookie: other=1; {cookie}")]).with(&BY_SCRIPT)
}

fn status(server: &Server, cookie: &str) -> u16 {
    with(server, cookie).get(SESSION).status
}

#[test]
fn a_browsers_user_is_known_by_the_cookie_until_logged_out() {
    let mut setup = Setup::with_users(&["bob"]);
    setup.provisions = format!("[[user]]\nid = \"alice\"\npassword = \"{PASSWORD}\"\nmsisdn = \"+819012345678\"\n");
    let server = setup.start();
    let jar = server.path().join("jar").display().to_string();
    let alice = || secure(&server).with(&["-b", &jar, "-c", &jar]);

    let nobody = alice().get(SESSION);
    assert_eq!((nobody.status, nobody.media_type.as_deref()), (401, Some("application/problem+json")));
    let wrong = log_in(&alice(), "alice", "guess");
    let unknown = log_in(&alice(), "mallory", PASSWORD);
    assert_eq!((wrong.status, wrong.cookie.is_none()), (401, true));
    assert_eq!((wrong.status, &wrong.body), (unknown.status, &unknown.body), "nobody learns who is a user");
    // Only as JSON, which no form can send; only what is known; not the whole world.
    assert_eq!(alice().with(&["-d", "user=alice"]).get(SESSION).status, 415);
    for bad in ["{", "{}", "[]", r#"{"user": "alice", "password": "wonderland", "more": 1}"#] {
        assert!([400, 422].contains(&alice().post_json(SESSION, bad).status), "{bad}");
    }
    assert_eq!(alice().post_json(SESSION, &" ".repeat(5_000)).status, 413);

    let begun = log_in(&alice(), "alice", PASSWORD);
    assert_eq!(begun.status, 201, "{begun:?}");
    let set = begun.cookie.clone().expect("a cookie");
    for attribute in
        ["__Host-isthmus-session=", "; Path=/", "; HttpOnly", "; SameSite=Strict", "; Secure", "; Max-Age=86400"]
    {
        assert!(set.contains(attribute), "{attribute}: {set}");
    }
    let told: serde_json::Value = serde_json::from_str(&alice().get(SESSION).body).unwrap();
    assert_eq!((&told["user"], &told["address"]), (&"alice".into(), &format!("sip:alice@{DOMAIN}").into()), "{told}");
    assert_eq!(told, serde_json::from_str::<serde_json::Value>(&begun.body).unwrap());

    // Documents, histories, files.
    assert_eq!(alice().get(&lists("alice")).status, 404);
    assert_eq!(alice().put(&lists("alice"), LISTS, EMPTY).status, 403, "a cookie alone changes nothing");
    let script = || alice().with(&BY_SCRIPT);
    assert_eq!(script().put(&lists("alice"), LISTS, EMPTY).status, 201);
    assert_eq!(alice().get(&lists("alice")).body, EMPTY);
    let by_number = lists("alice").replace(&format!("sip:alice@{DOMAIN}"), "tel:+819012345678");
    assert_eq!(alice().get(&by_number).body, EMPTY);
    assert_eq!([script().put(&lists("bob"), LISTS, EMPTY).status, alice().get(&lists("bob")).status], [403, 403]);
    assert_eq!(alice().get("history/").status, 200);
    assert_eq!([script().delete("history/").status, alice().delete("history/").status], [200, 403]);
    assert_eq!(
        [script().with(&["-X", "POST"]).get("content/").status, alice().with(&["-X", "POST"]).get("content/").status],
        [204, 403]
    );
    // Of what a browser says of the page that asks, nothing is believed but that it is ours.
    let origin = format!("Origin: https://127.0.0.1:{}", server.https);
    for (line, put) in [
        (&*origin, 200),
        ("Origin: https://127.0.0.1", 403),
        ("Origin: null", 403),
        ("Sec-Fetch-Site: same-origin", 200),
        ("Sec-Fetch-Site: same-site", 403),
        ("Sec-Fetch-Site: cross-site", 403),
    ] {
        assert_eq!(alice().put_if(&lists("alice"), LISTS, EMPTY, line).status, put, "{line}");
    }

    let cookie = set.split(';').next().unwrap();
    assert_eq!(alice().delete(SESSION).status, 403);
    let ended = script().delete(SESSION);
    assert_eq!((ended.status, ended.cookie.is_some_and(|c| c.contains("; Max-Age=0"))), (204, true));
    assert_eq!(script().delete(SESSION).status, 204, "it is over");
    // Whoever kept the cookie has nothing. A script is not asked for digest: it knows what to do.
    for (client, asked) in [(alice(), "digest"), (with(&server, cookie), "cookie")] {
        let refused = client.get(&lists("alice"));
        assert_eq!(refused.status, 401);
        let head = refused.head.to_ascii_lowercase();
        assert_eq!(
            (head.matches("www-authenticate").count(), head.contains(&format!("www-authenticate: {asked}"))),
            (1, true),
            "{head}"
        );
        assert_eq!(client.get(SESSION).status, 401);
    }
    let attempts = |outcome: &str| server.metric(&format!("isthmus_portal_logins_total{{outcome=\"{outcome}\"}}"));
    assert_eq!((attempts("granted"), attempts("wrong")), (1.0, 2.0));
}

#[test]
fn a_cookie_that_is_not_ours_is_nobodys() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let (alice, bob) = (cookie(&server, "alice"), cookie(&server, "bob"));
    assert_eq!([status(&server, &alice), status(&server, &bob)], [200, 200]);
    let (name, value) = alice.split_once('=').unwrap();
    let (of_alice, secret) = value.split_once('.').unwrap();
    let (of_bob, other) = bob.split_once('=').unwrap().1.split_once('.').unwrap();
    let flipped = |at: usize| {
        let mut text = secret.as_bytes().to_vec();
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(text).unwrap()
    };
    for forged in [
        format!("{of_bob}.{secret}"),
        format!("{of_alice}.{other}"),
        format!("{of_alice}.{}", flipped(0)),
        format!("{of_alice}.{}", flipped(30)),
        format!("{of_alice}.{}", "A".repeat(43)),
        format!("{of_alice}.{}", &secret[..42]),
        format!("{value}A"),
        value.replace('.', ""),
        "x".repeat(7_000),
        ".".into(),
        String::new(),
    ] {
        let with = with(&server, &format!("{name}={forged}"));
        assert_eq!([with.get(SESSION).status, with.get(&lists("alice")).status], [401, 401], "{forged}");
    }
    // A neighbouring host could write a cookie of this name: over TLS it is none.
    assert_eq!(status(&server, &format!("isthmus-session={value}")), 401);
    assert_eq!(status(&server, &alice), 200);

    // Without TLS the password is taken on this machine alone, and the cookie has the other name.
    let plainly = log_in(&plain(&server), "alice", PASSWORD).cookie.unwrap();
    assert!(plainly.starts_with("isthmus-session=") && !plainly.contains("Secure"), "{plainly}");
    let plainly = plain(&server).with(&["-b", plainly.split(';').next().unwrap()]);
    assert_eq!(plainly.get(SESSION).status, 200);
}

#[test]
fn sessions_end_with_the_password_the_user_and_one_too_many() {
    let mut setup = Setup::with_users(&["alice", "bob"]);
    setup.sections = "[portal]\nsessions_per_user = 2\n".into();
    let mut server = setup.start();
    let first = cookie(&server, "bob");
    let others = [cookie(&server, "bob"), cookie(&server, "bob")];
    assert_eq!(status(&server, &first), 401);
    // What is open is open after a crash.
    server.restart();
    for open in &others {
        assert_eq!(status(&server, open), 200);
    }
    let alice = cookie(&server, "alice");
    server.command(&["user", "passwd", "bob", "--password", "other", "--config", "isthmus.toml"]);
    eventually("the old password's sessions are over", SOON, || status(&server, &others[0]) == 401);
    assert_eq!([status(&server, &others[1]), log_in(&secure(&server), "bob", PASSWORD).status], [401, 401]);
    assert_eq!(log_in(&secure(&server), "bob", "other").status, 201);

    server.command(&["user", "remove", "alice", "--config", "isthmus.toml"]);
    eventually("she is no user", SOON, || status(&server, &alice) == 401);
    assert_eq!(log_in(&secure(&server), "alice", PASSWORD).status, 401);
    server.command(&["user", "add", "alice", "--password", PASSWORD, "--config", "isthmus.toml"]);
    eventually("another of her name is", SOON, || log_in(&secure(&server), "alice", PASSWORD).status == 201);
    assert_eq!(status(&server, &alice), 401, "she has other sessions");
}

#[test]
fn sessions_end_when_idle_and_in_the_end() {
    let mut setup = Setup::with_users(&["alice"]);
    setup.sections = "[portal]\nsession_idle = 3600\nsession_lifetime = 7200\n".into();
    setup.under = under("2026-11-01 12:00:00");
    let mut server = setup.start();
    let (used, idle) = (cookie(&server, "alice"), cookie(&server, "alice"));
    for (time, of_used) in [("12:50:00", 200), ("13:40:00", 200), ("14:01:00", 401)] {
        server.setup.under = under(&format!("2026-11-01 {time}"));
        server.restart();
        assert_eq!(status(&server, &used), of_used, "at {time}");
    }
    server.setup.under = under("2026-11-01 13:30:00");
    server.restart();
    assert_eq!(status(&server, &idle), 401);
}

#[test]
fn passwords_are_not_guessed_without_end() {
    let server = Setup::with_users(&["alice"]).start();
    let guess = || log_in(&secure(&server), "alice", "guess").status;
    assert_eq!(guess(), 401);
    let many = (0..40).map(|_| guess()).collect::<Vec<_>>();
    assert!(many.contains(&429), "{many:?}");
    // Then not even the right one: a guess must not show by it. (One in 10 s is looked at.)
    assert!((0..10).any(|_| guess() >= 401 && log_in(&secure(&server), "alice", PASSWORD).status == 429));
}

#[test]
fn a_session_is_good_at_every_node_and_over_at_every_node() {
    let Cluster { mut a, b, nats: _nats, _postgres } = Cluster::start(|| Setup::with_users(&["alice"]));
    let (one, two) = (cookie(&a, "alice"), cookie(&b, "alice"));
    for cookie in [&one, &two] {
        assert_eq!([status(&a, cookie), status(&b, cookie)], [200, 200]);
    }
    assert_eq!(with(&b, &one).put(&lists("alice"), LISTS, EMPTY).status, 201);
    assert_eq!(with(&b, &one).delete(SESSION).status, 204);
    assert_eq!([status(&a, &one), status(&b, &one)], [401, 401]);
    a.process.kill();
    assert_eq!(with(&b, &two).get(&lists("alice")).body, EMPTY);
    a.restart();
    assert_eq!(status(&a, &two), 200);
}

/// Two pages share Chromium's cookies with ours: one of another port, which is the same site, and one that is not.
#[test]
fn chromium_logs_in_and_other_pages_do_nothing_in_its_users_name() {
    let server = Setup::with_users(&["alice", "bob"]).start();
    let other = Setup::with_users(&[]).start();
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    let url = |server: &Server| format!("https://127.0.0.1:{}", server.https);
    let mut command = Command::new("node");
    command.args(["session.js", &url(&server), &url(&other), DOMAIN, PASSWORD]).current_dir(&node);
    let said = Process::start("browser", server.path(), &mut command).wait_for("done", Duration::from_secs(120));
    let said: Vec<&str> = said.lines().filter(|l| l.contains(": ")).collect();
    let expected = format!(
        "before: 401\nwrong password: 401\npassword: 201\ncookies that scripts see: \"\"\nsession: 200\nuser: sip:alice@{DOMAIN}\n\
         own list put: 201\nown list get: 200\nown list: as it was put\nanother's list put: 403\nanother's list get: 403\n\
         history: 200\nfile: 200\n\
         same site, file: 403\nsame site, log out: blocked\nsame site, list: blocked\nsame site, password: 403\n\
         elsewhere, file: 401\nelsewhere, log out: blocked\nelsewhere, list: blocked\nelsewhere, password: 403\n\
         own list get: 200\nown list: as it was put\nlog out: 204\nown list get: 401\nafter: 401"
    );
    assert_eq!(said, expected.lines().collect::<Vec<_>>());
}
