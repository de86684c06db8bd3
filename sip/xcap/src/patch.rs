//! Patches (RFC 5261): the operations that make one document of another.
//!
//! Elements are selected by their place among all elements (`*/*[2]/*[1]`), which needs no prefixes. What cannot be told in smaller pieces
//! is told by a whole element: attributes with a prefix, declarations, and text that has changed beside elements.

use sip_xml::{Element, Open};

use crate::diff::Content;
use crate::edit::in_scope;
use crate::start_tag::StartTag;
use crate::text::Text;

/// Operations of one patch; what would take more is told without one.
const MAX_OPERATIONS: usize = 200;
/// Pairs of siblings that are compared to find those that have stayed; beyond it what is between the first and the last change is one change.
const MAX_PAIRS: usize = 40_000;

/// One operation; they are applied in order, each to what those before it have made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Elements and text.
    Add {
        sel: String,
        position: Position,
        content: Content,
    },
    AddAttribute {
        sel: String,
        name: Box<str>,
        value: Box<str>,
    },
    Replace {
        sel: String,
        content: Content,
    },
    /// `sel` names the attribute.
    ReplaceAttribute {
        sel: String,
        value: Box<str>,
    },
    Remove {
        sel: String,
        blanks: Blanks,
    },
}

/// Where what is added goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// The end of the selected element.
    Append,
    Prepend,
    /// Beside it.
    Before,
    After,
}

/// Which blank text goes with an element (RFC 5261 §4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blanks {
    Stay,
    Before,
    After,
    Both,
}

impl Position {
    /// `None`: the default.
    fn as_str(self) -> Option<&'static str> {
        match self {
            Position::Append => None,
            Position::Prepend => Some("prepend"),
            Position::Before => Some("before"),
            Position::After => Some("after"),
        }
    }
}

impl Blanks {
    /// `None`: the default.
    fn as_str(self) -> Option<&'static str> {
        match self {
            Blanks::Stay => None,
            Blanks::Before => Some("before"),
            Blanks::After => Some("after"),
            Blanks::Both => Some("both"),
        }
    }
}

/// What makes `new` of `old`. `None`: that cannot be told by operations.
pub fn between(old: &Text, new: &Text) -> Option<Vec<Operation>> {
    let around = |text: &Text| {
        let span = text.root().span.clone();
        (text.as_str()[..span.start].to_owned(), text.as_str()[span.end..].to_owned())
    };
    if around(old) != around(new) {
        return None;
    }
    let mut operations = Vec::new();
    Comparison { old, new }.element("*", &[old.root()], &[new.root()], &mut operations);
    (operations.len() <= MAX_OPERATIONS).then_some(operations)
}

struct Comparison<'t> {
    old: &'t Text,
    new: &'t Text,
}

/// What is in an element: its elements, and the text before each and behind the last, comments included.
struct Inside<'t> {
    text: &'t str,
    elements: Vec<&'t Element>,
    from: usize,
    to: usize,
}

impl<'t> Inside<'t> {
    fn of(text: &'t Text, element: &'t Element) -> Option<Inside<'t>> {
        let tag = StartTag::at(text.as_str(), element.span.start)?;
        let to = if tag.empty { tag.end } else { element.span.start + text.of(element).rfind("</")? };
        Some(Inside { text: text.as_str(), elements: element.elements().collect(), from: tag.end, to })
    }

    fn raw(&self, at: usize) -> &'t str {
        &self.text[self.elements[at].span.clone()]
    }

    /// From the end of the element before `from` to the begin of that at `to`.
    fn between(&self, from: usize, to: usize) -> &'t str {
        let begin = from.checked_sub(1).map_or(self.from, |before| self.elements[before].span.end);
        &self.text[begin..self.elements.get(to).map_or(self.to, |behind| behind.span.start)]
    }

    fn gap(&self, before: usize) -> &'t str {
        self.between(before, before)
    }
}

