//! `xcap-caps` (RFC 4825 §12): what this server knows.

use sip_xml::Writer;

use super::{ALL, Documents, Usage};
use crate::schema::KNOWN;

const NAMESPACE: &str = "urn:ietf:params:xml:ns:xcap-caps";

pub(super) static USAGE: Usage = Usage {
    auid: "xcap-caps",
    media_type: "application/xcap-caps+xml",
    namespace: NAMESPACE,
    documents: Documents::Global("index"),
};

/// The one document.
pub fn document() -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    Writer::document(&mut out, "xcap-caps", |root| {
        root.attribute("xmlns", NAMESPACE);
        root.child("auids", |auids| ALL.iter().for_each(|u| auids.child("auid", |a| a.text(u.auid))));
        root.child("extensions", |_| {});
        root.child("namespaces", |namespaces| {
            let known = KNOWN.iter().map(|(namespace, _)| *namespace);
            known
                .chain([NAMESPACE, super::directory::NAMESPACE])
                .for_each(|n| namespaces.child("namespace", |e| e.text(n)));
        });
    });
    out
}
