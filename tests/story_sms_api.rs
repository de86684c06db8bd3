//! Developers and their short messages: libraries of others get tokens, send, query, cancel and hear of the end; node-smpp is the
//! message centre. What is not agreed does not go out, what was accepted does.

mod harness;

use std::path::PathBuf;
use std::time::Duration;

use harness::developer::{CLIENT, SECRET, ask, curl, hook, python, python_program, send, token, with_client};
use harness::sms::{NUMBER, Peer, XPID, setup};
use harness::{Ports, Server, eventually, wap};
use serde_json::{Value, json};

const OTHER: &str = "+819087654321";
const SUBSCRIPTIONS: &str = "/sms-delivery-notification-subscriptions/v0alpha1/subscriptions";

struct Story {
    server: Server,
    smsc: Peer,
    hook: Peer,
    hook_url: String,
    keys: PathBuf,
    smsc_port: u16,
    _ports: Ports,
}

/// `more` are further lines of the client's table, `sections` of the configuration.
fn story(mode: &str, more: &str, sections: &str, statuses: &[u16]) -> Story {
    let ports = Ports::claim();
    let (smsc_port, callback, hook_port) = (ports.next(), ports.next(), ports.next());
    let mut setup = with_client(setup(smsc_port, callback, ""), CLIENT, more);
    setup = with_client(setup, "other", "destinations = [\"+\"]");
    setup = with_client(setup, "slow", "destinations = [\"+\"]\nrate = 1");
    setup.sections.push_str(sections);
    let server = setup.start();
    let keys = server.path().join("keys");
    std::fs::write(&keys, "").unwrap();
    let smsc = Peer::smsc(server.path(), smsc_port, mode);
    let hook = hook(server.path(), hook_port, &keys, statuses);
    let hook_url = format!("http://127.0.0.1:{hook_port}/hook");
    Story { server, smsc, hook, hook_url, keys, smsc_port, _ports: ports }
}

const OWN: &str = "destinations = [\"+81\"]\nsenders = [\"Fleet\", \"5555\"]";
const HERE: &str = "[webhooks]\nallow = [\"127.0.0.1\"]\n";

