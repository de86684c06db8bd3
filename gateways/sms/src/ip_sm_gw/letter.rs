//! The MESSAGEs that the gateway sends (TS 24.341 §5.3.3.4), all but their Via.

use std::net::SocketAddr;

use sip_ims::Aor;
use sip_ims::service::Elsewhere;
use sip_proto::build::{self, Writer};
use sip_proto::uri::Uri;
use sip_proto::{HeaderName, Hop, Method};

use crate::rp;

/// The feature tag of handsets that take RP messages (TS 24.341 §5.3.2.2).
pub const SMSIP: &str = "+g.3gpp.smsip";

/// A contact of a handset, copied out of the registrar.
#[derive(Clone, Debug)]
pub struct Handset {
    pub uri: Box<[u8]>,
    /// A Route list, or empty.
    pub path: Box<[u8]>,
    pub hop: Option<Hop>,
    /// The node that holds its connection, if that is another one; there is no `hop` then.
    pub elsewhere: Option<Elsewhere>,
    /// Empty when unknown.
    pub instance: Box<[u8]>,
    /// Takes RP messages; otherwise text.
    pub smsip: bool,
}

impl Handset {
    /// The address that it has, as far as that is known without a look-up.
    pub fn at(&self) -> Option<SocketAddr> {
        let named = || {
            let uri = Uri::parse(&self.uri).filter(|_| self.path.is_empty())?;
            Some(SocketAddr::new(uri.host_ip()?, uri.port().unwrap_or(5060)))
        };
        self.hop.map(|hop| hop.remote()).or_else(named)
    }
}

/// What a MESSAGE is made of.
pub struct Letter<'a> {
    pub handset: &'a Handset,
    /// The Route value that leads to another node, or empty.
    pub way: &'a [u8],
    /// The public identity that it is for.
    pub to: &'a Aor,
    /// A URI of ours, or the sender's.
    pub from: &'a str,
    pub call_id: &'a str,
    pub tag: &'a str,
    /// The MESSAGE that this one answers.
    pub in_reply_to: Option<&'a str>,
}

impl Letter<'_> {
    /// With an RP message, for the one handset that can read it.
    pub fn relay(&self, body: &[u8]) -> Vec<u8> {
        self.write(|w| {
            w.text(HeaderName::AcceptContact, b"*;+g.3gpp.smsip;require;explicit");
            w.text(HeaderName::RequestDisposition, b"no-fork");
            if let Some(call_id) = self.in_reply_to {
                w.text(HeaderName::InReplyTo, call_id.as_bytes());
            }
            w.body(rp::CONTENT_TYPE.as_bytes(), body);
        })
    }

    /// With text, for any phone.
    pub fn text(&self, body: &str) -> Vec<u8> {
        self.write(|w| w.body(b"text/plain;charset=UTF-8", body.as_bytes()))
    }

    fn write(&self, rest: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        build::Request::new(Method::Message, &self.handset.uri).write(&mut out, |w| {
            for route in [self.way, &self.handset.path] {
                if !route.is_empty() {
                    w.text(HeaderName::Route, route);
                }
            }
            w.number(HeaderName::MaxForwards, 70);
            w.header(HeaderName::From, |t| {
                addr(self.from, t);
                t.extend_from_slice(b";tag=");
                t.extend_from_slice(self.tag.as_bytes());
            });
            let to = ["sip:", self.to.as_str()].concat();
            w.header(HeaderName::To, |t| addr(&to, t));
            w.text(HeaderName::CallId, self.call_id.as_bytes());
            w.cseq(1, Method::Message);
            w.header(HeaderName::PAssertedIdentity, |t| addr(self.from, t));
            w.header(HeaderName::PCalledPartyId, |t| addr(&to, t));
            rest(w);
        });
        out
    }
}

fn addr(uri: &str, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(uri.as_bytes());
    out.push(b'>');
}