impl<'t> Comparison<'t> {
    /// What makes the last element of one way that of the other.
    fn element(&self, sel: &str, old: &[&'t Element], new: &[&'t Element], out: &mut Vec<Operation>) {
        let ([.., before], [above @ .., after]) = (old, new) else { return };
        if self.old.of(before) == self.new.of(after) {
            return;
        }
        let done = out.len();
        if self.attributes(sel, before, after, out).and_then(|()| self.children(sel, old, new, out)).is_none() {
            out.truncate(done);
            out.push(Operation::Replace { sel: sel.to_owned(), content: content(self.new.of(after), above) });
        }
    }

    fn attributes(&self, sel: &str, old: &Element, new: &Element, out: &mut Vec<Operation>) -> Option<()> {
        let name = |text: &'t Text, element: &Element| {
            StartTag::at(text.as_str(), element.span.start).map(|tag| &text.as_str()[tag.name])
        };
        if name(self.old, old)? != name(self.new, new)? || old.declarations != new.declarations {
            return None;
        }
        for attribute in &new.attributes {
            let before = old.attributes.iter().find(|a| a.namespace == attribute.namespace && a.name == attribute.name);
            if before.is_some_and(|before| before.value == attribute.value) {
                continue;
            }
            attribute.namespace.is_none().then_some(())?;
            let (name, value) = (attribute.name.clone(), attribute.value.clone());
            out.push(match before {
                Some(_) => Operation::ReplaceAttribute { sel: format!("{sel}/@{name}"), value },
                None => Operation::AddAttribute { sel: sel.to_owned(), name, value },
            });
        }
        for gone in &old.attributes {
            if new.attributes.iter().all(|a| a.namespace != gone.namespace || a.name != gone.name) {
                gone.namespace.is_none().then_some(())?;
                out.push(Operation::Remove { sel: format!("{sel}/@{}", gone.name), blanks: Blanks::Stay });
            }
        }
        Some(())
    }

    fn children(&self, sel: &str, old: &[&'t Element], new: &[&'t Element], out: &mut Vec<Operation>) -> Option<()> {
        let (before, after) =
            (Inside::of(self.old, old.last().copied()?)?, Inside::of(self.new, new.last().copied()?)?);
        let mut stayed = stayed(&before, &after);
        // Behind the last element as if one more had stayed there.
        stayed.push((before.elements.len(), after.elements.len()));
        let begins = std::iter::once((0, 0)).chain(stayed.iter().map(|(o, n)| (o + 1, n + 1)));
        let changes: Vec<_> = begins.zip(&stayed).map(|((o, n), end)| (o..end.0, n..end.1)).collect();
        // From the last to the first, so that the places of what is before stay what they are.
        for (gone, come) in changes.into_iter().rev() {
            let place = |at: usize| format!("{sel}/*[{}]", at + 1);
            let was = before.between(gone.start, gone.end);
            let is = after.between(come.start, come.end);
            if was == is {
                continue;
            }
            let gaps = |inside: &Inside<'t>, from: usize, count: usize| -> Vec<&'t str> {
                (from..=from + count).map(|at| inside.gap(at)).collect()
            };
            if gone.len() == come.len() && !gone.is_empty() {
                (gaps(&before, gone.start, gone.len()) == gaps(&after, come.start, come.len())).then_some(())?;
                for (o, n) in gone.zip(come).rev() {
                    let old = [old, &[before.elements[o]][..]].concat();
                    let new = [new, &[after.elements[n]][..]].concat();
                    self.element(&place(o), &old, &new, out);
                }
            } else if gone.is_empty() {
                let behind = gone.start < before.elements.len();
                let (sel, position, added) = match (is.strip_prefix(was), is.strip_suffix(was)) {
                    (Some(added), _) if behind => (place(gone.start), Position::Before, added),
                    (Some(added), _) => (sel.to_owned(), Position::Append, added),
                    (None, Some(added)) if gone.start > 0 => (place(gone.start - 1), Position::After, added),
                    (None, Some(added)) => (sel.to_owned(), Position::Prepend, added),
                    (None, None) => return None,
                };
                out.push(Operation::Add { sel, position, content: content(added, new) });
            } else if come.is_empty() {
                let gaps = gaps(&before, gone.start, gone.len());
                let blanks = match &*gaps {
                    gaps if gaps.concat() == is => Blanks::Stay,
                    [first, last] if blank(first) && blank(last) && is.is_empty() => Blanks::Both,
                    [first, last] if blank(first) && last == &is => Blanks::Before,
                    [first, last] if blank(last) && first == &is => Blanks::After,
                    _ => return None,
                };
                out.extend(gone.rev().map(|at| Operation::Remove { sel: place(at), blanks }));
            } else {
                return None;
            }
        }
        Some(())
    }
}

