//! Who takes part in chats that end in the server, and in chat rooms (RFC 7701): SIPp for the call, a bare stream for the messages.

use std::net::TcpListener;
use std::time::Duration;

use super::msrp::{Stream, told};
use super::sipp::Running;
use super::{DOMAIN, Peer, Server, Sipp, bind};

/// In which a connection is closed after its call.
const CLOSED: Duration = Duration::from_secs(20);

/// No session lasts longer: a room that changes its node takes a while.
const LASTS: Duration = Duration::from_secs(150);

/// One device of a user, in a session.
pub struct Participant {
    pub user: &'static str,
    pub domain: &'static str,
    pub call_id: &'static str,
    /// Of the call.
    pub port: u16,
    pub call: Option<Running>,
    pub msrp: Stream,
    /// Paths: the server's, and its own.
    pub to: String,
    pub from: String,
    /// The Contact of the far end, without parameters.
    pub room: String,
}

/// The address that opens a room.
pub fn factory() -> String {
    format!("sip:conference-factory@{DOMAIN}")
}

/// Has the INVITE that opens a room ask these in, by URI (RFC 5366).
pub fn with_list(sipp: Sipp, uris: &[&str]) -> Sipp {
    let entries: String = uris.iter().map(|uri| format!("<entry uri=\"{uri}\"/>")).collect();
    let list = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list>{entries}</list>\
         </resource-lists>"
    );
    sipp.set("CONTENT", "multipart/mixed;boundary=b0undary")
        .set("BEFORE", "--b0undary\nContent-Type: application/sdp\n\n")
        .set("AFTER", format!(
            "\n--b0undary\nContent-Type: application/resource-lists+xml\nContent-Disposition: recipient-list\n\n{list}\n--b0undary--\n"
        ))
}

impl Participant {
    /// Calls `uri`, connects, and says which session it is.
    pub fn joins(server: &Server, user: &'static str, uri: &str, call_id: &'static str) -> Participant {
        Participant::joins_with(server, user, uri, call_id, |sipp| sipp)
    }

    /// `more` is added to the call.
    pub fn joins_with(
        server: &Server,
        user: &'static str,
        uri: &str,
        call_id: &'static str,
        more: impl FnOnce(Sipp) -> Sipp,
    ) -> Participant {
        Participant::joins_from(server, server.ports.next(), user, uri, call_id, more)
    }

    /// From this port.
    pub fn joins_from(
        server: &Server,
        port: u16,
        user: &'static str,
        uri: &str,
        call_id: &'static str,
        more: impl FnOnce(Sipp) -> Sipp,
    ) -> Participant {
        Participant::calls(more(Sipp::new(server, "session", port)), [user, DOMAIN], port, uri, call_id)
    }

