//! curl as an XCAP client.

use std::process::Command;

use super::server::{DOMAIN, PASSWORD, Server};

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    pub media_type: Option<String>,
    pub cookie: Option<String>,
    /// The whole head, of the last response where there were several.
    pub head: String,
    pub body: String,
}

/// A user's client.
pub struct Client {
    /// `http://127.0.0.1:port/xcap-root/`.
    pub root: String,
    arguments: Vec<String>,
}

impl Client {
    /// Over plain HTTP, with digest credentials.
    pub fn of(server: &Server, user: &str) -> Client {
        let mut client = Client::nobody(server);
        client.arguments = vec!["--digest".into(), "-u".into(), format!("{user}:{PASSWORD}")];
        client
    }

    /// Without credentials.
    pub fn nobody(server: &Server) -> Client {
        Client { root: format!("http://127.0.0.1:{}/xcap-root/", server.http), arguments: Vec::new() }
    }

    /// Of another door, at this path.
    pub fn below(mut self, path: &str) -> Client {
        self.root = self.root.replace("xcap-root", path);
        self
    }

    /// Over TLS.
    pub fn secure(mut self, server: &Server) -> Client {
        self.root = self
            .root
            .replace(&format!("http://127.0.0.1:{}", server.http), &format!("https://127.0.0.1:{}", server.https));
        let authority = server.authority.certificate().display().to_string();
        self.with(&["--cacert", &authority])
    }

    /// With further arguments for curl.
    pub fn with(mut self, arguments: &[&str]) -> Client {
        self.arguments.extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }

    fn ask(&self, arguments: &[&str], path: &str) -> Answer {
        let mut curl = Command::new("curl");
        // The URI goes as it is written: nothing is globbed, no dots are taken out.
        curl.args(["-sS", "-i", "--globoff", "--path-as-is", "--max-time", "60"]).args(&self.arguments).args(arguments);
        let done = curl.arg(format!("{}{path}", self.root)).output().expect("curl runs");
        assert!(done.status.success(), "curl {arguments:?} {path}: {}", String::from_utf8_lossy(&done.stderr));
        let text = String::from_utf8(done.stdout).expect("text");
        let mut rest = &*text;
        loop {
            let (head, body) = rest.split_once("\r\n\r\n").expect("a head and a body");
            // A challenge, or 100 Continue, and then the answer.
            if body.starts_with("HTTP/1.1 ") {
                rest = body;
                continue;
            }
            let header = |name: &str| {
                let mut lines = head.lines().filter_map(|l| l.split_once(": "));
                lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned())
            };
            return Answer {
                cookie: header("Set-Cookie"),
                status: head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status"),
                etag: header("ETag"),
                media_type: header("Content-Type"),
                head: head.to_owned(),
                body: body.to_owned(),
            };
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(&[], path)
    }

    pub fn get_if(&self, path: &str, condition: &str) -> Answer {
        self.ask(&["-H", condition], path)
    }

    pub fn put(&self, path: &str, media_type: &str, body: &str) -> Answer {
        self.put_if(path, media_type, body, "X-Nothing: here")
    }

    pub fn put_if(&self, path: &str, media_type: &str, body: &str, condition: &str) -> Answer {
        let media_type = format!("Content-Type: {media_type}");
        self.ask(&["-X", "PUT", "-H", &media_type, "-H", condition, "--data-binary", body], path)
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.ask(&["-X", "DELETE"], path)
    }

    pub fn delete_if(&self, path: &str, condition: &str) -> Answer {
        self.ask(&["-X", "DELETE", "-H", condition], path)
    }

    pub fn post_json(&self, path: &str, body: &str) -> Answer {
        self.ask(&["-H", "Content-Type: application/json", "--data-binary", body], path)
    }

    pub fn post(&self, path: &str) -> Answer {
        self.ask(&["--data-binary", "x"], path)
    }
}

/// `USAGE/users/sip:USER@DOMAIN/NAME`.
pub fn home(usage: &str, user: &str, name: &str) -> String {
    format!("{usage}/users/sip:{user}@{DOMAIN}/{name}")
}

pub const LISTS: &str = "application/resource-lists+xml";
pub const SERVICES: &str = "application/rls-services+xml";
pub const RULES: &str = "application/auth-policy+xml";
pub const PIDF: &str = "application/pidf+xml";
pub const ELEMENT: &str = "application/xcap-el+xml";
pub const ATTRIBUTE: &str = "application/xcap-att+xml";