/// The siblings that are the same in both, in order (a longest common subsequence).
fn stayed(old: &Inside<'_>, new: &Inside<'_>) -> Vec<(usize, usize)> {
    let (m, n) = (old.elements.len(), new.elements.len());
    let same = |o: usize, n: usize| old.raw(o) == new.raw(n);
    let first = (0..m.min(n)).take_while(|i| same(*i, *i)).count();
    let last = (0..(m - first).min(n - first)).take_while(|i| same(m - 1 - i, n - 1 - i)).count();
    let (olds, news) = (m - first - last, n - first - last);
    let mut found: Vec<(usize, usize)> = (0..first).map(|i| (i, i)).collect();
    if olds * news <= MAX_PAIRS {
        let mut best = vec![vec![0u16; news + 1]; olds + 1];
        for o in (0..olds).rev() {
            for n in (0..news).rev() {
                best[o][n] = match same(first + o, first + n) {
                    true => best[o + 1][n + 1] + 1,
                    false => best[o + 1][n].max(best[o][n + 1]),
                };
            }
        }
        let (mut o, mut n) = (0, 0);
        while o < olds && n < news {
            if same(first + o, first + n) {
                found.push((first + o, first + n));
                (o, n) = (o + 1, n + 1);
            } else if best[o + 1][n] >= best[o][n + 1] {
                o += 1;
            } else {
                n += 1;
            }
        }
    }
    found.extend((0..last).rev().map(|i| (m - 1 - i, n - 1 - i)));
    found
}

fn blank(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_whitespace())
}

/// XML that stands in the last element of a way.
fn content(xml: &str, way: &[&Element]) -> Content {
    let declarations = in_scope(way).into_iter().map(|(p, n)| (p.map(str::to_owned), n.to_owned())).collect();
    Content { xml: xml.to_owned(), declarations }
}

impl Operation {
    /// Bound where its content stands.
    pub fn declarations(&self) -> &[(Option<String>, String)] {
        match self {
            Operation::Add { content, .. } | Operation::Replace { content, .. } => &content.declarations,
            _ => &[],
        }
    }

