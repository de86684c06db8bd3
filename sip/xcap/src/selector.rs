//! Node selectors: which element, attribute or namespace bindings of a document (RFC 4825 §6.3).

use sip_xml::{Element, is_nc_name};

use crate::target::Bindings;

/// One expression, its prefixes expanded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSelector {
    /// At least one.
    pub(crate) steps: Vec<Step>,
    pub terminal: Terminal,
}

/// What is selected of the element that the steps lead to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Terminal {
    Element,
    Attribute(Name),
    Namespaces,
}

/// An expanded name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    pub namespace: Option<Box<str>>,
    pub local: Box<str>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    /// `None`: any.
    pub name: Option<Name>,
    /// Among those of that name, from 1.
    pub position: Option<usize>,
    pub attribute: Option<(Name, Box<str>)>,
    /// As it was written, decoded.
    pub text: Box<str>,
}

/// Why an expression is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSelector {
    /// 400 (§8).
    #[error("a prefix without a binding")]
    Prefix,
    /// 404 (§8): what is not understood is an extension.
    #[error("a node selector that is not understood")]
    Extension,
}

/// Why steps lead nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Miss {
    Nothing,
    /// The step with this number selects more than one element: the expression is invalid.
    Several(usize),
}

/// Bytes of an expression, decoded.
pub const MAX_SELECTOR: usize = 4096;
const MAX_STEPS: usize = 64;

impl NodeSelector {
    /// Reads an expression that is decoded already. `default`: the namespace of element names without a prefix, the default
    /// document namespace of the application usage.
    pub fn parse(text: &str, bindings: &Bindings, default: Option<&str>) -> Result<NodeSelector, BadSelector> {
        if text.len() > MAX_SELECTOR {
            return Err(BadSelector::Extension);
        }
        let mut texts = split(text);
        if texts.len() > MAX_STEPS {
            return Err(BadSelector::Extension);
        }
        let terminal = match texts.last().copied() {
            Some("namespace::*") => Terminal::Namespaces,
            Some(last) if last.starts_with('@') => Terminal::Attribute(expand(&last[1..], bindings, None)?),
            _ => Terminal::Element,
        };
        if terminal != Terminal::Element {
            texts.pop();
        }
        let steps: Vec<Step> = texts.iter().map(|t| Step::parse(t, bindings, default)).collect::<Result<_, _>>()?;
        if steps.is_empty() {
            return Err(BadSelector::Extension);
        }
        Ok(NodeSelector { steps, terminal })
    }

    /// The elements from the root to the selected one, or to the one whose attribute or bindings are selected.
    pub(crate) fn way<'d>(&self, root: &'d Element) -> Result<Vec<&'d Element>, Miss> {
        way(root, &self.steps)
    }

    /// The element that is selected, or whose attribute or namespace bindings are.
    pub fn element<'d>(&self, root: &'d Element) -> Option<&'d Element> {
        self.way(root).ok()?.pop()
    }
}

/// The elements that steps lead through; the last is where they lead.
pub(crate) fn way<'d>(root: &'d Element, steps: &[Step]) -> Result<Vec<&'d Element>, Miss> {
    let mut way: Vec<&Element> = Vec::with_capacity(steps.len());
    for (number, step) in steps.iter().enumerate() {
        let found = match way.last() {
            None => step.of(std::iter::once(root)),
            Some(context) => step.of(context.elements()),
        };
        match *found {
            [] => return Err(Miss::Nothing),
            [one] => way.push(one),
            _ => return Err(Miss::Several(number)),
        }
    }
    Ok(way)
}

impl Step {
    fn parse(text: &str, bindings: &Bindings, default: Option<&str>) -> Result<Step, BadSelector> {
        let (name, mut rest) = text.split_at(text.find('[').unwrap_or(text.len()));
        let name = match name {
            "*" => None,
            name => Some(expand(name, bindings, default)?),
        };
        let mut position = None;
        if let Some((digits, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']'))
            && !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
        {
            // Beyond what counts, and beyond every document.
            position = Some(digits.parse().unwrap_or(usize::MAX));
            rest = after;
        }
        let mut attribute = None;
        if let Some(test) = rest.strip_prefix("[@") {
            let (name, value) = test.split_once('=').ok_or(BadSelector::Extension)?;
            let value = value.strip_suffix(']').ok_or(BadSelector::Extension)?;
            let value = unquote(value).ok_or(BadSelector::Extension)?;
            attribute = Some((expand(name, bindings, None)?, value.into()));
            rest = "";
        }
        match rest {
            "" => Ok(Step { name, position, attribute, text: text.into() }),
            _ => Err(BadSelector::Extension),
        }
    }

