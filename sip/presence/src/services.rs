//! RCS services in their two forms (GSMA RCC.07 §2.6.1): the feature tag that a handset registers, and the service description
//! (OMA Presence §7.4) that stands in a tuple of its presence document.

use sip_proto::features::Union;
use sip_xml::{Document, Writer};

use crate::names::{CAPS, OMA_PRES, PIDF};

const ICSI: &str = "+g.3gpp.icsi-ref";
const IARI: &str = "+g.3gpp.iari-ref";

/// Tag, its value, and the service: of those whose name does not follow from the tag's.
const NAMED: [(&str, &str, &str, &str); 10] = [
    ("+g.oma.sip-im", "TRUE", "org.openmobilealliance:IM-session", "1.0"),
    (ICSI, "urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session", "org.openmobilealliance:ChatSession", "2.0"),
    (ICSI, "urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg", "org.openmobilealliance:StandaloneMsg", "2.0"),
    (IARI, "urn%3Aurn-7%3A3gpp-application.ims.iari.rcs.fthttp", "org.openmobilealliance:File-Transfer-HTTP", "1.0"),
    (IARI, "urn%3Aurn-7%3A3gpp-application.ims.iari.rcse.ft", "org.openmobilealliance:File-Transfer", "1.0"),
    (IARI, "urn%3Aurn-7%3A3gpp-application.ims.iari.rcs.ftstandfw", "org.openmobilealliance:File-Transfer", "2.0"),
    (IARI, "urn%3Aurn-7%3A3gpp-application.ims.iari.rcs.ftthumb", "org.openmobilealliance:File-Transfer-thumb", "2.0"),
    (IARI, "urn%3Aurn-7%3A3gpp-application.ims.iari.gsma-is", "org.gsma.imageshare", "1.0"),
    ("+g.3gpp.cs-voice", "TRUE", "org.gsma.videoshare", "1.0"),
    ("+g.gsma.rcs.isbot", "TRUE", "org.gsma.rcs.isbot", "1.0"),
];

/// What of a URN stands before its own part, in a tag and in a service's name.
const FAMILIES: [(&str, &str, &str); 2] = [
    (ICSI, "urn%3Aurn-7%3A3gpp-service.ims.icsi.", "org.3gpp.urn:urn-7:3gpp-service.ims.icsi."),
    (IARI, "urn%3Aurn-7%3A3gpp-application.ims.iari.", "org.3gpp.urn:urn-7:3gpp-application.ims.iari."),
];

/// Services of one user that are shown.
const MAX_SERVICES: usize = 32;

