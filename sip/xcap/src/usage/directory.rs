//! `org.openmobilealliance.xcap-directory` (OMA XDM Core §6.7.2): which documents a user has.

use sip_xml::Writer;

use super::{Documents, Usage};

pub(super) const NAMESPACE: &str = "urn:oma:xml:xdm:xcap-directory";

pub(super) static USAGE: Usage = Usage {
    auid: "org.openmobilealliance.xcap-directory",
    media_type: "application/vnd.oma.xcap-directory+xml",
    namespace: NAMESPACE,
    documents: Documents::OfUsers("directory.xml"),
};

/// One document of a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Absolute.
    pub uri: String,
    pub etag: String,
    /// Bytes.
    pub size: usize,
}

/// The directory of a user, by AUID.
pub fn document(folders: &[(&str, Vec<Entry>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    Writer::document(&mut out, "xcap-directory", |root| {
        root.attribute("xmlns", NAMESPACE);
        for (auid, entries) in folders {
            root.child("folder", |folder| {
                folder.attribute("auid", auid);
                for entry in entries {
                    folder.child("entry", |e| {
                        e.attribute("uri", &entry.uri).attribute("etag", &entry.etag);
                        e.attribute("size", &entry.size.to_string());
                    });
                }
            });
        }
    });
    out
}
