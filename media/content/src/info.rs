//! The documents of RCC.07: what was uploaded and where it is got from, and how far an upload came.

use sip_xml::{Document, Writer};
use time::OffsetDateTime;

use crate::shelf::Entry;

/// Media type of [`file`] (RCC.07, "File Transfer via HTTP" XML body).
pub const FILE_TYPE: &str = "application/vnd.gsma.rcs-ft-http+xml";
/// That of [`resume`].
pub const RESUME_TYPE: &str = "application/xml";

const FILE: &str = "urn:gsma:params:xml:ns:rcs:rcs:fthttp";
const RESUME: &str = "urn:gsma:params:xml:ns:rcs:rcs:fthttpresume";

/// What the sender passes on to the addressee: thumbnail and file, each with its link.
pub fn file(entry: &Entry, size: u64, file: &str, thumbnail: &str) -> Vec<u8> {
    let until = time(entry.until);
    let mut out = Vec::with_capacity(1024);
    Writer::document(&mut out, "file", |root| {
        root.attribute("xmlns", FILE);
        let mut one = |kind: &str, size: u64, name: Option<&str>, media_type: &str, url: &str| {
            root.child("file-info", |info| {
                info.attribute("type", kind);
                info.child("file-size", |e| e.text(&size.to_string()));
                if let Some(name) = name {
                    info.child("file-name", |e| e.text(name));
                }
                info.child("content-type", |e| e.text(media_type));
                info.child("data", |e| {
                    e.attribute("url", url).attribute("until", &until);
                });
            });
        };
        if let Some(small) = &entry.thumbnail {
            one("thumbnail", small.size, None, &small.media_type, thumbnail);
        }
        one("file", size, Some(&entry.name), &entry.media_type, file);
    });
    out
}

/// What such a document says of the file itself; empty and 0: nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Linked {
    pub url: String,
    pub name: String,
    pub media_type: String,
    pub size: u64,
    /// As it is written there: an xs:dateTime.
    pub until: String,
}

pub fn linked(document: &[u8]) -> Option<Linked> {
    let document = Document::parse(document).ok()?;
    let file = document.root.all(FILE, "file-info").find(|info| info.attribute("type") == Some("file"))?;
    let text = |name| file.child(FILE, name).map(|e| e.text()).unwrap_or_default().trim().to_owned();
    let data = file.child(FILE, "data")?;
    Some(Linked {
        url: data.attribute("url")?.to_owned(),
        name: text("file-name"),
        media_type: text("content-type"),
        size: text("file-size").parse().unwrap_or(0),
        until: data.attribute("until").unwrap_or_default().to_owned(),
    })
}

/// How far an upload came (`received` bytes, at least one), and where the rest goes.
pub fn resume(received: u64, url: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    Writer::document(&mut out, "file-resume-info", |root| {
        root.attribute("xmlns", RESUME);
        root.child("file-range", |e| {
            e.attribute("start", "0").attribute("end", &received.saturating_sub(1).to_string());
        });
        root.child("data", |e| {
            e.attribute("url", url);
        });
    });
    out
}

/// xs:dateTime in UTC, to the second.
fn time(unix: u64) -> String {
    let at = i64::try_from(unix).ok().and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok());
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shelf::{State, Thumbnail};

    #[test]
    fn a_file_with_thumbnail_is_told_as_clients_read_it() {
        let entry = Entry {
            owner: "alice".into(),
            name: "a & b.jpg".into(),
            media_type: "image/jpeg".into(),
            until: 1_795_780_000,
            thumbnail: Some(Thumbnail { media_type: "image/png".into(), size: 12 }),
            state: State::Open,
        };
        let text = String::from_utf8(file(&entry, 345, "https://x/f?a=1&sig=2", "https://x/t")).unwrap();
        assert!(
            text.contains(
                "<file-info type=\"thumbnail\"><file-size>12</file-size><content-type>image/png</content-type>\
             <data url=\"https://x/t\" until=\"2026-11-27T11:46:40Z\"/></file-info>"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "<file-info type=\"file\"><file-size>345</file-size><file-name>a &amp; b.jpg</file-name>\
             <content-type>image/jpeg</content-type><data url=\"https://x/f?a=1&amp;sig=2\" until="
            ),
            "{text}"
        );
        assert!(text.contains("<file xmlns=\"urn:gsma:params:xml:ns:rcs:rcs:fthttp\">"));
        let told = Linked {
            url: "https://x/f?a=1&sig=2".into(),
            name: "a & b.jpg".into(),
            media_type: "image/jpeg".into(),
            size: 345,
            until: "2026-11-27T11:46:40Z".into(),
        };
        assert_eq!(linked(text.as_bytes()), Some(told));
        assert_eq!(linked(b"<file/>"), None);
    }

    #[test]
    fn an_upload_is_told_by_its_last_byte() {
        let text = String::from_utf8(resume(100, "https://x/u")).unwrap();
        assert!(text.contains("<file-range start=\"0\" end=\"99\"/><data url=\"https://x/u\"/>"), "{text}");
    }
}
