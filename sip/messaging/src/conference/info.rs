//! `application/conference-info+xml` (RFC 4575): who is in a room.

use sip_xml::Writer;

pub const MEDIA_TYPE: &[u8] = b"application/conference-info+xml";
const NAMESPACE: &str = "urn:ietf:params:xml:ns:conference-info";
/// Nicknames are attributes of this one (RFC 6501, RFC 7701 §7.4).
const XCON: &str = "urn:ietf:params:xml:ns:xcon-conference-info";

/// One user, with every device that they are there with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    pub uri: Box<str>,
    pub display: Box<str>,
    pub nickname: Option<Box<str>>,
    pub creator: bool,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The contact.
    pub uri: Box<str>,
    pub dialed_out: bool,
}

/// What a document says.
#[derive(Clone, Debug)]
pub struct Info<'a> {
    /// The room's URI.
    pub entity: &'a str,
    pub subject: &'a str,
    pub most: usize,
    pub version: u32,
    /// Everybody; otherwise only what has changed.
    pub full: bool,
    pub users: &'a [User],
    /// Who is gone, in a partial document.
    pub gone: &'a [Box<str>],
    /// How many users are there.
    pub count: usize,
}

/// Appends the document.
pub fn write(info: &Info<'_>, out: &mut Vec<u8>) {
    let state = if info.full { "full" } else { "partial" };
    Writer::document(out, "conference-info", |root| {
        root.attribute("xmlns", NAMESPACE).attribute("xmlns:xcon", XCON).attribute("entity", info.entity);
        root.attribute("state", state).attribute("version", &info.version.to_string());
        if info.full {
            root.child("conference-description", |description| {
                if !info.subject.is_empty() {
                    description.child("subject", |e| e.text(info.subject));
                }
                description.child("maximum-user-count", |e| e.text(&info.most.to_string()));
            });
        }
        root.child("conference-state", |conference| {
            conference.child("user-count", |e| e.text(&info.count.to_string()));
            conference.child("active", |e| e.text("true"));
        });
        root.child("users", |users| {
            users.attribute("state", state);
            for user in info.users {
                users.child("user", |e| write_user(user, e));
            }
            for uri in info.gone {
                users.child("user", |e| {
                    e.attribute("entity", uri).attribute("state", "deleted");
                });
            }
        });
    });
}

fn write_user(user: &User, e: &mut sip_xml::Open<'_>) {
    e.attribute("entity", &user.uri).attribute("state", "full");
    if let Some(nickname) = &user.nickname {
        e.attribute("xcon:nickname", nickname);
    }
    if !user.display.is_empty() {
        e.child("display-text", |t| t.text(&user.display));
    }
    e.child("roles", |roles| {
        roles.child("entry", |t| t.text(if user.creator { "administrator" } else { "participant" }));
    });
    for endpoint in &user.endpoints {
        e.child("endpoint", |e| {
            e.attribute("entity", &endpoint.uri);
            e.child("status", |t| t.text("connected"));
            e.child("joining-method", |t| t.text(if endpoint.dialed_out { "dialed-out" } else { "dialed-in" }));
            e.child("media", |media| {
                media.attribute("id", "1");
                media.child("type", |t| t.text("message"));
                media.child("status", |t| t.text("sendrecv"));
            });
        });
    }
}
