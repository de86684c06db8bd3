//! The URI of an XCAP resource below the root (RFC 4825 §6).

use std::borrow::Cow;

/// `AUID/users/XUI/document`, `AUID/global/document`, and perhaps `/~~/` and a node selector with its namespace bindings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub auid: String,
    pub tree: Tree,
    /// The segments below the home or global directory. One is a document; none is the directory, and more are in
    /// subdirectories, which no application usage here has.
    pub path: Vec<String>,
    /// The node selector, decoded; `None` for the document itself.
    pub node: Option<String>,
    pub bindings: Bindings,
}

/// Whose documents (§6.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tree {
    /// Those of the user with this XUI.
    Users(String),
    Global,
}

/// Prefixes of the node selector and their namespaces (§6.4).
pub type Bindings = Vec<(String, String)>;

/// What is no URI of an XCAP resource. The client's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadTarget {
    /// 404: nothing can be there.
    #[error("no such resource")]
    NotFound,
    /// 400.
    #[error("a query that is no list of xmlns() expressions")]
    Query,
    /// 414.
    #[error("longer than {MAX_URI} bytes")]
    TooLong,
}

/// Bytes of a URI below the root, query included.
pub const MAX_URI: usize = 4096;
/// Namespace bindings of a query.
const MAX_BINDINGS: usize = 16;
const MAX_SEGMENTS: usize = 8;

impl Target {
    /// Reads what follows the root in a request's path, percent-encoded as it came, and its query.
    pub fn parse(path: &str, query: Option<&str>) -> Result<Target, BadTarget> {
        if path.len() + query.map_or(0, str::len) > MAX_URI {
            return Err(BadTarget::TooLong);
        }
        let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
        let mut next = || segments.next().map(decode).unwrap_or(Some(String::new())).ok_or(BadTarget::NotFound);
        let auid = next()?;
        let tree = match &*next()? {
            "users" => Tree::Users(next()?),
            "global" => Tree::Global,
            _ => return Err(BadTarget::NotFound),
        };
        if auid.is_empty() || tree == Tree::Users(String::new()) {
            return Err(BadTarget::NotFound);
        }
        let mut below = Vec::new();
        let mut node = None;
        while let Some(raw) = segments.next() {
            let segment = decode(raw).ok_or(BadTarget::NotFound)?;
            if segment == SEPARATOR {
                // What is left is one expression: a slash in an attribute's value may have come undecoded.
                let rest = segments.collect::<Vec<_>>().join("/");
                node = Some(decode(&rest).ok_or(BadTarget::NotFound)?);
                break;
            }
            let control = segment.chars().any(char::is_control);
            if below.len() == MAX_SEGMENTS || control || matches!(&*segment, "." | "..") {
                return Err(BadTarget::NotFound);
            }
            below.push(segment);
        }
        // `…/XUI/` is the directory.
        if below.last().is_some_and(String::is_empty) {
            below.pop();
        }
        if below.iter().any(String::is_empty) || below.is_empty() && node.is_some() {
            return Err(BadTarget::NotFound);
        }
        let bindings = match query.filter(|_| node.is_some()) {
            Some(query) => bindings(&decode(query).ok_or(BadTarget::Query)?)?,
            None => Vec::new(),
        };
        Ok(Target { auid, tree, path: below, node, bindings })
    }

    /// The document's name, where this names one, or a node of one.
    pub fn document(&self) -> Option<&str> {
        match &*self.path {
            [name] => Some(name),
            _ => None,
        }
    }

    /// The URI below the root of the directory that exists for certain.
    pub fn home(&self) -> String {
        match &self.tree {
            Tree::Users(xui) => format!("{}/users/{}/", encode_segment(&self.auid), encode_segment(xui)),
            Tree::Global => format!("{}/global/", encode_segment(&self.auid)),
        }
    }

    /// The URI below the root of the document.
    pub fn document_uri(&self) -> String {
        let path: Vec<String> = self.path.iter().map(|s| encode_segment(s)).collect();
        self.home() + &path.join("/")
    }
}

/// Stands between document and node selector.
const SEPARATOR: &str = "~~";

/// Writes text so that it may be a path segment (RFC 3986 §3.3). Brackets and quotes do not stand there plainly.
pub fn encode_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' => out.push(char::from(byte)),
            b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => out.push(char::from(byte)),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(DIGITS[usize::from(byte >> 4)]));
                out.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
    }
    out
}

/// A URI of a document as it is meant. AG Projects' sipsimple, which is in Blink, percent-encodes URIs whole, the colon behind their scheme
/// too (`sip%3Abob%40example.com`); read by RFC 3986 that would be a relative path, which no list or rule has there.
pub fn meant(uri: &str) -> Cow<'_, str> {
    let (scheme, rest) = uri.trim_start().split_once('%').unwrap_or_default();
    let whole = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && rest.get(..2).is_some_and(|digits| digits.eq_ignore_ascii_case("3A"));
    match decode(uri).filter(|plain| whole && !plain.contains(char::is_control)) {
        Some(plain) => Cow::Owned(plain),
        None => Cow::Borrowed(uri),
    }
}

/// Percent-decoding; `None` for broken escapes and what is not UTF-8 then.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                out.push((digit()? << 4 | digit()?) as u8);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

