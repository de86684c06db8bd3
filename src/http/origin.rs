//! Whether a page of ours makes a request: what a cookie alone does not prove, for a browser sends it along with what other pages ask for too
//! (cross-site request forgery).

use axum::http::{HeaderMap, Method, header};

/// What a browser says of the page that makes a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It came from where the request goes.
    Same,
    Other,
    /// Nothing: no browser of these days, or not over TLS.
    Unsaid,
}

impl Origin {
    /// `secure`: clients know us by `https:`.
    pub fn of(headers: &HeaderMap, secure: bool) -> Origin {
        // Fetch Metadata: no page can write it. "same-site" is another origin; "none" is a person at the address bar, who changes nothing.
        if let Some(site) = headers.get("sec-fetch-site") {
            return if site == "same-origin" { Origin::Same } else { Origin::Other };
        }
        // RFC 6454 §7.
        let Some(origin) = headers.get(header::ORIGIN) else { return Origin::Unsaid };
        let scheme: &[u8] = if secure { b"https://" } else { b"http://" };
        let authority = origin.as_bytes().strip_prefix(scheme);
        match (authority, headers.get(header::HOST)) {
            (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host.as_bytes()) => Origin::Same,
            _ => Origin::Other,
        }
    }
}

/// Whether a cookie is enough for a request: it changes nothing, or comes from a page of ours, or has a header that a form cannot send and a
/// page elsewhere only after asking (`X-Requested-With`), which is never granted.
pub fn may_use_cookie(method: &Method, headers: &HeaderMap, secure: bool) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        || match Origin::of(headers, secure) {
            Origin::Same => true,
            Origin::Other => false,
            Origin::Unsaid => headers.contains_key("x-requested-with"),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(lines: &[(&'static str, &'static str)], secure: bool) -> bool {
        let headers: HeaderMap = lines.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        assert!(may_use_cookie(&Method::GET, &headers, secure));
        may_use_cookie(&Method::PUT, &headers, secure)
    }

    #[test]
    fn only_the_same_origin_changes_things_by_cookie() {
        for (site, good) in [("same-origin", true), ("same-site", false), ("cross-site", false), ("none", false)] {
            assert_eq!(may(&[("sec-fetch-site", site)], true), good, "{site}");
            // It goes before what is easier to have.
            assert_eq!(may(&[("sec-fetch-site", site), ("x-requested-with", "x")], true), good, "{site}");
        }
        let host = ("host", "home.test:8443");
        for (origin, secure, good) in [
            ("https://home.test:8443", true, true),
            ("https://HOME.test:8443", true, true),
            ("http://home.test:8443", true, false),
            ("https://home.test:8443", false, false),
            ("http://home.test:8443", false, true),
            ("https://home.test", true, false),
            ("https://home.test:8443.evil.test", true, false),
            ("null", true, false),
        ] {
            assert_eq!(may(&[host, ("origin", origin), ("x-requested-with", "x")], secure), good, "{origin}");
        }
        assert!(!may(&[("origin", "https://home.test")], true), "without a host");
        assert!(!may(&[host], true));
        assert!(may(&[host, ("x-requested-with", "XMLHttpRequest")], true));
    }
}
