//! Headers that point at another dialog: Replaces (RFC 3891), Target-Dialog (RFC 4538), Referred-By (RFC 3892), and
//! what a Refer-To URI may carry (RFC 3515).

use std::borrow::Cow;

use super::name_addr::NameAddr;
use super::param::{Params, is_token_text, main_and_params};
use crate::message::is_lws;
use crate::method::Method;
use crate::uri::decoded;

/// `Replaces: call-id;to-tag=…;from-tag=…;early-only`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replaces<'a> {
    pub call_id: &'a [u8],
    /// The tag of the receiver of this header: its local tag.
    pub to_tag: &'a [u8],
    pub from_tag: &'a [u8],
    pub early_only: bool,
}

impl<'a> Replaces<'a> {
    /// Both tags must be there (RFC 3891 §6.1); without them `None`.
    pub fn parse(value: &'a [u8]) -> Option<Replaces<'a>> {
        let (call_id, params) = dialog(value)?;
        let (to_tag, from_tag) = (tag(params, "to-tag")?, tag(params, "from-tag")?);
        Some(Replaces { call_id, to_tag, from_tag, early_only: params.has("early-only") })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        for part in [self.call_id, b";to-tag=", self.to_tag, b";from-tag=", self.from_tag] {
            out.extend_from_slice(part);
        }
        if self.early_only {
            out.extend_from_slice(b";early-only");
        }
    }
}

/// `Target-Dialog: call-id;local-tag=…;remote-tag=…`, the tags as the sender sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TargetDialog<'a> {
    pub call_id: &'a [u8],
    pub local_tag: &'a [u8],
    pub remote_tag: &'a [u8],
}

impl<'a> TargetDialog<'a> {
    pub fn parse(value: &'a [u8]) -> Option<TargetDialog<'a>> {
        let (call_id, params) = dialog(value)?;
        Some(TargetDialog { call_id, local_tag: tag(params, "local-tag")?, remote_tag: tag(params, "remote-tag")? })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        for part in [self.call_id, b";local-tag=", self.local_tag, b";remote-tag=", self.remote_tag] {
            out.extend_from_slice(part);
        }
    }
}

fn tag<'a>(params: Params<'a>, name: &str) -> Option<&'a [u8]> {
    params.get(name).filter(|t| is_token_text(t))
}

fn dialog(value: &[u8]) -> Option<(&[u8], Params<'_>)> {
    let (call_id, params) = main_and_params(value)?;
    (!call_id.is_empty() && !call_id.iter().any(|b| is_lws(*b))).then_some((call_id, params))
}

/// `Refer-To: <sip:carol@h;method=BYE?Replaces=…>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReferTo<'a>(pub NameAddr<'a>);

impl<'a> ReferTo<'a> {
    pub fn parse(value: &'a [u8]) -> Option<ReferTo<'a>> {
        NameAddr::parse(value).filter(|a| !a.is_star()).map(ReferTo)
    }

    /// The method that the referred-to request shall have: INVITE unless the URI says otherwise.
    pub fn method(&self) -> Method {
        self.0.uri().and_then(|u| u.params().get("method")).map_or(Method::Invite, Method::from_bytes)
    }

    /// The value of an embedded header, its escapes resolved: `embedded("Replaces")`.
    pub fn embedded(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.0
            .uri()?
            .header_fields()
            .find(|(n, _)| decoded(n).eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, v)| decoded(v))
    }
}

/// `Referred-By: <sip:r@h>;cid="…@…"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReferredBy<'a>(pub NameAddr<'a>);

impl<'a> ReferredBy<'a> {
    pub fn parse(value: &'a [u8]) -> Option<ReferredBy<'a>> {
        NameAddr::parse(value).filter(|a| !a.is_star()).map(ReferredBy)
    }

    /// The Content-ID of the body part that holds the referrer's token.
    pub fn cid(&self) -> Option<Cow<'a, [u8]>> {
        self.0.params.text("cid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refer_with_replaces_comes_apart() {
        let r = ReferTo::parse(b"<sip:carol@cleveland.example.org;method=INVITE?Replaces=12345%40192.168.118.3%3Bto-tag%3D12345%3Bfrom-tag%3D5FFE-3994>").unwrap();
        assert_eq!(r.method(), Method::Invite);
        let value = r.embedded("replaces").unwrap();
        let replaces = Replaces::parse(&value).unwrap();
        assert_eq!(replaces.call_id, b"12345@192.168.118.3");
        assert_eq!(
            (replaces.to_tag, replaces.from_tag, replaces.early_only),
            (&b"12345"[..], &b"5FFE-3994"[..], false)
        );
        assert_eq!(ReferTo::parse(b"<sip:a@h;method=BYE>").unwrap().method(), Method::Bye);
    }

    #[test]
    fn dialogs_need_both_tags() {
        let text = b"c@h;to-tag=1;from-tag=2;early-only";
        let mut out = Vec::new();
        Replaces::parse(text).unwrap().write(&mut out);
        assert_eq!(out, text);
        let text = b"c@h;local-tag=1;remote-tag=2";
        let mut out = Vec::new();
        TargetDialog::parse(text).unwrap().write(&mut out);
        assert_eq!(out, text);
        assert_eq!(Replaces::parse(b"c@h;to-tag=1"), None);
        assert_eq!(Replaces::parse(b"c@h;to-tag=\"1\";from-tag=2"), None);
        assert_eq!(Replaces::parse(b"c@h;to-tag=1;from-tag=2;x=\"y"), None);
        assert_eq!(Replaces::parse(b";to-tag=1;from-tag=2"), None);
        assert_eq!(TargetDialog::parse(b"c@h;local-tag=1"), None);
    }

    #[test]
    fn the_referrers_token_is_found() {
        let r = ReferredBy::parse(b"<sip:r@h>;cid=\"2UWQFN309shb3@h\"").unwrap();
        assert_eq!(r.cid().unwrap().as_ref(), b"2UWQFN309shb3@h");
    }
}