/// The services of registered tags: name and version.
pub fn of_features(features: &Union) -> Vec<(String, &'static str)> {
    let mut found: Vec<(String, &'static str)> = Vec::new();
    for (tag, value, service, version) in NAMED {
        if features.values(tag).any(|v| v.eq_ignore_ascii_case(value.as_bytes())) {
            found.push((service.to_owned(), version));
        }
    }
    for (tag, value, service) in FAMILIES {
        for one in features.values(tag) {
            let own = one.get(..value.len()).filter(|head| head.eq_ignore_ascii_case(value.as_bytes()));
            let Some(own) = own.and(std::str::from_utf8(&one[value.len()..]).ok()) else { continue };
            if !NAMED.iter().any(|(_, v, ..)| v.as_bytes().eq_ignore_ascii_case(one)) {
                found.push((format!("{service}{own}"), "1.0"));
            }
        }
    }
    found.truncate(MAX_SERVICES);
    found
}

/// Appends a tuple for each service. `aor`: whom it reaches.
pub fn write_tuples(aor: &str, features: &Union, out: &mut Vec<u8>) {
    for (n, (service, version)) in of_features(features).iter().enumerate() {
        Writer::element(out, "tuple", |tuple| {
            tuple.attribute("id", &format!("s{n}"));
            tuple.child("status", |status| status.child("basic", |basic| basic.text("open")));
            tuple.child("op:service-description", |description| {
                description.attribute("xmlns:op", OMA_PRES);
                description.child("op:service-id", |id| id.text(service));
                description.child("op:version", |v| v.text(version));
            });
            tuple.child("contact", |c| c.text(&format!("sip:{aor}")));
        });
    }
}

/// The tags of the services that a document shows as open. One that does not read has none.
pub fn to_features(document: &[u8], features: &mut Union) {
    let Ok(document) = Document::parse(document) else { return };
    for tuple in document.root.all(PIDF, "tuple") {
        let basic = tuple.child(PIDF, "status").and_then(|s| s.child(PIDF, "basic")).map(|b| b.text());
        if basic.as_deref().map(str::trim) != Some("open") {
            continue;
        }
        if let Some(caps) = tuple.child(CAPS, "servcaps") {
            for tag in crate::compose::MEDIA {
                if caps.child(CAPS, tag).is_some_and(|c| c.text().trim() == "true") {
                    features.insert(tag.as_bytes(), b"TRUE");
                }
            }
        }
        for description in tuple.all(OMA_PRES, "service-description") {
            let text = |name| description.child(OMA_PRES, name).map(|e| e.text().trim().to_owned());
            let (Some(service), version) = (text("service-id"), text("version")) else { continue };
            let same = |v: &str| version.as_deref().is_none_or(|said| said == v);
            let mut known = false;
            for (tag, value, name, version) in NAMED {
                if name == service && same(version) {
                    features.insert(tag.as_bytes(), value.as_bytes());
                    known = true;
                }
            }
            for (tag, value, name) in FAMILIES.iter().filter(|_| !known) {
                if let Some(own) = service.strip_prefix(name) {
                    features.insert(tag.as_bytes(), format!("{value}{own}").as_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sip_proto::headers::Params;

    use super::*;

    fn features(params: &str) -> Union {
        let mut all = Union::default();
        all.add(Params::new(params.as_bytes()));
        all
    }

    fn text(features: &Union) -> String {
        let mut out = Vec::new();
        features.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tags_become_services_and_services_tags() {
        let all = ";+g.oma.sip-im;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session,\
            urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\";+g.3gpp.iari-ref=\"urn%3Aurn-7%3A3gpp-application.ims.iari.rcs.fthttp,\
            urn%3Aurn-7%3A3gpp-application.ims.iari.rcs.geopush\"";
        let before = features(all);
        let named = of_features(&before);
        let expected = [
            ("org.openmobilealliance:IM-session", "1.0"),
            ("org.openmobilealliance:ChatSession", "2.0"),
            ("org.openmobilealliance:File-Transfer-HTTP", "1.0"),
            ("org.3gpp.urn:urn-7:3gpp-service.ims.icsi.mmtel", "1.0"),
            ("org.3gpp.urn:urn-7:3gpp-application.ims.iari.rcs.geopush", "1.0"),
        ];
        assert_eq!(named.iter().map(|(s, v)| (s.as_str(), *v)).collect::<Vec<_>>(), expected);
        let mut tuples = Vec::new();
        write_tuples("a@h", &before, &mut tuples);
        let tuples = String::from_utf8(tuples).unwrap();
        let document = format!("<presence xmlns='{PIDF}' entity='sip:a@h'>{tuples}</presence>");
        let mut after = Union::default();
        to_features(document.as_bytes(), &mut after);
        assert_eq!(after.values(ICSI).count(), 2);
        assert_eq!(after.values(IARI).count(), 2);
        assert!(after.has("+g.oma.sip-im"), "{}", text(&after));
    }

    #[test]
    fn closed_tuples_and_unknown_services_say_nothing() {
        let tuple = |basic: &str, id: &str| {
            format!(
                "<presence xmlns='{PIDF}' entity='sip:a@h'><tuple id='t'><status><basic>{basic}</basic></status>\
                 <x:service-description xmlns:x='{OMA_PRES}'><x:service-id>{id}</x:service-id></x:service-description>\
                 </tuple></presence>"
            )
        };
        for document in [tuple("closed", "org.openmobilealliance:IM-session"), tuple("open", "org.x:y"), "<".into()] {
            let mut all = Union::default();
            to_features(document.as_bytes(), &mut all);
            assert!(all.is_empty(), "{document}");
        }
    }
}