fn subscribe(story: &Story, token: &str, more: &Value) -> Value {
    let mut body = json!({
        "subscriptionDetail": { "type": "org.camaraproject.sms.v0.sms-delivery-status" },
        "webhook": { "notificationUrl": story.hook_url },
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    let made = ask(&story.server, token, "POST", SUBSCRIPTIONS, &body.to_string(), &[]);
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    std::fs::write(&story.keys, made["webhook"]["secret"].as_str().unwrap()).unwrap();
    made
}

#[test]
fn a_developer_with_libraries_of_others() {
    let Story { server, smsc, hook, hook_url, keys, _ports, .. } = story("normal", OWN, HERE, &[]);
    let done = python("developer.py")
        .arg(format!("https://localhost:{}", server.https))
        .arg(server.authority.certificate())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api/camara"))
        .args([CLIENT, SECRET, &hook_url])
        .arg(&keys)
        .args([NUMBER, OTHER])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.trim_end().ends_with(" answers") && !said.contains("checked 0"), "{said}");

    // One by the draft, two segments to each of two numbers, one for a device.
    let submits = smsc.wait_for("submit", 6);
    assert_eq!(submits.len(), 6);
    assert_eq!((submits[0]["text"].as_str(), submits[0]["from"].as_str()), (Some("By the draft"), Some("Fleet")));
    let device = submits.iter().find(|s| s["from"] == "5555").unwrap();
    assert_eq!((device["data_coding"].as_u64(), device["esm_class"].as_u64()), (Some(4), Some(0x40)));

    // Both subscriptions are told of the last message; the second is for one event, and hears that it has ended.
    let hooks = hook.wait_for("hook", 6);
    for told in &hooks {
        assert_eq!((&told["signed"], &told["same"]), (&json!(true), &json!(true)), "{told}");
        assert_eq!(told["authorization"], "Bearer tok-1", "{told}");
    }
    let of = |kind: &str| hooks.iter().filter(|h| h["type"].as_str().unwrap().ends_with(kind)).collect::<Vec<_>>();
    assert_eq!((of("sms-delivery-status").len(), of("subscription-ends").len()), (5, 1), "{hooks:?}");
    assert!(of("sms-delivery-status").iter().all(|h| h["data"]["status"] == "SUCCESS"), "{hooks:?}");
    assert_eq!(of("subscription-ends")[0]["data"]["terminationReason"], "MAX_EVENTS_REACHED");
    let (long, numbers): (Vec<_>, Vec<_>) = hooks
        .iter()
        .filter(|h| h["data"]["segments"] == 2)
        .map(|h| (h["subject"].clone(), h["data"]["to"].clone()))
        .unzip();
    assert!(long.len() == 2 && long[0] == long[1] && numbers.contains(&json!(OTHER)), "{hooks:?}");

    // For people and operators.
    let page = curl(&server, "/docs", &[]);
    assert!(page.status == 200 && page.body.contains("POST /sms/v1/messages"), "{page:?}");
    assert!(server.metric("isthmus_sms_api_total{operation=\"send\",status=\"200\"}") >= 4.0);
    assert!(server.metric("isthmus_oauth2_tokens_total{outcome=\"granted\"}") == 2.0);
    let id = long[0].as_str().unwrap();
    eventually("the trace tells", Duration::from_secs(20), || {
        server.command(&["trace", id, "--config", "isthmus.toml"]).contains("delivered")
    });
    let record = |line: &Value| line["kind"] == "short_message" && line["call_id"] == id && line["from"] == "api:crm";
    eventually("charging records tell", Duration::from_secs(20), || {
        let files = std::fs::read_dir(server.path().join("data/cdr")).unwrap();
        let text: String = files.map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap()).collect();
        text.lines().filter(|l| serde_json::from_str(l).is_ok_and(|l: Value| record(&l))).count() == 4
    });
    server.stop();
}

