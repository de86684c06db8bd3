//! RFC 5025 §7: what stands in the actions and transformations of a rule of RFC 4745.

use super::{Attribute, Content, Declaration, Kind, MANY, Part, Simple, Term};

pub const PRES_RULES: &str = "urn:ietf:params:xml:ns:pres-rules";

pub(super) const GLOBAL: &[&Declaration] = &[
    &SERVICE_URI_SCHEME,
    &CLASS,
    &OCCURRENCE_ID,
    &SERVICE_URI,
    &DEVICE_ID,
    &PROVIDE_SERVICES,
    &PROVIDE_DEVICES,
    &PROVIDE_PERSONS,
    &declare("provide-activities", PERMISSION),
    &declare("provide-class", PERMISSION),
    &declare("provide-deviceID", PERMISSION),
    &declare("provide-mood", PERMISSION),
    &declare("provide-place-is", PERMISSION),
    &declare("provide-place-type", PERMISSION),
    &declare("provide-privacy", PERMISSION),
    &declare("provide-relationship", PERMISSION),
    &declare("provide-status-icon", PERMISSION),
    &declare("provide-sphere", PERMISSION),
    &declare("provide-time-offset", PERMISSION),
    &declare("provide-note", PERMISSION),
    &declare("provide-user-input", &Kind::text(Simple::OneOf(&["false", "bare", "thresholds", "full"]), &[])),
    &declare("sub-handling", &Kind::text(Simple::Token(&["block", "confirm", "polite-block", "allow"]), &[])),
    &declare(
        "provide-unknown-attribute",
        &Kind::text(
            Simple::Boolean,
            &[Attribute::required("name", Simple::Text), Attribute::required("ns", Simple::Text)],
        ),
    ),
    &declare("provide-all-attributes", EMPTY),
];

const PERMISSION: &Kind = &Kind::text(Simple::Boolean, &[]);
const WORD: &Kind = &Kind::text(Simple::Text, &[]);
const URI: &Kind = &Kind::text(Simple::Uri, &[]);
const EMPTY: &Kind = &Kind::empty(&[]);

static SERVICE_URI_SCHEME: Declaration = declare("service-uri-scheme", WORD);
static CLASS: Declaration = declare("class", WORD);
static OCCURRENCE_ID: Declaration = declare("occurrence-id", WORD);
static SERVICE_URI: Declaration = declare("service-uri", URI);
static DEVICE_ID: Declaration = declare("deviceID", URI);

static PROVIDE_SERVICES: Declaration = declare(
    "provide-services",
    &all_or(&[
        Part::one(&ALL_SERVICES),
        Part::new(
            Term::Choice(&[
                Part::one(&SERVICE_URI),
                Part::one(&SERVICE_URI_SCHEME),
                Part::one(&OCCURRENCE_ID),
                Part::one(&CLASS),
                OTHER,
            ]),
            0,
            MANY,
        ),
    ]),
);

static PROVIDE_DEVICES: Declaration = declare(
    "provide-devices",
    &all_or(&[
        Part::one(&ALL_DEVICES),
        Part::new(Term::Choice(&[Part::one(&DEVICE_ID), Part::one(&OCCURRENCE_ID), Part::one(&CLASS), OTHER]), 0, MANY),
    ]),
);

static PROVIDE_PERSONS: Declaration = declare(
    "provide-persons",
    &all_or(&[
        Part::one(&ALL_PERSONS),
        Part::new(Term::Choice(&[Part::one(&OCCURRENCE_ID), Part::one(&CLASS), OTHER]), 0, MANY),
    ]),
);

static ALL_SERVICES: Declaration = declare("all-services", EMPTY);
static ALL_DEVICES: Declaration = declare("all-devices", EMPTY);
static ALL_PERSONS: Declaration = declare("all-persons", EMPTY);

const OTHER: Part = Part::new(Term::Other(PRES_RULES), 1, 1);

const fn declare(name: &'static str, kind: &'static Kind) -> Declaration {
    Declaration { namespace: PRES_RULES, name, kind }
}

const fn all_or(parts: &'static [Part]) -> Kind {
    Kind { content: Content::Elements(Part::new(Term::Choice(parts), 1, 1)), attributes: &[], other_attributes: false }
}
