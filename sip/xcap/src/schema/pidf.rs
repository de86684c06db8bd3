//! RFC 3863 §4.4.

use super::{Attribute, Declaration, Kind, LANG, Part, Simple};

pub const PIDF: &str = "urn:ietf:params:xml:ns:pidf";

pub static PRESENCE: Declaration = declare(
    "presence",
    &Kind::sequence(
        &[Part::any(&TUPLE), Part::any(&NOTE), Part::others(PIDF)],
        &[Attribute::required("entity", Simple::Uri)],
    ),
);

static TUPLE: Declaration = declare(
    "tuple",
    &Kind::sequence(
        &[
            Part::one(&STATUS),
            Part::others(PIDF),
            Part::optional(&CONTACT),
            Part::any(&NOTE),
            Part::optional(&TIMESTAMP),
        ],
        &[Attribute::required("id", Simple::Id)],
    ),
);

static STATUS: Declaration = declare("status", &Kind::sequence(&[Part::optional(&BASIC), Part::others(PIDF)], &[]));
static BASIC: Declaration = declare("basic", &Kind::text(Simple::OneOf(&["open", "closed"]), &[]));
static CONTACT: Declaration =
    declare("contact", &Kind::text(Simple::Uri, &[Attribute::optional("priority", Simple::Priority)]));
static NOTE: Declaration = declare("note", &Kind::text(Simple::Text, &[LANG]));
static TIMESTAMP: Declaration = declare("timestamp", &Kind::text(Simple::DateTime, &[]));

const fn declare(name: &'static str, kind: &'static Kind) -> Declaration {
    Declaration { namespace: PIDF, name, kind }
}