#[test]
fn what_is_not_agreed_or_not_right_does_not_go_out() {
    let more = format!("{OWN}\nrate = 40\ndaily_quota = 60");
    let Story { server, smsc, _ports, .. } = story("normal", &more, "", &[]);
    let (mine, others) = (token(&server, CLIENT), token(&server, "other"));
    let text = |to: &str| json!({ "to": [to], "message": "x" }).to_string();
    let path = "/sms/v1/messages";

    // Tokens.
    let refused = |arguments: &[&str]| curl(&server, path, arguments).refusal();
    assert_eq!(refused(&["-d", "{}"]), (401, "UNAUTHENTICATED".into()));
    let bare = curl(&server, path, &["-d", "{}", "-H", "Authorization: Bearer x.y"]);
    assert_eq!(bare.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    let form = |more: &str| {
        format!("grant_type=client_credentials&client_id={CLIENT}&client_secret=s3cret%3A%25%2B+%2F{more}")
    };
    let narrow = curl(&server, "/oauth2/token", &["-d", &form("&scope=read-sms:short-message")]);
    assert_eq!((narrow.header("cache-control"), narrow.json()["token_type"].as_str()), ("no-store", Some("Bearer")));
    let narrow = send(&server, narrow.json()["access_token"].as_str().unwrap(), &text(NUMBER));
    assert_eq!(narrow.refusal(), (403, "PERMISSION_DENIED".into()));
    assert!(narrow.header("www-authenticate").contains("insufficient_scope"), "{narrow:?}");
    for (arguments, status, error) in [
        (vec!["-d", "grant_type=client_credentials"], 401, "invalid_client"),
        (vec!["-u", "crm:wrong", "-d", "grant_type=client_credentials"], 401, "invalid_client"),
        (vec!["-d", &form("&scope=click-to-dial:calls:create")], 400, "invalid_scope"),
        (vec!["-d", &form("").replace("client_credentials", "password")], 400, "unsupported_grant_type"),
        (vec!["-d", &form("&grant_type=client_credentials")], 400, "invalid_request"),
        (vec!["-d", &form(""), "-H", "Content-Type: application/json"], 400, "invalid_request"),
    ] {
        let answer = curl(&server, "/oauth2/token", &arguments);
        assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(error)), "{arguments:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }

    // Requests.
    for (body, refusal) in [
        ("", (415, "UNSUPPORTED_MEDIA_TYPE")),
        ("{", (400, "INVALID_ARGUMENT")),
        ("[]", (400, "INVALID_ARGUMENT")),
        (&*text("0901"), (400, "INVALID_ARGUMENT")),
        (&*text("+491701234567"), (403, "PERMISSION_DENIED")),
        (&*json!({ "to": [NUMBER], "from": "Bank", "message": "x" }).to_string(), (403, "PERMISSION_DENIED")),
        (&*json!({ "to": [NUMBER], "message": "a".repeat(1531) }).to_string(), (400, "OUT_OF_RANGE")),
        (&*json!({ "to": [NUMBER], "message": "日本", "encoding": "gsm7" }).to_string(), (400, "INVALID_ARGUMENT")),
        (&*json!({ "to": [NUMBER], "message": "x", "validity": 0 }).to_string(), (400, "OUT_OF_RANGE")),
        (&*json!({ "to": [NUMBER], "message": "x".repeat(70_000) }).to_string(), (413, "PAYLOAD_TOO_LARGE")),
    ] {
        let answer = send(&server, &mine, body);
        assert_eq!(answer.refusal(), (refusal.0, refusal.1.to_owned()), "{body:.80}");
    }
    assert_eq!(ask(&server, &mine, "PUT", path, "", &[]).refusal().0, 405);
    let odd = ask(&server, &mine, "POST", path, &text(NUMBER), &["-H", "x-correlator: a b"]);
    assert_eq!(odd.refusal(), (400, "INVALID_ARGUMENT".into()));
    let odd = ask(&server, &mine, "POST", path, &text(NUMBER), &["-H", "Idempotency-Key: caf\u{e9}"]);
    assert_eq!(odd.refusal(), (400, "INVALID_ARGUMENT".into()));
    assert_eq!(smsc.events("submit").len(), 0);

    // Another client's message is not there.
    let sent = send(&server, &mine, &text(NUMBER));
    assert_eq!(sent.status, 201, "{sent:?}");
    let mut where_it_is = sent.header("location").to_owned();
    assert_eq!(ask(&server, &others, "GET", &where_it_is, "", &[]).status, 404);
    assert_eq!(ask(&server, &others, "DELETE", &where_it_is, "", &[]).status, 404);
    assert_eq!(ask(&server, &mine, "GET", &where_it_is, "", &[]).status, 200);
    where_it_is.push('x');
    assert_eq!(ask(&server, &mine, "GET", &where_it_is, "", &[]).status, 404);

    // The day's sixty: one is sent. A message to more than are left is refused whole, and the rest still goes.
    let many = |from: usize, count: usize| {
        let to: Vec<String> = (from..from + count).map(|n| format!("+8180{n:08}")).collect();
        json!({ "to": to, "message": "many" }).to_string()
    };
    eventually("the rate lets fifty pass", Duration::from_secs(20), || {
        send(&server, &mine, &many(0, 50)).status == 201
    });
    // Fifty of a rate of one: owed.
    let slow = token(&server, "slow");
    assert_eq!(send(&server, &slow, &many(300, 50)).status, 201);
    let owed = send(&server, &slow, &text(NUMBER));
    assert_eq!((owed.refusal(), owed.header("retry-after")), ((429, "TOO_MANY_REQUESTS".into()), "1"));
    let later = |body: &str| {
        let mut answer = send(&server, &mine, body);
        eventually("the rate lets it pass", Duration::from_secs(20), || {
            let passes = answer.refusal().1 != "TOO_MANY_REQUESTS";
            if !passes {
                answer = send(&server, &mine, body);
            }
            passes
        });
        answer
    };
    assert_eq!(later(&many(100, 10)).refusal(), (429, "QUOTA_EXCEEDED".into()));
    assert_eq!(later(&many(200, 9)).status, 201);
    assert_eq!(later(&text(NUMBER)).refusal(), (429, "QUOTA_EXCEEDED".into()));
    assert_eq!(send(&server, &others, &text("+491701234567")).status, 201);
    smsc.wait_for("submit", 111);

    // Guessing secrets ends soon, for the right one too.
    let guess = || curl(&server, "/oauth2/token", &["-u", "crm:guess", "-d", "grant_type=client_credentials"]);
    let mut answer = guess();
    eventually("guessing ends", Duration::from_secs(60), || {
        answer = guess();
        answer.status == 429
    });
    assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);

    // What is taken away is gone within a second, tokens and all.
    server.command(&["api-client", "remove", CLIENT, "--config", "isthmus.toml"]);
    eventually("the token is good no more", Duration::from_secs(10), || {
        ask(&server, &mine, "GET", SUBSCRIPTIONS, "", &[]).status == 401
    });
    assert_eq!(smsc.events("submit").len(), 111);
}

