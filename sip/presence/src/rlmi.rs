//! The state of a list in one body: `multipart/related` with `application/rlmi+xml` at its root (RFC 4662 §5).

use std::hash::Hasher as _;
use std::sync::Arc;

use sip_proto::multipart::{Boundary, Writer as Multipart};
use sip_xml::Writer;
use siphasher::sip::SipHasher13;

use crate::names::{PIDF_TYPE, RLMI, RLMI_TYPE};
use crate::presentity::View;

/// One member, as the list's watcher sees it now.
#[derive(Clone, Debug)]
pub struct Seen {
    pub uri: Box<str>,
    pub name: Option<Box<str>>,
    pub state: State,
}

/// Of the virtual subscription (RFC 4662 §5.5).
#[derive(Clone, Debug)]
pub enum State {
    /// Not one of ours: nothing is known.
    Unknown,
    Active(Arc<View>),
    Pending,
    Rejected,
    /// Elsewhere, and why.
    Terminated(Box<str>),
}

impl Seen {
    /// Tells states apart, as what was told and what is there.
    pub fn mark(&self) -> u64 {
        match &self.state {
            State::Unknown => 1,
            State::Pending => 2,
            State::Rejected => 3,
            State::Active(view) => view.hash.max(16),
            State::Terminated(reason) => {
                let mut hash = SipHasher13::new();
                hash.write(reason.as_bytes());
                hash.finish().max(16)
            }
        }
    }
}

/// How a list's watcher wants its NOTIFYs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    Standard,
    /// Linphone 5 compares octet by octet: Event with `Presence`, and the header `Content-Id`, spelt so, with `cid`, without the angle
    /// brackets that RFC 2045 §7 has.
    Linphone,
}

/// A list as it is told.
pub struct Update<'a> {
    /// Without scheme.
    pub list: &'a str,
    pub domain: &'a str,
    pub version: u32,
    /// The members are all there are.
    pub full: bool,
    pub dialect: Dialect,
}

/// Appends the body, and gives its Content-Type.
pub fn write(update: &Update<'_>, members: &[&Seen], out: &mut Vec<u8>) -> Vec<u8> {
    let Update { list, domain, version, full, dialect } = *update;
    let cid = |n: usize| format!("{version}-{n}@{domain}");
    let mut root = Vec::with_capacity(256 + 160 * members.len());
    Writer::document(&mut root, "list", |l| {
        l.attribute("xmlns", RLMI).attribute("uri", &format!("sip:{list}"));
        l.attribute("version", &version.to_string()).attribute("fullState", if full { "true" } else { "false" });
        for (n, member) in members.iter().enumerate() {
            l.child("resource", |r| {
                r.attribute("uri", &member.uri);
                if let Some(name) = &member.name {
                    r.child("name", |e| e.text(name));
                }
                let mut instance = |state: &str, reason: Option<&str>, cid: Option<String>| {
                    r.child("instance", |i| {
                        i.attribute("id", "1").attribute("state", state);
                        if let Some(reason) = reason {
                            i.attribute("reason", reason);
                        }
                        if let Some(cid) = cid {
                            i.attribute("cid", &cid);
                        }
                    });
                };
                match &member.state {
                    State::Unknown => {}
                    // Filters have left nothing of it.
                    State::Active(view) if view.body.is_empty() => instance("active", None, None),
                    State::Active(_) => instance("active", None, Some(cid(n))),
                    State::Pending => instance("pending", None, None),
                    State::Rejected => instance("terminated", Some("rejected"), None),
                    State::Terminated(reason) => instance("terminated", Some(reason), None),
                }
            });
        }
    });
    let views: Vec<(usize, &View)> = members
        .iter()
        .enumerate()
        .filter_map(|(n, m)| if let State::Active(view) = &m.state { Some((n, &**view)) } else { None })
        .filter(|(_, view)| !view.body.is_empty())
        .collect();
    let bodies: Vec<&[u8]> = std::iter::once(&*root).chain(views.iter().map(|(_, v)| &*v.body)).collect();
    let boundary = Boundary::choose(u64::from(version), &bodies);
    let start = format!("root-{version}@{domain}");
    let mut content_type = Vec::with_capacity(128);
    let root_is = format!(";type=\"application/rlmi+xml\";start=\"<{start}>\"");
    boundary.write_content_type("related", root_is.as_bytes(), &mut content_type);
    let mut multipart = Multipart::new(boundary, out);
    let id = |id: String| match dialect {
        Dialect::Standard => ("Content-ID", format!("<{id}>").into_bytes()),
        Dialect::Linphone => ("Content-Id", id.into_bytes()),
    };
    let binary: (&str, &[u8]) = ("Content-Transfer-Encoding", b"binary");
    let mut part = |media_type, name: String, body: &[u8]| {
        let (header, id) = id(name);
        multipart.part(media_type, &[binary, (header, &id)], body);
    };
    part(RLMI_TYPE, start, &root);
    for (n, view) in views {
        part(PIDF_TYPE, cid(n), &view.body);
    }
    multipart.finish();
    content_type
}

#[cfg(test)]
mod tests {
    use sip_proto::headers::MediaType;
    use sip_proto::multipart;
    use sip_xml::Document;

    use super::*;

    #[test]
    fn the_root_names_the_parts() {
        let view = Arc::new(View { hash: 9, body: b"<presence/>".as_slice().into() });
        let seen = |uri: &str, state| Seen { uri: uri.into(), name: Some("N".into()), state };
        let members =
            [seen("sip:a@h", State::Active(view)), seen("sip:b@h", State::Pending), seen("sip:c@x", State::Unknown)];
        let mut body = Vec::new();
        let update = Update { list: "list@h", domain: "h", version: 3, full: true, dialect: Dialect::Standard };
        let content_type = write(&update, &members.iter().collect::<Vec<_>>(), &mut body);
        let media = MediaType::parse(&content_type).unwrap();
        assert!(media.is("multipart/related"));
        let parts = multipart::parts(&media, &body).unwrap();
        assert_eq!(parts.len(), 2);
        let root = Document::parse(parts[0].body).unwrap().root;
        assert_eq!(
            (root.attribute("uri"), root.attribute("version"), root.attribute("fullState")),
            (Some("sip:list@h"), Some("3"), Some("true"))
        );
        let resources: Vec<_> = root.all(RLMI, "resource").collect();
        let instance = resources[0].child(RLMI, "instance").unwrap();
        assert_eq!((instance.attribute("state"), instance.attribute("cid")), (Some("active"), Some("3-0@h")));
        assert_eq!((parts[1].content_id(), parts[1].body), (Some(&b"3-0@h"[..]), &b"<presence/>"[..]));
        assert_eq!(resources[1].child(RLMI, "instance").unwrap().attribute("state"), Some("pending"));
        assert!(resources[2].child(RLMI, "instance").is_none());
    }
}
