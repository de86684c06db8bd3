//! Namespaces and media types.

/// RFC 3863.
pub const PIDF: &str = "urn:ietf:params:xml:ns:pidf";
/// RFC 4479.
pub const DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";
/// RFC 4480.
pub const RPID: &str = "urn:ietf:params:xml:ns:pidf:rpid";
/// RFC 5196.
pub const CAPS: &str = "urn:ietf:params:xml:ns:pidf:caps";
/// RFC 5262.
pub const PIDF_DIFF: &str = "urn:ietf:params:xml:ns:pidf-diff";
/// OMA Presence SIMPLE.
pub const OMA_PRES: &str = "urn:oma:xml:prs:pidf:oma-pres";
/// RFC 4662.
pub const RLMI: &str = "urn:ietf:params:xml:ns:rlmi";
/// RFC 3858.
pub const WATCHERINFO: &str = "urn:ietf:params:xml:ns:watcherinfo";
/// RFC 4745.
pub const COMMON_POLICY: &str = "urn:ietf:params:xml:ns:common-policy";
/// RFC 5025.
pub const PRES_RULES: &str = "urn:ietf:params:xml:ns:pres-rules";
/// RFC 4661.
pub const SIMPLE_FILTER: &str = "urn:ietf:params:xml:ns:simple-filter";
/// OMA Presence XDM §5.1.
pub const OMA_COMMON_POLICY: &str = "urn:oma:xml:xdm:common-policy";

pub const PIDF_TYPE: &[u8] = b"application/pidf+xml";
pub const PIDF_DIFF_TYPE: &[u8] = b"application/pidf-diff+xml";
pub const SIMPLE_FILTER_TYPE: &[u8] = b"application/simple-filter+xml";
/// Of a SUBSCRIBE to the address that takes lists.
pub const LIST_FORMATS: &[u8] = b"application/resource-lists+xml, application/simple-filter+xml";
pub const RLMI_TYPE: &[u8] = b"application/rlmi+xml";
pub const SUMMARY_TYPE: &[u8] = b"application/simple-message-summary";
pub const WATCHERINFO_TYPE: &[u8] = b"application/watcherinfo+xml";

/// The prefixes that a composed document binds, beside PIDF as its default namespace: the bit that stands for each.
pub const BOUND: [(&str, &str, u8); 3] = [("dm", DATA_MODEL, 1), ("rpid", RPID, 2), ("caps", CAPS, 4)];