#[test]
fn under_a_contract_its_numbers_lines_and_rate_decide() {
    let Story { server, smsc, hook, hook_url, keys, smsc_port, _ports } =
        story("normal", &format!("xpid = \"{XPID}\"\nsenders = [\"Fleet\"]"), HERE, &[]);
    let story = Story { server, smsc, hook, hook_url, keys, smsc_port, _ports };
    let token = token(&story.server, CLIENT);
    subscribe(&story, &token, &json!({}));
    let text = |to: &str| json!({ "to": [to], "message": "x" }).to_string();
    assert_eq!(send(&story.server, &token, &text(OTHER)).refusal(), (403, "PERMISSION_DENIED".into()));
    assert_eq!(send(&story.server, &token, &text(NUMBER)).status, 201);
    assert_eq!(story.smsc.wait_for("submit", 1)[0]["line_state"], "00");
    story.hook.wait_for("hook", 1);

    story.server.command(&["line", "set", NUMBER, "--roaming", "--config", "isthmus.toml"]);
    let mut told = Value::Null;
    let mut sent = 1;
    eventually("the line's state forbids it", Duration::from_secs(20), || {
        assert_eq!(send(&story.server, &token, &text(NUMBER)).status, 201);
        sent += 1;
        told = story.hook.wait_for("hook", sent).pop().unwrap();
        told["data"]["reason"] == "ROAMING"
    });
    assert_eq!((&told["data"]["status"], &told["data"]["delivered"]), (&json!("FAIL"), &json!(0)));
    let id = told["data"]["msgId"].as_str().unwrap();
    let shown = ask(&story.server, &token, "GET", &format!("/sms/v1/messages/{id}"), "", &[]).json();
    assert_eq!(
        (&shown["recipients"][0]["status"], &shown["recipients"][0]["reason"]),
        (&json!("FAILED"), &json!("ROAMING"))
    );

    story.server.command(&["push-client", "remove", XPID, "--config", "isthmus.toml"]);
    eventually("without its contract it may nothing", Duration::from_secs(10), || {
        send(&story.server, &token, &text(NUMBER)).refusal() == (403, "PERMISSION_DENIED".into())
    });
}