    /// Those among siblings that the step selects.
    pub fn of<'d>(&self, siblings: impl Iterator<Item = &'d Element>) -> Vec<&'d Element> {
        let mut found: Vec<&Element> = siblings.filter(|e| self.name.as_ref().is_none_or(|n| n.is(e))).collect();
        if let Some(position) = self.position {
            found = position.checked_sub(1).and_then(|at| found.get(at)).into_iter().copied().collect();
        }
        if let Some((name, value)) = &self.attribute {
            found.retain(|e| name.value_in(e) == Some(value));
        }
        found
    }
}

impl Name {
    pub(crate) fn is(&self, element: &Element) -> bool {
        *self.local == *element.name && self.namespace.as_deref() == element.namespace.as_deref()
    }

    /// The value of the attribute of this name.
    pub fn value_in<'d>(&self, element: &'d Element) -> Option<&'d str> {
        match &self.namespace {
            None => element.attribute(&self.local),
            Some(namespace) => element.attribute_in(namespace, &self.local),
        }
    }
}

/// The namespace that `xml` stands for without being declared.
pub(crate) const XML: &str = "http://www.w3.org/XML/1998/namespace";

fn expand(name: &str, bindings: &Bindings, default: Option<&str>) -> Result<Name, BadSelector> {
    let (prefix, local) = match name.split_once(':') {
        Some((prefix, local)) => (Some(prefix), local),
        None => (None, name),
    };
    if !is_nc_name(local) || prefix.is_some_and(|p| !is_nc_name(p)) {
        return Err(BadSelector::Extension);
    }
    let namespace = match prefix {
        None => default,
        Some("xml") => Some(XML),
        Some(prefix) => {
            let found = bindings.iter().rev().find(|(p, _)| p == prefix);
            Some(found.map(|(_, namespace)| &**namespace).ok_or(BadSelector::Prefix)?)
        }
    };
    Ok(Name { namespace: namespace.filter(|n| !n.is_empty()).map(Box::from), local: local.into() })
}

