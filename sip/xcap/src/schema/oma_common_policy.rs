//! Conditions of OMA XDM (OMA-SUP-XSD_xdm_commonPolicy-V1_0).

use super::{Attribute, Content, Declaration, Kind, MANY, Part, Simple, Term};

pub const OMA_COMMON_POLICY: &str = "urn:oma:xml:xdm:common-policy";

pub(super) const GLOBAL: &[&Declaration] = &[&OTHER_IDENTITY, &ANONYMOUS_REQUEST, &EXTERNAL_LIST];

static OTHER_IDENTITY: Declaration = declare("other-identity", &Kind::empty(&[]));
static ANONYMOUS_REQUEST: Declaration = declare("anonymous-request", &Kind::empty(&[]));
static EXTERNAL_LIST: Declaration = declare(
    "external-list",
    &Kind {
        content: Content::Elements(Part::new(
            Term::Choice(&[Part::one(&ENTRY), Part::new(Term::Other(OMA_COMMON_POLICY), 1, 1)]),
            0,
            MANY,
        )),
        attributes: &[],
        other_attributes: false,
    },
);
static ENTRY: Declaration = declare("entry", &Kind::empty(&[Attribute::optional("anc", Simple::Text)]).open());

const fn declare(name: &'static str, kind: &'static Kind) -> Declaration {
    Declaration { namespace: OMA_COMMON_POLICY, name, kind }
}