#[test]
fn a_kill_between_201_and_delivery_loses_nothing() {
    let mut story = story("normal", OWN, HERE, &[]);
    let mine = token(&story.server, CLIENT);
    subscribe(&story, &mine, &json!({ "subscriptionMaxEvents": -1 }));
    story.smsc.0.kill();
    let ids: Vec<String> = (0..20)
        .map(|n| {
            let body = json!({ "to": [NUMBER, OTHER], "message": format!("m{n}") }).to_string();
            let key = format!("Idempotency-Key: k{n}");
            let sent = ask(&story.server, &mine, "POST", "/sms/v1/messages", &body, &["-H", &key]);
            assert_eq!(sent.status, 201, "{sent:?}");
            sent.json()["msgId"].as_str().unwrap().to_owned()
        })
        .collect();
    story.server.restart();
    let smsc = Peer::smsc(story.server.path(), story.smsc_port, "normal");
    // The token outlives the process, and a request that is asked again after it is the same one.
    let body = json!({ "to": [NUMBER, OTHER], "message": "m7" }).to_string();
    let again = ask(&story.server, &mine, "POST", "/sms/v1/messages", &body, &["-H", "Idempotency-Key: k7"]);
    assert_eq!((again.status, again.json()["msgId"].as_str()), (201, Some(ids[7].as_str())));
    let hooks = story.hook.wait_for("hook", 40);
    for id in &ids {
        let to: Vec<_> = hooks.iter().filter(|h| h["data"]["msgId"] == id.as_str()).map(|h| &h["data"]["to"]).collect();
        assert!(to.contains(&&json!(NUMBER)) && to.contains(&&json!(OTHER)), "{id}: {to:?}");
    }
    assert!(hooks.iter().all(|h| h["signed"] == true && h["data"]["status"] == "SUCCESS"), "{hooks:?}");
    // Nothing was on the wire when it died.
    assert_eq!(smsc.events("submit").len(), 40);
}

#[test]
fn what_waits_is_cancelled_and_what_is_over_is_not() {
    let mut story = story("keep", OWN, HERE, &[]);
    let mine = token(&story.server, CLIENT);
    subscribe(&story, &mine, &json!({}));
    let body = json!({ "to": [NUMBER, OTHER], "message": "a".repeat(200) }).to_string();
    let at_the_centre = send(&story.server, &mine, &body).header("location").to_owned();
    story.smsc.wait_for("submit", 4);
    let status_of = |path: &str, recipient: usize| {
        ask(&story.server, &mine, "GET", path, "", &[]).json()["recipients"][recipient]["status"].clone()
    };
    let status = |path: &str| status_of(path, 0);
    eventually("the centre has all of it", Duration::from_secs(20), || {
        [0, 1].iter().all(|recipient| status_of(&at_the_centre, *recipient) == "SENT")
    });
    let cancelled = ask(&story.server, &mine, "DELETE", &at_the_centre, "", &[]);
    assert_eq!((cancelled.status, &cancelled.json()["recipients"][1]["cancellation"]), (202, &json!("ACCEPTED")));
    story.smsc.wait_for("cancel", 4);
    let told = story.hook.wait_for("hook", 2);
    assert!(told.iter().all(|t| t["data"]["reason"] == "CANCELLED" && t["data"]["status"] == "FAIL"), "{told:?}");
    assert_eq!(status(&at_the_centre), "CANCELLED");
    assert_eq!(ask(&story.server, &mine, "DELETE", &at_the_centre, "", &[]).refusal(), (409, "CONFLICT".into()));

    story.smsc.0.kill();
    eventually("the link is down", Duration::from_secs(30), || story.server.metric("isthmus_smpp_link_up") == 0.0);
    let waits = send(&story.server, &mine, &body).header("location").to_owned();
    assert_eq!(status(&waits), "QUEUED");
    assert_eq!(ask(&story.server, &mine, "DELETE", &waits, "", &[]).status, 202);
    story.hook.wait_for("hook", 4);
    assert_eq!(status(&waits), "CANCELLED");
}