    /// A user of another domain, by way of its proxy at the port `proxy`.
    pub fn stranger(
        server: &Server,
        proxy: u16,
        [user, domain]: [&'static str; 2],
        uri: &str,
        call_id: &'static str,
    ) -> Participant {
        let port = server.ports.next();
        let sipp = Sipp::new(server, "session_open", port).towards(proxy).set("DOMAIN", domain);
        Participant::calls(sipp, [user, domain], port, uri, call_id)
    }

    fn calls(
        sipp: Sipp,
        [user, domain]: [&'static str; 2],
        port: u16,
        uri: &str,
        call_id: &'static str,
    ) -> Participant {
        let from = format!("msrp://127.0.0.1:9/{user}5s93;tcp");
        let section = format!(
            "m=message 9 TCP/MSRP *\na=accept-types:message/cpim\na=accept-wrapped-types:*\na=path:{from}\na=setup:active\n\
             a=chatroom:nickname private-messages"
        );
        let call = sipp
            .set("MEDIA", section)
            .set("URI", uri)
            .users(&[user])
            .options(&["-cid_str", call_id])
            .limit(LASTS)
            .start();
        let to = told(&call, "a=path:");
        let contact = told(&call, "Contact: <");
        let mut msrp = Stream::connect(door_of(&to));
        msrp.greet(&format!("{user}000"), [&to, &from]);
        assert_eq!(msrp.next().what, "200 OK");
        let room = contact.split(['>', ';']).next().unwrap().to_owned();
        Participant { user, domain, call_id, port, call: Some(call), msrp, to, from, room }
    }

    pub fn uri(&self) -> String {
        format!("sip:{}@{}", self.user, self.domain)
    }

    /// Sends, and gives the status.
    pub fn says_as(&mut self, id: &str, from: &str, to: &str, text: &str) -> u16 {
        let body = format!(
            "From: <{from}>\r\nTo: <{to}>\r\nDateTime: 2026-04-04T12:16:49Z\r\n\r\nContent-Type: text/plain\r\n\r\n{text}"
        );
        let length = body.len();
        let request = format!(
            "MSRP {id} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: m{id}\r\nByte-Range: 1-{length}/{length}\r\n\
             Content-Type: message/cpim\r\n\r\n{body}\r\n-------{id}$\r\n",
            self.to, self.from
        );
        self.msrp.write(request.as_bytes());
        self.msrp.next().status()
    }

    /// To everybody.
    pub fn says(&mut self, id: &str, text: &str) -> u16 {
        let (from, to) = (self.uri(), self.room.clone());
        self.says_as(id, &from, &to, text)
    }

    /// The next message that comes, answered.
    pub fn hears(&mut self) -> String {
        let frame = self.msrp.next_answering();
        assert_eq!(frame.what, "SEND", "{frame:?}");
        frame.text()
    }

    pub fn nickname(&mut self, id: &str, name: &str) -> u16 {
        let request = format!(
            "MSRP {id} NICKNAME\r\nTo-Path: {}\r\nFrom-Path: {}\r\nUse-Nickname: \"{name}\"\r\n-------{id}$\r\n",
            self.to, self.from
        );
        self.msrp.write(request.as_bytes());
        self.msrp.next().status()
    }

    /// One that called hangs up.
    pub fn hangs_up(mut self) {
        let peer = Peer::new(0);
        peer.send(self.port, &peer.request("INFO", "sip:x", ["bob", "alice"], self.call_id, "", ""));
        self.call.take().unwrap().succeed(1);
        self.msrp.closed(CLOSED);
    }

    /// One that is hung up on.
    pub fn hung_up_on(mut self) {
        self.call.take().unwrap().succeed(1);
        self.msrp.closed(CLOSED);
    }
}

/// A phone that waits for the call of a room, and to be connected to.
pub struct Awaited {
    user: &'static str,
    domain: &'static str,
    port: u16,
    call: Running,
    listener: TcpListener,
    path: String,
}

impl Awaited {
    /// One of a user of ours, which registers.
    pub fn user(server: &Server, user: &'static str) -> Awaited {
        let awaited = Awaited::at(server, [user, DOMAIN]);
        bind(server, user, awaited.port, "");
        awaited
    }

    /// One of another domain, whose proxy at the port `proxy` it registers with.
    pub fn stranger(server: &Server, proxy: u16, [user, domain]: [&'static str; 2]) -> Awaited {
        let awaited = Awaited::at(server, [user, domain]);
        let registers = Sipp::new(server, "register_open", server.ports.next()).towards(proxy).set("DOMAIN", domain);
        let registers = registers.set("CONTACT", format!("127.0.0.1:{}", awaited.port));
        registers.set("PARAMS", "").set("EXPIRES", 600).users(&[user]).succeed();
        awaited
    }

    fn at(server: &Server, [user, domain]: [&'static str; 2]) -> Awaited {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().port();
        let path = format!("msrp://127.0.0.1:{at}/{user}9di4;tcp");
        let media =
            format!("m=message {at} TCP/MSRP *\na=accept-types:message/cpim\na=accept-wrapped-types:*\na=path:{path}");
        let port = server.ports.next();
        let call = Sipp::new(server, "session_answer", port).set("MEDIA", media).limit(LASTS).start();
        Awaited { user, domain, port, call, listener, path }
    }

    /// The room has called, and connects.
    pub fn comes(self) -> Participant {
        let Awaited { user, domain, port, call, listener, path } = self;
        let mut msrp = Stream::accept(&listener);
        assert_eq!(msrp.next_answering().body, None, "the one who connects says so first");
        let contact = told(&call, "Contact: <");
        assert!(contact.starts_with("sip:chat-") && contact.contains(">;isfocus"), "{contact}");
        let room = contact.split(['>', ';']).next().unwrap().to_owned();
        let to = told(&call, "a=path:");
        Participant { user, domain, call_id: "", port, call: Some(call), msrp, to, from: path, room }
    }
}

/// The port of the first URI of a path.
fn door_of(path: &str) -> u16 {
    let authority = path.split('/').nth(2).unwrap_or_default();
    authority.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port in {path}"))
}