    /// Writes it as a child whose name has this prefix.
    pub fn write(&self, parent: &mut Open<'_>, prefix: &str) {
        match self {
            Operation::Add { sel, position, content } => parent.child(&format!("{prefix}:add"), |e| {
                e.attribute("sel", sel);
                if let Some(position) = position.as_str() {
                    e.attribute("pos", position);
                }
                content.write(e);
            }),
            Operation::AddAttribute { sel, name, value } => parent.child(&format!("{prefix}:add"), |e| {
                e.attribute("sel", sel).attribute("type", &format!("@{name}"));
                e.text(value);
            }),
            Operation::Replace { sel, content } => parent.child(&format!("{prefix}:replace"), |e| {
                e.attribute("sel", sel);
                content.write(e);
            }),
            Operation::ReplaceAttribute { sel, value } => parent.child(&format!("{prefix}:replace"), |e| {
                e.attribute("sel", sel);
                e.text(value);
            }),
            Operation::Remove { sel, blanks } => parent.child(&format!("{prefix}:remove"), |e| {
                e.attribute("sel", sel);
                if let Some(blanks) = blanks.as_str() {
                    e.attribute("ws", blanks);
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use sip_xml::Writer;

    use super::*;

    fn text(xml: &str) -> Text {
        Text::read(xml.as_bytes().to_vec()).unwrap()
    }

    /// The operations of a patch, one after another.
    fn patch(old: &str, new: &str) -> String {
        let (old, new) = (format!("<l xmlns='urn:l'>{old}</l>"), format!("<l xmlns='urn:l'>{new}</l>"));
        written(&between(&text(&old), &text(&new)).unwrap())
    }

    fn written(operations: &[Operation]) -> String {
        let mut out = Vec::new();
        Writer::element(&mut out, "d", |d| operations.iter().for_each(|o| o.write(d, "p")));
        let out = String::from_utf8(out).unwrap().replace(" xmlns=\"urn:l\"", "").replace("p:", "");
        out.trim_start_matches("<d>").trim_end_matches("</d>").to_owned()
    }

    #[test]
    fn one_change_is_one_operation() {
        let three = "<e u='1'/> <e u='2'><n>x</n></e>\n<e u='3'/>";
        assert_eq!(patch(three, &three.replace(">x<", ">y<")), "<replace sel=\"*/*[2]/*[1]\"><n>y</n></replace>");
        assert_eq!(patch(three, &three.replace("'2'", "'&lt;'")), "<replace sel=\"*/*[2]/@u\">&lt;</replace>");
        assert_eq!(patch(three, &three.replace("'3'", "'3' v='4'")), "<add sel=\"*/*[3]\" type=\"@v\">4</add>");
        assert_eq!(patch(three, &three.replace(" u='1'", "")), "<remove sel=\"*/*[1]/@u\"/>");
        assert_eq!(patch(three, &three.replace("<e u='1'/>", "")), "<remove sel=\"*/*[1]\"/>");
        assert_eq!(patch(three, &three.replace("<e u='1'/> ", "")), "<remove sel=\"*/*[1]\" ws=\"after\"/>");
        assert_eq!(patch(three, &three.replace("\n<e u='3'/>", "")), "<remove sel=\"*/*[3]\" ws=\"before\"/>");
        assert_eq!(patch("<e/>", "<e/><f/>"), "<add sel=\"*\"><f/></add>");
        assert_eq!(patch("<e/>\n", "<f/><e/>\n"), "<add sel=\"*/*[1]\" pos=\"before\"><f/></add>");
        assert_eq!(patch("\n<e/>\n", "<f/>\n<e/>\n"), "<add sel=\"*\" pos=\"prepend\"><f/></add>");
        assert_eq!(patch("<e/>\n<g/>", "<e/><f/>\n<g/>"), "<add sel=\"*/*[1]\" pos=\"after\"><f/></add>");
        assert_eq!(patch("", "<f/> text"), "<add sel=\"*\"><f/> text</add>");
        assert_eq!(between(&text("<e/>"), &text("<e></e>")), Some(Vec::new()), "they say the same");
    }

    #[test]
    fn changes_in_several_places_are_told_from_the_last_to_the_first() {
        let old = "<e u='1'/><e u='2'/><e u='3'/><e u='4'/>";
        let new = "<e u='0'/><e u='1'/><e u='3'/><e u='4'/><e u='5'/>";
        assert_eq!(
            patch(old, new),
            "<add sel=\"*\"><e u='5'/></add><remove sel=\"*/*[2]\"/><add sel=\"*/*[1]\" pos=\"before\"><e u='0'/></add>"
        );
    }

    #[test]
    fn what_cannot_be_told_in_pieces_is_told_by_an_element_or_not_at_all() {
        assert_eq!(patch("<e>a<b/></e>", "<e>c<b/></e>"), "<replace sel=\"*/*[1]\"><e>c<b/></e></replace>");
        // Which of two is the changed one is not guessed.
        assert_eq!(patch("<e u='1'/>", "<e/><f/>"), "<replace sel=\"*\"><l xmlns='urn:l'><e/><f/></l></replace>");
        assert_eq!(patch("<e/>", "<e xml:lang='de'/>"), "<replace sel=\"*/*[1]\"><e xml:lang='de'/></replace>");
        assert_eq!(patch("<e/>", "<e xmlns='urn:m'/>"), "<replace sel=\"*/*[1]\"><e xmlns='urn:m'/></replace>");
        assert_eq!(between(&text("<a/>"), &text("<!-- new --><a/>")), None);
        assert_eq!(written(&between(&text("<a/>"), &text("<b/>")).unwrap()), "<replace sel=\"*\"><b/></replace>");
        let many = |n: usize| text(&format!("<l>{}</l>", (0..n).map(|i| format!("<e u='{i}'/>")).collect::<String>()));
        assert_eq!(between(&many(MAX_OPERATIONS + 2), &many(1)), None);
    }
}