#[test]
fn strangers_do_not_send_us_where_only_we_can_go() {
    // Nothing is allowed beside public addresses over TLS.
    let Story { server, smsc: _smsc, hook, hook_url, _ports, .. } = story("normal", OWN, "", &[]);
    let mine = token(&server, CLIENT);
    let try_it = |url: &str| {
        let body = json!({
            "subscriptionDetail": { "type": "org.camaraproject.sms.v0.sms-delivery-status" },
            "webhook": { "notificationUrl": url },
        });
        ask(&server, &mine, "POST", SUBSCRIPTIONS, &body.to_string(), &[])
    };
    for bad in [
        &*hook_url,
        &hook_url.replace("http", "https"),
        "https://[::1]/",
        "https://169.254.169.254/",
        "file:///etc/passwd",
    ] {
        assert_eq!(try_it(bad).refusal(), (400, "INVALID_ARGUMENT".into()), "{bad}");
    }
    // A name is looked up when somebody is to be told, and then does not lead there either.
    let name = hook_url.replace("http://127.0.0.1", "https://localhost");
    assert_eq!(try_it(&name).status, 201);
    assert_eq!(send(&server, &mine, &json!({ "to": [NUMBER], "message": "x" }).to_string()).status, 201);
    eventually("it was tried", Duration::from_secs(30), || {
        server.metric("isthmus_sms_notifications_total{fate=\"put_off\"}") >= 1.0
    });
    assert_eq!(hook.events("hook").len(), 0);
    // No more than ten.
    (0..9).for_each(|_| assert_eq!(try_it("https://hook.example/").status, 201));
    assert_eq!(try_it("https://hook.example/").refusal(), (409, "CONFLICT".into()));
}

#[test]
fn redirects_are_not_followed_and_the_event_comes_again() {
    let story = story("normal", OWN, HERE, &[302]);
    let mine = token(&story.server, CLIENT);
    let expires = std::process::Command::new("date").args(["-u", "-d", "+1 hour", "+%FT%TZ"]).output().unwrap();
    let expires = String::from_utf8(expires.stdout).unwrap();
    let made = subscribe(&story, &mine, &json!({ "subscriptionExpireTime": expires.trim() }));
    assert!(made["expiresAt"].as_str().unwrap().starts_with(&expires[..19]), "{made}");
    assert_eq!(send(&story.server, &mine, &json!({ "to": [NUMBER], "message": "x" }).to_string()).status, 201);
    let hooks = story.hook.wait_for("hook", 2);
    assert!(
        hooks.iter().all(|h| h["path"] == "/hook" && h["id"] == hooks[0]["id"] && h["signed"] == true),
        "{hooks:?}"
    );
    assert_eq!(hooks.iter().map(|h| h["status"].as_u64().unwrap()).collect::<Vec<_>>(), [302, 204]);
    let subscription = format!("{SUBSCRIPTIONS}/{}", made["subscriptionId"].as_str().unwrap());
    assert_eq!(ask(&story.server, &mine, "DELETE", &subscription, "", &[]).status, 204);
    assert_eq!(ask(&story.server, &mine, "GET", &subscription, "", &[]).status, 404);
}

#[test]
fn a_subscription_ends_with_its_time_and_says_so() {
    let story = story("normal", OWN, HERE, &[]);
    let mine = token(&story.server, CLIENT);
    let soon = std::process::Command::new("date").args(["-u", "-d", "+10 seconds", "+%FT%TZ"]).output().unwrap();
    subscribe(&story, &mine, &json!({ "subscriptionExpireTime": String::from_utf8(soon.stdout).unwrap().trim() }));
    let told = &story.hook.wait_for("hook", 1)[0];
    assert_eq!(told["data"]["terminationReason"], "SUBSCRIPTION_EXPIRED", "{told}");
    assert_eq!(ask(&story.server, &mine, "GET", SUBSCRIPTIONS, "", &[]).json(), json!([]));
}

