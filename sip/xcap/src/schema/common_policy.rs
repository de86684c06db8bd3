//! RFC 4745 §13.

use super::{Attribute, Content, Declaration, Kind, MANY, Part, Simple, Term};

pub const COMMON_POLICY: &str = "urn:ietf:params:xml:ns:common-policy";

pub static RULESET: Declaration = declare("ruleset", &Kind::sequence(&[Part::any(&RULE)], &[]));

static RULE: Declaration = declare(
    "rule",
    &Kind::sequence(
        &[Part::optional(&CONDITIONS), Part::optional(&ACTIONS), Part::optional(&TRANSFORMATIONS)],
        &[Attribute::required("id", Simple::Id)],
    ),
);

static CONDITIONS: Declaration = declare(
    "conditions",
    &choice(
        &[Part::optional(&IDENTITY), Part::optional(&SPHERE), Part::optional(&VALIDITY), Part::others(COMMON_POLICY)],
        1,
        &[],
    ),
);

static IDENTITY: Declaration = declare(
    "identity",
    &choice(&[Part::one(&ONE), Part::one(&MANY_OF), Part::new(Term::Other(COMMON_POLICY), 1, 1)], 1, &[]),
);

static ONE: Declaration = declare(
    "one",
    &Kind::sequence(&[Part::new(Term::Other(COMMON_POLICY), 0, 1)], &[Attribute::required("id", Simple::Uri)]),
);

static MANY_OF: Declaration = declare(
    "many",
    &choice(
        &[Part::one(&EXCEPT), Part::new(Term::Other(COMMON_POLICY), 0, 1)],
        0,
        &[Attribute::optional("domain", Simple::Text)],
    ),
);

static EXCEPT: Declaration = declare(
    "except",
    &Kind::empty(&[Attribute::optional("domain", Simple::Text), Attribute::optional("id", Simple::Uri)]),
);

static SPHERE: Declaration = declare("sphere", &Kind::empty(&[Attribute::required("value", Simple::Text)]));

static VALIDITY: Declaration = declare(
    "validity",
    &Kind {
        content: Content::Elements(Part::new(Term::Sequence(&[Part::one(&FROM), Part::one(&UNTIL)]), 1, MANY)),
        attributes: &[],
        other_attributes: false,
    },
);

static FROM: Declaration = declare("from", &Kind::text(Simple::DateTime, &[]));
static UNTIL: Declaration = declare("until", &Kind::text(Simple::DateTime, &[]));

static ACTIONS: Declaration = declare("actions", EXTENSIBLE);
static TRANSFORMATIONS: Declaration = declare("transformations", EXTENSIBLE);
const EXTENSIBLE: &Kind = &Kind::sequence(&[Part::others(COMMON_POLICY)], &[]);

const fn declare(name: &'static str, kind: &'static Kind) -> Declaration {
    Declaration { namespace: COMMON_POLICY, name, kind }
}

const fn choice(parts: &'static [Part], min: usize, attributes: &'static [Attribute]) -> Kind {
    Kind { content: Content::Elements(Part::new(Term::Choice(parts), min, MANY)), attributes, other_attributes: false }
}
