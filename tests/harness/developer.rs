//! A developer: curl with access tokens, and Python programs with the libraries of others.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::process::Process;
use super::sms::Peer;
use super::{Server, Setup};

pub const CLIENT: &str = "crm";
pub const SECRET: &str = "s3cret:%+ /";
pub const SCOPES: &str = "\"send-sms:short-message\", \"read-sms:short-message\", \"cancel-sms:short-message\", \
     \"sms-delivery:subscriptions:create\", \"sms-delivery:subscriptions:read\", \"sms-delivery:subscriptions:delete\"";

/// What curl got.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|h| h.0 == name).map_or("", |h| h.1.as_str())
    }

    /// Status and CAMARA code of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// Adds an API client to a setup; `more` are further lines of its table.
pub fn with_client(mut setup: Setup, id: &str, more: &str) -> Setup {
    setup
        .provisions
        .push_str(&format!("[[api_client]]\nid = \"{id}\"\nsecret = \"{SECRET}\"\nscopes = [{SCOPES}]\n{more}\n"));
    setup
}

/// Runs curl against the plain door.
pub fn curl(server: &Server, path: &str, arguments: &[&str]) -> Answer {
    let done = Command::new("curl")
        .args(["-s", "-i", "-m", "60"])
        .args(arguments)
        .arg(format!("http://127.0.0.1:{}{path}", server.http))
        .output()
        .expect("curl runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    // curl may be told to wait with the body (100).
    let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).unwrap_or(0);
    let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
    Answer { status, headers: lines.filter_map(header).collect(), body: body.to_owned() }
}

/// Asks for a token of a client, for all its scopes.
pub fn token(server: &Server, client: &str) -> String {
    let answer = curl(
        server,
        "/oauth2/token",
        &[
            "--data-urlencode",
            &format!("client_id={client}"),
            "--data-urlencode",
            &format!("client_secret={SECRET}"),
            "-d",
            "grant_type=client_credentials",
        ],
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

/// One request with a token; `body` may be empty.
pub fn ask(server: &Server, token: &str, method: &str, path: &str, body: &str, more: &[&str]) -> Answer {
    let authorization = format!("Authorization: Bearer {token}");
    let file = server.path().join(format!("body-{:?}.json", std::thread::current().id()));
    std::fs::write(&file, body).unwrap();
    let data = format!("@{}", file.display());
    let mut arguments = vec!["-X", method, "-H", &authorization];
    if !body.is_empty() {
        arguments.extend(["-H", "Content-Type: application/json", "--data-binary", &data]);
    }
    arguments.extend(more);
    curl(server, path, &arguments)
}

pub fn send(server: &Server, token: &str, body: &str) -> Answer {
    ask(server, token, "POST", "/sms/v1/messages", body, &[])
}

/// A program of tests/python, with the venv of the tests.
pub fn python(script: &str) -> Command {
    let mut command = python_program("python");
    command.arg(Path::new(PYTHON).join(script));
    command
}

/// A program of that venv.
pub fn python_program(name: &str) -> Command {
    let mut command = Command::new(Path::new(PYTHON).join("venv/bin").join(name));
    // What the tests name is to be believed, and nobody else.
    command.env_remove("REQUESTS_CA_BUNDLE").env_remove("CURL_CA_BUNDLE");
    command
}

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");

/// A developer's web server. The keys of the signatures are read from the file at each request.
pub fn hook(dir: &Path, port: u16, keys: &Path, statuses: &[u16]) -> Peer {
    let mut command = python("hook.py");
    command.arg(port.to_string()).arg(keys).args(statuses.iter().map(u16::to_string));
    Peer::ready(Process::start(&format!("hook-{port}"), dir, &mut command))
}