#[test]
fn a_client_proves_itself_by_a_key_that_only_it_has() {
    let ports = Ports::claim();
    let (smsc, callback, jwks) = (ports.next(), ports.next(), ports.next());
    let mut setup = with_client(setup(smsc, callback, ""), CLIENT, OWN);
    setup.provisions.push_str(&format!(
        "[[api_client]]\nid = \"signer\"\njwks_uri = \"http://127.0.0.1:{jwks}/jwks\"\nscopes = [\"send-sms:short-message\"]\n"
    ));
    setup.http = "public_url = \"https://sms.example.test\"".into();
    let server = setup.start();
    let done = python("assertions.py")
        .arg(format!("https://localhost:{}", server.https))
        .arg(server.authority.certificate())
        .args(["https://sms.example.test/oauth2/token", &jwks.to_string(), "signer", CLIENT])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains("all as it must be"), "{said}{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn schemathesis_finds_no_answer_that_is_not_described() {
    let more = "destinations = [\"+\"]\nsenders = [\"Fleet\", \"5555\"]";
    let Story { server, smsc: _smsc, _ports, .. } = story("normal", more, HERE, &[]);
    let url = format!("http://127.0.0.1:{}", server.http);
    let done = python_program("schemathesis")
        .current_dir(server.path())
        .args(["run", &format!("{url}/openapi.json"), "-u", &url, "--no-color", "--seed", "1", "--max-examples", "25"])
        .args(["-H", &format!("Authorization: Bearer {}", token(&server, CLIENT))])
        // What no schema can say (a time that is over, a number twice) is refused with 400, too.
        .args(["--phases", "examples,coverage,fuzzing", "--exclude-checks", "positive_data_acceptance"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains("Operations:       9 selected") && said.contains("passed"), "{said}");
    assert!(server.metric("isthmus_sms_api_total{operation=\"send\",status=\"200\"}") > 0.0, "{said}");
}

#[test]
fn wap_pushes_reach_the_centre_as_others_read_them() {
    let story = story("normal", "destinations = [\"+81\"]", "", &[]);
    let token = token(&story.server, CLIENT);
    let indication = json!({
        "to": [NUMBER],
        "indication": {
            "text": "Grüße <3", "href": "https://www.example.com/mail?a=1&b=2", "id": "box-1", "action": "high",
            "expires": "2026-11-28T09:00:00+09:00",
        },
    });
    let loading =
        json!({ "to": [NUMBER], "loading": { "href": "http://example.org/a.wml", "action": "execute-high" } });
    for (request, kind, content) in [
        (
            &indication,
            "application/vnd.wap.sic",
            &[
                "-//WAPFORUM//DTD SI 1.0//EN",
                "href=\"https://www.example.com/mail?a=1&amp;b=2\"",
                "si-id=\"box-1\"",
                "si-expires=\"2026-11-28T00:00:00Z\"",
                "action=\"signal-high\"",
                "Grüße &lt;3</indication>",
            ][..],
        ),
        (
            &loading,
            "application/vnd.wap.slc",
            &["-//WAPFORUM//DTD SL 1.0//EN", "href=\"http://example.org/a.wml\"", "action=\"execute-high\""],
        ),
    ] {
        let count = story.smsc.events("submit").len();
        let sent = send(&story.server, &token, &request.to_string());
        assert_eq!(sent.status, 201, "{sent:?}");
        let submit = story.smsc.wait_for("submit", count + 1).pop().unwrap();
        assert_eq!((&submit["udh"], &submit["data_coding"]), (&"05040b8423f0".into(), &4.into()), "{submit}");
        let push = harness::handset::octets(submit["text"].as_str().unwrap());
        let seen = wap::dissected(story.server.path(), &push);
        for told in ["PDU Type: Push", kind, "x-wap-application:wml.ua"] {
            assert!(seen.contains(told), "{told} in {seen}");
        }
        let xml = wap::content(story.server.path(), &push);
        for told in content {
            assert!(xml.contains(told), "{told} in {xml}");
        }
    }
    let nothing = json!({ "to": [NUMBER], "indication": { "text": "x", "action": "delete" } });
    assert_eq!(send(&story.server, &token, &nothing.to_string()).refusal(), (400, "INVALID_ARGUMENT".into()));
}
