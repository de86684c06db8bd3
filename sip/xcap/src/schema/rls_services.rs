//! RFC 4826 §4.2.

use super::resource_lists::LIST_TYPE;
use super::{Attribute, Content, Declaration, Kind, MANY, Part, Simple, Term};

pub const RLS_SERVICES: &str = "urn:ietf:params:xml:ns:rls-services";

pub static SERVICES: Declaration =
    Declaration { namespace: RLS_SERVICES, name: "rls-services", kind: &Kind::sequence(&[Part::any(&SERVICE)], &[]) };

static SERVICE: Declaration = Declaration {
    namespace: RLS_SERVICES,
    name: "service",
    kind: &Kind::sequence(
        &[
            Part::new(Term::Choice(&[Part::one(&RESOURCE_LIST), Part::one(&LIST)]), 1, 1),
            Part::optional(&PACKAGES),
            Part::others(RLS_SERVICES),
        ],
        &[Attribute::required("uri", Simple::Uri)],
    )
    .open(),
};

static RESOURCE_LIST: Declaration =
    Declaration { namespace: RLS_SERVICES, name: "resource-list", kind: &Kind::text(Simple::Uri, &[]) };

/// Of this namespace, with the content of the other.
static LIST: Declaration = Declaration { namespace: RLS_SERVICES, name: "list", kind: &LIST_TYPE };

static PACKAGES: Declaration = Declaration {
    namespace: RLS_SERVICES,
    name: "packages",
    kind: &Kind {
        content: Content::Elements(Part::new(
            Term::Sequence(&[Part::one(&PACKAGE), Part::others(RLS_SERVICES)]),
            0,
            MANY,
        )),
        attributes: &[],
        other_attributes: false,
    },
};

static PACKAGE: Declaration =
    Declaration { namespace: RLS_SERVICES, name: "package", kind: &Kind::text(Simple::Text, &[]) };
