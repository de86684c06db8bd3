//! Expressions that select elements and attributes (RFC 4661 §5): a small part of XPath.

use std::collections::BTreeMap;

use sip_xml::{Element, is_nc_name};

use super::{Key, NotFilters};

/// Prefixes and the namespaces that they stand for.
pub type Prefixes = Vec<(String, String)>;

/// Selects elements, or an attribute of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    steps: Vec<Step>,
    attribute: Option<Expression>,
}

/// A name; of an attribute or an element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expression {
    namespace: Option<Box<str>>,
    local: Box<str>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Step {
    /// At any depth below (`//`).
    deep: bool,
    /// `None`: any.
    name: Option<Expression>,
    /// Any of these, each all of its comparisons.
    condition: Option<Vec<Vec<Comparison>>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Comparison {
    operand: Operand,
    operator: char,
    value: Box<str>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Operand {
    /// `.`
    Itself,
    /// `..`
    Parent,
    /// From here down, and perhaps an attribute there; `None` in the path: any.
    Below(Vec<Option<Expression>>, Option<Expression>),
}

const MAX_STEPS: usize = 16;
const MAX_COMPARISONS: usize = 16;

impl Path {
    pub fn parse(text: &str, prefixes: &Prefixes) -> Result<Path, NotFilters> {
        let mut reader = Reader { rest: text.trim(), prefixes };
        let mut path = Path { steps: Vec::new(), attribute: None };
        while !reader.rest.is_empty() {
            reader.eat("/").ok_or(NotFilters::Expression)?;
            let deep = reader.eat("/").is_some();
            if reader.eat("@").is_some() {
                path.attribute = Some(reader.name().ok_or(NotFilters::Expression)?);
                // `//@a` is an attribute of anything.
                if deep {
                    path.steps.push(Step { deep, name: None, condition: None });
                }
                break;
            }
            let name = reader.name_or_any().ok_or(NotFilters::Expression)?;
            let condition = match reader.eat("[") {
                Some(()) => Some(reader.condition().ok_or(NotFilters::Expression)?),
                None => None,
            };
            path.steps.push(Step { deep, name, condition });
        }
        if !reader.rest.is_empty() || path.steps.is_empty() || path.steps.len() > MAX_STEPS {
            return Err(NotFilters::Expression);
        }
        Ok(path)
    }

    pub fn attribute(&self) -> Option<Expression> {
        self.attribute.clone()
    }

    /// The elements that it leads to and, for an attribute, that have it; each once, in document order.
    pub fn select<'d>(&self, root: &'d Element) -> Vec<&'d Element> {
        self.ways(root).into_iter().filter_map(|way| way.last().copied()).collect()
    }

    /// The same by what names them, with their text or the attribute's value.
    pub fn values(&self, root: &Element) -> BTreeMap<Key, String> {
        let value = |way: &[&Element]| {
            let element = way.last()?;
            match &self.attribute {
                None => Some(all_text(element)),
                Some(name) => name.value_in(element).map(str::to_owned),
            }
        };
        self.ways(root).into_iter().filter_map(|way| Some((key_of(&way), value(&way)?))).collect()
    }

    fn ways<'d>(&self, root: &'d Element) -> Vec<Vec<&'d Element>> {
        let mut ways: Vec<Vec<&Element>> = vec![Vec::new()];
        for step in &self.steps {
            let mut next: Vec<Vec<&Element>> = Vec::new();
            for way in &ways {
                match way.last() {
                    None => step.walk(root, way, &mut next),
                    Some(context) => context.elements().for_each(|child| step.walk(child, way, &mut next)),
                }
            }
            // `//a//b` leads to one element by several ways.
            next.sort_by_key(|way| way.last().map_or(0, |e| e.span.start));
            next.dedup_by_key(|way| way.last().map(|e| e.span.clone()));
            ways = next;
        }
        if let Some(name) = &self.attribute {
            ways.retain(|way| way.last().is_some_and(|e| name.value_in(e).is_some()));
        }
        ways
    }
}

impl Step {
    fn walk<'d>(&self, element: &'d Element, above: &[&'d Element], found: &mut Vec<Vec<&'d Element>>) {
        let way = || above.iter().copied().chain([element]).collect::<Vec<_>>();
        if self.name.as_ref().is_none_or(|n| n.is(element)) && self.holds(element, above) {
            found.push(way());
        }
        if self.deep {
            let way = way();
            element.elements().for_each(|child| self.walk(child, &way, found));
        }
    }

    fn holds(&self, element: &Element, above: &[&Element]) -> bool {
        let all = |all: &Vec<Comparison>| all.iter().all(|c| c.holds(element, above.last().copied()));
        self.condition.as_ref().is_none_or(|any| any.iter().any(all))
    }
}

