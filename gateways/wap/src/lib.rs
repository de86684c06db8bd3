//! WAP push as octets: what a handset of the WAP years understands when it comes in a short message to port 2948.
//!
//! Does not do: the short message itself (`gw-sms`), WBXML of other families (`gw-wbxml`).
