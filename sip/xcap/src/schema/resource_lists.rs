//! RFC 4826 §3.2.

use super::{Attribute, Content, Declaration, Kind, LANG, MANY, Part, Simple, Term};

pub const RESOURCE_LISTS: &str = "urn:ietf:params:xml:ns:resource-lists";

pub static LISTS: Declaration =
    Declaration { namespace: RESOURCE_LISTS, name: "resource-lists", kind: &Kind::sequence(&[Part::any(&LIST)], &[]) };

static LIST: Declaration = Declaration { namespace: RESOURCE_LISTS, name: "list", kind: &LIST_TYPE };

/// `listType`, which an rls-services document uses too.
pub static LIST_TYPE: Kind = Kind {
    content: Content::Elements(Part::new(
        Term::Sequence(&[
            Part::optional(&DISPLAY_NAME),
            Part::new(
                Term::Choice(&[Part::one(&LIST), Part::one(&EXTERNAL), Part::one(&ENTRY), Part::one(&ENTRY_REF)]),
                0,
                MANY,
            ),
            Part::others(RESOURCE_LISTS),
        ]),
        1,
        1,
    )),
    attributes: &[Attribute::optional("name", Simple::Text)],
    other_attributes: true,
};

static DISPLAY_NAME: Declaration =
    Declaration { namespace: RESOURCE_LISTS, name: "display-name", kind: &Kind::text(Simple::Text, &[LANG]) };

static ENTRY: Declaration = Declaration {
    namespace: RESOURCE_LISTS,
    name: "entry",
    kind: &Kind::sequence(NAMED, &[Attribute::required("uri", Simple::Uri)]).open(),
};

static ENTRY_REF: Declaration = Declaration {
    namespace: RESOURCE_LISTS,
    name: "entry-ref",
    kind: &Kind::sequence(NAMED, &[Attribute::required("ref", Simple::Uri)]).open(),
};

static EXTERNAL: Declaration = Declaration {
    namespace: RESOURCE_LISTS,
    name: "external",
    kind: &Kind::sequence(NAMED, &[Attribute::optional("anchor", Simple::Uri)]).open(),
};

const NAMED: &[Part] = &[Part::optional(&DISPLAY_NAME), Part::others(RESOURCE_LISTS)];