impl Comparison {
    fn holds(&self, element: &Element, parent: Option<&Element>) -> bool {
        let is = |value: &str| {
            let (value, wanted) = (value.trim(), self.value.trim());
            let numbers = || Some((value.parse::<f64>().ok()?, wanted.parse::<f64>().ok()?));
            match self.operator {
                '<' => numbers().is_some_and(|(a, b)| a < b),
                '>' => numbers().is_some_and(|(a, b)| a > b),
                _ => value == wanted || numbers().is_some_and(|(a, b)| a == b),
            }
        };
        match &self.operand {
            Operand::Itself => is(&element.text()),
            Operand::Parent => parent.is_some_and(|p| is(&p.text())),
            Operand::Below(steps, attribute) => {
                let mut context = vec![element];
                for step in steps {
                    let named = |e: &&Element| step.as_ref().is_none_or(|n| n.is(e));
                    context = context.into_iter().flat_map(Element::elements).filter(named).collect();
                }
                context.into_iter().any(|e| match attribute {
                    None => is(&e.text()),
                    Some(name) => name.value_in(e).is_some_and(is),
                })
            }
        }
    }
}

impl Expression {
    fn is(&self, element: &Element) -> bool {
        *self.local == *element.name && self.namespace.as_deref() == element.namespace.as_deref()
    }

    fn value_in<'d>(&self, element: &'d Element) -> Option<&'d str> {
        match &self.namespace {
            None => element.attribute(&self.local),
            Some(namespace) => element.attribute_in(namespace, &self.local),
        }
    }
}

/// The names of the elements above and of this one, each with its id, or its number among its like.
fn key_of(way: &[&Element]) -> Key {
    let mut key = Key::new();
    for (depth, element) in way.iter().enumerate() {
        let mark = match (element.attribute("id"), depth.checked_sub(1).map(|d| way[d])) {
            (Some(id), _) => format!("#{id}"),
            (None, Some(parent)) => {
                let alike = parent.elements().filter(|e| e.name == element.name && e.namespace == element.namespace);
                alike.take_while(|e| e.span != element.span).count().to_string()
            }
            (None, None) => String::new(),
        };
        key.push((element.name.clone(), mark));
    }
    key
}

fn all_text(element: &Element) -> String {
    let mut text = element.text();
    for child in element.elements() {
        text.push_str(&child.name);
        text.push_str(&all_text(child));
    }
    text
}

struct Reader<'t> {
    rest: &'t str,
    prefixes: &'t Prefixes,
}

impl Reader<'_> {
    fn eat(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.trim_start();
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn name_or_any(&mut self) -> Option<Option<Expression>> {
        match self.eat("*") {
            Some(()) => Some(None),
            None => self.name().map(Some),
        }
    }

    /// XPath 1.0: a name without a prefix is in no namespace.
    fn name(&mut self) -> Option<Expression> {
        self.rest = self.rest.trim_start();
        let is_end = |c: char| {
            c.is_whitespace() || matches!(c, '/' | '[' | ']' | '@' | '=' | '<' | '>' | '"' | '\'' | '*' | '(')
        };
        let (name, rest) = self.rest.split_at(self.rest.find(is_end).unwrap_or(self.rest.len()));
        let (namespace, local) = match name.split_once(':') {
            None => (None, name),
            Some((prefix, local)) => {
                let (_, namespace) = self.prefixes.iter().find(|(p, _)| p == prefix)?;
                (Some(namespace.as_str().into()), local)
            }
        };
        if !is_nc_name(local) {
            return None;
        }
        self.rest = rest;
        Some(Expression { namespace, local: local.into() })
    }

    /// What stands in brackets, the closing one included.
    fn condition(&mut self) -> Option<Vec<Vec<Comparison>>> {
        let mut any = vec![Vec::new()];
        for _ in 0..MAX_COMPARISONS {
            any.last_mut()?.push(self.comparison()?);
            self.rest = self.rest.trim_start();
            match () {
                () if self.eat("]").is_some() => return Some(any),
                () if self.word("and") => {}
                () if self.word("or") => any.push(Vec::new()),
                () => return None,
            }
        }
        None
    }

    fn word(&mut self, word: &str) -> bool {
        match self.rest.strip_prefix(word) {
            Some(rest) if rest.starts_with(|c: char| c.is_whitespace()) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let operand = match () {
            () if self.eat("..").is_some() => Operand::Parent,
            () if self.eat(".").is_some() => Operand::Itself,
            () => {
                let (mut steps, mut attribute) = (Vec::new(), None);
                loop {
                    if self.eat("@").is_some() {
                        attribute = Some(self.name()?);
                        break;
                    }
                    steps.push(self.name_or_any()?);
                    if steps.len() > MAX_STEPS {
                        return None;
                    }
                    if self.eat("/").is_none() {
                        break;
                    }
                }
                Operand::Below(steps, attribute)
            }
        };
        let operator = ['=', '<', '>'].into_iter().find(|o| self.eat(o.encode_utf8(&mut [0; 4])).is_some())?;
        self.rest = self.rest.trim_start();
        let quote = self.rest.chars().next()?;
        let value = match quote {
            '"' | '\'' => {
                let (value, rest) = self.rest[1..].split_once(quote)?;
                self.rest = rest;
                value
            }
            _ => {
                let end = self.rest.find(|c: char| c.is_whitespace() || c == ']')?;
                let (value, rest) = self.rest.split_at(end);
                self.rest = rest;
                value
            }
        };
        (!value.is_empty() || matches!(quote, '"' | '\'')).then(|| Comparison {
            operand,
            operator,
            value: value.into(),
        })
    }
}