/// `xmlns(prefix=namespace)` and other pointer parts, which are ignored (XPointer framework §3.1).
fn bindings(query: &str) -> Result<Bindings, BadTarget> {
    let mut found = Bindings::new();
    let mut rest = query.trim_start();
    while !rest.is_empty() {
        let (scheme, data) = rest.split_once('(').ok_or(BadTarget::Query)?;
        let (data, after) = parenthesised(data).ok_or(BadTarget::Query)?;
        if scheme.trim() == "xmlns" {
            let (prefix, namespace) = data.split_once('=').ok_or(BadTarget::Query)?;
            if !sip_xml::is_nc_name(prefix.trim()) || found.len() == MAX_BINDINGS {
                return Err(BadTarget::Query);
            }
            found.push((prefix.trim().to_owned(), namespace.trim().to_owned()));
        }
        rest = after.trim_start();
    }
    Ok(found)
}

/// The data of a pointer part up to its closing parenthesis, with `^` taken off what it escapes, and what follows.
fn parenthesised(text: &str) -> Option<(String, &str)> {
    let (mut data, mut depth) = (String::new(), 1);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '^' => {
                data.push(chars.next().map(|(_, c)| c).filter(|c| matches!(c, '^' | '(' | ')'))?);
                continue;
            }
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((data, &text[at + 1..]));
        }
        data.push(c);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_that_is_encoded_whole_is_meant_plain() {
        for (written, plain) in [
            ("sip%3Abob%40example.com", "sip:bob@example.com"),
            ("sip%3ab%2541%40h", "sip:b%41@h"),
            ("http%3A//h%3A80/x/list%5B%40name%3D%22a%22%5D", "http://h:80/x/list[@name=\"a\"]"),
            ("sip:b%3Aob@h", "sip:b%3Aob@h"),
            ("a/b%3Ac", "a/b%3Ac"),
            ("%3Ax", "%3Ax"),
            ("sip%3A%f", "sip%3A%f"),
            ("sip%3A%ff", "sip%3A%ff"),
            ("sip%3Aa%00", "sip%3Aa%00"),
            ("", ""),
        ] {
            assert_eq!(meant(written), plain, "{written}");
        }
    }

    #[test]
    fn documents_and_nodes_are_told_apart() {
        let read = Target::parse("resource-lists/users/sip:joe@example.com/index", None).unwrap();
        assert_eq!((&*read.auid, read.document(), &read.node), ("resource-lists", Some("index"), &None));
        assert_eq!(read.tree, Tree::Users("sip:joe@example.com".into()));
        assert_eq!(read.document_uri(), "resource-lists/users/sip:joe@example.com/index");
        let uri =
            "/rls-services/users/sip%3Ajoe%40example.com/index/%7E%7e/rls-services/service%5b@uri=%22sip:a@b%22%5d";
        let read = Target::parse(uri, None).unwrap();
        assert_eq!(read.tree, Tree::Users("sip:joe@example.com".into()));
        assert_eq!(read.node.as_deref(), Some("rls-services/service[@uri=\"sip:a@b\"]"));
        let read = Target::parse("xcap-caps/global/index/~~/a/~~/b", None).unwrap();
        assert_eq!((read.tree, read.node.as_deref()), (Tree::Global, Some("a/~~/b")));
        let read = Target::parse("a/users/u%2Fv%3F/sub/doc", None).unwrap();
        assert_eq!((read.tree.clone(), read.path.len(), read.document()), (Tree::Users("u/v?".into()), 2, None));
        assert_eq!(read.home(), "a/users/u%2Fv%3F/");
        assert_eq!(Target::parse("a/users/u/", None).unwrap().path, Vec::<String>::new());
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for bad in
            ["", "a", "a/", "a/users", "a/users/", "/global/x", "a/others/x/y", "a/users/u/../x", "a/users/u/./x"]
        {
            assert_eq!(Target::parse(bad, None), Err(BadTarget::NotFound), "{bad}");
        }
        for bad in [
            "a/users/u/%",
            "a/users/u/%4",
            "a/users/u/%zz",
            "a/users/u/%ff",
            "a/users/u//x",
            "a/users/u/%00",
            "a/users/u/~~/x",
        ] {
            assert_eq!(Target::parse(bad, None), Err(BadTarget::NotFound), "{bad}");
        }
        assert_eq!(Target::parse(&"x".repeat(MAX_URI + 1), None), Err(BadTarget::TooLong));
    }

    #[test]
    fn namespace_bindings_are_xpointer_parts() {
        let read = |query: &str| Target::parse("a/global/d/~~/x", Some(query)).map(|t| t.bindings);
        let pair = |p: &str, n: &str| (p.to_owned(), n.to_owned());
        assert_eq!(
            read("xmlns(a=urn:test:namespace1-uri)xmlns(b=urn:test:namespace2-uri)"),
            Ok(vec![pair("a", "urn:test:namespace1-uri"), pair("b", "urn:test:namespace2-uri")])
        );
        assert_eq!(
            read("xmlns%28a%3Durn%3Ax%29%20element(/1/2)xmlns( b = u^(^^^) )"),
            Ok(vec![pair("a", "urn:x"), pair("b", "u(^)")])
        );
        assert_eq!(read("xmlns(a=u(v)w)"), Ok(vec![pair("a", "u(v)w")]));
        assert_eq!(read(""), Ok(Vec::new()));
        for bad in ["xmlns", "xmlns(", "xmlns(a)", "xmlns(1=u)", "xmlns(a=u^x)", "a=b", "xmlns(a=u))"] {
            assert_eq!(read(bad), Err(BadTarget::Query), "{bad}");
        }
    }
}