/// The steps: parted by slashes that stand outside of quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut quote) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, '/') => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// What stands between the quotes of an `AttValue`, references resolved (XML §2.3).
pub(crate) fn unquote(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = text[1..].strip_suffix(quote)?;
    if inner.contains([quote, '<']) {
        return None;
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((before, after)) = rest.split_once('&') {
        let (name, after) = after.split_once(';')?;
        out.push_str(before);
        out.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use sip_xml::Document;

    use super::*;

    /// RFC 4825, figure 3.
    const WATCHERS: &str = "<?xml version=\"1.0\"?>\n<watcherinfo xmlns=\"urn:ietf:params:xml:ns:watcherinfo\"\n             version=\"0\" state=\"full\">\n  \
        <watcher-list resource=\"sip:professor@example.net\"\n                package=\"presence\">\n    <watcher status=\"active\"\n             \
        id=\"8ajksjda7s\"\n             duration-subscribed=\"509\"\n             event=\"approved\">sip:userA@example.net</watcher>\n    \
        <watcher status=\"pending\"\n             id=\"hh8juja87s997-ass7\"\n             display-name=\"Mr. Subscriber\"\n             \
        event=\"subscribe\">sip:userB@example.org</watcher>\n  </watcher-list>\n</watcherinfo>";
    const WATCHERINFO: Option<&str> = Some("urn:ietf:params:xml:ns:watcherinfo");

    fn text_of(
        document: &str,
        selector: &str,
        bindings: &[(&str, &str)],
        default: Option<&str>,
    ) -> Result<String, String> {
        let root = Document::parse(document.as_bytes()).unwrap().root;
        let bindings = bindings.iter().map(|(p, n)| ((*p).to_owned(), (*n).to_owned())).collect();
        let selector = NodeSelector::parse(selector, &bindings, default).map_err(|e| e.to_string())?;
        let way = selector.way(&root).map_err(|m| format!("{m:?}"))?;
        Ok(document[way.last().unwrap().span.clone()].to_owned())
    }

    #[test]
    fn one_element_is_found_by_name_position_and_attribute() {
        let find = |selector: &str| text_of(WATCHERS, selector, &[], WATCHERINFO);
        let first = find("watcherinfo/watcher-list/watcher[@id=\"8ajksjda7s\"]").unwrap();
        assert!(first.starts_with("<watcher status=\"active\"") && first.ends_with("sip:userA@example.net</watcher>"));
        for same in
            ["*/*/*[1]", "watcherinfo/*/watcher[1][@status='active']", "watcherinfo/watcher-list/*[@event='approved']"]
        {
            assert_eq!(find(same).as_ref(), Ok(&first), "{same}");
        }
        assert!(find("*/*/*[2][@status=\"pending\"]").unwrap().contains("userB"));
        for none in
            ["watcher", "*/*/*[3]", "*/*/*[0]", "*/*/*[99999999999999999999]", "*/*/*[1][@status='pending']", "*/*/x"]
        {
            assert_eq!(find(none), Err("Nothing".into()), "{none}");
        }
        assert_eq!(find("*/*/watcher"), Err("Several(2)".into()));
        // A declaration is no attribute.
        assert_eq!(find("*[@xmlns='urn:ietf:params:xml:ns:watcherinfo']"), Err("Nothing".into()));
    }

    /// RFC 4825 §6.4.
    #[test]
    fn prefixes_are_those_of_the_query() {
        let document = "<?xml version=\"1.0\"?>\n<foo xmlns=\"urn:test:default-namespace\">\n  <ns1:bar xmlns:ns1=\"urn:test:namespace1-uri\"\n           \
            xmlns=\"urn:test:namespace1-uri\">\n    <baz/>\n    <ns2:baz xmlns:ns2=\"urn:test:namespace2-uri\"/>\n  </ns1:bar>\n  \
            <ns3:hi xmlns:ns3=\"urn:test:namespace3-uri\">\n    <there/>\n  </ns3:hi>\n</foo>";
        let (one, two) = ("urn:test:namespace1-uri", "urn:test:namespace2-uri");
        let find = |selector: &str, b: &str| {
            text_of(
                document,
                selector,
                &[("a", one), ("b", b), ("d", "urn:test:default-namespace")],
                Some("urn:test:default-namespace"),
            )
        };
        assert_eq!(find("foo/a:bar/b:baz", one).as_deref(), Ok("<baz/>"));
        let second = "<ns2:baz xmlns:ns2=\"urn:test:namespace2-uri\"/>";
        assert_eq!(find("foo/a:bar/b:baz", two).as_deref(), Ok(second));
        assert_eq!(find("d:foo/a:bar/b:baz", two).as_deref(), Ok(second));
        assert_eq!(find("foo/c:bar", one), Err(BadSelector::Prefix.to_string()));
        assert_eq!(find("foo/bar", one), Err("Nothing".into()));
    }

    #[test]
    fn what_is_not_understood_is_an_extension() {
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "a[",
            "a[]",
            "a[x]",
            "a[1",
            "a[-1]",
            "a[@b]",
            "a[@b=c]",
            "a[@b=\"c]",
            "a[@b=\"c\"",
            "@a",
            "a[@b=\"<\"]",
            "a[@b=\"&x;\"]",
            "a[@b=\"&\"]",
            "a[@b=\"1\"][1]",
            "a/@b/c",
            "namespace::*",
            "a/namespace::*/b",
            "a[1][2]",
            "a[@b=\"c\"]x",
            "1",
            "a:b:c",
            "text()",
            "a/..",
            "a[@b=\"c\" or @d=\"e\"]",
        ] {
            assert_eq!(NodeSelector::parse(bad, &Vec::new(), None), Err(BadSelector::Extension), "{bad}");
        }
        let long = "a/".repeat(MAX_STEPS) + "a";
        assert_eq!(NodeSelector::parse(&long, &Vec::new(), None), Err(BadSelector::Extension));
    }

    #[test]
    fn values_may_hold_slashes_brackets_and_references() {
        let document = "<a><b u=\"http://x/[1]?'\"/><b u=\"&lt;&quot;&#233;\"/></a>";
        let find = |selector: &str| text_of(document, selector, &[], None);
        assert_eq!(find("a/b[@u=\"http://x/[1]?'\"]").as_deref(), Ok("<b u=\"http://x/[1]?'\"/>"));
        assert_eq!(find("a/b[@u='&lt;&quot;&#xE9;']").as_deref(), Ok("<b u=\"&lt;&quot;&#233;\"/>"));
    }

    #[test]
    fn terminals_stand_last() {
        let parse = |text: &str| {
            NodeSelector::parse(text, &vec![("p".into(), "urn:p".into())], Some("urn:d")).map(|s| s.terminal)
        };
        let name =
            |namespace: Option<&str>, local: &str| Name { namespace: namespace.map(Box::from), local: local.into() };
        assert_eq!(parse("a/@b"), Ok(Terminal::Attribute(name(None, "b"))));
        assert_eq!(parse("a/@p:b"), Ok(Terminal::Attribute(name(Some("urn:p"), "b"))));
        assert_eq!(parse("a/@xml:lang"), Ok(Terminal::Attribute(name(Some(XML), "lang"))));
        assert_eq!(parse("a/@q:b"), Err(BadSelector::Prefix));
        assert_eq!(parse("a/namespace::*"), Ok(Terminal::Namespaces));
        assert_eq!(parse("a"), Ok(Terminal::Element));
    }
}
